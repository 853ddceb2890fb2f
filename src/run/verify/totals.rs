//! Asks the providers how many rows there are in what was read, and compares with the rows held.
//!
//! A request is one page of one row, under a permit like any other. Rows on the second beyond both
//! ends of a span may be counted or not, as nobody documents whether ends are included.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Serialize;

use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::commit::Commit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::SourceName;
use crate::load;
use crate::load::LeadKey;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::run::Result;
use crate::run::chain;
use crate::run::client;
use crate::run::client::Quotas;
use crate::run::probes;
use crate::run::stop::Stop;
use crate::store::Store;
use crate::window::Window;

/// How a total compares with what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// They are the same, or differ as they did in every reading.
    Agreed,
    /// They differ.
    Differs,
    /// Nobody asked: no permit, no request left, or an error.
    NotChecked,
    /// The provider states no totals.
    NotStated,
}

/// What the provider states of a span of a scope, and what is held of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// The source.
    pub source: SourceName,
    /// The scope's name within it; none where it is about all of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeKey>,
    /// The span of creation times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Rows held.
    pub held: u64,
    /// Rows that the provider states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated: Option<u64>,
    /// How they compare.
    pub verdict: Verdict,
    /// Why it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A span that was read whole, with the rows held in it.
#[derive(Debug)]
struct Span {
    scope: Scope,
    window: Window,
    /// Rows inside.
    within: u64,
    /// Rows inside or up to a second beyond.
    around: u64,
    /// What the provider's totals usually differ by.
    habit: i64,
}

/// A request spans at most 400 days, a second beyond its window on both sides included.
const LONGEST: TimeDelta = TimeDelta::days(399);

/// Compares for all sources of a job, with at most `most` requests each.
pub(super) async fn compare(
    job: &Job,
    head: &Commit,
    most: u64,
    stop: &Stop,
    clock: &SharedClock,
) -> Result<Vec<Totals>> {
    let quotas = Quotas::new(job, None, clock.clone())?;
    let mut totals = Vec::new();
    for source in &job.sources {
        let client = client::connect(job, source, &quotas, stop.watch(), clock.clone());
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                totals.push(of_source(source, Verdict::NotChecked, Some(chain(&error))));
                continue;
            }
        };
        let compared = compare_source(job, head, source, &client, most, clock).await;
        client.quota.release().await?;
        totals.extend(compared?);
    }
    Ok(totals)
}

fn of_source(source: &SourceSettings, verdict: Verdict, why: Option<String>) -> Totals {
    let source = source.name.clone();
    Totals { source, scope: None, window: None, held: 0, stated: None, verdict, why }
}

async fn compare_source(
    job: &Job,
    head: &Commit,
    source: &SourceSettings,
    client: &client::Client,
    most: u64,
    clock: &SharedClock,
) -> Result<Vec<Totals>> {
    if source.start().is_none() {
        return Ok(vec![of_source(source, Verdict::NotStated, None)]);
    }
    let mut spans = match head.checkpoint.sources.get(&source.name) {
        Some(progress) => spans_of(source, progress),
        None => Vec::new(),
    };
    if spans.is_empty() {
        let why = Some("nothing was read whole yet".to_owned());
        return Ok(vec![of_source(source, Verdict::NotChecked, why)]);
    }
    count(&Store::at(&job.lake)?, head, source, &mut spans)?;
    let mut totals = Vec::new();
    let mut stopped: Option<String> = None;
    for (asked, span) in (0..).zip(spans) {
        if asked == most {
            stopped.get_or_insert_with(|| format!("{most} requests a source were allowed"));
        }
        let answer = match &stopped {
            Some(why) => Err(why.clone()),
            None => {
                let (scope, window) = (&span.scope, span.window);
                let total = probes::total(client, scope, window, Reason::Spare, clock.now()).await;
                total.map_err(|error| chain(&error))
            }
        };
        if let Err(why) = &answer {
            stopped.get_or_insert_with(|| why.clone());
        }
        totals.push(span.compared(&source.name, answer));
    }
    Ok(totals)
}

impl Span {
    fn compared(
        &self,
        source: &SourceName,
        answer: std::result::Result<Option<u64>, String>,
    ) -> Totals {
        let (stated, why) = match answer {
            Ok(stated) => (stated, None),
            Err(why) => (None, Some(why)),
        };
        let verdict = match (stated, &why) {
            (Some(stated), _) if self.agrees(stated) => Verdict::Agreed,
            (Some(_), _) => Verdict::Differs,
            (None, Some(_)) => Verdict::NotChecked,
            (None, None) => Verdict::NotStated,
        };
        Totals {
            source: source.clone(),
            scope: Some(self.scope.key()),
            window: Some(self.window),
            held: self.within,
            stated,
            verdict,
            why,
        }
    }

    fn agrees(&self, stated: u64) -> bool {
        let is_within = |stated: u64| (self.within..=self.around).contains(&stated);
        is_within(stated) || is_within(stated.saturating_add_signed(-self.habit))
    }
}

/// Returns the spans that were read, of each scope the newest first, the scopes in turn.
fn spans_of(source: &SourceSettings, progress: &SourceProgress) -> Vec<Span> {
    let known = providers::known_partitions(source, progress.partitions.as_ref());
    let scopes = providers::scopes(source, known.map(|known| known.listed.as_slice()));
    let mut ranked = Vec::new();
    for scope in scopes {
        let Some(read) = progress.scopes.get(&scope.key()) else { continue };
        let difference = read.difference.filter(|difference| difference.seen > 1);
        let mut joined: Vec<Window> = Vec::new();
        for span in read.coverage.spans() {
            match joined.last_mut() {
                Some(last) if last.end() == span.window.start() => {
                    *last = Window::new(last.start(), span.window.end()).unwrap_or(*last);
                }
                _ => joined.push(span.window),
            }
        }
        let pieces = joined.iter().rev().flat_map(|window| window.split_from_end(LONGEST));
        for (rank, window) in pieces.enumerate() {
            let habit = difference.map_or(0, |difference| difference.rows);
            let scope = scope.clone();
            ranked.push((rank, Span { scope, window, within: 0, around: 0, habit }));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, span)| span).collect()
}

/// Counts the rows held in each span.
fn count(store: &Store, head: &Commit, source: &SourceSettings, spans: &mut [Span]) -> Result<()> {
    let Some(held) = head.sources.get(&source.name) else { return Ok(()) };
    let mut spans = SpansByScope::new(spans);
    for key in load::lead_keys(store, &held.parts, None) {
        spans.count(&key?);
    }
    Ok(())
}

/// Spans by the stream and the label of their scope: a lead is looked for in those of its own alone, as
/// there may be thousands.
struct SpansByScope<'a>(BTreeMap<String, BTreeMap<String, Vec<&'a mut Span>>>);

impl<'a> SpansByScope<'a> {
    fn new(spans: &'a mut [Span]) -> Self {
        let mut by_stream: BTreeMap<String, BTreeMap<String, Vec<&mut Span>>> = BTreeMap::new();
        for span in spans {
            let of_stream = by_stream.entry(span.scope.stream.clone()).or_default();
            of_stream.entry(span.scope.label()).or_default().push(span);
        }
        Self(by_stream)
    }

    fn count(&mut self, key: &LeadKey) {
        let Some(at) = key.created_at.filter(|_| key.deleted_at.is_none()) else { return };
        for span in self.of(key).into_iter().flatten() {
            span.within += u64::from(span.window.contains(at));
            span.around += u64::from(is_around(span.window, at));
        }
    }

    fn of(&mut self, key: &LeadKey) -> Option<&mut Vec<&'a mut Span>> {
        let stream = key.lead_id.split(':').nth(1)?;
        self.0.get_mut(stream)?.get_mut(&key.scope)
    }
}

fn is_around(window: Window, at: DateTime<Utc>) -> bool {
    let second = TimeDelta::seconds(1);
    window.start() - second <= at && at <= window.end() + second
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    fn span(stream: &str, query: &str, start: i64, end: i64) -> Span {
        let scope = Scope {
            source: "acme".parse().unwrap(),
            stream: stream.to_owned(),
            partition: "profile:1".to_owned(),
            query: query.to_owned(),
            list: String::new(),
        };
        let window = Window::new(at(start), at(end)).unwrap();
        Span { scope, window, within: 0, around: 0, habit: 0 }
    }

    fn key(stream: &str, scope: &str, second: i64) -> LeadKey {
        LeadKey {
            lead_id: format!("acme:{stream}:1"),
            created_at: Some(at(second)),
            scope: scope.to_owned(),
            deleted_at: None,
        }
    }

    #[test]
    fn a_lead_counts_in_the_spans_of_its_own_scope_that_it_lies_in_or_on_the_edge_of() {
        let mut spans = [
            span("leads", "", 0, 10),
            span("leads", "", 10, 20),
            span("leads", "spam=true", 0, 10),
            span("calls", "", 0, 10),
        ];
        let mut by_scope = SpansByScope::new(&mut spans);
        by_scope.count(&key("leads", "profile:1", 5));
        by_scope.count(&key("leads", "profile:1", 10));
        by_scope.count(&key("calls", "profile:1", 30));
        by_scope.count(&key("leads", "profile:2", 5));
        by_scope.count(&key("chats", "profile:1", 5));
        by_scope.count(&LeadKey { created_at: None, ..key("leads", "profile:1", 5) });
        by_scope.count(&LeadKey { deleted_at: Some(at(9)), ..key("leads", "profile:1", 5) });
        let counts = spans.map(|span| (span.within, span.around));
        assert_eq!(counts, [(1, 2), (1, 1), (0, 0), (0, 0)]);
    }
}
