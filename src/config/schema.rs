//! The JSON Schema of a job file, made from the types it is read into.

use schemars::generate::SchemaSettings;
use serde_json::Value;
use serde_json::json;

use super::file::JobFile;

/// Where the schema is published.
const ID: &str = "https://leadpipe.dev/schemas/job.v1.json";

/// Returns the JSON Schema of a job file, as it stands in `schemas/job.v1.json`.
///
/// Editors complete and check a job file by it, and so does [`Job::parse`](super::Job::parse).
pub fn job_schema() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    generator.into_root_schema_for::<JobFile>().to_value()
}
