//! wal-db: `append` for each event, then `sync`; `append_and_sync` for one. fdatasync, shared by threads. Durable.
//! The file grows with each write.
//!
//! A scan is `iter`: two preads and a CRC-32C a record.

use std::path::Path;

use wal_db::Wal;

use super::{Entrant, Peer, Plan};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "wal-db",
    calls: "append and sync (fdatasync, shared by threads); a scan checks a CRC-32C per record, two preads each",
    durable: true,
    open,
};

struct WalDb {
    wal: Wal,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    Ok(Box::new(WalDb {
        wal: Wal::open(dir.join("events.wal"))?,
    }))
}

impl Peer for WalDb {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        for event in batch {
            let _lsn = self.wal.append(event)?;
        }
        self.wal.sync()?;
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        let _lsn = self.wal.append_and_sync(event)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Seen> {
        let mut seen = Seen::default();
        for record in self.wal.iter()? {
            seen.visit(record?.data());
        }
        Ok(seen)
    }
}
