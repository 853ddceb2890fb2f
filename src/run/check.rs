//! Proves settings and credentials, with one or two requests a source.

use serde::Serialize;

use super::Options;
use super::Result;
use super::State;
use super::chain;
use super::client;
use super::client::Quotas;
use super::only;
use crate::clock::SharedClock;
use crate::config::Job;
use crate::error::Hint;
use crate::extract;
use crate::extract::providers;
use crate::ids::SourceName;

/// What `check` found of a source.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedSource {
    /// The source.
    pub source: SourceName,
    /// [`State::Complete`] where all is well.
    pub state: State,
    /// What kind of key it is, or what is wrong.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Requests this took.
    pub requests: u64,
}

/// Checks each source of a job. Fails only where the job itself cannot be run.
pub async fn check(job: Job, options: Options, clock: SharedClock) -> Result<Vec<CheckedSource>> {
    let job = only(job, &options.sources)?;
    let quotas = Quotas::new(&job, options.max_requests, clock.clone())?;
    let mut checked = Vec::new();
    for source in &job.sources {
        let halt = options.stop.watch();
        let (state, found, hint, requests) =
            match client::connect(&job, source, &quotas, halt, clock.clone()) {
                Err(error) => (State::Refused, chain(&error), error.hint(), 0),
                Ok(client) => {
                    let answer = client.source.check(&client.caller).await;
                    client.quota.release().await?;
                    match answer {
                        Ok(kind) => (State::Complete, kind.to_owned(), None, client.quota.spent()),
                        Err(error) => {
                            let (state, hint) = match error {
                                extract::Error::Unauthorized { .. } => {
                                    (State::Refused, Some(providers::credentials_hint(source)))
                                }
                                _ => (State::Failed, error.hint()),
                            };
                            (state, chain(&error), hint, client.quota.spent())
                        }
                    }
                }
            };
        checked.push(CheckedSource { source: source.name.clone(), state, found, hint, requests });
    }
    Ok(checked)
}
