//! What the listings of a master key cost, cut by profile, by account or not at all, side by side.
//!
//! Each listing costs a request a window at least, so hundreds of small profiles cost hundreds of
//! requests where one listing of them all would cost a few.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;

use super::planning::Planning;
use crate::checkpoint::Partition;
use crate::checkpoint::SourceProgress;
use crate::config::PartitionBy;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::plan::Prices;
use crate::plan::Requests;
use crate::record::Scope;
use crate::window::Window;

/// What would be read with the listings of a key cut in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Choice {
    /// How they are cut.
    pub partition_by: PartitionBy,
    /// Whether the job has it so.
    pub is_set: bool,
    /// Scopes, each with listings of its own.
    pub scopes: u64,
    /// Requests of a reading of all, from the start of the history on.
    pub all: Requests,
    /// Requests of a run on a plain night.
    pub night: Requests,
}

const WAYS: [PartitionBy; 3] = [PartitionBy::Profile, PartitionBy::Account, PartitionBy::None];

impl Planning {
    /// Returns what each way to cut the listings of a source costs; nothing where it has no choice.
    pub(super) fn choices(
        &self,
        source: &SourceSettings,
        progress: &SourceProgress,
        now: DateTime<Utc>,
    ) -> Vec<Choice> {
        let listed = progress.partitions.as_ref().map(|known| known.listed.as_slice());
        let current = providers::scopes(source, listed);
        let prices = Prices::new(&self.request(&current, progress, now));
        let (all, night) = self.windows(now);
        let choice = |by: PartitionBy| {
            let scopes = providers::scopes_by(source, listed, by)?;
            let rows =
                Rows { prices: &prices, listed: listed.unwrap_or_default(), scopes: &scopes };
            let listing = Requests::Known(u64::from(by != PartitionBy::None));
            let price = |windows: &[Window]| {
                let each = |scope| windows.iter().map(move |window| (scope, window));
                let walks = scopes.iter().flat_map(each);
                let walks = walks.map(|(scope, window)| rows.price(scope, window));
                walks.fold(listing, Requests::plus)
            };
            let (all, night) = (price(&all), price(&night));
            let is_set = scopes == current;
            Some(Choice { partition_by: by, is_set, scopes: scopes.len() as u64, all, night })
        };
        let choices: Vec<Choice> = WAYS.into_iter().filter_map(choice).collect();
        if choices.len() > 1 { choices } else { Vec::new() }
    }

    /// Returns the windows of a scope from the start of the history on, and those of a plain night.
    fn windows(&self, now: DateTime<Utc>) -> (Vec<Window>, Vec<Window>) {
        let Some(start) = self.settings.start else { return Default::default() };
        let horizon = now - self.settings.settle;
        let recent = self.settings.every_run.map_or(start, |back| horizon - back).max(start);
        let split = |from| {
            let window = Window::new(from, horizon);
            window.map(|window| window.split_from_end(self.settings.longest_window()))
        };
        (split(start).unwrap_or_default(), split(recent).unwrap_or_default())
    }
}

/// Rows of scopes that were never read, by what is known of those that were.
struct Rows<'a> {
    prices: &'a Prices,
    listed: &'a [Partition],
    /// All scopes of the same choice.
    scopes: &'a [Scope],
}

impl Rows<'_> {
    fn price(&self, scope: &Scope, window: &Window) -> Requests {
        match self.of(scope, window) {
            Some(rows) => Requests::About(self.prices.pages(rows)),
            None => Requests::AtLeast(1),
        }
    }

    /// Returns the rows of a scope: its own where they were counted, else those of the profiles in it,
    /// else its even share of those of what it is in.
    fn of(&self, scope: &Scope, window: &Window) -> Option<u64> {
        let counted = |partition: &str| {
            let scope = Scope { partition: partition.to_owned(), ..scope.clone() };
            self.prices.rows(&scope.key(), window)
        };
        if let Some(rows) = counted(&scope.partition) {
            return Some(rows);
        }
        let inside = self.listed.iter().filter(|profile| is_in(profile, scope));
        let inside: Vec<u64> = inside.filter_map(|profile| counted(&profile.name)).collect();
        if !inside.is_empty() {
            return Some(inside.iter().sum());
        }
        let (name, members) = self.around(scope)?;
        counted(&name).map(|rows| rows.div_ceil(members.max(1)))
    }

    /// Returns the partition that a scope is in and that was counted, with the number of scopes in it.
    fn around(&self, scope: &Scope) -> Option<(String, u64)> {
        let own = self.listed.iter().find(|profile| profile.name == scope.partition);
        let account = own.and_then(|profile| profile.account);
        let alike = self.scopes.iter().filter(|other| other.query == scope.query);
        let mut by_account: BTreeMap<Option<u64>, u64> = BTreeMap::new();
        let mut all = 0;
        for other in alike {
            let listed = self.listed.iter().find(|profile| profile.name == other.partition);
            *by_account.entry(listed.and_then(|profile| profile.account)).or_default() += 1;
            all += 1;
        }
        let name = |account: u64| format!("account:{account}");
        let of_account = account.map(|id| (name(id), by_account[&account]));
        let is_counted = |name: &str| {
            let scope = Scope { partition: name.to_owned(), ..scope.clone() };
            self.prices.is_counted(&scope.key())
        };
        of_account.filter(|(name, _)| is_counted(name)).or_else(|| Some(("all".to_owned(), all)))
    }
}

/// Tells whether a profile is in the account of a scope, or in the scope of all.
fn is_in(profile: &Partition, scope: &Scope) -> bool {
    match scope.partition.strip_prefix("account:") {
        Some(id) => profile.account.is_some_and(|account| account.to_string() == id),
        None => scope.partition == "all",
    }
}
