//! One bench per step of the flow, each beside its physical limit measured in the same run.
//!
//! ```text
//! scan        verify and visit every event of a log     limit: crc32fast over the same bytes, nothing else
//! append      commit, durable                           limit: pwrite + fdatasync of the same bytes, zero-filled file
//! replicate   from a store into another over a link     limit: append of the same transactions, no link
//! ```
//!
//! Rounds of system and limit alternate, so that a machine that slows down slows both, and the median
//! round counts. There are no targets here: a row says what was measured.

mod append;
mod machine;
mod replicate;
mod report;
mod scan;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use report::Report;
use workload::Workload;

/// What can go wrong: anything, told to the person who runs the bench.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A step of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Verify and visit every event of a log
    Scan,
    /// Commit transactions, each durable before the next
    Append,
    /// Carry transactions from one store into another
    Replicate,
}

/// Measures one step of the flow beside its physical limit.
#[derive(Debug, Parser)]
#[command(name = "milepost-benches", version)]
struct Arguments {
    /// Step of the flow
    step: Step,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Events of a round
    #[arg(long)]
    events: Option<u64>,
    /// Bytes of an event's payload
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Events of a transaction
    #[arg(long)]
    batch: Option<u64>,
    /// Threads that append
    #[arg(long)]
    threads: Vec<u64>,
    /// Rounds; the median counts
    #[arg(long)]
    rounds: Option<usize>,
    /// Folder on the file system to measure [default: the temporary one]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A run of a second that shows only that it runs
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("milepost-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new()
        .prefix("milepost-bench-")
        .tempdir_in(&parent)?;
    let rounds = arguments
        .rounds
        .unwrap_or(if arguments.quick { 1 } else { 5 })
        .max(1);
    let mut report = Report::new(arguments.json, folder.path());
    match arguments.step {
        Step::Scan => {
            let events = arguments
                .events
                .unwrap_or(if arguments.quick { 20_000 } else { 1_000_000 });
            let workload = Workload::new(events, arguments.payload, arguments.batch.unwrap_or(100));
            scan::run(folder.path(), &workload, rounds, &mut report)?;
        }
        Step::Append => {
            let threads = match arguments.threads.as_slice() {
                [] => &[1, 8],
                given => given,
            };
            for threads in threads {
                let events = arguments
                    .events
                    .unwrap_or(if arguments.quick { 100 } else { 1_000 } * threads);
                let workload = Workload::new(events, arguments.payload, arguments.batch.unwrap_or(1));
                append::run(folder.path(), &workload, *threads, rounds, &mut report)?;
            }
        }
        Step::Replicate => {
            let events = arguments
                .events
                .unwrap_or(if arguments.quick { 1_000 } else { 50_000 });
            let workload = Workload::new(events, arguments.payload, arguments.batch.unwrap_or(5));
            replicate::run(folder.path(), &workload, rounds, &mut report)?;
        }
    }
    report.print();
    Ok(())
}
