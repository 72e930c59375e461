//! [`Cursor`]: reads a segment by pread, for recovery and repair, which must see an unreadable disk as
//! an error. A long block alone is read where it is mapped, once all of it was brought in: it may be longer than memory is to be had.

use std::io;
use std::sync::Arc;

use crate::block::{Block, BlockFault, BlockHeader, HEADER_LEN};
use crate::planted::{self, Bug};
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Chain, Error, Lsn, Result};

use super::segment::{Segment, SegmentDir};
use crate::storage::Window;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// A block of more bytes is not read into the buffer.
const LONG: usize = 4 << 20;

/// Bytes looked at together when most are zeros; a multiple of 8.
const PIECE: usize = 4096;

/// True when all bytes are zero: compared piece by piece, because most of a fresh segment is.
fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PIECE] = [0; PIECE];
    bytes
        .chunks(PIECE)
        .all(|piece| ZEROS.get(..piece.len()) == Some(piece))
}

/// A buffered reader of one segment.
pub(crate) struct Cursor {
    dir: Arc<SegmentDir>,
    segment: Arc<Segment>,
    buffer: Vec<u8>,
    /// How many bytes of the buffer were read: it keeps its length, because filling what is read over with zeros
    /// before costs as much as a check does.
    filled: usize,
    /// Offset in the file of the buffer's first byte.
    start: u64,
    /// A block that is too long for the buffer.
    long: Option<Window>,
}

/// What stands at a position.
pub(crate) enum Found<'a> {
    /// A block that continues the log.
    Block(Block<'a>, &'a [u8]),
    /// Something else, with the reason.
    Nothing(String),
}

impl Cursor {
    pub(crate) fn new(dir: &Arc<SegmentDir>, segment: &Arc<Segment>) -> Cursor {
        Cursor {
            dir: Arc::clone(dir),
            segment: Arc::clone(segment),
            buffer: Vec::new(),
            filled: 0,
            start: 0,
            long: None,
        }
    }

    pub(super) fn dir(&self) -> &Arc<SegmentDir> {
        &self.dir
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Up to `len` bytes at an offset of the file; fewer at its end.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let have = to_u64(self.filled);
        if offset < self.start || offset + to_u64(len) > self.start + have {
            self.fill(offset, len)?;
        }
        let from = to_usize(offset - self.start).min(self.filled);
        let to = (from + len).min(self.filled);
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }

    /// Reads on from `offset`. What the buffer holds of it already is kept: a block that reaches beyond the
    /// buffer is not read twice.
    fn fill(&mut self, offset: u64, len: usize) -> Result<()> {
        let passed = offset.checked_sub(self.start).map_or(usize::MAX, to_usize);
        let kept = self.filled.saturating_sub(passed);
        if kept > 0 {
            self.buffer.copy_within(passed..self.filled, 0);
        }
        let room = to_usize(self.segment.len().saturating_sub(offset));
        let mut wanted = kept.max(len.max(CHUNK).min(room));
        (self.start, self.filled) = (offset, 0);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let read_up_to = |buffer: &mut Vec<u8>, wanted| {
            let rest = buffer.get_mut(kept..wanted).unwrap_or_default();
            self.segment.file.read_at(rest, offset + to_u64(kept))
        };
        let mut read = read_up_to(&mut self.buffer, wanted);
        if read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
        {
            // Damage behind what is asked for hides nothing that stands before it.
            wanted = kept.max(len.min(room));
            read = read_up_to(&mut self.buffer, wanted);
        }
        match read {
            Ok(read) => {
                self.filled = kept + read;
                Ok(())
            }
            Err(error) => {
                let (at, path) = (self.segment.first.plus(offset), self.dir.path(&self.segment));
                Err(self.dir.unreadable("read a segment", path, at, error))
            }
        }
    }

    /// The block at position `at`, when it is whole, valid, and continues `chain` (when that is known).
    pub(crate) fn block(&mut self, at: Lsn, chain: Option<Chain>) -> Result<Found<'_>> {
        let offset = self.segment.offset(at);
        let header = match BlockHeader::parse(self.bytes(offset, HEADER_LEN)?) {
            Ok(header) => header,
            Err(fault) => return self.fault(at, fault),
        };
        let ours = header.lsn == at
            && header.kind == self.dir.kind()
            && header.owner == self.dir.owner()
            && (chain.is_none_or(|chain| chain == header.chain) || planted::is(Bug::StaleBytesBehindCut));
        if !ours {
            return Ok(Found::Nothing(
                "a block of another place or history stands here".to_owned(),
            ));
        }
        let len = u32_to_usize(header.block_len);
        if header.end() > self.segment.end() {
            return Ok(Found::Nothing(
                "the block reaches beyond the segment's file".to_owned(),
            ));
        }
        let bytes = if len > LONG {
            self.mapped(at, len)?
        } else {
            self.bytes(offset, len)?
        };
        match Block::check_body(header, bytes) {
            Ok(block) => Ok(Found::Block(block, bytes)),
            Err(fault) => Ok(Found::Nothing(fault.to_string())),
        }
    }

    /// Bytes of the file where they are mapped.
    fn mapped(&mut self, at: Lsn, len: usize) -> Result<&[u8]> {
        let until = at.plus(to_u64(len));
        let window = self.segment.window(at, until, until);
        let path = || self.dir.path(&self.segment);
        let window = window.map_err(|error| self.dir.unreadable("read a segment", path(), at, error))?;
        Ok(self.long.insert(window))
    }

    /// A version that this program does not know is no damage and no tail: nothing is cut (E3).
    fn fault(&self, at: Lsn, fault: BlockFault) -> Result<Found<'_>> {
        if let BlockFault::Version { .. } = fault {
            return Err(Error::invalid(fault.to_string())
                .at_path(self.dir.path(&self.segment))
                .at_lsn(at));
        }
        Ok(Found::Nothing(fault.to_string()))
    }

    /// Why nothing stands at `at`, in more words than `reason` when a file seems to be missing.
    pub(crate) fn explained(&mut self, at: Lsn, reason: String) -> Result<String> {
        let here = self.bytes(self.segment.offset(at), HEADER_LEN)?;
        if !is_zero(here) {
            return Ok(reason);
        }
        Ok(self.dir.gap(self.segment.first, at)?.unwrap_or(reason))
    }

    /// The header of this store that stands at `at`, when it is whole.
    pub(crate) fn header_at(&mut self, at: Lsn) -> Result<Option<BlockHeader>> {
        let (owner, kind, offset) = (self.dir.owner(), self.dir.kind(), self.segment.offset(at));
        let header = BlockHeader::parse(self.bytes(offset, HEADER_LEN)?).ok();
        Ok(header.filter(|header| header.lsn == at && header.owner == owner && header.kind == kind))
    }

    /// The first header of this store at or behind `from`, wherever it stands below `limit`.
    pub(crate) fn next_header(&mut self, from: Lsn, limit: Lsn) -> Result<Option<BlockHeader>> {
        let mut found = None;
        self.headers_behind(from, &mut |header| {
            found = (header.lsn < limit).then_some(*header);
            false
        })?;
        Ok(found)
    }

    /// Highest `durable` named by any header of this store at or behind `from`, wherever it stands.
    pub(crate) fn durable_behind(&mut self, from: Lsn) -> Result<Lsn> {
        let mut highest = Lsn::ZERO;
        self.headers_behind(from, &mut |header| {
            // No writer knows more to be durable than what stands before its block.
            highest = highest.max(header.durable.min(header.lsn));
            true
        })?;
        Ok(highest)
    }

    /// Shows the headers of this store at or behind `from`, wherever they stand, until `visit` is content.
    fn headers_behind(&mut self, from: Lsn, visit: &mut dyn FnMut(&BlockHeader) -> bool) -> Result<()> {
        let mut offset = self.segment.offset(from);
        while offset + to_u64(HEADER_LEN) <= self.segment.len() {
            let (first, owner, kind) = (self.segment.first, self.dir.owner(), self.dir.kind());
            let chunk = self.bytes(offset, CHUNK)?;
            if chunk.len() < HEADER_LEN {
                break;
            }
            let steps = (chunk.len() - HEADER_LEN) / 8 + 1;
            // A header's first bytes are its magic: none begins in a piece of zeros.
            for (number, piece) in chunk
                .chunks(PIECE)
                .enumerate()
                .filter(|(_, piece)| !is_zero(piece))
            {
                let piece_at = number * PIECE;
                for at in (piece_at..piece_at + piece.len())
                    .step_by(8)
                    .take_while(|at| *at < steps * 8)
                {
                    let Ok(header) = BlockHeader::parse(chunk.get(at..).unwrap_or_default()) else {
                        continue;
                    };
                    let here = first.plus(offset + to_u64(at));
                    let ours = header.lsn == here && header.owner == owner && header.kind == kind;
                    if ours && !visit(&header) {
                        return Ok(());
                    }
                }
            }
            offset += to_u64(steps * 8);
        }
        Ok(())
    }

    /// True when any byte from `from` to the end of the file is not zero.
    pub(crate) fn dirty_behind(&mut self, from: Lsn) -> Result<bool> {
        let mut offset = self.segment.offset(from);
        while offset < self.segment.len() {
            let chunk = self.bytes(offset, CHUNK)?;
            if chunk.is_empty() {
                break;
            }
            let (used, zero) = (to_u64(chunk.len()), is_zero(chunk));
            if !zero {
                return Ok(true);
            }
            offset += used;
        }
        Ok(false)
    }

    /// The file, for messages.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path(&self.segment)
    }

    pub(crate) fn corrupt(&self, at: Lsn, what: &str) -> Error {
        let offset = self.segment.offset(at);
        Error::corrupt(format!(
            "{what}, {offset} bytes into the segment, below what is known to have been durable; {}",
            self.dir.advice()
        ))
        .at_path(self.dir.path(&self.segment))
        .at_lsn(at)
    }
}
