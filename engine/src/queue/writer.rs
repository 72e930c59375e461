//! [`QueueWriter`]: the scan phase's end of the stable queue.
//!
//! ```text
//! append(entries, through):  block … block(aux = last entry in it) … block(aux = through)
//!                            └ written ─► QueueAppended ─► Scanned ─► wake
//! ```
//!
//! A writer that dies between the two words left its entries in the queue; the next one takes the
//! higher of Scanned and the last block's `aux`, so no entry is written twice (Q1).

use std::sync::Arc;

use crate::block::{BlockBuilder, BlockKind, Seal};
use crate::frame::NewFrame;
use crate::log::{Layout, Recovered, SegmentDir, Tail, recover};
use crate::storage::write_all;
use crate::storage::{Cell, StorageFile};
use crate::width::to_u64;
use crate::{Chain, Error, Lsn, Result, Store};

/// Most bytes that a writer keeps for its next block.
const MOST_ROOM: usize = 1 << 20;

/// An entry on its way into the queue.
#[derive(Clone)]
pub struct QueueEntry {
    /// LSN of the transaction in the log. Entries come in its order.
    pub lsn: Lsn,
    /// The entry, of a kind from [`crate::frame::FrameKind::QUEUE_FIRST`] on.
    pub frame: NewFrame,
}

/// Appends to the stable queue. There is one at a time: the scan phase's lock is needed to get it.
pub struct QueueWriter {
    store: Store,
    nonce: u64,
    tail: Tail,
    scanned: Lsn,
    /// What the last block in the files says.
    recorded: Lsn,
    seq: u64,
    segment_bytes: u64,
    /// Where in the last segment the remains of a refused write may end, beyond the tail; 0 for none.
    remains: u64,
    /// Memory for the next block.
    room: Vec<u8>,
    /// The scan phase's lock, which must not go before the writer.
    _held: Arc<dyn StorageFile>,
}

impl QueueWriter {
    /// Finds the end of the queue, cuts what a dead writer left behind it, and writes what may not be
    /// on disk again (S3). `anew`: what was freed of the log is due to nobody.
    pub(super) fn open(store: &Store, held: Arc<dyn StorageFile>, anew: bool) -> Result<QueueWriter> {
        let control = &store.log().control;
        store.log().check_process()?;
        control.check_poison(store.log().generation)?;
        let genesis = Chain::genesis(store.id());
        let dir = store.queue_dir();
        let fresh = SegmentDir::new(
            Arc::clone(store.storage()),
            BlockKind::Queue,
            store.owner(),
            || Lsn::ZERO,
        );
        let recovered = recover(
            &Arc::new(fresh),
            genesis,
            control.lsn(Cell::QueueDurable),
            Layout::of_queue(store.log().pad_to),
        )?;
        let empty = Tail {
            at: Lsn::ZERO,
            chain: genesis,
            segment: Lsn::ZERO,
            epoch: store.epoch(),
        };
        let Recovered { tail, aux } = recovered.unwrap_or(Recovered { tail: empty, aux: 0 });
        if recovered.is_none() {
            dir.forget(Lsn::ZERO);
        }
        if tail.at < control.lsn(Cell::QueueAppended) {
            // Entries that were published and not durable are gone: the scan goes back to where the rest
            // ends, or those would never be sent (Q1). Only the holder of the phase writes these words.
            tracing::warn!(
                end = tail.at.0,
                scanned = aux,
                "the stable queue lost its end; the scan makes it again from the log"
            );
            control.cells().store(Cell::QueueAppended, tail.at.0);
            control.cells().store(Cell::Scanned, aux);
        }
        // What a dead writer wrote and did not publish is whole and in line, so it counts: first for who asks how far the
        // scan has come, then for who frees.
        let scanned = store.begin_scan(tail.at, control.lsn(Cell::Scanned).max(Lsn(aux)), anew)?;
        control.cells().raise(Cell::QueueDurable, tail.at.0);
        control.cells().raise(Cell::ScannedDurable, aux);
        Ok(QueueWriter {
            store: store.clone(),
            nonce: store.rng().next_u64(),
            tail,
            scanned,
            recorded: Lsn(aux),
            seq: 0,
            segment_bytes: super::segment_bytes(store.segment_bytes()),
            remains: 0,
            room: Vec::new(),
            _held: held,
        })
    }

    /// Every frame of the log at or below this LSN was seen.
    #[must_use]
    pub fn scanned_through(&self) -> Lsn {
        self.scanned
    }

    /// Appends entries and moves the scan position to `through`; both are seen by others together.
    /// Without entries only the position moves, in memory until [`QueueWriter::sync`].
    ///
    /// # Errors
    /// `Full` without space: nothing was appended beyond what `scanned_through` says. `Closed` when a
    /// write failed.
    ///
    /// # Panics
    /// When positions go back: the scan reads in log order.
    pub fn append(&mut self, entries: Vec<QueueEntry>, through: Lsn) -> Result<()> {
        assert!(through >= self.scanned, "Q1: the scan position never goes back");
        assert!(
            entries
                .iter()
                .all(|entry| entry.lsn > self.scanned && entry.lsn <= through),
            "Q1: an entry lies between the scan position before and after it"
        );
        let log = self.store.log();
        log.check_process()?;
        log.control.check_poison(log.generation)?;
        let time = self.store.clock().wall_micros();
        let block_bytes = log.block_bytes;
        let (mut builder, mut last) = (
            BlockBuilder::reusing(std::mem::take(&mut self.room)),
            self.scanned,
        );
        let mut left = entries.len();
        for entry in entries {
            self.seq += 1;
            left -= 1;
            let frame = entry.frame.encode(self.seq, time)?;
            if !builder.is_empty() && builder.len_with(&frame) > block_bytes {
                self.write(std::mem::take(&mut builder), last)?;
                builder = BlockBuilder::reusing(std::mem::take(&mut self.room));
            }
            if frame.len() > to_u64(block_bytes) {
                // It fills a block alone, however long it is, without being copied.
                let mut alone = BlockBuilder::reusing(std::mem::take(&mut self.room));
                alone.push_borrowed(&frame);
                self.write(alone, if left == 0 { through } else { entry.lsn })?;
            } else {
                builder.push(&frame);
            }
            last = entry.lsn;
        }
        if !builder.is_empty() {
            self.write(builder, through)?;
        }
        self.publish_scanned(through);
        Ok(())
    }

    /// Makes entries and scan position durable: before log segments are unlinked, at a clean exit, and
    /// now and then.
    ///
    /// # Errors
    /// As [`QueueWriter::append`].
    pub fn sync(&mut self) -> Result<()> {
        // A failed sync is told once; the next one on the same descriptor would find nothing wrong (S1).
        let log = self.store.log();
        log.check_process()?;
        log.control.check_poison(log.generation)?;
        if self.recorded < self.scanned {
            self.write(BlockBuilder::new(), self.scanned)?;
        }
        if self.store.log().control.lsn(Cell::QueueDurable) >= self.tail.at || self.tail.at == Lsn::ZERO {
            return Ok(());
        }
        self.sync_tail(self.store.queue_dir())
    }

    fn publish_scanned(&mut self, through: Lsn) {
        self.scanned = through;
        self.store.log().control.publish_scanned(through);
    }

    /// Writes one block, with a new segment where it does not fit, and publishes it.
    fn write(&mut self, builder: BlockBuilder<'_>, through: Lsn) -> Result<()> {
        let control = self.store.log().control.clone();
        let seal = Seal {
            kind: BlockKind::Queue,
            close: false,
            owner: self.store.owner(),
            epoch: self.store.epoch(),
            lsn: self.tail.at,
            durable: control.lsn(Cell::QueueDurable),
            nonce: self.nonce,
            chain: self.tail.chain,
            aux: through.0,
        };
        let block = builder.seal_in_pieces(&seal, self.store.log().pad_to);
        let (dir, len) = (
            Arc::clone(self.store.queue_dir()),
            u64::from(block.header.block_len),
        );
        self.clear_remains(&dir)?;
        let begins = self.tail.at == Lsn::ZERO;
        let fits = !begins && {
            let segment = dir.open(self.tail.segment)?;
            segment.offset(block.header.end()) <= segment.len()
        };
        if !fits {
            if !begins {
                self.sync_tail(&dir)?;
            }
            dir.place_segment(self.tail.at, self.segment_bytes, len, &**self.store.rng())?;
            self.tail.segment = self.tail.at;
        }
        let segment = dir.open(self.tail.segment)?;
        let offset = segment.offset(self.tail.at);
        if let Err(error) = write_all(&*segment.file, &block.pieces(), offset) {
            let path = dir.path(&segment);
            if crate::log::is_full(&error) {
                // What was written of it goes now, or where even zeros find no space before the next block.
                self.remains = offset + len;
                self.clear_remains(&dir)?;
                return Err(no_space(&path).caused_by(error));
            }
            return Err(self.dead("write", &path, error));
        }
        (self.tail.at, self.tail.chain) = (block.header.end(), block.header.chain_after());
        self.recorded = through;
        self.scanned = through;
        if block.front.capacity() <= MOST_ROOM {
            self.room = block.front;
        }
        control.publish_entries(self.tail.at, through);
        Ok(())
    }

    /// Zeroes what a refused write left behind the tail: nothing may stand there when a block takes its place, nor
    /// when the segment is sealed (S2).
    fn clear_remains(&mut self, dir: &SegmentDir) -> Result<()> {
        if self.remains == 0 {
            return Ok(());
        }
        let segment = dir.open(self.tail.segment)?;
        let offset = segment.offset(self.tail.at);
        match crate::log::zero(&*segment.file, offset, self.remains) {
            Ok(()) => self.remains = 0,
            Err(error) if crate::log::is_full(&error) => {
                return Err(no_space(&dir.path(&segment)).caused_by(error));
            }
            Err(error) => return Err(self.dead("write", &dir.path(&segment), error)),
        }
        Ok(())
    }

    /// Syncs the last segment. S2 for the queue: it is durable to its end before the next one begins.
    fn sync_tail(&self, dir: &SegmentDir) -> Result<()> {
        let segment = dir.open(self.tail.segment)?;
        if let Err(error) = segment.file.sync_data() {
            return Err(self.dead("sync", &dir.path(&segment), error));
        }
        let cells = self.store.log().control.cells();
        cells.raise(Cell::QueueDurable, self.tail.at.0);
        cells.raise(Cell::ScannedDurable, self.recorded.0);
        Ok(())
    }

    fn dead(&self, what: &str, path: &std::path::Path, error: std::io::Error) -> Error {
        self.store.log().control.set_poisoned(self.store.log().generation);
        Error::closed(format!(
            "cannot {what} the stable queue: this handle is dead; check the disk, open the store again"
        ))
        .at_path(path)
        .caused_by(error)
    }
}

fn no_space(path: &std::path::Path) -> Error {
    Error::full("no space in the stable queue; free some, the scan goes on").at_path(path)
}

impl Drop for QueueWriter {
    fn drop(&mut self) {
        if let Err(error) = self.sync() {
            tracing::warn!(%error, "the stable queue was not synced at the end of the scan; it is made again if need be");
        }
    }
}
