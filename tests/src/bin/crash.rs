//! The crash test for as long as one likes:
//! `cargo run --release -p milepost-tests --bin crash -- --states 10000000 [--seed N] [--threads N]`.
//!
//! Prints the number of crash states and how many a second; ends with exit code 1 and the command that
//! repeats it at the first seed that fails.
#![allow(
    clippy::disallowed_methods,
    clippy::as_conversions,
    reason = "a person waits for the real clock"
)]

use std::process::ExitCode;
use std::time::Instant;

use milepost_tests::crash::{hush, run_many};

fn main() -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut states, mut seed, mut threads) = (100_000, 0, cores as u64);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--states" => &mut states,
            "--seed" => &mut seed,
            "--threads" => &mut threads,
            _ => return usage(&word),
        };
        match words.next().and_then(|value| value.replace('_', "").parse().ok()) {
            Some(value) => *place = value,
            None => return usage(&word),
        }
    }
    let threads = if states == 1 { 1 } else { threads as usize };
    hush();
    let start = Instant::now();
    match run_many(seed, states, threads) {
        Ok(report) => {
            let rate = report.states as f64 / start.elapsed().as_secs_f64();
            let (seen, ops, trace) = (report.states, report.ops, report.trace);
            println!("{seen} crash states, {rate:.0} a second, after {ops} operations; trace {trace:016x}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn usage(word: &str) -> ExitCode {
    println!("{word}: usage is crash [--states N] [--seed N] [--threads N]");
    ExitCode::from(2)
}
