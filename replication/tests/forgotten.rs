//! A site whose file of what it received was damaged, and repaired: what may have been here before is refused and told, and
//! never taken twice; all that is surely new goes on (R1, R4).
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::{Lsn, Repair};
use milepost_replication::catalog::{Start, Subscription};
use milepost_replication::receive::quarantined;
use support::freeing::*;
use support::*;

/// A publisher that keeps its log, a subscriber that freed what it received, and the subscription.
fn freed(dir: &std::path::Path, net: &Net) -> (Site, Site, Subscription) {
    let (head, shop) = (Site::new(dir, "head", net), freeing(dir, "shop", net));
    head.publish("all", "down/**", None);
    head.remote("shop");
    shop.remote("head");
    let first = head.subscribe("shop", "all", None, Start::Now);
    for round in 0..4 {
        bulk(&head, "down/1", round * 10..(round + 1) * 10);
        for _ in 0..3 {
            head.turn();
            shop.turn();
            trim(&shop);
        }
    }
    let receipts = shop.store.receipts(None).unwrap();
    assert!(receipts.transactions() >= 20);
    assert_eq!(numbers(&shop, "down/1").0, 40);
    (head, shop, first)
}

/// Damages what a site knows of what it received, and repairs it.
fn forgets(site: Site) -> Site {
    closed(site, |root| {
        let names = std::fs::read_dir(root.join("log")).unwrap();
        let mut lost = 0;
        for path in names.map(|entry| entry.unwrap().path()) {
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("received-")
            {
                std::fs::remove_file(path).unwrap();
                lost += 1;
            }
        }
        assert!(lost > 0);
        let done = Repair::open(root, options()).unwrap().renew_received().unwrap();
        assert!(!done.is_empty());
    })
}

#[test]
fn what_is_surely_new_goes_on_after_what_was_received_is_forgotten_r1() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop, _) = freed(dir.path(), &net);
    let shop = forgets(shop);
    assert!(shop.store.receipts(None).unwrap().has_lost_tables());
    bulk(&head, "down/1", 40..60);
    for _ in 0..4 {
        head.turn();
        shop.turn();
        trim(&shop);
    }
    assert_eq!(numbers(&shop, "down/1").0, 60);
    assert!(quarantined(&shop.store).unwrap().is_empty());
    // A site that was never met has nothing that could be doubled, a pair that is new asks nobody.
    let other = Site::new(dir.path(), "other", &net);
    other.publish("news", "news/**", None);
    other.remote("shop");
    shop.remote("other");
    other.subscribe("shop", "news", None, Start::Beginning);
    bulk(&other, "news/1", 0..5);
    for _ in 0..4 {
        other.turn();
        shop.turn();
    }
    assert_eq!(numbers(&shop, "news/1").0, 5);
}

/// The trap: the pair is made anew, and its history comes again. Only the lost file knew that it was here.
#[test]
fn what_may_have_been_here_is_refused_with_the_reason_and_not_taken_twice_r1_r4() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop, first) = freed(dir.path(), &net);
    let shop = forgets(shop);
    let before = shop.store.oldest().unwrap();
    assert!(before > Lsn::ZERO);
    head.unsubscribe(&first, false);
    for (site, other) in [(&head, "shop"), (&shop, "head")] {
        site.definitions().remove_remote(&name(other)).unwrap();
        site.remote(other);
    }
    head.subscribe("shop", "all", None, Start::Beginning);
    for _ in 0..4 {
        head.turn();
        shop.turn();
    }
    let kept = quarantined(&shop.store).unwrap();
    assert_eq!(kept.len(), 1, "its sender sends it again and again: {kept:?}");
    let told = &kept[0].reason;
    assert!(
        told.contains("may have been received before") && told.contains("received-"),
        "{told}"
    );
    assert_eq!(numbers(&shop, "down/1").0, 40, "nothing came twice");
}
