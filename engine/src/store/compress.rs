//! [`Store::compress`]: sealed segments take less space, and are read as before.
//!
//! ```text
//! sealed, not one of the last two, with its sidecar ─► log::packed::pack      one process at a time (lock)
//! ```
//!
//! Guarantees: a segment is there in one of its forms at every moment (E1), its bytes are the same (E2), and who
//! reads or appends meanwhile notices nothing (E5). Recovery reads the last segment and never meets a packed one.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::index::sidecar_segment;
use crate::log::lock::ARRANGE;
use crate::log::{Form, Judge, Meanwhile, SegmentDir, pack, packed, unpack};
use crate::storage::{Cell, LockMode, OpenMode, StorageFile};
use crate::sync::Ordering;
use crate::{Error, Lsn, Result, Store};

use super::Shared;
use super::Space;
use super::identity::STORE_FILE;
use super::room::Growth;
use super::streams::active_segment;

/// Segments at the log's end that stay as they are: the one that is written, and the one before it.
const STAY: usize = 2;

/// What a run of [`Store::compress`] or [`Store::decompress`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compressed {
    /// First LSNs of the segments that were given another form.
    pub segments: Vec<Lsn>,
    /// Bytes of their blocks.
    pub raw_bytes: u64,
    /// Bytes of their files, compressed.
    pub packed_bytes: u64,
    /// Segments of the log that are compressed now.
    pub compressed: u64,
    /// Compressed segments that lie in the archive, and stay as they are there.
    pub in_archive: u64,
    /// Segments of the log in all.
    pub of: u64,
}

impl Store {
    /// Compresses every sealed segment but the last two; what is compressed already stays so. `progress` is told
    /// bytes done and bytes in all. Runs beside readers and writers of any process.
    ///
    /// # Errors
    /// `Unavailable` while another process does so; `Corrupt` for damage in a segment, which stays as it is; `Full`.
    pub fn compress(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Compressed> {
        let (shared, lock) = (self.shared(), self.begin_arranging()?);
        self.make_sidecars()?;
        let wanted = shared.movable(&[Form::Raw])?;
        let total = wanted.iter().map(|(first, end)| end.since(*first)).sum();
        let (mut done, mut found) = (0, Compressed::default());
        for (first, end) in wanted {
            let mut read = 0;
            let packed = shared.compress_one(first, end, &mut |bytes| {
                read += bytes;
                progress(done + read, total);
                Ok(())
            })?;
            done += end.since(first);
            if let Some((raw_bytes, packed_bytes)) = packed {
                found.segments.push(first);
                found.raw_bytes += raw_bytes;
                found.packed_bytes += packed_bytes;
            }
        }
        progress(done, total);
        drop(lock);
        shared.count_forms(found)
    }

    /// Takes every compressed segment out again, but those in the archive. `progress` as in [`Store::compress`].
    ///
    /// # Errors
    /// As [`Store::compress`]; `Full` before anything is changed when the limit or the disk has no room for them.
    pub fn decompress(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Compressed> {
        let (shared, lock) = (self.shared(), self.begin_arranging()?);
        let dir = &shared.log.dir;
        let (firsts, packed) = (dir.list()?, of_form(dir, Form::Packed)?);
        let sealed = firsts.iter().zip(firsts.iter().skip(1));
        let wanted: Vec<(Lsn, u64)> = sealed
            .filter(|(first, _)| packed.binary_search(first).is_ok())
            .map(|(first, end)| (*first, end.since(*first)))
            .collect();
        let mut growth = Growth::default();
        for (first, bytes) in &wanted {
            growth.add(*bytes, dir.packed_len(*first)?);
        }
        shared.check_room(&growth, None)?;
        let (mut done, total) = (0, wanted.iter().map(|(_, bytes)| bytes).sum());
        let mut found = Compressed::default();
        for (first, bytes) in wanted {
            progress(done, total);
            done += bytes;
            if unpack(dir, first, &*shared.log.rng, &|| shared.log.arrange())? {
                found.segments.push(first);
                found.raw_bytes += bytes;
            }
        }
        progress(done, total);
        drop(lock);
        shared.count_forms(found)
    }

    /// The sidecars of all sealed segments: they are made faster of a raw segment than of another form.
    pub(super) fn make_sidecars(&self) -> Result<()> {
        let shared = self.shared();
        shared.catch_up(shared.log.control.durable())?;
        // Those too that a process which ended early did not come to: a segment without one stays where it is.
        shared.streams.index.make_missing()?;
        shared.streams.index.write_sealed()
    }
}

pub(super) fn of_form(dir: &SegmentDir, form: Form) -> Result<Vec<Lsn>> {
    let forms = dir.forms()?.into_iter();
    Ok(forms
        .filter(|(_, found)| *found == form)
        .map(|(first, _)| first)
        .collect())
}

pub(super) fn arranged_by_another(store: &Store) -> Error {
    Error::unavailable(
        "another process is giving segments of this store another form; try again when it has ended",
    )
    .at_path(store.root())
}

impl Shared {
    /// The right to give segments another form; `None` while another process has it.
    pub(super) fn lock_arranging(&self) -> Result<Option<Arc<dyn StorageFile>>> {
        let path = self.storage.root().join(STORE_FILE);
        // An open file of its own, so that two threads of one handle exclude each other too.
        let file = self.storage.open(STORE_FILE, OpenMode::ReadWrite);
        let file = file.map_err(|error| Error::io("open the store's locks", &path, error))?;
        let taken = file.try_lock(ARRANGE, LockMode::Exclusive);
        let taken = taken.map_err(|error| Error::io("lock the forms of segments", &path, error))?;
        Ok(taken.then_some(file))
    }

    /// Sealed segments that have one of these forms here and may be given another, with their ends: those that have
    /// their sidecar, but the last two.
    pub(super) fn movable(&self, forms: &[Form]) -> Result<Vec<(Lsn, Lsn)>> {
        let dir = &self.log.dir;
        let (firsts, found) = (dir.list()?, dir.forms()?);
        let names = self.storage.list(dir.folder());
        let names = names.map_err(|error| Error::io("list the index files", self.storage.root(), error))?;
        let with_sidecar: BTreeSet<Lsn> = names.iter().filter_map(|name| sidecar_segment(name)).collect();
        let active = active_segment(&self.log);
        let sealed = firsts.iter().zip(firsts.iter().skip(1));
        let sealed = sealed.take(firsts.len().saturating_sub(STAY));
        let wanted = sealed.filter(|(first, end)| {
            let here = forms
                .iter()
                .any(|form| found.binary_search(&(**first, *form)).is_ok());
            here && with_sidecar.contains(first) && **end < active
        });
        Ok(wanted.map(|(first, end)| (*first, *end)).collect())
    }

    /// Compresses one segment; its bytes as they were and as they are.
    fn compress_one(
        &self,
        first: Lsn,
        end: Lsn,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<(u64, u64)>> {
        let mut meanwhile = Meanwhile {
            arrange: &|| self.log.arrange(),
            step,
        };
        let packed = pack(&self.log.dir, first, end, &*self.log.rng, &mut meanwhile)?;
        Ok(packed.map(|packed| (packed.raw_bytes, packed.packed_bytes)))
    }

    /// Does what the store's settings ask for, one segment at a time: true when there may be more to do. `step` as in
    /// [`Meanwhile`].
    pub(super) fn tend_forms(&self, step: &mut dyn FnMut(u64) -> Result<()>) -> Result<bool> {
        let active = active_segment(&self.log).0.max(1);
        if self.forms_tended.load(Ordering::Relaxed) == active {
            return Ok(false);
        }
        let space = Space::read(&*self.storage, self.identity.owner)?;
        let to_compress = if space.compress {
            self.movable(&[Form::Raw])?
        } else {
            Vec::new()
        };
        let to_archive = match space.archive {
            Some(_) => self.movable(&[Form::Raw, Form::Packed])?,
            None => Vec::new(),
        };
        let next = to_compress.first().or(to_archive.first()).copied();
        let Some(((first, end), lock)) = next.zip(self.lock_arranging()?) else {
            // Nothing to do, or another process does it.
            self.forms_tended.store(active, Ordering::Relaxed);
            return Ok(false);
        };
        let done = match to_compress.is_empty() {
            false => self.compress_one(first, end, step).map(drop),
            true => self.archive_one((first, end), step),
        };
        drop(lock);
        if let Err(error) = done {
            // Tried again when another segment is sealed.
            self.forms_tended.store(active, Ordering::Relaxed);
            return Err(error);
        }
        Ok(true)
    }

    /// Removes what a run that died left; the caller holds the lock.
    pub(super) fn remove_unfinished(&self) -> Result<()> {
        let removed = packed::remove_unfinished(&*self.storage, self.log.dir.folder());
        removed.map_err(|error| Error::io("remove unfinished files", self.storage.root(), error))
    }

    fn count_forms(&self, found: Compressed) -> Result<Compressed> {
        let dir = &self.log.dir;
        let mut in_archive = 0;
        for first in of_form(dir, Form::Away)? {
            in_archive += u64::from(dir.stub(first)?.is_some_and(|stub| stub.form == Form::Packed));
        }
        Ok(Compressed {
            in_archive,
            compressed: crate::width::to_u64(of_form(dir, Form::Packed)?.len()),
            of: crate::width::to_u64(dir.list()?.len()),
            ..found
        })
    }
}

impl crate::log::Log {
    /// Says to all processes that a form of a segment is about to go, which has another by now: who lists the
    /// folder at this moment lists it again.
    pub(crate) fn arrange(&self) {
        self.control.bump(Cell::Arranged);
    }
}
