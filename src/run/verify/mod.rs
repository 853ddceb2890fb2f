//! Proves a lake sound, or says what is not, and mends what can be mended.
//!
//! [`scan`] looks and changes nothing, [`repair`] mends under the lake's lock, [`totals`] asks the
//! providers how many rows there are. A repair only makes files again that are lost, under the name a
//! commit gives them where the bytes are those it names, else under new names in a commit of its own.

mod archived;
mod finding;
mod repair;
mod rows;
mod scan;
mod state;
mod told;
mod totals;

use std::sync::Arc;

use chrono::TimeDelta;

pub use finding::Checked;
pub use finding::Finding;
pub use finding::Kind;
pub use finding::Repaired;
pub use finding::Verified;
pub use totals::Totals;
pub use totals::Verdict;

use super::Error;
use super::Result;
use super::settings;
use super::stop::Stop;
use crate::clock::SharedClock;
use crate::config::Job;
use repair::Repairer;
use scan::Scan;

/// What is asked of [`verify()`].
#[derive(Debug, Clone, Default)]
pub struct Verify {
    /// Whether what can be mended is mended.
    pub repair: bool,
    /// How many requests a source may cost for comparing totals; none without.
    pub remote: Option<u64>,
    /// How long a repair waits for another run that holds the lake.
    pub lock_wait: Option<TimeDelta>,
    /// Asks it to stop between two files; a repair that has begun to mend ends that first.
    pub stop: Stop,
}

/// Looks at all of the lake of a job, and does what is asked beside that.
///
/// Fails where the lake cannot be read at all, or is of a later leadpipe and was to be repaired, and where
/// it is asked to stop; what is damaged is no failure. Where a file cannot be read for another reason
/// than damage (its access, a disk that fails), a repair fails and changes nothing.
pub async fn verify(job: Job, asked: Verify, clock: SharedClock) -> Result<Verified> {
    let job = Arc::new(job);
    let mut repaired = None;
    if asked.repair {
        let (shared, stop) = (Arc::clone(&job), asked.stop.clone());
        let opening = Repairer::open(shared, asked.lock_wait, stop, clock.clone());
        let repairer = tokio::select! {
            biased;
            opened = opening => opened?,
            cause = asked.stop.requested() => return Err(Error::Stopped(cause)),
        };
        let mending = tokio::task::spawn_blocking(move || repairer.mend());
        repaired = Some(mending.await.map_err(|_| Error::Bug("the repair panicked"))??);
    }
    let (repairs, committed) = repaired.unwrap_or_default();
    let (shared, at, stop) = (Arc::clone(&job), clock.clone(), asked.stop.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let store = settings::lake(&shared)?;
        let scan = Scan::make(&store, &shared, &at, None, &stop)?;
        let head = scan.head().cloned();
        Ok::<_, Error>((scan.findings, scan.checked, head))
    });
    let looked = looking.await.map_err(|_| Error::Bug("the look at the lake panicked"))?;
    let (findings, checked, head) = looked?;
    let totals = match (asked.remote, &head) {
        (Some(most), Some(head)) => totals::compare(&job, head, most, &asked.stop, &clock).await?,
        _ => Vec::new(),
    };
    let differs = totals.iter().any(|totals| totals.verdict == Verdict::Differs);
    Ok(Verified {
        job: job.name.clone(),
        lake: job.lake.absolute().to_string(),
        commit: head.map(|head| head.seq),
        is_sound: !differs && !findings.iter().any(|finding| finding.matters),
        checked,
        findings,
        repairs,
        committed,
        totals,
    })
}
