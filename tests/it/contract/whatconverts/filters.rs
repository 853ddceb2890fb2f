//! Spam and duplicates, by default and asked for.

use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;

use crate::support::World;
use crate::support::assert_same;
use crate::support::key;

fn is(lead: &serde_json::Value, mark: &str) -> bool {
    lead[mark].as_bool().unwrap_or(false) || lead[mark].as_str() == Some("true")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_what_the_provider_gives() {
    for (spam_by_default, duplicates_by_default) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        let behaviour =
            Behaviour { spam_by_default, duplicates_by_default, ..Behaviour::default() };
        let world = World::still(behaviour).await;
        let (_, lead) = world.sandbox.lead_ids()[7];
        world.sandbox.edit(lead, Edit::Duplicate(true)).unwrap();
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        assert_eq!(world.rows().contains_key(&key(lead)), duplicates_by_default);
        let shown = world.truth_where(|lead| {
            (spam_by_default || !is(lead, "spam"))
                && (duplicates_by_default || !is(lead, "duplicate"))
        });
        let shown = shown.await;
        assert_same(&world.rows(), &shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_come_whatever_the_default_is() {
    for by_default in [true, false] {
        for false_filters_ignored in [true, false] {
            let behaviour = Behaviour {
                spam_by_default: by_default,
                duplicates_by_default: by_default,
                false_filters_ignored,
                ..Behaviour::default()
            };
            let world = World::still(behaviour).await;
            let world = world.with("spam = \"both\"\nduplicate = \"both\"");
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{summary:#?}");
            world.assert_whole().await;
            world.pass(chrono::TimeDelta::days(1));
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{summary:#?}");
            world.assert_whole().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_spam_there_is_none_and_a_changed_filter_deletes_nothing() {
    let world = World::still(Behaviour::default()).await;
    let world = world.with("spam = \"without\"\nduplicate = \"without\"");
    assert_eq!(world.sync().await.exit_code(), 0);
    let clean = world.truth_where(|lead| !is(lead, "spam") && !is(lead, "duplicate")).await;
    assert_same(&world.rows(), &clean);

    let world = world.with("");
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_whole().await;

    // Back again: what only the other query showed stays, as retired.
    let world = world.with("spam = \"without\"\nduplicate = \"without\"");
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_whole().await;
}
