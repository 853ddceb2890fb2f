//! Small lakes for tests.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::commit::SourceCommit;
use crate::commit::SourceState;
use crate::config::Format;
use crate::config::Partitioning;
use crate::ids::ProviderId;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::store::Store;

/// Returns an empty lake in a folder that goes with the first value.
pub(crate) fn lake() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path().join("lake")).unwrap();
    (folder, store)
}

/// Returns an instant `hours` after one in 2026.
pub(super) fn at(hours: i64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-03-01T02:00:00Z".parse().unwrap();
    start + TimeDelta::hours(hours)
}

/// Returns the id of an invented run.
pub(super) fn run(number: u64) -> RunId {
    let text = format!("\"0198a000000070008000{number:012}\"");
    serde_json::from_str(&text).unwrap()
}

/// Returns a source's name.
pub(super) fn source(name: &str) -> SourceName {
    name.parse().unwrap()
}

/// Writes a file and says what it holds.
pub(super) fn stored(store: &Store, path: &str) -> StoredFile {
    store.write(path, path.as_bytes()).unwrap();
    let blake3 = blake3::hash(path.as_bytes()).to_hex().to_string();
    StoredFile { path: path.to_owned(), bytes: path.len() as u64, blake3 }
}

/// Writes a part that is no Parquet, which nothing here looks at.
pub(super) fn part(
    store: &Store,
    source: &str,
    partition: &str,
    seq: u64,
    by_run: u64,
    number: u32,
) -> PartFile {
    let name = format!("{}-{}-{number}.parquet", Seq(seq), run(by_run));
    let path = format!("parts/part_source={source}/part_created={partition}/{name}");
    PartFile {
        file: stored(store, &path),
        partition: partition.to_owned(),
        rows: 10,
        deleted_rows: 0,
        first_lead_id: "1".to_owned(),
        last_lead_id: "9".to_owned(),
        seq: Seq(seq),
        csv: None,
        key_hashes: None,
    }
}

/// Gives a part its CSV.
pub(super) fn with_csv(store: &Store, part: PartFile) -> PartFile {
    let path = part.file.path.replacen("parts/", "csv/", 1).replace(".parquet", ".csv");
    PartFile { csv: Some(stored(store, &path)), ..part }
}

/// Returns a complete source with these parts.
pub(super) fn source_commit(parts: Vec<PartFile>) -> SourceCommit {
    SourceCommit {
        provider: ProviderId::WhatConverts,
        job: "agency-nightly".to_owned(),
        mapping: "m1".to_owned(),
        settings: "s1".to_owned(),
        partition: Partitioning::Year,
        format: Format::Parquet,
        rows: parts.iter().map(|part| part.rows).sum(),
        parts,
        as_of: Some(at(0)),
        state: SourceState::Complete,
        why: None,
        was: Vec::new(),
    }
}

/// Returns commit `seq`, made by run `seq` at hour `seq`, with its change file and one part of
/// source `acme` written; the commit file is not.
pub(crate) fn seq_commit(store: &Store, seq: u64) -> Commit {
    let changes = format!("changes/{}-{}.parquet", Seq(seq), run(seq));
    let acme = source_commit(vec![part(store, "acme", "2026", seq, seq, 0)]);
    Commit {
        seq: Seq(seq),
        parent: (seq > 1).then(|| Seq(seq - 1)),
        run: run(seq),
        job: "agency-nightly".to_owned(),
        command: "sync".to_owned(),
        created_at: at(i64::try_from(seq).unwrap()),
        leadpipe: "0.1.0".to_owned(),
        schema_version: 1,
        key_fingerprint: "00112233445566ff".to_owned(),
        sources: BTreeMap::from([(source("acme"), acme)]),
        checkpoint: Checkpoint::default(),
        changes: ChangeFile { file: stored(store, &changes), rows: 1, upserts: 1, deletes: 0 },
        changes_from: None,
        rejects: Vec::new(),
        snapshot: Seq(seq),
        archive_checked_at: None,
    }
}
