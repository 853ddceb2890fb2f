"""Measures leadpipe as whole processes against a floor of the same sitting.

`make bench` runs it with a release build. For each number of leads, from the sandbox, another process:
a first sync, the sync after it, with some leads changed, and a replay of the archive; then a first sync
whose answers all come later, and the start-up.
The floor (`floor.rs`) parses the same pages and writes the same fields, and nothing else, on one thread.
No package is needed, and none is imported: on Linux the peak memory of a child begins at that of the
process it was forked from, so this one stays small.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

JOB = """
name = "bench"
lake = "lake"

[[sources]]
name = "acme"
provider = "whatconverts"
base_url = "{url}"
token = {{ env = "BENCH_TOKEN" }}
secret = {{ env = "BENCH_SECRET" }}
plan = "master"
start = {start}
currency = "USD"
default_region = "US"
"""

# Leads of the last days that change between two syncs.
CHANGED = 1_000


class Figures:
    """What a process took; of several runs the median of each."""

    def __init__(self, wall, cpu, peak):
        self.wall, self.cpu, self.peak = wall, cpu, peak

    @staticmethod
    def median(figures):
        middle = lambda values: sorted(values)[len(values) // 2]
        return Figures(*(middle([getattr(f, name) for f in figures]) for name in ("wall", "cpu", "peak")))


def run(command, environment, log):
    """Runs a command to its end and returns its figures."""
    with open(log, "wb") as out:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    if os.waitstatus_to_exitcode(status) != 0:
        sys.stderr.write(Path(log).read_text())
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    # Linux counts in KiB, macOS in bytes.
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Figures(wall, used.ru_utime + used.ru_stime, peak / 1e6)


def in_child(work):
    """Does some work in a process of its own: what it takes more memory for than a sync would stay with this
    one, at whose size the peaks of its children begin."""
    if child := os.fork():
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise SystemExit("the sandbox did not change its leads")
        return
    status = 1
    try:
        work()
        status = 0
    except Exception as failed:
        print(failed, file=sys.stderr)
    finally:
        os._exit(status)


class Sandbox:
    """A platform with so many leads, to which nothing happens by itself."""

    def __init__(self, binary, leads, world):
        command = [binary, "sandbox", "--leads", str(leads), "--port", "0", "--still", *world]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = found.group()
                return
        raise SystemExit("the sandbox did not say where it listens")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=600) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def change(self, count):
        """Changes the youngest leads."""
        pairs = self.call("/sandbox/leads?ids=1")
        for lead_id in sorted(pair[1] for pair in pairs)[-count:]:
            edit = {"set": {"contact_name": f"Robin {lead_id}"}}
            self.call("/sandbox/edit", {"lead_id": lead_id, "edit": edit})


def floor_of(lake):
    """Returns the CPU seconds in which the pages of a lake can be parsed and written at all."""
    command = ["cargo", "bench", "--quiet", "--bench", "floor", "--", str(lake), "acme"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def world_of_agency():
    """Two profiles, whose leads are none younger than a day: a sync leaves out the last two minutes."""
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
    return ["--profiles", "2", "--accounts", "1", "--now", yesterday]


def first_sync(binary, sandbox, folder):
    """Runs a first sync; returns its job, the environment it needs, and its figures."""
    job, key = folder / "job.toml", sandbox.call("/sandbox/keys")["master"]
    environment = {**os.environ, "BENCH_TOKEN": key["token"], "BENCH_SECRET": key["secret"]}
    # The world has five years of history.
    job.write_text(JOB.format(url=sandbox.url, start=f"{time.gmtime().tm_year - 6}-12-01"))
    return job, environment, run([binary, "sync", str(job)], environment, folder / "log")


def rows_of(binary, job, environment):
    """Returns the rows of a lake."""
    listed = subprocess.run(
        [binary, "files", str(job), "--json"], env=environment, stdout=subprocess.PIPE, check=True
    )
    return sum(file["rows"] for file in json.loads(listed.stdout)["files"])


def measure(binary, leads, folder):
    """Lives through two syncs and a replay; returns rows, requests, floor, and the figures of each."""
    lake, log = folder / "lake", folder / "log"
    with Sandbox(binary, leads, world_of_agency()) as sandbox:
        job, environment, first = first_sync(binary, sandbox, folder)
        requests = len(sandbox.call("/sandbox/requests"))
        floor = floor_of(lake)
        changed = min(CHANGED, leads // 100)
        in_child(lambda: sandbox.change(changed))
        night = run([binary, "sync", str(job)], environment, log)
    replay = run([binary, "replay", str(job)], environment, log)
    rows = rows_of(binary, job, environment)
    stages = {"first sync": first, f"sync, {changed} changed": night, "replay": replay}
    return rows, requests, floor, stages


def measure_slow(binary, leads, delay_ms, folder):
    """Syncs from a platform that takes its time; returns rows, requests, most of them at once, the seconds
    from the first of them to the last answer, and the figures of the whole."""
    world = [*world_of_agency(), "--behaviour", json.dumps({"delay_ms": delay_ms})]
    with Sandbox(binary, leads, world) as sandbox:
        job, environment, figures = first_sync(binary, sandbox, folder)
        requests = sandbox.call("/sandbox/requests")
    # Nanoseconds are more than `datetime` reads.
    sent = [datetime.fromisoformat(request["at"][:26]) for request in requests]
    reading = (max(sent) - min(sent)).total_seconds() + delay_ms / 1000
    at_once = max(request["at_once"] for request in requests)
    return rows_of(binary, job, environment), len(requests), at_once, reading, figures


def in_folders(runs, measure):
    """Measures so many times, each in a folder of its own that is gone afterwards."""
    measured = []
    for _ in range(runs):
        folder = Path(tempfile.mkdtemp(prefix="leadpipe-bench-"))
        try:
            measured.append(measure(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return measured


def print_slow(binary, leads, delay_ms, runs):
    measured = in_folders(runs, lambda folder: measure_slow(binary, leads, delay_ms, folder))
    rows, requests, at_once, *_ = measured[0]
    figures = Figures.median([found[4] for found in measured])
    reading = sorted(found[3] for found in measured)[len(measured) // 2]
    least = requests * delay_ms / 1000 / at_once
    print_row(f"sync, {delay_ms} ms later", rows, figures, None)
    print(
        f"  ({requests} requests, up to {at_once} at once, so {least:.2f} s at least:"
        f" reading took {reading / least:.2f} times that, the whole {figures.wall / least:.2f})"
    )


def print_row(what, rows, figures, floor):
    speed, ratio = "", ""
    if floor:
        speed = f"{rows / figures.cpu:.0f}"
        ratio = f"{figures.cpu / floor:.2f}"
    print(
        f"{what:<22} {rows:>9} {figures.wall:>8.2f} {figures.cpu:>8.2f} {speed:>12} {ratio:>8}"
        f" {figures.peak:>8.0f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the leadpipe to measure")
    parser.add_argument("--runs", type=int, default=1, help="of which the median is shown")
    parser.add_argument("--delay-ms", type=int, default=300, help="of each answer, in the last part")
    parser.add_argument("leads", type=int, nargs="*", help="by default 100000 500000")
    arguments = parser.parse_args()
    binary = str(Path(arguments.binary).resolve())
    print(f"{os.cpu_count()} CPUs; the sandbox, a process of its own, uses them too")
    print("what                       leads   wall s    CPU s  leads/CPU s  x floor  peak MB")
    starts = [run([binary, "--version"], dict(os.environ), os.devnull) for _ in range(21)]
    print_row("start-up", 0, Figures.median(starts), None)
    peaks = []
    sizes = arguments.leads or [100_000, 500_000]
    for leads in sizes:
        measured = in_folders(arguments.runs, lambda folder: measure(binary, leads, folder))
        rows, requests, floor, _ = measured[0]
        cpu = sorted(found[2]["cpu"] for found in measured)[len(measured) // 2]
        print_row("floor", rows, Figures(cpu, cpu, 0), cpu)
        for stage in measured[0][3]:
            figures = Figures.median([found[3][stage] for found in measured])
            # A sync that reads the last days only has no floor of its own.
            print_row(stage, rows, figures, None if "changed" in stage else cpu)
            if stage == "first sync":
                peaks.append(figures.peak)
        print(f"  ({requests} requests, {floor['bytes'] / rows:.0f} bytes of JSON a lead)")
    print_slow(binary, sizes[0], arguments.delay_ms, arguments.runs)
    if len(peaks) > 1:
        print(f"peak memory of a first sync, the last size to the first: {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
