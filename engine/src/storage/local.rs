//! [`LocalStorage`]: the real twin of [`Storage`], a directory on a local file system.
//!
//! Guarantees: every descriptor is close-on-exec; locks belong to the open file (OFD), so the kernel
//! drops them with the last descriptor or the process; names never leave the directory.
//! Once it was there, the directory is reached by its descriptor: renamed, or with another in its place, it stays
//! the one whose locks are held (E5).
//! Refuses: names with `..`, absolute names, and (through [`Storage::refusal`]) file systems whose
//! locks, mappings or syncs reach over a network or through another process.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crate::sync::Mutex;

use super::mapping::FileMapping;
use super::sys;
use super::{Cell, LockMode, Mapping, OpenMode, SharedCells, Storage, StorageFile};

/// File systems that are refused, by the number `statfs` gives them, with what to call them.
const REFUSED: [(u64, &str); 13] = [
    (0x6969, "NFS, a network file system"),
    (0x517b, "SMB, a network file system"),
    (0xfe53_4d42, "SMB, a network file system"),
    (0xff53_4d42, "CIFS, a network file system"),
    (0x564c, "NCP, a network file system"),
    (0x0102_1997, "9p, a file system passed through from a host"),
    (0x6573_5546, "FUSE, a file system kept by another process"),
    (0x00c3_6400, "Ceph, a network file system"),
    (0x5346_414f, "AFS, a network file system"),
    (0x7375_7245, "Coda, a network file system"),
    (0x0bd0_0bd0, "Lustre, a network file system"),
    (0x2003_0528, "OrangeFS, a network file system"),
    (0x786f_4256, "vboxsf, a file system passed through from a host"),
];

/// What the owner of a file may do with it, as its mode says.
const OWNERS: u32 = 0o700;
/// What others may.
const OTHERS: u32 = 0o077;

/// A store's directory on a local file system.
#[derive(Clone, Debug)]
pub struct LocalStorage {
    root: PathBuf,
    held: Arc<OnceLock<Held>>,
    /// Folders that files were opened in, open themselves: when a name must be made durable it is too late
    /// to find that there are no descriptors left.
    folders: Arc<Mutex<HashMap<String, Arc<File>>>>,
}

/// The store's directory, open.
#[derive(Debug)]
struct Held {
    /// Leads to it, whatever it is called by now.
    way: PathBuf,
    _folder: File,
}

impl Held {
    /// `None` while it is not there, or where the kernel shows no descriptors as paths.
    fn open(root: &Path) -> Option<Held> {
        let folder = File::open(root).ok()?;
        let way = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        let same = place(fs::metadata(&way).ok()?) == place(folder.metadata().ok()?);
        same.then_some(Held { way, _folder: folder })
    }
}

impl LocalStorage {
    /// Takes the directory; touches nothing. `create_dir("")` makes it, with its parents.
    #[must_use]
    pub fn new(root: PathBuf) -> LocalStorage {
        LocalStorage {
            root,
            held: Arc::default(),
            folders: Arc::default(),
        }
    }

    /// A folder, open.
    fn folder(&self, name: &str) -> io::Result<Arc<File>> {
        if let Some(open) = self.folders.lock().get(name) {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(File::open(self.place(name)?)?);
        self.folders.lock().insert(name.to_owned(), Arc::clone(&open));
        Ok(open)
    }

    /// The store's directory: from its first use on always the same one.
    fn base(&self) -> &Path {
        if self.held.get().is_none()
            && let Some(held) = Held::open(&self.root)
        {
            // Another thread may have been faster.
            let _ = self.held.set(held);
        }
        self.held.get().map_or(&self.root, |held| &held.way)
    }

    /// Where a name of the store lies.
    fn place(&self, name: &str) -> io::Result<PathBuf> {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            let text = format!("the name {name:?} leads out of the store's directory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(if name.is_empty() {
            self.base().to_path_buf()
        } else {
            self.base().join(name)
        })
    }
}

/// True when one of two places lies within the other or is the other, links resolved. Neither has to be
/// there yet.
///
/// # Errors
/// Those of the file system; `InvalidInput` for a part that is not there yet and goes upwards.
pub fn overlap(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (resolved(one)?, resolved(other)?);
    Ok(one.starts_with(&other) || other.starts_with(&one))
}

fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        match fs::canonicalize(there) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) => {
                let missing = path.strip_prefix(there).unwrap_or(&path);
                if missing.components().any(|part| part == Component::ParentDir) {
                    let text = format!("{} leads through a folder that is not there", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
                return Ok(if missing.as_os_str().is_empty() {
                    found
                } else {
                    found.join(missing)
                });
            }
        }
    }
    Ok(path)
}

/// Makes the root and its missing parents, each durable in the folder above it: a store that was made
/// must not vanish with its name.
fn make_root(root: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = root.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(root)?;
    for folder in missing {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

impl Storage for LocalStorage {
    fn root(&self) -> &Path {
        &self.root
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        if folder.is_empty() {
            return make_root(&self.root);
        }
        let place = self.place(folder)?;
        // Another of this name may be open, which was removed since.
        self.folders.lock().remove(folder);
        match fs::create_dir(&place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && place.is_dir() => Ok(()),
            other => other,
        }
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::OpenOrCreate => options.write(true).create(true).truncate(false),
        };
        let file = options.open(self.place(name)?)?;
        if mode != OpenMode::Read {
            self.folder(name.rsplit_once('/').map_or("", |(folder, _)| folder))?;
        }
        Ok(Arc::new(LocalFile { file: Arc::new(file) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.place(from)?, self.place(to)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.place(name)?)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.place(folder)?)? {
            // A name that is not UTF-8 is none of ours, and nothing here could ask for it.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.folder(folder)?.sync_all()
    }

    fn make_private(&self, name: &str) -> io::Result<()> {
        let place = self.place(name)?;
        let own = fs::metadata(&place)?.mode() & OWNERS;
        fs::set_permissions(place, fs::Permissions::from_mode(own))
    }

    fn is_private(&self, name: &str) -> io::Result<bool> {
        Ok(fs::metadata(self.place(name)?)?.mode() & OTHERS == 0)
    }

    fn cells(&self, name: &str, fresh: bool) -> io::Result<Arc<dyn SharedCells>> {
        let place = self.place(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if fresh {
            match fs::remove_file(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => options.create_new(true),
            };
        }
        let file = options.open(place)?;
        if fresh {
            // Blocks are reserved and the page is written, so that a full disk is an error here and
            // not a signal at the first store into the mapping.
            sys::allocate(&file, 0, len_of_page())?;
            file.write_all_at(&[0; Cell::PAGE], 0)?;
        }
        if file.metadata()?.len() != len_of_page() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the control page is not 4,096 bytes long",
            ));
        }
        Ok(Arc::new(MappedCells {
            page: sys::ControlPage::map(&file)?,
        }))
    }

    fn disk(&self) -> io::Result<Option<(u64, u64)>> {
        let (_, free, total) = sys::file_system(&File::open(self.place("log")?)?)?;
        Ok(Some((free, total)))
    }

    fn instance(&self) -> io::Result<Option<u32>> {
        // Written once and never replaced: a copy of it has another inode, or was born at another time.
        let facts = fs::metadata(self.place("store")?)?;
        let born = facts.created().ok();
        let born = born.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let mut bytes = facts.ino().to_le_bytes().to_vec();
        bytes.extend_from_slice(&born.unwrap_or_default().as_nanos().to_le_bytes());
        Ok(Some(crc32fast::hash(&bytes).max(1)))
    }

    fn beside(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(LocalStorage::new(path.to_path_buf())))
    }

    fn refusal(&self) -> io::Result<Option<String>> {
        // A folder of the store may be a link to somewhere else.
        for folder in ["", "log", "queue"] {
            let open = match File::open(self.place(folder)?) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => continue,
                open => open?,
            };
            let (magic, ..) = sys::file_system(&open)?;
            if let Some((_, name)) = REFUSED.iter().find(|(number, _)| *number == magic) {
                return Ok(Some(format!(
                    "{} lies on {name}",
                    self.root.join(folder).display()
                )));
            }
        }
        Ok(None)
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }

    fn boot_id(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    }
}

/// An open file of the store.
struct LocalFile {
    file: Arc<File>,
}

impl StorageFile for LocalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + crate::width::to_u64(done)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<usize> {
        sys::write_pieces(&self.file, pieces, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let now = self.file.metadata()?.len();
        sys::allocate(&self.file, 0, len.max(now))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        sys::release(&self.file, range)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(FileMapping::new(Arc::clone(&self.file))?))
    }

    fn try_lock(&self, at: u64, mode: LockMode) -> io::Result<bool> {
        sys::lock_byte(&self.file, at, Some(mode))
    }

    fn is_locked(&self, at: u64) -> io::Result<bool> {
        sys::is_byte_locked(&self.file, at)
    }

    fn unlock(&self, at: u64) -> io::Result<()> {
        sys::lock_byte(&self.file, at, None).map(|_| ())
    }
}

/// The control page, mapped.
struct MappedCells {
    page: sys::ControlPage,
}

impl SharedCells for MappedCells {
    fn load(&self, cell: Cell) -> u64 {
        self.page.word(cell).load(sys::Ordering::Acquire)
    }

    fn store(&self, cell: Cell, value: u64) {
        self.page.word(cell).store(value, sys::Ordering::Release);
    }

    fn compare_exchange(&self, cell: Cell, current: u64, new: u64) -> Result<u64, u64> {
        self.page
            .word(cell)
            .compare_exchange(current, new, sys::Ordering::AcqRel, sys::Ordering::Acquire)
    }

    fn wait(&self, cell: Cell, seen: u64, limit: Duration) {
        if self.load(cell) == seen {
            self.page.wait(cell, seen, limit);
        }
    }

    fn wake(&self, cell: Cell) {
        self.page.wake(cell);
    }
}

fn len_of_page() -> u64 {
    crate::width::to_u64(Cell::PAGE)
}
