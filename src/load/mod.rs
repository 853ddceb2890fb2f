//! Leads in columns become parts, change files and CSV.
//!
//! [`Staging`] takes batches of one source as they come and keeps them as sorted runs on a scratch
//! disk. [`publish()`] merges the runs with the source's living parts, compares by `lead_id` and
//! `_content_hash`, and writes new immutable parts where something changed; what it did goes row by
//! row to the [`ChangeWriter`] of the commit. Nothing here makes anything visible: files appear
//! under names that carry the run, and a commit names them, or nobody does.
//!
//! Memory is flat: a budget for what is staged, a few batches of each run and part while merging,
//! and one row group while writing. It does not grow with the rows staged or held.

use std::path::Path;
use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::config::CsvCompression;
use crate::config::Format;
use crate::config::Nested;
use crate::config::OnDelete;
use crate::config::ParquetCompression;
use crate::error::Hint;

mod caught;
mod changes;
mod compare;
mod cursor;
mod filled;
mod groups;
mod incoming;
mod inspect;
mod keys;
mod merge;
mod part;
mod pieces;
mod publish;
mod rebuild;
pub(crate) mod render;
mod rows;
mod runs;
mod staging;
mod superseded;

#[cfg(test)]
mod flat;
#[cfg(test)]
mod model;
#[cfg(test)]
mod testing;

pub use caught::Readings;
pub use caught::Rule;
pub use caught::Shown;
pub use changes::ChangeWriter;
pub use changes::Op;
pub use changes::Reason;
pub use filled::filled;
pub use inspect::Change;
pub use inspect::HeldRow;
pub use inspect::Inspected;
pub use inspect::changes_in;
pub use inspect::inspect;
pub use keys::LeadKey;
pub use keys::archive_places;
pub use keys::lead_keys;
pub use keys::span;
pub use part::MISSING;
pub use part::difference;
pub use publish::Counts;
pub use publish::Limits;
pub use publish::Mode;
pub use publish::Publish;
pub use publish::Published;
pub use publish::publish;
pub use rebuild::Rebuild;
pub use rebuild::Rebuilt;
pub use rebuild::Target;
pub use staging::Room;
pub use staging::Staging;

/// An error from staging, merging or writing leads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the lake could not be read or written.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A file on the scratch disk could not be read or written.
    #[error("failed to {action} scratch file `{path}`")]
    Scratch {
        /// What was tried, e.g. `write`.
        action: &'static str,
        /// The whole path.
        path: PathBuf,
        /// What Arrow or the operating system said.
        source: ArrowError,
    },
    /// A Parquet file of the lake could not be read or written.
    #[error("failed to {action} Parquet file `{path}`")]
    Parquet {
        /// What was tried, e.g. `read`.
        action: &'static str,
        /// The path within the lake; the whole path of one that could not be written.
        path: String,
        /// What the Parquet library said.
        source: ParquetError,
    },
    /// A CSV file could not be written.
    #[error("failed to write CSV file `{path}`")]
    Csv {
        /// The whole path.
        path: String,
        /// What the CSV library said.
        source: csv::Error,
    },
    /// Batches could not be computed with: their columns differ from the schema's.
    #[error("failed to combine batches of leads")]
    Batch(#[from] ArrowError),
    /// A column that leads must have is missing, or has another type.
    #[error("column `{column}` is missing or not of type {expected}")]
    Column {
        /// The column's name.
        column: String,
        /// The type it must have.
        expected: &'static str,
    },
    /// A batch was staged with more or fewer recencies than it has rows.
    #[error("{rows} leads were staged with {recencies} recencies")]
    Recency {
        /// The rows of the batch.
        rows: usize,
        /// The recencies given.
        recencies: usize,
    },
    /// Two parts of a partition hold the same range of keys.
    #[error("parts `{first}` and `{second}` overlap")]
    Overlap {
        /// The path of the part with the smaller first key.
        first: String,
        /// The path of the other.
        second: String,
    },
    /// A file that a commit names is not as it was written.
    #[error("file `{path}` of the lake is damaged: {what}")]
    Damaged {
        /// The path within the lake.
        path: String,
        /// What differs.
        what: &'static str,
    },
    /// The system gives no more threads.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// What the code takes for granted is not so.
    #[error("{0}: this is a bug of leadpipe")]
    Bug(&'static str),
    /// A setting that this version cannot follow.
    #[error("{setting} is not supported")]
    Unsupported {
        /// The setting, e.g. `load.nested = "native"`.
        setting: &'static str,
    },
}

impl Error {
    fn scratch(action: &'static str, path: &Path, source: impl Into<ArrowError>) -> Self {
        Self::Scratch { action, path: path.to_owned(), source: source.into() }
    }

    fn parquet(action: &'static str, path: &str, source: impl Into<ParquetError>) -> Self {
        Self::Parquet { action, path: path.to_owned(), source: source.into() }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } | Self::Parquet { action: "read", .. } | Self::Overlap { .. } => {
                Some(
                    "nothing was changed; `leadpipe verify JOB` shows what is damaged, and with \
                     --repair makes it again from the changes and the archive"
                        .to_owned(),
                )
            }
            Self::Scratch { .. } => Some(
                "nothing is lost by it; make room there, or for `verify` name another folder by TMPDIR"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// The result of a call on this module.
pub type Result<T> = std::result::Result<T, Error>;

/// What is written, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Which files the job wants. State is Parquet in every case; CSV is a rendering of it.
    pub format: Format,
    /// How pages of Parquet files are compressed.
    pub compression: ParquetCompression,
    /// How CSV files are compressed.
    pub csv_compression: CsvCompression,
    /// Whether CSV cells that a spreadsheet would run as formulas are left as they are.
    pub raw_csv: bool,
    /// How lists and maps are written; only JSON text for now.
    pub nested: Nested,
    /// What becomes of leads that are gone.
    pub on_delete: OnDelete,
}

impl Output {
    /// Tells whether parts are rendered as CSV too.
    pub fn wants_csv(&self) -> bool {
        self.format.shows_csv()
    }
}

impl Default for Output {
    fn default() -> Self {
        Self {
            format: Format::Parquet,
            compression: ParquetCompression::Zstd,
            csv_compression: CsvCompression::None,
            raw_csv: false,
            nested: Nested::Json,
            on_delete: OnDelete::Remove,
        }
    }
}

/// Returns how the name of a CSV file ends.
fn csv_suffix(compression: CsvCompression) -> &'static str {
    match compression {
        CsvCompression::None => ".csv",
        CsvCompression::Gzip => ".csv.gz",
        CsvCompression::Zstd => ".csv.zst",
    }
}

/// Names of columns this module reads or writes by name; all others pass through.
mod column {
    pub(super) const LEAD_ID: &str = "lead_id";
    pub(super) const CREATED_AT: &str = "created_at";
    pub(super) const UPDATED_AT: &str = "updated_at";
    pub(super) const SCOPE: &str = "_scope";
    pub(super) const CONTENT_HASH: &str = "_content_hash";
    pub(super) const FIRST_SEEN_AT: &str = "_first_seen_at";
    pub(super) const EXTRACTED_AT: &str = "_extracted_at";
    pub(super) const RUN_ID: &str = "_run_id";
    pub(super) const SEQ: &str = "_seq";
    pub(super) const ARCHIVE: &str = "_archive";
    pub(super) const DELETED_AT: &str = "_deleted_at";

    /// What is read of a held row to tell whether an incoming one changes it.
    pub(super) const COMPARED: [&str; 6] =
        [LEAD_ID, SCOPE, CONTENT_HASH, FIRST_SEEN_AT, EXTRACTED_AT, DELETED_AT];
    /// Whose bytes are hashed by themselves: what tells which rows change, or are absent.
    pub(super) const HASHED: [&str; 7] =
        [LEAD_ID, CREATED_AT, SCOPE, CONTENT_HASH, FIRST_SEEN_AT, EXTRACTED_AT, DELETED_AT];
    /// What is read of a held row that moves to another partition.
    pub(super) const LINEAGE: [&str; 9] = [
        LEAD_ID,
        SCOPE,
        CONTENT_HASH,
        FIRST_SEEN_AT,
        EXTRACTED_AT,
        RUN_ID,
        SEQ,
        ARCHIVE,
        DELETED_AT,
    ];
    /// Columns whose text is JSON.
    pub(super) const JSON: [&str; 5] =
        ["keywords", "tags", "custom_fields", "form_fields", "extra"];
    /// Columns with few different values, for which a dictionary pays. Ids, addresses, numbers and
    /// free text are different in nearly every row: there a dictionary is built only to be dropped.
    pub(super) const LOW_CARDINALITY: [&str; 31] = [
        "_op",
        "_reason",
        "_run_id",
        "_scope",
        "account_id",
        "account_name",
        "answer_status",
        "assigned_to",
        "browser",
        "call_status",
        "channel",
        "channel_native",
        "country",
        "currency",
        "device_make",
        "device_type",
        "form_name",
        "language",
        "marketing_campaign",
        "marketing_medium",
        "marketing_source",
        "operating_system",
        "profile_id",
        "profile_name",
        "provider",
        "qualification_native",
        "source",
        "stage",
        "status",
        "stream",
        "tracking_number",
    ];
}
