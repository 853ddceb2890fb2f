//! The invented world: accounts, profiles, and leads that come, change and go.
//!
//! Everything that happens is a function of (seed, settings, number of the lead, time), so the same
//! world comes back after a restart. What is kept of a lead is a [`Row`] of 56 bytes, sorted by
//! creation; all else is drawn again when it is asked for. Time only moves forward.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;

use chrono::DateTime;
use chrono::SecondsFormat;
use serde_json::Map;
use serde_json::Value;

use super::Error;
use super::Settings;
use super::behaviour::Edit;
use super::calendar::Calendar;
use super::calendar::DAY;
use super::calendar::HOUR;
use super::dice::Dice;
use super::dice::Purpose;

/// Ids were there in 2025.
const FIRST_ID: u64 = 179_000_000;
/// Ids of leads drawn from the seed lie below; `Sandbox::insert` gives ids from here on.
pub(super) const FIRST_INSERTED_ID: u64 = 400_000_000;
/// Spam is removed this long after it was marked, as the vendor documents.
const SPAM_STAYS: i64 = 30 * DAY as i64;
/// Beyond it the ids would reach those of inserted leads.
const MOST_LEADS: u64 = 50_000_000;
const NEVER: i64 = i64::MAX;

const ACCOUNT_NAMES: [&str; 8] = [
    "Harbor Dental Group",
    "Northwind Roofing",
    "Bill's Deli",
    "Müller & Söhne HVAC",
    "Joe's Farm",
    "Bright/Side Solar",
    "First Street Law",
    "Peak \"24h\" Fitness",
];
const PROFILE_NAMES: [&str; 8] = [
    "Main Site",
    "NYC Location",
    "Spanish Landing",
    "Google Ads",
    "West",
    "Emergency",
    "Café",
    "Events",
];

/// What kind of contact a lead is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Form,
    Chat,
    Text,
    Email,
    Event,
    Transaction,
    Appointment,
    Other,
}

/// Kinds, as often as they come in a hundred leads.
const KINDS: [(Kind, u32); 9] = [
    (Kind::Call, 42),
    (Kind::Form, 30),
    (Kind::Chat, 8),
    (Kind::Text, 7),
    (Kind::Email, 3),
    (Kind::Event, 3),
    (Kind::Transaction, 3),
    (Kind::Appointment, 2),
    (Kind::Other, 2),
];

/// A customer of the agency.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) id: u64,
    pub(super) name: String,
    /// Seconds since the epoch.
    pub(super) created: i64,
}

/// A site or place of an account.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) id: u64,
    pub(super) name: String,
    /// Position in [`World::accounts`].
    pub(super) account: usize,
    /// Seconds since the epoch.
    pub(super) created: i64,
}

/// What is kept of a lead; times are seconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: u64,
    /// Number of the lead: the key to its dice.
    pub(super) index: u64,
    /// When it came into the system.
    pub(super) arrives: i64,
    /// The creation time it shows, by which it is listed.
    pub(super) created: i64,
    /// When it is marked spam.
    pub(super) spam: i64,
    /// When it leaves every list.
    pub(super) gone: i64,
    /// Position in [`World::profiles`].
    pub(super) profile: u16,
    pub(super) kind: Kind,
    pub(super) duplicate: bool,
    pub(super) repeat: bool,
    pub(super) undated: bool,
}

impl Row {
    /// Says whether the lead is there at `now`.
    pub(super) fn is_listed(&self, now: i64) -> bool {
        self.arrives <= now && now < self.gone
    }

    fn key(&self) -> (i64, u64) {
        (self.created, self.id)
    }
}

/// What has become of a lead, as of an instant; times are seconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// The call or chat is over.
    pub(super) completed: bool,
    /// Transcript and analysis are there.
    pub(super) analysed: bool,
    /// Somebody said whether it can be quoted.
    pub(super) judged: bool,
    /// It has a quote.
    pub(super) quoted: bool,
    /// It has a sale.
    pub(super) sold: bool,
    /// It has notes.
    pub(super) noted: bool,
    /// How often it was edited late.
    pub(super) revision: u32,
    /// The last of these events.
    pub(super) touched: i64,
}

/// The dice of a life; the numbers are rolls.
mod roll {
    pub(super) const FRACTION: usize = 0;
    pub(super) const TIE: usize = 1;
    pub(super) const PROFILE: usize = 2;
    pub(super) const KIND: usize = 3;
    pub(super) const ID: usize = 4;
    pub(super) const DUPLICATE: usize = 5;
    pub(super) const REPEAT: usize = 6;
    pub(super) const SPAM: usize = 7;
    pub(super) const SPAM_AT: usize = 8;
    pub(super) const GONE: usize = 9;
    pub(super) const GONE_AT: usize = 10;
    pub(super) const MOVE: usize = 11;
    pub(super) const MOVE_AT: usize = 12;
    pub(super) const MOVE_BY: usize = 13;
    pub(super) const BACKDATED: usize = 14;
    pub(super) const BACKDATED_BY: usize = 15;
    pub(super) const COMPLETED: usize = 16;
    pub(super) const ANALYSED: usize = 17;
    pub(super) const JUDGED: usize = 18;
    pub(super) const JUDGED_AT: usize = 19;
    pub(super) const QUOTED: usize = 20;
    pub(super) const QUOTED_AT: usize = 21;
    pub(super) const SOLD: usize = 22;
    pub(super) const SOLD_AT: usize = 23;
    pub(super) const NOTED: usize = 24;
    pub(super) const NOTED_AT: usize = 25;
    pub(super) const REVISED: usize = 26;
    pub(super) const SHUFFLE: usize = 27;
}

/// All that exists, as of the last [`World::refresh`].
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) accounts: Vec<Account>,
    pub(super) profiles: Vec<Profile>,
    /// Leads that have come, sorted by creation and id.
    rows: Vec<Row>,
    calendar: Calendar,
    churn_per_day: f64,
    /// The lead that comes next; `None` in a world without leads.
    next: Option<Row>,
    /// Moves of the creation time to come: when, which lead, where to.
    moves: BinaryHeap<Reverse<(i64, u64, i64)>>,
    /// Fields set by hand; `None` takes a field off.
    edits: HashMap<u64, HashMap<String, Option<Value>>>,
    inserted: u64,
}

impl World {
    /// Returns the world of `settings`, without leads until it is refreshed.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        if settings.profiles == 0 || settings.accounts == 0 || settings.profiles > 10_000 {
            return Err(Error::Settings {
                what: "there must be 1 to 10,000 profiles and an account",
            });
        }
        if settings.leads > MOST_LEADS {
            return Err(Error::Settings { what: "there must be at most 50 million leads" });
        }
        let now = settings.now.timestamp();
        let calendar = Calendar::new(settings.leads, settings.years, now);
        let created = calendar.start();
        let (accounts, profiles) = places(settings, created);
        let mut world = Self {
            seed: settings.seed,
            accounts,
            profiles,
            rows: Vec::with_capacity(settings.leads as usize),
            calendar,
            churn_per_day: settings.churn_per_day.max(0.0),
            next: None,
            moves: BinaryHeap::new(),
            edits: HashMap::new(),
            inserted: 0,
        };
        world.next = (settings.leads > 0).then(|| world.draw(0));
        Ok(world)
    }

    /// Says whether something has happened by `now` that the rows do not show yet.
    pub(super) fn is_due(&self, now: i64) -> bool {
        self.next.is_some_and(|row| row.arrives <= now)
            || self.moves.peek().is_some_and(|Reverse((at, _, _))| *at <= now)
    }

    /// Lets happen what happens until `now`.
    pub(super) fn refresh(&mut self, now: i64) {
        let mut sorted = true;
        while let Some(row) = self.next.filter(|row| row.arrives <= now) {
            sorted &= self.rows.last().is_none_or(|last| last.key() <= row.key());
            self.plan_move(&row);
            self.rows.push(row);
            self.next = Some(self.draw(row.index + 1));
        }
        sorted &= !self.apply_moves(now);
        if !sorted {
            self.rows.sort_by_key(Row::key);
        }
    }

    /// Returns the leads created in `from..=to` (and some that have gone), by creation and id.
    pub(super) fn created_in(&self, from: i64, to: i64) -> &[Row] {
        let start = self.rows.partition_point(|row| row.created < from);
        let end = self.rows.partition_point(|row| row.created <= to);
        self.rows.get(start..end).unwrap_or_default()
    }

    /// Returns a lead that has come, also one that has gone.
    pub(super) fn row(&self, id: u64) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// Returns the fields set by hand.
    pub(super) fn edits(&self, id: u64) -> Option<&HashMap<String, Option<Value>>> {
        if self.edits.is_empty() { None } else { self.edits.get(&id) }
    }

    /// Returns the position of a profile.
    pub(super) fn profile(&self, id: u64) -> Option<usize> {
        self.profiles.iter().position(|profile| profile.id == id)
    }

    /// Returns what has become of a lead by `now`.
    pub(super) fn life(&self, row: &Row, now: i64) -> Life {
        let dice = Dice::new(self.seed, Purpose::Life, row.index);
        let mut touched = row.arrives;
        let mut happened = |likely: bool, at: i64| {
            let happened = likely && at <= now;
            if happened {
                touched = touched.max(at);
            }
            happened
        };
        let over = row.arrives + dice.seconds(roll::COMPLETED, 30, 40 * 60);
        let analysed = over + dice.seconds(roll::ANALYSED, 300, 3 * HOUR);
        let judged = over + dice.seconds(roll::JUDGED_AT, HOUR, 20 * DAY);
        let quoted = judged + dice.seconds(roll::QUOTED_AT, HOUR, 15 * DAY);
        let sold = quoted + dice.seconds(roll::SOLD_AT, HOUR, 45 * DAY);
        let noted = over + dice.seconds(roll::NOTED_AT, HOUR, 10 * DAY);
        let is_judged = dice.chance(roll::JUDGED, 450);
        let is_quoted = is_judged && dice.chance(roll::QUOTED, 450);
        let (revision, revised) = self.revision(&dice, row.arrives, now);
        let mut life = Life {
            completed: happened(true, over),
            // Whether the analysis touches `last_updated` is not known: it does for some.
            analysed: analysed <= now,
            judged: happened(is_judged, judged),
            quoted: happened(is_quoted, quoted),
            sold: happened(is_quoted && dice.chance(roll::SOLD, 400), sold),
            noted: happened(dice.chance(roll::NOTED, 120), noted),
            revision,
            touched: 0,
        };
        happened(revision > 0, revised);
        happened(row.spam != NEVER, row.spam);
        life.touched = touched;
        life
    }

    /// Does to a lead what somebody does by hand at `now`.
    pub(super) fn edit(&mut self, id: u64, edit: &Edit, now: i64) -> Result<(), Error> {
        match edit {
            Edit::Set(fields) => self.set(id, fields, now)?,
            Edit::Remove(names) => {
                self.find(id)?;
                let removed = names.iter().map(|name| (name.clone(), None));
                self.edits.entry(id).or_default().extend(removed);
            }
            Edit::Created(at) => {
                let row = self.find(id)?;
                row.created = at.timestamp();
                row.undated = false;
                self.moves.retain(|Reverse((_, moved, _))| *moved != id);
                self.rows.sort_by_key(Row::key);
            }
            Edit::Undated => self.find(id)?.undated = true,
            Edit::Profile(profile) => {
                let profile =
                    self.profile(*profile).ok_or(Error::UnknownProfile { id: *profile })?;
                self.find(id)?.profile = profile as u16;
            }
            Edit::Spam(true) => {
                let row = self.find(id)?;
                row.spam = now;
                row.gone = row.gone.min(now + SPAM_STAYS);
            }
            Edit::Spam(false) => {
                let row = self.find(id)?;
                if row.gone == row.spam.saturating_add(SPAM_STAYS) {
                    row.gone = NEVER;
                }
                row.spam = NEVER;
            }
            Edit::Duplicate(duplicate) => self.find(id)?.duplicate = *duplicate,
            Edit::Vanish => {
                let row = self.find(id)?;
                row.gone = row.gone.min(now);
            }
            Edit::Insert { profile_id, created_at } => {
                self.insert(id, *profile_id, created_at.timestamp(), now)?;
            }
        }
        Ok(())
    }

    /// Returns an id that no lead has.
    pub(super) fn free_id(&mut self) -> u64 {
        self.inserted += 1;
        FIRST_INSERTED_ID + self.inserted
    }

    fn find(&mut self, id: u64) -> Result<&mut Row, Error> {
        // The youngest are changed most, and stand last.
        self.rows.iter_mut().rfind(|row| row.id == id).ok_or(Error::UnknownLead { id })
    }

    fn set(&mut self, id: u64, fields: &Map<String, Value>, now: i64) -> Result<(), Error> {
        self.find(id)?;
        let edits = self.edits.entry(id).or_default();
        let at = DateTime::from_timestamp(now, 0).unwrap_or_default();
        let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        edits.insert("last_updated".to_owned(), Some(Value::String(at)));
        edits.extend(fields.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        Ok(())
    }

    fn insert(&mut self, id: u64, profile: u64, created: i64, now: i64) -> Result<(), Error> {
        if self.row(id).is_some() {
            return Err(Error::TakenId { id });
        }
        let position = self.profile(profile).ok_or(Error::UnknownProfile { id: profile })?;
        // Its dice lie far beyond those of the leads that come by themselves.
        let dice = Dice::new(self.seed, Purpose::Life, (1 << 40) + id);
        let row = Row {
            id,
            index: (1 << 40) + id,
            arrives: created.min(now),
            created,
            spam: NEVER,
            gone: NEVER,
            profile: position as u16,
            kind: kind(&dice),
            duplicate: false,
            repeat: false,
            undated: false,
        };
        let place = self.rows.partition_point(|other| other.key() < row.key());
        self.rows.insert(place, row);
        Ok(())
    }

    /// Draws lead number `index`.
    fn draw(&self, index: u64) -> Row {
        let dice = Dice::new(self.seed, Purpose::Life, index);
        let arrives = self.arrival(index, &dice);
        let back = dice.chance(roll::BACKDATED, 2);
        let back = if back { dice.seconds(roll::BACKDATED_BY, HOUR, 60 * DAY) } else { 0 };
        let spam = arrives + dice.seconds(roll::SPAM_AT, 600, 10 * DAY);
        let spam = if dice.chance(roll::SPAM, 30) { spam } else { NEVER };
        let gone = arrives + dice.seconds(roll::GONE_AT, DAY, 100 * DAY);
        let gone = if dice.chance(roll::GONE, 2) { gone } else { NEVER };
        let profiles = self.profiles.len();
        let profile = (dice.unit(roll::PROFILE).powf(1.6) * profiles as f64) as usize;
        Row {
            id: self.id(index, &dice),
            index,
            arrives,
            created: arrives - back,
            spam,
            gone: gone.min(spam.saturating_add(SPAM_STAYS)),
            profile: profile.min(profiles - 1) as u16,
            kind: kind(&dice),
            duplicate: dice.chance(roll::DUPLICATE, 40),
            repeat: dice.chance(roll::REPEAT, 220),
            undated: false,
        }
    }

    fn arrival(&self, index: u64, dice: &Dice) -> i64 {
        // One in a hundred comes in the same second as the one before it.
        if index > 0 && dice.chance(roll::TIE, 10) {
            let before = Dice::new(self.seed, Purpose::Life, index - 1);
            return self.calendar.arrival((index - 1) as f64 + before.unit(roll::FRACTION)).floor()
                as i64;
        }
        self.calendar.arrival(index as f64 + dice.unit(roll::FRACTION)).floor() as i64
    }

    /// Returns an id that grows with time, but not strictly: eights are shuffled.
    fn id(&self, index: u64, dice: &Dice) -> u64 {
        let eight = Dice::new(self.seed, Purpose::Life, index | 7).below(roll::SHUFFLE, 8);
        FIRST_ID + 3 * (index ^ u64::from(eight)) + u64::from(dice.below(roll::ID, 3))
    }

    fn plan_move(&mut self, row: &Row) {
        let dice = Dice::new(self.seed, Purpose::Life, row.index);
        if dice.chance(roll::MOVE, 1) {
            let at = row.arrives + dice.seconds(roll::MOVE_AT, 2 * DAY, 20 * DAY);
            let by = dice.seconds(roll::MOVE_BY, 0, 72 * HOUR) - i64::from(36 * HOUR);
            self.moves.push(Reverse((at, row.id, row.created + by)));
        }
    }

    /// Moves what is due, in one pass over the rows; says whether anything moved.
    fn apply_moves(&mut self, now: i64) -> bool {
        let mut due = HashMap::new();
        while let Some(Reverse((at, id, to))) = self.moves.peek().copied() {
            if at > now {
                break;
            }
            self.moves.pop();
            due.insert(id, to);
        }
        if due.is_empty() {
            return false;
        }
        for row in &mut self.rows {
            if let Some(to) = due.get(&row.id) {
                row.created = *to;
            }
        }
        true
    }

    /// Returns how often a lead was edited late, and when last.
    fn revision(&self, dice: &Dice, arrives: i64, now: i64) -> (u32, i64) {
        if self.churn_per_day <= 0.0 {
            return (0, NEVER);
        }
        let period = f64::from(DAY) / self.churn_per_day;
        let first = arrives as f64 + dice.unit(roll::REVISED) * period;
        if (now as f64) < first {
            return (0, NEVER);
        }
        let more = ((now as f64 - first) / period).floor();
        (more as u32 + 1, (first + more * period) as i64)
    }
}

fn kind(dice: &Dice) -> Kind {
    let mut left = dice.below(roll::KIND, 100);
    for (kind, share) in KINDS {
        if left < share {
            return kind;
        }
        left -= share;
    }
    Kind::Other
}

fn places(settings: &Settings, created: i64) -> (Vec<Account>, Vec<Profile>) {
    let account = |number: u64| {
        let dice = Dice::new(settings.seed, Purpose::Place, number);
        let name = ACCOUNT_NAMES[number as usize % ACCOUNT_NAMES.len()];
        let round = number as usize / ACCOUNT_NAMES.len();
        Account {
            id: 10_000 + 37 * number + u64::from(dice.below(0, 37)),
            name: if round == 0 { name.to_owned() } else { format!("{name} {}", round + 1) },
            created: created - dice.seconds(1, DAY, 90 * DAY),
        }
    };
    let accounts: Vec<Account> = (0..u64::from(settings.accounts)).map(account).collect();
    let profile = |number: u64| {
        let dice = Dice::new(settings.seed, Purpose::Place, (1 << 32) + number);
        let owner = number as usize * accounts.len() / settings.profiles as usize;
        Profile {
            id: 40_000 + 97 * number + u64::from(dice.below(0, 97)),
            name: PROFILE_NAMES[number as usize % PROFILE_NAMES.len()].to_owned(),
            account: owner,
            created: accounts[owner].created + dice.seconds(1, HOUR, 20 * HOUR),
        }
    };
    let profiles = (0..u64::from(settings.profiles)).map(profile).collect();
    (accounts, profiles)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::TimeDelta;

    use super::*;
    use crate::sandbox::calendar::YEAR;

    fn world(leads: u64) -> (World, i64) {
        let settings = Settings { leads, ..Settings::default() };
        (World::new(&settings).unwrap(), settings.now.timestamp())
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 64);
    }

    #[test]
    fn history_fills_the_years_and_ends_now() {
        let (mut world, now) = world(5_000);
        world.refresh(now);
        assert!((4_990..=5_001).contains(&world.rows.len()), "{}", world.rows.len());
        let first = world.rows.first().unwrap().created;
        assert!((now - first - 5 * YEAR as i64).abs() < 70 * i64::from(DAY));
        let last = world.rows.last().unwrap().arrives;
        assert!(last <= now && now - last < i64::from(3 * DAY));
    }

    #[test]
    fn ids_are_unique_and_rows_are_sorted_by_creation() {
        let (mut world, now) = world(5_000);
        world.refresh(now);
        let ids: HashSet<u64> = world.rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), world.rows.len());
        assert!(world.rows.is_sorted_by_key(Row::key));
        assert!(!world.rows.is_sorted_by_key(|row| row.id));
    }

    #[test]
    fn small_steps_and_one_large_step_lead_to_the_same_world() {
        let (mut slow, now) = world(3_000);
        let (mut fast, _) = world(3_000);
        let later = now + 40 * i64::from(DAY);
        for at in (now..=later).step_by(7 * HOUR as usize).chain([later]) {
            slow.refresh(at);
        }
        fast.refresh(later);
        let seen = |world: &World| world.rows.iter().map(Row::key).collect::<Vec<_>>();
        assert_eq!(seen(&slow), seen(&fast));
        assert!(slow.rows.len() > 3_020);
    }

    #[test]
    fn leads_change_and_go_as_time_passes() {
        let (mut world, now) = world(20_000);
        world.refresh(now);
        let later = now + 120 * i64::from(DAY);
        let gone = |row: &&Row| row.is_listed(now) && !row.is_listed(later);
        assert!(world.rows.iter().filter(gone).count() > 5);
        let touched = |row: &&Row| world.life(row, now).touched != world.life(row, later).touched;
        assert!(world.rows.iter().filter(touched).count() > 50);
    }

    #[test]
    fn edits_move_leads_and_take_them_away() {
        let (mut world, now) = world(100);
        world.refresh(now);
        let id = world.rows[50].id;
        let at = DateTime::from_timestamp(now, 0).unwrap() - TimeDelta::days(3_000);
        world.edit(id, &Edit::Created(at), now).unwrap();
        assert_eq!(world.rows[0].id, id);
        world.edit(id, &Edit::Vanish, now).unwrap();
        assert!(!world.row(id).unwrap().is_listed(now));
        assert!(world.edit(1, &Edit::Vanish, now).is_err());
    }
}
