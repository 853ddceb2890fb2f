//! Where files lie, and how they come to lie there for good.
//!
//! A [`Store`] is a folder or a bucket. What it writes to a folder is written beside, synced, moved into
//! place, and the folder synced too, so that after a power cut a file is there whole or not at all; to
//! a bucket it is put, or uploaded in pieces that leave nothing behind. Paths are relative and separated
//! by `/`; no caller joins paths of its own. Calls block: make them from threads that may. Between any
//! two things that disk or bucket see stands a point (see [`crate::point`]), named by the top of the path
//! and the operation.

mod bucket;
mod folder;
mod open;
mod place;
mod upload;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;

pub use bucket::Refusal;
pub use open::OpenFile;
pub use place::Place;

use crate::ids::RunId;
use crate::point::Steps;
use crate::schema::StoredFile;
use bucket::Bucket;
use folder::Folder;
use upload::Upload;

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

/// Who may read what is made for readers: parts, CSV, changes, snapshots, commits. The umask of the
/// process may leave fewer. In a bucket its own rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The user of the run.
    Owner,
    /// The group of that user, too.
    Group,
    /// Everybody on the machine.
    All,
}

/// A folder or bucket in which files are written whole or not at all.
#[derive(Debug, Clone)]
pub struct Store {
    kind: Kind,
    /// What points are named by in place of the path.
    label: Option<&'static str>,
    /// Whether a bucket has snapshot folders.
    copies: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Folder(Folder),
    Bucket(Bucket),
}

impl Store {
    /// Opens the folder at `root` and makes it where it does not exist.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let store = Self::open(root);
        store.create_folder("")?;
        Ok(store)
    }

    /// Opens the folder at `root` without touching the disk. What is written there may be read by its
    /// owner.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self::of(Kind::Folder(Folder::at(root.into())))
    }

    /// Opens a folder, or a bucket, without touching the disk and without a request.
    ///
    /// # Errors
    ///
    /// Where the environment does not tell where a bucket is, or contradicts itself.
    pub fn at(place: &Place) -> Result<Self> {
        match place {
            Place::Folder(root) => Ok(Self::open(root)),
            Place::Bucket(address) => Ok(Self::of(Kind::Bucket(Bucket::open(address)?))),
        }
    }

    /// Opens an empty bucket in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::of(Kind::Bucket(Bucket::in_memory()))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, label: None, copies: false }
    }

    /// Returns the same folder, in which others too may read what is made for readers.
    #[must_use]
    pub fn readable_by(mut self, readers: Readers) -> Self {
        if let Kind::Folder(folder) = &mut self.kind {
            folder.readers = readers;
        }
        self
    }

    /// Returns the same bucket, which has snapshot folders of copies, or has none. A folder always has
    /// them, of second names.
    #[must_use]
    pub fn with_copies(self, copies: bool) -> Self {
        Self { copies, ..self }
    }

    /// Returns a folder of this lake, in which paths are relative to it.
    #[must_use]
    pub fn folder(&self, path: &str) -> Self {
        let kind = match &self.kind {
            Kind::Folder(folder) => Kind::Folder(folder.folder(path)),
            Kind::Bucket(bucket) => Kind::Bucket(bucket.folder(path)),
        };
        Self { kind, ..self.clone() }
    }

    /// Returns the same folder, whose points are named by `label`: one that has no fixed place.
    #[must_use]
    pub fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Tells whether it is a bucket: there is no lock of an operating system, no link, and what is
    /// appended to is another object each time.
    pub fn is_bucket(&self) -> bool {
        matches!(self.kind, Kind::Bucket(_))
    }

    /// Tells whether a commit is shown as a folder of its own.
    pub fn has_snapshots(&self) -> bool {
        !self.is_bucket() || self.copies
    }

    /// Returns the folder, or the address in the bucket.
    pub fn root(&self) -> PathBuf {
        self.path("")
    }

    /// Returns where a file lies: its path on this machine, or its address in a bucket, for people.
    pub fn path(&self, path: &str) -> PathBuf {
        match &self.kind {
            Kind::Folder(folder) if path.is_empty() => folder.root.clone(),
            Kind::Folder(folder) => folder.path(path),
            Kind::Bucket(bucket) => PathBuf::from(bucket.address(path)),
        }
    }

    /// Returns the folder of this machine in which a run keeps what it need not keep.
    pub fn scratch(&self, run: &RunId) -> PathBuf {
        match &self.kind {
            Kind::Folder(folder) => folder.path(&format!("{SCRATCH}/{run}")),
            Kind::Bucket(_) => std::env::temp_dir().join(format!("leadpipe-{run}")),
        }
    }

    /// Removes that folder; that there is none is no error.
    pub fn remove_scratch(&self, run: &RunId) -> Result<()> {
        folder::remove_folder(&self.scratch(run), &self.steps("remove-all", SCRATCH))
    }

    /// Reads a whole file.
    pub fn read(&self, path: &str) -> Result<Bytes> {
        let steps = self.steps("read", path);
        match &self.kind {
            Kind::Folder(folder) => folder.read(path, &steps),
            Kind::Bucket(bucket) => bucket.read(path, &steps),
        }
    }

    /// Reads a whole file, or returns `None` where there is none.
    pub fn read_if_exists(&self, path: &str) -> Result<Option<Bytes>> {
        match self.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads whole files, and returns each of them, or why it could not be read, in the order of their
    /// paths; of a bucket several at a time. Where nothing at all could be asked for, that alone.
    pub fn read_each(&self, paths: &[String]) -> Vec<Result<Bytes>> {
        match (&self.kind, paths) {
            (_, []) => Vec::new(),
            (Kind::Folder(_), paths) => paths.iter().map(|path| self.read(path)).collect(),
            (Kind::Bucket(bucket), [first, ..]) => {
                bucket.read_each(paths, &self.steps("read", first))
            }
        }
    }

    /// Opens a file for reading in pieces.
    pub fn open_file(&self, path: &str) -> Result<OpenFile> {
        let steps = self.steps("open", path);
        match &self.kind {
            Kind::Folder(folder) => Ok(OpenFile::on_disk(folder.open_file(path, &steps)?)),
            Kind::Bucket(bucket) => OpenFile::in_bucket(bucket.clone(), path, &steps),
        }
    }

    /// Returns how many bytes each of some files in folders has, or `None` where there is none. A bucket is
    /// listed for it by the top of the paths, a request for a thousand files.
    pub fn sizes(&self, paths: &[&str]) -> Result<Vec<Option<u64>>> {
        let bucket = match &self.kind {
            Kind::Folder(folder) => {
                let size = |path: &&str| folder.path(path).metadata().ok().map(|found| found.len());
                return Ok(paths.iter().map(size).collect());
            }
            Kind::Bucket(bucket) => bucket,
        };
        let tops: BTreeSet<&str> = paths.iter().filter_map(|path| path.split('/').next()).collect();
        let mut found = HashMap::new();
        for top in tops {
            found.extend(bucket.list_sizes(top, &self.steps("list", top))?);
        }
        Ok(paths.iter().map(|path| found.get(*path).copied()).collect())
    }

    /// Opens a file of a folder to lock it, a new one where there is none. What it holds stays. `steps`
    /// are those of the lock.
    ///
    /// # Errors
    ///
    /// In a bucket: it has [`Store::update`].
    pub fn open_to_lock(&self, path: &str, steps: &Steps) -> io::Result<File> {
        match &self.kind {
            Kind::Folder(folder) => folder.open_to_lock(path, steps),
            Kind::Bucket(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Tells whether a file or folder exists.
    ///
    /// # Errors
    ///
    /// Where a bucket does not say: that is no sign that it is not there.
    pub fn exists(&self, path: &str) -> Result<bool> {
        match &self.kind {
            Kind::Folder(folder) => Ok(folder.path(path).symlink_metadata().is_ok()),
            Kind::Bucket(bucket) => bucket.exists(path),
        }
    }

    /// Fails where a bucket does not keep to conditions on writes; a folder has locks of its own.
    pub fn refuse_unconditional(&self) -> Result<()> {
        match &self.kind {
            Kind::Folder(_) => Ok(()),
            Kind::Bucket(bucket) => {
                bucket.refuse_unconditional(CONDITIONS, &self.steps("write", CONDITIONS))
            }
        }
    }

    /// Tells whether two names are of one and the same file.
    pub fn is_one_file(&self, one: &str, other: &str) -> bool {
        match &self.kind {
            Kind::Folder(folder) => folder.is_one_file(one, other),
            Kind::Bucket(_) => one == other,
        }
    }

    /// Begins a new file; it appears when [`NewFile::finish`] is called, and never otherwise.
    pub fn new_file(&self, path: &str) -> Result<NewFile> {
        let steps = self.steps("new", path);
        let writer = match &self.kind {
            Kind::Folder(folder) => Writer::Folder(folder.stage_file(path, steps)?),
            Kind::Bucket(bucket) => {
                Writer::Bucket(Box::new(Upload::new(bucket.clone(), path, steps)))
            }
        };
        let (path, at, hasher) = (path.to_owned(), self.path(path), blake3::Hasher::new());
        Ok(NewFile { writer, hasher, bytes: 0, path, at })
    }

    /// Writes a file whole, in place of the one that may be there.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let steps = self.steps("write", path);
        match &self.kind {
            Kind::Folder(folder) => folder.write(path, bytes, &steps),
            Kind::Bucket(bucket) => bucket.write(path, bytes, &steps),
        }
    }

    /// Writes a file that must not exist yet; returns `false`, and changes nothing, where it does.
    pub fn write_if_absent(&self, path: &str, bytes: &[u8]) -> Result<bool> {
        let steps = self.steps("write-if-absent", path);
        match &self.kind {
            Kind::Folder(folder) => folder.write_if_absent(path, bytes, &steps),
            Kind::Bucket(bucket) => bucket.write_if_absent(path, bytes, &steps),
        }
    }

    /// Replaces a file that others may change, too, by what `change` makes of what it holds, or leaves
    /// it where that makes nothing. Nobody else changes it in between: in a folder under a lock beside
    /// it, in a bucket by a condition, where all is done again if somebody did.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, and those of `change`.
    pub fn update<T, E: From<Error>>(
        &self,
        path: &str,
        mut change: impl FnMut(Option<Bytes>) -> std::result::Result<(Option<Vec<u8>>, T), E>,
    ) -> std::result::Result<T, E> {
        let steps = self.steps("write", path);
        let folder = match &self.kind {
            Kind::Bucket(bucket) => return bucket.update(path, &steps, change),
            Kind::Folder(folder) => folder,
        };
        let _lock = self.lock_beside(folder, path)?;
        let (after, outcome) = change(self.read_if_exists(path)?)?;
        if let Some(after) = after {
            folder.write_locked(path, &after, &steps)?;
        }
        Ok(outcome)
    }

    fn lock_beside(&self, folder: &Folder, path: &str) -> Result<File> {
        self.create_folder("")?;
        let name = format!("{}.lock", path.trim_end_matches(".json"));
        let steps = self.steps("lock", path);
        let opened = folder.open_to_lock(&name, &steps);
        let locked = opened.and_then(|file| file.lock().map(|()| file));
        let locked = locked.map_err(|source| fail("lock", folder.path(&name), source))?;
        steps.reach("taken");
        Ok(locked)
    }

    /// Opens a file to append to it, a new one where there is none. What was appended is durable
    /// once [`Appender::sync`] has returned. In a bucket it is an object then, and takes no more.
    pub fn append(&self, path: &str) -> Result<Appender> {
        let (at, steps) = (self.path(path), self.steps("append", path));
        let end = match &self.kind {
            Kind::Folder(folder) => End::File(folder.append(path, &steps)?),
            Kind::Bucket(bucket) => {
                End::Object { bucket: bucket.clone(), path: path.to_owned(), bytes: Vec::new() }
            }
        };
        Ok(Appender { end, at, steps })
    }

    /// Returns the names in a folder, sorted; none where it does not exist. Temporary files are
    /// left out.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let steps = self.steps("list", folder);
        match &self.kind {
            Kind::Folder(at) => at.list(folder, &steps),
            Kind::Bucket(bucket) => bucket.list(folder, &steps),
        }
    }

    /// Returns the paths of all files below a folder, sorted.
    pub fn list_all(&self, folder: &str) -> Result<Vec<String>> {
        if let Kind::Bucket(bucket) = &self.kind {
            return bucket.list_all(folder, &self.steps("list", folder));
        }
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for name in self.list(&folder)? {
                let path = format!("{folder}/{name}");
                if self.path(&path).is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Returns the paths of what was never finished below a folder, sorted. A bucket shows none.
    pub fn list_unfinished(&self, folder: &str) -> Vec<String> {
        match &self.kind {
            Kind::Folder(at) => at.list_unfinished(folder, &self.steps("list", folder)),
            Kind::Bucket(_) => Vec::new(),
        }
    }

    /// Removes a file; that there is none is no error.
    pub fn remove(&self, path: &str) -> Result<()> {
        let steps = self.steps("remove", path);
        match &self.kind {
            Kind::Folder(folder) => folder.remove(path, &steps),
            Kind::Bucket(bucket) => bucket.remove(path, &steps),
        }
    }

    /// Removes a folder and all in it; that there is none is no error.
    pub fn remove_all(&self, folder: &str) -> Result<()> {
        let steps = self.steps("remove-all", folder);
        match &self.kind {
            Kind::Folder(at) => at.remove_all(folder, &steps),
            Kind::Bucket(bucket) => bucket.remove_all(folder, &steps),
        }
    }

    /// Makes a folder, and those above it, where they do not exist. A bucket has none.
    pub fn create_folder(&self, folder: &str) -> Result<()> {
        match &self.kind {
            Kind::Folder(at) => at.create_folder(folder, &self.steps("create-folder", folder)),
            Kind::Bucket(_) => Ok(()),
        }
    }

    /// Returns the path of a folder that is not finished: it is never listed, and
    /// [`Store::remove_unfinished`] removes it.
    pub fn unfinished(folder: &str, name: &str) -> String {
        format!("{folder}/{TEMPORARY}{name}")
    }

    /// Removes all that was never finished at any depth below a folder. The caller must know that
    /// nobody is writing there.
    pub fn remove_unfinished(&self, folder: &str) -> Result<()> {
        match &self.kind {
            Kind::Folder(at) => {
                at.remove_unfinished(folder, &self.steps("remove-unfinished", folder))
            }
            Kind::Bucket(_) => Ok(()),
        }
    }

    /// Removes what was never finished in a folder itself; `""` is the whole store's. The caller must
    /// know that nobody is writing there.
    pub fn remove_unfinished_beside(&self, folder: &str) -> Result<()> {
        match &self.kind {
            Kind::Folder(at) => {
                at.remove_unfinished_beside(folder, &self.steps("remove-unfinished", folder))
            }
            Kind::Bucket(_) => Ok(()),
        }
    }

    /// Aborts uploads into a bucket that have not ended, of the files that `is_left` tells by their
    /// path. The caller must know that nobody is writing these.
    pub fn abort_uploads(&self, is_left: impl Fn(&str) -> bool) -> Result<()> {
        match &self.kind {
            Kind::Folder(_) => Ok(()),
            Kind::Bucket(bucket) => upload::abort_left(bucket, is_left),
        }
    }

    /// Moves a file or folder to a name that is free, in a folder in one step, and makes that durable.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let steps = self.steps("rename", from);
        match &self.kind {
            Kind::Folder(folder) => folder.rename(from, to, &steps),
            Kind::Bucket(bucket) => bucket.rename(from, to, &steps),
        }
    }

    /// Gives a file a second name, as a hard link, or as a copy where the disk knows no links, or in a
    /// bucket.
    pub fn link(&self, from: &str, to: &str) -> Result<()> {
        let steps = self.steps("link", to);
        match &self.kind {
            Kind::Folder(folder) => folder.link(from, to, &steps),
            Kind::Bucket(bucket) => bucket.copy(from, to, &steps),
        }
    }

    /// Makes `path` a symbolic link to `target`, which is relative to the folder of `path`. One
    /// that is there is replaced in a single step. In a bucket it is an object that says `target`.
    pub fn point(&self, path: &str, target: &str) -> Result<()> {
        let steps = self.steps("point", path);
        match &self.kind {
            Kind::Folder(folder) => folder.point(path, target, &steps),
            Kind::Bucket(bucket) => bucket.write(path, format!("{target}\n").as_bytes(), &steps),
        }
    }

    /// Returns where a symbolic link points.
    pub fn pointee(&self, path: &str) -> Option<String> {
        match &self.kind {
            Kind::Folder(folder) => folder.pointee(path),
            Kind::Bucket(bucket) => {
                let bytes = bucket.read(path, &Steps::default()).ok()?;
                Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
            }
        }
    }

    /// Returns the steps of an operation on a path, named by the top of the path: that is what a
    /// commit, a snapshot or a ledger is, whatever its number or group.
    fn steps(&self, operation: &str, path: &str) -> Steps {
        Steps::new(|| match self.label {
            Some(label) => format!("{label}/{operation}"),
            None => format!("{}/{operation}", top_of(path)),
        })
    }
}

/// The top of a path without what its name ends with: `commits`, `state/runs`; `lake` of the folder
/// itself.
fn top_of(path: &str) -> String {
    let path = path.strip_prefix(TEMPORARY).unwrap_or(path);
    let mut names = path.split('/').map(|name| name.split('.').next().unwrap_or(name));
    match (names.next().unwrap_or_default(), names.next()) {
        ("", _) => "lake".to_owned(),
        ("state", Some(below)) => format!("state/{below}"),
        (top, _) => top.to_owned(),
    }
}

/// What no reader needs, at the top of a lake.
const PRIVATE: [&str; 3] = ["archive", "rejects", "state"];

/// Names of files that are not finished begin so.
const TEMPORARY: &str = ".tmp-";

/// By what a bucket is asked whether it keeps to conditions.
const CONDITIONS: &str = "state/conditions";

/// Where a folder has the scratch space of runs.
const SCRATCH: &str = "state/scratch";

/// A file being written. Dropped before [`NewFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    writer: Writer,
    hasher: blake3::Hasher,
    bytes: u64,
    path: String,
    at: PathBuf,
}

#[derive(Debug)]
enum Writer {
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

/// A file that grows at its end.
#[derive(Debug)]
pub struct Appender {
    end: End,
    at: PathBuf,
    steps: Steps,
}

#[derive(Debug)]
enum End {
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

/// Tells whether a file could not be read for what holds it, a disk or a bucket, and not for what stands in
/// it: that is no damage.
pub fn is_of_storage(error: &io::Error) -> bool {
    // Decoders say what is wrong in words, the operating system by number.
    error.raw_os_error().is_some() || Refusal::of(error).is_some()
}

/// Returns the length and the BLAKE3 hash of what a reader gives.
pub fn digest(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut reader, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

fn fail(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Error {
    Error { action, path: path.as_ref().to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path().join("lake")).unwrap();
        (folder, store)
    }

    #[cfg(unix)]
    #[test]
    fn what_is_new_is_for_its_owner_and_what_readers_need_for_those_who_may() {
        use std::os::unix::fs::PermissionsExt;
        for (readers, file, folder) in [
            (Readers::Owner, 0o600, 0o700),
            (Readers::Group, 0o640, 0o750),
            (Readers::All, 0o644, 0o755),
        ] {
            let place = tempfile::tempdir().unwrap();
            let store = Store::open(place.path().join("made/lake")).readable_by(readers);
            // Whatever is made first, the lake itself is for its readers.
            store.folder("state/ledger").write("key.json", b"1").unwrap();
            store.write("commits/1.json", b"1").unwrap();
            store.new_file("parts/a/b").unwrap().finish().unwrap();
            store.write("state/runs/1.json", b"1").unwrap();
            store.append("archive/acme/x").unwrap();
            store.open_to_lock("state/lock", &Steps::default()).unwrap();
            let mode = |path: &str| {
                let mode = fs::metadata(store.path(path)).unwrap().permissions().mode();
                (path.to_owned(), mode & 0o777)
            };
            let read = ["", "commits", "parts/a"].map(mode);
            assert!(read.iter().all(|(_, mode)| *mode == folder), "{read:?}");
            let read = ["commits/1.json", "parts/a/b"].map(mode);
            assert!(read.iter().all(|(_, mode)| *mode == file), "{read:?}");
            let own = ["state", "state/ledger", "state/runs", "archive", "archive/acme"].map(mode);
            assert!(own.iter().all(|(_, mode)| *mode == 0o700), "{own:?}");
            let own =
                ["state/ledger/key.json", "state/runs/1.json", "archive/acme/x", "state/lock"]
                    .map(mode);
            assert!(own.iter().all(|(_, mode)| *mode == 0o600), "{own:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_finished_is_never_seen() {
        let (_folder, store) = store();
        let mut file = store.new_file("parts/a.parquet").unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(store.list_all("parts").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_finished_file_says_what_it_holds() {
        let (_folder, store) = store();
        let mut file = store.new_file("parts/a").unwrap();
        file.write_all(b"whole").unwrap();
        let stored = file.finish().unwrap();
        let (bytes, blake3) = digest(store.open_file("parts/a").unwrap()).unwrap();
        assert_eq!((stored.bytes, stored.blake3), (bytes, blake3));
        assert_eq!(store.list_all("parts").unwrap(), ["parts/a"]);
    }

    #[test]
    fn what_a_writer_that_died_left_is_replaced_by_the_next_with_the_lock() {
        let (_folder, store) = store();
        fs::write(store.path(".tmp-a.json"), b"half").unwrap();
        for text in ["one", "two"] {
            let after = Some(text.as_bytes().to_vec());
            store.update("a.json", |_| Ok::<_, Error>((after.clone(), ()))).unwrap();
        }
        assert_eq!(store.read("a.json").unwrap(), b"two"[..]);
        // The file and its lock.
        assert_eq!(fs::read_dir(store.root()).unwrap().count(), 2);
    }

    #[test]
    fn what_was_never_finished_beside_is_removed_and_nothing_below() {
        let (_folder, store) = store();
        for path in [".tmp-a", "state/.tmp-b", "state/c"] {
            store.create_folder("state").unwrap();
            fs::write(store.path(path), b"half").unwrap();
        }
        store.remove_unfinished_beside("").unwrap();
        assert!(!store.exists(".tmp-a").unwrap() && store.exists("state/.tmp-b").unwrap());
        store.remove_unfinished("").unwrap();
        assert_eq!(store.list_all("state").unwrap(), ["state/c"]);
        assert!(!store.exists("state/.tmp-b").unwrap());
    }

    #[test]
    fn only_the_first_to_a_name_gets_it() {
        let (_folder, store) = store();
        assert!(store.write_if_absent("commits/1.json", b"one").unwrap());
        assert!(!store.write_if_absent("commits/1.json", b"two").unwrap());
        assert_eq!(store.read("commits/1.json").unwrap(), "one");
        assert_eq!(store.list("commits").unwrap(), ["1.json"]);
    }

    #[test]
    fn a_pointer_is_replaced_in_one_step() {
        let (_folder, store) = store();
        store.point("latest", "snapshots/1").unwrap();
        store.point("latest", "snapshots/2").unwrap();
        assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/2"));
    }

    #[test]
    fn what_was_appended_is_there_after_opening_again() {
        let (_folder, store) = store();
        for text in ["one", "two"] {
            let mut appender = store.append("archive/x").unwrap();
            appender.write(text.as_bytes()).unwrap();
            appender.sync().unwrap();
        }
        assert_eq!(store.read("archive/x").unwrap(), "onetwo");
    }

    #[test]
    fn a_folder_that_is_not_finished_is_hidden_until_it_is_renamed() {
        let (_folder, store) = store();
        let staged = Store::unfinished("snapshots", "1");
        store.create_folder(&format!("{staged}/leads")).unwrap();
        store.write(&format!("{staged}/leads/a"), b"a").unwrap();
        assert_eq!(store.list("snapshots").unwrap(), Vec::<String>::new());
        store.rename(&staged, "snapshots/1").unwrap();
        assert_eq!(store.list_all("snapshots").unwrap(), ["snapshots/1/leads/a"]);
    }

    #[test]
    fn what_was_never_finished_goes_and_what_was_stays() {
        let (_folder, store) = store();
        store.write("parts/a/b", b"whole").unwrap();
        fs::write(store.path(&Store::unfinished("parts/a", "x")), b"half").unwrap();
        store.create_folder(&Store::unfinished("parts", "folder/inside")).unwrap();
        store.remove_unfinished("parts").unwrap();
        store.remove_unfinished("not there").unwrap();
        let left = |folder: &str| fs::read_dir(store.path(folder)).unwrap().count();
        assert_eq!((left("parts"), left("parts/a")), (1, 1));
    }

    /// A folder and a bucket, each empty.
    fn both() -> (tempfile::TempDir, [Store; 2]) {
        let (folder, store) = store();
        (folder, [store, Store::in_memory()])
    }

    #[test]
    fn a_bucket_does_what_a_folder_does() {
        let (_folder, both) = both();
        for store in both {
            store.write("parts/a/one", b"one").unwrap();
            store.write("parts/a/one", b"once").unwrap();
            store.write("parts/b/two", b"two").unwrap();
            store.write("partsize", b"no part").unwrap();
            assert_eq!(store.list("parts").unwrap(), ["a", "b"]);
            assert_eq!(store.list("parts/a").unwrap(), ["one"]);
            assert_eq!(store.list("nothing").unwrap(), [""; 0]);
            assert_eq!(store.list_all("parts").unwrap(), ["parts/a/one", "parts/b/two"]);
            assert!(
                store.exists("parts").unwrap()
                    && store.exists("parts/b/two").unwrap()
                    && !store.exists("part").unwrap()
            );
            let sizes = store.sizes(&["parts/b/two", "parts/c", "parts/a/one"]).unwrap();
            assert_eq!(sizes, [Some(3), None, Some(4)]);
            assert!(store.read("parts/c").unwrap_err().is_not_found());
            assert_eq!(store.read_if_exists("parts/c").unwrap(), None);
            assert!(store.open_file("parts/c").unwrap_err().is_not_found());
            store.link("parts/a/one", "parts/a/same").unwrap();
            store.rename("parts/a", "parts/z").unwrap();
            assert_eq!(
                store.list_all("parts").unwrap(),
                ["parts/b/two", "parts/z/one", "parts/z/same"]
            );
            store.rename("parts/b/two", "parts/z/two").unwrap();
            assert_eq!(store.read("parts/z/same").unwrap(), "once");
            store.remove("parts/z/one").unwrap();
            store.remove("parts/z/one").unwrap();
            store.remove_all("parts").unwrap();
            store.remove_all("parts").unwrap();
            assert!(!store.exists("parts").unwrap() && store.exists("partsize").unwrap());
            let below = store.folder("state/ledger");
            below.write("key.json", b"1").unwrap();
            assert_eq!(store.list_all("state").unwrap(), ["state/ledger/key.json"]);
            store.point("latest", "snapshots/1").unwrap();
            assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/1"));
            assert!(store.write_if_absent("commits/1", b"one").unwrap());
            assert!(!store.write_if_absent("commits/1", b"two").unwrap());
            assert_eq!(store.read("commits/1").unwrap(), "one");
        }
    }

    #[test]
    fn a_file_that_is_changed_sees_what_stood_there() {
        let (_folder, both) = both();
        for store in both {
            for expected in 0..3_usize {
                let count = store.update("count.json", |bytes| {
                    let before = bytes.map_or(0, |bytes| bytes.len());
                    Ok::<_, Error>((Some(vec![b'x'; before + 1]), before))
                });
                assert_eq!(count.unwrap(), expected);
            }
            assert_eq!(store.update("count.json", |_| Ok::<_, Error>((None, 7))).unwrap(), 7);
            assert_eq!(store.read("count.json").unwrap(), "xxx");
        }
    }

    #[test]
    fn in_a_bucket_a_change_is_made_again_where_another_came_before_it() {
        let store = Store::in_memory();
        store.write("count", b"1").unwrap();
        let mut tries = 0;
        let seen = store.update("count", |bytes| {
            tries += 1;
            if tries == 1 {
                store.write("count", b"5")?;
            }
            Ok::<_, Error>((Some(b"6".to_vec()), bytes.unwrap()))
        });
        assert_eq!((seen.unwrap(), tries), (Bytes::from("5"), 2));
        let never = store.update("count", |_| {
            store.write("count", b"5")?;
            Ok::<_, Error>((Some(b"6".to_vec()), ()))
        });
        assert!(never.unwrap_err().source.to_string().contains("keep changing"));
    }

    #[test]
    fn a_write_to_a_bucket_that_is_sent_twice_was_the_first_all_the_same() {
        let store = Store::in_memory();
        assert!(store.write_if_absent("commits/1", b"one").unwrap());
        assert!(store.write_if_absent("commits/1", b"one").unwrap());
    }

    #[test]
    fn what_is_appended_in_a_bucket_is_an_object_of_its_own() {
        let store = Store::in_memory();
        let mut appender = store.append("archive/x").unwrap();
        appender.write(b"one").unwrap();
        assert!(!store.exists("archive/x").unwrap());
        appender.write(b"two").unwrap();
        appender.sync().unwrap();
        assert_eq!(store.read("archive/x").unwrap(), "onetwo");
        let mut other = store.append("archive/x").unwrap();
        other.write(b"other").unwrap();
        assert_eq!(other.sync().unwrap_err().source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(store.read("archive/x").unwrap(), "onetwo");
    }

    #[test]
    fn an_upload_in_pieces_is_noted_until_it_ends() {
        let store = Store::in_memory();
        let bytes = vec![7; 11 << 20];
        let mut file = store.new_file("parts/a").unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(store.list_all("").unwrap(), ["state/uploads/parts/a"]);
        let stored = file.finish().unwrap();
        assert_eq!(store.list_all("").unwrap(), ["parts/a"]);
        assert_eq!(
            digest(store.open_file("parts/a").unwrap()).unwrap(),
            (stored.bytes, stored.blake3)
        );
        let mut file = store.new_file("parts/b").unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        assert_eq!(store.list_all("").unwrap(), ["parts/a"]);
    }
}
