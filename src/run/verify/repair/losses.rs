//! Notes what is lost for good, so that it is told and troubles nobody twice.

use std::collections::BTreeSet;

use super::Repairer;
use super::draft::Draft;
use super::seq_in;
use crate::commit::Loss;
use crate::commit::Losses;
use crate::commit::SourceCommit;
use crate::load;
use crate::run::Result;
use crate::run::verify::finding::Kind;
use crate::run::verify::scan::Scan;
use crate::schema::PartFile;

impl Repairer {
    /// Notes what cannot be made again, and from where on loaders cannot follow the changes.
    pub(super) fn note_losses(&mut self, scan: &Scan<'_>, draft: &mut Draft) -> Result<()> {
        let mut losses = scan.losses.clone();
        let known = losses.clone();
        for finding in &scan.findings {
            let how = match finding.kind {
                // The newest one is stepped back from.
                Kind::CommitDamaged if seq_in(&finding.path) == scan.newest => continue,
                Kind::CommitDamaged | Kind::CommitMissing => {
                    let seq = seq_in(&finding.path);
                    draft.cut_at(seq);
                    format!(
                        "noted as lost: loaders that have a commit before {seq} take the whole snapshot"
                    )
                }
                Kind::ChangesDamaged | Kind::ChangesMissing => {
                    let seq = seq_in(&finding.path);
                    draft.cut_at(seq);
                    format!(
                        "noted as lost: loaders that have a commit before {seq} take the whole snapshot"
                    )
                }
                Kind::ChangesContradiction => {
                    draft.cut_at(scan.newest.next());
                    self.did(&finding.path, "all loaders take the whole snapshot");
                    continue;
                }
                Kind::RejectsDamaged | Kind::RejectsMissing => "noted as lost".to_owned(),
                Kind::SegmentDamaged | Kind::SegmentMissing => {
                    "noted as lost: a replay leaves its rows as they are".to_owned()
                }
                _ => continue,
            };
            // A damaged segment stays: what stands before the damage can be read.
            if finding.kind != Kind::SegmentDamaged {
                self.set_aside(&finding.path)?;
            }
            let (since, run) = (scan.now, self.holder.run.clone());
            let loss = Loss { what: finding.what.clone(), since, run };
            losses.0.insert(finding.path.clone(), loss);
            self.did(&finding.path, how);
        }
        let was_damaged = scan.findings.iter().any(|found| found.kind == Kind::LossesDamaged);
        if losses != known || was_damaged {
            losses.write(&self.store)?;
        }
        Ok(())
    }

    /// Notes the segments that rows of a part come from and that are lost: as long as the part was, nobody
    /// missed them.
    pub(super) fn note_lost_segments(
        &mut self,
        part: &PartFile,
        source: &SourceCommit,
    ) -> Result<()> {
        let mut segments: BTreeSet<String> = BTreeSet::new();
        load::inspect(&self.store, part, source.partition, |row| {
            let segment = row.archive.and_then(|place| place.split_once('#'));
            let known = segment.filter(|(segment, _)| !segments.contains(*segment));
            segments.extend(known.map(|(segment, _)| segment.to_owned()));
        })?;
        let mut losses = Losses::read(&self.store)?;
        let mut lost = Vec::new();
        for segment in segments.into_iter().filter(|segment| !losses.has(segment)) {
            if !self.store.exists(&segment)? {
                lost.push(segment);
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        for segment in lost {
            self.did(&segment, "noted as lost: a replay leaves its rows as they are");
            let (since, run) = (self.clock.now(), self.holder.run.clone());
            losses.0.insert(segment, Loss { what: load::MISSING.to_owned(), since, run });
        }
        Ok(losses.write(&self.store)?)
    }
}
