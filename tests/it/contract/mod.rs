//! What every provider must be read like, whatever it answers where its documents leave it open.
//!
//! The suite exists once. A provider has a *subject* (a small world of it, what the snapshot should
//! hold, what a reading costs at least, and what can happen to its records) and a list of *cases*:
//! one switch of the sandbox at a time, and some pairs. Each case runs the law that its expectation
//! names (`laws.rs`); `switches.rs` fails where a switch, or one of its values, is in no case.
//!
//! For a new provider, write `<provider>/mod.rs`: implement [`subject::Subject`], list its cases,
//! and give each list a test. What only that provider has (windows, totals) has tests of its own
//! beside it.

mod case;
mod convertalk;
mod laws;
mod subject;
mod switches;
mod whatconverts;
mod whautomate;
