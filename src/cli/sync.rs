//! `leadpipe sync`, and what it shares with `backfill` and `replay`.

use super::Context;
use super::arguments::RunArguments;
use super::exit;
use super::local_offset;
use super::plan;
use super::refuse_unknown;
use super::signals;
use super::terminal;
use crate::config::Job;
use crate::report;
use crate::run;
use crate::run::Ending;
use crate::run::Options;
use crate::run::Range;
use crate::run::Stop;
use crate::run::Summary;

pub(super) async fn run(context: &Context, arguments: RunArguments) -> anyhow::Result<u8> {
    read(context, arguments, None).await
}

/// Reads a range, or without one what is new, until it is done or may not go on.
pub(super) async fn read(
    context: &Context,
    arguments: RunArguments,
    range: Option<Range>,
) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.sources.job)?.within_memory(arguments.memory.memory_limit)?;
    refuse_unknown(&job, &arguments.accept_deletes)?;
    let mut options = options(&arguments);
    if arguments.dry_run {
        return plan::show(context, job, range, options, false).await;
    }
    signals::watch(options.stop.clone(), context.clock.clone())?;
    let deadline = options.max_duration.map(|duration| context.clock.now() + duration);
    loop {
        let summary = read_once(context, &job, &options, range.clone()).await?;
        // Where the time allowed ends before then, waiting would be in vain.
        let resume_at = summary.resume_at.filter(|resume_at| {
            arguments.wait
                && summary.endings.contains(&Ending::QuotaSpent)
                && options.stop.cause().is_none()
                && deadline.is_none_or(|deadline| *resume_at < deadline)
        });
        let sent: u64 = summary.sources.values().map(|source| source.requests.sent).sum();
        let requests_left = options.max_requests.map(|most| most.saturating_sub(sent));
        let Some(resume_at) = resume_at.filter(|_| requests_left != Some(0)) else {
            return finish(context, &job, &summary);
        };
        if !context.json {
            context.say(&report::summary_text(&summary, &job.lake, local_offset(resume_at)));
        }
        tokio::select! {
            () = context.clock.sleep_until(resume_at) => {}
            _ = options.stop.requested() => return finish(context, &job, &summary),
        }
        options.max_requests = requests_left;
        options.max_duration = deadline.map(|deadline| deadline - context.clock.now());
    }
}

async fn read_once(
    context: &Context,
    job: &Job,
    options: &Options,
    range: Option<Range>,
) -> run::Result<Summary> {
    let (job, options, clock) = (job.clone(), options.clone(), context.clock.clone());
    match range {
        None => run::sync(job, options, clock, context.observer()).await,
        Some(range) => run::backfill(job, range, options, clock, context.observer()).await,
    }
}

fn options(arguments: &RunArguments) -> Options {
    Options {
        sources: arguments.sources.source.clone(),
        accept_deletes: arguments.accept_deletes.clone(),
        max_requests: arguments.max_requests,
        max_duration: arguments.max_duration,
        lock_wait: arguments.lock_wait,
        oldest_first: arguments.oldest_first,
        probe: false,
        stop: Stop::default(),
    }
}

/// Shows what a run did and returns its exit code.
pub(super) fn finish(context: &Context, job: &Job, summary: &Summary) -> anyhow::Result<u8> {
    if context.json {
        terminal::json(summary)?;
    } else {
        let at = summary.resume_at.unwrap_or(summary.ended_at);
        terminal::text(&report::summary_text(summary, &job.lake, local_offset(at)))?;
    }
    Ok(u8::try_from(summary.exit_code()).unwrap_or(exit::FAILED))
}
