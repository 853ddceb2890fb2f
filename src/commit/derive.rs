//! What readers see of the newest commit: its snapshot folder, `latest`, and `checkpoint.json`.
//!
//! All of it is made from the commit, and made again where it is missing or lags. A folder appears
//! whole, by a rename; files in it are second names of the parts, so it costs no space.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::commit::Commit;
use crate::commit::Error;
use crate::commit::Result;
use crate::commit::SourceState;
use crate::commit::keep::ENDED;
use crate::commit::keep::ended;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::schema::StoredFile;
use crate::store::Store;

/// Where the snapshot folders lie.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// The symbolic link to the newest snapshot folder.
pub(super) const LATEST: &str = "latest";

const CHECKPOINT: &str = "checkpoint.json";

/// Makes what readers see of `commit`, the newest one, where it is not there yet.
///
/// Doing it again changes nothing. The caller holds the lake.
pub fn derive(store: &Store, commit: &Commit) -> Result<()> {
    if store.has_snapshots() {
        show(store, commit)?;
    } else if store.pointee(LATEST).is_some() {
        // Of a time in which the bucket had copies: it would name an old commit for ever.
        store.remove(LATEST)?;
    }
    let copy = checkpoint_copy(commit)?;
    if store.read_if_exists(CHECKPOINT)?.as_deref() != Some(copy.as_slice()) {
        store.write(CHECKPOINT, &copy)?;
    }
    Ok(())
}

fn show(store: &Store, commit: &Commit) -> Result<()> {
    let folder = folder_of(commit.snapshot);
    let files = snapshot_files(commit);
    if !is_whole(store, &folder, &files)? {
        build(store, commit, &folder, &files)?;
    }
    if store.pointee(LATEST).as_deref() != Some(folder.as_str()) {
        store.point(LATEST, &folder)?;
    }
    Ok(())
}

/// Makes the snapshot folder of a living commit anew, whatever is there. The caller holds the lake.
pub fn show_anew(store: &Store, commit: &Commit) -> Result<()> {
    build(store, commit, &folder_of(commit.snapshot), &snapshot_files(commit))
}

/// A file that readers see, and the part it is a second name of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownFile {
    /// Where readers see it, relative to the lake.
    pub path: String,
    /// The part.
    pub part: StoredFile,
}

/// Returns the files that the snapshot folder of a commit should show; none where it should have none.
pub fn shown_files(store: &Store, commit: &Commit) -> Vec<ShownFile> {
    let folder = folder_of(commit.snapshot);
    let files = snapshot_files(commit).into_iter();
    files
        .filter(|_| store.has_snapshots())
        .map(|file| ShownFile { path: format!("{folder}/{}", file.path), part: file.part.clone() })
        .collect()
}

/// Returns which of `latest` and `checkpoint.json` are not as made from `commit`.
pub fn derived_that_differ(store: &Store, commit: &Commit) -> Result<Vec<&'static str>> {
    let mut differ = Vec::new();
    let folder = folder_of(commit.snapshot);
    if store.has_snapshots() && store.pointee(LATEST).as_deref() != Some(folder.as_str()) {
        differ.push(LATEST);
    }
    let copy = checkpoint_copy(commit)?;
    if store.read_if_exists(CHECKPOINT)?.as_deref() != Some(copy.as_slice()) {
        differ.push(CHECKPOINT);
    }
    Ok(differ)
}

/// Returns a commit newer than `head` that what readers see tells of, and what tells of it: its file
/// is lost, since both are made after it.
pub fn newer_shown(store: &Store, head: Option<&Commit>) -> Result<Option<(Seq, &'static str)>> {
    #[derive(serde::Deserialize)]
    struct Header {
        seq: Seq,
    }
    let newest = head.map_or(Seq(0), |head| head.seq);
    let latest = store.pointee(LATEST).and_then(|folder| {
        folder.strip_prefix(SNAPSHOTS)?.strip_prefix('/')?.parse().ok().map(Seq)
    });
    let copy = store.read_if_exists(CHECKPOINT)?.unwrap_or_default();
    let header = serde_json::from_slice::<Header>(&copy).ok().map(|header| header.seq);
    let own = head.map(checkpoint_copy).transpose()?.unwrap_or_default();
    let header = header.filter(|_| !is_nearly(&copy, &own));
    let folder = shown_numbers(store)?.into_iter().max();
    // The commit that ended others is newer than they are. A file that cannot be read tells nothing.
    let ended = ended(store).ok().filter(|ended| ended.0 > 0).map(Seq::next);
    let told = [(ended, ENDED), (folder, SNAPSHOTS), (header, CHECKPOINT), (latest, LATEST)];
    let told = told.into_iter().filter_map(|(seq, evidence)| Some((seq?, evidence)));
    Ok(told.filter(|(seq, _)| *seq > newest).max_by_key(|(seq, _)| *seq))
}

/// Returns the numbers of the snapshot folders that there are.
pub(super) fn shown_numbers(store: &Store) -> Result<Vec<Seq>> {
    let names = store.list(SNAPSHOTS)?.into_iter();
    let numbers = names.filter_map(|name| {
        let seq = Seq(name.parse().ok()?);
        // Any other name was given by somebody else.
        (seq.to_string() == name).then_some(seq)
    });
    Ok(numbers.collect())
}

/// Tells whether two texts differ in a byte at most: in one that was flipped, that is, and not since
/// one of them was made from something else.
fn is_nearly(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).filter(|(a, b)| a != b).count() <= 1
}

/// Fails where the newest commit is lost, or a living part of it is missing or cut short. Looks at
/// lengths; whether bytes are as they were written, whoever reads them finds out.
pub fn refuse_losses(store: &Store, head: Option<&Commit>) -> Result<()> {
    if let Some((seq, evidence)) = newer_shown(store, head)? {
        return Err(Error::NewestMissing { seq, evidence });
    }
    let Some(head) = head else { return Ok(()) };
    let parts = head.sources.values().flat_map(|source| &source.parts);
    let files: Vec<_> =
        parts.flat_map(|part| std::iter::once(&part.file).chain(&part.csv)).collect();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    for (file, found) in files.iter().zip(store.sizes(&paths)?) {
        let (path, seq, expected) = (file.path.clone(), head.seq, file.bytes);
        match found {
            Some(found) if found == expected => {}
            Some(found) => return Err(Error::CutShort { path, seq, found, expected }),
            None => return Err(Error::MissingFile { path, seq }),
        }
    }
    Ok(())
}

/// Returns the snapshot folder in which readers see a commit, where the lake has such folders.
pub fn shown_folder(store: &Store, commit: &Commit) -> Option<String> {
    store.has_snapshots().then(|| folder_of(commit.snapshot))
}

/// Returns the snapshot folder of a commit.
pub(super) fn folder_of(seq: Seq) -> String {
    format!("{SNAPSHOTS}/{seq}")
}

/// A file of a snapshot folder.
struct SnapshotFile<'a> {
    /// The part it is a second name of.
    part: &'a StoredFile,
    /// Its path inside the folder.
    path: String,
}

/// Returns what belongs into the snapshot folder: per source the forms its readers want.
fn snapshot_files(commit: &Commit) -> Vec<SnapshotFile<'_>> {
    let mut files = Vec::new();
    for source in commit.sources.values() {
        for part in &source.parts {
            if source.format.shows_parquet() {
                files.push(SnapshotFile::new(&part.file, "parts/", "leads"));
            }
            let csv = part.csv.iter().filter(|_| source.format.shows_csv());
            files.extend(csv.map(|csv| SnapshotFile::new(csv, "csv/", "leads_csv")));
        }
    }
    files
}

impl<'a> SnapshotFile<'a> {
    /// The Hive folders of the part stand in the snapshot as they do in the lake.
    fn new(part: &'a StoredFile, from: &str, to: &str) -> Self {
        let below = part.path.strip_prefix(from).unwrap_or(&part.path);
        Self { part, path: format!("{to}/{below}") }
    }
}

/// A folder appears whole, yet files can be removed by hand, and copies cut short by a power cut.
fn is_whole(store: &Store, folder: &str, files: &[SnapshotFile<'_>]) -> Result<bool> {
    if files.is_empty() {
        return Ok(store.is_bucket() || store.exists(folder)?);
    }
    let paths: Vec<_> = files.iter().map(|file| format!("{folder}/{}", file.path)).collect();
    let sizes = store.sizes(&paths.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(files.iter().zip(sizes).all(|(file, found)| found == Some(file.part.bytes)))
}

fn build(store: &Store, commit: &Commit, folder: &str, files: &[SnapshotFile<'_>]) -> Result<()> {
    // What a run that died left half-made. It lies in that folder itself, and not below older snapshots.
    store.remove_unfinished_beside(SNAPSHOTS)?;
    // Nothing is moved in a bucket: that a folder is whole, `latest` tells, which comes after it.
    let staged = match store.is_bucket() {
        true => folder.to_owned(),
        false => Store::unfinished(SNAPSHOTS, &commit.snapshot.to_string()),
    };
    // A lake without rows has its folders too, so that `latest/leads` can always be listed.
    for name in top_folders(commit) {
        store.create_folder(&format!("{staged}/{name}"))?;
    }
    for file in files {
        let from = &file.part.path;
        if !store.exists(from)? {
            return Err(Error::MissingFile { path: from.clone(), seq: commit.seq });
        }
        store.link(from, &format!("{staged}/{}", file.path))?;
    }
    if staged == folder {
        return Ok(());
    }
    if store.exists(folder)? {
        remove_folder(store, folder)?;
    }
    Ok(store.rename(&staged, folder)?)
}

fn top_folders(commit: &Commit) -> Vec<&'static str> {
    let formats = || commit.sources.values().map(|source| source.format);
    let csv = formats().any(|format| format.shows_csv());
    let parquet = !csv || formats().any(|format| format.shows_parquet());
    let named = [(parquet, "leads"), (csv, "leads_csv")];
    named.into_iter().filter_map(|(shown, name)| shown.then_some(name)).collect()
}

/// Removes a snapshot folder in one step, as far as readers can see.
pub(super) fn remove_folder(store: &Store, folder: &str) -> Result<()> {
    if store.is_bucket() {
        return Ok(store.remove_all(folder)?);
    }
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let hidden = Store::unfinished(SNAPSHOTS, &format!("ended-{name}"));
    store.remove_all(&hidden)?;
    store.rename(folder, &hidden)?;
    Ok(store.remove_all(&hidden)?)
}

/// The newest commit's checkpoint, for people; nothing reads it back.
#[derive(Serialize)]
struct CheckpointCopy<'a> {
    seq: Seq,
    run: &'a RunId,
    as_of: DateTime<Utc>,
    sources: BTreeMap<&'a SourceName, SourceCopy<'a>>,
    checkpoint: &'a Checkpoint,
}

#[derive(Serialize)]
struct SourceCopy<'a> {
    state: SourceState,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    as_of: Option<DateTime<Utc>>,
    rows: u64,
}

fn checkpoint_copy(commit: &Commit) -> Result<Vec<u8>> {
    let sources = commit.sources.iter().map(|(name, source)| {
        let why = source.why.as_deref();
        (name, SourceCopy { state: source.state, why, as_of: source.as_of, rows: source.rows })
    });
    let copy = CheckpointCopy {
        seq: commit.seq,
        run: &commit.run,
        as_of: commit.created_at,
        sources: sources.collect(),
        checkpoint: &commit.checkpoint,
    };
    let encoded = serde_json::to_vec_pretty(&copy);
    encoded.map_err(|source| Error::Encode { what: "checkpoint", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::SourceCommit;
    use crate::commit::testing::lake;
    use crate::commit::testing::part;
    use crate::commit::testing::seq_commit;
    use crate::commit::testing::source;
    use crate::commit::testing::source_commit;
    use crate::commit::testing::with_csv;
    use crate::config::Format;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_snapshot_is_a_plain_folder_of_links() {
        let (_folder, store) = lake();
        let commit = seq_commit(&store, 1);
        derive(&store, &commit).unwrap();
        let path = commit.part_paths().next().unwrap();
        let seen = format!("latest/{}", path.replacen("parts", "leads", 1));
        let inode = |path: &str| store.path(path).metadata().unwrap().ino();
        assert_eq!(inode(path), inode(&seen));
        assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/000000001"));
        let copy: serde_json::Value =
            serde_json::from_slice(&store.read("checkpoint.json").unwrap()).unwrap();
        assert_eq!((&copy["seq"], &copy["sources"]["acme"]["rows"]), (&1.into(), &10.into()));
    }

    #[test]
    fn readers_see_the_forms_their_source_asks_for() {
        let (_folder, store) = lake();
        let mut commit = seq_commit(&store, 1);
        for (name, format) in [("one", Format::Csv), ("two", Format::Both)] {
            let part = with_csv(&store, part(&store, name, "2026", 1, 1, 0));
            let added = SourceCommit { format, ..source_commit(vec![part]) };
            commit.sources.insert(source(name), added);
        }
        derive(&store, &commit).unwrap();
        let sources = |form: &str| store.list(&format!("latest/{form}")).unwrap();
        assert_eq!(sources("leads"), ["part_source=acme", "part_source=two"]);
        assert_eq!(sources("leads_csv"), ["part_source=one", "part_source=two"]);
    }

    #[test]
    fn a_lake_without_rows_has_a_folder_that_can_be_listed() {
        let (_folder, store) = lake();
        let mut commit = seq_commit(&store, 1);
        commit.sources.clear();
        derive(&store, &commit).unwrap();
        assert!(store.path("latest/leads").is_dir());
    }

    #[test]
    fn what_is_missing_or_half_made_is_made_again() {
        let (_folder, store) = lake();
        let commit = seq_commit(&store, 2);
        derive(&store, &commit).unwrap();
        let whole = store.list_all("snapshots").unwrap();
        let file = store.path(&whole[0]);
        let damages: [&dyn Fn(); 7] = [
            &|| store.remove("latest").unwrap(),
            &|| store.point("latest", "snapshots/000000001").unwrap(),
            &|| store.remove("checkpoint.json").unwrap(),
            &|| store.write("checkpoint.json", b"{}").unwrap(),
            &|| store.remove_all("snapshots").unwrap(),
            &|| fs::remove_file(&file).unwrap(),
            &|| {
                let half = Store::unfinished(SNAPSHOTS, "000000002");
                store.rename("snapshots/000000002", &half).unwrap();
                fs::remove_file(store.path(&half).join(&whole[0][20..])).unwrap();
            },
        ];
        let copy = store.read("checkpoint.json").unwrap();
        for damage in damages {
            damage();
            derive(&store, &commit).unwrap();
            assert_eq!(store.list_all("snapshots").unwrap(), whole);
            assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/000000002"));
            assert_eq!(store.read("checkpoint.json").unwrap(), copy);
        }
        // Nothing hidden is left behind either.
        assert_eq!(fs::read_dir(store.path(SNAPSHOTS)).unwrap().count(), 1);
    }

    #[test]
    fn a_commit_that_changed_nothing_shows_the_older_folder() {
        let (_folder, store) = lake();
        let first = seq_commit(&store, 1);
        derive(&store, &first).unwrap();
        let mut second = Commit { seq: Seq(2), parent: Some(Seq(1)), ..first };
        second.changes.rows = 0;
        derive(&store, &second).unwrap();
        assert_eq!(store.list(SNAPSHOTS).unwrap(), ["000000001"]);
        assert_eq!(store.pointee("latest").as_deref(), Some("snapshots/000000001"));
        let copy = String::from_utf8(store.read("checkpoint.json").unwrap().to_vec()).unwrap();
        assert!(copy.contains("\"seq\": 2"));
    }

    #[test]
    fn a_part_that_is_missing_is_named_and_nothing_half_made_is_shown() {
        let (_folder, store) = lake();
        let commit = seq_commit(&store, 1);
        let path = commit.part_paths().next().unwrap().to_owned();
        store.remove(&path).unwrap();
        let error = derive(&store, &commit).unwrap_err();
        assert!(error.to_string().contains(&path));
        assert_eq!(store.list(SNAPSHOTS).unwrap(), Vec::<String>::new());
        assert_eq!(store.pointee("latest"), None);
    }
}
