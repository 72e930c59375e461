//! Who acts in a story: two processes, what they have open, and the traps that wait for their operations.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use milepost_engine::{LogScan, Store};
use milepost_tests::crash::Fault;
use milepost_tests::disk::{Director, Op, SimDisk, SimProcess, Verdict};

/// Lets one operation of a process fail.
#[derive(Default)]
pub(super) struct Trap {
    /// Operations that could fail so before the one that does.
    set: Mutex<Option<(u16, Fault)>>,
    sprung: AtomicBool,
}

impl Trap {
    pub(super) fn set(&self, after: u16, fault: Fault) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Some((after, fault));
    }

    /// True once, after it failed an operation.
    pub(super) fn has_sprung(&self) -> bool {
        self.sprung.swap(false, Ordering::Relaxed)
    }
}

impl Director for Trap {
    fn before(&self, op: &Op) -> Verdict {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((after, fault)) = *set else {
            return Verdict::Go;
        };
        let Some(verdict) = fault.verdict(op) else {
            return Verdict::Go;
        };
        if after > 0 {
            *set = Some((after - 1, fault));
            return Verdict::Go;
        }
        *set = None;
        if !matches!(fault, Fault::Death(_)) {
            self.sprung.store(true, Ordering::Relaxed);
        }
        verdict
    }
}

/// One of the two processes.
pub(super) struct Actor {
    pub(super) process: SimProcess,
    pub(super) store: Option<Store>,
    pub(super) scan: Option<LogScan>,
    pub(super) trap: Arc<Trap>,
}

impl Actor {
    /// A process that has nothing open.
    pub(super) fn on(disk: &SimDisk) -> Actor {
        let trap = Arc::new(Trap::default());
        Actor {
            process: disk.directed(Arc::clone(&trap) as _),
            store: None,
            scan: None,
            trap,
        }
    }

    /// Kills the process; its successor has nothing open.
    pub(super) fn die(&mut self, disk: &SimDisk) {
        self.process.kill();
        let dead = std::mem::replace(self, Actor::on(disk));
        // A handle that is dropped may wait for what a dead process never sees; its disk ends that by a panic.
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(dead)
        })));
    }
}
