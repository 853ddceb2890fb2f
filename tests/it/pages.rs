//! Pages that fit: sizes that a provider refuses, or breaks on, are halved once for all walks, and what
//! fits is remembered for a month.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use leadpipe::checkpoint::SmallerPages;
use leadpipe::run::Options;
use leadpipe::run::SourceSummary;
use leadpipe::run::Summary;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::OverPageSize;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;
use crate::support::parameter;
use crate::support::small_job;

const SIZE: u64 = 64;

/// Profiles whose leads of a year are read every night, asked for in pages of 64.
async fn agency(profiles: u32, leads: u64, behaviour: Behaviour) -> World {
    let settings = Settings {
        leads,
        years: 1,
        accounts: 1,
        profiles,
        still: true,
        behaviour,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    let job = small_job("[refresh]\nevery_run = \"380d\"");
    world.job = job.replace("2023-10-01", "2025-10-20").replace("= 50", &format!("= {SIZE}"));
    world
}

/// A provider that takes pages of at most so many rows.
fn at_most(max_page_size: u32, over_page_size: OverPageSize) -> Behaviour {
    Behaviour { max_page_size, over_page_size, ..Behaviour::default() }
}

fn refusing(max_page_size: u32, text: &str) -> Behaviour {
    let page_size_refusal = Some(text.to_owned());
    Behaviour { page_size_refusal, ..at_most(max_page_size, OverPageSize::Refuse) }
}

fn size_of(request: &LoggedRequest) -> u64 {
    parameter(request, "leads_per_page").unwrap().parse().unwrap()
}

/// Requests for listings, by the size they ask for.
fn sizes(world: &World) -> BTreeMap<u64, usize> {
    let mut sizes = BTreeMap::new();
    for request in world.listings() {
        *sizes.entry(size_of(&request)).or_default() += 1;
    }
    sizes
}

/// How many pages of `size` the leads of all profiles take.
fn least(world: &World, size: u64) -> u64 {
    let mut leads: BTreeMap<u64, u64> = BTreeMap::new();
    for (profile, _) in world.sandbox.lead_ids() {
        *leads.entry(profile).or_default() += 1;
    }
    world.sandbox.profile_ids().iter().map(|id| leads.get(id).map_or(1, |n| n.div_ceil(size))).sum()
}

fn known(summary: &Summary) -> Option<(u32, u32, bool)> {
    let SmallerPages { rows, too_large, refused, .. } = acme(summary).smaller_pages.get("leads")?;
    Some((*rows, *too_large, *refused))
}

/// Requests that had a reason of their own.
fn named(source: &SourceSummary) -> (u64, u64) {
    let requests = &source.requests;
    assert_eq!((requests.rereads, requests.checks, requests.lookups), (0, 0, 0));
    (requests.probes, requests.retries)
}

/// The first sync reads all for the fewest requests of that size beside those that found it, and the
/// second night for the fewest alone.
async fn assert_found(world: &World, size: u64, found_by: (u64, u64)) -> Summary {
    let first = world.sync().await;
    assert_eq!(first.exit_code(), 0, "{first:#?}");
    world.assert_whole().await;
    let (sent, least) = (world.listings().len() as u64, least(world, size));
    assert_eq!(named(acme(&first)), found_by, "{:?}", sizes(world));
    assert_eq!(sent, least + found_by.0 + found_by.1, "{:?}", sizes(world));

    world.sandbox.clear_requests();
    world.pass(TimeDelta::days(1));
    let second = world.sync().await;
    assert_eq!((second.exit_code(), known(&second)), (0, known(&first)), "{second:#?}");
    assert_eq!(sizes(world), [(size, usize::try_from(least).unwrap())].into());
    world.assert_whole().await;
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_refused_in_any_words_is_halved_until_it_fits() {
    // Two sizes are refused; where the words do not say why, a shorter window and one row are asked
    // for as well.
    for (text, probes) in [
        ("Invalid leads_per_page parameter, please use a number up to 20", 2),
        ("Maximum page size exceeded", 2),
        ("too many records requested: the limit is 20", 2),
        ("Bad request", 4),
        ("Der Parameter ist zu gross", 4),
        ("", 4),
    ] {
        let world = agency(1, 2_560, refusing(20, text)).await;
        let summary = assert_found(&world, 16, (probes, 0)).await;
        assert_eq!(known(&summary), Some((16, 32, true)), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_window_whose_page_is_refused_is_read_in_smaller_pages_too() {
    for text in ["leads_per_page is too large", "Bad request"] {
        let mut world = agency(3, 300, Behaviour::default()).await;
        world.job = world.job.replace("380d", "30d");
        world.sync().await;
        world.sandbox.behave(refusing(20, text));
        world.pass(TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!((summary.exit_code(), known(&summary)), (0, Some((16, 32, true))), "{text}");
        world.assert_whole().await;
        world.sandbox.clear_requests();
        world.pass(TimeDelta::days(1));
        assert_eq!(world.sync().await.exit_code(), 0);
        assert!(world.listings().iter().all(|request| size_of(request) == 16), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_profiles_do_not_pay_for_the_size_each() {
    let refusing = agency(40, 4_000, refusing(40, "page size too large")).await;
    assert_found(&refusing, 32, (1, 0)).await;
    let slow = agency(40, 4_000, at_most(20, OverPageSize::TimeOut)).await;
    // One page with its retries, and half of it with its own.
    assert_found(&slow, 16, (2, 6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_takes_too_long_comes_in_halves_and_so_do_all_after_it() {
    for (max_page_size, size, found_by) in [(63, 32, (1, 5)), (20, 16, (2, 6)), (8, 8, (3, 7))] {
        let world = agency(1, 2_560, at_most(max_page_size, OverPageSize::TimeOut)).await;
        let summary = assert_found(&world, size, found_by).await;
        let (size, too_large) = (u32::try_from(size).unwrap(), 64);
        assert_eq!(known(&summary), Some((size, too_large, false)));
        assert_eq!((acme(&summary).holes, acme(&summary).reconciled), (0, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_grows_too_long_later_is_got_round_where_it_stands() {
    let world = agency(1, 1_280, Behaviour::default()).await;
    world.sync_with(Options { max_requests: Some(8), ..Options::default() }).await;
    let held = world.listings().len() as u64;
    world.sandbox.behave(at_most(32, OverPageSize::TimeOut));
    world.pass(TimeDelta::minutes(5));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), acme(&summary).resumed), (0, 1), "{summary:#?}");
    world.assert_whole().await;
    // What was held in pages of 64 stays held, and only those on their way meet with the trouble.
    let left = (1_280_u64 - held * SIZE).div_ceil(32);
    let (probes, retries) = named(acme(&summary));
    assert_eq!(sizes(&world)[&32] as u64, left, "{:?}", sizes(&world));
    assert_eq!(world.listings().len() as u64 - left, acme(&summary).requests.sent - left - 1);
    assert!(probes <= 20 && retries <= 5 * 20, "{:?}", sizes(&world));
    assert_eq!(known(&summary), Some((32, 64, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_on_a_large_page_is_no_end_of_the_run() {
    for fault in [Fault::Reset, Fault::Close, Fault::CutBody] {
        let mut fail_next = vec![Fault::Stall { ms: 0 }];
        fail_next.extend(vec![fault.clone(); 6]);
        let world = agency(1, 640, Behaviour { fail_next, ..Behaviour::default() }).await;
        let summary = assert_found(&world, 32, (1, 5)).await;
        assert_eq!(known(&summary), Some((32, 64, false)), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cut_off_goes_on_with_its_walk_in_the_size_that_worked() {
    for behaviour in [refusing(20, "page size too large"), at_most(20, OverPageSize::TimeOut)] {
        for forgets in [false, true] {
            let world = agency(1, 1_280, behaviour.clone()).await;
            let few = Options { max_requests: Some(30), ..Options::default() };
            let cut_off = world.sync_with(few).await;
            assert_eq!(cut_off.exit_code(), 8, "{cut_off:#?}");
            let (probes, retries) = named(acme(&cut_off));
            if forgets {
                // As if it had died before its first commit: what it held is in the archive.
                let lake = world.folder.path().join("lake");
                for name in ["commits", "snapshots", "parts", "changes", "checkpoint.json"] {
                    let path = lake.join(name);
                    let removed = std::fs::remove_dir_all(&path);
                    removed.or_else(|_| std::fs::remove_file(&path)).unwrap();
                }
                std::fs::remove_file(lake.join("latest")).unwrap();
            }
            world.pass(TimeDelta::minutes(5));
            let summary = world.sync().await;
            assert_eq!((summary.exit_code(), acme(&summary).resumed), (0, 1), "{summary:#?}");
            assert_eq!(named(acme(&summary)), (0, 0), "{forgets}: {:?}", sizes(&world));
            world.assert_whole().await;
            let sent = world.listings().len() as u64;
            assert_eq!(sent, least(&world, 16) + probes + retries, "{:?}", sizes(&world));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_a_hole_and_no_reason_for_smaller_pages() {
    let world = agency(1, 640, Behaviour::default()).await;
    let mut leads = world.sandbox.leads();
    leads.sort_by_key(|lead| lead["lead_id"].as_u64());
    for place in [0, 100, leads.len() - 1] {
        let poison = vec![leads[place]["lead_id"].as_u64().unwrap()];
        world.sandbox.behave(Behaviour { poison, ..Behaviour::default() });
        world.pass(TimeDelta::days(1));
        world.sandbox.clear_requests();
        let summary = world.sync().await;
        assert_eq!((acme(&summary).holes, known(&summary)), (1, None), "{summary:#?}");
        assert!(sizes(&world)[&SIZE] >= 9, "{place}: {:?}", sizes(&world));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn larger_pages_are_tried_again_after_a_month_and_kept_where_they_fit() {
    for over_page_size in [OverPageSize::Refuse, OverPageSize::TimeOut] {
        let world = agency(2, 640, at_most(20, over_page_size)).await;
        world.sync().await;
        // It heals, but nobody knows until a month later.
        world.sandbox.behave(Behaviour::default());
        let mut asked = Vec::new();
        for _ in 0..4 {
            world.pass(TimeDelta::days(16));
            world.sandbox.clear_requests();
            let summary = world.sync().await;
            assert_eq!((summary.exit_code(), named(acme(&summary))), (0, (0, 0)), "{summary:#?}");
            let size = u64::from(known(&summary).map_or(64, |(rows, ..)| rows));
            let sizes: Vec<u64> = sizes(&world).into_keys().collect();
            assert_eq!(sizes, [size], "{over_page_size:?}");
            asked.push(size);
        }
        assert_eq!(asked, [16, 32, 32, 64], "{over_page_size:?}");
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_size_that_does_not_fit_after_a_month_costs_one_trial() {
    for (over_page_size, probes, retries) in
        [(OverPageSize::Refuse, 1, 0), (OverPageSize::TimeOut, 1, 5)]
    {
        let world = agency(5, 640, at_most(20, over_page_size)).await;
        world.sync().await;
        for (days, expected) in [(29, (0, 0)), (2, (probes, retries)), (29, (0, 0))] {
            world.pass(TimeDelta::days(days));
            let summary = world.sync().await;
            assert_eq!(named(acme(&summary)), expected, "{over_page_size:?}: {summary:#?}");
            let known = known(&summary).map(|(rows, too_large, _)| (rows, too_large));
            assert_eq!((summary.exit_code(), known.map(|known| known.0)), (0, Some(16)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_passing_or_for_another_reason_leaves_the_size_as_it_is() {
    let mut world = agency(1, 300, Behaviour::default()).await;
    world.job = world.job.replace("380d", "30d");
    world.sync().await;
    let fail_next = vec![Fault::Stall { ms: 0 }, Fault::ErrorInside];
    world.sandbox.behave(Behaviour { fail_next, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), known(&summary)), (0, None), "{summary:#?}");
    assert_eq!(named(acme(&summary)), (2, 0), "one row, and the same again");
    world.assert_whole().await;

    world.sandbox.behave(Behaviour { max_range_days: 7, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), known(&summary)), (3, None), "{summary:#?}");
    assert_eq!(sizes(&world), [(1, 1), (SIZE, 1)].into(), "one row tells that it is not the size");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_goes_by_the_size_that_fits() {
    let world = agency(1, 640, at_most(20, OverPageSize::Refuse)).await;
    world.sync().await;
    let clock: leadpipe::clock::SharedClock = world.clock.clone();
    let planned = leadpipe::run::preview(world.job(), None, Options::default(), clock);
    let planned = planned.await.unwrap().sources.remove(0);
    assert_eq!(planned.plan.walks[0].page_size, 16);
}
