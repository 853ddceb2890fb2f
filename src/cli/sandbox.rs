//! `leadpipe sandbox`.

use anyhow::Context as _;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde::Serialize;

use super::Context;
use super::arguments::instant;
use super::exit;
use super::exit::Usage;
use super::signals::Signals;
use super::terminal;
use crate::sandbox::Behaviour;
use crate::sandbox::Sandbox;
use crate::sandbox::Settings;

/// What `sandbox` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SandboxArguments {
    /// The port to listen on; 0 for one that is free
    #[arg(long, value_name = "P", default_value_t = 8100)]
    port: u16,
    /// Leads that came up to --now
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    leads: u64,
    /// Another seed gives another world, other ids and other keys
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Years of history before --now
    #[arg(long, value_name = "Y", default_value_t = 5)]
    years: u32,
    /// Profiles of the agency
    #[arg(long, value_name = "N", default_value_t = 9)]
    profiles: u32,
    /// Accounts of the agency
    #[arg(long, value_name = "N", default_value_t = 4)]
    accounts: u32,
    /// Where the history ends; the present where it is left out
    #[arg(long, value_name = "DATE", value_parser = instant)]
    now: Option<DateTime<Utc>>,
    /// Nothing happens after --now
    #[arg(long)]
    still: bool,
    /// Switches and faults, as JSON, e.g. {"page_number": "ignored_echo_one"}
    #[arg(long, value_name = "JSON")]
    behaviour: Option<String>,
    /// Requests the master key has in 24 hours
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    per_day: u32,
}

pub(super) const HELP: &str = "\
Examples:
  leadpipe sandbox
  leadpipe sandbox --leads 3000 --port 8101 --per-day 100
  leadpipe sandbox --behaviour '{\"total_offset\": 2, \"delay_ms\": 50}'

Beside the API it answers /sandbox/leads (the truth), /sandbox/requests, /sandbox/clock,
/sandbox/behaviour, /sandbox/edit and /sandbox/keys, without a key.

JSON: url, now, master and profile, each with token and secret, and profile_id. The document is
written once the sandbox listens.";

/// What a user needs to know of a sandbox.
#[derive(Debug, Serialize)]
struct Opened {
    url: String,
    now: DateTime<Utc>,
    master: Key,
    profile: Option<Key>,
}

#[derive(Debug, Serialize)]
struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_id: Option<u64>,
    token: String,
    secret: String,
}

pub(super) async fn run(context: &Context, arguments: SandboxArguments) -> anyhow::Result<u8> {
    let settings = settings(context, &arguments)?;
    let start = settings.now.checked_sub_signed(TimeDelta::days(366 * i64::from(settings.years)));
    let start = start.unwrap_or(DateTime::UNIX_EPOCH);
    let sandbox = Sandbox::start(settings, arguments.port, context.clock.clone());
    let sandbox = sandbox.await.context("failed to start the sandbox")?;
    // Whoever reads the text may send a signal at once.
    let mut signals = Signals::listen()?;
    let opened = open(&sandbox)?;
    if context.json {
        terminal::json(&opened)?;
    } else {
        terminal::data(&text(&opened, start))?;
    }
    context.say("listening; Ctrl-C ends it");
    signals.next().await;
    sandbox.stop().await;
    Ok(exit::DONE)
}

fn settings(context: &Context, arguments: &SandboxArguments) -> anyhow::Result<Settings> {
    let behaviour = match &arguments.behaviour {
        None => Behaviour::default(),
        Some(text) => serde_json::from_str(text).map_err(|error| Usage {
            message: format!("--behaviour cannot be read: {error}"),
            hint: Some("write JSON such as {\"total_offset\": 2}".to_owned()),
        })?,
    };
    Ok(Settings {
        seed: arguments.seed,
        leads: arguments.leads,
        years: arguments.years,
        accounts: arguments.accounts,
        profiles: arguments.profiles,
        now: arguments.now.unwrap_or_else(|| context.clock.now()),
        still: arguments.still,
        per_day: Some(arguments.per_day),
        behaviour,
        ..Settings::default()
    })
}

fn open(sandbox: &Sandbox) -> anyhow::Result<Opened> {
    let (token, secret) = sandbox.master_key();
    let master = Key { profile_id: None, token, secret };
    let first = sandbox.profile_ids().first().copied();
    let profile = first.map(|profile_id| {
        let (token, secret) = sandbox.profile_key(profile_id)?;
        anyhow::Ok(Key { profile_id: Some(profile_id), token, secret })
    });
    Ok(Opened { url: sandbox.url(), now: sandbox.now(), master, profile: profile.transpose()? })
}

fn text(opened: &Opened, start: DateTime<Utc>) -> String {
    let Opened { url, now, master, profile } = opened;
    let mut text = format!("sandbox at {url}, where it is {}\n", now.format("%F %R UTC"));
    text.push_str(&format!("\nmaster key\n{}", key_text(master)));
    if let Some(profile) = profile {
        let id = profile.profile_id.unwrap_or_default();
        text.push_str(&format!("\nkey of profile {id}\n{}", key_text(profile)));
    }
    let start = start.format("%F");
    text.push_str(&format!(
        "
a job that reads all of it; save it as sandbox.toml
  name = \"sandbox\"
  lake = \"sandbox-lake\"

  [[sources]]
  name = \"sandbox\"
  provider = \"whatconverts\"
  base_url = \"{url}\"
  token = {{ env = \"SANDBOX_TOKEN\" }}
  secret = {{ env = \"SANDBOX_SECRET\" }}
  plan = \"master\"
  start = {start}
  currency = \"USD\"
  default_region = \"US\"

and run it
  export SANDBOX_TOKEN={} SANDBOX_SECRET={}
  leadpipe sync sandbox.toml

",
        master.token, master.secret
    ));
    text
}

fn key_text(key: &Key) -> String {
    format!("  token   {}\n  secret  {}\n", key.token, key.secret)
}
