//! What is left of a job's quotas, and what comes back when.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::Utc;
use serde::Serialize;

use super::Table;
use super::harmless;
use super::instant;
use super::number;
use crate::ids::SourceName;
use crate::quota::BlockedBy;
use crate::quota::Day;
use crate::quota::Freed;
use crate::run::QuotaGroup;

/// The quotas of a job.
#[derive(Debug, Clone, Serialize)]
pub struct QuotaReport {
    /// The job's name.
    pub job: String,
    /// When this was looked at.
    pub now: DateTime<Utc>,
    /// By group, in the order of the job's sources.
    pub groups: Vec<QuotaState>,
    /// Sources whose quota is not known, and why.
    pub unknown: BTreeMap<SourceName, String>,
}

/// One quota: what is allowed, what is left, what comes back.
#[derive(Debug, Clone, Serialize)]
pub struct QuotaState {
    /// The group's name.
    pub group: String,
    /// The sources of the job that share it.
    pub sources: Vec<SourceName>,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// Requests a day, as the provider has it; `None` where there is no limit.
    pub per_day: Option<u32>,
    /// Those of them that are left for others.
    pub reserved: u32,
    /// When a day begins.
    pub day: DayKind,
    /// How fast requests may follow each other: so many
    pub rate_requests: u32,
    /// in so many milliseconds.
    pub rate_ms: i64,
    /// Requests that may be under way at once.
    pub at_once: u32,
    /// Requests that count against the day.
    pub used: u64,
    /// Those of them that `--set-used` told of.
    pub set_by_hand: u32,
    /// Requests that may still be sent; `None` where there is no limit.
    pub left: Option<u32>,
    /// Until when the provider is left alone, having said that the quota is used up,
    pub blocked_until: Option<DateTime<Utc>>,
    /// and what that goes by.
    pub blocked_by: Option<BlockedBy>,
    /// When the next request may be sent, where none may now.
    pub next_free: Option<DateTime<Utc>>,
    /// The hours in which permits come free.
    pub frees: Vec<FreedHour>,
}

/// When a day begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DayKind {
    /// At every instant: any 24 hours.
    Rolling,
    /// At a local time.
    Fixed {
        /// Such as `00:00`.
        resets_at: String,
        /// The zone's name.
        zone: String,
    },
}

/// Permits that come free within an hour, or at a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FreedHour {
    /// The hour's start, or the reset.
    pub from: DateTime<Utc>,
    /// How many come free.
    pub permits: u32,
    /// How many are left then, if none is used.
    pub left: u32,
}

impl From<QuotaGroup> for QuotaState {
    fn from(group: QuotaGroup) -> Self {
        let QuotaGroup { group, sources, rule, ledger, outlook } = group;
        let hour = |Freed { from, permits, left }| FreedHour { from, permits, left };
        Self {
            group,
            sources,
            ledger,
            per_day: rule.per_day,
            reserved: outlook.budget.reserved,
            day: rule.day.into(),
            rate_requests: rule.rate.permits.get(),
            rate_ms: rule.rate.per.num_milliseconds(),
            at_once: rule.at_once.get(),
            used: outlook.budget.used,
            set_by_hand: outlook.set_by_hand,
            left: outlook.budget.left,
            blocked_until: outlook.budget.blocked_until,
            blocked_by: outlook.blocked_by,
            next_free: outlook.budget.next_free,
            frees: outlook.frees.into_iter().map(hour).collect(),
        }
    }
}

impl From<Day> for DayKind {
    fn from(day: Day) -> Self {
        match day {
            Day::Rolling => Self::Rolling,
            Day::ResetsAt { time, zone } => {
                let resets_at = time.format("%H:%M").to_string();
                Self::Fixed { resets_at, zone: zone.name().to_owned() }
            }
        }
    }
}

/// Returns all of it as text; `zone` is that of the times, but for the table, which is in UTC.
pub fn quota_text(report: &QuotaReport, zone: FixedOffset) -> String {
    let mut texts: Vec<String> =
        report.groups.iter().map(|group| group_text(group, zone)).collect();
    texts.extend(
        report
            .unknown
            .iter()
            .map(|(source, why)| format!("{source}\n  not known: {}\n", harmless(why))),
    );
    texts.join("\n")
}

fn group_text(group: &QuotaState, zone: FixedOffset) -> String {
    let names: Vec<String> = group.sources.iter().map(ToString::to_string).collect();
    let mut lines = vec![format!("group {}", harmless(&group.group)), rule(group), spent(group)];
    if group.set_by_hand > 0 {
        let told = number(group.set_by_hand.into());
        lines.push(format!("{told} of those used were told by --set-used"));
    }
    lines.extend(blocked(group, zone));
    if group.left == Some(0) && group.blocked_until.is_none() {
        lines.push(match group.next_free {
            Some(at) => format!("the next may be sent at {}", instant(at, zone)),
            None => "none may ever be sent: all of the day is left for others".to_owned(),
        });
    }
    let table = frees(group);
    lines.extend(table.lines().map(str::to_owned));
    let lines = lines.iter().map(|line| format!("  {line}\n"));
    format!("{}\n{}", names.join(", "), lines.collect::<String>())
}

fn rule(group: &QuotaState) -> String {
    let day = match (&group.day, group.per_day) {
        (_, None) => "no limit a day".to_owned(),
        (DayKind::Rolling, Some(per_day)) => {
            format!("{} requests in any 24 hours", number(per_day.into()))
        }
        (DayKind::Fixed { resets_at, zone }, Some(per_day)) => {
            let per_day = number(per_day.into());
            format!("{per_day} requests a day, which begins at {resets_at} {}", harmless(zone))
        }
    };
    let reserved = match group.reserved {
        0 => String::new(),
        reserved => format!(", {} of them left for others", number(reserved.into())),
    };
    let requests = number(group.rate_requests.into());
    let span = span(group.rate_ms);
    format!("rule: {day}{reserved}; {requests} in {span}, {} at once", group.at_once)
}

fn spent(group: &QuotaState) -> String {
    let used = number(group.used);
    match group.left {
        None => format!("used {used}"),
        Some(left) => {
            let allowance = group.per_day.unwrap_or_default() - group.reserved;
            format!("used {used} of {}, left {}", number(allowance.into()), number(left.into()))
        }
    }
}

fn blocked(group: &QuotaState, zone: FixedOffset) -> Option<String> {
    let until = instant(group.blocked_until?, zone);
    let why = match group.blocked_by {
        Some(BlockedBy::Provider) => "and to come back then",
        Some(BlockedBy::Reset) => "and a new day begins then",
        Some(BlockedBy::OldestRequest) => "and our oldest request lies 24 hours back then",
        Some(BlockedBy::HourlyTry) => "which our count does not explain: it is tried once an hour",
        None => "and may not be asked before",
    };
    Some(format!("blocked until {until}: the provider said that the quota is used up, {why}"))
}

fn frees(group: &QuotaState) -> String {
    if group.frees.is_empty() {
        return String::new();
    }
    let heading = match group.day {
        DayKind::Rolling => "come free in the hour from (UTC)",
        DayKind::Fixed { .. } => "come free at (UTC)",
    };
    let mut table = Table::new(&[heading, "permits", "left then"], 1);
    for freed in &group.frees {
        let from = freed.from.format("%F %R").to_string();
        table.row([from, number(freed.permits.into()), number(freed.left.into())]);
    }
    table.to_string()
}

/// Returns a span in the largest unit that it is a whole number of.
fn span(ms: i64) -> String {
    match ms {
        60_000 => "a minute".to_owned(),
        1_000 => "a second".to_owned(),
        ms if ms % 60_000 == 0 => format!("{} minutes", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{} seconds", ms / 1_000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn master() -> QuotaState {
        let freed = |from, permits, left| FreedHour { from: at(from), permits, left };
        QuotaState {
            group: "9f86d081884c7d65".to_owned(),
            sources: vec!["agency".parse().unwrap(), "agency-forms".parse().unwrap()],
            ledger: PathBuf::from("/data/lake/state/ledger/9f86d081884c7d65.json"),
            per_day: Some(10_000),
            reserved: 2_000,
            day: DayKind::Rolling,
            rate_requests: 1,
            rate_ms: 1,
            at_once: 20,
            used: 7_990,
            set_by_hand: 400,
            left: Some(10),
            blocked_until: None,
            blocked_by: None,
            next_free: None,
            frees: vec![
                freed("2026-11-02T01:00:00Z", 1_120, 1_130),
                freed("2026-11-02T02:00:00Z", 6_870, 8_000),
            ],
        }
    }

    fn report(groups: Vec<QuotaState>) -> QuotaReport {
        let now = at("2026-11-01T01:10:00Z");
        QuotaReport { job: "nightly".to_owned(), now, groups, unknown: BTreeMap::new() }
    }

    fn text(report: &QuotaReport) -> String {
        quota_text(report, FixedOffset::east_opt(3600).unwrap())
    }

    #[test]
    fn what_comes_free_is_told_hour_by_hour() {
        insta::assert_snapshot!(text(&report(vec![master()])));
    }

    #[test]
    fn a_fixed_day_a_spent_day_and_no_limit_at_all_read_well() {
        let day =
            DayKind::Fixed { resets_at: "00:00".to_owned(), zone: "America/New_York".to_owned() };
        let reset = at("2026-11-01T04:00:00Z");
        let fixed = QuotaState {
            day,
            used: 8_000,
            left: Some(0),
            set_by_hand: 0,
            next_free: Some(reset),
            frees: vec![FreedHour { from: reset, permits: 8_000, left: 8_000 }],
            ..master()
        };
        let unlimited = QuotaState {
            group: "bots".to_owned(),
            per_day: None,
            reserved: 0,
            left: None,
            rate_requests: 5,
            rate_ms: 1_000,
            at_once: 2,
            frees: Vec::new(),
            ..master()
        };
        let mut report = report(vec![fixed, unlimited]);
        let why = "environment variable `CLINIC_KEY` is not set".to_owned();
        report.unknown.insert("clinic".parse().unwrap(), why);
        insta::assert_snapshot!(text(&report));
    }

    #[test]
    fn a_block_says_until_when_and_why() {
        let until = Some(at("2026-11-01T03:00:00Z"));
        let by = [
            Some(BlockedBy::Provider),
            Some(BlockedBy::Reset),
            Some(BlockedBy::OldestRequest),
            Some(BlockedBy::HourlyTry),
            None,
        ];
        let zone = FixedOffset::east_opt(0).unwrap();
        let texts = by.map(|by| {
            let group = QuotaState { blocked_until: until, blocked_by: by, ..master() };
            blocked(&group, zone).unwrap()
        });
        insta::assert_snapshot!(texts.join("\n"));
    }
}
