"""Measures first syncs as whole processes: time, CPU and peak memory of leadpipe alone.

`make bench` runs it with a release build. The sandbox is another process, so that neither its CPU
time nor its memory is counted. No package is needed, and none is imported: on Linux the peak memory
of a child begins at that of the process it was forked from, so this one stays small.
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


def start_sandbox(binary, leads):
    # No lead is younger than a day: a sync leaves out the last two minutes.
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
    command = [binary, "sandbox", "--leads", str(leads), "--port", "0", "--still", "--profiles", "2", "--accounts", "1"]
    command += ["--now", yesterday]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found.group()
    raise SystemExit("the sandbox did not say where it listens")


def get(url):
    with urllib.request.urlopen(url, timeout=600) as answer:
        return json.load(answer)


def measure(binary, leads, folder):
    """Runs one first sync and returns its figures."""
    sandbox, url = start_sandbox(binary, leads)
    try:
        key = get(f"{url}/sandbox/keys")["master"]
        environment = {**os.environ, "BENCH_TOKEN": key["token"], "BENCH_SECRET": key["secret"]}
        job = folder / "job.toml"
        # The world has five years of history.
        start = f"{time.gmtime().tm_year - 6}-12-01"
        job.write_text(JOB.format(url=url, start=start))
        with open(folder / "log", "wb") as log:
            started = time.monotonic()
            process = subprocess.Popen(
                [binary, "sync", str(job)], env=environment, stdout=log, stderr=log
            )
            _, status, used = os.wait4(process.pid, 0)
            wall = time.monotonic() - started
        if os.waitstatus_to_exitcode(status) != 0:
            sys.stderr.write((folder / "log").read_text())
            raise SystemExit(f"leadpipe ended with {os.waitstatus_to_exitcode(status)}")
        listed = subprocess.run(
            [binary, "files", str(job), "--json"],
            env=environment, stdout=subprocess.PIPE, check=True,
        )
        rows = sum(file["rows"] for file in json.loads(listed.stdout)["files"])
        requests = len(get(f"{url}/sandbox/requests"))
    finally:
        sandbox.terminate()
        sandbox.wait(timeout=60)
    # Linux counts in KiB, macOS in bytes.
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "rows": rows, "requests": requests, "wall": wall,
        "cpu": used.ru_utime + used.ru_stime, "peak": peak / 1e6,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the leadpipe to measure")
    parser.add_argument("leads", type=int, nargs="*", help="by default 100000 500000")
    arguments = parser.parse_args()
    binary = str(Path(arguments.binary).resolve())
    print(f"{os.cpu_count()} CPUs; the sandbox, a process of its own, uses them too")
    print("    leads     rows  requests  wall s   CPU s  leads/s  leads/CPU s  peak MB")
    figures = []
    for leads in arguments.leads or [100_000, 500_000]:
        folder = Path(tempfile.mkdtemp(prefix="leadpipe-bench-"))
        try:
            found = measure(binary, leads, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        figures.append(found)
        print(
            f"{leads:>9} {found['rows']:>8} {found['requests']:>9} {found['wall']:>7.1f}"
            f" {found['cpu']:>7.1f} {found['rows'] / found['wall']:>8.0f}"
            f" {found['rows'] / found['cpu']:>12.0f} {found['peak']:>8.0f}",
            flush=True,
        )
    if len(figures) > 1:
        ratio = figures[-1]["peak"] / figures[0]["peak"]
        print(f"peak memory, the last run to the first: {ratio:.2f}")


if __name__ == "__main__":
    main()
