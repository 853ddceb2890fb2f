//! The files of a lake, as a commit names them.
//!
//! Paths are relative to the lake and separated by `/`. Hashes are BLAKE3 over the whole file, in
//! lower-case hex.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error as _;

use crate::ids::Seq;
use crate::ids::one_name;

/// A file and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredFile {
    /// Where it lies, relative to the lake.
    #[serde(deserialize_with = "within")]
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes, 64 hex digits.
    pub blake3: String,
}

/// Reads a path that cannot lead out of the lake: what a commit names, later runs read and remove.
fn within<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    let leads_out = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\\', '\0']);
    match path.split('/').any(leads_out) {
        true => Err(D::Error::custom("a path does not lie in the lake")),
        false => Ok(path),
    }
}

/// An immutable Parquet file of leads of one source and partition, sorted by `lead_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartFile {
    /// The Parquet file.
    #[serde(flatten)]
    pub file: StoredFile,
    /// The value of `part_created`: a year, a month `2026-11`, `unknown`, or `all`.
    #[serde(deserialize_with = "one_name")]
    pub partition: String,
    /// Rows in it.
    pub rows: u64,
    /// Rows of them with `_deleted_at`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted_rows: u64,
    /// The smallest `lead_id` in it.
    pub first_lead_id: String,
    /// The greatest `lead_id` in it.
    pub last_lead_id: String,
    /// The commit that wrote it.
    pub seq: Seq,
    /// The same rows as CSV, where the job wants CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<StoredFile>,
    /// By which the columns that rows are compared by can be read alone; older versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hashes: Option<KeyHashes>,
}

/// Hashes of the pieces of a part that tell which rows change: `lead_id`, `created_at`, `_scope`,
/// `_content_hash`, `_first_seen_at`, `_extracted_at` and `_deleted_at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyHashes {
    /// The length of the file's footer in bytes, with its length and the magic number behind it.
    pub footer_bytes: u64,
    /// The BLAKE3 hash of the footer, 64 hex digits.
    pub footer: String,
    /// By row group the BLAKE3 hash of the bytes of these columns, one behind the other as in the file.
    pub groups: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The Parquet file that says what a commit changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeFile {
    /// The Parquet file.
    #[serde(flatten)]
    pub file: StoredFile,
    /// Rows in it, `upserts` + `deletes`.
    pub rows: u64,
    /// Leads new, changed or moved.
    pub upserts: u64,
    /// Leads gone.
    pub deletes: u64,
}

/// Records that could not be mapped, whole, with reason and place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectFile {
    /// The file of JSON lines.
    #[serde(flatten)]
    pub file: StoredFile,
    /// Records in it.
    pub rows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_commit_names_lies_in_the_lake() {
        let read = |path: &str| {
            let json = serde_json::json!({"path": path, "bytes": 1, "blake3": "00"});
            serde_json::from_value::<StoredFile>(json).is_ok()
        };
        assert!(read("parts/part_source=acme/part_created=2026/000000001-0198a0-0.parquet"));
        for path in
            ["", "/etc/passwd", "../job.toml", "parts/../../key", "parts//a", "./a", "a\\b", "a\0"]
        {
            assert!(!read(path), "{path:?}");
        }
    }
}
