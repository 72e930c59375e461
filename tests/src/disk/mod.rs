//! [`SimDisk`]: the disk of one simulated machine, with any number of processes on it.
//!
//! ```text
//! SimProcess ─┐ calls, each shown to a Director first
//! SimProcess ─┼──► Machine: names ─► files: page cache ⟵ what everybody sees
//! SimProcess ─┘    locks, words           disk         ⟵ what was synced
//!                                         un-synced    ⟵ kept or lost by itself at power loss
//! crash(rng) ──► another SimDisk: one of the states power loss may leave
//! ```
//!
//! Guarantees that the disk keeps, as local file systems do: synced contents and lengths stay; synced names
//! stay; a rename is atomic; a lock is dropped with its handle. What else is lost, torn and reordered is a
//! matter of its [`Profile`]. The rules are the tests in `tests/disk.rs`.

mod beside;
mod cells;
mod director;
mod inode;
mod machine;
mod names;
mod pages;
mod process;
mod profile;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use director::{Calm, Director, EIO, ENOSPC, Op, OpKind, Script, Verdict};
pub use process::{Killed, SimProcess, killed};
pub use profile::Profile;

use crate::SimRng;
use machine::Machine;
use process::lock;

/// One machine's disk. Clones are the same machine; [`SimDisk::snapshot`] is another.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
}

impl SimDisk {
    /// A machine with an empty disk; what it does by itself follows from the seed.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::like(Profile::Posix, seed)
    }

    /// The same with a disk that is like something.
    #[must_use]
    pub fn like(profile: Profile, seed: u64) -> SimDisk {
        SimDisk::of(Machine::new(seed, profile))
    }

    fn of(machine: Machine) -> SimDisk {
        SimDisk {
            machine: Arc::new(Mutex::new(machine)),
        }
    }

    /// Starts a process to which nothing happens.
    #[must_use]
    pub fn start(&self) -> SimProcess {
        self.directed(Arc::new(Calm))
    }

    /// Starts a process whose operations a director decides about.
    #[must_use]
    pub fn directed(&self, director: Arc<dyn Director>) -> SimProcess {
        SimProcess::start(Arc::clone(&self.machine), director)
    }

    /// Kills a process by its number.
    pub fn kill(&self, process: u32) {
        lock(&self.machine).kill(process);
    }

    /// A copy of the machine as it is now, all un-synced state included, without its processes: power
    /// is lost at this moment as often as [`SimDisk::crash`] is called on it.
    #[must_use]
    pub fn snapshot(&self) -> SimDisk {
        SimDisk::of(lock(&self.machine).snapshot())
    }

    /// One of the machines that power loss at this moment may leave behind.
    #[must_use]
    pub fn crash(&self, rng: &SimRng) -> SimDisk {
        SimDisk::of(lock(&self.machine).crash(rng))
    }

    /// The kernel fails to write a file's dirty pages back: some are lost, all count as clean, every
    /// handle open now is told at its next sync.
    pub fn fail_writeback(&self, name: &str) {
        let mut machine = lock(&self.machine);
        let rng = machine.rng.fork();
        if let Ok(file) = machine.names.file(name) {
            Arc::make_mut(&mut machine.files[file]).fail_writeback(&rng);
        }
    }

    /// Memory pressure: pages lost by a failed write-back show the disk's bytes again.
    pub fn evict(&self, name: &str) {
        let mut machine = lock(&self.machine);
        if let Ok(file) = machine.names.file(name) {
            Arc::make_mut(&mut machine.files[file]).evict();
        }
    }

    /// Operations so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        lock(&self.machine).ops
    }

    /// Hash of all operations so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        lock(&self.machine).trace
    }

    /// Time since the machine's beginning of time.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_micros(lock(&self.machine).micros)
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        lock(&self.machine).micros += time.as_micros() as u64;
    }
}
