//! Leads that come and go while a long walk is read.

use chrono::TimeDelta;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::ScriptedEdit;
use leadpipe::sandbox::Settings;

use crate::support::Rows;
use crate::support::World;
use crate::support::acme;
use crate::support::key;
use crate::support::small_job;

const PAGES: u64 = 25;

/// One profile whose leads of a year fill 25 pages, and a job that reads them all every run.
async fn long_walk(at_once: u32) -> World {
    let settings = Settings {
        leads: 1_000,
        years: 1,
        accounts: 1,
        profiles: 1,
        still: true,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.job = small_job(&format!(
        "[sources.quota]\nat_once = {at_once}\n[refresh]\nevery_run = \"380d\""
    ));
    world.job = world.job.replace("2023-10-01", "2025-10-20").replace("= 50", "= 40");
    world
}

fn script(after_requests: u64, lead_id: u64, edit: Edit) -> ScriptedEdit {
    ScriptedEdit { after_requests, lead_id, edit }
}

/// Every lead that is listed at the end is there, and with its content unless it was `edited`.
fn assert_no_lead_lost(rows: &Rows, truth: &Rows, edited: u64, what: &str) {
    for (id, hash) in truth {
        let row = rows.get(id).unwrap_or_else(|| panic!("{what}: {id} is lost"));
        assert!(row == hash || *id == key(edited), "{what}: {id} has other content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_come_and_go_while_a_walk_is_read_cost_no_other_lead() {
    for at_once in [1, 4] {
        for first_sync in [true, false] {
            let world = long_walk(at_once).await;
            let ids: Vec<u64> = world.sandbox.lead_ids().iter().map(|(_, id)| *id).collect();
            let profile = world.sandbox.profile_ids()[0];
            if !first_sync {
                assert_eq!(world.sync().await.exit_code(), 0);
                world.pass(TimeDelta::days(1));
            }
            let early = world.sandbox.now() - TimeDelta::days(330);
            let insert = Edit::Insert { profile_id: profile, created_at: early };
            let script = vec![
                script(6, ids[3], Edit::Vanish),
                script(11, ids[500], Edit::Vanish),
                script(15, 900_000_001, insert.clone()),
                script(19, ids[20], Edit::Vanish),
                script(22, 900_000_002, insert),
                script(23, ids[30], Edit::Created(early + TimeDelta::days(3))),
            ];
            world.sandbox.behave(Behaviour { script, ..Behaviour::default() });
            world.sandbox.clear_requests();
            let summary = world.sync().await;
            let what = format!("{at_once} at once, first sync: {first_sync}");
            assert_no_lead_lost(&world.rows(), &world.truth().await, ids[30], &what);
            let source = acme(&summary);
            assert!([0, 13].contains(&summary.exit_code()), "{what}: {summary:#?}");
            let again = source.requests.probes + source.requests.rereads;
            assert!(again > 0, "{what}: the totals moved");
            assert!(again <= 3 * PAGES, "{what}: {again}");
            let sent = world.listings().len() as u64;
            assert!(sent <= 2 * (PAGES + 1) + again, "{what}: {sent} with {again} again");

            // A quiet night later all is told, and what vanished is gone.
            world.sandbox.behave(Behaviour::default());
            world.pass(TimeDelta::days(1));
            let summary = world.sync().await;
            assert_eq!(summary.exit_code(), 0, "{what}: {summary:#?}");
            world.assert_whole().await;
            assert!(!world.rows().contains_key(&key(ids[3])));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_leaves_the_total_as_it_was_deletes_nothing_that_is_there() {
    for at_once in [1, 4] {
        let world = long_walk(at_once).await;
        let ids: Vec<u64> = world.sandbox.lead_ids().iter().map(|(_, id)| *id).collect();
        assert_eq!(world.sync().await.exit_code(), 0);
        world.pass(TimeDelta::days(1));
        // One goes at the front, another comes at the end, before the next request is counted.
        let profile_id = world.sandbox.profile_ids()[0];
        let late = world.sandbox.now() - TimeDelta::days(2);
        let script = vec![
            script(10, ids[5], Edit::Vanish),
            script(10, 900_000_003, Edit::Insert { profile_id, created_at: late }),
        ];
        world.sandbox.behave(Behaviour { script, ..Behaviour::default() });
        world.sync().await;
        assert_no_lead_lost(&world.rows(), &world.truth().await, 0, "a swap");
        world.sandbox.behave(Behaviour::default());
        world.pass(TimeDelta::days(1));
        assert_eq!(world.sync().await.exit_code(), 0);
        world.assert_whole().await;
    }
}
