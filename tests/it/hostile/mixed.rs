//! Faults mixed at random rates over several nights in which things happen, drawn from seeds.
//!
//! A life is a world, one to four faults, and nights with edits, moves and deletes between them; then the
//! provider answers well again. After every run holds what `witness` holds: no row that never was so,
//! none twice, none lost, changes that replay to the snapshot, and a 0 only for the truth.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use leadpipe::sandbox::FaultRate;
use leadpipe::sandbox::Provider;

use super::faults;
use super::faults::Named;
use super::witness::Watched;
use crate::support::number_from;
use crate::support::process::Draw;

/// What came of the runs in which a fault took part.
#[derive(Debug, Default)]
struct Tally {
    runs: usize,
    requests: usize,
    met: usize,
    exits: BTreeMap<i32, usize>,
}

type Tallies = BTreeMap<&'static str, Tally>;

const PROVIDERS: [Provider; 3] =
    [Provider::WhatConverts, Provider::Whautomate, Provider::Convertalk];

/// Draws the faults of a life; those that take real time are tried alone.
fn drawn(provider: Provider, draw: &mut Draw) -> Vec<(Named, u32)> {
    let possible: Vec<Named> = faults::all()
        .into_iter()
        .filter(|named| !named.is_slow && named.providers.contains(&provider))
        .collect();
    let count = 1 + draw.below(4);
    let rates = [5, 20, 60, 150, 400];
    let one = |_| {
        let named = possible[draw.below(possible.len() as u64) as usize].clone();
        (named, rates[draw.below(rates.len() as u64) as usize])
    };
    (0..count).map(one).collect()
}

/// Lives one life; returns how many runs it had.
async fn live(seed: u64, tallies: &mut Tallies) -> usize {
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let provider = PROVIDERS[draw.below(3) as usize];
    let faults = drawn(provider, &mut draw);
    let told: Vec<_> = faults.iter().map(|(named, rate)| (named.name, rate)).collect();
    let name = format!("LEADPIPE_HOSTILE_SEED={seed}, {provider:?} with {told:?}");
    let mut watched = Watched::begin(provider, 1 + seed % 50, "").await;
    watched.may_end_early = faults.iter().any(|(named, _)| named.says_end);
    let rates = |(named, per_mille): &(Named, u32)| FaultRate {
        fault: named.fault.clone(),
        per_mille: *per_mille,
    };
    let rates: Vec<FaultRate> = faults.iter().map(rates).collect();
    let nights = 2 + draw.below(3);
    for night in 0..nights {
        watched.behave(|behaviour| behaviour.faults.clone_from(&rates));
        let before = watched.world.sandbox.requests().len();
        let ran = watched.sync(&format!("{name}, night {night}")).await;
        let requests = watched.world.sandbox.requests().split_off(before);
        for (named, _) in &faults {
            let tally = tallies.entry(named.name).or_default();
            tally.runs += 1;
            tally.requests += requests.len();
            tally.met += requests.iter().filter(|r| r.fault.as_ref() == Some(&named.fault)).count();
            *tally.exits.entry(ran.exit).or_default() += 1;
        }
        watched.pass_after(&ran);
        watched.stir(&mut draw).await;
    }
    nights as usize + watched.heal(&name).await as usize
}

fn print(tallies: &Tallies, lives: u64, runs: usize, wrong: usize) {
    #[expect(clippy::print_stdout, reason = "`make hostile` shows the figures")]
    {
        for (name, Tally { runs, requests, met, exits }) in tallies {
            println!(
                "mixed {name:<26} {runs:>5} runs, {met:>6} met in {requests:>7} requests, exits {exits:?}"
            );
        }
        println!("mixed {lives} lives, {runs} runs; lives that went wrong: {wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_never_make_a_wrong_snapshot() {
    let (mut tallies, mut runs, mut failed) = (Tallies::new(), 0, Vec::new());
    let one = number_from("LEADPIPE_HOSTILE_SEED", 0);
    // A life has at least three runs.
    let lives = number_from("LEADPIPE_HOSTILE", 18).div_ceil(3);
    let seeds = if one > 0 { one..=one } else { 1..=lives };
    for seed in seeds {
        match AssertUnwindSafe(live(seed, &mut tallies)).catch_unwind().await {
            Ok(of_life) => runs += of_life,
            Err(_) => failed.push(seed),
        }
    }
    print(&tallies, lives, runs, failed.len());
    assert!(failed.is_empty(), "of {lives} lives these fail: {failed:?}");
}
