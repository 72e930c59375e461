//! [`Backup`]: a backup directory opened for reading: what it holds, and whether all of it is whole.
//!
//! Nothing is written; a backup on a medium that allows no writing is read as well. While one is open here no
//! run of [`Store::backup`](crate::Store::backup) changes it.

use std::path::Path;
use std::sync::Arc;

use crate::index::Base;
use crate::log::SegmentDir;
use crate::storage::{LocalStorage, LockMode, OpenMode, Storage, StorageFile};
use crate::{Chain, Epoch, Error, ErrorKind, Lsn, Result, SiteName, Space, StoreId};

use super::super::hold::Kept;
use super::super::identity::STORE_FILE;
use super::super::received::Receipts;
use super::super::space::SPACE_FILE;
use super::super::verify::{Verified, Walk, count_log};
use super::{BACKUP_FILE, LOCK_FILE, Manifest};

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// The store that it is a copy of.
    pub store: StoreId,
    /// Its site.
    pub site: SiteName,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
    /// The backup is complete up to here.
    pub end: Lsn,
    /// Lineage epoch at its end.
    pub epoch: Epoch,
    /// Chain at its end.
    pub chain: Chain,
    /// When it was completed, microseconds since 1970.
    pub completed: i64,
}

/// A complete backup, open for reading.
pub struct Backup {
    pub(in crate::store) storage: Arc<dyn Storage>,
    pub(in crate::store) manifest: Manifest,
    _lock: Option<Arc<dyn StorageFile>>,
}

impl Backup {
    /// True when the folder holds a backup, complete or not.
    pub fn is_in(dir: impl AsRef<Path>) -> bool {
        let storage = LocalStorage::new(dir.as_ref().to_path_buf());
        let has = |name| storage.open(name, OpenMode::Read).is_ok();
        has(BACKUP_FILE) && !has(STORE_FILE)
    }

    /// Opens the backup in `dir`.
    ///
    /// # Errors
    /// `NoStore` when there is none; `Invalid` when it was never completed, with how to go on; `Corrupt` when its
    /// own file is damaged; `Unavailable` while it is written.
    pub fn open(dir: impl AsRef<Path>) -> Result<Backup> {
        Backup::open_in(Arc::new(LocalStorage::new(dir.as_ref().to_path_buf())))
    }

    /// [`Backup::open`] over any storage.
    ///
    /// # Errors
    /// As [`Backup::open`].
    pub fn open_in(storage: Arc<dyn Storage>) -> Result<Backup> {
        let lock = match storage.open(LOCK_FILE, OpenMode::Read) {
            Ok(lock) => Some(lock),
            // A copy of a backup need not have it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("open a backup", storage.root().join(LOCK_FILE), error)),
        };
        if let Some(lock) = &lock {
            let taken = lock.try_lock(0, LockMode::Shared);
            if !taken.map_err(|error| Error::io("lock a backup", storage.root(), error))? {
                let text = "another process writes this backup; try again when it has ended";
                return Err(Error::unavailable(text).at_path(storage.root()));
            }
        }
        let manifest = Manifest::complete(&*storage)?;
        Ok(Backup {
            storage,
            manifest,
            _lock: lock,
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn facts(&self) -> BackupFacts {
        let (manifest, identity) = (&self.manifest, &self.manifest.identity);
        BackupFacts {
            store: identity.owner.id,
            site: identity.site.clone(),
            segment_bytes: identity.segment_bytes,
            end: manifest.end,
            epoch: manifest.epoch,
            chain: manifest.chain,
            completed: manifest.completed,
        }
    }

    /// How long the store kept its log when the backup was made, and how much it could take.
    ///
    /// # Errors
    /// `Corrupt` when the file that says so is damaged.
    pub fn space(&self) -> Result<Space> {
        Space::read(&*self.storage, self.manifest.identity.owner).map_err(|error| {
            let text = "the backup's file that says how long the log is kept cannot be read: `milepost backup` to here writes \
                        it again; restored as it is, the log is kept for ever and has no limit";
            match error.kind() {
                ErrorKind::Corrupt => Error::corrupt(text).at_path(self.storage.root().join(SPACE_FILE)),
                _ => error,
            }
        })
    }

    /// Who held the log when the backup was made, and from where on.
    pub(in crate::store) fn holds(&self) -> Result<Kept> {
        Kept::read(&*self.storage)
    }

    /// The copied segments.
    pub(in crate::store) fn log(&self) -> Arc<SegmentDir> {
        let (storage, owner) = (Arc::clone(&self.storage), self.manifest.identity.owner);
        Arc::new(SegmentDir::of_backup(storage, owner))
    }

    /// First LSNs of the segments that belong to it, ascending.
    ///
    /// # Errors
    /// `Corrupt` when the first or the last is missing.
    pub(in crate::store) fn segments(&self, log: &SegmentDir) -> Result<Vec<Lsn>> {
        let manifest = &self.manifest;
        let firsts: Vec<Lsn> = log
            .list()?
            .into_iter()
            .filter(|first| *first < manifest.end)
            .collect();
        let missing = if firsts.first() != Some(&manifest.oldest) {
            manifest.oldest
        } else if firsts.last() != Some(&manifest.last) {
            manifest.last
        } else {
            return Ok(firsts);
        };
        let name = crate::log::segment_name(crate::block::BlockKind::Log, missing);
        let text = format!("this segment of the backup is missing; {}", log.advice());
        Err(Error::corrupt(text)
            .at_path(self.storage.root().join(name))
            .at_lsn(missing))
    }

    /// Chain before its first segment.
    ///
    /// # Errors
    /// `Corrupt` when the base of a log that had been freed is missing or damaged.
    pub(in crate::store) fn chain_before(&self) -> Result<Chain> {
        let (oldest, id) = (self.manifest.oldest, self.manifest.identity.owner.id);
        if oldest == Lsn::ZERO {
            return Ok(Chain::genesis(id));
        }
        let base = Base::at(&*self.storage, id, oldest)?;
        base.verify()?;
        Receipts::of_base(&self.storage, Some(&base), None)?.verify()?;
        Ok(base.end_chain())
    }

    /// Verifies every block; `progress` is told bytes read and bytes in all. Damage is in the result, not an
    /// error.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read at all; `Invalid` for a block of a newer version.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
        let (manifest, log) = (&self.manifest, self.log());
        let mut found = Verified::default();
        found.settings_damage.extend(self.space().err());
        let firsts = match self.segments(&log) {
            Ok(firsts) => firsts,
            Err(error) => {
                found.damage.push(error);
                log.list()?
                    .into_iter()
                    .filter(|first| *first < manifest.end)
                    .collect()
            }
        };
        let total = manifest.end.since(manifest.oldest);
        let before = self.chain_before().map_err(|error| found.damage.push(error)).ok();
        let begins = firsts.first() == Some(&manifest.oldest);
        let mut walk = Walk::new(&log, before.filter(|_| begins));
        let mut told = |found: &Verified| progress(found.bytes, total);
        let mut whole = true;
        for (number, first) in firsts.iter().enumerate() {
            let end = firsts.get(number + 1).copied().unwrap_or(manifest.end);
            found.segments += 1;
            whole &= walk.segment(*first, end, &mut found, &mut told, count_log)?;
        }
        if whole && walk.chain() != Some(manifest.chain) {
            let text = format!(
                "the backup ends in another history than it says; {}",
                log.advice()
            );
            found.damage.push(
                Error::corrupt(text)
                    .at_path(self.storage.root())
                    .at_lsn(manifest.end),
            );
        }
        Ok(found)
    }
}
