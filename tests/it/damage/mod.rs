//! Damaged lakes: what `verify` finds, what a run does that meets the damage, what a repair mends, and
//! that nothing is lost or doubled after it.
//!
//! `table` has every kind of damage once, `random` draws files from a seed, `parts`, `changes`, `archive` and
//! `state` are what a repair makes of each, `totals` what providers say of a lake, `looks` and `deaths` what
//! comes in between.
//!
//! `LEADPIPE_DAMAGES` sets how many random files are damaged, `LEADPIPE_DEATHS` how many repairs die.

mod archive;
mod changes;
mod deaths;
mod looks;
mod parts;
mod random;
mod state;
mod table;
mod totals;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::run;
use leadpipe::run::Kind;
use leadpipe::run::Options;
use leadpipe::run::Verified;
use leadpipe::run::Verify;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Settings;

use crate::support::Rows;
use crate::support::World;
use crate::support::difference;
use crate::support::small;
use crate::support::small_job;

/// A lake of some nights, and a copy of it to begin each damage from.
struct Nights {
    world: World,
    whole: PathBuf,
    truth: Rows,
}

impl Nights {
    async fn new() -> Self {
        let settings = Settings { leads: 90, still: true, ..small() };
        let mut world = World::new(settings).await;
        world.job = small_job("[load]\nformat = \"both\"\n");
        world.sync().await;
        for night in 0..3_usize {
            let leads = world.sandbox.lead_ids();
            let [one, two] = [12, 5].map(|back| leads[leads.len() - back - night].1);
            let name = serde_json::json!({ "contact_name": format!("Night {night}") });
            world.sandbox.edit(one, Edit::Set(name.as_object().unwrap().clone())).unwrap();
            world.sandbox.edit(two, Edit::Vanish).unwrap();
            world.pass(TimeDelta::days(8));
            world.sync().await;
        }
        let whole = world.folder.path().join("whole");
        copy(&lake_of(&world), &whole);
        let truth = world.truth().await;
        Self { world, whole, truth }
    }

    /// Puts the lake back as it was, names of the same file included.
    fn restore(&self) {
        let lake = lake_of(&self.world);
        fs::remove_dir_all(&lake).unwrap();
        copy(&self.whole, &lake);
    }

    fn changes_of(&self, seq: u64) -> String {
        let seq = leadpipe::ids::Seq(seq);
        leadpipe::commit::read(&self.world.store(), seq).unwrap().changes.file.path
    }

    fn at(&self, path: &str) -> PathBuf {
        lake_of(&self.world).join(path)
    }

    async fn verify(&self, repair: bool) -> Verified {
        let clock: SharedClock = self.world.clock.clone();
        let asked = Verify { repair, ..Verify::default() };
        run::verify(self.world.job(), asked, clock).await.unwrap()
    }

    fn unlike_truth(&self) -> Option<String> {
        difference(&self.world.rows(), &self.truth)
    }
}

fn lake_of(world: &World) -> PathBuf {
    world.folder.path().join("lake")
}

/// Copies a folder; what is one file under several names is so in the copy.
fn copy(from: &Path, to: &Path) {
    let mut seen: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            let (here, there) = (entry.path(), to.join(entry.file_name()));
            let found = entry.metadata().unwrap();
            if found.is_dir() {
                folders.push((here, there));
            } else if found.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&here).unwrap(), &there).unwrap();
            } else if let Some(known) = seen.get(&found.ino()) {
                fs::hard_link(known, &there).unwrap();
            } else {
                fs::copy(&here, &there).unwrap();
                seen.insert(found.ino(), there);
            }
        }
    }
}

/// All files of a lake, relative to it, sorted.
fn files(lake: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![lake.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                files.push(path.strip_prefix(lake).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn flip(at: &Path, bit: u64) {
    let mut bytes = fs::read(at).unwrap();
    let bit = bit as usize % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    // In place: other names of the file share the damage.
    fs::write(at, bytes).unwrap();
}

/// Flips a bit of the end of a part, which says where its columns lie.
fn flip_end(at: &Path) {
    flip(at, fs::metadata(at).unwrap().len() * 8 - 900);
}

fn cut(at: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(at).unwrap().set_len(length).unwrap();
}

/// The first or last file below a folder.
fn pick(nights: &Nights, folder: &str, last: bool) -> PathBuf {
    let mut found = files(&lake_of(&nights.world));
    found.retain(|path| path.starts_with(&format!("{folder}/")));
    let path = if last { found.last() } else { found.first() };
    nights.at(path.unwrap_or_else(|| panic!("there is nothing in {folder}")))
}

/// A part or CSV file of the newest commit.
fn living(nights: &Nights, csv: bool) -> PathBuf {
    let head = nights.world.head();
    let part = head.sources.values().next().unwrap().parts.last().unwrap();
    let path = if csv { &part.csv.as_ref().unwrap().path } else { &part.file.path };
    nights.at(path)
}

fn ledger(nights: &Nights) -> String {
    let mut found = files(&lake_of(&nights.world));
    found.retain(|path| path.starts_with("state/ledger/") && path.ends_with(".json"));
    found.remove(0)
}

fn kinds(verified: &Verified) -> Vec<Kind> {
    verified.findings.iter().map(|finding| finding.kind).collect()
}

/// Repairs and syncs until the lake is sound and whole; returns what is wrong.
async fn recover(nights: &Nights) -> Result<(), String> {
    let repaired = nights.verify(true).await;
    if !repaired.is_sound {
        return Err(format!("not sound after the repair: {:#?}", repaired.findings));
    }
    let is_left_to_the_sync = repaired.repairs.iter().any(|repaired| {
        ["withdrawn", "the next sync"].iter().any(|how| repaired.how.contains(how))
    });
    if let Some(what) = nights.unlike_truth().filter(|_| !is_left_to_the_sync) {
        return Err(format!("{what}, right after {:#?}", repaired.repairs));
    }
    // A ledger that was lost lets nothing be sent for a day.
    nights.world.pass(TimeDelta::hours(25));
    let synced = nights.world.try_sync(Options::default()).await;
    let synced = synced.map_err(|error| format!("{error}, after {:#?}", repaired.repairs))?;
    if synced.exit_code() != 0 {
        return Err(format!("{synced:#?}"));
    }
    if let Some(what) = nights.unlike_truth() {
        return Err(format!("{what}, after {:#?}", repaired.repairs));
    }
    let verified = nights.verify(false).await;
    match verified.is_sound {
        true => Ok(()),
        false => Err(format!("not sound after the sync: {:#?}", verified.findings)),
    }
}
