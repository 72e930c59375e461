//! The stable queue: committed transactions that some remote is still due.
//!
//! ```text
//! log ──scan──► QueueWriter (the scan phase alone) ──► queue/*.mpq ──► QueueReader (any number, in place)
//!                     │ each block carries scanned_through     │
//!                     └► Scanned, published after the entries  └► whole segments unlinked by the send phase
//! ```
//!
//! The queue is a log of its own kind: the same segments and blocks, with positions of its own. A
//! block's `aux` is `scanned_through`, the log position that the scan has passed with its entries, so
//! that both advance together (Q1). Entries are a pure function of the durable log: they may be sent
//! before the queue is synced, and a queue that is lost is made again.

pub(crate) mod freed;
mod lookup;
mod reader;
mod writer;

pub use lookup::{QueueLookup, QueuePlace};
pub use reader::QueueReader;
pub use writer::{QueueEntry, QueueWriter};

use std::sync::Arc;

use crate::block::BlockKind;
use crate::log::{BlockWalk, segment_name};
use crate::storage::Cell;
use crate::{Error, Lsn, Phase, PhaseLock, Result, Store};

/// Size of a queue segment for a log with segments of `log_segment` bytes: an eighth, at least 1 MiB.
pub(crate) fn segment_bytes(log_segment: u64) -> u64 {
    (log_segment / 8).max(1 << 20)
}

impl Store {
    /// Opens the queue for appending; for the holder of the scan phase.
    ///
    /// # Errors
    /// `Invalid` with the lock of another phase; `Corrupt` for a damaged queue; `Closed` and `Full` as
    /// for a commit.
    pub fn queue_writer(&self, lock: &PhaseLock) -> Result<QueueWriter> {
        self.open_queue(lock, false)
    }

    /// As [`Store::queue_writer`], where [`Store::has_lost_queue`]: the queue goes on from where the log begins. Only for who knows
    /// that nobody is due anything of what was before (Q2).
    ///
    /// # Errors
    /// As [`Store::queue_writer`].
    pub fn queue_writer_anew(&self, lock: &PhaseLock) -> Result<QueueWriter> {
        self.open_queue(lock, true)
    }

    /// True when the queue ends before the log begins, and was further once: it was lost, or the store made of a
    /// backup, which has none.
    ///
    /// # Errors
    /// `Corrupt` when the base is damaged.
    pub fn has_lost_queue(&self) -> Result<bool> {
        self.lacks_queue(self.scanned_through())
    }

    fn open_queue(&self, lock: &PhaseLock, anew: bool) -> Result<QueueWriter> {
        let Some(held) = lock.holder_of(Phase::Scan, self) else {
            return Err(Error::invalid(
                "only the holder of the scan phase of this store appends to its queue",
            ));
        };
        QueueWriter::open(self, Arc::clone(held), anew)
    }

    /// Entries of the queue from its oldest on, or of those appended after the queue position `after`.
    ///
    /// # Errors
    /// `Behind` when the queue was freed beyond `after`; `Corrupt` for a damaged queue.
    pub fn queue_reader(&self, after: Lsn) -> Result<QueueReader> {
        QueueReader::open(self, after)
    }

    /// Entries of the queue at places that a reader told.
    #[must_use]
    pub fn queue_lookup(&self) -> QueueLookup {
        QueueLookup::new(self)
    }

    /// Every frame of the log with an LSN at or below this one was seen by the scan phase.
    #[must_use]
    pub fn scanned_through(&self) -> Lsn {
        self.watermarks().scanned
    }

    /// End of the queue, in its own positions.
    #[must_use]
    pub fn queue_end(&self) -> Lsn {
        self.log().control.lsn(Cell::QueueAppended)
    }

    /// Bytes that the queue's segments hold entries in.
    ///
    /// # Errors
    /// `Internal` when its segments cannot be listed.
    pub fn queue_bytes(&self) -> Result<u64> {
        let first = self.queue_dir().list()?.first().copied();
        Ok(first.map_or(0, |first| self.queue_end().since(first)))
    }

    /// Frees whole segments of the queue whose entries all have log positions at or below `confirmed`
    /// (the least position confirmed by any remote that is due something, Q2); for the holder of the
    /// send phase. Returns how many went. Whoever still reads them keeps the bytes.
    ///
    /// # Errors
    /// `Invalid` with the lock of another phase; `Internal` when a file cannot be removed.
    pub fn queue_free(&self, lock: &PhaseLock, confirmed: Lsn) -> Result<usize> {
        if lock.holder_of(Phase::Send, self).is_none() {
            return Err(Error::invalid(
                "only the holder of the send phase of this store frees its queue",
            ));
        }
        let (dir, end) = (self.queue_dir(), self.queue_end());
        let firsts = dir.list()?;
        let mut going = Vec::new();
        for (first, next) in firsts.iter().zip(firsts.iter().skip(1)) {
            // Only what the published end has left behind is sealed.
            if *next >= end || self.last_entry_bound(*first, *next)? > confirmed {
                break;
            }
            going.push((*first, *next));
        }
        let Some((_, begins)) = going.last() else {
            return Ok(0);
        };
        let path = self.root().join(dir.folder());
        freed::write(&**self.storage(), *begins)
            .map_err(|error| Error::io("note what the queue has freed", path, error))?;
        for (first, _) in &going {
            let name = segment_name(BlockKind::Queue, *first);
            let gone = self.storage().unlink(&name);
            gone.map_err(|error| Error::io("free a queue segment", self.root().join(&name), error))?;
            dir.forget(*first);
        }
        Ok(going.len())
    }

    /// An upper bound of the log positions of a sealed segment's entries: `scanned_through` at its end.
    fn last_entry_bound(&self, first: Lsn, next: Lsn) -> Result<Lsn> {
        let dir = self.queue_dir();
        let mut walk = BlockWalk::new(dir, dir.open(first)?, first);
        let mut bound = 0;
        while let Some(header) = walk.header(next)? {
            bound = header.aux;
            walk.pass();
        }
        Ok(Lsn(bound))
    }
}

#[cfg(test)]
mod tests;
