//! Where files lie, and how they come to lie there for good.
//!
//! A [`Store`] is a folder or a bucket. What it writes to a folder is written beside, synced, moved into
//! place, and the folder synced too, so that after a power cut a file is there whole or not at all; to
//! a bucket it is put, or uploaded in pieces that leave nothing behind. Paths are relative and separated
//! by `/`; no caller joins paths of its own. Calls block: make them from threads that may. Between any
//! two things that disk or bucket see stands a point (see [`crate::point`]), named by the top of the path
//! and the operation.

mod append;
mod bucket;
mod error;
mod folder;
mod new_file;
mod open;
mod place;
mod upload;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;

pub use append::Appender;
pub use bucket::Refusal;
pub use error::Error;
pub use error::Result;
pub use error::is_of_storage;
pub use new_file::NewFile;
pub use open::OpenFile;
pub use place::Place;

use crate::ids::RunId;
use crate::point::Steps;
use append::End;
use bucket::Bucket;
use error::fail;
use folder::Folder;
use new_file::Writer;
use upload::Upload;

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

    /// Returns the paths of all files below those folders in `folder` that are named `first` or come after
    /// it, sorted. What lies in the others is not looked at, and in a bucket not asked for.
    pub fn list_all_from(&self, folder: &str, first: &str) -> Result<Vec<String>> {
        if let Kind::Bucket(bucket) = &self.kind {
            return bucket.list_all_from(folder, first, &self.steps("list", folder));
        }
        let mut files = Vec::new();
        // A file has nothing below it, as in a bucket.
        let names = if self.path(folder).is_dir() { self.list(folder)? } else { Vec::new() };
        for name in names.iter().filter(|name| name.as_str() >= first) {
            let below = format!("{folder}/{name}");
            if self.path(&below).is_dir() {
                files.extend(self.list_all(&below)?);
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

/// Returns the length and the BLAKE3 hash of what a reader gives.
pub fn digest(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut reader, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

#[cfg(test)]
mod tests;
