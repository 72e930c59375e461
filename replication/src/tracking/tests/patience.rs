//! When a hole is asked for (`-rp`, `-rd`).

use super::*;
use crate::message::{Place, Range};
use crate::tracking::gap::Gaps;

const EVERY: Duration = Duration::from_secs(60);

fn hole(up_to: u64) -> Range {
    Range {
        after: at(10),
        up_to: at(up_to),
    }
}

/// Polls with a hole open at these seconds; returns those that asked.
fn asked(polls: u32, seconds: impl IntoIterator<Item = (u64, PollCause)>) -> Vec<u64> {
    let mut gaps = Gaps::default();
    let mut asked = Vec::new();
    for (second, cause) in seconds {
        gaps.see(hole(20), false);
        let patience = Patience { polls, every: EVERY };
        if gaps
            .poll_ended(Place::live(Lsn(10)), Duration::from_secs(second), cause, patience)
            .is_some()
        {
            asked.push(second);
        }
    }
    asked
}

fn every_minute(count: u64) -> impl Iterator<Item = (u64, PollCause)> {
    (0..count).map(|n| (n * 60, PollCause::Due))
}

#[test]
fn a_hole_is_asked_for_after_so_many_polls_and_again_after_twice_as_many() {
    assert_eq!(asked(1, every_minute(20)), [60, 120, 240, 480, 960]);
    assert_eq!(asked(3, every_minute(12)), [180, 360]);
    assert_eq!(asked(0, every_minute(2)), [0, 60], "patience 0 asks at once");
}

#[test]
fn pushes_and_hasty_polls_do_not_count() {
    let hasty = (0..100).map(|second| (second / 2, PollCause::Due));
    assert_eq!(asked(1, hasty), [] as [u64; 0]);
    let pushed = (0..20).map(|n| (n * 60, PollCause::Push));
    assert_eq!(asked(1, pushed), [] as [u64; 0]);
}

#[test]
fn a_transfer_under_way_suspends_the_count() {
    let transfer = (0..20).map(|n| {
        (
            n * 60,
            if n < 10 {
                PollCause::Transfer
            } else {
                PollCause::Due
            },
        )
    });
    assert_eq!(asked(1, transfer).first(), Some(&600));
}

#[test]
fn a_trickle_behind_the_hole_does_not_reset_it_and_progress_does() {
    let patience = Patience {
        polls: 2,
        every: EVERY,
    };
    let mut gaps = Gaps::default();
    let mut poll = |minute: u64, received: u64, up_to: u64| {
        gaps.see(
            Range {
                after: at(received),
                up_to: at(up_to),
            },
            false,
        );
        gaps.poll_ended(
            Place::live(Lsn(received)),
            EVERY * minute as u32,
            PollCause::Due,
            patience,
        )
    };
    assert_eq!(poll(0, 10, 50), None);
    assert_eq!(poll(1, 10, 60), None, "later messages came, the hole is the same");
    assert_eq!(poll(2, 20, 50), None, "progress");
    assert_eq!(poll(3, 20, 50), None);
    assert_eq!(poll(4, 20, 50).map(|range| range.up_to), Some(at(50)));
}

#[test]
fn a_hole_that_closed_is_not_asked_for() {
    let mut gaps = Gaps::default();
    gaps.see(hole(20), true);
    assert_eq!(
        gaps.poll_ended(Place::live(Lsn(20)), EVERY, PollCause::Due, Patience::NONE),
        None
    );
    assert!(!gaps.is_open());
}

#[test]
fn the_lowest_hole_is_asked_for_from_where_we_are_by_then() {
    let mut receiver = receiver_from(holding(10).records().clone(), 0);
    let _ = take(&mut receiver, &data(60, &[70]));
    let _ = take(&mut receiver, &data(40, &[50]));
    let _ = take(&mut receiver, &data(10, &[20]));
    receiver.poll_ended(EVERY, PollCause::Due);
    let told = &receiver.records().told;
    assert_eq!(
        (told.asks.as_slice(), told.ask_number),
        (
            [Range {
                after: at(20),
                up_to: at(40)
            }]
            .as_slice(),
            1
        )
    );
    // Once filled, the wish is withdrawn.
    let _ = take(&mut receiver, &data(20, &[30, 40]));
    receiver.poll_ended(EVERY, PollCause::Due);
    assert_eq!(receiver.records().told.asks, []);
}
