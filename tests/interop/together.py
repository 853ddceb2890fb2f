"""All three platforms in one snapshot, read with DuckDB and compared with their own lists.

`interop.py` calls it. What a row must be is worked out here, from the records as the platforms send
them; how the platforms write what is not set differs, so only columns that every record has, and
telephone numbers, are compared by value.
"""

import os
import re
import subprocess
import sys
from datetime import datetime

import duckdb

JOB = """
name = "together"
lake = "together-lake"

[[sources]]
name = "calls"
provider = "whatconverts"
base_url = "{url}"
token = {{ env = "INTEROP_TOKEN" }}
secret = {{ env = "INTEROP_SECRET" }}
plan = "master"
start = {start}
currency = "USD"
default_region = "US"

[[sources]]
name = "clinic"
provider = "whautomate"
base_url = "{url}"
api_key = {{ env = "INTEROP_API_KEY" }}
plan = "trial"
default_region = "US"

[[sources]]
name = "bots"
provider = "convertalk"
base_url = "{url}"
token = {{ env = "INTEROP_BOT_TOKEN" }}
customer_id = "{customer}"
bot_ids = {bots}
streams = ["chats", "users"]
default_region = "US"
"""

# Where the records of a stream are listed, and what of them must stand in a row.
NAME = {"contacts": ["name"], "clients": ["fullName"]}


def listed(sandbox, query):
    """Returns the records of a listing; Convertalk's stand in an envelope."""
    body = sandbox.request(f"/sandbox/records?{query}")
    return body["data"] if isinstance(body, dict) else body


def records(sandbox, bots):
    """Yields (source, stream, record, what its list adds) for every record of the two platforms."""
    for stream in ["contacts", "clients"]:
        for record in listed(sandbox, f"stream={stream}&part=0"):
            yield "clinic", stream, record, {}
    for bot in bots:
        for kind in ["non-lead", "lead"]:
            for record in listed(sandbox, f"stream=chats&part={bot}&list={kind}"):
                stage = "lead" if kind == "lead" else None
                yield "bots", "chats", record, {"profile_id": bot, "stage": stage}
    for record in listed(sandbox, "stream=users&part=0"):
        yield "bots", "users", record, {}


def instant(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def row_of(stream, record, added):
    """Returns the columns that a record must give."""
    row = {"created_at": instant(record["createdAt"]), **added}
    if stream in NAME:
        row["full_name"] = record.get(NAME[stream][0]) or None
        row["updated_at"] = instant(record.get("updatedAt"))
    return row


def digits(text):
    return re.sub(r"\D", "", text or "")


def compare(report, binary, sandbox, folder, start, days):
    """Syncs all three into one lake and compares every key, and every row of two of them by value."""
    keys = sandbox.request("/sandbox/keys")
    bots = keys["convertalk"]["bot_ids"]
    job = folder / "together.toml"
    job.write_text(
        JOB.format(
            url=sandbox.url, start=start, bots=str(bots).replace("'", '"'),
            customer=keys["convertalk"]["customer_id"],
        )
    )
    environment = {
        **os.environ,
        "LEADPIPE_CLOCK_OFFSET": f"{days}d",
        "INTEROP_TOKEN": keys["master"]["token"],
        "INTEROP_SECRET": keys["master"]["secret"],
        "INTEROP_API_KEY": keys["whautomate"][0],
        "INTEROP_BOT_TOKEN": keys["convertalk"]["token"],
    }
    done = subprocess.run(
        [binary, "sync", str(job)], env=environment, text=True, capture_output=True
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"leadpipe sync of all three ended with {done.returncode}")
    expected = {("calls", "leads", lead): None for lead in sandbox.leads()}
    for source, stream, record, added in records(sandbox, bots):
        native = record.get("id") or record["_id"]
        expected[(source, stream, str(native))] = row_of(stream, record, added)
    held = read(folder / "together-lake")
    problems = [f"{key} is missing" for key in sorted(expected.keys() - held.keys())]
    problems += [f"{key} should not be there" for key in sorted(held.keys() - expected.keys())]
    for key, row in expected.items():
        for column, value in (row or {}).items():
            if key in held and held[key][column] != value:
                problems.append(f"{key}, {column}: {held[key][column]!r}, not {value!r}")
    for key, row in held.items():
        if row["phone"] and not digits(row["phone"]).endswith(digits(row["phone_raw"])[-7:]):
            problems.append(f"{key}: {row['phone']} is not the number {row['phone_raw']}")
    report.heading("Three platforms in one lake")
    by_value = sum(row is not None for row in expected.values())
    report.line("DuckDB", len(held), len(held), problems, f"{by_value} rows by value")


def read(lake):
    """Returns the rows of the snapshot by source, stream and native id."""
    columns = ["created_at", "updated_at", "full_name", "profile_id", "stage", "phone", "phone_raw"]
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    text = ", ".join(
        f"epoch_us({column})" if column.endswith("_at") else column for column in columns
    )
    scan = f"read_parquet('{lake}/latest/leads/**/*.parquet', hive_partitioning = true)"
    held = {}
    for row in connection.execute(f"SELECT source, stream, native_id, {text} FROM {scan}").fetchall():
        key, values = tuple(row[:3]), dict(zip(columns, row[3:]))
        for column in ["created_at", "updated_at"]:
            if values[column] is not None:
                seconds = values[column] / 1_000_000
                values[column] = datetime.fromtimestamp(seconds).astimezone()
        if key in held:
            raise SystemExit(f"{key} is there twice")
        held[key] = values
    return held
