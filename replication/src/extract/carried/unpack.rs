//! [`unpack`]: a store of a carried file.
//!
//! ```text
//! all of the file checked ─► .<name>.unpacking/: files, synced ─► opened, verified block by block, closed ─► <name>, never replacing
//! ```
//!
//! A store is whole under its name, or it is not there. What a killed run leaves has the other name, and goes with the next.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use milepost_engine::{Error, Options, Result, SiteName, StoreId};
use rustix::fs::{CWD, FallocateFlags, RenameFlags};
use rustix::io::Errno;

use super::check::{Reader, check};
use super::layout::{Head, Header, Part};
use super::pack::{failed, sync_folder_of};

/// Keeps a second process out of the folder that is being filled.
const LOCK: &str = "lock";

/// A store that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Its site.
    pub site: SiteName,
    /// Its id.
    pub store: StoreId,
    /// Length of the file it was in.
    pub bytes: u64,
    /// When that was made, microseconds since 1970.
    pub made: i64,
}

/// Makes a store in `to`, which is missing or empty, of the carried store in `file`. `tell` is told bytes done and bytes in all.
///
/// # Errors
/// `Invalid` for what is no carried store; `Conflict` when `to` is not empty; `Corrupt` for damage, and then nothing is made; `Unavailable` while
/// another process unpacks there; `Full`; `Internal`.
pub fn unpack(file: &Path, to: &Path, options: &Options, tell: &mut dyn FnMut(u64, u64)) -> Result<Unpacked> {
    refuse_occupied(to)?;
    let header = check(file, tell)?;
    let folder = Folder::begin(to)?;
    fill(file, &folder.path, tell)?;
    verify(&header, file, &folder.path, options, tell)?;
    folder.finish(to)?;
    Ok(Unpacked {
        site: header.site,
        store: header.store,
        bytes: header.bytes,
        made: header.made,
    })
}

fn refuse_occupied(to: &Path) -> Result<()> {
    match fs::read_dir(to) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                let text = "the folder is not empty; unpack to a new folder";
                Err(Error::conflict(text).at_path(to))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("unpack to", to, error)),
    }
}

/// The folder that is being filled. Dropped before it is finished it leaves nothing.
struct Folder {
    path: PathBuf,
    settled: bool,
    lock: File,
}

impl Folder {
    fn begin(to: &Path) -> Result<Folder> {
        let Some(name) = to.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::invalid("a path that ends with the name of a folder is needed").at_path(to));
        };
        let path = to.with_file_name(format!(".{name}.unpacking"));
        let make = || {
            fs::create_dir_all(&path)?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path.join(LOCK))
        };
        let lock = make().map_err(|error| failed("make", &path, error))?;
        if lock.try_lock().is_err() {
            let text = "another process unpacks a store there; wait until it is done";
            return Err(Error::unavailable(text).at_path(&path));
        }
        let folder = Folder {
            path,
            settled: false,
            lock,
        };
        folder.clear()?;
        let log = folder.path.join("log");
        fs::create_dir(&log).map_err(|error| failed("make", &log, error))?;
        Ok(folder)
    }

    /// Removes what a killed run left.
    fn clear(&self) -> Result<()> {
        let entries = fs::read_dir(&self.path).map_err(|error| failed("list", &self.path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", &self.path, error))?;
            if entry.file_name() == LOCK {
                continue;
            }
            let path = entry.path();
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.map_err(|error| failed("remove", &path, error))?;
        }
        Ok(())
    }

    /// Gives it its name.
    fn finish(mut self, to: &Path) -> Result<()> {
        let lock = self.path.join(LOCK);
        fs::remove_file(&lock).map_err(|error| failed("remove", &lock, error))?;
        sync_folder_of(&self.path.join("log").join("x"))?;
        sync_folder_of(&lock)?;
        let named = match rustix::fs::renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
            // An empty folder is replaced by a rename; one that is not empty is refused by the system.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(&self.path, to),
            named => named.map_err(std::io::Error::from),
        };
        named.map_err(|error| failed("name", to, error))?;
        self.settled = true;
        let _ = self.lock.unlock();
        sync_folder_of(to)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.settled {
            // Whoever dropped it has an error to tell that says more; what stays goes with the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes the files, at their lengths and synced.
fn fill(from: &Path, folder: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let mut reader = Reader::open(from)?;
    let total = reader.header().bytes;
    let mut at: Option<(Part, File, PathBuf)> = None;
    loop {
        let done = reader.reached();
        tell(done, total);
        let Some((head, piece)) = reader.next()? else {
            break;
        };
        if at.as_ref().is_none_or(|(part, ..)| *part != head.part) {
            end(at.take())?;
            at = Some(begin(folder, &head)?);
        }
        if let Some((_, file, path)) = &at {
            let written = file.write_all_at(piece, head.offset);
            written.map_err(|error| failed("write", path, error))?;
        }
    }
    if let Some((Part::Segment(_), file, _)) = &at {
        reserve(file);
    }
    end(at)
}

fn begin(folder: &Path, head: &Head) -> Result<(Part, File, PathBuf)> {
    let path = folder.join(head.part.name());
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    let file = made.map_err(|error| failed("make", &path, error))?;
    // Of what nobody wrote nothing takes space but in the segment that the log goes on in.
    let sized = file.set_len(head.whole);
    sized.map_err(|error| failed("make", &path, error))?;
    if matches!(head.part, Part::Segment(_)) {
        reserve(&file);
    }
    Ok((head.part, file, path))
}

/// Space for all of a segment, so that a full disk is told here and not by a later write. Not every file system can.
fn reserve(file: &File) {
    if let Ok(facts) = file.metadata() {
        let _ = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, facts.len());
    }
}

fn end(part: Option<(Part, File, PathBuf)>) -> Result<()> {
    let Some((_, file, path)) = part else {
        return Ok(());
    };
    file.sync_all().map_err(|error| failed("sync", &path, error))
}

/// Checksums of pieces say that the file is as it was made; blocks say that a store was in it, and which.
fn verify(
    header: &Header,
    file: &Path,
    folder: &Path,
    options: &Options,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let store = options.clone().open(folder)?;
    let is_it = store.id() == header.store && *store.site() == header.site;
    let found = store.verify(tell)?;
    store.close()?;
    if is_it && found.damage.is_empty() {
        return Ok(());
    }
    let reason = match found.damage.first() {
        Some(damage) => damage.to_string(),
        None => "it holds another store than it says".to_owned(),
    };
    let text = format!(
        "the carried store is damaged: {reason}; nothing was made of it, make it again where it comes from"
    );
    Err(Error::corrupt(text).at_path(file))
}
