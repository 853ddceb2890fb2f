//! Convertalk on the wire: tokens, paths, parameters, envelopes and errors.
//!
//! Success and failure are told inside the answer, and failure by the status as well where the
//! switches say so. An answer is a function of (records, behaviour, request, time). Of the filters
//! of users, `createdAt` and `lastSeenAt` are obeyed; all others are taken for unset.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::Method;
use axum::http::header;
use chrono::DateTime;
use serde_json::Value;

use super::Settings;
use super::behaviour::Behaviour;
use super::behaviour::Deleted;
use super::behaviour::Order;
use super::behaviour::PageZero;
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
use super::records::object_id;
use super::records::page;
use super::server::Answer;
use super::server::KeyKind;
use super::server::Shared;

pub use behaviour::AgentForm;
pub use behaviour::ChatsEnd;
pub use behaviour::ChatsError;
pub use behaviour::ConvertalkBehaviour;
pub use behaviour::DataForm;
pub use behaviour::NameField;
pub use behaviour::OtherType;
pub use behaviour::Parts;
pub use behaviour::TagForm;
pub use behaviour::TokenHeader;
pub use behaviour::WrongToken;

pub(super) use record::write;

mod behaviour;
mod record;

const BOT_TOKEN: HeaderName = HeaderName::from_static("x-bot-token");
const BP_TOKEN: HeaderName = HeaderName::from_static("x-bp-token");
const AUTH_TYPE: HeaderName = HeaderName::from_static("authtype");
const CHATS: &str = "/inbox/direct/chats";
const USERS: &str = "/inbox/users";
/// Keys of the other platforms are drawn far below.
const FIRST_KEY: u64 = 1 << 49;
/// Numbers of what has a key or an id, beyond those of the bots.
const TOKEN: u64 = 1 << 32;
const CUSTOMER: u64 = TOKEN + 1;
const AGENCY: u64 = TOKEN + 2;
const AGENT: u64 = TOKEN + 100;
const TAG: u64 = TOKEN + 200;
/// When customer and bots were made, which their ids say: the eighth of September 2022.
const MADE: i64 = 1_662_687_123_000;

/// The platform: its customer, bots and token.
#[derive(Debug)]
pub(super) struct Convertalk {
    pub(super) token: String,
    pub(super) customer: String,
    /// The id of each bot, by number.
    pub(super) bots: Vec<String>,
    per_day: Option<usize>,
}

impl Convertalk {
    /// Returns the platform of a world.
    pub(super) fn new(settings: &Settings) -> Self {
        let seed = settings.seed;
        let dice = Dice::new(seed, Purpose::Key, FIRST_KEY + TOKEN);
        Self {
            token: (0..8).map(|roll| format!("{:08x}", dice.word(roll))).collect(),
            customer: id(seed, CUSTOMER),
            bots: (0..u64::from(settings.convertalk_bots)).map(|bot| id(seed, bot)).collect(),
            per_day: settings.convertalk_per_day.map(|requests| requests as usize),
        }
    }
}

/// Returns the id of a bot, or of what has its number.
fn id(seed: u64, number: u64) -> String {
    let dice = Dice::new(seed, Purpose::Key, FIRST_KEY + number);
    let made = MADE + 1_000 * i64::from(dice.below(2, 1_000_000));
    object_id(made, u64::from(dice.word(0)) << 32 | u64::from(dice.word(1)))
}

impl Platform for Convertalk {
    fn knows(&self, method: &Method, path: &str) -> bool {
        (method == Method::GET && path == CHATS) || (method == Method::POST && path == USERS)
    }

    fn lost(&self, behaviour: &Behaviour) -> Answer {
        error(behaviour, 404, "Not Found")
    }

    fn identify(&self, behaviour: &Behaviour, path: &str, headers: &HeaderMap) -> KeyKind {
        let switches = &behaviour.convertalk;
        let wanted = if path == USERS { switches.users_header } else { switches.chats_header };
        match token(headers, wanted, switches.authtype_needed) {
            None => KeyKind::None,
            Some(token) if token == self.token => KeyKind::Convertalk,
            Some(_) => KeyKind::Unknown,
        }
    }

    fn refuse_key(&self, behaviour: &Behaviour, key: KeyKind) -> Option<Answer> {
        match (key, behaviour.convertalk.wrong_token) {
            (KeyKind::Convertalk, _) => None,
            (_, WrongToken::Status { status }) => Some(error(behaviour, status, "Unauthorized")),
            (_, WrongToken::Inside) => Some(failure(behaviour, 200, 401, "Unauthorized")),
        }
    }

    fn allowances(&self, _: KeyKind) -> Vec<Allowance> {
        let per_day = self.per_day.map(|requests| Allowance { per: Per::Day, requests });
        per_day.into_iter().collect()
    }

    fn refuse_quota(&self, behaviour: &Behaviour, spent: Spent) -> Answer {
        let answer = failure(behaviour, 429, 429, "Too many requests");
        match behaviour.convertalk.retry_after {
            Some(_) => answer.with(header::RETRY_AFTER, spent.wait),
            None => answer,
        }
    }

    fn accident(&self, behaviour: &Behaviour, accident: Accident) -> Answer {
        match accident {
            Accident::Status(status) => error(behaviour, status, "Something went wrong"),
            Accident::TooFast => failure(behaviour, 429, 429, "Too many requests"),
            Accident::ErrorInside => failure(behaviour, 200, 500, "Something went wrong"),
            Accident::End(status) => error(behaviour, status, "No records found"),
        }
    }

    fn answer(&self, shared: &Shared, behaviour: &Behaviour, request: &Request<'_>) -> Answer {
        let ask = match request.path {
            USERS => Ask::users(behaviour, request),
            _ => self.chats(behaviour, request),
        };
        // Before the records are brought up to date, so that they are not behind it.
        let now = shared.world_now_ms();
        match ask {
            Ok(ask) => list(&shared.records(), behaviour, request, &ask, now),
            Err(refusal) => *refusal,
        }
    }
}

impl Convertalk {
    /// Reads what is asked of the chats.
    fn chats(&self, behaviour: &Behaviour, request: &Request<'_>) -> Result<Ask, Box<Answer>> {
        let refused = |text| Box::new(error(behaviour, 400, text));
        let bot = request.parameter("botId");
        let bot = self.bots.iter().position(|known| Some(known.as_str()) == bot);
        let bot = bot.ok_or_else(|| refused("botId is not valid"))? as u32;
        if request.parameter("customerId") != Some(self.customer.as_str()) {
            return Err(refused("customerId is not valid"));
        }
        let number = match request.parameter("page") {
            None => page_number(behaviour, None)?,
            Some(text) => page_number(behaviour, Some(text.parse().ok()))?,
        };
        let (lead, other) = [true, false].map(|lead| Listing::Chats { bot, lead }).into();
        let listings = match (request.parameter("type"), behaviour.convertalk.other_type) {
            (Some("lead"), _) => vec![lead],
            (Some("non-lead"), _) => vec![other],
            (_, OtherType::Refused) => return Err(refused("type must be lead or non-lead")),
            (_, OtherType::Leads) => vec![lead],
            (_, OtherType::Everything) => vec![lead, other],
            (_, OtherType::Nothing) => Vec::new(),
        };
        Ok(Ask { stream: Stream::Chats, listings, page: number, ..Ask::default() })
    }
}

/// Returns the token in a header that is looked at.
fn token(headers: &HeaderMap, wanted: TokenHeader, authtype: bool) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let is_key = text(AUTH_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case("key"));
        let token = text(header::AUTHORIZATION)?.strip_prefix("Bearer ")?;
        (is_key || !authtype).then_some(token)
    };
    match wanted {
        TokenHeader::BotToken => text(BOT_TOKEN),
        TokenHeader::BpToken => text(BP_TOKEN),
        TokenHeader::Bearer => bearer(),
        TokenHeader::Any => text(BOT_TOKEN).or_else(|| text(BP_TOKEN)).or_else(bearer),
    }
}

/// What a client asks for, once it is understood.
#[derive(Debug)]
struct Ask {
    stream: Stream,
    /// What is listed, one after the other.
    listings: Vec<Listing>,
    page: u64,
    created: (i64, i64),
    seen: (i64, i64),
}

impl Default for Ask {
    fn default() -> Self {
        let always = (i64::MIN, i64::MAX);
        let listings = vec![Listing::Users];
        Self { stream: Stream::Users, listings, page: 1, created: always, seen: always }
    }
}

impl Ask {
    /// Reads what is asked of the users.
    fn users(behaviour: &Behaviour, request: &Request<'_>) -> Result<Self, Box<Answer>> {
        let refused = |text: &str| Box::new(error(behaviour, 400, text));
        let body: Value =
            serde_json::from_slice(request.body).map_err(|_| refused("the body is not JSON"))?;
        let number = body.get("page").map(Value::as_i64);
        let range = |name: &str| {
            let bound = |at: &str, open: i64| match body[name][at].as_str() {
                None | Some("") => Ok(open),
                Some(text) => DateTime::parse_from_rfc3339(text)
                    .map(|at| at.timestamp_millis())
                    .map_err(|_| refused(&format!("{name} is not a time"))),
            };
            Ok::<_, Box<Answer>>((bound("startAt", i64::MIN)?, bound("endsAt", i64::MAX)?))
        };
        Ok(Self {
            page: page_number(behaviour, number)?,
            created: range("createdAt")?,
            seen: range("lastSeenAt")?,
            ..Self::default()
        })
    }

    /// Says whether a record lies in the times asked for.
    fn holds(&self, subject: &Subject<'_>) -> bool {
        let inside = |(from, to): (i64, i64), at: i64| from <= at && at <= to;
        inside(self.created, subject.row.created) && inside(self.seen, subject.row.active)
    }

    /// Says whether any times are asked for.
    fn is_limited(&self) -> bool {
        [self.created, self.seen] != [(i64::MIN, i64::MAX); 2]
    }
}

/// Returns the page that is meant; a number that is none is given as `Some(None)`.
fn page_number(behaviour: &Behaviour, asked: Option<Option<i64>>) -> Result<u64, Box<Answer>> {
    let switches = &behaviour.convertalk;
    let refused = || Err(Box::new(error(behaviour, 400, "page is not valid")));
    let number = match (asked, switches.page_missing, switches.page_zero) {
        (None, PageZero::Refused, _) => return refused(),
        (None, PageZero::First, _) => 1,
        (Some(None), ..) => return refused(),
        (Some(Some(number @ 1..)), ..) => number as u64,
        (Some(Some(_)), _, PageZero::First) => 1,
        (Some(Some(_)), _, PageZero::Refused) => return refused(),
    };
    Ok(if switches.page_ignored { 1 } else { number })
}

impl ConvertalkBehaviour {
    /// Returns what moves `updatedAt`: edits do, by the documents' example.
    fn moves(&self) -> Moves {
        Moves { edits: true, activity: self.activity_moves_updated }
    }

    /// Returns how the truth is listed.
    pub(super) fn truth(&self) -> Show {
        Show {
            order: Order::CreatedAscending,
            moves: self.moves(),
            returns: self.leads_return,
            gone: self.deleted == Deleted::Marked,
        }
    }
}

/// Returns all that is asked for, in the order of the listing.
fn found(
    records: &Records,
    behaviour: &Behaviour,
    request: &Request<'_>,
    ask: &Ask,
    now: i64,
) -> Arc<Vec<Place>> {
    if behaviour.empty || request.ended {
        return Arc::default();
    }
    let show = Show { order: behaviour.convertalk.order, ..behaviour.convertalk.truth() };
    let listed = |listing: &Listing| records.listed(*listing, show, now, request.number);
    let mut lists = ask.listings.iter().map(listed);
    let mut places = lists.next().unwrap_or_default();
    for more in lists {
        places = [places.as_slice(), more.as_slice()].concat().into();
    }
    if ask.is_limited() {
        let wanted = |place: &&Place| ask.holds(&records.subject(**place));
        places = places.iter().filter(wanted).copied().collect::<Vec<_>>().into();
    }
    places
}

fn list(
    records: &Records,
    behaviour: &Behaviour,
    request: &Request<'_>,
    ask: &Ask,
    now: i64,
) -> Answer {
    let switches = &behaviour.convertalk;
    let places = found(records, behaviour, request, ask, now);
    let size = u64::from(switches.page_size).max(1);
    let pages = (places.len() as u64).div_ceil(size);
    let first = u64::from(!switches.empty_is_past_end);
    let past_end = ask.page > pages.max(first) && !request.ended;
    let number = match (past_end, switches.past_end) {
        (true, ChatsEnd::Missing) => return envelope(b""),
        (true, ChatsEnd::Null) => return envelope(b",\"data\":null"),
        (true, ChatsEnd::NotFound) => return error(behaviour, 404, "No records found"),
        (true, ChatsEnd::Failure) => return failure(behaviour, 200, 404, "No records found"),
        (true, ChatsEnd::LastPage) => pages.max(1),
        (true, ChatsEnd::Empty) | (false, _) => ask.page,
    };
    let rows = &places[page(places.len(), number, size)];
    let poisoned = |place: &Place| behaviour.poison_records.contains(&records.subject(*place).id());
    if !behaviour.poison_records.is_empty() && rows.iter().any(poisoned) {
        return match behaviour.poison_as {
            Poison::ServerError => error(behaviour, 500, "Something went wrong"),
            Poison::BrokenJson => Answer::json(200, b"{\"success\":true,\"data\":[{".to_vec()),
        };
    }
    Answer::json(200, page_of(records, behaviour, ask.stream, rows, now))
}

/// Returns all of `places` as the body of one page.
pub(super) fn page_of(
    records: &Records,
    behaviour: &Behaviour,
    stream: Stream,
    places: &[Place],
    now: i64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(100 + 1_200 * places.len());
    out.extend_from_slice(HEAD);
    let in_object = behaviour.convertalk.data == DataForm::Object;
    out.extend_from_slice(if in_object { b",\"data\":{\"docs\":[" } else { b",\"data\":[" });
    for (at, place) in places.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(&mut out, &records.subject(*place), stream, behaviour, now);
    }
    out.extend_from_slice(if in_object { b"]}" } else { b"]" });
    out.extend_from_slice(TAIL);
    out
}

const HEAD: &[u8] = b"{\"success\":true,\"message\":\"ok\"";
const TAIL: &[u8] = b",\"code\":200}";

fn envelope(data: &[u8]) -> Answer {
    Answer::json(200, [HEAD, data, TAIL].concat())
}

/// Returns an error whose code is its status, with `Retry-After` where the switches say so.
fn error(behaviour: &Behaviour, status: u16, text: &str) -> Answer {
    let answer = failure(behaviour, status, status, text);
    match behaviour.convertalk.retry_after {
        Some(seconds) if status == 429 || status >= 500 => {
            answer.with(header::RETRY_AFTER, seconds)
        }
        _ => answer,
    }
}

fn failure(behaviour: &Behaviour, status: u16, code: u16, text: &str) -> Answer {
    let json = |message: Value| {
        let body = serde_json::json!({ "success": false, "message": message, "code": code });
        Answer::json(status, body.to_string().into_bytes())
    };
    match behaviour.convertalk.error_body {
        ChatsError::Messages => json(serde_json::json!([text])),
        // Inside a 200, a failure that did not say so would be none.
        ChatsError::Message => json(text.into()),
        _ if status == 200 => json(text.into()),
        ChatsError::Text => Answer::text(status, text),
        ChatsError::Empty => Answer::json(status, Vec::new()),
    }
}
