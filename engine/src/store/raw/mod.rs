//! [`RawLog`]: the log of a store or a backup as it lies on the disk, damage and all, without opening it.
//!
//! ```text
//! block ─ block ─ Damage(contents) ─ block ─ Damage(header: up to the next one found) ─ block ─ Damage(missing file) ─ …
//! ```
//!
//! Nothing is changed, not even what recovery would cut. A range that is no block is given as [`Damage`], and the
//! walk goes on behind it where a whole header of this store stands: by the store's secret and the LSN in it a
//! payload cannot imitate one (E3). Of a store the presence lock is held meanwhile, so nobody has it open.

mod lost;
mod walk;

pub use lost::{Loss, LostFrame};
pub use walk::{Damage, DamageKind, RawEnd, RawPiece};

use std::path::Path;
use std::sync::Arc;

use crate::block::BlockKind;
use crate::index::Base;
use crate::index::salvage::damaged_end;
use crate::log::away::Stub;
use crate::log::lock::PRESENCE;
use crate::log::{Form, SegmentDir, newest};
use crate::storage::{LocalStorage, LockMode, OpenMode, Storage, StorageFile};
use crate::width::{to_u64, to_usize};
use crate::{Chain, Error, ErrorKind, Lsn, Result};

use super::backup::Backup;
use super::identity::{Identity, PUT_BACK, STORE_FILE};
use super::make::is_orphaned_log;
use super::open::open_elsewhere;

/// A log, to be read as it is.
pub struct RawLog {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) identity: Identity,
    pub(super) dir: Arc<SegmentDir>,
    /// Segments in an archive that is away are missing, and not a reason to stop.
    pub(super) without_archive: bool,
    /// A backup, whose own file says where it ends.
    backup: Option<Backup>,
    /// Keeps everybody out while this is alive.
    _lock: Option<Arc<dyn StorageFile>>,
}

/// Where the log begins and what is known of its end from elsewhere.
pub(super) struct Known {
    pub oldest: Lsn,
    /// Chain there, from the store's id or a base.
    pub chain: Option<Chain>,
    /// A backup ends here, whatever stands behind.
    pub bound: Option<Lsn>,
    /// Something outside the log has seen it up to here.
    pub floor: Lsn,
    /// A later segment is known to have been there.
    pub newest: Option<Lsn>,
}

impl RawLog {
    /// Takes the store or the backup in `dir`.
    ///
    /// # Errors
    /// `NoStore` when there is neither; `Unavailable` while anybody has it open; `Corrupt` when the file that
    /// names it is damaged.
    pub fn open(dir: impl AsRef<Path>) -> Result<RawLog> {
        RawLog::open_in(Arc::new(LocalStorage::new(dir.as_ref().to_path_buf())))
    }

    /// [`RawLog::open`] over any storage.
    ///
    /// # Errors
    /// As [`RawLog::open`].
    pub fn open_in(storage: Arc<dyn Storage>) -> Result<RawLog> {
        let path = storage.root().join(STORE_FILE);
        let file = match storage.open(STORE_FILE, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return RawLog::of_backup(storage),
            Err(error) => return Err(Error::io("open the store", path, error)),
        };
        let identity = Identity::read(&*storage, &*file)?;
        let alone = file.try_lock(PRESENCE, LockMode::Exclusive);
        if !alone.map_err(|error| Error::io("lock the store", &path, error))? {
            return Err(open_elsewhere(&*storage));
        }
        let dir = SegmentDir::new(Arc::clone(&storage), BlockKind::Log, identity.owner, || Lsn::ZERO);
        Ok(RawLog {
            storage,
            identity,
            dir: Arc::new(dir.lenient()),
            without_archive: false,
            backup: None,
            _lock: Some(file),
        })
    }

    fn of_backup(storage: Arc<dyn Storage>) -> Result<RawLog> {
        let backup = match Backup::open_in(Arc::clone(&storage)) {
            Err(error) if error.kind() == crate::ErrorKind::NoStore => {
                let text = match is_orphaned_log(&storage).unwrap_or(false) {
                    true => {
                        format!("the file `store` is missing, and the log of its store is here: {PUT_BACK}")
                    }
                    false => "there is no store here, and no backup".to_owned(),
                };
                return Err(Error::new(crate::ErrorKind::NoStore, text).at_path(storage.root()));
            }
            other => other?,
        };
        Ok(RawLog {
            storage,
            identity: backup.manifest.identity.clone(),
            dir: backup.log(),
            without_archive: false,
            backup: Some(backup),
            _lock: None,
        })
    }

    /// True for a backup.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// Size of all segment files together in bytes, for a progress bar.
    ///
    /// # Errors
    /// `Internal` when the segments cannot be listed or opened.
    pub fn bytes(&self) -> Result<u64> {
        let firsts = self.dir.list()?;
        let last = firsts.last().copied().unwrap_or_default();
        let len = if firsts.is_empty() {
            0
        } else {
            self.dir.open(last)?.len()
        };
        Ok(last.plus(len).since(firsts.first().copied().unwrap_or_default()))
    }

    /// Number of segment files.
    ///
    /// # Errors
    /// `Internal` when they cannot be listed.
    pub fn segments(&self) -> Result<u64> {
        Ok(to_u64(self.dir.list()?.len()))
    }

    /// The bytes of [at, end) that the files hold, which may be fewer.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read.
    pub(super) fn read(&self, at: Lsn, end: Lsn) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(first) = self.dir.first_at_or_before(at)? else {
            return Ok(bytes);
        };
        let segment = match self.dir.open(first) {
            Err(error) => return self.passed_over(first, error).map(|_| bytes),
            segment => segment?,
        };
        let held = end.min(segment.end()).since(at);
        bytes.resize(to_usize(held), 0);
        let read = segment.file.read_at(&mut bytes, segment.offset(at));
        let read = read.map_err(|error| Error::io("read a damaged range", self.dir.path(&segment), error))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    pub(super) fn known(&self) -> Result<Known> {
        if let Some(backup) = &self.backup {
            let manifest = &backup.manifest;
            return Ok(Known {
                oldest: manifest.oldest,
                chain: backup.chain_before().ok(),
                bound: Some(manifest.end),
                floor: manifest.end,
                newest: None,
            });
        }
        let newest = newest::read(&*self.storage, self.identity.owner.id);
        let failed = |error| Error::io("read how far the log went", self.storage.root(), error);
        let closed = newest::closed(&*self.storage, self.identity.owner.id).map_err(failed)?;
        // Files before it are what a crash left of freeing.
        let base = Base::newest(&*self.storage, self.identity.owner.id)?;
        let genesis = (Lsn::ZERO, Chain::genesis(self.identity.owner.id));
        let (mut oldest, chain) = base.map_or(genesis, |base| (base.end(), base.end_chain()));
        let mut chain = Some(chain);
        let firsts = self.dir.list()?;
        if let Some(end) = damaged_end(&*self.storage, self.identity.owner.id, &firsts)?
            && end > oldest
        {
            // What it says is not known, but its name is: what comes before was freed.
            (oldest, chain) = (end, None);
        }
        Ok(Known {
            oldest,
            chain,
            bound: None,
            floor: self.scanned()?.max(closed.unwrap_or_default()),
            newest: newest.map_err(failed)?,
        })
    }

    /// Why a segment could not be opened, with what its stub says, when it lies in the archive alone and is missing there;
    /// any other error is one.
    pub(super) fn passed_over(&self, first: Lsn, error: Error) -> Result<(Error, Option<Stub>)> {
        let forms = self.dir.forms()?;
        let mut here = forms.iter().filter(|(known, _)| *known == first);
        let alone = here.next().is_some_and(|(_, form)| *form == Form::Away) && here.next().is_none();
        let missing = match error.kind() {
            ErrorKind::Corrupt => true,
            ErrorKind::Unavailable => self.without_archive,
            _ => false,
        };
        if !alone || !missing {
            return Err(error);
        }
        Ok((error, self.dir.stub(first).ok().flatten()))
    }

    /// How far the queue has seen the log, which was durable then.
    pub(super) fn scanned(&self) -> Result<Lsn> {
        let (storage, owner) = (Arc::clone(&self.storage), self.identity.owner);
        let queue = Arc::new(SegmentDir::new(storage, BlockKind::Queue, owner, || Lsn::ZERO));
        match queue.list() {
            Ok(firsts) => walk::last_aux(&queue, firsts.last().copied()),
            // Derived, and may be missing.
            Err(_) => Ok(Lsn::ZERO),
        }
    }
}
