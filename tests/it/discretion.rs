//! Secrets nowhere, people only where their leads are: marked ones are searched for in all that the
//! program says and writes at its most talkative, when all goes well and when nothing does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use base64::Engine;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::sandbox::Behaviour;
use leadpipe::sandbox::Edit;
use leadpipe::sandbox::Fault;
use leadpipe::sandbox::Listing;
use leadpipe::sandbox::RecordEdit;
use leadpipe::sandbox::Sandbox;
use leadpipe::sandbox::Settings;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::support::MASTER;
use crate::support::records::CLINIC;
use crate::support::records::bots;
use crate::support::small;

/// Where the leads themselves lie.
const LEADS: [&str; 6] = ["parts", "csv", "changes", "snapshots", "archive", "rejects"];

/// What a person of the marked leads is called, writes, and can be reached by. The address stands in
/// every form in which one can be told from other words.
const PERSON: [&str; 4] = ["Quexlinde", "quexlinde@", "3125550187", "my zubwort is"];

/// The three providers, a job that reads all of them, and what may be found nowhere.
struct Stand {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    secrets: BTreeMap<&'static str, String>,
    /// What the program said, by the command it was given.
    said: Vec<(String, Output)>,
}

impl Stand {
    async fn new() -> Self {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let now = chrono::DateTime::from_timestamp(clock.now().timestamp() - 3_600, 0).unwrap();
        let settings = Settings {
            leads: 200,
            whautomate_accounts: 1,
            contacts: 60,
            clients: 20,
            convertalk_bots: 1,
            chats: 60,
            whautomate_per_day: Some(432_000),
            whautomate_per_minute: Some(300),
            now,
            still: true,
            ..small()
        };
        let sandbox = Sandbox::start(settings, 0, clock).await.unwrap();
        let (token, secret) = sandbox.master_key();
        let secrets = BTreeMap::from([
            ("DISCREET_TOKEN", token),
            ("DISCREET_SECRET", secret),
            ("DISCREET_KEY", sandbox.whautomate_keys().remove(0)),
            ("DISCREET_BOT", sandbox.convertalk_token()),
        ]);
        let stand =
            Self { sandbox, folder: tempfile::tempdir().unwrap(), secrets, said: Vec::new() };
        stand.write_job("job.toml", "lake", &stand.sandbox.url());
        stand.mark();
        stand
    }

    fn write_job(&self, name: &str, lake: &str, base_url: &str) {
        let master = MASTER
            .replace("lake = \"lake\"", &format!("lake = \"{lake}\""))
            .replacen("\"UNUSED\"", "\"DISCREET_TOKEN\"", 1)
            .replacen("\"UNUSED\"", "\"DISCREET_SECRET\"", 1);
        let clinic = CLINIC.replace("\"UNUSED\"", "\"DISCREET_KEY\"");
        let bots = bots(&self.sandbox).replace("\"UNUSED\"", "\"DISCREET_BOT\"");
        let bots = bots.replace("https://chat.example.com", base_url);
        let at = format!("base_url = \"{base_url}\"\n");
        let job = format!("{master}{at}{clinic}{at}{bots}\n[load]\nformat = \"both\"\n");
        fs::write(self.folder.path().join(name), job).unwrap();
    }

    /// Puts the marked person into a lead of each stream, also where something else should stand.
    fn mark(&self) {
        let set = |value: Value| -> Map<String, Value> { value.as_object().unwrap().clone() };
        for (_, lead) in self.sandbox.lead_ids().into_iter().take(3) {
            let marked = set(json!({
                "contact_name": "Quexlinde Jones", "contact_email_address": "quexlinde@example.com",
                "contact_phone_number": "+13125550187", "message": "my zubwort is =1+1",
                "email_message": "my zubwort is loud", "quote_value": "my zubwort is 12",
                "last_updated": "Quexlinde", "additional_fields": {"Reach me": "+1 3125550187"},
            }));
            self.sandbox.edit(lead, Edit::Set(marked)).unwrap();
        }
        for (listing, fields) in [
            (
                Listing::Contacts { account: 0 },
                json!({"name": "Quexlinde Jones", "phoneNumber": "13125550187",
                "notes": "my zubwort is =1+1", "createdAt": "Quexlinde"}),
            ),
            (
                Listing::Clients { account: 0 },
                json!({"firstName": "Quexlinde", "email": "quexlinde@example.com",
                "dateOfBirth": "my zubwort is May"}),
            ),
            (
                Listing::Chats { bot: 0, lead: true },
                json!({"profile.userDetails.name": "Quexlinde Jones",
                "profile.userDetails.contact": {"email": "quexlinde@example.com",
                    "phone": {"number": "3125550187", "prefix": "1"}},
                "lastMessage.text": "my zubwort is =1+1", "lastSeenAt": "Quexlinde"}),
            ),
        ] {
            let id = self.sandbox.record_ids(listing).unwrap().remove(0);
            self.sandbox.edit_record(listing.stream(), &id, RecordEdit::Set(set(fields))).unwrap();
        }
    }

    /// Runs a command, in one of the forms in which it speaks.
    fn run(&mut self, days: i64, job: &str, command: &[&str]) {
        let forms: [&[&str]; 2] = [&["-vvv"], &["-vvv", "--json", "--log-json"]];
        let form = forms[self.said.len() % 2];
        let output = Command::new(env!("CARGO_BIN_EXE_leadpipe"))
            .arg(command[0])
            .arg(self.folder.path().join(job))
            .args(&command[1..])
            .args(form)
            .env("LEADPIPE_CLOCK_OFFSET", format!("{days}d"))
            .env("RUST_BACKTRACE", "full")
            .envs(&self.secrets)
            .output()
            .unwrap();
        let code = output.status.code();
        self.said.push((format!("{job} {command:?} {form:?} -> {code:?}"), output));
    }

    /// What none may know: the secrets, and how they stand in a request.
    fn secret_marks(&self) -> Vec<Vec<u8>> {
        let (token, secret) = (&self.secrets["DISCREET_TOKEN"], &self.secrets["DISCREET_SECRET"]);
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{token}:{secret}"));
        let mut marks: Vec<_> = self.secrets.values().map(|secret| secret.clone().into()).collect();
        marks.push(pair.into_bytes());
        marks
    }
}

fn person_marks() -> Vec<Vec<u8>> {
    PERSON.iter().map(|mark| mark.as_bytes().to_vec()).collect()
}

fn finds(text: &[u8], marks: &[Vec<u8>]) -> Option<String> {
    let found = marks.iter().find(|mark| text.windows(mark.len()).any(|part| part == **mark))?;
    Some(String::from_utf8_lossy(found).into_owned())
}

/// All files below a folder, with what is in them, decompressed where it is compressed.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(path),
                kind if kind.is_file() => {
                    let bytes = fs::read(&path).unwrap();
                    let is_zstd = path.extension().is_some_and(|end| end == "zst");
                    let plain = if is_zstd { zstd::decode_all(&*bytes).unwrap() } else { bytes };
                    files.push((path, plain));
                }
                _ => {}
            }
        }
    }
    files
}

/// A provider that answers every request with all that it was told and all that it knows.
async fn parrot() -> String {
    let answer = |request: Request| async move {
        let number = request.uri().to_string().len() + request.headers().len();
        let headers: Vec<String> = request
            .headers()
            .values()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        let basic = headers.iter().find_map(|value| value.strip_prefix("Basic "));
        let decoded = basic.and_then(|pair| {
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(pair).ok()?).ok()
        });
        let told = format!(
            "no: {} {} quexlinde@example.com, +13125550187",
            headers.join(" "),
            decoded.unwrap_or_default()
        );
        let status = [401, 403, 400, 200, 404][number % 5];
        let body = json!({"error_message": told, "message": told, "error": told, "success": false});
        (StatusCode::from_u16(status).unwrap(), body.to_string())
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    format!("http://{at}")
}

/// What goes wrong on the nights of the search.
fn troubles() -> Vec<Behaviour> {
    let faults = [
        Fault::Status { status: 500 },
        Fault::Status { status: 401 },
        Fault::Html,
        Fault::CutJson,
        Fault::CutBody,
        Fault::ErrorInside,
        Fault::Reset,
    ];
    let failing = |fault: Fault| Behaviour { fail_next: vec![fault; 2], ..Behaviour::default() };
    let mut troubles: Vec<_> = faults.into_iter().map(failing).collect();
    troubles.push(Behaviour { total_offset: 3, ..Behaviour::default() });
    troubles.push(Behaviour { extra_field: Some("brand_new".into()), ..Behaviour::default() });
    troubles
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_anywhere_and_no_person_but_where_leads_are() {
    let mut stand = Stand::new().await;
    for command in ["check", "plan", "sync", "replay", "status", "quota", "files"] {
        // Once in words, once in JSON.
        stand.run(0, "job.toml", &[command]);
        stand.run(0, "job.toml", &[command]);
    }
    stand.run(1, "job.toml", &["plan", "--probe"]);
    for (night, behaviour) in (1..).zip(troubles()) {
        stand.sandbox.behave(behaviour);
        stand.run(night, "job.toml", &["sync"]);
    }
    stand.sandbox.behave(Behaviour::default());
    stand.run(20, "job.toml", &["backfill", "--from", "2024-01-01", "--again"]);
    stand.write_job("parrot.toml", "parrot", &parrot().await);
    for command in ["check", "sync", "plan"] {
        stand.run(0, "parrot.toml", &[command]);
    }

    let (secrets, people) = (stand.secret_marks(), person_marks());
    let mut hits = Vec::new();
    for (command, output) in &stand.said {
        for said in [&output.stdout, &output.stderr] {
            let said = String::from_utf8_lossy(said);
            assert!(!said.contains("panicked"), "{command}: {said}");
            for line in said.lines() {
                let found = finds(line.as_bytes(), &secrets).or(finds(line.as_bytes(), &people));
                hits.extend(found.map(|mark| format!("{command}: `{mark}` in {line}")));
            }
        }
    }
    let (mut searched, mut leads) = (0, BTreeMap::<&str, usize>::new());
    for lake in ["lake", "parrot"].map(|lake| stand.folder.path().join(lake)) {
        for (path, bytes) in files(&lake) {
            searched += 1;
            let below = path.strip_prefix(&lake).unwrap();
            let place = LEADS.iter().find(|place| below.starts_with(place));
            let person = finds(&bytes, &people);
            let named = finds(below.to_string_lossy().as_bytes(), &people);
            match place {
                Some(place) => *leads.entry(place).or_default() += usize::from(person.is_some()),
                None => hits.extend(person.map(|mark| format!("{}: {mark}", below.display()))),
            }
            let other = named.or(finds(&bytes, &secrets));
            hits.extend(other.map(|mark| format!("{}: {mark}", below.display())));
        }
    }
    assert_eq!(hits, Vec::<String>::new());
    // The search would have found them: they are where they should be.
    for place in ["csv", "archive"] {
        assert!(leads.get(place).is_some_and(|found| *found > 0), "{place}: {leads:?}");
    }
    #[expect(clippy::print_stdout, reason = "the figures of a search")]
    {
        let said = stand.said.len();
        println!("searched {searched} files and {said} outputs; people found in {leads:?}");
    }
}
