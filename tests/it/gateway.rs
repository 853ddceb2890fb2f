//! What stands before the rows: keys, gateways and allowances of Whautomate and Convertalk, in whole
//! runs.

use chrono::TimeDelta;
use leadpipe::run;
use leadpipe::run::Options;
use leadpipe::run::Range;
use leadpipe::run::State;
use leadpipe::run::Summary;
use leadpipe::run::Unobserved;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::ChatsEnd;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::TokenHeader;
use leadpipe::sandbox::WrongKey;
use leadpipe::sandbox::WrongToken;

use crate::support::World;
use crate::support::most_a_day;
use crate::support::records::of;
use crate::support::records::small_bots;
use crate::support::records::small_clinic;

/// Syncs with keys that nobody has.
async fn sync_with_wrong_keys(world: &World) -> Summary {
    let other = Settings { seed: 9, ..small_clinic() };
    let stranger = World::new(Settings { convertalk_bots: 1, ..other }).await;
    let stand_in = leadpipe::config::StandIn {
        lake: world.folder.path().join("lake"),
        base_url: world.sandbox.url().parse().unwrap(),
        whatconverts: (String::new().into(), String::new().into()),
        whautomate: stranger.sandbox.whautomate_keys().into_iter().map(Into::into).collect(),
        convertalk: stranger.sandbox.convertalk_token().into(),
    };
    let job = leadpipe::config::Job::parse(&world.job, &world.folder.path().join("job.toml"));
    let job = job.unwrap().with_stand_in(&stand_in);
    let clock: leadpipe::clock::SharedClock = world.clock.clone();
    run::sync(job, Options::default(), clock, std::sync::Arc::new(Unobserved)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_never_answered_is_a_wrong_one_and_the_run_says_where_it_comes_from() {
    for wrong_key in [WrongKey::Forbidden, WrongKey::Unauthorized] {
        let world = World::clinic(small_clinic(), "").await;
        world.behave(|behaviour| behaviour.whautomate.wrong_key = wrong_key);
        let summary = sync_with_wrong_keys(&world).await;
        let source = of(&summary, "clinic");
        assert_eq!((summary.exit_code(), source.state), (12, State::Refused), "{summary:#?}");
        let hint = source.hint.as_ref().unwrap();
        assert!(
            hint.contains("`api_key` of source `clinic`") && hint.contains("`base_url`"),
            "{hint}"
        );
        // It is no quota: the right key is not kept waiting.
        assert_eq!(world.sync().await.exit_code(), 0);
    }
    for wrong_token in
        [WrongToken::Status { status: 401 }, WrongToken::Status { status: 403 }, WrongToken::Inside]
    {
        let world = World::bots(small_bots(), "").await;
        world.behave(|behaviour| behaviour.convertalk.wrong_token = wrong_token);
        let summary = sync_with_wrong_keys(&world).await;
        let source = of(&summary, "bots");
        assert_eq!((summary.exit_code(), source.state), (12, State::Refused), "{wrong_token:?}");
        assert!(source.hint.as_ref().unwrap().contains("auth_header"), "{summary:#?}");
        assert_eq!(world.sync().await.exit_code(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_in_a_minute_are_waited_out_and_end_no_run() {
    // The provider's minute is shorter than ours knows of.
    let settings = Settings { whautomate_per_minute: Some(4), ..small_clinic() };
    let world = World::clinic(settings, "page_size = 25").await;
    let began = world.sandbox.now();
    let summary = world.sync().await;
    assert_eq!((summary.exit_code(), summary.resume_at), (0, None), "{summary:#?}");
    world.assert_all_whole().await;
    let refused = world.sandbox.requests().iter().filter(|r| r.status == 429).count() as u64;
    assert!(refused > 0 && refused == of(&summary, "clinic").requests.retries, "{summary:#?}");
    assert!(world.sandbox.now() - began < TimeDelta::minutes(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_spent_ends_the_run_with_a_time_before_which_nothing_is_asked() {
    for retry_after in [false, true] {
        let settings = Settings { whautomate_per_day: Some(5), ..small_clinic() };
        let more = "page_size = 25\nstreams = [\"contacts\"]";
        let world = World::clinic(settings, more).await;
        world.behave(|behaviour| behaviour.whautomate.retry_after = retry_after);
        let mut days = 0;
        loop {
            let before = world.sandbox.requests().len();
            let summary = world.sync().await;
            if summary.exit_code() == 0 {
                break;
            }
            assert_eq!(summary.exit_code(), 8, "{summary:#?}");
            assert_eq!(of(&summary, "clinic").requests.retries, 0, "{summary:#?}");
            let mut refused = world.sandbox.requests().split_off(before);
            refused.retain(|request| request.status == 429);
            assert!(refused.len() <= 2, "those in flight");
            let sent = world.sandbox.requests().len();
            let wait = summary.resume_at.unwrap() - summary.ended_at;
            assert!(wait > TimeDelta::hours(20) && wait < TimeDelta::hours(25), "{wait}");
            world.pass(TimeDelta::hours(2));
            assert_eq!(world.sync().await.exit_code(), 8, "the ledger believes it");
            assert_eq!(world.sandbox.requests().len(), sent);
            world.pass(wait);
            days += 1;
            assert!(days < 9, "it never ends");
        }
        assert!(days >= 2);
        let served = world.sandbox.requests().into_iter().filter(|r| r.status == 200);
        assert!(most_a_day(&served.collect::<Vec<_>>()) <= 5);
        world.assert_all_whole().await;
    }
}

/// Requests of a first sync of an account, by its setting, to contacts and to clients.
async fn requests_with(more: &str) -> [usize; 2] {
    let world = World::clinic(small_clinic(), &format!("page_size = 50\n{more}")).await;
    assert_eq!(world.sync().await.exit_code(), 0);
    world.assert_all_whole().await;
    let to = |path| world.sandbox.requests().iter().filter(|r| r.path == path).count();
    ["/v1/contacts", "/v1/clients"].map(to)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_short_page_is_the_end_just_the_last_request_of_a_listing_is_saved() {
    let [contacts, clients] = requests_with("").await;
    // A first page that is not full may be of a server's own size, and ends nothing by itself.
    assert_eq!(requests_with("short_page_ends = true").await, [contacts - 1, clients]);
    assert_eq!((contacts, clients), (6, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_chats_is_taken_in_each_of_its_three_headers_and_in_no_other() {
    let headers = [
        (TokenHeader::BotToken, "x-bot-token"),
        (TokenHeader::BpToken, "x-bp-token"),
        (TokenHeader::Bearer, "Authorization"),
    ];
    for (wanted, _) in headers {
        for (sent, header) in headers {
            let more = format!("auth_header = \"{header}\"");
            let world = World::bots(small_bots(), &more).await;
            world.behave(|behaviour| behaviour.convertalk.chats_header = wanted);
            let summary = world.sync().await;
            let expected = if wanted == sent { 0 } else { 12 };
            assert_eq!(summary.exit_code(), expected, "{wanted:?} by {sent:?}: {summary:#?}");
            if wanted == sent {
                world.assert_all_whole().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_a_sound_answer_is_one_and_at_the_end_of_a_list_is_the_end() {
    let world = World::bots(small_bots(), "").await;
    // A failure that passes is asked again.
    world.behave(|behaviour| behaviour.fail_next = vec![Fault::ErrorInside; 2]);
    let summary = world.sync().await;
    assert_eq!(summary.exit_code(), 0, "{summary:#?}");
    assert_eq!(of(&summary, "bots").requests.retries, 2, "{summary:#?}");
    world.assert_all_whole().await;

    let world = World::bots(small_bots(), "").await;
    world.behave(|behaviour| behaviour.convertalk.past_end = ChatsEnd::Failure);
    for summary in [world.sync().await, world.nights(1).await.remove(0)] {
        assert_eq!(summary.exit_code(), 0, "{summary:#?}");
        world.assert_all_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_chats_and_users_share_are_counted_and_have_a_row_in_each() {
    let world = World::bots(small_bots(), "streams = [\"chats\", \"users\"]").await;
    let summary = world.sync().await;
    let leads = (0..2).map(|bot| Listing::Chats { bot, lead: true });
    let leads: u64 = leads.map(|list| world.sandbox.record_ids(list).unwrap().len() as u64).sum();
    assert_eq!(of(&summary, "bots").shared_ids, leads, "{summary:#?}");
    world.assert_all_whole().await;
    let text = text(&world, &summary);
    assert!(text.contains(&format!("in `users` too, a row in each: {leads}")), "{text}");
}

/// A summary as its reader sees it.
fn text(world: &World, summary: &Summary) -> String {
    let zone = chrono::FixedOffset::east_opt(0).unwrap();
    leadpipe::report::summary_text(summary, &world.folder.path().into(), zone)
}

async fn backfill(world: &World, again: bool) -> Summary {
    let to = world.sandbox.now();
    let range = Range { from: to - TimeDelta::days(900), to, again };
    let clock: leadpipe::clock::SharedClock = world.clock.clone();
    let observer = std::sync::Arc::new(Unobserved);
    run::backfill(world.job(), range, Options::default(), clock, observer).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_reads_a_list_without_dates_once_and_only_when_told_again() {
    let mut behaviour = Behaviour::default();
    behaviour.whautomate.order = Order::Id;
    let world = World::clinic(Settings { behaviour, ..small_clinic() }, "page_size = 50").await;
    let first = backfill(&world, false).await;
    assert_eq!(first.exit_code(), 0, "{first:#?}");
    world.assert_all_whole().await;
    let whole = world.sandbox.requests().len();

    world.pass(TimeDelta::hours(1));
    let second = backfill(&world, false).await;
    assert_eq!(second.exit_code(), 0, "{second:#?}");
    assert_eq!(of(&second, "clinic").left_out, ["contacts/all", "clients/all"]);
    let said = text(&world, &second);
    assert!(said.contains("nothing was to be read") && said.contains("left out"), "{said}");
    assert_eq!(world.sandbox.requests().len(), whole);

    world.pass(TimeDelta::hours(1));
    let again = backfill(&world, true).await;
    assert_eq!(again.exit_code(), 0, "{again:#?}");
    assert!(of(&again, "clinic").left_out.is_empty(), "{again:#?}");
    assert_eq!(world.sandbox.requests().len(), 2 * whole);
    // Once done it is a new one.
    world.pass(TimeDelta::hours(1));
    backfill(&world, true).await;
    assert_eq!(world.sandbox.requests().len(), 3 * whole);
}
