//! [`BlockBuilder`] gathers encoded frames and seals them into one block.

use crate::frame::EncodedFrame;
use crate::planted::{self, Bug};
use crate::width::{align8, to_u64, to_usize, u32_to_usize};
use crate::{Chain, Epoch, Lsn};

use super::{BlockHeader, BlockKind, HEADER_LEN, MAX_BLOCK_LEN, Owner, StreamFilter, keep_distinct};

/// Bytes of a frame from which on it is not copied where it can be borrowed: below, a piece more to write costs as much.
pub(super) const LARGE: usize = 4 << 10;

/// A block under construction. Frames are copied once, behind room for the header and the filter that the first one
/// needs; where others need a larger one, they are moved up when the block is sealed. A large frame that is alone in
/// its block need not be copied at all (`push_borrowed`).
pub struct BlockBuilder<'a> {
    bytes: Vec<u8>,
    /// Where the frames begin in `bytes`; 0 without any.
    body_at: usize,
    /// The only frame so far, where it is not in `bytes`.
    alone: Option<&'a EncodedFrame>,
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

/// A [`SealedBlock`] whose only frame may stand somewhere else.
pub(crate) struct BlockInPieces<'a> {
    /// All its bytes, or those before `frame`; in the memory that the builder was given.
    pub front: Vec<u8>,
    frame: [&'a [u8]; 3],
    /// Behind `frame`.
    zeros: Vec<u8>,
    pub header: BlockHeader,
    pub frame_lsns: Vec<Lsn>,
}

impl BlockInPieces<'_> {
    /// Its bytes one after another; some may be empty.
    pub fn pieces(&self) -> [&[u8]; 5] {
        let [head, body, padding] = self.frame;
        [&self.front, head, body, padding, &self.zeros]
    }
}

impl Default for BlockBuilder<'_> {
    fn default() -> Self {
        BlockBuilder::new()
    }
}

impl<'a> BlockBuilder<'a> {
    /// An empty block.
    #[must_use]
    pub fn new() -> BlockBuilder<'a> {
        BlockBuilder {
            bytes: Vec::new(),
            body_at: 0,
            alone: None,
            starts: Vec::new(),
            stream_hashes: Vec::new(),
            event_count: 0,
            first_time: 0,
            last_time: 0,
        }
    }

    /// An empty block that is put together in `bytes`, so that it need not be given memory again.
    pub(crate) fn reusing(bytes: Vec<u8>) -> BlockBuilder<'a> {
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
        self.bytes.len() - self.body_at + self.alone.map_or(0, len_of)
    }

    /// Upper bound of the sealed block's length if `frame` were added.
    #[must_use]
    pub fn len_with(&self, frame: &EncodedFrame) -> usize {
        let streams = self.stream_hashes.len() + frame.stream_hashes().len();
        HEADER_LEN + StreamFilter::len_for(streams) + self.body_len() + len_of(frame)
    }

    /// Adds a frame.
    ///
    /// # Panics
    /// When the block would grow beyond [`MAX_BLOCK_LEN`]: callers ask [`BlockBuilder::len_with`] first.
    pub fn push(&mut self, frame: &EncodedFrame) {
        self.note(frame);
        for frame in self.alone.take().into_iter().chain([frame]) {
            frame
                .pieces()
                .iter()
                .for_each(|piece| self.bytes.extend_from_slice(piece));
        }
    }

    /// Adds a frame that outlives the block: a large one is copied only if another one comes.
    ///
    /// # Panics
    /// As [`BlockBuilder::push`].
    pub(crate) fn push_borrowed(&mut self, frame: &'a EncodedFrame) {
        if !self.is_empty() || len_of(frame) < LARGE {
            return self.push(frame);
        }
        self.note(frame);
        self.alone = Some(frame);
    }

    /// Counts a frame whose bytes come next.
    fn note(&mut self, frame: &EncodedFrame) {
        assert!(
            to_u64(self.len_with(frame)) <= u64::from(MAX_BLOCK_LEN),
            "a block holds at most 1 GiB"
        );
        assert!(len_of(frame).is_multiple_of(8), "frames are 8-byte aligned");
        if self.starts.is_empty() {
            self.first_time = frame.time();
            self.body_at = HEADER_LEN + StreamFilter::len_for(frame.stream_hashes().len());
            self.bytes.resize(self.body_at, 0);
        }
        self.last_time = frame.time();
        self.starts.push(self.body_len());
        self.stream_hashes.extend_from_slice(frame.stream_hashes());
        self.event_count += frame.event_count();
    }

    /// Seals the block: filter, checksums, header. `pad_to` (a power of two, or 1) rounds the block's
    /// length up with zeros, so that the next block begins in a sector of its own.
    #[must_use]
    pub fn seal(self, seal: &Seal, pad_to: usize) -> SealedBlock {
        let block = self.seal_in_pieces(seal, pad_to);
        let (frame, zeros) = (block.frame, block.zeros);
        let mut bytes = block.front;
        for piece in frame.into_iter().chain([&*zeros]) {
            bytes.extend_from_slice(piece);
        }
        SealedBlock {
            bytes,
            header: block.header,
            frame_lsns: block.frame_lsns,
        }
    }

    /// Has the body begin at `body_at` and zeros follow it up to `block_len`; those that do not fit in behind it are
    /// returned.
    fn move_body(&mut self, body_at: usize, block_len: usize) -> Vec<u8> {
        let body_len = self.body_len();
        if self.alone.is_some() {
            return vec![0; block_len - body_at - body_len];
        }
        if body_at != self.body_at {
            self.bytes.resize(self.bytes.len().max(body_at + body_len), 0);
            self.bytes
                .copy_within(self.body_at..self.body_at + body_len, body_at);
        }
        self.bytes.resize(body_at + body_len, 0);
        self.bytes.resize(block_len, 0);
        Vec::new()
    }

    /// As [`BlockBuilder::seal`]; a frame that is only borrowed stays where it is.
    #[expect(clippy::expect_used, reason = "push keeps every length below 1 GiB")]
    pub(crate) fn seal_in_pieces(mut self, seal: &Seal, pad_to: usize) -> BlockInPieces<'a> {
        if self.starts.len() > 1 {
            keep_distinct(&mut self.stream_hashes);
        }
        let filter_len = StreamFilter::len_for(self.stream_hashes.len());
        let (body_at, body_len) = (HEADER_LEN + filter_len, self.body_len());
        let pad_to = if planted::is(Bug::NoPadding) { 1 } else { pad_to };
        let block_len = align8((body_at + body_len).next_multiple_of(pad_to.max(1)));
        let zeros = self.move_body(body_at, block_len);
        let mut bytes = self.bytes;
        let (front, body) = bytes.split_at_mut(body_at);
        let frame = self.alone.map_or([&[][..]; 3], EncodedFrame::pieces);
        let mut body_crc = crc32fast::Hasher::new();
        // Either of them is empty.
        body_crc.update(body.get(..body_len).unwrap_or_default());
        frame.iter().for_each(|piece| body_crc.update(piece));
        let body_crc = body_crc.finalize();
        let (_, filter) = front.split_at_mut(HEADER_LEN);
        filter.fill(0);
        StreamFilter::insert(filter, self.stream_hashes.iter().copied());
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
        BlockInPieces {
            front: bytes,
            frame,
            zeros,
            header,
            frame_lsns,
        }
    }
}

fn len_of(frame: &EncodedFrame) -> usize {
    to_usize(frame.len())
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
