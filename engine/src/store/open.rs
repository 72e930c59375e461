//! Opening a store (architecture: "Opening, recovering, reading").
//!
//! ```text
//! presence exclusive ── got it ──► page made invalid ─► queue, log recovered ─► page filled, Ready last ─► shared
//!        │ not got
//!        └► presence shared ─ page ready and of this boot ─► joined (healed first when poisoned, S3)
//!                            └ else let go, try again
//! ```
//!
//! A page from before a power cut must not be believed: it names the boot it was made in, and who is
//! alone invalidates it before anything else.

use std::sync::Arc;
use std::time::Duration;

use crate::block::BlockKind;
use crate::log::lock::PRESENCE;
use crate::log::{Control, Layout, Log, Recovered, SegmentDir, newest, recover, remove_unfinished, rescue};
use crate::queue::freed;
use crate::storage::{Cell, LockMode, OpenMode, SharedCells, Storage, StorageFile};
use crate::sync::Mutex;
use crate::{Chain, Error, ErrorKind, Lsn, Result};

use super::Options;
use super::backup::BACKUP_FILE;
use super::free;
use super::identity::{Identity, PUT_BACK, STORE_FILE};
use super::make::is_orphaned_log;
use super::repair::REPAIR_FILE;

/// Name of the control page's file.
const CONTROL_FILE: &str = "control";
const READY: u64 = 0x4d50_0001;
/// How long another process may take to recover before an open gives up.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// How long the control page may be missing while others are there.
const PAGE_LIMIT: Duration = Duration::from_secs(3);
/// Pause between attempts to get in.
const OPEN_PAUSE: Duration = Duration::from_millis(2);

/// A store's parts, opened.
pub(super) struct Opened {
    pub identity: Identity,
    pub log: Log,
    pub queue: Arc<SegmentDir>,
}

pub(super) fn refuse_file_system(storage: &dyn Storage, options: &Options) -> Result<()> {
    let refusal = storage
        .refusal()
        .map_err(|error| Error::io("ask for the file system", storage.root(), error))?;
    match refusal {
        Some(reason) if !options.force_file_system => Err(Error::invalid(format!(
            "{reason}; locks and syncs are not reliable there: use a local file system, or force it at your own risk"
        ))
        .at_path(storage.root())),
        _ => Ok(()),
    }
}

/// Opens the store in `storage`.
pub(super) fn open(storage: &Arc<dyn Storage>, options: &Options) -> Result<Opened> {
    let path = storage.root().join(STORE_FILE);
    let file = storage
        .open(STORE_FILE, OpenMode::ReadWrite)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => no_store(storage),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Error::io(
                "open the store, which takes the right to write even for reading (locks, the control page): use a \
                 copy that can be written, or another user,",
                &path,
                error,
            ),
            _ => Error::io("open the store", &path, error),
        })?;
    refuse_file_system(&**storage, options)?;
    let identity = Identity::read(&**storage, &*file)?;
    if storage.boot_id().is_empty() {
        // A page from before a power cut could not be told from one of now.
        let text =
            "the system does not say which boot this is (/proc/sys/kernel/random/boot_id): mount /proc";
        return Err(Error::unavailable(text).at_path(&path));
    }
    let started = options.clock.monotonic();
    loop {
        if lock(&*file, LockMode::Exclusive)? {
            let cells = recover_all(storage, &identity)?;
            if !lock(&*file, LockMode::Shared)? {
                return Err(Error::internal("the presence lock was lost while it was held").at_path(path));
            }
            return join(storage, options, identity, file, cells);
        }
        if lock(&*file, LockMode::Shared)? {
            if let Ok(cells) = storage.cells(CONTROL_FILE, false)
                && cells.load(Cell::Ready) == READY
                && cells.load(Cell::Boot) == boot_digest(&**storage)
            {
                return join(storage, options, identity, file, cells);
            }
            let freed = file.unlock(PRESENCE);
            freed.map_err(|error| Error::io("give the presence lock back", &path, error))?;
            refuse_lost_page(&**storage, options.clock.monotonic().saturating_sub(started))?;
        }
        if options.clock.monotonic().saturating_sub(started) > OPEN_LIMIT.max(options.lock_timeout) {
            return Err(Error::unavailable(format!(
                "another process is opening the store for more than {OPEN_LIMIT:?}; find it by the file it has open"
            ))
            .at_path(path));
        }
        options.clock.sleep(OPEN_PAUSE);
    }
}

/// Recovers a store that nobody has open, and keeps the presence lock of `file`.
pub(super) fn recover_alone(
    storage: &Arc<dyn Storage>,
    identity: &Identity,
    file: &dyn StorageFile,
) -> Result<Arc<dyn SharedCells>> {
    if !lock(file, LockMode::Exclusive)? {
        return Err(open_elsewhere(&**storage));
    }
    recover_all(storage, identity)
}

/// Who wants to be alone in a store is not.
pub(super) fn open_elsewhere(storage: &dyn Storage) -> Error {
    let text = "another process has the store open; end every process that has, then try again";
    Error::unavailable(text).at_path(storage.root())
}

/// Whoever is alone in a store and changes its log otherwise than by appending does this first: an opener that found the presence
/// lock taken may get a share of it afterwards, and would believe a page that is ready.
pub(super) fn forget_page(storage: &dyn Storage) -> Result<()> {
    let page = storage.cells(CONTROL_FILE, true).map(drop);
    page.map_err(|error| Error::io("make the control page", storage.root().join(CONTROL_FILE), error))
}

/// A backup is not opened in place: two sites that go on from one state are what R5 is about.
pub(super) fn no_store(storage: &Arc<dyn Storage>) -> Error {
    let text = if storage.open(BACKUP_FILE, OpenMode::Read).is_ok() {
        "this is a backup and not a store; make a store of it with `milepost restore`".to_owned()
    } else if is_orphaned_log(storage).unwrap_or(false) {
        format!("the file `store` is missing, and the log of its store is here: {PUT_BACK}")
    } else {
        "there is no store here; make one with `milepost init`".to_owned()
    };
    Error::new(ErrorKind::NoStore, text).at_path(storage.root())
}

fn lock(file: &dyn StorageFile, mode: LockMode) -> Result<bool> {
    file.try_lock(PRESENCE, mode)
        .map_err(|error| Error::internal("cannot lock the store").caused_by(error))
}

fn boot_digest(storage: &dyn Storage) -> u64 {
    xxhash_rust::xxh3::xxh3_64(storage.boot_id().as_bytes())
}

/// Recovers queue and log; the caller is alone in the store. Returns the new page, ready.
fn recover_all(storage: &Arc<dyn Storage>, identity: &Identity) -> Result<Arc<dyn SharedCells>> {
    refuse_half_repaired(&**storage)?;
    refuse_lost_log(&**storage)?;
    // Whoever made the store may have died, or failed, between giving it its name and making that durable: what is
    // acknowledged from here on must not go with the name (E1).
    let named = storage.sync_dir("");
    named.map_err(|error| Error::io("sync the store's folder", storage.root(), error))?;
    let control_path = storage.root().join(CONTROL_FILE);
    let cells = storage.cells(CONTROL_FILE, true);
    let cells = cells.map_err(|error| Error::io("make the control page", control_path, error))?;
    // Derived: a copy or a backup may have left an empty folder out.
    let made = storage.create_dir("queue");
    made.map_err(|error| {
        Error::io(
            "make the folder of the queue",
            storage.root().join("queue"),
            error,
        )
    })?;
    clear_unfinished(&**storage)?;
    let genesis = Chain::genesis(identity.owner.id);
    let dir = |kind| {
        Arc::new(SegmentDir::new(Arc::clone(storage), kind, identity.owner, || {
            Lsn::ZERO
        }))
    };
    let begins = free::finish(&dir(BlockKind::Log))?;
    let queue = recover_queue(&dir(BlockKind::Queue), genesis, begins, identity.pad_to)?;
    let scanned = Lsn(queue.as_ref().map_or(0, |queue| queue.aux));
    let closed = newest::closed(&**storage, identity.owner.id);
    let closed =
        closed.map_err(|error| Error::io("read where the log ended", storage.root().join("log"), error))?;
    let floor = scanned.max(closed.unwrap_or_default());
    let layout = Layout {
        segment_bytes: identity.segment_bytes,
        pad_to: identity.pad_to,
    };
    let log = recover(&dir(BlockKind::Log), genesis, floor, layout)?;
    let Some(log) = log else {
        return Err(
            Error::corrupt("the log has no segment; restore a backup").at_path(storage.root().join("log"))
        );
    };
    let control = Control::new(Arc::clone(&cells));
    control.publish(log.tail);
    control.raise_durable(log.tail.at);
    let queue_end = queue.map_or(0, |queue| queue.tail.at.0);
    cells.store(Cell::QueueAppended, queue_end);
    cells.store(Cell::QueueDurable, queue_end);
    cells.store(Cell::Scanned, scanned.0);
    cells.store(Cell::ScannedDurable, scanned.0);
    cells.store(Cell::Freed, begins.0);
    cells.store(Cell::Boot, boot_digest(&**storage));
    cells.store(Cell::Ready, READY);
    Ok(cells)
}

/// Removes what a crash left half made.
fn clear_unfinished(storage: &dyn Storage) -> Result<()> {
    for folder in ["log", "queue"] {
        let removed = remove_unfinished(storage, folder)
            .and_then(|()| crate::log::packed::remove_unfinished(storage, folder));
        removed
            .map_err(|error| Error::io("remove unfinished segments", storage.root().join(folder), error))?;
    }
    crate::index::remove_unfinished(storage)
}

/// A page that stays away, while others have the store open, was removed under them: who opens makes it at once.
fn refuse_lost_page(storage: &dyn Storage, waited: Duration) -> Result<()> {
    if waited < PAGE_LIMIT {
        return Ok(());
    }
    match storage.cells(CONTROL_FILE, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::unavailable(
            "the store's file `control` was removed while other processes have the store open; end them all, then \
             open it again: nothing is lost",
        )
        .at_path(storage.root())),
        _ => Ok(()),
    }
}

/// What a repair that was interrupted left is neither the former log nor the new one.
fn refuse_half_repaired(storage: &dyn Storage) -> Result<()> {
    if storage.open(REPAIR_FILE, OpenMode::Read).is_err() {
        return Ok(());
    }
    let text = "a repair of this store was interrupted: run `milepost repair` again, which finishes it";
    Err(Error::unavailable(text).at_path(storage.root().join(REPAIR_FILE)))
}

/// The log is made with the store and never goes.
fn refuse_lost_log(storage: &dyn Storage) -> Result<()> {
    match storage.list("log") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::corrupt(
            "the folder of the log is missing; nothing was changed: put it back or restore a backup",
        )
        .at_path(storage.root().join("log"))),
        _ => Ok(()),
    }
}

/// A queue that is damaged, or begins later than it was freed, is made again from the log, as long as that is whole.
fn recover_queue(
    dir: &Arc<SegmentDir>,
    genesis: Chain,
    log_begins: Lsn,
    pad_to: usize,
) -> Result<Option<Recovered>> {
    let storage = &**dir.storage();
    let path = storage.root().join(dir.folder());
    let freed =
        freed::read(storage).map_err(|error| Error::io("read what the queue has freed", &path, error))?;
    let firsts = dir.list()?;
    let kept = firsts.iter().find(|first| **first >= freed);
    let recovered = match kept {
        Some(oldest) if *oldest > freed => {
            Err(Error::corrupt("the first files of the stable queue are missing").at_path(&path))
        }
        Some(_) => {
            // A crash may have kept some of the freed files, with holes between them that no reader passes.
            for first in firsts.iter().take_while(|first| **first < freed) {
                let name = crate::log::segment_name(BlockKind::Queue, *first);
                let gone = storage.unlink(&name);
                gone.map_err(|error| Error::io("free a queue segment", storage.root().join(name), error))?;
            }
            recover(dir, genesis, Lsn::ZERO, Layout::of_queue(pad_to))
        }
        None => Ok(None),
    };
    match recovered {
        Err(error) if error.kind() == ErrorKind::Corrupt && log_begins > Lsn::ZERO => {
            return Err(free::lost_queue(log_begins).at_path(path).caused_by(error));
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(%error, "the stable queue is damaged; the scan makes it again from the log");
        }
        Ok(Some(recovered)) => return Ok(Some(recovered)),
        Ok(None) if freed == Lsn::ZERO => return Ok(None),
        Ok(None) if log_begins > Lsn::ZERO => return Err(free::lost_queue(log_begins).at_path(path)),
        Ok(None) => {}
        Err(error) => return Err(error),
    }
    // What is a copy of these blocks is none of the next queue's.
    rescue::remove(dir).map_err(|error| Error::io("remove a damaged queue", &path, error))?;
    for first in firsts {
        let name = crate::log::segment_name(BlockKind::Queue, first);
        let gone = storage.unlink(&name);
        gone.map_err(|error| Error::io("remove a damaged queue", storage.root().join(name), error))?;
    }
    freed::remove(storage).map_err(|error| Error::io("begin a new queue", path, error))?;
    Ok(None)
}

/// Builds the handle of a store whose page is ready.
fn join(
    storage: &Arc<dyn Storage>,
    options: &Options,
    identity: Identity,
    file: Arc<dyn StorageFile>,
    cells: Arc<dyn SharedCells>,
) -> Result<Opened> {
    let control = Control::new(Arc::clone(&cells));
    let (seen, arranged) = (control.clone(), Arc::clone(&cells));
    let dir = SegmentDir::new(Arc::clone(storage), BlockKind::Log, identity.owner, move || {
        seen.written()
    });
    let dir = dir.arranged_by(move || arranged.load(Cell::Arranged));
    let queue_end = Arc::clone(&cells);
    let queue = SegmentDir::new(Arc::clone(storage), BlockKind::Queue, identity.owner, move || {
        Lsn(queue_end.load(Cell::QueueAppended))
    });
    let mut log = Log {
        dir: Arc::new(dir),
        control,
        lock_file: file,
        clock: Arc::clone(&options.clock),
        rng: Arc::clone(&options.rng),
        nonce: options.rng.next_u64(),
        generation: 0,
        process: storage.process_id(),
        segment_bytes: identity.segment_bytes,
        block_bytes: options.block_bytes,
        pad_to: identity.pad_to,
        lock_timeout: options.lock_timeout,
        appending: Mutex::default(),
        block_room: Mutex::default(),
        group: Default::default(),
        syncer: Default::default(),
        filling: Default::default(),
    };
    log.heal()?;
    Ok(Opened {
        identity,
        log,
        queue: Arc::new(queue),
    })
}
