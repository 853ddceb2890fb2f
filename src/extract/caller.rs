//! Permits and retries around every request, and what a refusal means in the light of both.
//!
//! A request that fails in a way that may pass is sent again after a growing, jittered wait, or
//! after the wait the provider asks for; each attempt takes a permit of its own. With the default
//! policy a request may take up to five retries and about two minutes of waiting. A provider that
//! asks to slow down, and does not say for how long, is left alone by all requests of the source for
//! as long as its rate is counted over.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::BackoffBuilder;
use backon::ExponentialBuilder;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio::sync::watch;

use super::Error;
use super::Heard;
use super::Result;
use super::error::NoPermit;
use crate::clock::SharedClock;
use crate::ids::ProviderId;
use crate::quota::Permit;
use crate::quota::Quota;

/// How far a run was asked to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Halt {
    /// It was not.
    #[default]
    GoOn,
    /// No further request is sent; those under way are awaited.
    Finish,
    /// Those under way are let go, too.
    LetGo,
}

/// How often and how patiently a request is sent again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Further attempts after the first.
    pub retries: usize,
    /// The first wait; each further one is about twice as long.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// The longest `Retry-After` that is waited for; beyond it the run ends and says when to come
    /// back.
    pub patience: TimeDelta,
    /// Over how long the provider counts its rate: no shorter wait is sure to help against it.
    pub rate_span: TimeDelta,
}

/// Whole spans of the rate that a request waits for. What is refused after them is not refused for
/// the rate, and each further attempt would cost a permit to be told so.
const SPANS_THAT_TELL: u32 = 2;

/// What a request has waited for the rate, without being told for how long.
#[derive(Debug, Default)]
struct Limited {
    /// Waits that were longer for it than they would have been.
    spans: u32,
    /// All in all.
    waited: TimeDelta,
}

/// Requests of a run by what they were for.
#[derive(Debug, Default)]
pub struct Counts {
    /// All attempts.
    pub attempts: AtomicU64,
    /// Attempts that were sent again after a failure.
    pub retries: AtomicU64,
    /// Requests that found out from where rows had shifted, whether a listing has ended, or which size
    /// of pages fits.
    pub probes: AtomicU64,
    /// Pages read again because rows had shifted.
    pub rereads: AtomicU64,
    /// Held pages asked for again, to see whether a listing still stands as it did.
    pub checks: AtomicU64,
}

impl Counts {
    /// Counts what a walk has asked for again.
    pub(super) fn note_again(&self, probes: u64, rereads: u64, checks: u64) {
        self.probes.fetch_add(probes, Ordering::Relaxed);
        self.rereads.fetch_add(rereads, Ordering::Relaxed);
        self.checks.fetch_add(checks, Ordering::Relaxed);
    }
}

/// Sends requests of one source: each under a permit, again where that may help.
#[derive(Debug)]
pub struct Caller {
    provider: ProviderId,
    quota: Arc<Quota>,
    clock: SharedClock,
    policy: RetryPolicy,
    halt: watch::Receiver<Halt>,
    answered: AtomicBool,
    /// Until when the provider is left alone, as it has asked to.
    quiet_until: Mutex<DateTime<Utc>>,
    /// What the client hears beside the bodies of answers.
    heard: Heard,
    counts: Counts,
}

impl Caller {
    /// Returns a caller that stops when `halt` says so.
    pub fn new(
        provider: ProviderId,
        quota: Arc<Quota>,
        clock: SharedClock,
        policy: RetryPolicy,
        halt: watch::Receiver<Halt>,
    ) -> Self {
        let (answered, counts) = (AtomicBool::new(false), Counts::default());
        let quiet_until = Mutex::new(DateTime::UNIX_EPOCH);
        let heard = Heard::default();
        Self { provider, quota, clock, policy, halt, answered, quiet_until, heard, counts }
    }

    /// Lets the quota go by the provider's time where the clock is wrong, as the client notes it in
    /// `heard`.
    #[must_use]
    pub fn hearing(self, heard: Heard) -> Self {
        Self { heard, ..self }
    }

    /// Returns how many requests were sent, and sent again.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tells whether the provider has given a sound answer in this run.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Tells whether the run was asked to stop.
    pub fn is_stopped(&self) -> bool {
        *self.halt.borrow() >= Halt::Finish
    }

    /// Sends a request until it succeeds or there is no use in sending it again.
    pub async fn attempt<T, F>(&self, send: impl Fn() -> F + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        self.attempt_with(self.policy.retries, send).await
    }

    /// Sends a request once, and takes a refusal for what it says: it is no sign of a spent quota.
    pub async fn attempt_once<T, F>(&self, send: impl Fn() -> F + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        self.once(&send).await
    }

    /// As [`Caller::attempt`], with at most `retries` further attempts.
    pub async fn attempt_with<T, F>(&self, retries: usize, send: impl Fn() -> F + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let mut waits = self.waits(retries);
        let mut limited = Limited::default();
        loop {
            let error = match self.once(&send).await {
                Ok(value) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => self.in_context(error),
            };
            if !error.is_retryable() {
                return Err(self.settle_quota(error));
            }
            let backoff = waits.next().map(|wait| TimeDelta::from_std(wait).unwrap_or_default());
            let Some(wait) = self.next_wait(&error, backoff, &mut limited) else {
                return Err(self.given_up(error));
            };
            if wait > self.policy.patience {
                return Err(self.block(Some(wait), error));
            }
            if matches!(error, Error::RateLimited { .. }) {
                self.keep_quiet(wait);
            }
            tracing::debug!(provider = %self.provider, %error, ?wait, "will send a request again");
            self.counts.retries.fetch_add(1, Ordering::Relaxed);
            self.wait(wait).await?;
        }
    }

    /// Returns how long to wait after an error that may pass; `None` to give up. Whatever the
    /// retries, a rate is not given up before it was waited for.
    fn next_wait(
        &self,
        error: &Error,
        backoff: Option<TimeDelta>,
        limited: &mut Limited,
    ) -> Option<TimeDelta> {
        if !matches!(error, Error::RateLimited { retry_after: None, .. }) {
            return backoff.map(|wait| error.retry_after().unwrap_or(wait).max(wait));
        }
        let span = self.policy.rate_span;
        let is_enough = backoff.is_none() || limited.spans >= SPANS_THAT_TELL;
        if is_enough && limited.waited >= span {
            return None;
        }
        let backoff = backoff.unwrap_or_default();
        limited.spans += u32::from(span > backoff);
        limited.waited += span.max(backoff);
        Some(span.max(backoff))
    }

    /// Keeps the other requests quiet too, which would be refused like the one that was, each for a
    /// permit.
    fn keep_quiet(&self, wait: TimeDelta) {
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet_until = (*quiet_until).max(self.clock.now() + wait);
    }

    /// Waits for as long as the provider wants to be left alone.
    async fn stay_quiet(&self) -> Result<()> {
        loop {
            let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = until - self.clock.now();
            if wait <= TimeDelta::zero() {
                return Ok(());
            }
            self.wait(wait).await?;
        }
    }

    async fn once<T, F>(&self, send: &(impl Fn() -> F + Sync)) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        self.stay_quiet().await?;
        for _ in 0..self.heard.take_redirects() {
            drop(self.permit().await?);
            self.counts.attempts.fetch_add(1, Ordering::Relaxed);
        }
        let _permit = self.permit().await?;
        self.counts.attempts.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::select! {
            biased;
            answer = send() => answer,
            // Its permit stays spent; what it would have brought is asked for again.
            () = self.halted(Halt::LetGo) => return Err(Error::Stopped),
        };
        // While the permit is held: the first request after a pause goes alone until this is known.
        self.observe_time();
        answer
    }

    async fn permit(&self) -> Result<Permit> {
        let permit = tokio::select! {
            biased;
            () = self.halted(Halt::Finish) => return Err(Error::Stopped),
            permit = self.quota.acquire() => permit,
        };
        permit.map_err(|error| self.no_permit(error))
    }

    fn observe_time(&self) {
        let Some(ahead) = self.heard.take() else { return };
        // An answer is not lost for it: a ledger that cannot be written gives no further permit.
        if let Err(error) = self.quota.observe_date(self.clock.now() + ahead) {
            tracing::warn!(provider = %self.provider, %error, "the ledger's time was not put right");
        }
    }

    /// Returns once the run was asked to stop as far as `halt`.
    async fn halted(&self, halt: Halt) {
        let mut asked = self.halt.clone();
        // The sender lives as long as the run; without it nothing can ask to stop any more.
        if asked.wait_for(|asked| *asked >= halt).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn wait(&self, wait: TimeDelta) -> Result<()> {
        tokio::select! {
            () = self.halted(Halt::Finish) => Err(Error::Stopped),
            () = self.clock.sleep_until(self.clock.now() + wait) => Ok(()),
        }
    }

    fn waits(&self, retries: usize) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.policy.first_wait)
            .with_max_delay(self.policy.longest_wait)
            .with_max_times(retries)
            .with_jitter()
            .build()
    }

    /// Credentials that have worked, or a day that is nearly spent, make a refusal look like a
    /// quota: nobody documents what the providers answer beyond their allowances.
    fn in_context(&self, error: Error) -> Error {
        match error {
            Error::Unauthorized { provider, status, text }
                if self.has_answered() || self.is_nearly_spent() =>
            {
                Error::UsedUp { provider, status, text, retry_after: None }
            }
            other => other,
        }
    }

    fn is_nearly_spent(&self) -> bool {
        let Ok(budget) = self.quota.budget() else { return false };
        budget.allowance.is_some_and(|allowance| budget.used * 10 >= u64::from(allowance) * 9)
    }

    fn settle_quota(&self, error: Error) -> Error {
        match error {
            Error::UsedUp { retry_after, .. } => self.block(retry_after, error),
            _ => error,
        }
    }

    /// Tells the ledger that the provider gives no more, as `told`, for `wait` where it said how long.
    fn block(&self, wait: Option<TimeDelta>, told: Error) -> Error {
        let until = wait.map(|wait| self.clock.now() + wait);
        match self.quota.used_up(until) {
            Ok(until) => {
                let source = NoPermit::Told(Box::new(told));
                Error::Spent { provider: self.provider, resume_at: Some(until), source }
            }
            Err(error) => Error::Ledger(error),
        }
    }

    /// A provider that asked to slow down until the end is out of permits, whatever it calls it.
    fn given_up(&self, error: Error) -> Error {
        match error {
            Error::RateLimited { provider, status, retry_after } => {
                let text = "asked to slow down again and again".to_owned();
                self.settle_quota(Error::UsedUp { provider, status, text, retry_after })
            }
            other => other,
        }
    }

    fn no_permit(&self, error: crate::quota::Error) -> Error {
        match error {
            crate::quota::Error::Exhausted(exhausted) => Error::Spent {
                provider: self.provider,
                resume_at: exhausted.resume_at,
                source: exhausted.into(),
            },
            other => Error::Ledger(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::clock::Clock;
    use crate::clock::ManualClock;
    use crate::quota;
    use crate::quota::Ledger;
    use crate::quota::Rule;
    use crate::store::Store;

    struct Setting {
        _folder: tempfile::TempDir,
        clock: Arc<ManualClock>,
        quota: Quota,
        halt: watch::Sender<Halt>,
        caller: Caller,
    }

    /// A caller under the rule of a Whautomate subscription, or of another length of its rate.
    fn setting(rate_span: TimeDelta) -> Setting {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap()));
        let rule = quota::preset(ProviderId::Whautomate, Some("subscribed")).unwrap();
        let rule = Rule { at_once: NonZeroU32::new(4).unwrap(), ..rule };
        let ledger = Ledger::open(Store::open(folder.path()), "clinic", rule);
        let quota = Quota::new(ledger, clock.clone(), quota::Options::default());
        let policy = RetryPolicy {
            retries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            patience: TimeDelta::hours(1),
            rate_span,
        };
        let (sender, halt) = watch::channel(Halt::GoOn);
        let shared = Arc::new(quota.clone());
        let caller = Caller::new(ProviderId::Whautomate, shared, clock.clone(), policy, halt);
        Setting { _folder: folder, clock, quota, halt: sender, caller }
    }

    fn slow_down(retry_after: Option<TimeDelta>) -> Error {
        Error::RateLimited { provider: ProviderId::Whautomate, status: 429, retry_after }
    }

    fn wrong_key() -> Error {
        let text = "Forbidden".to_owned();
        Error::Unauthorized { provider: ProviderId::Whautomate, status: 403, text }
    }

    impl Setting {
        /// Calls a provider that asks to slow down for `length`; returns how that went and how many
        /// requests it took.
        async fn call_limited_for(
            &self,
            length: TimeDelta,
            says: Option<TimeDelta>,
        ) -> (Result<()>, u64) {
            let ends_at = self.clock.now() + length;
            let send =
                || async { if self.clock.now() < ends_at { Err(slow_down(says)) } else { Ok(()) } };
            let answer = self.caller.attempt(send).await;
            (answer, self.caller.counts().attempts.load(Ordering::Relaxed))
        }
    }

    #[tokio::test]
    async fn what_is_under_way_is_awaited_until_it_is_to_be_let_go() {
        let setting = setting(TimeDelta::minutes(1));
        let asked = || async {
            setting.halt.send_replace(Halt::Finish);
            Ok(1)
        };
        assert_eq!(setting.caller.attempt(asked).await.unwrap(), 1);
        let none = setting.caller.attempt(|| async { Ok(2) }).await;
        assert!(matches!(none, Err(Error::Stopped)), "{none:?}");

        setting.halt.send_replace(Halt::GoOn);
        let hangs = || async {
            setting.halt.send_replace(Halt::LetGo);
            std::future::pending::<Result<()>>().await
        };
        assert!(matches!(setting.caller.attempt(hangs).await, Err(Error::Stopped)));
        assert_eq!(setting.caller.counts().attempts.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_minutes_limit_is_over_when_the_request_is_sent_again() {
        let setting = setting(TimeDelta::minutes(1));
        let (answer, requests) = setting.call_limited_for(TimeDelta::seconds(59), None).await;
        assert!(answer.is_ok());
        assert_eq!(requests, 2);
    }

    #[tokio::test]
    async fn a_limit_that_outlives_its_span_is_given_up_for_few_permits() {
        let setting = setting(TimeDelta::minutes(1));
        let start = setting.clock.now();
        let (answer, requests) = setting.call_limited_for(TimeDelta::hours(5), None).await;
        assert!(matches!(answer, Err(Error::Spent { resume_at: Some(_), .. })), "{answer:?}");
        assert_eq!((requests, setting.quota.spent()), (3, 3));
        assert!(setting.clock.now() - start < TimeDelta::minutes(3));
    }

    #[tokio::test]
    async fn a_rate_is_waited_for_even_by_a_request_without_retries() {
        let setting = setting(TimeDelta::minutes(1));
        let ends_at = setting.clock.now() + TimeDelta::seconds(59);
        let send =
            || async { if setting.clock.now() < ends_at { Err(slow_down(None)) } else { Ok(()) } };
        setting.caller.attempt_with(0, send).await.unwrap();
        let down = || async { Err::<(), _>(slow_down(None)) };
        let given_up = setting.caller.attempt_with(0, down).await;
        assert!(matches!(given_up, Err(Error::Spent { .. })), "{given_up:?}");
        assert_eq!(setting.quota.spent(), 4);
    }

    #[tokio::test]
    async fn a_short_span_is_waited_for_as_often_as_any_other_trouble() {
        let setting = setting(TimeDelta::milliseconds(1));
        let (answer, requests) = setting.call_limited_for(TimeDelta::hours(5), None).await;
        assert!(answer.is_err());
        assert_eq!(requests, 6);
    }

    #[tokio::test]
    async fn a_wait_that_the_provider_asks_for_is_taken_at_its_word() {
        let setting = setting(TimeDelta::minutes(1));
        let start = setting.clock.now();
        let said = Some(TimeDelta::seconds(7));
        let (answer, requests) = setting.call_limited_for(TimeDelta::seconds(6), said).await;
        assert!(answer.is_ok());
        assert_eq!(requests, 2);
        assert!(setting.clock.now() - start < TimeDelta::seconds(20));
    }

    #[tokio::test]
    async fn one_request_that_is_told_to_slow_down_keeps_the_others_quiet() {
        let setting = setting(TimeDelta::minutes(1));
        let ends_at = setting.clock.now() + TimeDelta::seconds(59);
        let refused = AtomicU64::new(0);
        let send = || async {
            if setting.clock.now() < ends_at {
                refused.fetch_add(1, Ordering::Relaxed);
                return Err(slow_down(None));
            }
            Ok(())
        };
        // The first to be refused waits; all the others begin meanwhile.
        let all = futures::future::join_all((0..20).map(|_| setting.caller.attempt(send))).await;
        assert!(all.iter().all(Result::is_ok));
        assert!(refused.load(Ordering::Relaxed) <= 4, "{refused:?}");
    }

    #[tokio::test]
    async fn a_key_is_refused_until_it_has_answered_once() {
        let setting = setting(TimeDelta::minutes(1));
        let refused = setting.caller.attempt(|| async { Err::<(), _>(wrong_key()) }).await;
        assert!(matches!(refused, Err(Error::Unauthorized { .. })), "{refused:?}");
        setting.caller.attempt(|| async { Ok(()) }).await.unwrap();
        let suspected = setting.caller.attempt(|| async { Err::<(), _>(wrong_key()) }).await;
        assert!(matches!(suspected, Err(Error::Spent { .. })), "{suspected:?}");
        assert!(setting.quota.budget().unwrap().blocked_until.is_some());
    }
}
