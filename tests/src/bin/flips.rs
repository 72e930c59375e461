//! Every single bit of a log of 1 MiB flipped, every length that it may be cut to:
//! `cargo run --release -p milepost-tests --bin flips [-- --every N]`.
//!
//! Prints what came of it for the active segment and for a sealed one; ends with exit code 1 at the first
//! flip or cut that is silent. With `--every N` only each N-th bit of bodies goes the whole way (2,000 unless
//! given); headers, filters and lengths always do.
#![allow(clippy::disallowed_methods, reason = "a person waits for the real clock")]

use std::process::ExitCode;
use std::time::Instant;

use milepost_tests::flips::{Share, Victim, attack};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let every = match words.as_slice() {
        [] => Ok(2_000),
        [word, number] if word == "--every" => number.parse().map_err(|_| number.clone()),
        [word, ..] => Err(word.clone()),
    };
    let body_step = match every {
        Ok(every) if every > 0 => every,
        _ => {
            println!("usage is flips [--every N]");
            return ExitCode::from(2);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for (sealed, name) in [(false, "the active segment"), (true, "a sealed segment")] {
        let start = Instant::now();
        let victim = Victim::new(sealed);
        let share = Share {
            share: 0,
            of: 1,
            byte_step: 1,
            head_step: 1,
            body_step,
            cut_step: 1,
        };
        match attack(&victim, threads, share) {
            Ok(tally) => println!(
                "{name}, {} bits: {} flipped in their blocks, {} of them told; whole way {:?}; cuts {:?}; {:.0} s",
                victim.bits(),
                tally.flips.0,
                tally.flips.1,
                tally.opened,
                tally.cuts,
                start.elapsed().as_secs_f64()
            ),
            Err(text) => {
                println!("{name}: SILENT: {text}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
