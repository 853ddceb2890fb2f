//! The `leadpipe` binary: see `leadpipe --help`.

use std::process::ExitCode;

use clap::Parser;
use leadpipe::cli;
use leadpipe::cli::Arguments;

fn main() -> ExitCode {
    // Usage errors, `--help` and `--version` end here, with 2 or 0.
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::no_runtime(error),
    };
    runtime.block_on(cli::run(arguments))
}
