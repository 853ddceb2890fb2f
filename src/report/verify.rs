//! What `verify` found and did, as text.

use super::harmless;
use super::number;
use crate::run::Finding;
use crate::run::Totals;
use crate::run::Verdict;
use crate::run::Verified;

/// Returns what a repair did, a finding with its way out on two lines, how totals compare, and last what
/// was looked at.
pub fn verified_text(verified: &Verified) -> String {
    let mut text = String::new();
    for repaired in &verified.repairs {
        let (path, how) = (harmless(&repaired.path), harmless(&repaired.how));
        text.push_str(&format!("repaired {path}: {how}\n"));
    }
    if let Some(seq) = verified.committed {
        text.push_str(&format!("repaired: commit {seq} names what is there now\n"));
    }
    for finding in &verified.findings {
        text.push_str(&finding_text(finding));
    }
    for totals in &verified.totals {
        text.push_str(&totals_text(totals));
    }
    text.push_str(&last_line(verified));
    text
}

fn finding_text(finding: &Finding) -> String {
    let Finding { kind, path, what, way_out, matters } = finding;
    let kind = serde_json::to_value(kind).unwrap_or_default();
    let kind = kind.as_str().unwrap_or_default();
    let told = if *matters { "" } else { "note: " };
    let mut text = format!("{told}{kind} {}: {}\n", harmless(path), harmless(what));
    for line in way_out.lines() {
        text.push_str(&format!("  {}\n", harmless(line)));
    }
    text
}

fn totals_text(totals: &Totals) -> String {
    let mut of = totals.source.to_string();
    if let Some(scope) = &totals.scope {
        of.push_str(&format!("/{}", harmless(&scope.0)));
    }
    if let Some(window) = &totals.window {
        of.push_str(&format!(", {window}"));
    }
    let held = number(totals.held);
    let why = harmless(totals.why.as_deref().unwrap_or("the provider did not say"));
    let stated = totals.stated.map(number).unwrap_or_default();
    match totals.verdict {
        Verdict::Agreed => format!("total of {of}: {held} rows held, agreed\n"),
        Verdict::Differs => {
            format!("total of {of}: {held} rows held, the provider states {stated}: differs\n")
        }
        Verdict::NotChecked => format!("total of {of}: not checked: {why}\n"),
        Verdict::NotStated => format!("total of {of}: the provider states none\n"),
    }
}

fn last_line(verified: &Verified) -> String {
    let checked = &verified.checked;
    let matter = verified.findings.iter().filter(|finding| finding.matters).count();
    let differ = verified.totals.iter().filter(|totals| totals.verdict == Verdict::Differs).count();
    let verdict = match (verified.is_sound, matter, differ) {
        (true, ..) => "sound".to_owned(),
        (false, matter, 0) => format!("not sound: {matter} damaged"),
        (false, 0, differ) => format!("totals differ: {differ}"),
        (false, matter, differ) => {
            format!("not sound: {matter} damaged, and totals differ: {differ}")
        }
    };
    let seq = verified.commit.map_or("no commit".to_owned(), |seq| format!("commit {seq}"));
    format!(
        "{verdict}; {seq}, {} commits, {} files, {} segments, {} bytes, {} rows looked at\n",
        number(checked.commits),
        number(checked.files),
        number(checked.segments),
        number(checked.bytes),
        number(checked.rows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::record::ScopeKey;
    use crate::run::Checked;
    use crate::run::Kind;
    use crate::run::Repaired;
    use crate::window::Window;

    fn finding(kind: Kind, path: &str, what: &str, way_out: &str) -> Finding {
        let (path, what, way_out) = (path.to_owned(), what.to_owned(), way_out.to_owned());
        Finding { kind, path, what, way_out, matters: kind.matters() }
    }

    fn totals(verdict: Verdict, stated: Option<u64>) -> Totals {
        let at = |text: &str| text.parse().unwrap();
        Totals {
            source: "acme".parse().unwrap(),
            scope: Some(ScopeKey("leads/profile:1".to_owned())),
            window: Window::new(at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")),
            held: 1_243,
            stated,
            verdict,
            why: None,
        }
    }

    #[test]
    fn findings_repairs_and_totals_each_have_their_line() {
        let verified = Verified {
            job: "nightly".to_owned(),
            lake: "lake".into(),
            commit: Some(Seq(42)),
            is_sound: false,
            checked: Checked { commits: 42, files: 120, segments: 80, bytes: 1 << 20, rows: 1_243 },
            findings: vec![
                finding(Kind::PartDamaged, "parts/a.parquet", "its hash is another", "--repair it"),
                finding(Kind::SetAside, "damaged/\u{7}b", "a repair has set it aside", "remove it"),
            ],
            repairs: vec![Repaired { path: "latest".to_owned(), how: "made again".to_owned() }],
            committed: Some(Seq(42)),
            totals: vec![
                totals(Verdict::Agreed, Some(1_243)),
                totals(Verdict::Differs, Some(1_250)),
            ],
        };
        insta::assert_snapshot!(verified_text(&verified), @r"
        repaired latest: made again
        repaired: commit 000000042 names what is there now
        part_damaged parts/a.parquet: its hash is another
          --repair it
        note: set_aside damaged/\u{7}b: a repair has set it aside
          remove it
        total of acme/leads/profile:1, 2025-01-01 00:00:00 to 2026-01-01 00:00:00: 1,243 rows held, agreed
        total of acme/leads/profile:1, 2025-01-01 00:00:00 to 2026-01-01 00:00:00: 1,243 rows held, the provider states 1,250: differs
        not sound: 1 damaged, and totals differ: 1; commit 000000042, 42 commits, 120 files, 80 segments, 1,048,576 bytes, 1,243 rows looked at
        ");
    }
}
