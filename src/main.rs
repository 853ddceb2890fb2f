//! The `leadpipe` binary: see `leadpipe --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    give_large_buffers_back();
    leadpipe::cli::main()
}

/// Pages and columns of some megabytes are made on one thread and freed on another. glibc gives each thread
/// a heap of its own, and takes the first large buffers freed as a sign to keep such sizes there, where they
/// leave holes: a long run then held half as much again as a short one. So there is one heap for all, and
/// what is larger than a batch of rows goes back at once; batches themselves are used again, as fresh memory
/// for each would cost a tenth of the processor time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_large_buffers_back() {
    #[expect(unsafe_code, reason = "glibc has no other way to set this")]
    // SAFETY: `mallopt` takes two integers and is called before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 2 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_buffers_back() {}
