//! All three providers in one job: one table, each within its own quota.
//!
//! `LEADPIPE_LEADS` sets how many leads there are in all, shared out over the three.

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::SharedClock;
use leadpipe::plan::Requests;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::ConvertalkBehaviour;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::Provider;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;

use crate::support::World;
use crate::support::number_from;
use crate::support::parameter;
use crate::support::small;

const PROVIDERS: [Provider; 3] =
    [Provider::WhatConverts, Provider::Whautomate, Provider::Convertalk];

const CLINICS: u32 = 2;
const BOTS: u32 = 3;

/// What a listing of WhatConverts and one of Whautomate show on a page, at most.
const LARGE_PAGE: u64 = 2_500;
const SMALL_PAGE: u64 = 100;

/// An agency, two clinics and three bots with `leads` in all, of which the agency has six in ten.
fn shared_out(leads: u64) -> Settings {
    Settings {
        leads: leads * 60 / 100,
        whautomate_accounts: CLINICS,
        contacts: leads * 10 / 100,
        clients: leads * 25 / 1_000,
        convertalk_bots: BOTS,
        chats: leads * 5 / 100,
        whautomate_per_day: Some(432_000),
        whautomate_per_minute: Some(300),
        still: true,
        ..small()
    }
}

/// What one provider has, and what it was asked.
#[derive(Debug)]
struct Price {
    provider: Provider,
    leads: u64,
    rows: u64,
    requests: u64,
    minimum: u64,
}

/// Pages of a listing that states no total, and one more that shows its end.
fn pages_and_end(rows: u64, page_size: u64) -> u64 {
    rows.div_ceil(page_size) + 1
}

fn listed(world: &World, listing: Listing) -> u64 {
    world.sandbox.record_ids(listing).unwrap().len() as u64
}

fn listings(provider: Provider) -> Vec<Listing> {
    let of_account = |account| [Listing::Contacts { account }, Listing::Clients { account }];
    let of_bot = |bot| [false, true].map(|lead| Listing::Chats { bot, lead });
    match provider {
        Provider::WhatConverts => Vec::new(),
        Provider::Whautomate => (0..CLINICS).flat_map(of_account).collect(),
        Provider::Convertalk => (0..BOTS).flat_map(of_bot).collect(),
    }
}

/// Spans of 400 days, a second of overlap on each side, from the start of the history to now.
fn fewest_windows(world: &World) -> usize {
    let start = world.job().sources[0].start().unwrap();
    let span = TimeDelta::days(400) - TimeDelta::seconds(2);
    let seconds = (world.sandbox.now() - start).num_seconds() as usize;
    seconds.div_ceil(span.num_seconds() as usize)
}

/// Pages of the leads of each profile in each window, the overlaps of a second included; a window
/// without leads costs a request too, and so do the accounts.
fn least_of_windows(world: &World, requests: &[LoggedRequest]) -> u64 {
    let mut windows = BTreeSet::new();
    for request in requests.iter().filter(|request| request.path == "/api/v1/leads") {
        let get = |name| parameter(request, name).unwrap();
        let bound = |name| get(name).parse::<DateTime<Utc>>().unwrap();
        windows.insert((get("profile_id"), bound("start_date"), bound("end_date")));
    }
    assert_eq!(windows.len(), fewest_windows(world) * world.sandbox.profile_ids().len());
    let leads = world.sandbox.leads();
    let created: Vec<(String, Option<DateTime<Utc>>)> = leads
        .iter()
        .map(|lead| {
            let at = lead["date_created"].as_str().and_then(|text| text.parse().ok());
            (lead["profile_id"].to_string(), at)
        })
        .collect();
    let pages = |(profile, from, to): &(String, _, _)| {
        let inside = created.iter().filter(|(owner, at)| {
            owner == profile && at.is_some_and(|at| *from <= at && at <= *to)
        });
        (inside.count() as u64).div_ceil(LARGE_PAGE).max(1)
    };
    1 + windows.iter().map(pages).sum::<u64>()
}

fn price(world: &World, provider: Provider) -> Price {
    let requests = world.requests_to_provider(provider);
    let job = world.job();
    let is_its = |name: &str| match provider {
        Provider::WhatConverts => name == "acme",
        Provider::Whautomate => name.starts_with("clinic"),
        Provider::Convertalk => name == "bots",
    };
    let sources = job.sources.iter().filter(|source| is_its(source.name.as_str()));
    let rows = sources.map(|source| world.rows_of(&source.name).len() as u64).sum();
    let lists = listings(provider);
    let (leads, minimum) = match provider {
        Provider::WhatConverts => {
            (world.sandbox.lead_ids().len() as u64, least_of_windows(world, &requests))
        }
        Provider::Whautomate | Provider::Convertalk => {
            // Convertalk's server alone decides how many rows a page has.
            let convertalk = u64::from(ConvertalkBehaviour::default().page_size);
            let size = if provider == Provider::Whautomate { SMALL_PAGE } else { convertalk };
            let counts = lists.into_iter().map(|list| listed(world, list));
            counts.fold((0, 0), |(leads, least), rows| {
                (leads + rows, least + pages_and_end(rows, size))
            })
        }
    };
    Price { provider, leads, rows, requests: requests.len() as u64, minimum }
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn print(prices: &[Price]) {
    println!("provider         leads     rows  requests  minimum  ratio");
    for price in prices {
        let Price { provider, leads, rows, requests, minimum } = price;
        let ratio = *requests as f64 / *minimum as f64;
        let provider = format!("{provider:?}");
        println!("{provider:<14}{leads:>8}{rows:>9}{requests:>10}{minimum:>9}{ratio:>7.3}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_brings_every_lead_of_every_provider_into_one_snapshot_for_the_fewest_requests() {
    let leads = number_from("LEADPIPE_LEADS", 2_000);
    let world = World::three(shared_out(leads)).await;
    // The minimum reads the times of leads too, as the documents have them.
    world.behave(|behaviour| behaviour.times = Times::Zulu);
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_all_whole().await;
    assert_eq!(summary.sources.len(), 4);
    assert_eq!(summary.commit, Some(world.head().seq), "one run, one snapshot");
    let prices = PROVIDERS.map(|provider| price(&world, provider));
    print(&prices);
    for price in &prices {
        assert!(price.leads > 0);
        assert_eq!(price.rows, price.leads, "{price:?}");
        assert!(price.requests >= price.minimum, "{price:?}");
    }
    let sum = |count: fn(&run::Requests) -> u64| -> u64 {
        summary.sources.values().map(|source| count(&source.requests)).sum()
    };
    let requests: u64 = prices.iter().map(|price| price.requests).sum();
    assert_eq!(sum(|requests| requests.sent), requests);
    // A listing that takes more than two minutes is looked at again from its top.
    let looked = sum(|requests| requests.probes);
    let minimum: u64 = prices.iter().map(|price| price.minimum).sum();
    assert_eq!(requests, minimum + looked, "{prices:?}");
    assert!(looked <= u64::from(2 * BOTS + 2 * CLINICS), "{looked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_plan_say_of_all_three_what_is_so_and_what_the_next_run_will_cost() {
    let world = World::three(Settings { behaviour: unordered(), ..shared_out(1_000) }).await;
    let clock: SharedClock = world.clock.clone();
    let checked = run::check(world.job(), Options::default(), clock.clone()).await.unwrap();
    let found: Vec<(&str, u64)> = checked.iter().map(|c| (c.found.as_str(), c.requests)).collect();
    assert_eq!(
        found,
        [
            ("a master key", 1),
            ("the key of an account", 1),
            ("the key of an account", 1),
            ("a token that may list chats", 1),
        ]
    );
    world.sync().await;
    world.pass(TimeDelta::days(1));
    let planned = run::preview(world.job(), None, Options::default(), clock).await.unwrap();
    let text =
        leadpipe::report::plan_text(&planned, true, chrono::FixedOffset::east_opt(0).unwrap());
    for line in ["clinic-0: 2 walks, ", "bots: 6 walks, ", "permits: no limit a day"] {
        assert!(text.contains(line), "{text}");
    }
    let summary = world.sync().await;
    for source in planned.sources.iter().filter(|source| source.source.as_str() != "acme") {
        let sent = summary.sources[&source.source].requests.sent;
        assert_eq!(source.plan.requests(), Requests::Known(sent), "{text}");
    }
}

/// An order that no reading shows: every night reads all.
fn unordered() -> Behaviour {
    let mut behaviour = Behaviour::default();
    (behaviour.whautomate.order, behaviour.convertalk.order) = (Order::Id, Order::Id);
    behaviour
}
