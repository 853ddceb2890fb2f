//! Writes segments on a thread of its own, several pages to one sync.
//!
//! Memory: at most [`QUEUE`] pages wait here besides the one being compressed. A page is *held*
//! when [`Writer::page`] returns.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::io::Write;
use std::thread;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use zstd::stream::raw::CParameter;
use zstd::stream::raw::Operation;
use zstd::stream::zio;

use super::Closing;
use super::Error;
use super::Hole;
use super::line::ClosedLine;
use super::line::HoleLine;
use super::line::OpenedLine;
use super::line::PageLine;
use super::line::VERSION;
use crate::ids::RunId;
use crate::ids::WalkId;
use crate::record::RawPage;
use crate::record::Walk;
use crate::store;
use crate::store::Appender;
use crate::store::Store;

/// Pages that may wait to be written.
const QUEUE: usize = 4;

/// zstd's level for pages: the fastest; JSON shrinks to a tenth all the same.
const LEVEL: i32 = 1;

/// Where pages are handed in to be held.
#[derive(Debug, Clone)]
pub struct Writer {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    walk: WalkId,
    entry: Entry,
    done: oneshot::Sender<Result<String, Error>>,
}

#[derive(Debug)]
enum Entry {
    Open { walk: Box<Walk>, number: u32, held: u64 },
    Page(RawPage),
    Hole(Hole),
    Close { closing: Closing, at: DateTime<Utc> },
}

impl Writer {
    /// Starts the thread that writes for `run`. It ends when the last clone is dropped.
    pub fn start(store: Store, run: RunId) -> Self {
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUE);
        thread::spawn(move || {
            let mut segments =
                Segments { store, run, open: HashMap::new(), frames: Frames::default() };
            while let Some(first) = queue.blocking_recv() {
                let mut batch = vec![first];
                while let Ok(next) = queue.try_recv() {
                    batch.push(next);
                }
                segments.write_batch(batch);
            }
        });
        Self { requests }
    }

    /// Begins a new segment of `walk`, which appears with the first thing that is written to it, behind
    /// its opening record: a run that dies before then leaves no segment.
    ///
    /// `number` is how many segments the walk has already, and `held` how many pages those have.
    pub async fn open(&self, walk: &Walk, number: u32, held: u64) -> Result<(), Error> {
        let entry = Entry::Open { walk: Box::new(walk.clone()), number, held };
        self.send(&walk.id, entry).await.map(drop)
    }

    /// Holds a page: when this returns, it is durable. Returns its place as
    /// `<segment path>#<page>`, the page counted from 1 in its segment.
    pub async fn page(&self, walk: &WalkId, page: RawPage) -> Result<String, Error> {
        self.send(walk, Entry::Page(page)).await
    }

    /// Records rows that never came right.
    pub async fn hole(&self, walk: &WalkId, hole: Hole) -> Result<(), Error> {
        self.send(walk, Entry::Hole(hole)).await.map(drop)
    }

    /// Writes the closing record of a walk.
    pub async fn close(
        &self,
        walk: &WalkId,
        closing: Closing,
        at: DateTime<Utc>,
    ) -> Result<(), Error> {
        self.send(walk, Entry::Close { closing, at }).await.map(drop)
    }

    async fn send(&self, walk: &WalkId, entry: Entry) -> Result<String, Error> {
        let (done, answer) = oneshot::channel();
        let request = Request { walk: walk.clone(), entry, done };
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// A segment that is being written.
#[derive(Debug)]
struct Segment {
    path: String,
    walk: Box<Walk>,
    /// How many segments the walk has before this one.
    number: u32,
    /// Pages held of the walk before this segment.
    held: u64,
    /// Nothing until something is written.
    file: Option<Appender>,
    pages: u32,
    /// Behind a torn frame nothing can be read: such a segment takes no more.
    failed: Option<store::Error>,
}

#[derive(Debug)]
struct Segments {
    store: Store,
    run: RunId,
    open: HashMap<WalkId, Segment>,
    frames: Frames,
}

impl Segments {
    /// Writes all entries, syncs each segment once, and only then answers.
    fn write_batch(&mut self, batch: Vec<Request>) {
        let mut written = Vec::with_capacity(batch.len());
        let mut touched = HashSet::new();
        for request in batch {
            let closes = matches!(request.entry, Entry::Close { .. });
            let result = self.write(&request.walk, request.entry);
            touched.insert(request.walk.clone());
            written.push((request.walk, closes, request.done, result));
        }
        let failed: HashMap<WalkId, store::Error> = touched
            .into_iter()
            .filter_map(|walk| Some((walk.clone(), self.sync(&walk)?)))
            .collect();
        for (walk, closes, done, result) in written {
            let result = match failed.get(&walk) {
                Some(error) if result.is_ok() => Err(error.clone().into()),
                _ => result,
            };
            if closes {
                self.open.remove(&walk);
            }
            // Nobody waits any more when the run has stopped; the page is held all the same.
            let _ = done.send(result);
        }
    }

    fn sync(&mut self, walk: &WalkId) -> Option<store::Error> {
        let segment = self.open.get_mut(walk)?;
        match segment.file.as_mut()?.sync() {
            Err(error) => {
                segment.failed = Some(error.clone());
                Some(error)
            }
            Ok(()) if self.store.is_bucket() => {
                segment.begin_next();
                None
            }
            Ok(()) => None,
        }
    }

    fn write(&mut self, walk: &WalkId, entry: Entry) -> Result<String, Error> {
        match entry {
            Entry::Open { walk: whole, number, held } => {
                let segment = Segment::new(whole, number, held);
                let path = segment.path.clone();
                self.open.insert(walk.clone(), segment);
                Ok(path)
            }
            Entry::Page(page) => {
                let run = self.run.clone();
                self.append(walk, |frames| {
                    let pieces = PageLine::pieces(run, &page)?;
                    frames.encode(pieces.iter().map(|piece| &**piece))
                })?;
                let segment = self.open.get_mut(walk).ok_or(Error::Closed)?;
                segment.pages += 1;
                Ok(format!("{}#{}", segment.path, segment.pages))
            }
            Entry::Hole(hole) => self.append(walk, |frames| frames.line(&HoleLine { hole })),
            Entry::Close { closing, at } => {
                self.append(walk, |frames| frames.line(&ClosedLine { closed_at: at, closing }))
            }
        }
    }

    /// Appends a line, which `encode` makes a frame.
    fn append(
        &mut self,
        walk: &WalkId,
        encode: impl FnOnce(&mut Frames) -> io::Result<()>,
    ) -> Result<String, Error> {
        let Self { store, run, open, frames } = self;
        let segment = open.get_mut(walk).ok_or(Error::Closed)?;
        if let Some(error) = &segment.failed {
            return Err(error.clone().into());
        }
        let written = segment.append(store, run, frames, encode);
        if let Err(Error::Store(error)) = &written {
            segment.failed = Some(error.clone());
        }
        written.map(|()| segment.path.clone())
    }
}

impl Segment {
    fn new(walk: Box<Walk>, number: u32, held: u64) -> Self {
        let path = super::reader::segment_path(&walk, number);
        Self { path, walk, number, held, file: None, pages: 0, failed: None }
    }

    /// What is in a bucket is an object, and takes no more: what follows goes to a segment of its own.
    fn begin_next(&mut self) {
        self.number += 1;
        self.path = super::reader::segment_path(&self.walk, self.number);
        self.held += u64::from(std::mem::take(&mut self.pages));
        self.file = None;
    }

    fn append(
        &mut self,
        store: &Store,
        run: &RunId,
        frames: &mut Frames,
        encode: impl FnOnce(&mut Frames) -> io::Result<()>,
    ) -> Result<(), Error> {
        let unreadable = |source| Error::Read { path: self.path.clone(), source };
        if self.file.is_none() {
            let (version, walk) = (VERSION.to_owned(), (*self.walk).clone());
            let held_before = Some(self.held);
            let opened = OpenedLine { version, run: run.clone(), held_before, walk };
            frames.line(&opened).map_err(unreadable)?;
            self.file.insert(store.append(&self.path)?).write(&frames.frame)?;
        }
        encode(frames).map_err(unreadable)?;
        let file = self.file.as_mut().ok_or(Error::Closed)?;
        Ok(file.write(&frames.frame)?)
    }
}

/// Makes a zstd frame of each line; its buffers serve one after the other.
#[derive(Default)]
struct Frames {
    frame: Vec<u8>,
    encoder: Option<zstd::stream::raw::Encoder<'static>>,
}

impl fmt::Debug for Frames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Frames").field("frame_bytes", &self.frame.len()).finish()
    }
}

impl Frames {
    /// Makes the frame of a record.
    fn line(&mut self, record: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_vec(record)?;
        self.encode([&*line, b"\n"].into_iter())
    }

    /// Makes the frame of what `pieces` are one behind the other.
    fn encode<'p>(&mut self, mut pieces: impl Iterator<Item = &'p [u8]>) -> io::Result<()> {
        let encoder = match self.encoder.take() {
            Some(mut used) => used.reinit().map(|()| used)?,
            None => {
                let mut encoder = zstd::stream::raw::Encoder::new(LEVEL)?;
                encoder.set_parameter(CParameter::ChecksumFlag(true))?;
                encoder
            }
        };
        self.frame.clear();
        let mut writer = zio::Writer::new(&mut self.frame, encoder);
        pieces.try_for_each(|piece| writer.write_all(piece))?;
        writer.finish()?;
        self.encoder = Some(writer.into_inner().1);
        Ok(())
    }
}
