//! The terminal: data goes to stdout, everything else to stderr.

use std::io;
use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::exit::Usage;
use crate::commit;
use crate::config;
use crate::error::Hint;
use crate::rehearse;
use crate::report::harmless;
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

/// Writes one JSON document to stdout.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    data(&text)
}

/// Writes a line to stderr. That nobody can read it is no reason to stop a run.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
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
    fn what_others_wrote_cannot_move_the_cursor_or_begin_a_line() {
        let error = anyhow::anyhow!("answered \u{1b}[2Jgone\nerror: all is lost");
        let text = error_text(&error);
        assert_eq!(text, "error: answered \\u{1b}[2Jgone\n  error: all is lost");
    }
}
