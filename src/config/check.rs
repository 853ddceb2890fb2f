//! Checks what was typed against the schema of a job file.

use super::error::Problem;
pub(super) struct Lines;
pub(super) fn check(_: &str) -> Result<(Lines, Vec<Problem>), Problem> {
    Ok((Lines, Vec::new()))
}
