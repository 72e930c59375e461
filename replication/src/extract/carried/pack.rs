//! [`pack`]: a finished store becomes one file.
//!
//! ```text
//! .<name>.making/   the store, as `extract` makes it and goes on with it after a kill
//!     ─► .<name>.tmp: room for the header │ pieces … │ header in front, synced ─► read back ─► <name>.key, 0600 ─► <name>, never replacing
//!     ─► the folder is removed
//! ```
//!
//! Killed anywhere, the same command goes on: it finds the folder, or the file with the folder still beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use milepost_engine::width::{to_u64, to_usize};
use milepost_engine::{Error, ErrorKind, Lsn, Options, Result, SiteName, Store, StoreId};

use crate::bundle::publish;
use crate::catalog::Catalog;
use crate::keys::{KeyLine, PairKeys, keys_of};

use super::super::plan::Plan;
use super::check::check;
use super::layout::{HEADER_LEN, Head, Header, PIECE_LEN, Part, file_len};

/// What the name of a carried store ends with.
pub const SUFFIX: &str = ".mpx";
/// What is added to it for the file with the pair's key.
pub const KEY_SUFFIX: &str = ".key";

/// A store that was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Id of the store.
    pub store: StoreId,
    /// The file with the pair's key, when it has one.
    pub key_file: Option<PathBuf>,
}

/// True for the name of a file to carry, and not of a folder.
#[must_use]
pub fn is_file_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() > SUFFIX.len() && name.ends_with(SUFFIX)) && !path.is_dir()
}

/// The folder beside a file in which its store is made.
///
/// # Errors
/// `Invalid` when the path names no file.
pub fn working_folder(file: &Path) -> Result<PathBuf> {
    beside(file, ".making")
}

fn beside(file: &Path, suffix: &str) -> Result<PathBuf> {
    match file.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(file.with_file_name(format!(".{name}{suffix}"))),
        None => Err(Error::invalid("a path that ends with the name of a file is needed").at_path(file)),
    }
}

/// The store in the working folder, if a former run has finished it: it is only packed then. `source` is the site that it was
/// made of.
///
/// # Errors
/// `Invalid` when there is a file of that name and no folder, which an earlier run made; those of opening the store.
pub(in crate::extract) fn finished(
    options: &Options,
    file: &Path,
    source: &SiteName,
) -> Result<Option<Store>> {
    let folder = working_folder(file)?;
    let there = match options.clone().open(&folder) {
        Err(error) if error.kind() == ErrorKind::NoStore => None,
        there => Some(there?),
    };
    match there {
        None if file.symlink_metadata().is_ok() => {
            let text = "there is a file of that name already; it is left as it is, choose another name";
            Err(Error::invalid(text).at_path(file))
        }
        None => Ok(None),
        Some(there) => {
            let knows = Catalog::load(&there)?.remote(source).is_some();
            Ok((knows && Plan::of(&there)?.is_none()).then_some(there))
        }
    }
}

/// Makes the file of a finished store in its working folder, which goes.
///
/// # Errors
/// `Full`; `Invalid` when another file has the name; `Conflict` when the folder holds what cannot be carried; `Corrupt` when what was written
/// reads otherwise; `Internal`. Run it again.
pub fn pack(made: Store, source: &SiteName, file: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<Packed> {
    let folder = made.root().to_owned();
    let header = Header {
        store: made.id(),
        site: made.site().clone(),
        bytes: 0,
        count: 0,
        heads_crc: 0,
        made: made.clock().wall_micros(),
    };
    let key = key_line(&made, source)?;
    // A clean close says where the log ends.
    made.close()?;
    let parts = parts_of(&folder)?;
    let packed_before = match file.symlink_metadata() {
        Ok(_) => check(file, tell)?.store == header.store,
        Err(_) => false,
    };
    let key_file = key.map(|key| write_key(file, &key)).transpose()?;
    if !packed_before {
        let temporary = beside(file, ".tmp")?;
        write(&folder, &parts, header.clone(), &temporary, tell)?;
        check(&temporary, tell)?;
        publish(&temporary, file)?;
        sync_folder_of(file)?;
    }
    let bytes = fs::metadata(file)
        .map_err(|error| failed("look at", file, error))?
        .len();
    fs::remove_dir_all(&folder).map_err(|error| failed("remove", &folder, error))?;
    Ok(Packed {
        file: file.to_owned(),
        bytes,
        store: header.store,
        key_file,
    })
}

/// The pair's key as the line that `milepost key add` reads.
fn key_line(made: &Store, source: &SiteName) -> Result<Option<KeyLine>> {
    let PairKeys::Sealed { ring, .. } = keys_of(made, source)? else {
        return Ok(None);
    };
    Ok(ring.keys().first().map(|one| KeyLine {
        sites: (source.clone(), made.site().clone()),
        key: one.key.again(),
    }))
}

/// Written before the store's own file has its name: who has that has the key too.
fn write_key(file: &Path, key: &KeyLine) -> Result<PathBuf> {
    let mut name = file.as_os_str().to_owned();
    name.push(KEY_SUFFIX);
    let path = PathBuf::from(name);
    let options = || {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        options
    };
    let made = match options().create_new(true).open(&path) {
        // Of a run that was killed. Another one's is never written over.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let known = fs::read(&path).map_err(|error| failed("read", &path, error))?;
            let line = key.text();
            if !line.as_bytes().starts_with(known.trim_ascii_end()) {
                let text = "there is another key in the file that was to get this one; move it away, then run this again";
                return Err(Error::conflict(text).at_path(&path));
            }
            options().truncate(true).open(&path)
        }
        made => made,
    };
    let mut made = made.map_err(|error| failed("make", &path, error))?;
    let written = made
        .write_all(key.text().as_bytes())
        .and_then(|()| made.write_all(b"\n"))
        .and_then(|()| made.sync_all());
    written.map_err(|error| failed("write", &path, error))?;
    sync_folder_of(&path)?;
    Ok(path)
}

/// The files that are carried, in order.
fn parts_of(folder: &Path) -> Result<Vec<Part>> {
    let log = folder.join("log");
    let entries = fs::read_dir(&log).map_err(|error| failed("list", &log, error))?;
    let mut parts = vec![Part::Store];
    for entry in entries {
        let name = entry.map_err(|error| failed("list", &log, error))?.file_name();
        let name = name.to_string_lossy();
        match part_of(&name) {
            Some(Some(part)) => parts.push(part),
            Some(None) => {}
            None => {
                let text = format!("log/{name} cannot be carried in a file; carry the folder instead");
                return Err(Error::conflict(text).at_path(folder));
            }
        }
    }
    parts.sort_unstable();
    Ok(parts)
}

/// What a file of the log is: `Some(None)` for one that is derived or a spare, `None` for one that a new store has not.
fn part_of(name: &str) -> Option<Option<Part>> {
    if let Some(hex) = name.strip_suffix(".log").filter(|hex| hex.len() == 16) {
        return u64::from_str_radix(hex, 16)
            .ok()
            .map(|first| Some(Part::Segment(Lsn(first))));
    }
    match name {
        "newest" => Some(Some(Part::Newest)),
        "closed" => Some(Some(Part::Closed)),
        _ if name.ends_with(".idx") || name.starts_with("spare-") => Some(None),
        // A second copy of what is in place, after a clean close.
        "rescue" => Some(None),
        _ => None,
    }
}

/// A file that is being written.
struct Writer {
    out: File,
    /// Bytes behind the header.
    behind: u64,
    count: u32,
    heads: crc32fast::Hasher,
}

impl Writer {
    /// Writes one piece, without the zeros behind it; none for zeros alone, but for the first of a file.
    fn piece(&mut self, part: Part, (whole, offset): (u64, u64), bytes: &[u8]) -> io::Result<()> {
        // What nobody wrote is zeros, and a file has them by its length.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if used == 0 && offset > 0 {
            return Ok(());
        }
        let said = bytes.get(..used).unwrap_or_default();
        let head = Head {
            part,
            whole,
            offset,
            len: u32::try_from(used).unwrap_or_default(),
            crc: crc32fast::hash(said),
        };
        let bytes = head.encode();
        self.heads.update(&bytes);
        let padding = [0; 8];
        let padding = padding.get(..used.next_multiple_of(8) - used).unwrap_or_default();
        for bytes in [bytes.as_slice(), said, padding] {
            self.out.write_all(bytes)?;
        }
        self.behind += to_u64(bytes.len()) + head.padded();
        self.count += 1;
        Ok(())
    }

    /// The header last, over synced pieces: what begins with one is whole.
    fn end(mut self, mut header: Header) -> io::Result<()> {
        header.count = self.count;
        header.bytes = file_len(self.behind);
        header.heads_crc = self.heads.finalize();
        self.out.sync_all()?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header.encode())?;
        self.out.sync_all()
    }
}

/// Writes the file under its temporary name, synced.
fn write(
    folder: &Path,
    parts: &[Part],
    header: Header,
    temporary: &Path,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let at_temporary = |error| failed("write", temporary, error);
    let begun = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(temporary)
        .and_then(|mut out| out.write_all(&[0; HEADER_LEN]).map(|()| out));
    let mut writer = Writer {
        out: begun.map_err(at_temporary)?,
        behind: 0,
        count: 0,
        heads: crc32fast::Hasher::new(),
    };
    let lengths = parts.iter().map(|part| {
        let path = folder.join(part.name());
        let facts = fs::metadata(&path);
        facts
            .map(|facts| facts.len())
            .map_err(|error| failed("look at", &path, error))
    });
    let (total, mut done, mut room) = (lengths.sum::<Result<u64>>()?, 0, vec![0; PIECE_LEN]);
    for part in parts {
        let path = folder.join(part.name());
        let at_part = |error| failed("read", &path, error);
        let mut file = File::open(&path).map_err(at_part)?;
        let whole = file.metadata().map_err(at_part)?.len();
        let mut offset = 0;
        while offset < whole {
            let len = (whole - offset).min(to_u64(PIECE_LEN));
            let piece = room.get_mut(..to_usize(len)).unwrap_or_default();
            file.read_exact(piece).map_err(at_part)?;
            writer
                .piece(*part, (whole, offset), piece)
                .map_err(at_temporary)?;
            (offset, done) = (offset + len, done + len);
            tell(done, total);
        }
    }
    writer.end(header).map_err(at_temporary)
}

/// A name is durable with its folder.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| failed("sync", folder, error))
}

pub(super) fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::io(action, path, error)
}
