//! Integration tests: whole runs against the sandbox, on a manual clock.

mod nightly;
mod support;
