//! Who a lead is: e-mail addresses and countries in one form, and keys that are the same for the same
//! person across providers.

use std::fmt;

use celes::Country;
use email_address::EmailAddress;
use email_address::Options;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Digest;
use sha2::Sha256;

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

/// Names of ISO 3166-1, without signs, that the library does not know.
const COUNTRY_NAMES: &[(&str, &str)] = &[
    ("boliviaplurinationalstateof", "BO"),
    ("bonairesinteustatiusandsaba", "BQ"),
    ("holyseevaticancitystate", "VA"),
    ("sainthelenaascensionandtristandacunha", "SH"),
    ("saintmartinfrenchpart", "MF"),
    ("sintmaarten", "SX"),
    ("sintmaartendutchpart", "SX"),
    ("taiwanprovinceofchina", "TW"),
];

/// Returns the address trimmed and in lower case, where it is valid and has a domain with a dot.
pub(super) fn email(text: &str) -> Option<String> {
    let options =
        Options::default().with_required_tld().without_display_text().without_domain_literal();
    let address = text.trim().to_lowercase();
    let parsed = EmailAddress::parse_with_options(&address, options).ok()?;
    // The library takes any sign that is a letter somewhere, and numbers for a domain.
    let is_domain = parsed.domain().chars().all(|c| c.is_alphanumeric() || "-.".contains(c));
    let is_number = parsed.domain().chars().all(|c| c.is_numeric() || c == '.');
    (is_domain && !is_number).then_some(address)
}

/// Returns the ISO 3166-1 alpha-2 code of a country given as alpha-2 or alpha-3 code, or by its
/// English name; parts of the United Kingdom are `GB`.
pub(super) fn country(text: &str) -> Option<&'static str> {
    // `n/a` is not Namibia.
    let is_sign = |c: char| c.is_whitespace() || ".,'’-()&".contains(c);
    if !text.chars().all(|c| c.is_alphabetic() || is_sign(c)) {
        return None;
    }
    let word = letters(text);
    let country = match word.len() {
        2 if word == "uk" => Country::from_alpha2("GB"),
        2 => Country::from_alpha2(&word),
        3 => Country::from_alpha3(&word).or_else(|_| Country::from_alias(&word)),
        _ => return named_country(&word).or_else(|| inverted_country(text)),
    };
    country.ok().map(|country| country.alpha2)
}

/// Returns the letters in lower case, those with marks as the letters they are marked on.
fn letters(text: &str) -> String {
    let unmarked = |letter| match letter {
        'à'..='å' => 'a',
        'ç' => 'c',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ñ' => 'n',
        'ò'..='ö' => 'o',
        'ù'..='ü' => 'u',
        other => other,
    };
    let lower = text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase);
    lower.map(unmarked).collect()
}

/// Returns the country of that name; the names come first, since one's other name may be another.
fn named_country(word: &str) -> Option<&'static str> {
    let listed = COUNTRY_NAMES.iter().find(|(name, _)| *name == word).map(|(_, code)| *code);
    let known = || {
        Country::from_name(word)
            .or_else(|_| Country::from_alias(word))
            .or_else(|_| Country::from_name(format!("the{word}")))
    };
    listed.or_else(|| known().ok().map(|country| country.alpha2))
}

/// Returns the country whose name is written as in a list: `Korea, Republic of`.
fn inverted_country(text: &str) -> Option<&'static str> {
    let (name, form) = text.split_once(',')?;
    named_country(&(letters(form) + &letters(name)))
}

/// Tells whether the code says all that `text` does: it is a code itself.
pub(super) fn is_country_code(text: &str) -> bool {
    let text = text.trim();
    matches!(text.len(), 2 | 3) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_lower_case_and_valid() {
        assert_eq!(email(" Jeremy@Example.COM ").as_deref(), Some("jeremy@example.com"));
        for text in [
            "",
            "jeremy",
            "jeremy@",
            "a b@example.com",
            "J <j@example.com>",
            "j@localhost",
            "j@192.0.2.1",
            "j@exam_ple.com",
        ] {
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
            ("Samoa", "WS"),
            ("Côte d'Ivoire", "CI"),
            ("Korea, Republic of", "KR"),
            ("Virgin Islands, U.S.", "VI"),
        ] {
            assert_eq!(country(text), Some(code), "{text}");
        }
        for text in ["", "ZZ", "Narnia", "840", "US1", "xx", "n/a", "Korea, Kingdom of"] {
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
        fn no_text_makes_a_reader_panic(text in any::<String>()) {
            let _ = (email(&text), country(&text));
        }
    }
}
