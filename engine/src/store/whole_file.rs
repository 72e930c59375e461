//! Small files that are replaced as a whole: under their name there is always the former one or the new one.

use std::io;

use crate::storage::{OpenMode, Storage};
use crate::width::to_usize;

/// Writes `bytes` under the name `new`, syncs them and puts them in place of `name` in the same folder; durable when
/// this returns.
pub(super) fn replace(storage: &dyn Storage, new: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = storage.open(new, OpenMode::OpenOrCreate)?;
    file.set_len(0)?;
    crate::storage::write_all(&*file, &[bytes], 0)?;
    file.sync_data()?;
    storage.rename(new, name)?;
    storage.sync_dir(name.rsplit_once('/').map_or("", |(folder, _)| folder))
}

/// Reads a file whole; `None` when there is none. One that is longer than `most` comes with a byte too many, so that
/// it decodes as none.
pub(super) fn read(storage: &dyn Storage, name: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match storage.open(name, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = to_usize(file.len()?).min(most.saturating_add(1));
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// The version of a file that begins with `magic` and ends with the CRC-32 of all before it, and what stands between;
/// `None` for one that is damaged.
pub(super) fn checked(bytes: &[u8], magic: [u8; 8]) -> Option<(u32, &[u8])> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    let mut rest = covered;
    if *crc != crc32fast::hash(covered).to_le_bytes() || take(&mut rest) != Some(magic) {
        return None;
    }
    Some((take(&mut rest).map(u32::from_le_bytes)?, rest))
}

/// Takes `N` bytes off the front.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}
