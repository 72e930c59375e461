//! [`Store`]: the front door. A store is a directory; many processes may have it open at once.
//!
//! ```text
//! open ─► commit, append_frames ─► log ─► scan (also a tail)
//!                                  ├────► read_stream, stream_version, pinned   (index)
//!                                  └────► queue_writer, queue_reader            (stable queue)
//! ```

mod archive;
mod background;
mod backup;
mod beginning;
mod commit;
mod compress;
mod disk;
mod free;
mod hold;
mod identity;
mod lineage;
mod make;
mod news;
mod open;
mod options;
mod orphans;
mod phase;
mod put_back;
mod raw;
mod received;
mod repair;
mod restore;
mod room;
mod space;
mod streams;
mod verify;
mod whole_file;

pub use archive::Archived;
pub use backup::{BackedUp, Backup, BackupFacts};
pub use beginning::Beginning;
pub use compress::Compressed;
pub use disk::DiskUse;
pub use free::{Freeable, Keeper};
pub use hold::{Hold, NamedHold};
pub use news::News;
pub use options::{Durability, Options};
pub use phase::{Phase, PhaseLock};
pub use put_back::{ForkAt, NewLineage, PutBack, Writer};
pub use raw::{Damage, DamageKind, Loss, LostFrame, RawEnd, RawLog, RawPiece};
pub use received::{Forgotten, Receipt, Receipts, ReceivedDamage};
pub(crate) use received::{Newest, REMOTE, received_file};
pub use repair::{BaseDamage, Cost, Examined, Repair, RepairHow, Repaired};
pub use restore::Restored;
pub use space::{Retention, Space};
pub use streams::StreamReader;
pub use verify::{Unverified, Verified};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Rng};
use crate::index::{Base, Index, OnRebuild};
use crate::log::{LOOK_AGAIN, Log, LogScan, SegmentDir, StreamScan};
use crate::storage::{Cell, LocalStorage, Storage};
use crate::sync::AtomicU64;
use crate::{Epoch, Error, ErrorKind, Lsn, Result, SiteName, StoreId, StreamName};

use background::Background;
use identity::Identity;
use open::Opened;

/// An open store. Cheap to clone; all clones are one handle. Dropping the last one closes it.
///
/// ```
/// use milepost_engine::{Event, Options, StreamVersion, Transaction};
/// let dir = tempfile::tempdir().unwrap();
/// let store = Options::new().segment_bytes(1 << 20).init(dir.path().join("shop"), "bern".parse()?)?;
/// let mut sale = Transaction::new();
/// sale.push(&Event::new("till-3", "sold", *b"{}")?)?;
/// let committed = store.commit(sale)?.committed()?;
/// let events: Vec<_> = store.read_stream("till-3", StreamVersion(0))?.collect::<Result<_, _>>()?;
/// assert_eq!(events[0].lsn, committed.lsn);
/// # Ok::<(), milepost_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    inner: Arc<Handle>,
}

/// What all clones share, and the thread that works for them.
struct Handle {
    shared: Arc<Shared>,
    background: Background,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Store");
        shown
            .field("root", &self.root())
            .field("site", &self.site().as_str());
        shown.finish_non_exhaustive()
    }
}

/// What the background thread shares with the handle.
struct Shared {
    identity: Identity,
    storage: Arc<dyn Storage>,
    log: Log,
    queue: Arc<SegmentDir>,
    streams: streams::Streams,
    durability: Durability,
    buffered_sync: Duration,
    next_seq: AtomicU64,
    /// Segment for which the background was last asked to make a spare.
    spare_asked: AtomicU64,
    /// Active segment for which the forms of the others were last seen to, 1 for segment 0.
    forms_tended: AtomicU64,
    durable_holds: hold::DurableHolds,
}

/// How far the store is, as of one moment. All are ends: positions behind the last byte.
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
    pub(crate) fn init_dir(dir: &Path, site: SiteName, options: Options) -> Result<Store> {
        Store::init_in(Arc::new(LocalStorage::new(dir.to_path_buf())), site, options)
    }

    pub(crate) fn open_dir(dir: &Path, options: Options) -> Result<Store> {
        Store::open_in(Arc::new(LocalStorage::new(dir.to_path_buf())), options)
    }

    pub(crate) fn open_or_init_dir(dir: &Path, site: &SiteName, options: &Options) -> Result<Store> {
        let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(dir.to_path_buf()));
        make::open_or_make(&storage, site, options)
    }

    pub(crate) fn init_in(storage: Arc<dyn Storage>, site: SiteName, options: Options) -> Result<Store> {
        make::make(&storage, site, &options)?;
        Store::open_in(storage, options)
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, options: Options) -> Result<Store> {
        options.check()?;
        let opened = open::open(&storage, &options)?;
        let streams = loop {
            let begins = opened.log.control.lsn(Cell::Freed);
            match Store::streams_of(&storage, &opened, &options) {
                // Others rolled on and freed what was the active segment a moment ago.
                Err(error)
                    if error.kind() == ErrorKind::Behind && opened.log.control.lsn(Cell::Freed) > begins => {}
                streams => break streams?,
            }
        };
        let shared = Arc::new(Shared {
            identity: opened.identity,
            storage,
            log: opened.log,
            queue: opened.queue,
            streams,
            durability: options.durability,
            buffered_sync: options.buffered_sync,
            next_seq: AtomicU64::new(1),
            spare_asked: AtomicU64::new(0),
            forms_tended: AtomicU64::new(0),
            durable_holds: hold::DurableHolds::default(),
        });
        shared.log.note_reserve();
        let background = Background::start(&shared, &options);
        Ok(Store {
            inner: Arc::new(Handle { shared, background }),
        })
    }

    fn streams_of(
        storage: &Arc<dyn Storage>,
        opened: &Opened,
        options: &Options,
    ) -> Result<streams::Streams> {
        let active = streams::active_segment(&opened.log);
        let base = Base::newest(&**storage, opened.identity.owner.id)?;
        let sealed = streams::sealed_before(&opened.log.dir, active)?;
        let source = Arc::new(streams::SealedSource::new(&opened.log.dir));
        let index = Index::open(
            Arc::clone(storage),
            opened.identity.owner.id,
            source,
            Arc::clone(&options.rng),
            base.as_ref(),
            (&sealed, active),
            traced(options.on_rebuild.clone()),
        );
        streams::Streams::new(index, &opened.log.dir, active)
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// The storage that the store lives in, for parts above that keep files of their own beside it.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared().storage
    }

    pub(crate) fn log(&self) -> &Log {
        &self.shared().log
    }

    pub(crate) fn queue_dir(&self) -> &Arc<SegmentDir> {
        &self.shared().queue
    }

    /// Identity of the store.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.shared().identity.owner.id
    }

    pub(crate) fn owner(&self) -> crate::block::Owner {
        self.shared().identity.owner
    }

    /// Name of the site.
    #[must_use]
    pub fn site(&self) -> &SiteName {
        &self.shared().identity.site
    }

    /// Size of a segment in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.shared().identity.segment_bytes
    }

    /// When the store was made, microseconds since 1970.
    #[must_use]
    pub fn created(&self) -> i64 {
        self.shared().identity.created
    }

    /// Current lineage epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.log().control.cells().load(Cell::TailEpoch))
    }

    /// Directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.storage().root()
    }

    /// Clock given in the options.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.log().clock
    }

    /// Randomness given in the options.
    #[must_use]
    pub fn rng(&self) -> &Arc<dyn Rng> {
        &self.log().rng
    }

    /// How far the store is.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        let control = &self.log().control;
        let (durable, scanned) = (control.durable(), control.lsn(Cell::Scanned));
        Watermarks {
            appended: control.appended().max(durable),
            durable,
            scanned,
        }
    }

    /// Waits until the frame at `lsn` is durable or `limit` has passed; true when it is. Does not sync
    /// by itself: see [`Store::sync`].
    ///
    /// # Errors
    /// `Closed` when this handle is dead.
    pub fn wait_durable(&self, lsn: Lsn, limit: Duration) -> Result<bool> {
        self.wait_beyond(Cell::Durable, Cell::WakeDurable, |durable| durable > lsn, limit)
    }

    /// Waits until the scan phase has passed the frame at `lsn` or `limit` has passed; true when it has.
    /// This is how one waits for one's marker.
    ///
    /// # Errors
    /// `Closed` when this handle is dead.
    pub fn wait_scanned(&self, lsn: Lsn, limit: Duration) -> Result<bool> {
        self.wait_beyond(Cell::Scanned, Cell::WakeScanned, |scanned| scanned >= lsn, limit)
    }

    fn wait_beyond(
        &self,
        cell: Cell,
        wake: Cell,
        there: impl Fn(Lsn) -> bool,
        limit: Duration,
    ) -> Result<bool> {
        let (control, clock) = (&self.log().control, self.clock());
        let started = clock.monotonic();
        let mut orphans = Orphans::watch(self);
        loop {
            let seen = control.cells().load(wake);
            orphans.look(self)?;
            if there(control.lsn(cell)) {
                control.check_not_healed(self.log().generation)?;
                return Ok(true);
            }
            control.check_poison(self.log().generation)?;
            let waited = clock.monotonic().saturating_sub(started);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Ok(false);
            };
            control.cells().wait(wake, seen, left.min(LOOK_AGAIN));
        }
    }

    /// Frames with an LSN above `after`, in log order, up to what is durable. [`Lsn::ZERO`] is from the
    /// beginning.
    ///
    /// # Errors
    /// `Invalid` for a position beyond the log's end; `Behind` when the log no longer holds it; `Corrupt`
    /// for damage (E3).
    pub fn scan(&self, after: Lsn) -> Result<LogScan> {
        LogScan::new(self, after)
    }

    /// The durable events of one stream in frames with an LSN above `after`, in log order, found by the filters
    /// of the block headers. Where a stream is rare this passes the log many times faster than a scan of
    /// everything; [`Store::read_stream`] goes through the index and knows versions.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn scan_stream(&self, stream: &StreamName, after: Lsn) -> Result<StreamScan> {
        StreamScan::new(self, stream, after)
    }

    /// The oldest retained position: a scan may start after this or any later LSN.
    ///
    /// # Errors
    /// `Internal` when the segments cannot be listed.
    pub fn oldest(&self) -> Result<Lsn> {
        let first = self.log().dir.list()?.first().copied();
        let first = first.ok_or_else(|| Error::corrupt("the log has no segment").at_path(self.root()))?;
        Ok(first.max(self.log().control.lsn(Cell::Freed)))
    }

    /// First LSN and length in bytes of every segment of the log, oldest first.
    ///
    /// # Errors
    /// `Internal` when the segments cannot be listed or opened.
    pub fn segments(&self) -> Result<Vec<(Lsn, u64)>> {
        let dir = &self.log().dir;
        let mut segments = Vec::new();
        for first in dir.list()? {
            if let Some(stub) = dir.only_away(first)? {
                segments.push((first, stub.raw_file_len));
                continue;
            }
            match dir.open(first) {
                // Freed since it was listed.
                Err(error) if free::is_behind(&error) => {}
                segment => segments.push((first, segment?.len())),
            }
        }
        Ok(segments)
    }

    /// First LSN of the first segment that begins behind `lsn`: what lies before may go once nobody needs what is at or
    /// below.
    ///
    /// # Errors
    /// `Internal` when the segments cannot be listed.
    pub fn segment_after(&self, lsn: Lsn) -> Result<Option<Lsn>> {
        let firsts = self.log().dir.list()?;
        let next = firsts.partition_point(|first| *first <= lsn);
        Ok(firsts.get(next).copied())
    }

    /// Seals the active segment and begins another, when more than `min_bytes` of it are used; true
    /// when it did.
    ///
    /// # Errors
    /// `Full` without space for a segment; `Unavailable` and `Closed` as for a commit.
    pub fn rotate(&self, min_bytes: u64) -> Result<bool> {
        self.log().rotate(min_bytes)
    }

    /// The time of the store's clock, for people.
    pub(crate) fn now_text(&self) -> String {
        let micros = self.clock().wall_micros();
        jiff::Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
    }
}

/// Traces each sidecar that is made, and tells who asked.
fn traced(asked: Option<OnRebuild>) -> OnRebuild {
    Arc::new(move |rebuild| {
        if rebuild.left > 0 && rebuild.read == 0 {
            tracing::info!(
                segment = rebuild.segment.0,
                left = rebuild.left,
                "making a sidecar index"
            );
        }
        if let Some(tell) = &asked {
            tell(rebuild);
        }
    })
}

/// Watches for buffered commits whose process died before it synced them: what stays appended and not
/// durable for twice the time in which a live one syncs is synced by whoever waits.
pub(crate) struct Orphans {
    since: Duration,
    appended: Lsn,
}

impl Orphans {
    /// Begins to watch.
    pub(crate) fn watch(store: &Store) -> Orphans {
        Orphans {
            since: store.clock().monotonic(),
            appended: store.log().control.appended(),
        }
    }

    /// How long a pause between two looks may be.
    pub(crate) fn pause(store: &Store) -> Duration {
        store.shared().buffered_sync.saturating_mul(2)
    }

    /// Looks, and syncs what was left.
    pub(crate) fn look(&mut self, store: &Store) -> Result<()> {
        let now = store.clock().monotonic();
        if now.saturating_sub(self.since) < Orphans::pause(store) {
            return Ok(());
        }
        if store.log().control.durable() < self.appended {
            store.log().make_durable(self.appended)?;
        }
        *self = Orphans::watch(store);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
