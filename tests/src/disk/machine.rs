//! [`Machine`]: all state of one simulated machine between two power losses.
//!
//! The disk (files and names) survives as [`Machine::crash`] decides; processes, handles, locks and
//! the words of control pages live until then. One mutex guards it, held for one operation at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use milepost_engine::storage::{Cell, LockMode};

use crate::{SimRng, mix};

use super::director::{Op, OpKind};
use super::inode::Inode;
use super::names::{Names, Node};
use super::profile::Profile;

/// Words of one control page.
pub type CellPage = [u64; Cell::PAGE / 64];

/// An open file description.
pub struct Handle {
    process: u32,
    /// File it was opened on.
    pub file: usize,
    /// Failed write-backs it was told of.
    errors: u64,
}

/// One machine.
pub struct Machine {
    /// Files by number. Snapshots share them.
    pub files: Vec<Arc<Inode>>,
    /// Folders.
    pub names: Names,
    /// What the disk is like.
    pub profile: Profile,
    /// Number up to which the journal is on disk, where there is one.
    journalled: u64,
    /// Names this boot.
    pub boot: u64,
    /// Microseconds since the machine was made.
    pub micros: u64,
    /// Operations so far.
    pub ops: u64,
    /// Hash of all operations so far: same seed, same trace.
    pub trace: u64,
    /// Where failures draw from.
    pub rng: SimRng,
    processes: BTreeSet<u32>,
    next_process: u32,
    handles: BTreeMap<u64, Handle>,
    next_handle: u64,
    locks: BTreeMap<(usize, u64), BTreeMap<u64, LockMode>>,
    pages: BTreeMap<u64, CellPage>,
    page_names: BTreeMap<String, u64>,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(seed: u64, profile: Profile) -> Machine {
        Machine {
            files: Vec::new(),
            names: Names::default(),
            profile,
            journalled: 0,
            boot: mix(seed),
            micros: 1_700_000_000_000_000,
            ops: 0,
            trace: seed,
            rng: SimRng::new(seed),
            processes: BTreeSet::new(),
            next_process: 1,
            handles: BTreeMap::new(),
            next_handle: 1,
            locks: BTreeMap::new(),
            pages: BTreeMap::new(),
            page_names: BTreeMap::new(),
        }
    }

    /// A copy of disk and control pages without processes, handles and locks.
    pub fn snapshot(&self) -> Machine {
        Machine {
            files: self.files.clone(),
            names: self.names.clone(),
            rng: self.rng.clone(),
            pages: self.pages.clone(),
            page_names: self.page_names.clone(),
            processes: BTreeSet::new(),
            handles: BTreeMap::new(),
            locks: BTreeMap::new(),
            ..*self
        }
    }

    /// The machine after power loss: names first, then the files that still have one. A control page
    /// may come back with old words, as the file behind it may.
    pub fn crash(&self, rng: &SimRng) -> Machine {
        let journal = self.cut_journal(rng);
        let mut names = if self.profile.is_journalled() {
            self.names.crash_after(journal)
        } else {
            self.names.crash(rng)
        };
        let kept: BTreeSet<usize> = names.files().collect();
        let files = kept.iter().map(|number| match self.files[*number].is_settled() {
            true => Arc::clone(&self.files[*number]),
            false => Arc::new(self.files[*number].crash(self.profile, journal, rng)),
        });
        let files = files.collect();
        let order: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        names.renumber(|old| order.get(&old).copied().unwrap_or(usize::MAX));
        let stale = rng.chance(1, 2);
        Machine {
            files,
            journalled: names.last(),
            names,
            boot: rng.word(),
            micros: self.micros + rng.below(1_000_000),
            ops: self.ops,
            trace: mix(self.trace ^ rng.word()),
            rng: rng.fork(),
            pages: if stale {
                self.pages.clone()
            } else {
                BTreeMap::new()
            },
            page_names: if stale {
                self.page_names.clone()
            } else {
                BTreeMap::new()
            },
            ..Machine::new(0, self.profile)
        }
    }

    /// How far the journal got.
    fn cut_journal(&self, rng: &SimRng) -> u64 {
        let (first, last) = (self.journalled, self.names.last());
        match rng.below(4) {
            0 => first,
            1 => last,
            _ => first + rng.below(last.saturating_sub(first) + 1),
        }
    }

    /// The journal is on disk up to a number: names, and the lengths of files.
    fn commit(&mut self, number: u64) {
        if !self.profile.is_journalled() || number <= self.journalled {
            return;
        }
        self.journalled = number;
        self.names.commit(number);
        for file in self.files.iter_mut().filter(|file| !file.is_clean()) {
            Arc::make_mut(file).commit(number);
        }
    }

    /// Makes the names of a folder durable.
    pub fn sync_dir(&mut self, folder: &str) -> io::Result<()> {
        if !self.profile.is_journalled() {
            return self.names.sync(folder);
        }
        if let Some(number) = self.names.last_of(folder)? {
            self.commit(number);
        }
        Ok(())
    }

    /// Makes a file and gives it its name.
    pub fn create(&mut self, name: &str) -> io::Result<usize> {
        let file = self.files.len();
        let made = self.names.create(name, file)?;
        self.files.push(Arc::new(Inode::new(made)));
        Ok(file)
    }

    /// Moves a file, replacing the target.
    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let replaces = self.names.find(to).is_some();
        self.names.rename(from, to)?;
        if let Some(Node::File(file)) = self.names.find(to)
            && replaces
            && !self.files[file].is_clean()
        {
            Arc::make_mut(&mut self.files[file]).replaced = Some(self.names.last());
        }
        Ok(())
    }

    /// Reserves space.
    pub fn allocate(&mut self, id: u64, len: u64) -> io::Result<()> {
        let number = self.names.number();
        self.file_mut(id)?.grow(len, Some(number));
        Ok(())
    }

    /// Makes a file exactly so long.
    pub fn set_len(&mut self, id: u64, len: u64) -> io::Result<()> {
        let number = self.names.number();
        self.file_mut(id)?.set_len(len, number);
        Ok(())
    }

    /// Starts a process.
    pub fn start(&mut self) -> u32 {
        let number = self.next_process;
        self.next_process += 1;
        self.processes.insert(number);
        number
    }

    /// Ends a process as SIGKILL does: its handles and locks are gone, what it wrote stays.
    pub fn kill(&mut self, process: u32) {
        self.processes.remove(&process);
        let dead: Vec<u64> = self
            .handles
            .iter()
            .filter(|(_, handle)| handle.process == process)
            .map(|(id, _)| *id)
            .collect();
        for handle in dead {
            self.close(handle);
        }
    }

    /// True until the process is killed or the machine loses power.
    pub fn is_alive(&self, process: u32) -> bool {
        self.processes.contains(&process)
    }

    /// Notes an operation: time passes and the trace grows.
    pub fn note(&mut self, op: &Op) {
        self.ops += 1;
        self.micros += match op.kind {
            OpKind::SyncData | OpKind::SyncDir => 200,
            OpKind::Write | OpKind::Allocate => 20,
            _ => 1,
        };
        let mut trace = mix(self.trace ^ u64::from(op.process) << 8 ^ op.kind as u64);
        for byte in op.name.bytes() {
            trace = trace.rotate_left(5) ^ u64::from(byte);
        }
        self.trace = mix(mix(trace ^ op.offset) ^ op.len);
    }

    /// Opens a description of a file.
    pub fn open(&mut self, process: u32, file: usize) -> u64 {
        let id = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(
            id,
            Handle {
                process,
                file,
                errors: self.files[file].errors,
            },
        );
        id
    }

    /// Closes a description; its locks go.
    pub fn close(&mut self, id: u64) {
        if let Some(handle) = self.handles.remove(&id) {
            self.locks.retain(|(file, _), holders| {
                if *file == handle.file {
                    holders.remove(&id);
                }
                !holders.is_empty()
            });
        }
    }

    /// The file of a description.
    pub fn file(&self, id: u64) -> io::Result<usize> {
        self.handles
            .get(&id)
            .map(|handle| handle.file)
            .ok_or_else(|| io::Error::from_raw_os_error(9))
    }

    /// The file of a description, to be changed; a snapshot keeps what it has.
    pub fn file_mut(&mut self, id: u64) -> io::Result<&mut Inode> {
        let file = self.file(id)?;
        Ok(Arc::make_mut(&mut self.files[file]))
    }

    /// Syncs a file, unless its description has yet to be told of a failed write-back.
    pub fn sync(&mut self, id: u64) -> io::Result<()> {
        let file = self.file(id)?;
        let needs = self.files[file].needs(self.names.last());
        if !self.files[file].is_clean() {
            Arc::make_mut(&mut self.files[file]).sync();
        }
        self.commit(needs);
        let errors = self.files[file].errors;
        match self.handles.get_mut(&id) {
            Some(handle) if handle.errors < errors => {
                handle.errors = errors;
                Err(io::Error::from_raw_os_error(super::director::EIO))
            }
            _ => Ok(()),
        }
    }

    /// Tries to take a lock.
    pub fn try_lock(&mut self, id: u64, at: u64, mode: LockMode) -> io::Result<bool> {
        let holders = self.locks.entry((self.handles[&id].file, at)).or_default();
        let free = holders
            .iter()
            .all(|(holder, held)| *holder == id || (mode == LockMode::Shared && *held == LockMode::Shared));
        if free {
            holders.insert(id, mode);
        }
        Ok(free)
    }

    /// True while another handle holds a lock exclusively.
    pub fn is_locked(&mut self, id: u64, at: u64) -> io::Result<bool> {
        let holders = self.locks.get(&(self.file(id)?, at));
        let held = |(holder, mode): (&u64, &LockMode)| *holder != id && *mode == LockMode::Exclusive;
        Ok(holders.is_some_and(|holders| holders.iter().any(held)))
    }

    /// Gives a lock back.
    pub fn unlock(&mut self, id: u64, at: u64) -> io::Result<()> {
        if let Some(holders) = self.locks.get_mut(&(self.file(id)?, at)) {
            holders.remove(&id);
        }
        Ok(())
    }

    /// The page of a name; a fresh one leaves the old one to those who have it.
    pub fn page(&mut self, name: &str, fresh: bool) -> io::Result<u64> {
        match self.page_names.get(name) {
            Some(page) if !fresh => Ok(*page),
            None if !fresh => Err(io::ErrorKind::NotFound.into()),
            _ => {
                let page = self.pages.len() as u64;
                self.pages.insert(page, [0; Cell::PAGE / 64]);
                self.page_names.insert(name.to_owned(), page);
                Ok(page)
            }
        }
    }

    /// A word of a page.
    pub fn word(&mut self, page: u64, cell: Cell) -> Option<&mut u64> {
        self.pages.get_mut(&page)?.get_mut(cell.offset() / 64)
    }
}
