//! What freeing left in an archive that was away goes when it is there again.
//!
//! ```text
//! ARCHIVE/log/<16 hex>.log or .mpz, before where the log begins ─► no form of it here ─► its own first bytes say whose ─► unlinked
//! ```
//!
//! Only in an archive whose mark names this very store, and only what surely is a segment of it that was freed: the base
//! that took its place is durable by then. Everything else stays. What fails is told and tried again by the next who frees.

use std::io;

use crate::block::{BlockHeader, BlockKind, HEADER_LEN};
use crate::log::{Form, PackedSegment, away, parse_segment_name};
use crate::storage::{Cell, OpenMode, Storage, StorageFile};
use crate::{Error, ErrorKind, Lsn, Result, Store};

use super::{Shared, Space};

impl Store {
    /// Removes from the archive what was freed while it was away, unless another process is at the segments' forms.
    pub(super) fn sweep_archive(&self) -> Result<()> {
        if self.space()?.archive.is_none() {
            return Ok(());
        }
        if let Some(_forms) = self.shared().lock_arranging()? {
            self.shared().sweep_archive();
        }
        Ok(())
    }
}

impl Shared {
    /// As [`Store::sweep_archive`], by who has the lock of forms. No failure of it stops who frees or moves.
    pub(super) fn sweep_archive(&self) {
        match self.sweep() {
            Ok(0) => {}
            Ok(files) => tracing::info!(
                files,
                "segments that were freed while the archive was away are removed there"
            ),
            Err(error) => {
                tracing::warn!(%error, "freed segments stay in the archive; they are removed later")
            }
        }
    }

    fn sweep(&self) -> Result<u64> {
        let (storage, owner) = (&*self.storage, self.identity.owner);
        let Some(path) = Space::read(storage, owner)?.archive else {
            return Ok(0);
        };
        let archive = match away::open_archive(storage, owner, &path) {
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(0),
            archive => archive?,
        };
        if !away::is_ours(storage, &*archive)? {
            return Ok(0);
        }
        let (dir, begins) = (&self.log.dir, self.log.control.lsn(Cell::Freed));
        let failed = |error| Error::io("remove freed segments from the archive", archive.root(), error);
        let (here, mut removed) = (dir.forms()?, 0);
        for name in archive.list(dir.folder()).map_err(failed)? {
            let Some((first, form)) = parse_segment_name(BlockKind::Log, &name) else {
                continue;
            };
            let known = here.iter().any(|(known, _)| *known == first);
            if first >= begins || known {
                continue;
            }
            let file = format!("{}/{name}", dir.folder());
            if self
                .is_our_segment(&*archive, &file, first, form)
                .map_err(failed)?
            {
                archive.unlink(&file).map_err(failed)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether a file is a segment of this store that begins at `first`, by what stands in it.
    pub(super) fn is_our_segment(
        &self,
        archive: &dyn Storage,
        name: &str,
        first: Lsn,
        form: Form,
    ) -> io::Result<bool> {
        let (file, owner) = (archive.open(name, OpenMode::Read)?, self.identity.owner);
        let mut bytes = [0; HEADER_LEN];
        let read = match form {
            Form::Raw => file.read_at(&mut bytes, 0),
            Form::Packed => {
                PackedSegment::open(file, owner.id, first).and_then(|packed| packed.read_at(&mut bytes, 0))
            }
            Form::Away => return Ok(false),
        };
        match read {
            // Damaged, or no such file: it is not known whose.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
            read => drop(read?),
        }
        let header = BlockHeader::parse(&bytes);
        let ours =
            |header: BlockHeader| (header.kind, header.owner, header.lsn) == (BlockKind::Log, owner, first);
        Ok(header.is_ok_and(ours))
    }
}
