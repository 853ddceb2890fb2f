//! What has to hold of bytes that strangers wrote: a law for each kind of them.
//!
//! A law takes any bytes and panics where it is broken, or where the code it tries out does. The
//! targets in `fuzz/` hand them what libFuzzer makes up; the tests here the seeds and mutations of
//! them, so that `make test` runs the same laws. Built for these two alone.

mod mutate;
#[cfg(test)]
mod seeds;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use arrow::array::AsArray;
use arrow::array::RecordBatch;
use chrono::DateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

pub use self::mutate::mutate;
use crate::archive;
use crate::calendar;
use crate::checkpoint::SourceProgress;
use crate::commit;
use crate::config::Job;
use crate::config::Reach;
use crate::extract::PageFacts;
use crate::extract::providers;
use crate::harmless::harmless_lines;
use crate::harmless::is_harmful;
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::load::render::CsvRows;
use crate::load::render::cells_of;
use crate::load::render::is_formula;
use crate::plan;
use crate::plan::Task;
use crate::plan::Tier;
use crate::quota;
use crate::quota::Demand;
use crate::quota::Ledger;
use crate::record::Scope;
use crate::run;
use crate::store::Store;
use crate::transform;
use crate::transform::IdentityKey;
use crate::transform::Mapped;
use crate::transform::Page;
use crate::transform::Records;
use crate::transform::Settings;
use crate::window::Window;

/// A law about bytes.
pub type Law = fn(&[u8]);

/// The laws, each under the name of its target.
pub const LAWS: [(&str, Law); 7] = [
    ("pages", pages),
    ("mappings", mappings),
    ("files", files),
    ("job", job),
    ("stored", stored),
    ("ledger", ledger),
    ("archive", archive),
];

/// The streams there are.
const STREAMS: [(ProviderId, &str); 5] = [
    (ProviderId::WhatConverts, "leads"),
    (ProviderId::Whautomate, "contacts"),
    (ProviderId::Whautomate, "clients"),
    (ProviderId::Convertalk, "chats"),
    (ProviderId::Convertalk, "users"),
];

/// An answer of a provider, of any kind: it is read, or said to be wrong in words that are harmless.
pub fn pages(body: &[u8]) {
    for provider in [ProviderId::WhatConverts, ProviderId::Whautomate, ProviderId::Convertalk] {
        for status in [200, 400, 403, 404, 429] {
            let (page, errors) = providers::read_in_every_way(provider, status, body);
            let errors = page.as_ref().err().into_iter().chain(&errors);
            errors.for_each(|error| assert_harmless(&error.to_string()));
        }
    }
}

/// A page of records: each becomes a lead or a reject, and always the same; paging counts the same rows
/// and ids.
pub fn mappings(body: &[u8]) {
    for (provider, stream) in STREAMS {
        let Some(mapped) = mapped(provider, stream, body) else { continue };
        let Some(again) = self::mapped(provider, stream, body) else {
            unreachable!("a body is mapped, and is not mapped");
        };
        assert_eq!(mapped.leads, again.leads);
        assert_eq!((&mapped.places, &mapped.rejects), (&again.places, &again.rejects));
        assert_eq!(mapped.places.len(), mapped.leads.num_rows());
        let rejects = mapped.rejects.iter().map(|reject| reject.index);
        let mut places: Vec<u32> = mapped.places.iter().copied().chain(rejects).collect();
        places.sort_unstable();
        assert!(places.iter().copied().eq(0..places.len() as u32), "a row is lost or doubled");
        if let (Ok(page), _) = providers::read_in_every_way(provider, 200, body) {
            are_the_rows_of(&page, &mapped);
            are_the_places_of(&page, provider, stream, body);
        }
    }
}

/// Paging and mapping read a page each in their own way: both find the same rows, and what is a lead
/// for one has its id for the other.
fn are_the_rows_of(page: &PageFacts, mapped: &Mapped) {
    assert_eq!(page.rows.len(), mapped.places.len() + mapped.rejects.len(), "rows of a page");
    let ids = texts(&mapped.leads, "native_id");
    for (place, id) in mapped.places.iter().zip(ids) {
        let paging = page.rows[*place as usize].id;
        assert_eq!(paging, id.map(crate::record::id_hash), "the id of a row");
    }
}

/// Where paging says that the records stand, mapping finds them.
fn are_the_places_of(page: &PageFacts, provider: ProviderId, stream: &str, body: &[u8]) {
    let (Some(places), Some(mapping)) = (&page.places, transform::mapping(provider, stream)) else {
        return;
    };
    let found = mapping.records(body, page.is_json);
    assert_eq!(found.ok(), Some(Records::at(places.clone())), "the places of records");
}

/// The leads of a page can be written, as Parquet and as CSV, and are the same when they are read.
/// No cell of CSV begins as a formula does.
pub fn files(body: &[u8]) {
    for (provider, stream) in STREAMS {
        let Some(mapped) = mapped(provider, stream, body) else { continue };
        if let Err(error) = as_parquet(&mapped.leads).and_then(|()| as_csv(&mapped.leads)) {
            unreachable!("leads cannot be written: {error}");
        }
    }
}

type Outcome = Result<(), Box<dyn Error>>;

fn as_parquet(leads: &RecordBatch) -> Outcome {
    let mut writer = ArrowWriter::try_new(Vec::new(), leads.schema(), None)?;
    writer.write(leads)?;
    let file = bytes::Bytes::from(writer.into_inner()?);
    let read: Vec<RecordBatch> =
        ParquetRecordBatchReaderBuilder::try_new(file)?.build()?.collect::<Result<_, _>>()?;
    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), leads.num_rows());
    read.iter().for_each(|read| assert_eq!(read.columns(), leads.columns()));
    Ok(())
}

fn as_csv(leads: &RecordBatch) -> Outcome {
    let mut rows = CsvRows::new(Vec::new(), &leads.schema(), true)?;
    rows.write(&cells_of(leads)?, leads.num_rows())?;
    let (file, _) = rows.finish()?;
    let mut reader = csv::Reader::from_reader(file.as_slice());
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let read: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    assert_eq!(read.len(), leads.num_rows());
    for (at, name) in names.iter().enumerate() {
        let Some(column) = leads.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()) else {
            continue;
        };
        for (row, text) in read.iter().zip(column) {
            // Readers of CSV stop at a NUL.
            let (cell, text) = (&row[at], text.unwrap_or_default().replace('\0', "\u{fffd}"));
            assert!(!is_formula(cell), "a cell of `{name}` begins as a formula does");
            assert!(cell == text || cell.strip_prefix('\'') == Some(&text), "`{name}` is another");
        }
    }
    Ok(())
}

fn texts<'a>(leads: &'a RecordBatch, name: &str) -> impl Iterator<Item = Option<&'a str>> {
    let column = leads.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.into_iter().flat_map(|column| column.iter())
}

fn mapped(provider: ProviderId, stream: &str, body: &[u8]) -> Option<Mapped> {
    let page = Page {
        source: "acme",
        stream,
        scope_label: "profile:1",
        partition: "profile:1",
        list: "lead",
        run: "run",
        received_at: now(),
        location: "archive/acme/1.seg#4",
        body,
        records: None,
    };
    let settings = Settings {
        account_id: Some("7".to_owned()),
        currency: Some("USD".to_owned()),
        default_region: Some("US".to_owned()),
        profiles: BTreeMap::new(),
        identity_key: IdentityKey::new(b"a key of no lake"),
    };
    let mapped = transform::mapping(provider, stream)?.map(&page, &settings);
    mapped.map_err(|error| is_fit_to_be_shown(&error)).ok()
}

/// A job file: it is one, or all that is wrong with it is told in words fit to be shown. Whatever it
/// says, its rules and scopes can be reckoned with.
pub fn job(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let job = match Job::parse(text, Path::new("jobs/job.toml")) {
        Ok(job) => job,
        Err(error) => return is_fit_to_be_shown(&error),
    };
    for source in &job.sources {
        let scopes = providers::scopes(source, None);
        let back = |reach| match reach {
            Reach::All => None,
            Reach::Back(length) => Some(length),
        };
        let settings = plan::Settings {
            start: source.start(),
            page_size: source.page_size().unwrap_or(100),
            settle: job.run.settle,
            every_run: back(job.refresh.every_run),
            tiers: vec![
                Tier::weekly(back(job.refresh.weekly)),
                Tier::monthly(back(job.refresh.monthly)),
            ],
            walk_max_age: job.run.window_max_age,
            ..plan_settings()
        };
        is_planned(&scopes, &SourceProgress::default(), settings);
        let Some(rule) = run::rule(source) else { continue };
        assert!(rule.allowance() <= rule.per_day);
        let demand = Demand { patience: job.run.patience, ..demand() };
        let ledger = Ledger::open(Store::open("."), "group", rule);
        let tried = ledger.try_out(LEDGER.as_bytes(), now(), demand);
        assert!(tried.is_ok(), "a ledger cannot be written under a rule of a job");
    }
}

/// A ledger in which something is counted.
const LEDGER: &str = r#"{"version":"1","group":"acme","latest":"2026-03-01T02:00:00Z",
    "minutes":{"2026-03-01T01:00:00Z":3}}"#;

/// A file that a lake keeps of its commits and runs: it is one, or is refused. What was read by it is
/// planned with, and stays the same when it is stored.
pub fn stored(bytes: &[u8]) {
    let _ = (run::probes_in(bytes), serde_json::from_slice::<commit::Holder>(bytes));
    let mut commit = match commit::read_as_any(bytes) {
        Ok(commit) => commit,
        Err(error) => return is_fit_to_be_shown(&error),
    };
    for (source, progress) in &mut commit.checkpoint.sources {
        progress.forget_the_future(now());
        let mut scopes = vec![scope(source.clone())];
        scopes.extend(progress.open_walks.iter().map(|open| open.walk.scope.clone()));
        for scope in progress.scopes.values_mut() {
            scope.coverage.coalesce(TimeDelta::days(400), None, now());
        }
        for start in [DateTime::from_timestamp(1_546_300_800, 0), None] {
            is_planned(&scopes, progress, plan::Settings { start, ..plan_settings() });
        }
    }
    let _ = commit.seq.next();
}

fn scope(source: SourceName) -> Scope {
    let (stream, partition) = ("leads".to_owned(), "profile:123".to_owned());
    Scope { source, stream, partition, query: String::new(), list: String::new() }
}

fn plan_settings() -> plan::Settings {
    plan::Settings {
        start: None,
        window_days: 400,
        page_size: 2_500,
        settle: TimeDelta::minutes(2),
        every_run: Some(TimeDelta::days(30)),
        tiers: vec![Tier::weekly(Some(TimeDelta::days(400))), Tier::monthly(None)],
        spare: 100,
        walk_max_age: TimeDelta::hours(48),
        oldest_first: false,
    }
}

/// Plans a sync and a backfill.
fn is_planned(scopes: &[Scope], progress: &SourceProgress, settings: plan::Settings) {
    let range = Window::new(now() - TimeDelta::days(900), now() + TimeDelta::days(9));
    let backfill = range.map(|range| Task::Backfill { range, again_before: Some(now()) });
    for task in backfill.into_iter().chain([Task::Sync]) {
        let (probed, settings) = (BTreeMap::new(), settings.clone());
        let left_to_backfills = &[];
        let request = plan::Request {
            scopes,
            progress,
            probed: &probed,
            left_to_backfills,
            now: now(),
            settings,
            task,
        };
        let planned = plan::plan(&request);
        let _ = (planned.requests(), plan::each_run(&request));
    }
}

/// A ledger: it is one, or is refused. All that a run asks of it and tells it can be reckoned with,
/// and what is stored then is a ledger.
pub fn ledger(bytes: &[u8]) {
    let rules = [
        quota::preset(ProviderId::WhatConverts, Some("profile")),
        quota::preset(ProviderId::Whautomate, Some("subscribed")),
        quota::preset(ProviderId::Convertalk, None),
    ];
    let Ok(zone) = "America/New_York".parse() else { return };
    let zone = quota::Day::ResetsAt { time: NaiveTime::MIN, zone };
    for rule in rules.into_iter().flatten() {
        for day in [quota::Day::Rolling, zone] {
            let ledger = Ledger::open(Store::open("."), "acme", quota::Rule { day, ..rule });
            match ledger.try_out(bytes, now(), demand()) {
                Ok(written) => {
                    let again = ledger.try_out(&written, now(), demand());
                    assert!(again.is_ok(), "what was stored of a ledger is none");
                }
                Err(error) => is_fit_to_be_shown(&error),
            }
        }
    }
}

fn demand() -> Demand {
    Demand {
        requests: 5_000,
        each_run: 1,
        each_day: 2,
        sent_daily_at: None,
        patience: TimeDelta::hours(1),
    }
}

/// A segment of the archive, as it lies there or as the lines that are compressed in it: its records
/// are read up to where it is damaged, and all pages can be reckoned with.
pub fn archive(bytes: &[u8]) {
    let compressed = zstd::encode_all(bytes, 1).unwrap_or_default();
    for segment in [bytes, &compressed] {
        let records = match archive::records_in(segment) {
            Ok(records) => records,
            Err(error) => return is_fit_to_be_shown(&error),
        };
        for record in records {
            match record {
                archive::Record::Page(page) => {
                    let rows = u64::from(page.header.page - 1) * u64::from(page.header.size);
                    assert_eq!(page.header.offset(), rows);
                    assert!(calendar::holds(page.header.received_at));
                }
                archive::Record::Opened(walk, _) => assert!(walk.page_size > 0),
                _ => {}
            }
        }
    }
}

/// An instant to which all of this happens.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_330_400, 0).unwrap_or_default()
}

/// What is shown of an error and its causes does nothing to a terminal or a log.
fn is_fit_to_be_shown(error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        // Whatever a text of ours quotes, the terminal has the last word.
        assert_harmless(&harmless_lines(&error.to_string()).replace('\n', " "));
        next = error.source();
    }
}

fn assert_harmless(text: &str) {
    assert!(!text.chars().any(is_harmful), "it is said as it came: {text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutations of each seed; `make fuzz` tries millions, but not in every build.
    const MUTATIONS: u64 = 12;

    fn holds_of_seeds_and_their_mutations(name: &str) {
        let (_, law) = LAWS.into_iter().find(|(law, _)| *law == name).unwrap();
        let holds = |bytes: &[u8]| std::panic::catch_unwind(|| law(bytes)).is_ok();
        for (seed, bytes) in seeds::of(name) {
            assert!(holds(&bytes), "{name} does not hold of {seed}");
            for roll in 0..MUTATIONS {
                assert!(holds(&mutate(&bytes, roll)), "{name}: {seed}, roll {roll}");
            }
        }
    }

    #[test]
    fn answers_of_providers_are_read() {
        holds_of_seeds_and_their_mutations("pages");
    }

    #[test]
    fn pages_are_mapped_row_by_row() {
        holds_of_seeds_and_their_mutations("mappings");
    }

    #[test]
    fn leads_can_be_written() {
        holds_of_seeds_and_their_mutations("files");
        // Found by `make fuzz`: CSV shows another text than Parquet.
        files(br#"{"leads":[{"lead_id":8,"message":"\u0000=1"}],"total_leads":1}"#);
    }

    #[test]
    fn job_files_are_understood_or_refused() {
        holds_of_seeds_and_their_mutations("job");
    }

    #[test]
    fn stored_files_are_understood_or_refused() {
        holds_of_seeds_and_their_mutations("stored");
    }

    #[test]
    fn ledgers_are_understood_or_refused() {
        holds_of_seeds_and_their_mutations("ledger");
    }

    #[test]
    fn segments_are_understood_or_refused() {
        holds_of_seeds_and_their_mutations("archive");
    }

    #[test]
    fn every_law_has_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
        for (name, _) in LAWS {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
            assert!(root.join(format!("targets/{name}.rs")).exists(), "{name}");
        }
    }

    /// Writes the seeds to the folder that `make fuzz` names.
    #[test]
    fn seeds_are_laid_out_where_they_are_asked_for() {
        #[expect(clippy::disallowed_methods, reason = "a test that is told where to write")]
        let Ok(folder) = std::env::var("LEADPIPE_FUZZ_SEEDS") else { return };
        for (name, _) in LAWS {
            let folder = Path::new(&folder).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for (seed, bytes) in seeds::of(name) {
                std::fs::write(folder.join(seed), bytes).unwrap();
            }
        }
    }
}
