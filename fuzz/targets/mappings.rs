//! See `leadpipe::fuzzing::mappings`.
#![no_main]

leadpipe_fuzz::target!(mappings);
