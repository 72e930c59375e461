//! [`BundleWriter`]: a bundle that is being made.
//!
//! ```text
//! .<from>-<to>-<16 hex>.mpb.tmp: room for the header │ records … │ header ─► sync ─► the header in front ─► sync
//!     ─► <from>-<to>-<number>-<8 hex>.mpb, never replacing ─► sync the folder
//! ```
//!
//! A bundle is whole under its name, or it is not there. What a killed export leaves has the temporary name, is no bundle
//! (it begins with zeros), and goes with the next export to that folder. Nothing that exists is ever replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use milepost_engine::clock::Rng;
use milepost_engine::width::to_u64;
use milepost_engine::{Error, Result, SiteName};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::layout::{HEADER_LEN, Head, Header};

const TEMPORARY: &str = ".mpb.tmp";
/// What names of bundles end with.
pub const WHOLE: &str = ".mpb";

/// A bundle that is being made. Dropped before it is finished it leaves nothing.
#[derive(Debug)]
pub struct BundleWriter {
    file: File,
    folder: PathBuf,
    temporary: PathBuf,
    id: u128,
    len: u64,
    count: u32,
    heads: crc32fast::Hasher,
    /// The file was given its name, or removed.
    settled: bool,
}

impl BundleWriter {
    /// Begins a bundle in a folder that exists.
    ///
    /// # Errors
    /// `Full` without space, else `Internal`, with the path.
    pub fn begin(folder: &Path, from: &SiteName, to: &SiteName, rng: &dyn Rng) -> Result<BundleWriter> {
        let name = format!(".{from}-{to}-{:016x}{TEMPORARY}", rng.next_u64());
        let temporary = folder.join(name);
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary);
        let file = made.map_err(|error| failed("make", &temporary, error))?;
        let mut writer = BundleWriter {
            file,
            folder: folder.to_owned(),
            temporary,
            id: u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()),
            len: 0,
            count: 0,
            heads: crc32fast::Hasher::new(),
            settled: false,
        };
        writer
            .write(&[0; HEADER_LEN])
            .map_err(|error| failed("write", &writer.temporary, error))?;
        Ok(writer)
    }

    /// Length of the file, were it finished now.
    #[must_use]
    pub fn finished_len(&self) -> u64 {
        self.len + to_u64(HEADER_LEN)
    }

    /// Length of the file, were it finished with a message of this length.
    #[must_use]
    pub fn len_with(&self, message: usize) -> u64 {
        self.finished_len() + to_u64(super::layout::HEAD_LEN) + to_u64(message).next_multiple_of(8)
    }

    /// Where it is until it is finished.
    #[must_use]
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Messages so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Appends a message.
    ///
    /// # Errors
    /// Those of the file; the bundle cannot be finished then.
    pub fn append(&mut self, message: &[u8]) -> io::Result<()> {
        let head = Head::of(self.count, message).ok_or(io::ErrorKind::InvalidInput)?;
        let count = self.count.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        let bytes = head.encode(self.id);
        self.write(&bytes)?;
        self.write(message)?;
        let padding = message.len().next_multiple_of(8) - message.len();
        self.write([0; 8].get(..padding).unwrap_or_default())?;
        self.heads.update(&bytes);
        self.count = count;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += to_u64(bytes.len());
        Ok(())
    }

    /// Finishes the bundle: its header as it is now, and where it is. Without `to` it gets a name of its own in the folder.
    ///
    /// # Errors
    /// `Full`, `Invalid` when there is a file of that name, else `Internal`; nothing is left then.
    pub fn finish(mut self, mut header: Header, to: Option<&Path>) -> Result<(Header, PathBuf)> {
        header.id = self.id;
        header.bytes = self.finished_len();
        header.count = self.count;
        header.heads_crc = self.heads.clone().finalize();
        let bytes = header.encode();
        let temporary = self.temporary.clone();
        let written = self.write(&bytes).and_then(|()| {
            // The front one last, over synced records: what begins with a header is whole.
            self.file.sync_all()?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&bytes)?;
            self.file.sync_all()
        });
        written.map_err(|error| failed("write", &temporary, error))?;
        let path = match to {
            Some(path) => path.to_owned(),
            None => self.folder.join(file_name(&header)),
        };
        publish(&temporary, &path)?;
        self.settled = true;
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(|error| failed("sync", &self.folder, error))?;
        Ok((header, path))
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        if !self.settled {
            // Whoever dropped it has an error to tell that says more; what stays goes with the next export.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// The name of a finished bundle: for people, and never read.
fn file_name(header: &Header) -> String {
    let id = format!("{:032x}", header.id);
    let short = id.get(..8).unwrap_or_default();
    let Header { from, to, number, .. } = header;
    format!("{from}-{to}-{number:06}-{short}{WHOLE}")
}

/// Gives the temporary file its name, never replacing.
pub(crate) fn publish(temporary: &Path, path: &Path) -> Result<()> {
    let taken = || {
        Error::invalid("there is a file of that name already; it is left as it is, choose another name")
            .at_path(path)
    };
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(taken()),
        // FAT, as sticks have it, knows neither such a rename nor a second name: the name is taken by making it, and then
        // replaced by the whole file. Only an empty file that we made is ever replaced.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(_) => std::fs::rename(temporary, path).map_err(|error| failed("name", path, error)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken()),
                Err(error) => Err(failed("make", path, error)),
            }
        }
        Err(error) => Err(failed("name", path, error.into())),
    }
}

/// Removes what killed exports from `from` to `to` left in a folder; the send lock is held, so nobody is at it.
///
/// # Errors
/// `Internal` with the path.
pub fn remove_left_over(folder: &Path, from: &SiteName, to: &SiteName) -> Result<usize> {
    let begins = format!(".{from}-{to}-");
    let hex = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = std::fs::read_dir(folder).map_err(|error| failed("list", folder, error))?;
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(|error| failed("list", folder, error))?;
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(TEMPORARY));
        if stem.and_then(|stem| stem.strip_prefix(&begins)).is_some_and(hex) {
            std::fs::remove_file(entry.path()).map_err(|error| failed("remove", &entry.path(), error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The error of a file.
pub(super) fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::io(action, path, error)
}
