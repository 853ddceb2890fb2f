//! See `leadpipe::fuzzing::stored`.
#![no_main]

leadpipe_fuzz::target!(stored);
