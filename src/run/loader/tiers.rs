//! Which refresh tier the changes that a walk brings are counted for.
//!
//! What every run reads may come with a slower walk: a weekly one may be read together with the new
//! days, and reads them instead. A change counts for what every run reads where that would have
//! shown it too, else for the tier of the walk.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::RefreshTier;
use crate::checkpoint::Scanned;
use crate::config::Reach;
use crate::config::RefreshSettings;
use crate::config::SourceSettings;
use crate::load::Rule;
use crate::load::Shown;
use crate::plan;
use crate::record::Order;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::Walk;
use chrono::TimeDelta;

/// Returns what is known of a listing without dates; while it is read, from the reading before.
pub(super) fn scan_before<'a>(checkpoint: &'a Checkpoint, scope: &Scope) -> Option<&'a Scanned> {
    checkpoint.sources.get(&scope.source)?.scopes.get(&scope.key())?.scan.as_ref()
}

/// Returns the rules by which the changes of a walk are counted; none where it reads for the first
/// time.
pub(super) fn rules(
    walk: &Walk,
    refresh: &RefreshSettings,
    source: &SourceSettings,
    scan: Option<&Scanned>,
) -> Vec<Rule> {
    let has_dates = source.start().is_some();
    let every_run = match (has_dates, scan.and_then(Scanned::order), scan) {
        (false, None, _) => Shown::All,
        (false, Some(Order::Updated), Some(scan)) if refresh.every_run != Reach::All => {
            Shown::UpdatedSince(scan.read_at() - plan::OVERLAP)
        }
        _ => shown(refresh.every_run),
    };
    let every_run = Rule { tier: RefreshTier::EveryRun, shown: every_run };
    let or_all = |tier| vec![every_run, Rule { tier, shown: Shown::All }];
    match walk.reason {
        Reason::NewTime => vec![Rule { shown: Shown::All, ..every_run }],
        Reason::Weekly => or_all(RefreshTier::Weekly),
        Reason::Monthly => or_all(RefreshTier::Monthly),
        Reason::Spare => or_all(RefreshTier::Spare),
        Reason::Backfill => or_all(RefreshTier::AskedFor),
        // A lead is asked for by id since what reads its place did not show it.
        Reason::Lookup => [vec![every_run], of_lookup(refresh, has_dates)].concat(),
        // An open walk keeps the reason that it was begun for.
        Reason::History | Reason::Resume => Vec::new(),
    }
}

/// Returns the rules beyond what every run reads: the first tier that reaches a lead. Listings
/// without dates are read whole by the first tier that reaches anything.
fn of_lookup(refresh: &RefreshSettings, has_dates: bool) -> Vec<Rule> {
    let tiers = [(RefreshTier::Weekly, refresh.weekly), (RefreshTier::Monthly, refresh.monthly)];
    let reaches = |reach| reach != Reach::Back(TimeDelta::zero());
    let tiers = tiers.into_iter().filter(|(_, reach)| reaches(*reach));
    let rule = |(tier, reach)| {
        let shown = if has_dates { shown(reach) } else { Shown::All };
        Rule { tier, shown }
    };
    let spare = Rule { tier: RefreshTier::Spare, shown: Shown::All };
    tiers.map(rule).chain([spare]).collect()
}

fn shown(reach: Reach) -> Shown {
    match reach {
        Reach::All => Shown::All,
        Reach::Back(back) => Shown::Younger(back),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Job;
    use crate::ids::Seq;
    use crate::ids::WalkId;
    use chrono::DateTime;
    use std::path::Path;

    const JOB: &str = r#"
name = "test"
lake = "lake"

[[sources]]
name = "acme"
provider = "whatconverts"
token = { env = "UNUSED" }
secret = { env = "UNUSED" }
plan = "master"
start = 2021-01-01

[[sources]]
name = "clinic"
provider = "whautomate"
api_key = { env = "UNUSED" }
plan = "subscribed"
"#;

    fn walk(reason: Reason) -> Walk {
        let scope = Scope {
            source: "acme".parse().unwrap(),
            stream: "leads".into(),
            partition: "all".into(),
            query: String::new(),
            list: String::new(),
        };
        Walk {
            id: WalkId::new(Seq(1)),
            scope,
            window: None,
            page_size: 100,
            opened_at: DateTime::UNIX_EPOCH,
            reason,
            down_to: None,
        }
    }

    fn scanned(created: u32, updated: u32) -> Scanned {
        Scanned {
            as_of: DateTime::UNIX_EPOCH,
            rows: 100,
            pages: 1,
            holes: 0,
            least_rejects: None,
            top_as_of: Some(DateTime::UNIX_EPOCH + TimeDelta::days(9)),
            top_pages: None,
            newest_created_first: created,
            newest_updated_first: updated,
        }
    }

    fn of(source: usize, reason: Reason, scan: Option<&Scanned>) -> Vec<(RefreshTier, Shown)> {
        let job = Job::parse(JOB, Path::new("job.toml")).unwrap();
        let rules = rules(&walk(reason), &job.refresh, &job.sources[source], scan);
        rules.into_iter().map(|rule| (rule.tier, rule.shown)).collect()
    }

    const EVERY_RUN: (RefreshTier, Shown) =
        (RefreshTier::EveryRun, Shown::Younger(TimeDelta::days(30)));

    #[test]
    fn what_every_run_would_have_shown_counts_for_it_whatever_walk_brought_it() {
        let by = |reason| of(0, reason, None);
        assert_eq!(by(Reason::NewTime), [(RefreshTier::EveryRun, Shown::All)]);
        assert_eq!(by(Reason::Weekly), [EVERY_RUN, (RefreshTier::Weekly, Shown::All)]);
        assert_eq!(by(Reason::Monthly), [EVERY_RUN, (RefreshTier::Monthly, Shown::All)]);
        assert_eq!(by(Reason::Spare), [EVERY_RUN, (RefreshTier::Spare, Shown::All)]);
        assert_eq!(by(Reason::Backfill), [EVERY_RUN, (RefreshTier::AskedFor, Shown::All)]);
        assert_eq!(by(Reason::History), []);
    }

    #[test]
    fn a_lead_asked_for_by_id_counts_for_the_tier_that_reaches_it() {
        let weekly = (RefreshTier::Weekly, Shown::Younger(TimeDelta::days(400)));
        let monthly = (RefreshTier::Monthly, Shown::All);
        let spare = (RefreshTier::Spare, Shown::All);
        assert_eq!(of(0, Reason::Lookup, None), [EVERY_RUN, weekly, monthly, spare]);
        let ordered = scanned(2, 0);
        let of_scan = of(1, Reason::Lookup, Some(&ordered));
        assert_eq!(of_scan[..2], [EVERY_RUN, (RefreshTier::Weekly, Shown::All)]);
    }

    #[test]
    fn what_every_run_reads_of_a_listing_without_dates_goes_by_its_order() {
        let weekly = |scan: &Scanned| of(1, Reason::Weekly, Some(scan))[0];
        assert_eq!(weekly(&scanned(2, 0)), EVERY_RUN);
        let from_top = Shown::UpdatedSince(DateTime::UNIX_EPOCH + TimeDelta::days(8));
        assert_eq!(weekly(&scanned(0, 2)), (RefreshTier::EveryRun, from_top));
        assert_eq!(weekly(&scanned(1, 1)), (RefreshTier::EveryRun, Shown::All));
    }
}
