//! [`Profile`]: which file system and device a simulated disk is like.
//!
//! All keep what a local file system promises (`fsync(2)`): synced contents, lengths and names stay, a rename
//! is whole or not at all, a failed write-back is told once to every handle open at the time. What else a
//! power cut may do differs:
//!
//! | | names and allocated lengths | length that a write gave | un-synced sectors | sector in flight |
//! |---|---|---|---|---|
//! | `posix` | each survives by itself | by itself, also without its bytes | each by itself, any generation | whole |
//! | `ext4`, `xfs` | in the order made, up to some point (journal) | late, and only with its bytes | the same | whole |
//! | `garbage512`, `garbage4096` | as `posix` | as `posix` | as `posix` | may be anything |
//!
//! - **posix** is the weakest disk that POSIX allows: nothing is ordered that was not synced. Pillai et al., *All File
//!   Systems Are Not Created Equal* (OSDI 2014), found file systems that reorder each of these.
//! - **ext4** (`data=ordered`, delayed allocation): metadata is journalled, and a commit holds all changes before it
//!   (jbd2 has one running transaction), so a sync that has to commit takes earlier changes of other files
//!   along. A file's length on disk follows when its delayed blocks are allocated, and their bytes are
//!   written before that commits (Linux commit 06bd3c36a733, "ext4: fix data exposure after a crash"; the kernel's
//!   `Documentation/admin-guide/ext4.rst`, `data=ordered`). Bytes over allocated blocks are not ordered with anything.
//!   A file renamed over another keeps its contents when it keeps the name (`auto_da_alloc`, ibid.).
//! - **xfs**: the log is sequential as well, and forcing it forces all before it
//!   (`Documentation/filesystems/xfs/xfs-delayed-logging-design.rst`). The length on disk is raised when the
//!   bytes have been written (Linux commit ba87ea699ebd, "Fix to prevent the notorious 'NULL files' problem"). Nothing
//!   protects a file that replaces another without a sync.
//! - **garbage**: a device that power loss interrupts within a sector: it reads as old bytes, zeros, ones or noise, and
//!   with it what was durable there before. <https://sqlite.org/psow.html> calls the opposite *powersafe overwrite*. The
//!   unit is the device's sector (512) or the block that the kernel writes back as a whole (4,096): then
//!   also neighbours that nobody wrote are in flight.
//!
//! Simplified, always towards the weaker: a journal may end at any change and not only where a transaction
//! ends; blocks are lost and kept by sectors. `fdatasync` takes along what the journal holds up to the last change of
//! that file's own length or making, not up to now.

use crate::SimRng;

use super::pages::{SECTOR, SECTORS};

/// What a disk is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "described at the head of this file")]
pub enum Profile {
    #[default]
    Posix,
    Ext4,
    Xfs,
    Garbage512,
    Garbage4096,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 5] = [
        Profile::Posix,
        Profile::Ext4,
        Profile::Xfs,
        Profile::Garbage512,
        Profile::Garbage4096,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Profile::Posix => "posix",
            Profile::Ext4 => "ext4",
            Profile::Xfs => "xfs",
            Profile::Garbage512 => "garbage512",
            Profile::Garbage4096 => "garbage4096",
        }
    }

    /// The profile of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Bytes that are in flight together and may turn into garbage.
    #[must_use]
    pub fn garbage(self) -> Option<usize> {
        match self {
            Profile::Garbage512 => Some(512),
            Profile::Garbage4096 => Some(4096),
            _ => None,
        }
    }

    /// True when names and lengths survive in the order made.
    pub(super) fn is_journalled(self) -> bool {
        matches!(self, Profile::Ext4 | Profile::Xfs)
    }

    /// True when a file that replaces another has its contents as soon as it has the name.
    pub(super) fn replaces_whole(self) -> bool {
        self == Profile::Ext4
    }

    /// The sectors of a page that may be garbage when those of `written` are in flight.
    pub(super) fn in_flight(self, written: u8) -> u8 {
        match self.garbage() {
            Some(SECTOR) => written,
            Some(_) => u8::MAX,
            None => 0,
        }
    }
}

/// A sector that the device did not finish.
pub(super) fn spoil(bytes: &mut [u8; SECTOR], rng: &SimRng) {
    let from = if rng.chance(1, 2) { 0 } else { rng.index(SECTOR) };
    let noise = match rng.below(4) {
        0 => Some(0),
        1 => Some(u8::MAX),
        _ => None,
    };
    for byte in &mut bytes[from..] {
        *byte = noise.unwrap_or_else(|| rng.word() as u8);
    }
}

/// Which sectors of `mask` turn into garbage, each in `odds` of eight cases.
pub(super) fn spoilt(mask: u8, odds: u64, rng: &SimRng) -> impl Iterator<Item = usize> {
    (0..SECTORS).filter(move |sector| mask & (1 << sector) != 0 && rng.chance(odds, 8))
}
