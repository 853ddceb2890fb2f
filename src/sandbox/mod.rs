//! The providers on localhost, with invented leads and faults.
//!
//! The sandbox is the other side of the wire: it shares no types with the extractor, so that a
//! misreading of the documents is not made twice. It answers the REST APIs of WhatConverts
//! (`/api/v1/`), Whautomate (`/v1/`) and Convertalk (`/inbox/`) as their fact sheets have them, all
//! on one port; where those leave a question open, a switch of [`Behaviour`] gives each answer.
//!
//! The world has a clock, by default the one handed to [`Sandbox::start`]. Up to [`Settings::now`]
//! there are [`Settings::leads`] leads, more towards the end; after it leads go on to arrive at the
//! last rate, and all of them change and go as leads do. Everything is a function of settings and
//! clock, so a sandbox started again shows the same world; what is lost are edits by hand, the time
//! it was moved ahead, and the count of requests. A clock that stands before [`Settings::now`]
//! shows the history up to there. Time moves forward only. Contacts, clients, chats and users come,
//! change and go in the same way; one in ten is a person whom WhatConverts knows too. Memory: 56
//! bytes a lead, about 130 a record of the others, and the request log.
//!
//! For other processes there is an administration beside the API; it wants no key, and
//! `Content-Type: application/json` with what is posted:
//!
//! | request | does |
//! |---|---|
//! | `GET /sandbox/leads` | the truth: every lead listed now, as an array; `?ids=1`: `[[profile_id, lead_id], ...]` |
//! | `GET /sandbox/records?stream=contacts&part=0` | all that a listing of Whautomate or Convertalk has, as one page of it; `stream=chats&part=1&list=non-lead`; `&ids=1`: the ids |
//! | `GET`, `DELETE /sandbox/requests` | the request log, an array of [`LoggedRequest`]; empties it |
//! | `GET`, `POST /sandbox/clock` | `{"now": ...}`; moves the clock by `{"advance_seconds": 3600}` |
//! | `GET`, `POST /sandbox/behaviour` | the [`Behaviour`] in force; replaces it, defaults for what is not named |
//! | `POST /sandbox/edit` | `{"lead_id": 179000001, "edit": "vanish"}`, or another [`Edit`]; `{"stream": "chats", "id": "63d9...", "edit": "touch"}`, or another [`RecordEdit`] |
//! | `GET /sandbox/keys` | `{"master": {"token", "secret"}, "profiles": [{"profile_id", "account_id", "token", "secret"}], "whautomate": [key, ...], "convertalk": {"token", "customer_id", "bot_ids"}}` |
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
pub use behaviour::CustomValues;
pub use behaviour::DateOnlyEnd;
pub use behaviour::DateParameters;
pub use behaviour::Deleted;
pub use behaviour::Edit;
pub use behaviour::EmptyMaps;
pub use behaviour::EmptyPages;
pub use behaviour::Journey;
pub use behaviour::Missing;
pub use behaviour::Order;
pub use behaviour::OverPageSize;
pub use behaviour::OverQuota;
pub use behaviour::OverRange;
pub use behaviour::PageNumber;
pub use behaviour::PageZero;
pub use behaviour::PastEnd;
pub use behaviour::Poison;
pub use behaviour::RecordEdit;
pub use behaviour::ScriptedEdit;
pub use behaviour::ScriptedRecordEdit;
pub use behaviour::SizeEcho;
pub use behaviour::Times;
pub use behaviour::Totals;
pub use convertalk::AgentForm;
pub use convertalk::ChatsEnd;
pub use convertalk::ChatsError;
pub use convertalk::ConvertalkBehaviour;
pub use convertalk::DataForm;
pub use convertalk::NameField;
pub use convertalk::OtherType;
pub use convertalk::Parts;
pub use convertalk::TagForm;
pub use convertalk::TokenHeader;
pub use convertalk::WrongToken;
pub use faults::Fault;
pub use faults::FaultRate;
pub use platform::Provider;
pub use records::Listing;
pub use records::Stream;
pub use server::KeyKind;
pub use server::LoggedRequest;
pub use whautomate::ClientDates;
pub use whautomate::Collections;
pub use whautomate::Envelope;
pub use whautomate::ErrorBody;
pub use whautomate::OverLimit;
pub use whautomate::PhoneForm;
pub use whautomate::PlaceName;
pub use whautomate::RecordTimes;
pub use whautomate::UnknownRecord;
pub use whautomate::WhautomateBehaviour;
pub use whautomate::WrongKey;

use crate::clock::SharedClock;

mod behaviour;
mod calendar;
mod convertalk;
mod dice;
mod faults;
mod json;
mod people;
mod platform;
mod records;
mod server;
mod whatconverts;
mod whautomate;
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
    /// Accounts of Whautomate, each with a key of its own.
    pub whautomate_accounts: u32,
    /// Contacts of each that came up to `now`; about 1 % of them have gone again.
    pub contacts: u64,
    /// Clients of each, likewise.
    pub clients: u64,
    /// Bots of the one customer of Convertalk.
    pub convertalk_bots: u32,
    /// Chats of each that came up to `now`; about six in ten become leads.
    pub chats: u64,
    /// Users of Convertalk who came through other channels, beside those who became leads in a
    /// chat.
    pub users: u64,
    /// Requests the master key has in 24 hours; 10,000 by default.
    pub per_day: Option<u32>,
    /// Requests a profile key has in 24 hours; 1,000 by default.
    pub profile_per_day: Option<u32>,
    /// Requests a Whautomate key has in 24 hours; 100 by default.
    pub whautomate_per_day: Option<u32>,
    /// Requests a Whautomate key has in a minute; 60 by default.
    pub whautomate_per_minute: Option<u32>,
    /// Requests the Convertalk token has in 24 hours; as many as it likes by default.
    pub convertalk_per_day: Option<u32>,
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
            whautomate_accounts: 0,
            contacts: 0,
            clients: 0,
            convertalk_bots: 0,
            chats: 0,
            users: 0,
            per_day: None,
            profile_per_day: None,
            whautomate_per_day: None,
            whautomate_per_minute: None,
            convertalk_per_day: None,
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
    /// There is no such contact, client, chat or user.
    #[error("no record has the id `{id}`")]
    UnknownRecord {
        /// The id.
        id: String,
    },
    /// A record has this id already.
    #[error("a record has the id `{id}` already")]
    TakenRecordId {
        /// The id.
        id: String,
    },
    /// There is no such account or bot.
    #[error("there is no account or bot number {part}")]
    UnknownPart {
        /// The number, from 0.
        part: u32,
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
        drop(shared.records());
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
        self.shared.whatconverts.keys.master.clone()
    }

    /// Returns token and secret of a profile.
    pub fn profile_key(&self, profile_id: u64) -> Result<(String, String), Error> {
        let pair = self.shared.whatconverts.keys.profiles.get(&profile_id).cloned();
        pair.ok_or(Error::UnknownProfile { id: profile_id })
    }

    /// Returns the key of each Whautomate account, by number.
    pub fn whautomate_keys(&self) -> Vec<String> {
        self.shared.whautomate.keys.clone()
    }

    /// Returns the token of Convertalk, for chats and users.
    pub fn convertalk_token(&self) -> String {
        self.shared.convertalk.token.clone()
    }

    /// Returns the id of the customer of Convertalk.
    pub fn customer_id(&self) -> String {
        self.shared.convertalk.customer.clone()
    }

    /// Returns the id of each bot of Convertalk, by number.
    pub fn bot_ids(&self) -> Vec<String> {
        self.shared.convertalk.bots.clone()
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

    /// Returns the records that a listing of Whautomate or Convertalk has now, the oldest first.
    ///
    /// # Errors
    ///
    /// Fails where there is no such account or bot, as do its siblings.
    pub fn records(&self, listing: Listing) -> Result<Vec<serde_json::Value>, Error> {
        let places = self.shared.listed_records(listing)?;
        let parse = |place| {
            let body = self.shared.record_body(listing.stream(), place);
            serde_json::from_slice(&body).ok()
        };
        Ok(places.into_iter().filter_map(parse).collect())
    }

    /// Returns the same as the body of one page, byte for byte as the provider writes it: in the
    /// envelope that the behaviour has now.
    pub fn record_page(&self, listing: Listing) -> Result<Vec<u8>, Error> {
        let places = self.shared.listed_records(listing)?;
        Ok(self.shared.record_page(listing.stream(), &places))
    }

    /// Returns the ids of the same.
    pub fn record_ids(&self, listing: Listing) -> Result<Vec<String>, Error> {
        let places = self.shared.listed_records(listing)?;
        Ok(self.shared.record_ids(&places))
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

    /// Does something to a contact, client, chat or user by hand, now.
    pub fn edit_record(&self, stream: Stream, id: &str, edit: RecordEdit) -> Result<(), Error> {
        self.shared.edit_record(stream, id, &edit)
    }

    /// Adds a record to a listing and returns its id.
    pub fn insert_record(
        &self,
        listing: Listing,
        created_at: DateTime<Utc>,
    ) -> Result<String, Error> {
        self.shared.insert_record(listing, created_at)
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
