//! The invented records of the platforms that list without dates: contacts, clients, chats, users.
//!
//! As with leads, what happens is a function of (seed, settings, number of the record, time). What
//! is kept of a record is a [`Row`], about 130 bytes with what finds it; how it looks is drawn when it is asked for. Since
//! these platforms are read page by page and cannot be asked for a range, the order of a listing is
//! kept until something happens, at 8 bytes a record. Times are milliseconds since the epoch.
//!
//! The users of Convertalk are everybody who ever became a lead in a chat, under the id of the
//! chat, and others beside them who came through other channels.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::DateTime;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::Error;
use super::Settings;
use super::behaviour::Order;
use super::behaviour::RecordEdit;
use super::calendar::Calendar;
use super::calendar::DAY;
use super::calendar::HOUR;
use super::dice::Dice;
use super::dice::Purpose;
use super::json::Fields;
use super::people::Person;

const NEVER: i64 = i64::MAX;
/// More parts of a kind would take each other's dice.
const MOST_PARTS: u32 = 10_000;
/// More records of a part likewise.
const MOST_RECORDS: u64 = 50_000_000;
/// Numbers of records that are inserted by hand begin here.
const FIRST_INSERTED: u64 = 1 << 36;
/// The people of the records, beside those who are leads as well.
const OTHER_PEOPLE: u64 = 1 << 62;
/// Orders kept at most; a test that plays with switches would pile them up.
const MOST_ORDERS: usize = 64;
/// One in ten is known to WhatConverts as well.
const SHARED_PER_MILLE: u32 = 100;
/// In the order of their codes, so that ids sort as their numbers do.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits of a short id.
const SHORT: usize = 11;
/// When somebody comes back, in seconds after the record came.
const VISITS: [(u32, u32); 4] =
    [(60, HOUR), (HOUR, 2 * DAY), (DAY, 20 * DAY), (20 * DAY, 200 * DAY)];
/// When somebody changes a record, likewise.
const EDITS: [(u32, u32); 3] = [(600, DAY), (DAY, 20 * DAY), (5 * DAY, 60 * DAY)];

/// The dice of a record's life; the numbers are rolls.
mod roll {
    pub(super) const FRACTION: usize = 0;
    /// Two words.
    pub(super) const ID: usize = 1;
    pub(super) const LEAD: usize = 3;
    pub(super) const LEAD_AT: usize = 4;
    pub(super) const RETURN: usize = 5;
    pub(super) const RETURN_AT: usize = 6;
    pub(super) const GONE: usize = 7;
    pub(super) const GONE_AT: usize = 8;
    pub(super) const VISITS: usize = 9;
    /// One for each visit.
    pub(super) const VISIT_AT: usize = 10;
    pub(super) const EDITS: usize = 14;
    /// One for each edit.
    pub(super) const EDIT_AT: usize = 15;
    pub(super) const LATE: usize = 18;
    pub(super) const SHARED: usize = 19;
    pub(super) const SHARED_WITH: usize = 20;
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Contacts of Whautomate.
    Contacts,
    /// Clients of Whautomate.
    Clients,
    /// Chats of Convertalk.
    Chats,
    /// Users of Convertalk.
    Users,
}

/// What a client reads as a whole; accounts and bots are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listing {
    /// The contacts of a Whautomate account.
    Contacts {
        /// Number of the account.
        account: u32,
    },
    /// The clients of a Whautomate account.
    Clients {
        /// Number of the account.
        account: u32,
    },
    /// The chats of a Convertalk bot that are leads, or that are not.
    Chats {
        /// Number of the bot.
        bot: u32,
        /// Which of the two.
        lead: bool,
    },
    /// The users of the Convertalk customer.
    Users,
}

impl Listing {
    /// Returns the kind of its records.
    pub fn stream(self) -> Stream {
        match self {
            Self::Contacts { .. } => Stream::Contacts,
            Self::Clients { .. } => Stream::Clients,
            Self::Chats { .. } => Stream::Chats,
            Self::Users => Stream::Users,
        }
    }

    /// Returns the number of its account or bot.
    fn part(self) -> u32 {
        match self {
            Self::Contacts { account } | Self::Clients { account } => account,
            Self::Chats { bot, .. } => bot,
            Self::Users => 0,
        }
    }

    /// Returns the one account or bot whose records it shows; users are those of all bots.
    fn only_part(self) -> Option<u32> {
        (self != Self::Users).then(|| self.part())
    }
}

/// What is kept of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// The part of its id that chance has drawn.
    id: u64,
    /// Number of the record: the key to its dice.
    index: u64,
    pub(super) created: i64,
    /// When somebody last changed it.
    pub(super) edited: i64,
    /// When it was last touched by hand.
    touched: i64,
    /// When the person was last there.
    pub(super) active: i64,
    /// When a chat becomes a lead.
    lead_from: i64,
    /// When a lead would go back to being none.
    lead_until: i64,
    /// When it leaves every list.
    gone: i64,
    /// How often somebody changed it.
    pub(super) changes: u32,
    /// How often the person came back.
    pub(super) visits: u32,
}

impl Row {
    /// Says whether it has been deleted.
    pub(super) fn is_gone(&self, now: i64) -> bool {
        self.gone <= now
    }

    /// Says whether a chat is a lead, where leads may go back to being none or not.
    fn is_lead(&self, now: i64, returns: bool) -> bool {
        self.lead_from <= now && !(returns && self.lead_until <= now)
    }

    /// Returns when it was changed, as far as the platform counts it as a change.
    pub(super) fn updated(&self, moves: Moves) -> i64 {
        let mut updated = self.created.max(self.touched);
        if moves.edits {
            updated = updated.max(self.edited);
        }
        if moves.activity {
            updated = updated.max(self.active);
        }
        updated
    }
}

/// What moves `updatedAt`, beside what is done by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Moves {
    pub(super) edits: bool,
    pub(super) activity: bool,
}

/// How a listing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Show {
    pub(super) order: Order,
    pub(super) moves: Moves,
    /// Whether a lead may go back to being none.
    pub(super) returns: bool,
    /// Whether what has gone is among the rest.
    pub(super) gone: bool,
}

/// A record in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    population: u32,
    slot: u32,
}

/// The order of a listing, and what it was asked for.
type Orders = HashMap<(Listing, Show), Arc<Vec<Place>>>;

/// All records of all platforms but WhatConverts, as of the last [`Records::refresh`].
#[derive(Debug)]
pub(super) struct Records {
    seed: u64,
    leads: u64,
    /// Contacts and clients of each account, chats of each bot, users of other channels.
    populations: Vec<Population>,
    /// Orders that still hold.
    orders: Mutex<Orders>,
    inserted: u64,
}

impl Records {
    /// Returns the records of `settings`; there are none until they are refreshed.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        check(settings)?;
        let mut populations = Vec::new();
        let mut add = |stream, part, count| {
            populations.push(Population::new(settings, stream, part, count));
        };
        for account in 0..settings.whautomate_accounts {
            add(Stream::Contacts, account, settings.contacts);
            add(Stream::Clients, account, settings.clients);
        }
        for bot in 0..settings.convertalk_bots {
            add(Stream::Chats, bot, settings.chats);
        }
        add(Stream::Users, 0, settings.users);
        Ok(Self {
            seed: settings.seed,
            leads: settings.leads,
            populations,
            orders: Mutex::default(),
            inserted: 0,
        })
    }

    /// Says whether something has happened by `now` that the rows do not show yet.
    pub(super) fn is_due(&self, now: i64) -> bool {
        self.populations.iter().any(|population| population.is_due(now))
    }

    /// Lets happen what happens until `now`.
    pub(super) fn refresh(&mut self, now: i64) {
        for population in &mut self.populations {
            population.refresh(now);
        }
        self.forget_orders();
    }

    /// Returns a listing in its order; `number` is that of the request.
    pub(super) fn listed(
        &self,
        listing: Listing,
        show: Show,
        now: i64,
        number: u64,
    ) -> Arc<Vec<Place>> {
        if show.order == Order::Random {
            let show = Show { order: Order::CreatedAscending, ..show };
            let mut places = self.listed(listing, show, now, number).as_ref().clone();
            places.sort_by_cached_key(|place| {
                let index = u64::from(place.population) << 32 | u64::from(place.slot);
                Dice::new(self.seed, Purpose::Fault, index ^ (number << 44)).word(1)
            });
            return Arc::new(places);
        }
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.len() >= MOST_ORDERS {
            orders.clear();
        }
        let order = orders.entry((listing, show));
        Arc::clone(order.or_insert_with(|| Arc::new(self.sorted(listing, show, now))))
    }

    /// Returns a record of a listing.
    pub(super) fn subject(&self, place: Place) -> Subject<'_> {
        let population = &self.populations[place.population as usize];
        let row = &population.rows[place.slot as usize];
        Subject { records: self, population, row, slot: place.slot }
    }

    /// Returns the record of an id, also one that has gone; `part` is the account or bot, where it
    /// matters.
    fn find(&self, stream: Stream, part: Option<u32>, id: &str) -> Option<Place> {
        let populations = self.populations.iter().enumerate();
        let mut of_stream = populations.filter(|(_, population)| population.shows(stream, part));
        of_stream.find_map(|(number, population)| {
            let slot = population.slot(id)?;
            let is_user = population.rows[slot as usize].lead_from != NEVER;
            let shown = stream == population.stream || is_user;
            shown.then_some(Place { population: number as u32, slot })
        })
    }

    /// Returns the record of an id in a listing, also one that has gone.
    pub(super) fn find_in(&self, listing: Listing, id: &str) -> Option<Place> {
        self.find(listing.stream(), listing.only_part(), id)
    }

    /// Does to a record what somebody does by hand at `now`.
    pub(super) fn edit(
        &mut self,
        stream: Stream,
        id: &str,
        edit: &RecordEdit,
        now: i64,
    ) -> Result<(), Error> {
        self.forget_orders();
        if let RecordEdit::Insert { part, created_at, lead } = edit {
            if self.find(stream, None, id).is_some() {
                return Err(Error::TakenRecordId { id: id.to_owned() });
            }
            let created = created_at.timestamp_millis();
            let newcomer = Newcomer { created, lead: *lead, now, id: Some(id) };
            return self.add((stream, *part), newcomer).map(|_| ());
        }
        let unknown = || Error::UnknownRecord { id: id.to_owned() };
        let place = self.find(stream, None, id).ok_or_else(unknown)?;
        self.populations[place.population as usize].edit(stream, place.slot, edit, now);
        Ok(())
    }

    /// Adds a record and returns its id.
    pub(super) fn insert(
        &mut self,
        listing: Listing,
        created: i64,
        now: i64,
    ) -> Result<String, Error> {
        self.forget_orders();
        let lead = matches!(listing, Listing::Users | Listing::Chats { lead: true, .. });
        let newcomer = Newcomer { created, lead, now, id: None };
        let place = self.add((listing.stream(), listing.part()), newcomer)?;
        Ok(self.subject(place).id())
    }

    /// Returns an error where there is no such listing.
    pub(super) fn check(&self, listing: Listing) -> Result<(), Error> {
        self.population(listing.stream(), listing.part()).map(|_| ())
    }

    fn population(&self, stream: Stream, part: u32) -> Result<usize, Error> {
        let is_it = |one: &Population| one.stream == stream && one.part == part;
        self.populations.iter().position(is_it).ok_or(Error::UnknownPart { part })
    }

    fn add(&mut self, part: (Stream, u32), newcomer: Newcomer<'_>) -> Result<Place, Error> {
        let number = self.population(part.0, part.1)?;
        self.inserted += 1;
        let index = FIRST_INSERTED + self.inserted;
        let slot = self.populations[number].insert(index, newcomer);
        Ok(Place { population: number as u32, slot })
    }

    fn forget_orders(&mut self) {
        self.orders.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn sorted(&self, listing: Listing, show: Show, now: i64) -> Vec<Place> {
        let part = listing.only_part();
        let mut places = Vec::new();
        for (number, population) in self.populations.iter().enumerate() {
            if !population.shows(listing.stream(), part) {
                continue;
            }
            let wanted = |row: &Row| {
                (show.gone || !row.is_gone(now))
                    && match listing {
                        Listing::Chats { lead, .. } => row.is_lead(now, show.returns) == lead,
                        Listing::Users => row.is_lead(now, false),
                        Listing::Contacts { .. } | Listing::Clients { .. } => true,
                    }
            };
            let rows = population.rows.iter().enumerate().filter(|(_, row)| wanted(row));
            let place = |slot: usize| Place { population: number as u32, slot: slot as u32 };
            places.extend(rows.map(|(slot, _)| place(slot)));
        }
        let row = |place: &Place| self.subject(*place).row;
        let updated = |place: &Place| (self.subject(*place).updated(show.moves), row(place).id);
        let created = |place: &Place| (row(place).created, row(place).id);
        match show.order {
            Order::CreatedAscending | Order::CreatedDescending | Order::Random => {
                places.sort_by_key(created);
            }
            Order::UpdatedAscending | Order::UpdatedDescending => places.sort_by_key(updated),
            Order::Id => places.sort_by_key(|place| self.subject(*place).id_order()),
        }
        if matches!(show.order, Order::CreatedDescending | Order::UpdatedDescending) {
            places.reverse();
        }
        places
    }
}

fn check(settings: &Settings) -> Result<(), Error> {
    let parts = settings.whautomate_accounts.max(settings.convertalk_bots);
    let records = settings.contacts.max(settings.clients).max(settings.chats).max(settings.users);
    let what = match () {
        () if parts > MOST_PARTS => "there must be at most 10,000 Whautomate accounts and bots",
        () if records > MOST_RECORDS => "there must be at most 50 million records of a kind",
        () if settings.whautomate_accounts == 0 && settings.contacts + settings.clients > 0 => {
            "contacts and clients need a Whautomate account"
        }
        () if settings.convertalk_bots == 0 && settings.chats > 0 => "chats need a bot",
        () => return Ok(()),
    };
    Err(Error::Settings { what })
}

/// A record as the renderers see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    records: &'a Records,
    population: &'a Population,
    pub(super) row: &'a Row,
    slot: u32,
}

impl<'a> Subject<'a> {
    /// Returns its id as the platform writes it.
    pub(super) fn id(&self) -> String {
        match self.population.names.get(&self.slot) {
            Some(name) => name.clone(),
            None => self.population.text(self.row),
        }
    }

    /// Returns the seed of the world.
    pub(super) fn seed(&self) -> u64 {
        self.records.seed
    }

    /// Returns the kind it came as: also among users, a chat is one.
    pub(super) fn stream(&self) -> Stream {
        self.population.stream
    }

    /// Returns the number of its account or bot.
    pub(super) fn part(&self) -> u32 {
        self.population.part
    }

    /// Says whether it is a lead or was one: what made it one is still known.
    pub(super) fn was_lead(&self, now: i64) -> bool {
        self.row.is_lead(now, false)
    }

    /// Returns its number among all of its part, from 1.
    pub(super) fn running_number(&self) -> u32 {
        self.slot + 1
    }

    /// Returns the dice of its face.
    pub(super) fn dice(&self) -> Dice {
        Dice::new(self.records.seed, Purpose::RecordFace, self.population.base | self.row.index)
    }

    /// Returns who it is about.
    pub(super) fn person(&self) -> Person {
        let life = self.population.dice(self.row.index);
        let leads = self.records.leads;
        let is_lead = leads > 0 && life.chance(roll::SHARED, SHARED_PER_MILLE);
        let index = match is_lead {
            true => (life.unit(roll::SHARED_WITH) * leads as f64) as u64,
            false => OTHER_PEOPLE | self.population.base | self.row.index,
        };
        Person::new(&Dice::new(self.records.seed, Purpose::Person, index))
    }

    /// Returns when it was changed, as it stands on the wire.
    pub(super) fn updated(&self, moves: Moves) -> i64 {
        let pinned = self.population.pinned.get(&self.slot);
        pinned.copied().unwrap_or_else(|| self.row.updated(moves))
    }

    /// Returns the fields set by hand in a stream.
    pub(super) fn edits(&self, stream: Stream) -> Option<&'a Fields> {
        let edits = &self.population.edits;
        if edits.is_empty() { None } else { edits.get(&(stream, self.slot)) }
    }

    /// Returns by what it is sorted where ids are.
    fn id_order(&self) -> (i64, u64) {
        match self.population.stream {
            Stream::Contacts | Stream::Clients => (0, self.row.id),
            Stream::Chats | Stream::Users => (self.row.created.div_euclid(1_000), self.row.id),
        }
    }
}

/// A record that somebody adds.
#[derive(Debug, Clone, Copy)]
struct Newcomer<'a> {
    created: i64,
    lead: bool,
    now: i64,
    /// Its id, where it is given.
    id: Option<&'a str>,
}

/// The records of a part of a platform.
#[derive(Debug)]
struct Population {
    seed: u64,
    stream: Stream,
    part: u32,
    /// What tells its dice from those of others.
    base: u64,
    calendar: Calendar,
    churn_per_day: f64,
    /// In order of arrival.
    rows: Vec<Row>,
    slots: HashMap<u64, u32>,
    /// Ids given by hand.
    names: HashMap<u32, String>,
    /// When the next record comes, and its number.
    next: Option<(i64, u64)>,
    /// When something happens next to which record.
    events: BinaryHeap<Reverse<(i64, u32)>>,
    edits: HashMap<(Stream, u32), Fields>,
    /// `updatedAt` set by hand.
    pinned: HashMap<u32, i64>,
}

impl Population {
    fn new(settings: &Settings, stream: Stream, part: u32, count: u64) -> Self {
        let kind = match stream {
            Stream::Contacts => 1,
            Stream::Clients => 2,
            Stream::Chats => 3,
            Stream::Users => 4,
        };
        let mut population = Self {
            seed: settings.seed,
            stream,
            part,
            base: kind << 56 | u64::from(part) << 40,
            calendar: Calendar::new(count, settings.years, settings.now.timestamp()),
            churn_per_day: settings.churn_per_day.max(0.0),
            rows: Vec::new(),
            slots: HashMap::new(),
            names: HashMap::new(),
            next: None,
            events: BinaryHeap::new(),
            edits: HashMap::new(),
            pinned: HashMap::new(),
        };
        population.next = (count > 0).then(|| (population.arrival(0), 0));
        population
    }

    /// Says whether its records are among those of a stream.
    fn shows(&self, stream: Stream, part: Option<u32>) -> bool {
        let of_stream = match stream {
            Stream::Users => matches!(self.stream, Stream::Users | Stream::Chats),
            stream => self.stream == stream,
        };
        of_stream && part.is_none_or(|part| self.part == part)
    }

    fn is_due(&self, now: i64) -> bool {
        self.next.is_some_and(|(at, _)| at <= now)
            || self.events.peek().is_some_and(|Reverse((at, _))| *at <= now)
    }

    fn refresh(&mut self, now: i64) {
        while let Some((created, index)) = self.next.filter(|(at, _)| *at <= now) {
            let row = self.draw(index, created);
            self.push(row, now);
            self.next = Some((self.arrival(index + 1), index + 1));
        }
        while let Some(Reverse((_, slot))) = self.events.peek().copied().filter(|e| e.0.0 <= now) {
            self.events.pop();
            self.live(slot, now);
        }
    }

    fn arrival(&self, index: u64) -> i64 {
        let fraction = self.dice(index).unit(roll::FRACTION);
        (self.calendar.arrival(index as f64 + fraction) * 1_000.0).floor() as i64
    }

    fn dice(&self, index: u64) -> Dice {
        Dice::new(self.seed, Purpose::Record, self.base | index)
    }

    fn draw(&self, index: u64, created: i64) -> Row {
        let dice = self.dice(index);
        let after = |roll, span| created + later(&dice, roll, span);
        let lead_from = match (self.stream, dice.below(roll::LEAD, 100)) {
            (Stream::Users, _) => created,
            (Stream::Chats, 0..50) => after(roll::LEAD_AT, (30, HOUR)),
            (Stream::Chats, 50..65) => after(roll::LEAD_AT, (HOUR, 40 * DAY)),
            _ => NEVER,
        };
        let returns = lead_from != NEVER && dice.chance(roll::RETURN, 50);
        let lead_until = lead_from.saturating_add(later(&dice, roll::RETURN_AT, (HOUR, 90 * DAY)));
        let gone = after(roll::GONE_AT, (DAY, 200 * DAY));
        Row {
            id: u64::from(dice.word(roll::ID)) << 32 | u64::from(dice.word(roll::ID + 1)),
            index,
            created,
            edited: created,
            touched: created,
            active: created,
            lead_from,
            lead_until: if returns { lead_until } else { NEVER },
            gone: if dice.chance(roll::GONE, 8) { gone } else { NEVER },
            changes: 0,
            visits: 0,
        }
    }

    fn push(&mut self, row: Row, now: i64) -> u32 {
        let slot = self.rows.len() as u32;
        self.slots.insert(row.id, slot);
        self.rows.push(row);
        self.live(slot, now);
        slot
    }

    /// Lets happen to a record what happens until `now`, and notes when something happens next.
    fn live(&mut self, slot: u32, now: i64) {
        let mut row = self.rows[slot as usize];
        let dice = self.dice(row.index);
        let mut next = NEVER;
        let mut happened = |at: i64| {
            if at > now {
                next = next.min(at);
            }
            at <= now
        };
        let after = |roll, span| row.created + later(&dice, roll, span);
        let visits = dice.below(roll::VISITS, 1 + VISITS.len() as u32) as usize;
        let visits = (0..visits).map(|at| after(roll::VISIT_AT + at, VISITS[at]));
        let visits: Vec<i64> = visits.filter(|at| happened(*at)).collect();
        let edits = dice.below(roll::EDITS, 1 + EDITS.len() as u32) as usize;
        let edits = (0..edits).map(|at| after(roll::EDIT_AT + at, EDITS[at]));
        let mut edits: Vec<i64> = edits.filter(|at| happened(*at)).collect();
        let (late, last, coming) = self.late_edits(&dice, row.created, now);
        edits.extend(last);
        row.visits = visits.len() as u32;
        row.changes = edits.len() as u32 + late.saturating_sub(1);
        // What makes a chat a lead, or no lead, changes the chat; nobody has edited it.
        edits.extend([row.lead_from, row.lead_until].into_iter().filter(|at| happened(*at)));
        row.active = visits.into_iter().fold(row.active, i64::max);
        row.edited = edits.into_iter().fold(row.edited, i64::max);
        // `NEVER` leaves nothing to come.
        happened(coming);
        happened(row.gone);
        self.rows[slot as usize] = row;
        if next != NEVER {
            self.events.push(Reverse((next, slot)));
        }
    }

    /// Returns how often a record was changed late, when last, and when it will be.
    fn late_edits(&self, dice: &Dice, created: i64, now: i64) -> (u32, Option<i64>, i64) {
        if self.churn_per_day <= 0.0 {
            return (0, None, NEVER);
        }
        let period = (1_000.0 * f64::from(DAY) / self.churn_per_day) as i64;
        let first = created + (dice.unit(roll::LATE) * period as f64) as i64;
        if now < first || period == 0 {
            return (0, None, first);
        }
        let more = (now - first) / period;
        let last = first + more * period;
        (more as u32 + 1, Some(last), last.saturating_add(period))
    }

    /// Returns the place of an id.
    fn slot(&self, id: &str) -> Option<u32> {
        let named = self.names.iter().find(|(_, name)| *name == id);
        named.map(|(slot, _)| *slot).or_else(|| {
            let number = match self.stream {
                Stream::Contacts | Stream::Clients => read_short(id)?,
                Stream::Chats | Stream::Users => u64::from_str_radix(id.get(8..24)?, 16).ok()?,
            };
            let slot = *self.slots.get(&number)?;
            // Ids of other forms may hold the same number.
            (self.text(&self.rows[slot as usize]) == id).then_some(slot)
        })
    }

    /// Returns the id of a row as the platform forms it.
    fn text(&self, row: &Row) -> String {
        match self.stream {
            Stream::Contacts | Stream::Clients => short(row.id),
            Stream::Chats | Stream::Users => object_id(row.created, row.id),
        }
    }

    fn insert(&mut self, index: u64, newcomer: Newcomer<'_>) -> u32 {
        let Newcomer { created, lead, now, id } = newcomer;
        let mut row = self.draw(index, created);
        row.lead_from = if lead { created } else { NEVER };
        row.lead_until = NEVER;
        row.gone = NEVER;
        let slot = self.push(row, now);
        if let Some(id) = id {
            self.names.insert(slot, id.to_owned());
        }
        slot
    }

    fn edit(&mut self, stream: Stream, slot: u32, edit: &RecordEdit, now: i64) {
        match edit {
            RecordEdit::Set(fields) => {
                self.touch(slot, now);
                self.set(stream, slot, fields);
                let updated = fields.get("updatedAt").and_then(Value::as_str);
                let updated = updated.and_then(|at| DateTime::parse_from_rfc3339(at).ok());
                self.pinned.extend(updated.map(|at| (slot, at.timestamp_millis())));
            }
            RecordEdit::SetQuietly(fields) => self.set(stream, slot, fields),
            RecordEdit::Remove(names) => {
                let removed = names.iter().map(|name| (name.clone(), None));
                self.edits.entry((stream, slot)).or_default().extend(removed);
            }
            RecordEdit::Touch => self.touch(slot, now),
            RecordEdit::Activity => self.row(slot).active = now,
            RecordEdit::Lead => {
                self.row(slot).lead_from = now;
                self.row(slot).lead_until = NEVER;
                self.touch(slot, now);
            }
            RecordEdit::NonLead => {
                self.row(slot).lead_from = NEVER;
                self.row(slot).lead_until = NEVER;
                self.touch(slot, now);
            }
            RecordEdit::Vanish => self.row(slot).gone = now,
            RecordEdit::Reappear => self.row(slot).gone = NEVER,
            // Nobody is there yet to be edited.
            RecordEdit::Insert { .. } => {}
        }
        self.live(slot, now);
    }

    fn row(&mut self, slot: u32) -> &mut Row {
        &mut self.rows[slot as usize]
    }

    fn touch(&mut self, slot: u32, now: i64) {
        self.row(slot).touched = now;
        self.pinned.remove(&slot);
        for stream in [self.stream, Stream::Users] {
            if let Some(fields) = self.edits.get_mut(&(stream, slot)) {
                fields.remove("updatedAt");
            }
        }
    }

    fn set(&mut self, stream: Stream, slot: u32, fields: &Map<String, Value>) {
        let edits = self.edits.entry((stream, slot)).or_default();
        edits.extend(fields.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
    }
}

/// Returns how much later something happens, in milliseconds, within a span in seconds.
fn later(dice: &Dice, roll: usize, (least, most): (u32, u32)) -> i64 {
    1_000 * dice.seconds(roll, least, most) + i64::from(dice.word(roll) % 1_000)
}

/// Returns the rows of a page, by place; none past the end.
pub(super) fn page(rows: usize, page: u64, size: u64) -> Range<usize> {
    let skipped = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(rows).min(rows);
    skipped..skipped.saturating_add(size as usize).min(rows)
}

/// Returns an opaque id of eleven letters and digits.
fn short(number: u64) -> String {
    let mut left = number;
    let mut text = [0_u8; SHORT];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(left % DIGITS.len() as u64) as usize];
        left /= DIGITS.len() as u64;
    }
    text.iter().map(|digit| char::from(*digit)).collect()
}

fn read_short(text: &str) -> Option<u64> {
    if text.len() != SHORT {
        return None;
    }
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = DIGITS.iter().position(|digit| *digit == byte)?;
        number.checked_mul(DIGITS.len() as u64)?.checked_add(digit as u64)
    })
}

/// Returns an id whose first eight digits are the second it was made in.
pub(super) fn object_id(created: i64, number: u64) -> String {
    format!("{:08x}{number:016x}", created.div_euclid(1_000) as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SHOW: Show = Show {
        order: Order::CreatedAscending,
        moves: Moves { edits: true, activity: true },
        returns: false,
        gone: false,
    };

    fn records(contacts: u64) -> (Records, i64) {
        let settings = Settings {
            whautomate_accounts: 1,
            contacts,
            convertalk_bots: 1,
            chats: contacts,
            ..Settings::default()
        };
        (Records::new(&settings).unwrap(), settings.now.timestamp_millis())
    }

    fn lives(records: &Records, listing: Listing, now: i64) -> Vec<(String, i64, i64, u32, u32)> {
        let life = |place: &Place| {
            let subject = records.subject(*place);
            let row = subject.row;
            (subject.id(), row.updated(SHOW.moves), row.active, row.changes, row.visits)
        };
        records.listed(listing, SHOW, now, 0).iter().map(life).collect()
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 80 && size_of::<Place>() == 8);
    }

    #[test]
    fn small_steps_and_one_large_step_lead_to_the_same_records() {
        let ((mut slow, now), (mut fast, _)) = (records(2_000), records(2_000));
        let later = now + 90 * 86_400_000;
        for at in (now..=later).step_by(7 * 3_600_000).chain([later]) {
            slow.refresh(at);
        }
        fast.refresh(later);
        for listing in [
            Listing::Contacts { account: 0 },
            Listing::Chats { bot: 0, lead: true },
            Listing::Chats { bot: 0, lead: false },
            Listing::Users,
        ] {
            let seen = lives(&slow, listing, later);
            assert!(seen.len() > 700);
            assert_eq!(seen, lives(&fast, listing, later));
        }
    }

    #[test]
    fn history_fills_the_years_and_ends_now() {
        let (mut records, now) = records(5_000);
        records.refresh(now);
        let rows = &records.populations[0].rows;
        assert!((4_990..=5_001).contains(&rows.len()), "{}", rows.len());
        assert!(rows.is_sorted_by_key(|row| row.created));
        let last = rows[rows.len() - 1].created;
        assert!(last <= now && now - last < 3 * 86_400_000);
        assert!(rows.iter().any(|row| row.created % 1_000 != 0));
    }

    #[test]
    fn ids_are_unique_and_lead_back_to_their_records() {
        let (mut records, now) = records(3_000);
        records.refresh(now);
        for listing in [Listing::Contacts { account: 0 }, Listing::Chats { bot: 0, lead: true }] {
            let places = records.listed(listing, SHOW, now, 0);
            let id = |place: &Place| records.subject(*place).id();
            assert!(places.iter().all(|p| records.find_in(listing, &id(p)) == Some(*p)));
            let ids: HashSet<String> = places.iter().map(id).collect();
            assert_eq!(ids.len(), places.len());
        }
    }

    proptest! {
        #[test]
        fn a_short_id_reads_back_as_its_number_and_sorts_like_it(one: u64, other: u64) {
            prop_assert_eq!(read_short(&short(one)), Some(one));
            prop_assert_eq!(short(one).cmp(&short(other)), one.cmp(&other));
        }

        #[test]
        fn the_pages_cover_the_rows_exactly_once(rows in 0_usize..500, size in 1_u64..60) {
            let pages = (1..=10 + rows as u64).map(|number| page(rows, number, size));
            prop_assert_eq!(pages.flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
        }
    }
}
