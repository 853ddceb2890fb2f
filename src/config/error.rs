//! What is wrong with a job file, and where.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::memory::TooLittle;
use crate::error::Hint;

/// An error from reading a job file, or a secret it points at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The job file cannot be read.
    #[error("failed to read job file `{}`", path.display())]
    Read {
        /// The job file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The job file can be read, but means nothing; all that is wrong with it, one problem a line.
    #[error("{}", Lines { path, problems })]
    Invalid {
        /// The job file.
        path: PathBuf,
        /// At least one, in the order of the file.
        problems: Vec<Problem>,
    },
    /// An environment variable that should hold a secret is not set, or is not text.
    #[error("environment variable `{name}` is not set")]
    SecretNotSet {
        /// The variable.
        name: String,
    },
    /// A file that should hold a secret cannot be read.
    #[error("failed to read secret file `{}`", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What should hold a secret is there, but empty.
    #[error("{place} is empty")]
    SecretEmpty {
        /// The variable or the file, in words.
        place: String,
    },
    /// The memory that a run may take is too little for the job.
    #[error(transparent)]
    TooLittleMemory(#[from] TooLittle),
    /// The types of the job file, its schema and the embedded defaults do not agree: a bug of ours.
    #[error("the job file fits its schema and yet cannot be read: {message}")]
    Mismatch {
        /// Where they differ.
        message: String,
    },
}

/// One thing that is wrong with a job file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about, from the top, e.g. `sources[0].quota.per_day`; empty for the file.
    pub place: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// Which rule is broken.
    pub kind: ProblemKind,
    /// What is wrong, in words; never the value of a secret.
    pub message: String,
}

/// Which rule a job file breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// It is not TOML.
    Syntax,
    /// A key that does not exist at its place.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value of another type than its key takes.
    WrongType,
    /// A secret written out instead of pointed at.
    LiteralSecret,
    /// A value of the right type that its key does not take.
    Value,
    /// The address of a bucket is none that is known, or has a key in it.
    Bucket,
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some(
                "a job file is TOML in UTF-8; a relative path is taken from the folder the command \
                 runs in"
                    .to_owned(),
            ),
            Self::Invalid { problems, .. } => {
                let kinds: BTreeSet<ProblemKind> = problems.iter().map(|one| one.kind).collect();
                let mut hints: Vec<&str> =
                    kinds.into_iter().filter_map(ProblemKind::hint).collect();
                hints.dedup();
                (!hints.is_empty()).then(|| hints.join("\n"))
            }
            Self::SecretNotSet { name } => {
                Some(format!("set `{name}` in the environment of the command"))
            }
            Self::SecretFile { .. } => Some(
                "a relative path is taken from the folder of the job file; the file must be \
                 readable by the user who runs the command"
                    .to_owned(),
            ),
            Self::SecretEmpty { .. } => {
                Some("a secret is at least one character; one newline at its end is dropped".into())
            }
            Self::TooLittleMemory(_) => {
                Some("a smaller `page_size` takes less, for more requests".to_owned())
            }
            Self::Mismatch { .. } => None,
        }
    }
}

impl ProblemKind {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::UnknownKey | Self::MissingKey => Some(
                "every key stands in `schemas/job.v1.json`; with `#:schema` and its path in the \
                 first line, editors complete and check a job file",
            ),
            Self::LiteralSecret => Some(
                "take a secret that stood in a file for one that is known: make a new one at the \
                 provider",
            ),
            Self::Bucket => Some(
                "where a bucket is and who may use it stands in the environment, under the names that \
                 the provider's own tools know (`AWS_...`, `GOOGLE_...`, `AZURE_...`)",
            ),
            Self::Syntax | Self::WrongType | Self::Value => None,
        }
    }
}

/// Problems as text, one a line: `path:line: place: message`.
struct Lines<'a> {
    path: &'a PathBuf,
    problems: &'a [Problem],
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{}:{problem}", self.path.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, "{line}:")?;
        }
        if !self.place.is_empty() {
            write!(formatter, " `{}`:", self.place)?;
        }
        write!(formatter, " {}", self.message)
    }
}
