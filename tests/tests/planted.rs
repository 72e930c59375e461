//! The crash test would find the bugs it is there for: each of eight is planted and caught, and the log
//! without one is green over the same seeds. One process has one bug, so this file is one test.
#![allow(clippy::unwrap_used, clippy::as_conversions, clippy::panic)]

use milepost_engine::planted::{self, Bug};
use milepost_tests::crash::{hush, run_many};

/// Most crash states that a bug may survive.
const MOST_STATES: u64 = 60_000;

#[test]
fn every_planted_bug_is_caught() {
    hush();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        planted::set(Some(bug));
        match run_many(0, MOST_STATES, threads) {
            Ok(report) => missed.push(format!("{bug:?} survived {} states", report.states)),
            Err(failure) => println!("{bug:?} is caught by seed {}: {}", failure.seed, failure.text),
        }
    }
    planted::set(None);
    assert!(missed.is_empty(), "{missed:?}");
    run_many(0, 2_000, threads).unwrap_or_else(|failure| panic!("without a bug: {failure}"));
}
