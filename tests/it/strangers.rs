//! Leads are written by strangers: what they and a hostile provider write is kept, and does nothing.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use assert_cmd::Command;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::Uri;
use leadpipe::harmless::is_harmful;
use serde_json::Value;
use serde_json::json;

/// What a terminal, an editor or a log would obey.
const ORDERS: &str = "\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{200b}\u{7}\r\nERROR all is lost";

/// Ids that would lead somewhere else as a part of a path.
const IDS: [&str; 8] = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    "a/b",
    "a\0b",
    "%2e%2e%2f",
    "é\u{202e}",
    "=1+1",
];

const FORMULAS: [&str; 7] =
    ["=HYPERLINK(\"x\")", "+SUM(A1)", "-x", "@cmd", "\t=1", " \u{ff1d}1", "\r\n=1"];

/// Contacts of whom everything is made up to do harm; `later` with fields that are new.
fn contacts(later: bool) -> Value {
    let contact = |(at, id): (usize, &&str)| {
        let formula = FORMULAS[at % FORMULAS.len()];
        let mut contact = json!({
            "id": id, "createdAt": "2026-03-01T02:00:00Z", "name": formula,
            "phoneNumber": "12125550100", "channel": ORDERS, "stage": "{{7*7}} ${HOME} %s {0}",
            "notes": "x".repeat(100_000),
        });
        if later {
            contact[format!("field {ORDERS}")] = json!(ORDERS);
            contact["../../field"] = json!(formula);
        }
        contact
    };
    let long = json!({"id": "7".repeat(500), "createdAt": "2026-03-01T02:00:00Z"});
    IDS.iter().enumerate().map(contact).chain([long]).collect()
}

async fn answer(State(asked): State<Arc<AtomicUsize>>, uri: Uri) -> (StatusCode, String) {
    let is_first = uri.query().is_some_and(|query| query.contains("page=1&"));
    match uri.path() {
        "/v1/contacts" if is_first => {
            let later = asked.fetch_add(1, Ordering::Relaxed) > 0;
            (StatusCode::OK, contacts(later).to_string())
        }
        "/v1/contacts" => (StatusCode::OK, "[]".to_owned()),
        "/v1/account" => (StatusCode::OK, json!({"name": ORDERS}).to_string()),
        _ => (StatusCode::BAD_REQUEST, json!({"message": format!("no {ORDERS}")}).to_string()),
    }
}

/// Starts the provider and returns its address.
async fn provider() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(Arc::<AtomicUsize>::default());
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn write_job(folder: &Path, url: &str) {
    let job = format!(
        "name = \"test\"\nlake = \"lake\"\n[[sources]]\nname = \"clinic\"\nprovider = \
         \"whautomate\"\nbase_url = \"{url}\"\napi_key = {{ env = \"TEST_KEY\" }}\nplan = \
         \"subscribed\"\nretries = 0\n[load]\nformat = \"both\"\n"
    );
    fs::write(folder.join("job.toml"), job).unwrap();
}

/// Runs a command and returns all that it wrote, which has nothing in it that is obeyed, and in a
/// log nothing that passes for an event.
fn shown_by(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leadpipe"));
    command.args(arguments.split(' ')).current_dir(folder).env("TEST_KEY", "key");
    let output = command.output().unwrap();
    let mut shown = String::new();
    for bytes in [output.stdout, output.stderr] {
        let text = String::from_utf8(bytes).unwrap();
        let harm = text.chars().find(|c| is_harmful(*c) && *c != '\n');
        assert_eq!(harm, None, "{arguments}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("ERROR all")), "{arguments}: {text}");
        shown.push_str(&text);
    }
    shown
}

/// Returns all files below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files
}

fn csv_rows(lake: &Path) -> Vec<csv::StringRecord> {
    let is_csv = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "csv");
    let file = files_in(&lake.join("csv")).into_iter().find(is_csv).unwrap();
    let mut reader = csv::Reader::from_path(file).unwrap();
    let names = reader.headers().unwrap().clone();
    std::iter::once(names).chain(reader.records().map(Result::unwrap)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_is_kept_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_job(folder.path(), &provider().await);
    let path = folder.path().to_owned();
    let shown = tokio::task::spawn_blocking(move || {
        [
            "sync job.toml -vv",
            "sync job.toml",
            "sync job.toml --log-json --json",
            "status job.toml",
            "status job.toml --json",
            "check job.toml",
            "check job.toml --json",
            "plan job.toml",
        ]
        .map(|arguments| shown_by(&path, arguments))
    });
    let [first, second, _, status, ..] = shown.await.unwrap();
    // They are told of all the same.
    assert!(second.contains("field \\u{1b}[2J\\u{9b}31m\\u{202e}"), "{second}");
    assert!(first.contains("no [2J 31m ERROR all is lost") && status.contains("clinic"), "{first}");

    let lake = folder.path().join("lake");
    let written = files_in(folder.path());
    let inside = written.iter().filter(|path| path.starts_with(&lake)).count();
    assert_eq!(inside + 1, written.len(), "beside the lake, there is the job: {written:?}");
    let names = written.iter().map(|path| path.file_name().unwrap().to_string_lossy());
    assert!(names.clone().all(|name| !name.contains("passwd") && !name.chars().any(is_harmful)));

    let rows = csv_rows(&lake);
    let column = |name: &str| rows[0].iter().position(|column| column == name).unwrap();
    let (id, name) = (column("native_id"), column("full_name"));
    assert_eq!(rows.len(), IDS.len() + 2);
    for (at, native_id) in IDS.iter().enumerate() {
        // Many readers of CSV stop at a NUL.
        let readable = native_id.replace('\0', "\u{fffd}");
        let row = rows[1..].iter().find(|row| row[id].trim_start_matches('\'') == readable);
        let row = row.unwrap_or_else(|| panic!("{native_id:?}"));
        assert_eq!(row[name], format!("'{}", FORMULAS[at % FORMULAS.len()]), "{native_id:?}");
    }
}
