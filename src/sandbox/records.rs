//! The invented records of the platforms that list without dates: contacts, clients, chats, users.
//!
//! As with leads, what happens is a function of (seed, settings, number of the record, time). What
//! is kept of a record is a [`Row`], about 130 bytes with what finds it; how it looks is drawn when
//! it is asked for. Since these platforms are read page by page and cannot be asked for a range,
//! the order of a listing is kept until something happens, at 8 bytes a record. Times are
//! milliseconds since the epoch.
//!
//! The users of Convertalk are everybody who ever became a lead in a chat, under the id of the
//! chat, and others beside them who came through other channels.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Deserialize;
use serde::Serialize;

use super::Error;
use super::Settings;
use super::behaviour::Order;
use super::behaviour::RecordEdit;
use super::dice::Dice;
use super::dice::Purpose;
use super::json::Fields;
use super::people::Person;
use population::NEVER;
use population::Newcomer;
use population::Population;
use population::Row;

pub(super) use population::object_id;

mod population;

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
        let lead = self.population.shared_with(self.row, self.records.leads);
        let index = lead.unwrap_or(OTHER_PEOPLE | self.population.base | self.row.index);
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

/// Returns the rows of a page, by place; none past the end.
pub(super) fn page(rows: usize, page: u64, size: u64) -> Range<usize> {
    let skipped = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(rows).min(rows);
    skipped..skipped.saturating_add(size as usize).min(rows)
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
        fn the_pages_cover_the_rows_exactly_once(rows in 0_usize..500, size in 1_u64..60) {
            let pages = (1..=10 + rows as u64).map(|number| page(rows, number, size));
            prop_assert_eq!(pages.flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
        }
    }
}
