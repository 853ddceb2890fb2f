//! Whautomate on the wire: keys, paths, parameters, envelopes and errors.
//!
//! The API stands behind a gateway, which refuses keys and counts requests in words of its own. An
//! answer is a function of (records, behaviour, request, time). Parameters of a listing that are
//! understood are `page`, `limit`, and for clients `startDate` and `endDate`; all others are
//! ignored.

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::Method;
use axum::http::header;
use chrono::DateTime;
use chrono::NaiveDate;

use super::Settings;
use super::behaviour::Behaviour;
use super::behaviour::Deleted;
use super::behaviour::Order;
use super::behaviour::PageZero;
use super::behaviour::PastEnd;
use super::behaviour::Poison;
use super::dice::Dice;
use super::dice::Purpose;
use super::platform::Accident;
use super::platform::Allowance;
use super::platform::Per;
use super::platform::Platform;
use super::platform::Request;
use super::platform::Spent;
use super::records::Listing;
use super::records::Moves;
use super::records::Place;
use super::records::Records;
use super::records::Show;
use super::records::Stream;
use super::records::Subject;
use super::records::page;
use super::server::Answer;
use super::server::KeyKind;
use super::server::Shared;

pub use behaviour::ClientDates;
pub use behaviour::Collections;
pub use behaviour::Envelope;
pub use behaviour::ErrorBody;
pub use behaviour::OverLimit;
pub use behaviour::PhoneForm;
pub use behaviour::PlaceName;
pub use behaviour::RecordTimes;
pub use behaviour::UnknownRecord;
pub use behaviour::WhautomateBehaviour;
pub use behaviour::WrongKey;

pub(super) use record::write;

mod behaviour;
mod record;

/// The header that carries the key.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
/// The limits of a trial account.
const TRIAL_PER_DAY: u32 = 100;
const TRIAL_PER_MINUTE: u32 = 60;
/// Keys of WhatConverts are drawn by the ids of profiles, far below.
const FIRST_KEY: u64 = 1 << 48;

/// The platform: the keys of its accounts, and their allowance.
#[derive(Debug)]
pub(super) struct Whautomate {
    /// The key of each account, by number.
    pub(super) keys: Vec<String>,
    per_day: usize,
    per_minute: usize,
}

impl Whautomate {
    /// Returns the platform of a world.
    pub(super) fn new(settings: &Settings) -> Self {
        let accounts = u64::from(settings.whautomate_accounts);
        Self {
            keys: (0..accounts).map(|account| key(settings.seed, account)).collect(),
            per_day: settings.whautomate_per_day.unwrap_or(TRIAL_PER_DAY) as usize,
            per_minute: settings.whautomate_per_minute.unwrap_or(TRIAL_PER_MINUTE) as usize,
        }
    }
}

/// Returns the key of an account: forty letters and digits.
fn key(seed: u64, account: u64) -> String {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let dice = Dice::new(seed, Purpose::Key, FIRST_KEY + account);
    (0..40).map(|roll| char::from(dice.pick(roll, DIGITS))).collect()
}

impl Platform for Whautomate {
    fn knows(&self, method: &Method, path: &str) -> bool {
        method == Method::GET && Asked::read(path).is_some()
    }

    fn lost(&self, behaviour: &Behaviour) -> Answer {
        error(behaviour, 403, "Missing Authentication Token")
    }

    fn identify(&self, _: &Behaviour, _: &str, headers: &HeaderMap) -> KeyKind {
        let Some(sent) = headers.get(KEY_HEADER) else {
            return KeyKind::None;
        };
        let account = self.keys.iter().position(|key| key.as_bytes() == sent.as_bytes());
        account.map_or(KeyKind::Unknown, |account| KeyKind::Whautomate { account: account as u32 })
    }

    fn refuse_key(&self, behaviour: &Behaviour, key: KeyKind) -> Option<Answer> {
        match (key, behaviour.whautomate.wrong_key) {
            (KeyKind::Whautomate { .. }, _) => None,
            (_, WrongKey::Forbidden) => Some(error(behaviour, 403, "Forbidden")),
            (_, WrongKey::Unauthorized) => Some(error(behaviour, 401, "Unauthorized")),
        }
    }

    fn allowances(&self, _: KeyKind) -> Vec<Allowance> {
        vec![
            Allowance { per: Per::Day, requests: self.per_day },
            Allowance { per: Per::Minute, requests: self.per_minute },
        ]
    }

    fn refuse_quota(&self, behaviour: &Behaviour, spent: Spent) -> Answer {
        let told_apart = behaviour.whautomate.day_told_apart;
        let text = match spent.per {
            Per::Day if told_apart => "Limit Exceeded",
            Per::Day | Per::Minute => "Too Many Requests",
        };
        let answer = error(behaviour, 429, text);
        match behaviour.whautomate.retry_after {
            true => answer.with(header::RETRY_AFTER, spent.wait),
            false => answer,
        }
    }

    fn accident(&self, behaviour: &Behaviour, accident: Accident) -> Answer {
        let status = match accident {
            Accident::Status(status) => status,
            Accident::TooFast => 429,
            Accident::ErrorInside => 200,
            Accident::End(status) => return error(behaviour, status, "Not found"),
        };
        // The gateway's own words.
        let text = match status {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            504 => "Endpoint request timed out",
            _ => "Internal server error",
        };
        error(behaviour, status, text)
    }

    fn answer(&self, shared: &Shared, behaviour: &Behaviour, request: &Request<'_>) -> Answer {
        let now = shared.world_now_ms();
        match (Asked::read(request.path), request.key) {
            (Some(Asked::Account), KeyKind::Whautomate { account }) => account_info(account),
            (Some(Asked::List(stream)), KeyKind::Whautomate { account }) => {
                list(&shared.records(), behaviour, request, listing(stream, account), now)
                    .unwrap_or_else(|refusal| *refusal)
            }
            (Some(Asked::One(stream, id)), KeyKind::Whautomate { account }) => {
                one(&shared.records(), behaviour, listing(stream, account), &id, now)
            }
            _ => self.lost(behaviour),
        }
    }
}

/// What a path means.
#[derive(Debug)]
enum Asked {
    Account,
    List(Stream),
    One(Stream, String),
}

impl Asked {
    fn read(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/v1/")?.split('/');
        let stream = match segments.next()? {
            "account-info" => return segments.next().is_none().then_some(Self::Account),
            "contacts" => Stream::Contacts,
            "clients" => Stream::Clients,
            _ => return None,
        };
        match (segments.next(), segments.next()) {
            (None | Some(""), None) => Some(Self::List(stream)),
            (Some(id), None) => Some(Self::One(stream, unescape(id)?)),
            _ => None,
        }
    }
}

/// Undoes the escapes of a piece of a path.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digits = match byte {
            b'%' => [bytes.next()?, bytes.next()?],
            byte => {
                out.push(byte);
                continue;
            }
        };
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

fn listing(stream: Stream, account: u32) -> Listing {
    match stream {
        Stream::Clients => Listing::Clients { account },
        _ => Listing::Contacts { account },
    }
}

impl WhautomateBehaviour {
    /// Returns what moves `updatedAt`.
    fn moves(&self) -> Moves {
        Moves { edits: self.edits_move_updated, activity: self.activity_moves_updated }
    }

    /// Returns how the truth is listed.
    pub(super) fn truth(&self) -> Show {
        let gone = self.deleted == Deleted::Marked;
        Show { order: Order::CreatedAscending, moves: self.moves(), returns: false, gone }
    }

    /// Returns how a request is listed.
    fn show(&self) -> Show {
        let gone = self.deleted == Deleted::Marked || self.gone_take_their_place;
        Show { order: self.order, gone, ..self.truth() }
    }

    fn hides(&self, subject: &Subject<'_>, now: i64) -> bool {
        self.deleted == Deleted::Vanishes && subject.row.is_gone(now)
    }
}

/// Returns the id of a record as it is shown.
pub(super) fn shown_id(subject: &Subject<'_>, behaviour: &Behaviour) -> String {
    let id = subject.id();
    // Those that are letters and digits only; a byte of theirs tells which are odd.
    let is_odd = id.is_ascii() && id.as_bytes().get(4).is_some_and(|byte| byte % 2 == 0);
    match behaviour.whautomate.odd_ids && is_odd {
        true => format!("{}/{} {}%{}", &id[..1], &id[1..2], &id[2..3], &id[3..]),
        false => id,
    }
}

/// Returns an id without what makes it odd.
pub(super) fn plain_id(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Returns all of `places` as the body of one page.
pub(super) fn page_of(
    records: &Records,
    behaviour: &Behaviour,
    stream: Stream,
    places: &[Place],
    now: i64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + 900 * places.len());
    match (behaviour.whautomate.envelope, stream) {
        (Envelope::Bare, _) => {}
        (Envelope::Data, _) => out.extend_from_slice(b"{\"data\":"),
        (Envelope::Resource, Stream::Clients) => out.extend_from_slice(b"{\"clients\":"),
        (Envelope::Resource, _) => out.extend_from_slice(b"{\"contacts\":"),
    }
    out.push(b'[');
    for (at, place) in places.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(&mut out, &records.subject(*place), behaviour, now);
    }
    out.push(b']');
    if behaviour.whautomate.envelope != Envelope::Bare {
        out.push(b'}');
    }
    out
}

fn list(
    records: &Records,
    behaviour: &Behaviour,
    request: &Request<'_>,
    listing: Listing,
    now: i64,
) -> Result<Answer, Box<Answer>> {
    let switches = &behaviour.whautomate;
    let (number, size) = (page_number(behaviour, request)?, page_size(behaviour, request)?);
    let mut places = records.listed(listing, switches.show(), now, request.number);
    if behaviour.empty || request.ended {
        places = Default::default();
    } else if let Some(days) = days(behaviour, request, listing)? {
        let wanted = |place: &&Place| days.hold(&records.subject(**place), behaviour);
        places = places.iter().filter(wanted).copied().collect::<Vec<_>>().into();
    }
    let pages = (places.len() as u64).div_ceil(size);
    let first = u64::from(!switches.empty_is_past_end);
    let past_end = number > pages.max(first) && !request.ended;
    let number = match (past_end, switches.past_end) {
        (true, PastEnd::NotFound) => return Ok(error(behaviour, 404, "Not found")),
        (true, PastEnd::LastPage) => pages.max(1),
        _ => number,
    };
    let mut rows = places[page(places.len(), number, size)].to_vec();
    rows.retain(|place| !switches.hides(&records.subject(*place), now));
    if rows.iter().any(|place| is_poisoned(&records.subject(*place), behaviour)) {
        return Ok(poisoned(behaviour));
    }
    Ok(Answer::json(200, page_of(records, behaviour, listing.stream(), &rows, now)))
}

fn one(records: &Records, behaviour: &Behaviour, listing: Listing, id: &str, now: i64) -> Answer {
    let switches = &behaviour.whautomate;
    let found = find(records, behaviour, listing, id)
        .filter(|place| !behaviour.empty && !switches.hides(&records.subject(*place), now));
    let Some(place) = found else {
        return match switches.unknown_record {
            UnknownRecord::Status { status } => error(behaviour, status, "Not found"),
            UnknownRecord::EmptyObject => Answer::json(200, b"{}".to_vec()),
            UnknownRecord::Null => Answer::json(200, b"null".to_vec()),
        };
    };
    let subject = records.subject(place);
    if is_poisoned(&subject, behaviour) {
        return poisoned(behaviour);
    }
    let mut out = Vec::new();
    write(&mut out, &subject, behaviour, now);
    Answer::json(200, out)
}

/// Returns the record that is shown under an id in an account.
fn find(records: &Records, behaviour: &Behaviour, listing: Listing, id: &str) -> Option<Place> {
    let plain = plain_id(id);
    let found = [id, plain.as_str()].into_iter().find_map(|id| records.find_in(listing, id))?;
    (shown_id(&records.subject(found), behaviour) == id).then_some(found)
}

fn is_poisoned(subject: &Subject<'_>, behaviour: &Behaviour) -> bool {
    !behaviour.poison_records.is_empty()
        && behaviour.poison_records.contains(&shown_id(subject, behaviour))
}

fn poisoned(behaviour: &Behaviour) -> Answer {
    match behaviour.poison_as {
        Poison::ServerError => error(behaviour, 502, "Internal server error"),
        Poison::BrokenJson => Answer::json(200, b"[{\"id\":".to_vec()),
    }
}

fn account_info(account: u32) -> Answer {
    let body = serde_json::json!({
        "name": format!("Account {}", account + 1),
        "ownerEmail": format!("owner{}@example.com", account + 1),
    });
    Answer::json(200, body.to_string().into_bytes())
}

/// Returns an error in the form that the switches say.
fn error(behaviour: &Behaviour, status: u16, text: &str) -> Answer {
    let json = |name: &str| {
        Answer::json(status, serde_json::json!({ (name): text }).to_string().into_bytes())
    };
    match behaviour.whautomate.error_body {
        ErrorBody::Message => json("message"),
        ErrorBody::Error => json("error"),
        ErrorBody::Text => Answer::text(status, text),
        ErrorBody::Empty => Answer::json(status, Vec::new()),
    }
}

fn page_number(behaviour: &Behaviour, request: &Request<'_>) -> Result<u64, Box<Answer>> {
    let asked = number(behaviour, request, "page", 1)?;
    Ok(if behaviour.whautomate.page_ignored { 1 } else { asked })
}

fn page_size(behaviour: &Behaviour, request: &Request<'_>) -> Result<u64, Box<Answer>> {
    let switches = &behaviour.whautomate;
    let asked = number(behaviour, request, "limit", u64::from(switches.default_limit).max(1))?;
    let most = u64::from(switches.max_page_size).max(1);
    if asked > most && switches.over_limit == OverLimit::Refuse {
        return Err(Box::new(error(behaviour, 400, "limit is too large")));
    }
    let own = switches.own_page_size.map_or(asked, |own| u64::from(own).max(1));
    Ok(own.min(most))
}

/// Reads a number from 1.
fn number(
    behaviour: &Behaviour,
    request: &Request<'_>,
    name: &str,
    default: u64,
) -> Result<u64, Box<Answer>> {
    let refused = || Box::new(error(behaviour, 400, &format!("{name} must be a positive number")));
    let Some(text) = request.parameter(name) else {
        return Ok(default);
    };
    let asked: i64 = text.parse().map_err(|_| refused())?;
    match (u64::try_from(asked), behaviour.whautomate.page_zero) {
        (Ok(asked @ 1..), _) => Ok(asked),
        (_, PageZero::First) => Ok(default),
        (_, PageZero::Refused) => Err(refused()),
    }
}

/// Days that a client must lie in, both ends included.
#[derive(Debug)]
struct Days {
    from: NaiveDate,
    to: NaiveDate,
}

impl Days {
    fn hold(&self, subject: &Subject<'_>, behaviour: &Behaviour) -> bool {
        let at = match behaviour.whautomate.client_dates {
            ClientDates::Update => subject.updated(behaviour.whautomate.moves()),
            ClientDates::Registration | ClientDates::Ignored => record::registered(subject),
        };
        let day = DateTime::from_timestamp_millis(at).map(|at| at.date_naive());
        day.is_some_and(|day| (self.from..=self.to).contains(&day))
    }
}

/// Returns the days that are asked for, where anything is made of them.
fn days(
    behaviour: &Behaviour,
    request: &Request<'_>,
    listing: Listing,
) -> Result<Option<Days>, Box<Answer>> {
    let read = |name| match request.parameter(name).map(|text| text.get(..10).map(str::parse)) {
        None => Ok(None),
        Some(Some(Ok(day))) => Ok(Some(day)),
        Some(_) => Err(Box::new(error(behaviour, 400, &format!("{name} must be a date")))),
    };
    let ignored = behaviour.whautomate.client_dates == ClientDates::Ignored;
    if ignored || listing.stream() != Stream::Clients {
        return Ok(None);
    }
    let (from, to) = (read("startDate")?, read("endDate")?);
    let bounds = from.is_some() || to.is_some();
    let days = Days { from: from.unwrap_or(NaiveDate::MIN), to: to.unwrap_or(NaiveDate::MAX) };
    Ok(bounds.then_some(days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_id_is_read_as_it_was() {
        assert_eq!(unescape("a%2Fb%20c%25d").as_deref(), Some("a/b c%d"));
        assert_eq!(unescape("plain+id").as_deref(), Some("plain+id"));
        assert_eq!(unescape("broken%2"), None);
        assert_eq!(unescape("%zz"), None);
    }

    #[test]
    fn each_account_has_a_key_of_its_own() {
        let (one, other) = (key(1, 0), key(1, 1));
        assert_eq!((one.len(), one == other, one == key(2, 0)), (40, false, false));
    }
}
