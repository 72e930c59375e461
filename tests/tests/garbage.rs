//! A device that turns what it is writing into garbage when power fails, durable neighbours included, loses
//! nothing of a store whose blocks are padded to what is in flight together, and does lose acknowledged
//! commits of one whose blocks are not: that is what the option is for, and that the harness sees it (E1).
#![allow(clippy::unwrap_used, clippy::panic)]

use milepost_tests::crash::{Choice, Failure, Report, hush, run_many};
use milepost_tests::disk::Profile;

fn cut(profile: Profile, pad_to: Option<usize>, states: u64) -> Result<Report, Failure> {
    hush();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let choice = Choice {
        profile: Some(profile),
        pad_to,
    };
    run_many(0, states, threads, choice, &|_| ())
}

fn states() -> u64 {
    std::env::var("MILEPOST_GARBAGE_STATES").map_or(6_000, |text| text.parse().unwrap())
}

#[test]
fn padded_blocks_survive_sectors_that_turn_into_garbage() {
    for profile in [Profile::Garbage512, Profile::Garbage4096] {
        match cut(profile, None, states()) {
            Ok(report) => println!("{}: nothing lost", report.profiles()),
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// What is lost is named as such: an acknowledged commit, or damage below what was durable.
fn assert_lost(profile: Profile, pad_to: usize) {
    let failure = cut(profile, Some(pad_to), states()).unwrap_err();
    println!("padded to {pad_to}, {} states: {failure}", failure.states);
    let told = ["is lost", "Corrupt", "was seen, and after recovery"];
    assert!(told.iter().any(|told| failure.text.contains(told)), "{failure}");
}

#[test]
fn without_padding_a_torn_sector_takes_its_durable_neighbour() {
    assert_lost(Profile::Garbage512, 1);
    assert_lost(Profile::Garbage4096, 1);
}

#[test]
fn padding_to_less_than_is_in_flight_together_is_not_enough() {
    assert_lost(Profile::Garbage4096, 512);
}
