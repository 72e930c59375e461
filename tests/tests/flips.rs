//! A bit of the log that flips, and a log that is cut, are told or harmless, never silent, never a panic (E3).
//! The everyday run takes a sample; every bit and every length:
//! `cargo run --release -p milepost-tests --bin flips`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use milepost_tests::damage::Verdict;
use milepost_tests::flips::{Share, Victim, attack};

fn sample(sealed: bool) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = Share {
        share: 0,
        of: 1,
        byte_step: 97,
        head_step: 211,
        body_step: 60_013,
        cut_step: 4_999,
    };
    let tally = attack(&Victim::new(sealed), threads, share).unwrap_or_else(|text| panic!("{text}"));
    println!("{tally:?}");
    let (flips, told) = tally.flips;
    assert!(
        flips > 80_000 && told * 100 > flips * 95,
        "nearly every bit is under a checksum"
    );
    let expected = if sealed {
        Verdict::ToldByReaders
    } else {
        Verdict::RefusedAtOpen
    };
    assert!(tally.opened[&expected] > 200 && tally.cuts[&expected] > 100);
}

#[test]
fn a_flip_or_cut_of_the_active_segment_is_told_at_open_or_harmless() {
    sample(false);
}

#[test]
fn a_flip_or_cut_of_a_sealed_segment_is_told_by_who_reads_it_or_harmless() {
    sample(true);
}
