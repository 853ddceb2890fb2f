//! Files that grow at their end.

use std::fs::File;
use std::io;
use std::io::Write;
use std::path::PathBuf;

use super::Result;
use super::bucket::Bucket;
use super::fail;
use crate::point::Steps;

/// A file that grows at its end.
#[derive(Debug)]
pub struct Appender {
    pub(super) end: End,
    pub(super) at: PathBuf,
    pub(super) steps: Steps,
}

#[derive(Debug)]
pub(super) enum End {
    File(File),
    Object { bucket: Bucket, path: String, bytes: Vec<u8> },
}

impl Appender {
    /// Appends bytes. They are not durable yet.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.end {
            End::File(file) => self.steps.write("bytes", bytes, |bytes| file.write_all(bytes)),
            End::Object { bytes: waiting, .. } => {
                waiting.extend_from_slice(bytes);
                Ok(())
            }
        };
        written.map_err(|source| fail("write", &self.at, source))
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> Result<()> {
        let file = match &mut self.end {
            End::File(file) => file,
            End::Object { bucket, path, bytes } => {
                return put_new(bucket, path, bytes, &self.steps);
            }
        };
        let synced = self.steps.change("written").and_then(|()| file.sync_data());
        synced.map_err(|source| fail("write", &self.at, source))?;
        self.steps.reach("synced");
        Ok(())
    }
}

/// Puts what was appended; that another writer has the name would mean that its bytes are lost.
fn put_new(bucket: &Bucket, path: &str, bytes: &[u8], steps: &Steps) -> Result<()> {
    match bucket.write_if_absent(path, bytes, steps)? {
        true => Ok(()),
        false => Err(fail("write", bucket.address(path), io::ErrorKind::AlreadyExists.into())),
    }
}
