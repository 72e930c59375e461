//! Archived segments: sealed ones that lie in a second directory. A stub in the folder of the log says so, because a
//! folder without it would be a shorter log (E3).
//!
//! ```text
//! STORE/log/<16 hex>.away ─► ARCHIVE/log/<16 hex>.log or .mpz        ARCHIVE/archive: whose it is
//!
//! stub     "MPAWAYS1" 8 | version 4 | form 4: 1 raw, 2 packed | store id 16 | first LSN 8 | end LSN 8
//!          chain before 8 | chain after 8 | length of the raw file 8 | length of the file there 8 | reserved 4 | CRC-32 4
//! archive  "MPARCHIV" 8 | version 4 | reserved 4 | store id 16 | instance 4 | CRC-32 4
//! ```
//!
//! Guarantees: what cannot be reached is `Unavailable`, with the directory and what to do; what is not what the stub
//! says is `Corrupt`. The mark names the very directory of the store, not its id alone: a copy of the store reads there,
//! and neither writes nor removes anything. What opening a store asks of every segment, its length and the chain before it, the stub answers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{BlockKind, Owner};
use crate::storage::{OpenMode, Storage, StorageFile};
use crate::{Chain, Error, Lsn, Result, Space, StoreId};

use super::form::{Form, packed_name, segment_name};

const STUB_MAGIC: [u8; 8] = *b"MPAWAYS1";
const ARCHIVE_MAGIC: [u8; 8] = *b"MPARCHIV";
const VERSION: u32 = 1;
const STUB_LEN: usize = 88;
const ARCHIVE_LEN: usize = 40;
/// File of an archive that says whose it is.
pub(crate) const ARCHIVE_FILE: &str = "archive";
const ARCHIVE_NEW: &str = "archive.new";

/// What a stub says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stub {
    /// Form of the file in the archive.
    pub form: Form,
    pub store: StoreId,
    pub first: Lsn,
    /// First LSN of the next segment.
    pub end: Lsn,
    pub chain_before: Chain,
    pub chain_after: Chain,
    /// Length of the segment's raw file.
    pub raw_file_len: u64,
    /// Length of the file in the archive.
    pub file_len: u64,
}

impl Stub {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = STUB_MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let form: u32 = if self.form == Form::Raw { 1 } else { 2 };
        bytes.extend_from_slice(&form.to_le_bytes());
        bytes.extend_from_slice(&self.store.0.to_le_bytes());
        let words = [
            self.first.0,
            self.end.0,
            self.chain_before.0,
            self.chain_after.0,
            self.raw_file_len,
            self.file_len,
        ];
        words
            .iter()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        sealed(bytes, STUB_LEN)
    }

    /// Reads the stub of the segment of `store` that begins at `first`.
    pub(crate) fn decode(bytes: &[u8], store: StoreId, first: Lsn) -> Option<Stub> {
        let mut words = opened(bytes, STUB_MAGIC, STUB_LEN)?;
        let form = match u32::from_le_bytes(take(&mut words)?) {
            1 => Form::Raw,
            2 => Form::Packed,
            _ => return None,
        };
        let id = StoreId(u128::from_le_bytes(take(&mut words)?));
        let mut word = || take(&mut words).map(u64::from_le_bytes);
        let stub = Stub {
            form,
            store: id,
            first: Lsn(word()?),
            end: Lsn(word()?),
            chain_before: Chain(word()?),
            chain_after: Chain(word()?),
            raw_file_len: word()?,
            file_len: word()?,
        };
        let sound = stub.first < stub.end && stub.end.since(stub.first) <= stub.raw_file_len;
        (sound && id == store && stub.first == first).then_some(stub)
    }
}

fn sealed(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len - 4, 0);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What stands behind magic and version, when the checksum matches.
fn opened(bytes: &[u8], magic: [u8; 8], len: usize) -> Option<&[u8]> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    let mut rest = covered;
    let whole = bytes.len() == len && *crc == crc32fast::hash(covered).to_le_bytes();
    let known = take(&mut rest) == Some(magic) && take(&mut rest).map(u32::from_le_bytes) == Some(VERSION);
    (whole && known).then_some(rest)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

/// The archive that a store's settings name, there and its own.
///
/// # Errors
/// `Unavailable` when there is none, it cannot be reached, or it is another store's.
pub(crate) fn archive(storage: &dyn Storage, owner: Owner, at: Lsn) -> Result<Arc<dyn Storage>> {
    let space = Space::read(storage, owner).map_err(|error| {
        let text =
            "this segment was moved to an archive, and the settings that say where that is cannot be read";
        Error::unavailable(text)
            .at_path(storage.root())
            .at_lsn(at)
            .caused_by(error)
    })?;
    let Some(path) = space.archive else {
        let text = "this segment was moved to an archive, and the store's settings name none; say where it is with \
                    `milepost archive` and --to";
        return Err(Error::unavailable(text).at_path(storage.root()).at_lsn(at));
    };
    open_archive(storage, owner, &path).map_err(|error| error.at_lsn(at))
}

/// What to do where the archive has a file of the segment that begins at `first` and nothing here says so; nothing
/// where it has none, or is not there.
pub(crate) fn hint(storage: &dyn Storage, owner: Owner, first: Lsn) -> String {
    let here = |name: String| {
        let archive = archive(storage, owner, first).ok()?;
        archive.open(&name, OpenMode::Read).ok()?;
        Some(format!(
            "; the archive has a file of this segment: copy {} to {}",
            archive.root().join(&name).display(),
            storage.root().join("log").display()
        ))
    };
    let names = [segment_name(BlockKind::Log, first), packed_name(first)];
    names.into_iter().find_map(here).unwrap_or_default()
}

/// The archive in `path`, there and this store's.
pub(crate) fn open_archive(storage: &dyn Storage, owner: Owner, path: &Path) -> Result<Arc<dyn Storage>> {
    let refused = |text: &str| Error::unavailable(text).at_path(path);
    let there = storage.beside(path).and_then(|archive| {
        let bytes = read_mark(&*archive)?;
        Ok((archive, bytes))
    });
    let (archive, mark) = match there {
        Ok((archive, bytes)) => (archive, Mark::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if has_segments(storage, path) {
                return Err(bad_mark(path, "missing"));
            }
            return Err(refused(
                "the archive of the log is not there: mount it and try again",
            ));
        }
        Err(error) => {
            return Err(
                refused("the archive of the log cannot be read: mend that and try again").caused_by(error),
            );
        }
    };
    match mark {
        Some(mark) if mark.store == owner.id => Ok(archive),
        Some(_) => Err(refused(
            "this is the archive of another store: mount the right one and try again",
        )),
        None => Err(bad_mark(path, "damaged, or of a newer program")),
    }
}

/// The archive is there, and what names its owner is not whole. It is no [`crate::ErrorKind::Corrupt`]: no segment is
/// damaged by it, and a repair must not take those there for lost ones.
fn bad_mark(path: &Path, how: &str) -> Error {
    let text = format!(
        "the archive of the log is there, but the file that says whose it is is {how}, so nothing there is read; no segment is \
         lost by it. Unless a newer program wrote it: remove that file if it is there, then `milepost archive` with --to {} \
         and --take-over writes it anew",
        path.display()
    );
    Error::unavailable(text).at_path(path.join(ARCHIVE_FILE))
}

/// True for a folder in which segments lie, which the place where a disk is mounted does not have without it.
fn has_segments(storage: &dyn Storage, path: &Path) -> bool {
    let names = storage.beside(path).and_then(|archive| archive.list("log"));
    names.is_ok_and(|names| !names.is_empty())
}

/// What is wrong with the mark of the archive that a store's settings name, if it is there and not whole.
pub(crate) fn mark_damage(storage: &dyn Storage, owner: Owner) -> Option<Error> {
    let path = Space::read(storage, owner).ok()?.archive?;
    let error = open_archive(storage, owner, &path).err()?;
    let of_mark = error.path() == Some(&path.join(ARCHIVE_FILE));
    of_mark.then_some(error)
}

/// Whether this very store moves segments to the archive and from it, and not a copy of it.
pub(crate) fn is_ours(storage: &dyn Storage, archive: &dyn Storage) -> Result<bool> {
    let failed = |error| Error::io("read whose archive this is", archive.root(), error);
    let mark = Mark::decode(&read_mark(archive).map_err(failed)?);
    let here = storage.instance().map_err(failed)?;
    // Nobody knows of an archive that was made where no instance is told.
    Ok(mark.is_some_and(|mark| mark.instance == 0 || here.is_none_or(|here| here == mark.instance)))
}

/// Refuses an archive that another copy of this store uses.
pub(crate) fn refuse_others(storage: &dyn Storage, archive: &dyn Storage) -> Result<()> {
    if is_ours(storage, archive)? {
        return Ok(());
    }
    let text = "this archive is that of another copy of this store, or of this one before it was copied to another disk; \
                nothing was changed there. While the other is used: `milepost archive` and --back brings the segments here \
                and leaves them there, too. When it is gone: `milepost archive` with --to and --take-over";
    Err(Error::conflict(text).at_path(archive.root()))
}

fn read_mark(archive: &dyn Storage) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; ARCHIVE_LEN + 1];
    let read = archive
        .open(ARCHIVE_FILE, OpenMode::Read)?
        .read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// What the file of an archive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    store: StoreId,
    /// [`Storage::instance`] of the store that moves segments there; 0 when that is not known.
    instance: u32,
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = ARCHIVE_MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.store.0.to_le_bytes());
        bytes.extend_from_slice(&self.instance.to_le_bytes());
        sealed(bytes, ARCHIVE_LEN)
    }

    fn decode(bytes: &[u8]) -> Option<Mark> {
        let mut rest = opened(bytes, ARCHIVE_MAGIC, ARCHIVE_LEN)?;
        take::<4>(&mut rest)?;
        Some(Mark {
            store: StoreId(take(&mut rest).map(u128::from_le_bytes)?),
            instance: take(&mut rest).map(u32::from_le_bytes)?,
        })
    }

    /// Puts it in place, durably.
    fn write(&self, archive: &dyn Storage) -> io::Result<()> {
        let file = archive.open(ARCHIVE_NEW, OpenMode::OpenOrCreate)?;
        file.set_len(0)?;
        crate::storage::write_all(&*file, &[&self.encode()], 0)?;
        file.sync_data()?;
        archive.rename(ARCHIVE_NEW, ARCHIVE_FILE)?;
        archive.sync_dir("")
    }
}

/// Makes the archive in `path` this store's, or finds that it is; `take_over` makes one its own that another copy of
/// this store used.
pub(crate) fn make_archive(
    storage: &dyn Storage,
    owner: Owner,
    path: &Path,
    take_over: bool,
) -> Result<Arc<dyn Storage>> {
    let failed = |error| Error::io("make an archive", path, error);
    let archive = storage.beside(path).map_err(failed)?;
    archive.create_dir("").map_err(failed)?;
    if let Some(reason) = archive.refusal().map_err(failed)? {
        let text = format!(
            "{reason}; locks and syncs are not reliable there: choose a folder of a local file system"
        );
        return Err(Error::invalid(text).at_path(path));
    }
    let names = archive.list("").map_err(failed)?;
    let mark = Mark {
        store: owner.id,
        instance: storage.instance().map_err(failed)?.unwrap_or(0),
    };
    if names.iter().any(|name| name == ARCHIVE_FILE) {
        let archive = open_archive(storage, owner, path)?;
        if !take_over {
            refuse_others(storage, &*archive)?;
        }
        if Mark::decode(&read_mark(&*archive).map_err(failed)?) != Some(mark) {
            mark.write(&*archive).map_err(failed)?;
        }
        // Who made it may have died, and power lost may have kept the file and not the folder.
        let made = archive.create_dir("log").and_then(|()| archive.sync_dir(""));
        return made.map_err(failed).map(|()| archive);
    }
    if !take_over && has_segments(storage, path) {
        let text = "the folder holds segments and does not say whose: choose another folder; or, if they are this store's \
                    (its archive lost the file `archive`), run `milepost archive` with --to and --take-over";
        return Err(Error::conflict(text).at_path(path));
    }
    if let Some(foreign) = names
        .iter()
        .find(|name| !["log", ARCHIVE_NEW].contains(&name.as_str()))
    {
        let text = format!("the folder holds {foreign:?} and is no archive; choose another folder");
        return Err(Error::conflict(text).at_path(path));
    }
    let make = || -> io::Result<()> {
        archive.create_dir("log")?;
        archive.sync_dir("")?;
        mark.write(&*archive)
    };
    make().map_err(failed)?;
    Ok(archive)
}

/// Reads a stub; `None` when there is none of that name.
pub(crate) fn read_stub(
    storage: &dyn Storage,
    name: &str,
    store: StoreId,
    first: Lsn,
) -> Result<Option<Stub>> {
    let path = storage.root().join(name);
    let mut bytes = vec![0; STUB_LEN + 1];
    let read = match storage.open(name, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.and_then(|file| file.read_at(&mut bytes, 0)),
    };
    let read = read.map_err(|error| Error::io("read where a segment is", &path, error).at_lsn(first))?;
    bytes.truncate(read);
    Stub::decode(&bytes, store, first).map(Some).ok_or_else(|| {
        let text = "the file that says that this segment is in the archive is damaged: bring the segment back by hand, \
                    from the archive's folder log to the store's, and remove this file";
        Error::corrupt(text).at_path(path).at_lsn(first)
    })
}

/// The file of a segment in its archive, as long as its stub says.
pub(crate) fn open_file(archive: &dyn Storage, name: &str, stub: &Stub) -> Result<Arc<dyn StorageFile>> {
    let path: PathBuf = archive.root().join(name);
    let missing = || {
        Error::corrupt("this segment of the log is missing in the archive; put it back or restore a backup")
    };
    let file = match archive.open(name, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
        opened => opened.map_err(|error| Error::io("open an archived segment", &path, error)),
    };
    let named = |error: Error| error.at_path(&path).at_lsn(stub.first);
    let file = file.map_err(named)?;
    let len = file
        .len()
        .map_err(|error| Error::io("open an archived segment", &path, error));
    let len = len.map_err(named)?;
    if len != stub.file_len {
        let text = format!(
            "this archived segment has {len} bytes and should have {}; put the right file in its place or restore a \
             backup",
            stub.file_len
        );
        return Err(named(Error::corrupt(text)));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{assert_laid_out, kept};

    #[test]
    fn a_stub_reads_as_it_was_written_and_every_changed_bit_and_cut_is_seen() {
        let stub = Stub {
            form: Form::Packed,
            store: StoreId(5),
            first: Lsn(64),
            end: Lsn(900),
            chain_before: Chain(3),
            chain_after: Chain(4),
            raw_file_len: 1 << 20,
            file_len: 333,
        };
        let bytes = stub.encode();
        assert_eq!(bytes.len(), STUB_LEN);
        assert_eq!(kept("away", &bytes), bytes);
        // docs/format.md, "Archive".
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPAWAYS1"),
            (8, &1u32.to_le_bytes()),
            (12, &2u32.to_le_bytes()),
            (16, &5u128.to_le_bytes()),
            (32, &64u64.to_le_bytes()),
            (40, &900u64.to_le_bytes()),
            (48, &3u64.to_le_bytes()),
            (56, &4u64.to_le_bytes()),
            (64, &(1u64 << 20).to_le_bytes()),
            (72, &333u64.to_le_bytes()),
            (80, &[0; 4]),
            (84, &crc32fast::hash(&bytes[..84]).to_le_bytes()),
        ];
        assert_laid_out("away", &bytes, fields);
        assert_eq!(Stub::decode(&bytes, StoreId(5), Lsn(64)), Some(stub));
        assert_eq!(Stub::decode(&bytes, StoreId(6), Lsn(64)), None);
        assert_eq!(Stub::decode(&bytes, StoreId(5), Lsn(72)), None);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stub::decode(&changed, StoreId(5), Lsn(64)), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Stub::decode(&bytes[..len], StoreId(5), Lsn(64)), None);
        }
    }

    #[test]
    fn the_mark_of_an_archive_reads_as_it_was_written_and_every_changed_bit_and_cut_is_seen() {
        let mark = Mark {
            store: StoreId(5),
            instance: 0x1234_5678,
        };
        let bytes = mark.encode();
        assert_eq!(bytes.len(), ARCHIVE_LEN);
        assert_eq!(kept("archive", &bytes), bytes);
        // docs/format.md, "Archive".
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPARCHIV"),
            (8, &1u32.to_le_bytes()),
            (12, &[0; 4]),
            (16, &5u128.to_le_bytes()),
            (32, &0x1234_5678_u32.to_le_bytes()),
            (36, &crc32fast::hash(&bytes[..36]).to_le_bytes()),
        ];
        assert_laid_out("archive", &bytes, fields);
        assert_eq!(Mark::decode(&bytes), Some(mark));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&changed), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Mark::decode(&bytes[..len]), None);
        }
    }
}
