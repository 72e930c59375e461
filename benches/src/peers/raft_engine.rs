//! raft-engine: a `LogBatch` of entries, `write` with sync: fdatasync, shared by threads. Durable. Compression of
//! batches is off, because the payloads cannot be made smaller. The entries of a raft group must follow
//! one another, so each thread commits to a group of its own; batches go to group 1.
//!
//! A scan is `fetch_entries_to`, 4,096 entries a call: a checksum per batch, each entry decoded by protobuf.

use std::path::Path;
use std::sync::Mutex;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::{Entrant, Peer, Plan, lock};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "raft-engine",
    calls: "LogBatch::add_entries, write with sync (fdatasync, shared by threads); a scan checks a checksum per batch \
            and decodes protobuf",
    durable: true,
    open,
};

const GROUPS: u64 = 256;
const FETCH: u64 = 4_096;
const INDEX_LEN: usize = 8;

/// An entry whose first eight bytes are its index.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.first_chunk::<INDEX_LEN>();
        index.copied().map_or(0, u64::from_le_bytes)
    }
}

struct RaftEngine {
    engine: Engine,
    /// Last index of each group.
    groups: Vec<Mutex<u64>>,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    let config = Config {
        dir: dir.to_string_lossy().into_owned(),
        batch_compression_threshold: ReadableSize::kb(0),
        ..Config::default()
    };
    Ok(Box::new(RaftEngine {
        engine: Engine::open(config)?,
        groups: (0..GROUPS).map(|_| Mutex::new(0)).collect(),
    }))
}

impl RaftEngine {
    fn write(&self, group: u64, events: &[&[u8]]) -> Outcome<()> {
        let last = self
            .groups
            .get(usize::try_from(group)?)
            .ok_or("no such raft group")?;
        let mut last = lock(last);
        let mut entries = Vec::with_capacity(events.len());
        for event in events {
            *last += 1;
            let mut entry = BytesValue::new();
            let mut value = Vec::with_capacity(INDEX_LEN + event.len());
            value.extend_from_slice(&last.to_le_bytes());
            value.extend_from_slice(event);
            entry.set_value(value);
            entries.push(entry);
        }
        let mut batch = LogBatch::default();
        batch.add_entries::<Indexed>(group + 1, &entries)?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }
}

impl Peer for RaftEngine {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        self.write(0, batch)
    }

    fn commit(&self, thread: u64, event: &[u8]) -> Outcome<()> {
        self.write(thread, &[event])
    }

    fn scan(&self) -> Outcome<Seen> {
        let (mut seen, mut entries) = (Seen::default(), Vec::new());
        for group in self.engine.raft_groups() {
            let first = self.engine.first_index(group).unwrap_or(1);
            let end = self.engine.last_index(group).map_or(first, |last| last + 1);
            let mut at = first;
            while at < end {
                let to = end.min(at + FETCH);
                entries.clear();
                self.engine
                    .fetch_entries_to::<Indexed>(group, at, to, None, &mut entries)?;
                for entry in &entries {
                    seen.visit(entry.value.get(INDEX_LEN..).unwrap_or_default());
                }
                at = to;
            }
        }
        Ok(seen)
    }
}
