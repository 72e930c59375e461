//! fjall: a `WriteBatch` with `PersistMode::SyncData`, and `insert` with `persist(SyncData)` for one event:
//! an fdatasync of its journal. Durable. Threads share no sync. Keys are running numbers.
//!
//! A scan iterates the keyspace. What is still in its memtables is checked by nothing; blocks of tables that
//! were written have a checksum each.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Entrant, Peer, Plan};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "fjall",
    calls: "WriteBatch or insert, persisted with SyncData (fdatasync of its journal); a scan iterates memtables, \
            unverified, and tables",
    durable: true,
    open,
};

struct Fjall {
    database: Database,
    events: Keyspace,
    next: AtomicU64,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    let database = Database::builder(dir).open()?;
    let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall {
        database,
        events,
        next: AtomicU64::new(0),
    }))
}

impl Fjall {
    fn key(&self) -> [u8; 8] {
        self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}

impl Peer for Fjall {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let mut writes = self.database.batch().durability(Some(PersistMode::SyncData));
        for event in batch {
            writes.insert(&self.events, self.key(), *event);
        }
        writes.commit()?;
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.events.insert(self.key(), event)?;
        self.database.persist(PersistMode::SyncData)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Seen> {
        let mut seen = Seen::default();
        for entry in self.events.iter() {
            seen.visit(&entry.value()?);
        }
        Ok(seen)
    }
}
