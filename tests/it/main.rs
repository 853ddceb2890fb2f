//! Integration tests: whole runs against the sandbox, on a manual clock.

mod cli;
mod contract;
mod nightly;
mod support;
