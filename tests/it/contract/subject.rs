//! What the suite must know of a provider.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use leadpipe::sandbox::LoggedRequest;
use serde_json::Map;
use serde_json::Value;

use super::case::Case;
use crate::support::Rows;
use crate::support::World;

/// A provider under contract.
pub(super) trait Subject {
    /// What it is called.
    const NAME: &'static str;
    /// The name of its one source.
    const SOURCE: &'static str;
    /// How many requests one key may send within a time, by the job's plan.
    const RATE: (TimeDelta, usize);
    /// How many it may send in 24 hours.
    const PER_DAY: Option<usize>;

    /// Starts a small world of it, in which nothing happens by itself, with a job that reads all of
    /// it every night.
    async fn world(case: &Case) -> World;

    /// Returns what the snapshot should hold now.
    async fn truth(world: &World, case: &Case) -> Rows;

    /// Returns how many requests a reading of everything takes at least, which `asked` did.
    fn least(world: &World, case: &Case, asked: &[LoggedRequest]) -> u64;

    /// Returns how many requests a run takes for something else than listings and leads.
    fn beside(_case: &Case) -> u64 {
        0
    }

    /// Returns how its listings are read, night after night.
    fn reading(case: &Case) -> Reading;

    /// Lets happen what can happen to records between two nights.
    fn stir(world: &World, case: &Case) -> Stirred;

    /// Returns the secrets that must be nowhere in the lake.
    fn secrets(world: &World) -> Vec<String>;
}

/// How listings are read once they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Under a total: what is absent is asked for by id at once.
    Reconciled,
    /// Whole every night, without a total: what two readings have missed is gone.
    Whole,
    /// From the top every night and whole once a week.
    Top,
}

/// What happened, by key.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    /// Rows that any reading must show otherwise, or for the first time.
    pub(super) at_once: BTreeSet<String>,
    /// Old rows, which only a whole reading shows otherwise.
    pub(super) late: BTreeSet<String>,
    /// Rows that are listed no more.
    pub(super) gone: BTreeSet<String>,
}

/// Returns one field to be set.
pub(super) fn set(field: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(field.to_owned(), value)])
}

/// The end of every job: cases are many, and packing parts is not in question.
pub(super) const UNPACKED: &str = "[load]\ncompression = \"none\"\n";
