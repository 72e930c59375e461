//! A site whose store is made anew from a backup, with peers that hold less than the backup, as much, or more:
//! only a pair that went past the fork is stopped, at the first exchange; every other goes on (R5).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;

use milepost_engine::{Lsn, Repair, RepairHow, Store};
use milepost_replication::catalog::{Start, Subscription};
use milepost_replication::status::status;
use support::*;

struct Pair {
    dir: tempfile::TempDir,
    head: Site,
    shop: Site,
    subscriptions: [Subscription; 2],
}

/// Each of the two subscribes to what the other commits.
fn pair() -> Pair {
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
    fn exchange(&self, rounds: usize) {
        for _ in 0..rounds {
            self.head.turn();
            self.shop.turn();
        }
        self.head.receive();
    }

    fn back_up(&self, site: &Site) {
        let to = self.dir.path().join("backup");
        site.store.backup(to, false, &mut |_, _| ()).unwrap();
    }

    /// A bit of the shop's log flips in the block of a transaction, and the shop is repaired.
    fn repair_shop(self, payload: &str, how: RepairHow) -> Pair {
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
    fn restore_shop(self) -> Pair {
        let backup = self.dir.path().join("backup");
        let shop = closed(self.shop, |root: &Path| {
            std::fs::remove_dir_all(root).unwrap();
            options().restore(&backup, root, &mut |_, _| ()).unwrap();
        });
        Pair { shop, ..self }
    }

    fn stopped(&self) -> bool {
        let stopped = |store: &Store| {
            let facts = status(store, &mut |_| ()).unwrap();
            facts.remotes[0].stopped.is_some()
        };
        stopped(&self.head.store) || stopped(&self.shop.store)
    }
}

fn order(site: &Site, payload: &str) {
    site.commit(&[("orders/1", payload)]);
}

#[test]
fn a_pair_that_had_nothing_from_behind_the_fork_goes_on_both_ways() {
    let pair = pair();
    order(&pair.shop, "s1");
    order(&pair.head, "h1");
    pair.exchange(3);
    pair.back_up(&pair.shop);
    // Committed after the backup and heard by nobody: lost with the directory, and nobody can miss it.
    order(&pair.shop, "lost");
    let pair = pair.restore_shop();
    for number in 2..6 {
        order(&pair.shop, &format!("s{number}"));
        order(&pair.head, &format!("h{number}"));
        pair.exchange(2);
    }
    pair.exchange(3);
    assert!(!pair.stopped());
    assert_eq!(pair.head.payloads(), ["s1", "s2", "s3", "s4", "s5"]);
    assert_eq!(pair.shop.payloads(), ["h1", "h2", "h3", "h4", "h5"]);
    assert_nothing_doubled(&pair.head);
    assert_nothing_doubled(&pair.shop);
}

#[test]
fn what_the_restored_site_had_received_since_the_backup_comes_again() {
    let pair = pair();
    order(&pair.head, "h1");
    pair.exchange(3);
    pair.back_up(&pair.shop);
    // Only the head commits, and the shop confirms without a commit of its own that is due.
    ["h2", "h3"]
        .into_iter()
        .for_each(|payload| order(&pair.head, payload));
    pair.exchange(3);
    assert_eq!(pair.shop.payloads(), ["h1", "h2", "h3"]);
    let pair = pair.restore_shop();
    assert_eq!(pair.shop.payloads(), ["h1"], "the trap: the backup is older");
    order(&pair.shop, "s1");
    order(&pair.head, "h4");
    pair.exchange(6);
    assert!(!pair.stopped());
    assert_eq!(pair.shop.payloads(), ["h1", "h2", "h3", "h4"]);
    assert_eq!(pair.head.payloads(), ["s1"]);
}

/// By LSNs alone the restored shop's new orders would look like what the head already has, or like what follows.
#[test]
fn a_pair_past_the_fork_is_stopped_at_the_first_exchange_and_nothing_is_applied() {
    for after in [1, 2, 5, 20] {
        let pair = pair();
        order(&pair.shop, "s1");
        pair.exchange(3);
        pair.back_up(&pair.shop);
        ["s2", "s3"]
            .into_iter()
            .for_each(|payload| order(&pair.shop, payload));
        pair.exchange(3);
        let held = pair.head.payloads();
        assert_eq!(held, ["s1", "s2", "s3"]);
        let pair = pair.restore_shop();
        (0..after).for_each(|number| order(&pair.shop, &format!("other {number}")));
        pair.shop.turn();
        pair.head.turn();
        assert!(pair.stopped(), "{after} commits after the restore");
        pair.exchange(4);
        assert_eq!(pair.head.payloads(), held, "{after} commits after the restore");
    }
}

/// The way on that the messages name: the remote is removed and added again, at one of the two sites.
#[test]
fn a_stopped_pair_that_is_made_anew_goes_on_and_doubles_nothing() {
    let pair = pair();
    order(&pair.shop, "s1");
    pair.exchange(3);
    pair.back_up(&pair.shop);
    order(&pair.shop, "s2");
    pair.exchange(3);
    let pair = pair.restore_shop();
    order(&pair.shop, "s3");
    pair.exchange(2);
    assert!(pair.stopped());
    let sites = [(&pair.head, "shop"), (&pair.shop, "head")];
    for ((site, other), subscription) in sites.into_iter().zip(&pair.subscriptions) {
        site.unsubscribe(subscription, false);
        site.definitions().remove_remote(&name(other)).unwrap();
        site.remote(other);
        site.subscribe(other, "all", None, Start::Beginning);
    }
    pair.exchange(6);
    assert!(!pair.stopped());
    assert_eq!(pair.head.payloads(), ["s1", "s2", "s3"]);
    assert_nothing_doubled(&pair.head);
}

/// A cut is a fork as a restore is one: the head holds what the shop lost.
#[test]
fn a_pair_past_a_cut_is_stopped_and_one_before_it_goes_on() {
    for heard in [false, true] {
        let pair = pair();
        order(&pair.shop, "order one");
        pair.exchange(3);
        order(&pair.shop, "order two");
        if heard {
            pair.exchange(3);
        }
        let pair = pair.repair_shop("order two", RepairHow::Cut);
        order(&pair.shop, "order three");
        pair.exchange(4);
        assert_eq!(pair.stopped(), heard);
        let last = if heard { "order two" } else { "order three" };
        assert_eq!(pair.head.payloads(), ["order one", last]);
    }
}

/// Around isolated damage positions are what they were: no pair is stopped, nothing is doubled, and only what
/// nobody had heard of before is missing.
#[test]
fn isolated_damage_stops_no_pair_and_costs_the_remote_what_it_had_not_heard() {
    let orders = ["order one", "order two", "order three", "order four"];
    for heard in 1..=3 {
        let pair = pair();
        for (number, payload) in orders.iter().take(3).enumerate() {
            order(&pair.shop, payload);
            if number < heard {
                pair.exchange(3);
            }
        }
        assert_eq!(pair.head.payloads().len(), heard);
        let pair = pair.repair_shop("order two", RepairHow::Isolate);
        order(&pair.shop, "order four");
        pair.exchange(6);
        assert!(!pair.stopped(), "{heard} heard");
        let expected: Vec<_> = orders
            .into_iter()
            .filter(|one| heard > 1 || *one != "order two")
            .collect();
        assert_eq!(pair.head.payloads(), expected, "{heard} heard");
    }
}
