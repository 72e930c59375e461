//! [`QueueReader`]: entries of the stable queue in order, read in place.

use std::sync::Arc;
use std::time::Duration;

use crate::block::Block;
use crate::clock::Clock;
use crate::frame::FrameRef;
use crate::log::FrameScan;
use crate::storage::Cell;
use crate::{Lsn, Result, Store};

use super::QueuePlace;

/// Follows the queue from a position on; `None` now may be `Some` later.
pub struct QueueReader {
    frames: Option<FrameScan>,
    after: Lsn,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl QueueReader {
    pub(super) fn open(store: &Store, after: Lsn) -> Result<QueueReader> {
        let mut reader = QueueReader {
            frames: None,
            after,
            store: store.clone(),
            clock: Arc::clone(store.clock()),
        };
        reader.enter()?;
        Ok(reader)
    }

    /// Begins to read once there is a queue: the first entry makes its first segment.
    fn enter(&mut self) -> Result<()> {
        if self.frames.is_some() {
            return Ok(());
        }
        let dir = self.store.queue_dir();
        let Some(oldest) = dir.list()?.first().copied() else {
            return Ok(());
        };
        if self.store.queue_end() <= oldest {
            return Ok(());
        }
        let after = if self.after == Lsn::ZERO {
            oldest
        } else {
            self.after
        };
        let control = &self.store.log().control;
        self.frames = Some(FrameScan::new(
            dir,
            control,
            Cell::QueueAppended,
            Cell::WakeScanned,
            after,
        )?);
        Ok(())
    }

    /// The next entry, or `None` at the end of what the scan has published.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue; `Behind` when the queue was freed past the reader.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry borrows from the reader that gives it"
    )]
    pub fn next(&mut self) -> Result<Option<FrameRef<'_>>> {
        self.enter()?;
        match &mut self.frames {
            Some(frames) => frames.next(),
            None => Ok(None),
        }
    }

    /// The next block, or `None` at the end of what the scan has published. Mixed with [`QueueReader::next`],
    /// the rest of a block that `next` has entered is passed over.
    ///
    /// # Errors
    /// As [`QueueReader::next`].
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>> {
        self.enter()?;
        match &mut self.frames {
            Some(frames) => frames.next_block(),
            None => Ok(None),
        }
    }

    /// Position in the queue of the entry given last.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.frames.as_ref().map_or(self.after, FrameScan::position)
    }

    /// As [`QueueReader::next`], with where the entry is, for [`Store::queue_lookup`].
    ///
    /// # Errors
    /// As [`QueueReader::next`].
    pub fn next_with_place(&mut self) -> Result<Option<(FrameRef<'_>, QueuePlace)>> {
        self.enter()?;
        let Some(frames) = &mut self.frames else {
            return Ok(None);
        };
        if frames.next()?.is_none() {
            return Ok(None);
        }
        let (frame, (segment, block)) = frames.given_last()?;
        let lsn = frame.lsn();
        Ok(Some((frame, QueuePlace { segment, block, lsn })))
    }

    /// Waits until there is more, or `limit`; true when there is.
    ///
    /// # Errors
    /// As [`QueueReader::next`].
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        self.enter()?;
        if let Some(frames) = &mut self.frames {
            return frames.wait(&*self.clock, limit);
        }
        let cells = self.store.log().control.cells();
        let seen = cells.load(Cell::WakeScanned);
        if self.store.queue_end() == Lsn::ZERO {
            cells.wait(Cell::WakeScanned, seen, limit);
        }
        self.enter()?;
        Ok(self.frames.is_some())
    }
}
