//! Making a packed segment of a raw one, and back.
//!
//! ```text
//! raw, every block verified ─► <16 hex>.mpz.tmp-… ─► synced ─► read back, compared ─► renamed, folder synced
//!   ─► `Arranged` raised ─► raw unlinked                  (who has it open keeps it; who lists meanwhile lists again)
//! ```
//!
//! A crash leaves the raw segment, or both, of which the raw one counts, or the packed one: never none (E1). The
//! caller holds the lock of those who give segments another form.

use std::io;
use std::sync::Arc;

use crate::clock::Rng;
use crate::planted::{self, Bug};
use crate::storage::{OpenMode, Storage, StorageFile};
use crate::width::{to_u64, to_usize};
use crate::{Error, Lsn, Result};

use super::super::cursor::{Cursor, Found};
use super::super::form::{Form, packed_name, segment_name};
use super::super::segment::{Segment, SegmentDir};
use super::PackedSegment;
use super::layout::{Entry, HEADER, Header, MOST_RAW};
use super::write::Packer;
use crate::storage::write_all;

/// What stands between the name of a file and the word of who makes it.
pub(in crate::log) const TEMPORARY: &str = ".tmp-";
/// Bytes written at a time: 256 KiB, so that who waits meanwhile does not wait long.
const WRITTEN: usize = 256 << 10;
/// Bytes compared at a time: 1 MiB.
pub(in crate::log) const STEP: usize = 1 << 20;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    /// Bytes of its blocks.
    pub raw_bytes: u64,
    /// Length of the packed file.
    pub packed_bytes: u64,
}

/// What the caller is asked and told meanwhile.
pub(crate) struct Meanwhile<'a> {
    /// Says to all processes that a form of a segment is about to go.
    pub arrange: &'a dyn Fn(),
    /// Is told bytes of the segment as they are read; an error ends the work, and leaves the segment as it was.
    pub step: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// Gives the sealed segment [first, end) its packed form; `None` for one that is too long for it.
pub(crate) fn pack(
    dir: &Arc<SegmentDir>,
    first: Lsn,
    end: Lsn,
    rng: &dyn Rng,
    meanwhile: &mut Meanwhile<'_>,
) -> Result<Option<Packing>> {
    let (storage, name) = (&**dir.storage(), packed_name(first));
    let path = storage.root().join(&name);
    let failed = |error| Error::io("compress a segment", &path, error).at_lsn(first);
    let raw = dir.open(first)?;
    if raw.form() != Form::Raw || raw.len() > MOST_RAW {
        return Ok(None);
    }
    if !is_made(dir, first, end, &*raw.file)? {
        let temporary = format!("{name}{TEMPORARY}{:016x}", rng.next_u64());
        let made = write(dir, first, end, &temporary, meanwhile.step).and_then(|()| {
            if planted::is(Bug::RawGoneFirst) {
                storage.unlink(&segment_name(dir.kind(), first)).map_err(failed)?;
            }
            storage.rename(&temporary, &name).map_err(failed)
        });
        if let Err(error) = made {
            remove(storage, &temporary);
            return Err(error);
        }
    }
    storage.sync_dir(dir.folder()).map_err(failed)?;
    let packed_bytes = storage
        .open(&name, OpenMode::Read)
        .and_then(|file| file.len())
        .map_err(failed)?;
    if !planted::is(Bug::RawGoneFirst) {
        (meanwhile.arrange)();
        storage.unlink(&segment_name(dir.kind(), first)).map_err(failed)?;
    }
    dir.forget(first);
    Ok(Some(Packing {
        raw_bytes: end.since(first),
        packed_bytes,
    }))
}

/// Gives a packed segment its raw form back. False when it has no packed one.
pub(crate) fn unpack(dir: &Arc<SegmentDir>, first: Lsn, rng: &dyn Rng, arrange: &dyn Fn()) -> Result<bool> {
    let (storage, name) = (&**dir.storage(), packed_name(first));
    let path = storage.root().join(&name);
    let failed = |error| Error::io("decompress a segment", &path, error).at_lsn(first);
    let Some(packed) = dir.open_packed(first)? else {
        return Ok(false);
    };
    unpack_beside(dir, first, rng)?;
    let raw = dir.open_raw(first).map_err(failed)?;
    // Of a run that died, or of one that packed and died: both are whole, or neither may go.
    compare(&*raw, &packed, packed.header().used())
        .map_err(|error| dir.unreadable("compare two forms of a segment", path.clone(), first, error))?;
    storage.sync_dir(dir.folder()).map_err(failed)?;
    arrange();
    storage.unlink(&name).map_err(failed)?;
    dir.forget(first);
    Ok(true)
}

/// Puts a raw segment beside its packed form; one that is there already stays, and counts.
pub(crate) fn unpack_beside(dir: &Arc<SegmentDir>, first: Lsn, rng: &dyn Rng) -> Result<()> {
    let (storage, name) = (&**dir.storage(), segment_name(dir.kind(), first));
    let path = storage.root().join(packed_name(first));
    if dir.forms()?.binary_search(&(first, Form::Raw)).is_ok() {
        return Ok(());
    }
    let Some(packed) = dir.open_packed(first)? else {
        return Ok(());
    };
    let temporary = format!("{name}{TEMPORARY}{:016x}", rng.next_u64());
    let write = || -> io::Result<()> {
        let file = storage.open(&temporary, OpenMode::CreateNew)?;
        let (used, mut at) = (packed.header().used(), 0);
        file.set_len(packed.header().raw_file_len)?;
        while at < used {
            let bytes = read(&packed, at, used)?;
            write_all(&*file, &[&bytes], at)?;
            at += to_u64(bytes.len());
        }
        file.sync_data()?;
        compare(&*storage.open(&temporary, OpenMode::Read)?, &packed, used)?;
        storage.rename(&temporary, &name)?;
        storage.sync_dir(dir.folder())
    };
    write().map_err(|error| {
        remove(storage, &temporary);
        dir.unreadable("decompress a segment", path, first, error)
    })?;
    dir.forget(first);
    Ok(())
}

/// True when there is a packed form already, of a run that died, and it is the same. One that is not is removed.
fn is_made(dir: &Arc<SegmentDir>, first: Lsn, end: Lsn, raw: &dyn StorageFile) -> Result<bool> {
    let (storage, name) = (&**dir.storage(), packed_name(first));
    let path = storage.root().join(&name);
    let file = match storage.open(&name, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|error| Error::io("open a compressed segment", &path, error))?,
    };
    let same = PackedSegment::open(file, dir.owner().id, first).and_then(|packed| {
        let whole = packed.header().end == end;
        compare(raw, &packed, end.since(first)).map(|()| whole)
    });
    match same {
        Ok(true) => return Ok(true),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
            return Err(Error::io("compare a compressed segment", &path, error).at_lsn(first));
        }
        _ => tracing::warn!(
            lsn = first.0,
            "a compressed segment is not what it was made of, and is made again"
        ),
    }
    let gone = storage.unlink(&name);
    gone.map_err(|error| Error::io("remove a compressed segment that is damaged", &path, error))?;
    Ok(false)
}

/// Writes the packed form of [first, end) under `temporary`, synced, and compares it with the raw one.
fn write(
    dir: &Arc<SegmentDir>,
    first: Lsn,
    end: Lsn,
    temporary: &str,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (storage, owner, raw) = (&**dir.storage(), dir.owner(), dir.open(first)?);
    let path = storage.root().join(temporary);
    let failed = |error| Error::io("write a compressed segment", &path, error).at_lsn(first);
    let file = storage.open(temporary, OpenMode::CreateNew).map_err(failed)?;
    let header = Header {
        store: owner.id,
        first,
        end,
        raw_file_len: raw.len(),
        blocks: 0,
        table_at: to_u64(HEADER),
        pieces: 0,
        table_crc: 0,
    };
    let mut told = first;
    let (entries, header) = write_pieces(dir, &raw, header, &mut |bytes, (at, reached)| {
        step(reached.since(told))?;
        told = reached;
        write_all(&*file, &[bytes], at).map_err(failed)
    })?;
    write_ends(&*file, &entries, header).map_err(failed)?;
    if !planted::is(Bug::PackedNotSynced) {
        file.sync_data().map_err(failed)?;
    }
    if planted::is(Bug::PackedNotCompared) {
        return Ok(());
    }
    let same = || {
        let back = storage.open(temporary, OpenMode::Read)?;
        compare(
            &*raw.file,
            &PackedSegment::open(back, owner.id, first)?,
            header.used(),
        )
    };
    same().map_err(|error| {
        let text =
            "a compressed segment is not what was written; the segment was left as it is: check the disk";
        let error = Error::internal(text).caused_by(error);
        error.at_path(&path).at_lsn(first)
    })
}

/// Compresses the blocks of a segment, each verified; `put` is given pieces, their offset in the file, and how far the
/// segment was read. Returns what they are, and the header as far as it is known by then.
fn write_pieces(
    dir: &Arc<SegmentDir>,
    raw: &Arc<Segment>,
    mut header: Header,
    put: &mut dyn FnMut(&[u8], (u64, Lsn)) -> Result<()>,
) -> Result<(Vec<Entry>, Header)> {
    let (first, end) = (header.first, header.end);
    let failed = |error| Error::io("compress a segment", dir.path(raw), error).at_lsn(first);
    let mut packer = Packer::new().map_err(failed)?;
    let mut cursor = Cursor::new(dir, raw);
    let (mut at, mut chain) = (first, None);
    while at < end {
        match cursor.block(at, chain)? {
            Found::Block(block, bytes) if block.header().end() <= end => {
                packer.take(block.header(), bytes).map_err(failed)?;
                (at, chain) = (block.header().end(), Some(block.chain_after()));
            }
            Found::Block(..) => {
                return Err(cursor.corrupt(at, "a block reaches beyond the end of its segment"));
            }
            Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
        }
        if packer.ready().len() >= WRITTEN {
            put(packer.ready(), (header.table_at, at))?;
            header.table_at += to_u64(packer.ready().len());
            packer.written();
        }
    }
    let (entries, blocks, rest) = packer.end().map_err(failed)?;
    put(&rest, (header.table_at, end))?;
    header.table_at += to_u64(rest.len());
    header.blocks = blocks;
    Ok((entries, header))
}

/// Writes the table behind the pieces, and the header that knows it.
fn write_ends(file: &dyn StorageFile, entries: &[Entry], header: Header) -> io::Result<()> {
    let table: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    write_all(file, &[&table], header.table_at)?;
    let header = Header {
        pieces: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        table_crc: crc32fast::hash(&table),
        ..header
    };
    write_all(file, &[&header.encode()], 0)
}

/// Fails with `InvalidData` where the first `used` bytes of the two differ.
fn compare(raw: &dyn StorageFile, packed: &PackedSegment, used: u64) -> io::Result<()> {
    let mut at = 0;
    while at < used {
        let (one, other) = (read(raw, at, used)?, read(packed, at, used)?);
        if one != other || one.is_empty() {
            let text = format!("the two forms of a segment differ behind byte {at}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        at += to_u64(one.len());
    }
    Ok(())
}

/// The bytes from `at` on, up to a step of them and not beyond `end`.
fn read(file: &dyn StorageFile, at: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; STEP.min(to_usize(end - at))];
    let read = file.read_at(&mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}

pub(in crate::log) fn remove(storage: &dyn Storage, temporary: &str) {
    match storage.unlink(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "an unfinished file stays until the next recovery");
        }
        _ => {}
    }
}

/// Removes what a crash left unfinished; for who holds the lock, or is alone in the store.
pub(crate) fn remove_unfinished(storage: &dyn Storage, folder: &str) -> io::Result<()> {
    for name in storage.list(folder)? {
        let ours = |(stem, _): (&str, &str)| [".mpz", ".log", ".away"].iter().any(|end| stem.ends_with(end));
        if name.split_once(TEMPORARY).is_some_and(ours) {
            storage.unlink(&format!("{folder}/{name}"))?;
        }
    }
    Ok(())
}
