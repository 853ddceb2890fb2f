"""Measures leadpipe beside the pipelines that a user would have instead of it.

`make peers PEERS=folder` runs it with a release build. The folder holds the peers' scripts, `dlt_peer.py`,
`hand_polars.py` and the `common.py` they share; they are no part of this repository. All read the same
five years from one sandbox, another process, in turn, each into an empty folder, so many times; shown are
medians. A pipeline that reads another number of leads than the rest fails the whole.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from whole import JOB, Figures, Sandbox, rows_of, run

# The peers' range is fixed: from START to END, in windows of 400 days.
START, END = "2021-01-01", "2026-01-01"

# The peers break on a field that comes in several types, or a time that comes in several forms.
TIDY = {"times": "zulu", "without_fields": ["quote_value", "sales_value", "salesforce_user_id"]}

PEERS = {
    "hand-written, polars": ["hand_polars.py"],
    "dlt, Arrow tables": ["dlt_peer.py", "arrow"],
    "dlt, rest_api": ["dlt_peer.py", "restapi"],
}

# The peers know one secret, and the sandbox makes up its own.
LAUNCH = """
import os, runpy, sys
folder, script = sys.argv[1:3]
sys.path.insert(0, folder)
import common
common.SECRET = os.environ["PEER_SECRET"]
sys.argv = sys.argv[2:]
runpy.run_path(os.path.join(folder, script), run_name="__main__")
"""

# Counts rows without reading them. In a process of its own: this one stays small.
COUNT = """
import pathlib, sys
import pyarrow.parquet
files = pathlib.Path(sys.argv[1]).rglob("leads/*.parquet")
print(sum(pyarrow.parquet.read_metadata(file).num_rows for file in files))
"""


def run_leadpipe(binary, sandbox, key, folder):
    """Returns the figures of a first sync, and the leads it read."""
    job = folder / "job.toml"
    job.write_text(JOB.format(url=sandbox.url, start=START))
    environment = {**os.environ, "BENCH_TOKEN": key["token"], "BENCH_SECRET": key["secret"]}
    figures = run([binary, "sync", str(job)], environment, folder / "log")
    return figures, rows_of(binary, job, environment)


def run_peer(python, scripts, command, sandbox, key, folder):
    """Returns the same of a peer."""
    environment = {
        **os.environ,
        "PEER_URL": sandbox.url,
        "PEER_OUT": str(folder),
        "PEER_KEY": key["token"],
        "PEER_SECRET": key["secret"],
        "PEER_END": f"{END}T00:00:00Z",
    }
    launched = [python, "-c", LAUNCH, str(scripts), *command]
    figures = run(launched, environment, folder / "log")
    counted = subprocess.run(
        [python, "-c", COUNT, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    return figures, int(counted.stdout)


def measure(arguments, sandbox):
    """Runs everybody in turn; returns the figures of each, and the leads that all have read."""
    binary, scripts = str(Path(arguments.binary).resolve()), Path(arguments.peers).resolve()
    key = sandbox.call("/sandbox/keys")["master"]
    contenders = {"leadpipe": lambda folder: run_leadpipe(binary, sandbox, key, folder)}
    for name, command in PEERS.items():
        contenders[name] = lambda folder, command=command: run_peer(
            arguments.python, scripts, command, sandbox, key, folder
        )
    measured, read = {name: [] for name in contenders}, {}
    for turn in range(arguments.runs):
        for name, contender in contenders.items():
            print(f"{turn + 1} of {arguments.runs}: {name}", file=sys.stderr, flush=True)
            folder = Path(tempfile.mkdtemp(prefix="leadpipe-peers-"))
            try:
                figures, read[name] = contender(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            measured[name].append(figures)
    if len(set(read.values())) != 1:
        raise SystemExit(f"the leads that were read do not agree: {read}")
    return {name: Figures.median(found) for name, found in measured.items()}, read["leadpipe"]


def print_table(medians, leads):
    own = medians["leadpipe"]
    print(f"{os.cpu_count()} CPUs; {leads} leads; the sandbox, a process of its own, uses the CPUs too")
    print("what                     wall s    CPU s  leads/CPU s  peak MB   x wall    x CPU   x peak")
    for name, found in medians.items():
        print(
            f"{name:<22} {found.wall:>8.2f} {found.cpu:>8.2f} {leads / found.cpu:>12.0f}"
            f" {found.peak:>8.0f} {found.wall / own.wall:>8.1f} {found.cpu / own.cpu:>8.1f}"
            f" {found.peak / own.peak:>8.1f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the leadpipe to measure")
    parser.add_argument("--python", required=True, help="a Python that has what the peers need")
    parser.add_argument("--peers", required=True, help="the folder of the peers' scripts")
    parser.add_argument("--runs", type=int, default=5, help="of which the median is shown")
    parser.add_argument("leads", type=int, nargs="?", default=200_000)
    arguments = parser.parse_args()
    wanted = {"common.py", *(command[0] for command in PEERS.values())}
    missing = sorted(name for name in wanted if not (Path(arguments.peers) / name).is_file())
    if not arguments.peers or missing:
        raise SystemExit(
            f"peers: `{arguments.peers}` lacks {', '.join(missing)}: give the folder of the peers' scripts"
        )
    # A sandbox with one profile lists the same for the account as for the profile.
    world = ["--profiles", "1", "--accounts", "1", "--now", END, "--years", "5"]
    world += ["--behaviour", json.dumps(TIDY)]
    with Sandbox(arguments.binary, arguments.leads, world) as sandbox:
        print_table(*measure(arguments, sandbox))


if __name__ == "__main__":
    main()
