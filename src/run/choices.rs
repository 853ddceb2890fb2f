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
        let profiles = Profiles::new(listed.unwrap_or_default());
        let choice = |by: PartitionBy| {
            let scopes = providers::scopes_by(source, listed, by)?;
            let rows = Rows::new(&prices, &profiles, &scopes);
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

/// The profiles that the provider listed.
struct Profiles<'a> {
    /// The account of each, where it has one.
    accounts: BTreeMap<&'a str, Option<u64>>,
    /// Their names, by the partitions that they are in.
    inside: BTreeMap<String, Vec<&'a str>>,
}

impl<'a> Profiles<'a> {
    fn new(listed: &'a [Partition]) -> Self {
        let mut profiles = Self { accounts: BTreeMap::new(), inside: BTreeMap::new() };
        for profile in listed {
            let name = profile.name.as_str();
            profiles.accounts.entry(name).or_insert(profile.account);
            for partition in profile.account.map(of_account).into_iter().chain([of_all()]) {
                profiles.inside.entry(partition).or_default().push(name);
            }
        }
        profiles
    }

    fn account_of(&self, profile: &str) -> Option<u64> {
        self.accounts.get(profile).copied().flatten()
    }
}

fn of_account(id: u64) -> String {
    format!("account:{id}")
}

fn of_all() -> String {
    "all".to_owned()
}

/// Rows of scopes that were never read, by what is known of those that were.
struct Rows<'a> {
    prices: &'a Prices,
    profiles: &'a Profiles<'a>,
    /// The numbers of all scopes of the same choice, by their query.
    alike: BTreeMap<&'a str, Alike>,
}

/// How many scopes there are of a query.
#[derive(Default)]
struct Alike {
    all: u64,
    by_account: BTreeMap<u64, u64>,
}

impl<'a> Rows<'a> {
    fn new(prices: &'a Prices, profiles: &'a Profiles<'a>, scopes: &'a [Scope]) -> Self {
        let mut alike: BTreeMap<&str, Alike> = BTreeMap::new();
        for scope in scopes {
            let of_query = alike.entry(scope.query.as_str()).or_default();
            of_query.all += 1;
            if let Some(account) = profiles.account_of(&scope.partition) {
                *of_query.by_account.entry(account).or_default() += 1;
            }
        }
        Self { prices, profiles, alike }
    }

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
        let inside = self.profiles.inside.get(&scope.partition).into_iter().flatten();
        let inside: Vec<u64> = inside.filter_map(|profile| counted(profile)).collect();
        if !inside.is_empty() {
            return Some(inside.iter().sum());
        }
        let (name, members) = self.around(scope)?;
        counted(&name).map(|rows| rows.div_ceil(members.max(1)))
    }

    /// Returns the partition that a scope is in and that was counted, with the number of scopes in it.
    fn around(&self, scope: &Scope) -> Option<(String, u64)> {
        let alike = self.alike.get(scope.query.as_str())?;
        let account = self.profiles.account_of(&scope.partition);
        let own = account.and_then(|id| Some((of_account(id), *alike.by_account.get(&id)?)));
        let is_counted = |name: &str| {
            let scope = Scope { partition: name.to_owned(), ..scope.clone() };
            self.prices.is_counted(&scope.key())
        };
        own.filter(|(name, _)| is_counted(name)).or_else(|| Some((of_all(), alike.all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::plan::Probed;
    use crate::plan::Task;
    use chrono::TimeDelta;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn window() -> Window {
        Window::new(at(0), at(10)).unwrap()
    }

    fn scope(partition: &str, query: &str) -> Scope {
        Scope {
            source: "acme".parse().unwrap(),
            stream: "leads".to_owned(),
            partition: partition.to_owned(),
            query: query.to_owned(),
            list: String::new(),
        }
    }

    /// Returns prices of which the provider stated the rows of some scopes without a query.
    fn stated(rows: &[(&str, u64)]) -> Prices {
        let probe = |rows| Probed { window: window(), rows, at: at(10) };
        let probed = rows.iter().map(|(name, rows)| (scope(name, "").key(), vec![probe(*rows)]));
        let settings = plan::Settings {
            start: Some(at(0)),
            window_days: 400,
            page_size: 100,
            settle: TimeDelta::zero(),
            every_run: None,
            tiers: Vec::new(),
            spare: 0,
            walk_max_age: TimeDelta::days(1),
            oldest_first: false,
        };
        Prices::new(&plan::Request {
            scopes: &[],
            progress: &SourceProgress::default(),
            probed: &probed.collect(),
            left_to_backfills: &[],
            now: at(10),
            settings,
            task: Task::Sync,
        })
    }

    /// Returns the rows of a scope without a query, in an account 7 of the profiles 1 and 2, with a
    /// third profile beside it in no account.
    fn rows(by: &[&str], told: &[(&str, u64)], of: &str) -> Option<u64> {
        let listed = [("profile:1", Some(7)), ("profile:2", Some(7)), ("profile:3", None)];
        let listed = listed.map(|(name, account)| Partition { name: name.to_owned(), account });
        let profiles = Profiles::new(&listed);
        let scopes: Vec<Scope> =
            by.iter().flat_map(|name| [scope(name, ""), scope(name, "spam=true")]).collect();
        Rows::new(&stated(told), &profiles, &scopes).of(&scope(of, ""), &window())
    }

    const PROFILES: [&str; 3] = ["profile:1", "profile:2", "profile:3"];

    #[test]
    fn a_profile_has_its_own_rows_or_its_share_of_its_account_or_of_all() {
        let told = [("profile:1", 5), ("account:7", 40), ("all", 90)];
        assert_eq!(rows(&PROFILES, &told, "profile:1"), Some(5));
        assert_eq!(rows(&PROFILES, &told, "profile:2"), Some(20));
        assert_eq!(rows(&PROFILES, &told, "profile:3"), Some(30));
        assert_eq!(rows(&PROFILES, &told[2..], "profile:2"), Some(30));
        assert_eq!(rows(&PROFILES, &[], "profile:2"), None);
    }

    #[test]
    fn what_profiles_are_in_has_the_rows_of_those_that_were_counted() {
        let told = [("profile:1", 5), ("profile:2", 6), ("profile:3", 7)];
        assert_eq!(rows(&["account:7"], &told, "account:7"), Some(11));
        assert_eq!(rows(&["all"], &told, "all"), Some(18));
        assert_eq!(rows(&["account:7"], &told[2..], "account:7"), None);
        assert_eq!(rows(&["account:7"], &[("all", 90)], "account:7"), Some(90));
    }
}
