//! [`Part`]: a piece of a transaction that is longer than a message, and [`Joiner`], which joins pieces.
//!
//! ```text
//! 0   len 4 | kind 1 | flags 1 | reserved 2      item head
//! 8   epoch 8 | at 8 | back 8 | chain 8          point of the transaction
//! 40  offset 8 | total 8                         of the piece / of the whole encoding, in bytes
//! 56  digest 16                                  XXH3-128 of the whole uncompressed encoding
//! 72  piece_len 4 | reserved 4
//! 80  piece, padded to 8
//! ```
//!
//! What is cut is the transaction's encoding as [`Carried`] draws it. Pieces join under one digest only:
//! cuts of different lengths of one encoding fit together, pieces of two encodings never do. The whole is
//! checked against the digest before anything of it is decoded.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use bytes::Bytes;
use milepost_engine::width::{align8, to_u64, to_usize, u32_to_usize};

use super::bytes::{Front, Put};
use super::carried::ITEM_HEAD;
use super::{Carried, MessageFault, Point};

/// Kind of an item: a piece of a transaction.
pub(super) const KIND_PART: u8 = 2;
/// Length of a part besides its piece in bytes.
pub(super) const PART_HEAD: usize = ITEM_HEAD + Point::LEN + 16 + 16 + 8;

/// The beginning of a transaction's encoding: what is here of it, or has gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pieces {
    /// The transaction's place in its sender's stream.
    pub point: Point,
    /// XXH3-128 of the encoding.
    pub digest: u128,
    /// Length of the encoding in bytes.
    pub total: u64,
    /// Bytes of it from its beginning on, without a hole; more than none and fewer than all.
    pub bytes: u64,
}

impl Pieces {
    /// Length of its encoding in bytes.
    pub(super) const LEN: usize = Point::LEN + 32;

    /// All of an encoding up to the end of a part.
    #[must_use]
    pub fn up_to(part: &Part) -> Pieces {
        Pieces {
            point: part.point,
            digest: part.digest,
            total: part.total,
            bytes: part.end(),
        }
    }

    /// True when a part is of this encoding.
    #[must_use]
    pub fn is_of(&self, part: &Part) -> bool {
        (self.point, self.digest, self.total) == (part.point, part.digest, part.total)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.point.put(out);
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.put_u64(self.total);
        out.put_u64(self.bytes);
    }

    pub(super) fn take(front: &mut Front<'_>) -> Option<Pieces> {
        let point = Point::take(front)?;
        let digest = u128::from_le_bytes(front.bytes(16)?.try_into().ok()?);
        let (total, bytes) = (front.u64()?, front.u64()?);
        let pieces = Pieces {
            point,
            digest,
            total,
            bytes,
        };
        Some(pieces).filter(|_| bytes > 0 && bytes < total)
    }
}

/// A piece of a transaction's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The transaction's place in the sender's stream.
    pub point: Point,
    /// Where the piece begins in the encoding, in bytes.
    pub offset: u64,
    /// Length of the encoding in bytes.
    pub total: u64,
    /// XXH3-128 of the encoding.
    pub digest: u128,
    /// The piece, never empty.
    pub piece: Bytes,
}

impl Part {
    /// The digest under which pieces of `encoding` join.
    #[must_use]
    pub fn digest_of(encoding: &[u8]) -> u128 {
        xxhash_rust::xxh3::xxh3_128(encoding)
    }

    /// As [`Part::digest_of`], of an encoding that is in two places.
    pub(super) fn digest_of_two(front: &[u8], rest: &[u8]) -> u128 {
        let mut digest = xxhash_rust::xxh3::Xxh3::new();
        digest.update(front);
        digest.update(rest);
        digest.digest128()
    }

    /// Length of its encoding in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        PART_HEAD + align8(self.piece.len())
    }

    /// Where the piece ends in the encoding, in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(to_u64(self.piece.len()))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (Ok(len), Ok(piece_len)) = (u32::try_from(self.encoded_len()), u32::try_from(self.piece.len()))
        else {
            unreachable!("a piece fits a message, which is bounded far below 4 GiB")
        };
        out.put_u32(len);
        out.extend_from_slice(&[KIND_PART, 0, 0, 0]);
        self.point.put(out);
        out.put_u64(self.offset);
        out.put_u64(self.total);
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.put_u32(piece_len);
        out.put_u32(0);
        out.put_padded(&self.piece);
    }

    /// Decodes one that fills `bytes` exactly, head included.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Part, MessageFault> {
        let bad = MessageFault::Contradiction("a part of a transaction cannot be read");
        let part = Part::take(bytes).ok_or(bad)?;
        if part.piece.is_empty() || part.end() > part.total {
            return Err(MessageFault::Contradiction(
                "a part lies outside of its transaction",
            ));
        }
        Ok(part)
    }

    fn take(bytes: &Bytes) -> Option<Part> {
        let mut front = Front(bytes);
        let len = front.u32()?;
        let [KIND_PART, 0, 0, 0] = front.array()? else {
            return None;
        };
        let point = Point::take(&mut front).filter(|point| !point.is_none())?;
        let (offset, total) = (front.u64()?, front.u64()?);
        let digest = front.array().map(u128::from_le_bytes)?;
        let piece_len = u32_to_usize(front.u32()?);
        front.u32().filter(|reserved| *reserved == 0)?;
        let piece = bytes.slice_ref(front.padded(piece_len)?);
        let whole = front.is_empty() && u64::from(len) == to_u64(bytes.len());
        whole.then_some(Part {
            point,
            offset,
            total,
            digest,
            piece,
        })
    }
}

/// Joins the pieces of one transaction at a time; in memory, so what it holds also stays on the link.
///
/// Bounded by the bytes given to [`Joiner::new`]; a larger transaction is refused by name. Pieces of several
/// encodings of the transaction may be under way at once: what a remote is due of it can change while its
/// parts travel, and messages of both cuts then wait on the link side by side.
#[derive(Clone, Debug, Default)]
pub struct Joiner {
    limit: u64,
    /// Encodings of one transaction, the one that grew last behind the others.
    under_way: Vec<UnderWay>,
}

/// Encodings that are joined side by side.
const ENCODINGS_MAX: usize = 4;

#[derive(Clone, Debug)]
struct UnderWay {
    point: Point,
    digest: u128,
    total: u64,
    /// Bytes by offset; none is held twice.
    pieces: BTreeMap<u64, Bytes>,
    held: u64,
}

/// What a part did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// More pieces are missing. The message stays on the link.
    Waiting,
    /// The transaction is whole and its digest right.
    Whole(Carried),
}

impl Joiner {
    /// A joiner of transactions of at most `limit` bytes encoded.
    #[must_use]
    pub fn new(limit: u64) -> Joiner {
        Joiner {
            limit,
            under_way: Vec::new(),
        }
    }

    /// Bytes held, never more than the limit.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.under_way.iter().map(|under_way| under_way.held).sum()
    }

    /// Forgets what is held; it is still on the link.
    pub fn clear(&mut self) {
        self.under_way.clear();
    }

    /// Takes a piece. What is held of another transaction goes: that one was applied since. Where the limit
    /// is reached, the encoding goes that has not grown for the longest time.
    ///
    /// # Errors
    /// `TooLarge` when the transaction exceeds the limit; nothing is held of it. `Contradiction` when all
    /// pieces are there and do not make a transaction with that digest and point; they are forgotten.
    pub fn join(&mut self, part: &Part) -> Result<Joined, MessageFault> {
        if part.total > self.limit {
            return Err(MessageFault::TooLarge {
                claimed: part.total,
                limit: self.limit,
            });
        }
        self.under_way.retain(|under_way| under_way.point == part.point);
        let same = |under_way: &UnderWay| (under_way.digest, under_way.total) == (part.digest, part.total);
        let mut under_way = match self.under_way.iter().position(same) {
            Some(at) => self.under_way.remove(at),
            None => UnderWay {
                point: part.point,
                digest: part.digest,
                total: part.total,
                pieces: BTreeMap::new(),
                held: 0,
            },
        };
        under_way.keep(part);
        if under_way.held == under_way.total {
            let carried = under_way.check()?;
            self.clear();
            return Ok(Joined::Whole(carried));
        }
        let room = |joiner: &Joiner| {
            joiner.under_way.len() < ENCODINGS_MAX && joiner.held() + under_way.held <= joiner.limit
        };
        while !self.under_way.is_empty() && !room(self) {
            self.under_way.remove(0);
        }
        self.under_way.push(under_way);
        Ok(Joined::Waiting)
    }
}

impl UnderWay {
    /// Keeps those bytes of a piece that are not held yet, so that what is held never exceeds the total,
    /// however the pieces overlap.
    fn keep(&mut self, part: &Part) {
        let mut at = part.offset;
        while at < part.end() {
            let before = self.pieces.range(..=at).next_back();
            let covered = before.map_or(0, |(start, piece)| start.saturating_add(to_u64(piece.len())));
            if covered > at {
                at = covered;
                continue;
            }
            let next = self
                .pieces
                .range(at..)
                .next()
                .map_or(u64::MAX, |(start, _)| *start);
            let (from, to) = (
                to_usize(at - part.offset),
                to_usize(next.min(part.end()) - part.offset),
            );
            let Some(own) = part.piece.get(from..to) else {
                return;
            };
            self.held += to_u64(own.len());
            self.pieces.insert(at, Bytes::copy_from_slice(own));
            at += to_u64(own.len());
        }
    }

    /// The transaction, of which no byte is missing.
    fn check(self) -> Result<Carried, MessageFault> {
        let encoding: Vec<u8> = self.pieces.into_values().flatten().collect();
        if Part::digest_of(&encoding) != self.digest {
            return Err(MessageFault::Contradiction(
                "the parts of a transaction do not have its digest",
            ));
        }
        let carried = Carried::decode(&encoding)?;
        if carried.point != self.point {
            return Err(MessageFault::Contradiction(
                "the parts of a transaction tell another position",
            ));
        }
        Ok(carried)
    }
}
