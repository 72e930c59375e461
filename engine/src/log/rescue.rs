//! Writing blocks over themselves where a power cut may turn what is being written into garbage: stores whose
//! blocks are padded ([`Options::pad_to`](crate::Options::pad_to)).
//!
//! ```text
//! blocks ─► log/rescue.new, synced ─► named log/rescue, folder synced ─► written over in place, synced ─► unlinked
//! recovery: a block that is not in place, and is in `log/rescue`, is put back     (the queue's: queue/rescue)
//!
//! log/rescue:  0 "MPRESCUE" 8 | store id 16 | LSN of the first block 8 | CRC-32 of the bytes before 4 | reserved 4 | blocks
//! ```
//!
//! S1 and S3 demand that blocks are written again that may be durable and acknowledged already. Power lost
//! in the middle of that would take them (E1), so there is a second copy before the first is touched. A file
//! that is torn says nothing: then nothing was touched yet. One that was left behind names blocks that no
//! recovery since has cut, because each reads it first; what it holds and the log lacks is put back, and
//! nothing else.

use std::io;
use std::sync::Arc;

use crate::block::{Block, HEADER_LEN};
use crate::planted::{self, Bug};
use crate::storage::{OpenMode, StorageFile};
use crate::width::{to_u64, to_usize};
use crate::{Chain, Error, Lsn, Result, StoreId};

use super::cursor::{Cursor, Found};
use super::segment::{Segment, SegmentDir};
use crate::storage::write_all;

const NAME: &str = "rescue";
const NEW: &str = "rescue.new";
const MAGIC: [u8; 8] = *b"MPRESCUE";
const HEAD: usize = 40;
const CRC_AT: usize = HEAD - 8;
/// Blocks are copied and written over in portions of about this many bytes: 4 MiB, or one larger block.
const PORTION: usize = 4 << 20;
/// Most bytes of blocks that a copy holds: a portion, and one largest block that began within it.
const MOST: u64 = (4 << 20) + (1 << 30);

/// Writes the verified blocks of `[from, to)`, which lie in the cursor's segment, over themselves and syncs
/// them, so that power lost at any moment leaves one whole copy of each. For who holds the append lock, or
/// is alone in the store.
pub(crate) fn write_over(
    cursor: &mut Cursor,
    from: Lsn,
    to: Lsn,
    sync: &dyn Fn(&Segment) -> io::Result<()>,
) -> Result<()> {
    let mut at = from;
    while at < to {
        let (begin, mut blocks) = (at, Vec::new());
        while at < to && blocks.len() < PORTION {
            match cursor.block(at, None)? {
                Found::Block(block, bytes) => {
                    blocks.extend_from_slice(bytes);
                    at = block.header().end();
                }
                Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
            }
        }
        write_portion(cursor, begin, &blocks, sync)?;
    }
    Ok(())
}

fn write_portion(
    cursor: &Cursor,
    at: Lsn,
    blocks: &[u8],
    sync: &dyn Fn(&Segment) -> io::Result<()>,
) -> Result<()> {
    let (segment, dir) = (cursor.segment(), cursor.dir());
    let storage = &**dir.storage();
    if !planted::is(Bug::NoSecondCopy) {
        settle_former(dir, segment, sync)?;
        let kept = keep(dir, at, blocks);
        kept.map_err(|error| {
            let path = storage.root().join(dir.folder()).join(NEW);
            Error::io("copy blocks before they are written again", path, error)
        })?;
    }
    write_all(&*segment.file, &[blocks], segment.offset(at))
        .and_then(|()| sync(segment))
        .map_err(|error| Error::io("write blocks again", cursor.path(), error).at_lsn(at))?;
    // Left behind it does no harm.
    if let Err(error) = remove(dir) {
        tracing::debug!(%error, "a copy of blocks that were written again stays until the next time");
    }
    Ok(())
}

/// Removes the second copy, if there is one.
pub(crate) fn remove(dir: &SegmentDir) -> io::Result<()> {
    match dir.storage().unlink(&format!("{}/{NAME}", dir.folder())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A former copy is all that is left of its blocks while they are in flight once more, perhaps in a segment that was
/// sealed since: who wrote over them died before its sync. So they are on the disk before another copy takes its place.
/// Where their segment has another form by now, or is gone, that was synced when it was made.
fn settle_former(
    dir: &SegmentDir,
    segment: &Segment,
    sync: &dyn Fn(&Segment) -> io::Result<()>,
) -> Result<()> {
    let path = dir.storage().root().join(dir.folder()).join(NAME);
    let failed = |error| Error::io("settle blocks that were written again", &path, error);
    let Some((from, copy)) = read(dir).map_err(failed)? else {
        return Ok(());
    };
    let Some(first) = dir.first_at_or_before(from)? else {
        return Ok(());
    };
    let same = first == segment.first;
    let file = if same {
        Ok(Arc::clone(&segment.file))
    } else {
        dir.open_raw(first)
    };
    let settle = |file: Arc<dyn StorageFile>| {
        let (mut there, offset) = (vec![0; copy.len()], from.since(first));
        // Written again here, for a write-back may have failed that was told to who is dead (S1); but only over itself:
        // a repair may have put something else in its place.
        if file.read_at(&mut there, offset)? == copy.len() && there == copy {
            // Who made the copy may have died before its name was durable.
            dir.storage().sync_dir(dir.folder())?;
            write_all(&*file, &[&copy], offset)?;
        }
        if same { sync(segment) } else { file.sync_data() }
    };
    match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => file.and_then(settle).map_err(|error| failed(error).at_lsn(from)),
    }
}

/// Makes the second copy durable.
fn keep(dir: &SegmentDir, at: Lsn, blocks: &[u8]) -> io::Result<()> {
    let (storage, folder) = (dir.storage(), dir.folder());
    let new = format!("{folder}/{NEW}");
    let file = storage.open(&new, OpenMode::OpenOrCreate)?;
    file.set_len(0)?;
    write_all(&*file, &[&head(dir.owner().id, at), blocks], 0)?;
    file.sync_data()?;
    storage.rename(&new, &format!("{folder}/{NAME}"))?;
    storage.sync_dir(folder)
}

/// Puts back what the second copy holds and the log lacks; for recovery, before it looks for the log's end.
pub(crate) fn put_back(dir: &Arc<SegmentDir>, genesis: Chain) -> Result<()> {
    let path = dir.storage().root().join(dir.folder()).join(NAME);
    let read = read(dir);
    let Some((from, copy)) = read.map_err(|error| Error::io("read the copy of blocks", &path, error))? else {
        return Ok(());
    };
    let Some(first) = dir.first_at_or_before(from)? else {
        return Ok(());
    };
    let segment = dir.open(first)?;
    let mut cursor = Cursor::new(dir, &segment);
    let (mut at, mut chain) = (first, (first == Lsn::ZERO).then_some(genesis));
    while let Found::Block(block, _) = cursor.block(at, chain)? {
        (at, chain) = (block.header().end(), Some(block.chain_after()));
    }
    let missing =
        at.0.checked_sub(from.0)
            .and_then(|skip| copy.get(to_usize(skip)..));
    let Some(missing) = missing.filter(|missing| continues(missing, at, chain, dir)) else {
        return Ok(());
    };
    if segment.end() < at.plus(to_u64(missing.len())) {
        return Ok(());
    }
    write_all(&*segment.file, &[missing], segment.offset(at))
        .and_then(|()| segment.file.sync_data())
        .map_err(|error| Error::io("put blocks back", dir.path(&segment), error).at_lsn(at))?;
    tracing::warn!(
        lsn = at.0,
        bytes = missing.len(),
        "power was lost while blocks were written again; they were put back from their copy"
    );
    Ok(())
}

/// True when `bytes` begin with the block that the log goes on with at `at`, and are whole blocks in line.
fn continues(mut bytes: &[u8], mut at: Lsn, mut chain: Option<Chain>, dir: &SegmentDir) -> bool {
    let mut any = false;
    while bytes.len() >= HEADER_LEN {
        let Ok(block) = Block::check(bytes) else {
            return false;
        };
        let header = block.header();
        let in_line = header.lsn == at
            && header.kind == dir.kind()
            && header.owner == dir.owner()
            && chain.is_none_or(|chain| chain == header.chain);
        if !in_line {
            return false;
        }
        bytes = bytes.get(to_usize(header.end().since(at))..).unwrap_or_default();
        (at, chain, any) = (header.end(), Some(block.chain_after()), true);
    }
    any && bytes.is_empty()
}

/// LSN of the first block of the copy, and its blocks, unverified; `None` for a file that is missing or torn.
fn read(dir: &SegmentDir) -> io::Result<Option<(Lsn, Vec<u8>)>> {
    let name = format!("{}/{NAME}", dir.folder());
    let file = match dir.storage().open(&name, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut own = [0; HEAD];
    if file.read_at(&mut own, 0)? < HEAD {
        return Ok(None);
    }
    let from = own.get(24..CRC_AT).and_then(|bytes| bytes.first_chunk());
    let from = Lsn(from.map_or(0, |bytes| u64::from_le_bytes(*bytes)));
    let len = file.len()?.saturating_sub(to_u64(HEAD));
    if own.as_slice() != head(dir.owner().id, from).as_slice() || len > MOST {
        return Ok(None);
    }
    let mut blocks = vec![0; to_usize(len)];
    let read = file.read_at(&mut blocks, to_u64(HEAD))?;
    Ok((read == blocks.len()).then_some((from, blocks)))
}

fn head(id: StoreId, from: Lsn) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes.extend_from_slice(&from.0.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(HEAD, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockKind;
    use crate::golden;
    use crate::storage::{LocalStorage, Storage};

    const ID: StoreId = StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

    #[test]
    fn second_copies_of_format_1_are_written_and_read_as_ever() {
        // The blocks are those of the golden files of blocks, as they stand.
        let log = (
            BlockKind::Log,
            "log/rescue",
            "rescue",
            "log.block",
            Lsn(1 << 20),
            Chain(0xc4a1),
        );
        let queue = (
            BlockKind::Queue,
            "queue/rescue",
            "queue.rescue",
            "queue.block",
            Lsn::ZERO,
            Chain(0xc4a1),
        );
        for (kind, place, name, blocks, at, chain) in [log, queue] {
            let folder = tempfile::tempdir().unwrap();
            let storage = Arc::new(LocalStorage::new(folder.path().to_path_buf()));
            storage.create_dir("log").unwrap();
            storage.create_dir("queue").unwrap();
            let dir = SegmentDir::new(storage, kind, ID.into(), || Lsn::ZERO);
            let blocks = golden::read(blocks);
            keep(&dir, at, &blocks).unwrap();
            let path = folder.path().join(place);
            let written = std::fs::read(&path).unwrap();
            let bytes = golden::kept(name, &written);
            assert_eq!(written, bytes, "{name}");
            // docs/format.md, "Segment".
            golden::assert_laid_out(
                name,
                &bytes,
                &[
                    (0, b"MPRESCUE"),
                    (8, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
                    (24, &at.0.to_le_bytes()),
                    (32, &crc32fast::hash(&bytes[..32]).to_le_bytes()),
                    (36, &[0; 4]),
                    (40, &blocks),
                ],
            );
            std::fs::write(&path, &bytes).unwrap();
            let (from, copy) = read(&dir).unwrap().unwrap();
            assert_eq!((from, &copy), (at, &blocks), "{name}");
            assert!(continues(&copy, at, Some(chain), &dir), "{name}");
            for bit in 0..HEAD * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, &changed).unwrap();
                assert!(read(&dir).unwrap().is_none(), "{name}, bit {bit}");
            }
        }
    }
}
