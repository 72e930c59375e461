//! The command `milepost-benches`: runs a step and prints its rows (see the library's head).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use milepost_benches::report::Report;
use milepost_benches::workload::count_processor_time;
use milepost_benches::{
    Outcome, Run, append, chart, commit, filter, marker, open, remotes, replicate, scan, streams, worker,
};

/// A step of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Verify and visit every event of a log
    Scan,
    /// Look for one rare stream; scan on two threads
    Filter,
    /// Append batches, each durable before the next
    Append,
    /// Commit single events from threads and processes; latency; buffered
    Commit,
    /// Open after a clean close and after a crash; memory of a scan
    Open,
    /// Read by stream; rebuild the index
    Streams,
    /// Scan and send to 10, 1,000 and 10,000 remotes
    Remotes,
    /// Carry transactions from one store into another
    Replicate,
    /// Wait for a marker that another process scans
    Marker,
}

/// Measures one step of the flow beside its physical limit, and beside peers when built with them.
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
    #[arg(long)]
    payload: Option<usize>,
    /// Events of a transaction
    #[arg(long)]
    batch: Option<u64>,
    /// Threads that commit
    #[arg(long)]
    threads: Vec<u64>,
    /// Remotes that `remotes` serves [default: 10, 1000 and 10000]
    #[arg(long)]
    remotes: Vec<u64>,
    /// Rounds of each system; the median counts
    #[arg(long)]
    rounds: Option<usize>,
    /// Folder on the file system to measure [default: the temporary one]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Peers that take part, by the names of their crates [default: all that are built in]
    #[arg(long)]
    peer: Vec<String>,
    /// GiB of the large store of `open`, and of the store that `streams` reads with a fresh process
    #[arg(long)]
    gib: Option<f64>,
    /// Counts the processor's time instead of the wall clock's: for `scan` on a machine that is busy with other work
    #[arg(long)]
    cpu: bool,
    /// Writes an SVG chart of the table
    #[arg(long)]
    chart: Option<PathBuf>,
    /// A run of seconds that shows only that it runs
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.split_first() {
        Some((first, rest)) if first == worker::WORD => worker::run(rest),
        _ => quietly().and_then(|()| measure(&Arguments::parse())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("milepost-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of the peers writes to standard output unless the environment forbids it, and a program's own
/// environment is not safe to change: it starts itself again.
fn quietly() -> Outcome<()> {
    use std::os::unix::process::CommandExt;
    const QUIET: &str = "WALRUS_QUIET";
    if milepost_benches::peers::ALL.is_empty() || std::env::var_os(QUIET).is_some() {
        return Ok(());
    }
    let again = std::env::current_exe()?;
    Err(std::process::Command::new(again)
        .args(std::env::args_os().skip(1))
        .env(QUIET, "1")
        .exec()
        .into())
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    let parent = arguments
        .dir
        .clone()
        .unwrap_or_else(std::env::temp_dir)
        .canonicalize()?;
    let folder = tempfile::Builder::new()
        .prefix("milepost-bench-")
        .tempdir_in(&parent)?;
    let chart = arguments.chart.as_deref().map(std::path::absolute).transpose()?;
    // One of the peers makes its files beneath the working directory.
    std::env::set_current_dir(folder.path())?;
    let run = Run {
        folder: folder.path().to_path_buf(),
        rounds: arguments
            .rounds
            .unwrap_or(if arguments.quick { 1 } else { 5 })
            .max(1),
        quick: arguments.quick,
        events: arguments.events,
        payload: arguments.payload,
        batch: arguments.batch,
        threads: arguments.threads.clone(),
        remotes: arguments.remotes.clone(),
        peers: arguments.peer.clone(),
        gib: arguments.gib.unwrap_or(match (arguments.quick, arguments.step) {
            (true, _) => 0.5,
            (false, Step::Open) => 64.0,
            (false, _) => 1.0,
        }),
    };
    let mut report = Report::new(arguments.json, folder.path());
    report.note(format!("{} rounds of each system, in turns", run.rounds));
    if arguments.cpu {
        if arguments.step != Step::Scan {
            return Err("--cpu is for `scan`, which is one thread and waits for nothing".into());
        }
        count_processor_time();
        report.note("rates are of the processor's time of the one thread at work, not of the wall clock");
    }
    match arguments.step {
        Step::Scan => scan::run(&run, &mut report),
        Step::Filter => filter::run(&run, &mut report),
        Step::Append => append::run(&run, &mut report),
        Step::Commit => commit::run(&run, &mut report),
        Step::Open => open::run(&run, &mut report),
        Step::Streams => streams::run(&run, &mut report),
        Step::Remotes => remotes::run(&run, &mut report),
        Step::Replicate => replicate::run(&run, &mut report),
        Step::Marker => marker::run(&run, &mut report),
    }?;
    std::env::set_current_dir(&parent)?;
    report.print();
    if let Some(path) = chart {
        chart::write(&report, &path)?;
    }
    Ok(())
}
