//! Finds the held rows that whole readings did not show, and takes in what is decided of them.

use super::Loader;
use super::loading::span_of;
use crate::checkpoint::Absent;
use crate::checkpoint::ScopeProgress;
use crate::ids::SourceName;
use crate::load;
use crate::run::Result;
use crate::run::gone::Absences;
use crate::run::gone::Candidate;
use crate::run::gone::Decision;
use crate::window::Window;
use chrono::DateTime;
use chrono::Utc;

impl Loader {
    /// Finds the rows held before the run that lie in what was read whole and that no page of the
    /// run showed. What the run itself has committed meanwhile was shown.
    pub(super) fn find_absent(&mut self, source: &SourceName) -> Result<Absences> {
        let known = self.checkpoint.sources.get(source).map(|progress| progress.absent.clone());
        let known = known.unwrap_or_default();
        let store = self.store.clone();
        let Some(loading) = self.sources.get_mut(source) else { return Ok(Absences::default()) };
        for shown in loading.shown.values_mut() {
            shown.sort_unstable();
            shown.dedup();
        }
        let mut absences = Absences::default();
        // Any reading may show again what a whole one has missed, one from the top as well.
        let shown_again = known.iter().filter(|absent| loading.was_shown(&absent.lead_id));
        absences.shown_again = shown_again.map(|absent| absent.lead_id.clone()).collect();
        let Some(span) = span_of(&loading.closed) else { return Ok(absences) };
        let read = loading.read_whole();
        for key in load::lead_keys(&store, &loading.parts_before, span) {
            let key = key?;
            if key.deleted_at.is_some() {
                continue;
            }
            let Some((judged, walk)) = read.over(&key) else { continue };
            *absences.held.entry(judged.0.clone()).or_default() += 1;
            if loading.was_shown(&key.lead_id) {
                continue;
            }
            absences.candidates.push(Candidate {
                missed_at: walk.opened_at,
                reconciled: walk.reconciled,
                needs_answer: walk.has_rejects,
                is_scan: walk.window.is_none(),
                scope: judged.0.clone(),
                lead_id: key.lead_id,
            });
        }
        absences.read_since = self.read_since(source);
        Ok(absences)
    }

    /// Returns when the stalest reading of all the source's scopes began; `None` where one of them
    /// has a gap.
    pub(super) fn read_since(&self, source: &SourceName) -> Option<DateTime<Utc>> {
        let start = self.sources.get(source)?.settings.start();
        self.least_of_scopes(source, |scope| {
            let Some(start) = start else { return Some(scope.scan.as_ref()?.as_of) };
            let whole = Window::new(start, scope.coverage.end()?)?;
            scope.coverage.as_of(&whole)
        })
    }

    /// Returns up to when everything the source has is read: the least of its scopes' ends.
    pub(super) fn as_of(&self, source: &SourceName) -> Option<DateTime<Utc>> {
        let scanned = |scope: &ScopeProgress| Some(scope.scan.as_ref()?.read_at());
        self.least_of_scopes(source, |scope| scope.coverage.end().or_else(|| scanned(scope)))
    }

    /// Returns the least instant of the scopes the source has now; `None` where one has none.
    pub(super) fn least_of_scopes(
        &self,
        source: &SourceName,
        instant: impl Fn(&ScopeProgress) -> Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let scopes = &self.sources.get(source)?.scopes;
        let progress = self.checkpoint.sources.get(source)?;
        let instants = scopes.iter().map(|scope| instant(progress.scopes.get(&scope.key())?));
        instants.min().flatten()
    }

    pub(super) fn decide(&mut self, source: &SourceName, decision: Decision) {
        let gone: Vec<Absent> = decision.absent;
        if let Some(loading) = self.sources.get_mut(source) {
            loading.summary.deletes_held_back = decision.held_back;
            loading.summary.absent = gone.iter().filter(|a| a.found_at.is_none()).count() as u64;
            loading.dirty |= !decision.gone.is_empty();
            loading.gone = decision.gone;
        }
        self.progress_mut(source).absent = gone;
    }
}
