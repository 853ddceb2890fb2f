//! The terminal: data goes to stdout, everything else to stderr.
//!
//! Whatever is shown to people or logged is made harmless here, at the one door, in case that a text
//! of others came by unnoticed. Paths for programs are data as they are.

use std::backtrace::Backtrace;
use std::backtrace::BacktraceStatus;
use std::io;
use std::io::Write;
use std::panic::Location;

use anyhow::Context;
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use super::exit::Usage;
use crate::commit;
use crate::config;
use crate::error::Hint;
use crate::harmless::harmless;
use crate::harmless::harmless_json;
use crate::harmless::harmless_lines;
use crate::rehearse;
use crate::run;

/// Writes a text to stdout. A reader that has gone away is no error.
pub(super) fn data(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write to stdout"),
    }
}

/// Writes a text for people to stdout.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    data(&harmless_lines(text))
}

/// Writes one JSON document to stdout.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    data(&harmless_json(&text))
}

/// Writes a line to stderr. That nobody can read it is no reason to stop a run.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless_lines(line));
}

/// Lets a panic, a bug of ours, tell where it happened and nothing else: its message may quote what was
/// being read. `RUST_BACKTRACE=1` adds the way there.
pub(super) fn tell_of_panics_by_place() {
    std::panic::set_hook(Box::new(|panic| {
        say(&panic_text(panic.location()));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            say(&backtrace.to_string());
        }
    }));
}

fn panic_text(place: Option<&Location<'_>>) -> String {
    let place = place.map_or("an unknown place".to_owned(), ToString::to_string);
    format!(
        "error: a bug of leadpipe {} at {place}; what is committed is safe, and the next run goes on \
         from there. Please report that place",
        env!("CARGO_PKG_VERSION")
    )
}

/// Where the log goes: stderr, one line an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    /// Whether the lines are JSON.
    pub(super) json: bool,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Log {
    /// Writes an event, which comes whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(log_line(event, self.json).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Returns an event as one line, whatever the texts in it: none can pass for another event.
fn log_line(event: &[u8], json: bool) -> String {
    let text = String::from_utf8_lossy(event);
    let text = text.trim_end_matches('\n');
    let mut line = if json { harmless_json(text) } else { harmless(text) };
    line.push('\n');
    line
}

/// Writes an error with its causes and what to do about it to stderr.
pub(super) fn tell(error: &anyhow::Error) {
    say(&error_text(error));
}

fn error_text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", indented(&error.to_string()));
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors end with the words of their cause.
        if !last.ends_with(&cause) {
            text.push_str(&format!("\n  caused by: {}", indented(&cause)));
        }
        last = cause;
    }
    if let Some(hint) = hint_of(error) {
        text.push_str(&format!("\n\nhint: {}", indented(&hint)));
    }
    text
}

/// Returns what `--json` says of an error: what happened, its causes, what to do, the exit code.
pub(super) fn failure(error: &anyhow::Error, exit_code: u8) -> serde_json::Value {
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    serde_json::json!({
        "error": error.to_string(),
        "causes": causes,
        "hint": hint_of(error),
        "exit_code": exit_code,
    })
}

/// Lines after the first stand in a little, so that none can pass for a line of ours.
fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(harmless).collect();
    lines.join("\n  ")
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let usage = cause.downcast_ref::<Usage>().and_then(|error| error.hint.clone());
        let run = || cause.downcast_ref::<run::Error>().and_then(Hint::hint);
        let config = || cause.downcast_ref::<config::Error>().and_then(Hint::hint);
        let commit = || cause.downcast_ref::<commit::Error>().and_then(Hint::hint);
        let rehearse = || cause.downcast_ref::<rehearse::Error>().and_then(Hint::hint);
        usage.or_else(run).or_else(config).or_else(commit).or_else(rehearse)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_causes_and_what_to_do() {
        let usage = Usage { message: "no".to_owned(), hint: Some("say yes".to_owned()) };
        let error = Err::<(), _>(usage).context("failed to ask").unwrap_err();
        assert_eq!(error_text(&error), "error: failed to ask\n  caused by: no\n\nhint: say yes");
    }

    #[test]
    fn a_panic_tells_its_place() {
        let text = panic_text(Some(Location::caller()));
        assert!(text.contains("src/cli/terminal.rs:"), "{text}");
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor_or_begin_a_line() {
        let error = anyhow::anyhow!("answered \u{1b}[2Jgone\nerror: all is lost");
        let text = error_text(&error);
        assert_eq!(text, "error: answered \\u{1b}[2Jgone\n  error: all is lost");
    }

    #[test]
    fn an_event_is_one_line_of_the_log_whatever_is_in_it() {
        let event = "WARN said \u{9b}31m\u{202e}\nERROR all is lost\n";
        let line = log_line(event.as_bytes(), false);
        assert_eq!(line, "WARN said \\u{9b}31m\\u{202e}\\u{a}ERROR all is lost\n");
        let json = serde_json::json!({ "said": "\u{9b}31m\u{202e}\n" }).to_string() + "\n";
        let line = log_line(json.as_bytes(), true);
        assert_eq!(line, "{\"said\":\"\\u009b31m\\u202e\\n\"}\n");
    }
}
