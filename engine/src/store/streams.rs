//! The store's index kept up with the log: what expectations, reads by stream, pinned records and
//! positions are answered from.

use std::sync::Arc;

use crate::block::{Block, BlockKind};
use crate::index::{Base, Index, Locations, SegmentSource};
use crate::log::{BlockWalk, Cursor, Found, Judge, SegmentDir};
use crate::storage::Cell;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::{Chain, Lsn, Position, RecordedEvent, Result, StreamName, StreamVersion};

use super::{Shared, Store};

/// The index and how far it was fed.
pub(super) struct Streams {
    pub(super) index: Index,
    /// Reads what the index has not seen. Held while blocks are read, so that each is absorbed once.
    walk: Mutex<BlockWalk>,
    /// A segment was sealed in memory, and nobody was told yet that its sidecar can be written.
    sealed: AtomicBool,
}

/// The log as the index reads it to make a sidecar: by pread, each block verified.
pub(super) struct SealedSource {
    dir: Arc<SegmentDir>,
}

impl SealedSource {
    pub(super) fn new(dir: &Arc<SegmentDir>) -> SealedSource {
        SealedSource { dir: Arc::clone(dir) }
    }
}

impl SegmentSource for SealedSource {
    fn chain_before(&self, segment: Lsn) -> Result<Option<Chain>> {
        if let Some(stub) = self.dir.only_away(segment)? {
            return Ok(Some(stub.chain_before));
        }
        let mut cursor = Cursor::new(&self.dir, &self.dir.open(segment)?);
        Ok(match cursor.block(segment, None)? {
            Found::Block(block, _) => Some(block.header().chain),
            Found::Nothing(_) => None,
        })
    }

    fn walk(&self, segment: Lsn, visit: &mut dyn FnMut(&Block<'_>) -> Result<()>) -> Result<()> {
        let firsts = self.dir.list()?;
        let next = firsts.into_iter().find(|first| *first > segment);
        let mut cursor = Cursor::new(&self.dir, &self.dir.open(segment)?);
        let (mut at, mut chain) = (segment, None);
        while next.is_some_and(|next| at < next) {
            match cursor.block(at, chain)? {
                Found::Block(block, _) => {
                    visit(&block)?;
                    at = block.header().end();
                    chain = Some(block.chain_after());
                }
                // The file that went on from here may have been freed with this one.
                Found::Nothing(_) if self.dir.has_freed(segment)? => return Err(self.dir.gone(segment)?),
                Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
            }
        }
        Ok(())
    }
}

impl Streams {
    pub(super) fn new(index: Index, dir: &Arc<SegmentDir>, active: Lsn) -> Result<Streams> {
        let walk = BlockWalk::new(dir, dir.open(active)?, active);
        Ok(Streams {
            index,
            walk: Mutex::new(walk),
            sealed: AtomicBool::new(false),
        })
    }

    /// Begins the index at a newer base. Where it had not come so far it goes on at the active segment.
    pub(super) fn rebase(&self, base: &Base, log: &crate::log::Log) -> Result<()> {
        let mut walk = self.walk.lock();
        let active = active_segment(log);
        let sealed = sealed_before(&log.dir, active)?;
        if self.index.rebase(base, &sealed, active) {
            *walk = BlockWalk::new(&log.dir, log.dir.open(active)?, active);
        }
        Ok(())
    }

    /// Feeds the index up to `end`, a block boundary.
    fn feed(&self, end: Lsn) -> Result<()> {
        let mut walk = self.walk.lock();
        let segment = walk.segment_first();
        while walk.advance(end)? {
            let taken = match walk.block() {
                Some(block) => self.index.absorb(walk.segment_first(), &block),
                None => Ok(()),
            };
            if let Err(error) = taken {
                // Met again by whoever asks next, instead of a hole in what the index knows.
                walk.step_back();
                return Err(error);
            }
        }
        if walk.segment_first() != segment {
            self.sealed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Judge for Shared {
    fn lag(&self, end: Lsn) -> u64 {
        end.since(self.streams.index.end().0)
    }

    fn catch_up(&self, end: Lsn) -> Result<()> {
        self.unless_freed(|| self.streams.feed(end))
            .map_err(|error| self.log.unreadable(error))?;
        self.streams.index.settle(self.log.control.durable());
        Ok(())
    }

    fn version_of(&self, stream: &str) -> Result<Option<StreamVersion>> {
        self.unless_freed(|| self.streams.index.version_of(stream, Lsn::MAX))
    }

    fn make_room(&self) -> Option<String> {
        self.free_for_room()
    }
}

impl Shared {
    /// Asks the index, again from a newer base when what it needed was freed meanwhile.
    pub(super) fn unless_freed<T>(&self, query: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            self.follow_freed()?;
            let begins = self.streams.index.begins();
            match query() {
                Err(error)
                    if error.kind() == crate::ErrorKind::Behind
                        && self.log.control.lsn(Cell::Freed) > begins => {}
                other => return other,
            }
        }
    }
}

impl Store {
    /// The index as far as the log is durable, and that LSN.
    fn durable_index(&self) -> Result<(&Index, Lsn)> {
        let durable = self.shared().log.control.durable();
        let fed = self.shared().catch_up(durable);
        // The index of a dead handle may hold what was cut and written anew, and then fit nothing more.
        let log = self.log();
        log.control.check_not_healed(log.generation)?;
        fed?;
        if self.shared().streams.sealed.swap(false, Ordering::Relaxed) {
            self.inner.background.something_to_do();
        }
        Ok((&self.shared().streams.index, durable))
    }

    /// Version of a stream's last durable event.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn stream_version(&self, stream: &str) -> Result<Option<StreamVersion>> {
        let (index, durable) = self.durable_index()?;
        self.shared().unless_freed(|| index.version_of(stream, durable))
    }

    /// Durable events of a stream from a version on, in order, as of now.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3), here or from the iterator's items.
    pub fn read_stream(&self, stream: &str, from: StreamVersion) -> Result<StreamReader> {
        StreamName::check(stream)?;
        let (_, durable) = self.durable_index()?;
        self.reader(stream, from, durable)
    }

    /// Reads what lay below `durable`, and what was sealed since.
    pub(super) fn reader(&self, stream: &str, from: StreamVersion, durable: Lsn) -> Result<StreamReader> {
        let index = &self.shared().streams.index;
        let locations = self
            .shared()
            .unless_freed(|| index.locate(stream, from, durable))?;
        // Another thread may have fed the index past a roll: what it sealed is durable and was located too.
        let durable = durable.max(locations.sealed_end());
        Ok(StreamReader {
            store: self.clone(),
            stream: stream.to_owned(),
            locations,
            walk: None,
            durable,
        })
    }

    /// Last value of a pinned record among durable frames, with the LSN of its frame.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn pinned(&self, key: &[u8]) -> Result<Option<(Vec<u8>, Lsn)>> {
        let (index, durable) = self.durable_index()?;
        self.shared().unless_freed(|| index.pinned(key, durable))
    }

    /// All pinned records whose key begins with `prefix`: key, value, LSN of the frame, by key.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn pinned_with_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>, Lsn)>> {
        let (index, durable) = self.durable_index()?;
        self.shared()
            .unless_freed(|| index.pinned_with_prefix(prefix, durable))
    }

    /// Position of the durable frame that begins exactly at `lsn`: its epoch, and the chain after its
    /// block. `None` when none begins there, so a position told by a stranger is checked with it (R5).
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3); `Behind` when the log no longer holds the position.
    pub fn position_at(&self, lsn: Lsn) -> Result<Option<Position>> {
        self.read_block(lsn, |block| {
            let frame = block.frame_at(lsn)?;
            Ok(Position {
                epoch: frame.epoch(),
                lsn,
                chain: block.chain_after(),
            })
        })
    }

    /// Shows the durable frame that begins exactly at `lsn`; `None` when none begins there.
    ///
    /// # Errors
    /// As [`Store::position_at`], and what `read` returns.
    pub fn read_frame<T>(
        &self,
        lsn: Lsn,
        read: impl FnOnce(&crate::frame::FrameRef<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.read_block(lsn, |block| read(&block.frame_at(lsn)?))
    }

    /// Shows the durable block that holds `lsn`; `None` also when `read` finds no frame there.
    fn read_block<T>(&self, lsn: Lsn, read: impl FnOnce(&Block<'_>) -> Result<T>) -> Result<Option<T>> {
        let durable = self.shared().log.control.durable();
        if lsn >= durable || lsn == Lsn::ZERO {
            return Ok(None);
        }
        let mut walk = self.walk_to(lsn, durable)?;
        if !walk.advance(durable)? {
            return Ok(None);
        }
        let Some(block) = walk.block() else {
            return Ok(None);
        };
        if block
            .frame_at(lsn)
            .is_err_and(|error| error.kind() == crate::ErrorKind::Invalid)
        {
            return Ok(None);
        }
        read(&block).map(Some)
    }

    /// A walk that stands before the block holding `lsn`.
    fn walk_to(&self, lsn: Lsn, durable: Lsn) -> Result<BlockWalk> {
        let shared = self.shared();
        let place = shared.unless_freed(|| shared.streams.index.block_holding(lsn))?;
        let Some(place) = place else {
            return BlockWalk::before(&shared.log.dir, lsn, durable);
        };
        let segment = shared.log.dir.open(place.segment)?;
        let mut walk = BlockWalk::new(&shared.log.dir, segment, place.lsn).narrow();
        while let Some(header) = walk.header(durable)? {
            if header.end() > lsn {
                break;
            }
            walk.pass();
        }
        Ok(walk)
    }

    /// What the sidecar of each sealed segment says, by the segment's first LSN, without making any; `None`
    /// for one that is missing or damaged.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read.
    pub fn sidecars(&self) -> Result<Vec<(Lsn, Option<crate::index::SidecarFacts>)>> {
        let sealed = sealed_before(&self.log().dir, active_segment(self.log()))?;
        let facts = |first| Ok((first, crate::index::sidecar_facts(&**self.storage(), first)?));
        sealed.into_iter().map(facts).collect()
    }

    /// Counts over the whole durable log.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn totals(&self) -> Result<crate::index::Totals> {
        let (index, _) = self.durable_index()?;
        self.shared().unless_freed(|| index.totals())
    }
}

/// Durable events of one stream, in order.
pub struct StreamReader {
    store: Store,
    stream: String,
    locations: Locations,
    /// Stands behind the block that was read last, which neighbours often share.
    walk: Option<BlockWalk>,
    durable: Lsn,
}

impl StreamReader {
    fn read(&mut self, location: crate::index::Location) -> Result<RecordedEvent> {
        let holds = |walk: &BlockWalk| {
            walk.block().is_some_and(|block| {
                block.header().lsn < location.frame && location.frame < block.header().end()
            })
        };
        if !self.walk.as_ref().is_some_and(holds) {
            let mut walk = self.store.walk_to(location.frame, self.durable)?;
            walk.advance(self.durable)?;
            self.walk = Some(walk);
        }
        let block = self.walk.as_ref().and_then(BlockWalk::block);
        let gone = || crate::Error::corrupt("an index entry points to no block").at_lsn(location.frame);
        let frame = block.ok_or_else(gone)?.frame_known_at(location.frame)?;
        let event = frame.event_at(location.event_at)?;
        if event.stream()? != self.stream {
            return Err(
                crate::Error::corrupt("an index entry points to another stream's event")
                    .at_lsn(location.frame),
            );
        }
        let headers = event.headers().read()?;
        Ok(RecordedEvent {
            stream: StreamName::new(self.stream.clone())?,
            version: location.version,
            lsn: frame.lsn(),
            ordinal: event.ordinal,
            time: frame.committed_at()?,
            origin: frame.origin()?.map(|origin| origin.to_owned()).transpose()?,
            kind: event.kind()?.to_owned(),
            headers: headers
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            payload: event.payload.to_vec(),
        })
    }
}

impl Iterator for StreamReader {
    type Item = Result<RecordedEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        let location = self.locations.next()?;
        Some(location.and_then(|location| self.read(location)))
    }
}

/// First LSNs of the segments that are sealed while `active` is written.
pub(super) fn sealed_before(dir: &SegmentDir, active: Lsn) -> Result<Vec<Lsn>> {
    debug_assert!(dir.kind() == BlockKind::Log, "only the log is indexed");
    Ok(dir.list()?.into_iter().filter(|first| *first < active).collect())
}

/// The active segment as the control page names it.
pub(super) fn active_segment(log: &crate::log::Log) -> Lsn {
    log.control.lsn(Cell::TailSegment)
}
