//! Pages as received, on disk, before anything else happens to them.
//!
//! A walk's pages lie in *segments*, files of JSON lines in which each line is a zstd frame of its
//! own: whatever a crash cuts off, the lines before it stay readable. The first line of a segment is
//! the walk's opening record; the last of its last segment is the closing record. A page is *held*
//! once its line is durable; [`Writer`] writes several pages that arrive together with one sync.
//!
//! No credentials are in what is archived. Leads are: these files are as private as the parts.

mod line;
mod reader;
mod writer;

pub use line::Closing;
pub use line::Hole;
pub use reader::ArchivedPage;
pub use reader::Record;
pub use reader::SegmentEnd;
pub use reader::SegmentName;
pub use reader::opening_of;
pub use reader::read_segment;
#[cfg(any(test, fuzzing))]
pub use reader::records_in;
pub use reader::segments;
pub use reader::segments_of_walk;
pub use reader::segments_since;
pub use writer::Writer;

use crate::error::Hint;

/// An error from writing or reading the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A segment could not be read to a point where it makes sense.
    #[error("failed to read segment `{path}`")]
    Read {
        /// The segment, relative to the lake.
        path: String,
        /// What the decoder said.
        source: std::io::Error,
    },
    /// A line is not in the form this version writes.
    #[error("line {line} of segment `{path}` is not a record of the archive")]
    Line {
        /// The segment, relative to the lake.
        path: String,
        /// The line, from 1.
        line: u64,
        /// What the parser said; it names a place, never a value.
        source: serde_json::Error,
    },
    /// A segment was written by a newer leadpipe.
    #[error("segment `{path}` has version `{version}`, which this leadpipe does not know")]
    Version {
        /// The segment, relative to the lake.
        path: String,
        /// The version it names.
        version: String,
    },
    /// The thread that writes has ended.
    #[error("the archive takes no more pages")]
    Closed,
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } | Self::Line { .. } => Some(
                "`leadpipe verify JOB` shows what of the archive is damaged; restore the segment from a \
                 backup, or let --repair note its loss"
                    .to_owned(),
            ),
            Self::Version { .. } => {
                Some("use the leadpipe that wrote it, or a later one".to_owned())
            }
            Self::Store(_) | Self::Closed => None,
        }
    }
}
