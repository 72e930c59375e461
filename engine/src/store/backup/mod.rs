//! [`Store::backup`]: a consistent copy of the log while others write, incremental from the second run on.
//!
//! ```text
//! TO/backup.lock   locked while one runs          TO/backup   what is complete, and whose: written last
//! TO/log/<16 hex>.log   the blocks of a segment and nothing behind them      TO/space   how long the log is kept, and TO/holds/… for whom
//!
//! sync, durable end E ─► segments that TO lacks ─► blocks behind TO's end, up to E ─► synced ─► `backup` names E
//! ```
//!
//! Guarantees: a run that is killed at any moment leaves what the former run completed, because it only adds
//! behind the end that the file `backup` names, or puts a whole new file in place of a damaged one; the next run
//! goes on with what it left. Every block is verified as it is copied, and no block that a repair of the store took out
//! takes the place of one that the backup still has. A store is compared with the backup by
//! chain before anything is written: one that was put back, or went another way, is refused (E3).
//!
//! A backup is no store: it has no file `store`, so nothing opens it by mistake. Two sites that go on from one
//! state are what R5 stops; only [`Options::restore`](crate::Options::restore) makes a store of it, under a new
//! lineage epoch. Not copied: sidecars, views and queue, which are derived, and the control page.

mod check;
mod copy;
mod keep;
mod manifest;

pub use check::{Backup, BackupFacts};
use copy::whole;
pub(super) use copy::{Boundary, Target, blocks};
pub(super) use manifest::{BACKUP_FILE, Manifest};

use std::path::Path;
use std::sync::Arc;

use crate::block::BlockKind;
use crate::index::base::{self, Base};
use crate::log::{BlockWalk, Cursor, Found, SegmentDir, segment_name};
use crate::storage::{LocalStorage, LockMode, OpenMode, Storage, StorageFile, overlap};
use crate::width::to_u64;
use crate::{Chain, Epoch, Error, ErrorKind, Lsn, Result, Store};

use super::hold::{self, Hold};
use super::identity::STORE_FILE;
use super::received;

/// Locked while a backup is written or read.
pub(super) const LOCK_FILE: &str = "backup.lock";
/// How long the hold of a run that was killed stays: a day, in microseconds.
const HELD_FOR: i64 = 24 * 3_600 * 1_000_000;
/// Ending of a segment's copy that will take the place of a damaged one.
const REPLACING: &str = ".new";

/// What a run of [`Store::backup`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The backup is complete up to here.
    pub end: Lsn,
    /// Up to where it was before.
    pub former_end: Lsn,
    /// Lineage epoch at its end.
    pub epoch: Epoch,
    /// Chain at its end.
    pub chain: Chain,
    /// Segments in it.
    pub segments: u64,
    /// Bytes copied by this run.
    pub copied_bytes: u64,
    /// First LSNs of the segments that this run wrote something of, replaced ones included.
    pub copied: Vec<Lsn>,
    /// First LSNs of segments that were in the backup, did not pass their check and were copied again.
    pub replaced: Vec<Lsn>,
}

/// A run under way.
struct Run<'a> {
    source: &'a Arc<SegmentDir>,
    to: Arc<dyn Storage>,
    copies: Arc<SegmentDir>,
    /// Where the source ends for this run.
    end: Lsn,
    /// Where the former run ended.
    covered: Boundary,
    /// Read every block that the backup holds already.
    thorough: bool,
    done: BackedUp,
    told: &'a mut dyn FnMut(u64),
}

impl Store {
    /// Copies everything durable to the backup directory `to`, which is made if it is missing. What a former
    /// run copied is not copied again; `thorough` reads all of it and copies again what is damaged. `progress`
    /// is told bytes done and bytes in all.
    ///
    /// # Errors
    /// `Conflict` when `to` overlaps the store's directory, is not empty and no backup, or is of another store or
    /// history; `Unavailable` when another run is under way there; `Corrupt` for damage here or in the backup's
    /// own file; `Full`.
    pub fn backup(
        &self,
        to: impl AsRef<Path>,
        thorough: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackedUp> {
        let to = to.as_ref();
        let overlaps = overlap(self.root(), to);
        if overlaps.map_err(|error| Error::io("find the backup's folder", to, error))? {
            let text = "a backup and its store cannot lie within each other; choose another folder";
            return Err(Error::conflict(text).at_path(to));
        }
        self.backup_in(Arc::new(LocalStorage::new(to.to_path_buf())), thorough, progress)
    }

    /// [`Store::backup`] to any storage.
    ///
    /// # Errors
    /// As [`Store::backup`].
    pub fn backup_in(
        &self,
        to: Arc<dyn Storage>,
        thorough: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackedUp> {
        let lock = begin(&*to)?;
        let holds = hold::Kept::of(self.shared())?;
        self.sync()?;
        let _held = Held::take(self, to.root())?;
        let (source, end) = (&self.log().dir, self.watermarks().durable);
        let former = self.former(&*to)?;
        let covered = Boundary {
            at: former.end,
            chain: (former.end > Lsn::ZERO).then_some(former.chain),
            epoch: Some(former.epoch),
        };
        let total = if thorough { end.0 } else { end.since(covered.at) };
        let mut read = 0;
        let mut run = Run {
            source,
            copies: Arc::new(SegmentDir::new(
                Arc::clone(&to),
                BlockKind::Log,
                self.owner(),
                || Lsn::ZERO,
            )),
            to: Arc::clone(&to),
            end,
            covered,
            thorough,
            done: BackedUp {
                end,
                former_end: former.end,
                epoch: former.epoch,
                chain: former.chain,
                segments: 0,
                copied_bytes: 0,
                copied: Vec::new(),
                replaced: Vec::new(),
            },
            told: &mut |bytes| {
                read += bytes;
                progress(read.min(total), total);
            },
        };
        run.base(self, former.oldest)?;
        run.segments(self.oldest()?)?;
        let (mut done, copies) = (run.done, run.copies.list()?);
        done.segments = to_u64(copies.len());
        self.complete(&*to, &done, &copies, &holds)?;
        drop(lock);
        Ok(done)
    }

    /// What the former run said, or that one has begun.
    fn former(&self, to: &dyn Storage) -> Result<Manifest> {
        let former = match Manifest::read(to)? {
            Some(former) => former,
            None => {
                let begun = Manifest::begun(self.shared().identity.clone());
                begun.write(to)?;
                begun
            }
        };
        self.compare(&former, to)?;
        // Behind the file that says whose it is: a folder of segments without it is nobody's.
        let made = to.create_dir("log").and_then(|()| to.sync_dir(""));
        made.map_err(|error| Error::io("begin a backup", to.root(), error))?;
        Ok(former)
    }

    /// The last step: with its manifest the backup is complete up to the new end.
    fn complete(&self, to: &dyn Storage, done: &BackedUp, copies: &[Lsn], holds: &hold::Kept) -> Result<()> {
        if done.former_end == Lsn::ZERO {
            // There is no backup yet whose holds these could let go of.
            holds.write(to)?;
        }
        match self.space() {
            Ok(space) => space.copy_to(to, self.owner())?,
            // The log is worth a copy all the same; what a former run copied stays.
            Err(error) => tracing::warn!(%error, "the backup does not get the settings of space"),
        }
        let synced = to.sync_dir("log");
        synced.map_err(|error| Error::io("sync the backup's folder", to.root().join("log"), error))?;
        Manifest {
            end: done.end,
            chain: done.chain,
            epoch: done.epoch,
            last: copies.last().copied().unwrap_or_default(),
            oldest: copies.first().copied().unwrap_or_default(),
            completed: self.clock().wall_micros(),
            ..Manifest::begun(self.shared().identity.clone())
        }
        .write(to)?;
        if let Err(error) = holds.write(to) {
            tracing::warn!(%error, "the backup is whole, but its holds are those of the run before: the next run mends that");
        }
        Ok(())
    }

    /// Refuses a backup that is not the beginning of this log.
    fn compare(&self, former: &Manifest, to: &dyn Storage) -> Result<()> {
        let refused = |text: String| Err(Error::conflict(text).at_path(to.root()).at_lsn(former.end));
        let (theirs, durable) = (&former.identity, self.watermarks().durable);
        if theirs.owner != self.owner() {
            return refused(format!(
                "this is the backup of store {} of site {}, not of {} of site {}; choose another folder",
                theirs.owner.id,
                theirs.site,
                self.id(),
                self.site()
            ));
        }
        if former.end > durable {
            return refused(format!(
                "the backup goes on to {}, this store ends at {durable}: the store was put back to an older copy; \
                 keep the backup, which holds more, and choose another folder",
                former.end
            ));
        }
        if former.end > Lsn::ZERO && former.end < self.oldest()? {
            return refused(format!(
                "the backup ends at {}, and the log up to {} was freed since: keep the backup and choose another folder, \
                 and keep the log between two runs with a hold",
                former.end,
                self.oldest()?
            ));
        }
        if former.end > Lsn::ZERO && chain_at(&self.log().dir, former.end, durable)? != Some(former.chain) {
            return refused(
                "the backup holds another history of this store, which parted before the backup's end; keep the \
                 backup and choose another folder"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Makes and locks the folder; refuses one that holds something else.
fn begin(to: &dyn Storage) -> Result<Arc<dyn StorageFile>> {
    let root = to.root();
    let failed = |error| Error::io("begin a backup", root, error);
    to.create_dir("").map_err(failed)?;
    let names = to.list("").map_err(failed)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    if has(STORE_FILE) {
        let text = "this is a store and no place for a backup; choose another folder";
        return Err(Error::conflict(text).at_path(root));
    }
    let foreign = names
        .iter()
        .find(|name| ![LOCK_FILE, manifest::NEW_FILE].contains(&name.as_str()));
    if let Some(name) = foreign.filter(|_| !has(BACKUP_FILE)) {
        let text = format!("the folder holds {name:?} and is no backup; choose another folder");
        return Err(Error::conflict(text).at_path(root));
    }
    let lock = to.open(LOCK_FILE, OpenMode::OpenOrCreate).map_err(failed)?;
    if !lock.try_lock(0, LockMode::Exclusive).map_err(failed)? {
        let text = "another process writes or reads this backup; try again when it has ended";
        return Err(Error::unavailable(text).at_path(root));
    }
    Ok(lock)
}

/// Chain after the block that ends at `at`; `None` when none ends there.
fn chain_at(dir: &Arc<SegmentDir>, at: Lsn, durable: Lsn) -> Result<Option<Chain>> {
    if dir.has_freed(Lsn(at.0.saturating_sub(1)))? && dir.list()?.binary_search(&at).is_ok() {
        // What stands there was freed, and what follows says what it was.
        let mut walk = BlockWalk::before(dir, at, durable)?;
        return Ok(walk.header(durable)?.map(|header| header.chain));
    }
    let mut walk = BlockWalk::before(dir, Lsn(at.0.saturating_sub(1)), durable)?;
    let header = walk.header(durable)?;
    Ok(header
        .filter(|header| header.end() == at)
        .map(|header| header.chain_after()))
}

/// Keeps the log while a run copies it.
struct Held<'a>(&'a Store, String);

impl<'a> Held<'a> {
    /// The hold's name is that of the backup's folder: the next run takes over what a killed one left.
    fn take(store: &'a Store, to: &Path) -> Result<Held<'a>> {
        let to = xxhash_rust::xxh3::xxh3_64(to.as_os_str().as_encoded_bytes());
        let name = format!("backup-{to:016x}");
        let owner = format!("process {}", store.storage().process_id());
        let now = store.clock().wall_micros();
        // Another process may free meanwhile, which only moves the beginning.
        loop {
            let hold = Hold {
                expires: Some(now.saturating_add(HELD_FOR)),
                ..Hold::new("backup", &owner, store.oldest()?)
            };
            match store.hold(&name, &hold) {
                Err(error) if error.kind() == ErrorKind::Behind => {}
                held => return held.map(|()| Held(store, name)),
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.drop_hold(&self.1) {
            tracing::warn!(%error, hold = self.1, "the hold of a backup stays until its time is over");
        }
    }
}

impl Run<'_> {
    /// Brings the backup to `end`.
    fn segments(&mut self, oldest: Lsn) -> Result<()> {
        let firsts: Vec<Lsn> = self.source.list()?;
        let firsts: Vec<Lsn> = firsts
            .into_iter()
            .filter(|first| *first >= oldest && *first < self.end)
            .collect();
        self.drop_strangers(&firsts)?;
        for (number, first) in firsts.iter().enumerate() {
            let end = firsts.get(number + 1).copied().unwrap_or(self.end);
            if end > self.covered.at {
                self.extend(*first, end)?;
            } else if !self.is_whole(*first, end)? {
                self.replace(*first, end)?;
            }
        }
        Ok(())
    }

    /// What is left of the beginning of a log that was freed before this backup began.
    fn base(&self, store: &Store, former_oldest: Lsn) -> Result<()> {
        let first = self.covered.at == Lsn::ZERO;
        let wanted = if first { store.oldest()? } else { former_oldest };
        let id = store.id();
        let whole = || {
            Base::at(&*self.to, id, wanted)
                .ok()
                .filter(|base| base.verify().is_ok())
        };
        if wanted == Lsn::ZERO {
            return Ok(());
        }
        let kept = whole();
        let base = match &kept {
            Some(base) => base.clone(),
            None => Base::at(&**store.storage(), id, wanted)?,
        };
        let mut named = base.received();
        if kept.is_none() && !first {
            // A repair of the store may have renewed them since, and these hold more.
            let there = received::whole_chain(&*self.to, id, named.file.0);
            named.file = there.unwrap_or(named.file);
        }
        let from = &**store.storage();
        received::copy(from, &*self.to, id, named.file, || store.rng().next_u64())?;
        if kept.is_some() {
            return Ok(());
        }
        let bytes = base.bytes_naming(from, named)?;
        base::write(&*self.to, wanted, &bytes, store.rng().next_u64())
    }

    /// Files behind the former end that the log does not have: of a run of another history that never ended.
    fn drop_strangers(&self, firsts: &[Lsn]) -> Result<()> {
        for stranger in self.copies.list()? {
            if stranger >= self.covered.at && !firsts.contains(&stranger) {
                let name = segment_name(BlockKind::Log, stranger);
                let gone = self.to.unlink(&name);
                gone.map_err(|error| {
                    Error::io("clear an unfinished backup", self.to.root().join(name), error)
                })?;
            }
        }
        Ok(())
    }

    /// Adds what the copy of a segment lacks of [first, end).
    fn extend(&mut self, first: Lsn, end: Lsn) -> Result<()> {
        let mut from = self.covered;
        if self.covered.at <= first {
            from = Boundary {
                chain: self.chain_before(first)?,
                ..Boundary::new(first, None)
            };
        } else if !self.is_whole(first, self.covered.at)? {
            return self.replace(first, end);
        }
        if self.copies.list()?.binary_search(&first).is_ok() {
            from = self.left_by_a_killed_run(first, from, end)?;
        }
        let name = segment_name(BlockKind::Log, first);
        self.write(first, from, end, &name)?;
        Ok(())
    }

    /// How far a run that was killed had come, as far as it is the same as the source.
    fn left_by_a_killed_run(&mut self, first: Lsn, from: Boundary, end: Lsn) -> Result<Boundary> {
        self.copies.forget(first);
        let reached = whole(&self.copies, first, from, end, self.told)?;
        if reached.at > from.at && chain_at(self.source, reached.at, self.end)? == reached.chain {
            return Ok(reached);
        }
        Ok(from)
    }

    /// Puts a whole new copy in place of a damaged one. What the copy alone holds, and the store has lost, stays.
    fn replace(&mut self, first: Lsn, end: Lsn) -> Result<()> {
        let name = segment_name(BlockKind::Log, first);
        let new = format!("{name}{REPLACING}");
        let from = Boundary::new(first, self.chain_before(first)?);
        let held = self.held_alone(first, end)?;
        self.write(first, from, end, &new)?;
        if !held.is_empty() {
            self.put_back(first, &held, &new)?;
        }
        let rest = self.pieces(first.plus(1), end)?;
        for piece in &rest {
            let name = segment_name(BlockKind::Log, *piece);
            let gone = self.to.unlink(&name).and_then(|()| self.to.sync_dir("log"));
            gone.map_err(|error| Error::io("replace a damaged copy", self.to.root().join(name), error))?;
        }
        let renamed = self.to.rename(&new, &name);
        renamed.map_err(|error| Error::io("replace a damaged copy", self.to.root().join(&name), error))?;
        self.copies.forget(first);
        self.done.replaced.push(first);
        Ok(())
    }

    /// Copies [from, end) of the segment into the file `name`, which ends there afterwards, synced.
    fn write(&mut self, first: Lsn, from: Boundary, end: Lsn, name: &str) -> Result<()> {
        let path = self.to.root().join(name);
        let failed = |error| Error::io("write a copy of a segment", &path, error).at_lsn(from.at);
        let file = self.to.open(name, OpenMode::OpenOrCreate).map_err(failed)?;
        let to = Target {
            file: &*file,
            first,
            path: path.clone(),
        };
        let reached = blocks(self.source, first, from, end, &to, self.told)?;
        file.set_len(end.since(first)).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        if reached.at > from.at {
            self.done.copied.push(first);
            self.done.copied_bytes += reached.at.since(from.at);
        }
        if reached.at == self.end
            && let (Some(chain), Some(epoch)) = (reached.chain, reached.epoch)
        {
            (self.done.chain, self.done.epoch) = (chain, epoch);
        }
        Ok(())
    }

    /// Whether the copy holds [first, end): lengths and first blocks of its files, or every block.
    fn is_whole(&mut self, first: Lsn, end: Lsn) -> Result<bool> {
        let pieces = self.pieces(first, end)?;
        if pieces.first() != Some(&first) {
            return Ok(false);
        }
        let before = self.chain_before(first)?;
        if self.thorough {
            let reached = self.copied(Boundary::new(first, before), end)?;
            return Ok(reached.at == end && chain_at(self.source, end, self.end)? == reached.chain);
        }
        for (number, piece) in pieces.iter().enumerate() {
            let end = pieces.get(number + 1).copied().unwrap_or(end);
            let before = before.filter(|_| number == 0);
            self.copies.forget(*piece);
            let segment = self.copies.open(*piece)?;
            let mut cursor = Cursor::new(&self.copies, &segment);
            if segment.len() < end.since(*piece) || !matches!(cursor.block(*piece, before)?, Found::Block(..))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Chain before the first block of a segment, as the log says.
    fn chain_before(&self, first: Lsn) -> Result<Option<Chain>> {
        if first == Lsn::ZERO {
            return Ok(Some(Chain::genesis(self.source.owner().id)));
        }
        if let Some(stub) = self.source.only_away(first)? {
            return Ok(Some(stub.chain_before));
        }
        let mut cursor = Cursor::new(self.source, &self.source.open(first)?);
        match cursor.block(first, None)? {
            Found::Block(block, _) => Ok(Some(block.header().chain)),
            Found::Nothing(reason) => Err(cursor.corrupt(first, &reason)),
        }
    }
}

#[cfg(test)]
mod tests;
