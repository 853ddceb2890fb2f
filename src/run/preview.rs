//! Says what a run would read, without reading it.

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;

use super::Options;
use super::Range;
use super::Result;
use super::chain;
use super::client;
use super::client::Quotas;
use super::only;
use super::source;
use crate::checkpoint::Partition;
use crate::checkpoint::SourceProgress;
use crate::clock::SharedClock;
use crate::commit;
use crate::config::Job;
use crate::config::SourceSettings;
use crate::extract::providers;
use crate::ids::SourceName;
use crate::plan::SourcePlan;
use crate::plan::Task;
use crate::store::Store;
use crate::window::Window;

/// What a run would read of a source.
#[derive(Debug, Clone, Serialize)]
pub struct PreviewedSource {
    /// The source.
    pub source: SourceName,
    /// Its walks and what they cost.
    pub plan: SourcePlan,
    /// Requests for listing the account, which come before the plan.
    pub listing_requests: u64,
    /// When the partitions were listed, where the provider lists them.
    pub listed_as_of: Option<DateTime<Utc>>,
    /// Permits left of the day, reserve apart; `None` where no allowance is known.
    pub permits_left: Option<u32>,
    /// Why it could not be planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Plans each source of a job. Takes no lock and writes nothing; where the provider lists
/// partitions and none are known yet, they are asked for, which is counted like any request.
pub async fn preview(
    job: Job,
    range: Option<Range>,
    options: Options,
    clock: SharedClock,
) -> Result<Vec<PreviewedSource>> {
    let job = only(job, &options.sources)?;
    let head = commit::latest(&Store::open(&job.lake))?;
    let quotas = Quotas::new(&job, options.max_requests, clock.clone());
    let task = range.and_then(|range| {
        let window = Window::new(range.from, range.to)?;
        let again_before = range.again.then(|| clock.now());
        Some(Task::Backfill { range: window, again_before })
    });
    let task = task.unwrap_or(Task::Sync);
    let mut previewed = Vec::new();
    for settings in &job.sources {
        let progress = head.as_ref().and_then(|head| head.checkpoint.sources.get(&settings.name));
        let mut progress = progress.cloned().unwrap_or_default();
        progress.forget_the_future(clock.now());
        let one = Preview { job: &job, settings, progress, quotas: &quotas, task: &task };
        previewed.push(one.make(&options, &clock).await);
    }
    Ok(previewed)
}

struct Preview<'a> {
    job: &'a Job,
    settings: &'a SourceSettings,
    progress: SourceProgress,
    quotas: &'a Quotas,
    task: &'a Task,
}

impl Preview<'_> {
    async fn make(&self, options: &Options, clock: &SharedClock) -> PreviewedSource {
        let mut preview = PreviewedSource {
            source: self.settings.name.clone(),
            plan: SourcePlan::default(),
            listing_requests: 0,
            listed_as_of: None,
            permits_left: None,
            error: None,
        };
        if let Err(error) = self.fill(&mut preview, options, clock).await {
            preview.error = Some(chain(&error));
        }
        preview
    }

    async fn fill(
        &self,
        preview: &mut PreviewedSource,
        options: &Options,
        clock: &SharedClock,
    ) -> Result<()> {
        let stop = options.stop.watch();
        let client = client::connect(self.job, self.settings, self.quotas, stop, clock.clone())?;
        let partitions: Option<Vec<Partition>> = match &self.progress.partitions {
            Some(known) => {
                preview.listed_as_of = Some(known.as_of);
                // The run itself lists them anew.
                preview.listing_requests = 1;
                Some(known.listed.clone())
            }
            None => {
                let listed = client.source.list_partitions(&client.caller).await?;
                preview.listed_as_of = listed.as_ref().map(|_| clock.now());
                preview.listing_requests = client.quota.spent();
                client.quota.release().await?;
                listed
            }
        };
        let scopes = providers::scopes(self.settings, partitions.as_deref());
        let (task, now) = (self.task.clone(), clock.now());
        preview.plan =
            source::plan_source(self.job, self.settings, &scopes, &self.progress, task, now);
        preview.permits_left = client.quota.budget()?.left;
        Ok(())
    }
}
