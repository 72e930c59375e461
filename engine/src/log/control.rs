//! The control page by meaning: watermarks, the intent of a write, poison, and the tail that the
//! holder of the append lock finds there.
//!
//! ```text
//! write of [a, b):  IntentLen=b-a, Intent=a+1 ──► pwritev ──► TailChain, TailSegment ──► Appended=b ──► Intent=0
//! died before Appended=b: who takes the lock zeroes [a, b) (repair); died after: only Intent is cleared
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::storage::{Cell, SharedCells};
use crate::sync::{Ordering, fence};
use crate::{Chain, Epoch, Error, Lsn, Result};

/// Longest that anybody waits on a shared word before looking again (E5).
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The same for who waits for what may not come for long: it is woken when that comes, and only who died between
/// raising a word and waking for it is not heard of sooner.
pub(crate) const LOOK_WHEN_IDLE: Duration = Duration::from_secs(1);

/// What the next block continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub at: Lsn,
    pub chain: Chain,
    pub segment: Lsn,
    pub epoch: Epoch,
}

/// Typed access to the shared words of a log.
#[derive(Clone)]
pub(crate) struct Control {
    cells: Arc<dyn SharedCells>,
}

impl Control {
    pub(crate) fn new(cells: Arc<dyn SharedCells>) -> Control {
        Control { cells }
    }

    pub(crate) fn cells(&self) -> &Arc<dyn SharedCells> {
        &self.cells
    }

    pub(crate) fn lsn(&self, cell: Cell) -> Lsn {
        Lsn(self.cells.load(cell))
    }

    pub(crate) fn appended(&self) -> Lsn {
        self.lsn(Cell::Appended)
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.lsn(Cell::Durable)
    }

    /// Raises Durable; the caller has met S1 (or S2, S3). Wakes who waits.
    pub(crate) fn raise_durable(&self, to: Lsn) {
        debug_assert!(
            to <= self.appended() || self.poison() % 2 == 1,
            "S1: only what was published is durable"
        );
        if self.cells.raise(Cell::Durable, to.0) {
            self.bump(Cell::WakeDurable);
            self.tell_agents();
        }
    }

    /// Raises a counter that others wait on, and wakes them.
    pub(crate) fn bump(&self, cell: Cell) {
        let mut seen = self.cells.load(cell);
        while let Err(found) = self.cells.compare_exchange(cell, seen, seen.wrapping_add(1)) {
            seen = found;
        }
        self.cells.wake(cell);
    }

    /// Wakes who waits for either word. It is one word more of the same kind, which models leave out.
    fn tell_agents(&self) {
        if cfg!(not(loom)) {
            self.bump(Cell::WakeAgents);
        }
    }

    /// Generation of poison; odd is poisoned.
    pub(crate) fn poison(&self) -> u64 {
        self.cells.load(Cell::Poison)
    }

    /// Marks all handles of generation `own` dead for good.
    pub(crate) fn set_poisoned(&self, own: u64) {
        if self.cells.compare_exchange(Cell::Poison, own, own | 1).is_ok() {
            self.bump(Cell::WakeDurable);
            self.bump(Cell::WakeScanned);
            self.tell_agents();
        }
    }

    /// Ends a poisoned generation; the caller has healed the log under the append lock (S3).
    pub(crate) fn begin_generation(&self, poisoned: u64, healed: u64) {
        if self
            .cells
            .compare_exchange(Cell::Poison, poisoned, healed)
            .is_err()
        {
            tracing::debug!("another handle began the generation");
        }
    }

    /// Fails when a write or sync failed since the handle of generation `own` was opened.
    pub(crate) fn check_poison(&self, own: u64) -> Result<()> {
        if self.poison() == own {
            return Ok(());
        }
        Err(Error::closed(
            "a write or sync of this store failed, so this handle no longer knows what is on disk; open the store again",
        ))
    }

    /// Fails when the log was healed since the handle of generation `own` was opened: what it wrote or
    /// read beyond durable before may have been cut, and others have written there (E1, E2). Asked
    /// after Durable was read: until then nobody writes in place of what was cut.
    pub(crate) fn check_not_healed(&self, own: u64) -> Result<()> {
        if self.poison() <= own | 1 {
            return Ok(());
        }
        self.check_poison(own)
    }

    /// The tail; only under the append lock and after repair.
    pub(crate) fn tail(&self) -> Tail {
        Tail {
            at: self.appended(),
            chain: Chain(self.cells.load(Cell::TailChain)),
            segment: self.lsn(Cell::TailSegment),
            epoch: Epoch(self.cells.load(Cell::TailEpoch)),
        }
    }

    /// Publishes a tail whose bytes are written; only under the append lock.
    pub(crate) fn publish(&self, tail: Tail) {
        self.cells.store(Cell::TailChain, tail.chain.0);
        self.cells.store(Cell::TailSegment, tail.segment.0);
        self.cells.store(Cell::TailEpoch, tail.epoch.0);
        self.cells.store(Cell::Appended, tail.at.0);
    }

    /// Publishes the queue up to `end`, whose entries are written, and with it the scan position `through`;
    /// only by the holder of the scan phase. Who sees the position sees the entries before it (Q1).
    pub(crate) fn publish_entries(&self, end: Lsn, through: Lsn) {
        self.cells.raise(Cell::QueueAppended, end.0);
        self.publish_scanned(through);
    }

    /// Publishes a scan position that nothing new is queued for, and wakes who waits for it.
    pub(crate) fn publish_scanned(&self, through: Lsn) {
        self.cells.raise(Cell::Scanned, through.0);
        self.bump(Cell::WakeScanned);
        self.tell_agents();
    }

    /// The write under way, if one was announced and not cleared: start and length.
    pub(crate) fn intent(&self) -> Option<(Lsn, u64)> {
        let start = self.cells.load(Cell::Intent).checked_sub(1)?;
        Some((Lsn(start), self.cells.load(Cell::IntentLen)))
    }

    /// Announces a write of `len` bytes at `at`; only under the append lock.
    pub(crate) fn announce(&self, at: Lsn, len: u64) {
        self.cells.store(Cell::IntentLen, len);
        self.cells.store(Cell::Intent, at.0.saturating_add(1));
        // A release store does not hold back what follows it; the bytes must not overtake the words.
        fence(Ordering::Release);
    }

    /// The announced write is published or undone.
    pub(crate) fn clear_intent(&self) {
        self.cells.store(Cell::Intent, 0);
    }

    /// How far anybody may have written. The intent is read before Appended: a write that is cleared
    /// in between is covered by the latter (S1).
    pub(crate) fn written(&self) -> Lsn {
        // Pairs with the fence of `announce`, through whatever showed the caller the bytes.
        fence(Ordering::Acquire);
        let announced = self.intent().map_or(Lsn::ZERO, |(at, len)| at.plus(len));
        announced.max(self.appended())
    }
}
