//! Who is at more than one platform: the same `phone_key` in rows of several providers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::read;
use super::text_of;
use crate::commit;
use crate::ids::Seq;
use crate::report::Table;
use crate::report::number;
use crate::store::Store;

/// People who are at more than one platform.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct People {
    /// At two.
    at_two: u64,
    /// At three.
    at_three: u64,
    /// One of them, who is at as many as anybody.
    example: Vec<Place>,
}

/// A row of somebody, without personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Place {
    phone_key: String,
    provider: String,
    lead_id: String,
    channel: String,
}

/// A telephone number and a name: 555 numbers are so few that two people may share one.
type Who = (String, String);

/// Looks through the snapshot of a commit.
pub(super) fn at_several_platforms(store: &Store, seq: Option<Seq>) -> anyhow::Result<People> {
    let Some(seq) = seq else { return Ok(People::default()) };
    let mut seen: BTreeMap<Who, BTreeMap<String, Place>> = BTreeMap::new();
    let commit = commit::read(store, seq)?;
    for part in commit.sources.values().flat_map(|source| &source.parts) {
        for batch in read(store, &part.file.path)? {
            for row in 0..batch.num_rows() {
                let text = |column| text_of(&batch, column, row);
                let who = (text("phone_key"), text("full_name").to_lowercase());
                if who.0.is_empty() || who.1.is_empty() {
                    continue;
                }
                let provider = text("provider");
                seen.entry(who).or_default().entry(provider.clone()).or_insert_with(|| Place {
                    phone_key: text("phone_key"),
                    provider,
                    lead_id: text("lead_id"),
                    channel: text("channel"),
                });
            }
        }
    }
    let at = |platforms| seen.values().filter(|places| places.len() == platforms).count() as u64;
    let most = seen.values().filter(|places| places.len() > 1).max_by_key(|places| places.len());
    let example = most.map(|places| places.values().cloned().collect()).unwrap_or_default();
    Ok(People { at_two: at(2), at_three: at(3), example })
}

impl People {
    /// Returns who was found, as text.
    pub(super) fn text(&self) -> String {
        let mut at = format!("{} people are at two of them", number(self.at_two));
        if self.at_three > 0 {
            at.push_str(&format!(", {} at three", number(self.at_three)));
        }
        let mut text = format!(
            "\nOne table for all platforms: {at}, by `phone_key` and name. One of these people:\n"
        );
        let mut table = Table::new(&["phone_key", "provider", "lead_id", "channel"], 4);
        for place in &self.example {
            let Place { phone_key, provider, lead_id, channel } = place.clone();
            table.row([phone_key, provider, lead_id, channel]);
        }
        for line in table.to_string().lines() {
            text.push_str(&format!("  {line}\n"));
        }
        text
    }
}
