//! [`HeldIndex`]: what is held, found by stream and by origin. Made of the log when it is needed first: records are pinned, and the
//! frames they name are read once, so it is bounded as they are.
//!
//! **Behind.** A transaction is held behind another one when they share a stream and came over the same pair, or were
//! committed first at the same site: then their order in that stream is one that this site promises (R1). Streams are compared
//! by a 64-bit hash: two of one hash would hold each other up, and lose nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use milepost_engine::{ErrorKind, Lsn, Origin, Result, SiteName, Store, StoreId, StreamName};

use crate::message::Carried;
use crate::tracking::{HeldEvent, InQuarantine};

use super::record::{HeldKey, HeldRecord, read_held, records};

/// See the module.
#[derive(Default)]
pub(super) struct HeldIndex {
    entries: BTreeMap<HeldKey, Entry>,
    by_stream: HashMap<u64, BTreeSet<HeldKey>>,
}

/// One that is held.
pub(super) struct Entry {
    pub(super) record: HeldRecord,
    events: HashSet<HeldEvent>,
    streams: BTreeSet<u64>,
    /// Its frame is not durable yet.
    pending: bool,
    /// Its frame was freed, against the hold: nobody knows its streams, so everything is behind it until it is dropped.
    lost: bool,
}

impl Entry {
    fn of(record: HeldRecord, carried: &Carried, pending: bool) -> Result<Entry> {
        Ok(Entry {
            record,
            events: HeldEvent::all_of(carried)?.into_iter().collect(),
            streams: streams_of(carried)?,
            pending,
            lost: false,
        })
    }

    /// One whose bytes are gone.
    fn lost(record: HeldRecord) -> Entry {
        Entry {
            record,
            events: HashSet::new(),
            streams: BTreeSet::new(),
            pending: false,
            lost: true,
        }
    }

    /// In the order of their frames; what has none yet comes last.
    fn order(&self) -> Lsn {
        if self.pending { Lsn::MAX } else { self.record.at }
    }
}

/// Hashes of the streams that a transaction has events of.
fn streams_of(carried: &Carried) -> Result<BTreeSet<u64>> {
    let hash = |event: Result<milepost_engine::frame::EventRef<'_>>| Ok(StreamName::hash(event?.stream()?));
    carried.events().map(hash).collect()
}

impl HeldIndex {
    /// What the log says.
    pub(super) fn load(store: &Store) -> Result<HeldIndex> {
        let mut index = HeldIndex::default();
        for (key, record) in records(store, None)? {
            let entry = match read_held(store, record.at) {
                Err(error) if error.kind() == ErrorKind::Behind => Entry::lost(record),
                carried => Entry::of(record, &carried?, false)?,
            };
            index.insert(key, entry);
        }
        Ok(index)
    }

    fn insert(&mut self, key: HeldKey, entry: Entry) {
        for stream in &entry.streams {
            self.by_stream.entry(*stream).or_default().insert(key.clone());
        }
        self.entries.insert(key, entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds one whose frame is about to be appended.
    pub(super) fn add(&mut self, key: HeldKey, record: HeldRecord, carried: &Carried) -> Result<()> {
        self.insert(key, Entry::of(record, carried, true)?);
        Ok(())
    }

    /// All frames are durable: what was not is read from the log, for only there is its LSN.
    pub(super) fn has_pending(&self) -> bool {
        self.entries.values().any(|entry| entry.pending)
    }

    /// Takes the records of what is durable now.
    pub(super) fn settle(&mut self, store: &Store) -> Result<()> {
        for (key, record) in records(store, None)? {
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.record, entry.pending) = (record, false);
            }
        }
        // A message that stopped its pair was given up with all that was made of it.
        let given_up = self.entries.iter().filter(|(_, entry)| entry.pending);
        let given_up: Vec<HeldKey> = given_up.map(|(key, _)| key.clone()).collect();
        given_up.iter().for_each(|key| self.remove(key));
        Ok(())
    }

    /// Notes another cause.
    pub(super) fn change(&mut self, key: &HeldKey, record: HeldRecord) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.record = record;
        }
    }

    /// It is held no longer.
    pub(super) fn remove(&mut self, key: &HeldKey) {
        if let Some(entry) = self.entries.remove(key) {
            for stream in &entry.streams {
                if let Some(keys) = self.by_stream.get_mut(stream) {
                    keys.remove(key);
                }
            }
        }
    }

    /// Number for the next one of a remote.
    pub(super) fn next_number(&self, remote: &SiteName) -> u64 {
        self.of(remote)
            .map(|(key, _)| key.number)
            .max()
            .unwrap_or_default()
            .saturating_add(1)
    }

    /// How many are held of a remote, and their bytes.
    pub(super) fn takes(&self, remote: &SiteName) -> (usize, u64) {
        self.of(remote).fold((0, 0), |(count, bytes), (_, entry)| {
            (count + 1, bytes.saturating_add(entry.record.bytes))
        })
    }

    fn of<'a>(&'a self, remote: &'a SiteName) -> impl Iterator<Item = (&'a HeldKey, &'a Entry)> {
        self.entries.iter().filter(move |(key, _)| key.remote == *remote)
    }

    /// All, in the order of their frames.
    pub(super) fn in_order(&self) -> Vec<(&HeldKey, &Entry)> {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_by_key(|(_, entry)| entry.order());
        all
    }

    /// The lowest LSN of a frame that keeps one.
    pub(super) fn first(&self) -> Option<Lsn> {
        self.entries.values().map(Entry::order).min()
    }

    pub(super) fn record(&self, key: &HeldKey) -> Option<&HeldRecord> {
        self.entries.get(key).map(|entry| &entry.record)
    }

    /// Which is held under an LSN.
    pub(super) fn key_at(&self, at: Lsn) -> Option<HeldKey> {
        let found = self
            .entries
            .iter()
            .find(|(_, entry)| !entry.pending && entry.record.at == at);
        found.map(|(key, _)| key.clone())
    }

    /// The first that a new transaction is to be held behind.
    pub(super) fn first_before(
        &self,
        remote: &SiteName,
        site: StoreId,
        carried: &Carried,
    ) -> Result<Option<&HeldRecord>> {
        if self.is_empty() {
            return Ok(None);
        }
        let found = self.first_of(&streams_of(carried)?, remote, site, Lsn::MAX);
        Ok(found.map(|(_, entry)| &entry.record))
    }

    /// The first that one of those held waits for.
    pub(super) fn waits_for(&self, key: &HeldKey) -> Option<Lsn> {
        let own = self.entries.get(key)?;
        let found = self.first_of(&own.streams, &key.remote, own.record.origin, own.order());
        found.map(|(_, entry)| entry.record.at)
    }

    fn first_of(
        &self,
        streams: &BTreeSet<u64>,
        remote: &SiteName,
        site: StoreId,
        before: Lsn,
    ) -> Option<(&HeldKey, &Entry)> {
        let keys = streams.iter().filter_map(|stream| self.by_stream.get(stream));
        let sharing = keys
            .flatten()
            .filter_map(|key| self.entries.get(key).map(|entry| (key, entry)));
        let lost = self.entries.iter().filter(|(_, entry)| entry.lost);
        let ordered = sharing.chain(lost).filter(|(key, entry)| {
            (key.remote == *remote || entry.record.origin == site)
                && (before == Lsn::MAX || entry.order() < before)
        });
        ordered.min_by_key(|(_, entry)| entry.order())
    }

    /// Whether all events of a transaction are held.
    pub(super) fn has(&self, origin: &Origin, carried: &Carried) -> Result<InQuarantine> {
        let same = self.entries.values().filter(|entry| {
            let record = &entry.record;
            record.origin == origin.site
                && record.origin_epoch == origin.epoch
                && record.origin_lsn == origin.lsn
        });
        let same: Vec<&Entry> = same.collect();
        if same.is_empty() {
            return Ok(InQuarantine::No);
        }
        let all = HeldEvent::all_of(carried)?;
        if !all
            .iter()
            .all(|event| same.iter().any(|entry| entry.events.contains(event)))
        {
            return Ok(InQuarantine::No);
        }
        // Its position may move only once its bytes are durable (R1).
        let pending = same.iter().any(|entry| entry.pending);
        Ok(if pending {
            InQuarantine::NotYet
        } else {
            InQuarantine::Yes
        })
    }
}
