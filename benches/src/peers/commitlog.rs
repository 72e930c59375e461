//! commitlog: `CommitLog::append` of a `MessageBuf`, then an fdatasync of the segment by this bench.
//!
//! Its own `flush` syncs the index, and of the segment it only calls `File::flush`, which does nothing.
//! The bench syncs the newest segment through a descriptor of its own, outside the lock, and leaves the index
//! to the kernel: all in commitlog's favour, because an index that a power cut has taken is not made again
//! (its `file_set.rs` says so) and the events in it are lost. A scan reads 1 MiB at a time and checks the
//! CRC-32C of each message.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use super::{Entrant, Peer, Plan, lock};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "commitlog",
    calls: "append, then fdatasync of the segment by the bench (its flush does not sync it); a scan checks a CRC-32C \
            per message, 1 MiB a read",
    durable: true,
    open,
};

const READ: usize = 1 << 20;

struct Commitlog {
    dir: PathBuf,
    log: Mutex<(CommitLog, Arc<File>)>,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    let mut options = LogOptions::new(dir);
    options.message_max_bytes(64 << 20);
    let log = CommitLog::new(options)?;
    let segment = Arc::new(File::open(segment_path(dir, 0))?);
    Ok(Box::new(Commitlog {
        dir: dir.to_path_buf(),
        log: Mutex::new((log, segment)),
    }))
}

/// Segments are named for the offset of their first message.
fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

impl Commitlog {
    fn append_synced(&self, mut messages: MessageBuf) -> Outcome<()> {
        let segment = {
            let mut held = lock(&self.log);
            let (log, segment) = &mut *held;
            let first = log.append(&mut messages)?.first();
            if first > 0
                && let Ok(rolled) = File::open(segment_path(&self.dir, first))
            {
                segment.sync_data()?;
                *segment = Arc::new(rolled);
            }
            Arc::clone(segment)
        };
        segment.sync_data()?;
        Ok(())
    }
}

impl Peer for Commitlog {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let mut messages = MessageBuf::default();
        for event in batch {
            messages.push(event).map_err(|error| format!("{error:?}"))?;
        }
        self.append_synced(messages)
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.append(&[event])
    }

    fn scan(&self) -> Outcome<Seen> {
        let held = lock(&self.log);
        let (mut seen, mut at) = (Seen::default(), 0);
        loop {
            let messages = held.0.read(at, ReadLimit::max_bytes(READ))?;
            let before = seen.events;
            for message in messages.iter() {
                if !message.verify_hash() {
                    return Err("a message does not match its checksum".into());
                }
                seen.visit(message.payload());
                at = message.offset() + 1;
            }
            if seen.events == before {
                return Ok(seen);
            }
        }
    }
}
