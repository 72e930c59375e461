//! [`SealedSegments`]: the indexes of all segments but the active one, opened at first use, made
//! again where they are missing or damaged.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::block::Block;
use crate::clock::Rng;
use crate::storage::Storage;
use crate::width::to_u64;
use crate::{Chain, Error, ErrorKind, Lsn, Result, StoreId};

use super::active::{ActiveIndex, StreamEntry};
use super::base::{self, Base};
use super::build::{self, PinnedState};
use super::name;
use super::sidecar::{Fault, Sidecar};

/// The log, as far as making a sidecar needs it.
pub trait SegmentSource: Send + Sync + 'static {
    /// Chain in the header of a segment's first block; `None` while it has none.
    ///
    /// # Errors
    /// Whatever keeps the header from being read or believed.
    fn chain_before(&self, segment: Lsn) -> Result<Option<Chain>>;

    /// Gives every block of a sealed segment in order, each verified, LSN and chain included. Reads
    /// with read calls, not through a mapping.
    ///
    /// # Errors
    /// `Corrupt` for damage (E3), and what `visit` returns.
    fn walk(&self, segment: Lsn, visit: &mut dyn FnMut(&Block<'_>) -> Result<()>) -> Result<()>;
}

/// Bytes of a segment between two words about how far a rebuild is: 1 MiB.
const TOLD_EVERY: u64 = 1 << 20;

/// How far the making of sidecars from their segments is: told before each, now and then while its segment is
/// read, and at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// First LSN of the segment.
    pub segment: Lsn,
    /// Bytes of it that were read; 0 before it begins.
    pub read: u64,
    /// Sidecars known to be missing, this one included; 0 when all are made, or making them has failed.
    pub left: u64,
    /// Bytes of log that are still to be read for them, as far as that is known.
    pub bytes_left: u64,
}

/// Who is told of it.
pub type OnRebuild = Arc<dyn Fn(Rebuild) + Send + Sync>;

/// Sidecars that are still to be made, and bytes of their segments.
#[derive(Clone, Copy, Default)]
struct Rest {
    sidecars: u64,
    bytes: u64,
}

/// All sealed segments, oldest first. Replaced as a whole when one is added.
pub(super) type List = Arc<[Arc<Sealed>]>;

/// One sealed segment.
pub(super) struct Sealed {
    pub(super) first: Lsn,
    pub(super) end: Lsn,
    held: RwLock<Held>,
}

/// What a process has of a sealed segment's index.
#[derive(Clone)]
pub(super) enum Held {
    /// Nothing yet.
    Unopened,
    /// The whole index in memory, because its file is not written or cannot be.
    Frozen(Arc<ActiveIndex>),
    /// Its file.
    Mapped(Arc<Sidecar>),
}

impl Sealed {
    /// A segment whose index was not looked at.
    pub(super) fn unopened(first: Lsn, end: Lsn) -> Arc<Sealed> {
        Arc::new(Sealed {
            first,
            end,
            held: RwLock::new(Held::Unopened),
        })
    }

    /// What was freed, as a base keeps it.
    pub(super) fn of_base(base: &Base) -> Arc<Sealed> {
        Arc::new(Sealed {
            first: Lsn::ZERO,
            end: base.end(),
            held: RwLock::new(Held::Mapped(Arc::clone(&base.0))),
        })
    }

    /// A segment whose index is complete in memory.
    pub(super) fn frozen(index: ActiveIndex) -> Arc<Sealed> {
        let (first, end) = (index.first(), index.end());
        Arc::new(Sealed {
            first,
            end,
            held: RwLock::new(Held::Frozen(Arc::new(index))),
        })
    }

    fn bytes(&self) -> u64 {
        self.end.since(self.first)
    }

    pub(super) fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Held) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

/// How sealed segments' indexes are opened and made.
pub(super) struct SealedSegments {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) store_id: StoreId,
    pub(super) source: Arc<dyn SegmentSource>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) progress: OnRebuild,
    /// One rebuild at a time in a process; held across I/O, which is why no query that finds its
    /// sidecars whole ever takes it.
    pub(super) making: Mutex<()>,
}

impl SealedSegments {
    /// The index of the `number`-th segment, opened.
    pub(super) fn held(&self, list: &List, number: usize) -> Result<Held, Fault> {
        let Some(sealed) = list.get(number) else {
            return Err(Error::internal("the index has no such segment").into());
        };
        match sealed.held() {
            Held::Unopened => {
                let held = Held::Mapped(Arc::new(self.open(sealed)?));
                sealed.hold(held.clone());
                Ok(held)
            }
            held => Ok(held),
        }
    }

    /// Opens a sidecar and compares it with the log around it: one that was left behind by another
    /// history has other chains.
    fn open(&self, sealed: &Sealed) -> Result<Sidecar, Fault> {
        let sidecar = Sidecar::open(&*self.storage, sealed.first)?;
        let header = sidecar.header();
        let same = |chain: Chain, segment: Lsn| -> Result<bool> {
            Ok(self
                .source
                .chain_before(segment)?
                .is_none_or(|known| known == chain))
        };
        let fits = header.store_id == self.store_id
            && header.end == sealed.end
            && same(header.chain_before, sealed.first)?
            && same(header.end_chain, sealed.end)?;
        if fits { Ok(sidecar) } else { Err(sidecar.damaged()) }
    }

    /// Runs a query; when it meets a missing or damaged sidecar, makes that one and runs it again.
    pub(super) fn repaired<T>(&self, list: &List, mut query: impl FnMut() -> Result<T, Fault>) -> Result<T> {
        for _ in 0..=list.len() {
            match query() {
                Ok(answer) => return Ok(answer),
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Damaged(segment)) => self.make(list, segment, Rest::default())?,
            }
        }
        Err(Error::internal(
            "a sidecar index was made again and is damaged at once; check the disk",
        ))
    }

    /// Makes the sidecar of a segment, and first those before it that turn out to be missing. `others` are made
    /// by the caller's next calls.
    fn make(&self, list: &List, segment: Lsn, others: Rest) -> Result<()> {
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.make_with_older(list, segment, others);
        if others.sidecars == 0 || made.is_err() {
            let (read, left, bytes_left) = (0, 0, 0);
            (self.progress)(Rebuild {
                segment,
                read,
                left,
                bytes_left,
            });
        }
        made
    }

    fn make_with_older(&self, list: &List, segment: Lsn, others: Rest) -> Result<()> {
        let mut wanted = vec![number_of(list, segment)?];
        while let Some(&number) = wanted.last() {
            let bytes = wanted
                .iter()
                .filter_map(|number| list.get(*number))
                .map(|sealed| sealed.bytes());
            let left = Rest {
                sidecars: to_u64(wanted.len()) + others.sidecars,
                bytes: bytes.sum::<u64>() + others.bytes,
            };
            match self.make_one(list, number, left) {
                Ok(()) => drop(wanted.pop()),
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Damaged(older)) => {
                    let older = number_of(list, older)?;
                    assert!(older < number, "an index depends on older ones only");
                    wanted.push(older);
                }
            }
        }
        Ok(())
    }

    /// Makes one sidecar unless it is whole by now.
    fn make_one(&self, list: &List, number: usize, left: Rest) -> Result<(), Fault> {
        let Some(sealed) = list.get(number) else {
            return Ok(());
        };
        match self.held(list, number) {
            Ok(Held::Mapped(sidecar)) if sidecar.header().base => {
                return Err(base::damaged(sealed.end).into());
            }
            Ok(Held::Mapped(sidecar)) if sidecar.verify().is_ok() => return Ok(()),
            Ok(Held::Frozen(_)) => return Ok(()),
            Err(Fault::Failed(error)) => return Err(error.into()),
            Ok(Held::Mapped(_) | Held::Unopened) | Err(Fault::Damaged(_)) => {}
        }
        if let Some(before) = number.checked_sub(1) {
            self.held(list, before)?;
        }
        let tell = |read: u64| {
            (self.progress)(Rebuild {
                segment: sealed.first,
                read,
                left: left.sidecars,
                bytes_left: left.bytes.saturating_sub(read),
            });
        };
        tell(0);
        let mut index = ActiveIndex::new(sealed.first);
        // Sealed segments are durable to their end (S2): nothing will be cut.
        index.settle(Lsn::MAX);
        let mut told = 0;
        self.source.walk(sealed.first, &mut |block| {
            index.absorb(block)?;
            let read = index.end().since(sealed.first);
            if read - told >= TOLD_EVERY {
                told = read;
                tell(read);
            }
            Ok(())
        })?;
        if index.end() != sealed.end {
            let end = index.end();
            let text = format!("a segment ends at {end} and the next one begins elsewhere");
            return Err(Error::corrupt(text).at_lsn(sealed.end).into());
        }
        self.keep(list, number, Arc::new(index))
    }

    /// Writes a complete index and uses the file from then on; where it cannot be written the index
    /// stays in memory and the answers stay the same.
    pub(super) fn keep(&self, list: &List, number: usize, index: Arc<ActiveIndex>) -> Result<(), Fault> {
        let Some(sealed) = list.get(number) else {
            return Ok(());
        };
        let pinned = self.pinned_state(list, number, Some(&index), b"")?;
        let bytes = build::encode(self.store_id, &index, &pinned, &mut |entry| {
            self.base_of(list, number, entry)
        })?;
        let kept = build::write(&*self.storage, sealed.first, &bytes, self.rng.next_u64())
            .map_err(Fault::Failed)
            .and_then(|()| self.open(sealed));
        sealed.hold(match kept {
            Ok(sidecar) => Held::Mapped(Arc::new(sidecar)),
            Err(fault) => {
                // Nobody needs that of a segment that is freed meanwhile.
                match &fault {
                    Fault::Failed(error) if error.kind() == ErrorKind::Behind => {}
                    fault => {
                        tracing::warn!(segment = %sealed.first, ?fault, "a sidecar index stays in memory")
                    }
                }
                Held::Frozen(index)
            }
        });
        Ok(())
    }

    /// Writes the sidecars of segments that were sealed while the store was open, unless another
    /// process has.
    pub(super) fn write_frozen(&self, list: &List) -> Result<()> {
        self.repaired(list, || {
            let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, sealed) in list.iter().enumerate() {
                let Held::Frozen(index) = sealed.held() else {
                    continue;
                };
                match self.open(sealed) {
                    Ok(sidecar) => sealed.hold(Held::Mapped(Arc::new(sidecar))),
                    Err(_) => self.keep(list, number, index)?,
                }
            }
            Ok(())
        })
    }

    /// Makes the sidecars whose files are missing, oldest first.
    pub(super) fn make_missing(&self, list: &List) -> Result<()> {
        let files = self.storage.list(name::FOLDER);
        let files = files.map_err(|error| Error::io("list the folder", name::FOLDER, error))?;
        let there: BTreeSet<Lsn> = files
            .iter()
            .filter_map(|file| name::sidecar_segment(file))
            .collect();
        let unopened = |sealed: &&Arc<Sealed>| matches!(sealed.held(), Held::Unopened);
        let missing: Vec<Lsn> = list
            .iter()
            .filter(unopened)
            .map(|sealed| sealed.first)
            .filter(|first| !there.contains(first))
            .collect();
        self.make_all(list, &missing)
    }

    /// Makes the sidecars of some segments, oldest first.
    pub(super) fn make_all(&self, list: &List, segments: &[Lsn]) -> Result<()> {
        let mut left = VecDeque::new();
        for segment in segments {
            left.extend(list.get(number_of(list, *segment)?));
        }
        while let Some(sealed) = left.pop_front() {
            let others = Rest {
                sidecars: to_u64(left.len()),
                bytes: left.iter().map(|sealed| sealed.bytes()).sum(),
            };
            self.make(list, sealed.first, others)?;
        }
        Ok(())
    }

    /// Events of a stream in all segments before the `number`-th.
    pub(super) fn count_before(
        &self,
        list: &List,
        number: usize,
        hash: u64,
        stream: &str,
    ) -> Result<u64, Fault> {
        let mut count = 0;
        for older in (0..number).rev() {
            match self.held(list, older)? {
                Held::Mapped(sidecar) => {
                    if let Some(found) = sidecar.stream(hash, stream)? {
                        return Ok(count + found.base + found.count);
                    }
                }
                Held::Frozen(index) => {
                    if let Some(entry) = index.stream(hash, stream) {
                        count += to_u64(entry.postings.len());
                        if let Some(base) = entry.base.get() {
                            return Ok(count + base);
                        }
                    }
                }
                Held::Unopened => {}
            }
        }
        Ok(count)
    }

    /// Events before the `number`-th segment of a stream that it has, remembered in its entry.
    pub(super) fn base_of(&self, list: &List, number: usize, entry: &StreamEntry) -> Result<u64, Fault> {
        if let Some(base) = entry.base.get() {
            return Ok(*base);
        }
        let base = self.count_before(list, number, entry.hash, &entry.name)?;
        Ok(*entry.base.get_or_init(|| base))
    }

    /// Pinned records with a prefix as they are at the end of the segments before the `number`-th, and
    /// after `last` if given.
    pub(super) fn pinned_state(
        &self,
        list: &List,
        number: usize,
        last: Option<&Arc<ActiveIndex>>,
        prefix: &[u8],
    ) -> Result<PinnedState, Fault> {
        let mut state = PinnedState::new();
        let mut newer: Vec<Arc<ActiveIndex>> = last.cloned().into_iter().collect();
        for older in (0..number).rev() {
            match self.held(list, older)? {
                Held::Mapped(sidecar) => {
                    for record in sidecar.pinned_from(prefix)?..sidecar.pinned_count() {
                        let record = sidecar.pinned_at(record)?;
                        if !record.key.starts_with(prefix) {
                            break;
                        }
                        state.insert(record.key.to_vec(), (record.value.to_vec(), record.lsn));
                    }
                    break;
                }
                Held::Frozen(index) => newer.push(index),
                Held::Unopened => {}
            }
        }
        for index in newer.iter().rev() {
            for (key, change) in index.pinned().with_prefix(prefix, Lsn::MAX) {
                match &change.value {
                    Some(value) => state.insert(key.to_vec(), (value.to_vec(), change.lsn)),
                    None => state.remove(key),
                };
            }
        }
        Ok(state)
    }
}

/// Number of the segment that begins at `first`.
fn number_of(list: &List, first: Lsn) -> Result<usize> {
    list.binary_search_by_key(&first, |sealed| sealed.first)
        .map_err(|_| Error::internal("the index has no such segment").at_lsn(first))
}
