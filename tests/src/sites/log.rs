//! [`MemLog`]: a log in memory that keeps, after a power cut, what was synced and any prefix of the rest.
//!
//! Frames go through the engine's block builder and reader, so positions, chains and pinned records are
//! the real ones.

use std::collections::BTreeMap;

use milepost_engine::block::{Block, BlockBuilder, BlockKind, Seal};
use milepost_engine::frame::{FrameKind, FrameRef, NewFrame};
use milepost_engine::{Chain, Epoch, Lsn, Origin, Position, Result, SiteName, StoreId, Via};
use milepost_replication::tracking::{HeldEvent, OwnLog, newest_key, read_newest};

use crate::SimRng;

/// A frame, decoded once.
#[derive(Clone)]
pub struct Record {
    /// Its place in the log, with chain.
    pub position: Position,
    /// Its kind.
    pub kind: FrameKind,
    /// Where it was committed first, if not here.
    pub origin: Option<Origin>,
    /// The neighbour it came from.
    pub via: Option<Via>,
    /// When it was committed first.
    pub committed_at: i64,
    /// Ordinal, stream and payload of each event.
    pub events: Vec<(u32, String, Vec<u8>)>,
    held: Vec<HeldEvent>,
    pins: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    block: u64,
}

/// See the module. A clone is a copy of the directory.
#[derive(Clone)]
pub struct MemLog {
    /// Identity of the store.
    pub id: StoreId,
    /// Lineage.
    pub epoch: Epoch,
    records: Vec<Record>,
    by_lsn: BTreeMap<Lsn, usize>,
    /// End of the log and chain there, after each block.
    ends: Vec<(Lsn, Chain)>,
    durable_blocks: usize,
    /// Last values among all frames, durable or not.
    pinned: BTreeMap<Vec<u8>, Vec<u8>>,
    durable_pinned: BTreeMap<Vec<u8>, Vec<u8>>,
    seq: u64,
    /// Test only: leaves the pinned records of transactions out.
    pub forget_pins: bool,
    /// Test only: says that no event is known by its origin.
    pub forget_origins: bool,
}

impl MemLog {
    /// An empty log.
    #[must_use]
    pub fn new(id: StoreId, epoch: Epoch) -> MemLog {
        MemLog {
            id,
            epoch,
            records: Vec::new(),
            by_lsn: BTreeMap::new(),
            ends: vec![(Lsn::ZERO, Chain::genesis(id))],
            durable_blocks: 0,
            pinned: BTreeMap::new(),
            durable_pinned: BTreeMap::new(),
            seq: 0,
            forget_pins: false,
            forget_origins: false,
        }
    }

    /// Appends frames as one block, not yet durable.
    pub fn append(&mut self, frames: Vec<NewFrame>, rng: &SimRng) {
        let mut builder = BlockBuilder::new();
        for frame in frames {
            self.seq += 1;
            builder.push(&frame.encode(self.seq, self.seq as i64).unwrap());
        }
        let (lsn, chain) = *self.ends.last().unwrap();
        let seal = Seal {
            kind: BlockKind::Log,
            close: false,
            owner: self.id.into(),
            epoch: self.epoch,
            lsn,
            durable: self.durable(),
            nonce: rng.word(),
            chain,
            aux: 0,
        };
        let sealed = builder.seal(&seal, 1);
        let block = Block::check(&sealed.bytes).unwrap();
        let chain = block.chain_after();
        for frame in block.frames() {
            let frame = frame.unwrap();
            self.by_lsn.insert(frame.lsn(), self.records.len());
            let mut record = Record::of(&frame, chain, self.ends.len() as u64);
            if self.forget_pins && frame.kind() == FrameKind::TRANSACTION {
                record.pins.clear();
            }
            pin(&mut self.pinned, &record);
            self.records.push(record);
        }
        self.ends.push((lsn.plus(sealed.bytes.len() as u64), chain));
    }

    /// Makes all of it durable.
    pub fn sync(&mut self) {
        for record in &self.records {
            if record.block > self.durable_blocks as u64 {
                pin(&mut self.durable_pinned, record);
            }
        }
        self.durable_blocks = self.ends.len() - 1;
    }

    /// The power fails: of what was not durable a prefix of blocks stays, and is durable then (S3).
    pub fn power_cut(&mut self, rng: &SimRng) {
        let kept = self.durable_blocks + rng.index(self.ends.len() - self.durable_blocks);
        self.ends.truncate(kept + 1);
        self.records.retain(|record| record.block <= kept as u64);
        self.by_lsn = self
            .records
            .iter()
            .enumerate()
            .map(|(index, record)| (record.position.lsn, index))
            .collect();
        self.sync();
        self.pinned = self.durable_pinned.clone();
    }

    /// Durable end.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.ends[self.durable_blocks].0
    }

    /// Position of the durable frame at `lsn`.
    #[must_use]
    pub fn position_at(&self, lsn: Lsn) -> Option<Position> {
        let record = &self.records[*self.by_lsn.get(&lsn)?];
        (record.block <= self.durable_blocks as u64).then_some(record.position)
    }

    /// Last durable value of a pinned record.
    #[must_use]
    pub fn pinned(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.durable_pinned.get(key).cloned()
    }

    /// Last value of a pinned record, durable or not: what no process may act on.
    #[must_use]
    pub fn pinned_appended(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.pinned.get(key).cloned()
    }

    /// Durable frames in order.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        let durable = self.durable_blocks as u64;
        self.records.iter().filter(move |record| record.block <= durable)
    }
}

impl Record {
    fn of(frame: &FrameRef<'_>, chain: Chain, block: u64) -> Record {
        let committed_at = frame.committed_at().unwrap();
        let events = || frame.events().map(|event| event.unwrap());
        let pins = frame.pinned().unwrap().into_iter();
        Record {
            position: Position {
                epoch: frame.epoch(),
                lsn: frame.lsn(),
                chain,
            },
            kind: frame.kind(),
            origin: frame.origin().unwrap().map(|origin| origin.to_owned().unwrap()),
            via: frame.via().unwrap().map(|via| via.to_owned().unwrap()),
            committed_at,
            held: events()
                .map(|event| HeldEvent::of(committed_at, &event).unwrap())
                .collect(),
            events: events()
                .map(|event| {
                    let stream = event.stream().unwrap().to_owned();
                    (event.ordinal, stream, event.payload.to_vec())
                })
                .collect(),
            pins: pins
                .map(|pin| (pin.key.to_vec(), pin.value.map(<[u8]>::to_vec)))
                .collect(),
            block,
        }
    }
}

impl OwnLog for MemLog {
    fn position_at(&self, lsn: Lsn) -> Result<Option<Position>> {
        Ok(MemLog::position_at(self, lsn))
    }

    fn has_left(&self, _: Position) -> Result<bool> {
        // No simulated site is restored.
        Ok(false)
    }

    fn newest_passed_on(&self, site: StoreId) -> Result<Option<Lsn>> {
        self.pinned(&newest_key(site))
            .map(|value| read_newest(&value))
            .transpose()
    }

    fn newest_of(&self, site: StoreId) -> Result<Lsn> {
        let origins = self.records().filter_map(|record| record.origin.as_ref());
        let newest = origins
            .filter(|origin| origin.site == site)
            .map(|origin| origin.lsn);
        Ok(newest.max().unwrap_or_default())
    }

    fn events_of(&self, origin: &Origin) -> Result<Vec<HeldEvent>> {
        let place = |origin: &Origin| (origin.site, origin.epoch, origin.lsn);
        let same = |record: &&Record| record.origin.as_ref().map(place) == Some(place(origin));
        let found = self.records().filter(same).filter(|_| !self.forget_origins);
        Ok(found.flat_map(|record| record.held.iter().copied()).collect())
    }

    fn forgot(&self, _: &Origin) -> Result<Option<String>> {
        Ok(None)
    }

    fn forgot_newest(&self, _: StoreId, _: &SiteName) -> Result<bool> {
        Ok(false)
    }

    fn doubts_records(&self) -> Result<bool> {
        Ok(false)
    }

    fn is_staged(&self, _: &Origin) -> bool {
        // Frames are in this log as soon as they are made.
        false
    }

    fn newest_staged(&self, _: StoreId) -> Lsn {
        Lsn::ZERO
    }

    fn refusal_of(&self, _: &NewFrame) -> Option<String> {
        None
    }
}

fn pin(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, record: &Record) {
    for (key, value) in &record.pins {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}
