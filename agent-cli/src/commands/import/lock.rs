//! One import into a store at a time: a lock on the file `import.lock` in the store's folder.
//!
//! Where an import stopped is read before its first commit. Two that resume the same input side by side
//! would both go on from there and commit its lines twice; so the lock is taken before that, and held to
//! the end. The kernel drops it with its holder, however that ends; the empty file stays.

use std::fs::{File, TryLockError};

use milepost_engine::Store;

use crate::failure::{Exit, Failure, Outcome};

const LOCK_FILE: &str = "import.lock";

/// Takes the lock; it is held as long as the file is open.
///
/// # Errors
/// Exit 3 when another import into the store runs, exit 1 when the file cannot be made or locked.
pub fn take(store: &Store) -> Outcome<File> {
    let path = store.root().join(LOCK_FILE);
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = opened.map_err(|error| Failure::file("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Exit::Held,
            format!(
                "another import into {} is running; nothing was imported: run again when it has ended",
                store.root().display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(Failure::file("lock", &path, &error)),
    }
}
