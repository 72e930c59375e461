//! sled: `apply_batch` or `insert`, then `flush`. NOT durable: on Linux `flush` ends in sync_file_range, which
//! neither commits the file's size nor empties the device's cache; an fsync happens only when a snapshot is
//! written. So its figures are those of a weaker promise. Keys are running numbers.
//!
//! A scan iterates the tree; pages that are in its cache are checked by nothing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sled::{Batch, Db};

use super::{Entrant, Peer, Plan};
use crate::Outcome;
use crate::workload::Seen;

pub const ENTRANT: Entrant = Entrant {
    name: "sled",
    calls: "apply_batch or insert, then flush, which is NOT durable here (sync_file_range, no fsync); a scan iterates \
            the tree, cached pages unverified",
    durable: false,
    open,
};

struct Sled {
    tree: Db,
    next: AtomicU64,
}

fn open(dir: &Path, _plan: Plan) -> Outcome<Box<dyn Peer>> {
    let tree = sled::Config::new().path(dir).flush_every_ms(None).open()?;
    Ok(Box::new(Sled {
        tree,
        next: AtomicU64::new(0),
    }))
}

impl Sled {
    fn key(&self) -> [u8; 8] {
        self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}

impl Peer for Sled {
    fn append(&self, batch: &[&[u8]]) -> Outcome<()> {
        let mut writes = Batch::default();
        for event in batch {
            writes.insert(&self.key(), *event);
        }
        self.tree.apply_batch(writes)?;
        self.tree.flush()?;
        Ok(())
    }

    fn commit(&self, _thread: u64, event: &[u8]) -> Outcome<()> {
        self.tree.insert(self.key(), event)?;
        self.tree.flush()?;
        Ok(())
    }

    fn scan(&self) -> Outcome<Seen> {
        let mut seen = Seen::default();
        for entry in self.tree.iter() {
            seen.visit(&entry?.1);
        }
        Ok(seen)
    }
}
