//! [`BlockBuilder`] gathers encoded frames and seals them into one block.

use crate::frame::EncodedFrame;
use crate::planted::{self, Bug};
use crate::width::{align8, to_u64, u32_to_usize};
use crate::{Chain, Epoch, Lsn};

use super::{BlockHeader, BlockKind, HEADER_LEN, MAX_BLOCK_LEN, Owner, StreamFilter};

/// A block under construction. Frames are copied once, behind room for the header and the filter that the first one
/// needs; where others need a larger one, they are moved up when the block is sealed.
pub struct BlockBuilder {
    bytes: Vec<u8>,
    /// Where the frames begin in `bytes`; 0 without any.
    body_at: usize,
    /// Where each frame begins in the body.
    starts: Vec<usize>,
    /// Of all frames, each frame's own once.
    stream_hashes: Vec<u64>,
    event_count: u32,
    first_time: i64,
    last_time: i64,
}

/// What the writer knows when a block is sealed.
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// Log or queue.
    pub kind: BlockKind,
    /// Written by a clean close.
    pub close: bool,
    /// The store.
    pub owner: Owner,
    /// Its lineage.
    pub epoch: Epoch,
    /// Where the block goes.
    pub lsn: Lsn,
    /// Durable LSN seen by the writer.
    pub durable: Lsn,
    /// Random word of the writing handle.
    pub nonce: u64,
    /// Chain before the block.
    pub chain: Chain,
    /// Log: 0. Queue: `scanned_through`.
    pub aux: u64,
}

/// A block ready to be written.
pub struct SealedBlock {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Its header.
    pub header: BlockHeader,
    /// LSN of each frame, in order.
    pub frame_lsns: Vec<Lsn>,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        BlockBuilder::new()
    }
}

impl BlockBuilder {
    /// An empty block.
    #[must_use]
    pub fn new() -> BlockBuilder {
        BlockBuilder {
            bytes: Vec::new(),
            body_at: 0,
            starts: Vec::new(),
            stream_hashes: Vec::new(),
            event_count: 0,
            first_time: 0,
            last_time: 0,
        }
    }

    /// An empty block that is put together in `bytes`, so that it need not be given memory again.
    pub(crate) fn reusing(bytes: Vec<u8>) -> BlockBuilder {
        let mut builder = BlockBuilder::new();
        builder.bytes = bytes;
        builder.bytes.clear();
        builder
    }

    /// True when no frame was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn body_len(&self) -> usize {
        self.bytes.len() - self.body_at
    }

    /// Upper bound of the sealed block's length if `frame` were added.
    #[must_use]
    pub fn len_with(&self, frame: &EncodedFrame) -> usize {
        let streams = self.stream_hashes.len() + frame.stream_hashes().len();
        HEADER_LEN + StreamFilter::len_for(streams) + self.body_len() + frame.bytes().len()
    }

    /// Adds a frame.
    ///
    /// # Panics
    /// When the block would grow beyond [`MAX_BLOCK_LEN`]: callers ask [`BlockBuilder::len_with`] first.
    pub fn push(&mut self, frame: &EncodedFrame) {
        assert!(
            to_u64(self.len_with(frame)) <= u64::from(MAX_BLOCK_LEN),
            "a block holds at most 1 GiB"
        );
        assert!(frame.bytes().len().is_multiple_of(8), "frames are 8-byte aligned");
        if self.starts.is_empty() {
            self.first_time = frame.time();
            self.body_at = HEADER_LEN + StreamFilter::len_for(frame.stream_hashes().len());
            self.bytes.reserve(self.body_at + frame.bytes().len());
            self.bytes.resize(self.body_at, 0);
        }
        self.last_time = frame.time();
        self.starts.push(self.body_len());
        self.bytes.extend_from_slice(frame.bytes());
        self.stream_hashes.extend_from_slice(frame.stream_hashes());
        self.event_count += frame.event_count();
    }

    /// Seals the block: filter, checksums, header. `pad_to` (a power of two, or 1) rounds the block's
    /// length up with zeros, so that the next block begins in a sector of its own.
    #[must_use]
    #[expect(clippy::expect_used, reason = "push keeps every length below 1 GiB")]
    pub fn seal(mut self, seal: &Seal, pad_to: usize) -> SealedBlock {
        if self.starts.len() > 1 {
            self.stream_hashes.sort_unstable();
            self.stream_hashes.dedup();
        }
        let filter_len = StreamFilter::len_for(self.stream_hashes.len());
        let (body_at, body_len) = (HEADER_LEN + filter_len, self.body_len());
        let pad_to = if planted::is(Bug::NoPadding) { 1 } else { pad_to };
        let block_len = align8((body_at + body_len).next_multiple_of(pad_to.max(1)));
        let mut bytes = self.bytes;
        if body_at != self.body_at {
            bytes.resize(bytes.len().max(body_at + body_len), 0);
            bytes.copy_within(self.body_at..self.body_at + body_len, body_at);
        }
        bytes.resize(body_at + body_len, 0);
        bytes.resize(block_len, 0);
        let (front, body) = bytes.split_at_mut(body_at);
        let body_crc = crc32fast::hash(body.get(..body_len).unwrap_or_default());
        let (_, filter) = front.split_at_mut(HEADER_LEN);
        filter.fill(0);
        for hash in &self.stream_hashes {
            StreamFilter::insert(filter, *hash);
        }
        let narrow = |length: usize| u32::try_from(length).expect("a block is at most 1 GiB");
        let filter_crc = crc32fast::hash(filter);
        let mut header = BlockHeader {
            kind: seal.kind,
            close: seal.close,
            lost: false,
            block_len: narrow(block_len),
            filter_len: narrow(filter_len),
            body_len: narrow(body_len),
            frame_count: narrow(self.starts.len()),
            event_count: self.event_count,
            filter_crc,
            owner: seal.owner,
            epoch: seal.epoch,
            lsn: seal.lsn,
            durable: seal.durable,
            nonce: seal.nonce,
            chain: seal.chain,
            first_time: self.first_time,
            last_time: self.last_time,
            aux: seal.aux,
            body_crc,
            header_crc: 0,
        };
        header.header_crc = header.write(&mut bytes);
        let frame_lsns = self
            .starts
            .iter()
            .map(|start| seal.lsn.plus(to_u64(body_at + start)))
            .collect();
        SealedBlock {
            bytes,
            header,
            frame_lsns,
        }
    }
}

/// The header of a lost block of `block_len` bytes, with which the log goes on at `chain_after`.
///
/// # Panics
/// When `block_len` is no multiple of 8 of at least a header: the mistake of whoever split the range.
pub(crate) fn lost_block(seal: &Seal, block_len: u32, chain_after: Chain) -> SealedBlock {
    let mut block = BlockBuilder::new().seal(seal, 1);
    assert!(
        block_len.is_multiple_of(8) && u32_to_usize(block_len) >= HEADER_LEN,
        "a block has a header and is 8-byte aligned"
    );
    block.header.lost = true;
    block.header.block_len = block_len;
    block.header.aux = chain_after.0;
    block.header.header_crc = block.header.write(&mut block.bytes);
    block
}
