//! The file operations of a directory link, blocking: one mailbox is one folder `DIR/<site>`.
//!
//! ```text
//! put:   create .x.tmp → write → sync → rename to x.mp, never replacing → sync the folder
//! take:  open x.mp (no symlink, no device, no pipe) → its length → the limit → its bytes
//! ```
//!
//! Everything goes through descriptors of the directory and the folder, and no symlink is followed
//! behind the first, so nothing outside the directory is read, written or removed. A whole name is
//! given only to synced bytes, so no reader sees a part of a message.

use std::collections::{BTreeSet, BinaryHeap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use milepost_engine::SiteName;
use milepost_engine::width::to_u64;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::link::{MAX_MESSAGE_BYTES, MessageId};

use super::name::FileName;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// The directory of a link.
pub(super) struct Root {
    fd: OwnedFd,
}

/// One site's mailbox.
pub(super) struct Folder {
    fd: OwnedFd,
}

/// What came of trying to read a file by its name.
pub(super) enum Taken {
    /// The whole message.
    Message(Vec<u8>),
    /// Somebody removed it since it was listed.
    Gone,
    /// It does not fit what is left of the batch.
    NoRoom,
    /// It is no message: too large, empty, a symlink, a device.
    Unfit(String),
}

impl Root {
    /// Opens the directory. The operator's own path to it may hold symlinks.
    pub(super) fn open(dir: &Path) -> io::Result<Root> {
        Ok(Root {
            fd: rustix::fs::open(dir, DIRECTORY, Mode::empty())?,
        })
    }

    /// A site's mailbox, if there is one.
    pub(super) fn folder(&self, site: &str) -> io::Result<Option<Folder>> {
        match rustix::fs::openat(&self.fd, site, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder { fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A site's mailbox, made if it is missing.
    pub(super) fn folder_or_new(&self, site: &SiteName) -> io::Result<Folder> {
        if let Some(folder) = self.folder(site.as_str())? {
            return Ok(folder);
        }
        match rustix::fs::mkdirat(&self.fd, site.as_str(), Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => rustix::fs::fsync(&self.fd)?,
            Err(error) => return Err(error.into()),
        }
        self.folder(site.as_str())?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Makes the names of all mailboxes durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Names of all mailboxes.
    pub(super) fn sites(&self) -> io::Result<Vec<SiteName>> {
        let mut sites = Vec::new();
        for_each_name(self.fd.as_fd(), |name| sites.extend(SiteName::new(name).ok()))?;
        Ok(sites)
    }
}

impl Folder {
    /// Puts a message under its name; false when the name is taken.
    pub(super) fn put(&self, name: &FileName, message: &[u8]) -> io::Result<bool> {
        let temporary = name.temporary();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o666)) {
            Ok(fd) => fd,
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let written =
            write_synced(File::from(fd), message).and_then(|()| self.publish(&temporary, &name.whole()));
        if !matches!(written, Ok(true)) {
            // The error at hand says more than one about the clean-up; what stays goes at the next start.
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        if written? {
            rustix::fs::fsync(&self.fd)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Gives the temporary file its whole name; false when that is taken.
    fn publish(&self, temporary: &str, whole: &str) -> io::Result<bool> {
        match rustix::fs::renameat_with(&self.fd, temporary, &self.fd, whole, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            // Not every file system has a rename that refuses; a second name for the file is refused by all.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.publish_by_linking(temporary, whole),
            Err(error) => Err(error.into()),
        }
    }

    fn publish_by_linking(&self, temporary: &str, whole: &str) -> io::Result<bool> {
        match rustix::fs::linkat(&self.fd, temporary, &self.fd, whole, AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(&self.fd, temporary, AtFlags::empty())?,
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// The first names of whole messages behind `after`, in the order of names, at most `max_count`,
    /// and whether there are more. Holds no more than that many in memory, however full the folder is.
    pub(super) fn list(
        &self,
        after: &str,
        skip: &BTreeSet<MessageId>,
        max_count: usize,
    ) -> io::Result<(Vec<String>, bool)> {
        let mut first = BinaryHeap::new();
        let mut more = false;
        let skipped: BTreeSet<&str> = skip.iter().map(MessageId::as_str).collect();
        for_each_name(self.fd.as_fd(), |name| {
            if name > after && !skipped.contains(name) && FileName::parse_whole(name).is_some() {
                first.push(name.to_owned());
                if first.len() > max_count {
                    first.pop();
                    more = true;
                }
            }
        })?;
        Ok((first.into_sorted_vec(), more))
    }

    /// Reads a message of at most `room` bytes.
    pub(super) fn take(&self, name: &str, room: usize) -> io::Result<Taken> {
        // NONBLOCK: opening a pipe that somebody put here must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(Taken::Gone),
            Err(Errno::LOOP) => return Ok(Taken::Unfit("it is a symbolic link".to_owned())),
            Err(error) => return Ok(Taken::Unfit(io::Error::from(error).to_string())),
        };
        let metadata = file.metadata()?;
        let len = metadata.len();
        if !metadata.is_file() {
            return Ok(Taken::Unfit("it is not a regular file".to_owned()));
        }
        if len == 0 || len > to_u64(MAX_MESSAGE_BYTES) {
            return Ok(Taken::Unfit(format!(
                "it has {len} bytes, a message has 1 to {MAX_MESSAGE_BYTES}"
            )));
        }
        if len > to_u64(room) {
            return Ok(Taken::NoRoom);
        }
        let mut bytes = Vec::new();
        match file.take(len).read_to_end(&mut bytes) {
            Ok(_) => Ok(Taken::Message(bytes)),
            Err(error) => Ok(Taken::Unfit(error.to_string())),
        }
    }

    /// Removes a file; one that is gone is success.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what `own` left half-written, never by its time: a slow clock must not cost a message.
    pub(super) fn remove_temporaries_of(&self, own: &SiteName) -> io::Result<usize> {
        let mut left = Vec::new();
        for_each_name(self.fd.as_fd(), |name| {
            if FileName::parse_temporary(name).is_some_and(|file| file.from == *own) {
                left.push(name.to_owned());
            }
        })?;
        left.iter().try_for_each(|name| self.remove(name))?;
        Ok(left.len())
    }
}

fn write_synced(mut file: File, message: &[u8]) -> io::Result<()> {
    file.write_all(message)?;
    file.sync_all()
}

/// Calls `visit` with every name that is text; others are not ours.
fn for_each_name(fd: impl AsFd, mut visit: impl FnMut(&str)) -> io::Result<()> {
    for entry in Dir::read_from(fd)? {
        if let Ok(name) = entry?.file_name().to_str() {
            visit(name);
        }
    }
    Ok(())
}
