//! Whautomate under contract: its world and its cases.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use leadpipe::sandbox::ClientDates;
use leadpipe::sandbox::Collections;
use leadpipe::sandbox::CustomValues;
use leadpipe::sandbox::Deleted;
use leadpipe::sandbox::Envelope;
use leadpipe::sandbox::ErrorBody;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Missing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::OverLimit;
use leadpipe::sandbox::PageZero;
use leadpipe::sandbox::PastEnd;
use leadpipe::sandbox::PhoneForm;
use leadpipe::sandbox::PlaceName;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::RecordTimes;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;
use leadpipe::sandbox::UnknownRecord;
use leadpipe::sandbox::WhautomateBehaviour;
use leadpipe::sandbox::WrongKey;
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
use crate::support::Rows;
use crate::support::World;
use crate::support::records::small_clinic;

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const CLIENTS: Listing = Listing::Clients { account: 0 };

/// A trial account of five pages of contacts and two of clients.
struct Whautomate;

impl Subject for Whautomate {
    const NAME: &'static str = "whautomate";
    const SOURCE: &'static str = "clinic";
    const RATE: (TimeDelta, usize) = (TimeDelta::minutes(1), 60);
    const PER_DAY: Option<usize> = Some(100);

    async fn world(case: &Case) -> World {
        let mut settings = Settings {
            years: 1,
            contacts: 80,
            clients: 30,
            whautomate_per_day: Some(100),
            whautomate_per_minute: Some(60),
            behaviour: case.behaviour.clone(),
            ..small_clinic()
        };
        (case.settings)(&mut settings);
        let size = if case.keys.contains("page_size") { "" } else { "page_size = 18" };
        let mut world =
            World::clinic(settings, &format!("{}\n{size}\n{UNPACKED}", case.keys)).await;
        world.job = world.job.replace("subscribed", "trial");
        world
    }

    async fn truth(world: &World, _case: &Case) -> Rows {
        world.truth_of(&Self::SOURCE.parse().unwrap()).await
    }

    fn least(world: &World, case: &Case, _asked: &[LoggedRequest]) -> u64 {
        let switches = &case.behaviour.whautomate;
        let asked = if case.keys.contains("page_size = 30") { 30 } else { 18 };
        let fits = match switches.over_limit {
            OverLimit::Refuse if asked > switches.max_page_size => asked / 2,
            _ => asked.min(switches.max_page_size),
        };
        let size = switches.own_page_size.unwrap_or(asked).min(fits);
        // What was deleted may take its place although it is not shown.
        let mut counted = case.behaviour.clone();
        if switches.gone_take_their_place {
            counted.whautomate.deleted = Deleted::Marked;
        }
        world.sandbox.behave(counted);
        let pages = |listing| {
            let rows = world.sandbox.record_ids(listing).unwrap().len() as u64;
            let size = u64::from(size);
            let is_told =
                case.keys.contains("short_page_ends = true") && !rows.is_multiple_of(size);
            rows.div_ceil(size) + u64::from(!is_told)
        };
        let least = pages(CONTACTS) + pages(CLIENTS);
        world.sandbox.behave(case.behaviour.clone());
        least
    }

    fn reading(case: &Case) -> Reading {
        match case.behaviour.whautomate.order {
            Order::CreatedDescending | Order::UpdatedDescending => Reading::Top,
            _ => Reading::Whole,
        }
    }

    fn stir(world: &World, case: &Case) -> Stirred {
        let sandbox = &world.sandbox;
        let edit = |stream, id: &str, edit| sandbox.edit_record(stream, id, edit).unwrap();
        let contacts = sandbox.record_ids(CONTACTS).unwrap();
        let clients = sandbox.record_ids(CLIENTS).unwrap();
        let (newest, old, gone) = (contacts.last().unwrap(), &contacts[3], &contacts[40]);
        let client = clients.last().unwrap();
        edit(Stream::Contacts, newest, RecordEdit::Set(set("name", json!("Robin Changed"))));
        edit(Stream::Clients, client, RecordEdit::Set(set("fullName", json!("Kim Changed"))));
        edit(Stream::Contacts, old, RecordEdit::SetQuietly(set("name", json!("Old Changed"))));
        edit(Stream::Contacts, gone, RecordEdit::Vanish);
        sandbox.insert_record(CONTACTS, sandbox.now() - TimeDelta::minutes(1)).unwrap();
        let after = sandbox.record_ids(CONTACTS).unwrap();
        let before: BTreeSet<&String> = contacts.iter().collect();
        let inserted = after.iter().find(|id| !before.contains(id)).unwrap();
        let contact = |id: &String| format!("whautomate:contacts:{id}");
        let mut stirred = Stirred {
            at_once: [contact(newest), contact(inserted)].into(),
            late: [contact(old)].into(),
            gone: [contact(gone)].into(),
        };
        stirred.at_once.insert(format!("whautomate:clients:{client}"));
        if case.behaviour.whautomate.deleted == Deleted::Marked {
            stirred.late.append(&mut stirred.gone);
        }
        stirred
    }

    fn secrets(world: &World) -> Vec<String> {
        world.sandbox.whautomate_keys()
    }
}

/// A case in which only switches of Whautomate differ.
fn switch(change: impl FnOnce(&mut WhautomateBehaviour)) -> Case {
    case(|behaviour| change(&mut behaviour.whautomate))
}

/// How a listing is ordered, cut and ended.
fn listings() -> Vec<Case> {
    let order = |order| switch(|it| it.order = order);
    let size =
        |most, over_limit| switch(|it| (it.max_page_size, it.over_limit) = (most, over_limit));
    vec![
        switch(|_| {}),
        order(Order::CreatedAscending),
        order(Order::UpdatedAscending),
        order(Order::UpdatedDescending),
        order(Order::Id),
        order(Order::Random).gathered(),
        switch(|it| it.past_end = PastEnd::NotFound).named(2),
        // The end is asked for once more, where nobody knows yet how many rows there are.
        switch(|it| it.past_end = PastEnd::LastPage).named(2),
        switch(|it| it.own_page_size = Some(15)),
        switch(|it| it.gone_take_their_place = true),
        switch(|it| it.default_limit = 7).mapped(),
        switch(|it| it.page_zero = PageZero::Refused).mapped(),
        size(15, OverLimit::Clamp),
        // Each stream finds out by itself that half of it fits.
        size(15, OverLimit::Refuse).named(2),
        switch(|it| it.page_ignored = true).stopped(3, "page number", "nothing was lost"),
    ]
}

/// Two switches of listings at a time.
fn pairs_of_listings() -> Vec<Case> {
    let both = |order, past_end| switch(|it| (it.order, it.past_end) = (order, past_end));
    vec![
        both(Order::CreatedAscending, PastEnd::NotFound).named(2),
        both(Order::CreatedAscending, PastEnd::LastPage).named(2),
        both(Order::UpdatedDescending, PastEnd::NotFound).named(2),
        both(Order::UpdatedDescending, PastEnd::LastPage).named(2),
        both(Order::Id, PastEnd::LastPage).named(2),
        switch(|_| {}).keys("short_page_ends = true"),
        switch(|it| it.past_end = PastEnd::NotFound).keys("short_page_ends = true"),
        switch(|it| (it.own_page_size, it.past_end) = (Some(15), PastEnd::LastPage)).named(2),
        switch(|it| (it.gone_take_their_place, it.past_end) = (true, PastEnd::NotFound)).named(2),
        switch(|it| (it.past_end, it.error_body) = (PastEnd::NotFound, ErrorBody::Error)).named(2),
        switch(|it| (it.past_end, it.error_body) = (PastEnd::NotFound, ErrorBody::Text)).named(2),
        switch(|it| (it.past_end, it.error_body) = (PastEnd::NotFound, ErrorBody::Empty)).named(2),
        switch(|_| {}).keys("page_size = 30"),
        // A first page that is refused may be that of an empty listing.
        switch(|it| (it.past_end, it.empty_is_past_end) = (PastEnd::NotFound, true))
            .settings(|settings| settings.clients = 0)
            .seen_twice(),
    ]
}

/// How a record is written.
fn records() -> Vec<Case> {
    let missing = |missing| switch(|it| it.missing = missing);
    let times = |times| switch(|it| it.times = times);
    let mut cases = vec![
        switch(|it| it.envelope = Envelope::Data),
        switch(|it| it.envelope = Envelope::Resource),
        switch(|it| it.collections = Collections::JsonText),
        switch(|it| it.custom_values = CustomValues::Mixed),
        missing(Missing::Null),
        missing(Missing::Absent),
        missing(Missing::EmptyList),
        switch(|it| it.place = PlaceName::Workspace),
        switch(|it| it.stage = false),
        switch(|it| it.phone = PhoneForm::Digits),
        times(RecordTimes::Seconds),
        times(RecordTimes::Offset),
        switch(|it| it.client_dates = ClientDates::Update),
        switch(|it| it.client_dates = ClientDates::Ignored),
    ];
    for missing in [Missing::Null, Missing::Absent, Missing::EmptyList] {
        let values = CustomValues::Mixed;
        let both = (Collections::JsonText, missing, values);
        cases.push(switch(|it| (it.collections, it.missing, it.custom_values) = both));
    }
    cases.into_iter().map(Case::mapped).collect()
}

/// What becomes of a record, and how one is asked for by id.
fn lives() -> Vec<Case> {
    let unknown = |unknown_record| switch(|it| it.unknown_record = unknown_record);
    let status = |status| unknown(UnknownRecord::Status { status });
    let ordered = |order| switch(|it| (it.order, it.edits_move_updated) = (order, false));
    vec![
        switch(|it| it.activity_moves_updated = true),
        switch(|it| it.edits_move_updated = false),
        ordered(Order::UpdatedDescending),
        switch(|it| it.deleted = Deleted::Marked),
        switch(|it| (it.deleted, it.order) = (Deleted::Marked, Order::UpdatedDescending)),
        switch(|it| it.odd_ids = true),
        status(400),
        status(403),
        status(410),
        unknown(UnknownRecord::EmptyObject),
        unknown(UnknownRecord::Null),
        switch(|it| it.error_body = ErrorBody::Error),
        switch(|it| it.error_body = ErrorBody::Text),
        switch(|it| it.error_body = ErrorBody::Empty),
    ]
}

/// What a refused key and a spent allowance look like.
fn refusals() -> Vec<Case> {
    let wrong = |change: fn(&mut WhautomateBehaviour)| {
        switch(change).wrong_key().stopped(12, "rejected the credentials", "`base_url`")
    };
    let per_day = |change: fn(&mut WhautomateBehaviour)| {
        switch(change).settings(|settings| settings.whautomate_per_day = Some(6)).spent()
    };
    vec![
        wrong(|_| {}),
        wrong(|it| it.wrong_key = WrongKey::Unauthorized),
        wrong(|it| it.error_body = ErrorBody::Error),
        wrong(|it| it.error_body = ErrorBody::Text),
        wrong(|it| it.error_body = ErrorBody::Empty),
        per_day(|_| {}),
        per_day(|it| it.retry_after = true),
        per_day(|it| it.day_told_apart = false),
        per_day(|it| it.error_body = ErrorBody::Text),
        per_day(|it| it.error_body = ErrorBody::Empty),
    ]
}

/// What happens to every provider, and what it says then.
fn accidents() -> Vec<Case> {
    let without = ["stage", "email"].map(str::to_owned).to_vec();
    let own = vec![
        case(|behaviour| behaviour.without_fields = without).mapped(),
        accident(Fault::ErrorInside).survived(1),
        accident(Fault::EndOfList { status: 200 }).stopped(0, "", ""),
        accident(Fault::EndOfList { status: 404 }).stopped(0, "", ""),
        // A key that has answered: the quota is suspected.
        accident(Fault::Status { status: 401 }).stopped(8, "", ""),
    ];
    [super::case::accidents(""), own].concat()
}

pub(super) fn cases() -> Vec<Case> {
    [listings(), pairs_of_listings(), records(), lives(), refusals(), accidents()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn whautomate_is_read_whole_however_its_listings_are_ordered_cut_and_ended() {
    hold::<Whautomate>(listings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whautomate_is_read_whole_whatever_two_answers_of_its_listings_meet() {
    hold::<Whautomate>(pairs_of_listings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whautomate_is_read_whole_however_its_records_are_written() {
    hold::<Whautomate>(records()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whautomate_is_followed_whatever_becomes_of_its_records() {
    hold::<Whautomate>(lives()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whautomate_may_refuse_in_any_words() {
    hold::<Whautomate>(refusals()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whautomate_may_have_accidents() {
    hold::<Whautomate>(accidents()).await;
}
