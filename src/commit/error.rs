//! What can go wrong with a lake's own files, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::commit::Holder;
use crate::error::Hint;
use crate::ids::Seq;
use crate::store;

/// The result of a call on a lake's commits and state.
pub type Result<T> = std::result::Result<T, Error>;

/// An error from a lake's commits and state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file is not in the form that leadpipe writes.
    #[error("file `{path}` of the lake is damaged")]
    Damaged {
        /// The file, relative to the lake.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A commit file has the number of another commit in it.
    #[error("file `{path}` holds commit {seq}")]
    Misnamed {
        /// The file, relative to the lake.
        path: String,
        /// The number in it.
        seq: Seq,
    },
    /// A file was written by a later leadpipe.
    #[error("file `{path}` has version `{version}`, which this leadpipe does not know")]
    NewerVersion {
        /// The file, relative to the lake.
        path: String,
        /// The version in it.
        version: String,
    },
    /// There is no such commit, or no longer.
    #[error("the lake has no commit {seq}")]
    NoCommit {
        /// The number asked for.
        seq: Seq,
    },
    /// Another run has written a commit with this number.
    #[error("commit {seq} was written by another run")]
    Taken {
        /// The number both wanted.
        seq: Seq,
    },
    /// A commit that contradicts itself was to be written: a bug of ours.
    #[error("commit {seq} is not sound: {reason}")]
    Invalid {
        /// Its number.
        seq: Seq,
        /// What contradicts.
        reason: &'static str,
    },
    /// A value could not be put into its stored form: a bug of ours.
    #[error("failed to encode `{what}`")]
    Encode {
        /// What was to be stored.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file that a commit names is not there.
    #[error("file `{path}`, named by commit {seq}, is missing")]
    MissingFile {
        /// The file, relative to the lake.
        path: String,
        /// The commit that names it.
        seq: Seq,
    },
    /// A file that a commit names has another length.
    #[error("file `{path}`, named by commit {seq}, has {found} bytes instead of {expected}")]
    CutShort {
        /// The file, relative to the lake.
        path: String,
        /// The commit that names it.
        seq: Seq,
        /// Its length.
        found: u64,
        /// The length in the commit.
        expected: u64,
    },
    /// The newest commit file is gone: something that is made after it tells of it.
    #[error("commit {seq}, of which `{evidence}` tells, is missing")]
    NewestMissing {
        /// Its number.
        seq: Seq,
        /// What tells of it, relative to the lake.
        evidence: &'static str,
    },
    /// Another run holds the lake.
    #[error("another run holds the lake{}", describe(.holder.as_deref()))]
    Held {
        /// Who holds it, where the lock tells.
        holder: Option<Box<Holder>>,
    },
    /// The run slept past its lease, and another has had the lake since.
    #[error("the lease of the lake has lapsed, and another run has had it since{}", describe(.holder.as_deref()))]
    LeaseLost {
        /// Who holds it now, where somebody does.
        holder: Option<Box<Holder>>,
    },
    /// Nobody knows whether a commit was written to a bucket.
    #[error("whether commit {seq} was written is not known")]
    Uncertain {
        /// Its number.
        seq: Seq,
        /// What was said.
        source: store::Error,
    },
    /// The lock could not be tried.
    #[error("failed to lock `{path}`", path = path.display())]
    Lock {
        /// The lock, the whole path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The lake's key is gone.
    #[error("the lake's key `{path}` (fingerprint {fingerprint}) is missing")]
    KeyMissing {
        /// Where it should lie, relative to the lake.
        path: &'static str,
        /// The fingerprint in the commits.
        fingerprint: String,
    },
    /// A key that is not the one the lake was made with.
    #[error(
        "the key from {origin} (fingerprint {found}) is not the lake's (fingerprint {expected})"
    )]
    KeyDiffers {
        /// Where the key came from.
        origin: &'static str,
        /// The fingerprint in the commits.
        expected: String,
        /// The fingerprint of the key at hand.
        found: String,
    },
    /// The key file is not 64 hex digits.
    #[error("the lake's key `{path}` is damaged")]
    KeyDamaged {
        /// Where it lies, relative to the lake.
        path: &'static str,
    },
    /// A key that could be found by trying.
    #[error("the key from `[privacy]` has {bytes} bytes; it must have at least {least}")]
    KeyTooShort {
        /// Its length.
        bytes: usize,
        /// The least length taken.
        least: usize,
    },
    /// The operating system gave no random bytes.
    #[error("failed to make a key: no random bytes ({reason})")]
    Random {
        /// What the operating system said.
        reason: String,
    },
    /// A reader asked for changes since a commit that is still to come.
    #[error("commit {since} is not of this lake, whose newest is {latest}")]
    SinceAhead {
        /// The number asked for.
        since: Seq,
        /// The newest commit; 0 where there is none.
        latest: Seq,
    },
}

impl Error {
    /// Tells whether a commit may have been written all the same: what it names must stay.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Uncertain { .. })
    }

    /// Tells whether another run came first with what was to be committed: then it never will be. Of any
    /// other failure in a bucket nobody knows, as an answer can be lost.
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::LeaseLost { .. })
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NewerVersion { .. } => {
                "a newer leadpipe wrote this lake; use that version or a later one".to_owned()
            }
            Self::Damaged { path, .. } | Self::Misnamed { path, .. } => format!(
                "restore `{path}` from a backup of the lake, or let `leadpipe verify JOB --repair` go \
                 back to the commit before; nothing was changed, and no run goes on before that"
            ),
            Self::MissingFile { path, .. } | Self::CutShort { path, .. } => format!(
                "`leadpipe verify JOB --repair` makes `{path}` again from the changes and the archive, \
                 or restore it from a backup of the lake"
            ),
            Self::NewestMissing { .. } => {
                "restore it from a backup of the lake, or let `leadpipe verify JOB --repair` go back to \
                 the commit before; what that one lacks is read from the archive"
                    .to_owned()
            }
            Self::Taken { .. } => {
                "nothing is lost; run the command again, or let runs wait with --lock-wait"
                    .to_owned()
            }
            Self::Uncertain { .. } => {
                "nothing is lost: run the same again, which finds out; files that nobody names go a day later"
                    .to_owned()
            }
            Self::LeaseLost { .. } => {
                "nothing is lost: what this run held is loaded by the next one; machines that share a lake \
                 need clocks that agree within a minute"
                    .to_owned()
            }
            Self::Held { .. } => {
                "wait for it to end, or start with --lock-wait, e.g. --lock-wait 30m".to_owned()
            }
            Self::Lock { .. } => {
                "the lake must lie on a disk that knows file locks and that you may write to"
                    .to_owned()
            }
            Self::KeyMissing { path, .. } => format!(
                "restore `{path}` from a backup, or give the same key as `[privacy] key`; with \
                 another key, `email_key` and `phone_key` of old and new rows would not match"
            ),
            Self::KeyDiffers { .. } => {
                "give the key the lake was made with; another key needs another lake".to_owned()
            }
            Self::KeyDamaged { path } => {
                format!("restore `{path}` from a backup: 64 hex digits on one line")
            }
            Self::KeyTooShort { .. } => "`openssl rand -hex 32` makes a good one".to_owned(),
            Self::SinceAhead { .. } => {
                "read the whole snapshot with `leadpipe files`, and keep the number it names"
                    .to_owned()
            }
            Self::Store(error) => return store::Refusal::of(&error.source)?.hint(),
            Self::NoCommit { .. }
            | Self::Invalid { .. }
            | Self::Encode { .. }
            | Self::Random { .. } => return None,
        };
        Some(hint)
    }
}

fn describe(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(": {holder}")).unwrap_or_default()
}
