//! Numbers of which there are more than memory has room for: the newest in memory, the others in a file
//! without a name, of which nothing stays behind however the process ends.
//!
//! [`Spill`] keeps records to be compared later, some of them at a time; [`Log`] numbers in their order, of
//! which any stretch can be read again; [`Table`] tells at once whether a number was seen.

mod log;
mod shards;
mod table;

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

pub use log::Log;
pub use shards::Shards;
pub use shards::Spill;
pub use table::Table;

use crate::error::Hint;
use crate::point::Steps;

/// A file for what memory has no room for could not be made, written or read.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} scratch file in `{folder}`")]
pub struct Error {
    /// What was tried, e.g. `write`.
    action: &'static str,
    /// The folder in which it lies.
    folder: PathBuf,
    source: io::Error,
}

impl Error {
    fn new(action: &'static str, folder: &Path, source: io::Error) -> Self {
        Self { action, folder: folder.to_owned(), source }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let is_full = self.source.kind() == io::ErrorKind::StorageFull;
        is_full.then(|| {
            "nothing is lost by it; make room there, or, where that is the system's folder for such files, \
             name another one by TMPDIR"
                .to_owned()
        })
    }
}

/// The result of a call on this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Bytes that are written or read at once, at most.
const CHUNK: usize = 64 << 10;

fn steps() -> Steps {
    Steps::new(|| "state/scratch/spill".to_owned())
}

/// A file without a name that holds records of `N` numbers.
#[derive(Debug)]
struct Records<const N: usize> {
    folder: PathBuf,
    file: File,
}

impl<const N: usize> Records<N> {
    const WIDTH: usize = size_of::<[u64; N]>();

    /// Makes an empty one in a folder, which must be there.
    fn create(folder: &Path) -> Result<Self> {
        let made = steps().change("begun").and_then(|()| tempfile::tempfile_in(folder));
        let file = made.map_err(|source| Error::new("create", folder, source))?;
        Ok(Self { folder: folder.to_owned(), file })
    }

    /// Writes records behind so many others.
    fn write(&self, behind: u64, records: &[[u64; N]]) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = &self.file;
            file.seek(SeekFrom::Start(behind * Self::WIDTH as u64))?;
            let at_once = (CHUNK / Self::WIDTH).max(1);
            let mut bytes = Vec::with_capacity(records.len().min(at_once) * Self::WIDTH);
            for chunk in records.chunks(at_once) {
                bytes.clear();
                bytes.extend(chunk.as_flattened().iter().flat_map(|number| number.to_le_bytes()));
                steps().write("write", &bytes, |bytes| file.write_all(bytes))?;
            }
            Ok(())
        };
        write().map_err(|source| Error::new("write", &self.folder, source))
    }

    /// Appends the records at a place to others.
    fn read(&self, place: Range<u64>, records: &mut Vec<[u64; N]>) -> Result<()> {
        let at_once = (CHUNK / Self::WIDTH).max(1);
        let mut left = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(at_once) * Self::WIDTH];
        let mut at = place.start;
        while left > 0 {
            bytes.truncate(left.min(at_once) * Self::WIDTH);
            self.read_bytes(at, &mut bytes)?;
            let (numbers, _) = bytes.as_chunks();
            let numbers: Vec<u64> = numbers.iter().copied().map(u64::from_le_bytes).collect();
            let read = numbers.as_chunks().0;
            records.extend_from_slice(read);
            (at, left) = (at + read.len() as u64, left - read.len());
        }
        Ok(())
    }

    /// Fills `bytes` with records as they lie in the file, behind so many others.
    fn read_bytes(&self, behind: u64, bytes: &mut [u8]) -> Result<()> {
        let mut file = &self.file;
        let mut read = || -> io::Result<()> {
            steps().read("read")?;
            file.seek(SeekFrom::Start(behind * Self::WIDTH as u64))?;
            file.read_exact(bytes)
        };
        read().map_err(|source| Error::new("read", &self.folder, source))
    }
}
