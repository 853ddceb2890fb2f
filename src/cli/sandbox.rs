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
    #[arg(long, value_name = "Y", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=200))]
    years: u32,
    /// Profiles of the agency
    #[arg(long, value_name = "N", default_value_t = 9)]
    profiles: u32,
    /// Accounts of the agency
    #[arg(long, value_name = "N", default_value_t = 4)]
    accounts: u32,
    /// Accounts of Whautomate
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=10_000))]
    whautomate_accounts: u32,
    /// Contacts of each account that came up to --now
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    contacts: u64,
    /// Clients of each account that came up to --now
    #[arg(long, value_name = "N", default_value_t = 300)]
    clients: u64,
    /// Bots of the customer of Convertalk
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=10_000))]
    bots: u32,
    /// Chats of each bot that came up to --now
    #[arg(long, value_name = "N", default_value_t = 400)]
    chats: u64,
    /// Users of Convertalk from other channels, beside those who became leads in a chat
    #[arg(long, value_name = "N", default_value_t = 100)]
    users: u64,
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
    /// Requests a Whautomate key has in 24 hours
    #[arg(long, value_name = "N", default_value_t = TRIAL_PER_DAY)]
    whautomate_per_day: u32,
    /// Requests a Whautomate key has in a minute
    #[arg(long, value_name = "N", default_value_t = 60)]
    whautomate_per_minute: u32,
    /// Requests the Convertalk token has in 24 hours; any number where it is left out
    #[arg(long, value_name = "N")]
    convertalk_per_day: Option<u32>,
}

/// What a trial account of Whautomate has; the job that is printed names the plan by it.
const TRIAL_PER_DAY: u32 = 100;

pub(super) const HELP: &str = "\
Examples:
  leadpipe sandbox
  leadpipe sandbox --leads 3000 --port 8101 --per-day 100
  leadpipe sandbox --leads 0 --whautomate-accounts 0 --bots 5 --chats 10000
  leadpipe sandbox --behaviour '{\"total_offset\": 2, \"delay_ms\": 50}'

It serves WhatConverts below /api/v1, Whautomate below /v1 and Convertalk below /inbox. Beside them
it answers /sandbox/leads and /sandbox/records (the truth), /sandbox/requests, /sandbox/clock,
/sandbox/behaviour, /sandbox/edit and /sandbox/keys, without a key.

JSON: url, now, master and profile, each with token and secret, and profile_id; whautomate, with
the api_key of each account; convertalk, with token, customer_id and bot_ids. The document is
written once the sandbox listens.";

/// What a user needs to know of a sandbox.
#[derive(Debug, Serialize)]
struct Opened {
    url: String,
    now: DateTime<Utc>,
    master: Key,
    profile: Option<Key>,
    whautomate: Vec<Account>,
    convertalk: Option<Customer>,
}

/// An account of Whautomate.
#[derive(Debug, Serialize)]
struct Account {
    api_key: String,
}

/// The customer of Convertalk; there is none without bots.
#[derive(Debug, Serialize)]
struct Customer {
    token: String,
    customer_id: String,
    bot_ids: Vec<String>,
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
        let is_trial = arguments.whautomate_per_day <= TRIAL_PER_DAY;
        terminal::text(&text(&opened, start, if is_trial { "trial" } else { "subscribed" }))?;
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
        whautomate_accounts: arguments.whautomate_accounts,
        // Without an account or bot there is nobody to have them.
        contacts: arguments.contacts * u64::from(arguments.whautomate_accounts.min(1)),
        clients: arguments.clients * u64::from(arguments.whautomate_accounts.min(1)),
        convertalk_bots: arguments.bots,
        chats: arguments.chats * u64::from(arguments.bots.min(1)),
        users: arguments.users,
        per_day: Some(arguments.per_day),
        whautomate_per_day: Some(arguments.whautomate_per_day),
        whautomate_per_minute: Some(arguments.whautomate_per_minute),
        convertalk_per_day: arguments.convertalk_per_day,
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
    let accounts = sandbox.whautomate_keys().into_iter();
    let bot_ids = sandbox.bot_ids();
    let convertalk = (!bot_ids.is_empty()).then(|| Customer {
        token: sandbox.convertalk_token(),
        customer_id: sandbox.customer_id(),
        bot_ids,
    });
    Ok(Opened {
        url: sandbox.url(),
        now: sandbox.now(),
        master,
        profile: profile.transpose()?,
        whautomate: accounts.map(|api_key| Account { api_key }).collect(),
        convertalk,
    })
}

fn text(opened: &Opened, start: DateTime<Utc>, plan: &str) -> String {
    let Opened { url, now, .. } = opened;
    let mut text = format!("sandbox at {url}, where it is {}\n", now.format("%F %R UTC"));
    text.push_str(&keys(opened));
    text.push_str("\na job that reads all of it; save it as sandbox.toml\n");
    for line in job(opened, start, plan).lines() {
        // No blanks at the end of an empty line.
        text.push_str(if line.is_empty() { "" } else { "  " });
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!(
        "\nand run it\n  export{}\n  leadpipe sync sandbox.toml\n\n",
        variables(opened)
    ));
    text
}

fn keys(opened: &Opened) -> String {
    let mut text = format!("\nmaster key\n{}", key_text(&opened.master));
    if let Some(profile) = &opened.profile {
        let id = profile.profile_id.unwrap_or_default();
        text.push_str(&format!("\nkey of profile {id}\n{}", key_text(profile)));
    }
    for (number, account) in opened.whautomate.iter().enumerate() {
        let key = &account.api_key;
        text.push_str(&format!("\nkey of Whautomate account {number}\n  key     {key}\n"));
    }
    if let Some(Customer { token, customer_id, bot_ids }) = &opened.convertalk {
        text.push_str(&format!(
            "\ntoken of Convertalk\n  token     {token}\n  customer  {customer_id}\n"
        ));
        for bot in bot_ids {
            text.push_str(&format!("  bot       {bot}\n"));
        }
    }
    text
}

fn key_text(key: &Key) -> String {
    format!("  token   {}\n  secret  {}\n", key.token, key.secret)
}

/// Returns a job file with a source for each account and customer.
fn job(opened: &Opened, start: DateTime<Utc>, plan: &str) -> String {
    let url = &opened.url;
    let start = start.format("%F");
    let mut text = format!(
        "name = \"sandbox\"
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
"
    );
    for number in 0..opened.whautomate.len() {
        text.push_str(&format!(
            "
[[sources]]
name = \"clinic-{number}\"
provider = \"whautomate\"
base_url = \"{url}\"
api_key = {{ env = \"SANDBOX_API_KEY_{number}\" }}
plan = \"{plan}\"
default_region = \"US\"
"
        ));
    }
    if let Some(Customer { customer_id, bot_ids, .. }) = &opened.convertalk {
        text.push_str(&format!(
            "
[[sources]]
name = \"bots\"
provider = \"convertalk\"
base_url = \"{url}\"
bot_ids = [\"{}\"]
customer_id = \"{customer_id}\"
token = {{ env = \"SANDBOX_BOT_TOKEN\" }}
default_region = \"US\"
",
            bot_ids.join("\", \"")
        ));
    }
    text
}

/// Returns the variables that the job reads.
fn variables(opened: &Opened) -> String {
    let Key { token, secret, .. } = &opened.master;
    let mut text = format!(" SANDBOX_TOKEN={token} SANDBOX_SECRET={secret}");
    for (number, account) in opened.whautomate.iter().enumerate() {
        text.push_str(&format!(" \\\n    SANDBOX_API_KEY_{number}={}", account.api_key));
    }
    if let Some(customer) = &opened.convertalk {
        text.push_str(&format!(" \\\n    SANDBOX_BOT_TOKEN={}", customer.token));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Job;

    fn opened(accounts: usize, bots: usize) -> Opened {
        let key = || Key { profile_id: Some(7), token: "1-a".to_owned(), secret: "b".to_owned() };
        let customer = |bot_ids: Vec<String>| Customer {
            token: "c".to_owned(),
            customer_id: "631aa793bcfa100487d13d0c".to_owned(),
            bot_ids,
        };
        Opened {
            url: "http://127.0.0.1:8100".to_owned(),
            now: DateTime::UNIX_EPOCH,
            master: key(),
            profile: Some(key()),
            whautomate: (0..accounts).map(|at| Account { api_key: format!("key{at}") }).collect(),
            convertalk: (bots > 0).then(|| {
                customer((0..bots).map(|at| format!("631aa793bcfa100487d13d{at:02}")).collect())
            }),
        }
    }

    #[test]
    fn the_job_that_is_printed_has_a_source_for_each_account_and_customer() {
        for (accounts, bots, sources) in [(0, 0, 1), (1, 2, 3), (3, 1, 5)] {
            let job = job(&opened(accounts, bots), DateTime::UNIX_EPOCH, "trial");
            let job = Job::parse(&job, Path::new("sandbox.toml")).unwrap();
            assert_eq!(job.sources.len(), sources);
        }
    }

    #[test]
    fn what_is_printed_ends_with_every_variable_that_the_job_reads() {
        let opened = opened(2, 1);
        let text = text(&opened, DateTime::UNIX_EPOCH, "trial");
        let (_, run) = text.split_once("and run it\n").unwrap();
        assert_eq!(
            run,
            "  export SANDBOX_TOKEN=1-a SANDBOX_SECRET=b \\
    SANDBOX_API_KEY_0=key0 \\
    SANDBOX_API_KEY_1=key1 \\
    SANDBOX_BOT_TOKEN=c
  leadpipe sync sandbox.toml

"
        );
        let job = job(&opened, DateTime::UNIX_EPOCH, "trial");
        for variable in job.split("env = \"").skip(1) {
            let name = variable.split('"').next().unwrap();
            assert!(run.contains(&format!("{name}=")), "{name}");
        }
    }
}
