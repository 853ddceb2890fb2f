//! Fields that come and go, and leads on which the provider breaks.

use chrono::TimeDelta;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Poison;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;
use crate::support::assert_same;
use crate::support::key;
use crate::support::small;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn a_field_never_seen_before_is_named_and_kept() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    let extra_field = Some("sentiment_of_the_moon".to_owned());
    world.sandbox.behave(Behaviour { extra_field, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(acme(&summary).new_fields, ["sentiment_of_the_moon"]);
    let kept = world.column("extra").into_values().flatten();
    assert!(kept.filter(|extra| extra.contains("sentiment_of_the_moon")).count() > 0);
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert!(acme(&summary).new_fields.is_empty(), "it is news once: {summary:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_suddenly_empty_needs_a_look() {
    let mut world = World::still(Behaviour::default()).await;
    world.job = small_job("[refresh]\nevery_run = \"all\"");
    world.sync().await;
    let without_fields = vec!["lead_source".to_owned()];
    world.sandbox.behave(Behaviour { without_fields, ..Behaviour::default() });
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 13, "{summary:#?}");
    assert!(!acme(&summary).emptied_columns.is_empty(), "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_on_which_the_provider_breaks_costs_only_itself() {
    for poison_as in [Poison::ServerError, Poison::BrokenJson] {
        let world = World::still(Behaviour::default()).await;
        let ids = world.sandbox.lead_ids();
        // The first of all, one in the middle, two side by side.
        let middle = ids.len() / 2;
        let poison = vec![ids[0].1, ids[middle].1];
        world.sandbox.behave(Behaviour {
            poison: poison.clone(),
            poison_as,
            ..Behaviour::default()
        });
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 13, "{poison_as:?}: {summary:#?}");
        assert_eq!(acme(&summary).holes, 2, "{poison_as:?}");
        let mut truth = world.truth().await;
        poison.iter().for_each(|lead| drop(truth.remove(&key(*lead))));
        assert_same(&world.rows(), &truth);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_leads_on_which_the_provider_breaks_cost_some_runs_and_only_themselves() {
    let settings =
        Settings { leads: 400, years: 1, profiles: 1, accounts: 1, still: true, ..small() };
    let mut world = World::new(settings).await;
    let job = small_job("").replace("2023-10-01", "2025-10-20");
    world.job = job.replace("page_size = 50", "page_size = 500");
    let ids = world.sandbox.lead_ids();
    let poison: Vec<u64> = ids.iter().skip(3).step_by(19).map(|(_, id)| *id).collect();
    assert!(poison.len() > 15);
    world.sandbox.behave(Behaviour { poison: poison.clone(), ..Behaviour::default() });
    let mut exits = Vec::new();
    let last = loop {
        let summary = world.sync().await;
        exits.push(summary.exit_code());
        if summary.exit_code() == 13 {
            break summary;
        }
        assert!(exits.len() < 6, "{exits:?}: {summary:#?}");
        assert!(acme(&summary).requests.sent < 320, "{summary:#?}");
        world.pass(TimeDelta::hours(1));
    };
    assert!(exits.len() > 1, "one run has read all of it");
    assert_eq!(acme(&last).holes, poison.len() as u64, "{exits:?}");
    let mut truth = world.truth().await;
    poison.iter().for_each(|lead| drop(truth.remove(&key(*lead))));
    assert_same(&world.rows(), &truth);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_lead_on_which_the_provider_breaks_later_is_not_deleted() {
    for poison_as in [Poison::ServerError, Poison::BrokenJson] {
        let world = World::still(Behaviour::default()).await;
        world.sync().await;
        let ids = world.sandbox.lead_ids();
        let poison = vec![ids[ids.len() - 3].1];
        world.sandbox.behave(Behaviour { poison, poison_as, ..Behaviour::default() });
        for _ in 0..4 {
            world.pass(TimeDelta::days(1));
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 13, "{poison_as:?}: {summary:#?}");
            assert_eq!(acme(&summary).leads.gone, 0);
            world.assert_whole().await;
        }
    }
}

/// The ids of a profile's leads created on or after `day`, oldest first.
fn leads_since(world: &World, profile: u64, day: &str) -> Vec<u64> {
    let mut leads: Vec<(String, u64)> = Vec::new();
    for lead in world.sandbox.leads() {
        let created = lead["date_created"].as_str().unwrap_or_default().to_owned();
        if lead["profile_id"] == profile && created.as_str() >= day {
            leads.push((created, lead["lead_id"].as_u64().unwrap()));
        }
    }
    leads.sort();
    leads.into_iter().map(|(_, id)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_on_the_first_of_many_pages_does_not_end_the_walk() {
    let mut world = World::still(Behaviour::default()).await;
    world.job = world.job.replace("page_size = 50", "page_size = 10");
    let profiles = world.sandbox.profile_ids();
    let poison: Vec<u64> =
        profiles.iter().map(|profile| leads_since(&world, *profile, "2023-10-03")[0]).collect();
    world.sandbox.behave(Behaviour { poison: poison.clone(), ..Behaviour::default() });
    let summary = world.sync().await;
    assert_eq!(acme(&summary).holes, poison.len() as u64, "{summary:#?}");
    assert!(acme(&summary).differences.is_empty(), "{summary:#?}");
    let mut truth = world.truth().await;
    poison.iter().for_each(|lead| drop(truth.remove(&key(*lead))));
    assert_same(&world.rows(), &truth);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_very_first_page_breaks_is_read_all_the_same() {
    let mut world = World::still(Behaviour::default()).await;
    let profile = world.sandbox.profile_ids()[0];
    world.job = world.job.replace("2023-10-01", "2026-03-01").replace("\"master\"", "\"profile\"");
    let leads = leads_since(&world, profile, "2026-03-03");
    world.sandbox.behave(Behaviour { poison: vec![leads[3]], ..Behaviour::default() });
    let (token, secret) = world.sandbox.profile_key(profile).unwrap();
    let job = world.job_with_key(token, secret);
    let clock: leadpipe::clock::SharedClock = world.clock.clone();
    let observer = std::sync::Arc::new(leadpipe::run::Unobserved);
    let summary =
        leadpipe::run::sync(job, leadpipe::run::Options::default(), clock, observer).await.unwrap();
    assert_eq!((summary.exit_code(), acme(&summary).holes), (13, 1), "{summary:#?}");
    let rows = world.rows();
    let missing: Vec<u64> =
        leads.iter().copied().filter(|id| !rows.contains_key(&key(*id))).collect();
    assert_eq!(missing, [leads[3]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_cannot_be_read_does_not_keep_the_others_back() {
    let world = World::still(Behaviour::default()).await;
    let (bad, _) = world.sandbox.lead_ids()[0];
    let of_bad = |(profile, id): (u64, u64)| (profile == bad).then_some(id);
    let poison: Vec<u64> = world.sandbox.lead_ids().into_iter().filter_map(of_bad).collect();
    world.sandbox.behave(Behaviour { poison: poison.clone(), ..Behaviour::default() });
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 3, "{summary:#?}");
    let mut truth = world.truth().await;
    poison.iter().for_each(|lead| drop(truth.remove(&key(*lead))));
    assert_same(&world.rows(), &truth);
    world.sandbox.behave(Behaviour::default());
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_only_ever_gets_html_is_not_asked_in_pieces() {
    let mut world = World::still(Behaviour::default()).await;
    let profile = world.sandbox.profile_ids()[0];
    world.job = world.job.replace("\"master\"", "\"profile\"\nretries = 2");
    let fail_next = vec![leadpipe::sandbox::Fault::Html; 100];
    world.sandbox.behave(Behaviour { fail_next, ..Behaviour::default() });
    let (token, secret) = world.sandbox.profile_key(profile).unwrap();
    let job = world.job_with_key(token, secret);
    let clock: leadpipe::clock::SharedClock = world.clock.clone();
    let observer = std::sync::Arc::new(leadpipe::run::Unobserved);
    let summary =
        leadpipe::run::sync(job, leadpipe::run::Options::default(), clock, observer).await.unwrap();
    assert_eq!(summary.exit_code(), 3, "{summary:#?}");
    // At most four walks at once and five that fail in a row: three attempts and two probes each.
    assert!(acme(&summary).requests.sent <= 5 * 9, "{summary:#?}");
    assert!(world.sandbox.requests().iter().all(|request| !request.query.contains("page=25&")));
}
