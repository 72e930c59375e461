//! Named holds: who needs the log from where on (docs/format.md, "Holds").
//!
//! ```text
//! holds/<name>:  0   "MPHOLD01" 8 | version 4 | reserved 4
//!                16  store id 16
//!                32  LSN 8 | since 8 | expires 8, 0 for never
//!                56  kind_len 2 | owner_len 2 | reserved 4 | kind | owner
//!                    CRC-32 of the bytes before it 4
//! ```
//!
//! A hold keeps every segment that reaches beyond its LSN. It is durable before [`Store::hold`] returns, and who
//! frees looks at the holds under the same lock, so what was promised is there. One whose time is over holds nothing
//! and is swept; one that is damaged holds everything, because nobody knows from where on.

use std::collections::BTreeMap;

use crate::storage::{Cell, Storage};
use crate::sync::Mutex;
use crate::{Error, Lsn, Result, Store, StoreId};

use super::Shared;
use super::whole_file::{self, take};

pub(super) const FOLDER: &str = "holds";
/// The name under which one is written: no hold's.
const NEW_FILE: &str = "holds/.new";
const MAGIC: [u8; 8] = *b"MPHOLD01";
const VERSION: u32 = 1;
const MOST_KIND: usize = 64;
const MOST_OWNER: usize = 256;
const FIXED_LEN: usize = 68;

/// A named claim on the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Everything above this LSN is kept.
    pub lsn: Lsn,
    /// What it is for: `backup`, `replication`, `projection`, a word of yours; at most 64 bytes.
    pub kind: String,
    /// Whose it is, for people; at most 256 bytes.
    pub owner: String,
    /// When it was taken first, microseconds since 1970; [`Store::hold`] sets it.
    pub since: i64,
    /// When it ends by itself, microseconds since 1970.
    pub expires: Option<i64>,
}

/// A hold as it was found.
#[derive(Debug)]
pub struct NamedHold {
    /// Its name.
    pub name: String,
    /// What it says; an error for a damaged one, which holds everything.
    pub hold: Result<Hold>,
    /// Its time is over: it holds nothing.
    pub expired: bool,
}

impl NamedHold {
    /// What lies above this is kept; `None` for an expired one.
    #[must_use]
    pub fn holds_from(&self) -> Option<Lsn> {
        let lsn = self.hold.as_ref().map_or(Lsn::ZERO, |hold| hold.lsn);
        (!self.expired).then_some(lsn)
    }
}

impl Hold {
    /// A hold without an end.
    #[must_use]
    pub fn new(kind: &str, owner: &str, lsn: Lsn) -> Hold {
        Hold {
            lsn,
            kind: kind.to_owned(),
            owner: owner.to_owned(),
            since: 0,
            expires: None,
        }
    }

    fn encode(&self, id: StoreId) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.extend_from_slice(&self.lsn.0.to_le_bytes());
        bytes.extend_from_slice(&self.since.to_le_bytes());
        bytes.extend_from_slice(&self.expires.unwrap_or(0).to_le_bytes());
        for text in [&self.kind, &self.owner] {
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.kind.as_bytes());
        bytes.extend_from_slice(self.owner.as_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], id: StoreId) -> Result<Hold> {
        let damaged = || {
            Error::corrupt(
                "the file of a hold is damaged, so it holds the whole log: find out who needs it, then drop it with \
                 `milepost hold drop` and take it again",
            )
        };
        let (version, mut rest) = whole_file::checked(bytes, MAGIC).ok_or_else(damaged)?;
        if version != VERSION {
            return Err(Error::invalid(format!(
                "a hold in format {version} needs a newer program; it holds the whole log"
            )));
        }
        let mut fields = || {
            take::<4>(&mut rest)?;
            let store = take(&mut rest).map(u128::from_le_bytes)?;
            let lsn = take(&mut rest).map(u64::from_le_bytes)?;
            let mut time = || take(&mut rest).map(i64::from_le_bytes);
            let (since, expires) = (time()?, time()?);
            let mut len = || take(&mut rest).map(u16::from_le_bytes).map(usize::from);
            let (kind_len, owner_len) = (len()?, len()?);
            take::<4>(&mut rest)?;
            let (kind, owner) = rest.split_at_checked(kind_len)?;
            if owner.len() != owner_len || store != id.0 {
                return None;
            }
            Some(Hold {
                lsn: Lsn(lsn),
                kind: std::str::from_utf8(kind).ok()?.to_owned(),
                owner: std::str::from_utf8(owner).ok()?.to_owned(),
                since,
                expires: (expires != 0).then_some(expires),
            })
        };
        fields().ok_or_else(damaged)
    }
}

/// The file of a hold; names are 1 to 64 characters of a-z 0-9 . _ - without a leading dot.
fn file_of(name: &str) -> Result<String> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !plain {
        return Err(Error::invalid(format!(
            "{name:?} is no name of a hold: 1 to 64 characters of a-z 0-9 . _ - without a leading dot"
        )));
    }
    Ok(format!("{FOLDER}/{name}"))
}

/// Holds that are known to be durable, as they were then.
#[derive(Default)]
pub(super) struct DurableHolds(Mutex<BTreeMap<String, Hold>>);

impl Shared {
    /// Makes a hold durable that somebody took: who wrote its file may have died before its name was on disk.
    fn make_durable(&self, name: &str, hold: Hold) -> Result<()> {
        let mut durable = self.durable_holds.0.lock();
        if durable.get(name) != Some(&hold) {
            let synced = self
                .storage
                .sync_dir("")
                .and_then(|()| self.storage.sync_dir(FOLDER));
            let path = self.storage.root().join(FOLDER);
            synced.map_err(|error| Error::io("make a hold durable", path, error))?;
            durable.insert(name.to_owned(), hold);
        }
        Ok(())
    }

    /// All holds, by name.
    pub(super) fn holds(&self) -> Result<Vec<NamedHold>> {
        let (storage, id) = (&*self.storage, self.identity.owner.id);
        let failed = |error| Error::io("read the holds", storage.root().join(FOLDER), error);
        let mut names = match storage.list(FOLDER) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        names.retain(|name| !name.starts_with('.'));
        names.sort_unstable();
        let now = self.believed_now();
        let mut holds = Vec::with_capacity(names.len());
        for name in names {
            let file = format!("{FOLDER}/{name}");
            let bytes = whole_file::read(storage, &file, FIXED_LEN + MOST_KIND + MOST_OWNER);
            // Dropped meanwhile.
            let Some(bytes) = bytes.map_err(failed)? else {
                continue;
            };
            let hold = Hold::decode(&bytes, id).map_err(|error| error.at_path(storage.root().join(&file)));
            let ends = hold.as_ref().ok().and_then(|hold| hold.expires);
            let expired = ends.zip(now).is_some_and(|(ends, now)| ends <= now);
            holds.push(NamedHold { name, hold, expired });
        }
        Ok(holds)
    }

    /// Removes a hold's file; false when there is none. The caller has the lock of space.
    pub(super) fn remove_hold(&self, name: &str) -> Result<bool> {
        let file = file_of(name)?;
        self.durable_holds.0.lock().remove(name);
        let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        let removed = match self.storage.unlink(&file) {
            // Who dropped it may have died before that was durable, and power lost would bring it back.
            Err(error) if missing(&error) => match self.storage.sync_dir(FOLDER) {
                Err(error) if missing(&error) => Ok(false),
                synced => synced.map(|()| false),
            },
            Err(error) => Err(error),
            Ok(()) => self.storage.sync_dir(FOLDER).map(|()| true),
        };
        let path = self.storage.root().join(file);
        removed.map_err(|error| Error::io("drop a hold", path, error))
    }
}

/// Holds as they stand in their files, by name: what goes with a backup.
pub(super) struct Kept(Vec<(String, Vec<u8>)>);

impl Kept {
    /// Those of a store that do not end by themselves. They are read before the end of a backup is: one that moved on since
    /// would let go of more than what the backup knows.
    pub(super) fn of(shared: &Shared) -> Result<Kept> {
        let id = shared.identity.owner.id;
        let holds = shared.holds()?.into_iter().filter_map(|named| {
            let hold = named.hold.unwrap_or_else(|error| {
                tracing::warn!(%error, hold = named.name, "a hold cannot be read: what is restored from the backup is kept whole");
                Hold::new("unknown", "not readable when it was backed up", Lsn::ZERO)
            });
            let lasts = hold.expires.is_none();
            lasts.then(|| (named.name, hold.encode(id)))
        });
        Ok(Kept(holds.collect()))
    }

    /// Those that a backup has; damaged ones as they are, because they hold everything.
    pub(super) fn read(backup: &dyn Storage) -> Result<Kept> {
        let failed = |error| Error::io("read the holds", backup.root().join(FOLDER), error);
        let names = match backup.list(FOLDER) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(failed)?,
        };
        let mut holds = Vec::new();
        for name in names.into_iter().filter(|name| file_of(name).is_ok()) {
            let file = format!("{FOLDER}/{name}");
            let bytes = whole_file::read(backup, &file, FIXED_LEN + MOST_KIND + MOST_OWNER);
            holds.extend(bytes.map_err(failed)?.map(|bytes| (name, bytes)));
        }
        Ok(Kept(holds))
    }

    /// Makes them the holds of a backup or a new store: one after another, so that a crash leaves some as they were, which
    /// hold more.
    pub(super) fn write(&self, to: &dyn Storage) -> Result<()> {
        let written = || {
            to.create_dir(FOLDER).and_then(|()| to.sync_dir(""))?;
            for (name, bytes) in &self.0 {
                whole_file::replace(to, NEW_FILE, &format!("{FOLDER}/{name}"), bytes)?;
            }
            let is_kept = |name: &String| self.0.iter().any(|(kept, _)| kept == name);
            for name in to.list(FOLDER)?.iter().filter(|name| !is_kept(name)) {
                to.unlink(&format!("{FOLDER}/{name}"))?;
            }
            to.sync_dir(FOLDER)
        };
        written().map_err(|error| Error::io("copy the holds", to.root().join(FOLDER), error))
    }
}

/// Clears away what an interrupted attempt to restore left.
pub(super) fn clear(storage: &dyn Storage) -> std::io::Result<()> {
    match storage.list(FOLDER) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        names => names?
            .iter()
            .try_for_each(|name| storage.unlink(&format!("{FOLDER}/{name}"))),
    }
}

impl Store {
    /// Takes the hold `name`, or moves it: everything above its LSN is kept until it is dropped, moved on, or its
    /// time is over. Durable when this returns.
    ///
    /// # Errors
    /// `Behind` when the log no longer has that position; `Invalid` for a name, kind or owner that cannot be kept, or
    /// a position that the log does not have yet; `Unavailable` while another process frees segments for longer than
    /// the lock's time limit.
    pub fn hold(&self, name: &str, hold: &Hold) -> Result<()> {
        let file = file_of(name)?;
        let _lock = self.shared().lock_space()?;
        self.hold_locked(name, &file, hold)
    }

    /// Moves the hold `name`, which is taken if it is not there, to where `decide` says, which is given what it is now;
    /// or leaves it when that says nothing. Who frees and who takes holds waits meanwhile, so what `decide`
    /// reads of the log is what counts. A position that was freed becomes where the log begins. Durable when this
    /// returns; true when it was moved.
    ///
    /// # Errors
    /// As [`Store::hold`], and what `decide` returns.
    pub fn move_hold(
        &self,
        name: &str,
        decide: impl FnOnce(Option<&Hold>) -> Result<Option<Hold>>,
    ) -> Result<bool> {
        let file = file_of(name)?;
        let _lock = self.shared().lock_space()?;
        let known = self
            .shared()
            .holds()?
            .into_iter()
            .find(|known| known.name == name);
        // A damaged one holds everything: what is decided anew takes its place.
        let now = known.and_then(|known| known.hold.ok());
        let Some(mut hold) = decide(now.as_ref())? else {
            return now
                .map_or(Ok(()), |now| self.shared().make_durable(name, now))
                .map(|()| false);
        };
        hold.lsn = hold.lsn.max(self.shared().log.control.lsn(Cell::Freed));
        self.hold_locked(name, &file, &hold).map(|()| true)
    }

    /// As [`Store::hold`], by who has the lock of space.
    fn hold_locked(&self, name: &str, file: &str, hold: &Hold) -> Result<()> {
        if hold.kind.len() > MOST_KIND || hold.owner.len() > MOST_OWNER {
            let text = format!("a hold's kind has at most {MOST_KIND} bytes, its owner {MOST_OWNER}");
            return Err(Error::invalid(text));
        }
        let (shared, storage) = (self.shared(), &**self.storage());
        let freed = shared.log.control.lsn(Cell::Freed);
        if hold.lsn < freed {
            let text = format!("the log begins at {freed} and cannot be held from an earlier position on");
            return Err(Error::behind(text).at_path(self.root()).at_lsn(hold.lsn));
        }
        if hold.lsn > shared.log.control.appended() {
            let text = "the log has no such position yet, so it cannot be held from there on";
            return Err(Error::invalid(text).at_path(self.root()).at_lsn(hold.lsn));
        }
        let before = shared.holds()?.into_iter().find(|known| known.name == name);
        let since = before.and_then(|known| known.hold.ok()).map(|known| known.since);
        let hold = Hold {
            since: since.unwrap_or_else(|| self.clock().wall_micros()),
            ..hold.clone()
        };
        let written = storage
            .create_dir(FOLDER)
            .and_then(|()| storage.sync_dir(""))
            .and_then(|()| whole_file::replace(storage, NEW_FILE, file, &hold.encode(self.id())));
        written.map_err(|error| Error::io("write a hold", self.root().join(file), error))?;
        shared.durable_holds.0.lock().insert(name.to_owned(), hold);
        Ok(())
    }

    /// Drops the hold `name`; false when there is none.
    ///
    /// # Errors
    /// `Invalid` for what is no name; as [`Store::hold`].
    pub fn drop_hold(&self, name: &str) -> Result<bool> {
        let _lock = self.shared().lock_space()?;
        self.shared().remove_hold(name)
    }

    /// Bytes of the log above `lsn` that retention and the scan phase would let go: what only holds from there on keep.
    /// Nothing with a retention of forever.
    ///
    /// # Errors
    /// `Corrupt` when the settings of space are damaged, or for damage in the log (E3).
    pub fn held_bytes(&self, lsn: Lsn) -> Result<u64> {
        let shared = self.shared();
        let retention = self.space()?.retention;
        let kept = shared.kept_by_retention(retention, shared.log.control.durable())?;
        let scan = shared.kept_by_scan(retention).map_or(Lsn::MAX, |scan| scan.from);
        let ends = kept.from.min(scan).min(shared.log.control.durable());
        let begins = lsn.max(shared.log.control.lsn(Cell::Freed));
        Ok(ends.0.saturating_sub(begins.0))
    }

    /// All holds, by name, expired and damaged ones included.
    ///
    /// # Errors
    /// `Internal` when they cannot be read.
    pub fn holds(&self) -> Result<Vec<NamedHold>> {
        self.shared().holds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::golden::{assert_laid_out, kept};

    #[test]
    fn it_reads_as_it_was_written_and_every_changed_bit_is_seen() {
        let hold = Hold {
            since: 5,
            expires: Some(-9),
            ..Hold::new("projection", "shop's till", Lsn(77))
        };
        let id = StoreId(7);
        let bytes = hold.encode(id);
        assert_eq!(bytes.len(), FIXED_LEN + 21);
        assert_eq!(kept("hold", &bytes), bytes);
        // docs/format.md, "Holds".
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPHOLD01"),
            (8, &1u32.to_le_bytes()),
            (12, &[0; 4]),
            (16, &7u128.to_le_bytes()),
            (32, &77u64.to_le_bytes()),
            (40, &5u64.to_le_bytes()),
            (48, &(-9i64).to_le_bytes()),
            (56, &10u16.to_le_bytes()),
            (58, &11u16.to_le_bytes()),
            (60, &[0; 4]),
            (64, b"projection"),
            (74, b"shop's till"),
            (85, &crc32fast::hash(&bytes[..85]).to_le_bytes()),
        ];
        assert_laid_out("hold", &bytes, fields);
        assert_eq!(Hold::decode(&bytes, id).unwrap(), hold);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Hold::decode(&changed, id).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        for len in 0..bytes.len() {
            assert!(Hold::decode(&bytes[..len], id).is_err());
        }
        assert!(Hold::decode(&bytes, StoreId(8)).is_err());
    }

    #[test]
    fn names_that_leave_the_folder_or_hide_are_refused() {
        for name in ["", ".new", "../store", "a/b", "A", "a b", &"a".repeat(65)] {
            assert_eq!(file_of(name).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
        assert_eq!(file_of("backup-7.a_b").unwrap(), "holds/backup-7.a_b");
    }
}
