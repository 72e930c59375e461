//! Seeded randomness: [`SimRng`], from which every choice of a simulated run is drawn.
//!
//! One seed gives one sequence (SplitMix64), and [`SimRng::fork`] gives independent sequences for
//! parts whose number of draws must not disturb each other.

use std::sync::atomic::{AtomicU64, Ordering};

use milepost_engine::clock::Rng;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A seeded source of random words, shared by reference.
#[derive(Debug)]
pub struct SimRng {
    state: AtomicU64,
}

impl SimRng {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> SimRng {
        SimRng {
            state: AtomicU64::new(mix(seed ^ 0x6d69_6c65_706f_7374)),
        }
    }

    /// The next 64 bits.
    pub fn word(&self) -> u64 {
        mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// A number below `limit`; 0 when `limit` is 0.
    pub fn below(&self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.word() % limit }
    }

    /// An index below `len`.
    pub fn index(&self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `count` of `of` cases.
    pub fn chance(&self, count: u64, of: u64) -> bool {
        self.below(of) < count
    }

    /// One of the choices.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// An independent sequence.
    #[must_use]
    pub fn fork(&self) -> SimRng {
        SimRng::new(self.word())
    }
}

impl Clone for SimRng {
    fn clone(&self) -> SimRng {
        SimRng {
            state: AtomicU64::new(self.state.load(Ordering::Relaxed)),
        }
    }
}

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        self.word()
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, 2014): also the harness's hash of a word.
#[must_use]
pub fn mix(word: u64) -> u64 {
    let z = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
