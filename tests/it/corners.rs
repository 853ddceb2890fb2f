//! Where rules of reading meet: walks that go on and records that break, absences and what is seen
//! in between, lookups that are not answered, listings that are really empty.

use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;

use crate::support::World;
use crate::support::records::of;
use crate::support::records::small_bots;

const LEADS: Listing = Listing::Chats { bot: 0, lead: true };

fn ordered(order: Order) -> Behaviour {
    let mut behaviour = Behaviour::default();
    (behaviour.whautomate.order, behaviour.convertalk.order) = (order, order);
    behaviour
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
