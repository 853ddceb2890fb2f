//! A record of each run, written at its start and at its end.
//!
//! A run that began and did not end, and does not hold the lake, has died: the next run cleans up
//! after it (see [`discard`](crate::commit::discard())) and buries it. Records are history, not
//! truth: one that cannot be read is passed over with a warning.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use tracing::warn;

use crate::commit::Error;
use crate::commit::Holder;
use crate::commit::Result;
use crate::commit::stored::decode_versioned;
use crate::ids::RunId;
use crate::seal;
use crate::store::Store;

/// What is known of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Its id.
    pub run: RunId,
    /// The command, e.g. `sync`.
    pub command: String,
    /// The name of the job.
    pub job: String,
    /// The process.
    pub pid: u32,
    /// The machine it ran on.
    pub host: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended, or was found dead.
    pub ended_at: Option<DateTime<Utc>>,
    /// How it stands.
    pub state: RunState,
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i32>,
    /// What it did: the summary in its `--json` form.
    pub summary: Option<serde_json::Value>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It began and did not end yet, as far as its record tells.
    Running,
    /// It ended by itself.
    Ended,
    /// It was found dead, and cleaned up after.
    Died,
}

/// Records that the run of `holder` begins. It holds the lake, and has read [`dead_runs`].
pub fn begin_run(store: &Store, holder: &Holder) -> Result<()> {
    let record = RunRecord {
        run: holder.run.clone(),
        command: holder.command.clone(),
        job: holder.job.clone(),
        pid: holder.pid,
        host: holder.host.clone(),
        started_at: holder.since,
        ended_at: None,
        state: RunState::Running,
        exit_code: None,
        summary: None,
    };
    write(store, record)
}

/// Records that the run of `holder` ends by itself.
pub fn end_run(
    store: &Store,
    holder: &Holder,
    exit_code: i32,
    summary: serde_json::Value,
    now: DateTime<Utc>,
) -> Result<()> {
    let record = RunRecord {
        run: holder.run.clone(),
        command: holder.command.clone(),
        job: holder.job.clone(),
        pid: holder.pid,
        host: holder.host.clone(),
        started_at: holder.since,
        ended_at: Some(now),
        state: RunState::Ended,
        exit_code: Some(exit_code),
        summary: Some(summary),
    };
    write(store, record)
}

/// Records that a run was found dead, once its files are discarded.
pub fn bury_run(store: &Store, dead: RunRecord, now: DateTime<Utc>) -> Result<()> {
    write(store, RunRecord { state: RunState::Died, ended_at: Some(now), ..dead })
}

/// Returns all recorded runs, newest first.
pub fn runs(store: &Store) -> Result<Vec<RunRecord>> {
    read_all(store, paths(store)?, |record| record)
}

/// Returns what is kept of each recorded run that began after `since`, newest first; others are not read.
pub fn runs_since<T>(
    store: &Store,
    since: DateTime<Utc>,
    keep: impl Fn(RunRecord) -> T,
) -> Result<Vec<T>> {
    let mut paths = paths(store)?;
    // A name tells it to the millisecond, or not at all.
    paths.retain(|path| began_at(path).is_none_or(|at| at > since - TimeDelta::seconds(1)));
    read_all(store, paths, |record| (record.started_at > since).then(|| keep(record)))
        .map(|kept| kept.into_iter().flatten().collect())
}

/// Returns recorded runs without their summaries, which may be as large as all else a run reads.
fn outlines(store: &Store, paths: Vec<String>) -> Result<Vec<RunRecord>> {
    read_all(store, paths, |record| RunRecord { summary: None, ..record })
}

/// Reads records one after the other and returns what is kept of each, newest first.
fn read_all<T>(store: &Store, paths: Vec<String>, keep: impl Fn(RunRecord) -> T) -> Result<Vec<T>> {
    let mut kept = Vec::new();
    for (path, bytes) in paths.iter().zip(store.read_each(&paths)) {
        match bytes.map_err(Error::from).and_then(|bytes| decode(path, &bytes)) {
            Ok(record) => kept.push(((record.started_at, record.run.clone()), keep(record))),
            // It was pruned meanwhile.
            Err(Error::Store(error)) if error.is_not_found() => {}
            Err(error) => warn!(path, %error, "passed over the record of a run"),
        }
    }
    kept.sort_by(|(left, _), (right, _)| right.cmp(left));
    Ok(kept.into_iter().map(|(_, kept)| kept).collect())
}

/// Returns when the run of a record began, where its name tells.
fn began_at(path: &str) -> Option<DateTime<Utc>> {
    RunId::began_at(path.strip_prefix(RUNS)?.strip_prefix('/')?.strip_suffix(".json")?)
}

/// Returns the paths of records that cannot be read, and why.
pub fn unreadable_runs(store: &Store) -> Result<Vec<(String, Error)>> {
    let paths = paths(store)?.into_iter();
    Ok(paths.filter_map(|path| read(store, &path).err().map(|error| (path, error))).collect())
}

fn paths(store: &Store) -> Result<Vec<String>> {
    Ok(store.list(RUNS)?.into_iter().map(|name| format!("{RUNS}/{name}")).collect())
}

/// Returns the runs that died: begun, not ended, and not `current`, which holds the lake.
///
/// In a bucket one that lost its lease may only sleep, and commit what it has written if it wakes in
/// time: it is dead a day after another run began.
pub fn dead_runs(store: &Store, current: &RunId, now: DateTime<Utc>) -> Result<Vec<RunRecord>> {
    let mut records = outlines(store, paths(store)?)?;
    let begun: Vec<_> = records.iter().map(|record| record.started_at).collect();
    let is_given_up = |record: &RunRecord| {
        let later = begun.iter().filter(|at| **at > record.started_at).min();
        !store.is_bucket() || later.is_some_and(|later| now - *later >= SLEEP)
    };
    records.retain(|record| {
        record.state == RunState::Running && record.run != *current && is_given_up(record)
    });
    Ok(records)
}

/// Removes records of runs that began more than 90 days ago and are not among the newest 20, nor
/// waiting to be cleaned up after; returns how many.
pub fn prune_runs(store: &Store, now: DateTime<Utc>) -> Result<usize> {
    let paths = paths(store)?;
    // So many as there are of these are newer than any of the others.
    let (young, old): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|path| began_at(path).is_some_and(|at| now - at <= KEEP_AGE));
    let old = outlines(store, old)?
        .into_iter()
        .skip(KEEP_NEWEST.saturating_sub(young.len()))
        .filter(|record| record.state != RunState::Running && now - record.started_at > KEEP_AGE);
    let mut removed = 0;
    for record in old {
        store.remove(&path_of(&record.run))?;
        removed += 1;
    }
    Ok(removed)
}

const RUNS: &str = "state/runs";
/// For how long a run whose lease another has may sleep and still have files that are its own.
const SLEEP: TimeDelta = TimeDelta::hours(24);
const KEEP_NEWEST: usize = 20;
const KEEP_AGE: TimeDelta = TimeDelta::days(90);

fn path_of(run: &RunId) -> String {
    format!("{RUNS}/{run}.json")
}

/// The on-disk form of a run's record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1(RecordV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordV1 {
    run: RunId,
    state: RunState,
    command: String,
    job: String,
    pid: u32,
    host: String,
    started_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<serde_json::Value>,
}

impl From<RecordV1> for RunRecord {
    fn from(stored: RecordV1) -> Self {
        Self {
            run: stored.run,
            command: stored.command,
            job: stored.job,
            pid: stored.pid,
            host: stored.host,
            started_at: stored.started_at,
            ended_at: stored.ended_at,
            state: stored.state,
            exit_code: stored.exit_code,
            summary: stored.summary,
        }
    }
}

impl From<RunRecord> for RecordV1 {
    fn from(record: RunRecord) -> Self {
        Self {
            run: record.run,
            state: record.state,
            command: record.command,
            job: record.job,
            pid: record.pid,
            host: record.host,
            started_at: record.started_at,
            ended_at: record.ended_at,
            exit_code: record.exit_code,
            summary: record.summary,
        }
    }
}

fn write(store: &Store, record: RunRecord) -> Result<()> {
    let path = path_of(&record.run);
    let encoded = serde_json::to_vec_pretty(&Stored::V1(record.into()));
    let bytes = encoded.map_err(|source| Error::Encode { what: "run", source })?;
    Ok(store.write(&path, &seal::seal(&bytes))?)
}

fn read(store: &Store, path: &str) -> Result<Option<RunRecord>> {
    let Some(bytes) = store.read_if_exists(path)? else { return Ok(None) };
    decode(path, &bytes).map(Some)
}

/// Reads the record of a run in any form known; `path` is for errors.
pub(super) fn decode(path: &str, bytes: &[u8]) -> Result<RunRecord> {
    match decode_versioned(path, bytes, &["1"])? {
        Stored::V1(record) => Ok(record.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::testing::at;
    use crate::commit::testing::lake;
    use crate::commit::testing::run;

    fn holder(number: u64, hours: i64) -> Holder {
        Holder {
            pid: 4711,
            host: "etl-1".to_owned(),
            run: run(number),
            command: "sync".to_owned(),
            job: "agency-nightly".to_owned(),
            since: at(hours),
        }
    }

    #[test]
    fn runs_are_listed_newest_first_with_how_they_ended() {
        let (_folder, store) = lake();
        let summary = serde_json::json!({ "leads": 12 });
        begin_run(&store, &holder(1, 0)).unwrap();
        end_run(&store, &holder(1, 0), 8, summary.clone(), at(1)).unwrap();
        begin_run(&store, &holder(2, 24)).unwrap();
        let listed = runs(&store).unwrap();
        assert_eq!(listed.iter().map(|record| &record.run).collect::<Vec<_>>(), [&run(2), &run(1)]);
        assert_eq!((listed[0].state, listed[0].exit_code), (RunState::Running, None));
        assert_eq!((listed[1].state, listed[1].exit_code), (RunState::Ended, Some(8)));
        assert_eq!((&listed[1].summary, listed[1].ended_at), (&Some(summary), Some(at(1))));
    }

    #[test]
    fn a_run_that_neither_ended_nor_holds_the_lake_is_dead_until_it_is_buried() {
        let (_folder, store) = lake();
        begin_run(&store, &holder(1, 0)).unwrap();
        begin_run(&store, &holder(2, 24)).unwrap();
        let dead = dead_runs(&store, &run(2), at(25)).unwrap();
        assert_eq!(dead.iter().map(|record| &record.run).collect::<Vec<_>>(), [&run(1)]);
        for record in dead {
            bury_run(&store, record, at(25)).unwrap();
        }
        assert_eq!(dead_runs(&store, &run(2), at(25)).unwrap(), []);
        let buried = runs(&store).unwrap().remove(1);
        assert_eq!((buried.state, buried.ended_at), (RunState::Died, Some(at(25))));
    }

    #[test]
    fn in_a_bucket_a_run_is_given_a_day_to_wake_up_from_when_another_took_the_lake() {
        let store = Store::in_memory();
        begin_run(&store, &holder(1, 0)).unwrap();
        assert_eq!(dead_runs(&store, &run(2), at(100)).unwrap(), []);
        begin_run(&store, &holder(2, 100)).unwrap();
        assert_eq!(dead_runs(&store, &run(3), at(123)).unwrap(), []);
        let dead = dead_runs(&store, &run(3), at(124)).unwrap();
        assert_eq!(dead.iter().map(|record| &record.run).collect::<Vec<_>>(), [&run(1)]);
    }

    #[test]
    fn a_record_that_cannot_be_read_hides_no_other() {
        let (_folder, store) = lake();
        begin_run(&store, &holder(1, 0)).unwrap();
        store.write("state/runs/damaged.json", b"{").unwrap();
        store.write("state/runs/newer.json", b"{\"version\":\"7\"}").unwrap();
        assert_eq!(runs(&store).unwrap().len(), 1);
    }

    #[test]
    fn records_whose_names_tell_that_they_are_too_old_are_not_read() {
        let (_folder, store) = lake();
        let named = |hours: i64| Holder { run: RunId::new(at(hours)), ..holder(1, hours) };
        for hours in [0, 10, 20, 30] {
            begin_run(&store, &named(hours)).unwrap();
        }
        let old = format!("{RUNS}/{}.json", RunId::new(at(1)));
        store.write(&old, b"nobody reads it").unwrap();
        let began = |record: RunRecord| record.started_at;
        assert_eq!(runs_since(&store, at(9), began).unwrap(), [at(30), at(20), at(10)]);
        assert_eq!(runs_since(&store, at(10), began).unwrap(), [at(30), at(20)]);
        assert_eq!(
            runs(&store).unwrap().into_iter().map(began).collect::<Vec<_>>(),
            [at(30), at(20), at(10), at(0)]
        );
    }

    #[test]
    fn young_records_count_among_the_newest_without_being_read() {
        let (_folder, store) = lake();
        let named = |hours: i64| Holder { run: RunId::new(at(hours)), ..holder(1, hours) };
        for hours in (0..25).chain(10_000..10_015) {
            end_run(&store, &named(hours), 0, serde_json::Value::Null, at(hours)).unwrap();
        }
        assert_eq!(prune_runs(&store, at(10_020)).unwrap(), 20);
        assert_eq!(runs(&store).unwrap().len(), 20);
    }

    #[test]
    fn old_records_go_except_the_newest_and_those_not_cleaned_up_after() {
        let (_folder, store) = lake();
        for number in 1..=30 {
            let hours = i64::try_from(number).unwrap();
            begin_run(&store, &holder(number, hours)).unwrap();
            if number != 3 {
                end_run(&store, &holder(number, hours), 0, serde_json::Value::Null, at(40))
                    .unwrap();
            }
        }
        assert_eq!(prune_runs(&store, at(5) + KEEP_AGE).unwrap(), 3);
        assert_eq!(prune_runs(&store, at(10_000)).unwrap(), 6);
        assert_eq!(runs(&store).unwrap().len(), 21);
    }
}
