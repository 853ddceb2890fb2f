//! A file that is open for reading, wherever it lies.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Buf;
use bytes::Bytes;
use parquet::file::reader::ChunkReader;
use parquet::file::reader::Length;

use super::Result;
use super::bucket::Bucket;
use crate::point::Steps;

/// A file that is read from its beginning, or, as Parquet does, piece by piece.
#[derive(Debug)]
pub struct OpenFile(Kind);

#[derive(Debug)]
enum Kind {
    Disk(File),
    Object(Object),
}

impl OpenFile {
    pub(super) fn on_disk(file: File) -> Self {
        Self(Kind::Disk(file))
    }

    pub(super) fn in_bucket(bucket: Bucket, path: &str, steps: &Steps) -> Result<Self> {
        let (size, first) = bucket.begin_reading(path, BLOCK, steps)?;
        let held = Mutex::new(VecDeque::from([(0, first)]));
        let blocks = Blocks { bucket, path: path.to_owned(), size, held };
        Ok(Self(Kind::Object(Object { blocks: Arc::new(blocks), at: 0 })))
    }

    /// Returns how many bytes it has.
    ///
    /// # Errors
    ///
    /// Where the disk fails.
    pub fn size(&self) -> io::Result<u64> {
        match &self.0 {
            Kind::Disk(file) => Ok(file.metadata()?.len()),
            Kind::Object(object) => Ok(object.blocks.size),
        }
    }
}

impl OpenFile {
    /// Reads `length` bytes from `start` on, both in bytes.
    ///
    /// # Errors
    ///
    /// Where the disk or the bucket fails, and where the file ends before.
    pub fn read_at(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let ends_early = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let wanted = usize::try_from(length).map_err(|_| ends_early())?;
        let bytes = match &self.0 {
            Kind::Disk(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(start))?;
                let mut bytes = Vec::with_capacity(wanted);
                file.take(length).read_to_end(&mut bytes)?;
                Bytes::from(bytes)
            }
            Kind::Object(object) => object.blocks.bytes(start, length)?,
        };
        if bytes.len() == wanted { Ok(bytes) } else { Err(ends_early()) }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Disk(file) => file.read(buffer),
            Kind::Object(object) => object.read(buffer),
        }
    }
}

impl Length for OpenFile {
    fn len(&self) -> u64 {
        self.size().unwrap_or(0)
    }
}

impl ChunkReader for OpenFile {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        match &self.0 {
            Kind::Disk(file) => {
                let reader: BufReader<File> = file.get_read(start)?;
                Ok(Box::new(reader))
            }
            Kind::Object(object) => {
                Ok(Box::new(Object { blocks: Arc::clone(&object.blocks), at: start }))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match &self.0 {
            Kind::Disk(file) => file.get_bytes(start, length),
            Kind::Object(_) => Ok(self.read_at(start, length as u64)?),
        }
    }
}

/// An object that is read from a place on.
#[derive(Debug)]
struct Object {
    blocks: Arc<Blocks>,
    at: u64,
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (number, within) = (self.at / BLOCK, self.at % BLOCK);
        if self.at >= self.blocks.size || buffer.is_empty() {
            return Ok(0);
        }
        let block = self.blocks.block(number)?;
        let mut rest = block.slice(usize::try_from(within).unwrap_or(0).min(block.len())..);
        let taken = rest.remaining().min(buffer.len());
        rest.copy_to_slice(&mut buffer[..taken]);
        self.at += taken as u64;
        Ok(taken)
    }
}

/// The bytes of an object, asked for in blocks: a Parquet reader wants a thousand small pieces, close
/// to each other, and each request takes as long as a block does.
#[derive(Debug)]
struct Blocks {
    bucket: Bucket,
    path: String,
    size: u64,
    /// The ones used last, by number.
    held: Mutex<VecDeque<(u64, Bytes)>>,
}

/// Bytes of a block.
const BLOCK: u64 = 1 << 20;

/// Blocks asked for at once where one follows the other.
const AHEAD: u64 = 4;

/// Blocks kept: a row group, whose columns are read side by side.
const KEPT: usize = 16;

impl Blocks {
    fn bytes(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let end = (start + length).min(self.size);
        if start >= end {
            return Ok(Bytes::new());
        }
        let (first, last) = (start / BLOCK, (end - 1) / BLOCK);
        let within = |block: u64, bytes: &Bytes| {
            let from = start.saturating_sub(block * BLOCK).min(bytes.len() as u64);
            let to = (end - block * BLOCK).min(bytes.len() as u64);
            usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0)
        };
        if first == last {
            let block = self.block(first)?;
            return Ok(block.slice(within(first, &block)));
        }
        // What is longer than what is kept is asked for as it is.
        if last - first >= AHEAD {
            return self.ask(start..end);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(end - start).unwrap_or(0));
        for number in first..=last {
            let block = self.block(number)?;
            bytes.extend_from_slice(&block[within(number, &block)]);
        }
        Ok(bytes.into())
    }

    fn block(&self, number: u64) -> io::Result<Bytes> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = held.iter().position(|(held, _)| *held == number) {
            let (_, block) = held.remove(place).unwrap_or_default();
            held.push_back((number, block.clone()));
            return Ok(block);
        }
        let follows = number > 0 && held.iter().any(|(held, _)| *held == number - 1);
        let blocks = if follows { AHEAD } else { 1 };
        let (start, end) = (number * BLOCK, ((number + blocks) * BLOCK).min(self.size));
        let mut bytes = self.ask(start..end)?;
        let mut next = || {
            let length = bytes.len().min(usize::try_from(BLOCK).unwrap_or(usize::MAX));
            // A copy: a slice would keep all that was asked for at once.
            Bytes::copy_from_slice(&bytes.split_to(length))
        };
        let first = next();
        for ahead in number + 1..end.div_ceil(BLOCK) {
            held.push_back((ahead, next()));
        }
        held.push_back((number, first.clone()));
        while held.len() > KEPT {
            held.pop_front();
        }
        Ok(first)
    }

    fn ask(&self, range: std::ops::Range<u64>) -> io::Result<Bytes> {
        self.bucket.read_range(&self.path, range).map_err(|error| error.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(size: usize) -> (OpenFile, Vec<u8>) {
        let bucket = Bucket::in_memory();
        let bytes: Vec<u8> = (0..size).map(|at| (at / 3) as u8 ^ (at >> 11) as u8).collect();
        bucket.write("parts/a", &bytes, &Steps::default()).unwrap();
        (OpenFile::in_bucket(bucket, "parts/a", &Steps::default()).unwrap(), bytes)
    }

    #[test]
    fn an_object_is_read_whole() {
        for size in [0, 1, (1 << 20) - 1, 1 << 20, (9 << 20) + 7] {
            let (mut file, bytes) = object(size);
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{size} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn pieces_are_those_of_the_object(
            pieces in prop::collection::vec((0_usize..7 << 20, 0_usize..6 << 20), 1..12),
        ) {
            let size = 7 << 20;
            let (file, bytes) = object(size);
            for (start, length) in pieces {
                let length = length.min(size - start);
                let piece = file.get_bytes(start as u64, length).unwrap();
                prop_assert!(piece == bytes[start..start + length]);
                let mut few = [0; 100];
                let mut reader = file.get_read(start as u64).unwrap();
                let read = reader.read(&mut few).unwrap();
                prop_assert!(few[..read] == bytes[start..start + read] && (read > 0 || start == size));
            }
            prop_assert!(file.get_bytes(size as u64 - 1, 2).is_err());
        }
    }
}
