//! Places in the log: [`Lsn`], [`Epoch`], [`Chain`], and the three together as [`Position`].
//!
//! An LSN alone is only meaningful inside one store's directory. Wherever a place leaves the site it
//! travels as a [`Position`], because an LSN of a log that was restored from an older copy names
//! other bytes than before (R5).

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

/// Byte position in the endless logical log. Segment 0 begins at 0; no frame ever has LSN 0, because
/// a block header precedes the first frame, so 0 stands for "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything.
    pub const ZERO: Lsn = Lsn(0);
    /// After everything; used as "no upper bound".
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position `bytes` further on, saturating at [`Lsn::MAX`].
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Lsn {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Lsn)
    }
}

/// Lineage epoch: a random number that changes whenever a store is restored or reset by command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Epoch)
    }
}

/// Running digest of the block headers before a point of the log (docs/format.md, "Chain").
///
/// Two histories that differ in one block differ in the chain from that block on, even when the
/// blocks have the same contents, because each header holds a random word of its writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Chain(pub u64);

impl Chain {
    /// The chain before a store's first block.
    #[must_use]
    pub fn genesis(store: crate::StoreId) -> Chain {
        let [high, low] = store.words();
        Chain(mix64(mix64(0x4d69_6c65_706f_7374, high), low))
    }

    /// The chain after a block, from the chain before it and three fields of its header.
    #[must_use]
    pub fn after(self, header_crc: u32, nonce: u64, lsn: Lsn) -> Chain {
        Chain(mix64(mix64(mix64(self.0, u64::from(header_crc)), nonce), lsn.0))
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in one lineage of one log: what travels between sites and is told back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Position {
    /// Lineage the LSN belongs to.
    pub epoch: Epoch,
    /// LSN of the commit.
    pub lsn: Lsn,
    /// Chain after the block that holds the commit.
    pub chain: Chain,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch, self.lsn, self.chain)
    }
}

/// One step of the chain: for a fixed `state`, different words give different results. Built on the
/// finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const fn mix64(state: u64, word: u64) -> u64 {
    let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ state.rotate_left(41);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
