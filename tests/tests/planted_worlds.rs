//! Worlds would find the bugs they are there for: each is planted in the real replication code and caught by a check that names the rule, and the
//! seed that caught it is green without it. One process has one bug, so this file is one test.
//!
//! `MILEPOST_PLANTED=Bug` plants one alone; `MILEPOST_PLANTED_RUNS=3` begins three times, with seeds far apart, and prints the median.
#![allow(clippy::unwrap_used, clippy::panic)]

use milepost_replication::planted::{self, Bug};
use milepost_tests::crash::hush;
use milepost_tests::worlds::{Trace, run, run_back, run_backed_up, run_many};

/// Most seeds that a bug may survive.
const MOST_SEEDS: u64 = 3_000;
/// The same of one that needs a suspension, a freed log, a new process and a neighbour that goes on, in this order.
const MOST_SEEDS_OF_RARE: u64 = 20_000;
/// Distance of the first seeds of two runs.
const APART: u64 = 1_000_000;

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

/// What is wrong, without the seed and what led to it.
fn reason(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(260)
        .collect()
}

/// A check of the judge names what is broken: E1, Q1, R4 …, or the seal of messages.
fn names_a_rule(reason: &str) -> bool {
    let rules = reason.split(|c: char| !c.is_ascii_alphanumeric());
    rules.into_iter().any(|word| {
        let mut letters = word.chars();
        let first = letters.next().is_some_and(|letter| "EQRS".contains(letter));
        word == "Seal"
            || first && letters.next().is_some_and(|digit| digit.is_ascii_digit()) && letters.next().is_none()
    })
}

#[test]
fn every_planted_bug_of_replication_is_caught_by_a_rule() {
    hush();
    let runs = std::env::var("MILEPOST_PLANTED_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let named = std::env::var("MILEPOST_PLANTED").ok();
    let chosen = |bug: &Bug| named.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    let mut wrong = Vec::new();
    for bug in Bug::ALL.into_iter().filter(chosen) {
        let mut own = Vec::new();
        let live = match bug {
            Bug::ForkUnseen => run_back,
            Bug::UncoveredSent | Bug::UncoveredConfirmed => run_backed_up,
            _ => run,
        };
        for number in 0..runs {
            planted::set(Some(bug));
            let most = match bug {
                Bug::SuspendedForgotten => MOST_SEEDS_OF_RARE,
                _ => MOST_SEEDS,
            };
            let caught = run_many(number * APART, most, live);
            planted::set(None);
            let Err(failure) = caught else {
                wrong.push(format!("{bug:?} survived {most} seeds"));
                continue;
            };
            let reason = reason(&failure.text);
            if !names_a_rule(&reason) {
                wrong.push(format!("{bug:?} was caught by no rule: {reason}"));
            }
            let same = std::thread::scope(|scope| {
                scope
                    .spawn(|| live(failure.seed, &Trace::default()))
                    .join()
                    .unwrap()
            });
            if let Err(same) = same {
                wrong.push(format!("{bug:?} was not what failed: {same}"));
            }
            own.push(failure.seeds);
            println!("{bug:?}: {reason}");
        }
        println!(
            "{bug:?}: caught after {own:?} seeds, median {}",
            median(own.clone())
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
