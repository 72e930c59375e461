//! [`View`]: opened, checked, made again if need be, caught up, closed.

use std::fmt;
use std::time::Duration;

use crate::{Beginning, Error, ErrorKind, LogScan, Lsn, Position, Result, Store, codec};

use super::caught;
use super::checkpoint::{BEGINS_KEY, CHECKPOINT_KEY, Checkpoint, OWN_PREFIX, key};
use super::files::ViewFolder;
use super::fold::Fold;
use super::projection::Projection;

/// sled's page cache, in bytes: 64 MiB.
const CACHE_BYTES: u64 = 64 << 20;
/// How often, and at what pause, a database is tried again whose file sled's own threads still hold
/// from its last use in this process.
const TRIES: u32 = 3_000;
const PAUSE: Duration = Duration::from_millis(10);

/// Why a view was made again from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildCause {
    /// There was none.
    Missing,
    /// The process that had it last did not close it.
    NotClosed,
    /// Its files are not as they were when it was closed.
    Changed,
    /// sled refused to open it, or panicked.
    Unopenable,
    /// sled opened it and found nothing in it.
    Empty,
    /// It is of another store.
    OtherStore,
    /// It was filled by another projection or another version of this one.
    OtherProjection,
    /// It is complete to a position that this log does not have.
    Contradicts,
    /// What it had not seen yet was freed.
    Behind,
}

impl fmt::Display for RebuildCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RebuildCause::Missing => "there was none",
            RebuildCause::NotClosed => "it was not closed",
            RebuildCause::Changed => "its files changed since it was closed",
            RebuildCause::Unopenable => "its database does not open",
            RebuildCause::Empty => "its database was empty",
            RebuildCause::OtherStore => "it belongs to another store",
            RebuildCause::OtherProjection => "it was made by another version",
            RebuildCause::Contradicts => "the log is not the one it was made from",
            RebuildCause::Behind => "what it had not seen yet was freed",
        })
    }
}

/// How far a view has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewProgress {
    /// Set while the view is made again.
    pub rebuild: Option<RebuildCause>,
    /// Where it began.
    pub from: Lsn,
    /// What it is complete to.
    pub at: Lsn,
    /// The durable end seen at the start.
    pub end: Lsn,
}

/// Derived state of this process, complete to its [`Checkpoint`]. Dropped or closed, it leaves its
/// files so that they can be used again.
pub struct View<P: Projection> {
    store: Store,
    projection: P,
    folder: ViewFolder,
    /// `None` once closed.
    database: Option<sled::Db>,
    checkpoint: Checkpoint,
    cause: Option<RebuildCause>,
    /// Set when sled failed: what is on disk is not to be used again.
    broken: bool,
}

impl<P: Projection> View<P> {
    /// Opens the view `name` of a store and catches up with the durable end. A view that cannot be
    /// trusted is made again from the log; `progress` is called now and then.
    ///
    /// # Errors
    /// `Conflict` when another process has it open; `Invalid` for a name that is not 1 to 64 characters
    /// of `a-z 0-9 . _ -` without a leading dot; `Behind` when it is to be made again, the log begins later, and the
    /// projection does not begin late: nothing is removed then; `Corrupt` for damage in the log; what the projection
    /// returns.
    pub fn open(
        store: &Store,
        name: &str,
        projection: P,
        progress: &mut dyn FnMut(ViewProgress),
    ) -> Result<View<P>> {
        let folder = ViewFolder::lock(store, name)?;
        let fresh = Checkpoint {
            store_id: store.id(),
            projection: projection.name().to_owned(),
            version: projection.version(),
            position: Position::default(),
        };
        let found = match folder.take_mark()? {
            None => Err(if folder.is_empty()? {
                RebuildCause::Missing
            } else {
                RebuildCause::NotClosed
            }),
            Some(false) => Err(RebuildCause::Changed),
            Some(true) => reopened(store, &folder, &fresh)?,
        };
        let (database, checkpoint, cause) = match found {
            Ok((database, checkpoint)) => (database, checkpoint, None),
            Err(cause) => {
                if !projection.may_begin_late() {
                    refuse_late(store, &folder, name, cause)?;
                }
                tracing::info!(view = name, %cause, "a view is made again");
                folder.clear()?;
                (database(store, &folder)?, fresh, Some(cause))
            }
        };
        let store = store.clone();
        let mut view = View {
            store,
            projection,
            folder,
            database: Some(database),
            checkpoint,
            cause,
            broken: false,
        };
        view.catch_up(progress)?;
        Ok(view)
    }

    /// Folds in what became durable since; returns the LSN it is complete to.
    ///
    /// # Errors
    /// As [`View::open`]. The view stays at its last batch.
    pub fn catch_up(&mut self, progress: &mut dyn FnMut(ViewProgress)) -> Result<Lsn> {
        let done = self.fold_in(progress);
        self.broken_by(done)
    }

    /// Notes that sled failed. A batch that failed while it was put together is harmless, one that
    /// failed in the database is not.
    pub(super) fn broken_by<T>(&mut self, done: Result<T>) -> Result<T> {
        if let Err(error) = &done {
            self.broken |= error.kind() == ErrorKind::Internal;
        }
        done
    }

    fn fold_in(&mut self, progress: &mut dyn FnMut(ViewProgress)) -> Result<Lsn> {
        let Some(database) = &self.database else {
            return Err(closed());
        };
        let from = self.checkpoint.position.lsn;
        let (rebuild, end) = (
            self.cause.filter(|_| from == Lsn::ZERO),
            self.store.watermarks().durable,
        );
        let position = self.checkpoint.position;
        let (beginning, mut scan) = begun(&self.store, position, self.projection.may_begin_late())?;
        let late = Some(beginning.lsn()).filter(|begins| from == Lsn::ZERO && *begins > Lsn::ZERO);
        let mut fold = Fold {
            projection: &self.projection,
            tree: database,
            pending: Default::default(),
            bytes: 0,
            beginning,
        };
        if let Some(begins) = late {
            fold.begin_late(begins);
        }
        let mut seen = None;
        loop {
            let epoch = match scan.next()? {
                Some(frame) => {
                    fold.take(&frame)?;
                    Some(frame.epoch())
                }
                None => None,
            };
            if let Some(epoch) = epoch {
                seen = Some(epoch);
            }
            if (epoch.is_none() || fold.is_full())
                && let Some(epoch) = seen.take()
            {
                let position = Position {
                    epoch,
                    lsn: scan.position(),
                    chain: scan.chain(),
                };
                fold.commit(&mut self.checkpoint, position)?;
                progress(ViewProgress {
                    rebuild,
                    from,
                    at: position.lsn,
                    end,
                });
            }
            if epoch.is_none() {
                return Ok(self.checkpoint.position.lsn);
            }
        }
    }

    /// Why the view was made again when it was opened, if it was.
    #[must_use]
    pub fn cause(&self) -> Option<RebuildCause> {
        self.cause
    }

    /// Where it begins: 0 when it has seen all that ever was, else where the log began when it was made.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn begins(&self) -> Result<Lsn> {
        let database = self.database.as_ref().ok_or_else(closed)?;
        let begins = caught("read", || database.get(BEGINS_KEY))?;
        let begins = begins.as_deref().and_then(<[u8]>::first_chunk);
        Ok(begins.map_or(Lsn::ZERO, |begins| Lsn(u64::from_le_bytes(*begins))))
    }

    /// What it is complete to.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The value of one of the projection's keys.
    ///
    /// # Errors
    /// `Internal` when the database cannot read; the view is made again when next opened.
    pub fn get(&self, own: &[u8]) -> Result<Option<Vec<u8>>> {
        let database = self.database.as_ref().ok_or_else(closed)?;
        Ok(caught("read", || database.get(key(OWN_PREFIX, own)))?.map(|value| value.to_vec()))
    }

    /// The projection's keys that begin with `prefix`, with their values, by key.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn with_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let database = self.database.as_ref().ok_or_else(closed)?;
        let own = |(key, value): (sled::IVec, sled::IVec)| {
            (key.get(1..).unwrap_or_default().to_vec(), value.to_vec())
        };
        caught("read", || {
            database
                .scan_prefix(key(OWN_PREFIX, prefix))
                .map(|pair| pair.map(own))
                .collect()
        })
    }

    /// Closes it so that the next open can go on from here. Dropping does the same and keeps silent
    /// about what fails.
    ///
    /// # Errors
    /// `Internal` or `Full` when files cannot be synced: the view is made again when next opened.
    pub fn close(mut self) -> Result<()> {
        self.seal()
    }

    fn seal(&mut self) -> Result<()> {
        let Some(database) = self.database.take() else {
            return Ok(());
        };
        let flushed = caught("flush", || database.flush().map(|_| ()));
        let dropped = caught("close", || {
            drop(database);
            Ok(())
        });
        flushed.and(dropped)?;
        if self.broken {
            return Ok(());
        }
        self.folder.put_mark()
    }
}

impl<P: Projection> Drop for View<P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.broken = true;
        }
        if let Err(error) = self.seal() {
            tracing::warn!(%error, "a view is not closed and will be made again");
        }
    }
}

/// A scan of what follows `position`, and where the log begins: no later than it, unless the view begins and may begin late.
fn begun(store: &Store, position: Position, may_begin_late: bool) -> Result<(Beginning, LogScan)> {
    let from = position.lsn;
    loop {
        let beginning = store.beginning()?;
        let late = (may_begin_late && from == Lsn::ZERO) || beginning.follows(&position);
        let after = if late { beginning.lsn() } else { from };
        match store.scan(after) {
            // Freed since it was asked.
            Err(error) if late && error.kind() == ErrorKind::Behind => {}
            Err(error) if error.kind() == ErrorKind::Behind => {
                let text = format!(
                    "the view has seen the log up to {from}, and what follows was freed: it cannot be made from the log any \
                     more; keep its part of the log with a hold, or restore a backup that goes back so far"
                );
                return Err(Error::behind(text).at_lsn(from).caused_by(error));
            }
            scan => return Ok((beginning, scan?)),
        }
    }
}

/// Refuses to remove a view that cannot be made again; one that was closed whole is left as it was.
fn refuse_late(store: &Store, folder: &ViewFolder, name: &str, cause: RebuildCause) -> Result<()> {
    let begins = store.beginning()?.lsn();
    if begins == Lsn::ZERO {
        return Ok(());
    }
    let whole = matches!(
        cause,
        RebuildCause::OtherStore
            | RebuildCause::OtherProjection
            | RebuildCause::Contradicts
            | RebuildCause::Behind
    );
    if whole {
        folder.put_mark()?;
    }
    let text = format!(
        "the view {name} is to be made again from the log ({cause}), which begins at {begins} because what was before was \
         freed; nothing was removed: restore a backup that goes back so far, or let its projection begin there \
         (`may_begin_late`); a hold keeps the part of the log that a view needs"
    );
    Err(Error::behind(text)
        .at_path(store.root().join("views").join(name))
        .at_lsn(begins))
}

fn closed() -> Error {
    Error::closed("the view is closed")
}

/// The database as the last process left it, if it fits the store and the projection.
fn reopened(
    store: &Store,
    folder: &ViewFolder,
    wanted: &Checkpoint,
) -> Result<Result<(sled::Db, Checkpoint), RebuildCause>> {
    let unopenable = |error: &Error| {
        // The cause by itself says nothing of what sled, or the disk under it, had to say.
        tracing::warn!(%error, source = ?std::error::Error::source(error), "the database of a view does not open");
        Ok(Err(RebuildCause::Unopenable))
    };
    let database = match database(store, folder) {
        Ok(database) => database,
        Err(error) => return unopenable(&error),
    };
    let found = match caught("read", || database.get(CHECKPOINT_KEY)) {
        Ok(Some(bytes)) => codec::decode::<Checkpoint>(&bytes),
        Ok(None) => return Ok(Err(RebuildCause::Empty)),
        Err(error) => return unopenable(&error),
    };
    let Ok(found) = found else {
        return Ok(Err(RebuildCause::OtherProjection));
    };
    if found.store_id != wanted.store_id {
        return Ok(Err(RebuildCause::OtherStore));
    }
    if (&found.projection, found.version) != (&wanted.projection, wanted.version) {
        return Ok(Err(RebuildCause::OtherProjection));
    }
    // R5: an LSN alone does not name a place; a restored log may hold other blocks there.
    match store.position_at(found.position.lsn) {
        Ok(Some(position)) if position == found.position => {}
        Ok(_) => return Ok(Err(RebuildCause::Contradicts)),
        Err(error) if error.kind() == ErrorKind::Behind => {
            if !store.beginning()?.follows(&found.position) {
                return Ok(Err(RebuildCause::Behind));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(Ok((database, found)))
}

fn database(store: &Store, folder: &ViewFolder) -> Result<sled::Db> {
    let mut tries = 0;
    loop {
        let config = sled::Config::new()
            .path(folder.database())
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        match caught("open", || config.open()) {
            Err(error) if tries < TRIES && is_held(&error) => {
                tries += 1;
                store.clock().sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// True when sled's own lock is taken: by threads of this process that are about to end, because the
/// view's lock is ours.
fn is_held(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sled::Error>());
    matches!(source, Some(sled::Error::Io(io)) if io.kind() == std::io::ErrorKind::Other)
}
