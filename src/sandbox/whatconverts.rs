//! WhatConverts on the wire: keys, paths, parameters, envelopes and errors.
//!
//! An answer is a function of (world, behaviour, request, time). The request log, the clock, the
//! quota and the accidents are the server's. Parameters of `/leads` that are understood are those
//! of [`Ask`]; all others are ignored, as the provider does with unknown ones.

use std::collections::HashMap;
use std::fmt::Display;
use std::fmt::Write;

use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::header;
use chrono::DateTime;
use chrono::NaiveDate;
use serde_json::Value;

use super::Settings;
use super::behaviour::Behaviour;
use super::behaviour::DateOnlyEnd;
use super::behaviour::DateParameters;
use super::behaviour::EmptyPages;
use super::behaviour::Journey;
use super::behaviour::OverPageSize;
use super::behaviour::OverQuota;
use super::behaviour::OverRange;
use super::behaviour::PageNumber;
use super::behaviour::PastEnd;
use super::behaviour::Poison;
use super::behaviour::SizeEcho;
use super::behaviour::Totals;
use super::dice::Dice;
use super::dice::Purpose;
use super::json::Json;
use super::platform::Accident;
use super::platform::Allowance;
use super::platform::Per;
use super::platform::Platform;
use super::platform::Request;
use super::platform::Spent;
use super::server::Answer;
use super::server::KeyKind;
use super::server::Shared;
use super::world::Kind;
use super::world::Profile;
use super::world::Row;
use super::world::World;

mod lead;

const DAY: i64 = 86_400;
/// Rows a page has where nothing is asked for.
const DEFAULT_SIZE: u64 = 25;
/// The largest page of accounts and profiles.
const LARGEST_ACCOUNT_PAGE: u64 = 250;

/// The platform: its keys and their allowances.
#[derive(Debug)]
pub(super) struct WhatConverts {
    pub(super) keys: Keys,
    master_per_day: usize,
    profile_per_day: usize,
}

impl WhatConverts {
    /// Returns the platform of a world.
    pub(super) fn new(settings: &Settings, profiles: &[Profile]) -> Self {
        Self {
            keys: Keys::new(settings.seed, profiles),
            master_per_day: settings.per_day.unwrap_or(10_000) as usize,
            profile_per_day: settings.profile_per_day.unwrap_or(1_000) as usize,
        }
    }
}

impl Platform for WhatConverts {
    fn knows(&self, method: &Method, path: &str) -> bool {
        method == Method::GET && knows(path)
    }

    fn lost(&self, _: &Behaviour) -> Answer {
        Answer::not_found()
    }

    fn identify(&self, _: &Behaviour, _: &str, headers: &HeaderMap) -> KeyKind {
        let authorization = headers.get(header::AUTHORIZATION);
        self.keys.identify(authorization.and_then(|value| value.to_str().ok()))
    }

    fn refuse_key(&self, behaviour: &Behaviour, key: KeyKind) -> Option<Answer> {
        refuse_key(behaviour, key)
    }

    fn allowances(&self, key: KeyKind) -> Vec<Allowance> {
        let requests = match key {
            KeyKind::Profile { .. } => self.profile_per_day,
            _ => self.master_per_day,
        };
        vec![Allowance { per: Per::Day, requests }]
    }

    fn refuse_quota(&self, behaviour: &Behaviour, spent: Spent) -> Answer {
        let text = "Daily request limit exceeded.";
        match behaviour.over_quota {
            OverQuota::Status { status } => error(status, text),
            OverQuota::RetryAfter => error(429, text).with(header::RETRY_AFTER, spent.wait),
        }
    }

    fn accident(&self, _: &Behaviour, accident: Accident) -> Answer {
        match accident {
            Accident::Status(status) => Answer::html(status, &format!("{status} Error")),
            Accident::TooFast => error(429, "Too many requests."),
            Accident::ErrorInside => error(200, "Something went wrong, please try again."),
            Accident::End(status) => error(status, "Page not found."),
        }
    }

    fn answer(&self, shared: &Shared, behaviour: &Behaviour, request: &Request<'_>) -> Answer {
        answer(&shared.world(), behaviour, request)
    }
}

/// Token and secret of a key.
pub(super) type Pair = (String, String);

/// The keys of a world: one for the agency, one for each profile.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) master: Pair,
    pub(super) profiles: HashMap<u64, Pair>,
    /// What a client sends in `Authorization`, and whose it is.
    headers: HashMap<String, KeyKind>,
}

impl Keys {
    /// Returns the keys of a seed.
    pub(super) fn new(seed: u64, profiles: &[Profile]) -> Self {
        let master = pair(seed, 0, 1_000);
        let profiles: HashMap<u64, Pair> = profiles
            .iter()
            .map(|profile| (profile.id, pair(seed, profile.id, profile.id)))
            .collect();
        let mut headers: HashMap<String, KeyKind> = profiles
            .iter()
            .map(|(profile_id, pair)| (basic(pair), KeyKind::Profile { profile_id: *profile_id }))
            .collect();
        headers.insert(basic(&master), KeyKind::Master);
        Self { master, profiles, headers }
    }

    /// Returns whose key a client has sent.
    pub(super) fn identify(&self, authorization: Option<&str>) -> KeyKind {
        match authorization {
            None => KeyKind::None,
            Some(header) => self.headers.get(header.trim()).copied().unwrap_or(KeyKind::Unknown),
        }
    }
}

fn pair(seed: u64, index: u64, prefix: u64) -> Pair {
    let dice = Dice::new(seed, Purpose::Key, index);
    let hex = |rolls: std::ops::Range<usize>| {
        rolls.fold(String::new(), |mut text, roll| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:08x}", dice.word(roll));
            text
        })
    };
    (format!("{prefix}-{}", hex(0..2)), hex(2..6))
}

/// Returns the header of HTTP basic authentication.
fn basic((token, secret): &Pair) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "Basic ".to_owned();
    for three in format!("{token}:{secret}").into_bytes().chunks(3) {
        let bits =
            (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Says whether the provider knows a path.
fn knows(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/api/v1/") else {
        return false;
    };
    let segments: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    matches!(
        segments.as_slice(),
        ["leads" | "accounts"]
            | ["leads" | "accounts", _]
            | ["accounts", _, "profiles"]
            | ["accounts", _, "profiles", _]
    )
}

/// Returns what a key hears that opens nothing.
fn refuse_key(behaviour: &Behaviour, key: KeyKind) -> Option<Answer> {
    match key {
        KeyKind::None => Some(error(401, "Authentication not provided.")),
        KeyKind::Unknown | KeyKind::Whautomate { .. } | KeyKind::Convertalk => {
            Some(error(401, "Authentication failed."))
        }
        KeyKind::Profile { profile_id } => behaviour
            .without_profiles
            .contains(&profile_id)
            .then(|| error(401, "Authentication failed.")),
        KeyKind::Master => None,
    }
}

/// Returns an error as the provider writes it.
fn error(status: u16, text: &str) -> Answer {
    let body = serde_json::json!({ "error_message": text });
    Answer::json(status, body.to_string().into_bytes())
}

/// Answers a request to a known path with a known key.
fn answer(world: &World, behaviour: &Behaviour, request: &Request<'_>) -> Answer {
    let rest = request.path.trim_start_matches("/api/v1/").trim_end_matches('/');
    let segments: Vec<&str> = rest.split('/').collect();
    if segments[0] == "accounts" && request.key != KeyKind::Master {
        return error(401, "Authentication failed.");
    }
    match segments.as_slice() {
        ["leads"] => leads(world, behaviour, request),
        ["leads", id] => single_lead(world, behaviour, request, id),
        ["accounts"] => accounts(world, behaviour, request, None),
        ["accounts", id] => accounts(world, behaviour, request, Some(id)),
        ["accounts", id, "profiles"] => profiles(world, behaviour, request, id, None),
        ["accounts", id, "profiles", profile] => {
            profiles(world, behaviour, request, id, Some(profile))
        }
        _ => Answer::not_found(),
    }
}

/// Appends a lead as a request for its profile shows it.
pub(super) fn write_truth(
    out: &mut Vec<u8>,
    world: &World,
    row: &Row,
    now: i64,
    behaviour: &Behaviour,
) {
    lead::write(out, world, row, &lead::View { now, custom: true, journey: false, behaviour });
}

/// What a client asks of `/leads`, once it is understood.
#[derive(Debug)]
struct Ask {
    size: u64,
    size_echo: u64,
    page: u64,
    page_echo: u64,
    profiles: Vec<bool>,
    custom: bool,
    kind: Option<Kind>,
    repeat: Option<bool>,
    spam: Option<bool>,
    duplicate: Option<bool>,
    from: i64,
    to: i64,
    ascending: bool,
}

impl Ask {
    fn read(
        world: &World,
        behaviour: &Behaviour,
        request: &Request<'_>,
    ) -> Result<Self, Box<Answer>> {
        let (size, size_echo) = page_size(behaviour, request)?;
        let (page, page_echo) = page_number(behaviour, request)?;
        let (profiles, custom) = profile_filter(world, behaviour, request)?;
        let (from, to) = range(behaviour, request)?;
        let filter = |name, default| boolean(behaviour, request, name, default);
        Ok(Self {
            size,
            size_echo,
            page,
            page_echo,
            profiles,
            custom,
            kind: lead_type(request)?,
            repeat: lead_status(request)?,
            spam: filter("spam", behaviour.spam_by_default)?,
            duplicate: filter("duplicate", behaviour.duplicates_by_default)?,
            from,
            to,
            ascending: request.parameter("order").is_some_and(|o| o.eq_ignore_ascii_case("asc")),
        })
    }

    fn wants(&self, row: &Row, now: i64) -> bool {
        row.is_listed(now)
            && self.profiles[usize::from(row.profile)]
            && self.kind.is_none_or(|kind| kind == row.kind)
            && self.repeat.is_none_or(|repeat| repeat == row.repeat)
            && self.spam.is_none_or(|spam| spam == (row.spam <= now))
            && self.duplicate.is_none_or(|duplicate| duplicate == row.duplicate)
    }
}

fn leads(world: &World, behaviour: &Behaviour, request: &Request<'_>) -> Answer {
    if behaviour.journey == Journey::Refused && wants_journey(request) {
        return invalid("customer_journey", "please upgrade your plan");
    }
    let ask = match Ask::read(world, behaviour, request) {
        Ok(ask) => ask,
        Err(refusal) => return *refusal,
    };
    let empty = behaviour.empty || request.ended;
    let rows = world.created_in(ask.from, ask.to);
    let mut found: Vec<&Row> =
        rows.iter().filter(|row| !empty && ask.wants(row, request.now)).collect();
    if !ask.ascending {
        found.reverse();
    }
    if behaviour.unstable_ties {
        shuffle_ties(world.seed, request.number, &mut found);
    }
    let pages = (found.len() as u64).div_ceil(ask.size);
    let past_end = ask.page > pages.max(1);
    let page = match (past_end, behaviour.past_end) {
        (true, PastEnd::NotFound) if !request.ended => return error(404, "Page not found."),
        (true, PastEnd::LastPage) => pages.max(1),
        _ => ask.page,
    };
    let skipped = (page - 1).saturating_mul(ask.size);
    let rows: Vec<&Row> =
        found.iter().skip(skipped as usize).take(ask.size as usize).copied().collect();
    if rows.iter().any(|row| behaviour.poison.contains(&row.id)) {
        return poisoned(behaviour.poison_as);
    }
    let most = behaviour.max_page_size as usize;
    if behaviour.over_page_size == OverPageSize::TimeOut && rows.len() > most {
        return Answer::html(504, "504 Error");
    }
    page_of_leads(world, behaviour, request, &ask, found.len() as u64, &rows)
}

fn page_of_leads(
    world: &World,
    behaviour: &Behaviour,
    request: &Request<'_>,
    ask: &Ask,
    total: u64,
    rows: &[&Row],
) -> Answer {
    let size_echo = match behaviour.size_echo {
        SizeEcho::PageSize => ask.size_echo,
        SizeEcho::Returned => rows.len() as u64,
    };
    let mut out = Vec::with_capacity(200 + 2_200 * rows.len());
    let mut json = Json::new(&mut out, true, &[]);
    json.open(None, b'{');
    json.number("page_number", ask.page_echo);
    json.number("leads_per_page", size_echo);
    let stated = total.saturating_add_signed(behaviour.total_offset);
    let pages = match (stated.div_ceil(ask.size), behaviour.empty_pages) {
        (0, EmptyPages::One) => Some(1),
        (0, EmptyPages::Null) => None,
        (pages, _) => Some(pages),
    };
    write_totals(&mut json, behaviour.totals, pages, stated);
    if total > 0 || !behaviour.empty_rows_missing {
        json.open(Some("leads"), b'[');
        let view = view(behaviour, request, ask.custom);
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            lead::write(&mut out, world, row, &view);
        }
        out.push(b']');
    }
    out.push(b'}');
    Answer::json(200, out)
}

fn wants_journey(request: &Request<'_>) -> bool {
    request.parameter("customer_journey") == Some("true")
}

fn view<'a>(behaviour: &'a Behaviour, request: &Request<'_>, custom: bool) -> lead::View<'a> {
    let journey = behaviour.journey == Journey::Served && wants_journey(request);
    lead::View { now: request.now, custom, journey, behaviour }
}

fn write_totals(json: &mut Json<'_>, totals: Totals, pages: Option<u64>, total: u64) {
    match (totals, pages) {
        (Totals::Omitted, _) => return,
        (_, None) => json.raw("total_pages", "null"),
        (Totals::Numbers, Some(pages)) => json.number("total_pages", pages),
        (Totals::Strings, Some(pages)) => json.raw("total_pages", format_args!("\"{pages}\"")),
    }
    match totals {
        Totals::Strings => json.raw("total_leads", format_args!("\"{total}\"")),
        _ => json.number("total_leads", total),
    }
}

fn single_lead(world: &World, behaviour: &Behaviour, request: &Request<'_>, id: &str) -> Answer {
    // Custom fields come with a profile's key, or where a profile is named.
    let profile = match request.key {
        KeyKind::Profile { profile_id } => Some(profile_id),
        _ => request.parameter("profile_id").and_then(|id| id.parse().ok()),
    };
    let mine = |row: &&Row| {
        let owner = world.profiles[usize::from(row.profile)].id;
        row.is_listed(request.now)
            && profile.is_none_or(|profile| profile == owner)
            && !behaviour.without_profiles.contains(&owner)
    };
    let found = id.parse().ok().and_then(|id| world.row(id)).filter(mine);
    let Some(row) = found.filter(|_| !behaviour.empty) else {
        return error(behaviour.unknown_lead_status, "Invalid lead ID.");
    };
    if behaviour.poison.contains(&row.id) {
        return poisoned(behaviour.poison_as);
    }
    let mut out = Vec::new();
    if !behaviour.bare_single_lead {
        out.extend_from_slice(b"{\"page_number\":1,\"leads_per_page\":25,\"total_pages\":1,");
        out.extend_from_slice(b"\"total_leads\":1,\"leads\":[");
    }
    lead::write(&mut out, world, row, &view(behaviour, request, profile.is_some()));
    if !behaviour.bare_single_lead {
        out.extend_from_slice(b"]}");
    }
    Answer::json(200, out)
}

fn poisoned(poison: Poison) -> Answer {
    match poison {
        Poison::ServerError => Answer::html(500, "500 Internal Server Error"),
        Poison::BrokenJson => {
            Answer::json(200, b"{\"page_number\":1,\"leads\":[{\"lead_id\":".to_vec())
        }
    }
}

/// Puts equal creation times in an order that the number of the request decides.
fn shuffle_ties(seed: u64, number: u64, rows: &mut [&Row]) {
    let place = |row: &&Row| Dice::new(seed, Purpose::Fault, row.id ^ (number << 32)).word(0);
    for tied in rows.chunk_by_mut(|one, other| one.created == other.created) {
        if tied.len() > 1 {
            tied.sort_by_key(place);
        }
    }
}

fn accounts(
    world: &World,
    behaviour: &Behaviour,
    request: &Request<'_>,
    id: Option<&str>,
) -> Answer {
    let mut rows = Vec::new();
    for (position, account) in world.accounts.iter().enumerate() {
        if id.is_some_and(|id| id.parse() != Ok(account.id)) {
            continue;
        }
        let listed = |profile: &&Profile| {
            profile.account == position && !behaviour.without_profiles.contains(&profile.id)
        };
        let profiles = world.profiles.iter().filter(listed);
        let mut row = serde_json::json!({
            "account_id": account.id,
            "account_name": account.name,
            "date_created": time(account.created),
        });
        if behaviour.nested_profiles {
            row["profiles"] = profiles.map(profile_row).collect();
        }
        rows.push(row);
    }
    match (id, rows.is_empty()) {
        (Some(_), true) => error(200, "Invalid account ID."),
        _ => list(request, "accounts", rows),
    }
}

fn profiles(
    world: &World,
    behaviour: &Behaviour,
    request: &Request<'_>,
    account: &str,
    id: Option<&str>,
) -> Answer {
    let Some(position) = world.accounts.iter().position(|one| account.parse() == Ok(one.id)) else {
        return error(200, "Invalid account ID.");
    };
    let wanted = |profile: &&Profile| {
        profile.account == position
            && id.is_none_or(|id| id.parse() == Ok(profile.id))
            && !behaviour.without_profiles.contains(&profile.id)
    };
    let rows: Vec<Value> = world.profiles.iter().filter(wanted).map(profile_row).collect();
    match (id, rows.is_empty()) {
        (Some(_), true) => error(200, "Invalid profile ID."),
        _ => list(request, "profiles", rows),
    }
}

fn profile_row(profile: &Profile) -> Value {
    serde_json::json!({
        "profile_id": profile.id,
        "profile_name": profile.name,
        "date_created": time(profile.created),
    })
}

/// Answers with a page of accounts or profiles.
fn list(request: &Request<'_>, name: &str, mut rows: Vec<Value>) -> Answer {
    if request.parameter("order").is_none_or(|order| !order.eq_ignore_ascii_case("asc")) {
        rows.reverse();
    }
    let size = number(request, &format!("{name}_per_page"), DEFAULT_SIZE);
    let page = number(request, "page_number", 1);
    let (size, page) = match (size, page) {
        (Ok(size), Ok(page)) => (size.clamp(1, LARGEST_ACCOUNT_PAGE), page.max(1)),
        (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
    };
    let total = rows.len() as u64;
    let skipped = (page - 1).saturating_mul(size) as usize;
    let rows: Vec<Value> = rows.into_iter().skip(skipped).take(size as usize).collect();
    let body = serde_json::json!({
        "page_number": page,
        (format!("{name}_per_page")): size,
        "total_pages": total.div_ceil(size),
        (format!("total_{name}")): total,
        name: rows,
    });
    Answer::json(200, body.to_string().into_bytes())
}

fn time(seconds: i64) -> String {
    let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    utc.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn invalid(name: &str, advice: impl Display) -> Answer {
    error(410, &format!("Invalid {name} parameter, {advice}"))
}

fn number(request: &Request<'_>, name: &str, default: u64) -> Result<u64, Box<Answer>> {
    let Some(text) = request.parameter(name) else {
        return Ok(default);
    };
    text.parse().map_err(|_| Box::new(invalid(name, "please use a numeric value")))
}

fn page_size(behaviour: &Behaviour, request: &Request<'_>) -> Result<(u64, u64), Box<Answer>> {
    let asked = number(request, "leads_per_page", DEFAULT_SIZE)?.max(1);
    let most = u64::from(behaviour.max_page_size).max(1);
    if asked <= most {
        return Ok((asked, asked));
    }
    match behaviour.over_page_size {
        OverPageSize::Clamp => Ok((most, most)),
        OverPageSize::ClampEchoAsked => Ok((most, asked)),
        OverPageSize::Default => Ok((DEFAULT_SIZE, DEFAULT_SIZE)),
        OverPageSize::TimeOut => Ok((asked, asked)),
        OverPageSize::Refuse => Err(Box::new(match &behaviour.page_size_refusal {
            Some(text) => error(410, text),
            None => invalid("leads_per_page", format_args!("the maximum is {most}")),
        })),
    }
}

fn page_number(behaviour: &Behaviour, request: &Request<'_>) -> Result<(u64, u64), Box<Answer>> {
    let asked = number(request, "page_number", 1)?.max(1);
    Ok(match behaviour.page_number {
        PageNumber::Obeyed => (asked, asked),
        PageNumber::ObeyedEchoOne => (asked, 1),
        PageNumber::IgnoredEchoAsked => (1, asked),
        PageNumber::IgnoredEchoOne => (1, 1),
    })
}

/// Returns which profiles are meant, by position, and whether that is one profile.
fn profile_filter(
    world: &World,
    behaviour: &Behaviour,
    request: &Request<'_>,
) -> Result<(Vec<bool>, bool), Box<Answer>> {
    // A profile key does not honour either parameter.
    let (account, profile) = match request.key {
        KeyKind::Profile { profile_id } => (0, profile_id),
        _ => (number(request, "account_id", 0)?, number(request, "profile_id", 0)?),
    };
    let wanted = |one: &Profile| {
        (account == 0 || world.accounts[one.account].id == account)
            && (profile == 0 || one.id == profile)
            && !behaviour.without_profiles.contains(&one.id)
    };
    Ok((world.profiles.iter().map(wanted).collect(), profile != 0))
}

fn lead_type(request: &Request<'_>) -> Result<Option<Kind>, Box<Answer>> {
    Ok(Some(match request.parameter("lead_type") {
        None => return Ok(None),
        Some("phone_call") => Kind::Call,
        Some("web_form") => Kind::Form,
        Some("chat") => Kind::Chat,
        Some("text_message") => Kind::Text,
        Some("email") => Kind::Email,
        Some("event") => Kind::Event,
        Some("transaction") => Kind::Transaction,
        Some("appointment") => Kind::Appointment,
        Some("other") => Kind::Other,
        Some(_) => return Err(Box::new(invalid("lead_type", "please use a valid lead type"))),
    }))
}

fn lead_status(request: &Request<'_>) -> Result<Option<bool>, Box<Answer>> {
    match request.parameter("lead_status") {
        None => Ok(None),
        Some("repeat") => Ok(Some(true)),
        Some("unique") => Ok(Some(false)),
        Some(_) => Err(Box::new(invalid("lead_status", "please use repeat or unique"))),
    }
}

/// Returns what a flag must be, if it matters; `included` is what holds without the parameter.
fn boolean(
    behaviour: &Behaviour,
    request: &Request<'_>,
    name: &str,
    included: bool,
) -> Result<Option<bool>, Box<Answer>> {
    match request.parameter(name) {
        Some("true") => Ok(Some(true)),
        Some("false") if behaviour.false_filters_ignored => Ok(None),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Box::new(invalid(name, "please use true or false"))),
        None if included => Ok(None),
        None => Ok(Some(false)),
    }
}

/// Returns the first and the last second that are meant.
fn range(behaviour: &Behaviour, request: &Request<'_>) -> Result<(i64, i64), Box<Answer>> {
    let names = match behaviour.date_parameters {
        DateParameters::StartEnd => ("start_date", "end_date"),
        DateParameters::DateStartEnd => ("date_start", "date_end"),
        DateParameters::None => return Ok((i64::MIN, i64::MAX)),
    };
    let start = instant(request, names.0)?.map(|(at, _)| at);
    let end = instant(request, names.1)?;
    let last = match (end, behaviour.date_only_end) {
        (Some((at, true)), DateOnlyEnd::WholeDay) => at + DAY - 1,
        (Some((at, _)), _) => at,
        (None, _) => i64::MAX,
    };
    let until = end.map_or(request.now, |(at, _)| at);
    let longest = i64::from(behaviour.max_range_days) * DAY;
    match (start, behaviour.default_days, behaviour.over_range) {
        (None, None, _) => Ok((i64::MIN, last)),
        (None, Some(days), _) => Ok((until - i64::from(days) * DAY, last)),
        (Some(start), _, _) if until - start <= longest => Ok((start, last)),
        (Some(_), _, OverRange::Cut) => Ok((until - longest, last)),
        (Some(_), _, OverRange::Refuse { status }) => {
            let days = behaviour.max_range_days;
            let text = format!("Invalid date range, please request no more than {days} days");
            Err(Box::new(error(status, &text)))
        }
    }
}

/// Reads a date or date-time; the flag says that it was a date.
fn instant(request: &Request<'_>, name: &str) -> Result<Option<(i64, bool)>, Box<Answer>> {
    let Some(text) = request.parameter(name) else {
        return Ok(None);
    };
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_hms_opt(0, 0, 0).map(|at| (at.and_utc().timestamp(), true)));
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Some((at.timestamp(), false))),
        Err(_) => Err(Box::new(invalid(name, "please use an ISO 8601 date"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::sandbox::Settings;

    /// A world of some hundred leads, as of the end of its history.
    static WORLD: LazyLock<(World, i64)> = LazyLock::new(|| {
        let settings = Settings { leads: 300, ..Settings::default() };
        let now = settings.now.timestamp();
        let mut world = World::new(&settings).unwrap();
        world.refresh(now);
        (world, now)
    });

    fn page_ids(query: &[(&str, u64)]) -> Vec<u64> {
        let query: Vec<(String, String)> =
            query.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
        let (world, now) = &*WORLD;
        let request = Request { now: *now, ..request(&query) };
        let page = answer(world, &Behaviour::default(), &request).read();
        page["leads"].as_array().unwrap().iter().map(|l| l["lead_id"].as_u64().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn any_page_size_gives_the_same_leads(size in 1_u64..400) {
            let whole = page_ids(&[("leads_per_page", 2_500)]);
            let pages = (whole.len() as u64).div_ceil(size);
            let paged: Vec<u64> = (1..=pages)
                .flat_map(|page| page_ids(&[("leads_per_page", size), ("page_number", page)]))
                .collect();
            prop_assert_eq!(paged, whole);
        }
    }

    #[test]
    fn basic_credentials_are_encoded_as_the_standard_says() {
        let pair = |token: &str, secret: &str| (token.to_owned(), secret.to_owned());
        assert_eq!(basic(&pair("Aladdin", "open sesame")), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic(&pair("a", "b")), "Basic YTpi");
        assert_eq!(basic(&pair("a", "bc")), "Basic YTpiYw==");
    }

    #[test]
    fn a_token_looks_as_documented() {
        let settings = Settings::default();
        let world = World::new(&settings).unwrap();
        let keys = Keys::new(settings.seed, &world.profiles);
        let (digits, hex) = keys.master.0.split_once('-').unwrap();
        assert!(digits.chars().all(|digit| digit.is_ascii_digit()));
        assert_eq!((hex.len(), keys.master.1.len()), (16, 32));
        assert_eq!(keys.identify(Some(&basic(&keys.master))), KeyKind::Master);
        assert_eq!(keys.identify(Some("Basic Og==")), KeyKind::Unknown);
        assert_eq!(keys.identify(None), KeyKind::None);
    }

    fn request(query: &[(String, String)]) -> Request<'_> {
        let key = KeyKind::Master;
        Request { path: "/api/v1/leads", query, body: b"", key, number: 1, now: 0, ended: false }
    }

    #[test]
    fn exactly_four_hundred_days_are_allowed_and_a_second_more_is_not() {
        let query = |end: &str| {
            vec![
                ("start_date".to_owned(), "2025-01-01T00:00:00Z".to_owned()),
                ("end_date".to_owned(), end.to_owned()),
            ]
        };
        let behaviour = Behaviour::default();
        assert!(range(&behaviour, &request(&query("2026-02-05T00:00:00Z"))).is_ok());
        assert!(range(&behaviour, &request(&query("2026-02-05"))).is_ok());
        let refusal = range(&behaviour, &request(&query("2026-02-05T00:00:01Z"))).unwrap_err();
        assert_eq!(refusal.status, 410);
    }

    #[test]
    fn a_date_as_end_means_the_whole_day() {
        let query = [("end_date".to_owned(), "1970-01-02".to_owned())];
        let range = range(&Behaviour::default(), &request(&query)).unwrap();
        assert_eq!(range, (i64::MIN, 2 * DAY - 1));
    }
}
