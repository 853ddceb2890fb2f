//! A world that is watched: what the provider really had, and what the lake makes of it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use chrono::TimeDelta;
use leadpipe::run::SourceSummary;
use leadpipe::run::Summary;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::Order;
use leadpipe::sandbox::Provider;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Stream;
use serde_json::Map;
use serde_json::json;

use crate::support::MASTER;
use crate::support::Replayed;
use crate::support::Rows;
use crate::support::World;
use crate::support::difference;
use crate::support::key;
use crate::support::process::Draw;
use crate::support::records::HEAD;
use crate::support::records::of;
use crate::support::records::small_bots;
use crate::support::records::small_clinic;

/// A world of one provider, all of which is read every night.
pub(super) struct Watched {
    pub(super) provider: Provider,
    pub(super) world: World,
    /// What the provider has now.
    truth: Rows,
    /// Every content that the provider has had of a lead.
    versions: BTreeMap<String, BTreeSet<String>>,
    deleted: BTreeSet<String>,
    held: Rows,
    replayed: Replayed,
    /// Whether the run before has left something to go on with.
    goes_on: bool,
    /// Whether a listing may be said to end too early: what is held is right then, but not all of it.
    pub(super) may_end_early: bool,
}

/// A run, and what it cost.
pub(super) struct Ran {
    pub(super) exit: i32,
    pub(super) summary: Summary,
    pub(super) source: SourceSummary,
    pub(super) requests: usize,
}

pub(super) fn source_of(provider: Provider) -> &'static str {
    match provider {
        Provider::WhatConverts => "acme",
        Provider::Whautomate => "clinic",
        Provider::Convertalk => "bots",
    }
}

/// What differs from [`Behaviour::default`] in every world here: an order from which nobody can tell
/// what is new, so that every night reads all.
pub(super) fn quiet() -> Behaviour {
    let mut behaviour = Behaviour::default();
    (behaviour.whautomate.order, behaviour.convertalk.order) = (Order::Id, Order::Id);
    behaviour
}

const CONTACTS: Listing = Listing::Contacts { account: 0 };
const LEADS: Listing = Listing::Chats { bot: 0, lead: true };
const OTHERS: Listing = Listing::Chats { bot: 0, lead: false };

impl Watched {
    /// Begins one in a world of `seed`; `more` are keys of its source.
    pub(super) async fn begin(provider: Provider, seed: u64, more: &str) -> Self {
        let more = format!("max_body_megabytes = 1\n{more}");
        let tail = "[load]\ncompression = \"none\"\n";
        let world = match provider {
            Provider::WhatConverts => {
                let settings = Settings {
                    seed,
                    leads: 70,
                    years: 1,
                    accounts: 1,
                    profiles: 2,
                    still: true,
                    behaviour: quiet(),
                    ..Settings::default()
                };
                let mut world = World::new(settings).await;
                let job = MASTER.replace("2021-01-01", "2025-10-20");
                let tail = format!("[refresh]\nevery_run = \"all\"\n{tail}");
                world.job = format!("{job}page_size = 10\n{more}\n{tail}");
                world
            }
            Provider::Whautomate => {
                let settings = Settings { contacts: 42, clients: 13, ..small_clinic() };
                let settings = Settings { seed, behaviour: quiet(), ..settings };
                World::clinic(settings, &format!("page_size = 10\n{more}\n{tail}")).await
            }
            Provider::Convertalk => {
                let settings = Settings { convertalk_bots: 1, chats: 75, users: 0, ..small_bots() };
                let settings = Settings { seed, behaviour: quiet(), ..settings };
                World::bots(settings, &format!("{more}\n{tail}")).await
            }
        };
        assert!(world.job.contains(HEAD.trim_end()) || provider == Provider::WhatConverts);
        Self {
            provider,
            world,
            truth: Rows::new(),
            versions: BTreeMap::new(),
            deleted: BTreeSet::new(),
            held: Rows::new(),
            replayed: Replayed::default(),
            goes_on: false,
            may_end_early: false,
        }
    }

    /// Sets what goes wrong from now on.
    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = quiet();
        change(&mut behaviour);
        self.world.sandbox.behave(behaviour);
    }

    /// Takes note of what the provider has: to be called whenever something has changed.
    async fn look(&mut self) {
        // The mapping needs the key of a lake, which its first commit brings.
        if self.world.has_head() {
            let source = source_of(self.provider).parse().unwrap();
            self.truth = self.world.truth_of(&source).await;
            for (lead, hash) in &self.truth {
                self.versions.entry(lead.clone()).or_default().insert(hash.clone());
            }
        }
    }

    /// Syncs, and looks at what holds after every run, whatever goes wrong in it.
    pub(super) async fn sync(&mut self, name: &str) -> Ran {
        let before = self.world.sandbox.requests().len();
        let summary = self.world.sync().await;
        let requests = self.world.sandbox.requests().len() - before;
        let source = of(&summary, source_of(self.provider)).clone();
        let ran = Ran { exit: summary.exit_code(), summary, source, requests };
        self.look().await;
        if self.world.has_head() {
            self.assert_sound(&ran, name);
        } else {
            assert_ne!(ran.exit, 0, "{name}: nothing is committed, and all is said to be well");
        }
        ran
    }

    fn assert_sound(&mut self, ran: &Ran, name: &str) {
        let rows = self.world.rows();
        let extra = self.world.column("extra");
        let source = &ran.source;
        // What a fault adds to a record is what the provider says: only `extra` may have it.
        let is_altered = |lead: &String| {
            extra.get(lead).and_then(Option::as_ref).is_some_and(|text| text.contains("\"strange"))
        };
        for (lead, hash) in &rows {
            let had = self.versions.get(lead);
            assert!(had.is_some(), "{name}: {lead} was never there: {source:?}");
            let is_known = had.is_some_and(|had| had.contains(hash));
            assert!(is_known || is_altered(lead), "{name}: {lead} never was so: {source:?}");
        }
        let lost = self.held.keys().filter(|lead| !rows.contains_key(*lead));
        let lost: Vec<_> = lost.filter(|lead| !self.deleted.contains(*lead)).collect();
        assert!(lost.is_empty(), "{name}: lost {lost:?}: {source:?}");
        self.replayed.go_on(&self.world);
        assert_eq!(difference(&self.replayed.rows, &rows), None, "{name}: the changes: {source:?}");
        // What an earlier run has read of what it could not finish is not asked for again: that is as of
        // then. And where rows may have been hidden, the run says so itself, and the next one brings them.
        let says_all = !self.goes_on && source.unsettled.is_empty();
        if ran.exit == 0 && says_all && !self.may_end_early {
            let is_right = |(lead, hash): &(&String, &String)| {
                rows.get(*lead).is_some_and(|held| held == *hash || is_altered(lead))
            };
            let wrong: Vec<_> = self.truth.iter().filter(|row| !is_right(row)).collect();
            assert!(wrong.is_empty(), "{name}: all is said to be well, but {wrong:?}: {source:?}");
        }
        self.goes_on = source.walks_left > 0;
        self.held = rows;
    }

    /// Lets nights pass without a fault until the snapshot is the truth; returns how many it took.
    pub(super) async fn heal(&mut self, name: &str) -> u32 {
        self.behave(|_| {});
        self.may_end_early = false;
        let mut last = None;
        // What was edited long ago is read again within the week.
        for night in 1..=9 {
            let wait =
                last.and_then(|ran: Ran| Some(ran.summary.resume_at? - ran.summary.ended_at));
            self.world.pass(wait.unwrap_or_default().max(TimeDelta::days(1)));
            let ran = self.sync(name).await;
            if ran.exit == 0 && difference(&self.held, &self.truth).is_none() {
                return night;
            }
            last = Some(ran);
        }
        let ran = last.unwrap();
        let differs = difference(&self.held, &self.truth);
        panic!("{name}: it never heals: {differs:?}, exit {}, {:#?}", ran.exit, ran.source);
    }

    /// Waits until the provider may be asked again, at least for a day.
    pub(super) fn pass_after(&self, ran: &Ran) {
        let wait = ran.summary.resume_at.map(|at| at - ran.summary.ended_at);
        self.world.pass(wait.unwrap_or_default().max(TimeDelta::days(1)));
    }

    /// Changes a few leads, takes one off and adds one.
    pub(super) async fn stir(&mut self, draw: &mut Draw) {
        match self.provider {
            Provider::WhatConverts => self.stir_leads(draw),
            Provider::Whautomate => self.stir_records(Stream::Contacts, CONTACTS, draw),
            Provider::Convertalk => {
                self.stir_records(Stream::Chats, LEADS, draw);
                let others = self.world.sandbox.record_ids(OTHERS).unwrap();
                let becomes = &others[draw.below(others.len() as u64) as usize];
                self.edit_record(Stream::Chats, becomes, RecordEdit::Lead);
            }
        }
        self.look().await;
    }

    fn stir_leads(&mut self, draw: &mut Draw) {
        let sandbox = &self.world.sandbox;
        let ids = sandbox.lead_ids();
        let mut any = || ids[draw.below(ids.len() as u64) as usize];
        let (edited, moved, (_, gone)) = (any(), any(), any());
        let name = format!("Robin {}", draw.below(1_000));
        let set = Map::from_iter([("contact_name".to_owned(), json!(name))]);
        sandbox.edit(edited.1, Edit::Set(set)).unwrap();
        let other = sandbox.profile_ids().into_iter().find(|id| *id != moved.0).unwrap();
        sandbox.edit(moved.1, Edit::Profile(other)).unwrap();
        sandbox.edit(gone, Edit::Vanish).unwrap();
        sandbox.insert(other, sandbox.now() - TimeDelta::days(3)).unwrap();
        self.deleted.insert(key(gone));
    }

    fn stir_records(&mut self, stream: Stream, listing: Listing, draw: &mut Draw) {
        let ids = self.world.sandbox.record_ids(listing).unwrap();
        let mut any = || ids[draw.below(ids.len() as u64) as usize].clone();
        let (edited, gone) = (any(), any());
        let field = if stream == Stream::Contacts { "name" } else { "profile.userDetails.city" };
        let set =
            Map::from_iter([(field.to_owned(), json!(format!("Town {}", draw.below(1_000))))]);
        self.edit_record(stream, &edited, RecordEdit::Set(set));
        self.edit_record(stream, &gone, RecordEdit::Vanish);
        let at = self.world.sandbox.now() - TimeDelta::days(3);
        self.world.sandbox.insert_record(listing, at).unwrap();
        let kind =
            if stream == Stream::Contacts { "whautomate:contacts" } else { "convertalk:chats" };
        self.deleted.insert(format!("{kind}:{gone}"));
    }

    fn edit_record(&self, stream: Stream, id: &str, edit: RecordEdit) {
        self.world.sandbox.edit_record(stream, id, edit).unwrap();
    }
}
