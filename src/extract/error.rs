//! What can go wrong with a provider, by what can be done next.

use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::config;
use crate::error::Hint;
use crate::extract::http::Phase;
use crate::extract::providers::refusal;
use crate::ids::ProviderId;
use crate::quota::Exhausted;
use crate::spill;

/// Why there is no permit.
#[derive(Debug, thiserror::Error)]
pub enum NoPermit {
    /// Our own count says so.
    #[error(transparent)]
    Counted(#[from] Exhausted),
    /// The provider says so, or what it says looks like it.
    #[error(transparent)]
    Told(Box<Error>),
}

/// An error from reading a provider. Texts of the provider in it are cut to one line of at most
/// 300 characters; bodies are never part of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The provider refused the credentials.
    #[error("provider `{provider}` rejected the credentials with status {status}: {text}")]
    Unauthorized {
        /// The provider.
        provider: ProviderId,
        /// The HTTP status.
        status: u16,
        /// What the provider said.
        text: String,
    },
    /// The key is of another kind than the job says.
    #[error("the key is a {is} key of provider `{provider}`, but the job says `plan = \"{set}\"`")]
    OtherKind {
        /// The provider.
        provider: ProviderId,
        /// What the key is.
        is: &'static str,
        /// What the job says.
        set: &'static str,
    },
    /// The provider refused the request itself; asking again changes nothing.
    #[error("provider `{provider}` refused `{request}` with status {status}: {text}")]
    Refused {
        /// The provider.
        provider: ProviderId,
        /// What was asked: path and query, `POST` before them.
        request: String,
        /// The HTTP status.
        status: u16,
        /// What the provider said.
        text: String,
    },
    /// The provider asks to slow down.
    #[error("provider `{provider}` asks to slow down (status {status})")]
    RateLimited {
        /// The provider.
        provider: ProviderId,
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<TimeDelta>,
    },
    /// The provider says that the allowance is used up.
    #[error("provider `{provider}` says that the quota is used up (status {status}): {text}")]
    UsedUp {
        /// The provider.
        provider: ProviderId,
        /// The HTTP status.
        status: u16,
        /// What the provider said.
        text: String,
        /// How long it asks to wait.
        retry_after: Option<TimeDelta>,
    },
    /// No permit is to be had for now.
    #[error("no permit is left for provider `{provider}`")]
    Spent {
        /// The provider.
        provider: ProviderId,
        /// When permits come free again, where that is known.
        resume_at: Option<DateTime<Utc>>,
        /// Why there are none.
        source: NoPermit,
    },
    /// The ledger that counts requests could not be read or written.
    #[error("failed to count the request")]
    Ledger(#[source] crate::quota::Error),
    /// The provider is in trouble.
    #[error("provider `{provider}` answered with status {status}")]
    Unavailable {
        /// The provider.
        provider: ProviderId,
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<TimeDelta>,
    },
    /// No connection, or none that lasted.
    #[error("failed to reach provider `{provider}`")]
    Connect {
        /// The provider.
        provider: ProviderId,
        /// What the client said, without the address.
        source: reqwest::Error,
    },
    /// The server shows a certificate that nobody vouches for; nothing was said to it.
    #[error("provider `{provider}` shows a certificate that cannot be trusted: {reason}")]
    Certificate {
        /// The provider.
        provider: ProviderId,
        /// What is wrong with it.
        reason: String,
    },
    /// No byte came for too long.
    #[error("provider `{provider}` sent nothing for {limit:?} while {phase}")]
    Stalled {
        /// The provider.
        provider: ProviderId,
        /// What was under way.
        phase: Phase,
        /// The longest that no byte may come.
        limit: Duration,
    },
    /// The answer came, but too slowly.
    #[error(
        "provider `{provider}` took more than {limit:?} for one answer, and was cut off while {phase}"
    )]
    TooSlow {
        /// The provider.
        provider: ProviderId,
        /// What was under way.
        phase: Phase,
        /// The longest that a request may take.
        limit: Duration,
    },
    /// The answer is not in the form the provider documents.
    #[error("provider `{provider}` gave an answer that cannot be read: {detail}")]
    Broken {
        /// The provider.
        provider: ProviderId,
        /// What is wrong with it, without its content.
        detail: String,
    },
    /// A page has more rows than any listing asks for.
    #[error("provider `{provider}` gave a page of more than {limit} rows")]
    TooManyRows {
        /// The provider.
        provider: ProviderId,
        /// The limit.
        limit: usize,
    },
    /// The answer is larger than the setting allows.
    #[error("provider `{provider}` gave an answer of more than {limit_bytes} bytes")]
    TooLarge {
        /// The provider.
        provider: ProviderId,
        /// The limit.
        limit_bytes: u64,
    },
    /// The provider points to another host; credentials do not travel there.
    #[error("provider `{provider}` redirects to another origin, `{origin}`")]
    Redirected {
        /// The provider.
        provider: ProviderId,
        /// Where it points.
        origin: String,
    },
    /// The provider points from one address to the next, without an end.
    #[error("provider `{provider}` redirects in a circle")]
    Circling {
        /// The provider.
        provider: ProviderId,
    },
    /// The provider points to an address that leaves out what was asked for.
    #[error("provider `{provider}` redirects to `{path}` and leaves out what was asked for")]
    Misdirected {
        /// The provider.
        provider: ProviderId,
        /// The path it points to.
        path: String,
    },
    /// There is nothing to read: an agency without profiles, or a job that selects none.
    #[error("provider `{provider}` lists {listed} profiles, and the job selects none of them")]
    Nothing {
        /// The provider.
        provider: ProviderId,
        /// Profiles listed.
        listed: usize,
    },
    /// Rows lie far outside the window asked for.
    #[error(
        "provider `{provider}` ignores the window: of {dated} rows asked for {window}, {outside} \
         lie more than 48 hours outside"
    )]
    WindowIgnored {
        /// The provider.
        provider: ProviderId,
        /// The window asked for.
        window: String,
        /// Rows with a date.
        dated: usize,
        /// Rows far outside.
        outside: usize,
    },
    /// Another page came than the one asked for.
    #[error("provider `{provider}` ignores the page number: asked for page {asked}, got {got}")]
    PageIgnored {
        /// The provider.
        provider: ProviderId,
        /// The page asked for.
        asked: u32,
        /// The page that came.
        got: u32,
    },
    /// A page could not be kept.
    #[error("failed to keep a page")]
    Keep(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The ids of a walk could not be kept, of which there are more than memory has room for.
    #[error("failed to keep the ids of a walk")]
    Spill(#[from] spill::Error),
    /// The run was asked to stop.
    #[error("stopped")]
    Stopped,
    /// The client, or a request, could not be made.
    #[error("failed to set up requests to provider `{provider}`")]
    Setup {
        /// The provider.
        provider: ProviderId,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A secret could not be read.
    #[error(transparent)]
    Secret(#[from] config::Error),
}

impl Error {
    /// Tells whether the same request may succeed when it is sent again soon.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::Broken { .. } => true,
            Self::Unauthorized { .. }
            | Self::OtherKind { .. }
            | Self::Certificate { .. }
            | Self::Refused { .. }
            | Self::UsedUp { .. }
            | Self::Spent { .. }
            | Self::Ledger(_)
            | Self::TooLarge { .. }
            | Self::TooManyRows { .. }
            | Self::Redirected { .. }
            | Self::Misdirected { .. }
            | Self::Circling { .. }
            | Self::Nothing { .. }
            | Self::WindowIgnored { .. }
            | Self::PageIgnored { .. }
            | Self::Keep(_)
            | Self::Spill(_)
            | Self::Stopped
            | Self::Setup { .. }
            | Self::Secret(_) => false,
        }
    }

    /// Returns the error with `secrets` blotted out of the provider's own words.
    #[must_use]
    pub fn without(mut self, secrets: &[&str]) -> Self {
        if let Self::Unauthorized { text, .. }
        | Self::Refused { text, .. }
        | Self::UsedUp { text, .. } = &mut self
        {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                *text = text.replace(secret, "***");
            }
        }
        self
    }

    /// Tells whether the provider says, in its own words, that there is nothing at that place: another
    /// 404 is that of a path that does not exist.
    pub fn says_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, text, .. } if !text.starts_with(refusal::NO_WORDS))
    }

    /// Tells whether smaller pages may get round the trouble: the provider answers, but this page
    /// never comes right.
    pub fn may_be_one_row(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Broken { .. }
                | Self::TooLarge { .. }
                | Self::TooManyRows { .. }
        )
    }

    /// Tells whether a smaller page may come where this one does not: beside what may be one row, a
    /// connection that was made and broke, or an answer that took too long.
    pub fn may_be_size(&self) -> bool {
        let is_lost = match self {
            Self::Connect { source, .. } => !source.is_connect(),
            Self::Stalled { phase, .. } | Self::TooSlow { phase, .. } => {
                *phase != Phase::Connecting
            }
            _ => false,
        };
        self.may_be_one_row() || is_lost
    }

    /// Tells whether the provider, in refusing a request, speaks of how many rows were asked for.
    /// Nobody documents the words; those that speak of time are meant for the range.
    pub fn speaks_of_size(&self) -> bool {
        let Self::Refused { text, .. } = self else { return false };
        let text = text.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        has(&["per_page", "per page", "page size", "page_size", "pagesize", "page limit"])
            || (has(&["size", "limit", "maximum", "too large", "too many", "rows", "records"])
                && !has(&["day", "date", "range", "month", "year"]))
    }

    /// Returns how long the provider asks to wait.
    pub fn retry_after(&self) -> Option<TimeDelta> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::UsedUp { retry_after, .. }
            | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unauthorized { .. } => {
                "look at the key's secrets in the job file; `leadpipe check` tries them"
            }
            Self::OtherKind { is, .. } => {
                return Some(format!("set `plan = \"{is}\"` for this source"));
            }
            Self::WindowIgnored { .. } => {
                "set `date_parameters = [\"date_start\", \"date_end\"]` for this source (or back to \
                 `[\"start_date\", \"end_date\"]`): sources of the provider disagree on the names"
            }
            Self::Nothing { .. } => {
                "look at `include_profiles`, `exclude_profiles`, `include_accounts` and \
                 `exclude_accounts` of this source; `leadpipe plan` shows what they select"
            }
            Self::TooManyRows { .. } => {
                "nothing was lost; run the same again, and if it stays so ask the provider"
            }
            Self::PageIgnored { .. } => {
                "nothing was lost; please report it with the provider's name"
            }
            Self::Misdirected { .. } | Self::Circling { .. } => {
                "look at `base_url`: the server there sends on what it does not serve itself"
            }
            Self::Redirected { .. } => "if that is where the API lives now, set it as `base_url`",
            Self::TooLarge { .. } => "set a smaller `page_size`, or a larger `max_body_megabytes`",
            // What is refused with one of these is the address, not the rows asked for.
            Self::Refused { status: 403..=405, .. } => {
                "look at `base_url` and at the ids of this source: the server there does not know \
                 what was asked for; it may be that of another region or brand"
            }
            Self::Ledger(error) => return error.hint(),
            Self::Secret(error) => return error.hint(),
            Self::Spill(error) => return error.hint(),
            Self::Connect { .. } => {
                "look at the network and at `base_url`, then run the same again"
            }
            Self::Certificate { .. } => {
                "look at `base_url`, and whether something between here and there answers in its stead; \
                 the credentials were not sent"
            }
            Self::Stalled { phase: Phase::Connecting, .. }
            | Self::TooSlow { phase: Phase::Connecting, .. } => {
                "look at the network and at `base_url`, then run the same again"
            }
            Self::Stalled { .. } => {
                "run the same again later; a provider that is slow to begin wants a larger `stall`"
            }
            Self::TooSlow { .. } => "set a smaller `page_size`, or a larger `timeout`",
            Self::Broken { .. } => {
                "look at `base_url`, or run the same again later: nothing is lost"
            }
            Self::Unavailable { .. } => "run the same again later; what is held is not asked again",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
