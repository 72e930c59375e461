//! [`Group`]: frames to be appended together (`-g`).
//!
//! Transactions of fewer events than the group's limit share a block and a sync with what follows them;
//! a larger one is appended by itself. Every frame keeps its own bytes and LSN.

use std::collections::BTreeSet;

use crate::planted::{self, Bug};
use crate::tracking::{NOTE, PairState, ReceivedRecord};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::width::to_u64;
use milepost_engine::{Durability, Lsn, Result, SiteName, Store};

/// Most bytes gathered before they are appended.
const GATHERED_MAX: u64 = 1 << 20;

/// Frames that wait to be appended.
pub struct Group {
    /// Events from which on a transaction is appended by itself.
    limit: u32,
    frames: Vec<NewFrame>,
    bytes: u64,
    /// Whose frames were appended or wait.
    senders: BTreeSet<SiteName>,
    /// Where the transactions among them are that were appended.
    lsns: Vec<Lsn>,
}

impl Group {
    /// An empty group.
    #[must_use]
    pub fn new(limit: u32) -> Group {
        Group {
            limit,
            frames: Vec::new(),
            bytes: 0,
            senders: BTreeSet::new(),
            lsns: Vec::new(),
        }
    }

    /// Takes the frames of one message, in order, and appends what is gathered where the rule says so.
    ///
    /// # Errors
    /// As [`Store::append_frames`]. A prefix may be durable then: read the positions anew.
    pub fn push(&mut self, store: &Store, sender: &SiteName, frames: Vec<NewFrame>) -> Result<()> {
        self.senders.insert(sender.clone());
        for frame in frames {
            let alone = frame.kind() == FrameKind::TRANSACTION && frame.event_count() >= self.limit.max(1);
            if alone || self.bytes >= GATHERED_MAX {
                self.flush(store)?;
            }
            self.bytes += to_u64(frame.body_len());
            self.frames.push(frame);
            if alone {
                self.flush(store)?;
            }
        }
        Ok(())
    }

    /// Adds a frame that says nothing by itself.
    pub fn push_note(&mut self, frame: NewFrame) {
        self.frames.push(frame);
    }

    /// Appends what is gathered, with one sync.
    ///
    /// # Errors
    /// As [`Store::append_frames`].
    pub fn flush(&mut self, store: &Store) -> Result<()> {
        self.bytes = 0;
        let frames = std::mem::take(&mut self.frames);
        if !frames.is_empty() {
            let kinds: Vec<FrameKind> = frames.iter().map(NewFrame::kind).collect();
            if planted::is(Bug::ConfirmBeforeDurable) {
                let mut early = NewFrame::of_kind(NOTE, Vec::new());
                for pin in frames.iter().flat_map(NewFrame::pinned) {
                    if pin.key.starts_with(ReceivedRecord::PREFIX.as_bytes()) {
                        early.pin(pin.clone());
                    }
                }
                let _ = store.append_frames(vec![early], Durability::Synced)?;
            }
            let committed = store.append_frames(frames, Durability::Synced)?;
            let transactions = kinds
                .into_iter()
                .zip(committed)
                .filter(|(kind, _)| *kind == FrameKind::TRANSACTION);
            self.lsns.extend(transactions.map(|(_, committed)| committed.lsn));
        }
        Ok(())
    }

    /// Where the transactions are that were appended since the last call, in their order.
    pub fn take_lsns(&mut self) -> Vec<Lsn> {
        std::mem::take(&mut self.lsns)
    }

    /// Whose frames were pushed since the last call; all of them are durable after a flush.
    pub fn take_senders(&mut self) -> BTreeSet<SiteName> {
        assert!(
            self.frames.is_empty(),
            "positions are told only when their frames are durable (R2)"
        );
        std::mem::take(&mut self.senders)
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        *self = Group::new(self.limit);
    }
}
