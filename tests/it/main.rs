//! Integration tests: whole runs against the sandbox, on a manual clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cli;
mod contract;
mod nightly;
mod support;
