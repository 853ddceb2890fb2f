//! What a night costs after the first, and how that grows with the leads held: at a provider that
//! filters by date, at those that do not, with and without an order that can be relied on.
//!
//! `LEADPIPE_NIGHTS` sets the largest number of leads; tenths and hundredths of it are tried too.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;

use crate::support::World;
use crate::support::number_from;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
use crate::support::records::bots;

/// A listing without dates, as the growth of its nights is looked at.
#[derive(Debug, Clone, Copy)]
struct Kind {
    provider: &'static str,
    order: Order,
    page_size: u64,
    listings: &'static [Listing],
}

const CONTACTS: &[Listing] = &[Listing::Contacts { account: 0 }];
const CHATS: &[Listing] =
    &[Listing::Chats { bot: 0, lead: false }, Listing::Chats { bot: 0, lead: true }];

fn kinds() -> Vec<Kind> {
    let orders = [Order::Id, Order::CreatedDescending, Order::UpdatedDescending];
    let kinds = |provider, page_size, listings| {
        orders.map(|order| Kind { provider, order, page_size, listings })
    };
    [kinds("whautomate", 100, CONTACTS), kinds("convertalk", 20, CHATS)].concat()
}

/// Requests of the first night, the second, the third and fourth, and of that of the eighth day.
#[derive(Debug)]
struct Nights {
    first: u64,
    second: u64,
    nightly: u64,
    weekly: u64,
}

/// A world in which leads come, change and go, with `leads` of one kind.
async fn world_of(kind: Kind, leads: u64) -> World {
    let mut behaviour = Behaviour::default();
    (behaviour.whautomate.order, behaviour.convertalk.order) = (kind.order, kind.order);
    let is_clinic = kind.provider == "whautomate";
    let none = Settings { leads: 0, accounts: 1, profiles: 1, behaviour, ..Settings::default() };
    let mut world = World::new(Settings {
        years: 3,
        whautomate_accounts: u32::from(is_clinic),
        contacts: if is_clinic { leads } else { 0 },
        whautomate_per_day: Some(432_000),
        whautomate_per_minute: Some(300),
        convertalk_bots: u32::from(!is_clinic),
        chats: if is_clinic { 0 } else { leads },
        ..none
    })
    .await;
    world.job = match is_clinic {
        true => format!("{HEAD}{CLINIC}streams = [\"contacts\"]\n"),
        false => format!("{HEAD}{}", bots(&world.sandbox)),
    };
    world
}

/// Syncs some days later; returns the requests it took.
async fn night(world: &World, days: i64) -> u64 {
    world.pass(TimeDelta::days(days));
    world.sandbox.clear_requests();
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.sandbox.requests().len() as u64
}

/// Pages of all listings of a kind, of rows of which `field` is not older than `since`, and an end.
fn pages(world: &World, kind: Kind, since: Option<(&str, DateTime<Utc>)>) -> u64 {
    let pages_of = |listing: &Listing| {
        let Some((field, since)) = since else {
            return (world.sandbox.record_ids(*listing).unwrap().len() as u64)
                .div_ceil(kind.page_size);
        };
        let is_new = |row: &&serde_json::Value| {
            row[field].as_str().is_some_and(|at| at.parse::<DateTime<Utc>>().unwrap() >= since)
        };
        let rows = world.sandbox.records(*listing).unwrap();
        (rows.iter().filter(is_new).count() as u64).div_ceil(kind.page_size)
    };
    kind.listings.iter().map(|listing| pages_of(listing) + 1).sum()
}

/// What a look at the top and at a few pages may cost beside, where a reading takes minutes.
const LOOKS: u64 = 12;

async fn nights_of(kind: Kind, leads: u64) -> Nights {
    let world = world_of(kind, leads).await;
    let first = night(&world, 0).await;
    let second = night(&world, 1).await;
    let whole = pages(&world, kind, None);
    assert!((whole..=whole + LOOKS).contains(&second), "{kind:?}: {second}, all are {whole}");
    let third = night(&world, 1).await;
    let nightly = night(&world, 1).await;
    let (now, day) = (world.sandbox.now(), TimeDelta::days(1));
    let bound = match kind.order {
        Order::CreatedDescending => pages(&world, kind, Some(("createdAt", now - day * 31))),
        // From the reading before, and a day beyond it.
        Order::UpdatedDescending => pages(&world, kind, Some(("updatedAt", now - day * 3))),
        _ => pages(&world, kind, None) + LOOKS,
    };
    assert!(third.max(nightly) <= bound + 1, "{kind:?}: {third}, {nightly} of at most {bound}");
    let weekly = night(&world, 5).await;
    let whole = pages(&world, kind, None);
    assert!((whole..=whole + LOOKS).contains(&weekly), "{kind:?}: {weekly}, all are {whole}");
    Nights { first, second, nightly, weekly }
}

/// WhatConverts: the last thirty days of each profile, every run, and a request for the accounts.
async fn nights_of_agency(leads: u64) -> Nights {
    let behaviour = Behaviour { times: Times::Zulu, ..Behaviour::default() };
    let mut world = World::new(Settings { leads, behaviour, ..crate::support::small() }).await;
    world.job = world.job.replace("2021-01-01", "2023-01-01");
    let first = night(&world, 0).await;
    let second = night(&world, 1).await;
    let nightly = night(&world, 1).await;
    let since = world.sandbox.now() - TimeDelta::days(31);
    let recent = |lead: &&serde_json::Value| {
        lead["date_created"].as_str().is_some_and(|at| at.parse::<DateTime<Utc>>().unwrap() > since)
    };
    let pages = (world.sandbox.leads().iter().filter(recent).count() as u64).div_ceil(2_500);
    let profiles = world.sandbox.profile_ids().len() as u64;
    let lookups = world.lookups().len() as u64;
    assert!(nightly - lookups <= 1 + profiles + pages, "{nightly} with {lookups} lookups");
    let weekly = night(&world, 5).await;
    Nights { first, second, nightly, weekly }
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn print(provider: &str, order: &str, leads: u64, nights: &Nights) {
    let Nights { first, second, nightly, weekly } = nights;
    println!("{provider:<14}{order:<20}{leads:>8}{first:>8}{second:>8}{nightly:>9}{weekly:>8}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_costs_what_is_new_where_the_order_is_known_and_all_pages_where_it_is_not() {
    let most = number_from("LEADPIPE_NIGHTS", 0);
    let sizes = if most > 0 { vec![most / 100, most / 10, most] } else { vec![400, 1_200] };
    #[expect(clippy::print_stdout, reason = "the figures of a long run")]
    {
        println!("provider      order                  leads   first  second  nightly  weekly");
    }
    let mut of_size = Vec::new();
    for leads in sizes {
        print("whatconverts", "dates", leads, &nights_of_agency(leads).await);
        for kind in kinds() {
            let nights = nights_of(kind, leads).await;
            print(kind.provider, &format!("{:?}", kind.order), leads, &nights);
            of_size.push((leads, kind, nights));
        }
    }
    let largest = of_size.last().unwrap().0;
    for (_, kind, nights) in of_size.iter().filter(|(leads, ..)| *leads == largest) {
        match kind.order {
            Order::Id => assert!(nights.nightly >= nights.first, "{kind:?}: {nights:?}"),
            _ => assert!(nights.nightly * 2 < nights.weekly, "{kind:?}: {nights:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_another_order_at_every_request_is_not_looked_through_without_end() {
    let kind =
        Kind { provider: "whautomate", order: Order::Random, page_size: 20, listings: CONTACTS };
    let mut world = world_of(kind, 2_000).await;
    world.job.push_str("page_size = 20\n");
    let requests = night(&world, 0).await;
    let whole = pages(&world, kind, None);
    // Each page that is looked at again shows rows that none did before: all are, once.
    assert!(requests <= 2 * whole + 90, "{requests}, all are {whole}");
}
