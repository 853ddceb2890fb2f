//! Files that are written from their beginning to their end, and appear whole.

use std::io;
use std::io::Write;
use std::path::PathBuf;

use super::Result;
use super::folder;
use super::upload::Upload;
use crate::schema::StoredFile;

/// A file being written. Dropped before [`NewFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    pub(super) writer: Writer,
    pub(super) hasher: blake3::Hasher,
    pub(super) bytes: u64,
    pub(super) path: String,
    pub(super) at: PathBuf,
}

#[derive(Debug)]
pub(super) enum Writer {
    Folder(folder::Staged),
    Bucket(Box<Upload>),
}

impl NewFile {
    /// Makes the file durable, moves it into place, and says what it holds.
    pub fn finish(self) -> Result<StoredFile> {
        match self.writer {
            Writer::Folder(staged) => folder::finish(staged, &self.at)?,
            Writer::Bucket(upload) => upload.finish()?,
        }
        let blake3 = self.hasher.finalize().to_hex().to_string();
        Ok(StoredFile { path: self.path, bytes: self.bytes, blake3 })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.writer {
            Writer::Folder(staged) => staged.write(bytes)?,
            Writer::Bucket(upload) => {
                upload.write(bytes).map_err(|error| error.source)?;
                bytes.len()
            }
        };
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.writer {
            Writer::Folder(staged) => staged.flush(),
            Writer::Bucket(_) => Ok(()),
        }
    }
}
