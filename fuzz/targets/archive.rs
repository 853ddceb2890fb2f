//! See `leadpipe::fuzzing::archive`.
#![no_main]

leadpipe_fuzz::target!(archive);
