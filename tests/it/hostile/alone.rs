//! Each fault by itself, at each provider at which it makes sense.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::FaultRate;
use leadpipe::sandbox::Provider;

use super::faults;
use super::faults::Named;
use super::witness::Ran;
use super::witness::Watched;
use crate::support::number_from;
use crate::support::process::Draw;

/// Requests of a night in which everything goes wrong, at most, beside three times as many as a night
/// in which nothing does: nowhere near a day's allowance, whatever the provider answers.
const MOST_IN_VAIN: usize = 60;

/// How short the times are in which a provider has to answer, where the fault is that it does not.
const HURRIED: &str = "timeout = \"1s\"\nstall = \"500ms\"\nretries = 1";

/// What came of a fault.
struct Row {
    name: String,
    said: String,
    requests: usize,
    first: Option<(i32, usize)>,
    nights: u32,
}

/// A first sync without the fault, a night in which every request but the first meets with it, and the
/// nights after it.
async fn nights(named: &Named, provider: Provider) -> (Ran, usize, u32) {
    let name = format!("{provider:?}: {}", named.name);
    let keys = if named.is_slow { HURRIED } else { "" };
    let mut watched = Watched::begin(provider, 1, keys).await;
    let first = watched.sync(&name).await;
    assert_eq!(first.exit, 0, "{name}: {:?}", first.source);
    watched.stir(&mut Draw(7)).await;
    let mut fail_next = vec![named.fault.clone(); 2_000];
    fail_next.insert(0, Fault::Stall { ms: 0 });
    watched.behave(|behaviour| behaviour.fail_next = fail_next);
    watched.world.pass(chrono::TimeDelta::days(1));
    let bad = watched.sync(&name).await;
    watched.pass_after(&bad);
    (bad, first.requests, watched.heal(&name).await)
}

/// A first sync in which one request of three meets with the fault, and the nights after it.
async fn first_sync(named: &Named, provider: Provider) -> (i32, usize) {
    let name = format!("{provider:?}, first: {}", named.name);
    let keys = if named.is_slow { HURRIED } else { "" };
    let mut watched = Watched::begin(provider, 2, keys).await;
    watched.may_end_early = named.says_end;
    let faults = vec![FaultRate { fault: named.fault.clone(), per_mille: 330 }];
    watched.behave(|behaviour| behaviour.faults = faults);
    let first = watched.sync(&name).await;
    watched.pass_after(&first);
    watched.heal(&name).await;
    (first.exit, first.requests)
}

async fn row(named: &Named, provider: Provider) -> Row {
    let name = format!("{provider:?}, {}", named.name);
    let (bad, usual, nights) = nights(named, provider).await;
    let most = 3 * usual + MOST_IN_VAIN;
    assert!(bad.requests <= most, "{name}: {} requests, {usual} otherwise", bad.requests);
    let mut first = None;
    if all_are_asked_for() {
        let (exit, requests) = first_sync(named, provider).await;
        assert!(requests <= most, "{name}: {requests} requests of a first sync");
        first = Some((exit, requests));
    }
    Row { name, said: said(&bad), requests: bad.requests, first, nights }
}

/// What a run says, without what differs from run to run.
fn said(ran: &Ran) -> String {
    let why = ran.source.why.clone().unwrap_or_default();
    let hint = ran.source.hint.clone().unwrap_or_default();
    let mut notes = Vec::new();
    let source = &ran.source;
    for (what, is_so) in [
        ("rejects", source.rejects > 0),
        ("holes", source.holes > 0),
        ("contradictions", source.contradictions > 0),
        ("deletes held back", source.deletes_held_back > 0),
        ("differences", !source.differences.is_empty()),
        ("unproven", !source.unproven.is_empty()),
        ("new fields", !source.new_fields.is_empty()),
        ("spent elsewhere", source.spent_elsewhere.is_some()),
    ] {
        if is_so {
            notes.push(what);
        }
    }
    let mut lines = vec![format!("exit {}", ran.exit)];
    lines.extend((!why.is_empty()).then(|| format!("  {}", steady(&why))));
    lines.extend((!hint.is_empty()).then(|| format!("  hint: {}", steady(&hint))));
    lines.extend((!notes.is_empty()).then(|| format!("  notes: {}", notes.join(", "))));
    lines.join("\n")
}

/// Leaves out numbers that depend on where a page was cut, or which of several answers came first.
fn steady(text: &str) -> String {
    let mut steady = text.to_owned();
    for before in ["column ", "there are ", "but ", "127.0.0.1:", "asked for page "] {
        let mut from = 0;
        while let Some(at) = steady[from..].find(before) {
            let start = from + at + before.len();
            let end = start + steady[start..].chars().take_while(char::is_ascii_digit).count();
            if end > start {
                steady.replace_range(start..end, "N");
            }
            from = start;
        }
    }
    steady
}

fn print(row: &Row) {
    #[expect(clippy::print_stdout, reason = "`make hostile` shows the figures")]
    {
        let exit = row.said.lines().next().unwrap_or_default();
        let first =
            row.first.map(|(exit, requests)| format!("; first sync: exit {exit}, {requests}"));
        println!(
            "alone {:<42} {exit:<8} {:>4} requests, whole after {} nights{}",
            row.name,
            row.requests,
            row.nights,
            first.unwrap_or_default()
        );
    }
}

fn all_are_asked_for() -> bool {
    number_from("LEADPIPE_HOSTILE", 0) > 0
}

/// Each fault at each provider where all are asked for, else at one of them in turn.
async fn rows_of(faults: Vec<Named>) -> Vec<Row> {
    let all = all_are_asked_for();
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (at, named) in faults.iter().enumerate() {
        for (number, provider) in named.providers.iter().enumerate() {
            if all || number == at % named.providers.len() {
                match AssertUnwindSafe(row(named, *provider)).catch_unwind().await {
                    Ok(row) => {
                        print(&row);
                        rows.push(row);
                    }
                    Err(_) => failed.push(format!("{provider:?}, {}", named.name)),
                }
            }
        }
    }
    assert!(failed.is_empty(), "these fail: {failed:#?}");
    rows
}

/// What is said of each that `make test` tries.
fn all_said(rows: &[Row]) -> Option<String> {
    let said = rows.iter().map(|row| format!("{}: {}", row.name, row.said));
    (!all_are_asked_for()).then(|| said.collect::<Vec<_>>().join("\n\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_alone_costs_no_lead_and_is_told() {
    let faults = faults::all().into_iter().filter(|named| !named.is_slow).collect();
    if let Some(said) = all_said(&rows_of(faults).await) {
        insta::assert_snapshot!(said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slow_fault_alone_costs_no_lead_and_is_told() {
    let faults = faults::all().into_iter().filter(|named| named.is_slow).collect();
    if let Some(said) = all_said(&rows_of(faults).await) {
        insta::assert_snapshot!(said);
    }
}
