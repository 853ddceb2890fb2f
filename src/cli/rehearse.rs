//! `leadpipe rehearse`.

use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;

use super::Context;
use super::arguments::SourceArguments;
use super::arguments::instant;
use super::exit;
use super::local_offset;
use super::refuse_unknown;
use super::signals;
use super::terminal;
use crate::clock::SharedClock;
use crate::config::Job;
use crate::ids::SourceName;
use crate::rehearse;
use crate::rehearse::Request;
use crate::rehearse::Said;
use crate::report;
use crate::report::Nights;
use crate::report::Outcome;
use crate::report::RehearsedDay;
use crate::report::number;
use crate::run::Ending;
use crate::run::Range;
use crate::run::Stop;

/// What `rehearse` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RehearseArguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// Rehearse a backfill from here on: a date (midnight UTC) or an instant of RFC 3339
    #[arg(long, value_name = "DATE", value_parser = instant)]
    from: Option<DateTime<Utc>>,
    /// Rehearse a backfill to before here; the first night where it is left out
    #[arg(long, value_name = "DATE", value_parser = instant, requires = "from")]
    to: Option<DateTime<Utc>>,
    /// Rehearse reading once more what was read before the backfill was first asked for
    #[arg(long, requires = "from")]
    again: bool,
    /// Give up after so many days
    #[arg(long, value_name = "N", default_value_t = rehearse::MOST_DAYS, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
    /// Leads a day, on the average over the history: of each source, or of one by its name
    #[arg(long, value_name = "[NAME=]X", value_delimiter = ',', value_parser = said_leads)]
    leads_per_day: Vec<(Option<SourceName>, f64)>,
    /// Profiles of a master key
    #[arg(long, value_name = "[NAME=]N", value_delimiter = ',', value_parser = said_profiles)]
    profiles: Vec<(Option<SourceName>, u32)>,
    /// When the nightly begins, in local time
    #[arg(long, value_name = "HH:MM", default_value = "02:10", value_parser = time)]
    at: NaiveTime,
    /// Another seed gives other leads
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

pub(super) const HELP: &str = "\
Without --from it rehearses the nightly `sync` from the first run on, night after night, until all
of the history was read once; with --from the `backfill` as well, after each nightly, until it is
done too. The lake is empty at first, whatever the job's own holds. Then come the nights of a
month, to see what one costs.

How many profiles and leads there are is taken from --profiles and --leads-per-day, else from what
the lake's last commit knows, else from the job file, else assumed; the output says which. Of more
than 50,000 leads each rehearsed one stands for several, on pages that are smaller by the same
factor. A page takes a second of the calendar, as many at once as the quota has `at_once`. How
often leads come late, change and go is invented: real nights may cost up to `lookups` (20) a
source more.

Examples:
  leadpipe rehearse jobs/nightly.toml
  leadpipe rehearse jobs/nightly.toml --profiles 40 --leads-per-day 220
  leadpipe rehearse jobs/nightly.toml --source agency,clinic --leads-per-day agency=220,clinic=15
  leadpipe rehearse jobs/backfill.toml --from 2016-01-01 --days 60 --json

JSON: job; range (start, end); sources (an array: source, provider, plan, per_day, allowance;
parts, leads_per_day and since, each with value and basis: asked, listed or held with as_of, job,
assumed; leads, page_size, rehearsed_page_size, stands_for); outcome (done, days_over, failed,
stopped); days (an array: day, started_at, ended_at, requests, backfill_requests, leads,
complete_back_to, listings_whole, listings, endings, resume_at, and sources by name with state,
why, requests, leads, is_whole, complete_back_to, listings_whole, listings); requests (of all
days); nights (plain; week and month: the dearest of one; quota_spent: how many were not done;
requests: of each); quotas (an array: sources, allowance, is_rolling, requests, most_in_24_hours,
refused). Leads are counted back up.

Exit codes: 0 done, 1 failed, 2 bad usage or job file, 3 a source failed, 8 not done after --days,
130 / 143 interrupted.";

pub(super) async fn run(context: &Context, arguments: RehearseArguments) -> anyhow::Result<u8> {
    let mut job = Job::load(&arguments.sources.job)?;
    let named = &arguments.sources.source;
    refuse_unknown(&job, named)?;
    job.sources.retain(|source| named.is_empty() || named.contains(&source.name));
    let zone = local_offset(context.clock.now());
    let request = request(&arguments, first_night(context.clock.now(), arguments.at, zone));
    let said = request.profiles.of.keys().chain(request.leads_per_day.of.keys());
    refuse_unknown(&job, &said.cloned().collect::<Vec<_>>())?;
    signals::watch(request.stop.clone(), context.clock.clone())?;
    let observer = context.log_observer();
    let progress = Progress::new(context.clock.clone());
    let told = |day: &RehearsedDay| {
        if let Some(line) = progress.line(day) {
            context.say(&line);
        }
    };
    let rehearsal = rehearse::rehearse(job, &request, observer, &told).await.map_err(plain)?;
    if context.json {
        terminal::json(&rehearsal)?;
    } else {
        terminal::text(&report::rehearsal_text(&rehearsal, zone))?;
    }
    Ok(match rehearsal.outcome {
        Outcome::Done => exit::DONE,
        Outcome::DaysOver => exit::QUOTA_SPENT,
        Outcome::Failed => exit::SOURCE_FAILED,
        Outcome::Stopped => match request.stop.cause() {
            Some(Ending::Terminated) => exit::TERMINATED,
            _ => exit::INTERRUPTED,
        },
    })
}

fn request(arguments: &RehearseArguments, first: DateTime<Utc>) -> Request {
    let range = arguments.from.map(|from| Range {
        from,
        to: arguments.to.unwrap_or(first),
        again: arguments.again,
    });
    Request {
        range,
        first,
        most_days: arguments.days,
        profiles: said(&arguments.profiles),
        leads_per_day: said(&arguments.leads_per_day),
        leads: rehearse::LEADS,
        nights: Nights::TRIED,
        seed: arguments.seed,
        stop: Stop::default(),
    }
}

/// Returns the next time that it is `at` in `zone`, from `now` on.
fn first_night(now: DateTime<Utc>, at: NaiveTime, zone: FixedOffset) -> DateTime<Utc> {
    let today = now.with_timezone(&zone).date_naive().and_time(at);
    let tonight = today.and_utc() - TimeDelta::seconds(zone.local_minus_utc().into());
    if tonight < now { tonight + TimeDelta::days(1) } else { tonight }
}

fn said<T: Copy>(typed: &[(Option<SourceName>, T)]) -> Said<T> {
    let of = typed.iter().filter_map(|(name, value)| Some((name.clone()?, *value)));
    let otherwise = typed.iter().rfind(|(name, _)| name.is_none()).map(|(_, value)| *value);
    Said { of: of.collect(), otherwise }
}

fn said_leads(text: &str) -> Result<(Option<SourceName>, f64), String> {
    let (name, leads) = said_of::<f64>(text, "write a number such as `220`, or `NAME=220`")?;
    match (0.0..=1_000_000.0).contains(&leads) {
        true => Ok((name, leads)),
        false => Err("write 0 to 1,000,000 leads a day".to_owned()),
    }
}

fn said_profiles(text: &str) -> Result<(Option<SourceName>, u32), String> {
    let (name, profiles) = said_of::<u32>(text, "write a number such as `40`, or `NAME=40`")?;
    match (1..=10_000).contains(&profiles) {
        true => Ok((name, profiles)),
        false => Err("write 1 to 10,000 profiles".to_owned()),
    }
}

/// Reads a number, or one of a source.
fn said_of<T: FromStr>(text: &str, form: &str) -> Result<(Option<SourceName>, T), String> {
    let (name, number) = match text.split_once('=') {
        None => (None, text),
        Some((name, number)) => (Some(name), number),
    };
    let name = name.map(str::parse::<SourceName>).transpose().map_err(|error| error.to_string())?;
    Ok((name, number.trim().parse().map_err(|_| form.to_owned())?))
}

fn time(text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| "write a time such as `02:10`".to_owned())
}

/// Returns the error that exit codes and hints are found by.
fn plain(error: rehearse::Error) -> anyhow::Error {
    match error {
        rehearse::Error::Run(error) => error.into(),
        rehearse::Error::Commit(error) => error.into(),
        error => error.into(),
    }
}

/// How often days are told while they pass.
const EVERY: TimeDelta = TimeDelta::seconds(2);

/// Tells how far a rehearsal is, where it takes long.
#[derive(Debug)]
struct Progress {
    clock: SharedClock,
    told_at: Mutex<DateTime<Utc>>,
}

impl Progress {
    fn new(clock: SharedClock) -> Self {
        let told_at = Mutex::new(clock.now());
        Self { clock, told_at }
    }

    /// Returns a line where it is time for one.
    fn line(&self, day: &RehearsedDay) -> Option<String> {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if now - *told_at < EVERY {
            return None;
        }
        *told_at = now;
        let (leads, requests) = (number(day.leads), number(day.requests));
        Some(format!("day {}: {requests} requests, about {leads} leads there", day.day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_night_is_the_next_time_that_the_clock_shows() {
        let zone = |hours: i32| FixedOffset::east_opt(hours * 3_600).unwrap();
        let ten_past_two = NaiveTime::from_hms_opt(2, 10, 0).unwrap();
        let first = |now, hours| first_night(at(now), ten_past_two, zone(hours));
        assert_eq!(first("2026-11-20T01:00:00Z", 0), at("2026-11-20T02:10:00Z"));
        assert_eq!(first("2026-11-20T02:10:00Z", 0), at("2026-11-20T02:10:00Z"));
        assert_eq!(first("2026-11-20T09:00:00Z", 0), at("2026-11-21T02:10:00Z"));
        assert_eq!(first("2026-11-20T01:00:00Z", 2), at("2026-11-21T00:10:00Z"));
        assert_eq!(first("2026-11-20T23:00:00Z", -5), at("2026-11-21T07:10:00Z"));
    }

    #[test]
    fn a_figure_is_of_one_source_or_of_all_others() {
        let acme: SourceName = "acme".parse().unwrap();
        let typed = ["7", "acme=2.5"].map(|text| said_leads(text).unwrap());
        let said = said(&typed);
        assert_eq!((said.otherwise, said.of.get(&acme)), (Some(7.0), Some(&2.5)));
        for text in ["acme=", "many", "-1", "NaN", "=5", "acme=1e9"] {
            assert!(said_leads(text).is_err(), "{text}");
        }
        for text in ["0", "acme=1.5", "20000"] {
            assert!(said_profiles(text).is_err(), "{text}");
        }
    }
}
