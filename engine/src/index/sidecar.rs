//! [`Sidecar`]: the index of a sealed segment, read in place from its file.
//!
//! The header is verified when the file is opened. A lookup of a stream verifies the pages that it touches, which
//! is what makes the first lookup of a process quick; once there were many, and for whatever else is read, whole
//! sections are verified at their first touch. After that only bounds are checked. Whatever does not fit is [`Fault::Damaged`], and the file is made again from
//! the log: nothing of it is ever believed against its checksum.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::block::StreamFilter;
use crate::storage::{Mapping, OpenMode, Storage, Window};
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Chain, Error, Lsn, Result};

use super::layout::{
    BLOCK_LEN, CHECK_LEN, Fields, HEADER_LEN, PAGE, PINNED_AT_LEN, PINNED_FIXED, SECTIONS, STREAM_LEN,
    Section, SidecarHeader,
};
use super::name;
use super::place::{BlockEntry, BlockPlace, POSTING_LEN, Posting};

/// Lookups of streams after which whole sections are verified, so that each further one costs less.
const MANY: u64 = if cfg!(test) { 30 } else { 256 };

/// Entries that the first step away from where a hash should be passes over.
const STEP: u64 = if cfg!(test) { 2 } else { 256 };

/// Why a lookup in a sidecar gave no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The sidecar of this segment is missing or not what was written: it has to be made again.
    Damaged(Lsn),
    /// Something else, for the caller.
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Failed(error)
    }
}

/// Index of a sealed segment.
pub(super) struct Sidecar {
    header: SidecarHeader,
    mapping: Arc<dyn Mapping>,
    /// Sections that were verified as a whole.
    sections: [OnceLock<Window>; SECTIONS],
    /// Pages that were verified one by one.
    pages: OnceLock<Box<[OnceLock<Window>]>>,
    /// How often a stream was looked for.
    lookups: AtomicU64,
}

/// A stream's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedStream {
    /// Events before the segment.
    pub(super) base: u64,
    /// Events in the segment.
    pub(super) count: u64,
    /// Number of its first posting.
    postings_at: u64,
}

/// A pinned record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedPinned<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) lsn: Lsn,
}

impl Sidecar {
    /// Opens the sidecar of the segment that begins at `first`.
    pub(super) fn open(storage: &dyn Storage, first: Lsn) -> Result<Sidecar, Fault> {
        let opened = Sidecar::open_file(storage, &name::sidecar(first), first)?;
        opened
            .filter(|sidecar| !sidecar.header.base)
            .ok_or(Fault::Damaged(first))
    }

    /// Opens the base of a log that begins at `end`; `None` without one.
    pub(super) fn open_base(storage: &dyn Storage, end: Lsn) -> Result<Option<Sidecar>, Fault> {
        match Sidecar::open_file(storage, &name::base(end), Lsn::ZERO)? {
            Some(base) if !base.header.base || base.header.end != end => Err(Fault::Damaged(Lsn::ZERO)),
            other => Ok(other),
        }
    }

    /// Opens the file of what begins at `first`; `None` when there is none.
    fn open_file(storage: &dyn Storage, file_name: &str, first: Lsn) -> Result<Option<Sidecar>, Fault> {
        let failed = |error| Fault::Failed(Error::io("read a sidecar index", file_name, error));
        let file = match storage.open(file_name, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let len = file.len().map_err(failed)?;
        if len < to_u64(HEADER_LEN) {
            return Err(Fault::Damaged(first));
        }
        let mapping = file.map().map_err(failed)?;
        if mapping.len() != len {
            return Err(Fault::Damaged(first));
        }
        let head = mapping.window(0..to_u64(HEADER_LEN)).map_err(failed)?;
        let header = SidecarHeader::parse(&head, len).filter(|header| header.first == first);
        let header = header.ok_or(Fault::Damaged(first))?;
        Ok(Some(Sidecar {
            header,
            mapping,
            sections: Default::default(),
            pages: OnceLock::new(),
            lookups: AtomicU64::new(0),
        }))
    }

    /// The header.
    pub(super) fn header(&self) -> &SidecarHeader {
        &self.header
    }

    /// The fault that says that this file has to be made again.
    pub(super) fn damaged(&self) -> Fault {
        Fault::Damaged(self.header.first)
    }

    /// A section's bytes, verified.
    pub(super) fn section(&self, section: Section) -> Result<&Window, Fault> {
        let Some(slot) = self.sections.get(section.number()) else {
            return Err(self.damaged());
        };
        if let Some(window) = slot.get() {
            return Ok(window);
        }
        let window = self.window(self.header.range(section))?;
        if crc32fast::hash(&window) != self.header.extent(section).crc {
            return Err(self.damaged());
        }
        Ok(slot.get_or_init(|| window))
    }

    /// Verifies every section.
    pub(super) fn verify(&self) -> Result<(), Fault> {
        Section::ALL
            .into_iter()
            .try_for_each(|section| self.section(section).map(|_| ()))
    }

    /// The entry of a stream, if it has events in the segment.
    pub(super) fn stream(&self, hash: u64, stream: &str) -> Result<Option<SealedStream>, Fault> {
        if self.header.streams == 0 {
            return Ok(None);
        }
        if self.lookups.fetch_add(1, Ordering::Relaxed) > MANY {
            for section in [Section::Filter, Section::Streams, Section::Names] {
                self.section(section)?;
            }
        }
        if !self.may_contain(hash)? {
            return Ok(None);
        }
        for number in self.first_of(hash)?..self.header.streams {
            let entry = self.entry(number)?;
            if entry.hash != hash {
                break;
            }
            let mut name = vec![0; entry.name_len];
            self.read(Section::Names, entry.name_at, &mut name)?;
            if name == stream.as_bytes() {
                return Ok(Some(entry.found));
            }
        }
        Ok(None)
    }

    /// Every stream with its entry, by (hash, name).
    pub(super) fn each_stream(&self, visit: &mut dyn FnMut(u64, &str, SealedStream)) -> Result<(), Fault> {
        for section in [Section::Streams, Section::Names] {
            self.section(section)?;
        }
        let mut name = Vec::new();
        for number in 0..self.header.streams {
            let entry = self.entry(number)?;
            name.resize(entry.name_len, 0);
            self.read(Section::Names, entry.name_at, &mut name)?;
            let text = std::str::from_utf8(&name).map_err(|_| self.damaged())?;
            visit(entry.hash, text, entry.found);
        }
        Ok(())
    }

    /// By the filter: true unless the segment surely has no event of the stream.
    fn may_contain(&self, hash: u64) -> Result<bool, Fault> {
        let len = self.header.extent(Section::Filter).len;
        if len == 0 {
            return Ok(true);
        }
        for (at, bit) in StreamFilter::marks(hash, len) {
            let mut byte = [0];
            self.read(Section::Filter, at, &mut byte)?;
            if byte[0] & bit == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Number of the first entry whose hash is not below this one. Hashes are spread evenly, so it is looked for
    /// around where it should be, which touches a page or two where halving would touch many.
    fn first_of(&self, hash: u64) -> Result<u64, Fault> {
        let streams = self.header.streams;
        let near = (u128::from(hash) * u128::from(streams)) >> 64;
        let near = u64::try_from(near).unwrap_or(streams);
        let (mut low, mut high, mut step) = (near, near, STEP);
        while low > 0 && self.entry(low.min(streams - 1))?.hash >= hash {
            (low, high, step) = (low.saturating_sub(step), low, step * 2);
        }
        step = STEP;
        while high < streams && self.entry(high)?.hash < hash {
            (low, high, step) = (high, (high + step).min(streams), step * 2);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.hash < hash {
                low = middle + 1
            } else {
                high = middle
            }
        }
        Ok(low)
    }

    fn entry(&self, number: u64) -> Result<StreamFields, Fault> {
        let mut bytes = [0; STREAM_LEN];
        self.read(Section::Streams, number * to_u64(STREAM_LEN), &mut bytes)?;
        StreamFields::parse(&bytes).ok_or_else(|| self.damaged())
    }

    /// Postings of a stream in this segment, by their numbers.
    pub(super) fn postings(&self, stream: &SealedStream, numbers: Range<u64>) -> Result<Vec<Posting>, Fault> {
        if numbers.start > numbers.end || numbers.end > stream.count {
            return Err(self.damaged());
        }
        let mut bytes = vec![0; to_usize(numbers.end - numbers.start) * POSTING_LEN];
        let at = (stream.postings_at + numbers.start) * to_u64(POSTING_LEN);
        self.read(Section::Postings, at, &mut bytes)?;
        let (postings, _) = bytes.as_chunks::<POSTING_LEN>();
        Ok(postings.iter().copied().map(Posting::from_bytes).collect())
    }

    /// Copies verified bytes out of a section.
    fn read(&self, section: Section, at: u64, out: &mut [u8]) -> Result<(), Fault> {
        let range = self.header.range(section);
        let end = at.checked_add(to_u64(out.len()));
        if end.is_none_or(|end| end > range.end - range.start) {
            return Err(self.damaged());
        }
        if let Some(whole) = self.sections.get(section.number()).and_then(OnceLock::get) {
            let bytes = whole.get(to_usize(at)..).and_then(|rest| rest.get(..out.len()));
            out.copy_from_slice(bytes.ok_or_else(|| self.damaged())?);
            return Ok(());
        }
        let (mut at, mut rest) = (range.start + at - to_u64(HEADER_LEN), out);
        while !rest.is_empty() {
            let page = self.page(at / PAGE)?;
            let bytes = page.get(to_usize(at % PAGE)..).unwrap_or_default();
            let count = bytes.len().min(rest.len());
            if count == 0 {
                return Err(self.damaged());
            }
            let (filled, left) = rest.split_at_mut(count);
            filled.copy_from_slice(bytes.get(..count).unwrap_or_default());
            at += to_u64(count);
            rest = left;
        }
        Ok(())
    }

    /// A page of the sections, verified.
    fn page(&self, number: u64) -> Result<&Window, Fault> {
        let len = self.header.checked_len();
        let slots = self.pages.get_or_init(|| {
            let slots = (0..len.div_ceil(PAGE)).map(|_| OnceLock::new());
            slots.collect()
        });
        let slot = slots.get(to_usize(number)).ok_or_else(|| self.damaged())?;
        if let Some(window) = slot.get() {
            return Ok(window);
        }
        let check = self
            .section(Section::Checks)?
            .get(to_usize(number) * CHECK_LEN..)
            .and_then(<[u8]>::first_chunk);
        let check = u32::from_le_bytes(*check.ok_or_else(|| self.damaged())?);
        let (from, to) = (number * PAGE, ((number + 1) * PAGE).min(len));
        let window = self.window(to_u64(HEADER_LEN) + from..to_u64(HEADER_LEN) + to)?;
        if crc32fast::hash(&window) != check {
            return Err(self.damaged());
        }
        Ok(slot.get_or_init(|| window))
    }

    fn window(&self, range: Range<u64>) -> Result<Window, Fault> {
        let window = self.mapping.window(range);
        let file = || {
            if self.header.base {
                name::base(self.header.end)
            } else {
                name::sidecar(self.header.first)
            }
        };
        Ok(window.map_err(|error| Error::io("read a sidecar index", file(), error))?)
    }

    /// Number of pinned records at the segment's end.
    pub(super) fn pinned_count(&self) -> usize {
        to_usize(self.header.pinned)
    }

    /// The `number`-th pinned record, by key.
    pub(super) fn pinned_at(&self, number: usize) -> Result<SealedPinned<'_>, Fault> {
        let section = self.section(Section::Pinned)?;
        let read = || {
            let at = section
                .get(number.checked_mul(PINNED_AT_LEN)?..)?
                .first_chunk::<PINNED_AT_LEN>()?;
            let record = section.get(to_usize(u64::from_le_bytes(*at))..)?;
            let (fixed, rest) = record.split_at_checked(PINNED_FIXED)?;
            let mut fields = Fields(fixed);
            let (lsn, value_len, key_len) = (Lsn(fields.u64()?), fields.u32()?, fields.u16()?);
            let (key, rest) = rest.split_at_checked(usize::from(key_len))?;
            Some(SealedPinned {
                key,
                value: rest.get(..u32_to_usize(value_len))?,
                lsn,
            })
        };
        read().ok_or_else(|| self.damaged())
    }

    /// Number of the first pinned record whose key is not before `key`.
    pub(super) fn pinned_from(&self, key: &[u8]) -> Result<usize, Fault> {
        let (mut low, mut high) = (0, self.pinned_count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.pinned_at(middle)?.key < key {
                low = middle + 1
            } else {
                high = middle
            }
        }
        Ok(low)
    }

    /// The last block of the table at or before `lsn`.
    pub(super) fn block_holding(&self, lsn: Lsn) -> Result<Option<BlockPlace>, Fault> {
        let section = self.section(Section::Blocks)?;
        let Some(offset) = lsn.0.checked_sub(self.header.first.0) else {
            return Ok(None);
        };
        let entry_at = |number: usize| {
            let mut fields = Fields(section.get(number * BLOCK_LEN..).unwrap_or_default());
            let read = fields.u64().zip(fields.u64());
            read.map(|(offset, chain)| BlockEntry {
                offset,
                chain: Chain(chain),
            })
            .ok_or_else(|| self.damaged())
        };
        let (mut low, mut high) = (0, section.len() / BLOCK_LEN);
        while low < high {
            let middle = low + (high - low) / 2;
            if entry_at(middle)?.offset <= offset {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low.checked_sub(1)
            .map(|at| Ok(entry_at(at)?.place(self.header.first)))
            .transpose()
    }
}

pub(super) struct StreamFields {
    pub(super) hash: u64,
    pub(super) name_at: u64,
    pub(super) name_len: usize,
    pub(super) found: SealedStream,
}

impl StreamFields {
    /// Reads an entry.
    pub(super) fn parse(entry: &[u8; STREAM_LEN]) -> Option<StreamFields> {
        let mut fields = Fields(entry);
        let (hash, base) = (fields.u64()?, fields.u64()?);
        let (name_at, postings_at, count) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let name_len = usize::from(fields.u16()?);
        let found = SealedStream {
            base,
            count: u64::from(count),
            postings_at: u64::from(postings_at),
        };
        Some(StreamFields {
            hash,
            name_at: u64::from(name_at),
            name_len,
            found,
        })
    }
}
