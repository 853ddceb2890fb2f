//! What an answer beyond the allowance may look like.

use chrono::TimeDelta;
use leadpipe::run::State;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::OverQuota;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::acme;
use crate::support::small;
use crate::support::small_job;

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_the_provider_calls_spent_loses_nothing_whatever_it_answers() {
    let answers = [429, 403, 401, 200].map(|status| OverQuota::Status { status });
    for over_quota in answers.into_iter().chain([OverQuota::RetryAfter]) {
        let behaviour = Behaviour { over_quota, ..Behaviour::default() };
        // Less than our own count allows, so that the provider is the one to say so.
        let settings = Settings { per_day: Some(12), still: true, behaviour, ..small() };
        let mut world = World::new(settings).await;
        world.job = small_job("");
        let mut days = 0;
        loop {
            let before = world.sandbox.requests().len();
            let summary = world.sync().await;
            let source = acme(&summary);
            if summary.exit_code() == 0 {
                break;
            }
            assert_eq!(summary.exit_code(), 8, "{over_quota:?}: {summary:#?}");
            assert_eq!(source.state, State::Partial);
            let resume_at = summary.resume_at.expect("it says when to come back");
            assert!(resume_at > summary.ended_at);
            // As many as were in flight when the first refusal came, and no retry.
            let refused = world.sandbox.requests().len() - before - 12;
            assert!(refused <= 20, "{over_quota:?}: {refused}");
            let truth = world.truth().await;
            assert!(world.rows().iter().all(|(id, hash)| truth.get(id) == Some(hash)));

            // Before then nothing is asked.
            let sent = world.sandbox.requests().len();
            if resume_at - summary.ended_at > TimeDelta::hours(2) {
                let summary = world.sync().await;
                assert_eq!(summary.exit_code(), 8, "{over_quota:?}: {summary:#?}");
                assert_eq!(world.sandbox.requests().len(), sent, "{over_quota:?}");
            }
            world.pass(TimeDelta::hours(25));
            days += 1;
            assert!(days < 8, "{over_quota:?}: no progress");
        }
        assert!(days >= 1, "{over_quota:?}: the quota was never met");
        world.assert_whole().await;
    }
}
