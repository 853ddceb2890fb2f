//! The table of what can be damaged, what `verify` finds, and what a run does that meets it.

use std::collections::BTreeMap;
use std::fs;

use leadpipe::error::Hint;
use leadpipe::run;
use leadpipe::run::Kind;
use leadpipe::run::Options;

use super::Nights;
use super::cut;
use super::files;
use super::flip;
use super::flip_end;
use super::kinds;
use super::lake_of;
use super::ledger;
use super::living;
use super::pick;
use super::recover;
use crate::support::acme;

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
