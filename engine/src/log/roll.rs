//! Rolling to a new segment (S2), and the spares made ahead of need.
//!
//! ```text
//! predecessor durable to its end ─► spare or new file, full length, zero, synced ─► renamed ─► folder synced
//!   ─► TailSegment published ─► first block may be written
//! ```
//!
//! A segment appears under its name only at full length and all zero, so that whoever opens it, at any
//! moment and after any death of the roller, may keep it open.

use std::sync::Arc;

use crate::clock::Rng;
use crate::planted::{self, Bug};
use crate::storage::{Cell, OpenMode, StorageFile};
use crate::sync::MutexGuard;
use crate::{Error, ErrorKind, Lsn, Result};

use super::Log;
use super::control::Tail;
use super::form::segment_name;
use super::recover::zero;
use super::segment::SegmentDir;
use super::walk::BlockWalk;

/// Space is given back in pages of this many bytes,
const RELEASE_UNIT: u64 = 4096;
/// and only where it is worth a call: 256 KiB.
const RELEASE_LEAST: u64 = 256 << 10;

const MAKING: &str = ".making";
const READY: &str = ".ready";
/// Finished, of space that is only allocated.
const ROOM: &str = ".room";
/// Where the second block of the active segment has so many bytes, much is written at once, and zeros would only be written to
/// be written over.
const MUCH: u64 = 32 << 10;
const SPARE: &str = "spare-";

impl Log {
    /// Begins a new segment at `tail.at`, long enough for a block of `block_len` bytes; returns its
    /// first LSN. The caller holds the append lock and has nothing unwritten.
    pub(super) fn roll(&self, tail: Tail, block_len: u64, _exclusive: &MutexGuard<'_, ()>) -> Result<Lsn> {
        let early = planted::is(Bug::EarlyRoll);
        if !early {
            self.make_durable_locked(tail.at)?;
        }
        assert!(
            early || self.control.durable() >= tail.at,
            "S2: a predecessor is durable to its end"
        );
        let first = tail.at;
        // An intent without length: who dies from here on leaves a segment without blocks, which
        // repair makes the active one.
        self.control.announce(first, 0);
        let placed = self
            .dir
            .place_segment(first, self.segment_bytes, block_len, &*self.rng);
        let filled = match placed {
            Ok(filled) => filled,
            Err(error) => {
                if error.kind() == ErrorKind::Closed {
                    self.control.set_poisoned(self.generation);
                } else if self.dir.list()?.binary_search(&first).is_err() {
                    self.control.clear_intent();
                }
                return Err(error);
            }
        };
        let filled = if filled {
            first.plus(self.segment_bytes)
        } else {
            first
        };
        self.control.cells().store(Cell::Filled, filled.0);
        self.control.publish(Tail {
            segment: first,
            ..tail
        });
        self.control.clear_intent();
        super::newest::write(&**self.dir.storage(), self.dir.owner().id, first);
        self.release_rest(tail);
        Ok(first)
    }

    /// A segment that is sealed early (`rotate`, a large block) gives back what it does not use.
    fn release_rest(&self, tail: Tail) {
        let released = self.dir.open(tail.segment).map(|segment| {
            let rest = segment.offset(tail.at).next_multiple_of(RELEASE_UNIT)..segment.len();
            if rest.end.saturating_sub(rest.start) < RELEASE_LEAST {
                return Ok(());
            }
            segment.file.release(rest)
        });
        match released {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the rest of a sealed segment keeps its space"),
            Err(error) => tracing::debug!(%error, "the rest of a sealed segment keeps its space"),
        }
    }

    /// Makes a spare once the active segment is half full; for a long-lived process, outside the
    /// append lock. True when one was made.
    pub(crate) fn prepare_spare(&self) -> Result<bool> {
        self.check_process()?;
        let used = self.control.appended().since(self.control.lsn(Cell::TailSegment));
        if used * 2 < self.segment_bytes || !self.dir.spares()?.is_empty() || !self.has_room_for_spare() {
            return Ok(false);
        }
        self.dir
            .make_file(self.segment_bytes, &*self.rng, !self.writes_much())?;
        Ok(true)
    }

    /// A guess, by which no answer changes: what cannot be read is taken for small.
    fn writes_much(&self) -> bool {
        let first = self.control.lsn(Cell::TailSegment);
        let Ok(segment) = self.dir.open(first) else {
            return false;
        };
        let mut walk = BlockWalk::new(&self.dir, segment, first).narrow();
        let mut much = false;
        // A log's first block is small, whatever follows.
        for _ in 0..2 {
            let Ok(Some(header)) = walk.header(self.control.durable()) else {
                break;
            };
            much = u64::from(header.block_len) >= MUCH;
            walk.pass();
        }
        much
    }

    /// Seals the active segment when more than `min_bytes` of it are used; true when it did.
    pub(crate) fn rotate(&self, min_bytes: u64) -> Result<bool> {
        self.check_process()?;
        let exclusive = self.appending.lock();
        let lock = self.lock_append()?;
        self.control.check_poison(self.generation)?;
        self.repair()?;
        let tail = self.control.tail();
        let used = tail.at.since(tail.segment);
        let rolled = used > 0 && used > min_bytes;
        if rolled {
            self.check_limit(tail, Some(0), false)?;
            self.roll(tail, 0, &exclusive)?;
        }
        drop(lock);
        Ok(rolled)
    }
}

impl SegmentDir {
    /// Puts a segment of `segment_bytes`, or of `block_len` when that is more, in place at `first`,
    /// durable in name and length; true when zeros were written to all of it. `Closed` when it stands but its name
    /// may not be durable.
    pub(crate) fn place_segment(
        &self,
        first: Lsn,
        segment_bytes: u64,
        block_len: u64,
        rng: &dyn Rng,
    ) -> Result<bool> {
        let mut filled = false;
        let (storage, folder) = (self.storage(), self.folder());
        let wanted = segment_bytes.max(block_len);
        let name = segment_name(self.kind(), first);
        let path = storage.root().join(&name);
        if self.list()?.binary_search(&first).is_err() {
            let spare = if wanted == segment_bytes {
                self.spares()?.into_iter().next()
            } else {
                None
            };
            filled = spare.as_ref().is_some_and(|name| name.ends_with(READY));
            let ready = match spare {
                Some(spare) => spare,
                None => self.make_file(wanted, rng, false)?,
            };
            storage
                .rename(&format!("{folder}/{ready}"), &name)
                .map_err(|error| Error::io("name a new segment", &path, error).at_lsn(first))?;
        }
        let skip = planted::is(Bug::SkipDirectorySync);
        let synced = if skip { Ok(()) } else { storage.sync_dir(folder) };
        synced.map_err(|error| {
            Error::closed("a new segment's name may not be durable; open the store again")
                .at_path(&path)
                .at_lsn(first)
                .caused_by(error)
        })?;
        // One that a dead roller left may be too short for this block; nothing is written in it yet.
        let segment = self.open(first)?;
        if segment.len() < wanted {
            let grown = segment
                .file
                .allocate(wanted)
                .and_then(|()| segment.file.sync_data());
            grown.map_err(|error| Error::io("lengthen a new segment", &path, error).at_lsn(first))?;
            segment
                .look_again()
                .map_err(|error| Error::io("read a segment's length", &path, error))?;
        }
        Ok(filled)
    }

    fn spares(&self) -> Result<Vec<String>> {
        let (storage, folder) = (self.storage(), self.folder());
        let names = storage.list(folder);
        let names =
            names.map_err(|error| Error::io("list the segments", storage.root().join(folder), error))?;
        Ok(names
            .into_iter()
            .filter(|name| name.starts_with(SPARE) && (name.ends_with(READY) || name.ends_with(ROOM)))
            .collect())
    }

    /// Makes a file of `len` zero bytes, synced; returns its name in the folder. `filled` writes the
    /// zeros, which makes later syncs cheaper; otherwise space is allocated only.
    fn make_file(&self, len: u64, rng: &dyn Rng, filled: bool) -> Result<String> {
        let (storage, folder) = (self.storage(), self.folder());
        let stem = format!("{SPARE}{:016x}", rng.next_u64());
        let making = format!("{folder}/{stem}{MAKING}");
        let ready = format!("{stem}{}", if filled { READY } else { ROOM });
        let make = || -> std::io::Result<()> {
            let file: Arc<dyn StorageFile> = storage.open(&making, OpenMode::CreateNew)?;
            file.allocate(len)?;
            if filled {
                zero(&*file, 0, len)?;
            }
            if !planted::is(Bug::SkipSegmentSync) {
                file.sync_data()?;
            }
            storage.rename(&making, &format!("{folder}/{ready}"))
        };
        make().map_err(|error| {
            // What was begun is of no use; left behind it goes at the next recovery.
            if let Err(left) = storage.unlink(&making) {
                tracing::debug!(error = %left, "an unfinished spare stays until the next recovery");
            }
            Error::io("make a new segment", storage.root().join(folder), error)
        })?;
        Ok(ready)
    }
}

/// Removes what a crash left of unfinished spares; for who is alone in the store.
pub(crate) fn remove_unfinished(storage: &dyn crate::storage::Storage, folder: &str) -> std::io::Result<()> {
    for name in storage.list(folder)? {
        if name.starts_with(SPARE) && name.ends_with(MAKING) {
            storage.unlink(&format!("{folder}/{name}"))?;
        }
    }
    Ok(())
}
