//! Making a store.
//!
//! ```text
//! store.new locked ─► folders, space ─► first segment with the first block, durable ─► store.new synced ─► named store
//! ```
//!
//! The file `store` comes last: without it there is no store, and what an interrupted attempt left is
//! cleared away by the next one.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockHeader, BlockKind, HEADER_LEN, Owner};
use crate::clock::Rng;
use crate::log::{Cursor, SegmentDir, newest};
use crate::storage::write_all;
use crate::storage::{LockMode, OpenMode, Storage};
use crate::{Chain, Epoch, Error, ErrorKind, Lsn, Result, SiteName, Store, StoreId};

use super::Options;
use super::identity::{Identity, NEW_FILE, PUT_BACK, SEGMENT_BYTES, STORE_FILE};
use super::lineage::{self, Beginning, Fork};
use super::open::refuse_file_system;
use super::space::{self, Space};

/// Bytes that an interrupted attempt may have written of a log: its first block, padded.
const MOST_OF_AN_ATTEMPT: Lsn = Lsn(64 << 10);
/// Pause while another process makes the store.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Makes the files of a new store. The file `store` comes last: without it there is no store, and what
/// an interrupted attempt left is cleared away.
pub(super) fn make(storage: &Arc<dyn Storage>, site: SiteName, options: &Options) -> Result<()> {
    options.check()?;
    if !SEGMENT_BYTES.contains(&options.segment_bytes) {
        return Err(Error::invalid(format!(
            "a segment of {} bytes is not 1 MiB to 1 GiB",
            options.segment_bytes
        )));
    }
    options.space.check(options.segment_bytes)?;
    let root = storage.root().to_path_buf();
    let io = |action: &'static str| {
        let root = root.clone();
        move |error| Error::io(action, root, error)
    };
    storage.create_dir("").map_err(io("make the store's folder"))?;
    refuse_file_system(&**storage, options)?;
    check_vacant(storage)?;
    // Whoever else makes a store here is kept out until this one has its name; who opened the file
    // before it got that name finds the store when it looks again.
    let making = storage
        .open(NEW_FILE, OpenMode::OpenOrCreate)
        .map_err(io("begin a store"))?;
    if !making
        .try_lock(0, LockMode::Exclusive)
        .map_err(io("lock a new store"))?
    {
        let text = "another process is making a store here; try again in a moment";
        return Err(Error::unavailable(text).at_path(&root));
    }
    check_vacant(storage)?;
    clear_attempt(&**storage).map_err(io("clear an interrupted attempt"))?;
    storage.sync_dir("").map_err(io("sync the store's folder"))?;
    let rng = &*options.rng;
    let owner = Owner {
        id: StoreId((u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())),
        secret: rng.next_u64(),
    };
    if options.space != Space::default() {
        options.space.write(&**storage, owner)?;
    }
    write_first_block(storage, owner, options)?;
    let created = options.clock.wall_micros();
    Identity {
        owner,
        site,
        segment_bytes: options.segment_bytes,
        pad_to: options.pad_to,
        created,
    }
    .write(&**storage, &*making)
}

/// Makes the folders, and removes what an interrupted attempt left in them and beside them.
fn clear_attempt(storage: &dyn Storage) -> std::io::Result<()> {
    for folder in ["log", "queue"] {
        storage.create_dir(folder)?;
        for name in storage.list(folder)? {
            storage.unlink(&format!("{folder}/{name}"))?;
        }
    }
    for name in storage.list("")? {
        if matches!(name.as_str(), space::SPACE_FILE | space::NEW_FILE) {
            storage.unlink(&name)?;
        }
    }
    Ok(())
}

/// Opens the store of `site`, or makes it: [`Options::open_or_init`].
pub(super) fn open_or_make(storage: &Arc<dyn Storage>, site: &SiteName, options: &Options) -> Result<Store> {
    let clock = &options.clock;
    let started = clock.monotonic();
    loop {
        match options.clone().open_in(Arc::clone(storage)) {
            Err(error) if error.kind() == ErrorKind::NoStore => {}
            Ok(store) if store.site() != site => {
                let text = format!("the store here is of site {}, not {site}", store.site());
                return Err(Error::conflict(text).at_path(storage.root()));
            }
            other => return other,
        }
        match options.clone().init_in(Arc::clone(storage), site.clone()) {
            // Somebody is making it, or was faster.
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && clock.monotonic().saturating_sub(started) < options.lock_timeout =>
            {
                clock.sleep(LOOK_AGAIN);
            }
            Err(error) if error.kind() == ErrorKind::Conflict && is_store(&**storage)? => {}
            other => return other,
        }
    }
}

fn is_store(storage: &dyn Storage) -> Result<bool> {
    let names = storage.list("");
    let names = names.map_err(|error| Error::io("list the store's folder", storage.root(), error))?;
    Ok(names.iter().any(|name| name == STORE_FILE))
}

/// Refuses a folder that holds a store or something else than an interrupted attempt.
fn check_vacant(storage: &Arc<dyn Storage>) -> Result<()> {
    let root = storage.root();
    let names = storage.list("");
    let names = names.map_err(|error| Error::io("list the store's folder", root, error))?;
    if names.iter().any(|name| name == STORE_FILE) {
        return Err(Error::conflict("there is a store here already").at_path(root));
    }
    if names.iter().any(|name| name == "log") {
        refuse_orphaned_log(storage)?;
    }
    let foreign = names.iter().find(|name| {
        !matches!(
            name.as_str(),
            "log" | "queue" | NEW_FILE | space::SPACE_FILE | space::NEW_FILE
        )
    });
    match foreign {
        Some(name) => {
            Err(Error::conflict(format!("the folder is not empty, it holds {name:?}")).at_path(root))
        }
        None => Ok(()),
    }
}

/// True for the log of a store whose file `store` was lost: an interrupted attempt leaves at most one segment with at
/// most its first block.
pub(super) fn is_orphaned_log(storage: &Arc<dyn Storage>) -> Result<bool> {
    let dir = Arc::new(SegmentDir::new(
        Arc::clone(storage),
        BlockKind::Log,
        Owner::default(),
        || Lsn::ZERO,
    ));
    let attempt = match dir.list()?.as_slice() {
        [] => true,
        [first] if *first == Lsn::ZERO => {
            let segment = dir.open(*first)?;
            let mut cursor = Cursor::new(&dir, &segment);
            let first_block = BlockHeader::parse(cursor.bytes(0, HEADER_LEN)?);
            let end = first_block.map_or(MOST_OF_AN_ATTEMPT, |header| header.end());
            end <= MOST_OF_AN_ATTEMPT && !cursor.dirty_behind(end)?
        }
        _ => false,
    };
    Ok(!attempt)
}

/// A log without its file `store` is no place for another.
fn refuse_orphaned_log(storage: &Arc<dyn Storage>) -> Result<()> {
    if !is_orphaned_log(storage)? {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the folder holds the log of a store whose file `store` is missing; nothing was changed: {PUT_BACK}, or choose \
         another folder"
    ))
    .at_path(storage.root()))
}

/// The first block holds the record of the first lineage epoch.
fn write_first_block(storage: &Arc<dyn Storage>, owner: Owner, options: &Options) -> Result<()> {
    let rng: &dyn Rng = &*options.rng;
    let dir = Arc::new(SegmentDir::new(
        Arc::clone(storage),
        BlockKind::Log,
        owner,
        || Lsn::ZERO,
    ));
    let beginning = Beginning {
        owner,
        epoch: Epoch(rng.next_u64()),
        nonce: rng.next_u64(),
        time: options.clock.wall_micros(),
        pad_to: options.pad_to,
    };
    let fork = Fork {
        parent: Epoch(0),
        at: Lsn::ZERO,
        begins: Lsn::ZERO,
        chain: Chain::genesis(owner.id),
    };
    let block = lineage::first_block(&beginning, fork, Vec::new())?;
    // Its name is made durable with the segment's.
    newest::write(&**storage, owner.id, Lsn::ZERO);
    dir.place_segment(Lsn::ZERO, options.segment_bytes, 0, rng)?;
    let segment = dir.open(Lsn::ZERO)?;
    let written = write_all(&*segment.file, &[&block.bytes], 0).and_then(|()| segment.file.sync_data());
    written.map_err(|error| Error::io("write the first block", dir.path(&segment), error))
}
