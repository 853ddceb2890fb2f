//! A large file on its way into a bucket, in pieces.
//!
//! Pieces that arrived are kept, and paid for, until their upload is completed or aborted, and no
//! listing shows them. So an upload is noted in `state/uploads` before its first piece is sent; the
//! note goes with its end, and what a run that died has noted is aborted with the rest of its files.

use bytes::Bytes;

use super::Result;
use super::bucket::Bucket;
use super::bucket::Pending;
use super::bucket::Piece;
use super::fail;
use crate::point::Steps;

/// Where uploads are noted, each under the path of its file.
pub(super) const UPLOADS: &str = "state/uploads";

/// Bytes of a piece, but for the last: the least that S3 takes. Two of them are in memory.
const PIECE: usize = 5 << 20;

/// A file that is being written. What is smaller than a piece is written at once, at the end.
#[derive(Debug)]
pub(super) struct Upload {
    bucket: Bucket,
    path: String,
    steps: Steps,
    piece: Vec<u8>,
    /// The id, once the first piece is sent.
    begun: Option<String>,
    arrived: Vec<Piece>,
    pending: Option<Pending>,
    /// Bytes of the pieces so far: what the file must have if it is complete though nothing was said.
    sent: u64,
}

impl Upload {
    pub(super) fn new(bucket: Bucket, path: &str, steps: Steps) -> Self {
        let (path, piece, arrived) = (path.to_owned(), Vec::new(), Vec::new());
        Self { bucket, path, steps, piece, begun: None, arrived, pending: None, sent: 0 }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.piece.len() + bytes.len() > PIECE {
            let (fits, rest) = bytes.split_at(PIECE - self.piece.len());
            self.piece.extend_from_slice(fits);
            self.send()?;
            bytes = rest;
        }
        self.piece.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes the file appear.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.begun.is_none() {
            return self.bucket.write(&self.path, &self.piece, &self.steps);
        }
        if !self.piece.is_empty() {
            self.send()?;
        }
        self.await_pending()?;
        self.step("written")?;
        let Some(id) = self.begun.as_deref() else { return Ok(()) };
        let completed =
            self.bucket.complete_upload(&self.path, id, std::mem::take(&mut self.arrived));
        if let Err(error) = completed
            && self.bucket.size(&self.path).ok() != Some(self.sent)
        {
            return Err(error);
        }
        self.begun = None;
        self.steps.reach("done");
        // A note that stays is of an upload that has ended, which whoever aborts it finds out.
        let _ = self.bucket.remove(&note_of(&self.path), &Steps::default());
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let id = match self.begun.take() {
            Some(id) => id,
            None => self.begin()?,
        };
        self.begun = Some(id.clone());
        self.await_pending()?;
        self.step("bytes")?;
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE)));
        self.sent += piece.len() as u64;
        self.pending = Some(self.bucket.send_piece(&self.path, &id, self.arrived.len(), piece));
        Ok(())
    }

    fn begin(&self) -> Result<String> {
        self.step("begun")?;
        let id = self.bucket.begin_upload(&self.path)?;
        self.bucket.write(&note_of(&self.path), id.as_bytes(), &self.steps)?;
        Ok(id)
    }

    fn await_pending(&mut self) -> Result<()> {
        if let Some(pending) = self.pending.take() {
            self.arrived.push(pending.finish()?);
        }
        Ok(())
    }

    fn step(&self, moment: &str) -> Result<()> {
        let passed = self.steps.change(moment);
        passed.map_err(|source| fail("write", self.bucket.address(&self.path), source))
    }
}

impl Drop for Upload {
    /// Leaves nothing behind. Where that fails, the next run does it, by the note.
    fn drop(&mut self) {
        let Some(id) = self.begun.take() else { return };
        drop(self.pending.take().map(Pending::finish));
        let aborted = self.bucket.abort_upload(&self.path, &id);
        let _ = aborted.and_then(|()| self.bucket.remove(&note_of(&self.path), &Steps::default()));
    }
}

/// Aborts uploads that were noted and not ended, of files that `is_left` tells.
pub(super) fn abort_left(bucket: &Bucket, is_left: impl Fn(&str) -> bool) -> Result<()> {
    for note in bucket.list_all(UPLOADS, &Steps::default())? {
        let Some(path) = note.strip_prefix(UPLOADS).and_then(|path| path.strip_prefix('/')) else {
            continue;
        };
        if is_left(path) {
            let id = bucket.read(&note, &Steps::default())?;
            bucket.abort_upload(path, &String::from_utf8_lossy(&id))?;
            bucket.remove(&note, &Steps::default())?;
        }
    }
    Ok(())
}

fn note_of(path: &str) -> String {
    format!("{UPLOADS}/{path}")
}
