//! Ledgers and keys that are lost or damaged.

use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use leadpipe::error::Hint;
use leadpipe::run::Kind;
use leadpipe::run::Options;

use super::Nights;
use super::cut;
use super::flip;
use super::kinds;
use super::ledger;
use super::living;

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_lost_lets_nothing_be_sent_until_all_that_was_sent_has_lapsed() {
    let nights = Nights::new().await;
    let at = nights.at(&ledger(&nights));
    let damages: [fn(&Path); 2] = [|at| fs::remove_file(at).unwrap(), |at| flip(at, 301)];
    for (damage, kind) in damages.into_iter().zip([Kind::LedgerMissing, Kind::LedgerDamaged]) {
        assert_eq!(nights.world.sync().await.exit_code(), 0);
        damage(&at);
        assert_eq!(kinds(&nights.verify(false).await), [kind]);
        assert!(nights.verify(true).await.is_sound);
        nights.world.sandbox.clear_requests();
        nights.world.pass(TimeDelta::hours(20));
        let blocked = nights.world.sync().await;
        assert_eq!(blocked.exit_code(), 8, "{blocked:#?}");
        assert_eq!(nights.world.sandbox.requests().len(), 0);
        nights.world.pass(TimeDelta::hours(5));
        assert_eq!(nights.world.sync().await.exit_code(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_missing_after_a_run_that_failed_is_noticed() {
    let nights = Nights::new().await;
    nights.world.pass(TimeDelta::hours(25));
    let (part, at) = (living(&nights, false), nights.at(&ledger(&nights)));
    let whole = fs::read(&part).unwrap();
    fs::remove_file(&at).unwrap();
    assert_eq!(kinds(&nights.verify(false).await), []);
    cut(&part, 1_000);
    nights.world.try_sync(Options::default()).await.unwrap_err();
    fs::write(&part, whole).unwrap();
    assert_eq!(kinds(&nights.verify(false).await), [Kind::LedgerMissing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_lost_is_never_made_anew() {
    let nights = Nights::new().await;
    let at = nights.at("state/key");
    let key = fs::read(&at).unwrap();
    let damages: [fn(&Path); 2] = [|at| fs::remove_file(at).unwrap(), |at| flip(at, 1)];
    for (damage, kind) in damages.into_iter().zip([Kind::KeyMissing, Kind::KeyDiffers]) {
        damage(&at);
        assert_eq!(kinds(&nights.verify(false).await), [kind]);
        assert_eq!(kinds(&nights.verify(true).await), [kind]);
        let error = nights.world.try_sync(Options::default()).await.unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("key")), "{error}");
        fs::write(&at, &key).unwrap();
        assert!(nights.verify(false).await.is_sound);
    }
}
