//! Rows held, compared with the totals of providers.

use std::collections::BTreeMap;

use leadpipe::clock::SharedClock;
use leadpipe::run;
use leadpipe::run::Verified;
use leadpipe::run::Verify;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
use crate::support::small;
use crate::support::small_job;

async fn compared(world: &World, most: u64) -> Verified {
    let clock: SharedClock = world.clock.clone();
    let asked = Verify { remote: Some(most), ..Verify::default() };
    run::verify(world.job(), asked, clock).await.unwrap()
}

fn verdicts(verified: &Verified) -> BTreeMap<String, usize> {
    let mut verdicts = BTreeMap::new();
    for totals in &verified.totals {
        *verdicts.entry(format!("{:?}", totals.verdict)).or_default() += 1;
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_compared_for_a_request_a_span_and_a_difference_is_told() {
    let mut world = World::new(Settings { leads: 90, still: true, ..small() }).await;
    world.job = small_job("");
    world.sync().await;
    world.sandbox.clear_requests();
    let verified = compared(&world, 20).await;
    assert!(verified.is_sound, "{verified:#?}");
    let spans = verified.totals.len();
    assert_eq!(verdicts(&verified), BTreeMap::from([("Agreed".to_owned(), spans)]));
    assert_eq!(world.sandbox.requests().len(), spans);
    assert_eq!(
        verified.totals.iter().map(|totals| totals.held).sum::<u64>(),
        verified.checked.rows
    );

    let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
    world.sandbox.edit(lead, Edit::Vanish).unwrap();
    let verified = compared(&world, 20).await;
    assert!(!verified.is_sound && verified.findings.is_empty());
    assert_eq!(verdicts(&verified)["Differs"], 1, "{verified:#?}");

    world.sandbox.clear_requests();
    let verified = compared(&world, 2).await;
    assert_eq!(verdicts(&verified)["NotChecked"], spans - 2);
    assert_eq!(world.sandbox.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_without_totals_is_not_asked() {
    let settings = Settings { whautomate_accounts: 1, contacts: 30, leads: 0, ..small() };
    let mut world = World::new(settings).await;
    world.job = format!("{HEAD}{CLINIC}");
    world.sync().await;
    world.sandbox.clear_requests();
    let verified = compared(&world, 20).await;
    assert!(verified.is_sound, "{verified:#?}");
    assert_eq!(verdicts(&verified), BTreeMap::from([("NotStated".to_owned(), 1)]));
    assert_eq!(world.sandbox.requests().len(), 0);
}
