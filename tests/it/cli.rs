//! The binary as a user meets it: help, exit codes, what goes to stdout and what to stderr.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;
use leadpipe::clock::Clock;
use leadpipe::clock::SystemClock;
use leadpipe::commit;
use leadpipe::contracts;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use serde_json::Value;

/// What a command printed and how it ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A sandbox and a folder with a job file that reads from it.
struct Desk {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Desk {
    async fn new(settings: Settings) -> Self {
        let clock = SystemClock::default();
        let settings = Settings { now: clock.now(), leads: 300, years: 1, ..settings };
        let sandbox = Sandbox::start(settings, 0, std::sync::Arc::new(clock)).await.unwrap();
        let desk = Self { sandbox, folder: tempfile::tempdir().unwrap() };
        desk.write_job("");
        desk
    }

    /// Writes the job file, with `more` at its end.
    fn write_job(&self, more: &str) {
        let url = self.sandbox.url();
        let text = format!(
            r#"
            name = "test"
            lake = "lake"
            [[sources]]
            name = "acme"
            provider = "whatconverts"
            base_url = "{url}"
            token = {{ env = "TEST_TOKEN" }}
            secret = {{ env = "TEST_SECRET" }}
            plan = "master"
            start = 2020-01-01
            currency = "USD"
            default_region = "US"
            {more}
            "#
        );
        fs::write(self.folder.path().join("job.toml"), text).unwrap();
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let (token, secret) = self.sandbox.master_key();
        self.run_with_key(arguments, &token, &secret).await
    }

    async fn run_with_key(&self, arguments: &[&str], token: &str, secret: &str) -> Ended {
        let mut command = leadpipe(self.folder.path(), arguments);
        command.env("TEST_TOKEN", token).env("TEST_SECRET", secret);
        tokio::task::spawn_blocking(move || end(command)).await.unwrap()
    }
}

fn leadpipe(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leadpipe"));
    command.args(arguments).current_dir(folder).env("TZ", "UTC");
    command
}

fn end(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn alone(arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    end(leadpipe(folder.path(), arguments))
}

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

/// What a rehearsal needs of a job: no secret, no platform.
const TO_REHEARSE: &str = r#"
name = "test"
lake = "lake"
[[sources]]
name = "acme"
provider = "whatconverts"
token = { env = "LEADPIPE_TEST_NEVER_SET" }
secret = { env = "LEADPIPE_TEST_NEVER_SET" }
plan = "master"
start = 2024-01-01
currency = "USD"
[sources.quota]
per_day = 25
reserve = 0
"#;

/// Rehearses in a folder of its own, and returns what is left there beside the job file.
fn rehearse(arguments: &[&str]) -> (Ended, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.toml"), TO_REHEARSE).unwrap();
    let mut command = leadpipe(folder.path(), &["rehearse", "job.toml", "--profiles", "12"]);
    command.args(["--leads-per-day", "acme=2"]).args(arguments);
    // Whatever is written there should be gone again.
    command.env("TMPDIR", folder.path());
    let ended = end(command);
    let names = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "job.toml");
    (ended, names)
}

#[test]
fn a_rehearsal_tells_the_days_and_leaves_nothing_behind() {
    let (text, left) = rehearse(&["--at", "03:00"]);
    assert_eq!((text.code, left), (Some(0), Vec::new()), "{}", text.stderr);
    assert!(text.stdout.contains("\ndone on day "), "{}", text.stdout);
    assert!(text.stdout.contains("quota spent till 03:"), "{}", text.stdout);
    assert!(text.stdout.contains("none refused"), "{}", text.stdout);
    assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{}", text.stdout);
}

#[test]
fn a_rehearsal_whose_days_are_too_few_ends_with_8_and_is_data() {
    let (data, left) = rehearse(&["--days", "1", "--json"]);
    assert_eq!((data.code, left), (Some(8), Vec::new()), "{}", data.stderr);
    let document = document(&data);
    assert_eq!(document["outcome"], "days_over");
    assert_eq!(document["days"].as_array().unwrap().len(), 1);
    assert_eq!(document["quotas"][0]["most_in_24_hours"], 25);
    assert_eq!(document["sources"][0]["parts"]["basis"]["kind"], "asked");
    let (unknown, _) = rehearse(&["--profiles", "other=3"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("no source `other`"), "{}", unknown.stderr);
    let (empty, _) = rehearse(&["--from", "2025-01-01", "--to", "2024-01-01"]);
    assert_eq!(empty.code, Some(2), "{}", empty.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsound_lake_ends_verify_with_13_until_it_is_repaired() {
    let desk = Desk::new(Settings::default()).await;
    assert_eq!(desk.run(&["sync", "job.toml", "--quiet"]).await.code, Some(0));
    let sound = desk.run(&["verify", "job.toml"]).await;
    assert_eq!(sound.code, Some(0), "{}", sound.stdout);
    assert!(sound.stdout.starts_with("sound; commit 000000001, 1 commits, "), "{}", sound.stdout);

    let lake = leadpipe::store::Store::open(desk.folder.path().join("lake"));
    let part = commit::latest(&lake).unwrap().unwrap().part_paths().last().unwrap().to_owned();
    let mut bytes = lake.read(&part).unwrap().to_vec();
    // Its end, without which nothing of it is read.
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(lake.path(&part), bytes).unwrap();
    let found = desk.run(&["verify", "job.toml", "--json"]).await;
    assert_eq!(found.code, Some(13), "{}", found.stdout);
    let told = document(&found);
    assert_eq!(
        (&told["is_sound"], &told["findings"][0]["kind"]),
        (&false.into(), &"part_damaged".into())
    );
    assert_eq!(told["findings"][0]["path"], part);
    let stopped = desk.run(&["sync", "job.toml", "--quiet"]).await;
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stderr.contains(&part) && stopped.stderr.contains("verify JOB"));

    let repaired = desk.run(&["verify", "job.toml", "--repair"]).await;
    assert_eq!(repaired.code, Some(0), "{}", repaired.stdout);
    assert!(repaired.stdout.contains(&format!("repaired {part}: ")), "{}", repaired.stdout);
    assert_eq!(desk.run(&["sync", "job.toml", "--quiet"]).await.code, Some(0));
    let compared = desk.run(&["verify", "job.toml", "--remote", "--json"]).await;
    assert_eq!(compared.code, Some(0), "{}", compared.stdout);
    assert_eq!(document(&compared)["totals"][0]["verdict"], "agreed");
}

#[test]
fn help_reads_well() {
    let commands = [
        "sync", "backfill", "plan", "rehearse", "check", "quota", "status", "files", "replay",
        "verify", "schema", "sandbox", "demo",
    ];
    insta::assert_snapshot!("help", alone(&["--help"]).stdout);
    for command in commands {
        insta::assert_snapshot!(format!("help-{command}"), alone(&[command, "--help"]).stdout);
    }
}

#[test]
fn bad_usage_and_bad_job_files_end_with_2() {
    let usages: [&[&str]; 5] = [
        &[],
        &["sink"],
        &["sync"],
        &["sync", "job.toml", "--max-duration", "soon"],
        &["backfill", "job.toml", "--from", "yesterday"],
    ];
    for usage in usages {
        let ended = alone(usage);
        assert_eq!(ended.code, Some(2), "{usage:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    let ended = alone(&["sync", "job.toml"]);
    assert_eq!(ended.code, Some(2));
    insta::assert_snapshot!(ended.stderr, @r"
    error: failed to read job file `job.toml`
      caused by: No such file or directory (os error 2)

    hint: a job file is TOML in UTF-8; a relative path is taken from the folder the command runs in
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_limited_by_flag_environment_and_job() {
    let desk = Desk::new(Settings::default()).await;
    let (token, secret) = desk.sandbox.master_key();
    let with_variable = |limit: &'static str, command: &'static str| {
        let mut process = leadpipe(desk.folder.path(), &[command, "job.toml", "--quiet"]);
        process.env("TEST_TOKEN", &token).env("TEST_SECRET", &secret);
        process.env("LEADPIPE_MEMORY_LIMIT", limit);
        tokio::task::spawn_blocking(move || end(process))
    };
    for command in ["sync", "replay"] {
        let little = with_variable("30MB", command).await.unwrap();
        assert_eq!(little.code, Some(2), "{}", little.stderr);
        assert!(little.stderr.contains("at least"), "{}", little.stderr);
        let none = desk.run(&[command, "job.toml", "--memory-limit", "some"]).await;
        assert_eq!(none.code, Some(2), "{}", none.stderr);
        assert!(none.stderr.contains("such as `150MB`"), "{}", none.stderr);
    }
    assert_eq!(with_variable("200MB", "sync").await.unwrap().code, Some(0));
    assert_eq!(desk.run(&["sync", "job.toml", "--memory-limit", "100MB"]).await.code, Some(0));
    desk.write_job("[run]\nmemory_limit = \"30MB\"");
    let job = desk.run(&["sync", "job.toml"]).await;
    assert_eq!(job.code, Some(2), "{}", job.stderr);
    assert!(job.stderr.contains("`run.memory_limit`: a memory limit of 30MB"), "{}", job.stderr);
    assert_eq!(desk.run(&["sync", "job.toml", "--memory-limit", "1GB"]).await.code, Some(2));
}

#[test]
fn the_schemas_are_printed_and_written_as_they_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let written = alone(&["schema", "--write", folder.path().to_str().unwrap()]);
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let schemas = [
        ("lead", contracts::LEAD),
        ("job", contracts::JOB),
        ("commit", contracts::COMMIT),
        ("plan", contracts::PLAN),
    ];
    for (name, schema) in schemas {
        assert!(alone(&["schema", name]).stdout == schema, "`leadpipe schema {name}`");
        let path = folder.path().join(format!("{name}.v1.json"));
        assert!(fs::read_to_string(path).unwrap() == schema, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_puts_its_summary_on_stdout_and_progress_on_stderr() {
    let desk = Desk::new(Settings::default()).await;
    let ended = desk.run(&["sync", "job.toml"]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.starts_with("source  state"));
    assert!(ended.stdout.lines().last().unwrap().starts_with("done; committed 000000001"));
    assert!(ended.stderr.contains("acme: 9 profiles listed, 9 listings to be read\n"));
    let quiet = desk.run(&["sync", "job.toml", "--quiet"]).await;
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_writes_one_json_document() {
    let desk = Desk::new(Settings::default()).await;
    let commands: [&[&str]; 10] = [
        &["check", "job.toml"],
        &["plan", "job.toml"],
        &["sync", "job.toml"],
        &["backfill", "job.toml", "--from", "2019-01-01", "--to", "2020-01-01"],
        &["replay", "job.toml"],
        &["status", "job.toml"],
        &["quota", "job.toml"],
        &["quota", "job.toml", "--set-used", "5"],
        &["files", "job.toml"],
        &["sync", "job.toml", "--dry-run"],
    ];
    for command in commands {
        let ended = desk.run(&[command, &["--json"]].concat()).await;
        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
        assert_eq!(ended.stderr, "", "{command:?}");
        document(&ended);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_spent_end_with_8_and_the_next_run_goes_on() {
    let desk = Desk::new(Settings::default()).await;
    let ended = desk.run(&["sync", "job.toml", "--max-requests", "5", "--json"]).await;
    assert_eq!(ended.code, Some(8), "{}", ended.stderr);
    assert_eq!(document(&ended)["endings"][0], "quota_spent");
    let ended = desk.run(&["sync", "job.toml"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_ends_with_12_and_says_what_to_do() {
    let desk = Desk::new(Settings::default()).await;
    for command in ["check", "sync"] {
        let ended = desk.run_with_key(&[command, "job.toml"], "1000-no", "no").await;
        assert_eq!(ended.code, Some(12), "{command}: {}", ended.stderr);
        assert!(ended.stdout.contains("  hint: "), "{}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_lake_ends_with_13_where_an_age_is_asked_for() {
    let desk = Desk::new(Settings::default()).await;
    let status = ["status", "job.toml", "--max-age", "26h"];
    assert_eq!(desk.run(&status).await.code, Some(13));
    assert_eq!(desk.run(&["sync", "job.toml"]).await.code, Some(0));
    assert_eq!(desk.run(&status).await.code, Some(0));
    let shown = document(&desk.run(&["status", "job.toml", "--json"]).await);
    let tiers = shown["sources"]["acme"]["caught"]["tiers"].as_array().unwrap();
    let tiers: Vec<_> = tiers.iter().map(|tier| tier["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, ["every_run", "weekly", "monthly"]);
    let mut command = leadpipe(desk.folder.path(), &status);
    command.env("LEADPIPE_CLOCK_OFFSET", "2days");
    let ended = tokio::task::spawn_blocking(move || end(command)).await.unwrap();
    assert_eq!(ended.code, Some(13));
    // The token was not in the environment, and only the quota goes without it.
    assert!(ended.stdout.contains("quota: not known: environment variable `TEST_TOKEN`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_elsewhere_count_until_they_are_taken_back() {
    let desk = Desk::new(Settings::default()).await;
    let quota = |used: &'static str| ["quota", "job.toml", "--set-used", used, "--json"];
    let told = document(&desk.run(&quota("8000")).await);
    let group = &told["groups"][0];
    assert_eq!((&group["sources"][0], &group["left"]), (&"acme".into(), &0.into()), "{told}");
    assert_eq!(group["frees"][0]["permits"], 8_000);
    let blocked = desk.run(&["sync", "job.toml"]).await;
    assert_eq!(blocked.code, Some(8), "{}", blocked.stdout);
    assert_eq!(desk.sandbox.requests().len(), 0);
    let told = document(&desk.run(&quota("0")).await);
    assert_eq!(
        (&told["groups"][0]["used"], &told["groups"][0]["left"]),
        (&0.into(), &8_000.into())
    );
    assert_eq!(desk.run(&["sync", "job.toml"]).await.code, Some(0));
    let sent = desk.sandbox.requests().len();
    let told = document(&desk.run(&["quota", "job.toml", "--json"]).await);
    assert_eq!(told["groups"][0]["used"], sent);
    assert_eq!(desk.sandbox.requests().len(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_requests_that_makes_no_sense_is_refused_with_2() {
    let desk = Desk::new(Settings::default()).await;
    let bots = r#"
        [[sources]]
        name = "bots"
        provider = "convertalk"
        base_url = "https://chat.example.com"
        token = { env = "TEST_TOKEN" }
        customer_id = "631aa793bcfa100487d13d0c"
        bot_ids = ["631aa793bcfa100487d13d0d"]
        default_region = "US"
    "#;
    desk.write_job(bots);
    let mut told = String::new();
    for arguments in [&["40"][..], &["40", "--source", "bots"], &["10001", "--source", "acme"]] {
        let ended = desk.run(&[&["quota", "job.toml", "--set-used"], arguments].concat()).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        told.push_str(&ended.stderr);
    }
    insta::assert_snapshot!(told);
    let ledger = desk.folder.path().join("lake/state/ledger");
    assert!(!ledger.exists(), "something was counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_whose_key_is_missing_is_not_known_and_ends_with_3() {
    let desk = Desk::new(Settings::default()).await;
    let ended = end(leadpipe(desk.folder.path(), &["quota", "job.toml"]));
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stdout.contains("environment variable `TEST_TOKEN`"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_absolute_paths_that_are_there() {
    let desk = Desk::new(Settings::default()).await;
    assert_eq!(desk.run(&["sync", "job.toml"]).await.code, Some(0));
    for arguments in [&["files", "job.toml"][..], &["files", "job.toml", "--since", "0"]] {
        let ended = desk.run(arguments).await;
        assert_eq!(ended.code, Some(0));
        assert!(!ended.stdout.is_empty());
        for path in ended.stdout.lines().map(Path::new) {
            assert!(path.is_absolute() && path.is_file(), "{}", path.display());
        }
    }
    assert_eq!(desk.run(&["files", "job.toml", "--since", "9"]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_without_an_end_goes_on_as_the_same_request() {
    let desk = Desk::new(Settings::default()).await;
    let backfill = ["backfill", "job.toml", "--from", "2020-01-01"];
    let spent = [&backfill[..], &["--max-requests", "4"]].concat();
    for _ in 0..2 {
        assert_eq!(desk.run(&spent).await.code, Some(8));
        let status = document(&desk.run(&["status", "job.toml", "--json"]).await);
        assert_eq!(status["backfills"].as_array().unwrap().len(), 1);
    }
    assert_eq!(desk.run(&backfill).await.code, Some(0));
    let status = document(&desk.run(&["status", "job.toml", "--json"]).await);
    assert_eq!(status["backfills"].as_array().unwrap().len(), 0);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_sync_commits_and_ends_with_130() {
    let behaviour = Behaviour { delay_ms: 400, ..Behaviour::default() };
    let desk = Desk::new(Settings { behaviour, ..Settings::default() }).await;
    desk.write_job("page_size = 5\nquota = { at_once = 1 }");
    let (token, secret) = desk.sandbox.master_key();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_leadpipe"));
    command.args(["sync", "job.toml"]).current_dir(desk.folder.path());
    command.env("TEST_TOKEN", token).env("TEST_SECRET", secret);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    while desk.sandbox.requests().len() < 3 {
        tokio::task::yield_now().await;
    }
    interrupt(child.id());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await;
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted (exit code 130); committed 000000001"), "{text}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_does_not_stop_a_sync() {
    let desk = Desk::new(Settings::default()).await;
    let (token, secret) = desk.sandbox.master_key();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_leadpipe"));
    command.args(["sync", "job.toml", "--log-json"]).current_dir(desk.folder.path());
    command.env("TEST_TOKEN", token).env("TEST_SECRET", secret);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(serde_json::from_str::<Value>(&line).unwrap()["fields"]["event"].is_string());
    drop(log);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await;
    assert_eq!(output.unwrap().status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_sandbox_says_where_it_is_and_serves_until_interrupted() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_leadpipe"));
    command.args(["sandbox", "--port", "0", "--leads", "50", "--quiet"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("sandbox at http://127.0.0.1:"), "{first}");
    assert!(lines.any(|line| line.unwrap().contains("leadpipe sync sandbox.toml")));
    interrupt(child.id());
    assert!(child.wait().unwrap().success());
}

#[cfg(unix)]
fn interrupt(process: u32) {
    let killed = std::process::Command::new("kill").args(["-INT", &process.to_string()]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn a_demo_replaces_an_earlier_one_and_leaves_other_folders_alone() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let ended = end(leadpipe(folder.path(), &["demo", "--quiet"]));
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("What that night changed:"));
        // No personal data is shown.
        assert!(!ended.stdout.contains('@'), "{}", ended.stdout);
    }
    assert!(folder.path().join("leadpipe-demo/latest/leads").is_dir());
    fs::create_dir(folder.path().join("mine")).unwrap();
    fs::write(folder.path().join("mine/letter.txt"), "dear").unwrap();
    let ended = end(leadpipe(folder.path(), &["demo", "--keep", "mine"]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("is not empty"));
    assert_eq!(fs::read_dir(folder.path().join("mine")).unwrap().count(), 1);
}
