//! [`Joining`]: all pieces of a transaction, put one behind the other. A long one is put together in a file and read where it is
//! mapped, so that it takes no memory of ours however long it is. The file has no name any more when this is done, and goes with
//! the last who reads it.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::storage::{OpenMode, Storage, StorageFile, write_all};
use milepost_engine::width::to_usize;

use crate::message::Part;

use super::Spool;

/// Bytes up to which a transaction is put together in memory.
const SHORT: u64 = 4 << 20;
/// How names of files end that are being put together.
const SUFFIX: &str = ".whole";

/// Pieces on their way into one encoding.
pub(super) struct Joining<'s> {
    memory: Vec<u8>,
    /// Where a long one is put together instead.
    file: Option<Unnamed<'s>>,
    total: u64,
}

/// A file that loses its name with this.
struct Unnamed<'s> {
    storage: &'s dyn Storage,
    name: String,
    file: Arc<dyn StorageFile>,
}

impl<'s> Joining<'s> {
    /// Begins with nothing of a transaction.
    pub(super) fn begin(storage: &'s dyn Storage, spool: &Spool) -> std::io::Result<Joining<'s>> {
        let total = spool.total;
        if total <= SHORT {
            return Ok(Joining {
                memory: vec![0; to_usize(total)],
                file: None,
                total,
            });
        }
        let name = format!("{}{SUFFIX}", spool.name);
        let file = storage.open(&name, OpenMode::OpenOrCreate)?;
        let unnamed = Unnamed { storage, name, file };
        unnamed.file.set_len(0)?;
        Ok(Joining {
            memory: Vec::new(),
            file: Some(unnamed),
            total,
        })
    }

    /// Puts a piece where it belongs.
    pub(super) fn put(&mut self, part: &Part) -> std::io::Result<()> {
        if let Some(unnamed) = &self.file {
            return write_all(&*unnamed.file, &[&part.piece], part.offset);
        }
        let place = to_usize(part.offset)..to_usize(part.end());
        if let Some(place) = self.memory.get_mut(place) {
            place.copy_from_slice(&part.piece);
        }
        Ok(())
    }

    /// The encoding. A disk that cannot give it back is an error.
    pub(super) fn end(self) -> std::io::Result<Bytes> {
        match self.file {
            None => Ok(Bytes::from(self.memory)),
            Some(unnamed) => {
                let window = unnamed.file.map()?.window(0..self.total)?;
                Ok(Bytes::from_owner(window))
            }
        }
    }
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the phase begins again.
        drop(self.storage.unlink(&self.name));
    }
}

/// True for what a dead process left.
pub(super) fn is_left_over(name: &str) -> bool {
    name.strip_suffix(SUFFIX)
        .is_some_and(|part| super::remote_of(part).is_some())
}
