//! A provider on localhost with invented leads and faults.
//!
//! The sandbox is the other side of the wire: it shares no types with the extractor, so that a
//! misreading of the documents is not made twice. It answers the WhatConverts REST API as the fact
//! sheet has it; where that leaves a question open, a switch of [`Behaviour`] gives each answer.
//!
//! The world has a clock, by default the one handed to [`Sandbox::start`]. Up to [`Settings::now`]
//! there are [`Settings::leads`] leads, more towards the end; after it leads go on to arrive at the
//! last rate, and all of them change and go as leads do. Everything is a function of settings and
//! clock, so a sandbox started again shows the same world; what is lost are edits by hand, the time
//! it was moved ahead, and the count of requests. A clock that stands before [`Settings::now`]
//! shows the history up to there. Time moves forward only. Memory: 56 bytes a lead, and the
//! request log.
//!
//! For other processes there is an administration beside the API; it wants no key, and
//! `Content-Type: application/json` with what is posted:
//!
//! | request | does |
//! |---|---|
//! | `GET /sandbox/leads` | the truth: every lead listed now, as an array; `?ids=1`: `[[profile_id, lead_id], ...]` |
//! | `GET`, `DELETE /sandbox/requests` | the request log, an array of [`LoggedRequest`]; empties it |
//! | `GET`, `POST /sandbox/clock` | `{"now": ...}`; moves the clock by `{"advance_seconds": 3600}` |
//! | `GET`, `POST /sandbox/behaviour` | the [`Behaviour`] in force; replaces it, defaults for what is not named |
//! | `POST /sandbox/edit` | `{"lead_id": 179000001, "edit": "vanish"}`, or another [`Edit`] |
//! | `GET /sandbox/keys` | `{"master": {"token", "secret"}, "profiles": [{"profile_id", "account_id", "token", "secret"}]}` |
//!
//! It listens on 127.0.0.1 and nowhere else. The people are invented: example.com, 555 numbers.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use behaviour::Behaviour;
pub use behaviour::DateOnlyEnd;
pub use behaviour::DateParameters;
pub use behaviour::Edit;
pub use behaviour::EmptyMaps;
pub use behaviour::EmptyPages;
pub use behaviour::Fault;
pub use behaviour::FaultRate;
pub use behaviour::Journey;
pub use behaviour::OverPageSize;
pub use behaviour::OverQuota;
pub use behaviour::OverRange;
pub use behaviour::PageNumber;
pub use behaviour::PastEnd;
pub use behaviour::Poison;
pub use behaviour::ScriptedEdit;
pub use behaviour::SizeEcho;
pub use behaviour::Times;
pub use behaviour::Totals;
pub use server::KeyKind;
pub use server::LoggedRequest;

use crate::clock::SharedClock;

mod behaviour;
mod dice;
mod json;
mod people;
mod server;
mod whatconverts;
mod world;

/// The first of November 2026: where the history of a default world ends.
const DEFAULT_NOW: i64 = 1_793_491_200;

/// What world is to be invented.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Other seeds give other worlds, ids and keys.
    pub seed: u64,
    /// Leads that came up to `now`, at most 50 million; about 3 % of them have gone again.
    pub leads: u64,
    /// Years of history before `now`.
    pub years: u32,
    /// Accounts of the agency.
    pub accounts: u32,
    /// Profiles, spread over the accounts; 1 to 10,000.
    pub profiles: u32,
    /// Where the history ends and the future begins.
    pub now: DateTime<Utc>,
    /// Late edits: the share of all leads that is edited on a day, on top of what happens to a
    /// lead in its first weeks.
    pub churn_per_day: f64,
    /// Nothing happens after `now`.
    pub still: bool,
    /// Requests the master key has in 24 hours; 10,000 by default.
    pub per_day: Option<u32>,
    /// Requests a profile key has in 24 hours; 1,000 by default.
    pub profile_per_day: Option<u32>,
    /// Switches and faults at the start.
    pub behaviour: Behaviour,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            leads: 20_000,
            years: 5,
            accounts: 4,
            profiles: 9,
            now: DateTime::from_timestamp(DEFAULT_NOW, 0).unwrap_or_default(),
            churn_per_day: 0.000_5,
            still: false,
            per_day: None,
            profile_per_day: None,
            behaviour: Behaviour::default(),
        }
    }
}

/// An error of the sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The port could not be opened.
    #[error("failed to listen on port {port} of 127.0.0.1")]
    Listen {
        /// The port asked for.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// No world can be made of these settings.
    #[error("unsound settings of the sandbox: {what}")]
    Settings {
        /// What is wrong.
        what: &'static str,
    },
    /// There is no such lead.
    #[error("no lead has the id {id}")]
    UnknownLead {
        /// The id.
        id: u64,
    },
    /// There is no such profile.
    #[error("no profile has the id {id}")]
    UnknownProfile {
        /// The id.
        id: u64,
    },
    /// A lead has this id already.
    #[error("a lead has the id {id} already")]
    TakenId {
        /// The id.
        id: u64,
    },
}

/// A running sandbox; it ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    shared: Arc<server::Shared>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sandbox {
    /// Invents the world and serves it on `port` of 127.0.0.1, any free one where it is 0.
    ///
    /// It runs on the tokio runtime of the caller; inventing takes about a second for a million
    /// leads.
    ///
    /// # Errors
    ///
    /// Fails on settings that no world can be made of, and where the port is taken.
    pub async fn start(settings: Settings, port: u16, clock: SharedClock) -> Result<Self, Error> {
        let shared = Arc::new(server::Shared::new(&settings, clock)?);
        // Drawn before the first request, which would have to wait for it.
        drop(shared.world());
        let listen = |source| Error::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server::serve(listener, Arc::clone(&shared), stopped));
        Ok(Self { address, shared, stop, task })
    }

    /// Returns the address of the server, without a path: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns token and secret of the agency.
    pub fn master_key(&self) -> (String, String) {
        self.shared.keys.master.clone()
    }

    /// Returns token and secret of a profile.
    pub fn profile_key(&self, profile_id: u64) -> Result<(String, String), Error> {
        let pair = self.shared.keys.profiles.get(&profile_id).cloned();
        pair.ok_or(Error::UnknownProfile { id: profile_id })
    }

    /// Returns the profiles, the oldest first.
    pub fn profile_ids(&self) -> Vec<u64> {
        self.shared.world().profiles.iter().map(|profile| profile.id).collect()
    }

    /// Returns the time of the world.
    pub fn now(&self) -> DateTime<Utc> {
        self.shared.now()
    }

    /// Moves the world ahead of the clock it was given.
    pub fn advance(&self, by: TimeDelta) {
        self.shared.advance(by.num_seconds());
    }

    /// Returns every lead listed now, spam and duplicates too, as a request for its profile shows
    /// it. This holds all of them in memory; for large worlds there is [`Self::lead_ids`].
    pub fn leads(&self) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        let parse = |row| {
            out.clear();
            self.shared.write_leads(&[row], &mut out);
            serde_json::from_slice(&out).ok()
        };
        self.shared.listed().into_iter().filter_map(parse).collect()
    }

    /// Returns profile and id of every lead listed now.
    pub fn lead_ids(&self) -> Vec<(u64, u64)> {
        let rows = self.shared.listed();
        let world = self.shared.world();
        rows.iter().map(|row| (world.profiles[usize::from(row.profile)].id, row.id)).collect()
    }

    /// Returns the requests since the start or since they were cleared, in order of arrival.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.requests()
    }

    /// Forgets the requests so far; the quota remembers them.
    pub fn clear_requests(&self) {
        self.shared.clear_requests();
    }

    /// Replaces the behaviour; scripts and `fail_next` begin anew.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.behave(behaviour);
    }

    /// Does something to a lead by hand, now.
    pub fn edit(&self, lead_id: u64, edit: Edit) -> Result<(), Error> {
        self.shared.edit(lead_id, &edit)
    }

    /// Adds a lead and returns its id.
    pub fn insert(&self, profile_id: u64, created_at: DateTime<Utc>) -> Result<u64, Error> {
        self.shared.insert(profile_id, created_at)
    }

    /// Ends the server; requests in flight are cut off after a second.
    pub async fn stop(self) {
        // An error means that the server has ended already.
        let _ = self.stop.send(());
        let mut task = self.task;
        if tokio::time::timeout(Duration::from_secs(1), &mut task).await.is_err() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
