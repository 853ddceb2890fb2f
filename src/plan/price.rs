//! What a walk costs: from what was counted of its span, or else from what was counted beside it.
//!
//! A listing costs a request a page, and one where it is empty. How many rows it has is known where the
//! same span was read or its total asked for; of a span that was cut, joined or never read, what is
//! known of the days around it gives an estimate, and a price says what it rests on.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::Request;
use crate::record::ScopeKey;
use crate::window::Coverage;
use crate::window::Covered;
use crate::window::Window;

/// A number of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", content = "requests", rename_all = "snake_case")]
pub enum Requests {
    /// As many as the rows counted of just this span need.
    Known(u64),
    /// As many as the rows estimated from what was counted need.
    About(u64),
    /// At least so many: how many rows there are is not known.
    AtLeast(u64),
}

impl Requests {
    /// Returns the number.
    pub fn count(self) -> u64 {
        match self {
            Self::Known(count) | Self::About(count) | Self::AtLeast(count) => count,
        }
    }

    /// Adds two numbers; the sum is known no better than the one that is known less.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = self.count().saturating_add(other.count());
        match (self, other) {
            (Self::Known(_), Self::Known(_)) => Self::Known(sum),
            (Self::AtLeast(_), _) | (_, Self::AtLeast(_)) => Self::AtLeast(sum),
            _ => Self::About(sum),
        }
    }
}

/// What a price rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The same span was counted: it was read whole, or the provider stated its total.
    Counted,
    /// All of its days were counted, as parts of other spans.
    Held,
    /// As many rows a day as were counted in the days beside it.
    Nearby,
    /// As many rows a day as the other scopes of the source have.
    OtherScopes,
    /// Nothing: a listing costs a request at least.
    Nothing,
}

/// What a walk costs, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) requests: Requests,
    pub(super) basis: Basis,
}

impl Price {
    pub(super) const UNKNOWN: Self = Self { requests: Requests::AtLeast(1), basis: Basis::Nothing };

    fn known(rows: u64, page_size: u32) -> Self {
        Self { requests: Requests::Known(pages(rows, page_size)), basis: Basis::Counted }
    }

    fn about(rows: u64, page_size: u32, basis: Basis) -> Self {
        Self { requests: Requests::About(pages(rows, page_size)), basis }
    }
}

/// A listing of no rows costs a request too.
pub(super) fn pages(rows: u64, page_size: u32) -> u64 {
    rows.div_ceil(u64::from(page_size.max(1))).max(1)
}

/// Rows that a provider stated for a span when it was asked for the total alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The span.
    pub window: Window,
    /// Rows stated.
    pub rows: u64,
    /// When.
    pub at: DateTime<Utc>,
}

/// What was counted of the scopes of a source.
#[derive(Debug)]
pub struct Prices {
    page_size: u32,
    counted: BTreeMap<ScopeKey, Coverage>,
    /// Rows a day and scope; `None` where nothing was counted.
    a_day: Option<f64>,
}

/// Spans shorter than this say little about a day.
const TELLING: TimeDelta = TimeDelta::days(1);

impl Prices {
    /// Returns what was read and probed of the source of a request.
    pub fn new(request: &Request<'_>) -> Self {
        let mut counted: BTreeMap<ScopeKey, Coverage> = BTreeMap::new();
        for (key, probes) in request.probed {
            let scope = counted.entry(key.clone()).or_default();
            probes.iter().for_each(|probe| scope.insert(as_covered(probe)));
        }
        for (key, progress) in &request.progress.scopes {
            let scope = counted.entry(key.clone()).or_default();
            let spans = progress.coverage.spans().iter();
            let told = spans.filter(|span| span.rows_about().is_some());
            told.for_each(|span| scope.insert(span.clone()));
        }
        let current = request.scopes.iter().filter_map(|scope| counted.get(&scope.key()));
        let (rows, days) = current
            .flat_map(Coverage::spans)
            .map(|span| (span.rows_about().unwrap_or_default(), days(&span.window)))
            .fold(NOTHING, plus);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let a_day = (days > 1.0).then(|| rows as f64 / days);
        Self { page_size: request.settings.page_size, counted, a_day }
    }

    /// Tells whether anything of a scope was counted.
    pub fn is_counted(&self, scope: &ScopeKey) -> bool {
        self.counted.get(scope).is_some_and(|coverage| !coverage.is_empty())
    }

    /// Returns how many rows a span of a scope has, about; `None` where nothing of the scope was
    /// counted.
    pub fn rows(&self, scope: &ScopeKey, window: &Window) -> Option<u64> {
        let (rows, basis) = self.estimate(scope, window)?;
        (basis != Basis::OtherScopes).then_some(rows)
    }

    /// Returns the pages that so many rows take.
    pub fn pages(&self, rows: u64) -> u64 {
        pages(rows, self.page_size)
    }

    pub(super) fn of(&self, scope: &ScopeKey, window: &Window) -> Price {
        match self.estimate(scope, window) {
            Some((rows, Basis::Counted)) => Price::known(rows, self.page_size),
            Some((rows, basis)) => Price::about(rows, self.page_size, basis),
            None => Price::UNKNOWN,
        }
    }

    /// Returns what is left to pay of a walk of which some pages are held.
    pub(super) fn of_rest(&self, scope: &ScopeKey, window: &Window, held: u64) -> Price {
        let Price { requests, basis } = self.of(scope, window);
        let requests = match requests {
            Requests::Known(pages) => Requests::Known(pages.saturating_sub(held)),
            Requests::About(pages) => Requests::About(pages.saturating_sub(held).max(1)),
            Requests::AtLeast(_) => Requests::AtLeast(u64::from(held == 0)),
        };
        Price { requests, basis }
    }

    fn estimate(&self, scope: &ScopeKey, window: &Window) -> Option<(u64, Basis)> {
        let spans = self.counted.get(scope).map(Coverage::spans).unwrap_or_default();
        if let Some(span) = spans.iter().find(|span| span.window == *window)
            && let Some(rows) = span.rows
        {
            return Some((rows, Basis::Counted));
        }
        let inside = spans.iter().filter_map(|span| {
            let part = span.window.intersect(window)?;
            Some((span.rows_in(&part)?, days(&part)))
        });
        let (rows, covered) = inside.fold(NOTHING, plus);
        // A second more or less, as where a horizon moved on, is not worth another basis.
        let missing = days(window) - covered;
        if missing < 0.01 {
            return Some((rows, Basis::Held));
        }
        let beside = nearest(spans, window).map(|a_day| (a_day, Basis::Nearby));
        let (a_day, basis) = beside.or(self.a_day.map(|a_day| (a_day, Basis::OtherScopes)))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rows")]
        let rest = (a_day * missing).round() as u64;
        Some((rows.saturating_add(rest), basis))
    }
}

/// Rows, and the days that they lie in.
type Rows = (u64, f64);

const NOTHING: Rows = (0, 0.0);

fn plus((rows, days): Rows, (more, longer): Rows) -> Rows {
    // What a provider or a file says of rows may be any number.
    (rows.saturating_add(more), days + longer)
}

fn as_covered(probe: &Probed) -> Covered {
    let Probed { window, rows, at } = probe.clone();
    Covered { window, as_of: at, rows: Some(rows), share: None, reconciled: false, holes: 0 }
}

/// Returns the rows a day of the span that lies nearest to `window`.
fn nearest(spans: &[Covered], window: &Window) -> Option<f64> {
    let telling = spans.iter().filter(|span| span.window.length() >= TELLING);
    let distance = |span: &&Covered| {
        let after = span.window.start() - window.end();
        after.max(window.start() - span.window.end())
    };
    let span = telling.min_by_key(distance)?;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let rows = span.rows_about()? as f64;
    Some(rows / days(&span.window))
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn days(window: &Window) -> f64 {
    window.length().num_seconds() as f64 / 86_400.0
}
