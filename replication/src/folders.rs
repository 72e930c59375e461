//! [`folders`]: what replication keeps in folders of its own in a store's directory, beside log and queue, in files and bytes.
//!
//! A file that goes meanwhile, or a folder that is not there, counts as nothing. Refuses to look into what is in them.

use milepost_engine::storage::OpenMode;
use milepost_engine::{Error, Result, Store};
use serde::Serialize;

use crate::keys::KEYS_FOLDER;
use crate::receive::{PARTS_FOLDER, QUARANTINE_FOLDER};

/// What one folder holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Folder {
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Folders {
    /// Pieces of transactions that are not whole yet.
    pub parts: Folder,
    /// Messages that were set aside, with their reasons.
    pub quarantine: Folder,
    /// Keys of pairs.
    pub keys: Folder,
}

/// Looks at all of them.
///
/// # Errors
/// `Internal` for a folder that is there and cannot be listed.
pub fn folders(store: &Store) -> Result<Folders> {
    Ok(Folders {
        parts: folder(store, PARTS_FOLDER)?,
        quarantine: folder(store, QUARANTINE_FOLDER)?,
        keys: folder(store, KEYS_FOLDER)?,
    })
}

fn folder(store: &Store, name: &str) -> Result<Folder> {
    let storage = &**store.storage();
    let names = match storage.list(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Folder::default()),
        names => names.map_err(|error| Error::io("list a folder", storage.root().join(name), error))?,
    };
    let lens = names.iter().filter_map(|file| {
        let file = storage.open(&format!("{name}/{file}"), OpenMode::Read);
        file.and_then(|file| file.len()).ok()
    });
    Ok(lens.fold(Folder::default(), |all, len| Folder {
        files: all.files + 1,
        bytes: all.bytes.saturating_add(len),
    }))
}
