//! What life is drawn from a seed: a provider, a small allowance, its day, the runs, the trouble.

use chrono::DateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use chrono_tz::Tz;
use leadpipe::ids::ProviderId;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::OverQuota;
use leadpipe::sandbox::Settings;
use leadpipe::sandbox::Times;

use super::laws::Day;
use crate::support::MASTER;
use crate::support::World;
use crate::support::process::Draw;
use crate::support::records::CLINIC;
use crate::support::records::HEAD;
use crate::support::records::bots;

/// What is run in a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A sync, every night at one minute.
    Nightly,
    /// One backfill after the other, each going on when it may.
    Backfills,
    /// Both.
    Both,
}

/// A life that is to be lived.
#[derive(Debug)]
pub(super) struct Sketch {
    pub(super) seed: u64,
    pub(super) provider: ProviderId,
    /// Requests a day.
    pub(super) allowance: u32,
    pub(super) day: Day,
    pub(super) used: Use,
    pub(super) at_once: u64,
    page_size: u64,
    /// Where it begins.
    start: DateTime<Utc>,
    /// How long it is to last.
    pub(super) days: i64,
    /// Whether all stays as it is at the provider.
    pub(super) still: bool,
    /// Whether runs are cut off.
    pub(super) crashes: bool,
    /// Whether the clock is put back and forward.
    pub(super) steps: bool,
    /// Whether somebody else spends on the key.
    pub(super) shared_key: bool,
}

/// Zones, each with the days before its clocks change. Lord Howe's change by half an hour, and a day is
/// missing from Apia's calendar.
const ZONES: [(Tz, [&str; 2]); 5] = [
    (Tz::America__New_York, ["2026-03-07", "2026-10-31"]),
    (Tz::Europe__Berlin, ["2026-03-28", "2026-10-24"]),
    (Tz::Australia__Lord_Howe, ["2026-04-04", "2026-10-03"]),
    (Tz::Pacific__Apia, ["2011-12-29", "2020-09-26"]),
    (Tz::Asia__Kolkata, ["2026-02-01", "2026-09-01"]),
];

/// The fewest requests with which a night of WhatConverts leaves some for what lies behind: it asks for
/// the accounts and for the last days of each of three profiles.
const FEWEST_FOR_BOTH: u64 = 10;

impl Sketch {
    /// Draws the life of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let provider = match draw.below(4) {
            0 => ProviderId::Whautomate,
            1 => ProviderId::Convertalk,
            _ => ProviderId::WhatConverts,
        };
        let used = [Use::Nightly, Use::Backfills, Use::Both][draw.below(3) as usize];
        let fewest = if used == Use::Both { FEWEST_FOR_BOTH } else { 5 };
        let (zone, changes) = ZONES[draw.below(ZONES.len() as u64) as usize];
        let time = NaiveTime::from_hms_opt(draw.below(24) as u32, 15 * draw.below(4) as u32, 0);
        // More of them about the hours at which clocks are changed.
        let time = time.filter(|_| draw.below(2) == 0);
        let night = 60 * draw.below(3) as u32 + 15 * draw.below(4) as u32;
        let night = NaiveTime::from_num_seconds_from_midnight_opt(60 * night, 0).unwrap();
        let day = match draw.below(3) {
            0 => Day::Rolling,
            _ => Day::ResetsAt(time.unwrap_or(night), zone),
        };
        let change: DateTime<Utc> =
            format!("{}T00:00:00Z", changes[draw.below(2) as usize]).parse().unwrap();
        let before = TimeDelta::minutes(draw.below(12 * 24 * 60) as i64);
        Self {
            seed,
            provider,
            allowance: (fewest + draw.below(41 - fewest)) as u32,
            day,
            used,
            at_once: [1, 1, 2, 3][draw.below(4) as usize],
            page_size: [20, 30, 50][draw.below(3) as usize],
            start: change - before,
            days: 20 + draw.below(25) as i64,
            still: draw.below(3) > 0,
            crashes: draw.below(3) == 0,
            steps: draw.below(3) == 0,
            shared_key: draw.below(6) == 0,
        }
    }

    /// Whether nothing comes in between that nobody could foresee.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.still && !self.crashes && !self.steps && !self.shared_key
    }

    /// Whether the allowance lets a nightly come to an end: without dates, a listing is read whole each
    /// night, by what others leave.
    pub(super) fn is_enough_for_nights(&self) -> bool {
        let is_listed = self.provider != ProviderId::WhatConverts;
        let is_ample = u64::from(self.allowance) >= FEWEST_FOR_BOTH;
        if is_listed { is_ample || !self.shared_key } else { is_ample && !self.shared_key }
    }

    /// Where the history begins that a backfill is to read.
    pub(super) fn history(&self) -> DateTime<Utc> {
        self.start - TimeDelta::days(3 * 366 + 60)
    }

    /// Where it ends, and a nightly that is not alone begins.
    pub(super) fn recent(&self) -> DateTime<Utc> {
        (self.start - TimeDelta::days(100)).date_naive().and_time(NaiveTime::MIN).and_utc()
    }

    /// Makes the world and its job.
    pub(super) async fn world(&self) -> World {
        let of = |provider, many| if self.provider == provider { many } else { 0 };
        let (leads, clinic) = (of(ProviderId::WhatConverts, 1), of(ProviderId::Whautomate, 1));
        let bots = of(ProviderId::Convertalk, 1);
        // A provider that counts any 24 hours refuses what is too much. The days of the others are only
        // looked at afterwards.
        let per_day = match (self.day, self.shared_key) {
            (_, true) => (self.allowance * 3 / 4).max(3),
            (Day::Rolling, false) => self.allowance,
            (Day::ResetsAt(..), false) => 1_000,
        };
        let over_quota = match self.seed.is_multiple_of(2) {
            true => OverQuota::RetryAfter,
            false => OverQuota::Status { status: 429 },
        };
        let settings = Settings {
            seed: 1 + self.seed,
            leads: 600 * u64::from(leads),
            years: 3,
            accounts: 2,
            profiles: 3,
            whautomate_accounts: clinic,
            contacts: 230 * u64::from(clinic),
            clients: 40 * u64::from(clinic),
            convertalk_bots: bots,
            chats: 260 * u64::from(bots),
            now: self.start,
            still: self.still,
            per_day: Some(per_day),
            whautomate_per_day: Some(per_day),
            // The minute is not on trial here.
            whautomate_per_minute: Some(100_000),
            convertalk_per_day: Some(per_day),
            behaviour: Behaviour { over_quota, times: Times::Zulu, ..Behaviour::default() },
            ..Settings::default()
        };
        let mut world = World::new(settings).await;
        world.job = self.job(&world);
        world
    }

    fn job(&self, world: &World) -> String {
        let Self { allowance, at_once, page_size, .. } = self;
        // A backfill reads what lies before the nightly's start.
        let start = match self.used {
            Use::Nightly => self.history(),
            Use::Backfills | Use::Both => self.recent(),
        };
        let source = match self.provider {
            ProviderId::WhatConverts => {
                let start = start.date_naive().to_string();
                format!("{}page_size = {page_size}\n", MASTER.replace("2021-01-01", &start))
            }
            ProviderId::Whautomate => format!("{HEAD}{CLINIC}page_size = {page_size}\n"),
            ProviderId::Convertalk => format!("{HEAD}{}", bots(&world.sandbox)),
        };
        let day = match self.day {
            Day::Rolling => "\"rolling\"".to_owned(),
            Day::ResetsAt(time, zone) => {
                format!("{{ resets_at = \"{}\", zone = \"{zone}\" }}", time.format("%H:%M"))
            }
        };
        // Manual time leaps for all where one request waits, and those on their way would be late by it.
        let patience = if *at_once == 1 { "1h" } else { "1s" };
        format!(
            "{source}[sources.quota]\nper_day = {allowance}\nreserve = 0\nat_once = {at_once}\n\
             day = {day}\n[run]\npatience = \"{patience}\"\n"
        )
    }
}
