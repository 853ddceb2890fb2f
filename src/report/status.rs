//! What a lake holds, and how current it is.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Datelike;
use chrono::FixedOffset;
use chrono::Months;
use chrono::NaiveDate;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Serialize;

use super::CaughtStatus;
use super::Table;
use super::harmless;
use super::instant;
use super::number;
use super::pages::smaller_pages;
use super::tiers::caught_lines;
use crate::checkpoint::Backfill;
use crate::checkpoint::Scanned;
use crate::checkpoint::SmallerPages;
use crate::commit::Holder;
use crate::commit::RunRecord;
use crate::commit::RunState;
use crate::commit::SourceState;
use crate::ids::RunId;
use crate::ids::Seq;
use crate::ids::SourceName;
use crate::quota::Budget;
use crate::record::Order;
use crate::window::Coverage;
use crate::window::Covered;
use crate::window::Window;

/// What a lake holds.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The job's name.
    pub job: String,
    /// The folder of the lake, or its address in a bucket.
    pub lake: String,
    /// When this was looked at.
    pub now: DateTime<Utc>,
    /// The newest commit.
    pub commit: Option<Seq>,
    /// When it was made.
    pub committed_at: Option<DateTime<Utc>>,
    /// Up to when everything the job asks for is read; `None` where some of it never was.
    pub as_of: Option<DateTime<Utc>>,
    /// Whether `as_of` is older than asked for.
    pub is_stale: bool,
    /// Who holds the lake at this moment.
    pub holder: Option<Holder>,
    /// By source of the job.
    pub sources: BTreeMap<SourceName, SourceStatus>,
    /// Backfills that are not done.
    pub backfills: Vec<Backfill>,
    /// The last runs, newest first.
    pub runs: Vec<RunLine>,
}

/// A run, without what it did.
#[derive(Debug, Clone, Serialize)]
pub struct RunLine {
    /// The run.
    pub run: RunId,
    /// The command.
    pub command: String,
    /// The job's name.
    pub job: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended, or was found dead.
    pub ended_at: Option<DateTime<Utc>>,
    /// How it stands.
    pub state: RunState,
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i32>,
}

impl From<RunRecord> for RunLine {
    fn from(record: RunRecord) -> Self {
        Self {
            run: record.run,
            command: record.command,
            job: record.job,
            started_at: record.started_at,
            ended_at: record.ended_at,
            state: record.state,
            exit_code: record.exit_code,
        }
    }
}

/// What a lake holds of a source.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SourceStatus {
    /// How far its reading got; `None` where it was never read.
    pub state: Option<SourceState>,
    /// Why it is not complete.
    pub why: Option<String>,
    /// Rows held.
    pub rows: u64,
    /// Up to when all of it is read.
    pub as_of: Option<DateTime<Utc>>,
    /// When the stalest part of it was read.
    pub stalest: Option<DateTime<Utc>>,
    /// The part of the time covered whose totals agreed with the provider's, from 0 to 1.
    pub reconciled: Option<f64>,
    /// Leads not listed any more that wait for proof.
    pub absent: u64,
    /// Walks that are begun and not finished.
    pub open_walks: u64,
    /// The start of its history.
    pub start: Option<DateTime<Utc>>,
    /// What is left of its quota.
    pub quota: Option<QuotaLeft>,
    /// Why what is left is not known.
    pub quota_unknown: Option<String>,
    /// The size of pages that is asked for instead of the job's, by stream.
    pub smaller_pages: BTreeMap<String, SmallerPages>,
    /// Which tier caught how many changed leads in about the last 90 days.
    pub caught: Option<CaughtStatus>,
    /// What was read, by scope.
    pub scopes: Vec<ScopeStatus>,
}

/// What was read of a scope.
#[derive(Debug, Clone, Serialize)]
pub struct ScopeStatus {
    /// Its name within the source.
    pub scope: String,
    /// The spans read, ascending.
    pub spans: Vec<Covered>,
    /// The last difference between the provider's total and what was seen.
    pub difference: Option<i64>,
    /// What is known of it, where its listing has no dates and was read whole.
    pub scan: Option<Scanned>,
}

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuotaLeft {
    /// Requests a day; `None` where there is no limit.
    pub per_day: Option<u32>,
    /// Requests that count against the day.
    pub used: u64,
    /// Requests left for others.
    pub reserved: u32,
    /// Requests that may still be sent; `None` where there is no limit.
    pub left: Option<u32>,
    /// When the next may be sent, where none may now.
    pub next_free: Option<DateTime<Utc>>,
}

impl From<Budget> for QuotaLeft {
    fn from(budget: Budget) -> Self {
        let Budget { allowance, used, reserved, left, next_free, .. } = budget;
        Self { per_day: allowance, used, reserved, left, next_free }
    }
}

/// What is known of a month of a source, over all its scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Month {
    /// Nothing of it was read.
    Never,
    /// Some of it was read.
    Partial,
    /// All of it was read.
    Complete,
    /// Some rows of it never came right.
    Hole,
}

impl Month {
    fn sign(self) -> char {
        match self {
            Self::Never => '·',
            Self::Partial => '▒',
            Self::Complete => '█',
            Self::Hole => '!',
        }
    }
}

impl SourceStatus {
    /// Returns what is known of each month from the start of the history to `now`, by year. The
    /// first month counts as far as it lies within, the last as far as it was read.
    pub fn calendar(&self, now: DateTime<Utc>) -> BTreeMap<i32, Vec<(u32, Month)>> {
        let mut years: BTreeMap<i32, Vec<(u32, Month)>> = BTreeMap::new();
        let Some(whole) = self.start.and_then(|start| Window::new(start, now)) else {
            return years;
        };
        let ends = self.scopes.iter().filter_map(|scope| Some(scope.spans.last()?.window.end()));
        let newest = ends.max();
        let mut first = whole.start().date_naive().with_day(1);
        while let Some(month) = first {
            let next = month.checked_add_months(Months::new(1));
            let window = next.and_then(|next| Window::new(midnight(month), midnight(next)));
            let Some(window) = window.and_then(|window| window.intersect(&whole)) else { break };
            let is_last = window.end() == now;
            let read = newest.filter(|_| is_last).and_then(|end| {
                // What came after the newest reading is not missing yet.
                Window::new(window.start(), end.min(now))
            });
            let known = self.month(&read.unwrap_or(window));
            years.entry(month.year()).or_default().push((month.month(), known));
            first = next;
        }
        years
    }

    fn month(&self, window: &Window) -> Month {
        let inside = |scope: &ScopeStatus| {
            let spans = scope.spans.iter().filter(|span| span.window.intersect(window).is_some());
            spans.cloned().collect::<Vec<_>>()
        };
        let scopes: Vec<Vec<Covered>> = self.scopes.iter().map(inside).collect();
        if scopes.iter().flatten().any(|span| span.holes > 0) {
            return Month::Hole;
        }
        if scopes.iter().all(Vec::is_empty) {
            return Month::Never;
        }
        let is_whole = |spans: &Vec<Covered>| {
            let mut coverage = Coverage::default();
            spans.iter().for_each(|span| coverage.insert(span.clone()));
            coverage.gaps(window).is_empty()
        };
        if scopes.iter().all(is_whole) { Month::Complete } else { Month::Partial }
    }
}

fn midnight(date: NaiveDate) -> DateTime<Utc> {
    date.and_time(NaiveTime::MIN).and_utc()
}

/// Returns all of it as text; `zone` is that of the times.
pub fn status_text(status: &Status, zone: FixedOffset) -> String {
    let lake = harmless(&status.lake);
    let mut text = match (status.commit, status.committed_at) {
        (Some(seq), Some(at)) => format!("{lake}: commit {seq} of {}\n", instant(at, zone)),
        _ => format!("{lake}: no commit yet\n"),
    };
    if let Some(holder) = &status.holder {
        text.push_str(&format!("held by {}\n", harmless(&holder.to_string())));
    }
    text.push_str(&match status.as_of {
        Some(at) => format!("read up to {}, {} ago\n", instant(at, zone), age(status.now - at)),
        None => "some of what the job asks for was never read\n".to_owned(),
    });
    if status.is_stale {
        text.push_str("this is older than --max-age\n");
    }
    let mut has_calendar = false;
    for (name, source) in &status.sources {
        text.push_str(&source_text(name, source, status.now, zone));
        has_calendar |= source.start.is_some() && !source.scopes.is_empty();
    }
    if has_calendar {
        text.push_str("\n  · never asked  ▒ partial  █ complete as of the oldest reading  ! rows that never came right\n");
    }
    text.push_str(&backfills_text(&status.backfills));
    text.push_str(&runs_text(&status.runs, zone));
    text
}

fn source_text(
    name: &SourceName,
    source: &SourceStatus,
    now: DateTime<Utc>,
    zone: FixedOffset,
) -> String {
    let state = source.state.map_or("never read", word);
    let mut lines = vec![format!("{} rows, {state}", number(source.rows))];
    lines.extend(source.why.iter().map(|why| format!("why: {}", harmless(why))));
    lines.extend(source.as_of.map(|at| format!("read up to {}", instant(at, zone))));
    lines.extend(source.stalest.map(|at| format!("oldest reading: {} ago", age(now - at))));
    lines.extend(source.reconciled.map(|part| {
        let percent = (part * 100.0).floor();
        format!("agrees with the provider's totals for {percent} % of the time covered")
    }));
    let counts = [
        (source.absent, "leads not listed any more wait for proof"),
        (source.open_walks, "walks are begun and not finished"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    lines.extend(counts.map(|(count, what)| format!("{} {what}", number(count))));
    lines.extend(differences(source));
    lines.extend(scans(source, now));
    lines.extend(smaller_pages(&source.smaller_pages, zone));
    lines.push(quota(source, zone));
    lines.extend(source.caught.iter().flat_map(caught_lines));
    let calendar = source.calendar(now);
    if !calendar.is_empty() && !source.scopes.is_empty() {
        let scopes = number(source.scopes.len() as u64);
        lines.push(format!("coverage over {scopes} scopes  JFMAMJJASOND"));
        let indent = " ".repeat(scopes.len() + "coverage over  scopes".len() - 4);
        lines.extend(calendar.iter().map(|(year, months)| {
            let blank = " ".repeat(months.first().map_or(0, |(month, _)| *month as usize - 1));
            let signs: String = months.iter().map(|(_, known)| known.sign()).collect();
            format!("{indent}{year}  {blank}{signs}")
        }));
    }
    let lines = lines.iter().map(|line| format!("  {line}\n"));
    format!("\n{name}\n{}", lines.collect::<String>())
}

/// So many listings without dates are told of, one line each.
const LISTINGS: usize = 8;

/// Returns a line for each listing without dates.
fn scans(source: &SourceStatus, now: DateTime<Utc>) -> Vec<String> {
    let scans = source.scopes.iter().filter_map(|scope| Some((scope, scope.scan.as_ref()?)));
    let mut lines: Vec<String> = scans
        .map(|(scope, scan)| {
            let name = harmless(&scope.scope);
            let mut line = format!("{name}: {} rows", number(scan.rows));
            line.push_str(&format!(", read whole {} ago", age(now - scan.as_of)));
            if let Some(top) = scan.top_as_of {
                line.push_str(&format!(", from the top {} ago", age(now - top)));
            }
            match scan.order() {
                Some(Order::Created) => line.push_str(", lists the newest first"),
                Some(Order::Updated) => line.push_str(", lists what changed last first"),
                None => {}
            }
            if scan.holes > 0 {
                line.push_str(&format!(", {} rows never came right", number(scan.holes)));
            }
            line
        })
        .collect();
    if lines.len() > LISTINGS {
        let more = number((lines.len() - LISTINGS) as u64);
        lines.truncate(LISTINGS);
        lines.push(format!("and {more} more listings"));
    }
    lines
}

fn differences(source: &SourceStatus) -> Option<String> {
    let scopes =
        source.scopes.iter().filter(|scope| scope.difference.is_some_and(|rows| rows != 0));
    let scopes: Vec<String> = scopes
        .map(|scope| {
            format!("{} {:+}", harmless(&scope.scope), scope.difference.unwrap_or_default())
        })
        .collect();
    let text = super::list(&scopes, 5);
    (!scopes.is_empty()).then(|| format!("stated totals differ from the leads seen: {text}"))
}

fn quota(source: &SourceStatus, zone: FixedOffset) -> String {
    let Some(quota) = source.quota else {
        let why = source.quota_unknown.as_deref().unwrap_or("it was not looked at");
        return format!("quota: not known: {}", harmless(why));
    };
    let (Some(left), Some(per_day)) = (quota.left, quota.per_day) else {
        return format!("quota: no limit a day, {} used", number(quota.used));
    };
    let mut text = format!(
        "quota: {} left of {} a day ({} used, {} reserved)",
        number(left.into()),
        number(per_day.into()),
        number(quota.used),
        number(quota.reserved.into())
    );
    if let Some(at) = quota.next_free {
        text.push_str(&format!(", next at {}", instant(at, zone)));
    }
    text
}

fn backfills_text(backfills: &[Backfill]) -> String {
    let lines = backfills.iter().map(|backfill| {
        let again = if backfill.again { ", again" } else { "" };
        let sources = super::list(&backfill.sources, 5);
        format!("\nbackfill under way: {} of {sources}{again}\n", backfill.range)
    });
    lines.collect()
}

fn runs_text(runs: &[RunLine], zone: FixedOffset) -> String {
    let mut table = Table::new(&["last runs", "command", "job", "took", "ended"], 5);
    for run in runs {
        let took = run.ended_at.map_or("-".to_owned(), |ended| age(ended - run.started_at));
        let ended = match (run.state, run.exit_code) {
            (RunState::Running, _) => "running, or died".to_owned(),
            (RunState::Died, _) => "died".to_owned(),
            (RunState::Ended, Some(0)) => "done".to_owned(),
            (RunState::Ended, Some(code)) => format!("exit code {code}"),
            (RunState::Ended, None) => "ended".to_owned(),
        };
        let started = run.started_at.with_timezone(&zone).format("%F %R %:z").to_string();
        table.row([started, harmless(&run.command), harmless(&run.job), took, ended]);
    }
    if table.is_empty() { String::new() } else { format!("\n{table}") }
}

fn word(state: SourceState) -> &'static str {
    match state {
        SourceState::Complete => "complete",
        SourceState::Partial => "partial",
        SourceState::Failed => "failed",
        SourceState::Kept => "kept as it was",
        SourceState::Retired => "no longer named by its job",
    }
}

/// Returns a length of time in its greatest one or two units.
pub(super) fn age(length: TimeDelta) -> String {
    let seconds = length.num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        midnight(text.parse().unwrap())
    }

    fn span(start: &str, end: &str, holes: u64) -> Covered {
        let window = Window::new(at(start), at(end)).unwrap();
        let as_of = at("2026-10-30");
        Covered { window, as_of, rows: None, share: None, reconciled: true, holes }
    }

    fn scope(name: &str, spans: Vec<Covered>) -> ScopeStatus {
        ScopeStatus { scope: name.to_owned(), spans, difference: None, scan: None }
    }

    fn bots() -> SourceStatus {
        let scanned = |name: &str, ordered| {
            let scan = Scanned {
                as_of: at("2026-10-28"),
                rows: 1_412,
                pages: 72,
                holes: u64::from(ordered == 0) * 20,
                least_rejects: None,
                top_as_of: (ordered > 1).then(|| at("2026-10-31")),
                top_pages: None,
                newest_created_first: 0,
                newest_updated_first: ordered,
            };
            ScopeStatus { scan: Some(scan), ..scope(name, Vec::new()) }
        };
        let scopes = (0..10).map(|bot| scanned(&format!("chats/bot:{bot}/lead"), bot % 3));
        SourceStatus { rows: 14_120, scopes: scopes.collect(), ..SourceStatus::default() }
    }

    fn source() -> SourceStatus {
        let one = vec![span("2024-11-15", "2025-09-01", 0), span("2025-10-01", "2025-11-01", 2)];
        let both = vec![span("2026-01-01", "2026-10-20", 0)];
        SourceStatus {
            state: Some(SourceState::Partial),
            why: Some("no permit is left".to_owned()),
            rows: 20_031,
            start: Some(at("2024-11-15")),
            as_of: None,
            stalest: Some(at("2026-10-30")),
            reconciled: Some(0.999),
            quota: Some(QuotaLeft {
                per_day: Some(8_000),
                used: 8_000,
                reserved: 2_000,
                left: Some(0),
                next_free: Some(at("2026-11-02")),
            }),
            scopes: vec![scope("one", [one, both.clone()].concat()), scope("two", both)],
            ..SourceStatus::default()
        }
    }

    #[test]
    fn a_month_counts_as_far_as_it_lies_within_the_history() {
        let calendar = source().calendar(at("2026-11-01"));
        let year =
            |year| -> String { calendar[&year].iter().map(|(_, known)| known.sign()).collect() };
        assert_eq!(year(2024), "▒▒");
        assert_eq!(year(2025), "▒▒▒▒▒▒▒▒·!··");
        // Of the last month nothing is missing yet beyond the newest reading.
        assert_eq!(year(2026), "██████████");
        let later = source().calendar(at("2026-12-24"));
        let later: String = later[&2026].iter().map(|(_, known)| known.sign()).collect();
        assert_eq!(later, "█████████▒··");
    }

    #[test]
    fn a_status_reads_well() {
        let now = at("2026-11-01");
        let run = RunLine {
            run: RunId::new(now),
            command: "sync".to_owned(),
            job: "nightly".to_owned(),
            started_at: at("2026-10-31"),
            ended_at: Some(at("2026-10-31") + TimeDelta::minutes(61)),
            state: RunState::Ended,
            exit_code: Some(8),
        };
        let range = Window::new(at("2020-01-01"), at("2021-01-01")).unwrap();
        let sources = vec!["agency".parse().unwrap()];
        let status = Status {
            job: "nightly".to_owned(),
            lake: "/data/lake".into(),
            now,
            commit: Some(Seq(41)),
            committed_at: Some(at("2026-10-31")),
            as_of: None,
            is_stale: true,
            holder: None,
            sources: [
                ("agency".parse().unwrap(), source()),
                ("bots".parse().unwrap(), bots()),
                ("dentist".parse().unwrap(), SourceStatus::default()),
            ]
            .into(),
            backfills: vec![Backfill { sources, range, asked_at: now, again: true }],
            runs: vec![run],
        };
        insta::assert_snapshot!(status_text(&status, FixedOffset::east_opt(3600).unwrap()));
    }
}
