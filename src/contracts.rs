//! The contracts in `schemas/`, as the program carries them.
//!
//! They are made from the types, by tests: what makes them is half a megabyte, and no part of the program.

/// The JSON Schema of a row of a snapshot or of a change file, by draft 2020-12.
///
/// `x-position` counts columns from 1 and `x-arrow-type` names the type in Parquet: the schema says all that
/// [`arrow_schema`](crate::schema::lead::arrow_schema) does.
pub const LEAD: &str = include_str!("../schemas/lead.v1.json");

/// The JSON Schema of a job file, by draft 7. Editors complete and check a job file by it, and so does
/// [`Job::parse`](crate::config::Job::parse).
pub const JOB: &str = include_str!("../schemas/job.v1.json");

/// The JSON Schema of a commit file of a lake, by draft 2020-12.
pub const COMMIT: &str = include_str!("../schemas/commit.v1.json");

/// The JSON Schema of what `leadpipe plan --json` prints, by draft 2020-12.
pub const PLAN: &str = include_str!("../schemas/plan.v1.json");

/// Tells whether a contract is the one of its types. With `LEADPIPE_SCHEMAS` it is written into that folder
/// instead: `make schemas`.
#[cfg(test)]
pub(crate) fn assert_is_made(contract: &str, published: &str, made: &serde_json::Value) {
    let made = serde_json::to_string_pretty(made).unwrap() + "\n";
    match std::env::var_os("LEADPIPE_SCHEMAS") {
        Some(folder) => {
            let path = std::path::Path::new(&folder).join(format!("{contract}.v1.json"));
            std::fs::write(path, made).unwrap();
        }
        None => assert!(made == published, "run `make schemas`: {contract}.v1.json is another"),
    }
}
