//! [`ScanPhase`]: the phase itself, one step at a time.

use std::time::Duration;

use milepost_engine::frame::FrameKind;
use milepost_engine::width::to_u64;
use milepost_engine::{Error, LogScan, Lsn, Phase, PhaseLock, QueueEntry, QueueWriter, Result, Store};

use crate::catalog::{Catalog, due_before_the_log};
use crate::heartbeat::Heartbeat;
use crate::planted::{self, Bug};

use super::Decider;

/// Bytes of entries gathered before they are appended.
const GATHERED_MAX: u64 = 1 << 20;
/// Frames looked at before the position is told to those who wait.
const FRAMES_MAX: u64 = 100_000;
/// Longest time for which the queue stays unsynced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The scan phase of one store.
pub struct ScanPhase {
    store: Store,
    log: LogScan,
    queue: QueueWriter,
    decider: Decider,
    scanned: Lsn,
    unsynced: bool,
    synced_at: Duration,
    _lock: PhaseLock,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Frames looked at.
    pub frames: u64,
    /// Of them, transactions.
    pub transactions: u64,
    /// Entries appended to the queue.
    pub entries: u64,
}

impl Scanned {
    /// Adds what another step did.
    pub fn add(&mut self, other: Scanned) {
        self.frames += other.frames;
        self.transactions += other.transactions;
        self.entries += other.entries;
    }
}

impl ScanPhase {
    /// Takes the phase and begins where it ended last.
    ///
    /// # Errors
    /// `Conflict` naming the holder when another process has it; `Corrupt` for a damaged queue or log.
    pub fn open(store: &Store) -> Result<ScanPhase> {
        let lock = store.lock_phase(Phase::Scan)?;
        let queue = open_queue(store, &lock)?;
        let scanned = match planted::is(Bug::ScanFromEnd) {
            true => store.watermarks().durable,
            false => queue.scanned_through(),
        };
        let catalog = match planted::is(Bug::CatalogAsOfNow) {
            true => Catalog::load(store)?,
            false => Catalog::as_of(store, scanned)?,
        };
        let decider = Decider::new(catalog)?;
        let log = store.scan(scanned)?;
        let synced_at = store.clock().monotonic();
        Ok(ScanPhase {
            store: store.clone(),
            log,
            queue,
            decider,
            scanned,
            unsynced: false,
            synced_at,
            _lock: lock,
        })
    }

    /// Moves a stretch of the log into the queue, at most to the durable end. No frames looked at means
    /// that there were none.
    ///
    /// # Errors
    /// Those of log and queue. What was appended stays; the next process goes on behind it.
    pub fn step(&mut self) -> Result<Scanned> {
        let mut done = Scanned::default();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut last = self.scanned;
        while bytes < GATHERED_MAX && done.frames < FRAMES_MAX {
            if self.log.next_block()?.is_none() {
                break;
            }
            let (block, place) = (self.log.block()?, self.log.in_place());
            let chain = block.chain_after();
            for frame in block.frames() {
                let frame = frame?;
                if frame.lsn() <= self.scanned {
                    continue;
                }
                done.frames += 1;
                done.transactions += u64::from(frame.kind() == FrameKind::TRANSACTION);
                last = frame.lsn();
                if let Some(entry) = self.decider.decide(&frame, chain, place)? {
                    bytes += to_u64(entry.body_len());
                    entries.push(QueueEntry {
                        lsn: last,
                        frame: entry,
                    });
                }
            }
        }
        if last > self.scanned {
            done.entries = to_u64(entries.len());
            self.unsynced = true;
            if planted::is(Bug::ScanAhead) {
                last = last.max(self.store.watermarks().durable);
            }
            self.queue.append(entries, last)?;
            self.scanned = last;
        }
        self.sync_now_and_then()?;
        Ok(done)
    }

    /// Steps until everything that is durable now is scanned.
    ///
    /// # Errors
    /// As [`ScanPhase::step`].
    pub fn catch_up(&mut self, stop: &crate::agent::Stop) -> Result<Scanned> {
        let end = self.store.watermarks().durable;
        let (mut all, mut beat) = (Scanned::default(), Heartbeat::new(&self.store));
        while self.scanned < end && !stop.is_requested() {
            let done = self.step()?;
            if done.frames == 0 {
                break;
            }
            all.add(done);
            if beat.is_due() {
                tracing::info!(at = self.scanned.0, of = end.0, "scanning");
            }
        }
        Ok(all)
    }

    /// Waits until more is durable, or `limit`. An agent waits for [`milepost_engine::News`] instead.
    ///
    /// # Errors
    /// Those of the log.
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        self.log.wait(limit)
    }

    /// Everything at or below was looked at.
    #[must_use]
    pub fn scanned_through(&self) -> Lsn {
        self.scanned
    }

    /// Events that matched a subscribed publication but have no value to choose by, since the phase
    /// began.
    #[must_use]
    pub fn events_without_value(&self) -> u64 {
        self.decider.events_without_value()
    }

    /// Makes the queue durable, at a clean exit.
    ///
    /// # Errors
    /// Those of the queue.
    pub fn sync(&mut self) -> Result<()> {
        self.unsynced = false;
        self.synced_at = self.store.clock().monotonic();
        self.queue.sync()
    }

    fn sync_now_and_then(&mut self) -> Result<()> {
        let since = self.store.clock().monotonic().saturating_sub(self.synced_at);
        if self.unsynced && since >= SYNC_EVERY {
            self.sync()
        } else {
            Ok(())
        }
    }
}

/// The queue. One that is missing over a log whose beginning was freed is made again from there, when every remote has
/// confirmed what was before (Q2): a store that was made of a backup has none.
fn open_queue(store: &Store, lock: &PhaseLock) -> Result<QueueWriter> {
    if !store.has_lost_queue()? {
        return store.queue_writer(lock);
    }
    if let Some(remote) = due_before_the_log(store)? {
        let begins = store.oldest()?;
        let text = format!(
            "the stable queue is missing, and remote {remote} has not confirmed what it held of the log before {begins}, which \
             was freed: put the files of the folder queue back, or remove that remote and add it again \
             (`milepost remote remove {remote}`), with subscriptions from what the log still has"
        );
        return Err(Error::corrupt(text)
            .at_path(store.root().join("queue"))
            .at_lsn(begins));
    }
    tracing::warn!("the stable queue is missing; it is made again from where the log begins");
    store.queue_writer_anew(lock)
}
