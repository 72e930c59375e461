//! [`Volume`]: a real file system of one's own, ext4 or xfs, in a file that is mounted as a loop device.
//!
//! ```text
//! make: file ─ mkfs ─► mount ─► power_cut: shut down, unmounted by unmount ─► mount ─► … ─► dropped: unmounted
//! ```
//!
//! Nothing stays behind, however the process ends: mounts are seen by the thread that made the volume and by
//! what it starts, and the kernel takes them and their loop devices away with the last of these; the file lies
//! in a temporary folder. Needs root, `mkfs.ext4` or `mkfs.xfs`, `mount` and loop devices; what is missing is
//! said by [`Missing`].

mod sys;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// How often a file system that is still in use is asked to go, with this pause: a second in all.
const UNMOUNT_ATTEMPTS: u32 = 200;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// True when this thread has mounts of its own already.
    static PRIVATE: Cell<bool> = const { Cell::new(false) };
}

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// ext4 with a journal, data ordered.
    Ext4,
    /// ext4 without extents, which cannot reserve space: any write to a file may find none.
    Ext4WithoutExtents,
    /// xfs.
    Xfs,
}

impl FsKind {
    /// Those that people use.
    pub const ALL: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

    /// The name that `mount` knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FsKind::Ext4 | FsKind::Ext4WithoutExtents => "ext4",
            FsKind::Xfs => "xfs",
        }
    }

    /// Program and options that make one.
    const fn maker(self) -> (&'static str, &'static [&'static str]) {
        match self {
            // Nothing reserved for root, whom a full disk would spare; blocks of one page.
            FsKind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096"]),
            FsKind::Ext4WithoutExtents => (
                "mkfs.ext4",
                &["-q", "-F", "-m", "0", "-b", "4096", "-O", "^extents,^64bit"],
            ),
            FsKind::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        }
    }
}

/// Why no volume can be made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Missing {
    /// Says on stderr that something is skipped and why, where also the runner of tests hides nothing.
    pub fn say(&self, what: &str) {
        let mut err = io::stderr().lock();
        // Nobody is there to be told that stderr is gone.
        drop(writeln!(err, "\nSKIPPED: {what}: {self}"));
    }
}

/// A mounted file system, seen by the thread that made it and by the threads and processes it starts.
#[derive(Debug)]
pub struct Volume {
    kind: FsKind,
    folder: TempDir,
    mounted: bool,
}

impl Volume {
    /// Makes a file system of `bytes` bytes and mounts it.
    ///
    /// # Errors
    /// What is missing here.
    pub fn make(kind: FsKind, bytes: u64) -> Result<Volume, Missing> {
        if !rustix::process::geteuid().is_root() {
            return Err(Missing(
                "mounting a file system of one's own needs root".to_owned(),
            ));
        }
        let no = |what: &'static str| move |error: io::Error| Missing(format!("cannot {what}: {error}"));
        if !PRIVATE.get() {
            sys::keep_mounts_private().map_err(no("have mounts of one's own"))?;
            PRIVATE.set(true);
        }
        let folder = tempfile::tempdir().map_err(no("make a folder"))?;
        let image = File::create(folder.path().join("image")).map_err(no("make an image"))?;
        image.set_len(bytes).map_err(no("make an image"))?;
        std::fs::create_dir(folder.path().join("mounted")).map_err(no("make a folder"))?;
        let mut volume = Volume {
            kind,
            folder,
            mounted: false,
        };
        let (program, options) = kind.maker();
        run(Command::new(program).args(options).arg(volume.image()))?;
        volume.try_mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Power is lost: nothing that is not on the disk gets there any more. Whoever has files open there gets
    /// errors from now on, so let nobody run.
    ///
    /// # Panics
    /// When the kernel does not do it.
    pub fn power_cut(&self) {
        sys::shut_down(&File::open(self.path()).unwrap()).unwrap();
    }

    /// Unmounts, which whoever still has files open there forbids.
    ///
    /// # Panics
    /// When it stays in use for a second.
    pub fn unmount(&mut self) {
        self.try_unmount().unwrap();
    }

    /// Mounts it again; the file system recovers as after a power cut.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(&mut self) {
        self.try_mount().unwrap();
    }

    fn try_mount(&mut self) -> Result<(), Missing> {
        let mut mount = Command::new("mount");
        mount.args(["-t", self.kind.name(), "-o", "loop"]);
        run(mount.args([self.image(), self.path()]))?;
        self.mounted = true;
        Ok(())
    }

    fn try_unmount(&mut self) -> io::Result<()> {
        let mut attempts = 1;
        while let Err(error) = unmount(self.path(), UnmountFlags::empty()) {
            if error != rustix::io::Errno::BUSY || attempts == UNMOUNT_ATTEMPTS {
                return Err(error.into());
            }
            attempts += 1;
            SystemClock.sleep(UNMOUNT_PAUSE);
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted && self.try_unmount().is_err() {
            // Gone from sight at once, and for good with the last file that is open there.
            let _ = unmount(self.path(), UnmountFlags::DETACH);
        }
    }
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<(), Missing> {
    let name = Path::new(command.get_program()).display().to_string();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Missing(format!("{name} fails: {text}")))
        }
        Err(error) => Err(Missing(format!("{name} cannot be run: {error}"))),
    }
}
