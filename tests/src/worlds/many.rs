//! [`run_many`]: seeds on all cores, up to the first that fails.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Totals, Trace};

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    /// Seeds up to it, itself included.
    pub seeds: u64,
    pub text: String,
}

/// Lives `seeds` seeds through, from `first` on.
///
/// # Errors
/// The lowest seed that failed.
pub fn run_many(
    first: u64,
    seeds: u64,
    live: impl Fn(u64, &Trace) -> Result<Totals, String> + Sync,
) -> Result<Totals, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let go_on = || {
        let (mut totals, mut failure) = (Totals::default(), None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || seed > failed.load(Ordering::Relaxed) {
                return (totals, failure);
            }
            match live(seed, &Trace::default()) {
                Ok(own) => totals.add(&own),
                Err(text) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    failure = Some((seed, text));
                }
            }
        }
    };
    // Threads without a name: what a killed process runs into is not printed.
    let runs = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads).map(|_| scope.spawn(go_on)).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap())
            .collect::<Vec<_>>()
    });
    let failures = runs.iter().filter_map(|(_, failure)| failure.clone());
    if let Some((seed, text)) = failures.min_by_key(|(seed, _)| *seed) {
        let seeds = seed - first + 1;
        return Err(Failure { seed, seeds, text });
    }
    let mut all = Totals::default();
    runs.iter().for_each(|(totals, _)| all.add(totals));
    Ok(all)
}
