//! Integration tests: whole runs against the sandbox, on a manual clock.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod architecture;
mod backfills;
mod buckets;
mod cli;
mod contract;
mod corners;
mod crash;
mod damage;
mod discretion;
mod disk;
mod freshness;
mod gateway;
mod growth;
mod hostile;
mod lakes;
mod moving;
mod nightly;
mod pages;
mod partitions;
mod points;
mod prices;
mod quota;
mod rehearse;
mod replay;
mod scans;
mod shifts;
mod signals;
mod soak;
mod strangers;
mod support;
mod together;
mod trial;
