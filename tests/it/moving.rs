//! Listings that move or lie while they are read: what jumps is there, what the provider hides for
//! a night stays, and what is really gone leaves.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use leadpipe::run::Options;
use leadpipe::run::Summary;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::ScriptedRecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;

use crate::support::World;
use crate::support::assert_same;
use crate::support::key;
use crate::support::records::of;
use crate::support::records::small_bots;
use crate::support::records::small_clinic;

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const LEADS: Listing = Listing::Chats { bot: 0, lead: true };
const NON_LEADS: Listing = Listing::Chats { bot: 0, lead: false };

/// The four orders in which a listing moves under who reads it.
const ORDERS: [Order; 4] = [
    Order::CreatedDescending,
    Order::CreatedAscending,
    Order::UpdatedDescending,
    Order::UpdatedAscending,
];

fn ordered(order: Order) -> Behaviour {
    let mut behaviour = Behaviour::default();
    (behaviour.whautomate.order, behaviour.convertalk.order) = (order, order);
    behaviour
}

/// Has an edit happen before the next run's request after so many.
fn after(requests: u64, stream: Stream, id: &str, edit: RecordEdit) -> Vec<ScriptedRecordEdit> {
    vec![ScriptedRecordEdit { after_requests: requests, stream, id: id.to_owned(), edit }]
}

fn clinic_in(order: Order) -> Settings {
    Settings { behaviour: ordered(order), ..small_clinic() }
}

fn bots_in(order: Order) -> Settings {
    Settings { behaviour: ordered(order), ..small_bots() }
}

/// One bot of which a reading is five or six requests.
fn one_bot(order: Order) -> Settings {
    Settings { convertalk_bots: 1, chats: 70, users: 0, ..bots_in(order) }
}

fn gone(summary: &Summary) -> u64 {
    summary.sources.values().map(|source| source.leads.gone).sum()
}

/// Asserts that a night has deleted nothing, and that the snapshot is what is listed.
async fn assert_untouched(world: &World, summary: &Summary, context: &str) {
    assert_eq!(gone(summary), 0, "{context}: {summary:#?}");
    assert_eq!(summary.exit_code(), 0, "{context}: {summary:#?}");
    world.assert_all_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_jumps_while_it_is_read_is_there_after_any_request() {
    for order in [Order::UpdatedDescending, Order::UpdatedAscending] {
        for requests in 1..7 {
            let world = World::clinic(clinic_in(order), "page_size = 50").await;
            let id = world.sandbox.record_ids(CONTACTS).unwrap().swap_remove(100);
            let record_script = after(requests, Stream::Contacts, &id, RecordEdit::Touch);
            world.sandbox.behave(Behaviour { record_script, ..ordered(order) });
            let context = format!("{order:?} after {requests}");
            let summary = world.sync().await;
            assert!(world.rows().contains_key(&format!("whautomate:contacts:{id}")), "{context}");
            assert_eq!(world.rows().len(), world.truth_of(&"clinic".parse().unwrap()).await.len());
            assert_eq!((summary.exit_code(), gone(&summary)), (0, 0), "{context}: {summary:#?}");
            for summary in world.nights(2).await {
                assert_untouched(&world, &summary, &context).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ends_early_once_after_any_request_loses_nothing() {
    // An order that no reading shows: every night reads all.
    let clinic = World::clinic(clinic_in(Order::Id), "page_size = 50").await;
    let bots = World::bots(bots_in(Order::Id), "").await;
    for world in [clinic, bots] {
        world.sync().await;
        let requests = world.sandbox.requests().len();
        for status in [200, 404] {
            for skip in 0..requests {
                let mut fail_next = vec![Fault::Stall { ms: 0 }; skip];
                fail_next.push(Fault::EndOfList { status });
                world.sandbox.behave(Behaviour { fail_next, ..ordered(Order::Id) });
                let summary = world.nights(1).await.remove(0);
                assert_untouched(&world, &summary, &format!("{status} after {skip}")).await;
            }
        }
    }
}

/// An agency, two clinics and two bots, of which every night reads all there is.
async fn all_read_whole() -> World {
    let settings = Settings {
        whautomate_accounts: 2,
        contacts: 120,
        clients: 40,
        convertalk_bots: 2,
        chats: 90,
        whautomate_per_day: Some(432_000),
        whautomate_per_minute: Some(300),
        still: true,
        behaviour: ordered(Order::Id),
        ..crate::support::small()
    };
    let mut world = World::three(settings).await;
    world.job.push_str("\n[refresh]\nevery_run = \"380d\"\n");
    world
}

fn accepting(source: &str) -> Options {
    Options { accept_deletes: vec![source.parse().unwrap()], ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nights_on_which_no_provider_has_anything_delete_nothing_until_it_is_accepted() {
    let world = all_read_whole().await;
    world.sync().await;
    let held = world.rows();
    world.sandbox.behave(Behaviour { empty: true, ..ordered(Order::Id) });
    for summary in world.nights(3).await {
        assert_eq!((summary.exit_code(), gone(&summary)), (13, 0), "{summary:#?}");
        for (name, source) in &summary.sources {
            assert!(source.deletes_held_back > 0, "{name}: {summary:#?}");
        }
        assert_same(&world.rows(), &held);
    }
    // What is accepted for one source lets nothing of the others through.
    world.pass(TimeDelta::days(1));
    let summary = world.sync_with(accepting("clinic-0")).await;
    assert_eq!(summary.exit_code(), 13, "{summary:#?}");
    let before: BTreeMap<_, _> =
        summary.sources.iter().map(|(n, s)| (n.as_str(), s.rows)).collect();
    assert_eq!(before["clinic-0"], 0, "{summary:#?}");
    assert!(["acme", "clinic-1", "bots"].iter().all(|name| before[name] > 0), "{before:?}");
    assert_eq!(gone(&summary), of(&summary, "clinic-0").leads.gone);
    for source in ["clinic-1", "bots"] {
        world.pass(TimeDelta::days(1));
        let summary = world.sync_with(accepting(source)).await;
        assert_eq!(of(&summary, source).rows, 0, "{summary:#?}");
    }
    // A bad night that was taken for true heals by itself.
    world.sandbox.behave(ordered(Order::Id));
    world.nights(1).await;
    world.assert_all_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
}

/// Takes a row of each kind off its list; returns the keys it has in the snapshot.
fn vanish_one_of_each(world: &World) -> Vec<(&'static str, String)> {
    let (_, lead) = *world.sandbox.lead_ids().last().unwrap();
    world.sandbox.edit(lead, Edit::Vanish).unwrap();
    let mut keys = vec![("acme", key(lead))];
    let listings = [
        ("clinic-0", CONTACTS, "whautomate:contacts"),
        ("clinic-0", Listing::Clients { account: 0 }, "whautomate:clients"),
        ("bots", LEADS, "convertalk:chats"),
        ("bots", NON_LEADS, "convertalk:chats"),
    ];
    for (source, listing, prefix) in listings {
        let id = world.sandbox.record_ids(listing).unwrap().swap_remove(7);
        world.sandbox.edit_record(listing.stream(), &id, RecordEdit::Vanish).unwrap();
        keys.push((source, format!("{prefix}:{id}")));
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_really_gone_leaves_with_the_next_run_or_where_no_total_is_stated_with_the_second()
{
    let world = all_read_whole().await;
    world.sync().await;
    let gone = vanish_one_of_each(&world);
    let missing = |world: &World| {
        let rows = world.rows();
        gone.iter().filter(|(_, key)| !rows.contains_key(key)).map(|(s, _)| *s).collect::<Vec<_>>()
    };
    let first = world.nights(1).await.remove(0);
    assert_eq!(first.exit_code(), 0, "{first:#?}");
    assert_eq!(missing(&world), ["acme"]);
    assert_eq!((of(&first, "clinic-0").absent, of(&first, "bots").absent), (2, 2), "{first:#?}");
    let second = world.nights(1).await.remove(0);
    assert_eq!(missing(&world).len(), gone.len(), "{second:#?}");
    assert_eq!(
        of(&second, "clinic-0").requests.lookups,
        2,
        "those that can be asked for by id are"
    );
    world.assert_all_whole().await;
    assert_same(&world.replayed_changes(), &world.rows());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_really_gone_from_a_list_of_known_order_leaves_with_its_second_weekly_reading() {
    let world = World::clinic(clinic_in(Order::UpdatedDescending), "page_size = 50").await;
    world.sync().await;
    world.nights(1).await;
    let id = world.sandbox.record_ids(CONTACTS).unwrap().swap_remove(7);
    world.sandbox.edit_record(Stream::Contacts, &id, RecordEdit::Vanish).unwrap();
    let key = format!("whautomate:contacts:{id}");
    let mut left_on = None;
    for (night, summary) in (1..).zip(world.nights(15).await) {
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        if gone(&summary) > 0 {
            assert!(left_on.replace(night).is_none(), "{summary:#?}");
        }
    }
    assert_eq!(left_on, Some(14));
    assert!(!world.rows().contains_key(&key));
    world.assert_all_whole().await;
}

/// The stage of a chat in the snapshot, of which a chat that is no lead has none; `None` where there
/// is no row. Two rows would fail.
fn stage(world: &World, id: &str) -> Option<Option<String>> {
    // `rows` fails where a lead is there twice; a column would hide it.
    let chat = format!("convertalk:chats:{id}");
    world.rows().contains_key(&chat).then(|| world.column("stage").remove(&chat).flatten())
}

/// Adds a chat of yesterday: however a list is sorted, every run reads as far down as that.
fn newcomer(world: &World, listing: Listing) -> String {
    let yesterday = world.sandbox.now() - TimeDelta::days(1);
    world.sandbox.insert_record(listing, yesterday).unwrap()
}

/// What a reading of one bot costs, in any of its two states.
const MOST: u64 = 8;

/// Has a chat become a lead after so many requests of the first night, or of a later one.
async fn becomes_a_lead(order: Order, requests: u64, on_first_night: bool) {
    let world = World::bots(one_bot(order), "").await;
    let id = newcomer(&world, NON_LEADS);
    if !on_first_night {
        world.sync().await;
        assert_eq!(stage(&world, &id), Some(None));
    }
    let record_script = after(requests, Stream::Chats, &id, RecordEdit::Lead);
    world.sandbox.behave(Behaviour { record_script, ..ordered(order) });
    let context = format!("{order:?} after {requests}, first: {on_first_night}");
    let summary = world.nights(1).await.remove(0);
    assert_eq!((summary.exit_code(), gone(&summary)), (0, 0), "{context}");
    assert!(stage(&world, &id).is_some(), "{context}: {summary:#?}");
    // Late in the night it may have happened after its list was read, or in the night after that,
    // where this one had fewer requests.
    for summary in world.nights(2).await {
        assert_eq!((summary.exit_code(), gone(&summary)), (0, 0), "{context}");
    }
    assert!(world.sandbox.record_ids(LEADS).unwrap().contains(&id), "{context}");
    assert_eq!(stage(&world, &id), Some(Some("lead".to_owned())), "{context}");
    world.assert_all_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_becomes_a_lead_after_any_request_of_the_first_night_is_one_row_and_a_lead() {
    for order in [Order::CreatedAscending, Order::UpdatedDescending] {
        for requests in 0..MOST {
            becomes_a_lead(order, requests, true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_becomes_a_lead_after_any_request_of_a_night_is_one_row_and_a_lead_by_the_next()
{
    for order in ORDERS {
        for requests in 0..MOST {
            becomes_a_lead(order, requests, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_chat_that_becomes_a_lead_where_the_newest_stand_first_is_one_by_the_weekly_reading()
{
    let world = World::bots(one_bot(Order::CreatedDescending), "").await;
    let id = world.sandbox.record_ids(NON_LEADS).unwrap().swap_remove(5);
    world.sync().await;
    world.nights(2).await;
    world.sandbox.edit_record(Stream::Chats, &id, RecordEdit::Lead).unwrap();
    world.nights(1).await;
    assert_eq!(stage(&world, &id), Some(None), "only the newest are read");
    world.nights(6).await;
    assert_eq!(stage(&world, &id), Some(Some("lead".to_owned())));
    world.assert_all_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_is_none_any_more_after_any_request_keeps_its_row() {
    for order in [Order::UpdatedDescending, Order::UpdatedAscending] {
        for requests in 0..MOST {
            let world = World::bots(one_bot(order), "").await;
            world.sync().await;
            let id = newcomer(&world, LEADS);
            world.nights(1).await;
            let record_script = after(requests, Stream::Chats, &id, RecordEdit::NonLead);
            world.sandbox.behave(Behaviour { record_script, ..ordered(order) });
            // So many that the last of them comes after the edit, however few requests each has.
            for _ in 0..5 {
                let summary = world.nights(1).await.remove(0);
                assert_eq!((summary.exit_code(), gone(&summary)), (0, 0), "{summary:#?}");
                assert!(stage(&world, &id).is_some(), "{order:?} after {requests}: {summary:#?}");
            }
            world.assert_all_whole().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_gone_of_one_bot_is_held_back_and_what_is_gone_of_the_other_leaves() {
    let world = World::bots(bots_in(Order::Id), "[load]\nmax_delete_ratio = \"30%\"").await;
    world.sync().await;
    let (first, second) = (1, Listing::Chats { bot: 1, lead: true });
    let many = world.sandbox.record_ids(LEADS).unwrap().split_off(20);
    let one = world.sandbox.record_ids(second).unwrap().swap_remove(first);
    let held: usize = many.len();
    for id in many.iter().chain([&one]) {
        world.sandbox.edit_record(Stream::Chats, id, RecordEdit::Vanish).unwrap();
    }
    let nights = world.nights(2).await;
    let last = of(&nights[1], "bots");
    assert_eq!(nights[1].exit_code(), 13, "{nights:#?}");
    assert_eq!((last.leads.gone, last.deletes_held_back), (1, held as u64), "{nights:#?}");
    assert!(!world.rows().contains_key(&format!("convertalk:chats:{one}")));
    let summary = world.sync_with(accepting("bots")).await;
    assert_eq!(of(&summary, "bots").leads.gone, held as u64, "{summary:#?}");
    world.assert_all_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_little_too_much_gone_of_every_bot_is_too_much_of_the_source() {
    let world = World::bots(bots_in(Order::Id), "[load]\nmax_delete_ratio = \"10%\"").await;
    world.sync().await;
    for bot in 0..2 {
        let all = [true, false].map(|lead| Listing::Chats { bot, lead });
        let ids: Vec<String> =
            all.iter().flat_map(|list| world.sandbox.record_ids(*list).unwrap()).collect();
        for id in ids.iter().step_by(8) {
            world.sandbox.edit_record(Stream::Chats, id, RecordEdit::Vanish).unwrap();
        }
    }
    for summary in world.nights(2).await {
        assert_eq!((summary.exit_code(), gone(&summary)), (13, 0), "{summary:#?}");
    }
}
