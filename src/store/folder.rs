//! A folder of this machine's disk, in which files are written beside, synced, and moved into place.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use tempfile::NamedTempFile;

use super::Error;
use super::PRIVATE;
use super::Readers;
use super::Result;
use super::TEMPORARY;
use super::fail;
use crate::point::Stepped;
use crate::point::Steps;

/// A folder. Paths are relative to it; the steps of each call are those of the operation.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// The lake in which the folder lies, where that is another one.
    pub(super) lake: Option<PathBuf>,
    pub(super) readers: Readers,
}

/// A file that is being written to a temporary name.
pub(super) type Staged = BufWriter<Stepped<NamedTempFile>>;

impl Folder {
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root, lake: None, readers: Readers::Owner }
    }

    pub(super) fn folder(&self, path: &str) -> Self {
        Self { root: self.path(path), lake: Some(self.root.clone()), readers: self.readers }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn read(&self, path: &str, steps: &Steps) -> Result<Bytes> {
        let at = self.path(path);
        let bytes = steps.read("begun").and_then(|()| fs::read(&at));
        bytes.map(Bytes::from).map_err(|source| fail("read", &at, source))
    }

    pub(super) fn open_file(&self, path: &str, steps: &Steps) -> Result<File> {
        let at = self.path(path);
        let opened = steps.read("begun").and_then(|()| File::open(&at));
        opened.map_err(|source| fail("open", &at, source))
    }

    /// Opens a file to lock it, a new one where there is none. What it holds stays.
    pub(super) fn open_to_lock(&self, path: &str, steps: &Steps) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        access::limit_new(&mut options, Readers::Owner);
        steps.change("begun").and_then(|()| options.open(self.path(path)))
    }

    pub(super) fn stage_file(&self, path: &str, steps: Steps) -> Result<Staged> {
        let staged = self.stage_unnamed(&self.path(path), &steps)?;
        Ok(BufWriter::with_capacity(1 << 18, Stepped { inner: staged, steps }))
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8], steps: &Steps) -> Result<()> {
        let at = self.path(path);
        let staged = stage_bytes(&at, self.stage_unnamed(&at, steps)?, bytes, steps)?;
        move_to(&at, staged, steps)
    }

    /// Writes a file whole for a caller that holds a lock on it. What is left of one that died is
    /// replaced by the next, so that no lake needs to be swept for it.
    pub(super) fn write_locked(&self, path: &str, bytes: &[u8], steps: &Steps) -> Result<()> {
        let at = self.path(path);
        self.make_folder_of(&at, steps)?;
        let name = at.file_name().unwrap_or_default().to_string_lossy();
        let folder = at.parent().unwrap_or(&self.root);
        let staged = format!("{TEMPORARY}{name}");
        let left = ignore_missing(fs::remove_file(folder.join(&staged)));
        left.map_err(|source| fail("replace", &at, source))?;
        let mut named = tempfile::Builder::new();
        let staged = self.stage(&at, folder, named.prefix(&staged).rand_bytes(0), steps)?;
        let staged = stage_bytes(&at, staged, bytes, steps)?;
        move_to(&at, staged, steps)
    }

    pub(super) fn write_if_absent(&self, path: &str, bytes: &[u8], steps: &Steps) -> Result<bool> {
        let at = self.path(path);
        let staged = stage_bytes(&at, self.stage_unnamed(&at, steps)?, bytes, steps)?;
        steps.change("staged").map_err(|source| fail("write", &at, source))?;
        match staged.persist_noclobber(&at) {
            Ok(_) => sync_folder(&at, steps).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(fail("write", &at, error.error)),
        }
    }

    pub(super) fn append(&self, path: &str, steps: &Steps) -> Result<File> {
        let at = self.path(path);
        self.make_folder_of(&at, steps)?;
        let mut options = OpenOptions::new();
        access::limit_new(options.create(true).append(true), self.readers_of(&at));
        let opened = steps.change("begun").and_then(|()| options.open(&at));
        let file = opened.map_err(|source| fail("open", &at, source))?;
        sync_folder(&at, steps)?;
        Ok(file)
    }

    pub(super) fn list(&self, folder: &str, steps: &Steps) -> Result<Vec<String>> {
        let at = self.path(folder);
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

    pub(super) fn list_unfinished(&self, folder: &str, steps: &Steps) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
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
        found
    }

    pub(super) fn remove(&self, path: &str, steps: &Steps) -> Result<()> {
        let at = self.path(path);
        let removed = steps.change("begun").and_then(|()| ignore_missing(fs::remove_file(&at)));
        removed.map_err(|source| fail("remove", &at, source))?;
        steps.reach("done");
        Ok(())
    }

    pub(super) fn remove_all(&self, folder: &str, steps: &Steps) -> Result<()> {
        remove_folder(&self.path(folder), steps)
    }

    pub(super) fn create_folder(&self, folder: &str, steps: &Steps) -> Result<()> {
        self.make_folder_of(&self.path(folder).join("any"), steps)
    }

    pub(super) fn remove_unfinished(&self, folder: &str, steps: &Steps) -> Result<()> {
        let mut folders = vec![self.path(folder)];
        while let Some(at) = folders.pop() {
            folders.extend(remove_unfinished_in(&at, steps)?);
        }
        Ok(())
    }

    pub(super) fn remove_unfinished_beside(&self, folder: &str, steps: &Steps) -> Result<()> {
        remove_unfinished_in(&self.path(folder), steps).map(drop)
    }

    pub(super) fn rename(&self, from: &str, to: &str, steps: &Steps) -> Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.make_folder_of(&to, steps)?;
        let renamed = steps.change("begun").and_then(|()| fs::rename(&from, &to));
        renamed.map_err(|source| fail("rename", &from, source))?;
        sync_folder(&to, steps)
    }

    pub(super) fn link(&self, from: &str, to: &str, steps: &Steps) -> Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.make_folder_of(&to, steps)?;
        ignore_missing(fs::remove_file(&to)).map_err(|source| fail("replace", &to, source))?;
        let link = || fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ()));
        let linked = steps.change("begun").and_then(|()| link());
        linked.map_err(|source| fail("link", &to, source))?;
        steps.reach("done");
        Ok(())
    }

    /// Tells whether two names are of the same file.
    pub(super) fn is_one_file(&self, one: &str, other: &str) -> bool {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &str| {
            let found = self.path(path).metadata().ok()?;
            Some((found.dev(), found.ino()))
        };
        inode(one).is_some_and(|one| Some(one) == inode(other))
    }

    pub(super) fn point(&self, path: &str, target: &str, steps: &Steps) -> Result<()> {
        let at = self.path(path);
        let staged = self.path(&format!("{TEMPORARY}{path}"));
        let made = ignore_missing(fs::remove_file(&staged))
            .and_then(|()| steps.change("begun"))
            .and_then(|()| std::os::unix::fs::symlink(target, &staged))
            .and_then(|()| steps.change("staged"))
            .and_then(|()| fs::rename(&staged, &at));
        made.map_err(|source| fail("point", &at, source))?;
        sync_folder(&at, steps)
    }

    pub(super) fn pointee(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    pub(super) fn make_folder_of(&self, at: &Path, steps: &Steps) -> Result<()> {
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

/// Makes a file that is written durable, and moves it into place.
pub(super) fn finish(staged: Staged, at: &Path) -> Result<()> {
    let written = staged.into_inner();
    let Stepped { inner: staged, steps } =
        written.map_err(|error| fail("write", at, error.into_error()))?;
    let synced = steps.change("written").and_then(|()| staged.as_file().sync_all());
    synced.map_err(|source| fail("write", at, source))?;
    move_to(at, staged, &steps)
}

/// Removes a folder and all in it; that there is none is no error.
pub(super) fn remove_folder(at: &Path, steps: &Steps) -> Result<()> {
    let removed = steps.change("begun").and_then(|()| ignore_missing(fs::remove_dir_all(at)));
    removed.map_err(|source| fail("remove", at, source))?;
    steps.reach("done");
    Ok(())
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
