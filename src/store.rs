//! Where files lie, and how they come to lie there for good.
//!
//! A [`Store`] is a folder. What it writes is written beside, synced, moved into place, and the
//! folder synced too, so that after a power cut a file is there whole or not at all. Paths are
//! relative and separated by `/`; no caller joins paths of its own. Calls block: make them from
//! threads that may. Between any two things the disk sees stands a point (see [`crate::point`]), named
//! by the top of the path and the operation.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use tempfile::NamedTempFile;

use crate::point::Stepped;
use crate::point::Steps;
use crate::schema::StoredFile;

/// A file or folder of the lake could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} `{path}`")]
pub struct Error {
    /// What was tried, e.g. `write`.
    pub action: &'static str,
    /// The whole path.
    pub path: PathBuf,
    /// What the operating system said.
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
        let source = match self.source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.source.kind(), self.source.to_string()),
        };
        Self { action: self.action, path: self.path.clone(), source }
    }
}

/// The result of a call on a store.
pub type Result<T> = std::result::Result<T, Error>;

/// Who may read what is made for readers: parts, CSV, changes, snapshots, commits. The umask of the
/// process may leave fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The user of the run.
    Owner,
    /// The group of that user, too.
    Group,
    /// Everybody on the machine.
    All,
}

/// A folder in which files are written whole or not at all.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// The lake in which the folder lies, where that is another one.
    lake: Option<PathBuf>,
    readers: Readers,
    /// What points are named by in place of the path.
    label: Option<&'static str>,
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
        Self { root: root.into(), lake: None, readers: Readers::Owner, label: None }
    }

    /// Returns the same folder, in which others too may read what is made for readers.
    #[must_use]
    pub fn readable_by(self, readers: Readers) -> Self {
        Self { readers, ..self }
    }

    /// Returns a folder of this lake, in which paths are relative to it.
    #[must_use]
    pub fn folder(&self, path: &str) -> Self {
        Self { root: self.path(path), lake: Some(self.root.clone()), ..self.clone() }
    }

    /// Returns the same folder, whose points are named by `label`: one that has no fixed place.
    #[must_use]
    pub fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Returns the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where the file lies on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Reads a whole file.
    pub fn read(&self, path: &str) -> Result<Bytes> {
        let (at, steps) = (self.path(path), self.steps("read", path));
        let bytes = steps.read("begun").and_then(|()| fs::read(&at));
        bytes.map(Bytes::from).map_err(|source| fail("read", &at, source))
    }

    /// Reads a whole file, or returns `None` where there is none.
    pub fn read_if_exists(&self, path: &str) -> Result<Option<Bytes>> {
        match self.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a file for reading in pieces.
    pub fn open_file(&self, path: &str) -> Result<File> {
        let (at, steps) = (self.path(path), self.steps("open", path));
        let opened = steps.read("begun").and_then(|()| File::open(&at));
        opened.map_err(|source| fail("open", &at, source))
    }

    /// Opens a file to lock it, a new one where there is none. What it holds stays. `steps` are those of
    /// the lock.
    pub fn open_to_lock(&self, path: &str, steps: &Steps) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        access::limit_new(&mut options, Readers::Owner);
        steps.change("begun").and_then(|()| options.open(self.path(path)))
    }

    /// Tells whether a file or folder exists.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Begins a new file; it appears when [`NewFile::finish`] is called, and never otherwise.
    pub fn new_file(&self, path: &str) -> Result<NewFile> {
        let (at, steps) = (self.path(path), self.steps("new", path));
        let staged = self.stage_unnamed(&at, &steps)?;
        let writer = BufWriter::with_capacity(1 << 18, Stepped { inner: staged, steps });
        let hasher = blake3::Hasher::new();
        Ok(NewFile { writer, hasher, bytes: 0, path: path.to_owned(), at })
    }

    /// Writes a file whole, in place of the one that may be there.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (at, steps) = (self.path(path), self.steps("write", path));
        let staged = stage_bytes(&at, self.stage_unnamed(&at, &steps)?, bytes, &steps)?;
        move_to(&at, staged, &steps)
    }

    /// Writes a file whole, as [`Store::write`] does, for a caller that holds a lock on the file. What
    /// is left of one that died is replaced by the next, so that no lake needs to be swept for it.
    pub fn write_locked(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (at, steps) = (self.path(path), self.steps("write", path));
        self.make_folder_of(&at, &steps)?;
        let name = at.file_name().unwrap_or_default().to_string_lossy();
        let folder = at.parent().unwrap_or(&self.root);
        let staged = format!("{TEMPORARY}{name}");
        let left = ignore_missing(fs::remove_file(folder.join(&staged)));
        left.map_err(|source| fail("replace", &at, source))?;
        let mut named = tempfile::Builder::new();
        let staged = self.stage(&at, folder, named.prefix(&staged).rand_bytes(0), &steps)?;
        let staged = stage_bytes(&at, staged, bytes, &steps)?;
        move_to(&at, staged, &steps)
    }

    /// Writes a file that must not exist yet; returns `false`, and changes nothing, where it does.
    pub fn write_if_absent(&self, path: &str, bytes: &[u8]) -> Result<bool> {
        let (at, steps) = (self.path(path), self.steps("write-if-absent", path));
        let staged = stage_bytes(&at, self.stage_unnamed(&at, &steps)?, bytes, &steps)?;
        steps.change("staged").map_err(|source| fail("write", &at, source))?;
        match staged.persist_noclobber(&at) {
            Ok(_) => sync_folder(&at, &steps).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(fail("write", &at, error.error)),
        }
    }

    /// Opens a file to append to it, a new one where there is none. What was appended is durable
    /// once [`Appender::sync`] has returned.
    pub fn append(&self, path: &str) -> Result<Appender> {
        let (at, steps) = (self.path(path), self.steps("append", path));
        self.make_folder_of(&at, &steps)?;
        let mut options = OpenOptions::new();
        access::limit_new(options.create(true).append(true), self.readers_of(&at));
        let opened = steps.change("begun").and_then(|()| options.open(&at));
        let file = opened.map_err(|source| fail("open", &at, source))?;
        sync_folder(&at, &steps)?;
        Ok(Appender { file, at, steps })
    }

    /// Returns the names in a folder, sorted; none where it does not exist. Temporary files are
    /// left out.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let (at, steps) = (self.path(folder), self.steps("list", folder));
        let entries = match steps.read("begun").and_then(|()| fs::read_dir(&at)) {
            Ok(entries) => entries,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(fail("list", &at, source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| fail("list", &at, source))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| !name.starts_with(TEMPORARY));
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the paths of all files below a folder, sorted.
    pub fn list_all(&self, folder: &str) -> Result<Vec<String>> {
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

    /// Returns the paths of what was never finished below a folder, sorted.
    pub fn list_unfinished(&self, folder: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let steps = self.steps("list", &folder);
            let listed = steps.read("begun").and_then(|()| fs::read_dir(self.path(&folder)));
            let Ok(entries) = listed else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = format!("{folder}/{name}");
                if name.starts_with(TEMPORARY) {
                    found.push(path);
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes a file; that there is none is no error.
    pub fn remove(&self, path: &str) -> Result<()> {
        let (at, steps) = (self.path(path), self.steps("remove", path));
        let removed = steps.change("begun").and_then(|()| ignore_missing(fs::remove_file(&at)));
        removed.map_err(|source| fail("remove", &at, source))?;
        steps.reach("done");
        Ok(())
    }

    /// Removes a folder and all in it; that there is none is no error.
    pub fn remove_all(&self, folder: &str) -> Result<()> {
        let (at, steps) = (self.path(folder), self.steps("remove-all", folder));
        let removed = steps.change("begun").and_then(|()| ignore_missing(fs::remove_dir_all(&at)));
        removed.map_err(|source| fail("remove", &at, source))?;
        steps.reach("done");
        Ok(())
    }

    /// Makes a folder, and those above it, where they do not exist.
    pub fn create_folder(&self, folder: &str) -> Result<()> {
        self.make_folder_of(&self.path(folder).join("any"), &self.steps("create-folder", folder))
    }

    /// Returns the path of a folder that is not finished: it is never listed, and
    /// [`Store::remove_unfinished`] removes it.
    pub fn unfinished(folder: &str, name: &str) -> String {
        format!("{folder}/{TEMPORARY}{name}")
    }

    /// Removes all that was never finished at any depth below a folder. The caller must know that
    /// nobody is writing there.
    pub fn remove_unfinished(&self, folder: &str) -> Result<()> {
        let steps = self.steps("remove-unfinished", folder);
        let mut folders = vec![self.path(folder)];
        while let Some(at) = folders.pop() {
            folders.extend(remove_unfinished_in(&at, &steps)?);
        }
        Ok(())
    }

    /// Removes what was never finished in a folder itself; `""` is the whole store's. The caller must
    /// know that nobody is writing there.
    pub fn remove_unfinished_beside(&self, folder: &str) -> Result<()> {
        let steps = self.steps("remove-unfinished", folder);
        remove_unfinished_in(&self.path(folder), &steps).map(drop)
    }

    /// Moves a file or folder to a name that is free, in one step, and makes that durable.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let steps = self.steps("rename", from);
        let (from, to) = (self.path(from), self.path(to));
        self.make_folder_of(&to, &steps)?;
        let renamed = steps.change("begun").and_then(|()| fs::rename(&from, &to));
        renamed.map_err(|source| fail("rename", &from, source))?;
        sync_folder(&to, &steps)
    }

    /// Gives a file a second name, as a hard link, or as a copy where the disk knows no links.
    pub fn link(&self, from: &str, to: &str) -> Result<()> {
        let steps = self.steps("link", to);
        let (from, to) = (self.path(from), self.path(to));
        self.make_folder_of(&to, &steps)?;
        ignore_missing(fs::remove_file(&to)).map_err(|source| fail("replace", &to, source))?;
        let link = || fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ()));
        let linked = steps.change("begun").and_then(|()| link());
        linked.map_err(|source| fail("link", &to, source))?;
        steps.reach("done");
        Ok(())
    }

    /// Makes `path` a symbolic link to `target`, which is relative to the folder of `path`. One
    /// that is there is replaced in a single step.
    pub fn point(&self, path: &str, target: &str) -> Result<()> {
        let (at, steps) = (self.path(path), self.steps("point", path));
        let staged = self.path(&format!("{TEMPORARY}{path}"));
        let made = ignore_missing(fs::remove_file(&staged))
            .and_then(|()| steps.change("begun"))
            .and_then(|()| std::os::unix::fs::symlink(target, &staged))
            .and_then(|()| steps.change("staged"))
            .and_then(|()| fs::rename(&staged, &at));
        made.map_err(|source| fail("point", &at, source))?;
        sync_folder(&at, &steps)
    }

    /// Returns where a symbolic link points.
    pub fn pointee(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// Returns the steps of an operation on a path, named by the top of the path: that is what a
    /// commit, a snapshot or a ledger is, whatever its number or group.
    fn steps(&self, operation: &str, path: &str) -> Steps {
        Steps::new(|| match self.label {
            Some(label) => format!("{label}/{operation}"),
            None => format!("{}/{operation}", top_of(path)),
        })
    }

    fn make_folder_of(&self, at: &Path, steps: &Steps) -> Result<()> {
        let Some(folder) = at.parent() else { return Ok(()) };
        if folder.is_dir() {
            return Ok(());
        }
        steps.change("folder").map_err(|source| fail("create", folder, source))?;
        let missing: Vec<&Path> = folder.ancestors().take_while(|level| !level.is_dir()).collect();
        for level in missing.into_iter().rev().filter(|level| *level != Path::new("")) {
            let made = access::folder_for(self.readers_of(level)).create(level);
            made.map_err(|source| fail("create", level, source))?;
            // The new folder's own name must survive a power cut too.
            let synced = sync(level.parent().unwrap_or(level), steps, "folder-made");
            synced.map_err(|error| Error { path: level.to_owned(), ..error })?;
        }
        Ok(())
    }

    /// Returns who may read what lies at a path: pages, rejects and state are for the owner alone.
    fn readers_of(&self, at: &Path) -> Readers {
        let below = at.strip_prefix(self.lake.as_ref().unwrap_or(&self.root)).unwrap_or(at);
        match PRIVATE.iter().any(|private| below.starts_with(private)) {
            true => Readers::Owner,
            false => self.readers,
        }
    }

    fn stage_unnamed(&self, at: &Path, steps: &Steps) -> Result<NamedTempFile> {
        self.make_folder_of(at, steps)?;
        let folder = at.parent().unwrap_or(&self.root);
        let mut builder = tempfile::Builder::new();
        self.stage(at, folder, builder.prefix(TEMPORARY), steps)
    }

    fn stage(
        &self,
        at: &Path,
        folder: &Path,
        named: &mut tempfile::Builder<'_, '_>,
        steps: &Steps,
    ) -> Result<NamedTempFile> {
        access::limit(named, self.readers_of(at));
        let staged = steps.change("begun").and_then(|()| named.tempfile_in(folder));
        staged.map_err(|source| fail("write", at, source))
    }
}

fn stage_bytes(
    at: &Path,
    mut staged: NamedTempFile,
    bytes: &[u8],
    steps: &Steps,
) -> Result<NamedTempFile> {
    let written = steps
        .write("bytes", bytes, |bytes| staged.write_all(bytes))
        .and_then(|()| steps.change("written"))
        .and_then(|()| staged.as_file().sync_all());
    written.map_err(|source| fail("write", at, source))?;
    Ok(staged)
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

/// A file being written. Dropped before [`NewFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    writer: BufWriter<Stepped<NamedTempFile>>,
    hasher: blake3::Hasher,
    bytes: u64,
    path: String,
    at: PathBuf,
}

impl NewFile {
    /// Makes the file durable, moves it into place, and says what it holds.
    pub fn finish(self) -> Result<StoredFile> {
        let at = self.at;
        let written = self.writer.into_inner();
        let Stepped { inner: staged, steps } =
            written.map_err(|error| fail("write", &at, error.into_error()))?;
        let synced = steps.change("written").and_then(|()| staged.as_file().sync_all());
        synced.map_err(|source| fail("write", &at, source))?;
        move_to(&at, staged, &steps)?;
        let blake3 = self.hasher.finalize().to_hex().to_string();
        Ok(StoredFile { path: self.path, bytes: self.bytes, blake3 })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A file that grows at its end.
#[derive(Debug)]
pub struct Appender {
    file: File,
    at: PathBuf,
    steps: Steps,
}

impl Appender {
    /// Appends bytes. They are not durable yet.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let file = &mut self.file;
        let written = self.steps.write("bytes", bytes, |bytes| file.write_all(bytes));
        written.map_err(|source| fail("write", &self.at, source))
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> Result<()> {
        let synced = self.steps.change("written").and_then(|()| self.file.sync_data());
        synced.map_err(|source| fail("write", &self.at, source))?;
        self.steps.reach("synced");
        Ok(())
    }
}

/// Returns the length and the BLAKE3 hash of what a reader gives.
pub fn digest(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut reader, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// Removes what was never finished in a folder, and returns the folders in it.
fn remove_unfinished_in(at: &Path, steps: &Steps) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(at) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(fail("list", at, source)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| fail("list", at, source))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let at = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            folders.extend(is_folder.then_some(at));
            continue;
        }
        let remove = || if is_folder { fs::remove_dir_all(&at) } else { fs::remove_file(&at) };
        let removed = steps.change("begun").and_then(|()| ignore_missing(remove()));
        removed.map_err(|source| fail("remove", &at, source))?;
        steps.reach("done");
    }
    Ok(folders)
}

/// Moves a file that is written and synced to its place.
fn move_to(at: &Path, staged: NamedTempFile, steps: &Steps) -> Result<()> {
    let moved = steps.change("staged").and_then(|()| match staged.persist(at) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.error),
    });
    moved.map_err(|source| fail("write", at, source))?;
    sync_folder(at, steps)
}

/// Makes the name of a file durable.
fn sync_folder(at: &Path, steps: &Steps) -> Result<()> {
    if let Some(folder) = at.parent() {
        sync(folder, steps, "named")?;
    }
    steps.reach("done");
    Ok(())
}

fn sync(folder: &Path, steps: &Steps, moment: &str) -> Result<()> {
    // Above a relative name lies the working folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let open = || File::open(folder).and_then(|folder| folder.sync_all());
    let synced = steps.change(moment).and_then(|()| open());
    synced.map_err(|source| fail("sync", folder, source))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn fail(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error { action, path: path.to_owned(), source }
}

/// What the disk is told of who may read. On Windows, what is new inherits that from its folder.
mod access {
    use std::fs::DirBuilder;
    use std::fs::OpenOptions;

    use super::Readers;

    /// Returns a maker of folders, with those above it, that such readers can list.
    pub(super) fn folder_for(readers: Readers) -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700 | (of_others(readers) * 5));
        #[cfg(not(unix))]
        let _ = readers;
        builder
    }

    /// Lets a file that is staged be read by such readers.
    pub(super) fn limit(builder: &mut tempfile::Builder<'_, '_>, readers: Readers) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = 0o600 | (of_others(readers) * 4);
            builder.permissions(std::fs::Permissions::from_mode(mode));
        }
        #[cfg(not(unix))]
        let _ = (builder, readers);
    }

    /// Lets a file, where it is new, be read by such readers.
    pub(super) fn limit_new(options: &mut OpenOptions, readers: Readers) {
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(options, 0o600 | (of_others(readers) * 4));
        #[cfg(not(unix))]
        let _ = (options, readers);
    }

    /// The lowest bit of each class beside the owner that may read.
    #[cfg(unix)]
    fn of_others(readers: Readers) -> u32 {
        match readers {
            Readers::Owner => 0o000,
            Readers::Group => 0o010,
            Readers::All => 0o011,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        store.write_locked("a.json", b"one").unwrap();
        store.write_locked("a.json", b"two").unwrap();
        assert_eq!(store.read("a.json").unwrap(), b"two"[..]);
        assert_eq!(fs::read_dir(store.root()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_never_finished_beside_is_removed_and_nothing_below() {
        let (_folder, store) = store();
        for path in [".tmp-a", "state/.tmp-b", "state/c"] {
            store.create_folder("state").unwrap();
            fs::write(store.path(path), b"half").unwrap();
        }
        store.remove_unfinished_beside("").unwrap();
        assert!(!store.exists(".tmp-a") && store.exists("state/.tmp-b"));
        store.remove_unfinished("").unwrap();
        assert_eq!(store.list_all("state").unwrap(), ["state/c"]);
        assert!(!store.exists("state/.tmp-b"));
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
}
