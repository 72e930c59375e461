//! The bytes of a packed segment: header and table. Touches no files.
//!
//! ```text
//! header 128                                        entry of the table 24
//! 0   "MPZ1" 4 | version 2 | flags 2                0   raw_len 4 | head_len 4
//! 8   store id 16                                   8   packed length 4 and CRC-32 4 of the heads
//! 24  first LSN 8 | end LSN 8                       16  packed length 4 and CRC-32 4 of the bodies
//! 40  length of the raw file 8 | blocks 8
//! 56  table_at 8 | pieces 4 | CRC-32 of the table 4
//! 72  reserved | CRC-32 of the bytes before it 4
//! ```

use crate::width::{to_u64, u32_to_usize};
use crate::{Lsn, StoreId};

/// Length of the header in bytes.
pub(super) const HEADER: usize = 128;
/// Length of an entry of the table in bytes.
pub(super) const ENTRY: usize = 24;
/// Most bytes of the segment in one piece: what is taken into memory to read any of it.
pub(super) const MOST_PIECE: usize = 256 << 10;
/// Longest raw file: a segment's, or one block's.
pub(super) const MOST_RAW: u64 = 1 << 30;

const MAGIC: [u8; 4] = *b"MPZ1";
const VERSION: u16 = 1;
const RESERVED_AT: usize = 72;
const CRC_AT: usize = HEADER - 4;

/// What the whole file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whose segment.
    pub store: StoreId,
    /// LSN of its first byte.
    pub first: Lsn,
    /// LSN behind its last block: where the next segment begins.
    pub end: Lsn,
    /// Length of the raw file; what lies behind the last block reads as zeros.
    pub raw_file_len: u64,
    /// Blocks in it.
    pub blocks: u64,
    /// Where the table begins in this file.
    pub table_at: u64,
    /// Entries of the table.
    pub pieces: u32,
    /// CRC-32 of the table.
    pub table_crc: u32,
}

/// One part of a piece as it lies in the file. As long as what it holds, it is not compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Bytes in the file.
    pub packed_len: u32,
    /// Their CRC-32.
    pub crc: u32,
}

/// A range of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes of the segment.
    pub raw_len: u32,
    /// How many of them are headers and filters, kept apart; 0 when nothing is.
    pub head_len: u32,
    /// Headers and filters.
    pub heads: Part,
    /// All else.
    pub bodies: Part,
}

/// Why a file is no packed segment that this program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Bytes are missing, or changed, or contradict each other.
    Damaged(&'static str),
    /// A version or a flag that is not known.
    Newer(u16),
}

impl Header {
    /// The file's first bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.store.0.to_le_bytes());
        let longs = [
            self.first.0,
            self.end.0,
            self.raw_file_len,
            self.blocks,
            self.table_at,
        ];
        longs
            .iter()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&self.pieces.to_le_bytes());
        bytes.extend_from_slice(&self.table_crc.to_le_bytes());
        assert_eq!(bytes.len(), RESERVED_AT, "the table above and the writer agree");
        bytes.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and verifies them; `file_len` is how long the file is.
    pub(super) fn decode(bytes: &[u8], file_len: u64) -> Result<Header, Fault> {
        let raw: &[u8; HEADER] = bytes.first_chunk().ok_or(Fault::Damaged("it is too short"))?;
        let (covered, crc) = raw.split_at(CRC_AT);
        if *covered.first_chunk().unwrap_or(&[0; 4]) != MAGIC {
            return Err(Fault::Damaged("it does not begin like one"));
        }
        if crc != crc32fast::hash(covered).to_le_bytes() {
            return Err(Fault::Damaged("its header's checksum does not match"));
        }
        let fields = || {
            let version = u16::from_le_bytes(take(covered, 4)?);
            let flags = u16::from_le_bytes(take(covered, 6)?);
            let header = Header {
                store: StoreId(u128::from_le_bytes(take(covered, 8)?)),
                first: Lsn(u64::from_le_bytes(take(covered, 24)?)),
                end: Lsn(u64::from_le_bytes(take(covered, 32)?)),
                raw_file_len: u64::from_le_bytes(take(covered, 40)?),
                blocks: u64::from_le_bytes(take(covered, 48)?),
                table_at: u64::from_le_bytes(take(covered, 56)?),
                pieces: u32::from_le_bytes(take(covered, 64)?),
                table_crc: u32::from_le_bytes(take(covered, 68)?),
            };
            Some((version, flags, header))
        };
        let (version, flags, header) = fields().ok_or(Fault::Damaged("it is too short"))?;
        if version != VERSION || flags != 0 {
            return Err(Fault::Newer(version));
        }
        let table_len = to_u64(u32_to_usize(header.pieces) * ENTRY);
        let lengths_agree = header.first < header.end
            && header.end.since(header.first) <= header.raw_file_len
            && header.raw_file_len <= MOST_RAW
            && header.first.0.checked_add(header.raw_file_len).is_some()
            && header.table_at.checked_add(table_len) == Some(file_len);
        if !lengths_agree {
            return Err(Fault::Damaged("it is not as long as its header says"));
        }
        Ok(header)
    }

    /// Bytes of the segment up to the end of its last block.
    pub(super) fn used(&self) -> u64 {
        self.end.since(self.first)
    }

    /// Length of the table in bytes; bounded by the file's own length.
    pub(super) fn table_len(&self) -> usize {
        u32_to_usize(self.pieces) * ENTRY
    }

    /// Reads and verifies the table.
    pub(super) fn decode_table(&self, bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
        if bytes.len() != self.table_len() || crc32fast::hash(bytes) != self.table_crc {
            return Err(Fault::Damaged("its table's checksum does not match"));
        }
        let wrong = Fault::Damaged("its table contradicts itself");
        let (mut raw, mut packed) = (0u64, to_u64(HEADER));
        let mut entries = Vec::with_capacity(u32_to_usize(self.pieces));
        for chunk in bytes.chunks_exact(ENTRY) {
            let entry = Entry::decode(chunk).filter(Entry::is_sound).ok_or(wrong)?;
            raw += u64::from(entry.raw_len);
            packed += entry.packed_len();
            entries.push(entry);
        }
        if raw != self.used() || packed != self.table_at {
            return Err(wrong);
        }
        Ok(entries)
    }
}

impl Entry {
    /// The entry's bytes.
    pub(super) fn encode(&self) -> [u8; ENTRY] {
        let words = [
            self.raw_len,
            self.head_len,
            self.heads.packed_len,
            self.heads.crc,
            self.bodies.packed_len,
            self.bodies.crc,
        ];
        let mut bytes = [0; ENTRY];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Entry> {
        let word = |at| take(bytes, at).map(u32::from_le_bytes);
        let part = |at| {
            Some(Part {
                packed_len: word(at)?,
                crc: word(at + 4)?,
            })
        };
        Some(Entry {
            raw_len: word(0)?,
            head_len: word(4)?,
            heads: part(8)?,
            bodies: part(16)?,
        })
    }

    /// Lengths within their bounds: nothing is longer packed than as it was.
    fn is_sound(&self) -> bool {
        let fits = |part: Part, len: u32| part.packed_len <= len && (part.packed_len == 0) == (len == 0);
        self.raw_len > 0
            && u32_to_usize(self.raw_len) <= MOST_PIECE
            && self.head_len <= self.raw_len
            && fits(self.heads, self.head_len)
            && fits(self.bodies, self.body_len())
    }

    /// Bytes that are neither header nor filter.
    pub(super) fn body_len(&self) -> u32 {
        self.raw_len - self.head_len
    }

    /// Bytes in the file.
    pub(super) fn packed_len(&self) -> u64 {
        u64::from(self.heads.packed_len) + u64::from(self.bodies.packed_len)
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
