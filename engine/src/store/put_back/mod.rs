//! [`PutBack`]: a folder that was put back from a copy of its files begins a lineage of its own, in place.
//!
//! ```text
//! before      | common | lost: with neighbours, not here |
//! put back    | common | written since |
//! afterwards  | common | written since | block of the new epoch: parent, fork |
//!                      └ fork
//! ```
//!
//! Nothing is claimed that may be false: all before the fork is what the lineage that is left has too, and of what lies
//! between fork and new epoch nothing is said. So who puts a folder back and lets nobody open it has the fork at the log's
//! end; afterwards an operator has to say where the log ended then, and any earlier position is as true.
//!
//! One block is all that changes. A crash leaves it whole and durable, or recovery cuts it as it cuts any write that
//! was not acknowledged (E1).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::block::{Block, BlockKind};
use crate::log::{Control, Cursor, Found, SegmentDir};
use crate::storage::{LocalStorage, OpenMode, Storage, StorageFile};
use crate::{Epoch, Error, Lsn, Options, Result};

use super::identity::{Identity, STORE_FILE};
use super::lineage::{self, Beginning, Fork};
use super::open::{forget_page, no_store, recover_alone, refuse_file_system};
use super::restore::begin_lineage;

/// Segments that are read for who wrote them, the last ones.
const LOOK_BACK: usize = 4;

/// Where the log parts from the history that it was copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkAt {
    /// At its end: nobody has written in it since it was put back.
    End,
    /// Here, or at the beginning of the block that holds this.
    Lsn(Lsn),
}

/// A run of the log's blocks by who wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its first block, of those that were looked at: where the log ended when it began to write.
    pub first: Lsn,
    /// When that was written, microseconds since 1970.
    pub since: i64,
    /// Events that it wrote, of those that were looked at.
    pub events: u64,
}

/// What [`PutBack::begin_lineage`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLineage {
    /// Everything before it is common with the lineage that was left.
    pub fork: Lsn,
    /// Where the new one begins.
    pub begins: Lsn,
    /// The lineage that was left.
    pub parent: Epoch,
    /// The new one.
    pub epoch: Epoch,
}

/// A store that nobody has open, whose log is recovered.
pub struct PutBack {
    storage: Arc<dyn Storage>,
    identity: Identity,
    log: Arc<SegmentDir>,
    control: Control,
    options: Options,
    /// Keeps everybody out while this is alive.
    _lock: Arc<dyn StorageFile>,
}

impl PutBack {
    /// Takes the store in `dir`, alone, and recovers its log as every open does.
    ///
    /// # Errors
    /// `NoStore` when there is none; `Unavailable` while anybody has it open, or a repair is not finished; `Corrupt` for damage
    /// that recovery sees.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<PutBack> {
        PutBack::open_in(Arc::new(LocalStorage::new(dir.as_ref().to_path_buf())), options)
    }

    /// [`PutBack::open`] over any storage.
    ///
    /// # Errors
    /// As [`PutBack::open`].
    pub fn open_in(storage: Arc<dyn Storage>, options: Options) -> Result<PutBack> {
        options.check()?;
        let path = storage.root().join(STORE_FILE);
        let file = storage
            .open(STORE_FILE, OpenMode::ReadWrite)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => no_store(&storage),
                _ => Error::io("open the store", &path, error),
            })?;
        refuse_file_system(&*storage, &options)?;
        let identity = Identity::read(&*storage, &*file)?;
        let control = Control::new(recover_alone(&storage, &identity, &*file)?);
        let log = SegmentDir::new(Arc::clone(&storage), BlockKind::Log, identity.owner, || Lsn::ZERO);
        Ok(PutBack {
            storage,
            identity,
            log: Arc::new(log),
            control,
            options,
            _lock: file,
        })
    }

    /// Where the log ends.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.control.tail().at
    }

    /// The lineage that it is of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.control.tail().epoch
    }

    /// Who wrote the log's last segments, by the first block of each: who opened the folder after it was put back is among the
    /// last. For people, who know when that was.
    ///
    /// # Errors
    /// `Corrupt` for damage (E3); `Internal` when a file cannot be read.
    pub fn writers(&self) -> Result<Vec<Writer>> {
        let firsts = self.log.list()?;
        let from = firsts.len().saturating_sub(LOOK_BACK);
        let from = firsts.get(from).copied().unwrap_or_default();
        let (mut known, mut writers) = (BTreeSet::new(), Vec::<(u64, Writer)>::new());
        self.walk(from, &mut |block| {
            let header = block.header();
            if known.insert(header.nonce) {
                let writer = Writer {
                    first: header.lsn,
                    since: header.first_time,
                    events: 0,
                };
                writers.push((header.nonce, writer));
            }
            if let Some((_, writer)) = writers.iter_mut().find(|(nonce, _)| *nonce == header.nonce) {
                writer.events += u64::from(header.event_count);
                // A block without frames names no time.
                writer.since = if writer.since == 0 {
                    header.first_time
                } else {
                    writer.since
                };
            }
            Ok(())
        })?;
        Ok(writers.into_iter().map(|(_, writer)| writer).collect())
    }

    /// Begins a new lineage at the log's end, which leaves the present one at `fork`.
    ///
    /// # Errors
    /// `Invalid` when the fork lies behind the log's end or before the present lineage began; `Conflict` when that began at the
    /// log's end, and the fork is to be there once more; `Corrupt` for damage behind the fork; `Full`. Nothing was changed then.
    pub fn begin_lineage(self, fork: ForkAt) -> Result<NewLineage> {
        let tail = self.control.tail();
        let at = match fork {
            ForkAt::End => self.refuse_begun(tail.at)?,
            ForkAt::Lsn(lsn) => self.block_before(lsn)?,
        };
        let rng = &self.options.rng;
        let beginning = Beginning {
            owner: self.identity.owner,
            epoch: Epoch(rng.next_u64()),
            nonce: rng.next_u64(),
            time: self.options.clock.wall_micros(),
            pad_to: self.identity.pad_to,
        };
        let fork = Fork {
            parent: tail.epoch,
            at,
            begins: tail.at,
            chain: tail.chain,
        };
        let block = lineage::first_block(&beginning, fork, Vec::new())?;
        // Who waits for the presence lock may come in without recovering, and would write over the block.
        forget_page(&*self.storage)?;
        begin_lineage(
            &self.log,
            self.identity.segment_bytes,
            tail.segment,
            &block,
            &self.options,
        )?;
        Ok(NewLineage {
            fork: at,
            begins: fork.begins,
            parent: fork.parent,
            epoch: beginning.epoch,
        })
    }

    /// The log's end as a fork. A lineage on top of one of which nobody has heard would hide where that left its parent.
    fn refuse_begun(&self, end: Lsn) -> Result<Lsn> {
        let (present, mut begun) = (self.epoch(), None);
        self.walk(self.control.tail().segment, &mut |block| {
            let header = *block.header();
            begun = match begun {
                _ if lineage::begins(&block, present) => Some(header.lsn),
                Some(at) if header.close => Some(at),
                _ => None,
            };
            Ok(())
        })?;
        let Some(at) = begun.filter(|at| *at > Lsn::ZERO) else {
            return Ok(end);
        };
        let text = format!(
            "lineage {present} began here already and nothing was written in it, so nothing was changed; if it was put back once \
             more from a copy that has this, name {end} as the fork"
        );
        Err(Error::conflict(text).at_path(self.storage.root()).at_lsn(at))
    }

    /// The beginning of the block that holds `lsn`, in the present lineage.
    fn block_before(&self, lsn: Lsn) -> Result<Lsn> {
        let (end, present) = (self.end(), self.epoch());
        let invalid = |text: String| Error::invalid(text).at_path(self.storage.root()).at_lsn(lsn);
        if lsn > end {
            return Err(invalid(format!(
                "the log ends at LSN {end}, and a fork cannot lie behind that"
            )));
        }
        let Some(first) = self.log.first_at_or_before(lsn)? else {
            return Err(invalid("the log does not have that position any more".to_owned()));
        };
        let (mut at, mut began) = (end, None);
        self.walk(first, &mut |block| {
            let header = *block.header();
            if header.lsn <= lsn && lsn < header.end() {
                at = header.lsn;
            }
            if header.end() > lsn && lineage::begins(&block, present) {
                began = Some(header.lsn);
            }
            Ok(())
        })?;
        match began {
            Some(began) => Err(invalid(format!(
                "the lineage that would be left, {present}, began at LSN {began}, so its log has nothing of its own before: a fork lies \
                 behind that"
            ))),
            None => Ok(at),
        }
    }

    /// Every block from the segment that begins at `from` to the log's end.
    fn walk(&self, from: Lsn, visit: &mut dyn FnMut(Block<'_>) -> Result<()>) -> Result<()> {
        let (firsts, tail) = (self.log.list()?, self.control.tail());
        let mut chain = None;
        for (number, first) in firsts.iter().enumerate().filter(|(_, first)| **first >= from) {
            let end = firsts.get(number + 1).copied().unwrap_or(tail.at);
            let mut cursor = Cursor::new(&self.log, &self.log.open(*first)?);
            let mut at = *first;
            while at < end {
                let block = match cursor.block(at, chain)? {
                    Found::Block(block, _) => block,
                    Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
                };
                (at, chain) = (block.header().end(), Some(block.chain_after()));
                visit(block)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
