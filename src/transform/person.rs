//! Who a lead is: telephone numbers, e-mail addresses and countries in one form, and keys that are
//! the same for the same person across providers.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write;

use celes::Country;
use email_address::EmailAddress;
use email_address::Options;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use phonenumber::country::Id as Region;
use sha2::Digest;
use sha2::Sha256;

/// Longer texts are no telephone number, whatever digits stand in them.
const MAX_PHONE_LENGTH: usize = 64;

/// Numbers remembered while a page is mapped: parsing one costs more than the rest of its lead.
const MAX_REMEMBERED: usize = 4_096;

/// The block of SHA-256, to which HMAC pads its key.
const BLOCK_BYTES: usize = 64;

/// The secret under which `email_key` and `phone_key` are made. It cannot be printed or stored.
#[derive(Clone)]
pub struct IdentityKey {
    mac: Hmac<Sha256>,
    fingerprint: String,
}

impl IdentityKey {
    /// Returns the key made of `secret`, which should hold 32 random bytes.
    pub fn new(secret: &[u8]) -> Self {
        // Padding, and hashing of what is longer than a block, as RFC 2104 has it.
        let mut block = [0; BLOCK_BYTES];
        if secret.len() > BLOCK_BYTES {
            block[..32].copy_from_slice(&Sha256::digest(secret));
        } else {
            block[..secret.len()].copy_from_slice(secret);
        }
        let print = blake3::derive_key("leadpipe identity key fingerprint v1", secret);
        Self {
            mac: Hmac::new(&block.into()),
            fingerprint: blake3::Hash::from(print).to_hex()[..16].to_owned(),
        }
    }

    /// Returns 16 hex digits that tell keys apart and give nothing of them away.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the first 16 bytes of the HMAC-SHA256 of `text`, in hex.
    pub(super) fn key_of(&self, text: &str) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        let digest = mac.finalize().into_bytes();
        let mut hex = String::with_capacity(32);
        for byte in digest.iter().take(16) {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IdentityKey").field("fingerprint", &self.fingerprint).finish()
    }
}

/// Returns the address trimmed and in lower case, where it is valid and has a domain with a dot.
pub(super) fn email(text: &str) -> Option<String> {
    let options =
        Options::default().with_required_tld().without_display_text().without_domain_literal();
    let address = text.trim().to_lowercase();
    EmailAddress::parse_with_options(&address, options).ok()?;
    Some(address)
}

/// Returns the ISO 3166-1 alpha-2 code of a country given as alpha-2 or alpha-3 code, or by its
/// English name; parts of the United Kingdom are `GB`.
pub(super) fn country(text: &str) -> Option<&'static str> {
    let word: String = text.chars().filter(|c| c.is_alphabetic()).collect();
    let digits = text.chars().any(char::is_numeric);
    let country = match word.len() {
        _ if digits => return None,
        2 if word.eq_ignore_ascii_case("uk") => Country::from_alpha2("GB"),
        2 => Country::from_alpha2(&word),
        3 => Country::from_alpha3(&word).or_else(|_| Country::from_alias(&word)),
        _ => Country::from_alias(&word)
            .or_else(|_| Country::from_name(&word))
            .or_else(|_| Country::from_name(format!("the{word}"))),
    };
    country.ok().map(|country| country.alpha2)
}

/// Tells whether the code says all that `text` does: it is a code itself.
pub(super) fn is_country_code(text: &str) -> bool {
    let text = text.trim();
    matches!(text.len(), 2 | 3) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

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
        let phone = match number {
            Number::Written(text) => written(text, regions),
            Number::Kept(text) => kept(text, regions),
            Number::Parts { code, number } => joined(code, number, regions),
        };
        if self.remembered.len() < MAX_REMEMBERED {
            self.remembered.insert(self.key.clone(), phone.clone());
        }
        phone
    }
}

fn written(text: &str, regions: [Option<&str>; 2]) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_PHONE_LENGTH {
        return None;
    }
    let own = regions.iter().flatten().filter_map(|region| region.parse::<Region>().ok());
    // Without a region only numbers with their country code can be read.
    own.map(Some).chain([None]).find_map(|region| {
        let number = phonenumber::parse(region, text).ok()?;
        let is_valid = phonenumber::is_valid(&number);
        is_valid.then(|| format!("+{}{}", number.code().value(), number.national()))
    })
}

/// Reads a number that is none of the regions' as one with its country code.
fn kept(text: &str, regions: [Option<&str>; 2]) -> Option<String> {
    written(text, regions).or_else(|| {
        let text = text.trim();
        let digits = text.strip_prefix("00").unwrap_or(text);
        digits.starts_with(|first: char| first.is_ascii_digit()).then(|| international(digits))?
    })
}

/// Reads a number whose country code came apart from it.
fn joined(code: &str, number: &str, regions: [Option<&str>; 2]) -> Option<String> {
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    let code = digits(code);
    let code = code.trim_start_matches('0');
    if code.is_empty() || number.trim().starts_with('+') {
        return kept(number, regions);
    }
    let all = digits(number);
    let significant = all.trim_start_matches('0');
    international(&format!("{code} {number}"))
        .or_else(|| international(&format!("{code}{significant}")))
        // Some people type the code into the number's field, too.
        .or_else(|| significant.starts_with(code).then(|| international(significant))?)
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

    #[test]
    fn addresses_are_lower_case_and_valid() {
        assert_eq!(email(" Jeremy@Example.COM ").as_deref(), Some("jeremy@example.com"));
        for text in ["", "jeremy", "jeremy@", "a b@example.com", "J <j@example.com>", "j@localhost"]
        {
            assert_eq!(email(text), None, "{text}");
        }
    }

    #[test]
    fn countries_come_as_codes_and_english_names() {
        for (text, code) in [
            ("US", "US"),
            ("usa", "US"),
            ("U.S.A.", "US"),
            ("United States", "US"),
            ("United States of America", "US"),
            ("America", "US"),
            ("gb", "GB"),
            ("GBR", "GB"),
            ("UK", "GB"),
            ("England", "GB"),
            ("United Kingdom", "GB"),
            ("Great Britain", "GB"),
            ("Germany", "DE"),
            ("canada", "CA"),
            ("Netherlands", "NL"),
            ("Russia", "RU"),
            ("South Korea", "KR"),
            ("Ireland", "IE"),
            ("New Zealand", "NZ"),
            ("United Arab Emirates", "AE"),
            ("India", "IN"),
            ("Australia", "AU"),
        ] {
            assert_eq!(country(text), Some(code), "{text}");
        }
        for text in ["", "ZZ", "Narnia", "840", "US1", "xx"] {
            assert_eq!(country(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_hmac_sha256_and_cannot_be_printed() {
        // RFC 4231, test cases 2 and 6: a short key, and one longer than a block.
        let short = IdentityKey::new(b"Jefe");
        let text = "what do ya want for nothing?";
        assert_eq!(short.key_of(text), "5bdcc146bf60754e6a042426089575c7");
        let text = "Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(IdentityKey::new(&[0xaa; 131]).key_of(text), "60e431591ee0b67f0d8a26aacbf5b77f");
        assert!(!format!("{short:?}").contains("Jefe"));
        assert_ne!(short.fingerprint(), IdentityKey::new(b"Jeff").fingerprint());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in any::<String>(), digits in "[-+0-9 ().ext,;#]{0,40}") {
            for text in [text, digits] {
                let regions = [Some("US"), Some("DE")];
                let _ = (kept(&text, regions), email(&text), country(&text));
                let _ = (joined(&text, &text, regions), joined("49", &text, regions));
            }
        }
    }
}
