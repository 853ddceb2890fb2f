//! Telephone numbers in one form, E.164, however a provider gives them; only valid ones.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

use phonenumber::Type;
use phonenumber::country::Id as Region;
use phonenumber::country::Source;
use phonenumber::metadata::DATABASE;

/// Longer texts are no telephone number, whatever digits stand in them.
const MAX_PHONE_LENGTH: usize = 64;

/// Numbers remembered: parsing one costs more than any other field of its lead.
const MAX_REMEMBERED: usize = 4_096;

/// Beginnings of North American numbers remembered, of some hundred thousand that are in use.
const MAX_BEGINNINGS: usize = 65_536;

/// The regions in whose plans nothing goes by the last four digits of a number.
const BY_BEGINNINGS: [Region; 2] = [Region::US, Region::CA];

/// The zeros of scripts in which numbers are typed; the other digits follow each. Arabic, Persian,
/// Devanagari, Bengali, Thai, and the wide ones of East Asia.
const ZEROS: [char; 6] = ['\u{660}', '\u{6f0}', '\u{966}', '\u{9e6}', '\u{e50}', '\u{ff10}'];

/// A telephone number as a provider gives it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number<'t> {
    /// As somebody wrote it.
    Written(&'t str),
    /// As a messaging platform keeps it: with its country code, but maybe without the `+`.
    Kept(&'t str),
    /// In two parts.
    Parts {
        /// The country code, with or without `+`.
        code: &'t str,
        /// The rest, which may have the zero of national calls, or the code once more.
        number: &'t str,
    },
}

/// Reads telephone numbers, and remembers what it read.
#[derive(Debug, Default)]
pub(super) struct Phones {
    remembered: HashMap<String, Option<String>>,
    /// By the first six digits of North American numbers, whether all are valid in `BY_BEGINNINGS`.
    beginnings: HashMap<u32, bool>,
    key: String,
}

impl Phones {
    /// Returns the number in E.164, read as one of the first of `regions` (alpha-2) in which it is
    /// valid; a number with its country code needs none.
    pub(super) fn read(
        &mut self,
        number: Number<'_>,
        regions: [Option<&str>; 2],
    ) -> Option<String> {
        if let Number::Written(text) = number
            && let Some(digits) = north_american(text, regions)
            && self.is_valid_beginning(digits)
        {
            return Some(format!("+1{digits}"));
        }
        let (kind, code, text) = match number {
            Number::Written(text) => ("written", "", text),
            Number::Kept(text) => ("kept", "", text),
            Number::Parts { code, number } => ("parts", code, number),
        };
        let [first, second] = regions.map(Option::unwrap_or_default);
        self.key.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.key, "{kind}\n{first}\n{second}\n{}\n{code}{text}", code.len());
        if let Some(known) = self.remembered.get(&self.key) {
            return known.clone();
        }
        let (code, text) = (with_ascii_digits(code), with_ascii_digits(text));
        let phone = match number {
            Number::Written(_) => written(&text, regions),
            Number::Kept(_) => kept(&text, regions),
            Number::Parts { .. } => joined(&code, &text, regions),
        };
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(self.key.clone(), phone.clone());
        phone
    }

    /// Tells whether ten digits are a valid number of the United States or Canada; of those that are
    /// not, islands have plans of their own, which go by more digits.
    fn is_valid_beginning(&mut self, digits: u64) -> bool {
        let beginning = (digits / 10_000) as u32;
        if self.beginnings.len() == MAX_BEGINNINGS {
            self.beginnings.clear();
        }
        let is_told = || {
            phonenumber::parse(None, format!("+1{digits}")).is_ok_and(|number| {
                let region = number.country().id();
                region.is_some_and(|region| BY_BEGINNINGS.contains(&region))
                    && phonenumber::is_valid(&number)
            })
        };
        *self.beginnings.entry(beginning).or_insert_with(is_told)
    }
}

/// Returns the ten digits of a number of the usual North American form, in which the library finds
/// these digits and nothing else: behind a `+1`, or without it where it is read as a number from there.
fn north_american(text: &str, regions: [Option<&str>; 2]) -> Option<u64> {
    let text = text.trim_ascii();
    let national = match text.strip_prefix("+1") {
        // What stands together behind the `+` is taken for the country code where more comes after it.
        Some(national)
            if national.len() > 10 && national.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            return None;
        }
        Some(national) => national,
        None if matches!(regions.iter().flatten().next(), Some(&"US" | &"CA")) => text,
        None => return None,
    };
    let (mut digits, mut count) = (0, 0);
    for byte in national.bytes() {
        match byte {
            b'0'..=b'9' if count < 10 => {
                digits = digits * 10 + u64::from(byte - b'0');
                count += 1;
            }
            b' ' | b'-' | b'.' | b'(' | b')' => {}
            _ => return None,
        }
    }
    // Whatever is dialled before a number begins with a one or a zero.
    (count == 10 && digits >= 2_000_000_000 && text.len() <= MAX_PHONE_LENGTH).then_some(digits)
}

fn with_ascii_digits(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let ascii = |c: char| {
        let digits = ZEROS.iter().map(|zero| u32::from(c).wrapping_sub(u32::from(*zero)));
        digits.filter_map(|digit| char::from_digit(digit, 10)).next().unwrap_or(c)
    };
    text.chars().map(ascii).collect::<String>().into()
}

fn written(text: &str, regions: [Option<&str>; 2]) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_PHONE_LENGTH {
        return None;
    }
    let mut own = regions.iter().flatten().filter_map(|region| region.parse::<Region>().ok());
    let bare = text.trim_start_matches(['+', '\u{ff0b}']).trim_start();
    if bare.len() == text.len() {
        // Without a region only numbers with their country code can be read.
        return own.map(Some).chain([None]).find_map(|region| valid(region, text));
    }
    // No country code begins with a zero: that is what is dialled before one, beside the `+`.
    if bare.starts_with('0') {
        own.find_map(|region| dialled(region, bare))
    } else {
        valid(None, text)
    }
}

/// Returns the number in E.164, where it is valid.
///
/// Of a number with its country code the library takes away what is dialled before national numbers
/// in `region`, whatever country it is of: such a number is read anew without the region.
fn valid(region: Option<Region>, text: &str) -> Option<String> {
    let number = phonenumber::parse(region, text).ok()?;
    match (region, number.code().source()) {
        (Some(_), Source::Plus) => valid(None, text),
        (Some(region), Source::Idd) => dialled(region, text),
        _ => phonenumber::is_valid(&number)
            .then(|| format!("+{}{}", number.code().value(), number.national())),
    }
}

/// Reads a number as one dials it to reach another country from `region`.
fn dialled(region: Region, text: &str) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let prefix = DATABASE.by_id(region.as_ref())?.international_prefix()?;
    let length = prefix.find(&digits).filter(|found| found.start() == 0)?.end();
    let mut places = text.char_indices().filter(|(_, c)| c.is_ascii_digit());
    let (last, _) = places.nth(length.checked_sub(1)?)?;
    valid(None, &format!("+{}", text.get(last + 1..)?))
}

/// Reads a number that is none of the regions' as one with its country code.
fn kept(text: &str, regions: [Option<&str>; 2]) -> Option<String> {
    written(text, regions).or_else(|| {
        let text = text.trim();
        let digits = text.strip_prefix("00").unwrap_or(text);
        let is_bare = digits.starts_with(|first: char| first.is_ascii_digit());
        is_bare.then(|| international(digits)).flatten()
    })
}

/// Reads a number whose country code came apart from it.
///
/// Some people type the code into the number's field, too. Where the number is valid either way,
/// the code counts as repeated only if that makes a mobile number of it.
fn joined(code: &str, number: &str, regions: [Option<&str>; 2]) -> Option<String> {
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    let code = digits(code);
    let code = code.trim_start_matches('0');
    if code.is_empty() || number.trim().starts_with('+') {
        return kept(number, regions);
    }
    let all = digits(number);
    let significant = all.trim_start_matches('0');
    let once = international(&format!("{code} {number}"))
        .or_else(|| international(&format!("{code}{significant}")));
    let twice = significant.starts_with(code).then(|| international(significant)).flatten();
    match (once, twice) {
        (Some(once), Some(twice)) if !is_mobile(&twice) || is_mobile(&once) => Some(once),
        (once, twice) => twice.or(once),
    }
}

fn is_mobile(e164: &str) -> bool {
    let number = phonenumber::parse(None, e164);
    number.is_ok_and(|number| number.number_type(&DATABASE) == Type::Mobile)
}

fn international(digits: &str) -> Option<String> {
    written(&format!("+{digits}"), [None, None])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_with_the_first_region_that_fits() {
        for (text, regions, e164) in [
            ("+1 (704) 555-0155", [None, None], Some("+17045550155")),
            ("704-555-0155", [Some("US"), None], Some("+17045550155")),
            ("803-555-0158", [Some("GB"), Some("US")], Some("+18035550158")),
            ("704-555-0155", [None, None], None),
            ("17045550155", [Some("US"), None], Some("+17045550155")),
            ("020 7946 0018", [None, Some("GB")], Some("+442079460018")),
            ("+39 06 6982 1234", [Some("US"), None], Some("+390669821234")),
            ("+49 1512 3456789", [Some("US"), None], Some("+4915123456789")),
            ("011 49 1512 3456789 ext. 1", [Some("US"), None], Some("+4915123456789")),
            ("12", [Some("US"), None], None),
            ("anonymous", [Some("US"), None], None),
        ] {
            assert_eq!(written(text, regions).as_deref(), e164, "{text}");
        }
    }

    #[test]
    fn a_number_read_twice_is_the_same() {
        let mut phones = Phones::default();
        for _ in 0..2 {
            let number = Number::Written("704-555-0155");
            let us = phones.read(number, [Some("US"), None]);
            assert_eq!(us.as_deref(), Some("+17045550155"));
            assert_eq!(phones.read(number, [None, None]), None);
            // The same text, given otherwise, is another number.
            let parts = Number::Parts { code: "44", number: "020 7946 0018" };
            assert_eq!(phones.read(parts, [None, None]).as_deref(), Some("+442079460018"));
            assert_eq!(
                phones.read(Number::Kept("44020 7946 0018"), [Some("US"), None]),
                phones.read(parts, [None, None])
            );
        }
    }

    /// Reads a number that begins as `text` does, and then `text`.
    fn read_second(text: &str, regions: [Option<&str>; 2]) -> Option<String> {
        let mut phones = Phones::default();
        let place = text.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let last = if text[place..].starts_with('9') { "0" } else { "9" };
        let before = format!("{}{last}{}", &text[..place], &text[place + 1..]);
        phones.read(Number::Written(&before), regions);
        phones.read(Number::Written(text), regions)
    }

    #[test]
    fn the_usual_form_of_a_north_american_number_is_read_as_the_library_reads_it() {
        for (text, regions) in [
            ("704-555-0155", [Some("US"), None]),
            ("(704) 555.0155", [None, Some("CA")]),
            ("+1 704 555 0155", [Some("DE"), None]),
            ("704-155-0155", [Some("US"), None]),
            ("104-555-0155", [Some("US"), None]),
            ("704-555-0155", [Some("GB"), Some("US")]),
            ("704-555-01555", [Some("US"), None]),
            ("704-555-015", [Some("US"), None]),
            ("+1 704 555 0155 x7", [Some("US"), None]),
            ("+1704555-0155", [Some("US"), None]),
        ] {
            assert_eq!(read_second(text, regions), written(text, regions), "{text}");
        }
    }

    /// Two islands' plans go by the seventh digit, too.
    #[test]
    fn a_number_of_an_island_is_read_by_all_its_digits() {
        let mut phones = Phones::default();
        for text in ["+1 246 521 0000", "+1 246 521 2000", "+1 876 606 0000", "+1 876 606 9000"] {
            let read = phones.read(Number::Written(text), [None, None]);
            assert_eq!(read, written(text, [None, None]), "{text}");
        }
        assert!(phones.beginnings.values().all(|is_told| !is_told));
    }

    #[test]
    fn no_plan_of_the_regions_told_by_beginnings_goes_by_the_last_four_digits() {
        for region in BY_BEGINNINGS {
            let plan = DATABASE.by_id(region.as_ref()).unwrap();
            let all = plan.descriptors();
            let kinds = [
                all.premium_rate(),
                all.toll_free(),
                all.shared_cost(),
                all.voip(),
                all.personal_number(),
                all.pager(),
                all.uan(),
                all.voicemail(),
                all.fixed_line(),
                all.mobile(),
            ];
            for kind in kinds.into_iter().flatten() {
                let pattern = kind.national_number().as_str();
                let pattern: String = pattern.split_whitespace().collect();
                let mut depth = 0;
                let alternatives = pattern.split(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth == 0 && c == '|'
                });
                for alternative in alternatives {
                    let is_free =
                        (4..=9).any(|count| alternative.ends_with(&format!(r"\d{{{count}}}")));
                    assert!(is_free, "{region:?}: {alternative}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_first_six_digits_tell_of_a_north_american_number_what_the_library_tells(
            text in "(\\+1[ .-]?)?\\(?[2-9][0-9]{2}\\)?[ .-]?[0-9]{3}[ .-]?[0-9]{4}",
            region in "US|CA|DE",
        ) {
            let regions = [Some(region.as_str()), Some("US")];
            prop_assert_eq!(read_second(&text, regions), written(&text, regions));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in any::<String>(), digits in "[-+0-9 ().ext,;#]{0,40}") {
            let regions = [Some("US"), Some("DE")];
            for text in [text, digits] {
                let _ = (kept(&text, regions), joined(&text, &text, regions));
                let _ = joined("49", &text, regions);
            }
        }

        #[test]
        fn what_is_read_reads_back_equal(number in "[2-9][0-9]{9}", region in "US|GB|DE|IN") {
            let regions = [Some(region.as_str()), None];
            if let Some(e164) = written(&number, regions) {
                for elsewhere in ["US", "GB", "RU", "HU"] {
                    let again = written(&e164, [Some(elsewhere), None]);
                    prop_assert_eq!(again.as_ref(), Some(&e164));
                }
            }
        }
    }
}
