//! open-wal: `append` for each event, then `commit`: one write and one fdatasync. Durable. It has one writer by
//! design and no group commit, so threads take turns at a lock.
//!
//! A scan is `reader_from`: a CRC-32C a record.

use std::path::Path;
use std::sync::Mutex;

use open_wal::{Lsn, NullObserver, Wal, WalConfig};

use super::{Entrant, Peer, Plan, lock};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "open-wal",
    calls: "append and commit (fdatasync) under a lock, it has one writer; a scan checks a CRC-32C per record",
    durable: true,
    open,
};

struct OpenWal {
    wal: Mutex<Wal<NullObserver>>,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    let (wal, _) = Wal::open(dir, WalConfig::default())?;
    Ok(Box::new(OpenWal { wal: Mutex::new(wal) }))
}

impl Peer for OpenWal {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let mut wal = lock(&self.wal);
        for event in batch {
            wal.append(event)?;
        }
        wal.commit()?;
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.append(&[event])
    }

    fn scan(&self) -> Outcome<Seen> {
        let (wal, mut seen) = (lock(&self.wal), Seen::default());
        let mut reader = wal.reader_from(Lsn::FIRST)?;
        while let Some(record) = reader.next() {
            seen.visit(record?.1);
        }
        Ok(seen)
    }
}
