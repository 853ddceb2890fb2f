//! What a run would read, as text.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::NaiveTime;
use chrono::Utc;

use super::Table;
use super::harmless;
use super::instant;
use super::number;
use crate::config::PartitionBy;
use crate::plan::Basis;
use crate::plan::PlannedWalk;
use crate::plan::Requests;
use crate::record::DownTo;
use crate::run::Preview;
use crate::run::PreviewedSource;
use crate::window::Window;

/// So many walks of a source are listed one by one; more are counted by what they are for.
const LISTED: usize = 20;

/// Returns the walks of each source, what they cost, and when all is there; `all` lists them however
/// many there are, `zone` is that of the times.
pub fn plan_text(preview: &Preview, all: bool, zone: FixedOffset) -> String {
    let now = preview.planned_at;
    let sources = &preview.sources;
    let texts: Vec<String> =
        sources.iter().map(|source| source_text(source, all, now, zone)).collect();
    let mut text = texts.join("\n");
    if sources.len() > 1 {
        let requests = sources.iter().map(|source| source.requests);
        let total = requests.fold(Requests::Known(0), Requests::plus);
        text.push_str(&format!("\nall sources: {}\n", price(total)));
    }
    text
}

fn source_text(
    source: &PreviewedSource,
    all: bool,
    now: DateTime<Utc>,
    zone: FixedOffset,
) -> String {
    let name = &source.source;
    let walks = &source.plan.walks;
    if let (Some(error), None) = (&source.error, &source.quota) {
        return format!("{name}: cannot be planned: {}\n", harmless(error));
    }
    let mut text = match walks.len() {
        0 => format!("{name}: nothing to read\n"),
        1 => format!("{name}: 1 walk, {}\n", price(source.requests)),
        count => format!("{name}: {} walks, {}\n", number(count as u64), price(source.requests)),
    };
    let table = if all || walks.len() <= LISTED { listed(walks) } else { grouped(walks) };
    if !table.is_empty() {
        for line in table.to_string().lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if !all && walks.len() > LISTED {
        text.push_str("  (--all lists every walk)\n");
    }
    for dropped in &source.plan.dropped {
        let scope = dropped.walk.walk.scope.key();
        let why = dropped.why;
        text.push_str(&format!("  not gone on with: {}: {why}\n", harmless(&scope.0)));
    }
    if !source.plan.left_out.is_empty() {
        let scopes = super::list(&source.plan.left_out, 5);
        let why = "left out, without dates and read whole before (--again reads them once more)";
        text.push_str(&format!("  {why}: {}\n", harmless(&scopes)));
    }
    let lines = basis(source).into_iter().chain(permits(source)).chain(done(source, now, zone));
    let lines = lines.chain(choices(source));
    text.extend(lines.map(|line| format!("  {line}\n")));
    text
}

/// Says how the price is known, where it is not counted.
fn basis(source: &PreviewedSource) -> Vec<String> {
    let walks = &source.plan.walks;
    let resting_on = |basis: &[Basis]| {
        let walks = walks.iter().filter(|walk| basis.contains(&walk.basis));
        walks.filter(|walk| walk.requests.count() > 0).count() as u64
    };
    let mut lines = Vec::new();
    let estimated = [
        (resting_on(&[Basis::Held]), "from what is held of their days"),
        (resting_on(&[Basis::Nearby]), "from the days beside them"),
        (resting_on(&[Basis::OtherScopes]), "from the other scopes"),
    ];
    let estimated: Vec<String> = estimated
        .iter()
        .filter(|(walks, _)| *walks > 0)
        .map(|(walks, how)| format!("{} {how}", number(*walks)))
        .collect();
    if !estimated.is_empty() {
        lines.push(format!("walks whose price is estimated: {}", estimated.join(", ")));
    }
    let unknown = resting_on(&[Basis::Nothing]);
    if unknown > 0 {
        let has_dates = walks.iter().any(|walk| walk.window.is_some());
        let how = match (has_dates, source.unstated) {
            (false, _) => "known once they are read",
            (true, 0) => "--probe asks for each total with a request",
            (true, _) => "the provider states no totals",
        };
        lines.push(format!("walks of which nothing is known: {}; {how}", number(unknown)));
    }
    if source.spent > 0 {
        lines.push(format!("requests that this plan has cost: {}", number(source.spent)));
    }
    lines.extend(source.error.iter().map(|error| format!("not probed to the end: {error}")));
    lines
}

/// Says what of today's permits is taken, and what a run does with them.
fn permits(source: &PreviewedSource) -> Vec<String> {
    let (Some(quota), Some(today)) = (&source.quota, &source.today) else { return Vec::new() };
    let mut lines = Vec::new();
    let (needed, walks) = (source.requests.count(), source.plan.walks.len() as u64);
    match quota.allowance.zip(quota.left) {
        None => lines.push("permits: no limit a day".to_owned()),
        Some((allowance, left)) => {
            let mut text = format!(
                "permits: {} left of {} a day",
                number(left.into()),
                number(allowance.into())
            );
            if quota.kept_back > 0 {
                let kept = number(quota.kept_back.into());
                text.push_str(&format!(", beside {kept} kept back for the syncs of a day"));
            }
            if !quota.shared_with.is_empty() {
                text.push_str(&format!(", shared with {}", super::list(&quota.shared_with, 5)));
            }
            lines.push(text);
        }
    }
    if today.requests < needed {
        let mut text = format!(
            "a run now sends {} requests and finishes {} of {} walks",
            number(today.requests),
            number(today.walks),
            number(walks)
        );
        if let Some(from) = today.history_from {
            text.push_str(&format!("; all from {} on is there then", short(from)));
        }
        lines.push(text);
    }
    lines
}

/// Says what the listings cost, cut in each way.
fn choices(source: &PreviewedSource) -> Vec<String> {
    let headings = ["partition_by", "custom fields", "scopes", "to read all", "a plain night"];
    let mut table = Table::new(&headings, 2);
    for choice in &source.choices {
        let shown = match choice.partition_by {
            PartitionBy::Profile => "with",
            PartitionBy::Account | PartitionBy::None => "without",
        };
        let set = if choice.is_set { " (as now)" } else { "" };
        table.row([
            format!("{}{set}", choice.partition_by.as_str()),
            shown.to_owned(),
            number(choice.scopes),
            count(choice.all),
            count(choice.night),
        ]);
    }
    if table.is_empty() {
        Vec::new()
    } else {
        table.to_string().lines().map(str::to_owned).collect()
    }
}

/// Says when all is there.
fn done(source: &PreviewedSource, now: DateTime<Utc>, zone: FixedOffset) -> Option<String> {
    let forecast = source.forecast.as_ref()?;
    if source.plan.walks.is_empty() {
        return None;
    }
    let Some(done_at) = forecast.done_at else {
        return Some("never done at this pace: each run needs all that a day allows".to_owned());
    };
    let how = match source.requests {
        Requests::Known(_) => "done",
        Requests::About(_) => "done about",
        Requests::AtLeast(_) => "done at the earliest",
    };
    let mut text = format!("{how}: {}", instant(done_at, zone));
    let days = (done_at - now).num_days() + 1;
    if forecast.runs.len() > 1 {
        let (runs, requests) = (number(forecast.runs.len() as u64), number(forecast.requests));
        text.push_str(&format!(", on day {days}, in {runs} runs of {requests} requests in all"));
    }
    Some(text)
}

fn price(requests: Requests) -> String {
    match requests {
        Requests::Known(1) => "1 request".to_owned(),
        Requests::Known(count) => format!("{} requests", number(count)),
        Requests::About(1) => "about 1 request".to_owned(),
        Requests::About(count) => format!("about {} requests", number(count)),
        Requests::AtLeast(1) => "at least 1 request".to_owned(),
        Requests::AtLeast(count) => format!("at least {} requests", number(count)),
    }
}

fn count(requests: Requests) -> String {
    match requests {
        Requests::Known(count) => number(count),
        Requests::About(count) => format!("about {}", number(count)),
        Requests::AtLeast(count) => format!("at least {}", number(count)),
    }
}

fn listed(walks: &[PlannedWalk]) -> Table {
    let mut table = Table::new(&["scope", "what (UTC)", "reason", "requests", "pages held"], 3);
    for walk in walks {
        let held = walk.resume.as_ref().map(|open| number(open.loaded_pages));
        table.row([
            harmless(&walk.scope.key().0),
            reach(walk.window, walk.down_to),
            walk.reason.describe().to_owned(),
            count(walk.requests),
            held.unwrap_or_default(),
        ]);
    }
    table
}

/// Counts walks by what they read and why; profiles differ only in their number.
fn grouped(walks: &[PlannedWalk]) -> Table {
    let mut groups: BTreeMap<(String, &str, bool), Group> = BTreeMap::new();
    for walk in walks {
        let key = walk.scope.key().0;
        let reason = walk.reason.describe();
        let kind = (kind_of(&key), reason, walk.down_to.is_some());
        let group = groups.entry(kind).or_insert_with(|| Group {
            walks: 0,
            window: walk.window,
            down_to: walk.down_to,
            requests: Requests::Known(0),
        });
        group.walks += 1;
        group.requests = group.requests.plus(walk.requests);
        let down_to = group.down_to.into_iter().chain(walk.down_to);
        group.down_to = down_to.min_by_key(|down_to| down_to.at);
        group.window = group.window.zip(walk.window).and_then(|(left, right)| {
            Window::new(left.start().min(right.start()), left.end().max(right.end()))
        });
    }
    let mut table = Table::new(&["scopes", "what (UTC)", "reason", "walks", "requests"], 3);
    for ((scopes, reason, _), group) in groups {
        table.row([
            harmless(&scopes),
            reach(group.window, group.down_to),
            reason.to_owned(),
            number(group.walks),
            count(group.requests),
        ]);
    }
    table
}

struct Group {
    walks: u64,
    window: Option<Window>,
    down_to: Option<DownTo>,
    requests: Requests,
}

/// Returns a scope's name without the number of its profile or bot: `leads/profile:*?spam=true`.
fn kind_of(key: &str) -> String {
    let Some((kind, rest)) = key.split_once(':') else { return key.to_owned() };
    let query = rest.find(['?', '/']).map_or("", |at| &rest[at..]);
    format!("{kind}:*{query}")
}

/// Returns how much of a listing is read.
fn reach(window: Option<Window>, down_to: Option<DownTo>) -> String {
    match (window, down_to) {
        (Some(window), _) => span(&window),
        (None, Some(down_to)) => format!("the newest, back to {}", short(down_to.at)),
        (None, None) => "all".to_owned(),
    }
}

/// Returns a window to the minute, to the day where it begins and ends with one.
fn span(window: &Window) -> String {
    format!("{} to {}", short(window.start()), short(window.end()))
}

fn short(at: DateTime<Utc>) -> String {
    match at.time() {
        NaiveTime::MIN => at.format("%F").to_string(),
        _ => at.format("%F %R").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::plan::SourcePlan;
    use crate::quota::Forecast;
    use crate::quota::ForecastRun;
    use crate::record::Reason;
    use crate::record::Scope;
    use crate::run::PreviewedQuota;
    use crate::run::Today;

    fn walk(profile: u32, query: &str, requests: Requests) -> PlannedWalk {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        PlannedWalk {
            scope: Scope {
                source: "agency".parse().unwrap(),
                stream: "leads".to_owned(),
                partition: format!("profile:{profile}"),
                query: query.to_owned(),
                list: String::new(),
            },
            window: Window::new(at("2026-01-01T00:00:00Z"), at("2026-11-01T02:10:00Z")),
            page_size: 2_500,
            reason: Reason::NewTime,
            is_newest: true,
            down_to: None,
            resume: None,
            requests,
            basis: match requests {
                Requests::Known(_) => Basis::Counted,
                Requests::About(_) => Basis::Nearby,
                Requests::AtLeast(_) => Basis::Nothing,
            },
            as_of: None,
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-11-01T02:12:00Z".parse().unwrap()
    }

    fn previewed(walks: Vec<PlannedWalk>, left: Option<u32>) -> PreviewedSource {
        let plan = SourcePlan { walks, ..SourcePlan::default() };
        let requests = Requests::Known(1).plus(plan.requests());
        let needed = requests.count();
        let sent = left.map_or(needed, |left| needed.min(left.into()));
        let first = ForecastRun { from: now(), requests: sent };
        let next = ForecastRun { from: now() + TimeDelta::hours(24), requests: needed - sent };
        let runs = if sent < needed { vec![first, next] } else { vec![first] };
        let done_at = runs.last().map(|run| run.from + TimeDelta::minutes(3));
        let kept_back = if sent < needed { 41 } else { 0 };
        let shared_with = Vec::new();
        PreviewedSource {
            source: "agency".parse().unwrap(),
            requests,
            listing_requests: 1,
            listed_as_of: None,
            spent: 0,
            unstated: 0,
            quota: Some(PreviewedQuota { allowance: left, left, kept_back, shared_with }),
            today: Some(Today {
                requests: sent,
                walks: plan.walks.len() as u64 / 2,
                history_from: Some("2024-06-01T00:00:00Z".parse().unwrap()),
            }),
            forecast: Some(Forecast { requests: needed, done_at, runs }),
            plan,
            choices: Vec::new(),
            error: None,
        }
    }

    fn text(sources: &[PreviewedSource], all: bool) -> String {
        let (planned_at, sources) = (now(), sources.to_vec());
        let preview = Preview { version: 1, job: "nightly".to_owned(), planned_at, sources };
        plan_text(&preview, all, FixedOffset::east_opt(0).unwrap())
    }

    #[test]
    fn few_walks_are_listed() {
        let walks =
            vec![walk(123, "", Requests::Known(3)), walk(124, "spam=true", Requests::AtLeast(1))];
        insta::assert_snapshot!(text(&[previewed(walks, Some(8_000))], false));
    }

    #[test]
    fn many_walks_are_counted_by_what_they_are_for() {
        let walk = |profile| {
            let query = if profile % 2 == 0 { "" } else { "spam=true" };
            walk(profile, query, Requests::Known(3))
        };
        let sources = [
            previewed((0..200).map(walk).collect(), Some(500)),
            PreviewedSource {
                error: Some("no key".to_owned()),
                quota: None,
                ..previewed(Vec::new(), None)
            },
        ];
        insta::assert_snapshot!(text(&sources, false));
        assert_eq!(text(&sources, true).lines().count(), 209);
    }
    #[test]
    fn listings_without_dates_are_read_whole_or_from_the_top() {
        use crate::record::Order;
        let chats = |bot: u32, list: &str, down_to| {
            let scope = Scope {
                source: "bots".parse().unwrap(),
                stream: "chats".to_owned(),
                partition: format!("bot:{bot}"),
                query: String::new(),
                list: list.to_owned(),
            };
            let walk = walk(0, "", Requests::AtLeast(1));
            PlannedWalk { scope, window: None, down_to, ..walk }
        };
        let at = "2026-11-01T02:10:00Z".parse().unwrap();
        let top = Some(DownTo { order: Order::Updated, at });
        let few = previewed(vec![chats(1, "non-lead", top), chats(2, "lead", None)], None);
        let mut many = previewed((0..30).map(|bot| chats(bot, "lead", top)).collect(), None);
        many.plan.left_out = vec![crate::record::ScopeKey("users/all".to_owned())];
        insta::assert_snapshot!(text(&[few, many], false));
    }
}
