"""Reads a snapshot with DuckDB, pyarrow and pandas, and compares it with the provider's own list.

`make interop` runs it. The sandbox and leadpipe run as processes of their own; what a row must be
is worked out here, from the wire form, without anything of leadpipe's mapping. After the first
sync the leads are edited over several days, so that there are change files: applied in order, they
must give the snapshot. Ends with 1 where anything differs.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.dataset

import together

SAMPLE = 100
SEED = 7
DAY = 86_400

# The columns compared, each with the fields it comes from: the first that says something counts.
FIELDS = {
    "account_id": ["account_id"],
    "profile_id": ["profile_id"],
    "visitor_id": ["user_id"],
    "channel_native": ["lead_type"],
    "status_native": ["lead_state"],
    "full_name": ["contact_name", "caller_name", "sender_name"],
    "email_raw": ["contact_email_address", "email_address"],
    "phone_raw": ["contact_phone_number", "phone_number", "caller_number"],
    "city": ["city", "caller_city"],
    "marketing_source": ["lead_source"],
    "marketing_campaign": ["lead_campaign"],
    "landing_url": ["landing_url"],
    "notes": ["notes"],
    "transcript": ["call_transcription", "voicemail_transcription"],
}
TIMES = {"created_at": "date_created", "updated_at": "last_updated"}
AMOUNTS = {"quote_value": "quote_value", "sales_value": "sales_value"}
WHOLE = {"call_duration_s": "call_duration_seconds"}
FLAGS = {"is_spam": "spam", "is_duplicate": "duplicate"}
MAPS = {"custom_fields": "custom_fields", "form_fields": "additional_fields"}
COLUMNS = ["lead_id", "native_id", *TIMES, *FIELDS, *AMOUNTS, *WHOLE, *FLAGS, *MAPS]

JOB = """
name = "interop"
lake = "lake"

[[sources]]
name = "acme"
provider = "whatconverts"
base_url = "{url}"
token = {{ env = "INTEROP_TOKEN" }}
secret = {{ env = "INTEROP_SECRET" }}
plan = "master"
start = {start}
currency = "USD"
default_region = "US"

[load]
format = "both"
"""


class Sandbox:
    """The provider, in a process of its own."""

    def __init__(self, binary, leads):
        # The leads stand still, so that their list is the same before and after a sync; what
        # changes is what is edited here. None is younger than a day: a sync leaves out the last
        # two minutes.
        yesterday = (datetime.now(timezone.utc) - timedelta(days=1)).date().isoformat()
        command = [binary, "sandbox", "--leads", str(leads), "--port", "0", "--still"]
        command += ["--now", yesterday]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.url = None
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = found.group()
                break
        if self.url is None:
            raise SystemExit("the sandbox did not say where it listens")

    def request(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
        return json.loads(text, parse_float=Decimal) if text else None

    def leads(self):
        """Returns every lead listed now, by its id as text."""
        return {str(lead["lead_id"]): lead for lead in self.request("/sandbox/leads")}

    def edit(self, lead_id, edit):
        self.request("/sandbox/edit", {"lead_id": int(lead_id), "edit": edit})

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


class Lake:
    """A job, its lake, and the leadpipe that fills it."""

    def __init__(self, binary, folder, sandbox):
        self.binary, self.folder = binary, folder
        self.path = folder / "lake"
        self.job = folder / "job.toml"
        self.days = 0
        key = sandbox.request("/sandbox/keys")["master"]
        self.environment = {
            **os.environ, "INTEROP_TOKEN": key["token"], "INTEROP_SECRET": key["secret"]
        }
        oldest = min(filter(None, (created_at(lead) for lead in sandbox.leads().values())))
        self.start = f"{oldest.year}-01-01"
        self.job.write_text(JOB.format(url=sandbox.url, start=self.start))

    def run(self, *arguments):
        """Runs a command and returns its standard output; 0 is the one exit code that passes."""
        environment = {**self.environment, "LEADPIPE_CLOCK_OFFSET": f"{self.days}d"}
        done = subprocess.run(
            [self.binary, *arguments], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        if done.returncode != 0:
            sys.stderr.write(done.stdout + done.stderr)
            raise SystemExit(f"leadpipe {arguments[0]} ended with {done.returncode}")
        return done.stdout

    def sync(self):
        self.run("sync", str(self.job))

    def read_all_again(self):
        to = (datetime.now(timezone.utc) + timedelta(days=self.days + 2)).date().isoformat()
        self.run("backfill", str(self.job), "--from", self.start, "--to", to, "--again")

    def files(self, since=None):
        since = [] if since is None else ["--since", str(since)]
        return json.loads(self.run("files", str(self.job), "--json", *since))


# What a row must be.


def says_something(value):
    return value is not None and value not in ([], {}) and str(value).strip() != ""


def text_of(lead, fields):
    for field in fields:
        value = lead.get(field)
        if says_something(value):
            return value if isinstance(value, str) else str(value)
    return None


def created_at(lead):
    return time_of(lead.get("date_created"))


def time_of(text):
    if not says_something(text):
        return None
    time = datetime.fromisoformat(text.strip())
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def amount_of(value):
    if not says_something(value):
        return None
    return Decimal(str(value).strip()).quantize(Decimal("0.0001"))


def map_of(value):
    return value if isinstance(value, dict) else {}


def row_of(lead):
    """Returns the columns compared, as a row of the snapshot must have them."""
    row = {column: text_of(lead, fields) for column, fields in FIELDS.items()}
    row["native_id"] = str(lead["lead_id"])
    row["lead_id"] = f"whatconverts:leads:{lead['lead_id']}"
    row |= {column: time_of(lead.get(field)) for column, field in TIMES.items()}
    row |= {column: amount_of(lead.get(field)) for column, field in AMOUNTS.items()}
    row |= {column: amount_of(lead.get(field)) for column, field in WHOLE.items()}
    row |= {column: lead.get(field) for column, field in FLAGS.items()}
    row |= {column: map_of(lead.get(field)) for column, field in MAPS.items()}
    return row


def is_null(value):
    return value is None or value is pandas.NaT or value is pandas.NA or value != value


def plain(column, value, from_csv):
    """Returns a value as some reader gave it, in the form of `row_of`."""
    if is_null(value) or (from_csv and value == ""):
        return None
    if column in TIMES:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        time = time.to_pydatetime() if isinstance(time, pandas.Timestamp) else time
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    if column in AMOUNTS or column in WHOLE:
        return Decimal(str(value)).quantize(Decimal("0.0001"))
    if column in FLAGS:
        return value == "true" if from_csv else bool(value)
    if column in MAPS:
        return json.loads(value, parse_float=Decimal)
    if from_csv and re.match(r"'[=+\-@\t\r]", value):
        return value[1:]
    return value


# The readers: each returns (rows, distinct keys, the sampled rows by native id).


def keyed(records, from_csv):
    rows = {}
    for record in records:
        row = {column: plain(column, record[column], from_csv) for column in COLUMNS}
        rows[row["native_id"]] = row
    return rows


def query(text):
    """Returns the rows of a DuckDB query."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute(text).fetchall()


def by_duckdb(scan, sample, from_csv):
    [(count, keys)] = query(f"SELECT count(*), count(DISTINCT (source, lead_id)) FROM {scan}")
    ids = ", ".join(f"'{native_id}'" for native_id in sample)
    # Times as text: what becomes of a time zone on the way to Python differs by version.
    columns = ", ".join(
        f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%f+00:00') AS {column}"
        if column in TIMES and not from_csv else column
        for column in COLUMNS
    )
    answer = query(f"SELECT {columns} FROM {scan} WHERE native_id IN ({ids})")
    records = [dict(zip(COLUMNS, record)) for record in answer]
    return count, keys, keyed(records, from_csv)


def by_pyarrow(dataset, sample, from_csv):
    table = dataset.to_table(columns=["source", "part_created", *COLUMNS])
    keys = table.group_by(["source", "lead_id"]).aggregate([]).num_rows
    wanted = pyarrow.array(sample, type=table.schema.field("native_id").type)
    chosen = table.filter(pyarrow.compute.is_in(table["native_id"], value_set=wanted))
    return table.num_rows, keys, keyed(chosen.to_pylist(), from_csv)


def by_pandas(frame, sample, from_csv):
    keys = len(frame.drop_duplicates(["source", "lead_id"]))
    chosen = frame[frame["native_id"].isin(sample)]
    return len(frame), keys, keyed(chosen.to_dict("records"), from_csv)


def csv_dataset(folder, header):
    """Returns a pyarrow dataset of CSV in which every column is text, as CSV has no types."""
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pyarrow.string() for name in header},
        strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""],
    )
    form = pyarrow.dataset.CsvFileFormat(
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), convert_options=convert
    )
    return pyarrow.dataset.dataset(folder, format=form, partitioning="hive")


def csv_frame(folder):
    texts = {"dtype": str, "keep_default_na": False, "na_values": [""]}
    return pandas.concat(
        [pandas.read_csv(path, **texts) for path in sorted(Path(folder).rglob("*.csv"))]
    )


def readings(lake, sample):
    """Yields (name, what it read) for every reader and both formats."""
    parquet, texts = lake.path / "latest" / "leads", lake.path / "latest" / "leads_csv"
    scan = f"read_parquet('{parquet}/**/*.parquet', hive_partitioning = true)"
    yield "DuckDB, Parquet", by_duckdb(scan, sample, False)
    scan = f"read_csv('{texts}/**/*.csv', hive_partitioning = true, all_varchar = true)"
    yield "DuckDB, CSV", by_duckdb(scan, sample, True)
    dataset = pyarrow.dataset.dataset(parquet, format="parquet", partitioning="hive")
    yield "pyarrow, Parquet", by_pyarrow(dataset, sample, False)
    header = next(csv.reader(open(next(texts.rglob("*.csv")), newline="", encoding="utf-8")))
    yield "pyarrow, CSV", by_pyarrow(csv_dataset(texts, header), sample, True)
    yield "pandas, Parquet", by_pandas(pandas.read_parquet(parquet), sample, False)
    yield "pandas, CSV", by_pandas(csv_frame(texts), sample, True)


# What is compared.


class Report:
    """The table that is printed, and whether all of it agrees."""

    def __init__(self):
        self.sound = True

    def line(self, name, rows, keys, problems, detail=""):
        self.sound &= not problems
        verdict = "same" if not problems else "DIFFERS"
        print(f"  {name:<28} {rows:>8} {keys:>8}  {detail:<20} {verdict}")
        for problem in problems[:5]:
            print(f"      {problem}")

    def heading(self, text):
        print(f"\n{text}\n  {'':<28} {'rows':>8} {'keys':>8}")


def differences(expected, rows):
    found = []
    for native_id, row in expected.items():
        held = rows.get(native_id)
        if held is None:
            found.append(f"lead {native_id} is missing")
            continue
        for column in COLUMNS:
            if row[column] != held[column]:
                found.append(f"lead {native_id}, {column}: {held[column]!r}, not {row[column]!r}")
    return found


def compare_snapshot(report, title, lake, leads, edited):
    report.heading(f"{title}: {len(leads)} leads at the provider")
    # Half of the sample is edited leads, where there are some.
    dice = random.Random(SEED)
    known = sorted(edited & leads.keys())
    chosen = set(dice.sample(known, min(SAMPLE // 2, len(known))))
    rest = sorted(leads.keys() - chosen)
    chosen |= set(dice.sample(rest, min(SAMPLE - len(chosen), len(rest))))
    sample = sorted(chosen)
    expected = {native_id: row_of(leads[native_id]) for native_id in sample}
    for name, (rows, keys, held) in readings(lake, sample):
        problems = differences(expected, held)
        if rows != len(leads) or keys != len(leads):
            problems.insert(0, f"{rows} rows and {keys} keys, not {len(leads)}")
        report.line(name, rows, keys, problems, f"{len(held)} leads by value")
    compare_keys(report, lake, leads)
    compare_files(report, lake, leads)


def compare_keys(report, lake, leads):
    scan = f"read_parquet('{lake.path}/latest/leads/**/*.parquet')"
    held = {native_id for (native_id,) in query(f"SELECT native_id FROM {scan}")}
    problems = [f"lead {lead} is missing" for lead in sorted(leads.keys() - held)]
    problems += [f"lead {lead} should not be there" for lead in sorted(held - leads.keys())]
    report.line("every key", len(held), len(held), problems)


def compare_files(report, lake, leads):
    """What `leadpipe files` lists must be the same rows, in both formats."""
    answer = lake.files()
    for form in ("parquet", "csv"):
        listed = [file for file in answer["files"] if file["format"] == form]
        paths = [str(lake.path / file["path"]) for file in listed]
        read = "read_parquet" if form == "parquet" else "read_csv"
        options = "" if form == "parquet" else ", all_varchar = true"
        [(rows, keys)] = query(
            f"SELECT count(*), count(DISTINCT lead_id) FROM {read}({paths!r}{options})"
        )
        said = sum(file["rows"] for file in listed)
        problems = [] if rows == keys == said == len(leads) else [f"{said} rows listed"]
        report.line(f"leadpipe files, {form}", rows, keys, problems, f"{len(listed)} files")


def compare_changes(report, lake):
    """The change files, applied in order, must give the snapshot."""
    answer = lake.files(since=0)
    files = sorted(answer["files"], key=lambda file: file["seq"])
    report.heading(f"Change files of {len(files)} commits, applied in order")
    held = {}
    operations = 0
    for file in files:
        frame = pandas.read_parquet(lake.path / file["path"])
        operations += len(frame)
        for record in frame.to_dict("records"):
            key = (record["source"], record["lead_id"])
            if record["_op"] == "delete":
                held.pop(key, None)
            else:
                held[key] = record
    paths = [str(lake.path / file["path"]) for file in files]
    reasons = query(f"SELECT _reason, count(*) FROM read_parquet({paths!r}) GROUP BY 1 ORDER BY 1")
    snapshot = pandas.read_parquet(lake.path / "latest" / "leads")
    # A row that only its place in the provider's listing changed is rewritten and is no change.
    columns = [name for name in snapshot.columns if not name.startswith(("part_", "_scope"))]
    records = {(row["source"], row["lead_id"]): row for row in snapshot.to_dict("records")}
    problems = [f"{key} is missing" for key in sorted(records.keys() - held.keys())]
    problems += [f"{key} should not be there" for key in sorted(held.keys() - records.keys())]
    for key in records.keys() & held.keys():
        for column in columns:
            one, other = records[key][column], held[key][column]
            if one != other and not (is_null(one) and is_null(other)):
                problems.append(f"{key}, {column}: {other!r}, not {one!r}")
    report.line("pandas", len(held), len(held), problems, f"{operations} operations")
    print("  " + ", ".join(f"{count} {reason}" for reason, count in reasons))
    seen = {reason for reason, _ in reasons}
    missing = {"new", "changed", "moved", "gone"} - seen
    if missing:
        report.line("every reason occurs", 0, 0, [f"no row is {', '.join(sorted(missing))}"])


# What happens to the leads in between.


class Editor:
    """Edits leads at the provider, drawn from a seed, each at most once."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.dice = random.Random(SEED)
        self.edited = set()

    def pick(self, leads, count):
        chosen = self.dice.sample(sorted(leads.keys() - self.edited), count)
        self.edited.update(chosen)
        return chosen

    def a_day_of_late_changes(self):
        """What a nightly sync sees: the newest leads are edited, judged, and a few vanish."""
        leads = self.sandbox.leads()
        dated = {lead: created_at(leads[lead]) for lead in leads}
        newest = sorted((lead for lead in leads if dated[lead]), key=dated.get)[-80:]
        newest = {lead: leads[lead] for lead in newest}
        for lead in self.pick(newest, 12):
            name = self.dice.choice(["=1+1 Zoë", "Łukasz \"Luke\" O'Neil", "Line\nbreak, comma"])
            self.sandbox.edit(lead, {"set": {"contact_name": name, "quote_value": "1250.5"}})
        for lead in self.pick(newest, 4):
            self.sandbox.edit(lead, {"spam": True})
        for lead in self.pick(newest, 3):
            self.sandbox.edit(lead, "vanish")

    def changes_of_long_ago(self):
        """What only a reading of all shows: edits, moves in time and between profiles."""
        leads = self.sandbox.leads()
        for lead in self.pick(leads, 40):
            values = {"notes": "called back\n\ttwice", "sales_value": 99.95}
            self.sandbox.edit(lead, {"set": values})
        for lead in self.pick({lead: row for lead, row in leads.items() if created_at(row)}, 8):
            moved = created_at(leads[lead])
            moved = moved.replace(year=moved.year - 1, day=min(moved.day, 28), microsecond=0)
            oldest = min(filter(None, map(created_at, leads.values())))
            moved = max(moved, oldest.replace(microsecond=0))
            self.sandbox.edit(lead, {"created": moved.isoformat().replace("+00:00", "Z")})
        for lead in self.pick(leads, 5):
            self.sandbox.edit(lead, "undated")
        profiles = sorted({row["profile_id"] for row in leads.values()})
        for lead in self.pick(leads, 8):
            others = [profile for profile in profiles if profile != leads[lead]["profile_id"]]
            self.sandbox.edit(lead, {"profile": self.dice.choice(others)})
        for lead in self.pick(leads, 10):
            self.sandbox.edit(lead, "vanish")


def a_day_passes(sandbox, lake):
    lake.days += 1
    sandbox.request("/sandbox/clock", {"advance_seconds": DAY})


def play(binary, leads, folder):
    sandbox = Sandbox(binary, leads)
    try:
        report, editor = Report(), Editor(sandbox)
        lake = Lake(binary, folder, sandbox)
        lake.sync()
        compare_snapshot(report, "First sync", lake, sandbox.leads(), set())
        for _ in range(2):
            a_day_passes(sandbox, lake)
            editor.a_day_of_late_changes()
            lake.sync()
        a_day_passes(sandbox, lake)
        editor.changes_of_long_ago()
        lake.sync()
        lake.read_all_again()
        title = f"After {lake.days} days and {len(editor.edited)} edits"
        compare_snapshot(report, title, lake, sandbox.leads(), editor.edited)
        compare_changes(report, lake)
        together.compare(report, binary, sandbox, folder, lake.start, lake.days)
        return report.sound
    finally:
        sandbox.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the leadpipe to run")
    parser.add_argument("--leads", type=int, default=20_000, help="leads of the provider")
    parser.add_argument("--keep", type=Path, help="put job and lake here and leave them there")
    arguments = parser.parse_args()
    binary = str(Path(arguments.binary).resolve())
    versions = f"DuckDB {duckdb.__version__}, pyarrow {pyarrow.__version__}"
    print(f"Reading with {versions}, pandas {pandas.__version__}")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="leadpipe-interop-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        sound = play(binary, arguments.leads, folder)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print("\ninterop: all the same" if sound else "\ninterop: something differs")
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
