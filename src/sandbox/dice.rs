//! Chance that can be asked again: every throw is a function of (seed, purpose, index, roll).
//!
//! Nothing here keeps a position in a stream, so a lead can be drawn in any order, twice, or after
//! a restart, and comes out the same.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_chacha::rand_core::SeedableRng;

/// How many independent throws one set of dice holds.
const ROLLS: usize = 64;

/// What a set of dice is for; sets of different purposes share nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Names and identifiers of accounts and profiles.
    Place = 1,
    /// Tokens and secrets.
    Key = 2,
    /// When a lead comes, changes and goes.
    Life = 3,
    /// Who the person behind a lead is.
    Person = 4,
    /// How a lead looks on the wire.
    Face = 5,
    /// Which request meets with which accident.
    Fault = 6,
    /// When a contact, client, chat or user comes, changes and goes.
    Record = 7,
    /// How it looks on the wire.
    RecordFace = 8,
}

/// A set of thrown dice.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    words: [u32; ROLLS],
}

impl Dice {
    /// Throws the dice of `index` in the world of `seed`.
    pub(super) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = purpose as u8;
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(index);
        let mut words = [0_u32; ROLLS];
        words.fill_with(|| generator.next_u32());
        Self { words }
    }

    /// Returns the whole word of a roll.
    pub(super) fn word(&self, roll: usize) -> u32 {
        self.words[roll % ROLLS]
    }

    /// Returns a number in `0..limit`; 0 where `limit` is 0.
    pub(super) fn below(&self, roll: usize, limit: u32) -> u32 {
        ((u64::from(self.word(roll)) * u64::from(limit)) >> 32) as u32
    }

    /// Returns a number of seconds in `least..most`.
    pub(super) fn seconds(&self, roll: usize, least: u32, most: u32) -> i64 {
        i64::from(least) + i64::from(self.below(roll, most.saturating_sub(least)))
    }

    /// Returns true in `per_mille` of a thousand cases.
    pub(super) fn chance(&self, roll: usize, per_mille: u32) -> bool {
        self.below(roll, 1_000) < per_mille
    }

    /// Returns a number in `0.0..1.0`.
    pub(super) fn unit(&self, roll: usize) -> f64 {
        f64::from(self.word(roll)) / 4_294_967_296.0
    }

    /// Returns one of `list`, which must not be empty.
    pub(super) fn pick<T: Copy>(&self, roll: usize, list: &[T]) -> T {
        list[self.below(roll, list.len() as u32) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_gets_the_same_answer_and_another_one_another() {
        let first = Dice::new(7, Purpose::Life, 1_000);
        assert_eq!(first.word(63), Dice::new(7, Purpose::Life, 1_000).word(63));
        assert_ne!(first.word(63), Dice::new(8, Purpose::Life, 1_000).word(63));
        assert_ne!(first.word(63), Dice::new(7, Purpose::Face, 1_000).word(63));
        assert_ne!(first.word(63), Dice::new(7, Purpose::Life, 1_001).word(63));
    }
}
