//! Choices of a seed: `MILEPOST_SEED`, or another one in every run. What processes make of them differs each time.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A sequence of choices (SplitMix64).
pub struct Chance {
    pub seed: u64,
    drawn: u64,
}

impl Chance {
    pub fn new() -> Chance {
        let given = std::env::var("MILEPOST_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Chance { seed, drawn: seed }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.drawn;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let limit = u64::try_from(limit).unwrap();
        usize::try_from((word ^ (word >> 31)) % limit).unwrap()
    }
}
