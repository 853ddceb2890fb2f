//! `leadpipe files`.

use std::path::PathBuf;

use super::Context;
use super::exit;
use super::terminal;
use crate::commit;
use crate::commit::FilesAnswer;
use crate::config::Job;
use crate::ids::Seq;
use crate::store::Store;

/// What `files` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FilesArguments {
    /// The job file
    #[arg(value_name = "JOB")]
    job: PathBuf,
    /// The commit that the loader has: list the change files after it
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
}

pub(super) const HELP: &str = "\
Without --since these are the files of the newest snapshot. With it they are the change files after
that commit, in the order in which they apply; where these are no longer kept, the whole snapshot,
which a line on stderr and the JSON tell.

Examples:
  leadpipe files jobs/nightly.toml | xargs -d '\\n' load-into-warehouse
  leadpipe files jobs/nightly.toml --since 41 --json

JSON: kind (`changes` or `snapshot`), seq (the commit the loader has afterwards), files with path
(relative to the lake), bytes, blake3 and rows; `too_old` where changes since are no longer kept;
`lake`, its folder, or its address in a bucket.

Exit codes: 0 listed, 1 failed, 2 bad usage or job file.";

pub(super) fn run(context: &Context, arguments: FilesArguments) -> anyhow::Result<u8> {
    let job = Job::load(&arguments.job)?;
    let lake = job.lake.absolute();
    let answer = commit::files(&Store::at(&lake)?, arguments.since.map(Seq))?;
    if context.json {
        let mut document = serde_json::to_value(&answer)?;
        document["lake"] = lake.to_string().into();
        terminal::json(&document)?;
        return Ok(exit::DONE);
    }
    let seq = match &answer {
        FilesAnswer::Changes { seq, .. } => seq,
        FilesAnswer::Snapshot { seq, too_old, .. } => {
            if let Some(since) = too_old {
                terminal::say(&format!(
                    "the changes since commit {since} are no longer kept: these files are the whole \
                     snapshot, in place of what you have"
                ));
            }
            seq
        }
    };
    let mut text = String::new();
    for path in paths(&answer) {
        text.push_str(&format!("{}\n", lake.join(path)));
    }
    terminal::data(&text)?;
    context.say(&format!("as of commit {seq}"));
    Ok(exit::DONE)
}

fn paths(answer: &FilesAnswer) -> Vec<&str> {
    match answer {
        FilesAnswer::Changes { files, .. } => {
            files.iter().map(|file| file.changes.file.path.as_str()).collect()
        }
        FilesAnswer::Snapshot { files, .. } => {
            files.iter().map(|file| file.file.path.as_str()).collect()
        }
    }
}
