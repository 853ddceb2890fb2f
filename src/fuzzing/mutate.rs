//! Changes a text of JSON or TOML so that most of it still is one: other values in the same places.
//!
//! Bytes changed at random seldom pass a parser; a value put in the place of another one does. A
//! mutation is told by its seed.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_chacha::rand_core::SeedableRng;

/// Values that have been trouble somewhere, as JSON; most are TOML as well.
const VALUES: [&str; 58] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "1.5",
    "1e400",
    "-1e-400",
    "0.1e1",
    "12.00",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "99999999999999999999999999999999999999",
    "4294967295",
    "4294967296",
    "1e9",
    "79228162514264337593543950335",
    "0.0000000000000000000000000001",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"id\":1}",
    "[{\"name\":\"a\",\"value\":null}]",
    "\"\"",
    "\" \"",
    "\"a\"",
    "\"=1+1\"",
    "\" @x\"",
    "\"\\t-1\"",
    "\"+1 212 555 0100\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\udc00x\\ud83d\\ude00\"",
    "\"\\u202e\\u001b[2J\"",
    "\"é😀\u{202e}\"",
    "\"a\\nb\\r\\n,\\\"c\"",
    "\"2026-03-01T02:00:00Z\"",
    "\"0000-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59.999999999-23:59\"",
    "\"+262142-12-31T23:59:59Z\"",
    "\"-262143-01-01T00:00:00Z\"",
    "\"2016-12-31T23:59:60Z\"",
    "\"2026-02-30 25:61:61\"",
    "\"999999999999d\"",
    "\"100%\"",
    "\"inf%\"",
    "\"4294967295/ms\"",
    "\"0/s\"",
    "\"../../etc\"",
    "\"[1,2]\"",
    "\"{\\\"a\\\":1}\"",
    "2024-01-01",
    "\"all\"",
];

/// Returns `bytes` with some changes, those of `seed`.
pub fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut chance = Chance(ChaCha8Rng::seed_from_u64(seed));
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(3) {
        change(&mut bytes, &mut chance);
    }
    bytes
}

struct Chance(ChaCha8Rng);

impl Chance {
    /// Returns a number below `limit`; 0 where that is 0.
    fn below(&mut self, limit: usize) -> usize {
        ((u64::from(self.0.next_u32()) * limit as u64) >> 32) as usize
    }
}

fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let values = values(bytes);
    if values.is_empty() {
        return bytes.extend_from_slice(VALUES[chance.below(VALUES.len())].as_bytes());
    }
    let place = values[chance.below(values.len())].clone();
    let other = values[chance.below(values.len())].clone();
    match chance.below(12) {
        0..=4 => put(bytes, place, VALUES[chance.below(VALUES.len())].as_bytes()),
        5..=6 => {
            let other = bytes[other].to_vec();
            put(bytes, place, &other);
        }
        7 => put(bytes, place, b""),
        8 => {
            let (from, to) = (place.start.min(other.start), place.end.max(other.end));
            let twice = [&bytes[from..to], b",", &bytes[from..to]].concat();
            put(bytes, from..to, &twice);
        }
        9 => {
            // Deeper than any parser of ours follows, or just a little.
            let depth = if chance.below(8) == 0 { 200 } else { 1 + chance.below(6) };
            let within = [&b"[".repeat(depth), &bytes[place.clone()], &b"]".repeat(depth)].concat();
            put(bytes, place, &within);
        }
        10 => {
            let at = chance.below(bytes.len());
            bytes[at] ^= 1 << chance.below(8);
        }
        _ => bytes.truncate(chance.below(bytes.len())),
    }
}

fn put(bytes: &mut Vec<u8>, place: Range<usize>, value: &[u8]) {
    bytes.splice(place, value.iter().copied());
}

/// Finds what stands in a text as a value or a name: what is in quotes, with them, and bare words.
fn values(bytes: &[u8]) -> Vec<Range<usize>> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._:".contains(&byte);
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at = (at + 1).min(bytes.len());
            found.push(start..at);
        } else if is_word(bytes[at]) && bytes[at] != b':' {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            found.push(start..at);
        } else {
            at += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_mutation_and_most_mutations_are_still_json() {
        let text = br#"{"id":7,"name":"Ann","tags":["a","b"],"at":"2026-03-01T02:00:00Z"}"#;
        let all: Vec<Vec<u8>> = (0..1_000).map(|seed| mutate(text, seed)).collect();
        assert!(all.iter().enumerate().all(|(seed, one)| *one == mutate(text, seed as u64)));
        let is_json = |one: &&Vec<u8>| serde_json::from_slice::<serde_json::Value>(one).is_ok();
        let sound = all.iter().filter(is_json).count();
        assert!((300..1_000).contains(&sound), "{sound}");
        assert!(all.iter().filter(|one| **one != text).count() > 900);
    }
}
