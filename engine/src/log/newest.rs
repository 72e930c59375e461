//! Two witnesses outside the segments, without which a log that lost its end would look like one that ends
//! earlier, and recovery would go on from there (E3): the file `log/newest`, the newest segment that a roll has
//! put in place, and the file `log/closed`, where the log ended when it was last closed cleanly. The closing
//! block says the same, but it shares its sector with the end of the last commit.
//!
//! ```text
//! 0 "MPNEWEST" or "MPCLOSED" 8 | store id 16 | LSN 8 | reserved 4 | CRC-32 of the bytes before 4
//! ```
//!
//! No truth: each is written in place after what it names is durable, so it never names what a crash
//! could take back; one that is missing, torn or of another store says nothing.

use std::io;

use crate::storage::{OpenMode, Storage};
use crate::{Lsn, StoreId};

/// Name and magic of a witness.
type Witness = (&'static str, [u8; 8]);

const NEWEST: Witness = ("log/newest", *b"MPNEWEST");
const CLOSED: Witness = ("log/closed", *b"MPCLOSED");
const LEN: usize = 40;
const CRC_AT: usize = LEN - 4;

/// First LSN of the newest segment, as far as the file knows.
pub(crate) fn read(storage: &dyn Storage, id: StoreId) -> io::Result<Option<Lsn>> {
    read_witness(NEWEST, storage, id)
}

/// Where the log ended at its last clean end, as far as the file knows; everything before it is durable.
pub(crate) fn closed(storage: &dyn Storage, id: StoreId) -> io::Result<Option<Lsn>> {
    read_witness(CLOSED, storage, id)
}

fn read_witness(witness: Witness, storage: &dyn Storage, id: StoreId) -> io::Result<Option<Lsn>> {
    let file = match storage.open(witness.0, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; LEN];
    let read = file.read_at(&mut bytes, 0)?;
    Ok((read == LEN).then(|| parse(witness, &bytes, id)).flatten())
}

/// Says durably that the segment at `first` is in place. What cannot be said is a warning only.
pub(crate) fn write(storage: &dyn Storage, id: StoreId, first: Lsn) {
    let write = || -> io::Result<()> {
        let file = storage.open(NEWEST.0, OpenMode::OpenOrCreate)?;
        crate::storage::write_all(&*file, &[&encode(NEWEST, id, first)], 0)?;
        file.sync_data()
    };
    if let Err(error) = write() {
        tracing::warn!(%error, lsn = first.0, "cannot note which segment is the newest; a loss of it would go unseen");
    }
}

/// Notes that the log ended at `end`, which is durable, when it was closed. Not synced: it is true whenever it
/// gets to the disk.
pub(crate) fn write_closed(storage: &dyn Storage, id: StoreId, end: Lsn) {
    let write = || -> io::Result<()> {
        if matches!(closed(storage, id), Ok(Some(noted)) if noted >= end) {
            return Ok(());
        }
        let file = storage.open(CLOSED.0, OpenMode::OpenOrCreate)?;
        crate::storage::write_all(&*file, &[&encode(CLOSED, id, end)], 0)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, lsn = end.0, "cannot note where the log ends; a loss of its end might go unseen");
    }
}

/// Takes back where the log ended when it was closed, for who makes it end earlier on purpose. Its name is durable
/// with the next sync of the folder.
pub(crate) fn forget_closed(storage: &dyn Storage) -> io::Result<()> {
    match storage.unlink(CLOSED.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// [`write`], for who finds it said already most of the time.
pub(super) fn note(storage: &dyn Storage, id: StoreId, first: Lsn) {
    if !matches!(read(storage, id), Ok(Some(noted)) if noted == first) {
        write(storage, id, first);
    }
}

fn encode(witness: Witness, id: StoreId, first: Lsn) -> Vec<u8> {
    let mut bytes = witness.1.to_vec();
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes.extend_from_slice(&first.0.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse(witness: Witness, bytes: &[u8; LEN], id: StoreId) -> Option<Lsn> {
    let (covered, crc) = bytes.split_at(CRC_AT);
    let (magic, rest) = covered.split_first_chunk::<8>()?;
    let (store, rest) = rest.split_first_chunk::<16>()?;
    let first = u64::from_le_bytes(*rest.first_chunk()?);
    let whole = *magic == witness.1 && crc == crc32fast::hash(covered).to_le_bytes();
    (whole && u128::from_le_bytes(*store) == id.0).then_some(Lsn(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{assert_laid_out, kept};
    use crate::storage::LocalStorage;

    const ID: StoreId = StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    const AT: Lsn = Lsn(0x1122_3344_5566_7788);

    #[test]
    fn witnesses_of_format_1_are_written_and_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(dir.path().to_path_buf());
        storage.create_dir("log").unwrap();
        write(&storage, ID, AT);
        write_closed(&storage, ID, AT);
        type Read = fn(&dyn Storage, StoreId) -> io::Result<Option<Lsn>>;
        let witnesses = [
            ("newest", b"MPNEWEST", read as Read),
            ("closed", b"MPCLOSED", closed),
        ];
        for (name, magic, read) in witnesses {
            let path = dir.path().join("log").join(name);
            let written = std::fs::read(&path).unwrap();
            let bytes = kept(name, &written);
            assert_eq!(written, bytes, "{name}");
            // docs/format.md, "Segment".
            assert_laid_out(
                name,
                &bytes,
                &[
                    (0, magic),
                    (8, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
                    (24, &0x1122_3344_5566_7788_u64.to_le_bytes()),
                    (32, &[0; 4]),
                    (36, &crc32fast::hash(&bytes[..36]).to_le_bytes()),
                ],
            );
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&storage, ID).unwrap(), Some(AT), "{name}");
            assert_eq!(
                read(&storage, StoreId(1)).unwrap(),
                None,
                "{name} of another store"
            );
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, &changed).unwrap();
                assert_eq!(read(&storage, ID).unwrap(), None, "{name}, bit {bit}");
            }
            for len in 0..bytes.len() {
                std::fs::write(&path, &bytes[..len]).unwrap();
                assert_eq!(read(&storage, ID).unwrap(), None, "{name}, {len} bytes");
            }
        }
    }
}
