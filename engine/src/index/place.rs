//! Where things lie: [`Posting`] (8 bytes, as kept), [`Location`] of an event and [`BlockPlace`] (as
//! told).
//!
//! Segments, frames and events are 8-byte aligned, so both halves of a posting count in units of 8
//! bytes and reach 32 GiB.

use crate::{Chain, Error, Lsn, Result, StreamVersion};

/// Length of an encoded posting in bytes.
pub(super) const POSTING_LEN: usize = 8;

const UNIT: u64 = 8;

/// An event's frame, from the segment's start, and the event, from the frame's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Posting {
    frame: u32,
    event: u32,
}

impl Posting {
    /// Keeps a place; fails when it cannot be expressed, which no writer of ours makes.
    pub(super) fn new(segment: Lsn, frame: Lsn, event_at: u32) -> Result<Posting> {
        let bad = || Error::corrupt("a frame or event is not aligned to 8 bytes").at_lsn(frame);
        let offset = frame.since(segment);
        if !offset.is_multiple_of(UNIT) || !u64::from(event_at).is_multiple_of(UNIT) {
            return Err(bad());
        }
        let units = |bytes: u64| u32::try_from(bytes / UNIT).map_err(|_| bad());
        Ok(Posting {
            frame: units(offset)?,
            event: units(u64::from(event_at))?,
        })
    }

    /// LSN of the frame.
    pub(super) fn frame(self, segment: Lsn) -> Lsn {
        segment.plus(u64::from(self.frame) * UNIT)
    }

    /// The place in full; `None` when the event's half exceeds a frame's length field.
    pub(super) fn locate(self, segment: Lsn, version: u64) -> Option<Location> {
        let event_at = u32::try_from(u64::from(self.event) * UNIT).ok()?;
        Some(Location {
            segment,
            frame: self.frame(segment),
            event_at,
            version: StreamVersion(version),
        })
    }

    /// As written.
    pub(super) fn to_bytes(self) -> [u8; POSTING_LEN] {
        (u64::from(self.frame) | u64::from(self.event) << 32).to_le_bytes()
    }

    /// As read.
    pub(super) fn from_bytes(bytes: [u8; POSTING_LEN]) -> Posting {
        let [f0, f1, f2, f3, e0, e1, e2, e3] = bytes;
        Posting {
            frame: u32::from_le_bytes([f0, f1, f2, f3]),
            event: u32::from_le_bytes([e0, e1, e2, e3]),
        }
    }
}

/// Where one event of a stream lies. Read it with `Index::block_holding(frame)`, a walk of block
/// headers from there to the block that holds `frame`, `Block::frame_known_at(frame)` and
/// `FrameRef::event_at(event_at)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// First LSN of the segment.
    pub segment: Lsn,
    /// LSN of the transaction's frame.
    pub frame: Lsn,
    /// Distance of the event from the frame's first byte, in bytes.
    pub event_at: u32,
    /// The event's version in its stream.
    pub version: StreamVersion,
}

/// A block that the index knows, at or a little before the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// First LSN of the segment.
    pub segment: Lsn,
    /// LSN of the block.
    pub lsn: Lsn,
    /// Chain before the block.
    pub chain: Chain,
}

/// A block's distance from its segment's start, and the chain before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockEntry {
    /// Distance in bytes.
    pub(super) offset: u64,
    /// Chain before the block.
    pub(super) chain: Chain,
}

impl BlockEntry {
    /// Blocks nearer to their predecessor in the table than this are left out: a walk of headers from
    /// the entry before finds them.
    pub(super) const SPACING: u64 = 16 << 10;

    /// The place in full.
    pub(super) fn place(self, segment: Lsn) -> BlockPlace {
        BlockPlace {
            segment,
            lsn: segment.plus(self.offset),
            chain: self.chain,
        }
    }
}
