//! See `leadpipe::fuzzing::files`.
#![no_main]

leadpipe_fuzz::target!(files);
