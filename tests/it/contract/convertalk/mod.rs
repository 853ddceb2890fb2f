//! Convertalk under contract: its world and its cases.

use chrono::TimeDelta;
use leadpipe::sandbox::AgentForm;
use leadpipe::sandbox::ChatsEnd;
use leadpipe::sandbox::ChatsError;
use leadpipe::sandbox::ConvertalkBehaviour;
use leadpipe::sandbox::CustomValues;
use leadpipe::sandbox::DataForm;
use leadpipe::sandbox::Deleted;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::LoggedRequest;
use leadpipe::sandbox::Missing;
use leadpipe::sandbox::NameField;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::OtherType;
use leadpipe::sandbox::PageZero;
use leadpipe::sandbox::Parts;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;
use leadpipe::sandbox::TagForm;
use leadpipe::sandbox::TokenHeader;
use leadpipe::sandbox::WrongToken;
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
use crate::support::records::small_bots;

const CITY: &str = "profile.userDetails.city";

/// Two bots, each with about two pages of chats that are no leads and three of leads.
struct Convertalk;

/// The chats of a bot that are leads, or that are not.
fn chats(bot: u32, lead: bool) -> Listing {
    Listing::Chats { bot, lead }
}

fn key(id: &str) -> String {
    format!("convertalk:chats:{id}")
}

impl Subject for Convertalk {
    const NAME: &'static str = "convertalk";
    const SOURCE: &'static str = "bots";
    const RATE: (TimeDelta, usize) = (TimeDelta::seconds(1), 5);
    const PER_DAY: Option<usize> = None;

    async fn world(case: &Case) -> World {
        let behaviour = case.behaviour.clone();
        let mut settings = Settings { years: 1, chats: 76, users: 8, behaviour, ..small_bots() };
        (case.settings)(&mut settings);
        World::bots(settings, &format!("{}\n{UNPACKED}", case.keys)).await
    }

    async fn truth(world: &World, _case: &Case) -> Rows {
        world.truth_of(&Self::SOURCE.parse().unwrap()).await
    }

    fn least(world: &World, case: &Case, _asked: &[LoggedRequest]) -> u64 {
        let size = u64::from(case.behaviour.convertalk.page_size);
        let pages = |listing: &Listing| {
            let rows = world.sandbox.record_ids(*listing).unwrap().len() as u64;
            rows.div_ceil(size) + 1
        };
        let source = &world.job().sources[0];
        let listings = world.listings_of(source).into_iter().map(|(listing, _)| listing);
        listings.map(|listing| pages(&listing)).sum()
    }

    fn reading(case: &Case) -> Reading {
        match case.behaviour.convertalk.order {
            Order::CreatedDescending | Order::UpdatedDescending => Reading::Top,
            _ => Reading::Whole,
        }
    }

    fn stir(world: &World, case: &Case) -> Stirred {
        let sandbox = &world.sandbox;
        let ids = |bot, lead| sandbox.record_ids(chats(bot, lead)).unwrap();
        let edit = |id: &str, edit| sandbox.edit_record(Stream::Chats, id, edit).unwrap();
        let (others, leads, elsewhere) = (ids(0, false), ids(0, true), ids(1, true));
        let (newest, becomes) = (leads.last().unwrap(), others.last().unwrap());
        let (old, gone) = (&leads[2], &leads[20]);
        edit(newest, RecordEdit::Set(set(CITY, json!("Newville"))));
        edit(becomes, RecordEdit::Lead);
        edit(old, RecordEdit::SetQuietly(set(CITY, json!("Oldtown"))));
        edit(gone, RecordEdit::Vanish);
        let at = sandbox.now() - TimeDelta::minutes(1);
        // As many come to each list as leave it: one that ends early ends in doubt.
        let inserted = sandbox.insert_record(chats(0, false), at).unwrap();
        let mut stirred = Stirred {
            at_once: [key(newest), key(becomes), key(&inserted)].into(),
            late: [key(old)].into(),
            gone: [key(gone)].into(),
        };
        if case.keys.contains("users") {
            stirred.gone.insert(format!("convertalk:users:{gone}"));
        }
        let switches = &case.behaviour.convertalk;
        if switches.leads_return {
            let returns = elsewhere.last().unwrap();
            edit(returns, RecordEdit::NonLead);
            stirred.at_once.insert(key(returns));
        }
        if switches.deleted == Deleted::Marked {
            stirred.late.append(&mut stirred.gone);
        }
        stirred
    }

    fn secrets(world: &World) -> Vec<String> {
        vec![world.sandbox.convertalk_token()]
    }
}

/// A case in which only switches of Convertalk differ.
fn switch(change: impl FnOnce(&mut ConvertalkBehaviour)) -> Case {
    case(|behaviour| change(&mut behaviour.convertalk))
}

/// How a listing is ordered, cut and ended; there are four of chats.
fn listings() -> Vec<Case> {
    let order = |order| switch(|it| it.order = order);
    let end = |past_end| switch(|it| it.past_end = past_end);
    vec![
        switch(|_| {}),
        order(Order::CreatedAscending),
        order(Order::UpdatedAscending),
        order(Order::UpdatedDescending),
        order(Order::Id),
        order(Order::Random).gathered(),
        end(ChatsEnd::Missing),
        end(ChatsEnd::Null),
        end(ChatsEnd::NotFound).named(4),
        end(ChatsEnd::Failure).named(4),
        // The end is asked for once more, where nobody knows yet how many rows there are.
        end(ChatsEnd::LastPage).named(4),
        switch(|it| it.page_size = 10),
        // Without a size to ask for, an ignored number cannot be told from a listing of one page.
        switch(|it| it.page_ignored = true).stopped(13, "", ""),
        switch(|it| it.page_zero = PageZero::Refused).mapped(),
        switch(|it| it.page_missing = PageZero::Refused).mapped(),
        switch(|it| it.other_type = OtherType::Leads).mapped(),
        switch(|it| it.other_type = OtherType::Nothing).mapped(),
        switch(|it| it.other_type = OtherType::Everything).mapped(),
    ]
}

/// Two switches of listings at a time.
fn pairs_of_listings() -> Vec<Case> {
    let both = |order, past_end| switch(|it| (it.order, it.past_end) = (order, past_end));
    let failing = |past_end, error_body| {
        switch(|it| (it.past_end, it.error_body) = (past_end, error_body)).named(4)
    };
    vec![
        both(Order::CreatedAscending, ChatsEnd::NotFound).named(4),
        both(Order::CreatedAscending, ChatsEnd::LastPage).named(4),
        both(Order::UpdatedDescending, ChatsEnd::Failure).named(4),
        both(Order::UpdatedDescending, ChatsEnd::LastPage).named(4),
        both(Order::UpdatedAscending, ChatsEnd::Null),
        failing(ChatsEnd::NotFound, ChatsError::Messages),
        failing(ChatsEnd::NotFound, ChatsError::Text),
        failing(ChatsEnd::NotFound, ChatsError::Empty),
        failing(ChatsEnd::Failure, ChatsError::Messages),
        switch(|it| (it.page_size, it.data) = (30, DataForm::Object)),
        // Nothing tells the only page of a listing from a page number that is ignored.
        switch(|it| (it.page_size, it.past_end) = (200, ChatsEnd::LastPage)).seen_twice(),
        switch(|it| (it.data, it.past_end) = (DataForm::Object, ChatsEnd::Null)),
        // A first page that is refused may be that of an empty listing.
        switch(|it| (it.past_end, it.empty_is_past_end) = (ChatsEnd::NotFound, true))
            .settings(|settings| settings.chats = 0)
            .seen_twice(),
        switch(|it| it.order = Order::UpdatedDescending).keys(USERS),
        switch(|it| it.order = Order::CreatedAscending).keys(USERS),
    ]
}

const USERS: &str = "streams = [\"chats\", \"users\"]";

/// How a record is written.
fn records() -> Vec<Case> {
    let missing = |missing| switch(|it| it.missing = missing);
    let cases = vec![
        switch(|it| it.data = DataForm::Object),
        switch(|it| it.name = NameField::UserProvidedName),
        switch(|it| it.attribute_values = CustomValues::Mixed),
        switch(|it| it.tags = TagForm::Objects),
        switch(|it| it.agent = AgentForm::Object),
        switch(|it| it.agent = AgentForm::Missing),
        switch(|it| it.parts = Parts::SomeMissing),
        switch(|it| it.parts = Parts::SomeNull),
        missing(Missing::Null),
        missing(Missing::Absent),
        missing(Missing::EmptyList),
        switch(|it| (it.tags, it.missing) = (TagForm::Objects, Missing::Null)),
        switch(|it| (it.parts, it.missing) = (Parts::SomeNull, Missing::Absent)),
        switch(|_| {}).keys(USERS),
    ];
    cases.into_iter().map(Case::mapped).collect()
}

/// What becomes of a record.
fn lives() -> Vec<Case> {
    let ordered = |order| switch(|it| (it.order, it.activity_moves_updated) = (order, true));
    let returning = |order| switch(|it| (it.order, it.leads_return) = (order, true));
    vec![
        switch(|it| it.activity_moves_updated = true),
        ordered(Order::UpdatedDescending),
        switch(|it| it.deleted = Deleted::Marked),
        switch(|it| (it.deleted, it.order) = (Deleted::Marked, Order::Id)),
        switch(|it| it.leads_return = true),
        returning(Order::UpdatedDescending),
        returning(Order::CreatedAscending),
        switch(|it| it.uuid_changes = true),
        switch(|it| it.error_body = ChatsError::Messages),
        switch(|it| it.error_body = ChatsError::Text),
        switch(|it| it.error_body = ChatsError::Empty),
        switch(|it| it.retry_after = Some(20)),
    ]
}

const BOT_USERS: &str =
    "streams = [\"chats\", \"users\"]\nusers_auth = { header = \"x-bot-token\", prefix = \"\" }";
const BP_USERS: &str =
    "streams = [\"chats\", \"users\"]\nusers_auth = { header = \"x-bp-token\", prefix = \"\" }";
const BARE_USERS: &str = "streams = [\"chats\", \"users\"]\n\
    users_auth = { header = \"Authorization\", prefix = \"Bearer \", authtype = \"\" }";

/// Which header carries the token, and what a wrong token and a spent allowance look like.
fn refusals() -> Vec<Case> {
    let chats = |header| switch(|it| it.chats_header = header);
    let users = |header| switch(|it| it.users_header = header);
    let refused = |case: Case| case.stopped(12, "rejected the credentials", "`auth_header`");
    let wrong = |change: fn(&mut ConvertalkBehaviour)| refused(switch(change).wrong_key());
    let per_day = |change: fn(&mut ConvertalkBehaviour)| {
        switch(change).settings(|settings| settings.convertalk_per_day = Some(6)).spent()
    };
    vec![
        chats(TokenHeader::BpToken).keys("auth_header = \"x-bp-token\"").mapped(),
        chats(TokenHeader::Bearer).keys("auth_header = \"Authorization\"").mapped(),
        chats(TokenHeader::Any).mapped(),
        refused(chats(TokenHeader::BpToken)),
        refused(chats(TokenHeader::Bearer)),
        users(TokenHeader::BotToken).keys(BOT_USERS).mapped(),
        users(TokenHeader::BpToken).keys(BP_USERS).mapped(),
        users(TokenHeader::Any).keys(USERS).mapped(),
        switch(|it| it.authtype_needed = false).keys(BARE_USERS).mapped(),
        wrong(|_| {}),
        wrong(|it| it.wrong_token = WrongToken::Status { status: 403 }),
        wrong(|it| it.wrong_token = WrongToken::Inside),
        wrong(|it| it.error_body = ChatsError::Messages),
        wrong(|it| it.error_body = ChatsError::Text),
        wrong(|it| it.error_body = ChatsError::Empty),
        per_day(|_| {}),
        per_day(|it| it.retry_after = Some(20)),
        per_day(|it| it.error_body = ChatsError::Empty),
    ]
}

/// What happens to every provider, and what it says then.
fn accidents() -> Vec<Case> {
    let without = ["status", "lastMessage"].map(str::to_owned).to_vec();
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
async fn convertalk_is_read_whole_however_its_listings_are_ordered_cut_and_ended() {
    hold::<Convertalk>(listings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn convertalk_is_read_whole_whatever_two_answers_of_its_listings_meet() {
    hold::<Convertalk>(pairs_of_listings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn convertalk_is_read_whole_however_its_records_are_written() {
    hold::<Convertalk>(records()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn convertalk_is_followed_whatever_becomes_of_its_records() {
    hold::<Convertalk>(lives()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn convertalk_may_refuse_in_any_words() {
    hold::<Convertalk>(refusals()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn convertalk_may_have_accidents() {
    hold::<Convertalk>(accidents()).await;
}
