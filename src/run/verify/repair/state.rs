//! Mends what stands beside the truth: records of runs, hints, marks, ledgers.

use super::Repairer;
use crate::commit;
use crate::run::Result;
use crate::run::verify::finding::Finding;
use crate::run::verify::finding::Kind;
use crate::run::verify::scan::Scan;
use crate::run::verify::state;

impl Repairer {
    /// Mends what stands beside the truth.
    pub(super) fn mend_state(&mut self, scan: &Scan<'_>) -> Result<()> {
        for finding in &scan.findings {
            match finding.kind {
                Kind::RunDamaged => {
                    self.set_aside(&finding.path)?;
                    self.did(&finding.path, "set aside");
                }
                Kind::ProbesDamaged => {
                    self.store.remove(&finding.path)?;
                    self.did(&finding.path, "removed: `plan --probe` asks again");
                }
                Kind::LossesDamaged => {
                    self.set_aside(&finding.path)?;
                    self.did(&finding.path, "begun anew");
                }
                Kind::EndedDamaged => {
                    let ended = commit::mend_ended(&self.store)?;
                    self.did(&finding.path, format!("snapshots have ended up to commit {ended}"));
                }
                Kind::LedgerDamaged | Kind::LedgerMissing => self.mend_ledger(scan, finding)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn mend_ledger(&mut self, scan: &Scan<'_>, finding: &Finding) -> Result<()> {
        for source in &scan.job.sources {
            let Ok(ledger) = state::ledger_of(scan, source) else { continue };
            if scan.relative(&ledger) != finding.path {
                continue;
            }
            ledger.keep_damaged()?;
            let how = match ledger.begin_anew(scan.now)? {
                Some(until) => {
                    format!("a new count lets nothing be sent before {}", until.format("%F %R UTC"))
                }
                None => "begun anew: no day is counted".to_owned(),
            };
            self.did(&finding.path, how);
            return Ok(());
        }
        Ok(())
    }
}
