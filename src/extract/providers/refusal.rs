//! What a refusal means, as far as it means the same at all providers.
//!
//! None of them documents what comes beyond an allowance, nor any code beside the status, so the
//! text decides where it speaks of a limit. What a provider means by words of its own stands with
//! that provider.

use chrono::TimeDelta;
use serde_json::Value;

use super::json;
use crate::extract::Answer;
use crate::extract::Error;
use crate::extract::Result;
use crate::ids::ProviderId;

/// How the description of an answer begins that carries no words of the provider's.
pub(in crate::extract) const NO_WORDS: &str = "no reason given";

/// An answer that is a refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal<'a> {
    /// The provider.
    pub(super) provider: ProviderId,
    /// The status: of HTTP, or the one that stands in the body.
    pub(super) status: u16,
    /// What was asked.
    request: &'a str,
    retry_after: Option<TimeDelta>,
}

impl<'a> Refusal<'a> {
    /// Returns the refusal that `answer` is.
    pub(super) fn of(provider: ProviderId, answer: &'a Answer) -> Self {
        // The body of a POST is the same each time, and would hide the provider's words.
        let request = answer.request.split(" {").next().unwrap_or_default();
        Self { provider, status: answer.status, request, retry_after: answer.retry_after }
    }

    /// Returns the refusal that stands in the body of a page, whatever its status.
    pub(super) fn in_page(provider: ProviderId, status: u16) -> Self {
        Self { provider, status, request: "the page", retry_after: None }
    }

    /// Tells what the refusal means by its status and the provider's words; `otherwise` describes an
    /// answer without words.
    pub(super) fn judge(self, words: Option<&str>, otherwise: &str) -> Error {
        let lower = words.unwrap_or_default().to_ascii_lowercase();
        if speaks_of_the_day(&lower) {
            return self.used_up(words.unwrap_or_default());
        }
        if self.status == 429 || speaks_of_the_rate(&lower) {
            return self.rate_limited();
        }
        match (self.status, words) {
            // Nothing is refused by it, least of all a page for being past the end.
            (100..=199 | 300..=399, _) => self.no_answer(),
            (401 | 403, words) => self.unauthorized(words.unwrap_or(NO_WORDS)),
            (408 | 500..=599, _) => self.unavailable(),
            (_, Some(words)) => self.refused(words),
            (_, None) => self.refused(otherwise),
        }
    }

    /// The credentials were refused.
    pub(super) fn unauthorized(self, text: &str) -> Error {
        let Self { provider, status, .. } = self;
        Error::Unauthorized { provider, status, text: text.to_owned() }
    }

    /// The allowance is used up.
    pub(super) fn used_up(self, text: &str) -> Error {
        let Self { provider, status, retry_after, .. } = self;
        Error::UsedUp { provider, status, text: text.to_owned(), retry_after }
    }

    /// The request itself was refused.
    pub(super) fn refused(self, text: &str) -> Error {
        let Self { provider, status, request, .. } = self;
        Error::Refused { provider, request: request.to_owned(), status, text: text.to_owned() }
    }

    fn no_answer(self) -> Error {
        json::broken(self.provider, &format!("it has status {}, and is none", self.status))
    }

    fn rate_limited(self) -> Error {
        let Self { provider, status, retry_after, .. } = self;
        Error::RateLimited { provider, status, retry_after }
    }

    fn unavailable(self) -> Error {
        let Self { provider, status, retry_after, .. } = self;
        Error::Unavailable { provider, status, retry_after }
    }
}

/// Tells what a refusal means, its words, and a description of an answer without words.
pub(super) type Judge = fn(Refusal<'_>, Option<&str>, &str) -> Error;

/// Refuses an answer whose status says that it is none. Its words are looked for at `pointers`.
pub(super) fn refuse_bad_status(
    provider: ProviderId,
    answer: &Answer,
    pointers: &[&str],
    judge: Judge,
) -> Result<()> {
    if answer.is_success() {
        return Ok(());
    }
    let words = words_of(answer, pointers);
    Err(judge(Refusal::of(provider, answer), words.as_deref(), &describe(answer)))
}

/// Returns the provider's words in a refusal, as one line: of its JSON those at `pointers`, or a
/// plain text. A page for people says nothing to a program.
fn words_of(answer: &Answer, pointers: &[&str]) -> Option<String> {
    let body = answer.body.as_ref();
    let plain = || match serde_json::from_slice::<Value>(body) {
        Ok(value) => value.as_str().map(str::to_owned),
        Err(_) if json::is_html(body) => None,
        Err(_) => std::str::from_utf8(body).ok().map(str::to_owned),
    };
    json::words(body, pointers).or_else(|| json::words_in(&Value::String(plain()?)))
}

/// Describes an answer without words, and shows nothing of it.
pub(super) fn describe(answer: &Answer) -> String {
    let kind = match answer.media_type.as_str() {
        "" => "without a type",
        kind => kind,
    };
    format!("{NO_WORDS}, but {} bytes {kind}", answer.body.len())
}

fn speaks_of_the_day(text: &str) -> bool {
    let day = ["daily", "per day", "quota", "today"].iter().any(|word| text.contains(word));
    day && ["limit", "quota", "exceed", "used up"].iter().any(|word| text.contains(word))
}

fn speaks_of_the_rate(text: &str) -> bool {
    text.contains("rate limit") || text.contains("too many requests")
}
