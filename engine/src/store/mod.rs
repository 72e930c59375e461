//! [`Store`]: the front door. (API skeleton: bodies arrive with the log.)
#![allow(unused_variables, clippy::todo)]

mod options;
mod phase;

pub use options::{Durability, Options};
pub use phase::{Phase, PhaseLock};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::block::Block;
use crate::frame::{FrameRef, NewFrame};
use crate::storage::Storage;
use crate::*;

/// An open store. Cheap to clone; all clones are one handle.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

/// How far the store is, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// End of what was written to the log.
    pub appended: Lsn,
    /// End of what is on disk, and of what readers see.
    pub durable: Lsn,
    /// Every frame with an LSN at or below this one was seen by the scan phase.
    pub scanned: Lsn,
}

impl Store {
    pub(crate) fn init_dir(dir: &Path, site: SiteName, options: Options) -> Result<Store> { todo!() }
    pub(crate) fn open_dir(dir: &Path, options: Options) -> Result<Store> { todo!() }
    pub(crate) fn init_in(storage: Arc<dyn Storage>, site: SiteName, options: Options) -> Result<Store> { todo!() }
    pub(crate) fn open_in(storage: Arc<dyn Storage>, options: Options) -> Result<Store> { todo!() }

    /// Identity of the store.
    pub fn id(&self) -> StoreId { todo!() }
    /// Name of the site.
    pub fn site(&self) -> &SiteName { todo!() }
    /// Current lineage epoch.
    pub fn epoch(&self) -> Epoch { todo!() }
    /// Directory of the store.
    pub fn root(&self) -> &Path { todo!() }
    /// Clock given in the options.
    pub fn clock(&self) -> &Arc<dyn clock::Clock> { todo!() }
    /// Randomness given in the options.
    pub fn rng(&self) -> &Arc<dyn clock::Rng> { todo!() }

    /// Commits with the durability of the options.
    pub fn commit(&self, transaction: Transaction) -> Result<CommitOutcome> { todo!() }
    /// Commits with the given durability.
    pub fn commit_with(&self, transaction: Transaction, durability: Durability) -> Result<CommitOutcome> { todo!() }
    /// Appends frames (transactions, control frames, message-store frames) together, in this order,
    /// in as few blocks as fit and with one sync; each keeps its own LSN. No expectations.
    /// A crash may keep a prefix of them.
    pub fn append_frames(&self, frames: Vec<NewFrame>, durability: Durability) -> Result<Vec<Committed>> { todo!() }
    /// Appends a marker; its LSN is the token. Durable when it returns.
    pub fn append_marker(&self) -> Result<Lsn> { todo!() }
    /// Waits until durable > lsn (the frame at lsn is on disk), syncing if nobody does.
    pub fn sync(&self) -> Result<()> { todo!() }

    /// How far the store is.
    pub fn watermarks(&self) -> Watermarks { todo!() }
    /// Waits until the frame at `lsn` is durable (`durable > lsn`) or `limit` has passed; true when it is.
    pub fn wait_durable(&self, lsn: Lsn, limit: Duration) -> Result<bool> { todo!() }
    /// Waits until the scan has passed `lsn` (`scanned >= lsn`) or `limit` has passed; true when it has.
    pub fn wait_scanned(&self, lsn: Lsn, limit: Duration) -> Result<bool> { todo!() }

    /// Frames with an LSN above `after`, in log order, up to what is durable; see [`LogScan`].
    pub fn scan(&self, after: Lsn) -> Result<LogScan> { todo!() }
    /// The oldest retained position: a scan may start `after` this or any later LSN.
    pub fn oldest(&self) -> Result<Lsn> { todo!() }
    /// Position (epoch, LSN, chain after its block) of the frame that begins exactly at `lsn` and is
    /// durable; `None` when none begins there.
    pub fn position_at(&self, lsn: Lsn) -> Result<Option<Position>> { todo!() }

    /// Last value of a pinned record among durable frames, with the LSN of its frame.
    pub fn pinned(&self, key: &[u8]) -> Result<Option<(Vec<u8>, Lsn)>> { todo!() }
    /// All pinned records whose key begins with `prefix`: (key, value, LSN), by key.
    pub fn pinned_with_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>, Lsn)>> { todo!() }

    /// Version of a stream's last durable event.
    pub fn stream_version(&self, stream: &str) -> Result<Option<StreamVersion>> { todo!() }
    /// Durable events of a stream from a version on, in order.
    pub fn read_stream(&self, stream: &str, from: StreamVersion) -> Result<StreamReader> { todo!() }

    /// Takes the lock of a phase; `Conflict` names the holder (pid, since when).
    pub fn lock_phase(&self, phase: Phase) -> Result<PhaseLock> { todo!() }
    /// Who holds a phase, as text (`pid 17 since 2026-01-01T00:00:00Z`), if anybody does.
    pub fn phase_holder(&self, phase: Phase) -> Result<Option<String>> { todo!() }

    /// Seals the active segment and begins another, when it is larger than `min_bytes`.
    pub fn rotate(&self, min_bytes: u64) -> Result<bool> { todo!() }
    /// Syncs buffered commits and prepares a spare; for stores without a background thread.
    pub fn tend(&self) -> Result<()> { todo!() }
    /// Closes cleanly. Nothing depends on it.
    pub fn close(self) -> Result<()> { todo!() }
}

/// Reads frames in log order up to what is durable; `None` now may be `Some` later, so a scan is also
/// a tail: wait with [`LogScan::wait`], then go on.
pub struct LogScan {
    _p: (),
}

impl LogScan {
    /// The next frame above the position, or `None` at the durable end. Every byte was verified.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<FrameRef<'_>>> { todo!() }
    /// The next block that holds a frame above the position, or `None` at the durable end. (Its first
    /// frames may be at or below the start position on the first call.)
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>> { todo!() }
    /// LSN of the last frame given, or where the scan began.
    pub fn position(&self) -> Lsn { todo!() }
    /// Chain after the block of the last frame given.
    pub fn chain(&self) -> Chain { todo!() }
    /// Waits until more is durable than was given, or `limit`; true when there is more.
    pub fn wait(&mut self, limit: Duration) -> Result<bool> { todo!() }
}

/// Events of one stream, in order.
pub struct StreamReader {
    _p: (),
}

impl Iterator for StreamReader {
    type Item = Result<RecordedEvent>;
    fn next(&mut self) -> Option<Self::Item> { todo!() }
}
