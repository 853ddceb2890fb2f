//! Lakes in buckets: what a folder does by links, locks and appends, done by conditions on a write.
//!
//! `make buckets` runs these beside servers on 127.0.0.1 that speak the protocols of S3 and Azure, and
//! `LEADPIPE_BUCKETS` has the addresses of their buckets, parted by spaces.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use chrono::TimeDelta;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::commit;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use leadpipe::store::Place;
use leadpipe::store::Store;
use serde_json::Value;
use serde_json::json;

use crate::support::MASTER;
use crate::support::process;
use crate::support::process::Running;

/// Returns the addresses of the buckets that there are to be tried.
pub(crate) fn addresses() -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "`make buckets` tells where the servers are")]
    let told = std::env::var("LEADPIPE_BUCKETS").unwrap();
    told.split_whitespace().map(str::to_owned).collect()
}

fn store(address: &str) -> Store {
    Store::at(&Place::bucket(address).unwrap()).unwrap()
}

/// A job on lakes in a bucket and in a folder, which reads from a sandbox.
struct Stand {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    address: String,
    /// Where S3 is, in place of where it is for the other tests.
    server: Option<String>,
}

impl Stand {
    async fn new(address: &str, settings: Settings) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let settings = Settings { now: clock.now() - TimeDelta::hours(1), ..settings };
        let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Another test has another sandbox, with a port of its own.
        let address = format!("{address}/{}", sandbox.url().rsplit(':').next().unwrap());
        Self { sandbox, folder, address, server: None }
    }

    fn job(&self, name: &str, lake: &str, more: &str) -> PathBuf {
        let from = format!("page_size = 100\nbase_url = \"{}\"\n", self.sandbox.url());
        let job = MASTER.replacen("\"UNUSED\"", "\"BUCKETS_TOKEN\"", 1);
        let job = job.replacen("\"UNUSED\"", "\"BUCKETS_SECRET\"", 1);
        let job = job.replacen("lake = \"lake\"", &format!("lake = \"{lake}\""), 1);
        let path = self.folder.path().join(name);
        let key = "\n[privacy]\nkey = { env = \"BUCKETS_KEY\" }\n";
        fs::write(&path, format!("{job}{from}{more}{key}")).unwrap();
        path
    }

    fn start(&self, command: &str, job: &Path, arguments: &[&str]) -> (Running, PathBuf) {
        let told = job.with_extension("told");
        let file = fs::File::create(&told).unwrap();
        let (token, secret) = self.sandbox.master_key();
        let mut variables = vec![
            ("BUCKETS_TOKEN", &*token),
            ("BUCKETS_SECRET", &*secret),
            ("BUCKETS_KEY", "a key of the tests alone"),
            ("TMPDIR", self.folder.path().to_str().unwrap()),
        ];
        variables.extend(self.server.as_deref().map(|server| ("AWS_ENDPOINT_URL", server)));
        let zero = TimeDelta::zero();
        (process::start(command, job, arguments, zero, &variables, Stdio::from(file)), told)
    }

    fn run(&self, command: &str, job: &Path, arguments: &[&str]) -> (Option<i32>, String) {
        let (mut running, told) = self.start(command, job, arguments);
        let code = running.0.wait().unwrap().code();
        (code, fs::read_to_string(told).unwrap())
    }
}

/// The content hash of each lead that a lake holds.
fn rows(store: &Store) -> BTreeMap<String, String> {
    let head = commit::latest(store).unwrap().unwrap();
    let mut rows = BTreeMap::new();
    for part in head.sources.values().flat_map(|source| &source.parts) {
        for batch in crate::support::batches(store, &part.file.path, &["lead_id", "_content_hash"])
        {
            for row in 0..batch.num_rows() {
                let of = |column| crate::support::text(&batch, column, row);
                rows.insert(of("lead_id"), of("_content_hash"));
            }
        }
    }
    rows
}

fn little() -> Settings {
    Settings { leads: 900, years: 1, accounts: 1, profiles: 2, still: true, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn a_lake_in_a_bucket_holds_what_one_in_a_folder_does() {
    for address in addresses() {
        let stand = Stand::new(&address, little()).await;
        let both = "\n[load]\nformat = \"both\"\n";
        let (far, near) =
            (stand.job("far.toml", &stand.address, both), stand.job("near.toml", "near", both));
        let there = store(&stand.address);
        for night in 0..3 {
            for job in [&far, &near] {
                let (code, told) = stand.run("sync", job, &[]);
                assert_eq!(code, Some(0), "{told}");
            }
            let lead = stand.sandbox.lead_ids()[700 + night].1;
            stand.sandbox.edit(lead, leadpipe::sandbox::Edit::Vanish).unwrap();
        }
        assert_eq!(rows(&there), rows(&Store::open(stand.folder.path().join("near"))));
        let (code, told) = stand.run("verify", &far, &[]);
        assert_eq!(code, Some(0), "{told}");
        // Parts lie once, and nothing points to them but the commits.
        assert_eq!(there.list("snapshots").unwrap(), [""; 0]);
        assert!(!there.exists("latest").unwrap() && there.exists("checkpoint.json").unwrap());
        let (code, told) = stand.run("replay", &far, &[]);
        assert_eq!(code, Some(0), "{told}");
        // The folder of what a run need not keep is gone with it.
        assert_eq!(scratch_folders(&stand), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn a_tree_of_copies_shows_each_commit_that_lives() {
    for address in addresses() {
        let stand = Stand::new(&address, little()).await;
        let more = "\n[load]\ntree = \"copy\"\n[keep]\nsnapshots = 1\nsnapshot_age = \"0s\"\n";
        let job = stand.job("tree.toml", &stand.address, more);
        let there = store(&stand.address).with_copies(true);
        for night in 1..=2 {
            let (code, told) = stand.run("sync", &job, &[]);
            assert_eq!(code, Some(0), "{told}");
            let folder = format!("snapshots/{night:09}");
            assert_eq!(there.pointee("latest").as_deref(), Some(&*folder));
            assert_eq!(there.list("snapshots").unwrap(), [format!("{night:09}")]);
            let shown = there.list_all(&folder).unwrap();
            let parts = there.list_all("parts").unwrap();
            assert_eq!(shown.len(), parts.len(), "{shown:?} of {parts:?}");
            let lead = stand.sandbox.lead_ids()[850].1;
            stand.sandbox.edit(lead, leadpipe::sandbox::Edit::Vanish).unwrap();
        }
        let (code, told) = stand.run("verify", &job, &[]);
        assert_eq!(code, Some(0), "{told}");
        // A copy that is damaged is found.
        let shown = there.list_all("snapshots").unwrap().remove(0);
        there.write(&shown, b"damaged").unwrap();
        assert_eq!(stand.run("verify", &job, &[]).0, Some(13));
        // Without copies none is left that would name an old commit for ever.
        let job = stand.job("bare.toml", &stand.address, "");
        let (code, told) = stand.run("sync", &job, &[]);
        assert_eq!((code, there.pointee("latest")), (Some(0), None), "{told}");
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

/// Puts the lease of a lake as far back as it takes for another run to have the lake.
fn let_lapse(there: &Store) {
    let mut lease: Value = serde_json::from_slice(&there.read("state/lock").unwrap()).unwrap();
    lease["until"] = json!(chrono::DateTime::UNIX_EPOCH);
    there.write("state/lock", &serde_json::to_vec(&lease).unwrap()).unwrap();
}

fn signal(running: &Running, name: &str) {
    let pid = running.0.id().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn a_run_that_slept_past_its_lease_commits_nothing_and_removes_only_what_is_its_own() {
    for address in addresses() {
        let mut settings = little();
        settings.behaviour.delay_ms = 300;
        let stand = Stand::new(&address, settings).await;
        let (asleep, awake) = (
            stand.job("asleep.toml", &stand.address, ""),
            stand.job("awake.toml", &stand.address, ""),
        );
        let there = store(&stand.address);
        let (mut sleeper, told) = stand.start("sync", &asleep, &[]);
        until("a page is held", || !there.list_all("archive").unwrap().is_empty());
        // While it holds the lake, nobody else gets it.
        let (code, refused) = stand.run("sync", &awake, &[]);
        assert_eq!(code, Some(11), "{refused}");
        assert!(refused.contains("another run holds the lake"), "{refused}");
        signal(&sleeper, "-STOP");
        let_lapse(&there);
        let (code, second) = stand.run("sync", &awake, &[]);
        assert_eq!(code, Some(0), "{second}");
        let (after, commits) = (rows(&there), there.list("commits").unwrap());
        signal(&sleeper, "-CONT");
        let code = sleeper.0.wait().unwrap().code();
        let told = fs::read_to_string(told).unwrap();
        assert_eq!(code, Some(11), "{told}");
        assert_eq!((rows(&there), there.list("commits").unwrap()), (after, commits));
        let (code, told) = stand.run("verify", &awake, &[]);
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(stand.run("sync", &awake, &[]).0, Some(0));
    }
}

/// A server that hands everything on to S3, and loses every ninth answer to a write.
struct Lossy {
    address: String,
    lost: Arc<AtomicUsize>,
}

impl Lossy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (writes, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&lost);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (writes, lost) = (Arc::clone(&writes), Arc::clone(&lost));
                std::thread::spawn(move || Self::serve(client.unwrap(), &writes, &lost));
            }
        });
        Self { address, lost: counted }
    }

    fn serve(client: TcpStream, writes: &AtomicUsize, lost: &AtomicUsize) {
        let server = TcpStream::connect(s3_server()).unwrap();
        let (mut from_client, mut from_server) = (
            BufReader::new(client.try_clone().unwrap()),
            BufReader::new(server.try_clone().unwrap()),
        );
        let (mut client, mut server) = (client, server);
        while let Some(request) = message(&mut from_client, true) {
            server.write_all(&request).unwrap();
            let Some(answer) = message(&mut from_server, !request.starts_with(b"HEAD ")) else {
                return;
            };
            let is_write = request.starts_with(b"PUT ") || request.starts_with(b"POST ");
            if is_write && (writes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(9) {
                lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            client.write_all(&answer).unwrap();
        }
    }
}

/// Reads a request or an answer of HTTP/1.1 of which the length is stated; nothing at the end.
fn message(reader: &mut impl BufRead, has_body: bool) -> Option<Vec<u8>> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let begun = bytes.len();
        if reader.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&bytes[begun..]).to_ascii_lowercase();
        if let Some(stated) = line.strip_prefix("content-length:") {
            length = stated.trim().parse().unwrap();
        }
        assert!(!line.starts_with("transfer-encoding:"), "its length is not stated");
        if line == "\r\n" {
            break;
        }
    }
    if has_body {
        let begun = bytes.len();
        bytes.resize(begun + length, 0);
        reader.read_exact(&mut bytes[begun..]).ok()?;
    }
    Some(bytes)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn answers_to_writes_that_are_lost_cost_no_lead_and_no_run() {
    let address = addresses().into_iter().find(|address| address.starts_with("s3://")).unwrap();
    let lossy = Lossy::start();
    let stand = Stand::new(&address, little()).await;
    let stand = Stand { server: Some(lossy.address.clone()), ..stand };
    let (far, near) =
        (stand.job("far.toml", &stand.address, ""), stand.job("near.toml", "near", ""));
    let there = store(&stand.address);
    for night in 0..2 {
        stand.sandbox.clear_requests();
        for job in [&far, &near] {
            let (code, told) = stand.run("sync", job, &[]);
            assert_eq!(code, Some(0), "{told}");
        }
        let lead = stand.sandbox.lead_ids()[700 + night].1;
        stand.sandbox.edit(lead, leadpipe::sandbox::Edit::Vanish).unwrap();
    }
    assert!(lossy.lost.load(Ordering::Relaxed) > 3, "{:?}", lossy.lost);
    assert_eq!(rows(&there), rows(&Store::open(stand.folder.path().join("near"))));
    let (code, told) = stand.run("verify", &far, &[]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(there.list("commits").unwrap().len(), 2);
    // Of what the two lakes count, the one whose answers were lost counts no less.
    let used = |store: &Store| {
        let ledger = store.list("state/ledger").unwrap();
        let name = ledger.iter().find(|name| name.ends_with(".json")).unwrap();
        let bytes = store.read(&format!("state/ledger/{name}")).unwrap();
        let ledger: Value = serde_json::from_slice(&bytes).unwrap();
        let minutes = ledger["minutes"].as_object().unwrap().values();
        minutes.map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    let near = Store::open(stand.folder.path().join("near"));
    assert!(used(&there) >= used(&near), "{} and {}", used(&there), used(&near));
}

/// The scratch folders of runs that there are on this machine.
fn scratch_folders(stand: &Stand) -> usize {
    let names = fs::read_dir(stand.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("leadpipe-")).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
async fn staged_leads_of_a_run_that_was_killed_do_not_outlast_the_next_one() {
    for address in addresses() {
        let mut settings = little();
        settings.behaviour.delay_ms = 300;
        let stand = Stand::new(&address, settings).await;
        let job = stand.job("killed.toml", &stand.address, "");
        let there = store(&stand.address);
        let (mut killed, _) = stand.start("sync", &job, &[]);
        until("a page is held", || !there.list_all("archive").unwrap().is_empty());
        until("something is staged", || scratch_folders(&stand) == 1);
        killed.0.kill().unwrap();
        killed.0.wait().unwrap();
        let_lapse(&there);
        let (code, told) = stand.run("sync", &job, &[]);
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(scratch_folders(&stand), 0);
    }
}

#[test]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
fn a_large_file_appears_whole_or_leaves_nothing() {
    for address in addresses() {
        let there = store(&format!("{address}/large"));
        let bytes: Vec<u8> = (0..14_000_000_u32).map(|at| (at >> 7) as u8 ^ at as u8).collect();
        let mut file = there.new_file("parts/whole").unwrap();
        file.write_all(&bytes).unwrap();
        let stored = file.finish().unwrap();
        assert_eq!(stored.bytes, bytes.len() as u64);
        let mut read = Vec::new();
        there.open_file("parts/whole").unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes);

        let mut file = there.new_file("parts/dropped").unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        // As one that is killed leaves it.
        let mut file = there.new_file("parts/killed").unwrap();
        file.write_all(&bytes).unwrap();
        std::mem::forget(file);
        assert_eq!(there.list_all("parts").unwrap(), ["parts/whole"]);
        assert_eq!(there.list_all("state/uploads").unwrap(), ["state/uploads/parts/killed"]);
        there.abort_uploads(|path| path == "parts/other").unwrap();
        assert_eq!(there.list_all("state/uploads").unwrap().len(), 1);
        there.abort_uploads(|path| path == "parts/killed").unwrap();
        assert_eq!(there.list_all("state/uploads").unwrap(), [""; 0]);
        assert_eq!(there.list_all("parts").unwrap(), ["parts/whole"]);
        assert_eq!(uploads_under_way(&address), 0);
    }
}

/// The host and port at which S3 is served.
fn s3_server() -> String {
    #[expect(clippy::disallowed_methods, reason = "`make buckets` tells where the servers are")]
    let server = std::env::var("AWS_ENDPOINT_URL").unwrap();
    server.trim_start_matches("http://").to_owned()
}

/// How many uploads a bucket knows that have not ended. S3 alone can be asked.
fn uploads_under_way(address: &str) -> usize {
    let Some(bucket) = address.strip_prefix("s3://") else { return 0 };
    let server = s3_server();
    let mut stream = TcpStream::connect(&server).unwrap();
    let request = format!("GET /{bucket}?uploads HTTP/1.0\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
    answer.matches("<UploadId>").count()
}

#[test]
#[ignore = "needs servers that speak as buckets do: `make buckets`"]
fn of_many_that_change_a_file_at_once_each_sees_what_the_others_did() {
    for address in addresses() {
        let there = store(&format!("{address}/counted"));
        let count = || {
            for _ in 0..10 {
                let counted = there.update("state/count", |bytes| {
                    let before = bytes.map_or(0, |bytes| bytes.len());
                    Ok::<_, leadpipe::store::Error>((Some(vec![b'x'; before + 1]), before + 1))
                });
                counted.unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(count);
            }
        });
        assert_eq!(there.read("state/count").unwrap().len(), 40);
        let first: Vec<bool> = std::thread::scope(|scope| {
            let put = |text: &'static str| there.write_if_absent("commits/1", text.as_bytes());
            let threads =
                ["one", "two", "three"].map(|text| scope.spawn(move || put(text).unwrap()));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(first.iter().filter(|is_first| **is_first).count(), 1);
    }
}
