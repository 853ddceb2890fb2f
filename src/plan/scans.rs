//! Decides how listings without dates are read: whole, or from the top where their order is known.
//!
//! A whole reading costs what the listing holds. Where whole readings have shown that the newest
//! stand first, every run reads from the top down to what it knows, and the whole comes round with the
//! first tier that reads anything again. The listings of one partition are read one after the other, in the order of the scopes: a
//! record that moves to a later list meanwhile is on one of them.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Basis;
use super::PlannedWalk;
use super::Price;
use super::Request;
use super::Requests;
use super::Task;
use super::Tier;
use crate::checkpoint::OpenWalk;
use crate::checkpoint::Scanned;
use crate::record::DownTo;
use crate::record::Order;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;

/// How far a reading from the top goes beyond the last one: providers' clocks and time zones are
/// not ours.
pub const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// How one listing is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    reason: Reason,
    down_to: Option<DownTo>,
}

/// Returns the walks of all listings that no open walk reads, those of a partition side by side, and
/// the names of those that are left out.
pub(super) fn plan_scans(
    request: &Request<'_>,
    open: &[OpenWalk],
) -> (Vec<PlannedWalk>, Vec<ScopeKey>) {
    let (mut walks, mut left_out) = (Vec::new(), Vec::new());
    for lists in request.scopes.chunk_by(|left, right| left.judged_as() == right.judged_as()) {
        match readings(request, lists, open) {
            Some(planned) => walks.extend(planned),
            None => left_out.push(lists[0].judged_as()),
        }
    }
    (walks, left_out)
}

/// Returns the walks of one partition; `None` where it need not be read.
fn readings(request: &Request<'_>, lists: &[Scope], open: &[OpenWalk]) -> Option<Vec<PlannedWalk>> {
    let is_open = |scope: &Scope| open.iter().any(|open| open.walk.scope == *scope);
    // What an earlier run has begun goes on with the lists that come after.
    let begun = lists.iter().rposition(is_open).map_or(0, |at| at + 1);
    let readings: Vec<Option<Reading>> = lists.iter().map(|list| reading(request, list)).collect();
    let whole = readings.iter().flatten().find(|reading| reading.down_to.is_none());
    let whole = whole.map(|whole| whole.reason).or((begun > 0).then_some(Reason::NewTime));
    if whole.is_none() && readings.iter().all(Option::is_none) {
        return None;
    }
    let rest = lists.iter().zip(readings).skip(begun);
    let planned = rest.filter_map(|(list, reading)| {
        // One list from the top and the other whole would not show what moved between them.
        let reading = match whole {
            Some(reason) => Reading { reason, down_to: None },
            None => reading?,
        };
        Some(planned(request, list, reading))
    });
    Some(planned.collect())
}

fn planned(request: &Request<'_>, scope: &Scope, reading: Reading) -> PlannedWalk {
    let scan = scanned(request, scope);
    let price = match (scan, reading.down_to) {
        (Some(scan), None) => {
            Price { requests: Requests::Known(scan.pages.max(1)), basis: Basis::Counted }
        }
        (Some(Scanned { top_pages: Some(pages), .. }), Some(_)) => {
            Price { requests: Requests::About(*pages), basis: Basis::Held }
        }
        _ => Price::UNKNOWN,
    };
    PlannedWalk {
        scope: scope.clone(),
        window: None,
        page_size: request.settings.page_size,
        reason: reading.reason,
        is_newest: true,
        down_to: reading.down_to,
        resume: None,
        requests: price.requests,
        basis: price.basis,
        as_of: scan.map(|scan| scan.as_of),
    }
}

fn scanned<'a>(request: &'a Request<'_>, scope: &Scope) -> Option<&'a Scanned> {
    request.progress.scopes.get(&scope.key())?.scan.as_ref()
}

/// Returns how a listing is to be read; `None` where it need not be.
fn reading(request: &Request<'_>, scope: &Scope) -> Option<Reading> {
    let whole = |reason| Some(Reading { reason, down_to: None });
    let scan = scanned(request, scope);
    match (&request.task, scan) {
        (Task::Sync, None) => whole(Reason::History),
        (Task::Sync, Some(scan)) => match down_to(request, scan) {
            None => whole(Reason::NewTime),
            down_to => match due(request, scan) {
                Some(tier) => whole(tier.reason),
                None => Some(Reading { reason: Reason::NewTime, down_to }),
            },
        },
        (Task::Backfill { .. }, None) => whole(Reason::Backfill),
        (Task::Backfill { again_before, .. }, Some(scan)) => {
            again_before.filter(|before| scan.as_of < *before)?;
            whole(Reason::Backfill)
        }
    }
}

/// Returns the tier by which a listing is to be read whole again. Each reads it whole, however far back
/// it reaches: there are no dates to ask by.
fn due(request: &Request<'_>, scan: &Scanned) -> Option<Tier> {
    let mut tiers = request.settings.tiers.iter().filter(|tier| tier.reaches());
    tiers.find(|tier| request.now - scan.as_of >= tier.every).copied()
}

/// Returns how far a reading from the top goes, where the order is known and not all is to be read.
fn down_to(request: &Request<'_>, scan: &Scanned) -> Option<DownTo> {
    let order = scan.order()?;
    let every_run = request.settings.every_run?;
    let known: DateTime<Utc> = scan.read_at() - OVERLAP;
    let at = match order {
        Order::Updated => known,
        // A late change does not bring it up: the days of every run are read, as with windows.
        Order::Created => known.min(request.now - every_run),
    };
    Some(DownTo { order, at })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::ScopeProgress;
    use crate::checkpoint::SourceProgress;
    use crate::ids::Seq;
    use crate::ids::WalkId;
    use crate::plan::Settings;
    use crate::plan::SourcePlan;
    use crate::plan::plan;
    use crate::record::Walk;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn scope(partition: &str, list: &str) -> Scope {
        Scope {
            source: "bots".parse().unwrap(),
            stream: "chats".into(),
            partition: partition.into(),
            query: String::new(),
            list: list.into(),
        }
    }

    fn bots() -> Vec<Scope> {
        let lists = |bot| ["non-lead", "lead"].map(|list| scope(bot, list));
        ["bot:1", "bot:2"].into_iter().flat_map(lists).collect()
    }

    fn scanned_on(at: i64, ordered: u32) -> ScopeProgress {
        let scan = Scanned {
            as_of: day(at),
            rows: 100,
            pages: 6,
            holes: 0,
            least_rejects: None,
            top_as_of: None,
            top_pages: None,
            newest_created_first: 0,
            newest_updated_first: ordered,
        };
        ScopeProgress { scan: Some(scan), ..ScopeProgress::default() }
    }

    fn read_on(at: i64, ordered: u32) -> SourceProgress {
        let scopes = bots().iter().map(|bot| (bot.key(), scanned_on(at, ordered))).collect();
        SourceProgress { scopes, ..SourceProgress::default() }
    }

    fn plan_on(now: i64, progress: &SourceProgress, task: Task) -> SourcePlan {
        let settings = Settings {
            start: None,
            window_days: 400,
            page_size: 100,
            settle: TimeDelta::zero(),
            every_run: Some(TimeDelta::days(30)),
            tiers: vec![Tier::weekly(Some(TimeDelta::days(400))), Tier::monthly(None)],
            spare: 0,
            walk_max_age: TimeDelta::days(30),
            oldest_first: false,
        };
        let (scopes, probed) = (bots(), BTreeMap::new());
        let (progress, now) = (progress, day(now));
        let (scopes, probed, left_to_backfills) = (&scopes, &probed, &[]);
        plan(&Request { scopes, progress, probed, left_to_backfills, now, settings, task })
    }

    fn said(plan: &SourcePlan) -> Vec<String> {
        let walk = |walk: &PlannedWalk| {
            let how = if walk.down_to.is_some() { "top" } else { "whole" };
            format!("{} {how} {:?}", walk.scope.key(), walk.reason)
        };
        plan.walks.iter().map(walk).collect()
    }

    #[test]
    fn what_was_never_read_is_read_whole_list_by_list() {
        let plan = plan_on(10, &SourceProgress::default(), Task::Sync);
        assert_eq!(
            said(&plan),
            [
                "chats/bot:1/non-lead whole History",
                "chats/bot:1/lead whole History",
                "chats/bot:2/non-lead whole History",
                "chats/bot:2/lead whole History",
            ]
        );
    }

    #[test]
    fn without_a_known_order_every_run_reads_all_at_a_known_price() {
        let plan = plan_on(10, &read_on(9, 1), Task::Sync);
        assert_eq!(said(&plan)[0], "chats/bot:1/non-lead whole NewTime");
        assert_eq!(plan.requests(), Requests::Known(24));
    }

    #[test]
    fn with_a_known_order_runs_read_the_top_and_once_a_week_all() {
        let plan = plan_on(15, &read_on(9, 2), Task::Sync);
        assert_eq!(said(&plan)[1], "chats/bot:1/lead top NewTime");
        let down_to = plan.walks[1].down_to.unwrap();
        assert_eq!((down_to.order, down_to.at), (Order::Updated, day(8)));
        let plan = plan_on(16, &read_on(9, 2), Task::Sync);
        assert_eq!(said(&plan)[1], "chats/bot:1/lead whole Weekly");
    }

    #[test]
    fn a_list_that_must_be_whole_makes_the_other_lists_of_its_bot_whole() {
        let mut progress = read_on(9, 2);
        progress.scopes.insert(scope("bot:1", "lead").key(), scanned_on(9, 0));
        let plan = plan_on(10, &progress, Task::Sync);
        assert_eq!(said(&plan)[0], "chats/bot:1/non-lead whole NewTime");
        assert_eq!(said(&plan)[2], "chats/bot:2/non-lead top NewTime");
    }

    #[test]
    fn an_open_walk_goes_on_and_only_the_lists_after_it_follow() {
        let mut progress = read_on(9, 2);
        let walk = Walk {
            id: WalkId::new(Seq(1)),
            scope: scope("bot:1", "non-lead"),
            window: None,
            page_size: 100,
            opened_at: day(9),
            reason: Reason::NewTime,
            down_to: None,
        };
        progress.open_walks.push(OpenWalk {
            walk,
            loaded_pages: 0,
            stated_rows: None,
            advanced_at: None,
        });
        let plan = plan_on(10, &progress, Task::Sync);
        assert_eq!(
            said(&plan)[..2],
            ["chats/bot:1/non-lead whole Resume", "chats/bot:1/lead whole NewTime"]
        );
        assert_eq!(plan.walks.len(), 4);
        progress.open_walks[0].walk.scope.list = "lead".into();
        let plan = plan_on(10, &progress, Task::Sync);
        assert_eq!(
            said(&plan)[..2],
            ["chats/bot:1/lead whole Resume", "chats/bot:2/non-lead top NewTime"]
        );
    }

    #[test]
    fn a_backfill_reads_what_was_never_read_and_leaves_out_the_rest() {
        use crate::window::Window;
        let range = Window::new(day(0), day(5)).unwrap();
        let plan = plan_on(10, &read_on(9, 2), Task::Backfill { range, again_before: None });
        assert!(plan.walks.is_empty());
        assert_eq!(plan.left_out, ["chats/bot:1", "chats/bot:2"].map(|key| ScopeKey(key.into())));
        let again = Task::Backfill { range, again_before: Some(day(10)) };
        let plan = plan_on(10, &read_on(9, 2), again);
        assert_eq!(said(&plan)[0], "chats/bot:1/non-lead whole Backfill");
        assert_eq!(plan.walks.len(), 4);
    }
}
