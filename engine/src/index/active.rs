//! [`ActiveIndex`]: the index of one segment in memory, fed with verified blocks in log order.
//!
//! Per event it keeps 8 bytes, per stream its name and a list. What lies past `settled` (the durable
//! end, as last told) can be dropped again by a cut at the start of any block; the log below it is
//! never cut (E2).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use crate::block::Block;
use crate::frame::{FrameKind, FrameRef};
use crate::width::to_usize;
use crate::{Chain, Error, Lsn, Result, StreamName};

use super::pinned::{Change, PinnedChanges};
use super::place::{BlockEntry, BlockPlace, Posting};

/// Counts over a stretch of log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames of every kind.
    pub frames: u64,
    /// Transactions.
    pub transactions: u64,
    /// Events.
    pub events: u64,
    /// Time of the first block with frames, microseconds since 1970.
    pub first_time: i64,
    /// Time of the last block with frames, microseconds since 1970.
    pub last_time: i64,
}

impl Totals {
    /// Adds the counts of the stretch that follows.
    pub(super) fn add(&mut self, next: &Totals) {
        self.frames += next.frames;
        self.transactions += next.transactions;
        self.events += next.events;
        if self.first_time == 0 {
            self.first_time = next.first_time;
        }
        if next.frames != 0 {
            self.last_time = next.last_time;
        }
    }
}

/// Index of one segment in memory.
pub struct ActiveIndex {
    first: Lsn,
    end: Lsn,
    /// Chain before the first block; `None` until there is one.
    chain_before: Option<Chain>,
    chain: Option<Chain>,
    totals: Totals,
    streams: Vec<StreamEntry>,
    by_hash: HashMap<u64, usize, BuildHasherDefault<PlainHasher>>,
    pinned: PinnedChanges,
    blocks: Vec<BlockEntry>,
    settled: Lsn,
    /// What each block past `settled` replaced, oldest first.
    undo: VecDeque<Undo>,
}

/// One stream of the segment.
pub(super) struct StreamEntry {
    pub(super) hash: u64,
    pub(super) name: Box<str>,
    pub(super) postings: Vec<Posting>,
    /// Events of the stream before this segment, once somebody asked.
    pub(super) base: OnceLock<u64>,
    /// Another stream with the same hash.
    same_hash: Option<usize>,
}

struct Undo {
    lsn: Lsn,
    chain_before: Option<Chain>,
    chain: Option<Chain>,
    totals: Totals,
    blocks: usize,
}

impl ActiveIndex {
    /// An empty index of the segment that begins at `first`.
    #[must_use]
    pub fn new(first: Lsn) -> ActiveIndex {
        ActiveIndex {
            first,
            end: first,
            chain_before: None,
            chain: None,
            totals: Totals::default(),
            streams: Vec::new(),
            by_hash: HashMap::default(),
            pinned: PinnedChanges::default(),
            blocks: Vec::new(),
            settled: first,
            undo: VecDeque::new(),
        }
    }

    /// Takes the next block in. Its header was checked against LSN and chain by the caller; a block
    /// out of line is refused all the same. After an error the index is as it was before.
    ///
    /// # Errors
    /// `Corrupt` when a frame or event contradicts its bounds; `Internal` for a block out of line.
    pub fn absorb(&mut self, block: &Block<'_>) -> Result<()> {
        let header = block.header();
        let in_line = header.lsn == self.end && self.chain.is_none_or(|chain| chain == header.chain);
        if !in_line {
            let end = self.end;
            return Err(
                Error::internal(format!("the index ends at {end} and cannot take a block in"))
                    .at_lsn(header.lsn),
            );
        }
        self.undo.push_back(Undo {
            lsn: self.end,
            chain_before: self.chain_before,
            chain: self.chain,
            totals: self.totals,
            blocks: self.blocks.len(),
        });
        self.chain_before.get_or_insert(header.chain);
        let offset = header.lsn.since(self.first);
        if self
            .blocks
            .last()
            .is_none_or(|last| offset >= last.offset + BlockEntry::SPACING)
        {
            self.blocks.push(BlockEntry {
                offset,
                chain: header.chain,
            });
        }
        if let Err(error) = self.absorb_frames(block) {
            self.cut(header.lsn)?;
            return Err(error);
        }
        if header.frame_count != 0 {
            if self.totals.first_time == 0 {
                self.totals.first_time = header.first_time;
            }
            self.totals.last_time = header.last_time;
        }
        self.end = header.end();
        self.chain = Some(block.chain_after());
        Ok(())
    }

    fn absorb_frames(&mut self, block: &Block<'_>) -> Result<()> {
        for frame in block.frames() {
            let frame = frame?;
            self.totals.frames += 1;
            match frame.kind() {
                FrameKind::TRANSACTION => self.absorb_events(&frame)?,
                FrameKind::PART | FrameKind::COMMIT => {
                    return Err(Error::invalid(
                        "a transaction in parts needs a newer program, which can index it",
                    )
                    .at_lsn(frame.lsn()));
                }
                _ => {}
            }
            if frame.has_pinned() {
                for record in frame.pinned()? {
                    let change = Change {
                        lsn: frame.lsn(),
                        value: record.value.map(Into::into),
                    };
                    self.pinned.set(record.key, change, self.settled);
                }
            }
        }
        Ok(())
    }

    fn absorb_events(&mut self, frame: &FrameRef<'_>) -> Result<()> {
        self.totals.transactions += 1;
        for event in frame.events_with_offsets() {
            let (offset, event) = event?;
            let posting = Posting::new(self.first, frame.lsn(), offset)?;
            self.totals.events += 1;
            let name = event.stream()?;
            if let Some(entry) = self.entry_of(name) {
                entry.postings.push(posting);
            }
        }
        Ok(())
    }

    /// The stream's entry, made if missing.
    fn entry_of(&mut self, name: &str) -> Option<&mut StreamEntry> {
        let hash = StreamName::hash(name);
        let at = self.position_of(hash, name).unwrap_or_else(|| {
            let at = self.streams.len();
            let same_hash = self.by_hash.insert(hash, at);
            let (postings, base) = (Vec::with_capacity(1), OnceLock::new());
            self.streams.push(StreamEntry {
                hash,
                name: name.into(),
                postings,
                base,
                same_hash,
            });
            at
        });
        self.streams.get_mut(at)
    }

    fn position_of(&self, hash: u64, name: &str) -> Option<usize> {
        let mut at = self.by_hash.get(&hash).copied();
        while let Some(here) = at {
            let entry = self.streams.get(here)?;
            if &*entry.name == name {
                return Some(here);
            }
            at = entry.same_hash;
        }
        None
    }

    /// Says that everything below `durable` stays: what only a cut below it needs is forgotten.
    pub fn settle(&mut self, durable: Lsn) {
        self.settled = self.settled.max(durable);
        while self.undo.front().is_some_and(|undo| undo.lsn < self.settled) {
            self.undo.pop_front();
        }
    }

    /// Drops what lies at and behind `lsn`, the start of a block at or past the settled end.
    ///
    /// # Errors
    /// `Internal` when no block that can still be dropped begins there.
    pub fn cut(&mut self, lsn: Lsn) -> Result<()> {
        if lsn == self.end && self.undo.back().is_none_or(|undo| undo.lsn < lsn) {
            return Ok(());
        }
        let Ok(at) = self.undo.binary_search_by_key(&lsn, |undo| undo.lsn) else {
            return Err(Error::internal("the index cannot be cut here").at_lsn(lsn));
        };
        let Some(undo) = self.undo.drain(at..).next() else {
            return Ok(());
        };
        self.end = lsn;
        (self.chain_before, self.chain, self.totals) = (undo.chain_before, undo.chain, undo.totals);
        self.blocks.truncate(undo.blocks);
        self.pinned.cut(lsn);
        let first = self.first;
        for entry in &mut self.streams {
            let kept = entry
                .postings
                .partition_point(|posting| posting.frame(first) < lsn);
            entry.postings.truncate(kept);
        }
        Ok(())
    }

    /// First LSN of the segment.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// End of what was taken in.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Chain after what was taken in; `None` while that is nothing.
    #[must_use]
    pub fn chain(&self) -> Option<Chain> {
        self.chain
    }

    /// Chain before the first block; `None` while there is none.
    pub(super) fn chain_before(&self) -> Option<Chain> {
        self.chain_before
    }

    /// Counts over what was taken in.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The entry of a stream, if it has one; after a cut it may be without postings.
    pub(super) fn stream(&self, hash: u64, name: &str) -> Option<&StreamEntry> {
        self.streams.get(self.position_of(hash, name)?)
    }

    /// Entries of streams in no order.
    pub(super) fn streams(&self) -> &[StreamEntry] {
        &self.streams
    }

    /// Pinned records changed in the segment.
    pub(super) fn pinned(&self) -> &PinnedChanges {
        &self.pinned
    }

    /// Lowest bound that a reader may ask with: nothing below is told apart any more.
    pub(super) fn settled(&self) -> Lsn {
        self.settled
    }

    /// The sparse table of blocks.
    pub(super) fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// The last block of the table at or before `lsn`.
    pub(super) fn block_holding(&self, lsn: Lsn) -> Option<BlockPlace> {
        let offset = lsn.0.checked_sub(self.first.0)?;
        let behind = self.blocks.partition_point(|block| block.offset <= offset);
        Some(self.blocks.get(behind.checked_sub(1)?)?.place(self.first))
    }
}

impl StreamEntry {
    /// Postings of frames before `below`.
    pub(super) fn below(&self, segment: Lsn, below: Lsn) -> &[Posting] {
        let kept = self
            .postings
            .partition_point(|posting| posting.frame(segment) < below);
        self.postings.get(..kept).unwrap_or_default()
    }
}

/// Postings from the `skip`-th on.
pub(super) fn skipped(postings: &[Posting], skip: u64) -> &[Posting] {
    postings.get(to_usize(skip)..).unwrap_or_default()
}

/// Stream hashes are already mixed.
#[derive(Default)]
struct PlainHasher(u64);

impl Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}
