//! The laws of a publish, against a model that is a map.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::Counts;
use super::Mode;
use super::Rule;
use super::Shown;
use super::testing::Lake;
use super::testing::TestLead;
use crate::checkpoint::RefreshTier;
use crate::config::OnDelete;
use crate::schema::PartFile;

type Rows = BTreeMap<String, TestLead>;

#[derive(Debug, Clone)]
struct Step {
    batches: Vec<Vec<TestLead>>,
    gone: BTreeSet<String>,
    is_replay: bool,
}

fn lead() -> impl Strategy<Value = TestLead> {
    let year = prop_oneof![4 => Just(Some(2024)), 2 => Just(Some(2025)), 1 => Just(None)];
    let name = prop_oneof![Just("Ann"), Just("Bea"), Just("Cy")];
    (0_u32..40, year, name, 0_u8..2, 0_i64..6_000).prop_map(|(id, year, name, scope, received)| {
        let scope = format!("profile:{scope}");
        TestLead { year, scope, ..TestLead::new(id, 2024, name, received) }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let batches = prop::collection::vec(prop::collection::vec(lead(), 0..12), 0..4);
    let gone = prop::collection::btree_set((0_u32..40).prop_map(lead_id), 0..6);
    (batches, gone, prop::bool::weighted(0.15)).prop_map(|(batches, gone, is_replay)| Step {
        batches,
        gone,
        is_replay,
    })
}

fn lead_id(id: u32) -> String {
    TestLead::new(id, 2024, "", 0).id
}

/// Makes receipts distinct and later from step to step, yet some older than the step before.
fn at_step(number: usize, step: &mut Step) {
    let mut place = 0;
    for lead in step.batches.iter_mut().flatten() {
        place += 1;
        let received = number as i64 * 4_000_000 + lead.extracted_us * 1_000 + place;
        lead.extracted_us = received;
        lead.first_seen_us = received;
        lead.archive = format!("archive#{received}");
        lead.run = format!("run-{number}");
    }
}

/// Does what a publish does, to a map; also returns how many leads were held with other content.
fn apply(
    rows: &mut Rows,
    step: &Step,
    on_delete: OnDelete,
    seq: i64,
    gone_us: i64,
) -> (Counts, u64) {
    let (mut counts, mut edited) = (Counts::default(), 0);
    let mut newest: BTreeMap<&str, &TestLead> = BTreeMap::new();
    for lead in step.batches.iter().flatten() {
        let held = newest.entry(&lead.id).or_insert(lead);
        if lead.extracted_us > held.extracted_us {
            *held = lead;
        }
    }
    for (id, lead) in &newest {
        let Some(held) = rows.get_mut(*id) else {
            if step.is_replay {
                counts.dropped += 1;
            } else {
                counts.new += 1;
                rows.insert((*id).to_owned(), TestLead { seq, ..(*lead).clone() });
            }
            continue;
        };
        let (is_same, is_moved) = (held.hash() == lead.hash(), held.year != lead.year);
        if step.is_replay {
            if is_same {
                counts.unchanged += 1;
                continue;
            }
            // The record of the row is no longer archived, only one from before it.
            if lead.extracted_us < held.extracted_us {
                counts.older += 1;
                continue;
            }
            match (held.deleted_us, is_moved) {
                (Some(_), _) => {}
                (None, true) => counts.moved += 1,
                (None, false) => counts.changed += 1,
            }
            (held.name, held.year, held.seq) = (lead.name.clone(), lead.year, seq);
        } else if lead.extracted_us < held.extracted_us {
            counts.older += 1;
        } else if is_same && held.deleted_us.is_none() {
            counts.unchanged += 1;
            held.scope.clone_from(&lead.scope);
        } else {
            let before = held.clone();
            edited += u64::from(!is_same && before.deleted_us.is_none());
            *held = TestLead { seq, first_seen_us: before.first_seen_us, ..(*lead).clone() };
            if is_same {
                (held.extracted_us, held.run, held.archive) =
                    (before.extracted_us, before.run, before.archive);
            }
            if is_moved { counts.moved += 1 } else { counts.changed += 1 }
        }
    }
    for id in step.gone.iter().filter(|id| !newest.contains_key(id.as_str())) {
        match on_delete {
            OnDelete::Remove => counts.gone += u64::from(rows.remove(id).is_some()),
            OnDelete::Keep => {
                if let Some(held) = rows.get_mut(id).filter(|held| held.deleted_us.is_none()) {
                    held.deleted_us = Some(gone_us);
                    counts.gone += 1;
                }
            }
        }
    }
    (counts, edited)
}

fn partition(lead: &TestLead) -> String {
    lead.year.map_or("unknown".to_owned(), |year| year.to_string())
}

/// Returns the rows of the keys a part answers for.
fn slot_rows(rows: &Rows, parts: &[PartFile], part: &PartFile, part_rows: u64) -> Vec<TestLead> {
    let siblings: Vec<&PartFile> =
        parts.iter().filter(|other| other.partition == part.partition).collect();
    let place = siblings.iter().position(|other| other == &part).unwrap();
    let above = place.checked_sub(1).map(|place| siblings[place].last_lead_id.clone());
    let is_open = place + 1 == siblings.len() && part.rows < part_rows;
    let leads = rows.values().filter(|lead| {
        partition(lead) == part.partition
            && above.as_ref().is_none_or(|above| lead.id > *above)
            && (is_open || lead.id <= part.last_lead_id)
    });
    leads.cloned().collect()
}

fn check_parts(lake: &Lake) {
    for pair in lake.parts.windows(2) {
        let ends = |part: &PartFile| (part.partition.clone(), part.last_lead_id.clone());
        let begins = |part: &PartFile| (part.partition.clone(), part.first_lead_id.clone());
        assert!(ends(&pair[0]) < begins(&pair[1]), "parts are in order and disjoint");
    }
    for part in &lake.parts {
        let leads = lake.leads_in(part);
        assert!(leads.windows(2).all(|pair| pair[0].id < pair[1].id), "rows are sorted");
        assert!(leads.iter().all(|lead| partition(lead) == part.partition));
        assert_eq!(part.rows, leads.len() as u64);
        assert!(part.rows <= lake.limits.part_rows);
        let deleted = leads.iter().filter(|lead| lead.deleted_us.is_some()).count();
        assert_eq!(part.deleted_rows, deleted as u64);
        assert_eq!(part.first_lead_id, leads.first().unwrap().id);
        assert_eq!(part.last_lead_id, leads.last().unwrap().id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_publish_does_what_the_model_does(
        mut steps in prop::collection::vec(step(), 1..6),
        keeps in any::<bool>(),
        part_rows in 1_u64..9,
        spills in any::<bool>(),
    ) {
        let on_delete = if keeps { OnDelete::Keep } else { OnDelete::Remove };
        let mut lake = Lake::new();
        lake.output.on_delete = on_delete;
        lake.limits.part_rows = part_rows;
        lake.budget_bytes = if spills { 0 } else { 1 << 20 };
        let counted = Rule { tier: RefreshTier::Weekly, shown: Shown::All };
        lake.readings.note("archive#1", &[counted]);
        let mut rows = Rows::new();
        let mut consumer: BTreeMap<String, String> = BTreeMap::new();
        for (number, step) in steps.iter_mut().enumerate() {
            at_step(number, step);
            lake.mode = if step.is_replay { Mode::Replay } else { Mode::Merge };
            let (rows_before, parts_before) = (rows.clone(), lake.parts.clone());
            let seq = lake.seq.next();
            let gone_us = lake.gone_at().timestamp_micros() + 86_400_000_000;
            let (counts, edited) = apply(&mut rows, step, on_delete, seq.0 as i64, gone_us);
            let (published, changes) = lake.publish_batches(&step.batches, &step.gone).unwrap();

            prop_assert_eq!(&lake.rows(), &rows);
            prop_assert_eq!(published.rows, rows.len() as u64);
            prop_assert_eq!(published.counts, counts);
            prop_assert_eq!(published.caught.of(RefreshTier::Weekly), edited);
            check_parts(&lake);
            for part in &parts_before {
                let before = slot_rows(&rows_before, &parts_before, part, part_rows);
                let after = slot_rows(&rows, &parts_before, part, part_rows);
                prop_assert_eq!(lake.parts.contains(part), before == after, "{:?}", part);
            }

            let mut touched = BTreeSet::new();
            prop_assert_eq!(changes.rows, counts.operations());
            prop_assert_eq!(changes.deletes, counts.gone);
            for (op, reason, lead) in lake.changes(&changes) {
                prop_assert!(touched.insert(lead.id.clone()), "one operation a key");
                prop_assert_eq!(op == "delete", reason == "gone");
                match op.as_str() {
                    "upsert" => consumer.insert(lead.id.clone(), lead.hash()),
                    _ => consumer.remove(&lead.id),
                };
            }
            let live = rows.values().filter(|lead| lead.deleted_us.is_none());
            let live: BTreeMap<String, String> =
                live.map(|lead| (lead.id.clone(), lead.hash())).collect();
            prop_assert_eq!(&consumer, &live);
        }
    }
}
