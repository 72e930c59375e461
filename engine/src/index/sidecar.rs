//! [`Sidecar`]: the index of a sealed segment, read in place from its file.
//!
//! The header is verified when the file is opened, each section at its first touch; after that only
//! bounds are checked. Whatever does not fit is [`Fault::Damaged`], and the file is made again from
//! the log: nothing of it is ever believed against its checksum.

use std::sync::{Arc, OnceLock};

use crate::block::StreamFilter;
use crate::storage::{Mapping, OpenMode, Storage, Window};
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Chain, Error, Lsn, Result};

use super::layout::{
    BLOCK_LEN, Fields, HEADER_LEN, PINNED_AT_LEN, PINNED_FIXED, SECTIONS, STREAM_LEN, Section, SidecarHeader,
};
use super::name;
use super::place::{BlockEntry, BlockPlace, POSTING_LEN, Posting};

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
    sections: [OnceLock<Window>; SECTIONS],
}

/// A stream's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedStream {
    /// Events before the segment.
    pub(super) base: u64,
    /// Events in the segment.
    pub(super) count: u64,
    /// Number of its first posting.
    postings_at: usize,
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
        let file_name = name::sidecar(first);
        let failed = |error| Fault::Failed(Error::io("read a sidecar index", &file_name, error));
        let file = match storage.open(&file_name, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Fault::Damaged(first)),
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
        Ok(Sidecar {
            header,
            mapping,
            sections: Default::default(),
        })
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
        let window = self
            .mapping
            .window(self.header.range(section))
            .map_err(|error| Error::io("read a sidecar index", name::sidecar(self.header.first), error))?;
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
        let filter = self.section(Section::Filter)?;
        if self.header.streams == 0 || !StreamFilter::new(filter).may_contain(hash, 1) {
            return Ok(None);
        }
        let entries = self.section(Section::Streams)?;
        let names = self.section(Section::Names)?;
        let entry_at = |number: usize| StreamFields::parse(entries, number).ok_or_else(|| self.damaged());
        let (mut low, mut high) = (0, to_usize(self.header.streams));
        while low < high {
            let middle = low + (high - low) / 2;
            if entry_at(middle)?.hash < hash {
                low = middle + 1
            } else {
                high = middle
            }
        }
        while low < to_usize(self.header.streams) {
            let entry = entry_at(low)?;
            if entry.hash != hash {
                break;
            }
            let name = names
                .get(entry.name_at..)
                .and_then(|rest| rest.get(..entry.name_len));
            if name.ok_or_else(|| self.damaged())? == stream.as_bytes() {
                return Ok(Some(entry.found));
            }
            low += 1;
        }
        Ok(None)
    }

    /// The `number`-th posting of a stream in this segment.
    pub(super) fn posting(&self, stream: &SealedStream, number: u64) -> Result<Posting, Fault> {
        let at = (stream.postings_at + to_usize(number)) * POSTING_LEN;
        let bytes = self
            .section(Section::Postings)?
            .get(at..)
            .and_then(<[u8]>::first_chunk);
        Ok(Posting::from_bytes(*bytes.ok_or_else(|| self.damaged())?))
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

struct StreamFields {
    hash: u64,
    name_at: usize,
    name_len: usize,
    found: SealedStream,
}

impl StreamFields {
    fn parse(entries: &[u8], number: usize) -> Option<StreamFields> {
        let mut fields = Fields(entries.get(number.checked_mul(STREAM_LEN)?..)?);
        let (hash, base) = (fields.u64()?, fields.u64()?);
        let (name_at, postings_at, count) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let name_len = usize::from(fields.u16()?);
        let found = SealedStream {
            base,
            count: u64::from(count),
            postings_at: u32_to_usize(postings_at),
        };
        Some(StreamFields {
            hash,
            name_at: u32_to_usize(name_at),
            name_len,
            found,
        })
    }
}
