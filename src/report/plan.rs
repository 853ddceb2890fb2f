//! What a run would read, as text.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::NaiveTime;
use chrono::Utc;

use super::Table;
use super::harmless;
use super::number;
use crate::plan::PlannedWalk;
use crate::plan::Requests;
use crate::record::DownTo;
use crate::run::PreviewedSource;
use crate::window::Window;

/// So many walks of a source are listed one by one; more are counted by what they are for.
const LISTED: usize = 20;

/// Returns the walks of each source and what they cost; `all` lists them however many there are.
pub fn plan_text(previewed: &[PreviewedSource], all: bool) -> String {
    let texts: Vec<String> = previewed.iter().map(|source| source_text(source, all)).collect();
    let mut text = texts.join("\n");
    if previewed.len() > 1 {
        let total = previewed.iter().map(total).fold(Requests::Known(0), Requests::plus);
        text.push_str(&format!("\nall sources: {}\n", price(total)));
    }
    text
}

fn source_text(source: &PreviewedSource, all: bool) -> String {
    let name = &source.source;
    if let Some(error) = &source.error {
        return format!("{name}: cannot be planned: {}\n", harmless(error));
    }
    let walks = &source.plan.walks;
    let mut text = match walks.len() {
        0 => format!("{name}: nothing to read\n"),
        1 => format!("{name}: 1 walk, {}\n", price(total(source))),
        count => format!("{name}: {} walks, {}\n", number(count as u64), price(total(source))),
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
    text.push_str(&format!("  permits left today: {}\n", permits(source)));
    text
}

fn permits(source: &PreviewedSource) -> String {
    let Some(left) = source.permits_left else { return "no limit".to_owned() };
    let needed = total(source).count();
    let short = needed.saturating_sub(left.into());
    match short {
        0 => number(left.into()),
        short => format!("{}, {} short: more than a day", number(left.into()), number(short)),
    }
}

fn total(source: &PreviewedSource) -> Requests {
    let walks = source.plan.walks.iter().map(|walk| walk.requests);
    walks.fold(Requests::Known(source.listing_requests), Requests::plus)
}

fn price(requests: Requests) -> String {
    match requests {
        Requests::Known(1) => "1 request".to_owned(),
        Requests::Known(count) => format!("{} requests", number(count)),
        Requests::AtLeast(1) => "at least 1 request".to_owned(),
        Requests::AtLeast(count) => format!("at least {} requests", number(count)),
    }
}

fn count(requests: Requests) -> String {
    match requests {
        Requests::Known(count) => number(count),
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
    use super::*;
    use crate::plan::SourcePlan;
    use crate::record::Reason;
    use crate::record::Scope;

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
            down_to: None,
            resume: None,
            requests,
        }
    }

    fn previewed(walks: Vec<PlannedWalk>, permits_left: Option<u32>) -> PreviewedSource {
        PreviewedSource {
            source: "agency".parse().unwrap(),
            plan: SourcePlan { walks, ..SourcePlan::default() },
            listing_requests: 1,
            listed_as_of: None,
            permits_left,
            error: None,
        }
    }

    #[test]
    fn few_walks_are_listed() {
        let walks =
            vec![walk(123, "", Requests::Known(3)), walk(124, "spam=true", Requests::AtLeast(1))];
        insta::assert_snapshot!(plan_text(&[previewed(walks, Some(8_000))], false));
    }

    #[test]
    fn many_walks_are_counted_by_what_they_are_for() {
        let walk = |profile| {
            let query = if profile % 2 == 0 { "" } else { "spam=true" };
            walk(profile, query, Requests::Known(3))
        };
        let sources = [
            previewed((0..200).map(walk).collect(), Some(500)),
            PreviewedSource { error: Some("no key".to_owned()), ..previewed(Vec::new(), None) },
        ];
        insta::assert_snapshot!(plan_text(&sources, false));
        assert_eq!(plan_text(&sources, true).lines().count(), 207);
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
        insta::assert_snapshot!(plan_text(&[few, many], false));
    }
}
