//! Sites that crash, over links that fail in every way: exactly once, in order, nothing lost (R1, R2, R3).
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, missing_docs)]

use milepost_tests::sites::{Planted, run};

/// Seeds of the everyday tier; `MILEPOST_SEEDS=n` runs more, `MILEPOST_SEED=n` one.
const EVERYDAY_SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

fn told(seed: u64, failure: &str) -> String {
    format!(
        "seed {seed}: {failure}\nrepeat it: MILEPOST_SEED={seed} cargo test -p milepost-tests --test simulation \
         every_transaction -- --nocapture"
    )
}

#[test]
fn every_transaction_arrives_once_and_in_order_and_the_sites_fall_silent() {
    let one = number("MILEPOST_SEED");
    let seeds = one.map_or(0..number("MILEPOST_SEEDS").unwrap_or(EVERYDAY_SEEDS), |seed| {
        seed..seed + 1
    });
    let (mut applied, mut messages, mut slowest) = (0, 0, 0);
    for seed in seeds {
        match run(seed, Planted::Nothing) {
            Ok(report) => {
                (applied, messages) = (applied + report.applied, messages + report.messages);
                slowest = slowest.max(report.rounds);
            }
            Err(failure) => panic!("{}", told(seed, &failure)),
        }
    }
    println!("{applied} transactions applied from {messages} messages; slowest recovery {slowest} rounds");
    assert!(
        one.is_some() || applied > 50_000,
        "the run must move something: {applied}"
    );
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 0..5 {
        assert_eq!(run(seed, Planted::Nothing), run(seed, Planted::Nothing));
    }
}

/// The simulation is worth its name only if it fails where the agents are wrong.
fn is_caught(planted: Planted) {
    let caught = (0..500).find_map(|seed| run(seed, planted).err().map(|failure| (seed, failure)));
    let (seed, failure) = caught.unwrap_or_else(|| panic!("{planted:?} passed 500 seeds"));
    println!("{planted:?} caught by seed {seed}: {failure}");
}

#[test]
fn a_confirmation_before_durability_is_caught() {
    is_caught(Planted::ConfirmBeforeDurable);
}

#[test]
fn events_applied_without_their_position_are_caught() {
    is_caught(Planted::ApplyWithoutMoving);
}

#[test]
fn a_message_of_an_old_generation_that_is_accepted_is_caught() {
    is_caught(Planted::AcceptOldGeneration);
}

#[test]
fn a_receive_process_that_starts_before_its_predecessors_frames_are_durable_is_caught() {
    is_caught(Planted::StartWithoutSync);
}
