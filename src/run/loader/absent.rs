//! Finds the held rows that whole readings did not show, and takes in what is decided of them.

use super::Loader;
use super::loading::Loading;
use super::loading::span_of;
use super::shown::PartOfIds;
use super::shown::ShownIds;
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
    pub(super) fn find_absent(&self, source: &SourceName) -> Result<Absences> {
        let known = self.checkpoint.sources.get(source).map(|progress| progress.absent.as_slice());
        let known = known.unwrap_or_default();
        let mut absences = Absences::default();
        let Some(loading) = self.sources.get(source) else { return Ok(absences) };
        if known.is_empty() && loading.closed.is_empty() {
            return Ok(absences);
        }
        for part in loading.shown.iter().flat_map(ShownIds::parts) {
            let part = part?;
            // Any reading may show again what a whole one has missed, one from the top as well.
            let shown_again = known.iter().map(|absent| &absent.lead_id);
            let shown_again = shown_again.filter(|id| part.has(id) == Some(true));
            absences.shown_again.extend(shown_again.cloned());
            self.look_for_absent(loading, &part, &mut absences)?;
        }
        if !loading.closed.is_empty() {
            absences.read_since = self.read_since(source);
        }
        Ok(absences)
    }

    /// Looks for those that a part of the ids shown tells of.
    fn look_for_absent(
        &self,
        loading: &Loading,
        part: &PartOfIds,
        absences: &mut Absences,
    ) -> Result<()> {
        let Some(span) = span_of(&loading.closed) else { return Ok(()) };
        let read = loading.read_whole();
        for key in load::lead_keys(&self.store, &loading.parts_before, span) {
            let key = key?;
            let Some(was_shown) = part.has(&key.lead_id) else { continue };
            if key.deleted_at.is_some() {
                continue;
            }
            let Some((judged, walk)) = read.over(&key) else { continue };
            *absences.held.entry(judged.0.clone()).or_default() += 1;
            if was_shown {
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
        Ok(())
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
