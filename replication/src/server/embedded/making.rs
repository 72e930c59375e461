//! Making a message store that is not there yet, while other servers may be doing the same.
//!
//! The store is made in a folder beside its place and moved there whole, by a rename that succeeds only
//! while the place is missing or empty: so the first server's store is the one, nobody opens a half-made
//! one, and nobody clears another's attempt away. A maker that is killed leaves its folder
//! `<store>.making-<16 hex>` behind, which nobody reads.

use std::fs;
use std::path::{Path, PathBuf};

use milepost_engine::clock::{Rng, SystemRng};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Durability, Error, Options, Pinned, Result, SiteName, Store};

/// The file that makes a folder a store.
const IDENTITY: &str = "store";

/// Pinned in every message store from the start: the version of its records, 4 bytes little endian.
const PINNED_FORMAT: &[u8] = b"message-store/format";
/// The version that this program writes and reads.
const FORMAT: u32 = 1;

/// True for a message store, false for the store of a site.
///
/// # Errors
/// As [`Store::pinned`].
pub fn is_message_store(store: &Store) -> Result<bool> {
    Ok(store.pinned(PINNED_FORMAT)?.is_some())
}

/// Refuses the store of a site, and a message store of a newer version.
pub(super) fn check(store: &Store) -> Result<()> {
    let Some((value, lsn)) = store.pinned(PINNED_FORMAT)? else {
        return Err(Error::invalid(format!(
            "this is the store of site {}, not a message store; give the server a folder of its own",
            store.site()
        )));
    };
    if value == FORMAT.to_le_bytes() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the message store's records are not of version {FORMAT}, which this program knows; run a newer one"
    ))
    .at_lsn(lsn))
}

/// Marks a fresh store as a message store.
fn mark(store: &Store) -> Result<()> {
    let mut frame = NewFrame::of_kind(FrameKind::CONTROL, Vec::new());
    frame.pin(Pinned {
        key: PINNED_FORMAT.to_vec(),
        value: Some(FORMAT.to_le_bytes().to_vec()),
    });
    store.append_frames(vec![frame], Durability::Synced).map(|_| ())
}

/// Makes the store in `dir` unless there is one.
pub(super) fn make_if_missing(dir: &Path, options: &Options) -> Result<()> {
    if dir.join(IDENTITY).exists() {
        return Ok(());
    }
    let (parent, making) = beside(dir)?;
    fs::create_dir_all(&parent)
        .map_err(|error| Error::io("make the folder of the message store", &parent, error))?;
    let store = options.clone().init(&making, SiteName::new("server")?)?;
    mark(&store)?;
    store.close()?;
    match fs::rename(&making, dir) {
        Ok(()) => {
            let synced = fs::File::open(&parent).and_then(|folder| folder.sync_all());
            synced.map_err(|error| Error::io("sync the folder of the message store", &parent, error))
        }
        Err(error) => {
            // Its bytes mean nothing to anybody; what cannot be removed only takes room.
            let _ = fs::remove_dir_all(&making);
            if dir.join(IDENTITY).exists() {
                return Ok(());
            }
            Err(Error::io(
                "put the new message store in its place, which must be missing or empty",
                dir,
                error,
            ))
        }
    }
}

/// The folder that will hold the store, and a new name in it.
fn beside(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let absolute =
        std::path::absolute(dir).map_err(|error| Error::io("find the message store", dir, error))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::invalid("a message store needs a folder of its own").at_path(dir));
    };
    let mut making = name.to_os_string();
    making.push(format!(".making-{:016x}", SystemRng.next_u64()));
    Ok((parent.to_path_buf(), parent.join(making)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many servers start at once on a store that is not there: they must all end in the same one.
    #[test]
    fn servers_that_start_together_make_one_store() {
        let dir = tempfile::TempDir::new().unwrap();
        let place = dir.path().join("group/mail");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        make_if_missing(&place, &Options::new().segment_bytes(1 << 20)).unwrap();
                        Options::new().open(&place).unwrap().id()
                    })
                })
                .collect();
            starters
                .into_iter()
                .map(|starter| starter.join().unwrap())
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(
            fs::read_dir(dir.path().join("group")).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn a_sites_store_is_no_message_store_whatever_its_name_and_a_newer_version_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let options = Options::new().segment_bytes(1 << 20);
        let site = options
            .clone()
            .init(dir.path().join("s"), "server".parse().unwrap());
        let site = site.unwrap();
        assert!(!is_message_store(&site).unwrap());
        let told = check(&site).unwrap_err().to_string();
        assert!(told.contains("the store of site server"), "{told}");
        make_if_missing(&dir.path().join("m"), &options).unwrap();
        let store = options.open(dir.path().join("m")).unwrap();
        assert!(is_message_store(&store).unwrap());
        check(&store).unwrap();
        let mut frame = NewFrame::of_kind(FrameKind::CONTROL, Vec::new());
        frame.pin(Pinned {
            key: PINNED_FORMAT.to_vec(),
            value: Some(vec![2, 0, 0, 0]),
        });
        store.append_frames(vec![frame], Durability::Synced).unwrap();
        assert!(check(&store).unwrap_err().to_string().contains("newer"));
    }

    #[test]
    fn an_empty_folder_becomes_the_store_and_a_full_one_is_left_alone() {
        let dir = tempfile::TempDir::new().unwrap();
        let options = Options::new().segment_bytes(1 << 20);
        make_if_missing(dir.path(), &options).unwrap();
        assert!(dir.path().join(IDENTITY).exists());
        let full = dir.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("letters"), b"mine").unwrap();
        assert!(
            make_if_missing(&full, &options)
                .unwrap_err()
                .to_string()
                .contains("missing or empty")
        );
        assert_eq!(fs::read(full.join("letters")).unwrap(), b"mine");
    }
}
