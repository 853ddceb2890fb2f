//! See `leadpipe::fuzzing::pages`.
#![no_main]

leadpipe_fuzz::target!(pages);
