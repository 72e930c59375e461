//! [`BlockWalk`]: reads the blocks of one log in order, in place, through windows of its mapped
//! segments. Every block is verified, and checked against the one before by LSN, store and chain (E3).

use std::sync::Arc;

use bytes::Bytes;

use crate::block::{Block, BlockFault, BlockHeader, BlockKind, HEADER_LEN, StreamFilter};
use crate::planted::{self, Bug};
use crate::storage::{Window, prefetch};
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Chain, Error, Lsn, Result};

use super::segment::{Segment, SegmentDir};

/// Bytes brought into memory at a time: 2 MiB.
const WINDOW: u64 = 2 << 20;
/// The same for who reads one block here and one there: 16 KiB, or a larger block.
const NARROW: u64 = 16 << 10;

/// Bytes of a log where they are mapped, so that they can outlive who read them without being copied.
#[derive(Clone, Copy, Default)]
pub struct InPlace<'a>(Option<&'a Window>);

impl InPlace<'_> {
    /// These bytes, shared where they stand if they are of the block read last, else a copy. What is shared keeps a piece of the
    /// segment's file mapped, whatever becomes of the file.
    #[must_use]
    pub fn share(&self, bytes: &[u8]) -> Bytes {
        match self.0 {
            Some(window) if holds(window, bytes) => Bytes::from_owner(window.clone()).slice_ref(bytes),
            _ => Bytes::copy_from_slice(bytes),
        }
    }
}

/// A position between two blocks, moving forward.
pub(crate) struct BlockWalk {
    dir: Arc<SegmentDir>,
    segment: Arc<Segment>,
    /// Where the next block begins.
    at: Lsn,
    /// Chain that the next block must name; unknown before the first.
    chain: Option<Chain>,
    window: Option<(Lsn, Window)>,
    /// How much is brought in ahead.
    reach: u64,
    /// Where the segment is known to end, and the listing of files that said so.
    sealed: (Option<Lsn>, Option<u64>),
    /// The header looked at last. It is filled in place: copies of it are what a log of small blocks costs.
    found: BlockHeader,
    /// True when `found` is of the block passed last, whose body was verified.
    inside: bool,
    /// Bodies are passed over: where heads can be had alone, only they are brought in.
    heads_only: bool,
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
            reach: WINDOW,
            sealed: (None, None),
            found: BlockHeader::default(),
            inside: false,
            heads_only: false,
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
            walk.pass();
        }
        Ok(walk)
    }

    /// For who reads single blocks: little is brought into memory beside them.
    pub(crate) fn narrow(mut self) -> BlockWalk {
        self.reach = NARROW;
        self
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
        if !self.find(end)? {
            return Ok(false);
        }
        self.enter_found(end)
    }

    /// As [`BlockWalk::advance`], with the next block that may have events of the stream of this hash. Those before it
    /// are passed by their filters, which are verified; their bodies are not.
    pub(crate) fn advance_to_stream(&mut self, stream_hash: u64, end: Lsn) -> Result<bool> {
        self.heads_only = true;
        let found = self.pass_to_stream(stream_hash, end);
        self.heads_only = false;
        Ok(found? && self.enter_found(end)?)
    }

    /// Stands at the header of the next block that may have events of the stream; false at `end`.
    fn pass_to_stream(&mut self, stream_hash: u64, end: Lsn) -> Result<bool> {
        while self.find(end)? {
            let contents_at = self.found.body_range().start;
            self.load(to_u64(contents_at), end)?;
            let bytes = loaded(&self.window, self.at);
            // Blocks of a log are often alike: the next headers begin about here.
            let len = u32_to_usize(self.found.block_len);
            prefetch(bytes, len, contents_at);
            prefetch(bytes, len * 2, contents_at);
            let filter = match self.found.filter_of(bytes) {
                Ok(filter) => filter,
                Err(fault) => return Err(self.corrupt(self.at, &fault.to_string())),
            };
            if StreamFilter::new(filter).may_contain(stream_hash, self.found.event_count) {
                return Ok(true);
            }
            self.pass_found();
        }
        Ok(false)
    }

    /// Verifies and passes the block at whose header was looked last.
    fn enter_found(&mut self, end: Lsn) -> Result<bool> {
        self.load(u64::from(self.found.block_len), end)?;
        let bytes = loaded(&self.window, self.at);
        if let Err(fault) = self.found.check_contents(bytes) {
            return Err(self.corrupt(self.at, &fault.to_string()));
        }
        self.pass_found();
        self.inside = true;
        Ok(true)
    }

    /// The block passed last by [`BlockWalk::advance`].
    pub(crate) fn block(&self) -> Option<Block<'_>> {
        if !self.inside {
            return None;
        }
        Block::checked_before(self.found, loaded(&self.window, self.found.lsn))
    }

    /// Where the block passed last stands.
    pub(crate) fn in_place(&self) -> InPlace<'_> {
        InPlace(self.window.as_ref().map(|(_, window)| window))
    }

    /// LSN of the first frame of the block passed last by [`BlockWalk::advance`].
    pub(crate) fn first_frame_lsn(&self) -> Option<Lsn> {
        self.inside.then(|| self.found.first_frame_lsn())
    }

    /// Stands before the block again that [`BlockWalk::advance`] passed last.
    pub(crate) fn step_back(&mut self) {
        if std::mem::take(&mut self.inside) {
            self.at = self.found.lsn;
            self.chain = Some(self.found.chain);
        }
    }

    /// Passes the block at whose header was looked last, by that alone.
    fn pass_found(&mut self) {
        self.at = self.found.end();
        self.chain = Some(self.found.chain_after());
        self.inside = false;
    }

    /// Passes the block at whose header [`BlockWalk::header`] has looked.
    pub(crate) fn pass(&mut self) {
        assert_eq!(
            self.found.lsn, self.at,
            "a header is looked at before its block is passed"
        );
        self.pass_found();
    }

    /// The header of the next block below `end`, without passing it; `None` at `end`.
    pub(crate) fn header(&mut self, end: Lsn) -> Result<Option<&BlockHeader>> {
        Ok(self.find(end)?.then_some(&self.found))
    }

    /// Looks at the header of the next block below `end`; false at `end`.
    fn find(&mut self, end: Lsn) -> Result<bool> {
        if self.at >= end {
            return Ok(false);
        }
        if self.is_sealed_here()? {
            self.enter()?;
        }
        let found = self.find_here(end);
        if let Ok(true) = found {
            return Ok(true);
        }
        // The segment holds no block here, so another one begins here, or the log is damaged.
        if self.segment.first != self.at && self.dir.list()?.binary_search(&self.at).is_ok() {
            self.enter()?;
            if self.find_here(end)? {
                return Ok(true);
            }
        }
        if self.dir.has_freed(self.at)? {
            return Err(self.dir.gone(self.at)?);
        }
        found.and_then(|_| Err(self.missing()))
    }

    /// True where the segment is known to end.
    fn is_sealed_here(&mut self) -> Result<bool> {
        let listing = Some(self.dir.listings());
        if self.sealed.1 != listing {
            // What stands behind the last block of a freed segment means nothing, and no file says where that ends.
            let freed = self.dir.kind() == BlockKind::Log && self.dir.is_unlisted(self.segment.first);
            if freed && !self.dir.is_listed(self.at) {
                return Err(self.dir.gone(self.at)?);
            }
            let end = if freed {
                // Where the log begins now it goes on.
                Some(self.at)
            } else {
                self.dir.known_end(self.segment.first)?
            };
            self.sealed = (end, listing);
        }
        Ok(self.sealed.0 == Some(self.at) && self.segment.first != self.at)
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
        self.sealed = (None, None);
        self.inside = false;
        Ok(())
    }

    fn find_here(&mut self, end: Lsn) -> Result<bool> {
        if self.segment.end().since(self.at) < to_u64(HEADER_LEN) {
            return Ok(false);
        }
        self.load(to_u64(HEADER_LEN), end)?;
        self.inside = false;
        match self.found.read(loaded(&self.window, self.at)) {
            Ok(()) => {}
            Err(BlockFault::Zero) => return Ok(false),
            Err(fault) => return Err(self.corrupt(self.at, &fault.to_string())),
        }
        let header = &self.found;
        let in_line = header.lsn == self.at
            && header.kind == self.dir.kind()
            && header.owner == self.dir.owner()
            && (self.chain.is_none_or(|chain| chain == header.chain)
                || planted::is(Bug::StaleBytesBehindCut));
        if !in_line {
            return Err(self.corrupt(self.at, "a block of another place or history stands here"));
        }
        let block_end = header.end();
        if block_end > self.segment.end() {
            let looked = self.segment.look_again();
            looked
                .map_err(|error| Error::io("read a segment's length", self.dir.path(&self.segment), error))?;
            self.window = None;
        }
        if block_end > end || block_end > self.segment.end() {
            return Err(self.corrupt(
                self.at,
                "a block reaches beyond the end of its segment or of the log",
            ));
        }
        Ok(true)
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
        let to = until.max(from.plus(self.reach).min(end).min(self.segment.end()));
        let head = if self.heads_only {
            self.segment.head(from)
        } else {
            Ok(None)
        };
        let window = match head {
            Ok(None) => self.segment.window(from, until, to),
            Ok(Some(head)) => Ok(head),
            Err(error) => Err(error),
        };
        let path = || self.dir.path(&self.segment);
        let window = window.map_err(|error| self.dir.unreadable("read a segment", path(), from, error))?;
        self.window = Some((from, window));
        Ok(())
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

fn holds(window: &[u8], bytes: &[u8]) -> bool {
    let (all, some) = (window.as_ptr_range(), bytes.as_ptr_range());
    all.start <= some.start && some.end <= all.end
}

/// A window's bytes from a position on; none when it does not hold it.
fn loaded(window: &Option<(Lsn, Window)>, at: Lsn) -> &[u8] {
    let bytes = window
        .as_ref()
        .and_then(|(start, window)| window.get(to_usize(at.since(*start))..));
    bytes.unwrap_or_default()
}
