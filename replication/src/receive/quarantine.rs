//! Quarantine: messages that are not ours to take, kept with the reason until an operator acts (R6).
//!
//! ```text
//! quarantine/<sender>-<16 hex digits of a digest>.mp    the message, byte for byte
//! quarantine/<sender>-<16 hex digits of a digest>.txt   the reason, a sentence
//! quarantine/<sender>-<16 hex digits of a digest>.damaged.mp, .damaged.txt   the same of one that came damaged over and over
//! ```
//!
//! The message itself stays on its link: what is kept here is for eyes. What a store had on its way that was replaced does not: this is all that
//! there is of it. A damaged one does not, and is here as it came; what it
//! should have brought is asked for again, and the copy goes once the stream goes on (`damaged`). The digest is of sender, generation and the range of
//! what it carries, or of the whole message where that cannot be read. The
//! same message again, though its sender says other things beside, is the same file, and its reason is the last one. Of one
//! sender at most sixteen are kept: a pair that is stopped goes on to be sent to, and the first messages say why. They go
//! when the message is taken after all, once its effect is durable, or the remote is removed.
//!
//! The reason is durable before the message is there, and goes behind it: no message is without one. What a crash left in
//! between is cleared when the phase is opened next.

use milepost_engine::storage::{OpenMode, Storage, write_all};
use milepost_engine::width::to_u64;
use milepost_engine::{Error, Phase, Result, SiteName, Store};
use serde::Serialize;

use crate::link::MessageId;
use crate::message::{Limits, MAX_MESSAGE_BYTES, decode_header};

pub(crate) const FOLDER: &str = "quarantine";
/// Most messages of one sender.
const OF_ONE_MAX: usize = 16;
/// Most damaged messages of one sender, beside those: who fills a folder with them leaves room for what is refused.
pub(super) const MOST_DAMAGED: usize = 4;
/// Most bytes of them together.
const MOST_DAMAGED_BYTES: u64 = 4 << 20;
/// What the names of damaged ones have before their ending.
const DAMAGED: &str = ".damaged";
/// Longest reason read back, in bytes.
const REASON_MAX: usize = 4096;

/// A message in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Name of the file with the message's bytes, under the store's directory.
    pub file: String,
    /// Who sent it, or `unknown`.
    pub sender: String,
    /// Its length.
    pub bytes: u64,
    /// Why it is there.
    pub reason: String,
    /// It came damaged over and over: nothing can be applied of it, and what it should have brought is asked for.
    pub damaged: bool,
}

/// Keeps a message and the reason, durably; `None` where there is no room for it.
///
/// # Errors
/// `Full` or `Internal` when the files cannot be written.
pub(super) fn keep(store: &Store, sender: &str, bytes: &[u8], reason: &str) -> Result<Option<Kept>> {
    let storage = &**store.storage();
    let kept = Kept::of(sender, bytes);
    let has_room = |names: &[String]| -> std::io::Result<bool> {
        let of_sender = |name: &&String| name.strip_suffix(".mp").is_some_and(|stem| is_of(stem, sender));
        Ok(names.iter().filter(of_sender).count() < OF_ONE_MAX)
    };
    let done = keep_as(storage, &kept, bytes, reason, has_room);
    match done {
        Ok(is_kept) => Ok(is_kept.then_some(kept)),
        Err(error) => Err(Error::io(
            "keep a message in quarantine",
            storage.root().join(&kept.0),
            error,
        )),
    }
}

/// Keeps a copy of a damaged message and the reason, durably; false where there is no room for it.
///
/// # Errors
/// As [`keep`].
pub(super) fn keep_damaged(store: &Store, sender: &str, bytes: &[u8], reason: &str) -> Result<bool> {
    let storage = &**store.storage();
    let kept = Kept(format!("{}{DAMAGED}", stem(sender, bytes)));
    let has_room = |names: &[String]| -> std::io::Result<bool> {
        let (mut count, mut held) = (0, to_u64(bytes.len()));
        for name in names.iter().filter(|name| is_damaged_of(name, sender, ".mp")) {
            count += 1;
            held += storage.open(&format!("{FOLDER}/{name}"), OpenMode::Read)?.len()?;
        }
        Ok(count < MOST_DAMAGED && held <= MOST_DAMAGED_BYTES)
    };
    keep_as(storage, &kept, bytes, reason, has_room)
        .map_err(|error| Error::io("keep a damaged message", storage.root().join(&kept.0), error))
}

/// Keeps one under a name, if it is there already or there is room for it.
fn keep_as(
    storage: &dyn Storage,
    Kept(name): &Kept,
    bytes: &[u8],
    reason: &str,
    has_room: impl FnOnce(&[String]) -> std::io::Result<bool>,
) -> std::io::Result<bool> {
    storage.create_dir(FOLDER)?;
    let names = storage.list(FOLDER)?;
    let known = names
        .iter()
        .any(|known| format!("{FOLDER}/{known}") == format!("{name}.mp"));
    if !known && !has_room(&names)? {
        return Ok(false);
    }
    let told = format!("{name}.txt");
    let shown = reason.as_bytes().get(..REASON_MAX).unwrap_or(reason.as_bytes());
    if known && read_reason(storage, &told).is_ok_and(|told| told == shown) {
        return Ok(true);
    }
    write_whole(storage, &told, shown)?;
    // Its name is durable before that of the message.
    storage.sync_dir(FOLDER)?;
    if !known {
        write_whole(storage, &format!("{name}.mp"), bytes)?;
        storage.sync_dir(FOLDER)?;
    }
    storage.sync_dir("")?;
    Ok(true)
}

/// What is kept of a message, if anything is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept(String);

impl Kept {
    /// Name of a message's files, without their ending: of what it carries, because its sender writes the rest anew whenever it
    /// sends that again.
    pub(super) fn of(sender: &str, bytes: &[u8]) -> Kept {
        Kept(stem(sender, bytes))
    }

    /// True when a message is this very copy, which is retried.
    pub(super) fn is_message(&self, id: &MessageId) -> bool {
        id.as_str().strip_suffix(".mp") == Some(&self.0)
    }
}

/// Removes what a crash left of messages that were about to be kept or forgotten. Only for who has the phase.
///
/// # Errors
/// `Internal` when the folder cannot be read or changed.
pub(super) fn clear_unfinished(store: &Store) -> Result<()> {
    let storage = &**store.storage();
    let clear = || -> std::io::Result<()> {
        let Some(names) = names(storage)? else {
            return Ok(());
        };
        let is_unfinished = |name: &&String| {
            let whole = name.strip_suffix(".tmp").unwrap_or(name);
            let stem = whole.strip_suffix(".mp").or_else(|| whole.strip_suffix(".txt"));
            // Other names are not ours.
            let stem = stem.filter(|stem| {
                let plain = stem.strip_suffix(DAMAGED).unwrap_or(stem);
                plain
                    .rsplit_once('-')
                    .is_some_and(|(sender, _)| is_of(plain, sender))
            });
            let lone = |stem: &str| !names.iter().any(|name| name.strip_suffix(".mp") == Some(stem));
            stem.is_some_and(|stem| name.ends_with(".tmp") || lone(stem))
        };
        for name in names.iter().filter(is_unfinished) {
            unlink(storage, &format!("{FOLDER}/{name}"))?;
        }
        Ok(())
    };
    clear().map_err(|error| Error::io("clear the quarantine", storage.root().join(FOLDER), error))
}

fn stem(sender: &str, bytes: &[u8]) -> String {
    let digest = match decode_header(bytes, &Limits::default()) {
        Ok(header) => {
            let mut what = header.from.id.unwrap_or_default().0.to_le_bytes().to_vec();
            what.extend_from_slice(&header.generation.to_le_bytes());
            for point in [header.previous, header.last] {
                let (position, back) = (point.position, point.back);
                let words = [position.epoch.0, position.lsn.0, position.chain.0, back.0];
                words
                    .iter()
                    .for_each(|word| what.extend_from_slice(&word.to_le_bytes()));
            }
            xxhash_rust::xxh3::xxh3_64(&what)
        }
        Err(_) => xxhash_rust::xxh3::xxh3_64(bytes),
    };
    format!("{FOLDER}/{sender}-{digest:016x}")
}

/// Removes what is kept of messages, if anything is, durably: they were taken after all.
///
/// # Errors
/// `Internal` when the files cannot be removed.
pub(super) fn forget<'a>(store: &Store, taken: impl IntoIterator<Item = &'a Kept>) -> Result<()> {
    let storage = &**store.storage();
    let forget = || -> std::io::Result<()> {
        let mut removed = false;
        for Kept(name) in taken {
            for ending in ["mp", "txt"] {
                removed |= unlink(storage, &format!("{name}.{ending}"))?;
            }
        }
        if removed { storage.sync_dir(FOLDER) } else { Ok(()) }
    };
    forget().map_err(|error| Error::io("clear the quarantine", storage.root().join(FOLDER), error))
}

/// False when there was none.
fn unlink(storage: &dyn Storage, name: &str) -> std::io::Result<bool> {
    match storage.unlink(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true),
    }
}

/// Names in the folder, sorted; `None` without one.
fn names(storage: &dyn Storage) -> std::io::Result<Option<Vec<String>>> {
    match storage.list(FOLDER) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        names => names.map(|mut names| {
            names.sort();
            Some(names)
        }),
    }
}

/// Removes what is kept of a sender.
///
/// # Errors
/// `Internal` when the folder cannot be read or changed.
pub(crate) fn clear(store: &Store, sender: &SiteName) -> Result<()> {
    let storage = &**store.storage();
    let clear = || -> std::io::Result<()> {
        // Sorted: a message goes before its reason.
        let Some(names) = names(storage)? else {
            return Ok(());
        };
        let of_sender = |name: &&String| {
            let stem = name.strip_suffix(".mp").or_else(|| name.strip_suffix(".txt"));
            stem.is_some_and(|stem| is_of(stem.strip_suffix(DAMAGED).unwrap_or(stem), sender.as_str()))
        };
        for name in names.iter().filter(of_sender) {
            unlink(storage, &format!("{FOLDER}/{name}"))?;
        }
        storage.sync_dir(FOLDER)
    };
    clear().map_err(|error| Error::io("clear the quarantine", storage.root().join(FOLDER), error))
}

/// Removes what is kept of a sender's damaged messages, durably.
///
/// # Errors
/// As [`clear`].
pub(super) fn clear_damaged(store: &Store, sender: &SiteName) -> Result<()> {
    let storage = &**store.storage();
    let clear = || -> std::io::Result<()> {
        let is_one = |name: &&String| {
            [".mp", ".txt"]
                .iter()
                .any(|ending| is_damaged_of(name, sender.as_str(), ending))
        };
        let mut removed = false;
        for name in names(storage)?.unwrap_or_default().iter().filter(is_one) {
            removed |= unlink(storage, &format!("{FOLDER}/{name}"))?;
        }
        if removed { storage.sync_dir(FOLDER) } else { Ok(()) }
    };
    clear().map_err(|error| Error::io("clear the quarantine", storage.root().join(FOLDER), error))
}

/// True for a file that is kept of a sender's damaged messages.
fn is_damaged_of(name: &str, sender: &str, ending: &str) -> bool {
    let stem = name
        .strip_suffix(ending)
        .and_then(|stem| stem.strip_suffix(DAMAGED));
    stem.is_some_and(|stem| is_of(stem, sender))
}

/// True for the name, without its ending, of a file that is kept of a sender.
fn is_of(stem: &str, sender: &str) -> bool {
    let digest = stem
        .strip_prefix(sender)
        .and_then(|digest| digest.strip_prefix('-'));
    digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Writes a file under a temporary name and gives it its own when it is whole.
fn write_whole(storage: &dyn Storage, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = format!("{name}.tmp");
    let file = storage.open(&temporary, OpenMode::OpenOrCreate)?;
    file.set_len(0)?;
    write_all(&*file, &[bytes], 0)?;
    file.sync_data()?;
    storage.rename(&temporary, name)
}

/// A message's bytes. `file` is as [`quarantined`] gave it.
///
/// # Errors
/// `Invalid` when there is none of that name; `Internal` when it cannot be read.
pub fn read_message(store: &Store, file: &str) -> Result<Vec<u8>> {
    let storage = &**store.storage();
    if quarantined(store)?.iter().all(|one| one.file != file) {
        return Err(Error::invalid(format!("no message was set aside as {file}")));
    }
    let read = || -> std::io::Result<Vec<u8>> {
        let from = storage.open(file, OpenMode::Read)?;
        let len = from.len()?.min(to_u64(MAX_MESSAGE_BYTES));
        let mut bytes = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match from.read_at(rest, to_u64(at))? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                more => at += more,
            }
        }
        Ok(bytes)
    };
    read().map_err(|error| Error::io("read a message in quarantine", storage.root().join(file), error))
}

/// Removes what is kept of one message; what waits on its link stays there. Takes the receive phase: who has it may be about to
/// keep the same.
///
/// # Errors
/// `Conflict` naming who has the receive phase; `Invalid` when there is none of that name; `Internal` when it cannot be removed.
pub fn drop_set_aside(store: &Store, file: &str) -> Result<()> {
    let _lock = store.lock_phase(Phase::Receive)?;
    if quarantined(store)?.iter().all(|one| one.file != file) {
        return Err(Error::invalid(format!("no message was set aside as {file}")));
    }
    remove_message(store, file)
}

/// Removes one message and its reason, durably. Removing what is gone is success.
pub(super) fn remove_message(store: &Store, file: &str) -> Result<()> {
    let stem = file.strip_suffix(".mp").unwrap_or(file);
    forget(store, [&Kept(stem.to_owned())])
}

/// Messages in quarantine, by file name.
///
/// # Errors
/// `Internal` when the folder cannot be read.
pub fn quarantined(store: &Store) -> Result<Vec<Quarantined>> {
    let storage = &**store.storage();
    let names = names(storage);
    let names =
        names.map_err(|error| Error::io("list the quarantine", storage.root().join(FOLDER), error))?;
    let names = names.unwrap_or_default();
    let mut found = Vec::new();
    for name in names.iter().filter_map(|name| name.strip_suffix(".mp")) {
        let reason = read_reason(storage, &format!("{FOLDER}/{name}.txt")).unwrap_or_default();
        let reason = String::from_utf8_lossy(&reason).into_owned();
        let file = format!("{FOLDER}/{name}.mp");
        let bytes = storage.open(&file, OpenMode::Read).and_then(|file| file.len());
        let sender = name.rsplit_once('-').map_or(name, |(sender, _)| sender);
        found.push(Quarantined {
            sender: sender.to_owned(),
            bytes: bytes.unwrap_or_default(),
            damaged: name.ends_with(DAMAGED),
            file,
            reason,
        });
    }
    Ok(found)
}

fn read_reason(storage: &dyn Storage, name: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; REASON_MAX];
    let read = storage.open(name, OpenMode::Read)?.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use milepost_engine::Options;

    use super::*;

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        let store = Options::new()
            .segment_bytes(1 << 20)
            .init(&root, "bern".parse().unwrap())
            .unwrap();
        (dir, store, root.join(FOLDER))
    }

    fn reasons(store: &Store) -> Vec<String> {
        let all = quarantined(store).unwrap();
        all.into_iter().map(|kept| kept.reason).collect()
    }

    #[test]
    fn the_reason_is_there_before_the_message_and_the_last_one_is_shown() {
        let (_dir, store, folder) = store();
        let Kept(name) = Kept::of("hq", b"message");
        let path = |ending: &str| store.storage().root().join(format!("{name}.{ending}"));
        // Nothing can be written under that name, as if the power failed there.
        std::fs::create_dir_all(path("mp.tmp")).unwrap();
        keep(&store, "hq", b"message", "a fork").unwrap_err();
        assert_eq!(std::fs::read(path("txt")).unwrap(), b"a fork");
        assert!(!path("mp").exists());
        std::fs::remove_dir(path("mp.tmp")).unwrap();
        keep(&store, "hq", b"message", "a fork").unwrap();
        assert_eq!(reasons(&store), ["a fork"]);
        keep(&store, "hq", b"message", "a loop").unwrap();
        assert_eq!(reasons(&store), ["a loop"]);
        // As an earlier program left it.
        std::fs::remove_file(path("txt")).unwrap();
        keep(&store, "hq", b"message", "a loop").unwrap();
        assert_eq!(reasons(&store), ["a loop"]);
        for number in 1..20u8 {
            keep(&store, "hq", &[number], "more").unwrap();
        }
        assert_eq!(reasons(&store).len(), OF_ONE_MAX);
        keep(&store, "hq", b"message", "again").unwrap();
        assert!(
            reasons(&store).contains(&"again".to_owned()),
            "though there are as many as can be"
        );
        forget(&store, [&Kept::of("hq", b"message")]).unwrap();
        assert_eq!(reasons(&store).len(), OF_ONE_MAX - 1);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2 * (OF_ONE_MAX - 1));
    }

    #[test]
    fn what_a_crash_left_is_cleared_and_nothing_else() {
        let (_dir, store, folder) = store();
        clear_unfinished(&store).unwrap();
        keep(&store, "hq", b"message", "a fork").unwrap();
        let stem = "hq-3-0123456789abcdef";
        for name in ["mp.tmp", "txt.tmp", "txt"] {
            std::fs::write(folder.join(format!("{stem}.{name}")), "half").unwrap();
        }
        for name in ["notes.txt", "notes.tmp"] {
            std::fs::write(folder.join(name), "mine").unwrap();
        }
        clear_unfinished(&store).unwrap();
        let mut left = names(&**store.storage()).unwrap().unwrap();
        left.retain(|name| !name.starts_with("notes"));
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(reasons(&store), ["a fork"]);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 4);
    }
}
