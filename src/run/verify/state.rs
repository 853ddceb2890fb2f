//! Looks at what a lake keeps beside its truth: the key, ledgers, records of runs, totals.

use chrono::TimeDelta;

use super::finding::Kind;
use super::scan::Scan;
use crate::commit;
use crate::commit::RunState;
use crate::config::SourceSettings;
use crate::error::Hint;
use crate::ids::SourceName;
use crate::quota;
use crate::quota::Ledger;
use crate::run::Result;
use crate::run::chain;
use crate::run::client::Quotas;
use crate::run::lake;
use crate::run::probes;

const KEY: &str = "state/key";
const BLOCKED: &str = "--repair sets it aside and begins a new count that lets nothing be sent until all \
                       that may have been sent has lapsed";

impl Scan<'_> {
    /// Looks at all of it.
    pub(super) fn look_at_state(&mut self) -> Result<()> {
        self.look_at_key()?;
        for source in &self.job.sources.clone() {
            self.look_at_ledger(source)?;
        }
        for (path, error) in commit::unreadable_runs(self.store)? {
            let way_out = "records are history: --repair sets it aside";
            self.note(Kind::RunDamaged, &path, chain(&error), way_out);
        }
        for path in probes::unreadable(self.store)? {
            let way_out =
                "they are hints for prices: --repair removes it, `plan --probe` asks again";
            self.note(Kind::ProbesDamaged, &path, "it is not in the form that is written", way_out);
        }
        Ok(())
    }

    fn look_at_key(&mut self) -> Result<()> {
        let Some(head) = self.head() else { return Ok(()) };
        let given = match lake::given_key(self.job) {
            Ok(given) => given,
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                self.note(Kind::NotChecked, "[privacy] key", chain(&error), &hint);
                return Ok(());
            }
        };
        let known = head.key_fingerprint.clone();
        let found = commit::identity_key(self.store, given.as_deref(), Some(&known));
        let Err(error) = found else { return Ok(()) };
        let hint = error.hint().unwrap_or_default();
        let kind = match error {
            commit::Error::KeyMissing { .. } => Kind::KeyMissing,
            _ => Kind::KeyDiffers,
        };
        self.note(kind, KEY, chain(&error), &hint);
        Ok(())
    }

    fn look_at_ledger(&mut self, source: &SourceSettings) -> Result<()> {
        let ledger = match ledger_of(self, source) {
            Ok(ledger) => ledger,
            Err(error) => {
                let path = format!("the ledger of source `{}`", source.name);
                let hint = error.hint().unwrap_or_default();
                self.note(Kind::NotChecked, &path, chain(&error), &hint);
                return Ok(());
            }
        };
        let path = self.relative(&ledger);
        if self.findings.iter().any(|finding| finding.path == path) {
            return Ok(());
        }
        match ledger.state(self.now) {
            Err(error @ quota::Error::NewerVersion { .. }) => {
                let hint = error.hint().unwrap_or_default();
                self.note(Kind::NotChecked, &path, chain(&error), &hint);
            }
            Err(error @ quota::Error::Store(_)) if self.own_run.is_some() => {
                return Err(error.into());
            }
            Err(error) => self.note(Kind::LedgerDamaged, &path, chain(&error), BLOCKED),
            Ok(_) if self.has_sent(&source.name) && !ledger.exists()? => {
                let what = "it is missing, although requests were sent in the last 24 hours";
                self.note(Kind::LedgerMissing, &path, what, BLOCKED);
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// Returns where a ledger lies, relative to the lake where it is inside.
    pub(super) fn relative(&self, ledger: &Ledger) -> String {
        let path = ledger.path();
        path.strip_prefix(self.store.root()).unwrap_or(&path).display().to_string()
    }

    /// Tells whether a run of the last day sent requests for a source, or may have.
    fn has_sent(&self, source: &SourceName) -> bool {
        let runs = commit::runs(self.store).unwrap_or_default();
        let mut recent = runs.into_iter().filter(|run| {
            let ended = run.ended_at.unwrap_or(self.now);
            self.now - ended < TimeDelta::hours(24)
                && !matches!(run.command.as_str(), "verify" | "replay")
        });
        recent.any(|run| {
            // A run that failed tells of no source, and may have sent all the same.
            let told = run.summary.as_ref().and_then(|summary| summary.get("sources"));
            let sent = told.map(|told| told[source.as_str()]["requests"]["sent"].as_u64());
            run.state != RunState::Ended || sent.is_none_or(|sent| sent.unwrap_or(0) > 0)
        })
    }
}

/// Returns the ledger of a source; it is found by the source's key.
pub(super) fn ledger_of(scan: &Scan<'_>, source: &SourceSettings) -> Result<Ledger> {
    let quotas = Quotas::new(scan.job, None, scan.clock.clone())?;
    Ok(quotas.of(source)?.ledger().clone())
}
