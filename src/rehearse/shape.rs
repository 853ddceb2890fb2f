//! What shape a rehearsed account has: as the lake knows it, else as the job and the caller say, else a
//! guess that says so.
//!
//! Pure. What is taken for a figure carries where it is from. Large accounts are shrunk: fewer leads on
//! pages that are smaller by the same factor, so that pages, and with them requests, stay as many.

use chrono::DateTime;
use chrono::NaiveDate;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Request;
use crate::checkpoint::SourceProgress;
use crate::commit::Commit;
use crate::config::ConvertalkStream;
use crate::config::ProviderSettings;
use crate::config::SourceSettings;
use crate::config::WhatConvertsPlan;
use crate::config::WhautomateStream;
use crate::extract::providers;
use crate::quota::Rule;
use crate::record::Scope;
use crate::report::Basis;
use crate::report::SourceShape;
use crate::report::Taken;

/// So many leads of all sources together are invented as they are; where there are more, each stands
/// for several.
pub const LEADS: u64 = 50_000;
/// Above so many invented leads a rehearsal would take minutes and gigabytes.
const MOST_LEADS: u64 = 2_000_000;
/// On smaller pages, what moves while a listing is read would no longer be what it is on large ones.
const LEAST_PAGE: u32 = 5;
/// Rows that Convertalk puts on a page; nobody asks for a number.
const CONVERTALK_PAGE: u32 = 20;

/// Profiles of a master key, where nobody says.
const PROFILES: u32 = 10;
/// Leads a day of a profile, an account of Whautomate and a bot, where nobody says.
const LEADS_OF_A_PROFILE: f64 = 5.0;
const LEADS_OF_AN_ACCOUNT: f64 = 20.0;
const LEADS_OF_A_BOT: f64 = 10.0;
/// Years of a history without dates, where nobody says.
const YEARS: i64 = 3;

/// A source as it is to be rehearsed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    /// What is told of it.
    pub(super) told: SourceShape,
    /// Accounts over which its profiles are spread.
    pub(super) accounts: u32,
    /// The part of its leads that the second of its streams lists: clients, users.
    pub(super) second: f64,
}

/// What is known of a source before its shape is taken.
struct Known<'a> {
    source: &'a SourceSettings,
    /// What the lake's last commit has of it.
    held: Option<(&'a SourceProgress, DateTime<Utc>)>,
    head: Option<&'a Commit>,
    request: &'a Request,
    now: DateTime<Utc>,
}

/// Returns the shapes of the sources, of which each follows a rule.
pub(super) fn shapes(
    sources: &[(SourceSettings, Rule)],
    head: Option<&Commit>,
    request: &Request,
    now: DateTime<Utc>,
) -> Vec<Shape> {
    let shape = |(source, rule): &(SourceSettings, Rule)| {
        let progress = head.and_then(|head| head.checkpoint.sources.get(&source.name));
        let held = progress.zip(head.map(|head| head.created_at));
        Known { source, held, head, request, now }.shape(rule)
    };
    let mut shapes: Vec<Shape> = sources.iter().map(shape).collect();
    shrink(&mut shapes, request.leads);
    shapes
}

/// Returns how many leads would have to be invented, where they are too many.
pub(super) fn too_many(shapes: &[Shape]) -> Option<u64> {
    let invented = shapes.iter().map(Shape::invented).sum();
    (invented > MOST_LEADS).then_some(invented)
}

impl Shape {
    /// Returns how many leads are invented for it.
    pub(super) fn invented(&self) -> u64 {
        count(number(self.told.leads) / self.told.stands_for)
    }
}

impl Known<'_> {
    fn shape(&self, rule: &Rule) -> Shape {
        let (parts, accounts) = self.parts();
        let (since, rows) = self.history();
        let leads_per_day = self.leads_per_day(parts, since.value, rows);
        let page_size = self.source.page_size().unwrap_or(CONVERTALK_PAGE);
        Shape {
            told: SourceShape {
                source: self.source.name.clone(),
                provider: self.source.provider_id(),
                plan: self.source.plan(),
                per_day: rule.per_day,
                allowance: rule.allowance(),
                parts,
                leads_per_day,
                since,
                leads: count(leads_per_day.value * days(since.value, self.now)),
                page_size,
                rehearsed_page_size: page_size,
                stands_for: 1.0,
            },
            accounts,
            second: self.second(),
        }
    }

    /// Returns how many profiles or bots there are, and accounts over which they are spread.
    fn parts(&self) -> (Option<Taken<u32>>, u32) {
        let of_job = |value| Some(Taken { value, basis: Basis::Job });
        let settings = match &self.source.provider {
            ProviderSettings::Whautomate(_) => return (None, 1),
            ProviderSettings::Convertalk(settings) => {
                let bots = u32::try_from(settings.bot_ids.len()).unwrap_or(u32::MAX);
                return (of_job(bots.max(1)), 1);
            }
            ProviderSettings::WhatConverts(settings) => settings,
        };
        if settings.plan == WhatConvertsPlan::Profile {
            return (of_job(1), 1);
        }
        let listed = self.listed();
        let accounts = listed.map_or(1, |(_, accounts, _)| accounts);
        if let Some(value) = self.request.profiles.of(&self.source.name) {
            return (Some(Taken { value: value.max(1), basis: Basis::Asked }), accounts);
        }
        if let Some((value, _, as_of)) = listed {
            return (Some(Taken { value, basis: Basis::Listed(as_of) }), accounts);
        }
        let included = &settings.profiles.include;
        let included = included.iter().filter(|id| settings.profiles.selects(**id)).count();
        match u32::try_from(included).unwrap_or(u32::MAX) {
            0 => (Some(Taken { value: PROFILES, basis: Basis::Assumed }), 1),
            included => (of_job(included), 1),
        }
    }

    /// Returns the profiles that were listed and are read, their accounts, and when that was.
    fn listed(&self) -> Option<(u32, u32, DateTime<Utc>)> {
        let listed = self.held?.0.partitions.as_ref()?;
        let scopes = providers::scopes(self.source, Some(&listed.listed));
        let is_read = |name: &str| scopes.iter().any(|scope| scope.partition == name);
        let read: Vec<_> = listed.listed.iter().filter(|part| is_read(&part.name)).collect();
        let mut accounts: Vec<_> = read.iter().filter_map(|part| part.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let many = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        (!read.is_empty()).then(|| (many(read.len()), many(accounts.len()).max(1), listed.as_of))
    }

    /// Returns where the history begins, and the rows of listings without dates that are held.
    fn history(&self) -> (Taken<DateTime<Utc>>, Option<u64>) {
        let taken = |value, basis| Taken { value: before(value, self.now), basis };
        if let Some(start) = self.source.start() {
            let range = self.request.range.as_ref().filter(|range| range.from < start);
            let since = range.map_or(taken(start, Basis::Job), |r| taken(r.from, Basis::Asked));
            return (since, None);
        }
        let held = self.held.zip(self.scanned(|_| true).filter(|rows| *rows > 0));
        let oldest = held.and_then(|((_, as_of), _)| Some((self.oldest_part()?, as_of)));
        let assumed = || taken(self.now - TimeDelta::days(365 * YEARS), Basis::Assumed);
        let since = oldest.map_or_else(assumed, |(at, as_of)| taken(at, Basis::Held(as_of)));
        (since, held.map(|(_, rows)| rows))
    }

    /// Returns the rows of all listings without dates that `wanted` takes, where all were read whole.
    fn scanned(&self, wanted: impl Fn(&Scope) -> bool) -> Option<u64> {
        let (progress, _) = self.held?;
        let scopes = providers::scopes(self.source, None);
        let rows = |scope: &Scope| progress.scopes.get(&scope.key())?.scan.as_ref().map(|s| s.rows);
        scopes.iter().filter(|scope| wanted(scope)).map(rows).sum()
    }

    /// Returns the first day of the oldest year of which the lake holds leads.
    fn oldest_part(&self) -> Option<DateTime<Utc>> {
        let source = self.head?.sources.get(&self.source.name)?;
        let year = |text: &str| text.get(..4)?.parse::<i32>().ok();
        let oldest = source.parts.iter().filter_map(|part| year(&part.partition)).min()?;
        Some(NaiveDate::from_yo_opt(oldest, 1)?.and_time(NaiveTime::MIN).and_utc())
    }

    fn leads_per_day(
        &self,
        parts: Option<Taken<u32>>,
        since: DateTime<Utc>,
        rows: Option<u64>,
    ) -> Taken<f64> {
        if let Some(value) = self.request.leads_per_day.of(&self.source.name) {
            return Taken { value: value.max(0.0), basis: Basis::Asked };
        }
        let rows = rows.map(|rows| number(rows) / days(since, self.now));
        let held = rows.or_else(|| self.covered(parts)).zip(self.held);
        if let Some((value, (_, as_of))) = held {
            return Taken { value, basis: Basis::Held(as_of) };
        }
        let parts = f64::from(parts.map_or(1, |parts| parts.value));
        let value = match &self.source.provider {
            ProviderSettings::WhatConverts(_) => LEADS_OF_A_PROFILE * parts,
            ProviderSettings::Whautomate(_) => LEADS_OF_AN_ACCOUNT,
            ProviderSettings::Convertalk(_) => LEADS_OF_A_BOT * parts,
        };
        Taken { value, basis: Basis::Assumed }
    }

    /// Returns the leads a day in what was read of listings with dates, for all `parts`.
    fn covered(&self, parts: Option<Taken<u32>>) -> Option<f64> {
        let (progress, _) = self.held?;
        let partitions = progress.partitions.as_ref().map(|known| known.listed.as_slice());
        let scopes = providers::scopes(self.source, partitions);
        let rate = |scope: &Scope| {
            let spans = progress.scopes.get(&scope.key())?.coverage.spans().iter();
            let counted = spans.filter_map(|span| Some((span.rows?, span.window)));
            let (rows, length) = counted.fold((0, 0.0), |(rows, length), (more, window)| {
                (rows + more, length + days(window.start(), window.end()))
            });
            (length >= 1.0).then(|| number(rows) / length)
        };
        let rates: Vec<f64> = scopes.iter().filter_map(rate).collect();
        if rates.is_empty() {
            return None;
        }
        // What was not read yet, and parts that only the caller knows of, are taken to be like the rest.
        let known = providers::scopes(self.source, partitions).len().max(1);
        let selected = self.listed().map_or(1, |(selected, ..)| selected);
        let parts = parts.map_or(selected, |parts| parts.value);
        let all = number(known as u64) * f64::from(parts) / f64::from(selected);
        Some(rates.iter().sum::<f64>() / number(rates.len() as u64) * all)
    }

    /// Returns the part of the leads that the second stream lists.
    fn second(&self) -> f64 {
        let (has_first, has_second, assumed, name) = match &self.source.provider {
            ProviderSettings::WhatConverts(_) => return 0.0,
            ProviderSettings::Whautomate(settings) => (
                settings.streams.contains(&WhautomateStream::Contacts),
                settings.streams.contains(&WhautomateStream::Clients),
                0.2,
                WhautomateStream::Clients.as_str(),
            ),
            ProviderSettings::Convertalk(settings) => (
                settings.streams.contains(&ConvertalkStream::Chats),
                settings.streams.contains(&ConvertalkStream::Users),
                0.5,
                ConvertalkStream::Users.as_str(),
            ),
        };
        if !(has_first && has_second) {
            return if has_second { 1.0 } else { 0.0 };
        }
        let second = self.scanned(|scope| scope.stream == name);
        let all = self.scanned(|_| true).filter(|rows| *rows > 0);
        second.zip(all).map_or(assumed, |(second, all)| number(second) / number(all))
    }
}

/// Makes leads and pages fewer and smaller by one factor, where there are more than `most` leads.
fn shrink(shapes: &mut [Shape], most: u64) {
    let all: u64 = shapes.iter().map(|shape| shape.told.leads).sum();
    let factor = u32::try_from(all.div_ceil(most.max(1))).unwrap_or(u32::MAX).max(1);
    for Shape { told, .. } in shapes {
        let least = LEAST_PAGE.min(told.page_size);
        told.rehearsed_page_size = (told.page_size / factor).max(least);
        told.stands_for = f64::from(told.page_size) / f64::from(told.rehearsed_page_size);
    }
}

/// A history is a day long at least.
fn before(since: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    since.min(now - TimeDelta::days(1)).max(DateTime::UNIX_EPOCH)
}

/// Returns whole and broken days.
pub(super) fn days(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64() / 86_400.0
}

#[expect(clippy::cast_precision_loss, reason = "a count of leads needs no more than 52 bits")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Returns the next whole number of leads.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of leads")]
pub(super) fn count(leads: f64) -> u64 {
    leads.round().max(0.0) as u64
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::checkpoint::Partition;
    use crate::checkpoint::Partitions;
    use crate::checkpoint::Scanned;
    use crate::checkpoint::ScopeProgress;
    use crate::config::Job;
    use crate::ids::RunId;
    use crate::ids::Seq;
    use crate::record::ScopeKey;
    use crate::rehearse::Said;
    use crate::run;
    use crate::run::Stop;
    use crate::schema::ChangeFile;
    use crate::schema::StoredFile;
    use crate::window::Coverage;
    use crate::window::Covered;
    use crate::window::Window;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// A request that says nothing.
    pub(in crate::rehearse) fn request() -> Request {
        Request {
            range: None,
            first: at("2026-11-28T02:10:00Z"),
            most_days: 10,
            profiles: Said::default(),
            leads_per_day: Said::default(),
            leads: LEADS,
            nights: 1,
            seed: 1,
            stop: Stop::default(),
        }
    }

    /// The job of the design: a master key, a subscribed account, a bot.
    fn sources(change: impl FnOnce(String) -> String) -> Vec<(SourceSettings, Rule)> {
        let text = change(include_str!("../../tests/fixtures/job/design.toml").to_owned());
        let job = Job::parse(&text, Path::new("job.toml")).unwrap();
        let sources = job.sources.into_iter();
        sources.map(|source| (source.clone(), run::rule(&source).unwrap())).collect()
    }

    fn as_it_is(text: String) -> String {
        text
    }

    fn shapes_of(head: Option<&Commit>, request: &Request) -> Vec<SourceShape> {
        let shapes = shapes(&sources(as_it_is), head, request, request.first);
        shapes.into_iter().map(|shape| shape.told).collect()
    }

    /// A commit after a month: profiles 1 to 4 and 991 listed, two of them read; two whole listings.
    fn head() -> Commit {
        let listed = [1, 2, 3, 4, 991]
            .map(|id| Partition { name: format!("profile:{id}"), account: Some(id / 3) });
        let as_of = at("2026-11-20T02:10:00Z");
        let read = |key: &str, rows: u64| {
            let window = Window::new(at("2026-01-01T00:00:00Z"), at("2026-04-11T00:00:00Z"));
            let window = window.unwrap();
            let mut coverage = Coverage::default();
            coverage.insert(Covered {
                window,
                as_of,
                rows: Some(rows),
                share: None,
                reconciled: true,
                holes: 0,
            });
            (ScopeKey(key.to_owned()), ScopeProgress { coverage, ..ScopeProgress::default() })
        };
        let scanned = |key: &str, rows: u64| {
            let scan = Some(Scanned {
                as_of,
                rows,
                pages: 1,
                holes: 0,
                least_rejects: None,
                top_as_of: None,
                top_pages: None,
                newest_created_first: 0,
                newest_updated_first: 0,
            });
            (ScopeKey(key.to_owned()), ScopeProgress { scan, ..ScopeProgress::default() })
        };
        let acme = SourceProgress {
            scopes: BTreeMap::from([read("leads/profile:1", 500), read("leads/profile:3", 100)]),
            partitions: Some(Partitions { as_of, listed: listed.into() }),
            ..SourceProgress::default()
        };
        let clinic = SourceProgress {
            scopes: BTreeMap::from([scanned("contacts/all", 900), scanned("clients/all", 100)]),
            ..SourceProgress::default()
        };
        let name = |text: &str| text.parse().unwrap();
        let file = StoredFile { path: String::new(), bytes: 0, blake3: String::new() };
        Commit {
            seq: Seq(1),
            parent: None,
            run: RunId::new(as_of),
            job: "agency-nightly".to_owned(),
            command: "sync".to_owned(),
            created_at: as_of,
            leadpipe: String::new(),
            schema_version: 1,
            key_fingerprint: String::new(),
            sources: BTreeMap::new(),
            checkpoint: Checkpoint {
                sources: BTreeMap::from([(name("acme"), acme), (name("clinic"), clinic)]),
                backfills: BTreeMap::new(),
            },
            changes: ChangeFile { file, rows: 0, upserts: 0, deletes: 0 },
            changes_from: None,
            rejects: Vec::new(),
            snapshot: Seq(1),
            archive_checked_at: None,
        }
    }

    #[test]
    fn without_a_lake_the_job_says_what_it_can_and_the_rest_is_assumed() {
        let shapes = shapes_of(None, &request());
        let parts = |at: usize| shapes[at].parts.map(|parts| (parts.value, parts.basis));
        assert_eq!(parts(0), Some((PROFILES, Basis::Assumed)));
        assert_eq!(parts(1), None);
        assert_eq!(parts(2), Some((1, Basis::Job)));
        assert!(shapes.iter().all(|shape| shape.leads_per_day.basis == Basis::Assumed));
        let since = shapes.iter().map(|shape| shape.since.basis).collect::<Vec<_>>();
        assert_eq!(since, [Basis::Job, Basis::Assumed, Basis::Assumed]);
        assert_eq!((shapes[0].per_day, shapes[0].allowance), (Some(1_000), Some(900)));
    }

    #[test]
    fn profiles_that_the_job_names_are_counted() {
        let named = |text: String| {
            text.replace("exclude_profiles = [991]", "include_profiles = [123, 124, 125]")
        };
        let shapes = shapes(&sources(named), None, &request(), request().first);
        let parts = shapes[0].told.parts.unwrap();
        assert_eq!((parts.value, parts.basis), (3, Basis::Job));
    }

    #[test]
    fn what_the_lake_knows_is_taken_and_scaled_to_all_profiles() {
        let head = head();
        let shapes = shapes(&sources(as_it_is), Some(&head), &request(), request().first);
        let told = &shapes[0].told;
        let parts = told.parts.unwrap();
        assert_eq!((parts.value, parts.basis), (4, Basis::Listed(head.created_at)));
        // 600 leads of two profiles in a hundred days, and two profiles more.
        assert!((told.leads_per_day.value - 12.0).abs() < 1e-9, "{told:?}");
        assert_eq!(told.leads_per_day.basis, Basis::Held(head.created_at));
        // Profile 991, which the job leaves out, is alone in its account.
        assert_eq!(shapes[0].accounts, 2);
        let clinic = &shapes[1];
        assert_eq!(clinic.told.leads, 1_000);
        assert_eq!(clinic.told.leads_per_day.basis, Basis::Held(head.created_at));
        assert!((clinic.second - 0.1).abs() < 1e-9);
        assert_eq!(shapes[2].told.leads_per_day.basis, Basis::Assumed);
    }

    #[test]
    fn what_is_asked_for_goes_before_all_else() {
        let mut asked = request();
        asked.profiles.otherwise = Some(40);
        asked.leads_per_day.of.insert("acme".parse().unwrap(), 220.0);
        let shapes = shapes_of(Some(&head()), &asked);
        assert_eq!(shapes[0].parts, Some(Taken { value: 40, basis: Basis::Asked }));
        assert_eq!(shapes[0].leads_per_day, Taken { value: 220.0, basis: Basis::Asked });
        assert!(matches!(shapes[1].leads_per_day.basis, Basis::Held(_)));
        // What one profile holds stays what it holds.
        asked.leads_per_day.of.clear();
        let rate = shapes_of(Some(&head()), &asked)[0].leads_per_day.value;
        assert!((rate - 120.0).abs() < 1e-9, "{rate}");
    }

    #[test]
    fn a_range_before_the_start_makes_the_history_longer() {
        let mut asked = request();
        let from = at("2016-01-01T00:00:00Z");
        asked.range = Some(crate::run::Range { from, to: asked.first, again: false });
        let since = shapes_of(None, &asked)[0].since;
        assert_eq!(since, Taken { value: from, basis: Basis::Asked });
    }

    proptest! {
        #[test]
        fn pages_stay_as_many_however_many_leads_there_are(
            leads_per_day in 0.0..5_000.0_f64,
            most in 1_000_u64..100_000,
        ) {
            let mut asked = Request { leads: most, ..request() };
            asked.leads_per_day.otherwise = Some(leads_per_day);
            for shape in shapes(&sources(as_it_is), None, &asked, asked.first) {
                let told = &shape.told;
                let pages = number(told.leads) / f64::from(told.page_size);
                let rehearsed = number(shape.invented()) / f64::from(told.rehearsed_page_size);
                prop_assert!((pages - rehearsed).abs() <= 0.5, "{told:?}");
                prop_assert!(told.rehearsed_page_size >= LEAST_PAGE);
                prop_assert!(told.leads > most || shape.invented() <= told.leads);
            }
        }
    }
}
