//! The block header: 128 bytes, fixed width, little endian.
//!
//! ```text
//! 0   magic 4 | version 2 | flags 2 | block_len 4 | filter_len 4
//! 16  body_len 4 | frame_count 4 | event_count 4 | filter_crc 4
//! 32  store_id 16
//! 48  epoch 8 | lsn 8
//! 64  durable 8 | nonce 8
//! 80  chain before 8 | first_time 8
//! 96  last_time 8 | aux 8
//! 112 body_crc 4 | secret 8 | header_crc 4
//! ```

use std::fmt;
use std::ops::Range;

use crate::planted::{self, Bug};
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Chain, Epoch, Lsn, StoreId};

use super::MAX_BLOCK_LEN;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 128;

const VERSION: u16 = 1;
/// Flags that a reader of this version understands.
const KNOWN_FLAGS: u16 = FLAG_CLOSE | FLAG_LOST;
const FLAG_CLOSE: u16 = 1;
const FLAG_LOST: u16 = 2;
const CRC_AT: usize = HEADER_LEN - 4;

/// Which log a block belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockKind {
    /// The transaction log; `aux` is 0.
    #[default]
    Log,
    /// The stable queue; `aux` is `scanned_through`.
    Queue,
}

impl BlockKind {
    const fn magic(self) -> [u8; 4] {
        match self {
            BlockKind::Log => *b"MPB1",
            BlockKind::Queue => *b"MPQ1",
        }
    }

    #[inline]
    fn of_magic(magic: [u8; 4]) -> Option<BlockKind> {
        [BlockKind::Log, BlockKind::Queue]
            .into_iter()
            .find(|kind| kind.magic() == magic)
    }
}

/// Whose block it is. The secret is a random word of the store that never leaves its files: without it no
/// payload, not even one that came from a peer, can imitate a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The store.
    pub id: StoreId,
    /// Its secret.
    pub secret: u64,
}

/// A store whose secret is 0.
impl From<StoreId> for Owner {
    fn from(id: StoreId) -> Owner {
        Owner { id, secret: 0 }
    }
}

/// A header whose checksum and lengths were verified, or one about to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockHeader {
    /// Log or queue.
    pub kind: BlockKind,
    /// Written by a clean close: carries no events, raises what recovery knows to be durable.
    pub close: bool,
    /// Stands for lost bytes that a repair took out: header alone, and `aux` is the chain after it.
    pub lost: bool,
    /// Whole block in bytes: header, filter, body and padding; a multiple of 8.
    pub block_len: u32,
    /// Filter in bytes, a multiple of 8; 0 is no filter.
    pub filter_len: u32,
    /// Body in bytes, a multiple of 8.
    pub body_len: u32,
    /// Frames in the body.
    pub frame_count: u32,
    /// Events in all its transactions.
    pub event_count: u32,
    /// CRC-32 of the filter.
    pub filter_crc: u32,
    /// The store that wrote it.
    pub owner: Owner,
    /// Lineage epoch of the writer.
    pub epoch: Epoch,
    /// Position of the block's first byte.
    pub lsn: Lsn,
    /// Durable LSN that the writer saw.
    pub durable: Lsn,
    /// Random word of the writing handle; with a frame's `seq` it is the transaction id.
    pub nonce: u64,
    /// Chain before this block.
    pub chain: Chain,
    /// Time of the first frame, microseconds since 1970.
    pub first_time: i64,
    /// Time of the last frame, microseconds since 1970.
    pub last_time: i64,
    /// Log: 0, or the chain after a lost block. Queue: the log position that the scan has passed with this block.
    pub aux: u64,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// CRC-32 of the header's bytes before it.
    pub header_crc: u32,
}

impl BlockHeader {
    /// Reads and verifies a header at the start of `bytes`.
    ///
    /// # Errors
    /// The first reason why it is none, in the order magic, checksum, version, lengths.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<BlockHeader, BlockFault> {
        let mut header = BlockHeader::default();
        header.read(bytes)?;
        Ok(header)
    }

    /// As [`BlockHeader::parse`], in place: a copy is what a log of small blocks costs. Worth nothing after an error.
    ///
    /// # Errors
    /// As [`BlockHeader::parse`].
    #[inline]
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), BlockFault> {
        let raw: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(BlockFault::Truncated)?;
        let mut fields = Fields { raw, at: 0 };
        let magic = fields.bytes::<4>();
        let Some(kind) = BlockKind::of_magic(magic) else {
            return Err(if raw.iter().all(|byte| *byte == 0) {
                BlockFault::Zero
            } else {
                BlockFault::Magic
            });
        };
        let (covered, stored) = raw.split_at(CRC_AT);
        if stored != crc32fast::hash(covered).to_le_bytes() {
            return Err(BlockFault::HeaderChecksum);
        }
        let (version, flags) = (fields.u16(), fields.u16());
        if version != VERSION || flags & !KNOWN_FLAGS != 0 {
            return Err(BlockFault::Version { version, flags });
        }
        self.kind = kind;
        self.close = flags & FLAG_CLOSE != 0;
        self.lost = flags & FLAG_LOST != 0;
        self.block_len = fields.u32();
        self.filter_len = fields.u32();
        self.body_len = fields.u32();
        self.frame_count = fields.u32();
        self.event_count = fields.u32();
        self.filter_crc = fields.u32();
        self.owner.id = StoreId(u128::from_le_bytes(fields.bytes()));
        self.epoch = Epoch(fields.u64());
        self.lsn = Lsn(fields.u64());
        self.durable = Lsn(fields.u64());
        self.nonce = fields.u64();
        self.chain = Chain(fields.u64());
        self.first_time = i64::from_le_bytes(fields.bytes());
        self.last_time = i64::from_le_bytes(fields.bytes());
        self.aux = fields.u64();
        self.body_crc = fields.u32();
        self.owner.secret = fields.u64();
        self.header_crc = fields.u32();
        if !self.lengths_agree() {
            return Err(BlockFault::Lengths);
        }
        Ok(())
    }

    /// Writes the header over the first bytes of `block`, with its checksum, and returns that.
    ///
    /// # Panics
    /// When `block` is shorter than a header: our own builder's mistake.
    pub(super) fn write(&self, block: &mut [u8]) -> u32 {
        let mut raw = Vec::with_capacity(HEADER_LEN);
        raw.extend_from_slice(&self.kind.magic());
        raw.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.close { FLAG_CLOSE } else { 0 } | if self.lost { FLAG_LOST } else { 0 };
        raw.extend_from_slice(&flags.to_le_bytes());
        let words = [
            self.block_len,
            self.filter_len,
            self.body_len,
            self.frame_count,
            self.event_count,
            self.filter_crc,
        ];
        words
            .iter()
            .for_each(|word| raw.extend_from_slice(&word.to_le_bytes()));
        raw.extend_from_slice(&self.owner.id.0.to_le_bytes());
        let longs = [self.epoch.0, self.lsn.0, self.durable.0, self.nonce, self.chain.0];
        longs
            .iter()
            .for_each(|word| raw.extend_from_slice(&word.to_le_bytes()));
        raw.extend_from_slice(&self.first_time.to_le_bytes());
        raw.extend_from_slice(&self.last_time.to_le_bytes());
        raw.extend_from_slice(&self.aux.to_le_bytes());
        raw.extend_from_slice(&self.body_crc.to_le_bytes());
        raw.extend_from_slice(&self.owner.secret.to_le_bytes());
        let crc = crc32fast::hash(&raw);
        raw.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(raw.len(), HEADER_LEN, "the table above and the writer agree");
        let (head, _) = block.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&raw);
        crc
    }

    /// Where the body lies in the block.
    #[must_use]
    pub fn body_range(&self) -> Range<usize> {
        let start = HEADER_LEN + u32_to_usize(self.filter_len);
        start..start + u32_to_usize(self.body_len)
    }

    /// The filter's bytes, verified.
    ///
    /// # Errors
    /// `Truncated` or `FilterChecksum`.
    pub fn filter_of<'a>(&self, block: &'a [u8]) -> Result<&'a [u8], BlockFault> {
        let filter = block
            .get(HEADER_LEN..self.body_range().start)
            .ok_or(BlockFault::Truncated)?;
        if !filter.is_empty() && crc32fast::hash(filter) != self.filter_crc {
            return Err(BlockFault::FilterChecksum);
        }
        Ok(filter)
    }

    /// Verifies filter and body of the block at the start of `bytes`, whose header this is.
    ///
    /// # Errors
    /// `Truncated`, `FilterChecksum` or `BodyChecksum`.
    pub(crate) fn check_contents(&self, bytes: &[u8]) -> Result<(), BlockFault> {
        let bytes = bytes
            .get(..u32_to_usize(self.block_len))
            .ok_or(BlockFault::Truncated)?;
        self.filter_of(bytes)?;
        let body = bytes.get(self.body_range()).ok_or(BlockFault::Truncated)?;
        if crc32fast::hash(body) != self.body_crc && !planted::is(Bug::HeaderChecksumOnly) {
            return Err(BlockFault::BodyChecksum);
        }
        Ok(())
    }

    /// LSN of the first frame.
    #[must_use]
    pub fn first_frame_lsn(&self) -> Lsn {
        self.lsn.plus(to_u64(self.body_range().start))
    }

    /// Position after the block.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.lsn.plus(u64::from(self.block_len))
    }

    /// The chain after this block.
    #[must_use]
    pub fn chain_after(&self) -> Chain {
        if self.lost {
            // The bytes that it stands for are gone; what follows says what they came to.
            return Chain(self.aux);
        }
        self.chain.after(self.header_crc, self.nonce, self.lsn)
    }

    #[inline]
    fn lengths_agree(&self) -> bool {
        let inside = to_usize(u64::from(self.filter_len) + u64::from(self.body_len)) + HEADER_LEN;
        let aligned = |length: u32| length.is_multiple_of(8);
        let empty = (self.filter_len, self.body_len, self.frame_count, self.event_count) == (0, 0, 0, 0);
        if self.lost && !(empty && self.kind == BlockKind::Log) {
            return false;
        }
        self.block_len <= MAX_BLOCK_LEN
            && aligned(self.block_len)
            && aligned(self.filter_len)
            && aligned(self.body_len)
            && inside <= u32_to_usize(self.block_len)
            && self.lsn.0.checked_add(u64::from(self.block_len)).is_some()
    }
}

/// Why bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// All zero where a header would be: nothing was written here.
    Zero,
    /// Fewer bytes than the header or its lengths ask for.
    Truncated,
    /// Other bytes than a block's first four.
    Magic,
    /// The header's checksum does not match.
    HeaderChecksum,
    /// A version or flag that this program does not know.
    Version {
        /// Version found.
        version: u16,
        /// Flags found.
        flags: u16,
    },
    /// Lengths that contradict each other in a header with a valid checksum.
    Lengths,
    /// The filter's checksum does not match.
    FilterChecksum,
    /// The body's checksum does not match.
    BodyChecksum,
}

impl fmt::Display for BlockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockFault::Zero => f.write_str("nothing is written here"),
            BlockFault::Truncated => f.write_str("the file ends inside the block"),
            BlockFault::Magic => f.write_str("no block begins here"),
            BlockFault::HeaderChecksum => f.write_str("the block header's checksum does not match"),
            BlockFault::Version { version, flags } => {
                write!(
                    f,
                    "block version {version} with flags {flags:#06x} needs a newer program"
                )
            }
            BlockFault::Lengths => f.write_str("the block header's lengths contradict each other"),
            BlockFault::FilterChecksum => f.write_str("the block filter's checksum does not match"),
            BlockFault::BodyChecksum => f.write_str("the block body's checksum does not match"),
        }
    }
}

/// Reads fixed-width fields one after another; the offsets in the table follow from their order.
struct Fields<'a> {
    raw: &'a [u8; HEADER_LEN],
    at: usize,
}

impl Fields<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let start = self.at;
        self.at += N;
        match self.raw.get(start..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => *bytes,
            None => unreachable!("the fields of the table are {HEADER_LEN} bytes"),
        }
    }

    #[inline(always)]
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    #[inline(always)]
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    #[inline(always)]
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}
