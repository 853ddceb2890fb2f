//! `leadpipe replay`.

use super::Context;
use super::arguments::ReplayArguments;
use super::signals;
use super::sync;
use crate::config::Job;
use crate::run;
use crate::run::Options;
use crate::run::Stop;

pub(super) async fn run(context: &Context, arguments: ReplayArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.sources.job)?.within_memory(arguments.memory.memory_limit)?;
    let options = Options {
        sources: arguments.sources.source,
        lock_wait: arguments.lock_wait,
        stop: Stop::default(),
        ..Options::default()
    };
    signals::watch(options.stop.clone(), context.clock.clone())?;
    let observer = context.observer();
    let summary = run::replay(job.clone(), options, context.clock.clone(), observer).await?;
    sync::finish(context, &job, &summary)
}
