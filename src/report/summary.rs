//! What a run did, as text.

use std::cmp::Reverse;

use chrono::FixedOffset;

use super::Table;
use super::harmless;
use super::instant;
use super::list;
use super::number;
use super::pages::smaller_pages;
use crate::checkpoint::Caught;
use crate::checkpoint::RefreshTier;
use crate::ids::SourceName;
use crate::quota::Unexplained;
use crate::run::Ending;
use crate::run::Requests;
use crate::run::SourceSummary;
use crate::run::State;
use crate::run::Summary;
use crate::store::Place;

/// So many names of a list are shown.
const SHOWN: usize = 5;

/// Returns a table of the sources, what there is to say about each, and as last line how the run
/// ended. `lake` is where the snapshot's path begins, `zone` that of the times.
pub fn summary_text(summary: &Summary, lake: &Place, zone: FixedOffset) -> String {
    let mut text = table(summary).to_string();
    for (name, source) in &summary.sources {
        text.push_str(&format!("\n{name}\n"));
        for note in notes(name, source, zone) {
            text.push_str(&format!("  {}\n", harmless(&note)));
        }
    }
    if !summary.retired.is_empty() {
        let names: Vec<String> = summary.retired.iter().map(ToString::to_string).collect();
        let names = list(&names, SHOWN);
        text.push_str(&format!("\nno longer in the job, their rows are kept: {names}\n"));
    }
    text.push_str(&format!("\n{}\n", last_line(summary, lake, zone)));
    text
}

fn table(summary: &Summary) -> Table {
    let headings =
        ["source", "state", "rows", "new", "changed", "moved", "gone", "requests", "pages"];
    let mut table = Table::new(&headings, 2);
    for (name, source) in &summary.sources {
        let leads = &source.leads;
        let numbers = [
            source.rows,
            leads.new,
            leads.changed,
            leads.moved,
            leads.gone,
            source.requests.sent,
            source.pages,
        ];
        let words = [name.to_string(), word(source.state).to_owned()];
        table.row(words.into_iter().chain(numbers.map(number)));
    }
    table
}

fn word(state: State) -> &'static str {
    match state {
        State::Complete => "complete",
        State::Partial => "partial",
        State::Failed => "failed",
        State::Refused => "refused",
    }
}

/// Returns what there is to say about a source, one line each.
fn notes(name: &SourceName, source: &SourceSummary, zone: FixedOffset) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(source.why.iter().map(|why| format!("why: {why}")));
    let hints = source.hint.iter().flat_map(|hint| hint.lines());
    notes.extend(hints.map(|hint| format!("hint: {hint}")));
    notes.extend(source.resume_at.map(|at| format!("can go on: {}", instant(at, zone))));
    notes.extend(source.spent_elsewhere.map(spent_elsewhere));
    if source.kept_back > 0 && source.state == State::Partial {
        let kept = number(source.kept_back);
        notes.push(format!("kept back of each day for its syncs: {kept} requests"));
    }
    notes.push(walks(source));
    notes.extend(special(&source.requests));
    notes.extend(received(source, zone));
    notes.extend(needs_look(name, source));
    notes
}

fn spent_elsewhere(found: Unexplained) -> String {
    let (counted, allowance) = (number(found.counted), number(found.allowance.into()));
    format!(
        "somebody else spends on this key: our count is {counted} of the {allowance} we may send (or \
         the key may send less than the job says); `quota --set-used` tells the ledger of others"
    )
}

fn walks(source: &SourceSummary) -> String {
    if source.state == State::Complete && source.walks == 0 {
        return "walks: none, nothing was to be read".to_owned();
    }
    let mut text = format!("walks: {} done", number(source.walks));
    let parts = [
        (source.resumed, "begun by an earlier run"),
        (source.reconciled, "agree with the provider's total"),
        (source.walks_left, "left"),
    ];
    for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {} {what}", number(count)));
    }
    text
}

fn special(requests: &Requests) -> Option<String> {
    let parts = [
        (requests.retries, "sent again after a failure"),
        (requests.probes, "to find where rows had shifted or which size of pages fits"),
        (requests.rereads, "for pages whose rows had shifted"),
        (requests.checks, "to see that held pages still stand"),
        (requests.lookups, "for single leads"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", number(count)))
        .collect();
    (!parts.is_empty()).then(|| format!("of the requests: {}", parts.join(", ")))
}

/// Returns what is worth knowing, and asks nobody to act.
fn received(source: &SourceSummary, zone: FixedOffset) -> Vec<String> {
    let mut notes = Vec::new();
    let mut counted = |count: u64, text: &str| {
        if count > 0 {
            notes.push(format!("{text}: {}", number(count)));
        }
    };
    counted(source.pages_from_archive, "pages of earlier runs loaded from the archive");
    counted(source.guarded_cells, "CSV cells guarded against being run as formulas");
    counted(source.outside, "rows created outside the window they were asked for");
    counted(source.absent, "leads not listed any more that wait for proof");
    counted(
        source.shared_ids,
        "ids that this run saw in `chats` and in `users` too, a row in each",
    );
    notes.extend(late_changes(&source.caught));
    if !source.warnings.is_empty() {
        let mut warnings: Vec<(&String, &u64)> = source.warnings.iter().collect();
        warnings.sort_by_key(|(column, count)| (Reverse(**count), *column));
        let warnings =
            warnings.iter().map(|(column, count)| format!("{column} {}", number(**count)));
        let text = list(warnings, SHOWN);
        notes.push(format!("values that did not fit their column, kept in `extra`: {text}"));
    }
    if !source.unsettled.is_empty() {
        let text = list(&source.unsettled, SHOWN);
        notes.push(format!(
            "rows moved, or the end came early: what that hid comes with the next reading: {text}"
        ));
    }
    if !source.new_fields.is_empty() {
        notes.push(format!("fields never seen before: {}", list(&source.new_fields, SHOWN)));
    }
    notes.extend(smaller_pages(&source.smaller_pages, zone));
    if !source.left_out.is_empty() {
        let text = list(&source.left_out, SHOWN);
        notes.push(format!(
            "left out, without dates and read whole before (--again reads them once more): {text}"
        ));
    }
    if !source.retired.is_empty() {
        let text = list(&source.retired, SHOWN);
        notes.push(format!("no longer listed or named, rows stay: {text}"));
    }
    notes
}

/// Returns what was caught beyond what every run reads.
fn late_changes(caught: &Caught) -> Option<String> {
    let slower: Vec<RefreshTier> =
        caught.tiers().filter(|tier| *tier != RefreshTier::EveryRun).collect();
    let all: u64 = slower.iter().map(|tier| caught.of(*tier)).sum();
    let each = slower.iter().map(|tier| format!("{tier} {}", number(caught.of(*tier))));
    let each = list(each, SHOWN);
    (all > 0).then(|| format!("late changes beyond what every run reads: {} ({each})", number(all)))
}

/// Returns what somebody should look at.
fn needs_look(name: &SourceName, source: &SourceSummary) -> Vec<String> {
    let mut notes = Vec::new();
    if !source.differences.is_empty() {
        let scopes = source.differences.iter().map(|(scope, rows)| format!("{scope} {rows:+}"));
        notes.push(format!("stated totals differ from the leads seen: {}", list(scopes, SHOWN)));
    }
    if !source.unproven.is_empty() {
        let text = list(&source.unproven, SHOWN);
        notes.push(format!(
            "pages could not be told apart, stayed empty, or rows kept shifting: {text}"
        ));
    }
    if source.holes > 0 {
        let holes = number(source.holes);
        notes.push(format!("holes: {holes} rows of the listing never came right"));
    }
    if source.deletes_held_back > 0 {
        let held = number(source.deletes_held_back);
        notes.push(format!(
            "deletes held back: {held} leads are no longer listed; if that is right, run again \
             with --accept-deletes {name}"
        ));
    }
    if !source.emptied_columns.is_empty() {
        let text = list(&source.emptied_columns, SHOWN);
        notes.push(format!("columns filled before and empty in all that was received: {text}"));
    }
    if source.contradictions > 0 {
        let rows = number(source.contradictions);
        notes.push(format!(
            "contradictions: {rows} rows show a lead that the same page shows with other content; \
             the last one counts"
        ));
    }
    if source.rejects > 0 {
        let rejects = number(source.rejects);
        notes.push(format!("rejects: {rejects} records could not be mapped; see `rejects/`"));
    }
    notes
}

fn last_line(summary: &Summary, lake: &Place, zone: FixedOffset) -> String {
    let endings: Vec<&str> = summary.endings.iter().map(|ending| describe(*ending)).collect();
    let mut line = match endings.as_slice() {
        [] => "done".to_owned(),
        endings => format!("{} (exit code {})", endings.join(", "), summary.exit_code()),
    };
    match summary.commit {
        Some(seq) => line.push_str(&format!("; committed {seq}")),
        None => line.push_str("; nothing committed"),
    }
    match &summary.snapshot {
        Some(snapshot) => line.push_str(&format!("; snapshot {}", harmless(&lake.join(snapshot)))),
        None if summary.commit.is_some() => {
            line.push_str(&format!("; lake {}", harmless(&lake.to_string())))
        }
        None => {}
    }
    if let Some(at) = summary.resume_at {
        line.push_str(&format!("; run again after {}", instant(at, zone)));
    }
    line
}

fn describe(ending: Ending) -> &'static str {
    match ending {
        Ending::QuotaSpent => "quota spent",
        Ending::DurationReached => "--max-duration reached",
        Ending::CredentialsRefused => "credentials refused for every source",
        Ending::SourceFailed => "a source failed",
        Ending::NeedsLook => "needs a look",
        Ending::Interrupted => "interrupted",
        Ending::Terminated => "terminated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::AgeClass;
    use crate::checkpoint::SmallerPages;
    use crate::ids::RunId;
    use crate::ids::Seq;
    use crate::run::Leads;

    fn summary(endings: Vec<Ending>, sources: Vec<(&str, SourceSummary)>) -> Summary {
        let at = "2026-11-02T01:10:00Z".parse().unwrap();
        let sources = sources.into_iter();
        Summary {
            run: RunId::new(at),
            job: "nightly".to_owned(),
            command: "sync".to_owned(),
            started_at: at,
            ended_at: at,
            commit: Some(Seq(41)),
            snapshot: Some("snapshots/000000041".to_owned()),
            resume_at: endings.contains(&Ending::QuotaSpent).then_some(at),
            endings,
            retired: Vec::new(),
            sources: sources.map(|(name, source)| (name.parse().unwrap(), source)).collect(),
        }
    }

    fn text(summary: &Summary) -> String {
        let zone = FixedOffset::east_opt(3600).unwrap();
        summary_text(summary, &Place::Folder("/data/lake".into()), zone)
    }

    #[test]
    fn a_run_without_trouble_is_short() {
        let source = SourceSummary {
            state: State::Complete,
            rows: 20_031,
            leads: Leads { new: 31, changed: 12, moved: 0, gone: 2, unchanged: 412 },
            requests: Requests { sent: 11, ..Requests::default() },
            pages: 10,
            walks: 9,
            reconciled: 9,
            ..SourceSummary::default()
        };
        insta::assert_snapshot!(text(&summary(Vec::new(), vec![("agency", source)])));
    }

    #[test]
    fn late_changes_are_told_where_a_slower_tier_has_caught_some() {
        let mut caught = Caught::default();
        caught.count(RefreshTier::EveryRun, AgeClass::UnderOneDay);
        assert_eq!(late_changes(&caught), None);
        (0..9).for_each(|_| caught.count(RefreshTier::Weekly, AgeClass::UnderNinetyDays));
        (0..3).for_each(|_| caught.count(RefreshTier::Monthly, AgeClass::Older));
        let said = late_changes(&caught).unwrap();
        assert_eq!(said, "late changes beyond what every run reads: 12 (weekly 9, monthly 3)");
    }

    #[test]
    fn all_that_needs_a_look_is_told() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let source = SourceSummary {
            why: Some("no permit is left".to_owned()),
            hint: Some("wait\nor ask for less".to_owned()),
            resume_at: "2026-11-02T01:10:00Z".parse().ok(),
            spent_elsewhere: Some(Unexplained { counted: 1_200, allowance: 8_000 }),
            kept_back: 41,
            requests: Requests {
                sent: 1_200,
                retries: 3,
                probes: 2,
                rereads: 1,
                checks: 1,
                lookups: 4,
            },
            walks: 9,
            resumed: 2,
            walks_left: 12,
            reconciled: 8,
            pages: 1_180,
            pages_from_archive: 5,
            rejects: 2,
            contradictions: 1,
            warnings: [("email", 3), ("phone", 40)].map(|(k, n)| (k.to_owned(), n)).into(),
            guarded_cells: 6,
            differences: [("leads/profile:123".to_owned(), -2)].into(),
            unproven: names(&["leads/profile:124"]),
            unsettled: names(&["contacts/all"]),
            holes: 1,
            outside: 2,
            deletes_held_back: 120,
            absent: 3,
            new_fields: names(&["a", "b", "c", "d", "e", "f\u{1b}[2J"]),
            emptied_columns: names(&["email"]),
            retired: names(&["leads/profile:9"]),
            smaller_pages: [("leads", 2_500, 1_250, true), ("calls", 1_250, 625, false)]
                .map(|(stream, too_large, rows, refused)| {
                    let as_of = "2026-11-02T01:10:00Z".parse().unwrap();
                    let known = SmallerPages { rows, too_large, refused, as_of };
                    (stream.to_owned(), known)
                })
                .into(),
            ..SourceSummary::default()
        };
        let refused = SourceSummary { state: State::Refused, ..SourceSummary::default() };
        let endings = vec![Ending::QuotaSpent, Ending::SourceFailed, Ending::NeedsLook];
        let sources = vec![("agency", source), ("dentist", refused)];
        insta::assert_snapshot!(text(&summary(endings, sources)));
    }
}
