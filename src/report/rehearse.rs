//! What a rehearsal showed: the shape that was rehearsed, and a calendar of what is there after each
//! day.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Days;
use chrono::FixedOffset;
use chrono::Utc;
use serde::Serialize;

use super::Table;
use super::list;
use super::number;
use crate::ids::ProviderId;
use crate::ids::SourceName;
use crate::run::Ending;
use crate::run::State;
use crate::window::Window;

/// A rehearsal of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rehearsal {
    /// The job's name.
    pub job: String,
    /// The range of the backfill; `None` where only the nightly `sync` was rehearsed.
    pub range: Option<Window>,
    /// What was rehearsed, in the order of the job's sources.
    pub sources: Vec<SourceShape>,
    /// How it ended.
    pub outcome: Outcome,
    /// The days up to there, in order.
    pub days: Vec<RehearsedDay>,
    /// The requests of these days, retries included.
    pub requests: u64,
    /// What the nights after it cost; `None` where it was not done.
    pub nights: Option<Nights>,
    /// What the sandboxes counted, over these days and nights, by quota.
    pub quotas: Vec<QuotaSeen>,
}

/// How a rehearsal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All is there.
    Done,
    /// The days allowed were over before all was there.
    DaysOver,
    /// A source failed.
    Failed,
    /// It was interrupted.
    Stopped,
}

/// What was taken for the shape of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceShape {
    /// The source.
    pub source: SourceName,
    /// Its provider.
    pub provider: ProviderId,
    /// Its quota preset, where the provider has more than one.
    pub plan: Option<&'static str>,
    /// Requests a day, as the provider has it; `None` where there is no limit.
    pub per_day: Option<u32>,
    /// Those of them that are not left to others.
    pub allowance: Option<u32>,
    /// Profiles of a WhatConverts key, bots of a Convertalk customer; `None` for others.
    pub parts: Option<Taken<u32>>,
    /// Leads a day, on the average since `since`.
    pub leads_per_day: Taken<f64>,
    /// Where its history begins.
    pub since: Taken<DateTime<Utc>>,
    /// Leads there are at the start, about.
    pub leads: u64,
    /// Rows of a page.
    pub page_size: u32,
    /// Rows of a page in the rehearsal.
    pub rehearsed_page_size: u32,
    /// So many leads, about, each one of the rehearsal stands for; 1 where none was left out.
    pub stands_for: f64,
}

/// A figure, and where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Taken<T> {
    /// The figure.
    pub value: T,
    /// Where it is from.
    pub basis: Basis,
}

/// Where a figure is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "as_of", rename_all = "snake_case")]
pub enum Basis {
    /// The command line.
    Asked,
    /// The provider listed it; the lake's last commit knows.
    Listed(DateTime<Utc>),
    /// The lake's last commit holds it.
    Held(DateTime<Utc>),
    /// The job file.
    Job,
    /// Nobody said it.
    Assumed,
}

/// One day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RehearsedDay {
    /// 1 for the first.
    pub day: u64,
    /// When its first run began.
    pub started_at: DateTime<Utc>,
    /// When its last run ended.
    pub ended_at: DateTime<Utc>,
    /// Requests of its runs, retries included.
    pub requests: u64,
    /// Those of them that the backfill sent; the others are the nightly's.
    pub backfill_requests: u64,
    /// Leads held after it, about.
    pub leads: u64,
    /// The history is complete from here on, in all sources with dates; `None` where some source has
    /// nothing yet, and where none has dates.
    pub complete_back_to: Option<DateTime<Utc>>,
    /// Listings without dates that were read whole.
    pub listings_whole: u64,
    /// Listings without dates that there are.
    pub listings: u64,
    /// All that its runs ended with in the end; empty where all is done.
    pub endings: Vec<Ending>,
    /// When it can go on, where a quota is spent.
    pub resume_at: Option<DateTime<Utc>>,
    /// By source.
    pub sources: BTreeMap<SourceName, SourceDay>,
}

/// One day of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SourceDay {
    /// How it ended.
    pub state: State,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its requests.
    pub requests: u64,
    /// Leads held, about.
    pub leads: u64,
    /// Whether all that its job asks for was read, at one time or another.
    pub is_whole: bool,
    /// Its history is complete from here on.
    pub complete_back_to: Option<DateTime<Utc>>,
    /// Its listings without dates that were read whole.
    pub listings_whole: u64,
    /// Its listings without dates.
    pub listings: u64,
}

/// What the nights cost once all is there, in requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nights {
    /// A plain one: as many are cheaper as are dearer.
    pub plain: u64,
    /// The dearest of a week.
    pub week: u64,
    /// The dearest of a month.
    pub month: u64,
    /// How many of them a spent quota ended.
    pub quota_spent: u64,
    /// Each of them, in order.
    pub requests: Vec<u64>,
}

/// What the other side of the wire saw of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaSeen {
    /// The sources that share it.
    pub sources: Vec<SourceName>,
    /// Requests a day that are not left to others; `None` where there is no limit.
    pub allowance: Option<u32>,
    /// Whether any 24 hours count as a day.
    pub is_rolling: bool,
    /// Requests that came.
    pub requests: u64,
    /// The most requests in any 24 hours.
    pub most_in_24_hours: u64,
    /// Requests that were refused for being too many.
    pub refused: u64,
}

/// The dearest night of a week is looked for in so many nights, of a month in all of them. The first
/// is left out: it may still be learning in which order a listing comes.
const WEEK: usize = 8;

impl Nights {
    /// So many nights are to be tried.
    pub const TRIED: usize = 32;

    /// Returns what nights cost, of which each cost so many `requests`, and `quota_spent` of them ended
    /// with a spent quota; `None` where there was none.
    pub fn of(requests: Vec<u64>, quota_spent: u64) -> Option<Self> {
        let mut sorted = requests.clone();
        sorted.sort_unstable();
        let plain = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
        let dearest = |nights: usize| requests.iter().skip(1).take(nights).max().copied();
        Some(Self {
            plain,
            week: dearest(WEEK).unwrap_or(plain),
            month: dearest(Self::TRIED).unwrap_or(plain),
            quota_spent,
            requests,
        })
    }
}

/// Returns a rehearsal as text; times are local to `zone`.
pub fn rehearsal_text(rehearsal: &Rehearsal, zone: FixedOffset) -> String {
    let mut text = opening(rehearsal, zone);
    for shape in &rehearsal.sources {
        text.push_str(&shape_text(shape));
    }
    if rehearsal.sources.iter().any(|shape| shape.stands_for > 1.0) {
        text.push_str(
            "Pages are smaller by the same factor, so that requests and days stay as they\n\
             are; leads are counted back up.\n",
        );
    }
    text.push('\n');
    text.push_str(&calendar(rehearsal, zone).to_string());
    text.push('\n');
    text.push_str(&ending(rehearsal, zone));
    text
}

fn opening(rehearsal: &Rehearsal, zone: FixedOffset) -> String {
    let job = &rehearsal.job;
    let at = rehearsal.days.first().map(|day| day.started_at.with_timezone(&zone).format("%R"));
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    let backfill = rehearsal.range.map(|range| {
        let (from, to) = (range.start().format("%F"), range.end().format("%F"));
        format!(", then the backfill of {from} to {to}")
    });
    format!(
        "rehearsal of {job}, from an empty lake, with invented leads:\n\
         each day{at} the sync{}\nno request leaves this machine\n\n",
        backfill.unwrap_or_default()
    )
}

fn shape_text(shape: &SourceShape) -> String {
    let SourceShape { source, provider, .. } = shape;
    let plan = shape.plan.map(|plan| format!(" {plan}")).unwrap_or_default();
    let day = match (shape.per_day, shape.allowance) {
        (Some(per_day), Some(allowance)) if allowance < per_day => format!(
            "{} requests a day, {} of them left to others",
            number(per_day.into()),
            number((per_day - allowance).into())
        ),
        (Some(per_day), _) => format!("{} requests a day", number(per_day.into())),
        (None, _) => "no limit a day".to_owned(),
    };
    let mut text = format!("{source}: {provider}{plan}, {day}\n");
    if let Some(Taken { value, basis }) = shape.parts {
        let part = if shape.provider == ProviderId::Convertalk { "bot" } else { "profile" };
        let parts = format!("{} {part}{}", number(value.into()), if value == 1 { "" } else { "s" });
        text.push_str(&format!("  {parts}: {}\n", basis_text(basis, "--profiles")));
    }
    let Taken { value, basis } = shape.leads_per_day;
    text.push_str(&format!("  {}: {}\n", rate(value), basis_text(basis, "--leads-per-day")));
    let since = shape.since.value.format("%F");
    let assumed = if shape.since.basis == Basis::Assumed { " (assumed)" } else { "" };
    let (leads, page) = (number(shape.leads), number(shape.page_size.into()));
    text.push_str(&format!("  about {leads} leads since {since}{assumed}, {page} a page\n"));
    if shape.stands_for > 1.0 {
        text.push_str(&format!("  each rehearsed lead stands for {}\n", factor(shape.stands_for)));
    }
    text
}

/// Returns where a figure is from, in words; `flag` is what would set it.
fn basis_text(basis: Basis, flag: &str) -> String {
    match basis {
        Basis::Asked => flag.to_owned(),
        Basis::Listed(at) => format!("listed on {}", at.format("%F")),
        Basis::Held(at) => format!("held on {}", at.format("%F")),
        Basis::Job => "in the job file".to_owned(),
        Basis::Assumed => format!("assumed; set {flag}"),
    }
}

fn rate(leads: f64) -> String {
    if leads >= 10.0 {
        return format!("{} leads a day", number(whole(leads)));
    }
    let text = format!("{leads:.1}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} lead{} a day", if text == "1" { "" } else { "s" })
}

fn factor(leads: f64) -> String {
    let text = format!("{leads:.1}");
    let text = text.trim_end_matches(".0");
    if text.contains('.') { format!("about {text}") } else { text.to_owned() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of leads")]
fn whole(leads: f64) -> u64 {
    leads.round() as u64
}

/// Returns the days, one a line. The allowance stands beside the requests where there is but one, and
/// room for it.
fn calendar(rehearsal: &Rehearsal, zone: FixedOffset) -> Table {
    let has_dates = rehearsal.days.iter().any(|day| day.has_dates());
    let has_listings = rehearsal.days.iter().any(|day| day.listings > 0);
    let mut allowances = rehearsal.quotas.iter().filter_map(|quota| quota.allowance);
    let allowance = allowances.next().filter(|_| allowances.next().is_none() && !has_listings);
    let mut headings = vec!["day", "date", "how it ended"];
    headings.extend(has_dates.then_some("back to"));
    headings.extend(has_listings.then_some("lists"));
    let text_columns = headings.len();
    headings.extend(["requests", "leads"]);
    let mut table = Table::new(&headings, text_columns);
    for day in &rehearsal.days {
        let mut cells = vec![
            day.day.to_string(),
            day.started_at.with_timezone(&zone).format("%F").to_string(),
            day.words(zone),
        ];
        let back_to = || day.complete_back_to.map(|at| at.format("%F").to_string());
        cells.extend(has_dates.then(|| back_to().unwrap_or_else(|| "-".to_owned())));
        cells.extend(has_listings.then(|| format!("{} of {}", day.listings_whole, day.listings)));
        let requests = number(day.requests);
        cells.push(match allowance {
            Some(allowance) => format!("{requests} of {}", number(allowance.into())),
            None => requests,
        });
        cells.push(number(day.leads));
        table.row(cells);
    }
    table
}

impl RehearsedDay {
    fn has_dates(&self) -> bool {
        self.sources.values().any(|source| source.listings == 0)
    }

    /// Returns how the day ended, in few words.
    fn words(&self, zone: FixedOffset) -> String {
        if self.endings.contains(&Ending::QuotaSpent) {
            let next_day = self.started_at.with_timezone(&zone).date_naive() + Days::new(1);
            let Some(at) = self.resume_at.map(|at| at.with_timezone(&zone)) else {
                return "quota spent".to_owned();
            };
            return match at.date_naive() == next_day {
                true => format!("quota spent till {}", at.format("%R")),
                false => format!("spent till {}", at.format("%m-%d %R")),
            };
        }
        let failed = |(name, source): (&SourceName, &SourceDay)| {
            matches!(source.state, State::Failed | State::Refused).then(|| name.to_string())
        };
        let failed: Vec<String> = self.sources.iter().filter_map(failed).collect();
        if !failed.is_empty() {
            return format!("failed: {}", list(failed, 2));
        }
        match self.endings.first() {
            Some(Ending::Interrupted | Ending::Terminated) => "interrupted",
            Some(Ending::NeedsLook) => "done, needs a look",
            _ => "done",
        }
        .to_owned()
    }
}

fn ending(rehearsal: &Rehearsal, zone: FixedOffset) -> String {
    let requests = number(rehearsal.requests);
    let last = rehearsal.days.last();
    let day = last.map_or(0, |day| day.day);
    let mut text = match (rehearsal.outcome, last) {
        (Outcome::Done, Some(last)) => {
            let at = last.ended_at.with_timezone(&zone).format("%F %R");
            format!("done on day {day}, {at}; {requests} requests\n")
        }
        (Outcome::Failed, Some(last)) => failures(last),
        (Outcome::Stopped, _) => format!("interrupted on day {day}; {requests} requests\n"),
        _ => format!(
            "not done after {day} day{}; {requests} requests; --days allows more\n",
            if day == 1 { "" } else { "s" }
        ),
    };
    text.push_str(&firsts(&rehearsal.days));
    if let Some(nights) = &rehearsal.nights {
        let [plain, week, month] = [nights.plain, nights.week, nights.month].map(number);
        text.push_str(&format!(
            "a plain night then costs {plain}, the dearest of a week {week}, of a month {month}\n"
        ));
        if nights.quota_spent > 0 {
            text.push_str(&format!(
                "{} of {} nights spend the quota before they are done: not all stays current\n",
                nights.quota_spent,
                nights.requests.len()
            ));
        }
    }
    for quota in &rehearsal.quotas {
        text.push_str(&quota_text(quota, rehearsal.quotas.len() > 1));
    }
    text
}

/// Returns when each source was whole, where there are several.
fn firsts(days: &[RehearsedDay]) -> String {
    let names: Vec<&SourceName> = days.iter().take(1).flat_map(|day| day.sources.keys()).collect();
    if names.len() < 2 {
        return String::new();
    }
    let mut text = String::new();
    for name in names {
        let is_whole = |day: &&RehearsedDay| day.sources.get(name).is_some_and(|s| s.is_whole);
        text.push_str(&match days.iter().find(is_whole) {
            Some(day) => format!("  {name}: all of it on day {}\n", day.day),
            None => format!("  {name}: not yet all of it\n"),
        });
    }
    text
}

fn failures(day: &RehearsedDay) -> String {
    let why = |(name, source): (&SourceName, &SourceDay)| {
        let why = super::harmless(source.why.as_ref()?);
        Some(format!("{name} failed on day {}: {why}\n", day.day))
    };
    day.sources.iter().filter_map(why).collect()
}

/// Returns what the sandbox counted, where that proves something: a day with a fixed end is not any 24
/// hours.
fn quota_text(quota: &QuotaSeen, is_named: bool) -> String {
    let Some(allowance) = quota.allowance.filter(|_| quota.is_rolling) else {
        return String::new();
    };
    let name = if is_named { format!("{}: ", list(&quota.sources, 3)) } else { String::new() };
    let refused = match quota.refused {
        0 => "none refused".to_owned(),
        refused => format!("{} refused", number(refused)),
    };
    format!(
        "{name}at most {} requests in any 24 hours, {} allowed; {refused}\n",
        number(quota.most_in_24_hours),
        number(allowance.into())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn name(text: &str) -> SourceName {
        text.parse().unwrap()
    }

    fn agency() -> SourceShape {
        SourceShape {
            source: name("agency"),
            provider: ProviderId::WhatConverts,
            plan: Some("master"),
            per_day: Some(10_000),
            allowance: Some(8_000),
            parts: Some(Taken { value: 40, basis: Basis::Listed(at("2026-11-20T02:10:04Z")) }),
            leads_per_day: Taken { value: 660.4, basis: Basis::Held(at("2026-11-20T02:12:00Z")) },
            since: Taken { value: at("2016-01-01T00:00:00Z"), basis: Basis::Job },
            leads: 2_629_500,
            page_size: 25,
            rehearsed_page_size: 5,
            stands_for: 5.0,
        }
    }

    fn clinic() -> SourceShape {
        let assumed = Basis::Assumed;
        SourceShape {
            source: name("clinic"),
            provider: ProviderId::Whautomate,
            plan: Some("trial"),
            per_day: Some(100),
            allowance: Some(100),
            parts: None,
            leads_per_day: Taken { value: 1.0, basis: Basis::Asked },
            since: Taken { value: at("2023-11-28T02:10:00Z"), basis: assumed },
            leads: 1_095,
            page_size: 100,
            rehearsed_page_size: 100,
            stands_for: 1.0,
        }
    }

    fn day(day: u64, back_to: &str, source: SourceDay) -> RehearsedDay {
        let started_at = at("2026-11-28T01:10:00Z") + Days::new(day - 1);
        let is_spent = source.state == State::Partial;
        RehearsedDay {
            day,
            started_at,
            ended_at: started_at + chrono::TimeDelta::minutes(47),
            requests: source.requests,
            backfill_requests: 0,
            leads: source.leads,
            complete_back_to: Some(at(back_to)),
            listings_whole: source.listings_whole,
            listings: source.listings,
            endings: if is_spent { vec![Ending::QuotaSpent] } else { Vec::new() },
            resume_at: is_spent.then_some(started_at + Days::new(1)),
            sources: BTreeMap::from([(name("agency"), source)]),
        }
    }

    fn source_day(state: State, requests: u64, leads: u64) -> SourceDay {
        let is_whole = state == State::Complete;
        SourceDay { state, requests, leads, is_whole, ..SourceDay::default() }
    }

    fn seen(source: &str, allowance: Option<u32>) -> QuotaSeen {
        QuotaSeen {
            sources: vec![name(source)],
            allowance,
            is_rolling: true,
            requests: 20_000,
            most_in_24_hours: 8_000,
            refused: 0,
        }
    }

    /// A backfill of three days that is done.
    fn rehearsal() -> Rehearsal {
        let spent = |requests, leads| source_day(State::Partial, requests, leads);
        let days = vec![
            day(1, "2024-03-01T00:00:00Z", spent(8_000, 1_130_000)),
            day(2, "2019-07-04T00:00:00Z", spent(7_998, 2_210_000)),
            day(3, "2016-01-01T00:00:00Z", source_day(State::Complete, 1_412, 2_560_115)),
        ];
        Rehearsal {
            job: "agency-nightly".to_owned(),
            range: Window::new(at("2016-01-01T00:00:00Z"), at("2026-11-28T02:10:00Z")),
            sources: vec![agency()],
            outcome: Outcome::Done,
            requests: days.iter().map(|day| day.requests).sum(),
            days,
            nights: Nights::of(vec![140, 61, 61, 61, 121, 61, 61, 61, 61, 541], 0),
            quotas: vec![seen("agency", Some(8_000))],
        }
    }

    fn text(rehearsal: &Rehearsal) -> String {
        rehearsal_text(rehearsal, FixedOffset::east_opt(3_600).unwrap())
    }

    #[test]
    fn a_rehearsal_that_is_done_reads_well() {
        let text = text(&rehearsal());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn several_sources_and_days_that_were_too_few_read_well() {
        let mut rehearsal = rehearsal();
        rehearsal.range = None;
        rehearsal.sources = vec![SourceShape { stands_for: 1.0, ..agency() }, clinic()];
        rehearsal.outcome = Outcome::DaysOver;
        rehearsal.nights = None;
        rehearsal.quotas.push(QuotaSeen { refused: 2, ..seen("clinic", Some(100)) });
        rehearsal.quotas.push(seen("bots", None));
        for day in &mut rehearsal.days {
            (day.listings, day.listings_whole) = (2, day.day - 1);
            let clinic = SourceDay { listings: 2, listings_whole: 1, ..SourceDay::default() };
            day.sources.insert(name("clinic"), clinic);
        }
        rehearsal.days[1].resume_at = Some(at("2026-12-01T03:00:00Z"));
        let text = text(&rehearsal);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_source_that_failed_says_why() {
        let mut rehearsal = rehearsal();
        rehearsal.outcome = Outcome::Failed;
        rehearsal.nights = None;
        let last = rehearsal.days.last_mut().unwrap();
        last.endings = vec![Ending::SourceFailed];
        let agency = last.sources.values_mut().next().unwrap();
        (agency.state, agency.why) = (State::Failed, Some("it broke\u{1b}".to_owned()));
        let text = text(&rehearsal);
        assert!(text.contains("failed: agency"), "{text}");
        assert!(text.contains("\nagency failed on day 3: it broke\\u{1b}\n"), "{text}");
    }

    #[test]
    fn nights_that_spend_the_quota_are_told() {
        let mut rehearsal = rehearsal();
        rehearsal.nights = Nights::of(vec![90; 32], 30);
        let text = text(&rehearsal);
        assert!(text.contains("30 of 32 nights spend the quota"), "{text}");
    }

    #[test]
    fn a_plain_night_is_one_in_the_middle_and_the_first_is_no_dear_one() {
        let nights = Nights::of(vec![900, 61, 61, 121, 61, 61, 61, 61, 61, 541, 61], 0).unwrap();
        assert_eq!((nights.plain, nights.week, nights.month), (61, 121, 541));
        let one = Nights::of(vec![7], 0).unwrap();
        assert_eq!((one.plain, one.week, one.month), (7, 7, 7));
        assert_eq!(Nights::of(Vec::new(), 0), None);
    }
}
