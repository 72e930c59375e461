//! [`Store::archive`]: sealed segments lie in a second directory, and are read from there as before.
//!
//! ```text
//! sealed, not one of the last two, with its sidecar ─► log::moving       one process at a time (lock)
//! ```
//!
//! Guarantees: opening, committing and whatever reads no archived segment work while the archive is away; what reads
//! one is told where it should be, and never finds a shorter log (E3).

use std::path::{Path, PathBuf};

use crate::block::BlockKind;
use crate::log::{Form, Meanwhile, away, fetch_back, packed, parse_segment_name, send_away};
use crate::storage::overlap;
use crate::{Error, Lsn, Result, Store};

use super::Shared;
use super::compress::{arranged_by_another, of_form};
use super::room::Growth;

/// What a run of [`Store::archive`] or [`Store::bring_back`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// First LSNs of the segments that were moved.
    pub segments: Vec<Lsn>,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// Segments of the log that lie in the archive now.
    pub away: u64,
    /// Segments of the log in all.
    pub of: u64,
}

impl Store {
    /// Sets the archive, a directory that is made if it is missing, durably for all processes; from then on whoever has
    /// the store open moves there what it seals. A directory that was moved is named anew with its new path.
    ///
    /// # Errors
    /// `Conflict` when the directory holds something else, or lies within the store or around it, when segments lie
    /// in another archive, or when another copy of this store uses it; `Unavailable` when it is another store's.
    pub fn set_archive(&self, path: impl AsRef<Path>) -> Result<()> {
        self.set_archive_of(path.as_ref(), false)
    }

    /// As [`Store::set_archive`], and makes an archive this store's that another copy of it used, which must be gone: that
    /// one would lose its segments.
    ///
    /// # Errors
    /// As [`Store::set_archive`].
    pub fn take_archive_over(&self, path: impl AsRef<Path>) -> Result<()> {
        self.set_archive_of(path.as_ref(), true)
    }

    fn set_archive_of(&self, path: &Path, take_over: bool) -> Result<()> {
        let path = std::path::absolute(path).map_err(|error| Error::io("find the archive", path, error))?;
        let overlaps = overlap(self.root(), &path);
        if overlaps.map_err(|error| Error::io("find the archive", &path, error))? {
            let text = "an archive and its store cannot lie within each other; choose another folder";
            return Err(Error::conflict(text).at_path(path));
        }
        self.set_archive_there(path, take_over)
    }

    /// [`Store::set_archive`] by a path that only this store's storage knows.
    ///
    /// # Errors
    /// As [`Store::set_archive`].
    pub fn set_archive_as(&self, path: PathBuf) -> Result<()> {
        self.set_archive_there(path, false)
    }

    fn set_archive_there(&self, path: PathBuf, take_over: bool) -> Result<()> {
        let dir = &self.log().dir;
        if take_over {
            self.shared().refuse_what_is_not_ours(&path)?;
        }
        let archive = away::make_archive(&**self.storage(), self.owner(), &path, take_over)?;
        for first in of_form(dir, Form::Away)? {
            let Some(stub) = dir.only_away(first)? else {
                continue;
            };
            let there = away::open_file(&*archive, &dir.archived_name(&stub), &stub).is_ok();
            // Unless it was brought back or freed meanwhile.
            if !there && dir.only_away(first)? == Some(stub) {
                let text = "segments of this store lie in another archive: bring them back first with `milepost archive` \
                            and --back, or move that archive's files here";
                return Err(Error::conflict(text).at_path(&path).at_lsn(first));
            }
        }
        self.change_space(|space| space.archive = Some(path)).map(drop)
    }

    /// Moves every sealed segment but the last two to the archive that the settings name. `progress` is told bytes
    /// done and bytes in all.
    ///
    /// # Errors
    /// `Unavailable` while another process gives segments another form, or when the archive cannot be reached;
    /// `Corrupt` for damage in a segment, which stays where it is; `Full`.
    pub fn archive(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Archived> {
        let shared = self.shared();
        let lock = self.begin_arranging()?;
        let archive = away::archive(&*shared.storage, self.owner(), Lsn::ZERO)?;
        away::refuse_others(&*shared.storage, &*archive)?;
        shared.sweep_archive();
        let cleared = packed::remove_unfinished(&*archive, shared.log.dir.folder());
        cleared.map_err(|error| Error::io("remove unfinished copies", archive.root(), error))?;
        self.make_sidecars()?;
        let wanted = shared.movable(&[Form::Raw, Form::Packed])?;
        let total = wanted.iter().map(|(first, end)| end.since(*first)).sum();
        let (mut done, mut found) = (0, Archived::default());
        for (first, end) in wanted {
            let mut read = 0;
            let mut meanwhile = Meanwhile {
                arrange: &|| shared.log.arrange(),
                step: &mut |bytes| {
                    read += bytes;
                    progress(done + read, total);
                    Ok(())
                },
            };
            send_away(
                &shared.log.dir,
                (first, end),
                &*archive,
                &*shared.log.rng,
                &mut meanwhile,
            )?;
            done += end.since(first);
            found.segments.push(first);
        }
        progress(done, total);
        found.bytes = done;
        drop(lock);
        shared.count_away(found)
    }

    /// Brings every segment back from the archive, and sets none from then on. From an archive that another copy of this
    /// store uses they are copied and stay there. `progress` as in [`Store::archive`].
    ///
    /// # Errors
    /// As [`Store::archive`]; `Full` before anything is moved when the limit or the disk has no room for them.
    pub fn bring_back(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Archived> {
        let shared = self.shared();
        let (lock, dir) = (self.begin_arranging()?, &shared.log.dir);
        let mut stubs = Vec::new();
        for first in of_form(dir, Form::Away)? {
            stubs.extend(dir.stub(first)?);
        }
        let total = stubs.iter().map(|stub| stub.end.since(stub.first)).sum();
        let mut growth = Growth::default();
        for stub in &stubs {
            let raw = stub.form == Form::Raw;
            growth.add(
                if raw {
                    stub.end.since(stub.first)
                } else {
                    stub.file_len
                },
                0,
            );
        }
        if let Some(stub) = stubs.first() {
            let archive = away::archive(&*shared.storage, self.owner(), stub.first)?;
            shared.check_room(&growth, Some(&*archive))?;
        }
        let mut found = Archived::default();
        for stub in stubs {
            progress(found.bytes, total);
            fetch_back(dir, &stub, &*shared.log.rng, &|| shared.log.arrange())?;
            found.segments.push(stub.first);
            found.bytes += stub.end.since(stub.first);
        }
        progress(found.bytes, total);
        shared.sweep_archive();
        self.change_space(|space| space.archive = None)?;
        drop(lock);
        shared.count_away(found)
    }

    /// What is wrong with the file that says whose the archive is, if the archive is there and that is not whole: nothing
    /// in it can be read then.
    #[must_use]
    pub fn archive_damage(&self) -> Option<Error> {
        away::mark_damage(&**self.storage(), self.owner())
    }

    /// The right to give segments another form, or why not.
    pub(super) fn begin_arranging(&self) -> Result<std::sync::Arc<dyn crate::storage::StorageFile>> {
        self.log().check_process()?;
        let lock = self
            .shared()
            .lock_arranging()?
            .ok_or_else(|| arranged_by_another(self))?;
        self.shared().remove_unfinished()?;
        Ok(lock)
    }
}

impl Shared {
    /// Refuses to take a folder over that holds what this log never had: segments of another store, or newer ones, which
    /// this store, put back to an earlier state, would write again with other contents.
    fn refuse_what_is_not_ours(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::io("look at what an archive holds", path, error);
        let archive = self.storage.beside(path).map_err(failed)?;
        let names = match archive.list("log") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            names => names.map_err(failed)?,
        };
        let is_marked = archive
            .list("")
            .map_err(failed)?
            .iter()
            .any(|name| name == away::ARCHIVE_FILE);
        let end = self.log.control.appended();
        for name in names {
            let Some((first, form)) = parse_segment_name(BlockKind::Log, &name) else {
                continue;
            };
            let (file, at) = (format!("log/{name}"), path.join("log").join(&name));
            if first >= end {
                let text = format!(
                    "this segment is newer than the log here, which ends at LSN {end}: this store is an earlier state of \
                     the one that moved it there. Restore a newer backup, or choose another archive"
                );
                return Err(Error::conflict(text).at_path(at).at_lsn(first));
            }
            if !is_marked
                && !self
                    .is_our_segment(&*archive, &file, first, form)
                    .map_err(failed)?
            {
                let text = "this file is no segment of this store that can be read: move it elsewhere first, or choose \
                            another archive";
                return Err(Error::conflict(text).at_path(at).at_lsn(first));
            }
        }
        Ok(())
    }

    fn count_away(&self, found: Archived) -> Result<Archived> {
        let dir = &self.log.dir;
        Ok(Archived {
            away: crate::width::to_u64(of_form(dir, Form::Away)?.len()),
            of: crate::width::to_u64(dir.list()?.len()),
            ..found
        })
    }

    /// Moves one segment to the archive.
    pub(super) fn archive_one(
        &self,
        segment: (Lsn, Lsn),
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let archive = away::archive(&*self.storage, self.identity.owner, segment.0)?;
        let mut meanwhile = Meanwhile {
            arrange: &|| self.log.arrange(),
            step,
        };
        send_away(&self.log.dir, segment, &*archive, &*self.log.rng, &mut meanwhile)
    }
}
