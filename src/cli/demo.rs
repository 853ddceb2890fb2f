//! `leadpipe demo`.

mod people;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::Array;
use arrow::array::AsArray;
use arrow::array::RecordBatch;
use chrono::TimeDelta;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use people::People;

use super::Context;
use super::exit;
use super::exit::Usage;
use super::local_offset;
use super::terminal;
use crate::clock::Clock;
use crate::clock::ManualClock;
use crate::commit;
use crate::commit::Commit;
use crate::config::Job;
use crate::ids::Seq;
use crate::rehearse;
use crate::report;
use crate::report::Table;
use crate::report::number;
use crate::run;
use crate::run::Options;
use crate::run::Summary;
use crate::sandbox::Sandbox;
use crate::sandbox::Settings;
use crate::schema::PartFile;
use crate::store::Store;

/// What `demo` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DemoArguments {
    /// The folder to put the lake in, which stays; an earlier demo in it is replaced
    #[arg(long, value_name = "DIR", default_value = "leadpipe-demo")]
    keep: PathBuf,
}

pub(super) const HELP: &str = "\
The leads are invented and come from a sandbox inside the command: no credentials, no network.

Examples:
  leadpipe demo
  leadpipe demo --keep /tmp/leads

JSON: lake, first and nightly (the summaries of both runs), examples (lead_id, channel, reason and
what changed), people (how many are at more than one platform, and one of them).";

/// The job that the demo does.
const JOB: &str = include_str!("../../jobs/demo.toml");

/// Tells a folder of ours from one that must be left alone.
const MARKER: &str = ".leadpipe-demo";

/// What a lake is made of; all that an earlier demo is cleared of.
const LAKE: [&str; 10] = [
    "archive",
    "changes",
    "checkpoint.json",
    "commits",
    "csv",
    "latest",
    "parts",
    "rejects",
    "snapshots",
    "state",
];

/// So many examples of each reason are shown.
const EXAMPLES: usize = 3;

/// What the demo did.
#[derive(Debug, Serialize)]
struct Shown {
    lake: PathBuf,
    first: Summary,
    nightly: Summary,
    examples: Vec<Example>,
    people: People,
}

/// A lead that the nightly run changed, without personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Example {
    reason: String,
    lead_id: String,
    channel: String,
    /// The columns that differ from what was held.
    columns: Vec<String>,
}

pub(super) async fn run(context: &Context, arguments: DemoArguments) -> anyhow::Result<u8> {
    let folder = std::path::absolute(&arguments.keep)?;
    prepare(&folder)?;
    let settings = Settings {
        years: 5,
        leads: 20_000,
        whautomate_accounts: 1,
        contacts: 3_000,
        clients: 600,
        whautomate_per_day: Some(432_000),
        whautomate_per_minute: Some(300),
        convertalk_bots: 2,
        chats: 800,
        ..Settings::default()
    };
    let clock = Arc::new(ManualClock::new(settings.now));
    let sandbox = Sandbox::start(settings, 0, clock.clone()).await?;
    let job = job(&sandbox, &folder)?;
    let url = sandbox.url();
    tell(context, &format!("A sandbox plays three platforms at {url}, with invented leads.\n"))?;
    tell(context, "The first sync reads years of history of all three:\n")?;
    let first = sync(context, &job, &clock).await?;
    clock.advance(TimeDelta::days(1));
    tell(context, "A day passes. The nightly sync reads what is new and what may have changed:\n")?;
    let nightly = sync(context, &job, &clock).await?;
    sandbox.stop().await;
    let store = Store::open(&folder);
    let examples = examples(&store, first.commit, nightly.commit)?;
    let people = people::at_several_platforms(&store, nightly.commit)?;
    let code = first.exit_code().max(nightly.exit_code());
    if context.json {
        terminal::json(&Shown { lake: folder, first, nightly, examples, people })?;
    } else {
        terminal::text(&changes_text(&nightly, &examples))?;
        terminal::text(&people.text())?;
        terminal::text(&reading_text(&folder))?;
    }
    Ok(u8::try_from(code).unwrap_or(exit::FAILED))
}

/// Makes an empty folder, or clears one of an earlier demo. Any other folder is left alone.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    let place = folder.display();
    let is_used = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_used && !folder.join(MARKER).exists() {
        return Err(Usage {
            message: format!("folder `{place}` is not empty, and not of an earlier demo"),
            hint: Some("name another folder with --keep".to_owned()),
        }
        .into());
    }
    let store = Store::create(folder)?;
    for name in LAKE {
        let is_folder = store.path(name).symlink_metadata().is_ok_and(|found| found.is_dir());
        let removed = if is_folder { store.remove_all(name) } else { store.remove(name) };
        removed.with_context(|| format!("failed to clear `{place}`"))?;
    }
    store.write(MARKER, b"`leadpipe demo` made this folder and may replace it.\n")?;
    Ok(())
}

fn job(sandbox: &Sandbox, folder: &Path) -> anyhow::Result<Job> {
    let job = Job::parse(JOB, Path::new("jobs/demo.toml"))?;
    let mut job = job.on_another_lake(folder.to_owned());
    for source in &mut job.sources {
        rehearse::stand_in(source, sandbox)?;
    }
    Ok(job)
}

async fn sync(context: &Context, job: &Job, clock: &Arc<ManualClock>) -> anyhow::Result<Summary> {
    let (options, observer) = (Options::default(), context.observer());
    let summary = run::sync(job.clone(), options, clock.clone(), observer).await?;
    let zone = local_offset(clock.now());
    tell(context, &format!("{}\n", report::summary_text(&summary, &job.lake, zone)))?;
    Ok(summary)
}

/// Writes text, where no JSON was asked for.
fn tell(context: &Context, text: &str) -> anyhow::Result<()> {
    if !context.json {
        terminal::text(text)?;
    }
    Ok(())
}

/// Returns a few of the leads that the commit `after` changed, by reason.
fn examples(
    store: &Store,
    before: Option<Seq>,
    after: Option<Seq>,
) -> anyhow::Result<Vec<Example>> {
    let (Some(before), Some(after)) = (before, after) else { return Ok(Vec::new()) };
    let mut found: BTreeMap<String, Vec<(Example, RecordBatch)>> = BTreeMap::new();
    for batch in read(store, &commit::read(store, after)?.changes.file.path)? {
        for row in 0..batch.num_rows() {
            let text = |column| text_of(&batch, column, row);
            let rows = found.entry(text("_reason")).or_default();
            if rows.len() < EXAMPLES {
                let (reason, lead_id) = (text("_reason"), text("lead_id"));
                let channel = text("channel");
                let example = Example { reason, lead_id, channel, columns: Vec::new() };
                rows.push((example, batch.slice(row, 1)));
            }
        }
    }
    let mut examples: Vec<(Example, RecordBatch)> = found.into_values().flatten().collect();
    compare(store, &commit::read(store, before)?, &mut examples)?;
    Ok(examples.into_iter().map(|(example, _)| example).collect())
}

/// Finds the columns in which leads differ from what an earlier commit holds of them.
fn compare(
    store: &Store,
    before: &Commit,
    examples: &mut [(Example, RecordBatch)],
) -> anyhow::Result<()> {
    let parts = || before.sources.values().flat_map(|source| &source.parts);
    for (example, now) in examples.iter_mut().filter(|(example, _)| example.reason == "changed") {
        let id = example.lead_id.as_str();
        let may_hold = |part: &&PartFile| {
            part.first_lead_id.as_str() <= id && id <= part.last_lead_id.as_str()
        };
        for part in parts().filter(may_hold) {
            for batch in read(store, &part.file.path)? {
                let row = (0..batch.num_rows()).find(|row| text_of(&batch, "lead_id", *row) == id);
                if let Some(row) = row {
                    example.columns = differing(&batch.slice(row, 1), now);
                }
            }
        }
    }
    Ok(())
}

/// Returns the columns, apart from those of lineage, in which two rows differ.
fn differing(then: &RecordBatch, now: &RecordBatch) -> Vec<String> {
    let schema = then.schema();
    let names = schema.fields().iter().map(|field| field.name());
    names
        .filter(|name| !name.starts_with('_'))
        .filter(|name| then.column_by_name(name) != now.column_by_name(name))
        .cloned()
        .collect()
}

fn read(store: &Store, path: &str) -> anyhow::Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(store.open_file(path)?)?.build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

fn text_of(batch: &RecordBatch, column: &str, row: usize) -> String {
    let texts = batch.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
    let texts = texts.filter(|texts| texts.is_valid(row));
    texts.map(|texts| texts.value(row).to_owned()).unwrap_or_default()
}

fn changes_text(nightly: &Summary, examples: &[Example]) -> String {
    let leads = nightly.sources.values().map(|source| source.leads);
    let (mut new, mut changed, mut moved, mut gone) = (0, 0, 0, 0);
    for leads in leads {
        new += leads.new;
        changed += leads.changed;
        moved += leads.moved;
        gone += leads.gone;
    }
    let [new, changed, moved, gone] = [new, changed, moved, gone].map(number);
    let mut text = format!(
        "What that night changed: {new} new, {changed} changed, {moved} moved, {gone} gone. For \
         example:\n"
    );
    let mut table = Table::new(&["reason", "lead_id", "channel", "columns that changed"], 4);
    for example in examples {
        let columns = report::list(&example.columns, 5);
        let Example { reason, lead_id, channel, .. } = example.clone();
        table.row([reason, lead_id, channel, columns]);
    }
    for line in table.to_string().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn reading_text(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "
The snapshot lies in {folder}/latest: Parquet in leads, CSV in leads_csv. Read it with

  duckdb -c \"select provider, channel, count(*) from read_parquet('{folder}/latest/leads/**/*.parquet', hive_partitioning=true) group by 1, 2\"
  python -c \"import pandas; print(pandas.read_parquet('{folder}/latest/leads'))\"
"
    )
}
