//! What `check` found, as text.

use super::harmless;
use super::number;
use crate::run::CheckedSource;
use crate::run::State;

/// Returns one line a source, and what to do about those that are not well.
pub fn check_text(checked: &[CheckedSource]) -> String {
    let mut text = String::new();
    for source in checked {
        let word = match source.state {
            State::Complete => "ok",
            State::Refused => "refused",
            State::Partial | State::Failed => "failed",
        };
        let CheckedSource { source: name, found, hint, requests, .. } = source;
        let requests = match requests {
            1 => "1 request".to_owned(),
            more => format!("{} requests", number(*more)),
        };
        text.push_str(&format!("{name}: {word}: {} ({requests})\n", harmless(found)));
        for line in hint.iter().flat_map(|hint| hint.lines()) {
            text.push_str(&format!("  hint: {}\n", harmless(line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_says_what_its_key_is_or_what_is_wrong() {
        let source = |name: &str, state, found: &str, hint: Option<&str>| CheckedSource {
            source: name.parse().unwrap(),
            state,
            found: found.to_owned(),
            hint: hint.map(str::to_owned),
            requests: 1,
        };
        let checked = [
            source("agency", State::Complete, "a master key", None),
            source("dentist", State::Refused, "status 401: \u{7}no", Some("set TOKEN")),
        ];
        insta::assert_snapshot!(check_text(&checked), @r"
        agency: ok: a master key (1 request)
        dentist: refused: status 401: \u{7}no (1 request)
          hint: set TOKEN
        ");
    }
}
