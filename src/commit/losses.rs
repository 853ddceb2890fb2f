//! What is lost for good, and known to be: files that a repair could not make again.
//!
//! Such a file is named by commits or rows for as long as these live. Once it is noted here, with when
//! and why, its absence is no news.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::commit::Error;
use crate::commit::Result;
use crate::commit::stored::decode_versioned;
use crate::ids::RunId;
use crate::seal;
use crate::store::Store;

/// Files known to be lost, by their path relative to the lake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses(pub BTreeMap<String, Loss>);

/// What is known of a loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// What was wrong with the file.
    pub what: String,
    /// When a repair found it so.
    pub since: DateTime<Utc>,
    /// That repair.
    pub run: RunId,
}

impl Losses {
    /// Where they are noted, relative to the lake.
    pub const PATH: &str = "state/losses.json";

    /// Reads them; none where there is no such file.
    pub fn read(store: &Store) -> Result<Self> {
        let Some(bytes) = store.read_if_exists(Self::PATH)? else { return Ok(Self::default()) };
        match decode_versioned(Self::PATH, &bytes, &["1"])? {
            Stored::V1 { losses } => Ok(Self(losses)),
        }
    }

    /// Writes them.
    pub fn write(&self, store: &Store) -> Result<()> {
        let encoded = serde_json::to_vec(&Stored::V1 { losses: self.0.clone() });
        let bytes = encoded.map_err(|source| Error::Encode { what: "losses", source })?;
        Ok(store.write(Self::PATH, &seal::seal(&bytes))?)
    }

    /// Tells whether a file is known to be lost.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1 { losses: BTreeMap<String, Loss> },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::testing::at;
    use crate::commit::testing::lake;
    use crate::commit::testing::run;

    #[test]
    fn what_is_noted_is_known_from_then_on() {
        let (_folder, store) = lake();
        assert_eq!(Losses::read(&store).unwrap(), Losses::default());
        let loss = Loss { what: "it is missing".to_owned(), since: at(1), run: run(1) };
        let losses = Losses(BTreeMap::from([("changes/1.parquet".to_owned(), loss)]));
        losses.write(&store).unwrap();
        assert!(Losses::read(&store).unwrap().has("changes/1.parquet"));
        store.write(Losses::PATH, b"{}").unwrap();
        assert!(matches!(Losses::read(&store), Err(Error::Damaged { .. })));
    }
}
