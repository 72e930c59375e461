//! The crash test for as long as one likes:
//! `cargo run --release -p milepost-tests --bin crash -- --states 10000000 [--seed N] [--threads N]
//! [--profile posix|ext4|xfs|garbage512|garbage4096] [--pad-to BYTES]`.
//!
//! Prints the number of crash states, by profile of the disk (drawn from the seed unless given), and how
//! many a second, now and then on the way; ends with exit code 1 and the command that repeats it at the
//! first seed that fails.
#![allow(
    clippy::disallowed_methods,
    clippy::as_conversions,
    reason = "a person waits for the real clock"
)]

use std::process::ExitCode;
use std::time::Instant;

use milepost_tests::crash::{Choice, Report, hush, run, run_many};
use milepost_tests::disk::Profile;

struct Wanted {
    states: u64,
    seed: u64,
    threads: u64,
    choice: Choice,
}

fn main() -> ExitCode {
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(word) => return usage(&word),
    };
    hush();
    let start = Instant::now();
    let tell = |report: &Report| {
        let rate = report.states as f64 / start.elapsed().as_secs_f64();
        let (seen, ops, trace, by) = (report.states, report.ops, report.trace, report.profiles());
        println!(
            "{seen} crash states ({by}), {rate:.0} a second, after {ops} operations; segments {}; trace {trace:016x}",
            report.done
        );
    };
    let outcome = if wanted.states == 1 {
        run(wanted.seed, wanted.choice)
    } else {
        run_many(
            wanted.seed,
            wanted.states,
            wanted.threads as usize,
            wanted.choice,
            &tell,
        )
    };
    match outcome {
        Ok(report) => {
            tell(&report);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn wanted() -> Result<Wanted, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wanted = Wanted {
        states: 100_000,
        seed: 0,
        threads: cores as u64,
        choice: Choice::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| word.clone())?;
        let number = value.replace('_', "").parse();
        let number = || number.clone().map_err(|_| word.clone());
        match word.as_str() {
            "--states" => wanted.states = number()?,
            "--seed" => wanted.seed = number()?,
            "--threads" => wanted.threads = number()?,
            "--pad-to" => wanted.choice.pad_to = Some(number()? as usize),
            "--profile" => wanted.choice.profile = Some(Profile::by_name(&value).ok_or(value)?),
            _ => return Err(word),
        }
    }
    Ok(wanted)
}

fn usage(word: &str) -> ExitCode {
    let profiles: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name()).collect();
    let profiles = profiles.join("|");
    println!(
        "{word}: usage is crash [--states N] [--seed N] [--threads N] [--profile {profiles}] [--pad-to BYTES]"
    );
    ExitCode::from(2)
}
