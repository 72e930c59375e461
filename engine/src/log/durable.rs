//! Making the log durable: who may say so (S1), and how one sync serves all.
//!
//! ```text
//! durable D          safe_from            target
//!    |───────────────────|──────────────────|      bytes not yet known to be on disk
//!    └ written by others └ written after this descriptor was opened
//!      before it was opened: written again under the append lock, else an error of theirs that the
//!      kernel already told somebody would go unseen
//! ```

use std::io;
use std::time::Duration;

use crate::clock::Clock;
use crate::planted::{self, Bug};
use crate::storage::Cell;
use crate::sync::{Condvar, Mutex};
use crate::{Error, ErrorKind, Lsn, Result};

use super::Log;
use super::control::{Control, LOOK_AGAIN};
use super::cursor::Cursor;
use super::recover::write_block_again;
use super::segment::Segment;

/// Least time that a sync of another process is waited for: 5 ms.
const PATIENCE: Duration = Duration::from_millis(5);

/// One sync at a time within a handle.
#[derive(Default)]
pub(crate) struct Syncer {
    busy: Mutex<Busy>,
    done: Condvar,
    /// Held from a sync until its failure is known to all. The kernel tells a failure to one of the
    /// threads that sync the same descriptor; the others would see success and an old generation (S1).
    telling: Mutex<()>,
}

/// Whether a thread syncs, and how many wait for it: waking nobody costs a system call.
#[derive(Default)]
struct Busy {
    syncing: bool,
    waiting: usize,
}

/// The right to sync; given back also when the sync panics, or every later one would wait for ever.
struct Turn<'a>(&'a Syncer);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self.0.busy.lock();
        busy.syncing = false;
        let waited_for = busy.waiting > 0;
        drop(busy);
        if waited_for {
            self.0.done.notify_all();
        }
    }
}

impl Syncer {
    /// Syncs; a failure is known to all before another thread may sync the same descriptor.
    pub(super) fn sync_or_poison(
        &self,
        control: &Control,
        generation: u64,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let _telling = self.telling.lock();
        let synced = sync();
        if synced.is_err() && !planted::is(Bug::NoPoison) {
            control.set_poisoned(generation);
        }
        synced
    }
}

/// Waits for a sync of another process as far as one may serve; `None` when it has, otherwise how to sync.
pub(super) fn share(control: &Control, clock: &dyn Clock, to: Lsn) -> Option<Share> {
    let begun = control.lsn(Cell::SyncBegun);
    if control.durable() < begun && begun < to {
        // Another process syncs what came before `to`. A sync of ours would not overtake it; all who wait for
        // its end share the next one.
        wait_for_sync(control, clock, begun);
    }
    if control.lsn(Cell::SyncBegun) < to {
        return Some(Share::Offered);
    }
    // A sync that began after `to` was appended serves us too.
    (!wait_for_sync(control, clock, to)).then_some(Share::Refused)
}

/// Says that a sync up to `target` begins. False when another process said so in the same moment, and it has
/// been waited for and done.
pub(super) fn is_elected(control: &Control, clock: &dyn Clock, target: Lsn, share: Share) -> bool {
    let first = control.cells().raise(Cell::SyncBegun, target.0);
    first || share == Share::Refused || !wait_for_sync(control, clock, target)
}

/// Waits until a sync of another process has made everything below `to` durable, if it lives: at most twice
/// as long as the last one took. False when it did not.
fn wait_for_sync(control: &Control, clock: &dyn Clock, to: Lsn) -> bool {
    let cells = control.cells();
    let last = Duration::from_micros(cells.load(Cell::LastSyncMicros));
    let limit = PATIENCE.max(last * 2);
    let started = clock.monotonic();
    while control.durable() < to {
        let seen = cells.load(Cell::WakeDurable);
        let waited = clock.monotonic().saturating_sub(started);
        let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return false;
        };
        if control.durable() < to {
            cells.wait(Cell::WakeDurable, seen, left.min(LOOK_AGAIN));
        }
    }
    true
}

/// Whether the caller holds the append lock already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    AppendLock,
}

/// Whether a sync that another process begins in the same moment may do for ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    Offered,
    /// One was waited for in vain, or nothing may be waited for.
    Refused,
}

impl Log {
    /// Returns when everything below `to` is durable, syncing if nobody else does.
    ///
    /// # Errors
    /// `Closed` when a sync failed: what lies beyond durable may or may not be on disk.
    pub(crate) fn make_durable(&self, to: Lsn) -> Result<()> {
        self.check_process()?;
        loop {
            if self.control.durable() >= to {
                // What was cut by who healed the log has others' bytes in its place by now.
                return self.control.check_not_healed(self.generation);
            }
            self.control.check_poison(self.generation)?;
            {
                let mut busy = self.syncer.busy.lock();
                if busy.syncing {
                    // Woken by the sync's end; a sync of another process is seen by looking again.
                    busy.waiting += 1;
                    busy = self.syncer.done.wait_for(busy, LOOK_AGAIN);
                    busy.waiting -= 1;
                    continue;
                }
                busy.syncing = true;
            }
            let turn = Turn(&self.syncer);
            let outcome = self.share_or_sync(to);
            drop(turn);
            outcome?;
        }
    }

    /// For who holds the append lock: syncs by itself, asking nobody.
    pub(super) fn make_durable_locked(&self, to: Lsn) -> Result<()> {
        if self.control.durable() >= to {
            return Ok(());
        }
        self.sync_once(Holds::AppendLock, Share::Refused)
    }

    fn share_or_sync(&self, to: Lsn) -> Result<()> {
        match share(&self.control, &*self.clock, to) {
            Some(share) => self.sync_once(Holds::Nothing, share),
            None => Ok(()),
        }
    }

    /// S1. The target is read before the segment: when the log rolled in between, S2 has made the
    /// target durable already, and syncing the newer segment does no harm.
    fn sync_once(&self, holds: Holds, share: Share) -> Result<()> {
        let before = self.control.durable();
        let target = self.control.appended();
        let segment = self.dir.open(self.control.lsn(Cell::TailSegment))?;
        if before < segment.safe_from && !planted::is(Bug::NoWriteAgain) {
            self.write_again(before, segment.safe_from.min(target), holds)?;
        }
        if !is_elected(&self.control, &*self.clock, target, share) {
            return Ok(());
        }
        let started = self.clock.monotonic();
        let synced = if planted::is(Bug::SkipSync) {
            // Still asks the file: a killed process must not go round for ever.
            segment.file.len().map(drop)
        } else {
            self.sync_or_poison(&segment)
        };
        if let Err(error) = synced {
            return Err(Error::closed(
                "the disk did not take what was written: this handle is dead, nothing acknowledged is lost; \
                 check the disk and open the store again",
            )
            .at_path(self.dir.path(&segment))
            .caused_by(error));
        }
        let took = self.clock.monotonic().saturating_sub(started);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(1_000_000);
        self.control.cells().store(Cell::LastSyncMicros, micros);
        self.control.check_poison(self.generation)?;
        self.control.raise_durable(target);
        Ok(())
    }

    /// Syncs a segment through this handle's descriptor; a failure has poisoned before any other thread
    /// may sync the same descriptor and hear nothing of it.
    pub(super) fn sync_or_poison(&self, segment: &Segment) -> io::Result<()> {
        let sync = || segment.file.sync_data();
        self.syncer.sync_or_poison(&self.control, self.generation, sync)
    }

    /// What was published and is not durable cannot be read back: no damage of what was ever acknowledged,
    /// and only recovery may judge it. Any other error is passed on.
    pub(crate) fn unreadable(&self, error: Error) -> Error {
        let at = error.lsn().unwrap_or_default();
        if error.kind() != ErrorKind::Corrupt || at < self.control.durable() {
            return error;
        }
        self.control.set_poisoned(self.generation);
        Error::closed(
            "what was written last and is not durable yet cannot be read back: this handle is dead, nothing \
             acknowledged is lost; check the disk and open the store again",
        )
        .at_lsn(at)
        .caused_by(error)
    }

    /// Writes the verified blocks of `[from, to)` over themselves through this handle's descriptor.
    fn write_again(&self, from: Lsn, to: Lsn, holds: Holds) -> Result<()> {
        let exclusive = (holds == Holds::Nothing).then(|| self.appending.lock());
        let lock = match &exclusive {
            Some(_) => Some(self.lock_append()?),
            None => None,
        };
        self.control.check_poison(self.generation)?;
        let mut at = from.max(self.control.durable());
        while at < to {
            let first = self.dir.first_at_or_before(at)?;
            let first = first.ok_or_else(|| Error::internal("the active segment is gone").at_lsn(at))?;
            let segment = self.dir.open(first)?;
            if segment.end() <= at {
                return Err(Error::internal("no segment holds what was appended").at_lsn(at));
            }
            let mut cursor = Cursor::new(&self.dir, &segment);
            let written = if self.pad_to > 1 {
                // Synced under the lock: another sync may acknowledge meanwhile what is being written over (E1).
                let sync = |segment: &Segment| self.sync_or_poison(segment);
                let end = to.min(segment.end());
                super::rescue::write_over(&mut cursor, at, end, &sync).map(|()| end)
            } else {
                write_block_again(&mut cursor, at)
            };
            match written {
                Ok(end) => at = end,
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        drop(lock);
        Ok(())
    }
}
