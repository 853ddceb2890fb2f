"""Measures what a night costs over lakes of different sizes.

`make bench` runs it after `whole.py`, with the same release build. Each lake has so many leads, 100,000 a
year, in partitions by month, so that the days a night reads again hold as many leads in each of them. Then
10,000 of them change, and a sync is measured: its processor time, its peak memory, and the bytes that it
reads and writes by system calls, scratch files and archive with the rest (`rchar` and `wchar` of
/proc/PID/io: Linux alone).
"""

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import whole

JOB = (
    whole.JOB
    + """
[refresh]
every_run = "60d"
[load]
partition = "month"
"""
)

# Leads that change between two syncs, of the days that are read again.
CHANGED = 10_000
LEADS_A_YEAR = 100_000


class Night(whole.Figures):
    """What a sync took, and what it read and wrote."""

    def __init__(self, wall, cpu, peak, read, written):
        super().__init__(wall, cpu, peak)
        self.read, self.written = read, written

    @staticmethod
    def median(nights):
        names = ("wall", "cpu", "peak", "read", "written")
        middle = lambda values: sorted(values)[len(values) // 2]
        return Night(*(middle([getattr(night, name) for night in nights]) for name in names))


def sync(binary, job, environment, log):
    """Runs a sync to its end and returns its figures."""
    with open(log, "wb") as out:
        started = time.monotonic()
        process = subprocess.Popen(
            [binary, "sync", str(job)], env=environment, stdout=out, stderr=out
        )
        # It has ended, and is there until it is waited for.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - started
        counts = Path(f"/proc/{process.pid}/io").read_text()
        _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.stderr.write(Path(log).read_text())
        raise SystemExit(f"a sync ended with {os.waitstatus_to_exitcode(status)}")
    count = lambda name: int(re.search(rf"^{name}: (\d+)$", counts, re.M).group(1)) / 1e6
    cpu = used.ru_utime + used.ru_stime
    return Night(wall, cpu, used.ru_maxrss * 1024 / 1e6, count("rchar"), count("wchar"))


def change(sandbox, count, night):
    """Changes the youngest leads."""
    youngest = sorted(pair[1] for pair in sandbox.call("/sandbox/leads?ids=1"))[-count:]
    connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=600)
    headers = {"content-type": "application/json"}
    for lead_id in youngest:
        edit = {"lead_id": lead_id, "edit": {"set": {"contact_name": f"Robin {night} {lead_id}"}}}
        connection.request("POST", "/sandbox/edit", json.dumps(edit), headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 204:
            raise RuntimeError(f"lead {lead_id} was not changed: {answer.status}")


def measure(binary, leads, runs, folder):
    """Fills a lake and lives through nights; returns its parts, the first sync, and the nights' medians:
    one in which nothing changes, and one in which leads do."""
    job, lake, log = folder / "job.toml", folder / "lake", folder / "log"
    years = max(1, leads // LEADS_A_YEAR)
    world = [*whole.world_of_agency(), "--years", str(years), "--per-day", "1000000"]
    with whole.Sandbox(binary, leads, world) as sandbox:
        key = sandbox.call("/sandbox/keys")["master"]
        environment = {**os.environ, "BENCH_TOKEN": key["token"], "BENCH_SECRET": key["secret"]}
        start = f"{time.gmtime().tm_year - years - 1}-12-01"
        quota = "[sources.quota]\nper_day = 1000000\n"
        job.write_text(JOB.format(url=sandbox.url, start=start).replace("\n[refresh]", f"{quota}[refresh]"))
        first = sync(binary, job, environment, log)
        calm, busy = [], []
        for night in range(runs):
            calm.append(sync(binary, job, environment, log))
            count = min(CHANGED, leads // 10)
            whole.in_child(lambda: change(sandbox, count, night))
            busy.append(sync(binary, job, environment, log))
    parts = len(list((lake / "parts").rglob("*.parquet")))
    return parts, first, Night.median(calm), Night.median(busy)


def print_row(what, leads, parts, night):
    print(
        f"{what:<22} {leads:>9} {parts:>6} {night.wall:>8.2f} {night.cpu:>8.2f} {night.peak:>8.0f}"
        f" {night.read:>8.1f} {night.written:>10.1f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the leadpipe to measure")
    parser.add_argument("--runs", type=int, default=1, help="nights of which the median is shown")
    parser.add_argument("leads", type=int, nargs="*", help="by default 100000 1000000")
    arguments = parser.parse_args()
    binary = str(Path(arguments.binary).resolve())
    print("what                       leads  parts   wall s    CPU s  peak MB  read MB  written MB")
    busiest = []
    for leads in arguments.leads or [100_000, 1_000_000]:
        folder = Path(tempfile.mkdtemp(prefix="leadpipe-bench-"))
        try:
            parts, first, calm, busy = measure(binary, leads, arguments.runs, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print_row("first sync", leads, parts, first)
        print_row("night, none changed", leads, parts, calm)
        print_row(f"night, {min(CHANGED, leads // 10)} changed", leads, parts, busy)
        busiest.append(busy)
    if len(busiest) > 1:
        first, last = busiest[0], busiest[-1]
        growth = {name: getattr(last, name) / getattr(first, name) for name in ("written", "read", "wall", "peak")}
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in growth.items())
        print(f"a night with changes, the last size to the first: {told}")


if __name__ == "__main__":
    main()
