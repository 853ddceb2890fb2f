//! Where rules of reading meet: walks that go on and records that break, absences and what is seen
//! in between, lookups that are not answered, listings that are really empty.

use chrono::TimeDelta;
use leadpipe::run::Options;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;

use crate::support::World;
use crate::support::records::of;
use crate::support::records::small_bots;
use crate::support::records::small_clinic;

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const LEADS: Listing = Listing::Chats { bot: 0, lead: true };
const NON_LEADS: Listing = Listing::Chats { bot: 0, lead: false };

fn ordered(order: Order) -> Behaviour {
    let mut behaviour = Behaviour::default();
    (behaviour.whautomate.order, behaviour.convertalk.order) = (order, order);
    behaviour
}

/// Contacts of which every night reads all, in pages of 50.
async fn contacts(more: &str) -> World {
    let settings = Settings { behaviour: ordered(Order::Id), ..small_clinic() };
    World::clinic(settings, &format!("page_size = 50\nstreams = [\"contacts\"]\n{more}")).await
}

fn at_most(requests: u64) -> Options {
    Options { max_requests: Some(requests), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reading_from_the_top_has_shown_since_is_not_absent_twice() {
    let behaviour = ordered(Order::CreatedDescending);
    let settings = Settings { convertalk_bots: 1, chats: 90, users: 0, behaviour, ..small_bots() };
    let world = World::bots(settings, "").await;
    let newest = world.sandbox.record_ids(LEADS).unwrap().pop().unwrap();
    let edit = |edit| world.sandbox.edit_record(Stream::Chats, &newest, edit).unwrap();
    world.sync().await;
    edit(RecordEdit::Vanish);
    let missed = world.nights(1).await.remove(0);
    assert_eq!((of(&missed, "bots").absent, of(&missed, "bots").leads.gone), (1, 0));
    edit(RecordEdit::Reappear);
    let shown = world.nights(1).await.remove(0);
    assert_eq!(of(&shown, "bots").requests.sent, 2, "the order is known: {shown:#?}");
    world.nights(5).await;
    edit(RecordEdit::Vanish);
    let missed = world.nights(1).await.remove(0);
    assert!(of(&missed, "bots").requests.sent > 4, "a whole reading is due: {missed:#?}");
    assert_eq!((of(&missed, "bots").absent, of(&missed, "bots").leads.gone), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_could_not_be_asked_for_by_id_wait_for_the_next_run() {
    let world = contacts("").await;
    let requests = of(&world.sync().await, "clinic").requests.sent;
    for id in world.sandbox.record_ids(CONTACTS).unwrap().into_iter().step_by(60).take(3) {
        world.sandbox.edit_record(Stream::Contacts, &id, RecordEdit::Vanish).unwrap();
    }
    let missed = world.nights(1).await.remove(0);
    assert_eq!((of(&missed, "clinic").absent, of(&missed, "clinic").requests.sent), (3, requests));
    world.pass(TimeDelta::days(1));
    let one_is_asked_for = world.sync_with(at_most(requests + 1)).await;
    let clinic = of(&one_is_asked_for, "clinic");
    assert_eq!((clinic.leads.gone, clinic.absent), (1, 2), "{one_is_asked_for:#?}");
    let asked = world.nights(1).await.remove(0);
    assert_eq!((of(&asked, "clinic").leads.gone, of(&asked, "clinic").requests.lookups), (2, 2));
    world.assert_all_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_whose_last_page_breaks_before_it_goes_on_comes_to_its_end_with_a_hole() {
    let order = ordered(Order::CreatedAscending);
    let settings = Settings { behaviour: order.clone(), ..small_clinic() };
    let clinic = World::clinic(settings, "page_size = 50\nstreams = [\"contacts\"]").await;
    let settings = Settings { convertalk_bots: 1, chats: 190, users: 0, ..small_bots() };
    let bots = World::bots(Settings { behaviour: order.clone(), ..settings }, "").await;
    // One row where the size of a page can be chosen, else as many as a page has.
    for (world, source, (listing, broken), hole) in
        [(clinic, "clinic", (CONTACTS, 120), 1), (bots, "bots", (NON_LEADS, 50), 20)]
    {
        let broken = world.sandbox.record_ids(listing).unwrap().swap_remove(broken);
        world.sync_with(at_most(3)).await;
        world.pass(TimeDelta::hours(5));
        world.sandbox.behave(Behaviour { poison_records: vec![broken], ..order.clone() });
        let summary = world.sync().await;
        assert_eq!(summary.exit_code(), 13, "{summary:#?}");
        assert_eq!((of(&summary, source).holes, of(&summary, source).walks_left), (hole, 0));
        world.assert_all_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_is_really_empty_is_current_once_its_deletes_were_let_through() {
    let world = contacts("").await;
    world.sync().await;
    world.sandbox.behave(Behaviour { empty: true, ..ordered(Order::Id) });
    let held = world.nights(1).await.remove(0);
    assert_eq!(held.exit_code(), 13);
    world.pass(TimeDelta::days(1));
    let accept_deletes = vec!["clinic".parse().unwrap()];
    world.sync_with(Options { accept_deletes, ..Options::default() }).await;
    assert_eq!(world.rows().len(), 0);
    let after = world.nights(2).await;
    assert_eq!(after[1].exit_code(), 0, "{after:#?}");
    assert_eq!(of(&after[1], "clinic").requests.sent, 1, "{after:#?}");
    let as_of = world.head().sources[&"clinic".parse().unwrap()].as_of.unwrap();
    assert!(world.sandbox.now() - as_of < TimeDelta::hours(1), "{as_of}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_reappears_is_no_longer_marked_as_deleted() {
    let mut world = contacts("").await;
    world.job.push_str("[load]\non_delete = \"keep\"\n");
    world.sync().await;
    let id = world.sandbox.record_ids(CONTACTS).unwrap().swap_remove(60);
    let key = format!("whautomate:contacts:{id}");
    world.sandbox.edit_record(Stream::Contacts, &id, RecordEdit::Vanish).unwrap();
    let gone = world.nights(2).await;
    assert_eq!(of(&gone[1], "clinic").leads.gone, 1);
    assert!(world.rows().contains_key(&key));
    world.sandbox.edit_record(Stream::Contacts, &id, RecordEdit::Reappear).unwrap();
    let back = world.nights(1).await.remove(0);
    let changes = world.changes(back.commit.unwrap());
    assert!(
        changes.iter().any(|(op, _, lead, _)| (op.as_str(), lead) == ("upsert", &key)),
        "{changes:?}"
    );
    let none = world.nights(1).await.remove(0);
    assert_eq!(of(&none, "clinic").leads.changed + of(&none, "clinic").leads.new, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_goes_on_under_another_mapping_and_another_size_of_pages_and_asks_for_nothing_twice()
{
    let settings = Settings { behaviour: ordered(Order::CreatedAscending), ..small_clinic() };
    let more = "page_size = 50\nstreams = [\"contacts\"]";
    let mut world = World::clinic(settings, more).await;
    world.sync_with(at_most(3)).await;
    world.pass(TimeDelta::hours(5));
    world.sandbox.clear_requests();
    world.job = world.job.replace("\"US\"", "\"GB\"").replace("page_size = 50", "page_size = 70");
    assert!(world.job.contains("\"GB\"") && world.job.contains("page_size = 70"));
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), of(&summary, "clinic").resumed), (0, 1), "{summary:#?}");
    world.assert_all_whole().await;
    let asked: Vec<String> =
        world.sandbox.requests().into_iter().map(|asked| asked.query).collect();
    // The check page, the two that are left and the empty one, and the top once more.
    let pages = ["3", "4", "5", "6", "1"].map(|page| format!("page={page}&limit=50"));
    assert_eq!(asked, pages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_leaves_the_job_in_the_middle_of_its_walk_and_comes_back_is_whole_again() {
    let settings = Settings { behaviour: ordered(Order::Id), ..small_bots() };
    let mut world = World::bots(settings, "").await;
    let both = world.job.clone();
    world.sync_with(at_most(7)).await;
    let first = world.sandbox.bot_ids().swap_remove(0);
    let list = format!("bot_ids = {:?}", world.sandbox.bot_ids());
    world.job = both.replace(&list, &format!("bot_ids = {:?}", [first]));
    assert_ne!(world.job, both);
    for summary in world.nights(3).await {
        assert_eq!(of(&summary, "bots").leads.gone, 0, "{summary:#?}");
    }
    world.job = both;
    for summary in world.nights(3).await {
        assert_eq!((summary.exit_code(), of(&summary, "bots").leads.gone), (0, 0), "{summary:#?}");
        world.assert_all_whole().await;
    }
}
