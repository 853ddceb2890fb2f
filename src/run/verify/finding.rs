//! What `verify` finds, repairs and compares, as values.

use serde::Serialize;

use super::totals::Totals;
use crate::ids::Seq;

/// What is wrong with a file. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A commit file is not as it was written, or has the number of another.
    CommitDamaged,
    /// A commit file of a later leadpipe.
    CommitNewer,
    /// A commit file before the newest is gone.
    CommitMissing,
    /// The newest commit file is gone.
    NewestCommitMissing,
    /// A commit contradicts itself, or the one before it.
    CommitContradiction,
    /// The newest commit was made at a time that is yet to come.
    CommitAhead,
    /// A part is gone.
    PartMissing,
    /// A part is not as it was written.
    PartDamaged,
    /// A part holds other rows than its commit says.
    PartContradiction,
    /// A lead is in a source more than once.
    KeyTwice,
    /// A CSV file is gone.
    CsvMissing,
    /// A CSV file is not as it was written.
    CsvDamaged,
    /// A change file is gone.
    ChangesMissing,
    /// A change file is not as it was written.
    ChangesDamaged,
    /// The change files, applied in order, do not give the rows.
    ChangesContradiction,
    /// A file of rejects is gone.
    RejectsMissing,
    /// A file of rejects is not as it was written.
    RejectsDamaged,
    /// A segment of the archive that rows need for a replay is gone.
    SegmentMissing,
    /// A segment of the archive is not as it was written, or shorter than rows say.
    SegmentDamaged,
    /// A segment ends in the middle of a page that nothing needs, as a crash leaves it.
    SegmentTorn,
    /// A segment of a later leadpipe.
    SegmentNewer,
    /// A snapshot folder does not show the parts of its commit.
    SnapshotDiffers,
    /// `latest` or `checkpoint.json` is not as made from the newest commit.
    DerivedDiffers,
    /// A quota's ledger cannot be read.
    LedgerDamaged,
    /// A quota's ledger is gone although requests were sent in the last 24 hours.
    LedgerMissing,
    /// The record of a run cannot be read.
    RunDamaged,
    /// Totals that were asked for earlier cannot be read.
    ProbesDamaged,
    /// `state/ended.json` cannot be read, or is ahead of the newest commit.
    EndedDamaged,
    /// `state/losses.json` cannot be read.
    LossesDamaged,
    /// The lake's key is gone.
    KeyMissing,
    /// The lake's key is not the one of its commits.
    KeyDiffers,
    /// A file that no commit names.
    Leftover,
    /// A file that a repair has set aside.
    SetAside,
    /// A file that a repair has noted as lost.
    KnownLoss,
    /// Something that could not be looked at.
    NotChecked,
}

impl Kind {
    /// Tells whether a lake in which this is found is not sound.
    pub fn matters(self) -> bool {
        !matches!(
            self,
            Self::CommitAhead
                | Self::SegmentTorn
                | Self::Leftover
                | Self::SetAside
                | Self::KnownLoss
                | Self::NotChecked
        )
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The file, relative to the lake.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// What a repair would do, or what the way out is.
    pub way_out: String,
    /// Whether the lake is not sound for it.
    pub matters: bool,
}

/// One thing that a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The file, relative to the lake.
    pub path: String,
    /// What became of it.
    pub how: String,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Commit files.
    pub commits: u64,
    /// Files that commits name.
    pub files: u64,
    /// Segments of the archive.
    pub segments: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Rows of the newest commit.
    pub rows: u64,
}

/// What `verify` found, and did.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The job.
    pub job: String,
    /// The lake.
    pub lake: String,
    /// The newest commit that can be read.
    pub commit: Option<Seq>,
    /// Whether nothing was found that matters, after the repair where there was one.
    pub is_sound: bool,
    /// How much was looked at.
    pub checked: Checked,
    /// What was found; after a repair, what is left.
    pub findings: Vec<Finding>,
    /// What a repair did.
    pub repairs: Vec<Repaired>,
    /// The commit that a repair wrote.
    pub committed: Option<Seq>,
    /// How the totals of the providers compare, by source and scope.
    pub totals: Vec<Totals>,
}
