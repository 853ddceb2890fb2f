//! Providers that are slow, or say nothing at all: each phase has its error, slow is not stalled, and a
//! run that may take so long takes no longer.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use chrono::TimeDelta;
use leadpipe::clock::Clock;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::extract::Call;
use leadpipe::extract::Error;
use leadpipe::extract::Heard;
use leadpipe::extract::HttpClient;
use leadpipe::extract::HttpSettings;
use leadpipe::ids::ProviderId;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::process::Running;
use crate::support::process::start;
use crate::support::small;
use crate::support::small_job;

const STALL: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_millis(1_200);

async fn pause(ms: i64) {
    let clock = SystemClock::default();
    clock.sleep_until(clock.now() + TimeDelta::milliseconds(ms)).await;
}

/// Serves one connection: each piece after so many milliseconds; then nothing, for ever.
async fn serve(pieces: Vec<(i64, &'static str)>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 2_000];
        // The request is one small piece.
        let _ = stream.read(&mut asked).await;
        for (ms, piece) in pieces {
            pause(ms).await;
            if stream.write_all(piece.as_bytes()).await.is_err() {
                return;
            }
        }
        pause(20_000).await;
    });
    port
}

async fn ask(url: String) -> Result<String, Error> {
    let settings = HttpSettings {
        base_url: url.parse().unwrap(),
        timeout: TIMEOUT,
        stall: STALL,
        max_body_bytes: 1_000_000,
        heard: Heard::default(),
    };
    let clock: SharedClock = Arc::new(SystemClock::default());
    let headers = Default::default();
    let client = HttpClient::new(ProviderId::Whautomate, settings, headers, clock).unwrap();
    let answer = client.send(Call::get("v1/contacts")).await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

async fn ask_of(pieces: Vec<(i64, &'static str)>) -> Result<String, Error> {
    ask(format!("http://127.0.0.1:{}", serve(pieces).await)).await
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_names_what_was_under_way() {
    // To a client of TLS a server that says nothing has not connected.
    let silent = serve(Vec::new()).await;
    let told = |answer: Result<String, Error>| answer.unwrap_err().to_string();
    let begun = Instant::now();
    let said = [
        told(ask(format!("https://127.0.0.1:{silent}")).await),
        told(ask_of(Vec::new()).await),
        told(ask_of(vec![(0, "HTTP/1.1 200 OK\r\nContent-Le")]).await),
        told(ask_of(vec![(0, HEAD), (0, "12345")]).await),
    ];
    insta::assert_snapshot!(said.join("\n"));
    assert!(begun.elapsed() < 4 * TIMEOUT + Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_steady_is_no_stall_and_a_drip_ends_all_the_same() {
    let steady = (0..10).map(|_| (60, "x"));
    let pieces: Vec<_> = [(0, HEAD)].into_iter().chain(steady).collect();
    assert_eq!(ask_of(pieces).await.unwrap(), "xxxxxxxxxx");
    let endless = (0..200).map(|_| (150, "x"));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let pieces: Vec<_> = [(0, head)].into_iter().chain(endless).collect();
    let error = ask_of(pieces).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow { .. }), "{error}");
    assert!(error.may_be_size() && error.is_retryable());
    insta::assert_snapshot!(error.to_string());
}

/// Waits for the end, at most so long.
async fn end_of(run: &mut Running, most: Duration) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < most {
        if let Some(status) = run.0.try_wait().unwrap() {
            return status.code();
        }
        pause(20).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_may_take_two_seconds_commits_what_a_slow_provider_has_sent_by_then() {
    let clock: SharedClock = Arc::new(SystemClock::default());
    let now = chrono::DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
    let behaviour = Behaviour { delay_ms: 500, ..Behaviour::default() };
    let settings = Settings { leads: 2_000, now, still: true, behaviour, ..small() };
    let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    let text =
        small_job(&format!("base_url = \"{}\"\n[sources.quota]\nat_once = 2", sandbox.url()));
    let text = text.replacen("\"UNUSED\"", "\"SLOW_TOKEN\"", 1);
    std::fs::write(&job, text.replacen("\"UNUSED\"", "\"SLOW_SECRET\"", 1)).unwrap();
    let (token, secret) = sandbox.master_key();
    let secrets = [("SLOW_TOKEN", token.as_str()), ("SLOW_SECRET", secret.as_str())];
    let arguments = ["--max-duration", "2s"];
    let told = std::process::Stdio::null();
    let begun = Instant::now();
    let mut run = start("sync", &job, &arguments, TimeDelta::zero(), &secrets, told);
    let code = end_of(&mut run, Duration::from_secs(60)).await;
    let took = begun.elapsed();
    assert_eq!(code, Some(10), "after {took:?}");
    // All of it would take more than ten seconds.
    let sent = sandbox.requests().len();
    assert!((2..20).contains(&sent), "{sent} requests");
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(folder.path().join("lake/commits").read_dir().unwrap().count() > 0);
}
