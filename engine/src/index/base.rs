//! The base: what is left of segments that were freed. The file `log/base-<16 hex>`, named by the LSN at which the
//! log begins from then on, has a sidecar's layout without postings and blocks: for each stream how many of its events
//! were freed, and all pinned records as they were there. It is truth: nothing can make it again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::storage::{OpenMode, Storage};
use crate::store::Newest;
use crate::{Chain, Error, Lsn, Result, StoreId, StreamName};

use super::active::{ActiveIndex, Totals};
use super::build;
use super::layout::{HEADER_LEN, SidecarHeader};
use super::lookup::{Index, PinnedRecord};
use super::name;
use super::sealed::{Held, List, Sealed, SealedSegments};
use super::sidecar::{Fault, Sidecar};

/// What is left of the segments before its end.
#[derive(Clone)]
pub struct Base(pub(super) Arc<Sidecar>);

impl Base {
    /// Opens the newest base that is one; `None` without any.
    ///
    /// # Errors
    /// When files cannot be read.
    pub(crate) fn newest(storage: &dyn Storage, id: StoreId) -> Result<Option<Base>> {
        loop {
            let ends = ends(storage)?;
            let mut gone = false;
            for end in ends.iter().rev() {
                match Sidecar::open_base(storage, *end) {
                    Ok(Some(base)) if base.header().store_id == id => return Ok(Some(Base(Arc::new(base)))),
                    Ok(Some(_)) | Err(Fault::Damaged(_)) => {
                        tracing::error!(base = %end, "a base file is damaged");
                    }
                    // A newer one has taken its place since the folder was listed.
                    Ok(None) => gone = true,
                    Err(Fault::Failed(error)) => return Err(error),
                }
            }
            if !gone {
                return Ok(None);
            }
        }
    }

    /// Opens the base of a log that begins at `end`.
    ///
    /// # Errors
    /// `Corrupt` when it is missing or damaged.
    pub(crate) fn at(storage: &dyn Storage, id: StoreId, end: Lsn) -> Result<Base> {
        match Sidecar::open_base(storage, end) {
            Ok(Some(base)) if base.header().store_id == id => Ok(Base(Arc::new(base))),
            Err(Fault::Failed(error)) => Err(error),
            Ok(_) | Err(Fault::Damaged(_)) => Err(damaged(end).at_path(storage.root().join(name::base(end)))),
        }
    }

    /// All of its bytes, verified.
    pub(crate) fn bytes(&self, storage: &dyn Storage) -> Result<Vec<u8>> {
        self.verify()?;
        let name = name::base(self.end());
        let read = storage.open(&name, OpenMode::Read).and_then(|file| {
            let mut bytes = vec![0; crate::width::to_usize(file.len()?)];
            let read = file.read_at(&mut bytes, 0)?;
            bytes.truncate(read);
            Ok(bytes)
        });
        read.map_err(|error| Error::io("read a base file", storage.root().join(name), error))
    }

    /// Its bytes, but that they name other files of what was received; for a repair of those.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged.
    pub(crate) fn bytes_naming(&self, storage: &dyn Storage, received: Newest) -> Result<Vec<u8>> {
        let mut bytes = self.bytes(storage)?;
        let header = SidecarHeader {
            received,
            ..*self.0.header()
        };
        let front = bytes.get_mut(..HEADER_LEN).ok_or_else(|| damaged(self.end()))?;
        front.copy_from_slice(&header.to_bytes());
        Ok(bytes)
    }

    /// Where the log begins.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.0.header().end
    }

    /// Chain there.
    #[must_use]
    pub fn end_chain(&self) -> Chain {
        self.0.header().end_chain
    }

    /// Counts over what was freed.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.0.header().totals
    }

    /// How many events of a stream were freed.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged.
    pub(crate) fn freed_of(&self, stream: &str) -> Result<u64> {
        match self.0.stream(StreamName::hash(stream), stream) {
            Ok(found) => Ok(found.map_or(0, |found| found.base)),
            Err(Fault::Damaged(_)) => Err(damaged(self.end())),
            Err(Fault::Failed(error)) => Err(error),
        }
    }

    /// Whose it is.
    pub(crate) fn store_id(&self) -> StoreId {
        self.0.header().store_id
    }

    /// Where what was received before its end is kept.
    pub(crate) fn received(&self) -> Newest {
        self.0.header().received
    }

    /// True when it has a pinned record whose key begins with `prefix`.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged.
    pub(crate) fn has_pinned(&self, prefix: &[u8]) -> Result<bool> {
        let first = || {
            let number = self.0.pinned_from(prefix)?;
            let found = (number < self.0.pinned_count()).then(|| self.0.pinned_at(number));
            Ok(found
                .transpose()?
                .is_some_and(|record| record.key.starts_with(prefix)))
        };
        match first() {
            Ok(found) => Ok(found),
            Err(Fault::Damaged(_)) => Err(damaged(self.end())),
            Err(Fault::Failed(error)) => Err(error),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged.
    pub(crate) fn verify(&self) -> Result<()> {
        match self.0.verify() {
            Ok(()) => Ok(()),
            Err(Fault::Damaged(_)) => Err(damaged(self.end())),
            Err(Fault::Failed(error)) => Err(error),
        }
    }
}

impl Index {
    /// Where the log begins, as far as this index knows.
    pub(crate) fn begins(&self) -> Lsn {
        self.list()
            .first()
            .and_then(base_of)
            .map_or(Lsn::ZERO, |base| base.end)
    }

    /// Puts a newer base in place of what it replaces. The index that has not come so far begins anew with the
    /// `sealed` segments behind the base and the one at `active`; true when it did, and is to be fed from there.
    pub(crate) fn rebase(&self, base: &Base, sealed: &[Lsn], active: Lsn) -> bool {
        let mut state = self.write();
        if state.active.first() < base.end() {
            state.sealed = unopened(Some(base), sealed, active);
            state.active = ActiveIndex::new(active);
            return true;
        }
        let behind = state.sealed.iter().filter(|sealed| sealed.first >= base.end());
        state.sealed = std::iter::once(Sealed::of_base(base))
            .chain(behind.cloned())
            .collect();
        false
    }

    /// Where the log begins, and how far the scan phase had come when that was freed.
    pub(crate) fn freed(&self) -> (Lsn, Lsn) {
        let base = self.list().first().and_then(base_of);
        base.map_or((Lsn::ZERO, Lsn::ZERO), |base| {
            (base.end, base.sidecar.header().scanned)
        })
    }

    /// The bytes of a base that takes the place of everything before `end`, where a segment begins; the scan phase
    /// has come to `scanned`, and what was received is kept where `received` says.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub(crate) fn base_before(&self, end: Lsn, scanned: Lsn, received: Newest) -> Result<Vec<u8>> {
        let list = self.list();
        let number = list.partition_point(|sealed| sealed.end <= end);
        let last = number.checked_sub(1).and_then(|last| list.get(last));
        if last.is_none_or(|last| last.end != end) {
            return Err(
                Error::internal("no segment that the index knows ends where a base should").at_lsn(end),
            );
        }
        let segments = self.segments();
        segments.repaired(&list, || encode(segments, &list, number, (scanned, received)))
    }

    /// Shows the sealed segments behind the base, oldest first, as long as `until` says so: end, and time of the
    /// last block with frames, 0 for none.
    ///
    /// # Errors
    /// As [`Index::version_of`].
    pub(crate) fn sealed_times(&self, until: &mut dyn FnMut(Lsn, i64) -> bool) -> Result<()> {
        let (list, segments) = (self.list(), self.segments());
        for (number, sealed) in list.iter().enumerate() {
            let last = segments.repaired(&list, || match segments.held(&list, number)? {
                Held::Mapped(sidecar) if sidecar.header().base => Ok(None),
                Held::Mapped(sidecar) => Ok(Some(sidecar.header().totals.last_time)),
                Held::Frozen(index) => Ok(Some(index.totals().last_time)),
                Held::Unopened => Ok(None),
            })?;
            if last.is_some_and(|last| !until(sealed.end, last)) {
                break;
            }
        }
        Ok(())
    }

    /// Time of the newest block with frames that is in memory; 0 for none.
    pub(crate) fn newest_time(&self) -> i64 {
        let state = self.read();
        let active = state.active.totals().last_time;
        let sealed = || match state.sealed.last().map(|sealed| sealed.held()) {
            Some(Held::Mapped(sidecar)) => sidecar.header().totals.last_time,
            Some(Held::Frozen(index)) => index.totals().last_time,
            Some(Held::Unopened) | None => 0,
        };
        if active == 0 { sealed() } else { active }
    }

    /// Pinned records with a prefix, by key, as the base has them.
    ///
    /// # Errors
    /// `Corrupt` when the base is damaged.
    pub(crate) fn pinned_in_base(&self, prefix: &[u8]) -> Result<Vec<PinnedRecord>> {
        let (list, segments) = (self.list(), self.segments());
        if list.first().and_then(base_of).is_none() {
            return Ok(Vec::new());
        }
        let state = segments.repaired(&list, || segments.pinned_state(&list, 1, None, prefix))?;
        let records = state.into_iter().map(|(key, (value, lsn))| (key, value, lsn));
        Ok(records.collect())
    }

    /// True when a record whose key begins with `prefix` is pinned in the state at `end`, where a segment begins.
    ///
    /// # Errors
    /// As [`Index::base_before`].
    pub(crate) fn is_pinned_before(&self, end: Lsn, prefix: &[u8]) -> Result<bool> {
        let (list, segments) = (self.list(), self.segments());
        let number = list.partition_point(|sealed| sealed.end <= end);
        let state = segments.repaired(&list, || segments.pinned_state(&list, number, None, prefix))?;
        Ok(!state.is_empty())
    }

    /// The base that this index begins with, if its log does not begin at 0.
    pub(crate) fn base(&self) -> Option<Base> {
        let base = self.list().first().and_then(base_of);
        base.map(|base| Base(base.sidecar))
    }

    /// How many events of a stream were freed: its first version that is still there.
    ///
    /// # Errors
    /// `Corrupt` when the base is damaged.
    pub(crate) fn freed_of(&self, stream: &str) -> Result<u64> {
        self.base().map_or(Ok(0), |base| base.freed_of(stream))
    }
}

/// Where the bases of a folder end, ascending.
pub(crate) fn ends(storage: &dyn Storage) -> Result<Vec<Lsn>> {
    let names = storage.list(name::FOLDER);
    let names =
        names.map_err(|error| Error::io("list the segments", storage.root().join(name::FOLDER), error))?;
    let mut ends: Vec<Lsn> = names.iter().filter_map(|file| name::base_end(file)).collect();
    ends.sort_unstable();
    Ok(ends)
}

/// What stands in a base cannot be made again.
pub(super) fn damaged(end: Lsn) -> Error {
    Error::corrupt(
        "the base file, which holds what is left of the freed beginning of the log, is damaged and cannot be made \
         again: put it back from a copy, restore a backup, or see what `milepost repair` can save of it",
    )
    .at_path(name::base(end))
    .at_lsn(end)
}

/// Puts a base in place, durable with its name when this returns.
pub(crate) fn write(storage: &dyn Storage, end: Lsn, bytes: &[u8], word: u64) -> Result<()> {
    put(storage, end, &name::base(end), bytes, word)
}

/// Puts a file about the log up to `end` in `place`, durable with its name when this returns.
pub(crate) fn put(storage: &dyn Storage, end: Lsn, place: &str, bytes: &[u8], word: u64) -> Result<()> {
    let new = name::temporary(end, word);
    let write = || -> io::Result<()> {
        let file = storage.open(&new, OpenMode::CreateNew)?;
        crate::storage::write_all(&*file, &[bytes], 0)?;
        if !planted::is(Bug::SkipBaseSync) {
            file.sync_data()?;
        }
        storage.rename(&new, place)?;
        if planted::is(Bug::SkipBaseSync) {
            return Ok(());
        }
        storage.sync_dir(name::FOLDER)
    };
    write().map_err(|error| {
        // What is left of it goes when somebody opens the store alone.
        let _ = storage.unlink(&new);
        Error::io(
            "write what is left of the freed log",
            storage.root().join(place),
            error,
        )
    })
}

/// Removes the bases and sidecars of what lies before `end`, which a base there has replaced.
pub(crate) fn remove_older(storage: &dyn Storage, end: Lsn) -> Result<()> {
    let failed = |error| {
        Error::io(
            "remove what a base has replaced",
            storage.root().join(name::FOLDER),
            error,
        )
    };
    for file in storage.list(name::FOLDER).map_err(failed)? {
        let of_before = name::sidecar_segment(&file).or(name::base_end(&file));
        if of_before.is_some_and(|lsn| lsn < end) {
            match storage.unlink(&format!("{}/{file}", name::FOLDER)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Streams by (hash, name), and how many of their events are freed.
pub(super) type Counts = BTreeMap<(u64, Box<str>), u64>;

/// The bytes of a base that takes the place of the first `number` segments of the list, a former base among them.
pub(super) fn encode(
    segments: &SealedSegments,
    list: &List,
    number: usize,
    (scanned, received): (Lsn, Newest),
) -> Result<Vec<u8>, Fault> {
    let (mut counts, mut totals, mut last) = (Counts::new(), Totals::default(), None);
    for at in 0..number {
        let end_chain = match segments.held(list, at)? {
            Held::Mapped(sidecar) => {
                sidecar.each_stream(&mut |hash, name, found| {
                    counts.insert((hash, name.into()), found.base + found.count);
                })?;
                totals.add(&sidecar.header().totals);
                Some(sidecar.header().end_chain)
            }
            Held::Frozen(index) => {
                for entry in index.streams().iter().filter(|entry| !entry.postings.is_empty()) {
                    let base = segments.base_of(list, at, entry)?;
                    let here = crate::width::to_u64(entry.postings.len());
                    counts.insert((entry.hash, entry.name.clone()), base + here);
                }
                totals.add(&index.totals());
                index.chain()
            }
            Held::Unopened => None,
        };
        last = end_chain.zip(list.get(at).map(|sealed| sealed.end));
    }
    let Some((end_chain, end)) = last else {
        return Err(Error::internal("a base of no segments").into());
    };
    let pinned = segments.pinned_state(list, number, None, b"")?;
    let place = build::BasePlace {
        store_id: segments.store_id,
        end,
        end_chain,
        totals,
        scanned,
        received,
    };
    Ok(build::encode_base(&place, &counts, &pinned)?)
}

/// A list of segments that were not looked at, with the base first.
pub(super) fn unopened(base: Option<&Base>, sealed: &[Lsn], active: Lsn) -> List {
    let begins = base.map_or(Lsn::ZERO, Base::end);
    let kept: Vec<Lsn> = sealed.iter().copied().filter(|first| *first >= begins).collect();
    let ends = kept.iter().copied().skip(1).chain([active]);
    let behind = kept
        .iter()
        .zip(ends)
        .map(|(first, end)| Sealed::unopened(*first, end));
    base.map(Sealed::of_base).into_iter().chain(behind).collect()
}

/// The base at the front of a list.
struct FrontBase {
    end: Lsn,
    sidecar: Arc<Sidecar>,
}

fn base_of(sealed: &Arc<Sealed>) -> Option<FrontBase> {
    match sealed.held() {
        Held::Mapped(sidecar) if sidecar.header().base => Some(FrontBase {
            end: sealed.end,
            sidecar,
        }),
        _ => None,
    }
}
