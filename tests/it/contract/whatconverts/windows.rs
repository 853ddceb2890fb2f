//! The names of the date parameters, and ranges that are too long.

use chrono::TimeDelta;
use leadpipe::checkpoint::ScopeProgress;
use leadpipe::run::State;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::DateOnlyEnd;
use leadpipe::sandbox::DateParameters;
use leadpipe::sandbox::OverRange;

use crate::support::World;
use crate::support::acme;

const OTHER_NAMES: &str = r#"date_parameters = ["date_start", "date_end"]"#;

fn dates(date_parameters: DateParameters) -> Behaviour {
    Behaviour { date_parameters, ..Behaviour::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_dates_are_an_error_that_names_the_setting_and_the_setting_helps() {
    for (understood, setting) in
        [(DateParameters::DateStartEnd, OTHER_NAMES), (DateParameters::StartEnd, "")]
    {
        let wrong = if setting.is_empty() { OTHER_NAMES } else { "" };
        let mut world = World::still(dates(understood)).await.with(wrong);
        let summary = world.sync().await;
        let source = acme(&summary);
        assert_eq!((summary.exit_code(), source.state), (3, State::Failed));
        assert!(source.why.as_ref().unwrap().contains("ignores the window"), "{source:?}");
        assert!(source.hint.as_ref().unwrap().contains("date_parameters"), "{source:?}");
        assert!(world.rows().is_empty());

        world = world.with(setting);
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_that_stop_being_understood_leave_the_old_snapshot() {
    let world = World::still(Behaviour::default()).await;
    world.sync().await;
    world.sandbox.behave(dates(DateParameters::None));
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 3, "{summary:#?}");
    world.assert_whole().await;
    world.sandbox.behave(Behaviour::default());
    world.pass(TimeDelta::days(1));
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_only_end_and_a_short_default_range_change_nothing() {
    let behaviour = Behaviour {
        date_only_end: DateOnlyEnd::FirstInstant,
        default_days: Some(30),
        ..Behaviour::default()
    };
    let world = World::still(behaviour).await;
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_which_a_day_less_is_allowed_is_asked_for_again_and_remembered() {
    for status in [400, 404, 410, 422, 200] {
        let over_range = OverRange::Refuse { status };
        let behaviour = Behaviour { over_range, max_range_days: 399, ..Behaviour::default() };
        let world = World::still(behaviour).await;
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{status}: {summary:#?}");
        world.assert_whole().await;
        let head = world.head();
        let progress = head.checkpoint.sources.values().next().unwrap();
        let remembered = |scope: &ScopeProgress| scope.window_days == Some(399);
        assert!(progress.scopes.values().all(remembered), "{status}");
        assert!(progress.open_walks.is_empty(), "{status}");
        // Windows were planned before anybody knew; each costs one refusal, and then no more.
        let refused = |world: &World| {
            world.listings().iter().filter(|r| r.status != 200 || status == 200).count()
        };
        if status != 200 {
            assert!(refused(&world) <= 3 * 3, "{status}: {}", refused(&world));
        }
        world.sandbox.clear_requests();
        world.pass(TimeDelta::days(1));
        assert_eq!(world.sync().await.exit_code(), 0);
        assert!(world.listings().iter().all(|request| request.status == 200));
        world.assert_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_cut_in_silence_beyond_the_documented_days_is_never_asked_for() {
    let behaviour = Behaviour { over_range: OverRange::Cut, ..Behaviour::default() };
    let world = World::still(behaviour).await;
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_shorter_range_is_an_error_with_the_providers_words_and_window_days_helps() {
    let behaviour = Behaviour { max_range_days: 90, ..Behaviour::default() };
    let world = World::still(behaviour).await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 3, "{summary:#?}");
    assert!(acme(&summary).why.as_ref().unwrap().contains("refused"), "{summary:#?}");
    let world = world.with("window_days = 90");
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}
