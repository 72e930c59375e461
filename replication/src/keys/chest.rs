//! [`Keys`]: the files `keys/<remote>` of a store, and the pinned records that say what should be in them.
//!
//! ```text
//! keys/           0700     keys/.lock   held by who changes them     keys/.new   about to take a file's place
//! keys/<remote>   0600, written whole: temporary, sync, rename, sync of the folder
//! ```
//!
//! Guarantees: a key is durable before `sealed/<remote>` says so, and gone before that is taken back: what a crash leaves in
//! between seals or locks the pair, and never opens it. The folder is nobody else's before the first file is in it. A file
//! that cannot be used locks its own pair, with the reason and what to do. Refuses to write while another process does.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use milepost_engine::frame::NewFrame;
use milepost_engine::storage::{LockMode, OpenMode, StorageFile, write_all};
use milepost_engine::width::to_usize;
use milepost_engine::{Durability, Error, Pinned, Result, SiteName, Store};
use zeroize::Zeroizing;

use crate::tracking::{NOTE, PairState, SentRecord, ServingRecord, TransferRecord};

use super::file::{self, FileFault};
use super::line::KeyLine;
use super::pair_key::{KeyId, PairKey};
use super::records::{DistrustRecord, ProvenRecord, SealedRecord};
use super::ring::{KeyRing, MAX_KEYS, MAX_RETIRED, PairKeys, RingKey};

pub(crate) const FOLDER: &str = "keys";
const LOCK_FILE: &str = "keys/.lock";
const NEW_FILE: &str = "keys/.new";

/// What the keys of a remote come to.
///
/// # Errors
/// Those of the log. A file that cannot be used is no error: it locks the pair.
pub fn keys_of(store: &Store, remote: &SiteName) -> Result<PairKeys> {
    let sealed: Option<SealedRecord> = record(store, remote)?;
    Ok(match (read(store, remote), sealed) {
        (Found::Ring(ring), _) => PairKeys::Sealed {
            ring,
            proven: record(store, remote)?.map(|proven: ProvenRecord| KeyId(proven.key)),
        },
        (Found::Unusable(reason), _) => PairKeys::Locked(reason),
        (Found::Damaged(reason), _) => PairKeys::Damaged(reason),
        (Found::Nothing, None) => PairKeys::Unsealed,
        (Found::Nothing, Some(sealed)) => PairKeys::Locked(format!(
            "messages of {remote} are sealed, the last key known here being {}, and there is none in {}: nothing goes to it and \
             nothing of it is taken; put that file back, or draw a new key with `milepost key add … {remote} --to FILE` and \
             add it at {remote}",
            KeyId(sealed.newest),
            path(store, remote)
        )),
    })
}

/// True once the messages of a remote are sealed, whatever its file says now.
///
/// # Errors
/// Those of the log.
pub(crate) fn is_noted(store: &Store, remote: &SiteName) -> Result<bool> {
    Ok(record::<SealedRecord>(store, remote)?.is_some())
}

/// A remote and its keys.
#[derive(Debug)]
pub struct RemoteKeys {
    /// The neighbour.
    pub remote: SiteName,
    /// Since when its messages are sealed, microseconds since 1970; `None` when a crash came before that was noted.
    pub since: Option<i64>,
    /// What there is.
    pub keys: PairKeys,
}

/// The keys of a store's pairs, for who changes them.
pub struct Keys<'a> {
    store: &'a Store,
}

impl<'a> Keys<'a> {
    /// Those of this store.
    #[must_use]
    pub fn new(store: &'a Store) -> Keys<'a> {
        Keys { store }
    }

    /// A new key for the pair with `remote`, which is not added yet: hand its line to the neighbour, then add it.
    #[must_use]
    pub fn draw(&self, remote: &SiteName) -> KeyLine {
        KeyLine {
            sites: (self.store.site().clone(), remote.clone()),
            key: PairKey::draw(&**self.store.rng()),
        }
    }

    /// Draws a new key for the pair with `remote` and adds it; the line is for the neighbour.
    ///
    /// # Errors
    /// As [`Keys::add`].
    pub fn add_fresh(&self, remote: &SiteName) -> Result<KeyLine> {
        let line = self.draw(remote);
        self.add(remote, &line, true)?;
        Ok(line)
    }

    /// Adds a key that was drawn here or at the neighbour, durably; one that is here already is left as it is.
    ///
    /// # Errors
    /// `Invalid` for one that is for other sites; `Conflict` when the pair has two keys, or it was dropped here, or another
    /// remote has it, or the file that is there cannot be used; `Unavailable` while another process changes keys; `Full`.
    pub fn add(&self, remote: &SiteName, line: &KeyLine, drawn_here: bool) -> Result<KeyId> {
        let (own, id) = (self.store.site(), line.key.id());
        if remote == own || !line.is_for(own, remote) {
            let (one, other) = &line.sites;
            let text = format!("this key is for the sites {one} and {other}, and not for {own} and {remote}");
            return Err(Error::invalid(text));
        }
        let _lock = self.lock()?;
        let mut ring = self.ring_to_change(remote)?;
        if ring.find(id).is_none() {
            self.refuse_key(remote, id, &ring)?;
            let key = RingKey {
                key: line.key.again(),
                added: self.store.clock().wall_micros(),
                drawn_here,
            };
            ring.keys.insert(0, key);
            self.write(remote, &ring)?;
        }
        self.pin_sealed(remote, &ring)?;
        Ok(id)
    }

    /// Drops a key of a pair that has another, durably: what is sealed with it is late from now on, and lost. An id of which
    /// there is no key here is remembered as dropped.
    ///
    /// # Errors
    /// `Conflict` for the only key; `Invalid` when there are no keys of `remote`; as [`Keys::add`].
    pub fn drop_key(&self, remote: &SiteName, id: KeyId) -> Result<()> {
        let _lock = self.lock()?;
        let mut ring = self.ring_to_change(remote)?;
        if ring.keys.is_empty() {
            return Err(Error::invalid(format!("there is no key of {remote} here")));
        }
        if ring.keys.len() == 1 && ring.find(id).is_some() {
            return Err(Error::conflict(format!(
                "{id} is the only key of {remote}: add another one first (`milepost key add`), or let messages go and come \
                 unsealed again with --all --allow-unsealed"
            )));
        }
        ring.keys.retain(|one| one.key.id() != id);
        ring.retired.retain(|known| *known != id);
        ring.retired.insert(0, id);
        ring.retired.truncate(MAX_RETIRED);
        self.write(remote, &ring)?;
        self.pin_sealed(remote, &ring)
    }

    /// Drops all keys of a pair, damaged ones too, and lets its messages go and come unsealed again; false when there was
    /// nothing to drop.
    ///
    /// # Errors
    /// As [`Keys::add`].
    pub fn drop_all(&self, remote: &SiteName) -> Result<bool> {
        let _lock = self.lock()?;
        let storage = &**self.store.storage();
        let removed = match storage.unlink(&file_of(remote)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            gone => {
                let gone = gone.and_then(|()| storage.sync_dir(FOLDER));
                gone.map_err(|error| failed(self.store, remote, error))?;
                true
            }
        };
        let of_keys = [
            SealedRecord::key(remote),
            ProvenRecord::key(remote),
            DistrustRecord::key(remote),
        ];
        let mut pins = self.unpin(of_keys)?;
        let known = removed || !pins.is_empty();
        pins.extend(self.unpin(of_what_was_sent(remote))?);
        self.pin(pins)?;
        Ok(known)
    }

    /// All remotes that have keys, or should have, by name.
    ///
    /// # Errors
    /// Those of the log; `Internal` when the folder cannot be read.
    pub fn all(&self) -> Result<Vec<RemoteKeys>> {
        let storage = &**self.store.storage();
        let names = match storage.list(FOLDER) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(|error| Error::io("list the keys", storage.root().join(FOLDER), error))?,
        };
        // What is no name of a site is none of ours.
        let mut remotes: BTreeSet<SiteName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        for (key, _, _) in self.store.pinned_with_prefix(SealedRecord::PREFIX.as_bytes())? {
            let name = key
                .strip_prefix(SealedRecord::PREFIX.as_bytes())
                .unwrap_or_default();
            remotes.extend(std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()));
        }
        let all = remotes.into_iter().map(|remote| {
            let sealed: Option<SealedRecord> = record(self.store, &remote)?;
            let keys = keys_of(self.store, &remote)?;
            Ok(RemoteKeys {
                remote,
                since: sealed.map(|sealed| sealed.since),
                keys,
            })
        });
        all.collect()
    }

    /// What is there of a remote; nothing is an empty ring.
    fn ring_to_change(&self, remote: &SiteName) -> Result<KeyRing> {
        match read(self.store, remote) {
            Found::Ring(ring) => Ok(ring),
            Found::Nothing => Ok(KeyRing::default()),
            Found::Unusable(reason) => Err(Error::conflict(reason)),
            Found::Damaged(reason) => {
                Err(Error::corrupt(reason).at_path(self.store.storage().root().join(file_of(remote))))
            }
        }
    }

    /// Refuses a key that this pair cannot have.
    fn refuse_key(&self, remote: &SiteName, id: KeyId, ring: &KeyRing) -> Result<()> {
        if ring.is_retired(id) {
            let text =
                format!("the key {id} was dropped here; draw a new one with `milepost key add … --to FILE`");
            return Err(Error::conflict(text));
        }
        if ring.keys.len() >= MAX_KEYS {
            let ids: Vec<String> = ring.keys.iter().map(|one| one.key.id().to_string()).collect();
            return Err(Error::conflict(format!(
                "{remote} has {MAX_KEYS} keys already ({}, the newest first): drop the one that its site does not use any \
                 more with `milepost key drop`, then add the new one",
                ids.join(", ")
            )));
        }
        for other in self.all()? {
            if let PairKeys::Sealed { ring, .. } = &other.keys
                && other.remote != *remote
                && ring.find(id).is_some()
            {
                let text = format!(
                    "{} has this key, and could speak as {remote} with it; draw a new one",
                    other.remote
                );
                return Err(Error::conflict(text));
            }
        }
        Ok(())
    }

    /// Held while keys change; clears away what a killed one left.
    fn lock(&self) -> Result<Arc<dyn StorageFile>> {
        let storage = &**self.store.storage();
        let taken = || {
            storage.create_dir(FOLDER)?;
            // Before anything is in it: who opened a file once keeps it.
            storage.make_private(FOLDER)?;
            storage.sync_dir("")?;
            let lock = storage.open(LOCK_FILE, OpenMode::OpenOrCreate)?;
            let free = lock.try_lock(0, LockMode::Exclusive)?;
            if free {
                match storage.unlink(NEW_FILE) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                // What is found may be what a killed process put there or took away, and not be on disk.
                storage.sync_dir(FOLDER)?;
            }
            Ok((free, lock))
        };
        let path = storage.root().join(FOLDER);
        match taken().map_err(|error| Error::io("lock the keys", &path, error))? {
            (true, lock) => Ok(lock),
            (false, _) => {
                let text = "another process changes keys of this store; try again when it has ended";
                Err(Error::unavailable(text).at_path(path))
            }
        }
    }

    fn write(&self, remote: &SiteName, ring: &KeyRing) -> Result<()> {
        let storage = &**self.store.storage();
        let bytes = file::encode(ring, self.store.id());
        let written = || {
            let new = storage.open(NEW_FILE, OpenMode::OpenOrCreate)?;
            storage.make_private(NEW_FILE)?;
            new.set_len(0)?;
            write_all(&*new, &[&bytes], 0)?;
            new.sync_data()?;
            storage.rename(NEW_FILE, &file_of(remote))?;
            storage.sync_dir(FOLDER)
        };
        written().map_err(|error| failed(self.store, remote, error))
    }

    /// Notes which key is the newest. What was sent under others and is not confirmed goes again, so nobody is to know any more
    /// how far that was.
    fn pin_sealed(&self, remote: &SiteName, ring: &KeyRing) -> Result<()> {
        let mut pins = self.unpin(of_what_was_sent(remote))?;
        let known: Option<SealedRecord> = record(self.store, remote)?;
        let newest = ring.keys.first().map(|one| one.key.id().0);
        if let Some(newest) = newest.filter(|newest| known.is_none_or(|known| known.newest != *newest)) {
            let since = known.map_or_else(|| self.store.clock().wall_micros(), |known| known.since);
            pins.push(SealedRecord { since, newest }.pin(remote)?);
        }
        self.pin(pins)
    }

    /// What takes back those of these records that are there.
    fn unpin(&self, keys: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<Pinned>> {
        let mut pins = Vec::new();
        for key in keys {
            if self.store.pinned(&key)?.is_some() {
                pins.push(Pinned { key, value: None });
            }
        }
        Ok(pins)
    }

    fn pin(&self, pins: Vec<Pinned>) -> Result<()> {
        if pins.is_empty() {
            return Ok(());
        }
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        pins.into_iter().for_each(|pin| note.pin(pin));
        self.store.append_frames(vec![note], Durability::Synced).map(drop)
    }
}

/// What is in a remote's file.
enum Found {
    Ring(KeyRing),
    Nothing,
    /// With the reason, and what to do.
    Unusable(String),
    /// The same of one whose bytes are not what was written.
    Damaged(String),
}

fn read(store: &Store, remote: &SiteName) -> Found {
    let (storage, name, path) = (&**store.storage(), file_of(remote), path(store, remote));
    let found = || -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let file = match storage.open(&name, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Zeroizing::new(vec![0; to_usize(file.len()?).min(file::LONGEST + 1)]);
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    };
    let nothing_goes = format!("until then nothing goes to {remote} and nothing of it is taken");
    let bytes = match found() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Found::Nothing,
        Err(error) => {
            return Found::Unusable(format!(
                "the key file {path} cannot be read ({error}); {nothing_goes}"
            ));
        }
    };
    if !storage.is_private(&name).unwrap_or(false) {
        return Found::Unusable(format!(
            "the key file {path} is open to others than its owner: `chmod 600 {path}`, and if anybody may have read it, \
             replace the key; {nothing_goes}"
        ));
    }
    let fault = match file::decode(&bytes, store.id()) {
        Ok(ring) => return Found::Ring(ring),
        Err(FileFault::Damaged) => {
            return Found::Damaged(format!(
                "the key file {path} is damaged. Nothing is lost: what is due to {remote} stays queued, what came of it waits on \
                 its link, and other pairs go on; but nothing goes to {remote} and nothing of it is taken. Put the file back \
                 from a copy; without one, move it away, draw a new key with `milepost key add … {remote} --to FILE`, and \
                 add it at {remote}"
            ));
        }
        Err(FileFault::Newer(version)) => format!("has format {version} and needs a newer milepost"),
        Err(FileFault::OtherStore) => "is of another store: remove it, and add a new key".to_owned(),
    };
    Found::Unusable(format!("the key file {path} {fault}; {nothing_goes}"))
}

fn record<T: PairState>(store: &Store, remote: &SiteName) -> Result<Option<T>> {
    let pinned = store.pinned(&T::key(remote))?;
    pinned.map(|(value, _)| T::read(&value)).transpose()
}

/// The name of a site is never a path: letters, digits, dots, dashes, and no dot in front.
/// Records of what was sent, which may be sealed with what nobody opens any more.
fn of_what_was_sent(remote: &SiteName) -> [Vec<u8>; 3] {
    [
        SentRecord::key(remote),
        TransferRecord::key(remote),
        ServingRecord::key(remote),
    ]
}

fn file_of(remote: &SiteName) -> String {
    format!("{FOLDER}/{remote}")
}

fn path(store: &Store, remote: &SiteName) -> String {
    store.storage().root().join(file_of(remote)).display().to_string()
}

fn failed(store: &Store, remote: &SiteName, error: io::Error) -> Error {
    Error::io(
        "write a key file",
        store.storage().root().join(file_of(remote)),
        error,
    )
}
