//! Power lost at any operation, any subset of what was not synced kept, up to three times in a row:
//! every acknowledged commit is there once, in LSN order, byte for byte (E1, E2, E3, E5, S1, S2, S3).
//!
//! `MILEPOST_CRASH_STATES` sets how many states are tried, `MILEPOST_CRASH_SEED` the first seed,
//! `MILEPOST_CRASH_PROFILE` what the disk is like. For millions:
//! `cargo run --release -p milepost-tests --bin crash -- --states 10000000`.
#![allow(clippy::unwrap_used, clippy::as_conversions, clippy::panic)]

use milepost_tests::crash::{Choice, hush, run, run_many};
use milepost_tests::disk::Profile;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_crash_loses_doubles_tears_or_reorders_a_commit() {
    hush();
    let states = setting("MILEPOST_CRASH_STATES", 100_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let profile = std::env::var("MILEPOST_CRASH_PROFILE").ok();
    let choice = Choice {
        profile: profile.map(|name| Profile::by_name(&name).unwrap()),
        pad_to: None,
    };
    match run_many(
        setting("MILEPOST_CRASH_SEED", 0),
        states,
        threads,
        choice,
        &|_| (),
    ) {
        Ok(report) => {
            println!(
                "{} crash states ({}) after {} operations; segments {}",
                report.states,
                report.profiles(),
                report.ops,
                report.done
            );
            let done = report.done;
            let least = done.freed.min(done.packed).min(done.away).min(done.back);
            assert!(states < 100_000 || least > 20, "segments were {done}");
        }
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for profile in Profile::ALL {
        let choice = Choice {
            profile: Some(profile),
            pad_to: None,
        };
        for seed in [3, 14, 15] {
            assert_eq!(run(seed, choice).unwrap(), run(seed, choice).unwrap());
        }
        assert_ne!(run(3, choice).unwrap().trace, run(14, choice).unwrap().trace);
    }
}
