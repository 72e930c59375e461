//! What can still be told of a damaged base, for a repair that was asked for.
//!
//! ```text
//! header ─► its one flipped bit is looked for; believed only with sections that it describes
//! sections, pages ─► entries whose bytes all stand under a checksum that matches
//! sidecars of the segments that were kept ─► how many events of a stream came before, pinned records from before
//! ```
//!
//! Nothing is guessed: an entry is one that a checksum vouches for, or it is counted as lost. A sidecar is believed
//! when all of it is whole and the chain runs from the first block that was kept through every one before it, because
//! the first that has a stream says how many of its events are freed.

use std::collections::BTreeSet;

use crate::storage::{OpenMode, Storage};
use crate::store::{Newest, REMOTE, received_file};
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Chain, Error, Lsn, Result, StoreId, StreamName};

use super::active::Totals;
use super::base::{Counts, damaged, ends};
use super::build::{self, PinnedState};
use super::layout::{
    CHECK_LEN, Fields, HEADER_LEN, PAGE, PINNED_AT_LEN, PINNED_FIXED, STREAM_LEN, Section, SidecarHeader,
};
use super::name;
use super::sidecar::{Fault, Sidecar, StreamFields};

/// A base that is damaged or missing, and what is known of what it said.
pub(crate) struct Salvage {
    /// The log begins here.
    pub(crate) end: Lsn,
    /// There is no file at all: that this is where the log begins, its first segment says.
    pub(crate) missing: bool,
    /// Its bytes as they are.
    pub(crate) bytes: Vec<u8>,
    /// Streams and pinned records that it had; `None` where its header cannot be read.
    pub(crate) had: Option<(u64, u64)>,
    /// All pinned records are known as they were behind the first segment that was kept.
    pub(crate) pinned_now: bool,
    /// How far the scan phase had come is what it said, and where what was received is kept.
    pub(crate) scanned_known: bool,
    /// The chain that its header, where that is whole, says to stand before the first block.
    pub(crate) end_chain: Option<Chain>,
    counts: Counts,
    pinned: PinnedState,
    totals: Option<Totals>,
    scanned: Lsn,
    received: Newest,
}

impl Salvage {
    /// Streams whose number of freed events is known.
    pub(crate) fn streams(&self) -> u64 {
        to_u64(self.counts.len())
    }

    /// Pinned records that are known as they were where the log begins.
    pub(crate) fn pinned(&self) -> u64 {
        to_u64(self.pinned.len())
    }

    /// A base that lost pinned records may have lost those that say what was received, and from whom: then no more is
    /// said of it than that nobody knows (R1).
    fn doubt_what_was_received(&mut self) {
        let lost = self.had.is_some_and(|(_, pinned)| self.pinned() < pinned);
        if lost && !self.pinned_now {
            (self.received.told, self.received.doubted) = (false, true);
        } else if lost && !self.received.told {
            // A program that told nothing is judged by the remotes it knew then.
            self.received.doubted = true;
        }
    }

    /// The bytes of a whole base that says what is known, before a block that names `chain`.
    ///
    /// # Errors
    /// `Internal` for what no base can hold.
    pub(crate) fn renewed(&self, id: StoreId, chain: Chain) -> Result<Vec<u8>> {
        let events = self.counts.values().sum();
        let place = build::BasePlace {
            store_id: id,
            end: self.end,
            end_chain: chain,
            totals: self.totals.unwrap_or(Totals {
                events,
                ..Totals::default()
            }),
            scanned: self.scanned,
            received: self.received,
        };
        build::encode_base(&place, &self.counts, &self.pinned)
    }
}

/// The newest base of the folder, if it is damaged and a segment begins where its name says. `firsts` are the
/// segments, `chain` stands before the first block of that one, and the queue was scanned up to `scanned`.
///
/// # Errors
/// When files cannot be read.
pub(crate) fn salvage(
    storage: &dyn Storage,
    id: StoreId,
    firsts: &[Lsn],
    chain: Option<Chain>,
    scanned: Lsn,
) -> Result<Option<Salvage>> {
    let missing = missing_end(storage, firsts)?;
    let Some(end) = damaged_end(storage, id, firsts)?.or(missing) else {
        return Ok(None);
    };
    let bytes = match missing {
        Some(_) => Vec::new(),
        None => bytes_of(storage, end)?,
    };
    let mut found = Salvage {
        end,
        missing: missing.is_some(),
        had: None,
        pinned_now: false,
        scanned_known: false,
        end_chain: None,
        counts: Counts::new(),
        pinned: PinnedState::new(),
        totals: None,
        scanned: scanned.min(end),
        // Files are never removed; whether one is missing that the base named, it alone could say.
        received: Newest {
            told: false,
            doubted: true,
            file: received_file(storage, id, end)?,
        },
        bytes: Vec::new(),
    };
    if let Some(header) = header_of(&bytes, id, end) {
        found.had = Some((header.streams, header.pinned));
        (found.totals, found.scanned, found.scanned_known) = (Some(header.totals), header.scanned, true);
        found.received = header.received;
        found.end_chain = Some(header.end_chain);
        Parts::new(&bytes, &header).read(&header, &mut found);
    }
    found.bytes = bytes;
    if let Some(chain) = chain {
        let kept: Vec<Lsn> = firsts.iter().copied().filter(|first| *first >= end).collect();
        from_sidecars(storage, id, &kept, chain, &mut found)?;
    }
    found.doubt_what_was_received();
    Ok(Some(found))
}

fn bytes_of(storage: &dyn Storage, end: Lsn) -> Result<Vec<u8>> {
    let file = name::base(end);
    let failed = |error| Error::io("read a base file", storage.root().join(&file), error);
    let opened = storage.open(&file, OpenMode::Read).map_err(failed)?;
    let mut bytes = vec![0; to_usize(opened.len().map_err(failed)?)];
    let read = opened.read_at(&mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Where a log begins that has no base at all, not even a damaged one, and needs one: what came before was freed, or its
/// files are lost, and nobody knows which.
///
/// # Errors
/// When files cannot be read.
pub(crate) fn missing_end(storage: &dyn Storage, firsts: &[Lsn]) -> Result<Option<Lsn>> {
    let first = firsts.first().copied().filter(|first| *first > Lsn::ZERO);
    Ok(if ends(storage)?.is_empty() { first } else { None })
}

/// Where the log begins whose newest base is damaged.
///
/// # Errors
/// When files cannot be read.
pub(crate) fn damaged_end(storage: &dyn Storage, id: StoreId, firsts: &[Lsn]) -> Result<Option<Lsn>> {
    let newest = ends(storage)?.last().copied();
    let Some(end) = newest.filter(|end| firsts.binary_search(end).is_ok()) else {
        return Ok(None);
    };
    match Sidecar::open_base(storage, end) {
        Ok(Some(base)) if base.header().store_id == id => match base.verify() {
            Ok(()) => Ok(None),
            Err(Fault::Damaged(_)) => Ok(Some(end)),
            Err(Fault::Failed(error)) => Err(error),
        },
        Ok(Some(_)) | Err(Fault::Damaged(_)) => Ok(Some(end)),
        // Taken away meanwhile, which nobody does who is alone.
        Ok(None) => Err(damaged(end)),
        Err(Fault::Failed(error)) => Err(error),
    }
}

/// The header, with one flipped bit put back if need be: it describes sections of which one at least is whole.
fn header_of(bytes: &[u8], id: StoreId, end: Lsn) -> Option<SidecarHeader> {
    let fits = |raw: &[u8]| {
        let header = SidecarHeader::parse(raw, to_u64(bytes.len()))?;
        let ours = header.base && header.store_id == id && header.end == end;
        ours.then_some(header)
    };
    let raw: [u8; HEADER_LEN] = *bytes.first_chunk()?;
    if let Some(header) = fits(&raw) {
        return Some(header);
    }
    let mended = (0..HEADER_LEN * 8).filter_map(|bit| {
        let mut raw = raw;
        if let Some(byte) = raw.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        fits(&raw)
    });
    let vouched = |header: &SidecarHeader| {
        let parts = Parts::new(bytes, header);
        let there = Section::ALL
            .into_iter()
            .filter(|section| header.extent(*section).len > 0);
        there.clone().any(|section| parts.is_whole(section))
    };
    mended.into_iter().find(vouched)
}

/// What of a base stands under a checksum that matches.
struct Parts<'a> {
    bytes: &'a [u8],
    header: SidecarHeader,
    whole: Vec<bool>,
    /// Of the pages, where the section of their checksums is whole.
    pages: Vec<bool>,
}

impl<'a> Parts<'a> {
    fn new(bytes: &'a [u8], header: &SidecarHeader) -> Parts<'a> {
        let part = |section: Section| {
            let range = header.range(section);
            bytes.get(to_usize(range.start)..to_usize(range.end))
        };
        let is_whole = |section: Section| {
            part(section).is_some_and(|part| crc32fast::hash(part) == header.extent(section).crc)
        };
        let checks = part(Section::Checks).filter(|_| is_whole(Section::Checks));
        let body = bytes.get(HEADER_LEN..to_usize(header.range(Section::Checks).start));
        let pages = body.unwrap_or_default().chunks(to_usize(PAGE));
        let checked = checks.unwrap_or_default().chunks_exact(CHECK_LEN);
        Parts {
            bytes,
            header: *header,
            whole: Section::ALL.into_iter().map(is_whole).collect(),
            pages: pages
                .zip(checked)
                .map(|(page, check)| crc32fast::hash(page).to_le_bytes() == check)
                .collect(),
        }
    }

    fn is_whole(&self, section: Section) -> bool {
        self.whole.get(section.number()).copied().unwrap_or(false)
    }

    /// Bytes of a section that a checksum vouches for.
    fn get(&self, section: Section, at: u64, len: usize) -> Option<&'a [u8]> {
        let range = self.header.range(section);
        let start = range.start.checked_add(at)?;
        let end = start.checked_add(to_u64(len)).filter(|end| *end <= range.end)?;
        let page = |at: u64| to_usize((at - to_u64(HEADER_LEN)) / PAGE);
        let vouched = self.is_whole(section)
            || (page(start)..=page(end.max(start + 1) - 1)).all(|page| self.pages.get(page) == Some(&true));
        self.bytes.get(to_usize(start)..to_usize(end)).filter(|_| vouched)
    }

    fn read(&self, header: &SidecarHeader, found: &mut Salvage) {
        for number in 0..header.streams {
            if let Some((name, freed)) = self.stream(number) {
                found.counts.insert((StreamName::hash(&name), name), freed);
            }
        }
        for number in 0..header.pinned {
            if let Some((key, value, lsn)) = self.pinned(number) {
                found.pinned.insert(key, (value, lsn));
            }
        }
    }

    fn stream(&self, number: u64) -> Option<(Box<str>, u64)> {
        let entry = self.get(Section::Streams, number * to_u64(STREAM_LEN), STREAM_LEN)?;
        let fields = StreamFields::parse(entry.first_chunk()?)?;
        let name = self.get(Section::Names, fields.name_at, fields.name_len)?;
        let name = std::str::from_utf8(name).ok()?;
        (StreamName::hash(name) == fields.hash).then(|| (name.into(), fields.found.base))
    }

    fn pinned(&self, number: u64) -> Option<(Vec<u8>, Vec<u8>, Lsn)> {
        let at = self.get(Section::Pinned, number * to_u64(PINNED_AT_LEN), PINNED_AT_LEN)?;
        let at = u64::from_le_bytes(*at.first_chunk()?);
        let mut fields = Fields(self.get(Section::Pinned, at, PINNED_FIXED)?);
        let (lsn, value_len, key_len) = (Lsn(fields.u64()?), fields.u32()?, fields.u16()?);
        let at = at + to_u64(PINNED_FIXED);
        let (key_len, value_len) = (usize::from(key_len), u32_to_usize(value_len));
        let key = self.get(Section::Pinned, at, key_len)?;
        let value = self.get(Section::Pinned, at + to_u64(key_len), value_len)?;
        Some((key.to_vec(), value.to_vec(), lsn))
    }
}

/// Adds what the index files of the segments that were kept say of what was before them.
fn from_sidecars(
    storage: &dyn Storage,
    id: StoreId,
    kept: &[Lsn],
    mut chain: Chain,
    found: &mut Salvage,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (number, first) in kept.iter().enumerate() {
        let sidecar = match Sidecar::open(storage, *first) {
            Ok(sidecar) => sidecar,
            Err(Fault::Damaged(_)) => return Ok(()),
            Err(Fault::Failed(error)) => return Err(error),
        };
        let header = sidecar.header();
        let in_line = header.store_id == id && header.chain_before == chain;
        if !in_line || kept.get(number + 1) != Some(&header.end) || sidecar.verify().is_err() {
            return Ok(());
        }
        chain = header.end_chain;
        let mut add = || -> Result<(), Fault> {
            sidecar.each_stream(&mut |hash, name, stream| {
                let key: (u64, Box<str>) = (hash, name.into());
                if seen.insert(key.clone()) && stream.base > 0 {
                    found.counts.entry(key).or_insert(stream.base);
                }
            })?;
            if number == 0 {
                let mut pinned_again = false;
                for number in 0..sidecar.pinned_count() {
                    let record = sidecar.pinned_at(number)?;
                    if record.lsn < found.end {
                        let state = (record.value.to_vec(), record.lsn);
                        found.pinned.entry(record.key.to_vec()).or_insert(state);
                    } else {
                        pinned_again |= record.key.starts_with(REMOTE);
                    }
                }
                found.pinned_now = true;
                // Whether there was a remote before is told by its record, unless that was set again since.
                if !pinned_again && found.received.file.0 == Lsn::ZERO {
                    found.received.doubted = false;
                }
            }
            Ok(())
        };
        match add() {
            Ok(()) => {}
            Err(Fault::Damaged(_)) => return Ok(()),
            Err(Fault::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}
