//! okaywal: `begin_entry`, `write_chunk` for each event, `commit`, which shares an fdatasync among threads.
//! Durable. One file is used that holds the whole run, filled with zeros before (okaywal's own
//! preallocation) and never checkpointed, because a checkpoint takes entries out of the log.
//!
//! Reading all is its recovery: the log is opened again, and each chunk's CRC-32C checked.

use std::fmt::{self, Debug};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use super::{Entrant, Peer, Plan, lock};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "okaywal",
    calls: "begin_entry, write_chunk, commit (fdatasync, shared by threads, zero-filled file); a scan is its recovery, \
            a CRC-32C per event",
    durable: true,
    open,
};

struct Okaywal {
    config: Configuration,
    log: Mutex<Option<WriteAheadLog>>,
    writer: WriteAheadLog,
}

fn open(dir: &Path, plan: Plan) -> Outcome<Box<dyn Peer>> {
    // An entry of one event takes 23 bytes more than its payload.
    let room = u32::try_from(plan.bytes.saturating_mul(2).max(1 << 20))?;
    let config = Configuration::default_for(PathBuf::from(dir))
        .preallocate_bytes(room)
        .checkpoint_after_bytes(u64::MAX)
        .buffer_bytes(64 << 10);
    let writer = config.clone().open(LogVoid)?;
    Ok(Box::new(Okaywal {
        config,
        log: Mutex::new(None),
        writer,
    }))
}

impl Peer for Okaywal {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let mut entry = self.writer.begin_entry()?;
        for event in batch {
            entry.write_chunk(event)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.append(&[event])
    }

    fn rewind(&self) -> Outcome<()> {
        *lock(&self.log) = None;
        Ok(())
    }

    fn scan(&self) -> Outcome<Seen> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let counting = Counting {
            seen: Arc::clone(&seen),
            buffer: Vec::new(),
        };
        let opened = self.config.clone().open(counting)?;
        *lock(&self.log) = Some(opened);
        let seen = *lock(&seen);
        Ok(seen)
    }
}

/// Visits what is recovered.
struct Counting {
    seen: Arc<Mutex<Seen>>,
    buffer: Vec<u8>,
}

impl Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

impl LogManager for Counting {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut seen = lock(&self.seen);
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            let len = usize::try_from(chunk.bytes_remaining()).map_err(io::Error::other)?;
            self.buffer.resize(len, 0);
            chunk.read_exact(&mut self.buffer)?;
            if !chunk.check_crc()? {
                return Err(io::Error::other("a chunk does not match its checksum"));
            }
            seen.visit(&self.buffer);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}
