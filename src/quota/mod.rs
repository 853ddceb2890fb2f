//! What a provider allows, what is left of it, and permits for single requests.
//!
//! A [`Rule`] says what is allowed, a [`Ledger`] counts on disk what was sent, and a [`Quota`]
//! gives a run's requests leave to go, one [`Permit`] each. A request without a permit must not be
//! sent, and a permit counts whether its request succeeds or not. What an answer means, and when to
//! ask again, is left to the caller; only "used up" must be told, as it is believed over the ledger.

mod day;
mod forecast;
mod ledger;
mod pace;
mod rate;
mod rule;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tracing::info;
use tracing::warn;

pub use self::forecast::Demand;
pub use self::forecast::Forecast;
pub use self::forecast::ForecastRun;
use self::ledger::Before;
pub use self::ledger::BlockedBy;
pub use self::ledger::Budget;
pub use self::ledger::Freed;
pub use self::ledger::Lease;
pub use self::ledger::Ledger;
use self::ledger::NotNow;
pub use self::ledger::Outlook;
pub use self::ledger::Shortage;
use self::rate::Limiter;
pub use self::rule::Day;
pub use self::rule::Rate;
pub use self::rule::Reserve;
pub use self::rule::Rule;
pub use self::rule::preset;
use crate::clock::SharedClock;
use crate::store;

/// An error from asking for a permit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No request may be sent for longer than the run is willing to wait.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A ledger cannot be read, so that nobody knows what was sent.
    #[error("ledger `{}` is damaged", path.display())]
    Damaged {
        /// The ledger's file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A ledger was written by a newer leadpipe.
    #[error("ledger `{}` has version `{version}`, which is not known here", path.display())]
    NewerVersion {
        /// The ledger's file.
        path: PathBuf,
        /// The version it states.
        version: String,
    },
    /// A ledger could not be put into its stored form.
    #[error("failed to encode a ledger")]
    Encode(#[source] serde_json::Error),
    /// A ledger could not be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The program is ending, and the ledger can no longer be asked.
    #[error("the ledger was asked while the program was ending")]
    Ending,
}

impl Error {
    /// Returns what the reader of the error can do, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } => Some(format!(
                "the count of the last 24 hours is lost; `leadpipe verify JOB --repair` begins a new \
                 one that waits until it has lapsed. Or, once no request was sent with this key for 24 \
                 hours, remove `{}`",
                path.display()
            )),
            Self::NewerVersion { .. } => {
                Some("use the newest leadpipe that shares this ledger".to_owned())
            }
            Self::Exhausted(_) | Self::Encode(_) | Self::Store(_) | Self::Ending => None,
        }
    }

    /// Returns the details where permits have run out, which ends a run in good order.
    pub fn exhausted(&self) -> Option<&Exhausted> {
        match self {
            Self::Exhausted(exhausted) => Some(exhausted),
            _ => None,
        }
    }
}

/// The result of a call on a quota or its ledger.
pub type Result<T> = std::result::Result<T, Error>;

/// No permit comes free within what is left of the run's patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Exhausted {
    /// When the next request may be sent; `None` where time does not help.
    pub resume_at: Option<DateTime<Utc>>,
    /// What stands in the way.
    pub cause: Cause,
}

/// What stands in the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The day's allowance is used, by our own count.
    DayQuota,
    /// The provider said that the quota is used up.
    Blocked,
    /// The run has sent as many requests as it was told to.
    MaxRequests,
    /// What is left of the day is kept for others; told by callers, no permit ends by it.
    KeptBack,
    /// Requests may not follow each other faster; no run ends by it.
    Rate,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::DayQuota => "the day's quota is used",
            Self::Blocked => "the provider says that the quota is used up",
            Self::MaxRequests => "the run's limit of requests is reached",
            Self::KeptBack => "what is left of the day is kept for what the next runs need",
            Self::Rate => "requests follow each other as fast as they may",
        })
    }
}

/// The number of requests a run may send, over all of its sources.
#[derive(Debug)]
pub struct RequestCap {
    left: AtomicU64,
}

impl RequestCap {
    /// Returns a cap of `requests` requests.
    pub fn new(requests: u64) -> Self {
        Self { left: AtomicU64::new(requests) }
    }

    /// Returns how many requests may still be sent.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

/// A quota that the provider calls used up, of which we have counted clearly less than we may send:
/// somebody else spends on the key, or it may send less than its plan says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unexplained {
    /// Requests we had counted.
    pub counted: u64,
    /// Requests a day that we may send.
    pub allowance: u32,
}

impl Unexplained {
    /// Returns what a budget does not explain: a tenth of the allowance, and 2 requests at least.
    fn of(budget: &Budget) -> Option<Self> {
        let (allowance, counted) = (budget.allowance?, budget.used);
        let clearly = u64::from(allowance / 10).max(2);
        (counted + clearly <= u64::from(allowance)).then_some(Self { counted, allowance })
    }
}

/// How a run uses a quota.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the run waits, all in all, for permits of the day to come free.
    pub patience: TimeDelta,
    /// A limit on the run's requests, shared by its sources.
    pub max_requests: Option<Arc<RequestCap>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: TimeDelta::hours(1), max_requests: None }
    }
}

/// Gives a run's requests leave to go. Clones share everything; sources of one quota group use
/// clones of one quota. All instants that go in and come out are of the run's clock, also where the
/// ledger goes by the provider's.
#[derive(Debug, Clone)]
pub struct Quota {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    clock: SharedClock,
    options: Options,
    /// Keeps to a rate too fine for the ledger.
    limiter: Option<Limiter>,
    slots: Arc<Semaphore>,
    turn: Arc<tokio::sync::Mutex<Turn>>,
    /// Set when the provider said "used up", or the ledger's time was put right: what is leased is
    /// void, and the ledger knows more.
    void: AtomicBool,
    /// Set where the ledger's time is far ahead of ours.
    is_ahead: AtomicBool,
    /// How far the provider's time is ahead of the clock, where that is far.
    correction: Mutex<TimeDelta>,
    spent: AtomicU64,
    /// What the first "used up" of this run left unexplained.
    unexplained: Mutex<Option<Unexplained>>,
}

/// What belongs to whoever is next to get a permit.
#[derive(Debug)]
struct Turn {
    lease: Option<Lease>,
    /// Our turn in the rate, where others share it.
    ticket: Option<u64>,
    /// How long the run has waited for permits of the day.
    waited: TimeDelta,
    /// The time seen last: a block does not live longer because a clock was put back.
    latest: DateTime<Utc>,
    /// The correction under which the block was leased.
    correction: TimeDelta,
}

/// How far the clock may be off before it is corrected: the header tells whole seconds, and an
/// answer takes its time.
const TOLERANCE: TimeDelta = TimeDelta::minutes(2);

/// How far off a provider's date is still believed: as long as the ledger knows what it counted.
const ABSURD: TimeDelta = ledger::KEPT;

/// Leave for one request; it holds one of the places for requests that go at once until dropped.
/// It is counted already, and cannot be given back. Drop it before asking for another one.
#[derive(Debug)]
#[must_use = "a permit is counted whether it is used or not"]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    // The first request after a block keeps all others waiting until it was answered.
    _alone: Option<OwnedMutexGuard<Turn>>,
}

impl Quota {
    /// Returns a quota that holds requests against the rule of `ledger`. Blocks for the time of a
    /// read: where a provider has told that the clock is ahead, the ledger goes by that until it is
    /// told otherwise.
    pub fn new(ledger: Ledger, clock: SharedClock, options: Options) -> Self {
        let rule = *ledger.rule();
        // A ledger that cannot be read says so when it is asked for a permit.
        let correction = -ledger.clock_ahead().unwrap_or_default();
        let turn = Turn {
            lease: None,
            ticket: None,
            waited: TimeDelta::zero(),
            latest: clock.now() + correction,
            correction,
        };
        let is_fine = !pace::is_shared(rule.rate);
        let shared = Shared {
            limiter: is_fine.then(|| Limiter::new(rule.rate, clock.clone())),
            slots: Arc::new(Semaphore::new(rule.at_once.get() as usize)),
            turn: Arc::new(tokio::sync::Mutex::new(turn)),
            void: AtomicBool::new(false),
            is_ahead: AtomicBool::new(false),
            correction: Mutex::new(correction),
            spent: AtomicU64::new(0),
            unexplained: Mutex::new(None),
            ledger,
            clock,
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits for a free place, for the rate, and for permits of the day that come free within the
    /// run's patience, and returns leave for one request, counted on disk. Dropping the future
    /// sends nothing; it may cost a permit.
    pub async fn acquire(&self) -> Result<Permit> {
        let shared = &self.shared;
        let slot = shared.slots.clone().acquire_owned().await.map_err(|_| Error::Ending)?;
        let mut turn = shared.turn.clone().lock_owned().await;
        let is_try = loop {
            let (is_try, due) = shared.ensure_lease(&mut turn).await?;
            match shared.wait_for_rate(due) {
                None => break is_try,
                Some(wait) => shared.sleep(wait).await,
            }
        };
        if !shared.options.max_requests.as_ref().is_none_or(|cap| cap.take()) {
            return Err(MAX_REQUESTS.into());
        }
        if let Some(lease) = &mut turn.lease {
            lease.advance();
        }
        shared.spent.fetch_add(1, Ordering::AcqRel);
        Ok(Permit { _slot: slot, _alone: is_try.then_some(turn) })
    }

    /// Notes that the provider answered "used up", which is believed over the ledger: no permit is
    /// given before `retry_after`, else the fixed reset, else 24 hours after our oldest request,
    /// else for an hour. Returns that instant. Blocks for the time of a write.
    pub fn used_up(&self, retry_after: Option<DateTime<Utc>>) -> Result<DateTime<Utc>> {
        let shared = &self.shared;
        let correction = shared.correction();
        let retry_after = retry_after.and_then(|until| until.checked_add_signed(correction));
        if let Some(found) = Unexplained::of(&shared.ledger.state(shared.now())?) {
            let mut known = shared.unexplained.lock().unwrap_or_else(PoisonError::into_inner);
            known.get_or_insert(found);
        }
        let until = shared.ledger.used_up(shared.now(), retry_after)?;
        shared.void.store(true, Ordering::Release);
        let until = until - correction;
        let ledger = shared.ledger.path();
        warn!(ledger = %ledger.display(), %until, "the provider says that the quota is used up");
        Ok(until)
    }

    /// Returns what we had counted when the provider said "used up" in this run, where that is clearly
    /// less than we may send.
    pub fn unexplained(&self) -> Option<Unexplained> {
        *self.shared.unexplained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the time as the provider told it in an answer just received, its `Date` header. Where
    /// the clock is more than two minutes off, the ledger goes by the provider's time from now on;
    /// where the clock is right and the ledger ahead of it, written under another, the ledger is put
    /// right. A date more than two days off is taken for an error of the provider's. Blocks for the
    /// time of a write where something is put right, else does nothing.
    pub fn observe_date(&self, provider_date: DateTime<Utc>) -> Result<()> {
        let shared = &self.shared;
        let off = provider_date - shared.clock.now();
        if off.abs() > ABSURD {
            return Ok(());
        }
        let is_off = (off - shared.correction()).abs() > TOLERANCE;
        if is_off {
            let correction = if off.abs() > TOLERANCE { off } else { TimeDelta::zero() };
            *shared.correction.lock().unwrap_or_else(PoisonError::into_inner) = correction;
            let ledger = shared.ledger.path();
            warn!(ledger = %ledger.display(), %correction, "the clock is not the provider's");
        }
        if is_off || shared.is_ahead.swap(false, Ordering::AcqRel) {
            shared.void.store(true, Ordering::Release);
            shared.ledger.correct_clock(provider_date, -shared.correction())?;
        }
        Ok(())
    }

    /// Returns how many permits this run was given.
    pub fn spent(&self) -> u64 {
        self.shared.spent.load(Ordering::Acquire)
    }

    /// Returns what is left of the day. Blocks for the time of a read.
    pub fn budget(&self) -> Result<Budget> {
        Ok(self.shared.by_our_clock(self.shared.ledger.state(self.shared.now())?))
    }

    /// Returns what is left of the day, and what comes back when. Blocks for the time of a read.
    pub fn outlook(&self) -> Result<Outlook> {
        let shared = &self.shared;
        let outlook = shared.ledger.outlook(shared.now())?;
        let correction = shared.correction();
        let ours = |freed: Freed| Freed { from: freed.from - correction, ..freed };
        Ok(Outlook {
            budget: shared.by_our_clock(outlook.budget),
            frees: outlook.frees.into_iter().map(ours).collect(),
            ..outlook
        })
    }

    /// Notes that others have sent so many requests in the last 24 hours, in place of what was noted
    /// before. They count as sent now. Blocks for the time of a write.
    pub fn set_used(&self, requests: u32) -> Result<()> {
        self.shared.ledger.set_used(self.shared.now(), requests)
    }

    /// Returns when the requests of `demand` will have been sent, if nothing else is. Blocks for the
    /// time of a read.
    pub fn forecast(&self, demand: Demand) -> Result<Forecast> {
        let shared = &self.shared;
        let correction = shared.correction();
        let mut forecast = shared.ledger.forecast(shared.now(), demand)?;
        forecast.done_at = forecast.done_at.map(|done_at| done_at - correction);
        forecast.runs.iter_mut().for_each(|run| run.from -= correction);
        Ok(forecast)
    }

    /// Returns the ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Gives back what was leased and not used. To be called at a clean end, when all permits were
    /// dropped; a run that goes on after it leases anew.
    pub async fn release(&self) -> Result<()> {
        let mut turn = self.shared.turn.lock().await;
        self.shared.give_back(&mut turn).await
    }
}

const MAX_REQUESTS: Exhausted = Exhausted { resume_at: None, cause: Cause::MaxRequests };

impl Shared {
    fn by_our_clock(&self, budget: Budget) -> Budget {
        let correction = self.correction();
        Budget {
            next_free: budget.next_free.map(|free| free - correction),
            blocked_until: budget.blocked_until.map(|until| until - correction),
            ..budget
        }
    }

    /// Sees to it that there is a leased permit that may be used; tells whether it goes alone, and from
    /// when on, in the ledger's time.
    async fn ensure_lease(&self, turn: &mut Turn) -> Result<(bool, DateTime<Utc>)> {
        loop {
            if self.options.max_requests.as_ref().is_some_and(|cap| cap.left() == 0) {
                return Err(MAX_REQUESTS.into());
            }
            let correction = self.correction();
            if turn.correction != correction {
                turn.correction = correction;
                turn.lease = None;
            }
            if self.void.swap(false, Ordering::AcqRel) {
                turn.lease = None;
            }
            let now = self.clock.now() + correction;
            let is_put_back = now < std::mem::replace(&mut turn.latest, now);
            if let Some(lease) = &turn.lease
                && lease.permits > 0
                && !is_put_back
                && now <= lease.usable_until
                && let Some(due) = lease.due(now)
            {
                return Ok((lease.is_try, due));
            }
            let before = Before { lease: turn.lease.take(), ticket: turn.ticket.take() };
            match self.next_lease(before, now).await? {
                Ok(lease) => self.take_lease(turn, lease),
                Err(NotNow { shortage, ticket }) => {
                    turn.ticket = ticket;
                    self.wait_for(turn, shortage).await?;
                }
            }
        }
    }

    /// Takes a lease. It is used no longer by our clock either: the ledger's may be put right meanwhile.
    fn take_lease(&self, turn: &mut Turn, mut lease: Lease) {
        self.is_ahead.store(lease.leased_at() - turn.latest > TOLERANCE, Ordering::Release);
        lease.usable_until = lease.usable_until.min(turn.latest + ledger::USABLE);
        turn.lease = Some(lease);
    }

    async fn next_lease(
        &self,
        before: Before,
        now: DateTime<Utc>,
    ) -> Result<std::result::Result<Lease, NotNow>> {
        let block = self.ledger.rule().block();
        self.ask_ledger(move |ledger| ledger.lease_next(now, before, block)).await
    }

    /// Returns how long a request that is due then must wait for the rate; `None` where it may go.
    fn wait_for_rate(&self, due: DateTime<Utc>) -> Option<TimeDelta> {
        if let Some(limiter) = &self.limiter {
            let wait = limiter.take().err()?;
            return Some(TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX));
        }
        Some(due - self.now()).filter(|wait| *wait > TimeDelta::zero())
    }

    async fn wait_for(&self, turn: &mut Turn, shortage: Shortage) -> Result<()> {
        // That under which it was asked: an answer may have told of another meanwhile.
        let until = shortage.until.map(|until| until - turn.correction);
        let cause = shortage.cause;
        if let (Cause::Rate, Some(until)) = (cause, until) {
            self.clock.sleep_until(until).await;
            return Ok(());
        }
        let exhausted = Exhausted { resume_at: until, cause };
        let Some(until) = until else { return Err(exhausted.into()) };
        let wait = (until - self.clock.now()).max(TimeDelta::zero());
        if turn.waited + wait > self.options.patience {
            return Err(exhausted.into());
        }
        info!(ledger = %self.ledger.path().display(), %until, %cause, "waiting for permits");
        self.clock.sleep_until(until).await;
        turn.waited += wait;
        Ok(())
    }

    async fn give_back(&self, turn: &mut Turn) -> Result<()> {
        match turn.lease.take() {
            Some(lease) => {
                let now = self.now();
                self.ask_ledger(move |ledger| ledger.release(now, lease)).await
            }
            None => Ok(()),
        }
    }

    async fn sleep(&self, wait: TimeDelta) {
        let now = self.clock.now();
        let until = now.checked_add_signed(wait).unwrap_or(DateTime::<Utc>::MAX_UTC);
        self.clock.sleep_until(until).await;
    }

    async fn ask_ledger<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Ledger) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ledger = self.ledger.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&ledger)).await;
        asked.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Ending),
        })
    }

    /// Returns the time that the ledger goes by.
    fn now(&self) -> DateTime<Utc> {
        self.clock.now() + self.correction()
    }

    fn correction(&self) -> TimeDelta {
        *self.correction.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
