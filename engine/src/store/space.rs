//! The file `space`: how much of the log a store keeps, and how much it may take (docs/format.md, "Space").
//!
//! ```text
//! 0   "MPSPACE1" 8 | version 4 | retention 4: 0 forever, 1 until scanned, 2 by age, 3 by bytes
//! 16  store id 16
//! 32  age in seconds, or bytes 8 | limit in bytes 8, 0 for none
//! 48  flags 4: 1 compress | archive_len 4 | archive
//!     CRC-32 of the bytes before it 4
//! ```
//!
//! Replaced as a whole, read whenever it matters: what one process sets, all follow from the next roll on. No file
//! is forever, without a limit. A damaged one is an error to whoever asks, and then nothing is freed.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::block::Owner;
use crate::log::LOOK_AGAIN;
use crate::log::lock::SPACE;
use crate::storage::{LockMode, OpenMode, Storage, StorageFile};
use crate::width::u32_to_usize;
use crate::{Error, Result, Store, StoreId};

use super::Shared;
use super::identity::STORE_FILE;
use super::whole_file::{self, take};

/// Name of the file.
pub(super) const SPACE_FILE: &str = "space";
/// Its name while it is written.
pub(super) const NEW_FILE: &str = "space.new";
const MAGIC: [u8; 8] = *b"MPSPACE1";
const VERSION: u32 = 1;
const COMPRESS: u32 = 1;
/// Length without the path of an archive.
const FIXED_LEN: usize = 60;
const MOST_ARCHIVE: usize = 4096;
/// The least limit, in segments: the active one, the next, and the reserve for the way out.
const LEAST_SEGMENTS: u64 = 3;

/// How long the log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// History is the product.
    #[default]
    Forever,
    /// Until the scan phase has passed it.
    UntilScanned,
    /// While the newest event of a segment is not older than this, in whole seconds.
    Age(Duration),
    /// The newest so many bytes.
    Bytes(u64),
}

/// How much of the log a store keeps, and how much it may take: [`Store::space`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// How long the log is kept.
    pub retention: Retention,
    /// Most bytes that the segments of the log may take, the reserve of one segment included; 0 is no limit.
    pub limit: u64,
    /// Whether sealed segments are compressed.
    pub compress: bool,
    /// Where sealed segments are moved.
    pub archive: Option<PathBuf>,
}

impl Space {
    /// Refuses what makes no sense with segments of `segment_bytes`.
    pub(super) fn check(&self, segment_bytes: u64) -> Result<()> {
        let least = segment_bytes.saturating_mul(LEAST_SEGMENTS);
        if self.limit != 0 && self.limit < least {
            return Err(Error::invalid(format!(
                "a limit of {} bytes is less than {LEAST_SEGMENTS} segments, which are {least} bytes: the active one, \
                 the next, and a reserve for the way out; 0 is no limit",
                self.limit
            )));
        }
        if matches!(
            self.retention,
            Retention::Bytes(0) | Retention::Age(Duration::ZERO)
        ) {
            return Err(Error::invalid(
                "a retention of nothing would free whatever it may: say `until-scanned` for that, or `forever`",
            ));
        }
        let archive = self.archive.as_ref().map_or(0, |path| path.as_os_str().len());
        if self.archive.is_some() && !(1..=MOST_ARCHIVE).contains(&archive) {
            return Err(Error::invalid(format!(
                "the path of an archive has 1 to {MOST_ARCHIVE} bytes"
            )));
        }
        Ok(())
    }

    fn encode(&self, id: StoreId) -> Vec<u8> {
        let (retention, amount) = match self.retention {
            Retention::Forever => (0u32, 0),
            Retention::UntilScanned => (1, 0),
            Retention::Age(age) => (2, age.as_secs()),
            Retention::Bytes(bytes) => (3, bytes),
        };
        let archive = self
            .archive
            .as_ref()
            .map_or(&[][..], |path| path.as_os_str().as_bytes());
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&retention.to_le_bytes());
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.extend_from_slice(&amount.to_le_bytes());
        bytes.extend_from_slice(&self.limit.to_le_bytes());
        bytes.extend_from_slice(&(if self.compress { COMPRESS } else { 0 }).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(archive.len()).unwrap_or_default().to_le_bytes());
        bytes.extend_from_slice(archive);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], id: StoreId) -> Result<Space> {
        let damaged = || {
            Error::corrupt(
                "the file that says how long the log is kept is damaged; nothing is freed and no limit holds meanwhile: set \
                 it again with `milepost space` and both --retention and --limit, then, where that was set, \
                 `milepost compress` and --always, and `milepost archive` and --to",
            )
        };
        let (version, mut rest) = whole_file::checked(bytes, MAGIC).ok_or_else(damaged)?;
        if version != VERSION {
            return Err(Error::invalid(format!(
                "the settings of space in format {version} need a newer program"
            )));
        }
        let mut fields = || {
            let retention = take(&mut rest).map(u32::from_le_bytes)?;
            let store = take(&mut rest).map(u128::from_le_bytes)?;
            let mut word = || take(&mut rest).map(u64::from_le_bytes);
            let (amount, limit) = (word()?, word()?);
            let retention = match retention {
                0 => Retention::Forever,
                1 => Retention::UntilScanned,
                2 => Retention::Age(Duration::from_secs(amount)),
                3 => Retention::Bytes(amount),
                _ => return None,
            };
            let flags = take(&mut rest).map(u32::from_le_bytes)?;
            let archive_len = u32_to_usize(take(&mut rest).map(u32::from_le_bytes)?);
            if flags & !COMPRESS != 0 || archive_len > MOST_ARCHIVE || archive_len != rest.len() {
                return None;
            }
            let archive = std::ffi::OsString::from_vec(rest.to_vec());
            (store == id.0).then(|| Space {
                retention,
                limit,
                compress: flags & COMPRESS != 0,
                archive: (archive_len > 0).then(|| archive.into()),
            })
        };
        fields().ok_or_else(damaged)
    }

    /// Reads the file; without one it is forever and without a limit.
    pub(crate) fn read(storage: &dyn Storage, owner: Owner) -> Result<Space> {
        let path = storage.root().join(SPACE_FILE);
        let bytes = whole_file::read(storage, SPACE_FILE, FIXED_LEN + MOST_ARCHIVE);
        match bytes.map_err(|error| Error::io("read how long the log is kept", &path, error))? {
            None => Ok(Space::default()),
            Some(bytes) => Space::decode(&bytes, owner.id).map_err(|error| error.at_path(path)),
        }
    }

    /// Puts these settings beside a copy of the log of `owner`, where others may be; durable when this returns.
    pub(super) fn copy_to(&self, storage: &dyn Storage, owner: Owner) -> Result<()> {
        match Space::read(storage, owner) {
            Ok(there) if there == *self => Space::make_durable(storage),
            _ => self.write(storage, owner),
        }
    }

    /// Makes what is read there durable: whoever wrote it may have died before it was.
    fn make_durable(storage: &dyn Storage) -> Result<()> {
        let synced = storage.sync_dir("");
        synced.map_err(|error| Error::io("make durable how long the log is kept", storage.root(), error))
    }

    /// Puts the file in place of the former one; durable when this returns.
    pub(super) fn write(&self, storage: &dyn Storage, owner: Owner) -> Result<()> {
        let path = storage.root().join(SPACE_FILE);
        let written = whole_file::replace(storage, NEW_FILE, SPACE_FILE, &self.encode(owner.id));
        written.map_err(|error| Error::io("write how long the log is kept", path, error))
    }
}

impl Shared {
    /// The right to say what is kept and to free what is not; given back with the value.
    pub(super) fn lock_space(&self) -> Result<Arc<dyn StorageFile>> {
        let clock = &self.log.clock;
        let started = clock.monotonic();
        loop {
            if let Some(lock) = self.try_lock_space()? {
                return Ok(lock);
            }
            if clock.monotonic().saturating_sub(started) >= self.log.lock_timeout {
                let text = "another process frees segments or says what is kept; try again in a moment";
                return Err(Error::unavailable(text).at_path(self.storage.root()));
            }
            clock.sleep(LOOK_AGAIN);
        }
    }

    /// As [`Shared::lock_space`], when nobody has it. The file is opened for it: threads exclude each other too.
    pub(super) fn try_lock_space(&self) -> Result<Option<Arc<dyn StorageFile>>> {
        let root = self.storage.root();
        let lock = self.storage.open(STORE_FILE, OpenMode::ReadWrite);
        let lock = lock.map_err(|error| Error::io("open the store's locks", root, error))?;
        let taken = lock.try_lock(SPACE, LockMode::Exclusive);
        let taken = taken.map_err(|error| Error::io("lock what the log keeps", root, error))?;
        if !taken {
            return Ok(None);
        }
        self.adopt_base()?;
        Ok(Some(lock))
    }
}

impl Store {
    /// How long the log is kept and how much it may take, as of now.
    ///
    /// # Errors
    /// `Corrupt` when the file that says so is damaged; nothing is freed then.
    pub fn space(&self) -> Result<Space> {
        Space::read(&**self.storage(), self.owner())
    }

    /// Sets how long the log is kept and how much it may take; durable when this returns. All processes that have
    /// the store open follow.
    ///
    /// # Errors
    /// `Invalid` for a limit below three segments; `Unavailable` while another process frees segments for longer than
    /// the lock's time limit.
    pub fn set_space(&self, space: &Space) -> Result<()> {
        space.check(self.segment_bytes())?;
        self.log().check_process()?;
        let _lock = self.shared().lock_space()?;
        space.write(&**self.storage(), self.owner())
    }

    /// Changes some of these settings and leaves the others as they are, whoever changes them at the same time; what they
    /// are then, durable when this returns.
    ///
    /// # Errors
    /// As [`Store::set_space`], and [`Store::space`].
    pub fn change_space(&self, change: impl FnOnce(&mut Space)) -> Result<Space> {
        self.log().check_process()?;
        let _lock = self.shared().lock_space()?;
        let before = self.space()?;
        let mut space = before.clone();
        change(&mut space);
        space.check(self.segment_bytes())?;
        match space == before {
            true => Space::make_durable(&**self.storage())?,
            false => space.write(&**self.storage(), self.owner())?,
        }
        Ok(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::golden::{assert_laid_out, kept};

    #[test]
    fn it_reads_as_it_was_written_and_every_changed_bit_is_seen() {
        let space = Space {
            retention: Retention::Age(Duration::from_secs(86_400)),
            limit: 1 << 40,
            compress: true,
            archive: Some("/mnt/cold".into()),
        };
        let id = StoreId(7);
        let bytes = space.encode(id);
        assert_eq!(kept("space", &bytes), bytes);
        // docs/format.md, "Space".
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPSPACE1"),
            (8, &1u32.to_le_bytes()),
            (12, &2u32.to_le_bytes()),
            (16, &7u128.to_le_bytes()),
            (32, &86_400u64.to_le_bytes()),
            (40, &(1u64 << 40).to_le_bytes()),
            (48, &1u32.to_le_bytes()),
            (52, &9u32.to_le_bytes()),
            (56, b"/mnt/cold"),
            (65, &crc32fast::hash(&bytes[..65]).to_le_bytes()),
        ];
        assert_laid_out("space", &bytes, fields);
        assert_eq!(Space::decode(&bytes, id).unwrap(), space);
        for retention in [
            Retention::Forever,
            Retention::UntilScanned,
            Retention::Bytes(9 << 30),
        ] {
            let other = Space {
                retention,
                ..Space::default()
            };
            assert_eq!(Space::decode(&other.encode(id), id).unwrap(), other);
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Space::decode(&changed, id).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        for len in 0..bytes.len() {
            assert!(Space::decode(&bytes[..len], id).is_err());
        }
        assert!(Space::decode(&bytes, StoreId(8)).is_err());
    }
}
