//! Whole systems from one seed: exactly once, in order, nothing lost, whatever dies and whenever the power goes (E1, Q1, Q2, R1 to R6); and
//! sites that go back in time, which are found (R5).
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use milepost_tests::crash::hush;
use milepost_tests::worlds::{Totals, Trace, run, run_back, run_backed_up, run_many};

/// Seeds of the everyday tier; `MILEPOST_SEEDS=n` runs more, `MILEPOST_FIRST=n` begins elsewhere, `MILEPOST_SEED=n` runs one.
const EVERYDAY_SEEDS: u64 = 3_000;
const EVERYDAY_SEEDS_BACK: u64 = 1_000;

type Live = fn(u64, &Trace) -> Result<Totals, String>;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Runs one seed, in a thread without a name: what killed processes run into is not printed.
fn one(seed: u64, trace: &Trace, live: Live) -> Result<Totals, String> {
    std::thread::scope(|scope| scope.spawn(|| live(seed, trace)).join().unwrap())
}

/// Runs seeds as it is asked for; what they came to, with their count, where all were run.
fn live_through(everyday: u64, live: Live) -> Option<(u64, Totals)> {
    hush();
    if let Some(seed) = number("MILEPOST_SEED") {
        let trace = Trace::default();
        let totals = one(seed, &trace, live);
        println!("{trace}\n{:?}", totals.unwrap_or_else(|text| panic!("{text}")));
        return None;
    }
    let seeds = number("MILEPOST_SEEDS").unwrap_or(everyday);
    let totals = run_many(number("MILEPOST_FIRST").unwrap_or(0), seeds, live);
    let totals = totals.unwrap_or_else(|failure| panic!("{}", failure.text));
    println!("{seeds} seeds: {totals:?}");
    Some((seeds, totals))
}

#[test]
fn every_world_holds_what_is_due_once_and_falls_silent() {
    let Some((seeds, totals)) = live_through(EVERYDAY_SEEDS, run) else {
        return;
    };
    assert!(
        totals.received > 5 * seeds,
        "sites to which nothing comes prove nothing"
    );
    let befell = [totals.kills, totals.cuts, totals.meanwhile];
    assert!(
        befell.iter().all(|count| *count > seeds),
        "too little befell them"
    );
    assert!(
        totals.server_kills > seeds / 8 && totals.server_cuts > seeds / 8,
        "nor the servers"
    );
    assert!(totals.held > seeds / 4, "too little was held");
    assert!(totals.freed > seeds / 20, "too little was freed");
    assert!(totals.suspended > seeds / 50, "too few were suspended");
    assert!(totals.forged > seeds / 8, "too little was forged");
    assert!(totals.founded > seeds / 20, "too few stores were made of others");
    assert!(totals.replaced > seeds / 10, "too few were replaced");
    assert!(totals.revenants > seeds / 20, "and too few ran on");
}

#[test]
fn whoever_goes_back_in_time_is_found_where_it_was_known_and_nobody_else_stops_r5() {
    let Some((seeds, totals)) = live_through(EVERYDAY_SEEDS_BACK, run_back) else {
        return;
    };
    assert!(
        totals.parted > seeds / 8,
        "too few pairs stopped: {}",
        totals.parted
    );
    assert!(
        totals.parted < seeds * 7 / 8,
        "and too few went on: {}",
        totals.parted
    );
}

#[test]
fn whoever_sends_only_what_is_backed_up_is_lost_and_restored_and_nobody_notices_r5() {
    let Some((seeds, totals)) = live_through(EVERYDAY_SEEDS_BACK, run_backed_up) else {
        return;
    };
    assert!(totals.restored > seeds, "too few were lost: {}", totals.restored);
    assert!(
        totals.received > 4 * seeds,
        "sites to which nothing comes prove nothing"
    );
}

#[test]
fn one_seed_gives_one_run() {
    hush();
    let lives: [Live; 3] = [run, run_back, run_backed_up];
    for (seed, live) in (0..6).flat_map(|seed| lives.map(|live| (seed, live))) {
        let told = || {
            let trace = Trace::default();
            (one(seed, &trace, live), trace.to_string())
        };
        let (first, second) = (told(), told());
        assert_eq!(first.1, second.1, "seed {seed}");
        assert_eq!(first.0, second.0, "seed {seed}");
    }
}
