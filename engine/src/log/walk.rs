//! [`BlockWalk`]: reads the blocks of one log in order, in place, through windows of its mapped
//! segments. Every block is verified, and checked against the one before by LSN, store and chain (E3).

use std::sync::Arc;

use crate::block::{Block, BlockFault, BlockHeader, HEADER_LEN};
use crate::planted::{self, Bug};
use crate::storage::Window;
use crate::width::{to_u64, to_usize};
use crate::{Chain, Error, Lsn, Result};

use super::segment::{Segment, SegmentDir};

/// Bytes brought into memory at a time: 2 MiB.
const WINDOW: u64 = 2 << 20;

/// A position between two blocks, moving forward.
pub(crate) struct BlockWalk {
    dir: Arc<SegmentDir>,
    segment: Arc<Segment>,
    /// Where the next block begins.
    at: Lsn,
    /// Chain that the next block must name; unknown before the first.
    chain: Option<Chain>,
    window: Option<(Lsn, Window)>,
    /// The block that was passed last, when its body was verified.
    last: Option<BlockHeader>,
}

impl BlockWalk {
    /// Starts at the block boundary `at` in `segment`.
    pub(crate) fn new(dir: &Arc<SegmentDir>, segment: Arc<Segment>, at: Lsn) -> BlockWalk {
        BlockWalk {
            dir: Arc::clone(dir),
            segment,
            at,
            chain: None,
            window: None,
            last: None,
        }
    }

    /// Starts before the block that holds position `at`, or at `end` when that is not beyond `at`.
    pub(crate) fn before(dir: &Arc<SegmentDir>, at: Lsn, end: Lsn) -> Result<BlockWalk> {
        let first = dir.first_at_or_before(at.min(end))?;
        let Some(first) = first else {
            return Err(dir.gone(at)?);
        };
        let mut walk = BlockWalk::new(dir, dir.open(first)?, first);
        while let Some(header) = walk.header(end)? {
            if header.end() > at {
                break;
            }
            walk.pass(&header);
        }
        Ok(walk)
    }

    /// Where the next block begins.
    pub(crate) fn at(&self) -> Lsn {
        self.at
    }

    /// First LSN of the segment that holds the block passed last.
    pub(crate) fn segment_first(&self) -> Lsn {
        self.segment.first
    }

    /// Chain before the next block, once a block was passed.
    pub(crate) fn chain(&self) -> Option<Chain> {
        self.chain
    }

    /// Verifies and passes the next block that lies below `end`, a block boundary; false there.
    pub(crate) fn advance(&mut self, end: Lsn) -> Result<bool> {
        let Some(header) = self.header(end)? else {
            return Ok(false);
        };
        self.load(u64::from(header.block_len), end)?;
        if let Err(fault) = Block::check_body(header, self.loaded(header.lsn)) {
            return Err(self.corrupt(header.lsn, &fault.to_string()));
        }
        self.pass(&header);
        self.last = Some(header);
        Ok(true)
    }

    /// The block passed last by [`BlockWalk::advance`].
    pub(crate) fn block(&self) -> Option<Block<'_>> {
        let header = self.last?;
        Block::checked_before(header, self.loaded(header.lsn))
    }

    /// Stands before the block again that [`BlockWalk::advance`] passed last.
    pub(crate) fn step_back(&mut self) {
        if let Some(header) = self.last.take() {
            self.at = header.lsn;
            self.chain = Some(header.chain);
        }
    }

    /// Passes a block by its header alone.
    pub(crate) fn pass(&mut self, header: &BlockHeader) {
        self.at = header.end();
        self.chain = Some(header.chain_after());
        self.last = None;
    }

    /// The header of the next block below `end`, without passing it; `None` at `end`.
    pub(crate) fn header(&mut self, end: Lsn) -> Result<Option<BlockHeader>> {
        if self.at >= end {
            return Ok(None);
        }
        if self.segment.first != self.at && self.dir.known_end(self.segment.first)? == Some(self.at) {
            self.enter()?;
        }
        let found = self.header_here(end);
        if let Ok(Some(header)) = found {
            return Ok(Some(header));
        }
        // The segment holds no block here, so another one begins here, or the log is damaged.
        if self.segment.first != self.at && self.dir.list()?.binary_search(&self.at).is_ok() {
            self.enter()?;
            if let Some(header) = self.header_here(end)? {
                return Ok(Some(header));
            }
        }
        if self.dir.has_freed(self.at)? {
            return Err(self.dir.gone(self.at)?);
        }
        found.and_then(|_| Err(self.missing()))
    }

    /// Nothing stands where the log must go on.
    fn missing(&self) -> Error {
        let gap = self.dir.gap(self.segment.first, self.at).ok().flatten();
        let what = gap.unwrap_or_else(|| "no block begins here, though more was durable".to_owned());
        self.corrupt(self.at, &what)
    }

    /// Goes on in the segment that begins here.
    fn enter(&mut self) -> Result<()> {
        self.segment = self.dir.open(self.at)?;
        self.window = None;
        self.last = None;
        Ok(())
    }

    fn header_here(&mut self, end: Lsn) -> Result<Option<BlockHeader>> {
        if self.segment.end().since(self.at) < to_u64(HEADER_LEN) {
            return Ok(None);
        }
        self.load(to_u64(HEADER_LEN), end)?;
        let header = match BlockHeader::parse(self.loaded(self.at)) {
            Ok(header) => header,
            Err(BlockFault::Zero) => return Ok(None),
            Err(fault) => return Err(self.corrupt(self.at, &fault.to_string())),
        };
        let in_line = header.lsn == self.at
            && header.kind == self.dir.kind()
            && header.owner == self.dir.owner()
            && (self.chain.is_none_or(|chain| chain == header.chain)
                || planted::is(Bug::StaleBytesBehindCut));
        if !in_line {
            return Err(self.corrupt(self.at, "a block of another place or history stands here"));
        }
        if header.end() > self.segment.end() {
            let looked = self.segment.look_again();
            looked
                .map_err(|error| Error::io("read a segment's length", self.dir.path(&self.segment), error))?;
            self.window = None;
        }
        if header.end() > end || header.end() > self.segment.end() {
            return Err(self.corrupt(
                self.at,
                "a block reaches beyond the end of its segment or of the log",
            ));
        }
        Ok(Some(header))
    }

    /// Makes sure that the window holds `len` bytes from the current position on. It never reaches
    /// beyond `end`, behind which bytes may still change.
    fn load(&mut self, len: u64, end: Lsn) -> Result<()> {
        let (from, until) = (self.at, self.at.plus(len));
        let inside = self
            .window
            .as_ref()
            .is_some_and(|(start, window)| *start <= from && until <= start.plus(to_u64(window.len())));
        if inside {
            return Ok(());
        }
        if until > self.segment.end() {
            return Err(self.corrupt(from, "the segment's file is shorter than its blocks"));
        }
        let to = until.max(from.plus(WINDOW).min(end).min(self.segment.end()));
        let range = self.segment.offset(from)..self.segment.offset(to);
        let window = self.segment.window(range);
        let window = window
            .map_err(|error| Error::io("read a segment", self.dir.path(&self.segment), error).at_lsn(from))?;
        self.window = Some((from, window));
        Ok(())
    }

    /// The window's bytes from a position on; none when it does not hold it.
    fn loaded(&self, at: Lsn) -> &[u8] {
        let bytes = self
            .window
            .as_ref()
            .and_then(|(start, window)| window.get(to_usize(at.since(*start))..));
        bytes.unwrap_or_default()
    }

    fn corrupt(&self, at: Lsn, what: &str) -> Error {
        let offset = self.segment.offset(at);
        Error::corrupt(format!(
            "{what}, {offset} bytes into the segment; run verify; {}",
            self.dir.advice()
        ))
        .at_path(self.dir.path(&self.segment))
        .at_lsn(at)
    }
}
