//! [`SimProcess`]: the storage seam as one simulated process sees it, with its files, mappings, words
//! and clock.
//!
//! Each call is first shown to the director, then done under the machine's lock. A killed process gets
//! [`killed`] from every call and changes nothing; one that goes on calling regardless is unwound.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use milepost_engine::clock::Clock;
use milepost_engine::storage::{LockMode, Mapping, OpenMode, SharedCells, Storage, StorageFile, Window};

use super::cells::SimCells;
use super::director::{Director, Op, OpKind, Verdict};
use super::machine::Machine;
use super::names::Node;

/// Calls a killed process may still make while its code finds its way out.
const LAST_CALLS: u32 = 10_000;

/// One process of a simulated machine.
#[derive(Clone)]
pub struct SimProcess {
    machine: Arc<Mutex<Machine>>,
    director: Arc<dyn Director>,
    number: u32,
    last_calls: Arc<AtomicU32>,
    /// How long it has waited since it was killed, which is over for it alone.
    waited_dead: Arc<AtomicU64>,
}

/// The error of every call of a killed process.
#[must_use]
pub fn killed() -> io::Error {
    io::Error::other("the simulated process was killed")
}

/// What a killed process is unwound with when errors do not stop it.
#[derive(Clone, Copy, Debug)]
pub struct Killed;

impl SimProcess {
    pub(super) fn start(machine: Arc<Mutex<Machine>>, director: Arc<dyn Director>) -> SimProcess {
        let number = lock(&machine).start();
        SimProcess {
            machine,
            director,
            number,
            last_calls: Arc::default(),
            waited_dead: Arc::default(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The seam, to open stores with.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    /// Kills it: locks and handles go at once, what it wrote stays.
    pub fn kill(&self) {
        lock(&self.machine).kill(self.number);
    }

    /// True until it is killed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        lock(&self.machine).is_alive(self.number)
    }

    /// The machine as it is, whether the process lives or not.
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = lock(&self.machine);
        if machine.is_alive(self.number) {
            return Ok(machine);
        }
        drop(machine);
        if self.last_calls.fetch_add(1, Ordering::Relaxed) > LAST_CALLS && !std::thread::panicking() {
            std::panic::resume_unwind(Box::new(Killed));
        }
        Err(killed())
    }

    /// Announces an operation, and takes the machine for it.
    fn begin(
        &self,
        kind: OpKind,
        name: &str,
        offset: u64,
        len: u64,
    ) -> io::Result<(Verdict, MutexGuard<'_, Machine>)> {
        drop(self.alive()?);
        let op = Op {
            process: self.number,
            kind,
            name: name.to_owned(),
            offset,
            len,
        };
        let verdict = self.director.before(&op);
        let mut machine = self.alive()?;
        machine.note(&op);
        if verdict == Verdict::Kill {
            machine.kill(self.number);
            return Err(killed());
        }
        Ok((verdict, machine))
    }

    /// As [`SimProcess::begin`], for operations that fail whole.
    pub(super) fn whole(
        &self,
        kind: OpKind,
        name: &str,
        offset: u64,
        len: u64,
    ) -> io::Result<MutexGuard<'_, Machine>> {
        match self.begin(kind, name, offset, len)? {
            (Verdict::Fail { errno, .. }, _) => Err(io::Error::from_raw_os_error(errno)),
            (Verdict::KillAfter(_), mut machine) => {
                machine.kill(self.number);
                Err(killed())
            }
            (_, machine) => Ok(machine),
        }
    }
}

/// The machine; a panic elsewhere does not matter, each operation leaves it whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Storage for SimProcess {
    fn root(&self) -> &Path {
        Path::new("/simulated")
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.whole(OpKind::CreateDir, folder, 0, 0)?
            .names
            .create_folder(folder)
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut machine = self.whole(OpKind::Open, name, 0, mode as u64)?;
        let found = machine.names.find(name);
        let file = match (found, mode) {
            (Some(Node::Folder(_)), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (Some(Node::File(file)), _) => file,
            (None, _) => machine.create(name)?,
        };
        let handle = machine.open(self.number, file);
        let (process, name) = (self.clone(), name.to_owned());
        Ok(Arc::new(SimFile {
            process,
            name,
            handle,
            writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole(OpKind::Rename, &format!("{from} to {to}"), 0, 0)?
            .rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.whole(OpKind::Unlink, name, 0, 0)?.names.unlink(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let machine = self.whole(OpKind::List, folder, 0, 0)?;
        let mut names = machine.names.list(folder)?;
        // "In no order" is attacked by an order that differs from boot to boot.
        if machine.boot % 2 == 1 {
            names.reverse();
        }
        Ok(names)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.whole(OpKind::SyncDir, folder, 0, 0)?.sync_dir(folder)
    }

    fn cells(&self, name: &str, fresh: bool) -> io::Result<Arc<dyn SharedCells>> {
        let page = self
            .whole(OpKind::Cells, name, 0, u64::from(fresh))?
            .page(name, fresh)?;
        Ok(Arc::new(SimCells::new(self.clone(), page)))
    }

    fn beside(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(super::beside::Beside::new(self, path)))
    }

    fn refusal(&self) -> io::Result<Option<String>> {
        Ok(None)
    }

    fn process_id(&self) -> u32 {
        self.number
    }

    fn boot_id(&self) -> String {
        format!("{:016x}", lock(&self.machine).boot)
    }
}

/// A file opened by a simulated process.
struct SimFile {
    process: SimProcess,
    name: String,
    handle: u64,
    writable: bool,
}

impl SimFile {
    fn whole(&self, kind: OpKind, offset: u64, len: u64) -> io::Result<MutexGuard<'_, Machine>> {
        self.process.whole(kind, &self.name, offset, len)
    }

    fn check_writable(&self) -> io::Result<()> {
        // EBADF, as the operating system says for a descriptor opened for reading.
        if self.writable {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(9))
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        lock(&self.process.machine).close(self.handle);
    }
}

impl StorageFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let machine = self.whole(OpKind::Read, offset, buffer.len() as u64)?;
        Ok(machine.files[machine.file(self.handle)?].read(buffer, offset))
    }

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        let whole = pieces.concat();
        let (verdict, mut machine) =
            self.process
                .begin(OpKind::Write, &self.name, offset, whole.len() as u64)?;
        let count = match verdict {
            Verdict::Short(count) | Verdict::KillAfter(count) => count,
            Verdict::Fail { applied, .. } => applied,
            _ => whole.len() as u64,
        };
        let count = (count as usize).min(whole.len());
        if count > 0 {
            machine.file_mut(self.handle)?.write(&whole[..count], offset);
        }
        match verdict {
            Verdict::Fail { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
            Verdict::KillAfter(_) => {
                machine.kill(self.process.number);
                Err(killed())
            }
            _ => Ok(count),
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.whole(OpKind::Allocate, 0, len)?.allocate(self.handle, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.whole(OpKind::SetLen, 0, len)?.set_len(self.handle, len)
    }

    fn len(&self) -> io::Result<u64> {
        let machine = self.whole(OpKind::Len, 0, 0)?;
        Ok(machine.files[machine.file(self.handle)?].len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (verdict, mut machine) = self.process.begin(OpKind::SyncData, &self.name, 0, 0)?;
        match verdict {
            Verdict::Fail { .. } => {
                let rng = machine.rng.fork();
                machine.file_mut(self.handle)?.fail_writeback(&rng);
                machine.sync(self.handle)
            }
            Verdict::KillAfter(_) => {
                machine.kill(self.process.number);
                Err(killed())
            }
            _ => machine.sync(self.handle),
        }
    }

    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        let machine = self.whole(OpKind::Map, 0, 0)?;
        let file = machine.file(self.handle)?;
        let len = machine.files[file].len();
        Ok(Arc::new(SimMapping {
            process: self.process.clone(),
            name: self.name.clone(),
            file,
            len,
        }))
    }

    fn try_lock(&self, at: u64, mode: LockMode) -> io::Result<bool> {
        self.whole(OpKind::TryLock, at, mode as u64)?
            .try_lock(self.handle, at, mode)
    }

    fn is_locked(&self, at: u64) -> io::Result<bool> {
        self.whole(OpKind::IsLocked, at, 0)?.is_locked(self.handle, at)
    }

    fn unlock(&self, at: u64) -> io::Result<()> {
        self.whole(OpKind::Unlock, at, 0)?.unlock(self.handle, at)
    }
}

/// A mapping; it outlives the handle and the name of its file.
struct SimMapping {
    process: SimProcess,
    name: String,
    file: usize,
    len: u64,
}

impl Mapping for SimMapping {
    fn len(&self) -> u64 {
        self.len
    }

    fn window(&self, range: Range<u64>) -> io::Result<Window> {
        let count = range.end.saturating_sub(range.start);
        let machine = self
            .process
            .whole(OpKind::Window, &self.name, range.start, count)?;
        if range.end > self.len || range.end > machine.files[self.file].len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; count as usize];
        machine.files[self.file].read(&mut bytes, range.start);
        Ok(Window::new(Arc::new(bytes)))
    }
}

/// A control page opened by a simulated process.
impl SimProcess {
    pub(super) fn pause(&self, limit: Duration, early: bool) {
        let micros = u64::try_from(limit.as_micros())
            .unwrap_or(u64::MAX)
            .min(u64::MAX / 4);
        if self.whole(OpKind::Pause, "", 0, micros).is_err() {
            if !self.is_alive() {
                self.waited_dead.fetch_add(micros, Ordering::Relaxed);
            }
            return;
        }
        let passed = self.director.pause(self.number, limit, early);
        if let Ok(mut machine) = self.alive() {
            machine.micros += passed.as_micros() as u64;
        }
    }
}

impl Clock for SimProcess {
    fn wall_micros(&self) -> i64 {
        lock(&self.machine).micros as i64
    }

    fn monotonic(&self) -> Duration {
        let mut machine = lock(&self.machine);
        // Whoever only looks at the clock must see it move.
        machine.micros += 1;
        let waited = self.waited_dead.load(Ordering::Relaxed);
        Duration::from_micros(machine.micros.saturating_add(waited))
    }

    fn sleep(&self, pause: Duration) {
        self.pause(pause, false);
    }
}
