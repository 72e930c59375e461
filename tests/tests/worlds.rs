//! Whole systems from one seed: exactly once, in order, nothing lost, whatever dies and whenever the power goes (E1, Q1, Q2, R1 to R6).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::as_conversions
)]

use std::sync::atomic::{AtomicU64, Ordering};

use milepost_tests::crash::hush;
use milepost_tests::worlds::{Totals, Trace, run};

/// Seeds of the everyday tier; `MILEPOST_SEEDS=n` runs more, `MILEPOST_FIRST=n` begins elsewhere, `MILEPOST_SEED=n` runs one.
const EVERYDAY_SEEDS: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Runs seeds on all cores up to the first that fails; what they came to, or how many ran and what is wrong.
fn run_many(first: u64, seeds: u64) -> Result<Totals, (u64, String)> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let runs = std::thread::scope(|scope| {
        let live = || {
            let (mut totals, mut failure) = (Totals::default(), None);
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + seeds || seed > failed.load(Ordering::Relaxed) {
                    return (totals, failure);
                }
                match run(seed, &Trace::default()) {
                    Ok(own) => totals.add(&own),
                    Err(text) => {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        failure = Some((seed, text));
                    }
                }
            }
        };
        let runs: Vec<_> = (0..threads).map(|_| scope.spawn(live)).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap())
            .collect::<Vec<_>>()
    });
    let failures = runs.iter().filter_map(|(_, failure)| failure.clone());
    if let Some((seed, text)) = failures.min_by_key(|(seed, _)| *seed) {
        return Err((seed - first + 1, text));
    }
    let mut all = Totals::default();
    runs.iter().for_each(|(totals, _)| all.add(totals));
    Ok(all)
}

#[test]
fn every_world_holds_what_is_due_once_and_falls_silent() {
    hush();
    if let Some(seed) = number("MILEPOST_SEED") {
        let trace = Trace::default();
        let totals = std::thread::scope(|scope| scope.spawn(|| run(seed, &trace)).join().unwrap());
        println!("{trace}\n{:?}", totals.unwrap_or_else(|text| panic!("{text}")));
        return;
    }
    let seeds = number("MILEPOST_SEEDS").unwrap_or(EVERYDAY_SEEDS);
    let totals = run_many(number("MILEPOST_FIRST").unwrap_or(0), seeds);
    let totals = totals.unwrap_or_else(|(_, text)| panic!("{text}"));
    println!("{seeds} seeds: {totals:?}");
    assert!(
        totals.received > 5 * seeds,
        "sites to which nothing comes prove nothing"
    );
    assert!(
        totals.kills > seeds && totals.cuts > seeds && totals.meanwhile > seeds,
        "too little befell them"
    );
    assert!(totals.freed > seeds / 20, "too little was freed");
}

#[test]
fn one_seed_gives_one_run() {
    hush();
    for seed in 0..6 {
        let told = || {
            let trace = Trace::default();
            (run(seed, &trace), trace.to_string())
        };
        let (one, two) = std::thread::scope(|scope| {
            (
                scope.spawn(told).join().unwrap(),
                scope.spawn(told).join().unwrap(),
            )
        });
        assert_eq!(one.1, two.1, "seed {seed}");
        assert_eq!(one.0, two.0, "seed {seed}");
    }
}
