//! Rehearses a job: its own plan, code and quota, against sandboxes of the shape of its accounts, on a
//! clock that runs fast.
//!
//! What is read is invented, and lies in a temporary folder that goes with the rehearsal. Of the job's
//! own lake only the last commit is read; nothing is written, no secret is read, and nothing leaves
//! this machine. A rehearsal begins with an empty lake.
//!
//! Day after day at the same time there is the nightly `sync`, and after it, where there is a range,
//! the `backfill`, until all of the history was read once and the backfill is done; then some more
//! nights, to see what one costs.
//!
//! Sources that share a quota share a lake and a clock; others are rehearsed beside them, each on its
//! own. For a clock that jumps to wherever somebody waits, nothing else must be under way: so requests
//! go one at a time, and each page takes [`PAGE_TAKES`] of the clock by as many as the quota would let
//! go at once. Waiting for the rate or for permits takes as long as it does.

mod calendar;
mod shape;
mod stage;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

pub use shape::LEADS;
pub use stage::stand_in;

use crate::commit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::error::Hint;
use crate::ids::SourceName;
use crate::quota::Rule;
use crate::report::Nights;
use crate::report::Outcome;
use crate::report::Rehearsal;
use crate::report::RehearsedDay;
use crate::run;
use crate::run::Ending;
use crate::run::Observer;
use crate::run::Range;
use crate::run::State;
use crate::run::Stop;
use crate::sandbox;
use crate::store::Store;
use crate::window::Window;
use stage::Played;
use stage::Stage;

/// How long a page is taken to be under way.
pub const PAGE_TAKES: TimeDelta = TimeDelta::seconds(1);

/// Days after which a rehearsal ends that is not done, where nothing is asked for.
pub const MOST_DAYS: u64 = 366;

/// An error that ends a rehearsal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A run failed.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// The job's own lake could not be looked at, or the rehearsal's.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// A sandbox could not be started.
    #[error("failed to start a sandbox")]
    Sandbox(#[from] sandbox::Error),
    /// The address of a sandbox is none.
    #[error("failed to find a sandbox")]
    Address(#[source] url::ParseError),
    /// There is no folder for the rehearsal.
    #[error("failed to make a temporary folder")]
    Folder(#[source] io::Error),
    /// Pages as small as these cannot make so many leads fewer.
    #[error("{leads} leads would have to be invented, which is too many to rehearse")]
    TooMany {
        /// How many.
        leads: u64,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Run(error) => error.hint(),
            Self::Commit(error) => error.hint(),
            Self::TooMany { .. } => Some(
                "rehearse one source at a time by --source, or with fewer --leads-per-day"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// The result of a rehearsal.
pub type Result<T> = std::result::Result<T, Error>;

/// What is to be rehearsed.
#[derive(Debug, Clone)]
pub struct Request {
    /// The range of a backfill; `None` for the nightly alone.
    pub range: Option<Range>,
    /// When the first run begins; the others begin whole days later.
    pub first: DateTime<Utc>,
    /// Days after which it ends where it is not done.
    pub most_days: u64,
    /// Profiles of master keys.
    pub profiles: Said<u32>,
    /// Leads a day, on the average over the history, all profiles together.
    pub leads_per_day: Said<f64>,
    /// So many leads are invented, of all sources together, before each stands for several; see
    /// [`LEADS`].
    pub leads: u64,
    /// Nights that are played once all is there; [`Nights::TRIED`] show what a month has.
    pub nights: usize,
    /// Another seed gives other leads.
    pub seed: u64,
    /// Asks the rehearsal to stop.
    pub stop: Stop,
}

/// Figures that somebody said, of some sources or of all others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said<T> {
    /// Of single sources.
    pub of: BTreeMap<SourceName, T>,
    /// Of all others.
    pub otherwise: Option<T>,
}

impl<T: Copy> Said<T> {
    fn of(&self, source: &SourceName) -> Option<T> {
        self.of.get(source).copied().or(self.otherwise)
    }
}

/// Rehearses `job`, and tells `told` of each day as it ends. `observer` takes the facts of each run.
///
/// A day takes a tenth of a second and about a millisecond a request. In memory is what the sandboxes
/// hold, a hundred bytes a lead, and what a run holds.
///
/// # Errors
///
/// Fails where the job's last commit cannot be read, and where a run fails as a whole. What only a
/// source fails with ends the rehearsal as [`Outcome::Failed`].
pub async fn rehearse(
    job: Job,
    request: &Request,
    observer: Arc<dyn Observer>,
    told: &(dyn Fn(&RehearsedDay) + Send + Sync),
) -> Result<Rehearsal> {
    let range = request.range.as_ref().map(window).transpose()?;
    let rule = |source: &SourceSettings| {
        run::rule(source).ok_or_else(|| run::Error::NoRule(source.name.clone()))
    };
    let rules: Vec<Rule> = job.sources.iter().map(rule).collect::<run::Result<_>>()?;
    let head = commit::latest(&Store::at(&job.lake).map_err(commit::Error::from)?)?;
    let sources: Vec<(SourceSettings, Rule)> =
        job.sources.iter().cloned().zip(rules.iter().copied()).collect();
    let shapes = shape::shapes(&sources, head.as_ref(), request, request.first);
    if let Some(leads) = shape::too_many(&shapes) {
        return Err(Error::TooMany { leads });
    }
    let name = job.name.clone();
    let stages = stage::set(job, &rules, &shapes, request, &observer).await?;
    let mut player = Player { stages, request, days: Vec::new() };
    let mut outcome = player.play(told).await?;
    let mut nights = None;
    if outcome == Outcome::Done && request.nights > 0 {
        nights = player.nights().await?;
        if request.stop.cause().is_some() {
            outcome = Outcome::Stopped;
        }
    }
    let Player { stages, days, .. } = player;
    let quotas = futures::future::join_all(stages.into_iter().map(Stage::strike)).await;
    Ok(Rehearsal {
        job: name,
        range,
        sources: shapes.into_iter().map(|shape| shape.told).collect(),
        outcome,
        requests: days.iter().map(|day| day.requests).sum(),
        days,
        nights,
        quotas,
    })
}

fn window(range: &Range) -> Result<Window> {
    let Range { from, to, .. } = *range;
    Ok(Window::new(from, to).ok_or(run::Error::EmptyRange { from, to })?)
}

/// Plays a rehearsal on its stages.
struct Player<'a> {
    stages: Vec<Stage>,
    request: &'a Request,
    days: Vec<RehearsedDay>,
}

impl Player<'_> {
    /// Plays days until all is there, or it may not go on.
    async fn play(&mut self, told: &(dyn Fn(&RehearsedDay) + Send + Sync)) -> Result<Outcome> {
        for number in 1..=self.request.most_days {
            let range = self.request.range.as_ref();
            let played = self.play_all(self.night(number), range).await?;
            // A run of each may take longer than a day.
            if let Some(day) = calendar::day(number, &played) {
                told(&day);
                self.days.push(day);
            }
            let mut sources = played.iter().flat_map(|played| played.sources.values());
            if self.request.stop.cause().is_some() {
                return Ok(Outcome::Stopped);
            }
            if sources.any(|source| matches!(source.state, State::Failed | State::Refused)) {
                return Ok(Outcome::Failed);
            }
            if self.stages.iter().all(|stage| stage.is_done(range)) {
                return Ok(Outcome::Done);
            }
        }
        Ok(Outcome::DaysOver)
    }

    /// Returns when the nightly of a day begins.
    fn night(&self, number: u64) -> DateTime<Utc> {
        self.request.first + TimeDelta::days(1) * i32::try_from(number - 1).unwrap_or(i32::MAX)
    }

    async fn play_all(&mut self, at: DateTime<Utc>, range: Option<&Range>) -> Result<Vec<Played>> {
        let stop = &self.request.stop;
        let stages = self.stages.iter_mut().map(|stage| stage.play(at, range, stop));
        futures::future::try_join_all(stages).await
    }

    /// Plays nights after all is there.
    async fn nights(&mut self) -> Result<Option<Nights>> {
        let (mut requests, mut spent) = (Vec::new(), 0);
        let last = self.days.last().map_or(0, |day| day.day);
        for number in (last + 1..).take(self.request.nights) {
            let played = self.play_all(self.night(number), None).await?;
            if self.request.stop.cause().is_some() {
                return Ok(None);
            }
            let Some(night) = calendar::day(number, &played) else { continue };
            spent += u64::from(night.endings.contains(&Ending::QuotaSpent));
            requests.push(night.requests);
        }
        Ok(Nights::of(requests, spent))
    }
}
