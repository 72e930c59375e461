//! Sites that crash, over links that fail in every way: exactly once, in order, nothing lost (R1, R2, R3).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::as_conversions,
    missing_docs
)]

use std::collections::BTreeMap;

use milepost_tests::sites::{Planted, run};

/// Seeds of the everyday tier; `MILEPOST_SEEDS=n` runs more, `MILEPOST_SEED=n` one.
const EVERYDAY_SEEDS: u64 = 5_000;

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

/// What runs came to, together.
#[derive(Default)]
struct Total {
    applied: u64,
    messages: u64,
    slowest: u64,
    seen: BTreeMap<&'static str, u64>,
}

impl Total {
    fn run(mut self, seed: u64) -> Total {
        let report = run(seed, Planted::Nothing).unwrap_or_else(|failure| panic!("{}", told(seed, &failure)));
        self.slowest = self.slowest.max(report.rounds);
        (self.applied, self.messages) = (self.applied + report.applied, self.messages + report.messages);
        report
            .seen
            .into_iter()
            .for_each(|(rule, count)| *self.seen.entry(rule).or_default() += count);
        self
    }

    fn with(mut self, other: Total) -> Total {
        self.slowest = self.slowest.max(other.slowest);
        (self.applied, self.messages) = (self.applied + other.applied, self.messages + other.messages);
        other
            .seen
            .into_iter()
            .for_each(|(rule, count)| *self.seen.entry(rule).or_default() += count);
        self
    }
}

#[test]
fn every_transaction_arrives_once_and_in_order_and_the_sites_fall_silent() {
    if let Some(seed) = number("MILEPOST_SEED") {
        let total = Total::default().run(seed);
        println!(
            "{} transactions applied from {} messages; {:?}",
            total.applied, total.messages, total.seen
        );
        return;
    }
    let seeds = number("MILEPOST_SEEDS").unwrap_or(EVERYDAY_SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let total = std::thread::scope(|scope| {
        let run_every = |first: u64| {
            let mine = (first..seeds).step_by(threads as usize);
            scope.spawn(move || mine.fold(Total::default(), Total::run))
        };
        let runs: Vec<_> = (0..threads).map(run_every).collect();
        runs.into_iter()
            .map(|run| run.join().expect("told above"))
            .fold(Total::default(), Total::with)
    });
    let Total {
        applied,
        messages,
        slowest,
        seen,
    } = total;
    println!(
        "{applied} transactions applied from {messages} messages; slowest recovery {slowest} rounds; {seen:?}"
    );
    // A simulation that never gets into trouble proves nothing.
    for rule in [
        "overlap",
        "part",
        "duplicate",
        "gap",
        "other generation",
        "lost",
        "data",
        "serve",
        "probe",
        "tell",
    ] {
        assert!(
            seen.get(rule).is_some_and(|count| *count > 100),
            "{rule} is hardly met: {seen:?}"
        );
    }
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

#[test]
fn a_site_that_knows_nothing_by_its_origin_is_caught() {
    is_caught(Planted::ForgetOrigins);
}
