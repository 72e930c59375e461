//! Moving a sealed segment to the archive, and back.
//!
//! ```text
//! every block verified ─► ARCHIVE/log/<16 hex>.….tmp-… ─► synced ─► read back, compared ─► renamed, folder synced
//!   ─► the settings that name the archive synced ─► stub written, synced, renamed, folder synced ─► `Arranged` raised ─► the segment here unlinked
//! back: the same the other way round; the stub goes, durably, before the file in the archive
//! ```
//!
//! A crash leaves the segment here, which counts, or the stub and what it names: never neither (E1, E3). The caller
//! holds the lock of those who give segments another form.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Rng;
use crate::planted::{self, Bug};
use crate::storage::{OpenMode, Storage, StorageFile};
use crate::width::{to_u64, to_usize};
use crate::{Chain, Error, Lsn, Result};

use super::away::{self, Stub};
use super::cursor::{Cursor, Found};
use super::form::{Form, away_name, packed_name, segment_name};
use super::packed::{Meanwhile, STEP, TEMPORARY, remove};
use super::segment::SegmentDir;
use crate::storage::write_all;

const OTHER_THERE: &str = "another file of this name lies in the archive, and both were left as they are: it may hold what a \
                           repair here took for lost, or be of another copy of this store. Keep it elsewhere, or name another \
                           archive, and run `milepost archive` again";
const OTHER_HERE: &str = "another file of this name lies here, and both were left as they are: keep the wrong one elsewhere, \
                          and run `milepost archive` with --back again";

/// Moves the sealed segment [first, end) to the archive.
pub(crate) fn send_away(
    dir: &Arc<SegmentDir>,
    (first, end): (Lsn, Lsn),
    archive: &dyn Storage,
    rng: &dyn Rng,
    meanwhile: &mut Meanwhile<'_>,
) -> Result<()> {
    let storage = &**dir.storage();
    away::refuse_others(storage, archive)?;
    let segment = dir.open(first)?;
    let (form, name) = match segment.form() {
        Form::Raw => (Form::Raw, segment_name(dir.kind(), first)),
        Form::Packed => (Form::Packed, packed_name(first)),
        Form::Away => return Ok(()),
    };
    let (chain_before, chain_after) = verified(dir, first, end, meanwhile.step)?;
    let failed = |error| {
        let path = archive.root().join(&name);
        told("move a segment to the archive", OTHER_THERE, path, error).at_lsn(first)
    };
    let from = storage.open(&name, OpenMode::Read).map_err(failed)?;
    let file_len = from.len().map_err(failed)?;
    // What lies behind the blocks of a raw segment means nothing.
    let used = if form == Form::Raw {
        end.since(first)
    } else {
        file_len
    };
    let copy = Copy {
        from: (storage, &name),
        to: archive,
        used,
        file_len,
    };
    copy.make(&name, rng).map_err(failed)?;
    let stub = Stub {
        form,
        store: dir.owner().id,
        first,
        end,
        chain_before,
        chain_after,
        raw_file_len: segment.len(),
        file_len,
    };
    leave_stub(dir, &stub, rng, meanwhile.arrange)
}

/// Puts the stub in place of the segment that is in the archive now.
fn leave_stub(dir: &SegmentDir, stub: &Stub, rng: &dyn Rng, arrange: &dyn Fn()) -> Result<()> {
    let (storage, name) = (&**dir.storage(), away_name(stub.first));
    let failed = |error| {
        Error::io(
            "say that a segment is in the archive",
            storage.root().join(&name),
            error,
        )
        .at_lsn(stub.first)
    };
    let mut here = dir.names_of(stub.first)?;
    here.retain(|other| *other != name);
    let unlink = || {
        here.iter()
            .try_for_each(|name| storage.unlink(name))
            .map_err(failed)
    };
    if planted::is(Bug::StubAfterUnlink) {
        unlink()?;
    }
    // Whoever named the archive may have died before the settings that do so were durable, and nobody would know where it is.
    storage.sync_dir("").map_err(failed)?;
    write_stub(dir, stub, rng).map_err(failed)?;
    arrange();
    if !planted::is(Bug::StubAfterUnlink) {
        unlink()?;
    }
    dir.forget(stub.first);
    Ok(())
}

/// Brings a segment back from the archive; its bytes are what they are there, damage included.
pub(crate) fn fetch_back(
    dir: &Arc<SegmentDir>,
    stub: &Stub,
    rng: &dyn Rng,
    arrange: &dyn Fn(),
) -> Result<()> {
    let (storage, first) = (&**dir.storage(), stub.first);
    let (name, archive) = (
        dir.archived_name(stub),
        away::archive(storage, dir.owner(), first)?,
    );
    away::open_file(&*archive, &name, stub)?;
    let failed = |error| {
        let path = storage.root().join(&name);
        told("bring a segment back", OTHER_HERE, path, error).at_lsn(first)
    };
    let raw = stub.form == Form::Raw;
    let copy = Copy {
        from: (&*archive, &name),
        to: storage,
        used: if raw { stub.end.since(first) } else { stub.file_len },
        file_len: stub.file_len,
    };
    copy.make(&name, rng).map_err(failed)?;
    arrange();
    storage.unlink(&away_name(first)).map_err(failed)?;
    // While the stub may come back, so must what it names be there.
    storage.sync_dir(dir.folder()).map_err(failed)?;
    dir.forget(first);
    match away::is_ours(storage, &*archive) {
        Ok(true) => {
            if let Err(error) = archive.unlink(&name) {
                tracing::warn!(%error, lsn = first.0, "a segment that was brought back stays in the archive too");
            }
        }
        Ok(false) => tracing::info!(
            lsn = first.0,
            "the archive is that of another copy of the store, which keeps it"
        ),
        Err(error) => {
            tracing::warn!(%error, lsn = first.0, "a segment that was brought back stays in the archive too");
        }
    }
    Ok(())
}

/// What a failed [`Copy`] is: where another file has the name, `other` says what to do.
fn told(doing: &'static str, other: &'static str, path: PathBuf, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::conflict(other).at_path(path),
        _ => Error::io(doing, path, error),
    }
}

/// A file that is copied whole from one directory to the same name in another.
struct Copy<'a> {
    from: (&'a dyn Storage, &'a str),
    to: &'a dyn Storage,
    /// Bytes that count; behind them the copy reads as zeros.
    used: u64,
    file_len: u64,
}

impl Copy<'_> {
    /// Makes the copy, durable in contents and name, and compared; `AlreadyExists` where another file has that name.
    fn make(&self, name: &str, rng: &dyn Rng) -> io::Result<()> {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        match self.to.open(name, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Of a run that died behind it.
            Ok(there) if self.is_same(&*there)? => return self.to.sync_dir(folder),
            // Copies get their name whole: this is no half-made one, and may be the last of its kind.
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) => return Err(error),
        }
        let temporary = format!("{name}{TEMPORARY}{:016x}", rng.next_u64());
        let write = || -> io::Result<()> {
            let (from, file) = (self.source()?, self.to.open(&temporary, OpenMode::CreateNew)?);
            file.set_len(self.file_len)?;
            let mut at = 0;
            while at < self.used {
                let bytes = read(&*from, at, self.used)?;
                if bytes.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                write_all(&*file, &[&bytes], at)?;
                at += to_u64(bytes.len());
            }
            if !planted::is(Bug::ArchivedNotSynced) {
                file.sync_data()?;
            }
            if !planted::is(Bug::ArchivedNotCompared)
                && !self.is_same(&*self.to.open(&temporary, OpenMode::Read)?)?
            {
                let text =
                    "the copy is not what was written; the segment was left where it is: check the disk";
                return Err(io::Error::other(text));
            }
            self.to.rename(&temporary, name)?;
            self.to.sync_dir(folder)
        };
        write().inspect_err(|_| remove(self.to, &temporary))
    }

    fn source(&self) -> io::Result<Arc<dyn StorageFile>> {
        self.from.0.open(self.from.1, OpenMode::Read)
    }

    fn is_same(&self, copy: &dyn StorageFile) -> io::Result<bool> {
        let (from, mut at) = (self.source()?, 0);
        if copy.len()? != self.file_len {
            return Ok(false);
        }
        while at < self.used {
            let (one, other) = (read(&*from, at, self.used)?, read(copy, at, self.used)?);
            if one != other || one.is_empty() {
                return Ok(false);
            }
            at += to_u64(one.len());
        }
        Ok(true)
    }
}

/// Chain before and after the blocks of a segment, each verified.
fn verified(
    dir: &Arc<SegmentDir>,
    first: Lsn,
    end: Lsn,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Chain, Chain)> {
    let mut cursor = Cursor::new(dir, &dir.open(first)?);
    let (mut at, mut before, mut chain, mut told) = (first, None, None, first);
    while at < end {
        if at.since(told) >= to_u64(STEP) {
            step(at.since(told))?;
            told = at;
        }
        match cursor.block(at, chain)? {
            Found::Block(block, _) if block.header().end() <= end => {
                before.get_or_insert(block.header().chain);
                (at, chain) = (block.header().end(), Some(block.chain_after()));
            }
            Found::Block(..) => {
                return Err(cursor.corrupt(at, "a block reaches beyond the end of its segment"));
            }
            Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
        }
    }
    before
        .zip(chain)
        .ok_or_else(|| Error::internal("a sealed segment without a block").at_lsn(first))
}

fn write_stub(dir: &SegmentDir, stub: &Stub, rng: &dyn Rng) -> io::Result<()> {
    let (storage, name) = (&**dir.storage(), away_name(stub.first));
    let temporary = format!("{name}{TEMPORARY}{:016x}", rng.next_u64());
    let write = || -> io::Result<()> {
        let file = storage.open(&temporary, OpenMode::CreateNew)?;
        write_all(&*file, &[&stub.encode()], 0)?;
        file.sync_data()?;
        storage.rename(&temporary, &name)?;
        storage.sync_dir(dir.folder())
    };
    write().inspect_err(|_| remove(storage, &temporary))
}

/// The bytes from `at` on, up to a step of them and not beyond `end`.
fn read(file: &dyn StorageFile, at: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; STEP.min(to_usize(end - at))];
    let read = file.read_at(&mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}
