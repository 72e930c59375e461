//! Frames: the records of the log, readable in place (docs/format.md, "Frame").
//!
//! ```text
//! 0  len 4 | kind 1 | flags 1 | reserved 2
//! 8  time 8
//! 16 seq 8
//! 24 body_at 4 | count 4
//! 32 sections: origin, via, pinned, committed_at (those that flags names) | body | zero padding to 8
//! ```
//!
//! `count` is the number of events of a `Transaction` and the body's length in bytes of every other
//! kind. Kinds that this program does not know are carried and shown, never decoded. Bytes come from
//! a block whose checksum was verified; every length is checked again, because a checksum is no proof
//! of good will.

mod encode;
mod encoded;
mod event;
mod sections;

pub use encode::{EncodedFrame, NewFrame};
pub use encoded::EncodedEvents;
pub use event::{EventRef, Events, HeadersRef, encode_headers, event_check};
pub use sections::{Origin, OriginRef, Pinned, PinnedRef, Via, ViaRef};

use crate::block::BlockHeader;
use crate::width::{to_u64, u32_to_usize};
use crate::{Epoch, Error, Lsn, Result, TransactionId};

/// Length of a frame's fixed part in bytes.
pub const FRAME_HEADER_LEN: usize = 32;

pub(crate) const FLAG_ORIGIN: u8 = 1;
pub(crate) const FLAG_VIA: u8 = 2;
pub(crate) const FLAG_PINNED: u8 = 4;
pub(crate) const FLAG_COMMITTED_AT: u8 = 8;
const KNOWN_FLAGS: u8 = FLAG_ORIGIN | FLAG_VIA | FLAG_PINNED | FLAG_COMMITTED_AT;

/// The sections that a frame has.
struct Sections<'a> {
    origin: Option<OriginRef<'a>>,
    via: Option<ViaRef<'a>>,
    pinned: Option<&'a [u8]>,
    committed_at: Option<i64>,
}

/// Kind of a frame. The engine knows the named ones; the ranges belong to the crates above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u8);

impl FrameKind {
    /// Events that commit together.
    pub const TRANSACTION: FrameKind = FrameKind(1);
    /// A piece of a transaction that does not fit a frame. Without its `Commit` it is dead.
    pub const PART: FrameKind = FrameKind(2);
    /// Ends a transaction of parts; the transaction's LSN is this frame's.
    pub const COMMIT: FrameKind = FrameKind(3);
    /// A record that others wait for; its token is its LSN.
    pub const MARKER: FrameKind = FrameKind(4);
    /// Pinned records of the engine itself: lineage epochs and the like.
    pub const CONTROL: FrameKind = FrameKind(5);

    /// First kind of replication's range, 64 to 127.
    pub const REPLICATION_FIRST: u8 = 64;
    /// First kind of the message store's range, 128 to 159.
    pub const MESSAGE_STORE_FIRST: u8 = 128;
    /// First kind of the stable queue's range, 160 to 175.
    pub const QUEUE_FIRST: u8 = 160;

    /// A short name for people, for the kinds the engine knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FrameKind::TRANSACTION => "transaction",
            FrameKind::PART => "part",
            FrameKind::COMMIT => "commit",
            FrameKind::MARKER => "marker",
            FrameKind::CONTROL => "control",
            FrameKind(64..=127) => "replication",
            FrameKind(128..=159) => "message-store",
            FrameKind(160..=175) => "queue",
            FrameKind(_) => "unknown",
        }
    }
}

/// A frame of a verified block, with its bounds checked.
#[derive(Clone, Copy)]
pub struct FrameRef<'a> {
    bytes: &'a [u8],
    lsn: Lsn,
    epoch: Epoch,
    nonce: u64,
    kind: FrameKind,
    flags: u8,
    time: i64,
    seq: u64,
    body_at: usize,
    count: u32,
}

impl<'a> FrameRef<'a> {
    /// Reads the frame at the start of `bytes`, which begin at `lsn`; returns it and what follows.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8], lsn: Lsn, block: &BlockHeader) -> Result<(FrameRef<'a>, &'a [u8])> {
        let bad = || Error::corrupt("a frame contradicts its block's bounds").at_lsn(lsn);
        let fixed: &[u8; FRAME_HEADER_LEN] = bytes.first_chunk().ok_or_else(bad)?;
        let [l0, l1, l2, l3, kind, flags, _, _, rest @ ..] = *fixed;
        let [
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            rest @ ..,
        ] = rest;
        let [b0, b1, b2, b3, c0, c1, c2, c3] = rest;
        let len = u32_to_usize(u32::from_le_bytes([l0, l1, l2, l3]));
        let body_at = u32_to_usize(u32::from_le_bytes([b0, b1, b2, b3]));
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        let agrees = len.is_multiple_of(8)
            && len <= bytes.len()
            && body_at >= FRAME_HEADER_LEN
            && body_at <= len
            && (kind == FrameKind::TRANSACTION.0 || u32_to_usize(count) <= len - body_at);
        if !agrees {
            return Err(bad());
        }
        let (own, rest) = bytes.split_at(len);
        let frame = FrameRef {
            bytes: own,
            lsn,
            epoch: block.epoch,
            nonce: block.nonce,
            kind: FrameKind(kind),
            flags,
            time: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            seq: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            body_at,
            count,
        };
        Ok((frame, rest))
    }

    /// LSN of the frame: of its first byte.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Lineage epoch in which it was written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Writer's wall clock when it was appended here, microseconds since 1970. For people; decides nothing.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }

    /// When it was first committed, by the clock there: at its origin for a transaction that was received,
    /// [`FrameRef::time`] for one that was committed here. Microseconds since 1970, for people.
    ///
    /// # Errors
    /// `Corrupt` when the section contradicts the frame's bounds.
    pub fn committed_at(&self) -> Result<i64> {
        if self.flags & FLAG_COMMITTED_AT == 0 {
            return Ok(self.time);
        }
        Ok(self.sections()?.committed_at.unwrap_or(self.time))
    }

    /// Identity of the commit at this site.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        TransactionId {
            writer: self.nonce,
            seq: self.seq,
        }
    }

    /// Length of the whole frame in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true; a frame has at least its fixed part.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All bytes of the frame.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of events; 0 for every kind but `Transaction`.
    #[must_use]
    pub fn event_count(&self) -> u32 {
        if self.kind == FrameKind::TRANSACTION {
            self.count
        } else {
            0
        }
    }

    /// The body: a transaction's events encoded, or the opaque bytes of another kind.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        let body = self.bytes.get(self.body_at..).unwrap_or_default();
        if self.kind == FrameKind::TRANSACTION {
            body
        } else {
            body.get(..u32_to_usize(self.count)).unwrap_or_default()
        }
    }

    /// Events of a transaction, in order, each checked against the bounds of the frame. Empty for
    /// other kinds.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        let body = if self.kind == FrameKind::TRANSACTION {
            self.body()
        } else {
            &[]
        };
        Events::new(body, self.event_count(), self.lsn)
    }

    /// The events of a transaction, each with its distance in bytes from the frame's first byte, by
    /// which [`FrameRef::event_at`] finds it again without a walk.
    pub fn events_with_offsets(&self) -> impl Iterator<Item = Result<(u32, EventRef<'a>)>> + use<'a> {
        let (len, lsn) = (self.bytes.len(), self.lsn);
        let mut events = self.events();
        std::iter::from_fn(move || {
            let offset = len - events.remaining();
            let event = events.next()?;
            let offset = u32::try_from(offset)
                .map_err(|_| Error::corrupt("an event lies beyond its frame's length field").at_lsn(lsn));
            Some(event.and_then(|event| Ok((offset?, event))))
        })
    }

    /// The event that begins `offset` bytes behind the frame's first byte, as an index tells it. The
    /// caller compares the stream's name with the one it looks for.
    ///
    /// # Errors
    /// `Corrupt` when no event fits there.
    pub fn event_at(&self, offset: u32) -> Result<EventRef<'a>> {
        let bad = || Error::corrupt("no event begins where the index says").at_lsn(self.lsn);
        let offset = u32_to_usize(offset);
        if self.kind != FrameKind::TRANSACTION || offset < self.body_at {
            return Err(bad());
        }
        let rest = self.bytes.get(offset..).ok_or_else(bad)?;
        Events::new(rest, 1, self.lsn)
            .next()
            .unwrap_or_else(|| Err(bad()))
    }

    /// Where a transaction comes from, when it was not committed here first.
    ///
    /// # Errors
    /// `Corrupt` when the section contradicts the frame's bounds.
    pub fn origin(&self) -> Result<Option<OriginRef<'a>>> {
        Ok(self.sections()?.origin)
    }

    /// The neighbour it was received from, with the position told.
    ///
    /// # Errors
    /// `Corrupt` when the section contradicts the frame's bounds.
    pub fn via(&self) -> Result<Option<ViaRef<'a>>> {
        Ok(self.sections()?.via)
    }

    /// Pinned records, in order.
    ///
    /// # Errors
    /// `Corrupt` when the section contradicts the frame's bounds.
    pub fn pinned(&self) -> Result<Vec<PinnedRef<'a>>> {
        self.sections()?
            .pinned
            .map_or(Ok(Vec::new()), |section| sections::read_pinned(section, self.lsn))
    }

    /// True when the frame carries pinned records.
    #[must_use]
    pub fn has_pinned(&self) -> bool {
        self.flags & FLAG_PINNED != 0
    }

    /// That all sections can be read.
    ///
    /// # Errors
    /// `Corrupt` when one contradicts the frame's bounds.
    pub fn check_sections(&self) -> Result<()> {
        match self.sections()?.pinned {
            Some(section) => sections::read_pinned(section, self.lsn).map(drop),
            None => Ok(()),
        }
    }

    /// The sections, in their order.
    fn sections(&self) -> Result<Sections<'a>> {
        let mut rest = self.bytes.get(FRAME_HEADER_LEN..self.body_at).unwrap_or_default();
        let origin = self.flags & FLAG_ORIGIN != 0;
        let origin = origin.then(|| OriginRef::take(&mut rest, self.lsn)).transpose()?;
        let via = self.flags & FLAG_VIA != 0;
        let via = via.then(|| ViaRef::take(&mut rest, self.lsn)).transpose()?;
        let pinned = self
            .has_pinned()
            .then(|| sections::take_pinned(&mut rest, self.lsn))
            .transpose()?;
        let committed_at = self.flags & FLAG_COMMITTED_AT != 0;
        let committed_at = committed_at
            .then(|| sections::take_time(&mut rest, self.lsn))
            .transpose()?;
        // Sections of a later version follow these and are named by further flags.
        if self.flags & !KNOWN_FLAGS == 0 && !rest.is_empty() {
            return Err(
                Error::corrupt("a frame has bytes between its sections and its body").at_lsn(self.lsn),
            );
        }
        Ok(Sections {
            origin,
            via,
            pinned,
            committed_at,
        })
    }

    /// Offset of the frame behind the start of its segment or any other position at or before it.
    #[must_use]
    pub fn offset_from(&self, start: Lsn) -> u64 {
        self.lsn.since(start)
    }

    /// Position after the frame.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.lsn.plus(to_u64(self.bytes.len()))
    }
}

#[cfg(test)]
mod tests;
