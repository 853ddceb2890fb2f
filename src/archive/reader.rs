//! Reads segments back, up to what a crash has left of them.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;

use bytes::Bytes;
use chrono::DateTime;
use chrono::NaiveDate;
use chrono::Utc;

use super::Closing;
use super::Error;
use super::Hole;
use super::line;
use super::line::ClosedLine;
use super::line::HoleLine;
use super::line::OpenedLine;
use super::line::PageLine;
use super::line::VERSION;
use crate::calendar;
use crate::ids::RunId;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::record::PageHeader;
use crate::record::Walk;
use crate::store;
use crate::store::OpenFile;
use crate::store::Store;

/// A segment, as its path tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The walk it belongs to.
    pub walk: WalkId,
    /// Its number within the walk, from 0.
    pub number: u32,
    /// The day the walk was opened.
    pub date: NaiveDate,
    /// Where it lies, relative to the lake.
    pub path: String,
}

/// A page as it was received.
#[derive(Debug, Clone)]
pub struct ArchivedPage {
    /// Where it stood in its walk.
    pub header: PageHeader,
    /// The run that received it.
    pub run: RunId,
    /// `<segment path>#<page>`.
    pub location: String,
    /// The body.
    pub body: Bytes,
}

/// A record of a segment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Record {
    /// The walk's opening record, the first of every segment, and how many pages were held of it before
    /// that. Older versions do not tell.
    Opened(Box<Walk>, Option<u64>),
    /// A page.
    Page(Box<ArchivedPage>),
    /// Rows that never came right.
    Hole(Hole),
    /// The walk's closing record.
    Closed(Closing, DateTime<Utc>),
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentEnd {
    /// With a whole line.
    Whole,
    /// In the middle of a line, as a crash leaves it.
    Torn,
    /// With a line that is not as it was written; what stands behind it cannot be read.
    Damaged,
}

/// Returns where segment `number` of a walk lies.
pub(super) fn segment_path(walk: &Walk, number: u32) -> String {
    format!("{}/{}-{number}.jsonl.zst", folder_of(walk), walk.id)
}

/// Returns the folder in which all segments of a walk lie, with those of others opened that day.
fn folder_of(walk: &Walk) -> String {
    let date = walk.opened_at.format("%Y-%m-%d");
    format!("archive/{}/{}/{date}", walk.scope.source, walk.scope.stream)
}

/// Lists the segments of a source, by walk and number: all there are, which may be a million. Memory: a
/// few hundred bytes a segment.
pub fn segments(store: &Store, source: &SourceName) -> Result<Vec<SegmentName>, Error> {
    Ok(named(store.list_all(&format!("archive/{source}"))?))
}

/// Lists the segments of a source whose walks were opened on a day or later, by walk and number.
pub fn segments_since(
    store: &Store,
    source: &SourceName,
    since: NaiveDate,
) -> Result<Vec<SegmentName>, Error> {
    let folder = format!("archive/{source}");
    let mut paths = Vec::new();
    for stream in store.list(&folder)? {
        paths.extend(store.list_all_from(&format!("{folder}/{stream}"), &since.to_string())?);
    }
    Ok(named(paths))
}

/// Lists the segments of a walk, by number; none where nothing of it is held.
pub fn segments_of_walk(store: &Store, walk: &Walk) -> Result<Vec<SegmentName>, Error> {
    let folder = folder_of(walk);
    let names = store.list(&folder)?;
    let mut segments = named(names.iter().map(|name| format!("{folder}/{name}")));
    segments.retain(|segment| segment.walk == walk.id);
    Ok(segments)
}

/// Returns what of these are segments, by walk and number.
fn named(paths: impl IntoIterator<Item = String>) -> Vec<SegmentName> {
    let mut names: Vec<_> = paths.into_iter().filter_map(|path| parse_name(&path)).collect();
    names.sort_unstable();
    names
}

fn parse_name(path: &str) -> Option<SegmentName> {
    let mut parts = path.rsplit('/');
    let stem = parts.next()?.strip_suffix(".jsonl.zst")?;
    let date = parts.next()?.parse().ok()?;
    let (walk, number) = stem.rsplit_once('-')?;
    let number = number.parse().ok()?;
    Some(SegmentName { walk: WalkId::from(walk), number, date, path: path.to_owned() })
}

/// Reads the walk that a segment belongs to; `None` where a crash cut off even its first record.
pub fn opening_of(store: &Store, path: &str) -> Result<Option<Walk>, Error> {
    let mut lines = Lines::open(store, path)?;
    match lines.next()? {
        Some(Record::Opened(walk, _)) => Ok(Some(*walk)),
        _ => Ok(None),
    }
}

/// Reads the records of a segment in their order and hands each to `take`.
///
/// A tail that a crash cut off is not there; what was held before it is. Returns how the segment ends.
/// Memory: one page.
pub fn read_segment<E: From<Error>>(
    store: &Store,
    path: &str,
    mut take: impl FnMut(Record) -> Result<(), E>,
) -> Result<SegmentEnd, E> {
    let mut lines = Lines::open(store, path)?;
    while let Some(record) = lines.next()? {
        take(record)?;
    }
    Ok(lines.end)
}

/// The records of a segment, one after the other.
struct Lines<R: Read> {
    reader: BufReader<zstd::stream::read::Decoder<'static, BufReader<R>>>,
    path: String,
    line: Vec<u8>,
    lines: u64,
    pages: u32,
    end: SegmentEnd,
}

impl Lines<OpenFile> {
    fn open(store: &Store, path: &str) -> Result<Self, Error> {
        Self::of(store.open_file(path)?, path)
    }
}

impl<R: Read> Lines<R> {
    fn of(file: R, path: &str) -> Result<Self, Error> {
        let decoder = zstd::stream::read::Decoder::new(file);
        let decoder = decoder.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let reader = BufReader::with_capacity(1 << 17, decoder);
        let (path, end) = (path.to_owned(), SegmentEnd::Whole);
        Ok(Self { reader, path, line: Vec::new(), lines: 0, pages: 0, end })
    }

    /// Reads the next record; `None` at the end, and where a crash cut off the rest.
    fn next(&mut self) -> Result<Option<Record>, Error> {
        loop {
            self.line.clear();
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(0) => return Ok(None),
                Ok(_) if self.line.last() == Some(&b'\n') => {}
                Err(source) if store::is_of_storage(&source) => {
                    return Err(Error::Read { path: self.path.clone(), source });
                }
                // A torn tail: the frame after the last whole one.
                torn => {
                    self.end = match torn {
                        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                            SegmentEnd::Damaged
                        }
                        _ => SegmentEnd::Torn,
                    };
                    let (path, lines) = (self.path.as_str(), self.lines);
                    tracing::warn!(path, lines, "a segment ends in the middle of a record");
                    return Ok(None);
                }
            }
            // Only what comes behind a line tells whether its frame's checksum is right.
            match self.reader.fill_buf() {
                Err(source) if store::is_of_storage(&source) => {
                    return Err(Error::Read { path: self.path.clone(), source });
                }
                Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    self.end = SegmentEnd::Damaged;
                    return Ok(None);
                }
                _ => {}
            }
            self.lines += 1;
            let record = parse_line(&self.path, &self.line, self.lines, &mut self.pages)?;
            if record.is_some() {
                return Ok(record);
            }
        }
    }
}

/// Reads `bytes` as a segment and returns its records, up to what cannot be read.
#[cfg(any(test, fuzzing))]
pub fn records_in(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    let (mut lines, mut records) = (Lines::of(bytes, "segment")?, Vec::new());
    while let Some(record) = lines.next()? {
        records.push(record);
    }
    Ok(records)
}

fn parse_line(
    path: &str,
    bytes: &[u8],
    line: u64,
    pages: &mut u32,
) -> Result<Option<Record>, Error> {
    let fail = |source| Error::Line { path: path.to_owned(), line, source };
    match line::kind_of(bytes) {
        Some("walk_opened") => {
            let opened: OpenedLine = calendar::read(bytes).map_err(fail)?;
            if opened.version != VERSION {
                return Err(Error::Version { path: path.to_owned(), version: opened.version });
            }
            Ok(Some(Record::Opened(Box::new(opened.walk), opened.held_before)))
        }
        Some("page") => {
            *pages += 1;
            let parsed: PageLine<'_> = serde_json::from_slice(bytes).map_err(fail)?;
            let body = Bytes::copy_from_slice(parsed.body());
            let location = format!("{path}#{pages}");
            let page = ArchivedPage { header: parsed.header, run: parsed.run, location, body };
            Ok(Some(Record::Page(Box::new(page))))
        }
        Some("hole") => {
            let parsed: HoleLine = serde_json::from_slice(bytes).map_err(fail)?;
            Ok(Some(Record::Hole(parsed.hole)))
        }
        Some("walk_closed") => {
            let parsed: ClosedLine = calendar::read(bytes).map_err(fail)?;
            Ok(Some(Record::Closed(parsed.closing, parsed.closed_at)))
        }
        // A kind that a later version added beside these says nothing about pages and walks.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Writer;
    use crate::ids::Seq;
    use crate::record::RawPage;
    use crate::record::Reason;
    use crate::record::Scope;
    use chrono::Datelike;

    fn walk() -> Walk {
        Walk {
            id: WalkId::new(Seq(3)),
            scope: Scope {
                source: "acme".parse().unwrap(),
                stream: "leads".into(),
                partition: "profile:1".into(),
                query: String::new(),
                list: String::new(),
            },
            window: None,
            page_size: 10,
            opened_at: DateTime::UNIX_EPOCH,
            reason: Reason::NewTime,
            down_to: None,
        }
    }

    fn page(number: u32, body: &'static str) -> RawPage {
        let request = "/leads".into();
        let received_at = DateTime::UNIX_EPOCH;
        let header =
            PageHeader { page: number, size: 10, round: 0, request, status: 200, received_at };
        RawPage {
            header,
            body: Bytes::from_static(body.as_bytes()),
            stated_rows: None,
            is_json: false,
            places: None,
        }
    }

    async fn written(store: &Store) -> SegmentName {
        let (walk, run) = (walk(), RunId::new(DateTime::UNIX_EPOCH));
        let writer = Writer::start(store.clone(), run);
        writer.open(&walk, 0, 0).await.unwrap();
        let pretty = "{\n \"leads\": [\"a\\u00e9\"]\n}";
        let first = writer.page(&walk.id, page(1, r#"{"leads":[1]}"#)).await.unwrap();
        let second = writer.page(&walk.id, page(2, pretty)).await.unwrap();
        assert!(first.ends_with("-0.jsonl.zst#1") && second.ends_with("#2"));
        writer.close(&walk.id, Closing::default(), DateTime::UNIX_EPOCH).await.unwrap();
        segments(store, &walk.scope.source).unwrap().remove(0)
    }

    fn read(store: &Store, path: &str) -> Vec<Record> {
        let mut records = Vec::new();
        read_segment::<Error>(store, path, |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
        records
    }

    #[tokio::test]
    async fn pages_come_back_as_they_were_received() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let segment = written(&store).await;
        let records = read(&store, &segment.path);
        let [
            Record::Opened(opened, Some(0)),
            Record::Page(one),
            Record::Page(two),
            Record::Closed(..),
        ] = records.as_slice()
        else {
            panic!("{records:?}");
        };
        assert_eq!(opened.id, segment.walk);
        assert_eq!(one.body, r#"{"leads":[1]}"#);
        assert_eq!(two.body, "{\n \"leads\": [\"a\\u00e9\"]\n}");
    }

    #[tokio::test]
    async fn in_a_bucket_each_page_is_held_as_a_segment_that_tells_how_many_came_before() {
        let store = Store::in_memory();
        let (walk, run) = (walk(), RunId::new(DateTime::UNIX_EPOCH));
        let writer = Writer::start(store.clone(), run);
        writer.open(&walk, 3, 7).await.unwrap();
        for number in 1..=2 {
            let place = writer.page(&walk.id, page(number, r#"{"leads":[1]}"#)).await.unwrap();
            assert!(place.ends_with(&format!("-{}.jsonl.zst#1", number + 2)), "{place}");
        }
        writer.close(&walk.id, Closing::default(), DateTime::UNIX_EPOCH).await.unwrap();
        let found = segments(&store, &walk.scope.source).unwrap();
        let numbers: Vec<u32> = found.iter().map(|segment| segment.number).collect();
        assert_eq!(numbers, [3, 4, 5]);
        let before = found.iter().map(|segment| match read(&store, &segment.path).swap_remove(0) {
            Record::Opened(_, before) => before.unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(before.collect::<Vec<_>>(), [7, 8, 9]);
    }

    /// Writes so many segments of walks that are opened on these days of 1970, each of a page.
    async fn walks(store: &Store, days: &[i64], segments: u32) -> Vec<Walk> {
        let writer = Writer::start(store.clone(), RunId::new(DateTime::UNIX_EPOCH));
        let mut walks = Vec::new();
        for day in days {
            let opened_at = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(*day);
            let walk = Walk { id: WalkId::new(Seq(3)), opened_at, ..walk() };
            for number in 0..segments {
                writer.open(&walk, number, u64::from(number)).await.unwrap();
                writer.page(&walk.id, page(1, "{}")).await.unwrap();
            }
            walks.push(walk);
        }
        walks
    }

    /// A folder and a bucket, each empty.
    fn both() -> (tempfile::TempDir, [Store; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        (folder, [store, Store::in_memory()])
    }

    #[tokio::test]
    async fn the_segments_of_a_walk_are_found_without_those_of_others() {
        let (_folder, both) = both();
        for store in both {
            assert_eq!(segments_of_walk(&store, &walk()).unwrap(), []);
            // More than ten: by number, and not as names sort.
            for walk in walks(&store, &[0, 0, 9], 11).await {
                let mut all = segments(&store, &walk.scope.source).unwrap();
                all.retain(|segment| segment.walk == walk.id);
                assert_eq!(all.len(), 11);
                assert_eq!(segments_of_walk(&store, &walk).unwrap(), all);
            }
        }
    }

    #[tokio::test]
    async fn older_days_than_those_asked_for_are_left_out() {
        let (_folder, both) = both();
        for store in both {
            let source = walk().scope.source;
            let since = |day: u32| {
                let date = NaiveDate::from_ymd_opt(1970, 1, day).unwrap();
                segments_since(&store, &source, date).unwrap()
            };
            assert_eq!(since(1), []);
            walks(&store, &[0, 8, 9], 2).await;
            assert_eq!(since(1), segments(&store, &source).unwrap());
            let days: Vec<u32> = since(9).iter().map(|segment| segment.date.day()).collect();
            assert_eq!(days.iter().filter(|day| **day == 9).count(), 2);
            assert_eq!(days.iter().filter(|day| **day == 10).count(), 2);
            assert_eq!((days.len(), since(11).len()), (4, 0));
        }
    }

    #[test]
    fn a_segment_that_cannot_be_fetched_is_not_taken_for_a_damaged_one() {
        struct Fails<'a>(&'a [u8]);
        impl Read for Fails<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                match self.0.read(out)? {
                    0 => Err(std::io::Error::from_raw_os_error(5)),
                    read => Ok(read),
                }
            }
        }
        let line = zstd::encode_all(&b"{\"kind\":\"later\"}\n"[..], 1).unwrap();
        let mut lines = Lines::of(Fails(&line), "segment").unwrap();
        let read = lines.next();
        assert!(matches!(read, Err(Error::Read { .. })), "{read:?}");
        let mut lines = Lines::of(&line[..line.len() - 1], "segment").unwrap();
        assert!(matches!(lines.next(), Ok(None)));
    }

    #[tokio::test]
    async fn a_walk_of_which_nothing_came_to_be_held_leaves_no_segment() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let writer = Writer::start(store.clone(), RunId::new(DateTime::UNIX_EPOCH));
        let walk = walk();
        writer.open(&walk, 0, 0).await.unwrap();
        assert_eq!(segments(&store, &walk.scope.source).unwrap(), []);
        writer.page(&walk.id, page(1, "{}")).await.unwrap();
        assert_eq!(segments(&store, &walk.scope.source).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn whatever_bit_is_flipped_no_page_comes_back_other_than_as_it_was_received() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let segment = written(&store).await;
        let whole = store.read(&segment.path).unwrap();
        let told = |records: &[Record]| -> Vec<String> {
            records.iter().map(|record| format!("{record:?}")).collect()
        };
        let sound = told(&read(&store, &segment.path));
        for bit in (0..whole.len() * 8).step_by(3) {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(store.path(&segment.path), flipped).unwrap();
            let mut records = Vec::new();
            let end = read_segment::<Error>(&store, &segment.path, |record| {
                records.push(record);
                Ok(())
            });
            assert_eq!(told(&records), sound[..records.len()], "bit {bit}");
            // The header of a frame has a bit that nobody reads, and a window that may be larger.
            let is_whole = end.unwrap() == SegmentEnd::Whole;
            assert_eq!(is_whole, records.len() == sound.len(), "bit {bit}");
        }
    }

    #[tokio::test]
    async fn every_page_that_a_failing_disk_keeps_from_being_held_is_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        std::fs::write(store.path("archive"), "in the way").unwrap();
        let writer = Writer::start(store.clone(), RunId::new(DateTime::UNIX_EPOCH));
        let walk = walk();
        writer.open(&walk, 0, 0).await.unwrap();
        for number in 1..3 {
            let error = writer.page(&walk.id, page(number, "{}")).await.unwrap_err();
            assert!(matches!(&error, Error::Store(_)), "{number}: {error}");
            assert!(error.to_string().contains("archive"), "{error}");
        }
    }

    #[tokio::test]
    async fn whatever_a_crash_cuts_off_the_pages_before_it_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let segment = written(&store).await;
        let whole = store.read(&segment.path).unwrap();
        let mut seen = Vec::new();
        for length in 1..whole.len() {
            store.write(&segment.path, &whole[..length]).unwrap();
            seen.push(read(&store, &segment.path).len());
        }
        assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{seen:?}");
        assert!(seen.last() >= Some(&3), "{seen:?}");
    }
}
