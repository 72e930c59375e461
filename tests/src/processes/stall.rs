//! [`StallingStorage`]: the real storage, whose process stops itself (SIGSTOP) in the middle of one
//! chosen operation. A write is stopped with half of its bytes written.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::storage::{
    Cell, LocalStorage, LockMode, Mapping, OpenMode, SharedCells, Storage, StorageFile,
};
use rustix::process::{Signal, getpid, kill_process};

use super::worker::say;

/// Which operation the process stops in.
struct Trap {
    what: String,
    prefix: String,
    count: u64,
    seen: AtomicU64,
}

impl Trap {
    /// True when this is the operation.
    fn is_here(&self, what: &str, name: &str) -> bool {
        let fits = (self.what == "any" || self.what == what)
            && (self.prefix == "-" || name.starts_with(&self.prefix));
        fits && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.count
    }

    fn stop(&self, what: &str, name: &str) {
        say(&format!("stalled {what} {name}"));
        kill_process(getpid(), Signal::STOP).unwrap();
    }

    fn pass(&self, what: &str, name: &str) {
        if self.is_here(what, name) {
            self.stop(what, name);
        }
    }
}

/// The real storage with a trap.
pub struct StallingStorage {
    inner: LocalStorage,
    trap: Arc<Trap>,
}

impl StallingStorage {
    /// Stops in the `count`th operation called `what` (or `any`) on a name that begins with `prefix`
    /// (`-`: any name).
    #[must_use]
    pub fn new(inner: LocalStorage, what: &str, prefix: &str, count: u64) -> StallingStorage {
        let trap = Trap {
            what: what.to_owned(),
            prefix: prefix.to_owned(),
            count,
            seen: AtomicU64::new(0),
        };
        StallingStorage {
            inner,
            trap: Arc::new(trap),
        }
    }
}

impl Storage for StallingStorage {
    fn root(&self) -> &Path {
        self.inner.root()
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.trap.pass("create_dir", folder);
        self.inner.create_dir(folder)
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.trap.pass("open", name);
        Ok(Arc::new(StallingFile {
            inner: self.inner.open(name, mode)?,
            name: name.to_owned(),
            trap: Arc::clone(&self.trap),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.trap.pass("rename", from);
        self.inner.rename(from, to)?;
        self.trap.pass("renamed", to);
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.trap.pass("unlink", name);
        self.inner.unlink(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.trap.pass("sync_dir", folder);
        self.inner.sync_dir(folder)
    }

    fn cells(&self, name: &str, fresh: bool) -> io::Result<Arc<dyn SharedCells>> {
        self.trap.pass("cells", name);
        Ok(Arc::new(StallingCells {
            inner: self.inner.cells(name, fresh)?,
            trap: Arc::clone(&self.trap),
        }))
    }

    fn refusal(&self) -> io::Result<Option<String>> {
        self.inner.refusal()
    }

    fn process_id(&self) -> u32 {
        self.inner.process_id()
    }

    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }
}

struct StallingFile {
    inner: Arc<dyn StorageFile>,
    name: String,
    trap: Arc<Trap>,
}

impl StorageFile for StallingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<usize> {
        if !self.trap.is_here("write_at", &self.name) {
            return self.inner.write_at(pieces, offset);
        }
        let bytes = pieces.concat();
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        let written = self.inner.write_at(&[half], offset)?;
        self.trap.stop("write_at", &self.name);
        Ok(written + self.inner.write_at(&[rest], offset + written as u64)?)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.trap.pass("allocate", &self.name);
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.trap.pass("set_len", &self.name);
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.trap.pass("sync_data", &self.name);
        self.inner.sync_data()
    }

    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        self.inner.map()
    }

    fn try_lock(&self, at: u64, mode: LockMode) -> io::Result<bool> {
        let locked = self.inner.try_lock(at, mode)?;
        self.trap.pass("try_lock", &self.name);
        Ok(locked)
    }

    fn is_locked(&self, at: u64) -> io::Result<bool> {
        self.inner.is_locked(at)
    }

    fn unlock(&self, at: u64) -> io::Result<()> {
        self.trap.pass("unlock", &self.name);
        self.inner.unlock(at)
    }
}

struct StallingCells {
    inner: Arc<dyn SharedCells>,
    trap: Arc<Trap>,
}

impl SharedCells for StallingCells {
    fn load(&self, cell: Cell) -> u64 {
        self.inner.load(cell)
    }

    fn store(&self, cell: Cell, value: u64) {
        self.trap.pass("store", &format!("{cell:?}"));
        self.inner.store(cell, value);
    }

    fn compare_exchange(&self, cell: Cell, current: u64, new: u64) -> Result<u64, u64> {
        self.trap.pass("compare_exchange", &format!("{cell:?}"));
        self.inner.compare_exchange(cell, current, new)
    }

    fn wait(&self, cell: Cell, seen: u64, limit: Duration) {
        self.inner.wait(cell, seen, limit);
    }

    fn wake(&self, cell: Cell) {
        self.trap.pass("wake", &format!("{cell:?}"));
        self.inner.wake(cell);
    }
}
