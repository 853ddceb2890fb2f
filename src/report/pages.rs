//! Which size of pages is asked for instead of the job's, as text.

use std::collections::BTreeMap;

use chrono::FixedOffset;

use super::harmless;
use super::instant;
use super::number;
use crate::checkpoint::SmallerPages;

/// Returns a line for each stream that is read in smaller pages than the job asks for.
pub(super) fn smaller_pages(
    known: &BTreeMap<String, SmallerPages>,
    zone: FixedOffset,
) -> Vec<String> {
    let line = |(stream, smaller): (&String, &SmallerPages)| {
        let stream = harmless(stream);
        let (large, rows) = (number(smaller.too_large.into()), number(smaller.rows.into()));
        let why = if smaller.refused { "were refused" } else { "did not come whole" };
        let again = instant(smaller.tried_again_at(), zone);
        format!(
            "{stream}: pages of {large} rows {why}, so {rows} are asked for; more are tried again \
             after {again}"
        )
    };
    known.iter().map(line).collect()
}
