//! All three providers in one job: one table, each within its own quota.

use leadpipe::sandbox::Provider;
use leadpipe::sandbox::Settings;

use crate::support::World;
use crate::support::small;

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_brings_every_lead_of_every_provider_into_one_snapshot() {
    let settings = Settings {
        whautomate_accounts: 2,
        contacts: 300,
        clients: 60,
        convertalk_bots: 3,
        chats: 120,
        whautomate_per_day: Some(432_000),
        whautomate_per_minute: Some(300),
        still: true,
        ..small()
    };
    let world = World::three(settings).await;
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    world.assert_all_whole().await;
    assert_eq!(summary.sources.len(), 4);
    for provider in [Provider::WhatConverts, Provider::Whautomate, Provider::Convertalk] {
        assert!(!world.requests_to_provider(provider).is_empty(), "{provider:?}");
    }
}
