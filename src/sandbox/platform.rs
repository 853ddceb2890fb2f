//! What the server asks of a platform, and the closed list of them.
//!
//! A [`Platform`] knows its paths, its keys, its allowances and how it words its answers. Log,
//! clock, quota and accidents are the server's, and there once for all. To add a platform: a name
//! in [`Provider`], an implementation beside the others, and its place in `Shared`.

use std::fmt::Debug;

use axum::http::HeaderMap;
use axum::http::Method;
use serde::Deserialize;
use serde::Serialize;

use super::behaviour::Behaviour;
use super::server::Answer;
use super::server::KeyKind;
use super::server::Shared;

/// A platform that the sandbox plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// WhatConverts, below `/api/v1/`.
    WhatConverts,
    /// Whautomate, below `/v1/`.
    Whautomate,
    /// Convertalk, below `/inbox/`.
    Convertalk,
}

impl Provider {
    /// Returns whose a path is.
    pub(super) fn of(path: &str) -> Option<Self> {
        [
            ("/api/v1/", Self::WhatConverts),
            ("/v1/", Self::Whautomate),
            ("/inbox/", Self::Convertalk),
        ]
        .into_iter()
        .find_map(|(prefix, provider)| path.starts_with(prefix).then_some(provider))
    }
}

/// A request, as far as a platform looks at it.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a [(String, String)],
    pub(super) body: &'a [u8],
    pub(super) key: KeyKind,
    /// Number of the request, for what differs from one to the next.
    pub(super) number: u64,
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// Whether a listing is to end before this page, although there is more.
    pub(super) ended: bool,
}

impl<'a> Request<'a> {
    /// Returns a parameter of the query that is not empty; of several, the last.
    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        let last = self.query.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// How many requests a key has in a window of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    pub(super) per: Per,
    pub(super) requests: usize,
}

/// The window of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    Minute,
    Day,
}

impl Per {
    /// Returns the length in milliseconds.
    pub(super) fn length(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Day => 86_400_000,
        }
    }
}

/// An allowance that is spent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) per: Per,
    /// Seconds until a request is free again.
    pub(super) wait: i64,
}

/// An accident that a platform words itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Accident {
    /// Its servers fail with a status.
    Status(u16),
    /// It was asked too fast.
    TooFast,
    /// A 200 with an error inside.
    ErrorInside,
    /// It takes a page for one past the end.
    End(u16),
}

/// The side of the wire that a platform has.
pub(super) trait Platform: Debug + Send + Sync {
    /// Says whether it knows a path.
    fn knows(&self, method: &Method, path: &str) -> bool;

    /// Returns the answer to a path it does not know.
    fn lost(&self, behaviour: &Behaviour) -> Answer;

    /// Returns whose key a client has sent.
    fn identify(&self, behaviour: &Behaviour, path: &str, headers: &HeaderMap) -> KeyKind;

    /// Returns what a key hears that opens nothing.
    fn refuse_key(&self, behaviour: &Behaviour, key: KeyKind) -> Option<Answer>;

    /// Returns the allowances of a key.
    fn allowances(&self, key: KeyKind) -> Vec<Allowance>;

    /// Returns what a key hears whose allowance is spent.
    fn refuse_quota(&self, behaviour: &Behaviour, spent: Spent) -> Answer;

    /// Words an accident.
    fn accident(&self, behaviour: &Behaviour, accident: Accident) -> Answer;

    /// Answers a request to a known path with a good key.
    fn answer(&self, shared: &Shared, behaviour: &Behaviour, request: &Request<'_>) -> Answer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_platform_or_to_none() {
        assert_eq!(Provider::of("/api/v1/leads"), Some(Provider::WhatConverts));
        assert_eq!(Provider::of("/v1/contacts"), Some(Provider::Whautomate));
        assert_eq!(Provider::of("/inbox/users"), Some(Provider::Convertalk));
        assert_eq!(Provider::of("/"), None);
    }
}
