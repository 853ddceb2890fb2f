//! The key behind `email_key` and `phone_key`.
//!
//! It is made with the lake, or given by the job, and never changes: rows keyed by another would
//! not match. Each commit names its fingerprint, which tells nothing of the key.

use std::fmt;

use secrecy::ExposeSecret;
use secrecy::SecretBox;

use crate::commit::Error;
use crate::commit::Result;
use crate::store::Store;

/// A lake's key. It cannot be printed.
#[derive(Clone)]
pub struct Key {
    secret: SecretBox<[u8]>,
    fingerprint: String,
}

impl Key {
    /// Returns the key's bytes, for an HMAC and nothing else.
    pub fn expose(&self) -> &[u8] {
        self.secret.expose_secret()
    }

    /// Returns the name of the key in commits: 16 hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn new(secret: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("leadpipe identity key fingerprint v1");
        let hash = hasher.update(secret).finalize().to_hex();
        Self { secret: SecretBox::new(secret.into()), fingerprint: hash[..16].to_owned() }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Key")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Returns the lake's key: the one `given` by the job, else the one in `state/key`, which is made
/// for a lake without commits.
///
/// `known` is the fingerprint in the newest commit. A key that is missing or differs from it is an
/// error, never replaced.
pub fn identity_key(store: &Store, given: Option<&[u8]>, known: Option<&str>) -> Result<Key> {
    let (key, origin) = match given {
        Some(given) => (given_key(given)?, "`[privacy]`"),
        None => (stored_key(store, known)?, "`state/key`"),
    };
    match known {
        Some(known) if known != key.fingerprint => {
            Err(Error::KeyDiffers { origin, expected: known.to_owned(), found: key.fingerprint })
        }
        _ => Ok(key),
    }
}

const KEY: &str = "state/key";
const KEY_BYTES: usize = 32;

/// The fingerprint stands in every commit, so a key must withstand being searched for.
const LEAST_BYTES: usize = 16;

fn given_key(given: &[u8]) -> Result<Key> {
    if given.len() < LEAST_BYTES {
        return Err(Error::KeyTooShort { bytes: given.len(), least: LEAST_BYTES });
    }
    Ok(Key::new(given))
}

fn stored_key(store: &Store, known: Option<&str>) -> Result<Key> {
    if let Some(hex) = store.read_if_exists(KEY)? {
        return decode(&hex).map(|secret| Key::new(&secret));
    }
    if let Some(known) = known {
        return Err(Error::KeyMissing { path: KEY, fingerprint: known.to_owned() });
    }
    make(store)?;
    // Where another run was first, its key counts.
    decode(&store.read(KEY)?).map(|secret| Key::new(&secret))
}

fn make(store: &Store) -> Result<()> {
    let mut secret = [0; KEY_BYTES];
    let filled = getrandom::fill(&mut secret);
    filled.map_err(|error| Error::Random { reason: error.to_string() })?;
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    store.write_if_absent(KEY, format!("{hex}\n").as_bytes())?;
    Ok(())
}

/// Reads a key as it is stored.
pub(super) fn decode(hex: &[u8]) -> Result<Vec<u8>> {
    let damaged = || Error::KeyDamaged { path: KEY };
    let hex = hex.trim_ascii();
    let digits = hex.iter().map(|digit| char::from(*digit).to_digit(16));
    let digits: Option<Vec<u8>> =
        digits.map(|digit| digit.and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * KEY_BYTES).ok_or_else(damaged)?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::commit::testing::lake;
    use crate::error::Hint;

    #[test]
    fn a_new_lake_gets_a_key_that_only_its_owner_can_read() {
        let (_folder, store) = lake();
        let key = identity_key(&store, None, None).unwrap();
        assert_eq!((key.expose().len(), key.fingerprint().len()), (32, 16));
        let mode = store.path(KEY).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = identity_key(&store, None, Some(key.fingerprint())).unwrap();
        assert_eq!(again.expose(), key.expose());
    }

    #[test]
    fn a_lake_whose_commits_name_a_missing_key_gets_no_new_one() {
        let (_folder, store) = lake();
        let key = identity_key(&store, None, None).unwrap();
        store.remove(KEY).unwrap();
        let error = identity_key(&store, None, Some(key.fingerprint())).unwrap_err();
        assert!(matches!(error, Error::KeyMissing { .. }));
        assert!(error.hint().unwrap().contains("state/key"));
        assert!(!store.exists(KEY).unwrap());
    }

    #[test]
    fn another_key_is_refused_wherever_it_comes_from() {
        let (_folder, store) = lake();
        let key = identity_key(&store, None, None).unwrap();
        let known = Some(key.fingerprint());
        let given = identity_key(&store, Some(b"sixteen bytes or more"), known);
        assert!(matches!(given, Err(Error::KeyDiffers { origin: "`[privacy]`", .. })));
        store.remove(KEY).unwrap();
        identity_key(&store, None, None).unwrap();
        let made = identity_key(&store, None, known);
        assert!(matches!(made, Err(Error::KeyDiffers { origin: "`state/key`", .. })));
    }

    #[test]
    fn a_given_key_counts_and_is_not_stored() {
        let (_folder, store) = lake();
        let given = b"sixteen bytes or more";
        let key = identity_key(&store, Some(given), None).unwrap();
        assert_eq!(key.expose(), given);
        assert!(!store.exists(KEY).unwrap());
        let short = identity_key(&store, Some(b"short"), None);
        assert!(matches!(short, Err(Error::KeyTooShort { bytes: 5, .. })));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays_as_it_is() {
        let (_folder, store) = lake();
        for damage in ["", "abc", &"0".repeat(63), &"x".repeat(64), &"0".repeat(66)] {
            store.write(KEY, damage.as_bytes()).unwrap();
            let refused = identity_key(&store, None, None);
            assert!(matches!(refused, Err(Error::KeyDamaged { .. })), "{damage}");
            assert_eq!(store.read(KEY).unwrap(), damage.as_bytes());
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let (_folder, store) = lake();
        let key = identity_key(&store, Some(b"sixteen bytes or more"), None).unwrap();
        let printed = format!("{key:?}");
        assert!(printed.contains(key.fingerprint()) && !printed.contains("sixteen"));
    }
}
