//! The records of one part of a platform: how they come, change and go.
//!
//! A [`Row`] is what is kept of a record. It says where the record stands as of the last
//! [`Population::refresh`]; when that ends is an event in a heap, so that time costs only what
//! happens in it. Numbers tell records apart here; [`Population::text`] makes ids of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;

use chrono::DateTime;
use serde_json::Map;
use serde_json::Value;

use super::Moves;
use super::Stream;
use crate::sandbox::Settings;
use crate::sandbox::behaviour::RecordEdit;
use crate::sandbox::calendar::Calendar;
use crate::sandbox::calendar::DAY;
use crate::sandbox::calendar::HOUR;
use crate::sandbox::dice::Dice;
use crate::sandbox::dice::Purpose;
use crate::sandbox::json::Fields;

pub(super) const NEVER: i64 = i64::MAX;
/// In the order of their codes, so that ids sort as their numbers do.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// One in ten is known to WhatConverts as well.
const SHARED_PER_MILLE: u32 = 100;
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

/// What is kept of a record.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct Row {
    /// The part of its id that chance has drawn.
    pub(super) id: u64,
    /// Number of the record: the key to its dice.
    pub(super) index: u64,
    pub(in crate::sandbox) created: i64,
    /// When somebody last changed it.
    pub(in crate::sandbox) edited: i64,
    /// When it was last touched by hand.
    touched: i64,
    /// When the person was last there.
    pub(in crate::sandbox) active: i64,
    /// When a chat becomes a lead.
    pub(super) lead_from: i64,
    /// When a lead would go back to being none.
    lead_until: i64,
    /// When it leaves every list.
    gone: i64,
    /// How often somebody changed it.
    pub(in crate::sandbox) changes: u32,
    /// How often the person came back.
    pub(in crate::sandbox) visits: u32,
}

impl Row {
    /// Says whether it has been deleted.
    pub(in crate::sandbox) fn is_gone(&self, now: i64) -> bool {
        self.gone <= now
    }

    /// Says whether a chat is a lead, where leads may go back to being none or not.
    pub(super) fn is_lead(&self, now: i64, returns: bool) -> bool {
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

/// A record that somebody adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer<'a> {
    pub(super) created: i64,
    pub(super) lead: bool,
    pub(super) now: i64,
    /// Its id, where it is given.
    pub(super) id: Option<&'a str>,
}

/// The records of a part of a platform.
#[derive(Debug)]
pub(super) struct Population {
    seed: u64,
    pub(super) stream: Stream,
    pub(super) part: u32,
    /// What tells its dice from those of others.
    pub(super) base: u64,
    calendar: Calendar,
    churn_per_day: f64,
    /// In order of arrival.
    pub(super) rows: Vec<Row>,
    slots: HashMap<u64, u32>,
    /// Ids given by hand.
    pub(super) names: HashMap<u32, String>,
    /// When the next record comes, and its number.
    next: Option<(i64, u64)>,
    /// When something happens next to which record.
    events: BinaryHeap<Reverse<(i64, u32)>>,
    pub(super) edits: HashMap<(Stream, u32), Fields>,
    /// `updatedAt` set by hand.
    pub(super) pinned: HashMap<u32, i64>,
}

impl Population {
    pub(super) fn new(settings: &Settings, stream: Stream, part: u32, count: u64) -> Self {
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
    pub(super) fn shows(&self, stream: Stream, part: Option<u32>) -> bool {
        let of_stream = match stream {
            Stream::Users => matches!(self.stream, Stream::Users | Stream::Chats),
            stream => self.stream == stream,
        };
        of_stream && part.is_none_or(|part| self.part == part)
    }

    pub(super) fn is_due(&self, now: i64) -> bool {
        self.next.is_some_and(|(at, _)| at <= now)
            || self.events.peek().is_some_and(|Reverse((at, _))| *at <= now)
    }

    pub(super) fn refresh(&mut self, now: i64) {
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

    /// Returns the lead whose person a record is about, where it is one of `leads`.
    pub(super) fn shared_with(&self, row: &Row, leads: u64) -> Option<u64> {
        let dice = self.dice(row.index);
        let is_lead = leads > 0 && dice.chance(roll::SHARED, SHARED_PER_MILLE);
        is_lead.then(|| (dice.unit(roll::SHARED_WITH) * leads as f64) as u64)
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
    pub(super) fn slot(&self, id: &str) -> Option<u32> {
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
    pub(super) fn text(&self, row: &Row) -> String {
        match self.stream {
            Stream::Contacts | Stream::Clients => short(row.id),
            Stream::Chats | Stream::Users => object_id(row.created, row.id),
        }
    }

    pub(super) fn insert(&mut self, index: u64, newcomer: Newcomer<'_>) -> u32 {
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

    pub(super) fn edit(&mut self, stream: Stream, slot: u32, edit: &RecordEdit, now: i64) {
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
pub(in crate::sandbox) fn object_id(created: i64, number: u64) -> String {
    format!("{:08x}{number:016x}", created.div_euclid(1_000) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 80);
    }

    proptest! {
        #[test]
        fn a_short_id_reads_back_as_its_number_and_sorts_like_it(one: u64, other: u64) {
            prop_assert_eq!(read_short(&short(one)), Some(one));
            prop_assert_eq!(short(one).cmp(&short(other)), one.cmp(&other));
        }
    }
}
