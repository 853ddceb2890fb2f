//! Accidents: none of them may cost a lead, and no credential may travel.

use chrono::TimeDelta;
use leadpipe::run::State;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::FaultRate;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;

fn every_kind() -> Vec<Fault> {
    vec![
        Fault::Status { status: 500 },
        Fault::Status { status: 502 },
        Fault::Status { status: 503 },
        Fault::Status { status: 408 },
        Fault::SlowDown { retry_after: 30 },
        Fault::Reset,
        Fault::Close,
        Fault::CutBody,
        Fault::CutJson,
        Fault::Html,
        Fault::Stall { ms: 3 },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_accident_at_random_costs_no_lead() {
    for seed in 1..=3 {
        let faults = every_kind().into_iter().map(|fault| FaultRate { fault, per_mille: 20 });
        let behaviour = Behaviour { faults: faults.collect(), ..Behaviour::default() };
        let settings = Settings { seed, still: true, behaviour, ..crate::support::small() };
        let mut world = World::new(settings).await;
        world.job = crate::support::small_job("");
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{seed}: {summary:#?}");
        world.assert_whole().await;
        let requests = world.sandbox.requests();
        let failed = requests.iter().filter(|request| {
            request.fault.as_ref().is_some_and(|fault| !matches!(fault, Fault::Stall { .. }))
        });
        let retries = acme(&summary).requests.retries;
        assert_eq!(failed.count() as u64, retries, "every retry has its accident");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_within_the_retries_is_lived_through_in_any_place() {
    for (place, fault) in every_kind().into_iter().enumerate() {
        for skip in [[0, 3][place % 2]] {
            let mut fail_next = vec![Fault::Stall { ms: 0 }; skip];
            fail_next.extend(vec![fault.clone(); 3]);
            let world = World::still(Behaviour { fail_next, ..Behaviour::default() }).await;
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{fault:?} after {skip}: {summary:#?}");
            world.assert_whole().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_answers_nothing_but_accidents_leaves_the_old_snapshot() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    for fault in [Fault::Html, Fault::CutJson, Fault::Reset, Fault::Status { status: 503 }] {
        let faults = vec![FaultRate { fault: fault.clone(), per_mille: 1_000 }];
        world.sandbox.behave(Behaviour { faults, ..Behaviour::default() });
        world.sandbox.clear_requests();
        world.pass(TimeDelta::days(1));
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 3, "{fault:?}: {summary:#?}");
        assert_eq!(world.sandbox.requests().len(), 6, "{fault:?}: one attempt and five retries");
        world.assert_whole().await;
    }
    world.sandbox.behave(Behaviour::default());
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_inside_a_200_is_shown_in_the_providers_words() {
    let fail_next = vec![Fault::Stall { ms: 0 }, Fault::ErrorInside];
    let world = World::still(Behaviour { fail_next, ..Behaviour::default() }).await;
    let summary = world.sync().await;
    assert_ne!(summary.exit_code(), 13, "{summary:#?}");
    world.pass(TimeDelta::minutes(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_never_follow_a_redirect_to_another_host() {
    let world = World::still(Behaviour::default()).await;
    let elsewhere = Sandbox::start(crate::support::small(), 0, world.clock.clone()).await.unwrap();
    let to = format!("{}/api/v1/accounts", elsewhere.url());
    let fail_next = vec![Fault::Redirect { to }];
    world.sandbox.behave(Behaviour { fail_next, ..Behaviour::default() });
    let summary = world.sync().await;
    assert_eq!(acme(&summary).state, State::Failed, "{summary:#?}");
    assert!(acme(&summary).why.as_ref().unwrap().contains("another origin"), "{summary:#?}");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_without_a_retry_and_nothing_is_lost() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.sandbox.clear_requests();
    world.pass(TimeDelta::days(1));
    let job = world.job_with_key("1-0".into(), "wrong".into());
    let clock: leadpipe::clock::SharedClock = world.clock.clone();
    let observer = std::sync::Arc::new(leadpipe::run::Unobserved);
    let summary = leadpipe::run::sync(job, leadpipe::run::Options::default(), clock, observer);
    let summary = summary.await.unwrap();
    assert_eq!(summary.exit_code(), 12, "{summary:#?}");
    assert!(!format!("{summary:?}").contains("wrong"));
    assert_eq!(world.sandbox.requests().len(), 1);
    world.assert_whole().await;
}
