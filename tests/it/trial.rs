//! A trial key of Whautomate: a hundred requests a day, so that one scan takes days, is killed on
//! its way, and rows move under it.
//!
//! `LEADPIPE_CONTACTS` sets how many contacts there are, and has every order of the listing tried.
//! Pages are as large as makes 240 of them, so that few contacts take as many days as many.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::commit;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::ScriptedRecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;
use leadpipe::sandbox::WhautomateBehaviour;

use crate::support::World;
use crate::support::assert_same;
use crate::support::most_a_day;
use crate::support::number_from;
use crate::support::process::Draw;
use crate::support::process::start_sync;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
use crate::support::records::small_clinic;

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const PAGES: u64 = 240;
const KILLS: usize = 3;

/// What a trial has in any 24 hours without what is reserved for others: 100 less a tenth.
const ALLOWANCE: usize = 90;

/// Requests that a kill may cost: those in flight, whose permits are spent.
const LOST_BY_A_KILL: usize = 4;

/// So many edits come between two runs, and as many while one reads.
const EDITS: u64 = 6;

/// A trial account, the program that reads it, and what has become of the contacts.
struct Trial {
    world: World,
    job: PathBuf,
    order: Order,
    draw: Draw,
    ahead: TimeDelta,
    /// Contacts that were deleted, and those of them that were so while a run read.
    vanished: BTreeSet<String>,
    vanished_under_a_run: usize,
    inserted: u64,
    kills: usize,
}

impl Trial {
    async fn new(order: Order, contacts: u64) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let now = DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
        let settings = Settings {
            contacts,
            clients: 0,
            now,
            still: true,
            // The minute of a trial would take minutes of ours; the day is what is on trial here.
            whautomate_per_minute: Some(100_000),
            ..small_clinic()
        };
        let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("job.toml");
        let text = CLINIC.replace("\"UNUSED\"", "\"TRIAL_KEY\"").replace("subscribed", "trial");
        let more = format!(
            "base_url = \"{}\"\nstreams = [\"contacts\"]\npage_size = {}\n\
             [sources.quota]\nrate = \"50/ms\"\n[run]\npatience = \"5s\"\n",
            sandbox.url(),
            contacts.div_ceil(PAGES).max(2)
        );
        std::fs::write(&job, format!("{HEAD}{text}{more}")).unwrap();
        let mut world = World::around(sandbox, folder);
        world.job = format!("{HEAD}{CLINIC}streams = [\"contacts\"]\n");
        Self {
            world,
            job,
            order,
            draw: Draw(order as u64 + 11),
            ahead: TimeDelta::zero(),
            vanished: BTreeSet::new(),
            vanished_under_a_run: 0,
            inserted: 0,
            kills: 0,
        }
    }

    fn contacts(&self) -> BTreeSet<String> {
        self.world.sandbox.record_ids(CONTACTS).unwrap().into_iter().collect()
    }

    /// Draws what happens to contacts: most change, some come, some go.
    fn edits(&mut self) -> Vec<(String, RecordEdit)> {
        let mut ids: Vec<String> = self.contacts().into_iter().collect();
        let mut edits = Vec::new();
        for number in 0..EDITS {
            let at = self.draw.below(ids.len() as u64) as usize;
            edits.push(match number % 6 {
                0 => {
                    self.inserted += 1;
                    let insert = RecordEdit::Insert {
                        part: 0,
                        created_at: self.world.sandbox.now(),
                        lead: false,
                    };
                    (format!("newcomer{:03}", self.inserted), insert)
                }
                1 => (ids.remove(at), RecordEdit::Vanish),
                _ => (ids.remove(at), RecordEdit::Touch),
            });
        }
        let gone = edits.iter().filter(|(_, edit)| *edit == RecordEdit::Vanish);
        self.vanished.extend(gone.map(|(id, _)| id.clone()));
        edits
    }

    /// Has rows shift before a run, and has them shift while it reads.
    fn shift(&mut self) {
        for (id, edit) in self.edits() {
            self.world.sandbox.edit_record(Stream::Contacts, &id, edit).unwrap();
        }
        let edits = self.edits();
        let script = edits.into_iter().map(|(id, edit)| {
            let after_requests = 1 + self.draw.below(ALLOWANCE as u64 - 10);
            ScriptedRecordEdit { after_requests, stream: Stream::Contacts, id, edit }
        });
        let record_script = script.collect::<Vec<_>>();
        let gone = |edit: &&ScriptedRecordEdit| edit.edit == RecordEdit::Vanish;
        self.vanished_under_a_run += record_script.iter().filter(gone).count();
        self.behave(record_script);
    }

    fn behave(&self, record_script: Vec<ScriptedRecordEdit>) {
        let whautomate = WhautomateBehaviour { order: self.order, ..Default::default() };
        self.world.sandbox.behave(Behaviour { whautomate, record_script, ..Behaviour::default() });
    }

    /// Runs the program to its end, or until it has sent `kill_after` requests; returns its exit
    /// code, `None` where it was killed.
    async fn run(&mut self, kill_after: Option<usize>) -> Option<i32> {
        let before = self.world.sandbox.requests().len();
        let keys = self.world.sandbox.whautomate_keys();
        let mut child = start_sync(&self.job, self.ahead, &[("TRIAL_KEY", keys[0].as_str())]);
        loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                return status.code();
            }
            let sent = self.world.sandbox.requests().len() - before;
            if kill_after.is_some_and(|after| sent >= after) {
                child.0.kill().unwrap();
                child.0.wait().unwrap();
                self.kills += 1;
                return None;
            }
            #[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets a day pass, and the minutes for which the ledger takes a permit to be under way.
    fn pass_a_day(&mut self) {
        let day = TimeDelta::hours(24) + TimeDelta::minutes(5);
        self.world.sandbox.advance(day);
        self.ahead += day;
    }

    /// Reads until all is done, a day after the other, killed on the first of them; returns how many
    /// days it took, and how many requests the day bought that bought the fewest, but for the last.
    async fn read(&mut self, kills: usize, shifts: bool) -> (u32, usize) {
        let (mut days, mut fewest) = (1, ALLOWANCE);
        let mut before = self.world.sandbox.requests().len();
        let mut kills_of_day = 0;
        let last = self.kills + kills;
        loop {
            if shifts {
                self.shift();
            }
            let after = 5 + self.draw.below(30) as usize;
            let kill_after = (self.kills < last && kills_of_day < 2).then_some(after);
            match self.run(kill_after).await {
                None => kills_of_day += 1,
                Some(0) => return (days, fewest),
                Some(8) => {
                    let sent = self.world.sandbox.requests().len() - before;
                    fewest = fewest.min(sent + kills_of_day * LOST_BY_A_KILL);
                    self.pass_a_day();
                    (before, kills_of_day) = (self.world.sandbox.requests().len(), 0);
                    days += 1;
                }
                code => panic!("it ended with {code:?} on day {days}"),
            }
            assert!(days < 20, "it never ends");
        }
    }

    /// Tells whether the last run said that its reading may not have shown all.
    fn is_unsettled(&self) -> bool {
        let last = commit::runs(&self.world.store()).unwrap().remove(0);
        last.summary.is_some_and(|summary| summary["sources"]["clinic"]["unsettled"].is_array())
    }

    /// Leads that change files say are gone.
    fn deleted(&self) -> BTreeSet<String> {
        let commits = commit::list(&self.world.store()).unwrap().into_iter();
        let changes = commits.flat_map(|seq| self.world.changes(seq));
        changes.filter(|(op, _, _, _)| op == "delete").map(|(_, _, lead, _)| lead).collect()
    }

    /// Asserts that no 24 hours have seen more than a trial has, and no contact left that is there.
    fn assert_lawful(&self) {
        let requests = self.world.sandbox.requests();
        assert!(most_a_day(&requests) <= ALLOWANCE, "{:?}", self.order);
        assert!(requests.iter().all(|request| request.status != 429), "{:?}", self.order);
        let vanished: BTreeSet<String> = self.vanished.iter().map(|id| key(id)).collect();
        let falsely: Vec<String> = self.deleted().difference(&vanished).cloned().collect();
        assert!(falsely.is_empty(), "{:?}: {falsely:?}", self.order);
    }
}

fn key(contact: &str) -> String {
    format!("whautomate:contacts:{contact}")
}

/// Reads a trial account over days, with kills and moving rows, and then without them; returns what
/// there is to say.
async fn on_trial(order: Order, contacts: u64) -> String {
    let mut trial = Trial::new(order, contacts).await;
    let at_first: BTreeSet<String> = trial.contacts();
    let (days, fewest) = trial.read(KILLS, true).await;
    assert_eq!(trial.kills, KILLS);
    assert!(days >= 3 && fewest >= ALLOWANCE, "{order:?}: {days} days, {fewest} requests");
    trial.assert_lawful();

    // What was there all the time is there, once. A row that leaves while the page after it is asked
    // for lets another slip past, and nothing shows that; where many have moved the run says that not
    // all of them were found. The next reading brings them.
    let stayed: BTreeSet<String> = at_first.intersection(&trial.contacts()).cloned().collect();
    let rows = trial.world.rows();
    let missed = stayed.iter().filter(|id| !rows.contains_key(&key(id))).count();
    let told = trial.is_unsettled();
    assert!(missed <= trial.vanished_under_a_run || told, "{order:?}: {missed} missed");
    assert!(missed < 20, "{order:?}: {missed} of {} missed", stayed.len());

    trial.behave(Vec::new());
    let mut nights = 0;
    while trial.world.rows().len() != trial.contacts().len() || nights < 3 {
        trial.pass_a_day();
        trial.read(0, false).await;
        trial.assert_lawful();
        nights += 1;
        assert!(nights < 18, "{order:?}: what is gone never leaves");
    }
    let name = "clinic".parse().unwrap();
    assert_same(&trial.world.rows(), &trial.world.truth_of(&name).await);
    let sent = trial.world.sandbox.requests().len();
    format!(
        "{order:?}: {contacts} contacts in {days} days, {missed} slipped past and came later{}, \
         {} deleted; {sent} requests in all, at most {} in 24 hours",
        if told { " (that not all was sure to be shown, the run said)" } else { "" },
        trial.deleted().len(),
        most_a_day(&trial.world.sandbox.requests())
    )
}

/// Tries the first of the orders, and all of them where the number of contacts is asked for.
async fn on_trials(orders: &[Order]) {
    let contacts = number_from("LEADPIPE_CONTACTS", 0);
    let tried = if contacts > 0 { orders } else { &orders[..1] };
    for order in tried {
        let figures = on_trial(*order, if contacts > 0 { contacts } else { 960 }).await;
        #[expect(clippy::print_stdout, reason = "the figures of a long run")]
        {
            println!("{figures}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_over_days_killed_and_shifted_to_the_top_brings_every_contact_and_deletes_none_falsely()
 {
    on_trials(&[Order::UpdatedDescending, Order::CreatedDescending]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_over_days_killed_and_shifted_to_the_end_brings_every_contact_and_deletes_none_falsely()
 {
    on_trials(&[Order::UpdatedAscending, Order::CreatedAscending, Order::Id]).await;
}
