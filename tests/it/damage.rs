//! Damaged lakes: what `verify` finds, what a run does that meets the damage, what a repair mends, and
//! that nothing is lost or doubled after it.
//!
//! `LEADPIPE_DAMAGES` sets how many random files are damaged, `LEADPIPE_DEATHS` how many repairs die.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use chrono::TimeDelta;
use leadpipe::archive;
use leadpipe::checkpoint::OpenWalk;
use leadpipe::clock::SharedClock;
use leadpipe::error::Hint;
use leadpipe::ids::RunId;
use leadpipe::ids::WalkId;
use leadpipe::record::PageHeader;
use leadpipe::record::RawPage;
use leadpipe::run;
use leadpipe::run::Kind;
use leadpipe::run::Options;
use leadpipe::run::Verified;
use leadpipe::run::Verify;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Settings;

use crate::support::Rows;
use crate::support::World;
use crate::support::acme;
use crate::support::difference;
use crate::support::number_from;
use crate::support::process::Draw;
use crate::support::process::start;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
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

/// What a run does that meets the damage.
#[derive(Clone, Copy, PartialEq)]
enum Run {
    /// It goes on to the right rows.
    GoesOn,
    /// It stops with an error whose hint holds this.
    Stops(&'static str),
}

struct Case {
    name: &'static str,
    damage: fn(&Nights),
    found: Kind,
    run: Run,
}

const REPAIR: Run = Run::Stops("verify JOB");

const CASES: &[Case] = &[
    Case {
        name: "a flipped bit in a living part that a run neither compares by nor writes anew",
        damage: |nights| flip(&living(nights, false), 4_001),
        found: Kind::PartDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "a flipped bit in a living part where a run reads it",
        damage: |nights| flip_end(&living(nights, false)),
        found: Kind::PartDamaged,
        run: REPAIR,
    },
    Case {
        name: "a living part cut short",
        damage: |nights| cut(&living(nights, false), 1_000),
        found: Kind::PartDamaged,
        run: REPAIR,
    },
    Case {
        name: "a deleted part of which a snapshot has a second name",
        damage: |nights| fs::remove_file(living(nights, false)).unwrap(),
        found: Kind::PartMissing,
        run: REPAIR,
    },
    Case {
        name: "a deleted part under all its names",
        damage: |nights| {
            fs::remove_dir_all(nights.at("snapshots")).unwrap();
            fs::remove_file(living(nights, false)).unwrap();
        },
        found: Kind::PartMissing,
        run: REPAIR,
    },
    Case {
        name: "a damaged part, and no changes to make it from",
        damage: |nights| {
            flip_end(&living(nights, false));
            fs::remove_dir_all(nights.at("changes")).unwrap();
        },
        found: Kind::PartDamaged,
        run: REPAIR,
    },
    Case {
        name: "a damaged part, and nothing to make it from",
        damage: |nights| {
            flip_end(&living(nights, false));
            fs::remove_dir_all(nights.at("changes")).unwrap();
            fs::remove_dir_all(nights.at("archive")).unwrap();
        },
        found: Kind::PartDamaged,
        run: REPAIR,
    },
    Case {
        name: "a part of an older snapshot",
        damage: |nights| {
            let oldest = nights.world.store();
            let first = leadpipe::commit::read(&oldest, leadpipe::ids::Seq(1)).unwrap();
            let head = nights.world.head();
            let is_old = |path: &&str| head.part_paths().all(|living| living != *path);
            flip(&nights.at(first.part_paths().find(is_old).unwrap()), 77);
        },
        found: Kind::PartDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "a flipped bit in a CSV file",
        damage: |nights| flip(&living(nights, true), 900),
        found: Kind::CsvDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "a deleted CSV file under all its names",
        damage: |nights| {
            fs::remove_dir_all(nights.at("snapshots")).unwrap();
            fs::remove_file(living(nights, true)).unwrap();
        },
        found: Kind::CsvMissing,
        run: REPAIR,
    },
    Case {
        name: "a flipped bit in a change file",
        damage: |nights| flip(&pick(nights, "changes", true), 900),
        found: Kind::ChangesDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "a deleted change file",
        damage: |nights| fs::remove_file(pick(nights, "changes", false)).unwrap(),
        found: Kind::ChangesMissing,
        run: Run::GoesOn,
    },
    Case {
        name: "the newest commit with a flipped bit",
        damage: |nights| flip(&pick(nights, "commits", true), 8_003),
        found: Kind::CommitDamaged,
        run: REPAIR,
    },
    Case {
        name: "the newest commit deleted",
        damage: |nights| fs::remove_file(pick(nights, "commits", true)).unwrap(),
        found: Kind::NewestCommitMissing,
        run: REPAIR,
    },
    Case {
        name: "all commits deleted",
        damage: |nights| fs::remove_dir_all(nights.at("commits")).unwrap(),
        found: Kind::NewestCommitMissing,
        run: REPAIR,
    },
    Case {
        name: "all commits deleted, and what readers see of the newest",
        damage: |nights| {
            fs::remove_dir_all(nights.at("commits")).unwrap();
            fs::remove_file(nights.at("latest")).unwrap();
            fs::remove_file(nights.at("checkpoint.json")).unwrap();
        },
        found: Kind::NewestCommitMissing,
        run: REPAIR,
    },
    Case {
        name: "an older commit with a flipped bit",
        damage: |nights| flip(&pick(nights, "commits", false), 8_003),
        found: Kind::CommitDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "an older commit deleted",
        damage: |nights| fs::remove_file(nights.at("commits/000000002.json")).unwrap(),
        found: Kind::CommitMissing,
        run: Run::GoesOn,
    },
    Case {
        name: "a segment that is cut short",
        damage: |nights| cut(&pick(nights, "archive", false), 3_000),
        found: Kind::SegmentDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "a segment with a flipped bit",
        damage: |nights| flip(&pick(nights, "archive", false), 8 * 3_000),
        found: Kind::SegmentDamaged,
        run: Run::GoesOn,
    },
    Case {
        name: "a deleted segment",
        damage: |nights| fs::remove_file(pick(nights, "archive", false)).unwrap(),
        found: Kind::SegmentMissing,
        run: Run::GoesOn,
    },
    Case {
        name: "a snapshot folder that is gone",
        damage: |nights| fs::remove_dir_all(nights.at("snapshots")).unwrap(),
        found: Kind::SnapshotDiffers,
        run: Run::GoesOn,
    },
    Case {
        name: "a link that points elsewhere",
        damage: |nights| nights.world.store().point("latest", "snapshots/000000001").unwrap(),
        found: Kind::DerivedDiffers,
        run: Run::GoesOn,
    },
    Case {
        name: "a flipped bit in the copy of the checkpoint",
        damage: |nights| flip(&nights.at("checkpoint.json"), 8 * 13 + 2),
        found: Kind::DerivedDiffers,
        run: Run::GoesOn,
    },
    Case {
        name: "a flipped bit in the ledger",
        damage: |nights| flip(&nights.at(&ledger(nights)), 301),
        found: Kind::LedgerDamaged,
        run: REPAIR,
    },
    Case {
        name: "a flipped bit in the record of a run",
        damage: |nights| flip(&pick(nights, "state/runs", false), 805),
        found: Kind::RunDamaged,
        run: Run::GoesOn,
    },
];

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

async fn try_case(nights: &Nights, case: &Case) -> Result<(), String> {
    nights.restore();
    let parts = parts_of(nights);
    (case.damage)(nights);
    let before = files(&lake_of(&nights.world));
    let verified = nights.verify(false).await;
    if verified.is_sound || !kinds(&verified).contains(&case.found) {
        return Err(format!("found only {:#?}", verified.findings));
    }
    if files(&lake_of(&nights.world)) != before {
        return Err("looking has changed the lake".to_owned());
    }
    match (nights.world.try_sync(Options::default()).await, case.run) {
        (Ok(summary), Run::Stops(hint)) => {
            let told = acme(&summary).hint.clone().unwrap_or_default();
            if !told.contains(hint) {
                return Err(format!("a sync went on, with the hint `{told}`"));
            }
        }
        (Ok(_), Run::GoesOn) => {
            if let Some(what) = nights.unlike_truth() {
                return Err(format!("a sync gave other rows: {what}"));
            }
        }
        (Err(error), Run::Stops(hint)) => {
            let told = error.hint().unwrap_or_default();
            if !told.contains(hint) {
                return Err(format!("{error} has the hint `{told}`"));
            }
        }
        (Err(error), Run::GoesOn) => return Err(format!("a sync stopped: {}", run::chain(&error))),
    }
    if matches!(case.run, Run::Stops(_)) {
        let left: Vec<String> = parts_of(nights).into_keys().collect();
        let held = before.iter().filter(|path| path.starts_with("parts/"));
        if left.iter().ne(held)
            || parts_of(nights).iter().any(|(path, hash)| {
                !verified.findings.iter().any(|finding| finding.path == *path)
                    && parts[path] != *hash
            })
        {
            return Err("a sync that stopped has changed parts".to_owned());
        }
    }
    nights.restore();
    (case.damage)(nights);
    recover(nights).await
}

/// The hashes of all files of parts.
fn parts_of(nights: &Nights) -> BTreeMap<String, u64> {
    let mut parts = files(&lake_of(&nights.world));
    parts.retain(|path| path.starts_with("parts/"));
    let hash = |path: &String| {
        leadpipe::record::id_hash(&format!("{:?}", fs::read(nights.at(path)).unwrap()))
    };
    parts.into_iter().map(|path| (path.clone(), hash(&path))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_found_and_answered_and_after_a_repair_nothing_is_lost() {
    let nights = Nights::new().await;
    let sound = nights.verify(false).await;
    assert_eq!((sound.is_sound, sound.findings.len()), (true, 0), "{sound:#?}");
    let mut wrong = Vec::new();
    for case in CASES {
        if let Err(what) = try_case(&nights, case).await {
            wrong.push(format!("{}: {what}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What of a lake a file is, for the table.
fn class(path: &str) -> &str {
    match path.strip_prefix("state/") {
        Some(below) => below.split('/').next().unwrap_or(below),
        None => path.split('/').next().unwrap_or(path),
    }
}

/// Tells whether the loss of a file is no damage: history, marks that are made anew, a count of more than
/// a day ago, pages that nothing needs. What comes of a flipped bit or a cut that nobody notices is looked
/// at all the same.
fn may_go_unnoticed(path: &str, what: &str) -> bool {
    match what {
        "deleted" => ["state/runs", "state/ended.json", "state/ledger", "archive/"]
            .iter()
            .any(|kind| path.starts_with(kind)),
        // The last line break, a hex digit in upper case, or the name of the seal, which only makes a file
        // one without a seal; in the header of a frame of the archive a bit that nobody reads.
        "flipped" => path.ends_with(".json") || path == "state/key" || path.starts_with("archive/"),
        _ => path.ends_with(".json"),
    }
}

/// Damages a file, and says how.
fn damage(at: &Path, draw: &mut Draw) -> &'static str {
    let length = fs::metadata(at).unwrap().len();
    match draw.below(4) {
        0 => {
            fs::remove_file(at).unwrap();
            "deleted"
        }
        1 if length > 0 => {
            cut(at, draw.below(length));
            "cut short"
        }
        _ => {
            flip(at, draw.below(length.max(1) * 8));
            "flipped"
        }
    }
}

#[derive(Default)]
struct Tried {
    tried: u64,
    found: u64,
    repaired: u64,
    harmless: u64,
}

async fn try_random(nights: &Nights, draw: &mut Draw, table: &mut BTreeMap<String, Tried>) {
    nights.restore();
    let mut all = files(&lake_of(&nights.world));
    all.retain(|path| !path.ends_with("lock"));
    // Each kind of file as often as any other, however many there are of it.
    let mut classes: Vec<&str> = all.iter().map(|path| class(path)).collect();
    classes.sort_unstable();
    classes.dedup();
    let wanted = classes[draw.below(classes.len() as u64) as usize].to_owned();
    let of_class: Vec<&String> = all.iter().filter(|path| class(path) == wanted).collect();
    let path = of_class[draw.below(of_class.len() as u64) as usize].clone();
    let before = fs::read(nights.at(&path)).unwrap();
    let what = damage(&nights.at(&path), draw);
    let tried = table.entry(wanted).or_default();
    tried.tried += 1;
    let verified = nights.verify(false).await;
    let is_found = !verified.findings.is_empty();
    tried.found += u64::from(is_found);
    if path == "state/key" && is_found {
        assert!(!nights.verify(true).await.is_sound, "a key cannot be made again");
        fs::write(nights.at(&path), before).unwrap();
    }
    if !is_found {
        assert!(may_go_unnoticed(&path, what), "{path} {what}, which nobody noticed");
        tried.harmless += 1;
    }
    let recovered = recover(nights).await;
    assert_eq!(recovered, Ok(()), "{path} {what}");
    // A key comes from the backup.
    tried.repaired += u64::from(is_found && path != "state/key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_damage_is_found_or_does_no_harm_and_a_repair_mends_it() {
    let damages = number_from("LEADPIPE_DAMAGES", 6);
    let seed = number_from("LEADPIPE_DAMAGES_SEED", 11);
    let nights = Nights::new().await;
    let (mut draw, mut table) = (Draw(seed), BTreeMap::new());
    for _ in 0..damages {
        try_random(&nights, &mut draw, &mut table).await;
    }
    say(&table);
    assert_eq!(table.values().map(|tried| tried.tried).sum::<u64>(), damages);
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn say(table: &BTreeMap<String, Tried>) {
    println!("{:<16} {:>6} {:>6} {:>8} {:>8}", "kind", "tried", "found", "repaired", "harmless");
    for (class, Tried { tried, found, repaired, harmless }) in table {
        println!("{class:<16} {tried:>6} {found:>6} {repaired:>8} {harmless:>8}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_lost_lets_nothing_be_sent_until_all_that_was_sent_has_lapsed() {
    let nights = Nights::new().await;
    let at = nights.at(&ledger(&nights));
    let damages: [fn(&Path); 2] = [|at| fs::remove_file(at).unwrap(), |at| flip(at, 301)];
    for (damage, kind) in damages.into_iter().zip([Kind::LedgerMissing, Kind::LedgerDamaged]) {
        assert_eq!(nights.world.sync().await.exit_code(), 0);
        damage(&at);
        assert_eq!(kinds(&nights.verify(false).await), [kind]);
        assert!(nights.verify(true).await.is_sound);
        nights.world.sandbox.clear_requests();
        nights.world.pass(TimeDelta::hours(20));
        let blocked = nights.world.sync().await;
        assert_eq!(blocked.exit_code(), 8, "{blocked:#?}");
        assert_eq!(nights.world.sandbox.requests().len(), 0);
        nights.world.pass(TimeDelta::hours(5));
        assert_eq!(nights.world.sync().await.exit_code(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_behind_a_torn_segment_of_an_open_walk_are_loaded() {
    let settings = Settings { leads: 150, profiles: 1, accounts: 1, still: true, ..small() };
    let mut world = World::new(settings).await;
    world.job = small_job("").replace("page_size = 50", "page_size = 1");
    let some = || Options { max_requests: Some(60), ..Options::default() };
    world.sync_with(some()).await;
    let head = world.head();
    world.sync_with(some()).await;
    // As if the second run had died before its commit: its pages are held and not loaded.
    world.lose_commits_after(head.seq);
    let open = &head.checkpoint.sources.values().next().unwrap().open_walks;
    assert!(open.iter().any(|open| open.loaded_pages > 10), "{open:#?}");
    let lake = lake_of(&world);
    for path in files(&lake).iter().filter(|path| path.ends_with("-0.jsonl.zst")) {
        let length = fs::metadata(lake.join(path)).unwrap().len();
        cut(&lake.join(path), length / 2);
    }
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

/// A world of one profile whose pages have a row each.
async fn row_by_row() -> World {
    let settings =
        Settings { leads: 60, years: 1, profiles: 1, accounts: 1, still: true, ..small() };
    let mut world = World::new(settings).await;
    let job = small_job("").replace("2023-10-01", "2025-10-20");
    world.job = job.replace("page_size = 50", "page_size = 1");
    world
}

fn at_most(requests: u64) -> Options {
    Options { max_requests: Some(requests), ..Options::default() }
}

/// Returns the walk that the newest commit lists as open, of which pages are loaded.
fn open_walk(world: &World) -> OpenWalk {
    let sources = world.head().checkpoint.sources;
    let mut open = sources.into_values().flat_map(|source| source.open_walks);
    open.find(|open| open.loaded_pages > 0).unwrap()
}

fn segments_of(world: &World, walk: &WalkId) -> Vec<PathBuf> {
    let segments = archive::segments(&world.store(), &"acme".parse().unwrap()).unwrap();
    let ours = segments.iter().filter(|segment| segment.walk == *walk);
    ours.map(|segment| world.store().path(&segment.path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_was_closed_is_not_believed_where_pages_of_it_are_lost() {
    for is_gone in [true, false] {
        let world = row_by_row().await;
        world.sync_with(at_most(6)).await;
        let head = world.head().seq;
        let walk = open_walk(&world).walk.id;
        world.sync_with(at_most(20)).await;
        world.sync().await;
        // As if both had died before they could commit.
        world.lose_commits_after(head);
        let segments = segments_of(&world, &walk);
        assert_eq!(segments.len(), 3);
        match is_gone {
            true => fs::remove_file(&segments[1]).unwrap(),
            false => cut(&segments[1], fs::metadata(&segments[1]).unwrap().len() / 2),
        }
        assert_eq!(world.sync().await.exit_code(), 0);
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_is_not_loaded_again_for_a_tear_in_the_middle_of_its_walk() {
    for lost in [0, 1] {
        let world = row_by_row().await;
        world.sync_with(at_most(8)).await;
        let open = open_walk(&world);
        let segment = segments_of(&world, &open.walk.id).remove(0);
        let whole = fs::read(&segment).unwrap();
        // Half of a record that never came to be held.
        fs::write(&segment, [&whole[..], &whole[..40]].concat()).unwrap();
        world.sync_with(at_most(5)).await;
        assert!(open_walk(&world).loaded_pages > open.loaded_pages);
        if lost > 0 {
            cut(&segment, whole.len() as u64 - 10);
        }
        for more in [5, 1_000] {
            let summary = world.sync_with(at_most(more)).await;
            assert_eq!(acme(&summary).pages_from_archive, 0, "{lost} lost: {summary:#?}");
        }
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_page_that_cannot_be_read_is_asked_for_again() {
    let world = row_by_row().await;
    world.sync_with(at_most(8)).await;
    let OpenWalk { walk, loaded_pages, .. } = open_walk(&world);
    let writer = archive::Writer::start(world.store(), RunId::new(world.clock_now()));
    writer.open(&walk, 1, loaded_pages).await.unwrap();
    for page in [1, 30] {
        let received_at = world.clock_now();
        let request = String::new();
        let header = PageHeader { page, size: 1, round: 5, request, status: 200, received_at };
        let body = "{\"leads\": 7}".into();
        writer
            .page(
                &walk.id,
                RawPage { header, body, stated_rows: None, is_json: false, places: None },
            )
            .await
            .unwrap();
    }
    drop(writer);
    let summary = world.sync_with(at_most(5)).await;
    assert_eq!(acme(&summary).pages_from_archive, 0, "{summary:#?}");
    let after = open_walk(&world);
    assert_eq!(after.loaded_pages, loaded_pages + 2 + acme(&summary).pages);
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), acme(&summary).pages_from_archive), (0, 0), "{summary:#?}");
    world.assert_whole().await;
}

async fn compared(world: &World, most: u64) -> Verified {
    let clock: SharedClock = world.clock.clone();
    let asked = Verify { remote: Some(most), ..Verify::default() };
    run::verify(world.job(), asked, clock).await.unwrap()
}

fn verdicts(verified: &Verified) -> BTreeMap<String, usize> {
    let mut verdicts = BTreeMap::new();
    for totals in &verified.totals {
        *verdicts.entry(format!("{:?}", totals.verdict)).or_default() += 1;
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_compared_for_a_request_a_span_and_a_difference_is_told() {
    let mut world = World::new(Settings { leads: 90, still: true, ..small() }).await;
    world.job = small_job("");
    world.sync().await;
    world.sandbox.clear_requests();
    let verified = compared(&world, 20).await;
    assert!(verified.is_sound, "{verified:#?}");
    let spans = verified.totals.len();
    assert_eq!(verdicts(&verified), BTreeMap::from([("Agreed".to_owned(), spans)]));
    assert_eq!(world.sandbox.requests().len(), spans);
    assert_eq!(
        verified.totals.iter().map(|totals| totals.held).sum::<u64>(),
        verified.checked.rows
    );

    let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
    world.sandbox.edit(lead, Edit::Vanish).unwrap();
    let verified = compared(&world, 20).await;
    assert!(!verified.is_sound && verified.findings.is_empty());
    assert_eq!(verdicts(&verified)["Differs"], 1, "{verified:#?}");

    world.sandbox.clear_requests();
    let verified = compared(&world, 2).await;
    assert_eq!(verdicts(&verified)["NotChecked"], spans - 2);
    assert_eq!(world.sandbox.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_without_totals_is_not_asked() {
    let settings = Settings { whautomate_accounts: 1, contacts: 30, leads: 0, ..small() };
    let mut world = World::new(settings).await;
    world.job = format!("{HEAD}{CLINIC}");
    world.sync().await;
    world.sandbox.clear_requests();
    let verified = compared(&world, 20).await;
    assert!(verified.is_sound, "{verified:#?}");
    assert_eq!(verdicts(&verified), BTreeMap::from([("NotStated".to_owned(), 1)]));
    assert_eq!(world.sandbox.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_a_later_version_is_told_and_left_alone() {
    let nights = Nights::new().await;
    let at = pick(&nights, "commits", true);
    fs::write(&at, br#"{"version":"2","seq":"a form not known yet"}"#).unwrap();
    let before = files(&lake_of(&nights.world));
    let verified = nights.verify(false).await;
    assert!(kinds(&verified).contains(&Kind::CommitNewer), "{verified:#?}");
    let clock: SharedClock = nights.world.clock.clone();
    let asked = Verify { repair: true, ..Verify::default() };
    let refused = run::verify(nights.world.job(), asked, clock).await.unwrap_err();
    assert!(refused.hint().unwrap().contains("newer leadpipe"), "{refused}");
    let mut after = files(&lake_of(&nights.world));
    after.retain(|path| !path.starts_with("state/runs"));
    assert!(after.iter().all(|path| before.contains(path)));
    let error = nights.world.try_sync(Options::default()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("newer leadpipe"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_takes_the_whole_snapshot_where_a_repair_has_cut_the_changes() {
    use leadpipe::commit::FilesAnswer;
    use leadpipe::commit::files as listed;
    use leadpipe::ids::Seq;
    let nights = Nights::new().await;
    fs::remove_file(nights.at(&nights.changes_of(2))).unwrap();
    assert!(nights.verify(true).await.is_sound);
    let store = nights.world.store();
    let answer = |since| listed(&store, Some(Seq(since))).unwrap();
    assert!(matches!(answer(1), FilesAnswer::Snapshot { too_old: Some(Seq(1)), .. }));
    assert!(matches!(answer(2), FilesAnswer::Changes { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_lost_is_never_made_anew() {
    let nights = Nights::new().await;
    let at = nights.at("state/key");
    let key = fs::read(&at).unwrap();
    let damages: [fn(&Path); 2] = [|at| fs::remove_file(at).unwrap(), |at| flip(at, 1)];
    for (damage, kind) in damages.into_iter().zip([Kind::KeyMissing, Kind::KeyDiffers]) {
        damage(&at);
        assert_eq!(kinds(&nights.verify(false).await), [kind]);
        assert_eq!(kinds(&nights.verify(true).await), [kind]);
        let error = nights.world.try_sync(Options::default()).await.unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("key")), "{error}");
        fs::write(&at, &key).unwrap();
        assert!(nights.verify(false).await.is_sound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_and_one_of_its_change_files_that_are_lost_leave_no_older_version_behind() {
    let nights = Nights::new().await;
    let newest = nights.world.head().seq;
    for seq in 1..=newest.0 {
        nights.restore();
        let changes = nights.at(&nights.changes_of(seq));
        flip(&living(&nights, false), 4_001);
        flip(&changes, 900);
        assert_eq!(recover(&nights).await, Ok(()), "changes of commit {seq}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_changes_while_it_is_looked_at_is_sound() {
    let mut world = World::new(Settings { leads: 90, still: true, ..small() }).await;
    let keep = "[keep]\nsnapshots = 1\nsnapshot_age = \"0s\"\nchanges = \"1h\"\n";
    world.job = small_job(keep);
    world.sync().await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let nights = async {
        for night in 0..4_usize {
            let lead = world.sandbox.lead_ids()[80 - night].1;
            let name = serde_json::json!({ "contact_name": format!("Night {night}") });
            world.sandbox.edit(lead, Edit::Set(name.as_object().unwrap().clone())).unwrap();
            world.pass(TimeDelta::days(8));
            assert_eq!(world.sync().await.exit_code(), 0);
        }
        done.store(true, order);
    };
    let looks = async {
        let mut looks = 0;
        while !done.load(order) {
            let clock: SharedClock = world.clock.clone();
            let verified = run::verify(world.job(), Verify::default(), clock).await.unwrap();
            assert!(verified.is_sound, "{verified:#?}");
            looks += 1;
        }
        looks
    };
    let ((), looks) = tokio::join!(nights, looks);
    assert!(looks > 1, "nothing was looked at meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_provider_that_nothing_else_holds_are_read_again() {
    let settings = Settings {
        leads: 30,
        whautomate_accounts: 1,
        contacts: 30,
        convertalk_bots: 1,
        chats: 20,
        still: true,
        ..small()
    };
    let world = World::three(settings).await;
    world.sync().await;
    world.pass(TimeDelta::days(1));
    world.sync().await;
    let (before, head) = (world.rows(), world.head());
    let lake = lake_of(&world);
    for source in head.sources.values() {
        flip(&lake.join(&source.parts[0].file.path), 4_001);
    }
    fs::remove_dir_all(lake.join("changes")).unwrap();
    fs::remove_dir_all(lake.join("archive")).unwrap();
    let clock: SharedClock = world.clock.clone();
    let asked = Verify { repair: true, ..Verify::default() };
    let repaired = run::verify(world.job(), asked, clock).await.unwrap();
    assert!(repaired.is_sound, "{repaired:#?}");
    assert!(world.rows().len() < before.len());
    world.sync().await;
    assert_eq!(difference(&world.rows(), &before), None, "{:#?}", repaired.repairs);
}

/// Damages all parts of a lake, so that no older commit holds a whole one.
fn flip_all_parts(nights: &Nights) {
    for path in files(&lake_of(&nights.world)) {
        if path.starts_with("parts/") {
            flip(&nights.at(&path), 4_001);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_need_the_key_or_another_job_stay_as_they_are_and_the_way_out_is_told() {
    let mut nights = Nights::new().await;
    let job = nights.world.job.clone();
    let other_source = job.replace("\"acme\"", "\"other\"");
    assert_ne!(other_source, job);
    for (other, way_out) in [(job.clone(), "key"), (other_source, "source `acme`")] {
        nights.restore();
        let (part, key) = (living(&nights, false), nights.at("state/key"));
        flip_all_parts(&nights);
        fs::remove_dir_all(nights.at("changes")).unwrap();
        let (damaged, secret) = (fs::read(&part).unwrap(), fs::read(&key).unwrap());
        if other == job {
            fs::remove_file(&key).unwrap();
        }
        nights.world.job = other;
        for _ in 0..2 {
            let repaired = nights.verify(true).await;
            assert!(!repaired.is_sound, "{repaired:#?}");
            let told: Vec<&run::Finding> =
                repaired.findings.iter().filter(|found| found.kind == Kind::PartDamaged).collect();
            assert!(!told.is_empty(), "{repaired:#?}");
            assert!(told.iter().all(|found| found.way_out.contains(way_out)), "{told:#?}");
            assert_eq!(living(&nights, false), part, "{repaired:#?}");
            assert_eq!(fs::read(&part).unwrap(), damaged);
        }
        nights.world.job = job.clone();
        fs::write(&key, secret).unwrap();
        assert_eq!(recover(&nights).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_part_of_an_older_commit_and_the_changes_since_prove_a_part() {
    let nights = Nights::new().await;
    fs::remove_file(nights.at(&nights.changes_of(1))).unwrap();
    fs::remove_dir_all(nights.at("archive")).unwrap();
    flip(&living(&nights, false), 4_001);
    let before = files(&lake_of(&nights.world));
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert_eq!(nights.unlike_truth(), None, "{repaired:#?}");
    assert!(
        repaired.repairs.iter().all(|done| !done.how.contains("the next sync")),
        "{repaired:#?}"
    );
    // Whole parts that are not shown any more are set aside, never removed.
    let after = files(&lake_of(&nights.world));
    for part in before.iter().filter(|path| path.starts_with("parts/")) {
        assert!(after.iter().any(|path| path.ends_with(part.as_str())), "{part} is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_snapshots_up_to_a_damaged_part_end() {
    let nights = Nights::new().await;
    let head = nights.world.head();
    let store = nights.world.store();
    let second = leadpipe::commit::read(&store, leadpipe::ids::Seq(2)).unwrap();
    let third = leadpipe::commit::read(&store, leadpipe::ids::Seq(3)).unwrap();
    let is_own = |path: &&str| third.part_paths().all(|later| later != *path);
    flip(&nights.at(second.part_paths().find(is_own).unwrap()), 77);
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert_eq!(leadpipe::commit::ended(&store).unwrap(), second.seq);
    assert_eq!(nights.world.head(), head);
    assert!(third.part_paths().all(|path| store.exists(path).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_only_the_archive_knows_are_not_published_where_there_are_too_many() {
    let nights = Nights::new().await;
    flip_all_parts(&nights);
    fs::remove_dir_all(nights.at("changes")).unwrap();
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert!(repaired.repairs.iter().any(|done| done.how.contains("left out")), "{repaired:#?}");
    let ghosts: Vec<String> =
        nights.world.rows().into_keys().filter(|key| !nights.truth.contains_key(key)).collect();
    assert_eq!(ghosts, Vec::<String>::new());
    nights.world.sync().await;
    assert_eq!(nights.unlike_truth(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_sync_reads_again_are_told_until_a_backfill_has() {
    let mut nights = Nights::new().await;
    flip_all_parts(&nights);
    fs::remove_dir_all(nights.at("changes")).unwrap();
    fs::remove_dir_all(nights.at("archive")).unwrap();
    nights.world.job = nights.world.job.replace("2023-10-01", "2025-10-01");
    nights.verify(true).await;
    let verified = nights.verify(false).await;
    assert!(verified.is_sound, "{verified:#?}");
    let mut told = verified.findings.iter().filter(|found| found.kind == Kind::KnownLoss);
    assert!(told.any(|found| found.way_out.contains("backfill JOB --from")), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_file_before_a_cut_hinders_no_later_repair() {
    let nights = Nights::new().await;
    fs::remove_file(nights.at(&nights.changes_of(2))).unwrap();
    assert!(nights.verify(true).await.is_sound);
    flip(&nights.at(&nights.changes_of(1)), 900);
    assert!(nights.verify(false).await.is_sound, "nobody needs it");
    flip(&living(&nights, false), 4_001);
    assert_eq!(recover(&nights).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_missing_after_a_run_that_failed_is_noticed() {
    let nights = Nights::new().await;
    nights.world.pass(TimeDelta::hours(25));
    let (part, at) = (living(&nights, false), nights.at(&ledger(&nights)));
    let whole = fs::read(&part).unwrap();
    fs::remove_file(&at).unwrap();
    assert_eq!(kinds(&nights.verify(false).await), []);
    cut(&part, 1_000);
    nights.world.try_sync(Options::default()).await.unwrap_err();
    fs::write(&part, whole).unwrap();
    assert_eq!(kinds(&nights.verify(false).await), [Kind::LedgerMissing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_makes_may_be_read_by_whom_the_job_says() {
    use std::os::unix::fs::PermissionsExt;
    let settings = Settings { leads: 40, still: true, ..small() };
    let mut world = World::new(settings).await;
    world.job = small_job("[load]\nreadable_by = \"group\"\n");
    world.sync().await;
    let mode =
        |path: &str| fs::metadata(lake_of(&world).join(path)).unwrap().permissions().mode() & 0o777;
    let part = world.head().part_paths().next().unwrap().to_owned();
    let before = mode(&part);
    assert_eq!(before & 0o040, 0o040);
    fs::remove_dir_all(lake_of(&world).join("snapshots")).unwrap();
    flip(&lake_of(&world).join(&part), 4_001);
    let clock: SharedClock = world.clock.clone();
    let asked = Verify { repair: true, ..Verify::default() };
    assert!(run::verify(world.job(), asked, clock).await.unwrap().is_sound);
    let head = world.head();
    for path in head.part_paths() {
        assert_eq!(mode(path), before, "{path}");
    }
    assert_eq!(mode(&format!("commits/{}.json", head.seq)) & 0o040, 0o040);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_and_a_repair_that_are_asked_to_stop_do_and_change_nothing() {
    let nights = Nights::new().await;
    flip(&living(&nights, false), 4_001);
    let before = files(&lake_of(&nights.world));
    for repair in [false, true] {
        let asked = Verify { repair, ..Verify::default() };
        asked.stop.request(run::Ending::Terminated);
        let clock: SharedClock = nights.world.clock.clone();
        let stopped = run::verify(nights.world.job(), asked, clock).await.unwrap_err();
        assert!(matches!(stopped, run::Error::Stopped(run::Ending::Terminated)), "{stopped}");
    }
    let mut after = files(&lake_of(&nights.world));
    after.retain(|path| !path.starts_with("state/runs") && !path.ends_with("lock"));
    assert!(after.iter().all(|path| before.contains(path)), "{after:#?}");
    assert_eq!(recover(&nights).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_other_rows_than_its_commit_says_is_mended_once() {
    let nights = Nights::new().await;
    let mut head = nights.world.head();
    let source = head.sources.values_mut().next().unwrap();
    source.parts.last_mut().unwrap().last_lead_id.push('z');
    fs::remove_file(nights.at(&format!("commits/{}.json", head.seq))).unwrap();
    leadpipe::commit::write(&nights.world.store(), &head).unwrap();
    let found = kinds(&nights.verify(false).await);
    assert!(found.contains(&Kind::PartContradiction), "{found:?}");
    let repaired = nights.verify(true).await;
    assert!(repaired.is_sound, "{repaired:#?}");
    assert_eq!(nights.verify(true).await.repairs, []);
    nights.world.sync().await;
    assert_eq!(nights.unlike_truth(), None);
}

/// Repairs with the program in a process of its own, at the time of the world's clock; returns whether it
/// ended by itself.
fn repair_apart(nights: &Nights, plan: &str) -> bool {
    let folder = nights.world.folder.path();
    let job = folder.join("job.toml");
    fs::write(&job, &nights.world.job).unwrap();
    let clock: SharedClock = nights.world.clock.clone();
    let system = leadpipe::clock::SystemClock::default();
    let ahead = clock.now() - leadpipe::clock::Clock::now(&system);
    let (points, told) =
        ([("LEADPIPE_POINTS", plan)], fs::File::create(folder.join("told")).unwrap());
    let mut running = start("verify", &job, &["--repair"], ahead, &points, told.into());
    running.0.wait().unwrap().code().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_dies_anywhere_is_followed_by_one_that_ends_sound() {
    let nights = Nights::new().await;
    let deaths = number_from("LEADPIPE_DEATHS", 5);
    let mut draw = Draw(number_from("LEADPIPE_DAMAGES_SEED", 11));
    let damage = |nights: &Nights| {
        nights.restore();
        flip(&living(nights, false), 4_001);
        flip(&living(nights, true), 900);
        fs::remove_file(nights.at(&nights.changes_of(2))).unwrap();
        flip(&pick(nights, "archive", false), 8 * 3_000);
    };
    damage(&nights);
    let record = nights.world.folder.path().join("points");
    assert!(repair_apart(&nights, &format!("record {}", record.display())));
    let passed = fs::read_to_string(record).unwrap();
    let lines: Vec<(&str, &str)> =
        passed.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let points: Vec<&str> = lines.iter().map(|(_, name)| *name).collect();
    // Between two reads nothing is other than before the first.
    let writing: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].0 != "read").collect();
    for _ in 0..deaths {
        let at = writing[draw.below(writing.len() as u64) as usize];
        let times = points[..=at].iter().filter(|name| **name == points[at]).count();
        damage(&nights);
        let plan = format!("die {}#{times}", points[at]);
        assert!(!repair_apart(&nights, &plan), "{plan} was not passed");
        assert_eq!(recover(&nights).await, Ok(()), "{plan}");
    }
}
