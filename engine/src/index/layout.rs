//! Bytes of a sidecar: header and the table of sections (docs/format.md, "Sidecar index").
//!
//! ```text
//! 0   magic 4 | version 2 | flags 2 | store_id 16
//! 24  first_lsn 8 | end_lsn 8
//! 40  chain_before 8 | end_chain 8
//! 56  first_time 8 | last_time 8
//! 72  frame_count 8 | transaction_count 8 | event_count 8
//! 96  stream_count 8 | pinned_count 8
//! 112 sections, seven of: len 8 | crc 4 | reserved 4
//! 224 of a base: scanned 8 | received 8, its CRC 4, flags 4 | reserved 4 | header_crc 4
//! 256 filter | streams | names | postings | pinned | blocks | checks
//! ```
//!
//! `checks` has the CRC-32 of every page of 16 KiB of what lies between header and `checks`, so that a lookup verifies
//! the few pages that it reads, and not whole sections.
//!
//! Sections follow each other without a gap, each padded with zeros to 8 bytes inside its length and
//! its checksum, and the file ends with the last: so every byte of the file is under a checksum.
//! Touches no files.

use std::ops::Range;

use crate::store::Newest;
use crate::width::to_u64;
use crate::{Chain, Lsn, StoreId};

use super::active::Totals;
use super::place::POSTING_LEN;

/// Length of the header in bytes.
pub(super) const HEADER_LEN: usize = 256;
/// Length of a stream's entry: hash 8 | base 8 | name_at 4 | postings_at 4 | count 4 | name_len 2 | reserved 2.
pub(super) const STREAM_LEN: usize = 32;
/// Length of an entry of the block table: offset 8 | chain before 8.
pub(super) const BLOCK_LEN: usize = 16;
/// Length of an offset at the front of the pinned section.
pub(super) const PINNED_AT_LEN: usize = 8;
/// Length of the fixed part of a pinned record: lsn 8 | value_len 4 | key_len 2 | reserved 2.
pub(super) const PINNED_FIXED: usize = 16;

const MAGIC: [u8; 4] = *b"MPI1";
const BASE_MAGIC: [u8; 4] = *b"MPB1";
const VERSION: u16 = 2;
const CRC_AT: usize = HEADER_LEN - 4;
const RESERVED: usize = 4;
/// Flag of a base: what was received in the freed part is told.
const TOLD: u32 = 1;
/// Flag of a base that a repair made: nobody knows whether it is told, whatever is pinned.
const DOUBTED: u32 = 2;

/// Bytes under one checksum of the section `checks`, counted from the header's end; few in unit tests, so that their
/// small files have many.
pub(super) const PAGE: u64 = if cfg!(test) { 256 } else { 16 << 10 };
/// Length of one such checksum.
pub(super) const CHECK_LEN: usize = 4;

/// Number of sections.
pub(super) const SECTIONS: usize = 7;

/// The sections, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Bloom filter over stream hashes, as in a block.
    Filter,
    /// Entries of streams, ascending by (hash, name).
    Streams,
    /// Names of streams, one after another.
    Names,
    /// Postings, stream by stream, in log order.
    Postings,
    /// All pinned records as they are at the segment's end.
    Pinned,
    /// The sparse table of blocks.
    Blocks,
    /// Checksums of the pages of all other sections.
    Checks,
}

impl Section {
    /// All, in order.
    pub(super) const ALL: [Section; SECTIONS] = [
        Section::Filter,
        Section::Streams,
        Section::Names,
        Section::Postings,
        Section::Pinned,
        Section::Blocks,
        Section::Checks,
    ];

    /// Number of the section.
    pub(super) fn number(self) -> usize {
        match self {
            Section::Filter => 0,
            Section::Streams => 1,
            Section::Names => 2,
            Section::Postings => 3,
            Section::Pinned => 4,
            Section::Blocks => 5,
            Section::Checks => 6,
        }
    }
}

/// Length and checksum of a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes, padding included; a multiple of 8.
    pub(super) len: u64,
    /// CRC-32 of them.
    pub(super) crc: u32,
}

/// Header of a sidecar, or of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SidecarHeader {
    /// A base: what is left of everything before its end, without postings.
    pub(super) base: bool,
    pub(super) store_id: StoreId,
    pub(super) first: Lsn,
    pub(super) end: Lsn,
    pub(super) chain_before: Chain,
    pub(super) end_chain: Chain,
    pub(super) totals: Totals,
    pub(super) streams: u64,
    pub(super) pinned: u64,
    pub(super) extents: [Extent; SECTIONS],
    /// Of a base: how far the scan phase had come when it was written, 0 when there never was one.
    pub(super) scanned: Lsn,
    /// Of a base: where what was received before its end is kept.
    pub(super) received: Newest,
}

impl SidecarHeader {
    /// Reads a header at the start of a file of `file_len` bytes; `None` when the bytes are none.
    pub(super) fn parse(bytes: &[u8], file_len: u64) -> Option<SidecarHeader> {
        let raw: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let (covered, stored) = raw.split_at(CRC_AT);
        if stored != crc32fast::hash(covered).to_le_bytes() {
            return None;
        }
        let mut fields = Fields(raw);
        let head = (fields.take::<4>()?, fields.u16()?, fields.u16()?);
        let base = head.0 == BASE_MAGIC;
        if head != (if base { BASE_MAGIC } else { MAGIC }, VERSION, 0) {
            return None;
        }
        let mut header = SidecarHeader {
            base,
            store_id: StoreId(u128::from_le_bytes(fields.take()?)),
            first: Lsn(fields.u64()?),
            end: Lsn(fields.u64()?),
            chain_before: Chain(fields.u64()?),
            end_chain: Chain(fields.u64()?),
            totals: Totals {
                first_time: i64::from_le_bytes(fields.take()?),
                last_time: i64::from_le_bytes(fields.take()?),
                frames: fields.u64()?,
                transactions: fields.u64()?,
                events: fields.u64()?,
            },
            streams: fields.u64()?,
            pinned: fields.u64()?,
            extents: [Extent::default(); SECTIONS],
            scanned: Lsn::ZERO,
            received: Newest::default(),
        };
        for extent in &mut header.extents {
            (extent.len, extent.crc) = (fields.u64()?, fields.u32()?);
            fields.take::<4>()?;
        }
        header.scanned = Lsn(fields.u64()?);
        header.received.file = (Lsn(fields.u64()?), fields.u32()?);
        let flags = fields.u32()?;
        header.received.told = flags & TOLD != 0;
        header.received.doubted = flags & DOUBTED != 0;
        header.agrees_with(file_len).then_some(header)
    }

    /// As written, with its checksum.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(HEADER_LEN);
        raw.extend_from_slice(if self.base { &BASE_MAGIC } else { &MAGIC });
        raw.extend_from_slice(&VERSION.to_le_bytes());
        raw.extend_from_slice(&[0; 2]);
        raw.extend_from_slice(&self.store_id.0.to_le_bytes());
        let places = [self.first.0, self.end.0, self.chain_before.0, self.end_chain.0];
        places
            .iter()
            .for_each(|word| raw.extend_from_slice(&word.to_le_bytes()));
        raw.extend_from_slice(&self.totals.first_time.to_le_bytes());
        raw.extend_from_slice(&self.totals.last_time.to_le_bytes());
        let Totals {
            frames,
            transactions,
            events,
            ..
        } = self.totals;
        let counts = [frames, transactions, events, self.streams, self.pinned];
        counts
            .iter()
            .for_each(|word| raw.extend_from_slice(&word.to_le_bytes()));
        for extent in self.extents {
            raw.extend_from_slice(&extent.len.to_le_bytes());
            raw.extend_from_slice(&extent.crc.to_le_bytes());
            raw.extend_from_slice(&[0; 4]);
        }
        raw.extend_from_slice(&self.scanned.0.to_le_bytes());
        let (received, crc) = self.received.file;
        raw.extend_from_slice(&received.0.to_le_bytes());
        raw.extend_from_slice(&crc.to_le_bytes());
        let told = if self.received.told { TOLD } else { 0 };
        let doubted = if self.received.doubted { DOUBTED } else { 0 };
        raw.extend_from_slice(&(told | doubted).to_le_bytes());
        raw.extend_from_slice(&[0; RESERVED]);
        let crc = crc32fast::hash(&raw);
        raw.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(raw.len(), HEADER_LEN, "the table above and the writer agree");
        raw
    }

    /// Where a section lies in the file.
    pub(super) fn range(&self, section: Section) -> Range<u64> {
        let before: u64 = self
            .extents
            .iter()
            .take(section.number())
            .map(|extent| extent.len)
            .sum();
        let start = to_u64(HEADER_LEN) + before;
        start..start + self.extent(section).len
    }

    /// Length and checksum of a section.
    pub(super) fn extent(&self, section: Section) -> Extent {
        self.extents.get(section.number()).copied().unwrap_or_default()
    }

    /// Bytes of the sections before the checksums of their pages.
    pub(super) fn checked_len(&self) -> u64 {
        self.range(Section::Checks).start - to_u64(HEADER_LEN)
    }

    /// True when sections, counts and the file's length fit each other.
    fn agrees_with(&self, file_len: u64) -> bool {
        let mut end = Some(to_u64(HEADER_LEN));
        for extent in &self.extents {
            end = end
                .and_then(|end| end.checked_add(extent.len))
                .filter(|_| extent.len.is_multiple_of(8));
        }
        let holds = |section: Section, count: u64, each: usize| {
            count.checked_mul(to_u64(each)) == Some(self.extent(section).len)
        };
        end == Some(file_len)
            && self.first < self.end
            && holds(Section::Streams, self.streams, STREAM_LEN)
            && holds(
                Section::Postings,
                if self.base { 0 } else { self.totals.events },
                POSTING_LEN,
            )
            && self.extent(Section::Checks).len == checks_len(self.checked_len())
            && self.extent(Section::Blocks).len.is_multiple_of(to_u64(BLOCK_LEN))
            && self.extent(Section::Pinned).len / to_u64(PINNED_AT_LEN) >= self.pinned
    }
}

/// Length of the section of checksums for so many bytes.
fn checks_len(bytes: u64) -> u64 {
    (bytes.div_ceil(PAGE) * to_u64(CHECK_LEN)).next_multiple_of(8)
}

/// Takes little-endian fields off the front of a slice.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
