//! Quarantine: messages that are not ours to take, kept with the reason until an operator acts (R6).
//!
//! ```text
//! quarantine/<sender>-<16 hex digits of a digest>.mp    the message, byte for byte
//! quarantine/<sender>-<16 hex digits of a digest>.txt   the reason, a sentence
//! ```
//!
//! The message itself stays on its link: what is kept here is for eyes. The digest is of sender, generation and the range of
//! what it carries, or of the whole message where that cannot be read. A file is written once; the
//! same message again, though its sender says other things beside, is the same file. Of one sender at most sixteen are kept: a pair that is stopped goes
//! on to be sent to, and the first messages say why. They go when the message is taken after all, or the remote
//! is removed.

use milepost_engine::storage::{OpenMode, Storage};
use milepost_engine::width::to_u64;
use milepost_engine::{Error, Result, SiteName, Store};
use serde::Serialize;

use crate::message::{Limits, decode_header};

const FOLDER: &str = "quarantine";
/// Most messages of one sender.
const OF_ONE_MAX: usize = 16;
/// Longest reason read back, in bytes.
const REASON_MAX: usize = 4096;

/// A message in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Name of the file with the message's bytes, under the store's directory.
    pub file: String,
    /// Why it is there.
    pub reason: String,
}

/// Keeps a message and the reason, durably.
///
/// # Errors
/// `Full` or `Internal` when the files cannot be written.
pub(super) fn keep(store: &Store, sender: &str, bytes: &[u8], reason: &str) -> Result<()> {
    let storage = &**store.storage();
    let name = stem(sender, bytes);
    let path = storage.root().join(&name);
    let write = || -> std::io::Result<()> {
        storage.create_dir(FOLDER)?;
        let names = storage.list(FOLDER)?;
        let of_sender = |name: &&String| name.strip_suffix(".mp").is_some_and(|stem| is_of(stem, sender));
        let known = names
            .iter()
            .any(|known| format!("{FOLDER}/{known}") == format!("{name}.mp"));
        if known || names.iter().filter(of_sender).count() >= OF_ONE_MAX {
            return Ok(());
        }
        write_whole(storage, &format!("{name}.mp"), bytes)?;
        write_whole(storage, &format!("{name}.txt"), reason.as_bytes())?;
        storage.sync_dir(FOLDER)?;
        storage.sync_dir("")
    };
    write().map_err(|error| Error::io("keep a message in quarantine", path, error))
}

/// Name of a message's files, without their ending: of what it carries, because its sender writes the rest anew whenever it
/// sends that again.
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

/// Removes what is kept of a message, if anything is: it was taken after all.
///
/// # Errors
/// `Internal` when the files cannot be removed.
pub(super) fn forget(store: &Store, sender: &SiteName, bytes: &[u8]) -> Result<()> {
    let (storage, name) = (&**store.storage(), stem(sender.as_str(), bytes));
    for ending in ["mp", "txt"] {
        match storage.unlink(&format!("{name}.{ending}")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(
                    "clear the quarantine",
                    storage.root().join(name),
                    error,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes what is kept of a sender.
///
/// # Errors
/// `Internal` when the folder cannot be read or changed.
pub(crate) fn clear(store: &Store, sender: &SiteName) -> Result<()> {
    let storage = &**store.storage();
    let clear = || -> std::io::Result<()> {
        let names = match storage.list(FOLDER) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        let of_sender = |name: &&String| {
            let stem = name.strip_suffix(".mp").or_else(|| name.strip_suffix(".txt"));
            stem.is_some_and(|stem| is_of(stem, sender.as_str()))
        };
        for name in names.iter().filter(of_sender) {
            storage.unlink(&format!("{FOLDER}/{name}"))?;
        }
        storage.sync_dir(FOLDER)
    };
    clear().map_err(|error| Error::io("clear the quarantine", storage.root().join(FOLDER), error))
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
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_at(&[rest], to_u64(written))? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            more => written += more,
        }
    }
    file.sync_data()?;
    storage.rename(&temporary, name)
}

/// Messages in quarantine, by file name.
///
/// # Errors
/// `Internal` when the folder cannot be read.
pub fn quarantined(store: &Store) -> Result<Vec<Quarantined>> {
    let storage = &**store.storage();
    let mut names = match storage.list(FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::io(
                "list the quarantine",
                storage.root().join(FOLDER),
                error,
            ));
        }
    };
    names.sort();
    let mut found = Vec::new();
    for name in names.iter().filter_map(|name| name.strip_suffix(".mp")) {
        let reason = read_reason(storage, &format!("{FOLDER}/{name}.txt")).unwrap_or_default();
        found.push(Quarantined {
            file: format!("{FOLDER}/{name}.mp"),
            reason,
        });
    }
    Ok(found)
}

fn read_reason(storage: &dyn Storage, name: &str) -> std::io::Result<String> {
    let mut bytes = vec![0; REASON_MAX];
    let read = storage.open(name, OpenMode::Read)?.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
