//! The crash test would find the bugs it is there for: each of twenty-five is planted and caught, and
//! the log without it is green over the seed that caught it. Prints how many crash states each took, the median of as
//! many runs from seeds far apart as `MILEPOST_PLANTED_RUNS` says. One process has one bug, so this
//! file is one test.
#![allow(clippy::unwrap_used, clippy::as_conversions, clippy::panic)]

use milepost_engine::planted::{self, Bug};
use milepost_tests::crash::{self, Choice, hush, run_many};
use milepost_tests::flips::{Share, Victim};

/// Most crash states that a bug may survive.
const MOST_STATES: u64 = 300_000;
/// Distance of the first seeds of two runs.
const APART: u64 = 1_000_000;

/// All but those that need a disk that keeps something else than was written and says nothing, which
/// `changing_forms.rs` has, or something received, which `freed_log.rs` has; or the one named by `MILEPOST_PLANTED`.
fn planted_here() -> Vec<Bug> {
    let elsewhere = [
        Bug::PackedNotCompared,
        Bug::ArchivedNotCompared,
        Bug::ReceivedForgotten,
    ];
    let all = Bug::ALL.into_iter().chain(Bug::OF_FREEING).chain(Bug::OF_FORMS);
    let named = std::env::var("MILEPOST_PLANTED").ok();
    let chosen = |bug: &Bug| named.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    all.filter(|bug| !elsewhere.contains(bug))
        .filter(chosen)
        .collect()
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

#[test]
fn every_planted_bug_is_caught() {
    hush();
    let runs = std::env::var("MILEPOST_PLANTED_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut missed, mut all) = (Vec::new(), Vec::new());
    for bug in planted_here() {
        planted::set(Some(bug));
        let mut own = Vec::new();
        for run in 0..runs {
            match run_many(run * APART, MOST_STATES, threads, Choice::default(), &|_| ()) {
                Ok(report) => missed.push(format!("{bug:?} survived {} states", report.states)),
                Err(failure) => {
                    planted::set(None);
                    if let Err(same) = crash::run(failure.seed, Choice::default()) {
                        missed.push(format!("{bug:?} was not what failed: {same}"));
                    }
                    planted::set(Some(bug));
                    own.push(failure.states);
                    if run == 0 {
                        println!("{bug:?} is caught by seed {}: {}", failure.seed, failure.text);
                    }
                }
            }
        }
        println!(
            "{bug:?}: caught after {own:?} states, median {}",
            median(own.clone())
        );
        all.push(median(own));
    }
    // Blocks believed by their headers: what flips every bit must see it too.
    planted::set(Some(Bug::HeaderChecksumOnly));
    let share = Share {
        share: 0,
        of: 1,
        byte_step: 4_001,
        head_step: 4_001,
        body_step: 400_009,
        cut_step: 1 << 20,
    };
    let silent = Victim::new(false).attack(share).unwrap_err();
    println!("HeaderChecksumOnly, flips: {silent}");
    planted::set(None);
    println!(
        "{} bugs, {runs} runs each: median of the medians {} states",
        all.len(),
        median(all.clone())
    );
    assert!(missed.is_empty(), "{missed:?}");
    let green = run_many(0, 2_000, threads, Choice::default(), &|_| ());
    green.unwrap_or_else(|failure| panic!("without a bug: {failure}"));
}
