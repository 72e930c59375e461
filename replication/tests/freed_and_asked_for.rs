//! What a site freed is asked for after all: by a neighbour that went back or made its pair anew, by its own queue that is lost.
//! What the log still has goes on; what it has not is told, by that pair alone, and nothing is guessed (R1, R5).
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::{ErrorKind, Lsn, Retention, Space};
use milepost_replication::catalog::{HOLD, Start, Subscription};
use milepost_replication::scan::ScanPhase;
use milepost_replication::status::status;
use support::freeing::*;
use support::*;

/// A pair, and another neighbour of the publisher's; both subscribe to everything.
fn with_another(net: &Net) -> (tempfile::TempDir, Site, Site, Site) {
    let (dir, head, shop) = pair(net);
    let other = freeing(dir.path(), "other", net);
    other.remote("head");
    head.remote("other");
    for remote in ["shop", "other"] {
        head.subscribe(remote, "all", None, Start::Now);
    }
    (dir, head, shop, other)
}

/// The publisher's neighbour is put back to a copy: to one behind what the publisher keeps, and to one before it.
#[test]
fn a_remote_that_went_back_gets_what_is_kept_and_stops_where_that_was_freed_r5() {
    for keeps in [true, false] {
        let net = Net::default();
        let (dir, head, mut shop, other) = with_another(&net);
        bulk(&head, "down/1", 0..20);
        exchange(&[&head, &shop, &other], 4);
        let copy_at = dir.path().join("copy");
        shop = closed(shop, |root| copy(root, &copy_at));
        if keeps {
            // The other remote is away, and keeps the log for all.
            bulk(&head, "down/1", 20..40);
            exchange(&[&head, &shop], 4);
        } else {
            bulk(&head, "down/1", 20..60);
            exchange(&[&head, &shop, &other], 4);
        }
        shop = put_back(shop, &copy_at);
        assert_eq!(numbers(&shop, "down/1").0, 20, "the trap: it went back");
        let end = if keeps { 45 } else { 65 };
        bulk(&head, "down/1", end - 5..end);
        for _ in 0..6 {
            exchange(&[&shop, &head], 1);
        }
        let told = stopped(&head, "shop");
        if keeps {
            assert_eq!(told, None);
            assert_eq!(numbers(&shop, "down/1").0, end);
        } else {
            let told = told.unwrap();
            assert!(told.contains("freed here"), "{told}");
            assert_eq!(numbers(&shop, "down/1").0, 20, "nothing is guessed");
        }
        exchange(&[&head, &other], 4);
        assert_eq!(numbers(&other, "down/1").0, end, "who did not go back goes on");
    }
}

/// Dropped by hand, the hold no longer keeps what a remote has not confirmed: what it says then cannot be compared.
#[test]
fn a_hold_that_an_operator_drops_stops_the_pair_that_needed_it_and_no_other_r5() {
    let net = Net::default();
    let (_dir, head, shop, other) = with_another(&net);
    bulk(&head, "down/1", 0..40);
    exchange(&[&head, &other], 3);
    assert!(head.store.drop_hold(HOLD).unwrap());
    assert!(trim(&head) > Lsn::ZERO);
    shop.turn();
    exchange(&[&head, &other], 2);
    assert_eq!(numbers(&shop, "down/1").0, 40, "the queue had it");
    let told = stopped(&head, "shop").unwrap();
    assert!(told.contains("freed here"), "{told}");
    assert!(stopped(&head, "other").is_none());
}

/// A store made of a backup has no queue, and its log begins where it began when the backup did: all that remotes
/// had not confirmed by then is there, so the queue is made again from there (Q2).
#[test]
fn a_site_that_freed_its_log_and_was_restored_from_a_backup_replicates_r1() {
    let net = Net::default();
    let (dir, head, shop) = pair(&net);
    head.subscribe("shop", "all", None, Start::Now);
    shop.publish("news", "news/**", None);
    shop.subscribe("head", "news", None, Start::Now);
    bulk(&head, "down/1", 0..40);
    bulk(&shop, "news/1", 0..40);
    exchange(&[&head, &shop], 4);
    assert!(numbers(&head, "down/1").1 > 20 && numbers(&head, "news/1").1 > 20);
    // Committed and not sent when the backup is made; what is sent later the restored head gets again.
    bulk(&head, "down/1", 40..45);
    let backup = dir.path().join("backup");
    head.store.backup(&backup, false, &mut |_, _| ()).unwrap();
    bulk(&shop, "news/1", 40..45);
    exchange(&[&shop], 2);
    head.receive();
    let head = closed(head, |root| {
        std::fs::remove_dir_all(root).unwrap();
        options().restore(&backup, root, &mut |_, _| ()).unwrap();
    });
    assert!(head.store.oldest().unwrap() > Lsn::ZERO && head.store.has_lost_queue().unwrap());
    assert_eq!(numbers(&head, "news/1").0, 40, "the trap: the backup is older");
    assert!(status(&head.store, &mut |_| ()).unwrap().remotes[0].lag_transactions >= 5);
    head.store
        .set_space(&Space {
            retention: Retention::UntilScanned,
            ..Space::default()
        })
        .unwrap();
    bulk(&head, "down/1", 45..50);
    exchange(&[&head, &shop], 3);
    bulk(&shop, "news/1", 45..47);
    exchange(&[&shop, &head], 6);
    assert_eq!(numbers(&shop, "down/1").0, 50);
    assert_eq!(numbers(&head, "news/1").0, 47);
    assert!(stopped(&head, "shop").is_none() && stopped(&shop, "head").is_none());
    // What it received before the backup is not taken again, though only the receipts know it.
    assert!(numbers(&head, "news/1").1 > 20);
    let catalog = shop.definitions().catalog().unwrap();
    let old = catalog.subscriptions().next().unwrap().clone();
    shop.unsubscribe(&old, false);
    let oldest = shop.store.oldest().unwrap();
    shop.subscribe("head", "news", None, Start::At(Lsn(oldest.0 + 1)));
    exchange(&[&shop, &head], 4);
    assert_eq!(numbers(&head, "news/1").0, 47);
    let found = head.store.verify(&mut |_, _| ()).unwrap();
    assert!(found.damage.is_empty(), "{found:?}");
}

/// The files of the queue are gone: what remotes have not confirmed the log still has, because the hold kept it. Where an operator had
/// dropped that, nobody else can make it again, and the scan says whose it was.
#[test]
fn a_lost_queue_is_made_again_where_the_hold_kept_the_log_and_refused_where_it_was_dropped_q2() {
    for dropped in [false, true] {
        let net = Net::default();
        let (dir, head, shop) = pair(&net);
        let mute = freeing(dir.path(), "mute", &net);
        mute.remote("head");
        head.remote("mute");
        for remote in ["shop", "mute"] {
            head.subscribe(remote, "all", None, Start::Now);
        }
        bulk(&head, "down/1", 0..30);
        exchange(&[&head, &shop, &mute], 4);
        bulk(&head, "down/1", 30..70);
        exchange(&[&head, &shop], 4);
        net.steal("mute");
        if dropped {
            assert!(head.store.drop_hold(HOLD).unwrap());
            trim(&head);
        }
        let head = closed(head, |root| {
            std::fs::remove_dir_all(root.join("queue")).unwrap();
        });
        assert!(head.store.has_lost_queue().unwrap());
        let mut named = Vec::new();
        while let Err(error) = ScanPhase::open(&head.store).map(drop) {
            assert_eq!((error.kind(), dropped), (ErrorKind::Corrupt, true), "{error}");
            let text = error.to_string();
            let remote = ["mute", "shop"]
                .into_iter()
                .find(|one| text.contains(&format!("remote {one} has")));
            let remote = remote.unwrap();
            named.push(remote);
            let catalog = head.definitions().catalog().unwrap();
            let of = |one: &&Subscription| one.remote == name(remote) && one.is_in_force();
            head.unsubscribe(catalog.subscriptions().find(of).unwrap(), false);
            head.definitions().remove_remote(&name(remote)).unwrap();
            if remote == "shop" {
                head.remote(remote);
                head.subscribe(remote, "all", None, Start::Now);
            }
        }
        assert_eq!(named.contains(&"mute"), dropped);
        bulk(&head, "down/1", 70..75);
        for _ in 0..6 {
            exchange(&[&head, &shop, &mute], 1);
        }
        assert_eq!(numbers(&shop, "down/1").0, 75);
        assert_eq!(numbers(&mute, "down/1").0, if dropped { 30 } else { 75 });
    }
}

/// A subscriber that makes its pair anew asks for all that it is due. Of that the publisher has freed what was
/// confirmed, and it cannot know whether the other still has it: it says so, and serves everybody else.
#[test]
fn a_pair_made_anew_that_needs_what_was_freed_stops_alone_and_says_the_way_on() {
    let net = Net::default();
    let (_dir, head, shop, other) = with_another(&net);
    bulk(&head, "down/1", 0..40);
    exchange(&[&head, &shop, &other], 4);
    assert!(numbers(&head, "down/1").1 > 20);
    shop.definitions().remove_remote(&name("head")).unwrap();
    shop.remote("head");
    shop.publish("news", "news/**", None);
    shop.subscribe("head", "news", None, Start::Now);
    bulk(&shop, "news/1", 0..1);
    exchange(&[&shop, &head], 2);
    bulk(&head, "down/1", 40..45);
    exchange(&[&head, &shop, &other], 4);
    assert_eq!(numbers(&other, "down/1").0, 45, "the other goes on");
    assert_eq!(numbers(&head, "news/1").0, 1, "and what the shop sends comes");
    let text = stopped(&head, "shop").unwrap();
    assert!(
        text.contains("was freed") && text.contains("add it again"),
        "{text}"
    );
    let told = head.send_phase();
    assert!(told.stopped().is_empty(), "a phase knows it once it has tried");
    drop(told);
    // The way on.
    let catalog = head.definitions().catalog().unwrap();
    let old = catalog
        .subscriptions()
        .find(|one| one.remote == name("shop"))
        .unwrap();
    head.unsubscribe(old, false);
    head.definitions().remove_remote(&name("shop")).unwrap();
    head.remote("shop");
    let oldest = head.store.oldest().unwrap();
    head.subscribe("shop", "all", None, Start::At(Lsn(oldest.0 + 1)));
    exchange(&[&head, &shop, &other], 5);
    assert_eq!(numbers(&shop, "down/1").0, 45);
    assert!(stopped(&head, "shop").is_none());
}
