//! Which refresh tier caught how many changes, and what would have become of them without it.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Serialize;

use super::Table;
use super::number;
use super::status::age;
use crate::checkpoint::AgeClass;
use crate::checkpoint::Caught;
use crate::checkpoint::RefreshTier;
use crate::config::Reach;
use crate::config::RefreshSettings;
use crate::record::Order;

/// Which tier caught how many changes of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaughtStatus {
    /// Since when they are counted: about 90 days, or since the first run that counted.
    pub since: DateTime<Utc>,
    /// The tiers that read anything or have caught any, the most frequent first.
    pub tiers: Vec<TierStatus>,
}

/// What a tier reads, and what it caught.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierStatus {
    /// The tier.
    pub tier: RefreshTier,
    /// How far back it reads.
    pub reaches: Reaches,
    /// Changed leads it has caught.
    pub caught: u64,
    /// Of these, how many were of which age.
    pub ages: BTreeMap<AgeClass, u64>,
    /// What would become of such changes without the tier; `None` where nothing can be said.
    pub without: Option<Without>,
}

/// How far back a tier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reaches {
    /// Leads created so long ago.
    Back {
        /// So many hours.
        hours: i64,
    },
    /// All leads.
    All,
    /// Leads that changed since the last reading, of listings that show them first.
    LastChanged,
    /// Each listing of the source as its order allows.
    ByListing,
    /// What no tier reaches.
    Rest,
    /// Whatever somebody asked for.
    Asked,
}

/// What would become of changes without the tier that caught them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    /// A slower tier would show them.
    Later {
        /// That tier.
        by: RefreshTier,
        /// So many days later, at most.
        days: u32,
    },
    /// Only spare permits would show them, where there are any.
    Spare,
    /// Nothing would show those of leads older than this.
    NeverBeyond {
        /// So many hours.
        hours: i64,
    },
    /// Nothing would show them.
    Never,
}

/// How the listings of a source are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listings {
    /// By date.
    Dated,
    /// Without dates, each in an order that is known or not.
    Undated(Vec<Option<Order>>),
}

/// Returns what each tier of a job reads of a source and has caught since `since`.
pub fn caught_status(
    since: DateTime<Utc>,
    caught: &Caught,
    refresh: &RefreshSettings,
    listings: &Listings,
) -> CaughtStatus {
    let scheduled = match listings {
        Listings::Dated => dated(refresh),
        Listings::Undated(orders) => undated(refresh, orders),
    };
    let asked = (RefreshTier::AskedFor, Reaches::Asked, false, None);
    let tiers =
        scheduled.into_iter().chain([asked]).filter_map(|(tier, reaches, reads, without)| {
            let count = caught.of(tier);
            let status =
                TierStatus { tier, reaches, caught: count, ages: caught.ages(tier), without };
            (reads || count > 0).then_some(status)
        });
    CaughtStatus { since, tiers: tiers.collect() }
}

/// A tier, how far back it reads, whether it reads anything, and what would be without it.
type Scheduled = (RefreshTier, Reaches, bool, Option<Without>);

/// What every run, week and month reads again, and the days from one time to the next.
fn steps(refresh: &RefreshSettings) -> [(RefreshTier, Reach, u32); 3] {
    [
        (RefreshTier::EveryRun, refresh.every_run, 1),
        (RefreshTier::Weekly, refresh.weekly, 7),
        (RefreshTier::Monthly, refresh.monthly, 30),
    ]
}

fn dated(refresh: &RefreshSettings) -> Vec<Scheduled> {
    let steps = steps(refresh);
    let has_spare = refresh.spare.get() > 0.0;
    let farthest = |reach: &[(RefreshTier, Reach, u32)]| {
        reach.iter().map(|(_, reach, _)| length(*reach)).max().unwrap_or_default()
    };
    let mut scheduled: Vec<Scheduled> = Vec::new();
    for (at, (tier, reach, _)) in steps.into_iter().enumerate() {
        let (before, slower) = (farthest(&steps[..at]), &steps[at + 1..]);
        let later = slower.iter().find(|(_, other, _)| length(*other) >= length(reach));
        let without = match (later, farthest(slower)) {
            (Some((by, _, days)), _) => Without::Later { by: *by, days: *days },
            (None, _) if has_spare => Without::Spare,
            (None, rest) if rest > before => Without::NeverBeyond { hours: rest.num_hours() },
            (None, _) => Without::Never,
        };
        let reads = at == 0 || length(reach) > before;
        scheduled.push((tier, reaches(reach), reads, Some(without)));
    }
    let is_left = has_spare && farthest(&steps) < TimeDelta::MAX;
    scheduled.push((RefreshTier::Spare, Reaches::Rest, is_left, Some(Without::Never)));
    scheduled
}

/// A listing without dates is read from the top every run, and whole by the first tier that reaches
/// anything; where its order is not known, it is read whole every run.
fn undated(refresh: &RefreshSettings, orders: &[Option<Order>]) -> Vec<Scheduled> {
    let steps = steps(refresh);
    let every_run = match orders {
        _ if refresh.every_run == Reach::All => Reaches::All,
        [] | [None, ..] if orders.iter().all(Option::is_none) => Reaches::All,
        [first, ..] if orders.iter().all(|order| order == first) => match first {
            Some(Order::Created) => reaches(refresh.every_run),
            _ => Reaches::LastChanged,
        },
        _ => Reaches::ByListing,
    };
    let slower = steps[1..].iter().filter(|(_, reach, _)| length(*reach) > TimeDelta::zero());
    let mut slower = slower.copied();
    let (whole, next) = (slower.next(), slower.next());
    let later = |step: Option<(RefreshTier, Reach, u32)>| match step {
        Some((by, _, days)) => Without::Later { by, days },
        None => Without::Never,
    };
    let is_whole = every_run == Reaches::All;
    let without = (!is_whole).then(|| later(whole));
    let mut scheduled = vec![(RefreshTier::EveryRun, every_run, true, without)];
    for (tier, ..) in &steps[1..] {
        let reads = !is_whole && whole.is_some_and(|(whole, ..)| whole == *tier);
        let without = if reads { Some(later(next)) } else { None };
        scheduled.push((*tier, Reaches::All, reads, without));
    }
    scheduled
}

fn length(reach: Reach) -> TimeDelta {
    match reach {
        Reach::Back(back) => back,
        Reach::All => TimeDelta::MAX,
    }
}

fn reaches(reach: Reach) -> Reaches {
    match reach {
        Reach::Back(back) => Reaches::Back { hours: back.num_hours() },
        Reach::All => Reaches::All,
    }
}

impl Reaches {
    fn describe(self) -> String {
        match self {
            Self::Back { hours } => age(TimeDelta::hours(hours)),
            Self::All => "all".to_owned(),
            Self::LastChanged => "last changed".to_owned(),
            Self::ByListing => "by listing".to_owned(),
            Self::Rest => "the rest".to_owned(),
            Self::Asked => "-".to_owned(),
        }
    }
}

impl Without {
    fn describe(self) -> String {
        match self {
            Self::Later { by, days } => format!("seen up to {days} days later, by the {by}"),
            Self::Spare => "seen only with spare permits".to_owned(),
            Self::NeverBeyond { hours } => {
                format!("never seen beyond {}", age(TimeDelta::hours(hours)))
            }
            Self::Never => "never seen".to_owned(),
        }
    }
}

/// Returns the lines of a source's tiers.
pub(super) fn caught_lines(status: &CaughtStatus) -> Vec<String> {
    let since = status.since.format("%F");
    let caught: u64 = status.tiers.iter().map(|tier| tier.caught).sum();
    if caught == 0 {
        return vec![format!("changed leads since {since}: none")];
    }
    let has = |class: &AgeClass| status.tiers.iter().any(|tier| tier.ages.contains_key(class));
    let classes = AgeClass::ALL.into_iter();
    let classes: Vec<AgeClass> =
        classes.filter(|class| *class != AgeClass::Unknown || has(class)).collect();
    let headings = classes.iter().map(|class| heading(*class));
    let columns = ["tier", "reaches", "without it", "caught"].map(str::to_owned).into_iter();
    let headings: Vec<String> = columns.chain(headings).collect();
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>(), 3);
    for tier in &status.tiers {
        let without = tier.without.map_or("-".to_owned(), Without::describe);
        let cells = [tier.tier.to_string(), tier.reaches.describe(), without, number(tier.caught)];
        let ages = classes.iter().map(|class| match tier.ages.get(class) {
            Some(count) => number(*count),
            None => "-".to_owned(),
        });
        table.row(cells.into_iter().chain(ages));
    }
    let mut lines =
        vec![format!("changed leads since {since}, by the tier that caught them and their age:")];
    lines.extend(table.to_string().lines().map(|line| format!("  {line}")));
    lines.extend(shorter(status));
    lines
}

fn heading(class: AgeClass) -> String {
    match class {
        AgeClass::UnderOneDay => "< 1 d".to_owned(),
        AgeClass::UnderSevenDays => "1-7 d".to_owned(),
        AgeClass::UnderThirtyDays => "7-30 d".to_owned(),
        AgeClass::UnderNinetyDays => "30-90 d".to_owned(),
        AgeClass::UnderFourHundredDays => "90-400 d".to_owned(),
        AgeClass::Older => "older".to_owned(),
        AgeClass::Unknown => "undated".to_owned(),
    }
}

/// Returns what it would mean if every run read only back to the class before.
fn shorter(status: &CaughtStatus) -> Option<String> {
    let every_run = status.tiers.iter().find(|tier| tier.tier == RefreshTier::EveryRun)?;
    let Reaches::Back { hours } = every_run.reaches else { return None };
    let edges = AgeClass::ALL.into_iter().filter_map(AgeClass::under_days);
    let edge = edges.filter(|days| days * 24 < hours).max()?;
    let is_older = |class: &AgeClass| {
        *class == AgeClass::Older || class.under_days().is_some_and(|under| under > edge)
    };
    let older = every_run.ages.iter().filter(|(class, _)| is_older(class));
    let older: u64 = older.map(|(_, count)| count).sum();
    let without = every_run.without.filter(|_| every_run.caught > 0)?.describe();
    let of = number(every_run.caught);
    Some(match older {
        0 => format!("with `every_run = \"{edge}d\"`, none of these would be seen later"),
        _ => format!(
            "with `every_run = \"{edge}d\"`, {} of the {of} of every run would be {without}",
            number(older)
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Job;

    fn refresh(settings: &str) -> RefreshSettings {
        let job = format!(
            "name = \"test\"\nlake = \"lake\"\n[[sources]]\nname = \"acme\"\n\
             provider = \"whatconverts\"\ntoken = {{ env = \"UNUSED\" }}\n\
             secret = {{ env = \"UNUSED\" }}\nplan = \"master\"\nstart = 2021-01-01\n\
             [refresh]\n{settings}\n"
        );
        Job::parse(&job, Path::new("job.toml")).unwrap().refresh
    }

    fn caught() -> Caught {
        let counts = [
            (RefreshTier::EveryRun, AgeClass::UnderOneDay, 700),
            (RefreshTier::EveryRun, AgeClass::UnderSevenDays, 400),
            (RefreshTier::EveryRun, AgeClass::UnderThirtyDays, 104),
            (RefreshTier::Weekly, AgeClass::UnderNinetyDays, 20),
            (RefreshTier::Weekly, AgeClass::UnderFourHundredDays, 11),
            (RefreshTier::Monthly, AgeClass::Older, 3),
        ];
        let mut caught = Caught::default();
        for (tier, age, count) in counts {
            (0..count).for_each(|_| caught.count(tier, age));
        }
        caught
    }

    fn status(settings: &str, caught: &Caught, listings: &Listings) -> CaughtStatus {
        let since = "2026-08-01T00:00:00Z".parse().unwrap();
        caught_status(since, caught, &refresh(settings), listings)
    }

    fn text(settings: &str, caught: &Caught, listings: &Listings) -> String {
        caught_lines(&status(settings, caught, listings)).join("\n")
    }

    #[test]
    fn tiers_tell_what_they_caught_and_what_would_be_without_them() {
        insta::assert_snapshot!(text("", &caught(), &Listings::Dated));
    }

    #[test]
    fn listings_without_dates_are_read_whole_by_the_first_slower_tier() {
        let orders = vec![Some(Order::Updated); 2];
        insta::assert_snapshot!(text("", &caught(), &Listings::Undated(orders)));
        let unknown = status("", &Caught::default(), &Listings::Undated(vec![None]));
        assert_eq!(unknown.tiers.len(), 1, "every run reads it whole: {unknown:?}");
        let mixed = Listings::Undated(vec![Some(Order::Created), None]);
        assert_eq!(status("", &caught(), &mixed).tiers[0].reaches, Reaches::ByListing);
    }

    #[test]
    fn where_nothing_was_caught_one_line_says_so() {
        let said = text("", &Caught::default(), &Listings::Dated);
        assert_eq!(said, "changed leads since 2026-08-01: none");
    }

    #[test]
    fn what_no_slower_tier_reaches_is_never_seen_without_its_own() {
        let without = |settings: &str| -> Vec<Option<Without>> {
            let status = status(settings, &caught(), &Listings::Dated);
            status.tiers.iter().map(|tier| tier.without).collect()
        };
        let later = |by, days| Some(Without::Later { by, days });
        let (weekly, monthly) = (RefreshTier::Weekly, RefreshTier::Monthly);
        let usual = [later(weekly, 7), later(monthly, 30), Some(Without::Never)];
        assert_eq!(without("spare = \"0%\""), usual);
        let no_month = "monthly = \"0d\"\nspare = \"0%\"";
        assert_eq!(without(no_month)[..2], [later(weekly, 7), Some(Without::Never)]);
        let partly = "weekly = \"10d\"\nmonthly = \"20d\"\nspare = \"0%\"";
        assert_eq!(without(partly)[0], Some(Without::NeverBeyond { hours: 480 }));
        let to_spare = "monthly = \"0d\"";
        assert_eq!(without(to_spare)[1], Some(Without::Spare));
        // The rest is read with spare permits, which have a row of their own.
        assert_eq!(without(to_spare).len(), 4);
    }

    #[test]
    fn a_shorter_reach_that_would_do_is_named() {
        let mut young = Caught::default();
        young.count(RefreshTier::EveryRun, AgeClass::UnderSevenDays);
        let said = text("", &young, &Listings::Dated);
        assert!(said.ends_with("with `every_run = \"7d\"`, none of these would be seen later"));
    }
}
