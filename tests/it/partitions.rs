//! Which listings a master key is read by: a profile's, an account's, or one of all.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use chrono::TimeDelta;
use leadpipe::run::Options;
use leadpipe::run::State;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;
use crate::support::key;
use crate::support::parameter;
use crate::support::small_job;

const PROFILES: usize = 6;
const ACCOUNTS: usize = 2;

/// Each way, and how many listings it takes.
const WAYS: [(&str, usize); 3] = [("profile", PROFILES), ("account", ACCOUNTS), ("none", 1)];

/// Six profiles of two accounts whose leads of a year fill a page each at most.
async fn agency() -> World {
    let settings = Settings {
        leads: 240,
        years: 1,
        accounts: ACCOUNTS as u32,
        profiles: PROFILES as u32,
        still: true,
        behaviour: Behaviour::default(),
        ..Settings::default()
    };
    World::new(settings).await
}

/// A job that reads all of it every night in one window.
fn read_by(world: &mut World, way: &str) {
    let more = format!("partition_by = \"{way}\"\n[refresh]\nevery_run = \"380d\"");
    let job = small_job(&more).replace("page_size = 50", "page_size = 500");
    world.job = job.replace("2023-10-01", "2025-10-20");
}

/// The names of the scopes that rows stand under.
fn scopes_of_rows(world: &World) -> BTreeSet<String> {
    world.column("_scope").into_values().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_gives_the_same_leads_for_a_request_a_listing_and_window() {
    let mut contents = Vec::new();
    for (way, listings) in WAYS {
        let mut world = agency().await;
        read_by(&mut world, way);
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{way}: {summary:#?}");
        world.assert_whole().await;
        assert_eq!(world.listings().len(), listings, "{way}");
        let beside = usize::from(way != "none");
        assert_eq!(world.sandbox.requests().len(), listings + beside, "{way}");
        assert_eq!(scopes_of_rows(&world).len(), listings, "{way}");
        let custom_fields = world.column("custom_fields").into_values().flatten();
        let has_custom_fields = custom_fields.filter(|fields| fields != "{}").count() > 0;
        assert_eq!(has_custom_fields, way == "profile", "{way}");
        contents.push(content(&world));
    }
    assert!(contents[0].len() > 200);
    assert_eq!(contents[0], contents[1]);
    assert_eq!(contents[1], contents[2]);
}

/// What a listing of more than a profile does not show (`field_mappings` are in `extra`), and what is
/// made with the key of a lake.
const OTHER: [&str; 4] = ["custom_fields", "extra", "email_key", "phone_key"];

/// Every row without what may differ, and without lineage.
fn content(world: &World) -> BTreeMap<String, String> {
    let columns: Vec<&str> = leadpipe::schema::lead::COLUMNS
        .iter()
        .filter(|column| !column.lineage && !OTHER.contains(&column.name))
        .map(|column| column.name)
        .collect();
    let mut rows = BTreeMap::new();
    for part in world.head().sources.values().flat_map(|source| &source.parts) {
        for batch in world.batches(&part.file.path, &columns) {
            let ids = batch.column_by_name("lead_id").unwrap().clone();
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| cell(column, row));
                rows.insert(cell(&ids, row), cells.collect::<Vec<_>>().join("|"));
            }
        }
    }
    rows
}

fn cell(column: &arrow::array::ArrayRef, row: usize) -> String {
    format!("{:?}", column.slice(row, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_a_profile_an_account_or_nothing() {
    for (way, named) in [("profile", "profile_id"), ("account", "account_id"), ("none", "")] {
        let mut world = agency().await;
        read_by(&mut world, way);
        world.sync().await;
        for request in world.listings() {
            let names = ["profile_id", "account_id"]
                .into_iter()
                .filter(|name| parameter(&request, name).is_some())
                .collect::<Vec<_>>();
            assert_eq!(names.join(" "), named, "{way}: {}", request.query);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_loses_and_deletes_nothing_and_deletions_are_found_after_it() {
    for (from, _) in WAYS {
        for (to, listings) in WAYS.into_iter().filter(|(to, _)| *to != from) {
            let what = format!("{from} to {to}");
            let mut world = agency().await;
            read_by(&mut world, from);
            assert_eq!(world.sync().await.exit_code(), 0, "{what}");
            let held = world.rows().into_keys().collect::<Vec<_>>();
            let young: Vec<u64> = world.sandbox.lead_ids().into_iter().map(|(_, id)| id).collect();
            let (before, after) = (young[3], young[90]);

            // It vanishes before the new listings are known: no reading of theirs has missed it.
            world.sandbox.edit(before, Edit::Vanish).unwrap();
            world.pass(TimeDelta::days(1));
            read_by(&mut world, to);
            let summary = world.sync().await;
            let source = acme(&summary);
            assert_eq!((source.state, source.leads.gone), (State::Complete, 0), "{what}");
            let rows = world.rows();
            assert!(held.iter().all(|lead| rows.contains_key(lead)), "{what}: a lead is lost");
            assert_eq!(scopes_of_rows(&world).len(), listings + 1, "{what}");

            world.sandbox.edit(after, Edit::Vanish).unwrap();
            world.pass(TimeDelta::days(1));
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{what}: {summary:#?}");
            assert_eq!(acme(&summary).leads.gone, 1, "{what}");
            assert!(!world.rows().contains_key(&key(after)), "{what}");
            let mut truth = world.truth().await;
            truth.insert(key(before), world.rows()[&key(before)].clone());
            crate::support::assert_same(&world.rows(), &truth);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_a_listing_of_many_profiles_misses_is_asked_for_once_and_kept_as_shown() {
    for (way, _) in &WAYS[1..] {
        let mut world = agency().await;
        read_by(&mut world, way);
        world.sync().await;
        let (_, id) = world.sandbox.lead_ids()[50];
        // Beyond the window, where nothing was read: only a question by id finds it.
        let long_ago = world.sandbox.now() - TimeDelta::days(900);
        world.sandbox.edit(id, Edit::Created(long_ago)).unwrap();
        world.pass(TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{way}: {summary:#?}");
        let lookups = world.lookups();
        assert_eq!((lookups.len(), acme(&summary).requests.lookups), (1, 1), "{way}");
        assert_eq!(lookups[0].query, "", "{way}: no profile is named");
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_job_says_of_a_profile_holds_in_any_listing() {
    for (way, _) in WAYS {
        let mut world = agency().await;
        read_by(&mut world, way);
        let british = world.sandbox.profile_ids()[1];
        let table = format!("[sources.profiles.{british}]\ncurrency = \"GBP\"\n[refresh]");
        world.job = world.job.replace("[refresh]", &table);
        assert_eq!(world.sync().await.exit_code(), 0, "{way}");
        world.assert_whole().await;
        let (profiles, currencies) = (world.column("profile_id"), world.column("currency"));
        let mut seen = BTreeSet::new();
        for (lead, currency) in currencies {
            let is_british = profiles[&lead] == Some(british.to_string());
            let Some(currency) = currency else { continue };
            assert_eq!(currency == "GBP", is_british, "{way}: {lead}");
            seen.insert(currency);
        }
        assert_eq!(seen.len(), 2, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_of_one_way_is_not_gone_on_with_in_another() {
    let mut world = agency().await;
    read_by(&mut world, "profile");
    world.job = world.job.replace("page_size = 500", "page_size = 20");
    world.sync_with(Options { max_requests: Some(4), ..Options::default() }).await;
    world.pass(TimeDelta::minutes(5));
    let job = world.job.replace("\"profile\"", "\"none\"");
    world.job = job;
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), acme(&summary).resumed), (0, 0), "{summary:#?}");
    world.assert_whole().await;
    assert_eq!(scopes_of_rows(&world), BTreeSet::from(["all".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_counts_no_list_of_accounts_where_one_listing_shows_all() {
    for (way, listings) in WAYS {
        let mut world = agency().await;
        read_by(&mut world, "profile");
        world.sync().await;
        world.sandbox.clear_requests();
        read_by(&mut world, way);
        let clock: leadpipe::clock::SharedClock = world.clock.clone();
        let planned = leadpipe::run::preview(world.job(), None, Options::default(), clock);
        let planned = planned.await.unwrap().sources.remove(0);
        assert_eq!(planned.listing_requests, u64::from(way != "none"), "{way}");
        assert_eq!(planned.plan.walks.len(), listings, "{way}");
        assert!(world.sandbox.requests().is_empty(), "{way}");
    }
}
