//! Asks a provider how many rows the spans of a plan have, one request each, and keeps the answers.
//!
//! They are hints for prices, no part of what was read: a lake without them lacks nothing.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde::Serialize;

use super::Result;
use super::client::Client;
use crate::calendar;
use crate::clock::SharedClock;
use crate::extract;
use crate::ids::SourceName;
use crate::ids::WalkId;
use crate::plan::Basis;
use crate::plan::PlannedWalk;
use crate::plan::Probed;
use crate::plan::SourcePlan;
use crate::record::Reason;
use crate::record::Scope;
use crate::record::ScopeKey;
use crate::record::Walk;
use crate::seal;
use crate::store::Store;
use crate::window::Window;

/// How long an answer is kept: leads are edited and deleted, but few of many.
const KEPT: TimeDelta = TimeDelta::days(30);

/// The smallest page: its total is what is asked for.
const PAGE_SIZE: u32 = 1;

/// As kept with the lake.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1 { scopes: BTreeMap<ScopeKey, Vec<Probed>> },
}

/// Where answers are kept, a file a source.
const FOLDER: &str = "state/probes";

fn path_of(source: &SourceName) -> String {
    format!("{FOLDER}/{source}.json")
}

/// Returns what was asked before; nothing where that cannot be read.
pub(super) fn read(store: &Store, source: &SourceName) -> Result<BTreeMap<ScopeKey, Vec<Probed>>> {
    let Some(bytes) = store.read_if_exists(&path_of(source))? else { return Ok(BTreeMap::new()) };
    if seal::is_broken(&bytes) {
        tracing::warn!(%source, "passed over damaged totals that were asked for earlier");
        return Ok(BTreeMap::new());
    }
    match decode(&bytes) {
        Ok(scopes) => Ok(scopes),
        Err(error) => {
            tracing::warn!(%source, %error, "passed over totals that were asked for earlier");
            Ok(BTreeMap::new())
        }
    }
}

/// Returns the files of totals that cannot be read.
pub(super) fn unreadable(store: &Store) -> Result<Vec<String>> {
    let mut unreadable = Vec::new();
    for name in store.list(FOLDER)? {
        let path = format!("{FOLDER}/{name}");
        let Some(bytes) = store.read_if_exists(&path)? else { continue };
        if seal::is_broken(&bytes) || decode(&bytes).is_err() {
            unreadable.push(path);
        }
    }
    Ok(unreadable)
}

/// Forgets totals that are too old to be of use, and all those of sources that are not `known`. Files that
/// cannot be read stay for whoever looks for damage.
pub(super) fn sweep(
    store: &Store,
    known: impl Fn(&SourceName) -> bool,
    now: DateTime<Utc>,
) -> Result<()> {
    for name in store.list(FOLDER)? {
        let stem = name.strip_suffix(".json");
        let Some(source) = stem.and_then(|stem| stem.parse::<SourceName>().ok()) else { continue };
        let path = path_of(&source);
        let Some(bytes) = store.read_if_exists(&path)? else { continue };
        let held = decode(&bytes).ok().filter(|_| !seal::is_broken(&bytes));
        let Some(held) = held else { continue };
        let young = if known(&source) { young(held.clone(), now) } else { BTreeMap::new() };
        if young.is_empty() {
            store.remove(&path)?;
        } else if young != held {
            write(store, &path, young)?;
        }
    }
    Ok(())
}

/// Returns the totals that are young enough to be of use.
fn young(
    mut scopes: BTreeMap<ScopeKey, Vec<Probed>>,
    now: DateTime<Utc>,
) -> BTreeMap<ScopeKey, Vec<Probed>> {
    scopes.values_mut().for_each(|known| known.retain(|known| now - known.at < KEPT));
    scopes.retain(|_, known| !known.is_empty());
    scopes
}

fn write(store: &Store, path: &str, scopes: BTreeMap<ScopeKey, Vec<Probed>>) -> Result<()> {
    let bytes = serde_json::to_vec(&Stored::V1 { scopes }).unwrap_or_default();
    Ok(store.write(path, &seal::seal(&bytes))?)
}

/// Reads totals as they are kept.
pub(crate) fn decode(bytes: &[u8]) -> serde_json::Result<BTreeMap<ScopeKey, Vec<Probed>>> {
    calendar::read(bytes).map(|Stored::V1 { scopes }| scopes)
}

/// What a round of probes has found.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// All that is known, of earlier rounds too.
    pub(super) scopes: BTreeMap<ScopeKey, Vec<Probed>>,
    /// Spans whose total the provider did not state.
    pub(super) without_total: u64,
    /// What ended the round early.
    pub(super) error: Option<extract::Error>,
}

/// Asks for the totals of the spans of `plan` that were not counted, and keeps what is answered.
/// Whatever ends it early, what was answered by then is kept.
pub(super) async fn probe(
    client: &Client,
    plan: &SourcePlan,
    store: &Store,
    source: &SourceName,
    clock: &SharedClock,
) -> Result<Probing> {
    let now = clock.now();
    let mut probing = Probing { scopes: read(store, source)?, ..Probing::default() };
    let mut unknown = plan.walks.iter().filter(|walk| is_unknown(walk));
    let mut answers = FuturesUnordered::new();
    loop {
        while answers.len() < client.at_once.max(1) {
            let Some(walk) = unknown.next() else { break };
            let Some(window) = walk.window else { continue };
            answers.push(async move {
                let total = total(client, &walk.scope, window, walk.reason, now).await;
                (walk, window, total)
            });
        }
        let Some((walk, window, answer)) = answers.next().await else { break };
        match answer {
            Ok(Some(rows)) => {
                let known = probing.scopes.entry(walk.scope.key()).or_default();
                known.retain(|known| known.window.intersect(&window).is_none());
                known.push(Probed { window, rows, at: now });
            }
            Ok(None) => probing.without_total += 1,
            Err(error) => {
                probing.error = Some(error);
                break;
            }
        }
    }
    drop(answers);
    probing.scopes = young(probing.scopes, now);
    write(store, &path_of(source), probing.scopes.clone())?;
    Ok(probing)
}

fn is_unknown(walk: &PlannedWalk) -> bool {
    walk.resume.is_none() && !matches!(walk.basis, Basis::Counted | Basis::Held)
}

/// Nobody has more rows than so many of the largest pages; a total beyond is none, whatever states it.
const MOST_ROWS: u64 = extract::MOST_PAGES as u64 * 2_500;

/// Asks how many rows a window of a scope has; `None` where the provider does not say.
pub(super) async fn total(
    client: &Client,
    scope: &Scope,
    window: Window,
    reason: Reason,
    now: DateTime<Utc>,
) -> extract::Result<Option<u64>> {
    let walk = Walk {
        id: WalkId::from(""),
        scope: scope.clone(),
        window: Some(window),
        page_size: PAGE_SIZE,
        opened_at: now,
        reason,
        down_to: None,
    };
    let send = || async {
        let answer = client.source.fetch_page(&walk, 1, PAGE_SIZE).await?;
        let total = client.source.read_page(&answer.body)?.total;
        Ok(total.filter(|rows| *rows <= MOST_ROWS))
    };
    client.caller.attempt(send).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn probed(day: i64) -> Probed {
        let window = Window::new(at(day), at(day + 1)).unwrap();
        Probed { window, rows: 7, at: at(day) }
    }

    fn keep(store: &Store, source: &str, scope: &str, days: &[i64]) {
        let known = days.iter().copied().map(probed).collect();
        let scopes = BTreeMap::from([(ScopeKey(scope.to_owned()), known)]);
        write(store, &path_of(&source.parse().unwrap()), scopes).unwrap();
    }

    #[test]
    fn totals_that_are_old_or_of_a_source_that_is_gone_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        keep(&store, "acme", "leads/all", &[1, 40]);
        keep(&store, "old", "leads/all", &[1]);
        keep(&store, "gone", "leads/all", &[40]);
        store.write("state/probes/broken.json", b"{").unwrap();
        let known = |source: &SourceName| source.as_str() != "gone";
        sweep(&store, known, at(41)).unwrap();
        assert_eq!(store.list(FOLDER).unwrap(), ["acme.json", "broken.json"]);
        let left = read(&store, &"acme".parse().unwrap()).unwrap();
        assert_eq!(left[&ScopeKey("leads/all".to_owned())], [probed(40)]);
    }
}
