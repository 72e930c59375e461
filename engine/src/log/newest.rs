//! The file `log/newest`: the newest segment that a roll has put in place. Without it a log whose last
//! file was lost would look like one that ends earlier, and recovery would go on from there (E3).
//!
//! ```text
//! 0 "MPNEWEST" 8 | store id 16 | first LSN of the segment 8 | reserved 4 | CRC-32 of the bytes before 4
//! ```
//!
//! A witness and no truth: it is written in place after the segment's name is durable, so it never names
//! one that a crash could take back; one that is missing, torn or of another store says nothing.

use std::io;

use crate::storage::{OpenMode, Storage};
use crate::{Lsn, StoreId};

const NAME: &str = "log/newest";
const MAGIC: [u8; 8] = *b"MPNEWEST";
const LEN: usize = 40;
const CRC_AT: usize = LEN - 4;

/// First LSN of the newest segment, as far as the file knows.
pub(super) fn read(storage: &dyn Storage, id: StoreId) -> io::Result<Option<Lsn>> {
    let file = match storage.open(NAME, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; LEN];
    let read = file.read_at(&mut bytes, 0)?;
    Ok((read == LEN).then(|| parse(&bytes, id)).flatten())
}

/// Says durably that the segment at `first` is in place. What cannot be said is a warning only.
pub(crate) fn write(storage: &dyn Storage, id: StoreId, first: Lsn) {
    let write = || -> io::Result<()> {
        let file = storage.open(NAME, OpenMode::OpenOrCreate)?;
        crate::log::write_all(&*file, &[&encode(id, first)], 0)?;
        file.sync_data()
    };
    if let Err(error) = write() {
        tracing::warn!(%error, lsn = first.0, "cannot note which segment is the newest; a loss of it would go unseen");
    }
}

/// [`write`], for who finds it said already most of the time.
pub(super) fn note(storage: &dyn Storage, id: StoreId, first: Lsn) {
    if !matches!(read(storage, id), Ok(Some(noted)) if noted == first) {
        write(storage, id, first);
    }
}

fn encode(id: StoreId, first: Lsn) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes.extend_from_slice(&first.0.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8; LEN], id: StoreId) -> Option<Lsn> {
    let (covered, crc) = bytes.split_at(CRC_AT);
    let (magic, rest) = covered.split_first_chunk::<8>()?;
    let (store, rest) = rest.split_first_chunk::<16>()?;
    let first = u64::from_le_bytes(*rest.first_chunk()?);
    let whole = *magic == MAGIC && crc == crc32fast::hash(covered).to_le_bytes();
    (whole && u128::from_le_bytes(*store) == id.0).then_some(Lsn(first))
}
