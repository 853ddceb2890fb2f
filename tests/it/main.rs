//! Integration tests: whole runs against the sandbox, on a manual clock.

mod architecture;
mod contract;
mod disk;
mod nightly;
mod quota;
mod replay;
mod shifts;
mod support;
