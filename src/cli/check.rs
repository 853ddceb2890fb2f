//! `leadpipe check`.

use super::Context;
use super::arguments::SourceArguments;
use super::exit;
use super::terminal;
use crate::config::Job;
use crate::report;
use crate::run;
use crate::run::CheckedSource;
use crate::run::Options;
use crate::run::State;

pub(super) async fn run(context: &Context, arguments: SourceArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.job)?;
    let options = Options { sources: arguments.source, ..Options::default() };
    let checked = run::check(job, options, context.clock.clone()).await?;
    if context.json {
        terminal::json(&checked)?;
    } else {
        terminal::text(&report::check_text(&checked))?;
    }
    Ok(code(&checked))
}

fn code(checked: &[CheckedSource]) -> u8 {
    if checked.iter().all(|source| source.state == State::Complete) {
        exit::DONE
    } else if checked.iter().all(|source| source.state == State::Refused) {
        exit::REFUSED
    } else {
        exit::SOURCE_FAILED
    }
}
