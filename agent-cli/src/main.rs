//! The `milepost` command: parse, call, print, exit code.
//!
//! ```text
//! main ─► arguments (command line, then MILEPOST_*, then --config FILE) ─► commands::<one> ─► exit code
//!            └─ historic: -rd -sd -x 'tcpip(…)' … of the agent, put into long spelling first
//! ```
//!
//! A command is one file under `commands/`; it knows the public APIs of engine and replication and
//! nothing below them. Facts go to standard output (`--json`: one object, or one object a line),
//! everything else to standard error.

mod arguments;
mod commands;
mod demo;
mod failure;
mod hook;
mod output;
mod payload;
mod progress;
mod record;

use std::process::ExitCode;

/// Messages are large and short-lived, and threads free what others allocated: the allocator of the C library gives their
/// pages back and takes them anew each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = arguments::parse(std::env::args_os()).and_then(commands::Command::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
