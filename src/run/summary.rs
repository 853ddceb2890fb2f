//! What a run did, in numbers: the source of every report and of `--json`.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::checkpoint::Caught;
use crate::checkpoint::SmallerPages;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::quota::Unexplained;

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run.
    pub run: RunId,
    /// The job's name.
    pub job: String,
    /// The command.
    pub command: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// The last commit it wrote; `None` where it wrote none.
    pub commit: Option<Seq>,
    /// The folder of the snapshot that is now the latest, relative to the lake.
    pub snapshot: Option<String>,
    /// All that the run ends with; empty where all is done.
    pub endings: Vec<Ending>,
    /// When it can go on, where a quota is spent.
    pub resume_at: Option<DateTime<Utc>>,
    /// By source.
    pub sources: BTreeMap<SourceName, SourceSummary>,
    /// Sources the job no longer names; the lake keeps their rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<SourceName>,
}

/// What happened to one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// How it ended.
    pub state: State,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// When it can go on, where a quota is spent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resume_at: Option<DateTime<Utc>>,
    /// Where the provider called the quota used up and our count does not explain it: somebody else
    /// spends on this key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spent_elsewhere: Option<Unexplained>,
    /// Permits of a day that a backfill leaves to what the syncs of a day need.
    #[serde(default)]
    pub kept_back: u64,
    /// Requests.
    pub requests: Requests,
    /// Walks finished.
    pub walks: u64,
    /// Walks of these that went on with one begun by an earlier run.
    pub resumed: u64,
    /// Walks planned and not finished.
    pub walks_left: u64,
    /// Pages received in this run.
    pub pages: u64,
    /// Pages of earlier runs loaded in this one, from the archive.
    pub pages_from_archive: u64,
    /// Records received.
    pub records: u64,
    /// What became of the leads.
    pub leads: Leads,
    /// Of the changed ones, the tier whose reading showed each and how old the lead was; those of a
    /// first reading count for none.
    #[serde(default, skip_serializing_if = "Caught::is_empty")]
    pub caught: Caught,
    /// Leads held after the run.
    pub rows: u64,
    /// Records that could not be mapped.
    pub rejects: u64,
    /// Rows of a lead that the same page shows with other content; the last one counts.
    #[serde(default)]
    pub contradictions: u64,
    /// Values that did not fit their column, by column.
    pub warnings: BTreeMap<String, u64>,
    /// CSV cells guarded against being run as formulas.
    pub guarded_cells: u64,
    /// Walks whose total the provider stated and that agreed with what was seen.
    pub reconciled: u64,
    /// Scopes whose total differs from what was seen, for the first time: stated minus seen.
    pub differences: BTreeMap<String, i64>,
    /// Scopes with pages that could not be told apart, or rows that kept shifting.
    pub unproven: Vec<String>,
    /// Listings without dates of which rows may have been hidden, by others that moved while it was
    /// read or by an end that came early. Nothing is gone by such a reading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<String>,
    /// Rows that never came right.
    pub holes: u64,
    /// Rows created outside the window they were asked for.
    pub outside: u64,
    /// Leads absent from a whole reading and held back by the guard.
    pub deletes_held_back: u64,
    /// Leads absent from a whole reading that wait for proof.
    pub absent: u64,
    /// Fields of records never seen before.
    pub new_fields: Vec<String>,
    /// Columns that are filled in what is held, and in nothing received.
    pub emptied_columns: Vec<String>,
    /// Scopes that hold rows, but are no longer listed or no longer in the job.
    pub retired: Vec<String>,
    /// The size of pages that is asked for instead of the job's, by stream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub smaller_pages: BTreeMap<String, SmallerPages>,
    /// Ids that both streams of a Convertalk customer showed: a row in each.
    #[serde(default)]
    pub shared_ids: u64,
    /// Listings without dates that a range leaves out, since they were read whole before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// How a source ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All that was planned is read.
    Complete,
    /// Some of it is still to be read.
    #[default]
    Partial,
    /// Its reading failed.
    Failed,
    /// Its credentials were refused or could not be read.
    Refused,
}

/// Requests of a run by what they were for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// All of them, retries included.
    pub sent: u64,
    /// Sent again after a failure.
    pub retries: u64,
    /// To find out from where rows had shifted, or which size of pages fits.
    pub probes: u64,
    /// Pages read again because rows had shifted.
    pub rereads: u64,
    /// Held pages asked for again, to see whether a listing still stands as it did.
    #[serde(default)]
    pub checks: u64,
    /// Single leads asked for by id.
    pub lookups: u64,
}

/// What became of leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leads {
    /// Not held before.
    pub new: u64,
    /// Held with other content.
    pub changed: u64,
    /// Held in another partition.
    pub moved: u64,
    /// Gone.
    pub gone: u64,
    /// Received as held.
    pub unchanged: u64,
}

impl Leads {
    /// Returns how many rows of the change file this makes.
    pub fn changes(&self) -> u64 {
        self.new + self.changed + self.moved + self.gone
    }
}

/// What a run ends with, when it is not simply done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A quota, or `--max-requests`, is spent; what there is, is committed.
    QuotaSpent,
    /// `--max-duration` is reached; what there is, is committed.
    DurationReached,
    /// The credentials of every source were refused.
    CredentialsRefused,
    /// A source failed.
    SourceFailed,
    /// Something needs a look.
    NeedsLook,
    /// Stopped by SIGINT; what there is, is committed.
    Interrupted,
    /// Stopped by SIGTERM; what there is, is committed.
    Terminated,
}

impl SourceSummary {
    /// Tells whether something about the source needs a look.
    pub fn needs_look(&self, max_reject_ratio: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no exact number")]
        let too_many = self.rejects as f64 > self.records as f64 * max_reject_ratio;
        !self.differences.is_empty()
            || !self.unproven.is_empty()
            || self.holes > 0
            || self.deletes_held_back > 0
            || self.contradictions > 0
            || !self.emptied_columns.is_empty()
            || (self.rejects > 0 && too_many)
    }
}

impl Summary {
    /// Returns the exit code of the first ending, by precedence; 0 where all is done.
    pub fn exit_code(&self) -> i32 {
        let first = self.endings.iter().min_by_key(|ending| ending.precedence());
        first.map_or(0, |ending| ending.exit_code())
    }
}

impl Ending {
    /// Returns the exit code, in the habit of restic and rclone.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::QuotaSpent => 8,
            Self::DurationReached => 10,
            Self::CredentialsRefused => 12,
            Self::SourceFailed => 3,
            Self::NeedsLook => 13,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// A signal is what the caller asked for; after it, the order of the design: 8, 10, 12, 3, 13.
    fn precedence(self) -> u8 {
        match self {
            Self::Interrupted | Self::Terminated => 0,
            Self::QuotaSpent => 1,
            Self::DurationReached => 2,
            Self::CredentialsRefused => 3,
            Self::SourceFailed => 4,
            Self::NeedsLook => 5,
        }
    }
}
