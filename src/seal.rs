//! A seal on small files of JSON, so that a single flipped bit in one is noticed.
//!
//! The last field of a sealed object is `seal`: half of the BLAKE3 hash of all that stands before it.
//! A file without one was written by an earlier version and is taken as it is; what a seal is broken
//! means is for the caller to say.

/// What stands between the sealed bytes and the seal.
const FIELD: &[u8] = b",\"seal\":\"";

/// What stands behind it.
const END: &[u8] = b"\"}";

/// Hex digits of a seal.
const DIGITS: usize = 32;

/// Puts a seal at the end of a JSON object that has at least one field; a line break behind it stays.
/// Other bytes are returned as they are.
pub fn seal(object: &[u8]) -> Vec<u8> {
    let Some(body) = object.trim_ascii_end().strip_suffix(b"}") else { return object.to_vec() };
    let rest = &object[body.len() + 1..];
    let mut sealed = Vec::with_capacity(object.len() + FIELD.len() + DIGITS + 1);
    sealed.extend_from_slice(body);
    sealed.extend_from_slice(FIELD);
    sealed.extend_from_slice(digits(body).as_bytes());
    sealed.extend_from_slice(END);
    sealed.extend_from_slice(rest);
    sealed
}

/// Tells whether bytes have a seal that does not fit them.
pub fn is_broken(bytes: &[u8]) -> bool {
    let parts = bytes.trim_ascii_end().strip_suffix(END).and_then(|rest| {
        let (rest, seal) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
        Some((rest.strip_suffix(FIELD)?, seal))
    });
    parts.is_some_and(|(body, seal)| digits(body).as_bytes() != seal)
}

fn digits(body: &[u8]) -> String {
    blake3::hash(body).to_hex()[..DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &[u8] = b"{\"version\":\"1\",\"rows\":[1,2],\"name\":\"a\"}\n";

    #[test]
    fn a_sealed_object_is_the_same_object_and_one_line() {
        let sealed = seal(OBJECT);
        let value: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
        assert_eq!(value["rows"][1], 2);
        assert!(sealed.ends_with(b"\"}\n") && !is_broken(&sealed));
        assert!(!is_broken(OBJECT) && !is_broken(b"") && !is_broken(b"{}"));
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_means_something() {
        let sealed = seal(OBJECT);
        let field = sealed.len() - END.len() - DIGITS - FIELD.len() - 1;
        let strict = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is_name_of_seal = (field..field + FIELD.len()).contains(&(bit / 8));
            assert!(
                is_broken(&flipped) || !strict(&flipped) || is_name_of_seal || {
                    // The line break may become another blank.
                    flipped.trim_ascii_end() == sealed.trim_ascii_end()
                }
            );
        }
    }
}
