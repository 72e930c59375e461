//! The storage seam: every byte of log, queue, index, base, holds and views' lock goes through
//! [`Storage`] and [`StorageFile`], and every shared word through [`SharedCells`].
//!
//! The real twin ([`LocalStorage`]) is a directory on a local file system; the simulated twin lives in
//! the test harness and loses, tears and reorders whatever was not synced.
//!
//! Names are relative to the store's directory, with `/` between folder and file, and never contain
//! `..`. Errors are those of the operating system; callers add file, LSN and next step.

use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::width::to_u64;

mod cells;
mod local;
#[cfg(loom)]
mod loom_cells;
mod mapping;
mod sys;

pub use cells::Cell;
pub use local::{LocalStorage, overlap};
#[cfg(loom)]
pub use loom_cells::LoomCells;
pub(crate) use sys::prefetch;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing. Segments are opened so even to map them, because
    /// only a writable descriptor is told of failed write-back (S1).
    ReadWrite,
    /// A new file; `AlreadyExists` when there is one.
    CreateNew,
    /// The existing file, or a new empty one.
    OpenOrCreate,
}

/// How a byte-range lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A directory of files.
pub trait Storage: Send + Sync + 'static {
    /// The directory, for messages and for parts that need real files (sled).
    fn root(&self) -> &Path;

    /// Makes a folder; one that exists is success.
    fn create_dir(&self, folder: &str) -> io::Result<()>;

    /// Opens a file.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;

    /// Moves a file within the directory, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Whoever has it open or mapped keeps its bytes.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Names in a folder (files and folders, without their path), in no order. `""` is the root.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Makes the names of a folder durable. `""` is the root.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;

    /// Takes a file or folder away from everybody but its owner. Where there is but one, nothing is to be done.
    fn make_private(&self, name: &str) -> io::Result<()> {
        let _ = name;
        Ok(())
    }

    /// True when nobody but its owner can reach into a file or folder.
    fn is_private(&self, name: &str) -> io::Result<bool> {
        let _ = name;
        Ok(true)
    }

    /// Opens the page of shared words; `fresh` makes a new one, all zero, in place of any old one.
    fn cells(&self, name: &str, fresh: bool) -> io::Result<Arc<dyn SharedCells>>;

    /// What is left of the disk that the log lies on, and its size, in bytes; `None` where nobody knows.
    fn disk(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// Another directory, for a log's archive; touches nothing. Its files are reached through it alone.
    fn beside(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        let text = format!("{} cannot be reached from here", path.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    /// What tells the store in this directory from a copy of it, never 0; `None` where nobody knows. It stays while the
    /// directory is moved within its file system.
    fn instance(&self) -> io::Result<Option<u32>> {
        Ok(None)
    }

    /// Says why the file system is not a local one that keeps the promises relied on, or `None`.
    fn refusal(&self) -> io::Result<Option<String>>;

    /// Number of the running process; it changes in a forked child.
    fn process_id(&self) -> u32;

    /// Identifies this boot of the machine, or is empty when that is unknown.
    fn boot_id(&self) -> String;
}

/// An open file.
pub trait StorageFile: Send + Sync + 'static {
    /// Reads at `offset` until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes the pieces one after another at `offset`; returns how much was written, which may be
    /// less than all without an error.
    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<usize>;

    /// Reserves space and makes the file at least `len` bytes long, reading as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Gives back the space of a range that reads as zeros and will never be written again; the length stays.
    /// A hint: a file system that cannot, does nothing.
    fn release(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        Ok(())
    }

    /// Makes the file exactly `len` bytes long.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// True when the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// A read-only mapping of the whole file as long as it is now.
    fn map(&self) -> io::Result<Arc<dyn Mapping>>;

    /// Tries to take, or change the mode of, an advisory lock on the one byte at `at`; false when
    /// another open file description holds it. Dropped with the file or the process.
    fn try_lock(&self, at: u64, mode: LockMode) -> io::Result<bool>;

    /// True while another open file description holds the byte at `at` exclusively. Takes nothing, so
    /// it stands in nobody's way.
    fn is_locked(&self, at: u64) -> io::Result<bool>;

    /// Gives the lock on the byte at `at` back.
    fn unlock(&self, at: u64) -> io::Result<()>;
}

/// Writes all pieces, going on after short writes; a write of nothing is `StorageFull`.
///
/// # Errors
/// Those of the operating system; some of the bytes may be written then.
pub fn write_all(file: &dyn StorageFile, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
    let mut left: Vec<&[u8]> = pieces.iter().copied().filter(|piece| !piece.is_empty()).collect();
    let mut at = offset;
    while !left.is_empty() {
        let mut written = file.write_at(&left, at)?;
        if written == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        at += to_u64(written);
        while let Some(first) = left.first_mut() {
            if written < first.len() {
                *first = first.get(written..).unwrap_or_default();
                break;
            }
            written -= first.len();
            left.remove(0);
        }
    }
    Ok(())
}

/// A read-only view of a file that other processes append to.
pub trait Mapping: Send + Sync + 'static {
    /// Length of the mapping in bytes.
    fn len(&self) -> u64;

    /// True when nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings a range into memory and hands it out. A disk that cannot read it is an error here and
    /// not a signal later.
    ///
    /// Callers ask only for bytes that are never written again (below `durable`, or below the
    /// queue's published end): the slice must not change while it is held.
    fn window(&self, range: Range<u64>) -> io::Result<Window>;
}

/// A populated piece of a [`Mapping`], readable in place.
#[derive(Clone)]
pub struct Window {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl Window {
    /// Wraps an owner of bytes.
    pub fn new(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Window {
        Window { bytes }
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

/// The control page's words, shared by all processes that have the store open (architecture:
/// "control page"). Worth nothing when nobody is in.
pub trait SharedCells: Send + Sync + 'static {
    /// Reads a word (acquire).
    fn load(&self, cell: Cell) -> u64;
    /// Writes a word (release).
    fn store(&self, cell: Cell, value: u64);
    /// Replaces `current` by `new` (acquire and release); returns the value found on failure.
    fn compare_exchange(&self, cell: Cell, current: u64, new: u64) -> Result<u64, u64>;
    /// Waits until the word is no longer `seen`, a wake, or `limit`; may return early for no reason.
    fn wait(&self, cell: Cell, seen: u64, limit: Duration);
    /// Wakes all who wait for the word.
    fn wake(&self, cell: Cell);

    /// Raises a watermark to at least `value`; returns true when this call raised it.
    fn raise(&self, cell: Cell, value: u64) -> bool {
        let mut current = self.load(cell);
        while current < value {
            match self.compare_exchange(cell, current, value) {
                Ok(_) => return true,
                Err(found) => current = found,
            }
        }
        false
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
