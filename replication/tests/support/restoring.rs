//! Two sites, of which each subscribes to what the other commits, and what an operator may do to the store of one.

use std::path::Path;

use milepost_engine::{Lsn, Repair, RepairHow, Store};
use milepost_replication::catalog::{Start, Subscription};
use milepost_replication::status::status;

use super::{Net, Site, closed, options};

pub struct Pair {
    pub dir: tempfile::TempDir,
    pub head: Site,
    pub shop: Site,
    pub subscriptions: [Subscription; 2],
}

/// Each of the two subscribes to what the other commits.
pub fn pair() -> Pair {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let site = |name: &str| Site::new(dir.path(), name, &net);
    let (head, shop) = (site("head"), site("shop"));
    let subscriptions = [(&head, "shop"), (&shop, "head")].map(|(one, other)| {
        one.publish("all", "orders/**", None);
        one.remote(other);
        one.subscribe(other, "all", None, Start::Now)
    });
    Pair {
        dir,
        head,
        shop,
        subscriptions,
    }
}

impl Pair {
    pub fn exchange(&self, rounds: usize) {
        for _ in 0..rounds {
            self.head.turn();
            self.shop.turn();
        }
        self.head.receive();
    }

    pub fn back_up(&self, site: &Site) {
        let to = self.dir.path().join("backup");
        site.store.backup(to, false, &mut |_, _| ()).unwrap();
    }

    /// A bit of the shop's log flips in the block of a transaction, and the shop is repaired.
    pub fn repair_shop(self, payload: &str, how: RepairHow) -> Pair {
        let shop = closed(self.shop, |root: &Path| {
            let file = root.join("log/0000000000000000.log");
            let mut bytes = std::fs::read(&file).unwrap();
            let at = bytes
                .windows(payload.len())
                .position(|piece| piece == payload.as_bytes());
            bytes[at.unwrap()] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            let mut lost = Vec::new();
            let repair = Repair::open(root, options()).unwrap();
            repair.run(how, &mut |frame| lost.push(frame.lsn)).unwrap();
            assert!(lost.iter().all(|lsn| *lsn > Lsn::ZERO) && !lost.is_empty());
        });
        Pair { shop, ..self }
    }

    /// The shop's directory is lost; its backup takes its place.
    pub fn restore_shop(self) -> Pair {
        let backup = self.dir.path().join("backup");
        let shop = closed(self.shop, |root: &Path| {
            std::fs::remove_dir_all(root).unwrap();
            options().restore(&backup, root, &mut |_, _| ()).unwrap();
        });
        Pair { shop, ..self }
    }

    pub fn stopped(&self) -> bool {
        let stopped = |store: &Store| {
            let facts = status(store, &mut |_| ()).unwrap();
            facts.remotes[0].stopped.is_some()
        };
        stopped(&self.head.store) || stopped(&self.shop.store)
    }
}

pub fn order(site: &Site, payload: &str) {
    site.commit(&[("orders/1", payload)]);
}
