//! What a lake shows, and whether everything in it is as its commits say.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use leadpipe::commit;
use leadpipe::commit::Commit;
use leadpipe::commit::RunState;
use leadpipe::commit::SourceState;
use leadpipe::ids::Seq;
use leadpipe::store::Store;

use crate::support::batches;
use crate::support::difference;
use crate::support::text;

/// Content hash by source and lead.
pub(super) type Rows = BTreeMap<String, String>;

/// What a run begins with: the changes after it, applied to its rows, give the rows of the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    pub(super) seq: Seq,
    pub(super) rows: Rows,
}

/// Returns the rows of a lake's newest commit.
pub(super) fn rows(lake: &Store) -> Rows {
    commit::latest(lake).unwrap().map_or_else(Rows::new, |head| rows_of(lake, &head))
}

/// Returns the number of a lake's newest commit, 0 where there is none.
pub(super) fn seq(lake: &Store) -> Seq {
    commit::list(lake).unwrap().pop().unwrap_or(Seq(0))
}

/// Returns the number of a lake's newest commit, and its rows.
pub(super) fn start(lake: &Store) -> Start {
    Start { seq: seq(lake), rows: rows(lake) }
}

/// Returns the sources of which commits after number `before` have left nothing to be read: the next run
/// begins anew with them.
pub(super) fn done(store: &Store, before: Seq) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    let new = commit::list(store).unwrap().into_iter().filter(|seq| *seq > before);
    for commit in new.map(|seq| commit::read(store, seq).unwrap()) {
        // A backfill is the same one until all of it is done.
        if commit.checkpoint.backfills.is_empty() {
            let sources = commit.sources.iter();
            let complete = sources.filter(|(_, source)| source.state == SourceState::Complete);
            done.extend(complete.map(|(name, _)| name.to_string()));
        }
    }
    done
}

/// Returns all that is wrong with a lake in which nobody is at work, and which should have `expected`
/// rows.
pub(super) fn wrong(store: &Store, start: &Start, expected: &Rows) -> Vec<String> {
    let Some(head) = commit::latest(store).unwrap() else {
        return vec!["it has no commit".to_owned()];
    };
    let mut wrong = Vec::new();
    let found = rows_of(store, &head);
    let mut differ = |what: &str, found: &Rows| {
        wrong.extend(difference(found, expected).map(|how| format!("{what}: {how}")));
    };
    differ("rows", &found);
    differ("rows as CSV", &csv_rows(store, &head));
    differ("changes, applied in order", &replayed(store, start));
    let runs = commit::runs(store).unwrap();
    let running = runs.iter().filter(|run| run.state == RunState::Running);
    let mut running: Vec<String> = running.map(|run| run.run.to_string()).collect();
    // In a bucket a run that died is given a day to wake up, and keeps its files.
    if store.is_bucket() {
        let is_asleep = |stray: &String| running.iter().any(|run| stray.contains(run.as_str()));
        wrong.extend(stray_files(store, &head).into_iter().filter(|stray| !is_asleep(stray)));
        running.clear();
    } else {
        wrong.extend(stray_files(store, &head));
        wrong.extend(unfinished(&store.root()));
    }
    if store.has_snapshots() {
        wrong.extend(shown_otherwise(store, &head));
    }
    wrong.extend(lags(store, &head));
    wrong.extend(running.iter().map(|run| format!("run {run} is not buried")));
    wrong
}

fn rows_of(store: &Store, head: &Commit) -> Rows {
    let mut rows = Rows::new();
    for (source, held) in &head.sources {
        for part in &held.parts {
            for batch in batches(store, &part.file.path, &["lead_id", "_content_hash"]) {
                for row in 0..batch.num_rows() {
                    let key = format!("{source} {}", text(&batch, "lead_id", row));
                    let twice = rows.insert(key, text(&batch, "_content_hash", row));
                    assert!(twice.is_none(), "a lead is there twice");
                }
            }
        }
    }
    rows
}

fn csv_rows(store: &Store, head: &Commit) -> Rows {
    let mut rows = Rows::new();
    for (source, held) in &head.sources {
        for csv in held.parts.iter().filter_map(|part| part.csv.as_ref()) {
            let mut reader = csv::Reader::from_reader(store.open_file(&csv.path).unwrap());
            let headers = reader.headers().unwrap().clone();
            let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
            let (lead, hash) = (at("lead_id"), at("_content_hash"));
            for record in reader.records() {
                let record = record.unwrap();
                rows.insert(format!("{source} {}", &record[lead]), record[hash].to_owned());
            }
        }
    }
    rows
}

/// The rows of the start, with the change files since applied in order.
fn replayed(store: &Store, start: &Start) -> Rows {
    let mut rows = start.rows.clone();
    for seq in commit::list(store).unwrap().into_iter().filter(|seq| *seq > start.seq) {
        let commit = commit::read(store, seq).unwrap();
        let columns = ["_op", "source", "lead_id", "_content_hash"];
        for batch in batches(store, &commit.changes.file.path, &columns) {
            for row in 0..batch.num_rows() {
                let of = |column| text(&batch, column, row);
                let key = format!("{} {}", of("source"), of("lead_id"));
                match of("_op").as_str() {
                    "upsert" => drop(rows.insert(key, of("_content_hash"))),
                    _ => drop(rows.remove(&key)),
                }
            }
        }
    }
    rows
}

/// Files that no commit names, and files that one names and that are not there.
fn stray_files(store: &Store, head: &Commit) -> Vec<String> {
    let ended = commit::ended(store).unwrap();
    let (mut parts, mut logs) = (BTreeSet::new(), BTreeSet::new());
    for seq in commit::list(store).unwrap() {
        let commit = commit::read(store, seq).unwrap();
        logs.extend(commit.log_paths().map(str::to_owned));
        if seq > ended || seq == head.seq {
            parts.extend(commit.part_paths().map(str::to_owned));
        }
    }
    let there = |folders: [&str; 2]| -> BTreeSet<String> {
        folders.iter().flat_map(|folder| store.list_all(folder).unwrap()).collect()
    };
    let mut stray = Vec::new();
    for (named, there) in [(parts, there(["parts", "csv"])), (logs, there(["changes", "rejects"]))]
    {
        stray.extend(there.difference(&named).map(|path| format!("no commit names {path}")));
        stray.extend(named.difference(&there).map(|path| format!("{path} is missing")));
    }
    stray
}

/// What readers see that is not the newest commit's, and snapshots of commits that have ended.
fn shown_otherwise(store: &Store, head: &Commit) -> Vec<String> {
    let mut otherwise = Vec::new();
    let folder = format!("snapshots/{}", head.snapshot);
    if store.pointee("latest").as_deref() != Some(&folder) {
        otherwise.push(format!("latest points to {:?}, not {folder}", store.pointee("latest")));
    }
    let mut expected: Vec<String> = head
        .part_paths()
        .map(|path| match path.strip_prefix("parts/") {
            Some(below) => format!("{folder}/leads/{below}"),
            None => format!("{folder}/leads_{path}"),
        })
        .collect();
    expected.sort_unstable();
    if store.list_all(&folder).unwrap() != expected {
        otherwise.push(format!("{folder} is not what the newest commit holds"));
    }
    let ended = commit::ended(store).unwrap();
    let living = commit::list(store).unwrap().into_iter().filter(|seq| *seq > ended);
    let living: BTreeSet<String> =
        living.map(|seq| commit::read(store, seq).unwrap().snapshot.to_string()).collect();
    let there: BTreeSet<String> = store.list("snapshots").unwrap().into_iter().collect();
    if there != living {
        otherwise.push(format!("snapshots {there:?}, of which {living:?} live"));
    }
    otherwise
}

/// A copy of the checkpoint that is not the newest commit's.
fn lags(store: &Store, head: &Commit) -> Option<String> {
    let copy = store.read("checkpoint.json").unwrap();
    let copy: serde_json::Value = serde_json::from_slice(&copy).unwrap();
    let is_its = copy["seq"] == serde_json::json!(head.seq);
    (!is_its).then(|| format!("checkpoint.json is of commit {}", copy["seq"]))
}

/// Files and folders at any depth that somebody began and never finished.
fn unfinished(lake: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![lake.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_scratch = folder_is(&path, "state/scratch");
            if name.starts_with(".tmp-") || is_scratch {
                let path = path.strip_prefix(lake).unwrap().display();
                found.push(format!("{path} was never finished"));
            } else if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn folder_is(path: &Path, folder: &str) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with(folder))
}

/// Copies a lake to where none is.
pub(super) fn copy(from: &Store, to: &Store) {
    if !from.is_bucket() {
        return copy_folder(&from.root(), &to.root());
    }
    for path in from.list_all("").unwrap() {
        to.write(&path, &from.read(&path).unwrap()).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_folder(&source, &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(source).unwrap(), target).unwrap();
        } else {
            fs::copy(source, target).unwrap();
        }
    }
}
