//! walrus (walrus-rust): `batch_append_for_topic` (io_uring, at most 2,000 entries) or `append_for_topic`, with
//! `FsyncSchedule::SyncEach`: files are opened with O_SYNC and fsynced after each append besides. Durable. It
//! makes its files beneath the working directory, and says so much on standard output that the bench starts
//! itself again with `WALRUS_QUIET`. Where only its scan is measured it is filled without O_SYNC, which would
//! take minutes.
//!
//! Reading takes entries out, so each scan opens the folder again (not measured) and reads with a checkpoint that
//! is never written: `batch_read_for_topic`, 1 MiB a call, an FNV-1a checksum per entry.

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::{Entrant, Peer, Plan};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "walrus-rust",
    calls: "batch_append_for_topic or append_for_topic, FsyncSchedule::SyncEach (O_SYNC and fsync); a scan checks an \
            FNV-1a per entry, 1 MiB a call",
    durable: true,
    open,
};

const TOPIC: &str = "events";
const MOST: usize = 2_000;
const READ: usize = 1 << 20;

struct Adapter {
    key: String,
    durable: bool,
    walrus: RwLock<Walrus>,
}

fn open(dir: &Path, plan: Plan) -> Outcome<Box<dyn Peer>> {
    let key = dir.to_string_lossy().replace('/', "_");
    Ok(Box::new(Adapter {
        walrus: RwLock::new(open_again(&key, plan.durable)?),
        key,
        durable: plan.durable,
    }))
}

fn open_again(key: &str, durable: bool) -> std::io::Result<Walrus> {
    let never = ReadConsistency::AtLeastOnce {
        persist_every: u32::MAX,
    };
    let schedule = if durable {
        FsyncSchedule::SyncEach
    } else {
        FsyncSchedule::NoFsync
    };
    Walrus::with_consistency_and_schedule_for_key(key, never, schedule)
}

impl Adapter {
    fn walrus(&self) -> RwLockReadGuard<'_, Walrus> {
        self.walrus.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Adapter {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let walrus = self.walrus();
        for some in batch.chunks(MOST) {
            walrus.batch_append_for_topic(TOPIC, some)?;
        }
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.walrus().append_for_topic(TOPIC, event)?;
        Ok(())
    }

    fn rewind(&self) -> Outcome<()> {
        *self.walrus.write().unwrap_or_else(PoisonError::into_inner) = open_again(&self.key, self.durable)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Seen> {
        let (walrus, mut seen) = (self.walrus(), Seen::default());
        loop {
            let entries = walrus.batch_read_for_topic(TOPIC, READ, true)?;
            if entries.is_empty() {
                return Ok(seen);
            }
            entries.iter().for_each(|entry| seen.visit(&entry.data));
        }
    }
}
