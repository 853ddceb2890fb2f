//! What went wrong with a file, and where.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::bucket::Refusal;

/// A file or folder of the lake could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} `{path}`")]
pub struct Error {
    /// What was tried, e.g. `write`.
    pub action: &'static str,
    /// The whole path, or the address in a bucket.
    pub path: PathBuf,
    /// What the operating system or the bucket said.
    pub source: io::Error,
}

impl Error {
    /// Tells whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl Clone for Error {
    /// What the operating system said is made again from its code, or else from its kind and text.
    fn clone(&self) -> Self {
        let source = match (self.source.raw_os_error(), Refusal::of(&self.source)) {
            (Some(code), _) => io::Error::from_raw_os_error(code),
            (None, Some(refusal)) => io::Error::new(self.source.kind(), refusal.clone()),
            (None, None) => io::Error::new(self.source.kind(), self.source.to_string()),
        };
        Self { action: self.action, path: self.path.clone(), source }
    }
}

/// The result of a call on a store.
pub type Result<T> = std::result::Result<T, Error>;

/// Tells whether a file could not be read for what holds it, a disk or a bucket, and not for what stands in
/// it: that is no damage.
pub fn is_of_storage(error: &io::Error) -> bool {
    // Decoders say what is wrong in words, the operating system by number.
    error.raw_os_error().is_some() || Refusal::of(error).is_some()
}

pub(super) fn fail(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Error {
    Error { action, path: path.as_ref().to_owned(), source }
}
