//! `leadpipe schema`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::exit;
use super::terminal;
use crate::contracts;

/// What `schema` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SchemaArguments {
    /// The contract
    #[arg(value_name = "CONTRACT", default_value = "lead")]
    contract: Contract,
    /// Write all of them into this folder instead, as CONTRACT.v1.json
    #[arg(long, value_name = "DIR", conflicts_with = "contract")]
    write: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Contract {
    /// A row of a snapshot or of a change file
    Lead,
    /// A job file
    Job,
    /// A commit file of a lake
    Commit,
    /// What `leadpipe plan --json` prints
    Plan,
}

pub(super) const HELP: &str = "\
Examples:
  leadpipe schema lead
  leadpipe schema --write schemas

What is printed is JSON, with --json or without.";

pub(super) fn run(arguments: SchemaArguments) -> anyhow::Result<u8> {
    match arguments.write {
        None => terminal::data(arguments.contract.text())?,
        Some(folder) => {
            let place = folder.display().to_string();
            fs::create_dir_all(&folder).with_context(|| format!("failed to create `{place}`"))?;
            for contract in [Contract::Lead, Contract::Job, Contract::Commit, Contract::Plan] {
                let path = folder.join(format!("{}.v1.json", contract.name()));
                let written = fs::write(&path, contract.text());
                written.with_context(|| format!("failed to write `{}`", path.display()))?;
            }
        }
    }
    Ok(exit::DONE)
}

impl Contract {
    fn name(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Job => "job",
            Self::Commit => "commit",
            Self::Plan => "plan",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Lead => contracts::LEAD,
            Self::Job => contracts::JOB,
            Self::Commit => contracts::COMMIT,
            Self::Plan => contracts::PLAN,
        }
    }
}
