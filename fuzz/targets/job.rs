//! See `leadpipe::fuzzing::job`.
#![no_main]

leadpipe_fuzz::target!(job);
