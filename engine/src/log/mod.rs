//! The log: the only truth of a store.
//!
//! ```text
//! commit ─► group ─► append (judge, repair, roll) ─► durable (S1) ─► walk ─► scan, tail, index
//!                        │                              │
//!                        └── segment files ◄────────────┘      recover: who is alone in the store
//! ```
//!
//! `control` holds the words that processes share, `lock` what excludes them, `segment` the files.
//! Invariants kept here: E1 to E3, E5, S1 to S3.

mod append;
pub(crate) mod away;
mod control;
mod courtesy;
mod cursor;
mod durable;
mod fill;
mod form;
mod group;
mod judge;
mod limit;
pub(crate) mod lock;
mod moving;
pub(crate) mod newest;
pub(crate) mod packed;
mod recover;
pub(crate) mod rescue;
mod roll;
mod scan;
mod segment;
mod stream_scan;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use crate::Lsn;
use crate::clock::{Clock, Rng};
use crate::storage::StorageFile;
use crate::sync::Mutex;

pub(crate) use append::{Request, Written, is_full};
pub(crate) use control::{Control, LOOK_AGAIN, Tail};
pub(crate) use cursor::{Cursor, Found};
pub(crate) use form::{Form, away_name, packed_name, parse_segment_name, segment_name};
pub(crate) use group::Wait;
pub(crate) use judge::Judge;
pub(crate) use moving::{fetch_back, send_away};
pub(crate) use packed::{Meanwhile, PackedSegment, pack, unpack};
pub(crate) use recover::{Layout, Recovered, recover, write_block_again, zero};
pub(crate) use roll::remove_unfinished;
pub(crate) use scan::FrameScan;
pub use scan::LogScan;
pub(crate) use segment::SegmentDir;
pub use stream_scan::StreamScan;
pub(crate) use walk::BlockWalk;
pub use walk::InPlace;

/// One handle's view of the log.
pub(crate) struct Log {
    pub(crate) dir: Arc<SegmentDir>,
    pub(crate) control: Control,
    /// The file `store`, whose byte ranges are the locks.
    pub(crate) lock_file: Arc<dyn StorageFile>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    /// Random word of this handle.
    pub(crate) nonce: u64,
    /// Generation of poison that this handle was opened in.
    pub(crate) generation: u64,
    pub(crate) process: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) block_bytes: usize,
    /// Blocks begin and end at multiples of this; 1 is off.
    pub(crate) pad_to: usize,
    pub(crate) lock_timeout: Duration,
    /// Held by the one thread of the handle that appends: an OFD lock does not exclude threads. Held
    /// across I/O, as the append lock is, because the order of the log is the order of its holders.
    pub(crate) appending: Mutex<()>,
    /// Memory of a block that was written, for the next one: what is given back to the system is brought in again
    /// page by page.
    pub(crate) block_room: Mutex<Vec<u8>>,
    pub(crate) group: group::Group<Request, crate::Result<Written>>,
    pub(crate) syncer: durable::Syncer,
    pub(crate) filling: fill::Filling,
}

impl Log {
    /// A handle is dead in a forked child, which shares locks and descriptors with its parent without
    /// knowing it.
    pub(crate) fn check_process(&self) -> crate::Result<()> {
        if self.dir.storage().process_id() == self.process {
            return Ok(());
        }
        Err(crate::Error::closed(
            "this handle was opened before a fork; open the store again in the child",
        ))
    }

    /// S3 for a handle that opens a poisoned log while the dead handles are still in: what is kept
    /// beyond durable is verified, written again and synced through descriptors of this handle, the
    /// rest is cut. Only then does a new generation begin, which this handle belongs to.
    pub(crate) fn heal(&mut self) -> crate::Result<()> {
        let poisoned = self.control.poison();
        if poisoned.is_multiple_of(2) {
            self.generation = poisoned;
            return Ok(());
        }
        let exclusive = self.appending.lock();
        let lock = self.lock_append()?;
        let now = self.control.poison();
        if now.is_multiple_of(2) {
            drop(exclusive);
            drop(lock);
            self.generation = now;
            return Ok(());
        }
        let genesis = crate::Chain::genesis(self.dir.owner().id);
        let (storage, control) = (Arc::clone(self.dir.storage()), self.control.clone());
        let fresh = SegmentDir::new(storage, self.dir.kind(), self.dir.owner(), || Lsn::ZERO);
        // Others are in, and may be giving segments another form.
        let fresh = Arc::new(fresh.arranged_by(move || control.cells().load(crate::storage::Cell::Arranged)));
        let layout = Layout {
            segment_bytes: self.segment_bytes,
            pad_to: self.pad_to,
        };
        let tail = recover(&fresh, genesis, self.control.durable(), layout)?;
        let tail = tail
            .ok_or_else(|| crate::Error::corrupt("the log has no segment"))?
            .tail;
        self.control.publish(tail);
        self.control.clear_intent();
        self.control.raise_durable(tail.at);
        let healed = now + 1;
        self.control.begin_generation(now, healed);
        drop(exclusive);
        drop(lock);
        self.generation = healed;
        Ok(())
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
