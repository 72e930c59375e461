//! The stream filter of a block: a Bloom filter (B. H. Bloom, 1970) with double hashing (Kirsch and
//! Mitzenmacher, 2006), so that a scan for one stream can pass a block by its header.
//!
//! `m` = bits of the filter, hash = XXH3-64 of the stream's name, a = low half, b = high half | 1.
//! Bit i of six is (a + i * b) mod m; bit n is bit (n mod 8) of byte (n div 8). At ten bits for each
//! distinct stream about one foreign block in a hundred is read for nothing.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::width::{align8, to_u64, to_usize};

const HASHES: u64 = 6;
const BITS_PER_STREAM: usize = 10;
/// Below so many hashes sorting them is the fastest way to find those that repeat.
const FEW: usize = 64;

/// A filter's bytes.
#[derive(Clone, Copy)]
pub struct StreamFilter<'a> {
    bytes: &'a [u8],
}

impl<'a> StreamFilter<'a> {
    /// Reads a filter in place.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        StreamFilter { bytes }
    }

    /// True unless the block surely has no event of the stream. Without a filter everything is
    /// possible in a block with events and nothing in one without.
    #[must_use]
    pub fn may_contain(&self, stream_hash: u64, event_count: u32) -> bool {
        if self.bytes.is_empty() {
            return event_count != 0;
        }
        bits(stream_hash, self.bytes.len()).all(|bit| {
            self.bytes
                .get(to_usize(bit / 8))
                .is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
        })
    }

    /// The bytes that tell of a stream in a filter of `len` bytes (not 0), each with the bit that must be set in it.
    pub(crate) fn marks(stream_hash: u64, len: u64) -> impl Iterator<Item = (u64, u8)> {
        bits(stream_hash, to_usize(len)).map(|bit| (bit / 8, 1 << (bit % 8)))
    }

    /// Bytes of a filter for this many distinct streams.
    pub(crate) fn len_for(streams: usize) -> usize {
        align8((streams * BITS_PER_STREAM).div_ceil(8))
    }

    /// Marks streams in a filter that is being built.
    pub(crate) fn insert(bytes: &mut [u8], stream_hashes: impl IntoIterator<Item = u64>) {
        if bytes.is_empty() {
            return;
        }
        let remainder = Remainder::by(to_u64(bytes.len()) * 8);
        for bit in stream_hashes
            .into_iter()
            .flat_map(|hash| bits_by(hash, remainder))
        {
            if let Some(byte) = bytes.get_mut(to_usize(bit / 8)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
}

/// Leaves each hash once. Keyed anew in every process: whoever chooses names of streams cannot make it slow.
pub(crate) fn keep_distinct(stream_hashes: &mut Vec<u64>) {
    if stream_hashes.len() < FEW {
        stream_hashes.sort_unstable();
        stream_hashes.dedup();
        return;
    }
    let mut seen = HashSet::with_capacity_and_hasher(stream_hashes.len(), RandomState::default());
    stream_hashes.retain(|hash| seen.insert(*hash));
}

/// The six bit numbers of a hash in a filter of `len` bytes (not 0): two remainders, not six.
fn bits(hash: u64, len: usize) -> impl Iterator<Item = u64> {
    bits_by(hash, Remainder::by(to_u64(len) * 8))
}

fn bits_by(hash: u64, remainder: Remainder) -> impl Iterator<Item = u64> {
    let m = remainder.divisor;
    let (mut bit, step) = (remainder.of(hash & 0xffff_ffff), remainder.of((hash >> 32) | 1));
    (0..HASHES).map(move |_| {
        let this = bit;
        bit += step;
        if bit >= m {
            bit -= m;
        }
        this
    })
}

/// Remainders by one divisor without dividing each time (Lemire, Kaser and Kurz, "Faster remainder by direct
/// computation", 2019): exact for
/// numbers and divisors of 32 bits; a larger divisor leaves such a number as it is.
#[derive(Clone, Copy)]
struct Remainder {
    divisor: u64,
    /// 2^64 / divisor, rounded up.
    reciprocal: u64,
}

impl Remainder {
    fn by(divisor: u64) -> Remainder {
        let reciprocal = (u64::MAX / divisor).wrapping_add(1);
        Remainder { divisor, reciprocal }
    }

    #[inline]
    fn of(self, number: u64) -> u64 {
        if self.divisor > u64::from(u32::MAX) {
            return number;
        }
        let fraction = u128::from(self.reciprocal.wrapping_mul(number));
        u64::try_from((fraction * u128::from(self.divisor)) >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_hash_is_left_once(hashes in prop::collection::vec(0..300_u64, 0..3 * FEW)) {
            let mut left = hashes.clone();
            keep_distinct(&mut left);
            left.sort_unstable();
            let expected: std::collections::BTreeSet<u64> = hashes.into_iter().collect();
            prop_assert_eq!(left, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_remainder_is_that_of_a_division(divisor in 1..1_u64 << 34, near in 0..8_u64, number: u32) {
            let multiple = (u64::from(number) / divisor * divisor).wrapping_add(near).wrapping_sub(4);
            for number in [u64::from(number), multiple & 0xffff_ffff] {
                prop_assert_eq!(Remainder::by(divisor).of(number), number % divisor);
                let small = divisor % 10_000 + 1;
                prop_assert_eq!(Remainder::by(small).of(number), number % small);
            }
        }
    }
}
