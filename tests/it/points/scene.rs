//! The job that is killed: three providers, in stages from a first sync to a backfill.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use chrono::DateTime;
use chrono::Days;
use chrono::TimeDelta;
use chrono::Utc;
use leadpipe::clock::Clock;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::Provider;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;
use leadpipe::store::Place;
use leadpipe::store::Store;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::sight;
use crate::support::MASTER;
use crate::support::process;
use crate::support::records::CLINIC;
use crate::support::records::bots;

/// The machine's clock, which can be halted: then all sandboxes see the same instant.
#[derive(Debug, Default)]
struct Halting {
    real: SystemClock,
    halted: Mutex<Option<DateTime<Utc>>>,
}

#[async_trait]
impl Clock for Halting {
    fn now(&self) -> DateTime<Utc> {
        self.halted.lock().unwrap().unwrap_or_else(|| self.real.now())
    }

    async fn sleep_until(&self, deadline: DateTime<Utc>) {
        self.real.sleep_until(deadline).await;
    }
}

/// What a test does with a lake, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    /// Days after the first sync.
    pub(super) day: u32,
    /// What happens at the providers before it.
    pub(super) happens: fn(&Sandbox),
    /// What its job has in place of the usual.
    pub(super) changes: &'static [(&'static str, &'static str)],
}

const KEEP: (&str, &str) =
    ("[keep]\n", "[keep]\nsnapshots = 1\nsnapshot_age = \"1h\"\nchanges = \"3d\"\n");
const ABROAD: (&str, &str) = ("\"USD\"", "\"GBP\"");

/// The stages, each of which goes on where the one before it ended.
pub(super) const STAGES: [Stage; 5] = [
    Stage { name: "first", command: "sync", day: 0, happens: |_| (), changes: &[] },
    Stage { name: "night", command: "sync", day: 1, happens: stir, changes: &[] },
    Stage { name: "keeping", command: "sync", day: 9, happens: |_| (), changes: &[KEEP] },
    Stage { name: "replay", command: "replay", day: 9, happens: |_| (), changes: &[KEEP, ABROAD] },
    // A commit for every message that brings something.
    Stage {
        name: "backfill",
        command: "backfill",
        day: 9,
        happens: stir_what_is_old,
        changes: &[KEEP, ABROAD, ("\"30m\"", "\"1ms\"")],
    },
];

/// Sandboxes that show the same world, one for each child that runs at a time.
pub(super) struct Scene {
    sandboxes: Vec<Sandbox>,
    clock: Arc<Halting>,
    pub(super) folder: tempfile::TempDir,
    /// The address in a bucket below which the lakes lie; without it they lie in the folder.
    bucket: Option<String>,
    /// When the world was begun.
    began: DateTime<Utc>,
}

/// Requests by source.
pub(super) type Asked = BTreeMap<String, usize>;

/// How a run of the program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; nothing where it died.
    pub(super) code: Option<i32>,
    pub(super) told: String,
    /// How many requests it sent.
    pub(super) asked: Asked,
}

impl Scene {
    pub(super) async fn start(children: usize) -> Self {
        Self::start_at(children, None).await
    }

    /// The same with all lakes in a bucket, below an address of their own.
    pub(super) async fn in_bucket(children: usize, address: &str) -> Self {
        Self::start_at(children, Some(address.to_owned())).await
    }

    async fn start_at(children: usize, bucket: Option<String>) -> Self {
        let clock = Arc::new(Halting::default());
        let began = DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
        let mut sandboxes = Vec::new();
        for _ in 0..children {
            let shared: SharedClock = clock.clone();
            sandboxes.push(Sandbox::start(world(began), 0, shared).await.unwrap());
        }
        Self { sandboxes, clock, folder: tempfile::tempdir().unwrap(), bucket, began }
    }

    /// Lets happen what happens before a stage.
    pub(super) fn begin(&self, stage: &Stage, days_since: u32) {
        *self.clock.halted.lock().unwrap() = Some(self.clock.real.now());
        for sandbox in &self.sandboxes {
            sandbox.advance(TimeDelta::days(days_since.into()));
            (stage.happens)(sandbox);
        }
        *self.clock.halted.lock().unwrap() = None;
        assert!(self.sandboxes.windows(2).all(|pair| pair[0].leads() == pair[1].leads()));
    }

    /// Runs a stage on the lake in `folder` with child number `child`, under a plan for its points.
    pub(super) fn run(
        &self,
        stage: &Stage,
        child: usize,
        folder: &Path,
        plan: Option<&str>,
    ) -> Ended {
        self.run_at(stage, child, folder, plan, TimeDelta::zero())
    }

    /// The same with a clock that is put off.
    pub(super) fn run_at(
        &self,
        stage: &Stage,
        child: usize,
        folder: &Path,
        plan: Option<&str>,
        off: TimeDelta,
    ) -> Ended {
        let sandbox = &self.sandboxes[child];
        let ahead = TimeDelta::days(stage.day.into()) + off;
        let job = folder.join("job.toml");
        // Two windows.
        let start = self.days_before(500);
        let text = job_text(sandbox, stage).replace("2021-01-01", &start);
        let lake = format!("lake = \"{}\"", self.place(folder));
        let text = text.replacen("lake = \"lake\"", &lake, 1);
        self.let_lease_lapse(folder, ahead);
        fs::write(&job, text).unwrap();
        let (token, secret) = sandbox.master_key();
        let (clinic, bots) = (sandbox.whautomate_keys().remove(0), sandbox.convertalk_token());
        let mut variables = vec![
            ("POINTS_TOKEN", &*token),
            ("POINTS_SECRET", &*secret),
            ("POINTS_CLINIC", &*clinic),
            ("POINTS_BOTS", &*bots),
            ("POINTS_KEY", "a key of the tests alone"),
            ("TMPDIR", folder.to_str().unwrap()),
        ];
        variables.extend(plan.map(|plan| ("LEADPIPE_POINTS", plan)));
        let (from, to) = (self.days_before(200), self.days_before(100));
        let range = ["--from", &from, "--to", &to, "--again", "--source", "acme"];
        let arguments: &[&str] = if stage.command == "backfill" { &range } else { &[] };
        let told = folder.join("told");
        let file = fs::File::create(&told).unwrap();
        sandbox.clear_requests();
        let mut running =
            process::start(stage.command, &job, arguments, ahead, &variables, Stdio::from(file));
        let status = running.0.wait().unwrap();
        let told = fs::read_to_string(told).unwrap();
        let mut asked = Asked::new();
        for request in sandbox.requests() {
            let source = match request.provider.unwrap() {
                Provider::WhatConverts => "acme",
                Provider::Whautomate => "clinic",
                Provider::Convertalk => "bots",
            };
            *asked.entry(source.to_owned()).or_default() += 1;
        }
        Ended { code: status.code(), told, asked }
    }

    fn days_before(&self, days: u64) -> String {
        (self.began.date_naive() - Days::new(days)).to_string()
    }

    /// Makes a folder for a lake, with a copy of the one in `from`.
    pub(super) fn folder_with(&self, name: &str, from: Option<&Path>) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let from = from.map(|from| self.lake(from)).filter(|from| from.exists("").unwrap());
        if let Some(from) = from {
            sight::copy(&from, &self.lake(&folder));
        }
        folder
    }

    /// Returns the lake that belongs to a folder.
    pub(super) fn lake(&self, folder: &Path) -> Store {
        Store::at(&self.place(folder)).unwrap()
    }

    fn place(&self, folder: &Path) -> Place {
        match &self.bucket {
            None => Place::Folder(folder.join("lake")),
            Some(address) => {
                let name = folder.file_name().unwrap().to_string_lossy();
                Place::bucket(&format!("{address}/{name}/lake")).unwrap()
            }
        }
    }

    /// Lets the time pass after which a lease in a bucket is another's to take.
    fn let_lease_lapse(&self, folder: &Path, ahead: TimeDelta) {
        let lake = self.lake(folder);
        if !lake.is_bucket() {
            return;
        }
        let Some(lease) = lake.read_if_exists("state/lock").unwrap() else { return };
        let mut lease: Map<String, Value> = serde_json::from_slice(&lease).unwrap();
        if let Some(until) = lease.get_mut("until") {
            *until = json!(self.clock.now() + ahead - TimeDelta::minutes(3));
            lake.write("state/lock", &serde_json::to_vec(&lease).unwrap()).unwrap();
        }
    }

    /// Removes a folder, and its lake.
    pub(super) fn remove(&self, folder: &Path) {
        let lake = self.lake(folder);
        if lake.is_bucket() {
            lake.remove_all("").unwrap();
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

/// A small world: some pages of every kind of listing.
fn world(now: DateTime<Utc>) -> Settings {
    let mut behaviour = Behaviour::default();
    // No reading shows this order, so that every night reads all of a listing.
    (behaviour.whautomate.order, behaviour.convertalk.order) = (Order::Id, Order::Id);
    behaviour.convertalk.page_size = 10;
    Settings {
        leads: 48,
        years: 1,
        accounts: 1,
        profiles: 2,
        now,
        still: true,
        whautomate_accounts: 1,
        contacts: 25,
        clients: 6,
        convertalk_bots: 1,
        chats: 24,
        per_day: Some(1_000_000),
        whautomate_per_day: Some(1_000_000),
        whautomate_per_minute: Some(1_000_000),
        behaviour,
        ..Settings::default()
    }
}

const CONTACTS: Listing = Listing::Contacts { account: 0 };

fn set(field: &str, value: Value) -> RecordEdit {
    RecordEdit::Set(Map::from_iter([(field.to_owned(), value)]))
}

/// What can happen to leads and records between two nights: they come, change, move and go.
fn stir(sandbox: &Sandbox) {
    let leads = sandbox.lead_ids();
    let profiles = sandbox.profile_ids();
    let at = |number: usize| leads[leads.len() - 1 - number].1;
    let edit = |lead, edit| sandbox.edit(lead, edit).unwrap();
    edit(at(0), Edit::Set(Map::from_iter([("lead_status".to_owned(), json!("Repeat"))])));
    edit(at(1), Edit::Vanish);
    // Across a year, and with it to another partition; only the days of every run are read.
    let created = sandbox.now() - TimeDelta::days(20);
    edit(leads[0].1, Edit::Created(created));
    let (owner, lead) = leads[leads.len() - 3];
    let other = profiles.into_iter().find(|profile| *profile != owner).unwrap();
    edit(lead, Edit::Profile(other));
    sandbox.insert(owner, sandbox.now() - TimeDelta::minutes(10)).unwrap();
    // One that cannot be mapped.
    let nameless = sandbox.insert(owner, sandbox.now() - TimeDelta::minutes(10)).unwrap();
    edit(nameless, Edit::Remove(vec!["lead_id".to_owned()]));

    let contacts = sandbox.record_ids(CONTACTS).unwrap();
    let record = |stream, id: &str, edit| sandbox.edit_record(stream, id, edit).unwrap();
    record(Stream::Contacts, &contacts[3], set("name", json!("Robin Changed")));
    record(Stream::Contacts, &contacts[5], RecordEdit::Vanish);
    sandbox.insert_record(CONTACTS, sandbox.now() - TimeDelta::minutes(9)).unwrap();
    let chats = |lead| sandbox.record_ids(Listing::Chats { bot: 0, lead }).unwrap();
    record(Stream::Chats, &chats(false)[1], RecordEdit::Lead);
    record(Stream::Chats, &chats(true)[2], RecordEdit::Vanish);
    let city = set("profile.userDetails.city", json!("Newville"));
    record(Stream::Chats, &chats(true)[3], city);
}

/// Leads that only the backfill reads again.
fn stir_what_is_old(sandbox: &Sandbox) {
    let leads = sandbox.leads();
    let created = |lead: &Value| lead["date_created"].as_str().and_then(|at| at.parse().ok());
    let age = |at: DateTime<Utc>| (sandbox.now() - at).num_days();
    let is_read = |lead: &&Value| created(lead).is_some_and(|at| (115..200).contains(&age(at)));
    let old: Vec<u64> =
        leads.iter().filter(is_read).filter_map(|lead| lead["lead_id"].as_u64()).collect();
    assert!(old.len() > 3, "{old:?}");
    for lead in &old[1..] {
        let status = Map::from_iter([("lead_status".to_owned(), json!("Changed"))]);
        sandbox.edit(*lead, Edit::Set(status)).unwrap();
    }
}

/// The job of a stage, which reads from a sandbox.
fn job_text(sandbox: &Sandbox, stage: &Stage) -> String {
    let url = sandbox.url();
    // No rate but that of the sandbox: children run in real time.
    let quota = "[sources.quota]\nrate = \"600000/min\"\n";
    let from = format!("page_size = 10\nbase_url = \"{url}\"\n{quota}");
    let agency = MASTER.replacen("\"UNUSED\"", "\"POINTS_TOKEN\"", 1);
    let agency = agency.replacen("\"UNUSED\"", "\"POINTS_SECRET\"", 1);
    let clinic = CLINIC.replace("\"UNUSED\"", "\"POINTS_CLINIC\"");
    let bots = bots(sandbox).replace("\"UNUSED\"", "\"POINTS_BOTS\"");
    let bots = bots.replace("https://chat.example.com", &url);
    let mut job = format!(
        "{agency}{from}{clinic}{from}{bots}{quota}\n[load]\nformat = \"both\"\n\
         max_delete_ratio = \"50%\"\nmax_reject_ratio = \"50%\"\n[run]\npublish_every = \"30m\"\n[keep]\n\
         [archive]\nkeep = \"5d\"\n[privacy]\nkey = {{ env = \"POINTS_KEY\" }}\n",
    );
    for (usual, other) in stage.changes {
        assert!(job.contains(usual), "{usual}");
        job = job.replace(usual, other);
    }
    job
}

/// How often each point was passed, with its kind, by name.
pub(super) fn passed(record: &Path) -> BTreeMap<String, (String, u64)> {
    let mut points = BTreeMap::new();
    for line in fs::read_to_string(record).unwrap().lines() {
        let (kind, name) = line.split_once(' ').unwrap();
        points.entry(name.to_owned()).or_insert_with(|| (kind.to_owned(), 0)).1 += 1;
    }
    points
}
