//! Making a sidecar: [`encode`] turns a complete in-memory index into the file's bytes, [`write`] puts
//! them in place.
//!
//! The bytes are a pure function of the log up to the segment's end, so it does not matter which
//! process writes the file, or how many of them do.

use std::collections::BTreeMap;

use crate::block::StreamFilter;
use crate::storage::{OpenMode, Storage};
use crate::store::Newest;
use crate::width::{align8, to_u64, to_usize};
use crate::{Chain, Error, Lsn, Result, StoreId};

use super::active::{ActiveIndex, StreamEntry, Totals};
use super::layout::{
    Extent, HEADER_LEN, PAGE, PINNED_AT_LEN, PINNED_FIXED, SECTIONS, STREAM_LEN, SidecarHeader,
};
use super::name;
use super::place::POSTING_LEN;

/// Pinned records by key: value, and LSN of the frame.
pub(super) type PinnedState = BTreeMap<Vec<u8>, (Vec<u8>, Lsn)>;

/// The file's bytes. `base` tells how many events a stream has before the segment, `pinned` is the
/// state at its end. A segment without a block has no sidecar.
pub(super) fn encode<E: From<Error>>(
    store_id: StoreId,
    index: &ActiveIndex,
    pinned: &PinnedState,
    base: &mut dyn FnMut(&StreamEntry) -> Result<u64, E>,
) -> Result<Vec<u8>, E> {
    let (Some(chain_before), Some(end_chain)) = (index.chain_before(), index.chain()) else {
        return Err(Error::internal("a segment without a block has no index")
            .at_lsn(index.first())
            .into());
    };
    let mut entries: Vec<_> = index
        .streams()
        .iter()
        .filter(|entry| !entry.postings.is_empty())
        .collect();
    entries.sort_unstable_by(|a, b| (a.hash, &a.name).cmp(&(b.hash, &b.name)));
    let streams = to_u64(entries.len());
    let (table, names, postings) = encode_streams(&entries, base)?;
    let blocks = index
        .blocks()
        .iter()
        .flat_map(|block| [block.offset, block.chain.0]);
    let blocks: Vec<u8> = blocks.flat_map(u64::to_le_bytes).collect();
    let sections = [
        filter(&entries),
        table,
        names,
        postings,
        encode_pinned(pinned)?,
        blocks,
    ];
    let (mut bytes, extents) = lay_out(sections);
    let header = SidecarHeader {
        base: false,
        store_id,
        first: index.first(),
        end: index.end(),
        chain_before,
        end_chain,
        totals: index.totals(),
        streams,
        pinned: to_u64(pinned.len()),
        extents,
        scanned: Lsn::ZERO,
        received: Newest::default(),
    };
    let (front, _) = bytes.split_at_mut(HEADER_LEN);
    front.copy_from_slice(&header.to_bytes());
    Ok(bytes)
}

/// Where a base lies, and what it stands for.
pub(super) struct BasePlace {
    pub(super) store_id: StoreId,
    pub(super) end: Lsn,
    pub(super) end_chain: Chain,
    pub(super) totals: Totals,
    pub(super) scanned: Lsn,
    pub(super) received: Newest,
}

/// A base's bytes: how many events of each stream are freed, by (hash, name), and all pinned records at its end.
pub(super) fn encode_base(
    place: &BasePlace,
    counts: &BTreeMap<(u64, Box<str>), u64>,
    pinned: &PinnedState,
) -> Result<Vec<u8>> {
    let too_many = |_| Error::internal("a base holds more streams than it can number");
    let mut filter = vec![0; StreamFilter::len_for(counts.len())];
    StreamFilter::insert(&mut filter, counts.keys().map(|(hash, _)| *hash));
    let (mut table, mut names) = (Vec::with_capacity(counts.len() * STREAM_LEN), Vec::new());
    for ((hash, name), count) in counts {
        let name_at = u32::try_from(names.len()).map_err(too_many)?;
        let name_len = u16::try_from(name.len()).map_err(too_many)?;
        table.extend_from_slice(&hash.to_le_bytes());
        table.extend_from_slice(&count.to_le_bytes());
        table.extend_from_slice(&name_at.to_le_bytes());
        // No postings, none of them its first.
        table.extend_from_slice(&[0; 8]);
        table.extend_from_slice(&name_len.to_le_bytes());
        table.extend_from_slice(&[0; 2]);
        names.extend_from_slice(name.as_bytes());
    }
    let sections = [
        filter,
        table,
        names,
        Vec::new(),
        encode_pinned(pinned)?,
        Vec::new(),
    ];
    let (mut bytes, extents) = lay_out(sections);
    let header = SidecarHeader {
        base: true,
        store_id: place.store_id,
        first: Lsn::ZERO,
        end: place.end,
        chain_before: Chain::genesis(place.store_id),
        end_chain: place.end_chain,
        totals: place.totals,
        streams: to_u64(counts.len()),
        pinned: to_u64(pinned.len()),
        extents,
        scanned: place.scanned,
        received: place.received,
    };
    let (front, _) = bytes.split_at_mut(HEADER_LEN);
    front.copy_from_slice(&header.to_bytes());
    Ok(bytes)
}

/// Room for the header, the sections and the checksums of their pages; lengths and checksums of them all.
fn lay_out(sections: [Vec<u8>; SECTIONS - 1]) -> (Vec<u8>, [Extent; SECTIONS]) {
    let mut bytes = vec![0; HEADER_LEN];
    let mut extents = [Extent::default(); SECTIONS];
    let add = |bytes: &mut Vec<u8>, extent: &mut Extent, mut section: Vec<u8>| {
        section.resize(align8(section.len()), 0);
        *extent = Extent {
            len: to_u64(section.len()),
            crc: crc32fast::hash(&section),
        };
        bytes.extend_from_slice(&section);
    };
    let (of_sections, of_checks) = extents.split_at_mut(SECTIONS - 1);
    for (section, extent) in sections.into_iter().zip(of_sections) {
        add(&mut bytes, extent, section);
    }
    let pages = bytes.get(HEADER_LEN..).unwrap_or_default().chunks(to_usize(PAGE));
    let checks: Vec<u8> = pages.map(crc32fast::hash).flat_map(u32::to_le_bytes).collect();
    for extent in of_checks {
        add(&mut bytes, extent, checks.clone());
    }
    (bytes, extents)
}

fn filter(entries: &[&StreamEntry]) -> Vec<u8> {
    let mut filter = vec![0; StreamFilter::len_for(entries.len())];
    StreamFilter::insert(&mut filter, entries.iter().map(|entry| entry.hash));
    filter
}

/// Table, names and postings.
type StreamSections = (Vec<u8>, Vec<u8>, Vec<u8>);

fn encode_streams<E: From<Error>>(
    entries: &[&StreamEntry],
    base: &mut dyn FnMut(&StreamEntry) -> Result<u64, E>,
) -> Result<StreamSections, E> {
    let too_many = |_| Error::internal("a segment holds more streams or events than its index can number");
    let mut table = Vec::with_capacity(entries.len() * STREAM_LEN);
    let (mut names, mut postings) = (Vec::new(), Vec::new());
    for entry in entries {
        let base = base(entry)?;
        let name_at = u32::try_from(names.len()).map_err(too_many)?;
        let postings_at = u32::try_from(postings.len() / POSTING_LEN).map_err(too_many)?;
        let count = u32::try_from(entry.postings.len()).map_err(too_many)?;
        let name_len = u16::try_from(entry.name.len()).map_err(too_many)?;
        table.extend_from_slice(&entry.hash.to_le_bytes());
        table.extend_from_slice(&base.to_le_bytes());
        [name_at, postings_at, count]
            .iter()
            .for_each(|word| table.extend_from_slice(&word.to_le_bytes()));
        table.extend_from_slice(&name_len.to_le_bytes());
        table.extend_from_slice(&[0; 2]);
        names.extend_from_slice(entry.name.as_bytes());
        entry
            .postings
            .iter()
            .for_each(|posting| postings.extend_from_slice(&posting.to_bytes()));
    }
    Ok((table, names, postings))
}

/// Offsets of the records, ascending by key, then the records.
fn encode_pinned(pinned: &PinnedState) -> Result<Vec<u8>> {
    let (mut offsets, mut records) = (Vec::new(), Vec::new());
    let front = pinned.len() * PINNED_AT_LEN;
    for (key, (value, lsn)) in pinned {
        let (Ok(key_len), Ok(value_len)) = (u16::try_from(key.len()), u32::try_from(value.len())) else {
            return Err(Error::internal("a pinned record exceeds its length fields").at_lsn(*lsn));
        };
        offsets.extend_from_slice(&to_u64(front + records.len()).to_le_bytes());
        let start = records.len();
        records.extend_from_slice(&lsn.0.to_le_bytes());
        records.extend_from_slice(&value_len.to_le_bytes());
        records.extend_from_slice(&key_len.to_le_bytes());
        records.extend_from_slice(&[0; 2]);
        assert_eq!(
            records.len() - start,
            PINNED_FIXED,
            "the fixed part and its length agree"
        );
        records.extend_from_slice(key);
        records.extend_from_slice(value);
        records.resize(start + align8(records.len() - start), 0);
    }
    offsets.append(&mut records);
    Ok(offsets)
}

/// Writes a sidecar under a temporary name, syncs it, moves it into place and syncs the folder, so that
/// under its own name there is only ever a whole one. `word` keeps the temporary names of processes
/// apart.
pub(super) fn write(storage: &dyn Storage, first: Lsn, bytes: &[u8], word: u64) -> Result<()> {
    let (temporary, place) = (name::temporary(first, word), name::sidecar(first));
    let written = (|| {
        let file = storage.open(&temporary, OpenMode::CreateNew)?;
        crate::storage::write_all(&*file, &[bytes], 0)?;
        file.sync_data()?;
        storage.rename(&temporary, &place)?;
        storage.sync_dir(name::FOLDER)
    })();
    written.map_err(|error| {
        // Best effort: what is left over is removed by the next process that opens the store alone.
        let _ = storage.unlink(&temporary);
        Error::io("write a sidecar index", &place, error)
    })
}

/// Removes what writers of sidecars left behind when they died; for a process that is alone in the
/// store.
///
/// # Errors
/// `Internal` when the folder cannot be read.
pub fn remove_unfinished(storage: &dyn Storage) -> Result<()> {
    let failed = |error| Error::io("remove unfinished sidecar indexes", name::FOLDER, error);
    for file in storage.list(name::FOLDER).map_err(failed)? {
        if name::is_unfinished_sidecar(&file) {
            storage
                .unlink(&format!("{}/{file}", name::FOLDER))
                .map_err(failed)?;
        }
    }
    Ok(())
}
