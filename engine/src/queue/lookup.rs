//! [`QueueLookup`]: entries of the stable queue one by one, wherever they are, each at a [`QueuePlace`] that a reader told.
//!
//! Nothing is listed or walked over on the way: a place names the entry's segment and block. The block is verified as
//! for a reader (E3), once for as many of its entries as are asked for in a row.

use crate::frame::FrameRef;
use crate::log::{BlockWalk, InPlace};
use crate::{Error, Lsn, Result, Store};

/// Where an entry is in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePlace {
    /// The first position of its segment.
    pub segment: Lsn,
    /// Where its block begins.
    pub block: Lsn,
    /// The entry's own position.
    pub lsn: Lsn,
}

/// Reads entries at places.
pub struct QueueLookup {
    store: Store,
    /// Stands behind the block at the position, which is read already.
    at: Option<(Lsn, BlockWalk)>,
}

impl QueueLookup {
    pub(super) fn new(store: &Store) -> QueueLookup {
        QueueLookup {
            store: store.clone(),
            at: None,
        }
    }

    /// Shows the entry at a place, and where it stands, from where its bytes can be shared.
    ///
    /// # Errors
    /// `Corrupt` when no entry begins there, or for a damaged queue; `Behind` when the queue was freed beyond it; what
    /// `read` returns.
    pub fn read<T>(
        &mut self,
        place: QueuePlace,
        read: impl FnOnce(&FrameRef<'_>, InPlace<'_>) -> Result<T>,
    ) -> Result<T> {
        let lost = || Error::corrupt("the stable queue lost an entry that it had").at_lsn(place.lsn);
        let walk = match self.at.take() {
            Some((block, walk)) if block == place.block => walk,
            _ => {
                let dir = self.store.queue_dir();
                let mut walk = BlockWalk::new(dir, dir.open(place.segment)?, place.block).narrow();
                if !walk.advance(self.store.queue_end())? {
                    return Err(lost());
                }
                walk
            }
        };
        let (_, walk) = self.at.insert((place.block, walk));
        let block = walk.block().ok_or_else(lost)?;
        read(&block.frame_known_at(place.lsn)?, walk.in_place())
    }

    /// Lets go of the block read last: its segment may be gone.
    pub fn forget(&mut self) {
        self.at = None;
    }
}
