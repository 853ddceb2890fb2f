//! What a page may cost in memory, whatever the provider sends: bounds that follow from settings, looked
//! at in a process of its own.

use std::sync::Arc;

use chrono::TimeDelta;
use leadpipe::clock::Clock;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;

use crate::support::number_from;
use crate::support::process::start;
use crate::support::small;
use crate::support::small_job;

/// The largest body that the job takes.
const LIMIT_MB: u64 = 12;

/// Syncs `leads` leads, in pages of 50, of a provider all of whose answers but the list of accounts meet
/// with `fault`; returns the exit code and the most memory the process had, in megabytes.
async fn peak_under(fault: Fault, leads: u64) -> (Option<i32>, u64) {
    let clock = SystemClock::default();
    let now = chrono::DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
    let mut fail_next = vec![fault; 2_000];
    fail_next.insert(0, Fault::Stall { ms: 0 });
    let behaviour = Behaviour { fail_next, ..Behaviour::default() };
    let settings =
        Settings { leads, profiles: 1, accounts: 1, now, still: true, behaviour, ..small() };
    let shared: SharedClock = Arc::new(SystemClock::default());
    let sandbox = Sandbox::start(settings, 0, shared).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    let keys =
        format!("base_url = \"{}\"\nmax_body_megabytes = {LIMIT_MB}\nretries = 0", sandbox.url());
    let text = small_job(&keys).replacen("\"UNUSED\"", "\"LARGE_TOKEN\"", 1);
    std::fs::write(&job, text.replacen("\"UNUSED\"", "\"LARGE_SECRET\"", 1)).unwrap();
    let (token, secret) = sandbox.master_key();
    let secrets = [("LARGE_TOKEN", token.as_str()), ("LARGE_SECRET", secret.as_str())];
    let told = std::process::Stdio::null();
    let mut run = start("sync", &job, &[], TimeDelta::zero(), &secrets, told);
    let mut peak = 0;
    for _ in 0..6_000 {
        peak = peak.max(peak_of(run.0.id()).unwrap_or(0));
        if let Some(status) = run.0.try_wait().unwrap() {
            return (status.code(), peak / 1_024);
        }
        clock.sleep_until(clock.now() + TimeDelta::milliseconds(10)).await;
    }
    (None, peak / 1_024)
}

/// The most memory a process ever had resident, in kilobytes.
fn peak_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_costs_more_memory_than_settings_say() {
    let all = number_from("LEADPIPE_HOSTILE", 0) > 0;
    let leads = if all { 400 } else { 90 };
    let (code, usual) = peak_under(Fault::Stall { ms: 0 }, leads).await;
    assert_eq!(code, Some(0));
    let almost = 1_000_000 * (LIMIT_MB as usize - 1);
    for (name, fault, is_sampled) in [
        ("a page of 200 MB", Fault::Padded { megabytes: 200 }, false),
        ("a bomb of 300 MB", Fault::GzipBomb { megabytes: 300 }, true),
        ("a body without end", Fault::EndlessBody, false),
        ("headers without end", Fault::EndlessHeaders, false),
        ("100,000 rows of nothing", Fault::TinyRows { rows: 100_000 }, false),
        ("millions of rows of nothing", Fault::TinyRows { rows: almost / 2 }, true),
        ("a text as long as may be", Fault::Long { name: 1, value: almost }, true),
        ("a name as long as may be", Fault::Long { name: almost, value: 1 }, false),
        ("100,000 lists in lists", Fault::Nested { depth: 100_000 }, false),
    ] {
        if !all && !is_sampled {
            continue;
        }
        let (code, peak) = peak_under(fault, leads).await;
        #[expect(clippy::print_stdout, reason = "`make hostile` shows the figures")]
        {
            let exit = code.unwrap_or(-1);
            println!("memory {name:<28} exit {exit:>2} {peak:>4} MB, {usual} MB otherwise");
        }
        assert!(code.is_some(), "{name}: it never ends");
        assert!(peak <= usual + MOST_TIMES * LIMIT_MB, "{name}: {peak} MB");
    }
}

/// So many times the largest body: two large ones under way, one being written to the archive, and
/// one that is mapped, as text, as columns and as what is left over.
const MOST_TIMES: u64 = 12;
