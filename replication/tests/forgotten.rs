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

/// Takes from a site the base that names what it received and the files themselves, and with `all` also what else has the
/// pinned records of the freed part; repairs it.
fn base_forgets(site: Site, all: bool) -> Site {
    // The log begins with a sealed segment, whose index file has the records too.
    site.commit(&[("own/1", "not scanned, so not freed")]);
    site.store.rotate(0).unwrap();
    site.commit(&[("own/1", "the next segment has begun")]);
    site.store.tend().unwrap();
    closed(site, |root| {
        let log = root.join("log");
        let names = std::fs::read_dir(&log).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.collect::<Vec<_>>() {
            let path = log.join(&name);
            if name.starts_with("received-") {
                std::fs::remove_file(path).unwrap();
            } else if name.starts_with("base-") {
                std::fs::write(path, b"nothing").unwrap();
            } else if all && name.ends_with(".idx") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let done = Repair::open(root, options()).unwrap().renew_base().unwrap();
        assert_eq!(done.pinned_now, !all);
    })
}

/// The trap: one question that nobody can answer ended every poll, and nobody else's messages were taken.
#[test]
fn a_base_that_does_not_say_what_was_received_stops_one_history_and_nobody_else_r1_r6() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop, first) = freed(dir.path(), &net);
    let later = |site: &str| {
        let site = Site::new(dir.path(), site, &net);
        site.publish("news", &format!("{}/**", site.store.site()), None);
        site.remote("shop");
        site
    };
    let other = later("other");
    shop.remote("other");
    other.subscribe("shop", "news", None, Start::Now);
    let turns = |sites: &[&Site]| (0..4).for_each(|_| sites.iter().for_each(|site| site.turn()));
    bulk(&other, "other/1", 0..5);
    exchange(&[&head, &other, &shop], 4);
    shop.commit(&[("own/1", "what comes next is another segment's")]);
    exchange(&[&head, &other, &shop], 4);
    assert_eq!(numbers(&shop, "down/1"), (40, 40));
    let shop = base_forgets(shop, false);
    let receipts = shop.store.receipts(None).unwrap();
    assert!(!receipts.is_complete() && !shop.store.receipts(None).unwrap().is_doubted());
    head.unsubscribe(&first, false);
    for (site, other) in [(&head, "shop"), (&shop, "head")] {
        site.definitions().remove_remote(&name(other)).unwrap();
        site.remote(other);
    }
    head.subscribe("shop", "all", None, Start::Beginning);
    turns(&[&head]);
    bulk(&other, "other/2", 0..5);
    let new = later("third");
    shop.remote("third");
    new.subscribe("shop", "news", None, Start::Beginning);
    bulk(&new, "third/1", 0..5);
    turns(&[&head, &other, &new, &shop]);
    assert_eq!(numbers(&shop, "other/2").0, 5);
    assert_eq!(numbers(&shop, "third/1").0, 5, "it was never met");
    // How many were freed is lost with the base.
    assert_eq!(numbers(&shop, "down/1"), (0, 0), "nothing came twice");
    let kept = quarantined(&shop.store).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let told = &kept[0].reason;
    assert!(
        told.contains("may have been received before") && told.contains("made again by a repair"),
        "{told}"
    );
}

/// The trap: the records are lost that would say who was met, so that everybody seems to be new.
#[test]
fn where_not_even_the_pinned_records_are_known_nobody_is_taken_for_new_r1_r4() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop, first) = freed(dir.path(), &net);
    shop.commit(&[("own/1", "what comes next is another segment's")]);
    exchange(&[&head, &shop], 3);
    assert_eq!(numbers(&shop, "down/1"), (40, 40));
    let shop = base_forgets(shop, true);
    assert!(shop.store.receipts(None).unwrap().is_doubted());
    assert!(shop.store.pinned(b"catalog/remote/head").unwrap().is_none());
    head.unsubscribe(&first, false);
    head.definitions().remove_remote(&name("shop")).unwrap();
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Beginning);
    for _ in 0..4 {
        head.turn();
        shop.turn();
    }
    let kept = quarantined(&shop.store).unwrap();
    assert!(!kept.is_empty());
    for one in &kept {
        assert!(one.reason.contains("pinned records from before"), "{one:?}");
    }
    assert_eq!(numbers(&shop, "down/1"), (0, 0), "nothing came twice");
}
