//! [`Chance`] and [`Time`]: all that a run draws and every clock it reads, from one seed, so that a seed is a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::clock::{Clock, Rng};

/// SplitMix64 behind a shared counter.
#[derive(Clone)]
pub struct Chance(Arc<AtomicU64>);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(Arc::new(AtomicU64::new(mix(seed))))
    }

    /// Below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// True in so many of a hundred cases.
    pub fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Clone>(&self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize].clone()
    }

    /// Text that does not compress, so that messages are as long as they look.
    pub fn filler(&self, len: usize) -> String {
        let mut text = String::with_capacity(len);
        while text.len() < len {
            let mut word = self.next_u64();
            for _ in 0..10 {
                text.push(char::from(
                    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(word & 63) as usize],
                ));
                word >>= 6;
            }
        }
        text.truncate(len);
        text
    }
}

impl Rng for Chance {
    fn next_u64(&self) -> u64 {
        mix(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

/// The finalizer of SplitMix64.
fn mix(word: u64) -> u64 {
    let z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The clock of all sites, moved by hand.
#[derive(Clone, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    pub fn pass(&self, pause: Duration) {
        self.0.fetch_add(pause.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn wall_micros(&self) -> i64 {
        1_700_000_000_000_000 + self.0.load(Ordering::Relaxed) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, pause: Duration) {
        self.pass(pause);
    }
}
