//! Small files that are replaced as a whole: under their name there is always the former one or the new one.

use std::io;

use crate::storage::{OpenMode, Storage};

/// Writes `bytes` under the name `new`, syncs them and puts them in place of `name`; durable when this returns.
pub(super) fn replace(storage: &dyn Storage, new: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = storage.open(new, OpenMode::OpenOrCreate)?;
    file.set_len(0)?;
    crate::log::write_all(&*file, &[bytes], 0)?;
    file.sync_data()?;
    storage.rename(new, name)?;
    storage.sync_dir("")
}

/// Takes `N` bytes off the front.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}
