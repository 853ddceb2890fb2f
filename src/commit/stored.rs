//! The on-disk form of a commit.
//!
//! Each incompatible change adds a variant and a test that reads a file written by the variant
//! before it. The words it shares with the domain (checkpoint, part, scope) are stored as they are;
//! a change to one of those is a change to this form.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::commit::Error;
use crate::commit::Format;
use crate::commit::Partitioning;
use crate::commit::Result;
use crate::commit::SourceCommit;
use crate::commit::SourceState;
use crate::ids::ProviderId;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::ChangeFile;
use crate::schema::PartFile;
use crate::schema::RejectFile;

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
    /// What could not be mapped since the parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejects: Vec<RejectFile>,
    /// What it holds, by source.
    sources: BTreeMap<SourceName, SourceV1>,
    /// What was read to get here.
    checkpoint: Checkpoint,
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
            rejects: commit.rejects,
            sources: sources.map(|(name, source)| (name, source.into())).collect(),
            checkpoint: commit.checkpoint,
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
    Ok(bytes)
}

/// Reads a commit in any form known; `path` is for errors.
pub(super) fn decode(path: &str, bytes: &[u8]) -> Result<Commit> {
    match decode_versioned(path, bytes, &["1"])? {
        Stored::V1(commit) => Ok((*commit).into()),
    }
}

/// Reads a stored form that carries its `version`, and tells one from the future from a damaged
/// one.
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
    let Header { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if !known.contains(&version.as_str()) {
        return Err(Error::NewerVersion { path: path.to_owned(), version });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Returns the JSON Schema of a commit file, as it stands in `schemas/commit.v1.json`.
pub fn commit_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Stored);
    schema.insert("title".to_owned(), "leadpipe commit, version 1".into());
    schema.to_value()
}
