//! See `leadpipe::fuzzing::ledger`.
#![no_main]

leadpipe_fuzz::target!(ledger);
