//! The stream filter of a block: a Bloom filter (B. H. Bloom, 1970) with double hashing (Kirsch and
//! Mitzenmacher, 2006), so that a scan for one stream can pass a block by its header.
//!
//! `m` = bits of the filter, hash = XXH3-64 of the stream's name, a = low half, b = high half | 1.
//! Bit i of six is (a + i * b) mod m; bit n is bit (n mod 8) of byte (n div 8). At ten bits for each
//! distinct stream about one foreign block in a hundred is read for nothing.

use crate::width::{align8, to_u64, to_usize};

const HASHES: u64 = 6;
const BITS_PER_STREAM: usize = 10;

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

    /// Marks a stream in a filter that is being built.
    pub(crate) fn insert(bytes: &mut [u8], stream_hash: u64) {
        for bit in bits(stream_hash, bytes.len()) {
            if let Some(byte) = bytes.get_mut(to_usize(bit / 8)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
}

/// The six bit numbers of a hash in a filter of `len` bytes (not 0): two divisions, not six.
fn bits(hash: u64, len: usize) -> impl Iterator<Item = u64> {
    let m = to_u64(len) * 8;
    let (mut bit, step) = ((hash & 0xffff_ffff) % m, ((hash >> 32) | 1) % m);
    (0..HASHES).map(move |_| {
        let this = bit;
        bit += step;
        if bit >= m {
            bit -= m;
        }
        this
    })
}
