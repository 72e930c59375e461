//! [`Options::restore`]: makes a store of a backup, under a new lineage epoch.
//!
//! ```text
//! NEWDIR/restoring ─► log/*.log copied, every block verified ─► block of the new epoch: parent, fork ─► synced
//!   ─► log/newest ─► file `space` ─► file `store`: from here on it is a store ─► `restoring` removed
//! ```
//!
//! The new store is the same site with the same id, and goes on from the backup's end. What the site committed
//! behind that end and others have seen is gone here: the new epoch tells them (R5), so that positions of the
//! former history are never taken for those of this one, though their LSNs are used again (E2).
//!
//! An attempt that was interrupted leaves `restoring` and no file `store`: the next attempt clears it away.

use std::path::Path;
use std::sync::Arc;

use crate::block::{BlockKind, SealedBlock};
use crate::clock::Rng;
use crate::index::base::{self, Base};
use crate::log::{SegmentDir, newest, segment_name};
use crate::storage::write_all;
use crate::storage::{LocalStorage, LockMode, OpenMode, Storage, StorageFile, overlap};
use crate::width::to_u64;
use crate::{Epoch, Error, ErrorKind, Lsn, Options, Result, Space};

use super::backup::{Backup, Boundary, Target, blocks};
use super::hold;
use super::identity::{NEW_FILE, STORE_FILE};
use super::lineage::{self, Beginning, Fork};
use super::open::refuse_file_system;
use super::received;
use super::space::{self, SPACE_FILE};

/// There while the folder is no store yet.
const RESTORING: &str = "restoring";

/// What [`Options::restore`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the new lineage begins: everything before it is the backup's.
    pub fork: Lsn,
    /// The lineage that it leaves.
    pub parent: Epoch,
    /// The new lineage.
    pub epoch: Epoch,
    /// Segments copied.
    pub segments: u64,
    /// The store's settings as they were when the backup was made; an archive is not among those that the new store
    /// has, because all segments are here. `None` where the backup's file is damaged: then the log is kept for ever.
    pub space: Option<Space>,
}

impl Options {
    /// Makes a store in `new` (created if missing, otherwise empty) of the backup in `backup`. `progress` is told
    /// bytes done and bytes in all.
    ///
    /// # Errors
    /// `NoStore` when there is no backup; `Invalid` when it is incomplete, or the file system is refused;
    /// `Conflict` when `new` is not empty or overlaps the backup; `Corrupt` for damage in the backup; `Full`.
    pub fn restore(
        &self,
        backup: impl AsRef<Path>,
        new: impl AsRef<Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Restored> {
        let (backup, new) = (backup.as_ref(), new.as_ref());
        let overlaps = overlap(backup, new);
        if overlaps.map_err(|error| Error::io("find the folder to restore to", new, error))? {
            let text = "a store cannot be made within its backup or around it; choose another folder";
            return Err(Error::conflict(text).at_path(new));
        }
        let backup = Arc::new(LocalStorage::new(backup.to_path_buf()));
        self.restore_in(backup, Arc::new(LocalStorage::new(new.to_path_buf())), progress)
    }

    /// [`Options::restore`] over any storages.
    ///
    /// # Errors
    /// As [`Options::restore`].
    pub fn restore_in(
        &self,
        backup: Arc<dyn Storage>,
        new: Arc<dyn Storage>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Restored> {
        self.check()?;
        let backup = Backup::open_in(backup)?;
        let making = begin(&new, self)?;
        let manifest = &backup.manifest;
        let copied = copy(&backup, &new, &*self.rng, progress)?;
        if copied.end.chain != Some(manifest.chain) || copied.end.at != manifest.end {
            let text = "the backup ends in another history than it says: verify it, and restore another one";
            return Err(Error::corrupt(text).at_path(new.root()).at_lsn(manifest.end));
        }
        let fork = Fork {
            parent: manifest.epoch,
            at: manifest.end,
            begins: manifest.end,
            chain: manifest.chain,
        };
        let beginning = Beginning {
            owner: manifest.identity.owner,
            epoch: Epoch(self.rng.next_u64()),
            nonce: self.rng.next_u64(),
            time: self.clock.wall_micros(),
            pad_to: manifest.identity.pad_to,
        };
        let block = lineage::first_block(&beginning, fork, Vec::new())?;
        begin_lineage(
            &copied.log,
            manifest.identity.segment_bytes,
            manifest.last,
            &block,
            self,
        )?;
        let space = settings(&backup, &*new)?;
        backup.holds()?.write(&*new)?;
        manifest.identity.write(&*new, &*making)?;
        let cleared = new.unlink(RESTORING).and_then(|()| new.sync_dir(""));
        if let Err(error) = cleared {
            tracing::warn!(%error, "the file `restoring` stays in a store that is complete; it may be removed");
        }
        Ok(Restored {
            fork: fork.at,
            parent: fork.parent,
            epoch: beginning.epoch,
            segments: copied.segments,
            space,
        })
    }
}

/// Gives the new store what the backup's was told of its space.
fn settings(backup: &Backup, new: &dyn Storage) -> Result<Option<Space>> {
    let space = match backup.space() {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(%error, "the settings of space are not restored");
            return Ok(None);
        }
        space => space?,
    };
    let here = Space {
        archive: None,
        ..space.clone()
    };
    here.copy_to(new, backup.manifest.identity.owner)?;
    Ok(Some(space))
}

/// Locks the folder and clears an interrupted attempt away.
fn begin(new: &Arc<dyn Storage>, options: &Options) -> Result<Arc<dyn StorageFile>> {
    let root = new.root();
    let failed = |error| Error::io("begin to restore", root, error);
    new.create_dir("").map_err(failed)?;
    refuse_file_system(&**new, options)?;
    refuse_occupied(&**new)?;
    let making = new.open(NEW_FILE, OpenMode::OpenOrCreate).map_err(failed)?;
    if !making.try_lock(0, LockMode::Exclusive).map_err(failed)? {
        let text = "another process makes a store here; try again in a moment";
        return Err(Error::unavailable(text).at_path(root));
    }
    // Who had the lock before may have finished.
    refuse_occupied(&**new)?;
    let mark = new.open(RESTORING, OpenMode::OpenOrCreate).map_err(failed)?;
    mark.sync_data().and_then(|()| new.sync_dir("")).map_err(failed)?;
    for folder in ["log", "queue"] {
        new.create_dir(folder).map_err(failed)?;
        for name in new.list(folder).map_err(failed)? {
            new.unlink(&format!("{folder}/{name}")).map_err(failed)?;
        }
    }
    hold::clear(&**new).map_err(failed)?;
    match new.unlink(SPACE_FILE) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    new.sync_dir("").map_err(failed)?;
    Ok(making)
}

fn refuse_occupied(new: &dyn Storage) -> Result<()> {
    let names = new.list("");
    let names = names.map_err(|error| Error::io("list the folder to restore to", new.root(), error))?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let refused = |text: String| Err(Error::conflict(text).at_path(new.root()));
    if has(STORE_FILE) {
        return refused("there is a store here already; restore to a new folder".to_owned());
    }
    let known: &[&str] = if has(RESTORING) {
        &[
            RESTORING,
            NEW_FILE,
            "log",
            "queue",
            SPACE_FILE,
            space::NEW_FILE,
            hold::FOLDER,
        ]
    } else {
        &[NEW_FILE]
    };
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => refused(format!(
            "the folder is not empty, it holds {name:?}; restore to a new folder"
        )),
        None => Ok(()),
    }
}

/// The copied log.
struct Copied {
    log: Arc<SegmentDir>,
    end: Boundary,
    segments: u64,
}

/// Copies all segments, each at a segment's length and synced.
fn copy(
    backup: &Backup,
    new: &Arc<dyn Storage>,
    rng: &dyn Rng,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied> {
    let (manifest, source) = (&backup.manifest, backup.log());
    let firsts = backup.segments(&source)?;
    let mut here = Boundary::new(manifest.oldest, Some(backup.chain_before()?));
    if manifest.oldest > Lsn::ZERO {
        let base = Base::at(&*backup.storage, manifest.identity.owner.id, manifest.oldest)?;
        let (id, named) = (base.store_id(), base.received().file);
        received::copy(&*backup.storage, &**new, id, named, || rng.next_u64())?;
        base::write(&**new, base.end(), &base.bytes(&*backup.storage)?, rng.next_u64())?;
    }
    let (total, mut read) = (manifest.end.since(manifest.oldest), 0);
    for (number, first) in firsts.iter().enumerate() {
        let end = firsts.get(number + 1).copied().unwrap_or(manifest.end);
        let name = segment_name(BlockKind::Log, *first);
        let path = new.root().join(&name);
        let failed = |error| Error::io("write a segment", &path, error).at_lsn(*first);
        let file = new.open(&name, OpenMode::CreateNew).map_err(failed)?;
        let len = manifest.identity.segment_bytes.max(end.since(*first));
        // What lies behind a sealed segment's blocks is never written: it need not hold space.
        if *first == manifest.last {
            file.allocate(len).map_err(failed)?;
        } else {
            file.set_len(len).map_err(failed)?;
        }
        let to = Target {
            file: &*file,
            first: *first,
            path: path.clone(),
        };
        here = blocks(
            &source,
            *first,
            Boundary { at: *first, ..here },
            end,
            &to,
            &mut |bytes| {
                read += bytes;
                progress(read, total);
            },
        )?;
        file.sync_data().map_err(failed)?;
    }
    let log = SegmentDir::new(Arc::clone(new), BlockKind::Log, manifest.identity.owner, || {
        Lsn::ZERO
    });
    Ok(Copied {
        log: Arc::new(log),
        end: here,
        segments: to_u64(firsts.len()),
    })
}

/// Writes the block that begins the new lineage behind the last block of the segment at `last`, or in a segment
/// of its own, and makes all of the log durable.
pub(super) fn begin_lineage(
    log: &Arc<SegmentDir>,
    segment_bytes: u64,
    last: Lsn,
    block: &SealedBlock,
    options: &Options,
) -> Result<()> {
    let (at, storage) = (block.header.lsn, log.storage());
    let mut segment = log.open(last)?;
    if block.header.end() > segment.end() {
        log.place_segment(at, segment_bytes, to_u64(block.bytes.len()), &*options.rng)?;
        segment = log.open(at)?;
    }
    let path = log.path(&segment);
    let written = write_all(&*segment.file, &[&block.bytes], segment.offset(at))
        .and_then(|()| segment.file.sync_data())
        .and_then(|()| storage.sync_dir(log.folder()));
    written.map_err(|error| Error::io("write the block of a new lineage", path, error).at_lsn(at))?;
    newest::write(&**storage, log.owner().id, segment.first);
    Ok(())
}
