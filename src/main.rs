//! The `leadpipe` binary: see `leadpipe --help`.

fn main() {}
