//! The loom twin of [`SharedCells`]: the control page's words inside a model.
//!
//! The kernel compares a futex word and puts the caller to sleep as one step, against every wake; here
//! a mutex and a condvar do that, and who wakes looks first whether anybody sleeps, as it does there. No time passes: a wait without a wake is a deadlock, which loom
//! reports. The orderings are parameters, so that a model can show that it fails with weaker ones.

use std::time::Duration;

use super::{Cell, SharedCells};
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, fence};

const WORDS: [Cell; 18] = [
    Cell::Appended,
    Cell::Durable,
    Cell::Intent,
    Cell::IntentLen,
    Cell::Poison,
    Cell::TailChain,
    Cell::TailSegment,
    Cell::TailEpoch,
    Cell::WakeDurable,
    Cell::Scanned,
    Cell::QueueAppended,
    Cell::WakeScanned,
    Cell::SyncBegun,
    Cell::LastSyncMicros,
    Cell::WakeAppend,
    Cell::AppendWaiters,
    Cell::AppendHolder,
    Cell::AppendSince,
];

/// The words of the control page that models use.
pub struct LoomCells {
    words: [AtomicU64; WORDS.len()],
    queue: Mutex<()>,
    woken: Condvar,
    sleepers: AtomicU64,
    fenced: bool,
    read: Ordering,
    write: Ordering,
}

impl LoomCells {
    /// Words with the orderings that [`SharedCells`] promises.
    #[must_use]
    pub fn new() -> LoomCells {
        LoomCells::ordered(Ordering::Acquire, Ordering::Release)
    }

    /// Words with other orderings for loads and stores.
    #[must_use]
    pub fn ordered(read: Ordering, write: Ordering) -> LoomCells {
        let words = std::array::from_fn(|_| AtomicU64::new(0));
        LoomCells {
            words,
            queue: Mutex::new(()),
            woken: Condvar::new(),
            sleepers: AtomicU64::new(0),
            fenced: true,
            read,
            write,
        }
    }

    /// The same without the fences between a word and the count of sleepers.
    #[must_use]
    pub fn unfenced() -> LoomCells {
        LoomCells {
            fenced: false,
            ..LoomCells::new()
        }
    }

    fn fence(&self) {
        if self.fenced {
            fence(Ordering::SeqCst);
        }
    }

    fn word(&self, cell: Cell) -> &AtomicU64 {
        match self.words.iter().zip(WORDS).find(|(_, named)| *named == cell) {
            Some((word, _)) => word,
            None => unreachable!("a model uses the words listed here"),
        }
    }
}

impl Default for LoomCells {
    fn default() -> Self {
        LoomCells::new()
    }
}

impl SharedCells for LoomCells {
    fn load(&self, cell: Cell) -> u64 {
        self.word(cell).load(self.read)
    }

    fn store(&self, cell: Cell, value: u64) {
        self.word(cell).store(value, self.write);
    }

    fn compare_exchange(&self, cell: Cell, current: u64, new: u64) -> Result<u64, u64> {
        let both = match (self.read, self.write) {
            (Ordering::Acquire, Ordering::Release) => Ordering::AcqRel,
            (_, Ordering::Release) => Ordering::Release,
            (read, _) => read,
        };
        self.word(cell).compare_exchange(current, new, both, self.read)
    }

    fn wait(&self, cell: Cell, seen: u64, _limit: Duration) {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        self.fence();
        let guard = self.queue.lock();
        if self.word(cell).load(Ordering::Relaxed) == seen {
            drop(self.woken.wait(guard));
        } else {
            drop(guard);
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    fn wake(&self, _cell: Cell) {
        self.fence();
        if self.sleepers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let _guard = self.queue.lock();
        self.woken.notify_all();
    }
}
