//! [`Options`]: how a store is made and opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Rng, SystemClock, SystemRng};
use crate::storage::Storage;
use crate::{Error, Result, SiteName, Store};

use super::space::{Retention, Space};

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk.
    #[default]
    Synced,
    /// After it is written to the log and published; on disk within [`Options::buffered_sync`]. Readers
    /// see it when it is durable.
    Buffered,
}

/// How a store is made and opened.
///
/// ```
/// use milepost_engine::Options;
/// let dir = tempfile::tempdir().unwrap();
/// let store = Options::new().segment_bytes(1 << 20).init(dir.path().join("shop"), "bern".parse()?)?;
/// assert_eq!(store.site().as_str(), "bern");
/// # Ok::<(), milepost_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) segment_bytes: u64,
    pub(crate) block_bytes: usize,
    pub(crate) pad_to: usize,
    pub(crate) space: Space,
    pub(crate) durability: Durability,
    pub(crate) lock_timeout: Duration,
    pub(crate) buffered_sync: Duration,
    pub(crate) background: bool,
    pub(crate) force_file_system: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// Defaults for production.
    #[must_use]
    pub fn new() -> Options {
        Options {
            segment_bytes: 64 << 20,
            block_bytes: 64 << 10,
            pad_to: 1,
            space: Space::default(),
            durability: Durability::Synced,
            lock_timeout: Duration::from_secs(5),
            buffered_sync: Duration::from_millis(10),
            background: true,
            force_file_system: false,
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
        }
    }

    /// Size of a segment, fixed when the store is made: 1 MiB to 1 GiB, default 64 MiB.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// Size at which a leader closes a block: 4 KiB to 1 MiB, default 64 KiB.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> Options {
        self.block_bytes = bytes;
        self
    }

    /// Rounds every block up to a multiple of so many bytes, fixed when the store is made: a power of two,
    /// 512 to 65,536, or 1 for off, the default.
    ///
    /// Needed where a power cut may turn what is being written into garbage, durable neighbours included:
    /// without it the start of a commit shares its sector with the durable end of the one before. It is
    /// the larger of the device's sector and the file system's block (4,096 nearly everywhere), because
    /// the kernel writes whole blocks back. It costs half of itself for each synced commit on average, and at an open
    /// after a crash a second copy of the blocks that are written again.
    #[must_use]
    pub fn pad_to(mut self, bytes: usize) -> Options {
        self.pad_to = bytes;
        self
    }

    /// How long the log of a new store is kept, default [`Retention::Forever`]; [`Store::set_space`] changes it.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Options {
        self.space.retention = retention;
        self
    }

    /// Most bytes that the segments of a new store's log may take, at least three segments; 0, the default, is no
    /// limit. [`Store::set_space`] changes it.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Options {
        self.space.limit = bytes;
        self
    }

    /// When [`Store::commit`] acknowledges, default [`Durability::Synced`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// How long a commit waits for a stalled writer of another process, default 5 s.
    #[must_use]
    pub fn lock_timeout(mut self, limit: Duration) -> Options {
        self.lock_timeout = limit;
        self
    }

    /// How soon buffered commits are synced, default 10 ms, at least 1 ms. Others that wait for them sync
    /// them themselves after twice their own value: what a dead process left.
    #[must_use]
    pub fn buffered_sync(mut self, pause: Duration) -> Options {
        self.buffered_sync = pause.max(Duration::from_millis(1));
        self
    }

    /// Whether the store has a thread of its own that syncs buffered commits and prepares spare
    /// segments, default yes. Without it the caller calls [`Store::tend`] now and then.
    #[must_use]
    pub fn background(mut self, on: bool) -> Options {
        self.background = on;
        self
    }

    /// Opens on file systems that are refused otherwise (NFS, 9p, FUSE), at the caller's risk.
    #[must_use]
    pub fn force_file_system(mut self, on: bool) -> Options {
        self.force_file_system = on;
        self
    }

    /// The clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    /// The source of ids and nonces.
    #[must_use]
    pub fn rng(mut self, rng: Arc<dyn Rng>) -> Options {
        self.rng = rng;
        self
    }

    /// Makes a new store in `dir` (created if missing, otherwise empty) and opens it.
    ///
    /// # Errors
    /// `Conflict` when there is a store or something else; `Invalid` for options out of range;
    /// otherwise as [`Options::open`].
    pub fn init(self, dir: impl AsRef<Path>, site: SiteName) -> Result<Store> {
        Store::init_dir(dir.as_ref(), site, self)
    }

    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// `NoStore` when there is none; `Invalid` when the file system is refused; `Corrupt` for damage below what was
    /// durable, with segment, offset and LSN; `Unavailable` when another process opens it and stalls.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Store> {
        Store::open_dir(dir.as_ref(), self)
    }

    /// Opens the store of `site` in `dir`, or makes it when there is none. Several processes may do so at the
    /// same moment: one makes it, all open it.
    ///
    /// # Errors
    /// `Conflict` when the store there is another site's, or the folder holds something else; otherwise as
    /// [`Options::open`].
    pub fn open_or_init(self, dir: impl AsRef<Path>, site: SiteName) -> Result<Store> {
        Store::open_or_init_dir(dir.as_ref(), &site, &self)
    }

    /// [`Options::init`] over any storage.
    ///
    /// # Errors
    /// As [`Options::init`].
    pub fn init_in(self, storage: Arc<dyn Storage>, site: SiteName) -> Result<Store> {
        Store::init_in(storage, site, self)
    }

    /// [`Options::open`] over any storage.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_in(self, storage: Arc<dyn Storage>) -> Result<Store> {
        Store::open_in(storage, self)
    }

    /// Refuses values out of range.
    pub(crate) fn check(&self) -> Result<()> {
        if !(4 << 10..=1 << 20).contains(&self.block_bytes) {
            return Err(Error::invalid(format!(
                "blocks of {} bytes are not 4 KiB to 1 MiB",
                self.block_bytes
            )));
        }
        if !is_padding(self.pad_to) {
            return Err(Error::invalid(format!(
                "padding to {} bytes is neither 1 (off) nor a power of two from 512 to 65,536",
                self.pad_to
            )));
        }
        Ok(())
    }
}

/// True for what blocks may be padded to: 1, or a power of two from 512 bytes to 64 KiB.
pub(super) fn is_padding(bytes: usize) -> bool {
    bytes == 1 || (bytes.is_power_of_two() && (512..=64 << 10).contains(&bytes))
}
