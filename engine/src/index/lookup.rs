//! [`Index`]: the questions a store asks, answered from the sealed segments and the active one.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::block::Block;
use crate::clock::Rng;
use crate::storage::Storage;
use crate::width::{to_u64, to_usize};
use crate::{Chain, Error, Lsn, Result, StoreId, StreamName, StreamVersion};

use super::active::{ActiveIndex, Totals, skipped};
use super::base::{Base, unopened};
use super::build::PinnedState;
use super::locations::{Locations, Run, RunSource};
use super::place::{BlockPlace, Posting};
use super::sealed::{Held, List, OnRebuild, Sealed, SealedSegments, SegmentSource};
use super::sidecar::Fault;

/// The index of a store. Cheap to clone; all clones are one index.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
}

struct Shared {
    segments: SealedSegments,
    state: RwLock<State>,
}

/// Both halves change together when a segment is sealed.
pub(super) struct State {
    pub(super) sealed: List,
    pub(super) active: ActiveIndex,
}

/// A pinned record: key, value, LSN of its frame.
pub type PinnedRecord = (Vec<u8>, Vec<u8>, Lsn);

impl Index {
    /// Opens the index of what `base` keeps of freed segments, the `sealed` segments behind it (first LSNs,
    /// ascending) and the one that begins at `active`, whose blocks the caller gives to [`Index::absorb`]. Reads
    /// nothing yet. `source` must not own the index. `progress` is told of each sidecar that has to be made.
    pub fn open(
        storage: Arc<dyn Storage>,
        store_id: StoreId,
        source: Arc<dyn SegmentSource>,
        rng: Arc<dyn Rng>,
        base: Option<&Base>,
        (sealed, active): (&[Lsn], Lsn),
        progress: OnRebuild,
    ) -> Index {
        let sealed = unopened(base, sealed, active);
        let making = Mutex::new(());
        let segments = SealedSegments {
            storage,
            store_id,
            source,
            rng,
            progress,
            making,
        };
        let state = RwLock::new(State {
            sealed,
            active: ActiveIndex::new(active),
        });
        Index {
            shared: Arc::new(Shared { segments, state }),
        }
    }

    /// Makes the sidecars whose files are missing, oldest first. Queries do this too, for what they
    /// need.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3); `Internal` when files cannot be read.
    pub fn make_missing(&self) -> Result<()> {
        self.segments().make_missing(&self.list())
    }

    /// Writes the sidecars of segments sealed since the store was opened. Until then they are in
    /// memory. Never called under the append lock: it writes and syncs.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3). That a file cannot be written is no error.
    pub fn write_sealed(&self) -> Result<()> {
        self.segments().write_frozen(&self.list())
    }

    /// Takes the next block of the log in; the first block of a new segment seals the one before.
    ///
    /// # Errors
    /// As [`ActiveIndex::absorb`]; `Internal` when a segment begins elsewhere than the last ended.
    pub fn absorb(&self, segment: Lsn, block: &Block<'_>) -> Result<()> {
        let mut state = self.write();
        if segment != state.active.first() {
            if segment != state.active.end() || segment != block.header().lsn {
                let text = format!(
                    "the index ends at {} and cannot begin a segment",
                    state.active.end()
                );
                return Err(Error::internal(text).at_lsn(segment));
            }
            let mut full = std::mem::replace(&mut state.active, ActiveIndex::new(segment));
            // S2: nobody writes into a segment before its predecessor is durable to its end.
            full.settle(segment);
            state.sealed = state
                .sealed
                .iter()
                .cloned()
                .chain([Sealed::frozen(full)])
                .collect();
        }
        state.active.absorb(block)
    }

    /// Says how far the log is durable, so that what only a cut needs is forgotten.
    pub fn settle(&self, durable: Lsn) {
        self.write().active.settle(durable);
    }

    /// Drops what lies at and behind `lsn`, the start of a block past the durable end.
    ///
    /// # Errors
    /// `Internal` when no such block begins there: the caller opens the index again.
    pub fn cut(&self, lsn: Lsn) -> Result<()> {
        self.write().active.cut(lsn)
    }

    /// End of what was taken in, and the chain there; `None` while the active segment has no block.
    #[must_use]
    pub fn end(&self) -> (Lsn, Option<Chain>) {
        let state = self.read();
        (state.active.end(), state.active.chain())
    }

    /// Version of a stream's last event in a frame before `below`: the durable end for readers,
    /// [`Lsn::MAX`] for expectations.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log when a sidecar has to be made (E3).
    pub fn version_of(&self, stream: &str, below: Lsn) -> Result<Option<StreamVersion>> {
        let hash = StreamName::hash(stream);
        let (list, here, base) = {
            let state = self.read();
            let entry = state.active.stream(hash, stream);
            let here = entry.map_or(0, |entry| to_u64(entry.below(state.active.first(), below).len()));
            (
                state.sealed.clone(),
                here,
                entry.and_then(|entry| entry.base.get().copied()),
            )
        };
        let base = match base {
            Some(base) => base,
            None => self.base_before_active(&list, hash, stream)?,
        };
        Ok((base + here).checked_sub(1).map(StreamVersion))
    }

    /// Events in all of `list`, remembered in the active segment's entry if that still follows it.
    fn base_before_active(&self, list: &List, hash: u64, stream: &str) -> Result<u64> {
        let segments = self.segments();
        let base = segments.repaired(list, || segments.count_before(list, list.len(), hash, stream))?;
        let state = self.read();
        if Arc::ptr_eq(&state.sealed, list)
            && let Some(entry) = state.active.stream(hash, stream)
        {
            entry.base.get_or_init(|| base);
        }
        Ok(base)
    }

    /// Where a stream's events lie, from version `from` on, in frames before `below`.
    ///
    /// # Errors
    /// As [`Index::version_of`]; the iterator's items too.
    pub fn locate(&self, stream: &str, from: StreamVersion, below: Lsn) -> Result<Locations> {
        let (hash, from) = (StreamName::hash(stream), from.0);
        let (list, segment, copied, known) = {
            let state = self.read();
            let entry = state.active.stream(hash, stream);
            let base = entry.and_then(|entry| entry.base.get().copied());
            let skip = base.map_or(0, |base| from.saturating_sub(base));
            let here = entry
                .map(|entry| entry.below(state.active.first(), below))
                .unwrap_or_default();
            (
                state.sealed.clone(),
                state.active.first(),
                skipped(here, skip).to_vec(),
                base.map(|base| (base, skip)),
            )
        };
        let (base, skip) = match known {
            Some(known) => known,
            None => (self.base_before_active(&list, hash, stream)?, 0),
        };
        let due = from.saturating_sub(base).saturating_sub(skip);
        let postings = skipped(&copied, due).to_vec();
        let mut runs = Vec::new();
        if !postings.is_empty() {
            runs.push(Run {
                from: RunSource::Copied { segment, postings },
                version: base + skip + due,
            });
        }
        let segments = self.segments();
        runs.extend(segments.repaired(&list, || sealed_runs(segments, &list, hash, stream, from, base))?);
        let (index, stream, batch) = (self.clone(), stream.into(), Vec::new().into_iter());
        Ok(Locations {
            index,
            list,
            hash,
            stream,
            runs,
            batch,
            segment,
            version: from,
            active: segment,
        })
    }

    /// Postings `range` of a stream in one sealed segment.
    pub(super) fn postings(
        &self,
        list: &List,
        number: usize,
        hash: u64,
        stream: &str,
        range: Range<u64>,
    ) -> Result<Vec<Posting>> {
        let segments = self.segments();
        segments.repaired(list, || match segments.held(list, number)? {
            Held::Mapped(sidecar) => {
                let found = sidecar.stream(hash, stream)?.ok_or_else(|| sidecar.damaged())?;
                sidecar.postings(&found, range.clone())
            }
            Held::Frozen(index) => {
                let all = index
                    .stream(hash, stream)
                    .map(|entry| &*entry.postings)
                    .unwrap_or_default();
                let due = to_usize(range.end.saturating_sub(range.start));
                Ok(skipped(all, range.start).iter().take(due).copied().collect())
            }
            Held::Unopened => Ok(Vec::new()),
        })
    }

    /// Last value of a pinned record by a frame before `below` (readers: the durable end).
    ///
    /// # Errors
    /// As [`Index::version_of`].
    pub fn pinned(&self, key: &[u8], below: Lsn) -> Result<Option<(Vec<u8>, Lsn)>> {
        let list = {
            let state = self.read();
            if let Some(change) = state.active.pinned().last(key, below.max(state.active.settled())) {
                return Ok(change.value.as_ref().map(|value| (value.to_vec(), change.lsn)));
            }
            state.sealed.clone()
        };
        let segments = self.segments();
        segments.repaired(&list, || {
            for number in (0..list.len()).rev() {
                match segments.held(&list, number)? {
                    Held::Mapped(sidecar) => {
                        let at = sidecar.pinned_from(key)?;
                        if at == sidecar.pinned_count() {
                            return Ok(None);
                        }
                        let record = sidecar.pinned_at(at)?;
                        return Ok((record.key == key).then(|| (record.value.to_vec(), record.lsn)));
                    }
                    Held::Frozen(index) => {
                        if let Some(change) = index.pinned().last(key, Lsn::MAX) {
                            return Ok(change.value.as_ref().map(|value| (value.to_vec(), change.lsn)));
                        }
                    }
                    Held::Unopened => {}
                }
            }
            Ok(None)
        })
    }

    /// All pinned records whose key begins with `prefix`, by key, as frames before `below` left them.
    ///
    /// # Errors
    /// As [`Index::version_of`].
    pub fn pinned_with_prefix(&self, prefix: &[u8], below: Lsn) -> Result<Vec<PinnedRecord>> {
        let (list, changes) = {
            let state = self.read();
            let below = below.max(state.active.settled());
            let changes = state.active.pinned().with_prefix(prefix, below);
            let changes: Vec<_> = changes
                .map(|(key, change)| (key.to_vec(), change.clone()))
                .collect();
            (state.sealed.clone(), changes)
        };
        let segments = self.segments();
        let mut records: PinnedState =
            segments.repaired(&list, || segments.pinned_state(&list, list.len(), None, prefix))?;
        for (key, change) in changes {
            match change.value {
                Some(value) => records.insert(key, (value.into_vec(), change.lsn)),
                None => records.remove(&key),
            };
        }
        Ok(records
            .into_iter()
            .map(|(key, (value, lsn))| (key, value, lsn))
            .collect())
    }

    /// A block that begins at or at most a little before `lsn` (16 KiB and one block): from it a walk of
    /// block headers finds the block that holds `lsn`, if any does. `None` before the first segment.
    ///
    /// # Errors
    /// As [`Index::version_of`].
    pub fn block_holding(&self, lsn: Lsn) -> Result<Option<BlockPlace>> {
        let list = {
            let state = self.read();
            if lsn >= state.active.first() {
                return Ok(state.active.block_holding(lsn));
            }
            state.sealed.clone()
        };
        let behind = list.partition_point(|sealed| sealed.first <= lsn);
        let Some(number) = behind.checked_sub(1) else {
            return Ok(None);
        };
        let segments = self.segments();
        segments.repaired(&list, || match segments.held(&list, number)? {
            Held::Mapped(sidecar) => sidecar.block_holding(lsn),
            Held::Frozen(index) => Ok(index.block_holding(lsn)),
            Held::Unopened => Ok(None),
        })
    }

    /// Counts over the whole log as far as it was taken in.
    ///
    /// # Errors
    /// As [`Index::version_of`].
    pub fn totals(&self) -> Result<Totals> {
        let (list, active) = {
            let state = self.read();
            (state.sealed.clone(), state.active.totals())
        };
        let segments = self.segments();
        segments.repaired(&list, || {
            let mut sum = Totals::default();
            for number in 0..list.len() {
                match segments.held(&list, number)? {
                    Held::Mapped(sidecar) => sum.add(&sidecar.header().totals),
                    Held::Frozen(index) => sum.add(&index.totals()),
                    Held::Unopened => {}
                }
            }
            sum.add(&active);
            Ok(sum)
        })
    }

    /// Segments whose sidecar files are missing or damaged, found by reading all of them; they will be
    /// made again when they are needed.
    ///
    /// # Errors
    /// `Internal` when files cannot be read.
    pub fn verify(&self) -> Result<Vec<Lsn>> {
        let list = self.list();
        let mut damaged = Vec::new();
        for number in 0..list.len() {
            let found = self.segments().held(&list, number).and_then(|held| match held {
                Held::Mapped(sidecar) => sidecar.verify(),
                Held::Frozen(_) | Held::Unopened => Ok(()),
            });
            match found {
                Ok(()) => {}
                Err(Fault::Damaged(segment)) => damaged.push(segment),
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Makes missing and damaged sidecars again, whether a query needs them or not; tells which.
    ///
    /// # Errors
    /// As [`Index::verify`], and `Corrupt` for damage in the log (E3).
    pub fn repair(&self) -> Result<Vec<Lsn>> {
        let (list, damaged) = (self.list(), self.verify()?);
        self.segments().make_all(&list, &damaged)?;
        Ok(damaged)
    }

    pub(super) fn segments(&self) -> &SealedSegments {
        &self.shared.segments
    }

    pub(super) fn list(&self) -> List {
        self.read().sealed.clone()
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs of a stream in the sealed segments from version `from` on, newest first, when `end` events
/// of it lie in them.
fn sealed_runs(
    segments: &SealedSegments,
    list: &List,
    hash: u64,
    stream: &str,
    from: u64,
    end: u64,
) -> Result<Vec<Run>, Fault> {
    let mut runs = Vec::new();
    let mut behind = end;
    for number in (0..list.len()).rev() {
        if behind <= from {
            break;
        }
        let count = match segments.held(list, number)? {
            Held::Mapped(sidecar) if sidecar.header().base => {
                let begins = list.get(number).map_or(Lsn::ZERO, |base| base.end);
                let text = format!(
                    "what the stream had before version {behind} was freed; read it from that version on, or from \
                     {begins} in the log"
                );
                return Err(Error::behind(text).at_lsn(begins).into());
            }
            Held::Mapped(sidecar) => {
                let found = sidecar.stream(hash, stream)?;
                if found.is_some_and(|found| found.base + found.count != behind) {
                    return Err(sidecar.damaged());
                }
                found.map_or(0, |found| found.count)
            }
            Held::Frozen(index) => index
                .stream(hash, stream)
                .map_or(0, |entry| to_u64(entry.postings.len())),
            Held::Unopened => 0,
        };
        let Some(base) = behind.checked_sub(count) else {
            return Err(Error::internal("sidecar indexes disagree about a stream's events").into());
        };
        if count != 0 {
            let next = from.saturating_sub(base);
            runs.push(Run {
                from: RunSource::Sealed { number, next, count },
                version: base + next,
            });
        }
        behind = base;
    }
    Ok(runs)
}
