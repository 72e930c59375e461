//! redb: a write transaction of `insert`s with its default durability, `Immediate`: fdatasync at commit. Durable.
//! One writer at a time; threads share no sync. Keys are running numbers.
//!
//! A scan iterates the table. Pages have checksums, which redb checks when it repairs a database and not while
//! it reads.

use std::path::Path;
use std::sync::Mutex;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Entrant, Peer, Plan, lock};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "redb",
    calls: "insert in a write transaction, Durability::Immediate (fdatasync); a scan iterates the table, unverified",
    durable: true,
    open,
};

const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");

struct Redb {
    database: Database,
    next: Mutex<u64>,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    Ok(Box::new(Redb {
        database: Database::create(dir.join("events.redb"))?,
        next: Mutex::new(0),
    }))
}

impl Peer for Redb {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(EVENTS)?;
            let mut next = lock(&self.next);
            for event in batch {
                table.insert(*next, *event)?;
                *next += 1;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.append(&[event])
    }

    fn scan(&self) -> Outcome<Seen> {
        let mut seen = Seen::default();
        let transaction = self.database.begin_read()?;
        for entry in transaction.open_table(EVENTS)?.iter()? {
            seen.visit(entry?.1.value());
        }
        Ok(seen)
    }
}
