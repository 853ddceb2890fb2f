//! Random files, damaged from a seed, and counted by kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Nights;
use super::cut;
use super::files;
use super::flip;
use super::lake_of;
use super::recover;
use crate::support::number_from;
use crate::support::process::Draw;

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
