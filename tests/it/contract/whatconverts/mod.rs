//! WhatConverts under contract: its world and its cases; windows, filters, totals and drift have
//! tests of their own beside this.

mod drift;
mod faults;
mod filters;
mod forms;
mod paging;
mod quota;
mod windows;

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::DateOnlyEnd;
use leadpipe::sandbox::DateParameters;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::EmptyMaps;
use leadpipe::sandbox::EmptyPages;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Journey;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::OverPageSize;
use leadpipe::sandbox::OverQuota;
use leadpipe::sandbox::OverRange;
use leadpipe::sandbox::PageNumber;
use leadpipe::sandbox::PastEnd;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::SizeEcho;
use leadpipe::sandbox::Times;
use leadpipe::sandbox::Totals;
use serde_json::Value;
use serde_json::json;

use super::case::Case;
use super::case::accident;
use super::case::case;
use super::laws::hold;
use super::subject::Reading;
use super::subject::Stirred;
use super::subject::Subject;
use super::subject::UNPACKED;
use super::subject::set;
use crate::support::MASTER;
use crate::support::Rows;
use crate::support::World;
use crate::support::key;

/// Two profiles of two years each, about ten pages, of which the last 30 days are read every night.
struct WhatConverts;

impl Subject for WhatConverts {
    const NAME: &'static str = "whatconverts";
    const SOURCE: &'static str = "acme";
    const RATE: (TimeDelta, usize) = (TimeDelta::seconds(1), 1_000);
    const PER_DAY: Option<usize> = Some(8_000);

    async fn world(case: &Case) -> World {
        let mut settings = Settings {
            leads: 120,
            years: 2,
            accounts: 2,
            profiles: 2,
            still: true,
            behaviour: case.behaviour.clone(),
            ..Settings::default()
        };
        (case.settings)(&mut settings);
        let mut world = World::new(settings).await;
        let source = MASTER.replace("2021-01-01", "2024-10-20");
        world.job = format!("{source}page_size = 20\n{}\n{UNPACKED}", case.keys);
        // Some that are young enough, whatever chance has drawn.
        for days in 1..=6 {
            let profile = world.sandbox.profile_ids()[days as usize % 2];
            world.sandbox.insert(profile, world.sandbox.now() - TimeDelta::days(days)).unwrap();
        }
        world
    }

    async fn truth(world: &World, case: &Case) -> Rows {
        world.truth_where(|lead| is_shown(lead, &case.behaviour)).await
    }

    /// Of each window as many pages as its leads fill, and at least one.
    fn least(world: &World, case: &Case, asked: &[LoggedRequest]) -> u64 {
        let leads = world.sandbox.leads();
        let shown = leads.iter().filter(|lead| is_shown(lead, &case.behaviour));
        let shown: Vec<(&Value, DateTime<Utc>)> = shown.map(|lead| (lead, created(lead))).collect();
        let size = match (case.behaviour.max_page_size, case.behaviour.over_page_size) {
            (15, OverPageSize::Default) => 25,
            // Half of what is asked for is the first that fits.
            (15, OverPageSize::Refuse | OverPageSize::TimeOut) => 10,
            (most, _) => u64::from(most.min(20)),
        };
        let windows: BTreeSet<_> = asked.iter().filter_map(window_of).collect();
        let pages = |(of, from, to): &Asked| {
            let is_of = |lead: &Value| of.as_ref().is_none_or(|(field, id)| lead[field] == *id);
            let inside =
                |(lead, at): &&(&Value, DateTime<Utc>)| is_of(lead) && (*from..=*to).contains(at);
            let rows = shown.iter().filter(inside).count() as u64;
            let pages = rows.div_ceil(size);
            match case.behaviour.totals {
                Totals::Numbers | Totals::Strings => pages.max(1),
                // A short page after a full one is the end, and another one is not.
                Totals::Omitted => pages + u64::from(rows < size || rows.is_multiple_of(size)),
            }
        };
        windows.iter().map(pages).sum()
    }

    /// The list of accounts, and where they do not hold their profiles one for each; nothing where one
    /// listing shows all.
    fn beside(case: &Case) -> u64 {
        match case.keys {
            keys if keys.contains(OF_ALL) => 0,
            keys if keys.contains(OF_ACCOUNTS) => 1,
            _ => {
                if case.behaviour.nested_profiles {
                    1
                } else {
                    3
                }
            }
        }
    }

    fn reading(_case: &Case) -> Reading {
        Reading::Reconciled
    }

    fn stir(world: &World, case: &Case) -> Stirred {
        let sandbox = &world.sandbox;
        let leads = sandbox.leads();
        let shown = leads.iter().filter(|lead| is_shown(lead, &case.behaviour));
        // Only what the last 30 days hold is read every night.
        let since = sandbox.now() - TimeDelta::days(29);
        let young = shown.filter(|lead| created(lead) > since);
        let ids: Vec<u64> = young.map(|lead| lead["lead_id"].as_u64().unwrap()).collect();
        let [changed, moved, gone, ..] = ids[..] else { panic!("{} young leads", ids.len()) };
        let profiles = sandbox.profile_ids();
        let mine = leads.iter().find(|lead| lead["lead_id"] == json!(moved)).unwrap();
        let other = profiles.iter().find(|id| mine["profile_id"] != json!(**id)).unwrap();
        sandbox.edit(changed, Edit::Set(set("contact_name", json!("Robin Changed")))).unwrap();
        sandbox.edit(moved, Edit::Profile(*other)).unwrap();
        sandbox.edit(gone, Edit::Vanish).unwrap();
        let at = sandbox.now() - TimeDelta::minutes(5);
        let inserted = sandbox.insert(profiles[0], at).unwrap();
        Stirred {
            at_once: [changed, moved, inserted].map(key).into(),
            late: BTreeSet::new(),
            gone: [key(gone)].into(),
        }
    }

    fn secrets(world: &World) -> Vec<String> {
        let (token, secret) = world.sandbox.master_key();
        vec![token, secret]
    }
}

/// Tells whether a lead is listed where neither kind is asked for.
fn is_shown(lead: &Value, behaviour: &Behaviour) -> bool {
    let is = |mark: &str| lead[mark].as_bool() == Some(true) || lead[mark] == json!("true");
    (behaviour.spam_by_default || !is("spam"))
        && (behaviour.duplicates_by_default || !is("duplicate"))
}

/// Returns when a lead was created, however that is written.
fn created(lead: &Value) -> DateTime<Utc> {
    let text = lead["date_created"].as_str().unwrap();
    let bare = || NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc();
    DateTime::parse_from_rfc3339(text).map_or_else(|_| bare(), |at| at.to_utc())
}

/// The field of a profile or an account with its id, where a request names one, and the bounds.
type Asked = (Option<(String, u64)>, DateTime<Utc>, DateTime<Utc>);

/// Returns what a request for leads names.
fn window_of(request: &LoggedRequest) -> Option<Asked> {
    let pairs = url::form_urlencoded::parse(request.query.as_bytes());
    let get = |name: &str| pairs.clone().find(|(key, _)| key == name).map(|(_, value)| value);
    let time = |start: &str, other: &str| get(start).or_else(|| get(other))?.parse().ok();
    let id = |field: &str| Some((field.to_owned(), get(field)?.parse().ok()?));
    let listing = request.path == "/api/v1/leads";
    let bounds = (time("start_date", "date_start")?, time("end_date", "date_end")?);
    listing.then_some((id("profile_id").or_else(|| id("account_id")), bounds.0, bounds.1))
}

/// Reads all of it every night.
const ALL: &str = "[refresh]\nevery_run = \"all\"";

/// One listing an account, or one of all.
const OF_ACCOUNTS: &str = "partition_by = \"account\"";
const OF_ALL: &str = "partition_by = \"none\"";

/// What the law of a reading must hold for, however many profiles a listing shows.
fn partitionings() -> Vec<Case> {
    let by = |keys| {
        vec![
            case(|_| {}).keys(keys),
            case(|it| it.totals = Totals::Omitted).keys(keys),
            case(|it| it.past_end = PastEnd::NotFound).keys(keys),
            case(|it| it.empty_maps = EmptyMaps::Absent).keys(keys).mapped(),
            case(|it| it.bare_single_lead = true).keys(keys).mapped(),
            case(|it| it.nested_profiles = false).keys(keys).mapped(),
            accident(Fault::Status { status: 503 }).keys(keys).survived(1),
        ]
    };
    [by(OF_ACCOUNTS), by(OF_ALL)].concat()
}

/// How a listing is cut and ended.
fn listings() -> Vec<Case> {
    let end = |past_end| case(|it| it.past_end = past_end);
    let size = |over| case(|it| (it.over_page_size, it.max_page_size) = (over, 15));
    let said = |text: &str| {
        let mut case = size(OverPageSize::Refuse);
        case.behaviour.page_size_refusal = Some(text.to_owned());
        case
    };
    let number = |page_number| {
        let ignored = case(|it| it.page_number = page_number);
        ignored.keys(ALL).stopped(3, "page number", "nothing was lost")
    };
    let empty = |empty_pages| case(|it| it.empty_pages = empty_pages);
    vec![
        case(|_| {}),
        end(PastEnd::NotFound),
        end(PastEnd::LastPage),
        size(OverPageSize::Clamp),
        size(OverPageSize::ClampEchoAsked),
        size(OverPageSize::Default),
        size(OverPageSize::Refuse).named(1),
        said("The page is too large.").named(1),
        // One page with all its retries, which comes in halves.
        size(OverPageSize::TimeOut).survived(6),
        case(|it| it.size_echo = SizeEcho::Returned),
        number(PageNumber::ObeyedEchoOne),
        number(PageNumber::IgnoredEchoAsked),
        number(PageNumber::IgnoredEchoOne),
        empty(EmptyPages::One),
        empty(EmptyPages::Null),
        case(|it| it.empty_rows_missing = true),
        case(|it| it.totals = Totals::Strings),
        case(|it| it.totals = Totals::Omitted),
        case(|it| it.unstable_ties = true),
    ]
}

/// Two switches of listings at a time.
fn pairs_of_listings() -> Vec<Case> {
    let unsaid = |past_end| case(|it| (it.totals, it.past_end) = (Totals::Omitted, past_end));
    let empty =
        |empty_pages| case(|it| (it.empty_pages, it.empty_rows_missing) = (empty_pages, true));
    vec![
        unsaid(PastEnd::NotFound).named(1),
        unsaid(PastEnd::LastPage),
        case(|it| (it.totals, it.size_echo) = (Totals::Strings, SizeEcho::Returned)),
        empty(EmptyPages::One),
        empty(EmptyPages::Null),
    ]
}

/// How ranges and filters are understood, and what is asked with them.
fn ranges() -> Vec<Case> {
    let dates = |date_parameters| case(|it| it.date_parameters = date_parameters);
    vec![
        dates(DateParameters::DateStartEnd)
            .keys("date_parameters = [\"date_start\", \"date_end\"]"),
        dates(DateParameters::DateStartEnd).stopped(3, "ignores the window", "date_parameters"),
        dates(DateParameters::None).stopped(3, "ignores the window", "date_parameters"),
        case(|it| it.date_only_end = DateOnlyEnd::FirstInstant),
        case(|it| it.default_days = Some(30)),
        case(|it| it.over_range = OverRange::Cut),
        case(|it| it.over_range = OverRange::Refuse { status: 200 }),
        case(|it| it.max_range_days = 90).keys("window_days = 90"),
        case(|it| it.spam_by_default = false),
        case(|it| it.duplicates_by_default = false),
        case(|it| it.false_filters_ignored = true),
    ]
}

/// How a lead is written, and how one is asked for by id.
fn records() -> Vec<Case> {
    let maps = |empty_maps| case(|it| it.empty_maps = empty_maps);
    let times = |times| case(|it| it.times = times);
    let unknown = |status| case(|it| it.unknown_lead_status = status);
    let cases = vec![
        maps(EmptyMaps::Object),
        maps(EmptyMaps::Null),
        maps(EmptyMaps::Absent),
        times(Times::Zulu),
        times(Times::Offset),
        times(Times::Bare),
        times(Times::Fractional),
        case(|it| it.journey = Journey::Refused),
        case(|it| it.journey = Journey::Served),
        case(|it| it.nested_profiles = false),
        case(|it| it.bare_single_lead = true),
        unknown(200),
        unknown(404),
        unknown(410),
    ];
    cases.into_iter().map(Case::mapped).collect()
}

/// What a refused key and a spent allowance look like.
fn refusals() -> Vec<Case> {
    let spent = |over_quota| {
        let little = |settings: &mut Settings| settings.per_day = Some(6);
        case(|it| it.over_quota = over_quota).settings(little).spent()
    };
    let mut cases: Vec<Case> =
        [429, 403, 401, 200].map(|status| spent(OverQuota::Status { status })).into();
    cases.push(spent(OverQuota::RetryAfter));
    let wrong = case(|_| {}).wrong_key();
    cases.push(wrong.stopped(12, "rejected the credentials", "`token` and `secret`"));
    cases
}

/// What happens to every provider, and what it says then.
fn accidents() -> Vec<Case> {
    let without = ["lead_url", "contact_company_name"].map(str::to_owned).to_vec();
    let own = vec![
        case(|behaviour| behaviour.without_fields = without).mapped(),
        accident(Fault::Status { status: 401 }).stopped(8, "", ""),
    ];
    [super::case::accidents(ALL), own].concat()
}

pub(super) fn cases() -> Vec<Case> {
    let read = [listings(), pairs_of_listings(), ranges(), records(), partitionings()].concat();
    [read, refusals(), accidents()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_is_read_whole_however_its_listings_are_cut_and_ended() {
    hold::<WhatConverts>(listings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_is_read_whole_whatever_two_answers_of_its_listings_meet() {
    hold::<WhatConverts>(pairs_of_listings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_is_read_whole_however_ranges_and_filters_are_understood() {
    hold::<WhatConverts>(ranges()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_is_read_whole_however_its_leads_are_written() {
    hold::<WhatConverts>(records()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_is_read_whole_however_many_profiles_a_listing_shows() {
    hold::<WhatConverts>(partitionings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_may_refuse_in_any_words() {
    hold::<WhatConverts>(refusals()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatconverts_may_have_accidents() {
    hold::<WhatConverts>(accidents()).await;
}
