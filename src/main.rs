//! The `leadpipe` binary: see `leadpipe --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    leadpipe::cli::main()
}

/// Pages and columns of some megabytes, and compressors of every column, are made on one thread and freed on
/// another, over and over. The usual allocators keep such sizes by thread, and small things that live longer
/// among them: a long run then held half as much again as a short one.
#[cfg(not(windows))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One heap for all threads, of which what is free for half a second goes back.
#[cfg(not(windows))]
#[expect(unsafe_code, reason = "the allocator is set before `main`, by a symbol of this name")]
// SAFETY: nobody else exports the name, and what it points at is a text that ends with a NUL.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 46] = b"narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0\0";
