//! Permits and retries around every request, and what a refusal means in the light of both.
//!
//! A request that fails in a way that may pass is sent again after a growing, jittered wait, or
//! after the wait the provider asks for; each attempt takes a permit of its own. With the default
//! policy a request may take up to five retries and about two minutes of waiting.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::BackoffBuilder;
use backon::ExponentialBuilder;
use chrono::TimeDelta;
use tokio::sync::watch;

use super::Error;
use super::Result;
use crate::clock::SharedClock;
use crate::ids::ProviderId;
use crate::quota::Quota;

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
}

/// Requests of a run by what they were for.
#[derive(Debug, Default)]
pub struct Counts {
    /// All attempts.
    pub attempts: AtomicU64,
    /// Attempts that were sent again after a failure.
    pub retries: AtomicU64,
}

/// Sends requests of one source: each under a permit, again where that may help.
#[derive(Debug)]
pub struct Caller {
    provider: ProviderId,
    quota: Arc<Quota>,
    clock: SharedClock,
    policy: RetryPolicy,
    stop: watch::Receiver<bool>,
    answered: AtomicBool,
    counts: Counts,
}

impl Caller {
    /// Returns a caller that stops when `stop` turns true.
    pub fn new(
        provider: ProviderId,
        quota: Arc<Quota>,
        clock: SharedClock,
        policy: RetryPolicy,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (answered, counts) = (AtomicBool::new(false), Counts::default());
        Self { provider, quota, clock, policy, stop, answered, counts }
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
        *self.stop.borrow()
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
            let Some(wait) = waits.next() else {
                return Err(self.given_up(error));
            };
            let wait = TimeDelta::from_std(wait).unwrap_or_default();
            let wait = error.retry_after().map_or(wait, |asked| asked.max(wait));
            if wait > self.policy.patience {
                return Err(self.block(Some(wait)));
            }
            tracing::debug!(provider = %self.provider, %error, ?wait, "will send a request again");
            self.counts.retries.fetch_add(1, Ordering::Relaxed);
            self.wait(wait).await?;
        }
    }

    async fn once<T, F>(&self, send: &(impl Fn() -> F + Sync)) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let permit = tokio::select! {
            biased;
            () = self.stopped() => return Err(Error::Stopped),
            permit = self.quota.acquire() => permit,
        };
        let _permit = permit.map_err(|error| self.no_permit(error))?;
        self.counts.attempts.fetch_add(1, Ordering::Relaxed);
        send().await
    }

    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // The sender lives as long as the run; without it nothing can ask to stop any more.
        if stop.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn wait(&self, wait: TimeDelta) -> Result<()> {
        tokio::select! {
            () = self.stopped() => Err(Error::Stopped),
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
    /// quota: nobody documents what WhatConverts answers beyond its allowance.
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
            Error::UsedUp { retry_after, .. } => self.block(retry_after),
            other => other,
        }
    }

    /// Tells the ledger that the provider gives no more, for `wait` where it said how long.
    fn block(&self, wait: Option<TimeDelta>) -> Error {
        let until = wait.map(|wait| self.clock.now() + wait);
        match self.quota.used_up(until) {
            Ok(until) => {
                Error::Spent { provider: self.provider, resume_at: Some(until), source: None }
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
                source: Some(exhausted),
            },
            other => Error::Ledger(other),
        }
    }
}
