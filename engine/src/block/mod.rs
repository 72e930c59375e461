//! Blocks: the unit of writing, checksum and group commit (docs/format.md, "Block").
//!
//! ```text
//! | header, 128 bytes | filter | body: frames, 8-byte aligned | zero padding |
//! ```
//!
//! Trust grows in steps: raw bytes → [`BlockHeader::parse`] (magic, version, header CRC, lengths that
//! agree) → [`Block::check`] (the whole block is there, body CRC) → [`Block::frames`]. Nothing of a
//! header is used before its CRC, nothing of a body before its own. This module touches no files.

mod build;
mod filter;
mod header;

pub(crate) use build::BlockInPieces;
pub(crate) use build::lost_block;
pub use build::{BlockBuilder, Seal, SealedBlock};
pub use filter::StreamFilter;
pub(crate) use filter::keep_distinct;
pub use header::{BlockFault, BlockHeader, BlockKind, HEADER_LEN, Owner};

use crate::frame::FrameRef;
use crate::width::{to_u64, to_usize};
use crate::{Chain, Error, Lsn, Result};

/// Largest block in bytes, header included: 1 GiB.
pub const MAX_BLOCK_LEN: u32 = 1 << 30;

/// A block whose header and body checksums were verified.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    header: BlockHeader,
    filter: &'a [u8],
    body: &'a [u8],
}

impl<'a> Block<'a> {
    /// Verifies a whole block at the start of `bytes`.
    ///
    /// # Errors
    /// The [`BlockFault`] that says why the bytes are not a block.
    pub fn check(bytes: &'a [u8]) -> Result<Block<'a>, BlockFault> {
        let header = BlockHeader::parse(bytes)?;
        Block::check_body(header, bytes)
    }

    /// Verifies filter and body of a block whose header was parsed from the start of `bytes`, which
    /// hold the whole block, its padding included. Padding is not verified: it means nothing.
    ///
    /// # Errors
    /// `Truncated`, `FilterChecksum` or `BodyChecksum`.
    pub fn check_body(header: BlockHeader, bytes: &'a [u8]) -> Result<Block<'a>, BlockFault> {
        header.check_contents(bytes)?;
        Block::checked_before(header, bytes).ok_or(BlockFault::Truncated)
    }

    /// A block that this handle has verified before, from the same bytes.
    #[inline]
    pub(crate) fn checked_before(header: BlockHeader, bytes: &'a [u8]) -> Option<Block<'a>> {
        let filter = bytes.get(HEADER_LEN..header.body_range().start)?;
        Some(Block {
            header,
            filter,
            body: bytes.get(header.body_range())?,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// True unless the block surely has no event of the stream with this hash.
    #[must_use]
    pub fn may_contain(&self, stream_hash: u64) -> bool {
        StreamFilter::new(self.filter).may_contain(stream_hash, self.header.event_count)
    }

    /// LSN of the first frame.
    #[must_use]
    pub fn first_frame_lsn(&self) -> Lsn {
        self.header.first_frame_lsn()
    }

    /// The chain after this block.
    #[must_use]
    pub fn chain_after(&self) -> Chain {
        self.header.chain_after()
    }

    /// The frames in order, each checked against the bounds of the body.
    pub fn frames(&self) -> Frames<'a> {
        Frames {
            block: *self,
            rest: self.body,
            lsn: self.first_frame_lsn(),
        }
    }

    /// The frame whose first byte stands at `lsn`, which is a boundary; `None` behind the last.
    pub(crate) fn frame_from(&self, lsn: Lsn) -> Result<Option<FrameRef<'a>>> {
        let offset = to_usize(lsn.since(self.first_frame_lsn()));
        match self.body.get(offset..) {
            Some([]) | None => Ok(None),
            Some(rest) => FrameRef::parse(rest, lsn, &self.header).map(|(frame, _)| Some(frame)),
        }
    }

    /// The frame that begins at `lsn`.
    ///
    /// # Errors
    /// `Invalid` when no frame of this block begins there; `Corrupt` when the frames before it do not parse.
    pub fn frame_at(&self, lsn: Lsn) -> Result<FrameRef<'a>> {
        for frame in self.frames() {
            let frame = frame?;
            if frame.lsn() == lsn {
                return Ok(frame);
            }
        }
        Err(Error::invalid("no frame begins here").at_lsn(lsn))
    }
}

impl<'a> Block<'a> {
    /// The frame at `lsn`, as an index tells it: parsed there at once, without a walk over the frames
    /// before it.
    ///
    /// # Errors
    /// `Corrupt` when nothing that fits the block's bounds lies there.
    pub fn frame_known_at(&self, lsn: Lsn) -> Result<FrameRef<'a>> {
        let bad = || Error::corrupt("no frame begins where the index says").at_lsn(lsn);
        let first = self.first_frame_lsn();
        if lsn < first {
            return Err(bad());
        }
        let rest = self.body.get(to_usize(lsn.since(first))..).ok_or_else(bad)?;
        Ok(FrameRef::parse(rest, lsn, &self.header)?.0)
    }
}

/// Frames of one block.
pub struct Frames<'a> {
    block: Block<'a>,
    rest: &'a [u8],
    lsn: Lsn,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<FrameRef<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match FrameRef::parse(self.rest, self.lsn, &self.block.header) {
            Ok((frame, rest)) => {
                self.lsn = self.lsn.plus(to_u64(self.rest.len() - rest.len()));
                self.rest = rest;
                Some(Ok(frame))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
