//! Tells on stderr how a run is getting on: in plain lines and not too many, or in a log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tracing::debug;
use tracing::info;

use super::terminal;
use crate::clock::SharedClock;
use crate::ids::SourceName;
use crate::plan::Requests;
use crate::report::harmless;
use crate::report::number;
use crate::run::Event;
use crate::run::Observer;

/// Logs every fact of a run, each as JSON in the field `event`.
#[derive(Debug)]
pub(super) struct Logged;

impl Observer for Logged {
    fn observe(&self, event: &Event) {
        let Ok(text) = serde_json::to_string(event) else { return };
        match event {
            Event::PageHeld { .. } => debug!(event = text, "page held"),
            _ => info!(event = text, "run"),
        }
    }
}

/// How often pages and walks are counted aloud.
const EVERY: TimeDelta = TimeDelta::seconds(3);

/// Writes progress to stderr.
#[derive(Debug)]
pub(super) struct Progress {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    told_at: DateTime<Utc>,
    sources: BTreeMap<SourceName, Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    pages: u64,
    walks: u64,
    planned: u64,
}

impl Progress {
    pub(super) fn new(clock: SharedClock) -> Self {
        let state = State { told_at: clock.now(), sources: BTreeMap::new() };
        Self { clock, state: Mutex::new(state) }
    }

    /// Counts, and returns a line where it is time for one.
    fn count(&self, source: &SourceName, add: impl FnOnce(&mut Counts)) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { told_at, sources } = &mut *state;
        let counts = sources.entry(source.clone()).or_default();
        add(counts);
        let now = self.clock.now();
        if now - *told_at < EVERY {
            return None;
        }
        *told_at = now;
        let Counts { pages, walks, planned } = counts;
        let (pages, walks, planned) = (number(*pages), number(*walks), number(*planned));
        Some(format!("{source}: {pages} pages, {walks} of {planned} walks done"))
    }
}

impl Observer for Progress {
    fn observe(&self, event: &Event) {
        let line = match event {
            Event::PageHeld { source } => self.count(source, |counts| counts.pages += 1),
            Event::WalkClosed { source, .. } => self.count(source, |counts| counts.walks += 1),
            Event::Planned { source, walks, .. } => {
                self.count(source, |counts| counts.planned += *walks as u64);
                line(event)
            }
            _ => line(event),
        };
        if let Some(line) = line {
            terminal::say(&harmless(&line));
        }
    }
}

fn line(event: &Event) -> Option<String> {
    let line = match event {
        Event::CleanedUp { run } => format!("cleaned up after run {run}, which ended early"),
        Event::Replaying { source } => {
            format!("{source}: mapping its archive again")
        }
        Event::Listed { source, partitions, selected } => {
            format!("{source}: {partitions} profiles listed, {selected} listings to be read")
        }
        Event::Planned { source, walks: 0, .. } => format!("{source}: nothing to read"),
        Event::Planned { source, walks, requests } => {
            let requests = match requests {
                Requests::Known(count) => format!("{} requests", number(*count)),
                Requests::About(count) => format!("about {} requests", number(*count)),
                Requests::AtLeast(count) => format!("at least {} requests", number(*count)),
            };
            format!("{source}: {} walks planned, {requests}", number(*walks as u64))
        }
        Event::Committed { seq, rows, changes } => {
            format!("commit {seq}: {} rows, {} changes", number(*rows), number(*changes))
        }
        Event::SourceStopped { source, why } => format!("{source}: ended early: {why}"),
        _ => return None,
    };
    Some(line)
}
