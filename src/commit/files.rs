//! What a loader should read.
//!
//! Loaders go by commits: those that know the number they have loaded ask for the changes since,
//! and get the whole snapshot where these are no longer kept.

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;

use crate::commit::Commit;
use crate::commit::Error;
use crate::commit::Result;
use crate::commit::latest;
use crate::commit::list;
use crate::commit::read;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::schema::StoredFile;
use crate::store::Store;

/// What a loader should read to be as of commit `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FilesAnswer {
    /// The change files after `since`, in the order in which they apply.
    Changes {
        /// The commit the loader has.
        since: Seq,
        /// The commit it has afterwards.
        seq: Seq,
        /// One file a commit.
        files: Vec<SeqChanges>,
    },
    /// All rows, in place of what the loader has.
    Snapshot {
        /// The commit; 0 for a lake without one.
        seq: Seq,
        /// The commit asked for, where its changes are no longer kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        too_old: Option<Seq>,
        /// The living parts.
        files: Vec<LivingFile>,
    },
}

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeqChanges {
    /// The commit.
    pub seq: Seq,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Its change file.
    #[serde(flatten)]
    pub changes: ChangeFile,
}

/// A file of the newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LivingFile {
    /// The source of all its rows.
    pub source: SourceName,
    /// The value of `part_created`.
    pub partition: String,
    /// `parquet` or `csv`.
    pub format: &'static str,
    /// Rows in it.
    pub rows: u64,
    /// The file.
    #[serde(flatten)]
    pub file: StoredFile,
}

/// Returns what a loader that has commit `since` (or nothing) should read.
///
/// Returns [`Error::SinceAhead`] where `since` is yet to come.
pub fn files(store: &Store, since: Option<Seq>) -> Result<FilesAnswer> {
    let newest = latest(store)?;
    let seq = newest.as_ref().map_or(Seq(0), |commit| commit.seq);
    let Some(since) = since else { return Ok(snapshot(newest.as_ref(), None)) };
    if since > seq {
        return Err(Error::SinceAhead { since, latest: seq });
    }
    match changes_since(store, since, seq)? {
        Some(files) => Ok(FilesAnswer::Changes { since, seq, files }),
        None => Ok(snapshot(newest.as_ref(), Some(since))),
    }
}

/// Returns `None` where a commit of the range, or its change file, is no longer there, or a repair has
/// cut the changes.
fn changes_since(store: &Store, since: Seq, newest: Seq) -> Result<Option<Vec<SeqChanges>>> {
    let mut numbers = list(store)?;
    numbers.retain(|seq| *seq > since && *seq <= newest);
    if numbers.len() as u64 != newest.0 - since.0 {
        return Ok(None);
    }
    let mut files = Vec::with_capacity(numbers.len());
    for seq in numbers {
        let commit = match read(store, seq) {
            Err(Error::NoCommit { .. }) => return Ok(None),
            read => read?,
        };
        if commit.changes_from.is_some_and(|from| since < from) {
            return Ok(None);
        }
        if !store.exists(&commit.changes.file.path)? {
            return Ok(None);
        }
        files.push(SeqChanges { seq, created_at: commit.created_at, changes: commit.changes });
    }
    Ok(Some(files))
}

fn snapshot(newest: Option<&Commit>, too_old: Option<Seq>) -> FilesAnswer {
    let seq = newest.map_or(Seq(0), |commit| commit.seq);
    let mut files = Vec::new();
    for (name, source) in newest.iter().flat_map(|commit| &commit.sources) {
        for part in &source.parts {
            if source.format.shows_parquet() {
                files.push(LivingFile::new(name, part, "parquet", &part.file));
            }
            let csv = part.csv.iter().filter(|_| source.format.shows_csv());
            files.extend(csv.map(|csv| LivingFile::new(name, part, "csv", csv)));
        }
    }
    FilesAnswer::Snapshot { seq, too_old, files }
}

impl LivingFile {
    fn new(source: &SourceName, part: &PartFile, format: &'static str, file: &StoredFile) -> Self {
        Self {
            source: source.clone(),
            partition: part.partition.clone(),
            format,
            rows: part.rows,
            file: file.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::SourceCommit;
    use crate::commit::testing::lake;
    use crate::commit::testing::part;
    use crate::commit::testing::seq_commit;
    use crate::commit::testing::source;
    use crate::commit::testing::source_commit;
    use crate::commit::testing::with_csv;
    use crate::commit::write;
    use crate::config::Format;

    fn lake_of(count: u64) -> (tempfile::TempDir, Store) {
        let (folder, store) = lake();
        for seq in 1..=count {
            write(&store, &seq_commit(&store, seq)).unwrap();
        }
        (folder, store)
    }

    fn change_seqs(answer: &FilesAnswer) -> Vec<u64> {
        match answer {
            FilesAnswer::Changes { files, .. } => files.iter().map(|file| file.seq.0).collect(),
            FilesAnswer::Snapshot { .. } => panic!("a snapshot: {answer:?}"),
        }
    }

    #[test]
    fn a_loader_gets_the_changes_after_its_commit_in_order() {
        let (_folder, store) = lake_of(12);
        assert_eq!(change_seqs(&files(&store, Some(Seq(9))).unwrap()), [10, 11, 12]);
        assert_eq!(change_seqs(&files(&store, Some(Seq(0))).unwrap()).len(), 12);
        assert_eq!(change_seqs(&files(&store, Some(Seq(12))).unwrap()).len(), 0);
    }

    #[test]
    fn a_commit_whose_changes_are_gone_is_too_old() {
        for gone in
            ["commits/000000002.json", "changes/000000002-0198a000000070008000000000000002.parquet"]
        {
            let (_folder, store) = lake_of(4);
            store.remove(gone).unwrap();
            let FilesAnswer::Snapshot { seq, too_old, files: living } =
                files(&store, Some(Seq(1))).unwrap()
            else {
                panic!("changes that are gone")
            };
            assert_eq!((seq, too_old, living.len()), (Seq(4), Some(Seq(1)), 1));
            assert_eq!(change_seqs(&files(&store, Some(Seq(2))).unwrap()), [3, 4]);
        }
    }

    #[test]
    fn a_commit_yet_to_come_is_refused() {
        let (_folder, store) = lake_of(2);
        let error = files(&store, Some(Seq(3))).unwrap_err();
        assert!(matches!(error, Error::SinceAhead { since: Seq(3), latest: Seq(2) }));
    }

    #[test]
    fn without_a_commit_the_living_files_come_in_the_forms_their_source_asks_for() {
        let (_folder, store) = lake();
        let mut commit = seq_commit(&store, 1);
        for (name, format) in [("one", Format::Csv), ("two", Format::Both)] {
            let part = with_csv(&store, part(&store, name, "2026", 1, 1, 0));
            let added = SourceCommit { format, ..source_commit(vec![part]) };
            commit.sources.insert(source(name), added);
        }
        write(&store, &commit).unwrap();
        let FilesAnswer::Snapshot { files: living, too_old: None, .. } =
            files(&store, None).unwrap()
        else {
            panic!("changes for a loader that has nothing")
        };
        let listed: Vec<(&str, &str)> =
            living.iter().map(|file| (file.source.as_str(), file.format)).collect();
        let expected = [("acme", "parquet"), ("one", "csv"), ("two", "parquet"), ("two", "csv")];
        assert_eq!(listed, expected);
        assert!(
            living.iter().all(|file| file.rows == 10 && store.exists(&file.file.path).unwrap())
        );
    }

    #[test]
    fn a_lake_without_commits_has_no_files() {
        let (_folder, store) = lake();
        let empty = FilesAnswer::Snapshot { seq: Seq(0), too_old: None, files: Vec::new() };
        assert_eq!(files(&store, None).unwrap(), empty);
        assert_eq!(change_seqs(&files(&store, Some(Seq(0))).unwrap()).len(), 0);
    }
}
