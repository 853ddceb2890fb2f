//! Facts of a run, told while they happen.

use serde::Serialize;

use crate::ids::Seq;
use crate::ids::SourceName;
use crate::plan::Requests;
use crate::record::Reason;

/// A fact of a run. None holds personal data or a secret.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A run that ended without a word was cleaned up after.
    CleanedUp {
        /// The run.
        run: String,
    },
    /// The archive is mapped again: asked for, or since the mapping's settings have changed.
    Replaying {
        /// The source.
        source: SourceName,
    },
    /// The provider was asked which partitions there are.
    Listed {
        /// The source.
        source: SourceName,
        /// Partitions listed.
        partitions: usize,
        /// Partitions selected by the job.
        selected: usize,
    },
    /// A source's walks are planned.
    Planned {
        /// The source.
        source: SourceName,
        /// How many.
        walks: usize,
        /// What they cost.
        requests: Requests,
    },
    /// A walk begins or goes on.
    WalkOpened {
        /// The source.
        source: SourceName,
        /// The scope's name within the source.
        scope: String,
        /// The span of creation times.
        window: Option<String>,
        /// Why.
        reason: Reason,
        /// Pages held already.
        held: usize,
    },
    /// A page is held.
    PageHeld {
        /// The source.
        source: SourceName,
    },
    /// A walk is done.
    WalkClosed {
        /// The source.
        source: SourceName,
        /// The scope's name within the source.
        scope: String,
        /// Distinct records seen.
        records: u64,
        /// The total the provider stated.
        total: Option<u64>,
        /// Whether they agree.
        reconciled: bool,
    },
    /// A commit is written.
    Committed {
        /// Its number.
        seq: Seq,
        /// Rows in all its parts.
        rows: u64,
        /// Rows in its change file.
        changes: u64,
    },
    /// A source's reading has ended before it was complete.
    SourceStopped {
        /// The source.
        source: SourceName,
        /// Why.
        why: String,
    },
}

/// Takes the facts of a run as they happen; must not block.
pub trait Observer: Send + Sync {
    /// Takes one.
    fn observe(&self, event: &Event);
}

/// Takes no notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: &Event) {}
}
