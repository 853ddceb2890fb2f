//! The on-disk form of a commit.
//!
//! Each incompatible change adds a variant and a test that reads a file written by the variant
//! before it. The words it shares with the domain (checkpoint, part, scope) are stored as they are;
//! a change to one of those is a change to this form. A field that an older writer, which would
//! drop it, must not lose is an incompatible change too.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::calendar;
use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::commit::Error;
use crate::commit::Result;
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
use crate::schema::RejectFile;
use crate::seal;

/// A commit of a leadpipe lake: what it holds as of one moment, and how it came to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "version")]
enum Stored {
    /// The first form.
    #[serde(rename = "1")]
    V1(Box<CommitV1>),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct CommitV1 {
    /// Its number: the parent's plus one, the first is 1.
    seq: Seq,
    /// The commit it builds on; none for a lake's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Seq>,
    /// The run that wrote it; the names of its new files carry this id.
    run: RunId,
    /// The name of the job that run did.
    job: String,
    /// The command that run was, e.g. `sync`.
    command: String,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// The version of leadpipe that wrote it.
    leadpipe: String,
    /// The version of the lead schema of all its parts.
    schema_version: u32,
    /// The fingerprint of the key behind `email_key` and `phone_key`.
    key_fingerprint: String,
    /// The commit whose snapshot folder shows these parts.
    snapshot: Seq,
    /// When the archive was last searched for segments that may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive_checked_at: Option<DateTime<Utc>>,
    /// What it changed.
    changes: ChangeFile,
    /// Changes cannot be followed over this one: a loader that has an older commit than the one named
    /// takes the whole snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changes_from: Option<Seq>,
    /// What could not be mapped since the parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejects: Vec<RejectFile>,
    /// What it holds, by source.
    sources: BTreeMap<SourceName, SourceV1>,
    /// What was read to get here.
    checkpoint: Checkpoint,
    /// 32 hex digits of BLAKE3 over all that stands before this field; none in commits of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct SourceV1 {
    /// The platform.
    provider: ProviderId,
    /// The job that last wrote the source.
    job: String,
    /// The fingerprint of schema version and mapping settings of all its rows.
    mapping: String,
    /// The fingerprint of the job's `[load]` and `[privacy]`.
    settings: String,
    /// How its parts are cut.
    partition: Partitioning,
    /// The forms in which readers see it.
    format: Format,
    /// Rows in all its parts.
    rows: u64,
    /// When the stalest of what its job asks for was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    as_of: Option<DateTime<Utc>>,
    /// How far its reading got.
    state: SourceState,
    /// Why it is not complete, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Its earlier names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    was: Vec<SourceName>,
    /// Its living parts.
    parts: Vec<PartFile>,
}

impl From<CommitV1> for Commit {
    fn from(stored: CommitV1) -> Self {
        let sources = stored.sources.into_iter();
        Self {
            seq: stored.seq,
            parent: stored.parent,
            run: stored.run,
            job: stored.job,
            command: stored.command,
            created_at: stored.created_at,
            leadpipe: stored.leadpipe,
            schema_version: stored.schema_version,
            key_fingerprint: stored.key_fingerprint,
            sources: sources.map(|(name, source)| (name, source.into())).collect(),
            checkpoint: stored.checkpoint,
            changes: stored.changes,
            changes_from: stored.changes_from,
            rejects: stored.rejects,
            snapshot: stored.snapshot,
            archive_checked_at: stored.archive_checked_at,
        }
    }
}

impl From<Commit> for CommitV1 {
    fn from(commit: Commit) -> Self {
        let sources = commit.sources.into_iter();
        Self {
            seq: commit.seq,
            parent: commit.parent,
            run: commit.run,
            job: commit.job,
            command: commit.command,
            created_at: commit.created_at,
            leadpipe: commit.leadpipe,
            schema_version: commit.schema_version,
            key_fingerprint: commit.key_fingerprint,
            snapshot: commit.snapshot,
            archive_checked_at: commit.archive_checked_at,
            changes: commit.changes,
            changes_from: commit.changes_from,
            rejects: commit.rejects,
            sources: sources.map(|(name, source)| (name, source.into())).collect(),
            checkpoint: commit.checkpoint,
            seal: None,
        }
    }
}

impl From<SourceV1> for SourceCommit {
    fn from(stored: SourceV1) -> Self {
        Self {
            provider: stored.provider,
            job: stored.job,
            mapping: stored.mapping,
            settings: stored.settings,
            partition: stored.partition,
            format: stored.format,
            rows: stored.rows,
            parts: stored.parts,
            as_of: stored.as_of,
            state: stored.state,
            why: stored.why,
            was: stored.was,
        }
    }
}

impl From<SourceCommit> for SourceV1 {
    fn from(source: SourceCommit) -> Self {
        Self {
            provider: source.provider,
            job: source.job,
            mapping: source.mapping,
            settings: source.settings,
            partition: source.partition,
            format: source.format,
            rows: source.rows,
            as_of: source.as_of,
            state: source.state,
            why: source.why,
            was: source.was,
            parts: source.parts,
        }
    }
}

/// Puts a commit into its newest stored form, on one line: `checkpoint.json` is for people.
pub(super) fn encode(commit: &Commit) -> Result<Vec<u8>> {
    let stored = Stored::V1(Box::new(commit.clone().into()));
    let encoded = serde_json::to_vec(&stored);
    let mut bytes = encoded.map_err(|source| Error::Encode { what: "commit", source })?;
    bytes.push(b'\n');
    Ok(seal::seal(&bytes))
}

/// Reads a commit in any form known; `path` is for errors.
pub(super) fn decode(path: &str, bytes: &[u8]) -> Result<Commit> {
    match decode_versioned(path, bytes, &["1"])? {
        Stored::V1(commit) => Ok((*commit).into()),
    }
}

/// Reads a stored form that carries its `version`, and tells one from the future from a damaged one,
/// of which the seal is broken or the form is not known.
pub(super) fn decode_versioned<T: DeserializeOwned>(
    path: &str,
    bytes: &[u8],
    known: &[&str],
) -> Result<T> {
    #[derive(Deserialize)]
    struct Header {
        version: String,
    }
    let damaged = |source| Error::Damaged { path: path.to_owned(), source };
    if seal::is_broken(bytes) {
        return Err(damaged(serde::de::Error::custom("its seal is broken")));
    }
    let Header { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if !known.contains(&version.as_str()) {
        return Err(Error::NewerVersion { path: path.to_owned(), version });
    }
    calendar::read(bytes).map_err(damaged)
}

/// Reads `bytes` as each of the files of a lake that are read whole. Returns the commit, where they are
/// one; it is the same when it is written and read again.
#[cfg(any(test, fuzzing))]
pub fn read_as_any(bytes: &[u8]) -> Result<Commit> {
    let _ = crate::commit::runs::decode("run", bytes);
    let _ = crate::commit::key::decode(bytes);
    let commit = decode("commit", bytes)?;
    assert!(decode("commit", &encode(&commit)?)? == commit, "a commit changes when it is stored");
    Ok(commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Absent;
    use crate::checkpoint::AgeClass;
    use crate::checkpoint::Backfill;
    use crate::checkpoint::Caught;
    use crate::checkpoint::CaughtByMonth;
    use crate::checkpoint::Difference;
    use crate::checkpoint::OpenWalk;
    use crate::checkpoint::Partition;
    use crate::checkpoint::Partitions;
    use crate::checkpoint::RefreshTier;
    use crate::checkpoint::ScopeProgress;
    use crate::checkpoint::SmallerPages;
    use crate::checkpoint::SourceProgress;
    use crate::checkpoint::SparePages;
    use crate::commit::testing::at;
    use crate::commit::testing::lake;
    use crate::commit::testing::part;
    use crate::commit::testing::run;
    use crate::commit::testing::seq_commit;
    use crate::commit::testing::source;
    use crate::commit::testing::source_commit;
    use crate::commit::testing::stored;
    use crate::commit::testing::with_csv;
    use crate::contracts;
    use crate::error::Hint;
    use crate::ids::WalkId;
    use crate::record::Reason;
    use crate::record::Scope;
    use crate::record::Walk;
    use crate::window::Covered;
    use crate::window::Window;

    /// Written once by version 1 and never again.
    const V1: &[u8] = include_bytes!("../../tests/fixtures/commit/v1.json");

    fn walk(window: Option<Window>) -> Walk {
        Walk {
            id: WalkId::from("000000041-0a1b2c3d4e5f"),
            scope: Scope {
                source: source("acme"),
                stream: "leads".to_owned(),
                partition: "profile:123".to_owned(),
                query: "spam=true".to_owned(),
                list: String::new(),
            },
            window,
            page_size: 2500,
            opened_at: at(40),
            reason: Reason::NewTime,
            down_to: None,
        }
    }

    fn progress() -> SourceProgress {
        let window = Window::new(at(0), at(40)).unwrap();
        let mut scope = ScopeProgress {
            window_days: Some(399),
            difference: Some(Difference { rows: -1, seen: 2 }),
            ..ScopeProgress::default()
        };
        let (rows, reconciled) = (Some(1243), true);
        scope.coverage.insert(Covered {
            window,
            as_of: at(40),
            rows,
            reconciled,
            holes: 1,
            share: None,
        });
        let absent = Absent {
            lead_id: "77".to_owned(),
            since: at(30),
            reconciled: false,
            found_at: Some(at(31)),
        };
        let listed = vec![
            Partition { name: "profile:123".to_owned(), account: Some(5) },
            Partition { name: "profile:124".to_owned(), account: None },
        ];
        SourceProgress {
            spare: Vec::new(),
            caught: None,
            scopes: BTreeMap::from([(walk(None).scope.key(), scope)]),
            open_walks: vec![
                OpenWalk {
                    walk: walk(Some(window)),
                    loaded_pages: 7,
                    stated_rows: None,
                    advanced_at: None,
                },
                OpenWalk {
                    walk: walk(None),
                    loaded_pages: 0,
                    stated_rows: None,
                    advanced_at: None,
                },
            ],
            partitions: Some(Partitions { as_of: at(39), listed }),
            absent: vec![absent],
            // Younger than the fixture, which must keep reading without it.
            smaller_pages: BTreeMap::new(),
            fields: BTreeMap::from([("leads".to_owned(), vec!["lead_id".to_owned()])]),
        }
    }

    /// A commit in which every field has a value.
    fn full_commit() -> Commit {
        let (_folder, store) = lake();
        let mut commit = seq_commit(&store, 42);
        let mut written = with_csv(&store, part(&store, "acme", "2026", 41, 41, 0));
        written.deleted_rows = 2;
        let acme = SourceCommit {
            partition: Partitioning::Month,
            format: Format::Both,
            state: SourceState::Partial,
            why: Some("quota spent".to_owned()),
            was: vec![source("acme-old")],
            ..source_commit(vec![written, part(&store, "acme", "unknown", 42, 42, 1)])
        };
        let range = Window::new(at(-9000), at(-10)).unwrap();
        let (sources, asked_at) = (vec![source("acme")], at(3));
        let backfill = Backfill { sources, range, asked_at, again: true };
        let path = format!("rejects/{}-{}-acme.jsonl", Seq(42), run(42));
        commit.rejects = vec![RejectFile { file: stored(&store, &path), rows: 3 }];
        commit.sources.insert(source("acme"), acme);
        commit.checkpoint.sources.insert(source("acme"), progress());
        commit.checkpoint.backfills.insert("f00d".to_owned(), backfill);
        commit.archive_checked_at = Some(at(41));
        commit
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let (_folder, store) = lake();
        let mut later = grown_commit();
        let smaller = SmallerPages { rows: 1_250, too_large: 2_500, refused: true, as_of: at(39) };
        let acme = later.checkpoint.sources.get_mut(&source("acme")).unwrap();
        acme.smaller_pages.insert("leads".to_owned(), smaller);
        for commit in [full_commit(), later, seq_commit(&store, 1)] {
            assert_eq!(decode("c", &encode(&commit).unwrap()).unwrap(), commit);
        }
    }

    /// A commit whose checkpoint has all that came into version 1 after its first day.
    fn grown_commit() -> Commit {
        let mut commit = full_commit();
        let mut caught = Caught::default();
        for (tier, age) in [
            (RefreshTier::EveryRun, AgeClass::UnderOneDay),
            (RefreshTier::Weekly, AgeClass::UnderFourHundredDays),
            (RefreshTier::AskedFor, AgeClass::Unknown),
        ] {
            caught.count(tier, age);
        }
        let mut by_month = CaughtByMonth::new(at(30));
        by_month.add(&caught, at(40));
        let grown = SourceProgress {
            spare: vec![SparePages { at: at(40), pages: 3 }],
            caught: Some(by_month),
            ..progress()
        };
        commit.checkpoint.sources.insert(source("acme"), grown);
        commit
    }

    #[test]
    fn what_came_into_version_1_later_is_written_by_name() {
        let written: serde_json::Value =
            serde_json::from_slice(&encode(&grown_commit()).unwrap()).unwrap();
        let caught = &written["checkpoint"]["sources"]["acme"]["caught"]["months"];
        let month = caught.as_object().unwrap().values().next().unwrap();
        let expected = serde_json::json!({
            "every_run": { "under_1_day": 1 },
            "weekly": { "under_400_days": 1 },
            "asked_for": { "unknown": 1 },
        });
        assert_eq!(*month, expected);
    }

    #[test]
    fn a_file_written_by_version_1_keeps_reading() {
        assert_eq!(decode("v1.json", V1).unwrap(), full_commit());
    }

    #[test]
    fn a_newer_version_is_refused_with_what_to_do() {
        let newer = br#"{"version":"2","seq":"a form not known yet"}"#;
        let error = decode("commits/000000002.json", newer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file `commits/000000002.json` has version `2`, which this leadpipe does not know"
        );
        assert!(error.hint().unwrap().contains("newer leadpipe"));
    }

    #[test]
    fn the_schema_is_the_one_of_the_types_and_takes_what_is_written() {
        let mut schema = schemars::schema_for!(Stored);
        schema.insert("title".to_owned(), "leadpipe commit, version 1".into());
        let schema = schema.to_value();
        contracts::assert_is_made("commit", contracts::COMMIT, &schema);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let fixture = serde_json::from_slice(V1).unwrap();
        let written = serde_json::from_slice(&encode(&full_commit()).unwrap()).unwrap();
        let grown = serde_json::from_slice(&encode(&grown_commit()).unwrap()).unwrap();
        for commit in [&fixture, &written, &grown] {
            assert!(validator.is_valid(commit));
        }
        assert!(!validator.is_valid(&serde_json::json!({ "version": "2" })));
    }
}
