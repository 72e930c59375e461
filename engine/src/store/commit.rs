//! Committing: from a transaction to an LSN.

use std::time::Duration;

use crate::frame::{EncodedFrame, FrameKind, NewFrame};
use crate::log::{Judge, Request, Wait, Written};
use crate::planted::{self, Bug};
use crate::sync::Ordering;
use crate::width::to_u64;
use crate::{
    CommitOutcome, Committed, Error, ErrorKind, Lsn, Result, StreamName, Transaction, TransactionId,
};

use super::{Durability, Store};

/// Room that a block needs beside its frames, at most: header and padding. The filter comes on top.
const BLOCK_ROOM: u64 = 64 << 10;

impl Store {
    /// Commits with the durability of the options.
    ///
    /// # Errors
    /// `Invalid` for a transaction without events or larger than a segment; `Full` when there is no
    /// space, `Unavailable` when another writer is stalled, `Closed` when a write or sync failed. Whatever
    /// the kind: when [`Error::written`] is `None`, nothing was committed and it may be tried again; else it may
    /// be there, and [`Store::is_committed`] tells.
    pub fn commit(&self, transaction: Transaction) -> Result<CommitOutcome> {
        self.commit_with(transaction, self.shared().durability)
    }

    /// Commits with the given durability.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_with(&self, transaction: Transaction, durability: Durability) -> Result<CommitOutcome> {
        let (frame, expectations) = transaction.into_parts();
        if frame.event_count() == 0 {
            return Err(Error::invalid("a transaction without events"));
        }
        self.log().check_process()?;
        let (frame, seq) = self.encode(frame, self.clock().wall_micros())?;
        if !expectations.is_empty() {
            self.shared().catch_up(self.log().control.appended())?;
            // Outside the append lock, so that no sidecar has to be read or made under it (E5).
            for (stream, _) in &expectations {
                self.shared().version_of(stream.as_str())?;
            }
        }
        let request = Request {
            frames: vec![frame],
            expectations,
        };
        let named = |error: Error| error.of_transaction(self.id_of(seq));
        match self
            .log()
            .submit(request, waits_for(durability), self.shared())
            .map_err(named)?
        {
            Written::Wrong { wrong, end } => {
                // The state that caused it must outlive a crash, or the answer would be of nothing.
                self.log().make_durable(end)?;
                Ok(CommitOutcome::WrongVersion(wrong))
            }
            Written::Appended { lsns, end, versions } => {
                let lsn = lsns.first().copied().unwrap_or_default();
                self.settle(lsn, end, durability).map_err(named)?;
                Ok(CommitOutcome::Committed(Committed {
                    lsn,
                    id: self.id_of(seq),
                    versions,
                }))
            }
        }
    }

    /// Appends frames in this order, in as few blocks as hold them and with one sync; each keeps its own
    /// LSN. No expectations. A crash keeps any number of the first ones.
    ///
    /// # Errors
    /// As [`Store::commit`]; with [`Error::written`] some of the first frames may exist.
    pub fn append_frames(&self, frames: Vec<NewFrame>, durability: Durability) -> Result<Vec<Committed>> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        self.log().check_process()?;
        let now = self.clock().wall_micros();
        let mut seqs = Vec::with_capacity(frames.len());
        let mut encoded = Vec::with_capacity(frames.len());
        for frame in frames {
            if matches!(frame.kind(), FrameKind::PART | FrameKind::COMMIT) {
                return Err(Error::invalid(
                    "frames of kinds 2 and 3 are reserved for transactions in parts, which nobody writes yet",
                ));
            }
            let (frame, seq) = self.encode(frame, now)?;
            encoded.push(frame);
            seqs.push(seq);
        }
        let request = Request {
            frames: encoded,
            expectations: Vec::<(StreamName, _)>::new(),
        };
        let named = |error: Error| match seqs.first() {
            Some(seq) => error.of_transaction(self.id_of(*seq)),
            None => error,
        };
        match self
            .log()
            .submit(request, waits_for(durability), self.shared())
            .map_err(named)?
        {
            Written::Wrong { .. } => Err(Error::internal("frames without expectations were refused")),
            Written::Appended { lsns, end, .. } => {
                self.settle(lsns.first().copied().unwrap_or_default(), end, durability)
                    .map_err(named)?;
                let pairs = lsns.into_iter().zip(seqs);
                Ok(pairs
                    .map(|(lsn, seq)| Committed {
                        lsn,
                        id: self.id_of(seq),
                        versions: Vec::new(),
                    })
                    .collect())
            }
        }
    }

    /// Appends a marker, durable when this returns; its LSN is the token to wait for with
    /// [`Store::wait_scanned`].
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn append_marker(&self) -> Result<Lsn> {
        let marker = NewFrame::of_kind(FrameKind::MARKER, Vec::new());
        let committed = self.append_frames(vec![marker], Durability::Synced)?;
        Ok(committed
            .first()
            .map(|committed| committed.lsn)
            .unwrap_or_default())
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// `Closed` when the sync failed.
    pub fn sync(&self) -> Result<()> {
        self.log().make_durable(self.log().control.appended())
    }

    /// True when the transaction `id` stands durably at `lsn` or behind it: how the fate of a commit that
    /// failed with [`Error::written`] and [`Error::transaction`] is asked, where the handle is dead after
    /// reopening. Makes durable what is written first, so that the answer is final; reads from `lsn` on, at
    /// worst to the end.
    ///
    /// # Errors
    /// As [`Store::sync`]; `Corrupt` for damage in the log (E3).
    pub fn is_committed(&self, id: TransactionId, lsn: Lsn) -> Result<bool> {
        self.sync()?;
        if lsn > self.watermarks().durable {
            return Ok(false);
        }
        let mut scan = self.scan(Lsn(lsn.0.saturating_sub(1)))?;
        while let Some(frame) = scan.next()? {
            if frame.id() == id {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Prepares a spare segment, writes sidecars of sealed ones, syncs buffered commits, and frees what need not be
    /// kept; for stores without a background thread.
    ///
    /// # Errors
    /// `Closed` when a sync failed, `Full` without space for a spare.
    pub fn tend(&self) -> Result<()> {
        loop {
            let (begins, _) = self.shared().streams.index.freed();
            match self.tend_once() {
                Err(error) if error.kind() == ErrorKind::Behind => {
                    // Another process freed what was about to be read.
                    self.shared().follow_freed()?;
                    if self.shared().streams.index.freed().0 <= begins {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    fn tend_once(&self) -> Result<()> {
        self.sync()?;
        self.shared().tend_files()?;
        self.shared().free()?;
        while self.shared().tend_forms(&mut |_| Ok(()))? {}
        Ok(())
    }

    /// Closes this handle cleanly: buffered commits are synced, and a small block notes what is
    /// durable, so that damage to the last commits would be noticed. Correctness needs neither. Clones of the
    /// handle go on working; what they commit as buffered from then on is synced at once.
    ///
    /// # Errors
    /// `Closed` when the sync failed.
    pub fn close(self) -> Result<()> {
        self.log().check_process()?;
        self.inner.background.stop();
        self.shared().log.close()
    }

    fn encode(&self, frame: NewFrame, time: i64) -> Result<(EncodedFrame, u64)> {
        let seq = self.shared().next_seq.fetch_add(1, Ordering::Relaxed);
        self.fits(&frame)?;
        Ok((frame.encode(seq, time)?, seq))
    }

    /// Refuses a frame that no segment of this store could hold.
    ///
    /// # Errors
    /// `Invalid` with both lengths.
    pub fn fits(&self, frame: &NewFrame) -> Result<()> {
        let (len, most) = (to_u64(frame.encoded_len()), self.segment_bytes());
        let filter = to_u64(frame.stream_hashes().len()) * 2;
        if len + filter + BLOCK_ROOM > most {
            return Err(Error::invalid(format!(
                "a transaction of {len} bytes does not fit a segment of {most} bytes; nothing was written: \
                 split it, or make the store with larger segments"
            )));
        }
        Ok(())
    }

    pub(super) fn settle(&self, lsn: Lsn, end: Lsn, durability: Durability) -> Result<()> {
        if self.shared().wants_spare() {
            self.inner.background.something_to_do();
        }
        match durability {
            Durability::Synced if planted::is(Bug::AcknowledgeBeforeSync) => Ok(()),
            Durability::Buffered if self.inner.background.something_to_do() => Ok(()),
            Durability::Synced | Durability::Buffered => self
                .log()
                .make_durable(end)
                .map_err(|error| unsettled(error).maybe_written(lsn)),
        }
    }

    fn id_of(&self, seq: u64) -> TransactionId {
        TransactionId {
            writer: self.log().nonce,
            seq,
        }
    }

    /// Waits for what is buffered to become durable, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::wait_durable`].
    pub fn wait_all_durable(&self, limit: Duration) -> Result<bool> {
        let appended = self.log().control.appended();
        self.wait_durable(Lsn(appended.0.saturating_sub(1)), limit)
    }
}

/// What a commit of this durability waits for in its batch.
fn waits_for(durability: Durability) -> Wait {
    match durability {
        Durability::Synced if !planted::is(Bug::AcknowledgeBeforeSync) => Wait::Synced,
        Durability::Synced | Durability::Buffered => Wait::Written,
    }
}

/// A commit that is in the log and whose sync could not be begun: it is published, so the next sync of
/// anybody makes it durable, and who repeats it commits twice.
fn unsettled(error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    Error::unavailable(
        "the commit is in the log and may not be durable yet: do not repeat it, the next sync of this store makes \
         it so; whether it is there tells its id",
    )
    .caused_by(error)
}
