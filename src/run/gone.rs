//! Decides which absent leads are gone. Pure.
//!
//! A row is a *candidate* where its scope and creation time lie in what this run read whole, and no
//! page of the run showed it. Absence alone proves little: a lead may have moved to a time that was
//! not read, or a provider may have a bad night. So each is asked for by id, up to a limit; what is
//! beyond it must be absent from a reading whose totals agree, with everything read since, or absent
//! twice. A listing without dates shows all there is, but states no total: there, two whole readings
//! in different runs must miss a row before it is asked for at all. A row may also have lost its id:
//! where a reading showed rows without one, only an answer by id says that a lead is gone. A guard holds back more than a
//! share of what was read.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::checkpoint::Absent;

/// A row that was not shown where it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The lead.
    pub(super) lead_id: String,
    /// What it is judged with: the stream, and the label of the scope it was last read in.
    pub(super) scope: String,
    /// Whether the reading that missed it was of a whole listing without dates.
    pub(super) is_scan: bool,
    /// When the reading that missed it began.
    pub(super) missed_at: DateTime<Utc>,
    /// Whether totals, distinct ids and rejects of that reading agreed.
    pub(super) reconciled: bool,
    /// Whether only an answer by id says that it is gone: that reading showed rows without a usable id that
    /// were not always there, of which it may be one, or missed others that are there.
    pub(super) needs_answer: bool,
}

/// What was read whole in this run, and what it did not show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Absences {
    /// The rows not shown.
    pub(super) candidates: Vec<Candidate>,
    /// Rows held in what was read whole, by what they are judged with.
    pub(super) held: BTreeMap<String, u64>,
    /// Absences known before that this run's reading has cleared: shown again.
    pub(super) shown_again: BTreeSet<String>,
    /// When the stalest reading of all the source's windows began; `None` where some of its time
    /// was never read.
    pub(super) read_since: Option<DateTime<Utc>>,
}

impl Absences {
    /// Returns the scopes of which a reading has missed leads that the provider shows by id: it proves
    /// nothing of the others that it missed. `was_found` tells of leads shown so in an earlier run.
    fn misled_scopes(&self, lookups: &Lookups, was_found: impl Fn(&str) -> bool) -> BTreeSet<&str> {
        let is_found = |candidate: &&Candidate| {
            lookups.found.contains(&candidate.lead_id) || was_found(&candidate.lead_id)
        };
        self.candidates.iter().filter(is_found).map(|one| one.scope.as_str()).collect()
    }

    /// Returns the scopes of which the reading showed any row held.
    fn shown_scopes(&self) -> BTreeSet<&str> {
        let absent = count_by_scope(&self.candidates);
        let absent_of = |scope: &str| absent.get(scope).copied().unwrap_or(0);
        let is_shown = |(scope, held): &(&String, &u64)| absent_of(scope.as_str()) < **held;
        self.held.iter().filter(is_shown).map(|(scope, _)| scope.as_str()).collect()
    }
}

fn count_by_scope<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    for candidate in candidates {
        *counts.entry(candidate.scope.as_str()).or_default() += 1;
    }
    counts
}

/// What the provider said of leads asked for by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lookups {
    /// Leads it does not know.
    pub(super) unknown: BTreeSet<String>,
    /// Leads it showed.
    pub(super) found: BTreeSet<String>,
    /// Leads that it could not be asked for this time.
    pub(super) unanswered: BTreeSet<String>,
}

/// How careful to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    /// The share of the rows held in what was read above which deletes are held back.
    pub(super) max_ratio: f64,
    /// Whether the user lets them through.
    pub(super) accepted: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Leads that are gone.
    pub(super) gone: BTreeSet<String>,
    /// Leads that the guard holds back.
    pub(super) held_back: u64,
    /// Absences to remember.
    pub(super) absent: Vec<Absent>,
}

impl Decision {
    fn remember(&mut self, absent: impl FnOnce() -> Absent) {
        if self.absent.len() < REMEMBERED {
            self.absent.push(absent());
        }
    }
}

/// A lead that the provider showed when asked is not asked for again for a week, so that rows a
/// listing leaves out (spam, say) do not cost a request every night.
const TRUST_FOUND: TimeDelta = TimeDelta::days(7);

/// So long, since it was first missed, what could not be asked for by id waits for an answer.
const WAIT_FOR_ANSWER: TimeDelta = TimeDelta::days(7);

/// Absences remembered of a source; those beyond are found again by the next reading.
const REMEMBERED: usize = 10_000;

/// Returns the candidates to ask for by id, at most `limit`: those known longest first, and last those
/// that it has shown before. What one reading of a listing without dates has missed waits for the next
/// one.
pub(super) fn to_look_up<'a>(
    absences: &'a Absences,
    known: &[Absent],
    limit: usize,
    now: DateTime<Utc>,
) -> Vec<&'a Candidate> {
    let known: BTreeMap<&str, &Absent> =
        known.iter().map(|absent| (absent.lead_id.as_str(), absent)).collect();
    let mut ask: Vec<&Candidate> = absences
        .candidates
        .iter()
        .filter(|candidate| {
            let before = known.get(candidate.lead_id.as_str()).copied();
            !is_trusted(before, now) && (!candidate.is_scan || candidate.is_missed_again(before))
        })
        .collect();
    ask.sort_by_cached_key(|candidate| {
        let before = known.get(candidate.lead_id.as_str());
        let since = before.map(|absent| absent.since);
        // What it has shown before it will most likely show again: others come first.
        let was_found = before.is_some_and(|absent| absent.found_at.is_some());
        (was_found, since.is_none(), since)
    });
    ask.truncate(limit);
    ask
}

impl Candidate {
    /// Tells whether an earlier reading has missed it too.
    fn is_missed_again(&self, before: Option<&Absent>) -> bool {
        before.is_some_and(|before| before.since < self.missed_at)
    }
}

fn is_trusted(known: Option<&Absent>, now: DateTime<Utc>) -> bool {
    known.and_then(|absent| absent.found_at).is_some_and(|found| now - found < TRUST_FOUND)
}

/// Decides about all candidates.
pub(super) fn decide(
    absences: &Absences,
    lookups: &Lookups,
    known: &[Absent],
    guard: Guard,
    now: DateTime<Utc>,
) -> Decision {
    let by_id: BTreeMap<&str, &Absent> =
        known.iter().map(|absent| (absent.lead_id.as_str(), absent)).collect();
    let was_found =
        |lead_id: &str| by_id.get(lead_id).is_some_and(|absent| absent.found_at.is_some());
    let misled = absences.misled_scopes(lookups, was_found);
    let mut decision = Decision::default();
    let (mut waiting, mut confirmed) = (Vec::new(), Vec::new());
    for candidate in &absences.candidates {
        let before = by_id.get(candidate.lead_id.as_str()).copied();
        let needs_answer = candidate.needs_answer || misled.contains(candidate.scope.as_str());
        let missed = Missed { candidate, before, needs_answer };
        if lookups.unknown.contains(&candidate.lead_id) {
            confirmed.push(candidate);
        } else if lookups.found.contains(&candidate.lead_id) {
            decision.remember(|| missed.absent(Some(now)));
        } else if is_trusted(before, now) {
            decision.remember(|| missed.absent(missed.found_before()));
        } else {
            waiting.push(missed);
        }
    }
    let guarded = guarded_scopes(absences, &waiting, guard);
    for candidate in confirmed {
        // Where too much is absent, the provider has a bad night and knows no lead by its id either.
        if guarded.contains(candidate.scope.as_str()) {
            decision.held_back += 1;
        } else {
            decision.gone.insert(candidate.lead_id.clone());
        }
    }
    settle_waiting(absences, &waiting, lookups, guard, &guarded, now, &mut decision);
    settle_unread(absences, known, &mut decision);
    decision
}

/// A candidate, with what is known of it.
struct Missed<'a> {
    candidate: &'a Candidate,
    /// What is remembered of it from earlier readings.
    before: Option<&'a Absent>,
    /// Whether only an answer by id says that it is gone; also where what its reading has missed besides
    /// is there.
    needs_answer: bool,
}

impl Missed<'_> {
    fn since(&self) -> DateTime<Utc> {
        self.before.map_or(self.candidate.missed_at, |before| before.since)
    }

    fn found_before(&self) -> Option<DateTime<Utc>> {
        self.before.and_then(|before| before.found_at)
    }

    /// Returns what is to be remembered of it.
    fn absent(&self, found_at: Option<DateTime<Utc>>) -> Absent {
        Absent {
            lead_id: self.candidate.lead_id.clone(),
            since: self.since(),
            reconciled: self.candidate.reconciled && !self.needs_answer,
            found_at,
        }
    }
}

/// Decides about candidates of which no answer by id has told.
fn settle_waiting(
    absences: &Absences,
    waiting: &[Missed<'_>],
    lookups: &Lookups,
    guard: Guard,
    guarded: &BTreeSet<&str>,
    now: DateTime<Utc>,
    decision: &mut Decision,
) {
    let is_unanswered = |candidate: &Candidate| lookups.unanswered.contains(&candidate.lead_id);
    let shown = absences.shown_scopes();
    for missed in waiting {
        let candidate = missed.candidate;
        let since = missed.since();
        let twice = candidate.is_missed_again(missed.before);
        let all_read = absences.read_since.is_some_and(|read| read >= since);
        let proven = match candidate.is_scan {
            // A provider that never tells by id leaves it to its listings, a week later.
            true => twice && (!is_unanswered(candidate) || now - since >= WAIT_FOR_ANSWER),
            // Absent twice from the same days is not enough: it may have moved to days read before.
            false => all_read && (twice || candidate.reconciled),
        };
        let proven = proven && !missed.needs_answer;
        // No total ever speaks for a listing without dates: there, the user's word must do.
        let sure = candidate.reconciled || candidate.is_scan;
        let proven = proven || guard.accepted && sure;
        if guarded.contains(candidate.scope.as_str()) {
            decision.held_back += 1;
            if candidate.is_scan && shown.contains(candidate.scope.as_str()) {
                // A few rows of a small listing are more than the guard lets through; absent once
                // more, they are asked for by id, and what that confirms is gone.
                decision.remember(|| missed.absent(missed.found_before()));
            }
        } else if proven {
            decision.gone.insert(candidate.lead_id.clone());
        } else {
            decision.remember(|| missed.absent(missed.found_before()));
        }
    }
}

/// Returns the scopes of which too much is absent: all of them, where it is too much of the source.
/// Absences that an answer by id has confirmed do not count; but where the whole source was suddenly
/// empty, the provider has a bad night, and knows no lead by its id either.
fn guarded_scopes<'a>(
    absences: &'a Absences,
    waiting: &[Missed<'a>],
    guard: Guard,
) -> BTreeSet<&'a str> {
    if guard.accepted {
        return BTreeSet::new();
    }
    let held_in_all: u64 = absences.held.values().sum();
    let is_empty = absences.candidates.len() as u64 == held_in_all;
    if is_empty || is_too_much(waiting.len() as u64, held_in_all, guard.max_ratio) {
        return absences.candidates.iter().map(|candidate| candidate.scope.as_str()).collect();
    }
    let absent = count_by_scope(waiting.iter().map(|missed| missed.candidate));
    let held_in = |scope: &str| absences.held.get(scope).copied().unwrap_or(0);
    let too_much =
        |(scope, count): &(&str, u64)| is_too_much(*count, held_in(scope), guard.max_ratio);
    absent.into_iter().filter(too_much).map(|(scope, _)| scope).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no exact number")]
fn is_too_much(absent: u64, held: u64, max_ratio: f64) -> bool {
    absent > 0 && absent as f64 > held as f64 * max_ratio
}

/// Absences that this run's reading says nothing about stay remembered, until all of the source's
/// time was read since: then nothing can show them any more.
fn settle_unread(absences: &Absences, known: &[Absent], decision: &mut Decision) {
    let judged: BTreeSet<&str> =
        absences.candidates.iter().map(|candidate| candidate.lead_id.as_str()).collect();
    let unread = known.iter().filter(|absent| {
        !judged.contains(absent.lead_id.as_str()) && !absences.shown_again.contains(&absent.lead_id)
    });
    for absent in unread {
        let all_read = absences.read_since.is_some_and(|read| read >= absent.since);
        if all_read && absent.reconciled && absent.found_at.is_none() {
            decision.gone.insert(absent.lead_id.clone());
        } else {
            decision.remember(|| absent.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    fn absences(count: usize, held: u64, day: i64) -> Absences {
        let candidate = |index: usize| Candidate {
            lead_id: format!("lead-{index}"),
            scope: "all".into(),
            is_scan: false,
            missed_at: at(day),
            reconciled: true,
            needs_answer: false,
        };
        Absences {
            candidates: (0..count).map(candidate).collect(),
            held: [("all".to_owned(), held)].into(),
            shown_again: BTreeSet::new(),
            read_since: None,
        }
    }

    fn read_since(day: i64, absences: Absences) -> Absences {
        Absences { read_since: Some(at(day)), ..absences }
    }

    const GUARD: Guard = Guard { max_ratio: 0.2, accepted: false };

    fn unknown(ids: &[&str]) -> Lookups {
        let unknown = ids.iter().map(|id| (*id).to_owned()).collect();
        Lookups { unknown, ..Lookups::default() }
    }

    #[test]
    fn a_lead_the_provider_does_not_know_is_gone_whatever_the_guard_says() {
        let decision =
            decide(&absences(2, 3, 1), &unknown(&["lead-0", "lead-1"]), &[], GUARD, at(1));
        assert_eq!(decision.gone.len(), 2);
        assert_eq!(decision.held_back, 0);
    }

    #[test]
    fn a_reading_that_missed_what_the_provider_shows_proves_nothing_of_the_rest() {
        let missed = read_since(9, absences(5, 100, 1));
        assert_eq!(decide(&missed, &Lookups::default(), &[], GUARD, at(1)).gone.len(), 5);
        let (found, unknown) = (["lead-0".to_owned()].into(), ["lead-1".to_owned()].into());
        let told = Lookups { found, unknown, ..Lookups::default() };
        let first = decide(&missed, &told, &[], GUARD, at(1));
        assert_eq!(first.gone, ["lead-1".to_owned()].into());
        assert_eq!(first.absent.len(), 4);
        // Nor does another reading of which that is so, whether it could be asked that night or not.
        let scan = of_scan(read_since(9, absences(5, 100, 2)));
        let misled = decide(&scan, &told, &first.absent, GUARD, at(2));
        assert_eq!(misled.gone, ["lead-1".to_owned()].into());
        for day in [2, 9] {
            let again = read_since(9, absences(5, 100, day));
            let second = decide(&again, &Lookups::default(), &first.absent, GUARD, at(day));
            assert!(second.gone.is_empty(), "day {day}");
            // What it has shown is asked for after the others.
            let asked = to_look_up(&again, &second.absent, 20, at(9));
            assert_eq!(asked.last().unwrap().lead_id, "lead-0");
        }
        // One that misses only what it has never shown is enough; the user's word is.
        let mut without = read_since(9, absences(5, 100, 2));
        without.candidates.remove(0);
        assert_eq!(
            decide(&without, &Lookups::default(), &first.absent, GUARD, at(2)).gone.len(),
            4
        );
        let accepted = Guard { accepted: true, ..GUARD };
        let all = read_since(9, absences(5, 100, 2));
        assert_eq!(decide(&all, &Lookups::default(), &first.absent, accepted, at(2)).gone.len(), 4);
    }

    #[test]
    fn a_lead_the_provider_shows_stays_and_is_not_asked_for_again_for_a_week() {
        let lookups = Lookups { found: ["lead-0".to_owned()].into(), ..Lookups::default() };
        let first = decide(&read_since(9, absences(1, 100, 1)), &lookups, &[], GUARD, at(1));
        assert!(first.gone.is_empty());
        let again = read_since(9, absences(1, 100, 2));
        assert!(to_look_up(&again, &first.absent, 20, at(2)).is_empty());
        let second = decide(&again, &Lookups::default(), &first.absent, GUARD, at(2));
        assert!(second.gone.is_empty());
        assert_eq!(to_look_up(&absences(1, 100, 9), &second.absent, 20, at(9)).len(), 1);
    }

    #[test]
    fn beyond_the_lookups_a_lead_must_be_absent_twice_or_everything_read_since() {
        let none = Lookups::default();
        let first = decide(&read_since(4, absences(1, 100, 5)), &none, &[], GUARD, at(5));
        assert!(first.gone.is_empty());
        let twice = decide(&read_since(4, absences(1, 100, 6)), &none, &first.absent, GUARD, at(6));
        assert!(twice.gone.is_empty(), "it may have moved to days that were read before");
        let later = Absences { read_since: Some(at(6)), ..Absences::default() };
        let settled = decide(&later, &none, &twice.absent, GUARD, at(7));
        assert_eq!(settled.gone.len(), 1);
        let all_read = decide(&read_since(5, absences(1, 100, 5)), &none, &[], GUARD, at(5));
        assert_eq!(all_read.gone.len(), 1);
    }

    #[test]
    fn too_much_at_once_is_held_back_until_it_is_accepted() {
        let none = Lookups::default();
        let held = decide(&read_since(9, absences(30, 100, 5)), &none, &[], GUARD, at(5));
        assert_eq!((held.gone.len(), held.held_back), (0, 30));
        let accepted = Guard { accepted: true, ..GUARD };
        let let_through = decide(&absences(30, 100, 5), &none, &[], accepted, at(5));
        assert_eq!((let_through.gone.len(), let_through.held_back), (30, 0));
    }

    #[test]
    fn where_too_much_is_absent_an_answer_by_id_proves_nothing_either() {
        let lookups = unknown(&["lead-0", "lead-1"]);
        let held = decide(&read_since(9, absences(40, 100, 5)), &lookups, &[], GUARD, at(5));
        assert_eq!((held.gone.len(), held.held_back), (0, 40));
    }

    #[test]
    fn where_a_whole_source_is_suddenly_empty_nothing_is_gone_whatever_is_said_by_id() {
        let lookups = unknown(&["lead-0", "lead-1"]);
        let held = decide(&read_since(9, absences(2, 2, 5)), &lookups, &[], GUARD, at(5));
        assert_eq!((held.gone.len(), held.held_back), (0, 2));
        let accepted = Guard { accepted: true, ..GUARD };
        let accepted = decide(&absences(2, 2, 5), &lookups, &[], accepted, at(5));
        assert_eq!(accepted.gone.len(), 2);
    }

    #[test]
    fn an_absence_the_run_says_nothing_about_stays_remembered() {
        let first = decide(&absences(1, 100, 5), &Lookups::default(), &[], GUARD, at(5));
        let unread = Absences::default();
        let next = decide(&unread, &Lookups::default(), &first.absent, GUARD, at(6));
        assert_eq!(next.absent, first.absent);
        let shown = Absences { shown_again: ["lead-0".to_owned()].into(), ..unread };
        let cleared = decide(&shown, &Lookups::default(), &first.absent, GUARD, at(6));
        assert!(cleared.absent.is_empty());
    }
    #[test]
    fn what_may_be_a_row_that_lost_its_id_is_gone_by_an_answer_alone() {
        let of_rejects = |absences: Absences| {
            let candidates = absences.candidates.into_iter();
            let candidates = candidates.map(|one| Candidate { needs_answer: true, ..one });
            Absences { candidates: candidates.collect(), ..absences }
        };
        let first = of_rejects(of_scan(read_since(5, absences(3, 100, 5))));
        let known = decide(&first, &Lookups::default(), &[], GUARD, at(5)).absent;
        let second = of_rejects(of_scan(read_since(6, absences(3, 100, 6))));
        let decision = decide(&second, &Lookups::default(), &known, GUARD, at(6));
        assert_eq!((decision.gone.len(), decision.absent.len()), (0, 3));
        let unknown = ["lead-1".to_owned()].into();
        let told = Lookups { unknown, ..Lookups::default() };
        assert_eq!(decide(&second, &told, &known, GUARD, at(6)).gone.len(), 1);
        let reconciled = of_rejects(read_since(6, absences(3, 100, 6)));
        assert!(decide(&reconciled, &Lookups::default(), &[], GUARD, at(6)).gone.is_empty());
        let accepted = Guard { accepted: true, ..GUARD };
        assert_eq!(decide(&second, &Lookups::default(), &known, accepted, at(6)).gone.len(), 3);
    }

    fn of_scan(absences: Absences) -> Absences {
        let of_scan = |candidate| Candidate { is_scan: true, reconciled: false, ..candidate };
        let candidates = absences.candidates.into_iter().map(of_scan).collect();
        Absences { candidates, ..absences }
    }

    #[test]
    fn what_one_scan_has_missed_is_neither_gone_nor_asked_for() {
        let first = of_scan(read_since(5, absences(3, 100, 5)));
        assert!(to_look_up(&first, &[], 20, at(5)).is_empty());
        let decision = decide(&first, &Lookups::default(), &[], GUARD, at(5));
        assert_eq!((decision.gone.len(), decision.absent.len()), (0, 3));
        // The same reading once more, by a run that goes on with it, is no second one.
        let again = decide(&first, &Lookups::default(), &decision.absent, GUARD, at(6));
        assert_eq!((again.gone.len(), again.absent.len()), (0, 3));
    }

    #[test]
    fn what_two_scans_have_missed_is_gone_unless_the_provider_shows_it_by_id() {
        let none = Lookups::default();
        let first = decide(&of_scan(absences(3, 100, 5)), &none, &[], GUARD, at(5));
        let second = of_scan(absences(3, 100, 6));
        assert_eq!(to_look_up(&second, &first.absent, 20, at(6)).len(), 3);
        let lookups = Lookups { found: ["lead-1".to_owned()].into(), ..unknown(&["lead-0"]) };
        let decision = decide(&second, &lookups, &first.absent, GUARD, at(6));
        let gone: Vec<&str> = decision.gone.iter().map(String::as_str).collect();
        // Scans that have missed one that is there may have missed the third as well.
        assert_eq!(gone, ["lead-0"]);
        assert!(decision.absent[0].found_at.is_some());
        let none_is_there = decide(&second, &unknown(&["lead-0"]), &first.absent, GUARD, at(6));
        assert_eq!(none_is_there.gone.len(), 3);
    }

    #[test]
    fn what_could_not_be_asked_for_waits_although_two_scans_have_missed_it() {
        let first = decide(&of_scan(absences(3, 100, 5)), &Lookups::default(), &[], GUARD, at(5));
        let second = of_scan(absences(3, 100, 6));
        let unanswered = ["lead-1".to_owned(), "lead-2".to_owned()].into();
        let lookups = Lookups { unanswered, ..unknown(&["lead-0"]) };
        let decision = decide(&second, &lookups, &first.absent, GUARD, at(6));
        assert_eq!((decision.gone.len(), decision.absent.len()), (1, 2));
        assert!(decision.absent.iter().all(|absent| absent.since == at(5)));
        let a_week_later = of_scan(absences(3, 100, 12));
        let late = decide(&a_week_later, &lookups, &first.absent, GUARD, at(12));
        assert_eq!((late.gone.len(), late.absent.len()), (3, 0));
        let accepted =
            decide(&second, &lookups, &first.absent, Guard { accepted: true, ..GUARD }, at(6));
        assert_eq!(accepted.gone.len(), 3);
    }

    #[test]
    fn one_row_of_a_small_listing_is_held_back_until_it_is_absent_again_and_unknown_by_id() {
        let first = decide(&of_scan(absences(1, 4, 5)), &Lookups::default(), &[], GUARD, at(5));
        assert_eq!((first.gone.len(), first.held_back, first.absent.len()), (0, 1, 1));
        let second = of_scan(absences(1, 4, 6));
        assert_eq!(to_look_up(&second, &first.absent, 20, at(6)).len(), 1);
        let unasked = decide(&second, &Lookups::default(), &first.absent, GUARD, at(6));
        assert_eq!((unasked.gone.len(), unasked.held_back), (0, 1));
        let confirmed = decide(&second, &unknown(&["lead-0"]), &first.absent, GUARD, at(6));
        assert_eq!((confirmed.gone.len(), confirmed.held_back), (1, 0));
    }

    #[test]
    fn what_is_held_back_of_a_scan_is_remembered_unless_it_showed_nothing_of_its_scope() {
        let mut scans = of_scan(absences(4, 6, 5));
        for candidate in &mut scans.candidates[..2] {
            candidate.scope = "empty".to_owned();
        }
        scans.held = [("all".to_owned(), 4), ("empty".to_owned(), 2)].into();
        assert_eq!(scans.shown_scopes(), ["all"].into());
        let decision = decide(&scans, &Lookups::default(), &[], GUARD, at(5));
        let remembered: Vec<_> = decision.absent.iter().map(|one| one.lead_id.as_str()).collect();
        assert_eq!((decision.held_back, remembered), (4, vec!["lead-2", "lead-3"]));
    }

    #[test]
    fn of_a_great_many_absences_the_first_are_remembered_and_those_gone_are_all_told() {
        let (count, held) = (REMEMBERED + 1, 200_000);
        let scan = of_scan(absences(count, held, 5));
        let first = decide(&scan, &Lookups::default(), &[], GUARD, at(5));
        assert_eq!(first.absent.len(), REMEMBERED);
        assert_eq!(first.absent[0].lead_id, "lead-0");
        let all_read = decide(
            &read_since(5, absences(count, held, 5)),
            &Lookups::default(),
            &[],
            GUARD,
            at(5),
        );
        assert_eq!(all_read.gone.len(), count);
    }

    #[test]
    fn a_night_of_empty_scans_is_held_back_until_the_user_lets_it_through() {
        let (none, empty) = (Lookups::default(), of_scan(absences(100, 100, 5)));
        let held = decide(&empty, &none, &[], GUARD, at(5));
        assert_eq!((held.gone.len(), held.held_back, held.absent.len()), (0, 100, 0));
        let accepted = decide(&empty, &none, &[], Guard { accepted: true, ..GUARD }, at(5));
        assert_eq!((accepted.gone.len(), accepted.held_back), (100, 0));
    }
}
