//! What a limit of memory leaves for pages, staged leads and row groups.
//!
//! Part of a process does not depend on any setting: the program, and what Parquet keeps for each of a
//! hundred columns that are written, twice. The rest is shared out here, so that a run's peak follows from
//! its settings and not from what it reads.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;

/// The program and what it always holds, in bytes.
const FIXED: u64 = 64_000_000;

/// What pages, staged leads and row groups need together to be of use, in bytes.
const LEAST_SHARED: u64 = 16_000_000;

/// A WhatConverts lead is about 1.9 KB of JSON.
const RECORD_BYTES: u64 = 2_000;

/// Pages that are in memory together, at least: one on its way, and one being mapped.
const LEAST_PAGES: u64 = 2;

/// Pages that are in memory together, at most: no quota lets more requests be under way.
const MOST_PAGES: u64 = 64;

/// The pages' part of what is shared out: the greatest, as a page is in memory as received, as records and
/// as columns.
const OF_PAGES: f64 = 0.4;

/// The memory a process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryLimit(u64);

impl MemoryLimit {
    /// Returns what is left for what, where pages have up to `page_rows` rows.
    ///
    /// # Errors
    ///
    /// Where that is too little to read at all.
    pub fn share(self, page_rows: u32) -> Result<Shares, TooLittle> {
        let page_bytes = u64::from(page_rows) * RECORD_BYTES;
        let pages_need = (LEAST_PAGES * page_bytes) as f64 / OF_PAGES;
        let least = FIXED + LEAST_SHARED.max(pages_need as u64);
        let shared = self.0.checked_sub(FIXED).filter(|_| self.0 >= least);
        let shared =
            shared.ok_or(TooLittle { limit: self, least: MemoryLimit(least), page_rows })?;
        let part = |of: f64| (shared as f64 * of) as usize;
        let pages = part(OF_PAGES) as u64 / page_bytes.max(1);
        Ok(Shares {
            pages: usize::try_from(pages.clamp(LEAST_PAGES, MOST_PAGES)).unwrap_or(usize::MAX),
            staged_bytes: part(0.3),
            row_group_bytes: part(0.07),
        })
    }
}

/// What of a limit of memory goes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Pages in memory at once, over all sources.
    pub pages: usize,
    /// Bytes of leads that wait for a sorted run, over all sources; while a commit is made, of those that
    /// are merged.
    pub staged_bytes: usize,
    /// Bytes of a row group being written, of a part and of the change file beside it. A part's is in memory
    /// twice, as its bytes are hashed.
    pub row_group_bytes: usize,
}

/// A limit of memory under which nothing could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a memory limit of {limit} is too little: the program takes about {}, and two pages of {page_rows} \
     rows must fit beside it; it takes at least {least}",
    MemoryLimit(FIXED)
)]
pub struct TooLittle {
    /// The limit.
    pub limit: MemoryLimit,
    /// The smallest that will do.
    pub least: MemoryLimit,
    /// The rows of the largest page.
    pub page_rows: u32,
}

/// As it is typed: `150MB`, `1.5GB`, `256MiB`.
impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let has_unit = text.trim_end().ends_with(['b', 'B']);
        let size = text.parse::<ByteSize>().ok().filter(|_| has_unit);
        size.map(|size| Self(size.as_u64()))
            .ok_or_else(|| format!("`{text}` is not a size, such as `150MB` or `1GB`"))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}MB", self.0.div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> MemoryLimit {
        text.parse().unwrap()
    }

    #[test]
    fn sizes_carry_their_unit() {
        assert_eq!(limit("150MB"), MemoryLimit(150_000_000));
        assert_eq!(limit("256 MiB"), MemoryLimit(256 << 20));
        assert_eq!(limit("1.5GB").to_string(), "1500MB");
        for none in ["", "150", "many", "-1MB", "150 miles", "MB"] {
            assert!(none.parse::<MemoryLimit>().unwrap_err().contains("150MB"), "{none}");
        }
    }

    #[test]
    fn what_is_shared_out_follows_from_the_limit() {
        let shares = |text: &str| limit(text).share(2_500).unwrap();
        let (small, usual, large) = (shares("100MB"), shares("150MB"), shares("1GB"));
        assert_eq!((small.pages, usual.pages, large.pages), (2, 6, 64));
        for (less, more) in [(small, usual), (usual, large)] {
            assert!(less.staged_bytes < more.staged_bytes);
            assert!(less.row_group_bytes < more.row_group_bytes);
        }
        // What one waits for, the other may hold: together they stay below the limit.
        let together = usual.pages * 5_000_000 + usual.staged_bytes + usual.row_group_bytes * 3;
        assert!(together as u64 + FIXED <= 150_000_000, "{together}");
        assert_eq!(limit("150MB").share(100).unwrap().pages, 64);
    }

    #[test]
    fn a_limit_that_is_too_little_says_how_much_would_do() {
        let error = limit("80MB").share(2_500).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("80MB") && text.contains("2500 rows"), "{text}");
        assert!(text.ends_with(&error.least.to_string()), "{text}");
        assert_eq!(error.least.share(2_500).unwrap().pages, 2);
        assert!(limit("80MB").share(100).is_ok());
        assert!(limit("79MB").share(100).is_err());
    }
}
