//! Sites that free their logs while they replicate: what every neighbour has confirmed goes, and nothing that one may
//! still name or ask for; nothing is lost or doubled for it (R1, R4).
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::{ErrorKind, Lsn, Retention, Space};
use milepost_replication::agent::{ExitCode, Stop};
use milepost_replication::catalog::{HOLD, NewSubscription, Start};
use support::freeing::*;
use support::*;

#[test]
fn both_sites_of_a_pair_free_what_is_confirmed_and_lose_and_double_nothing_r1() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop) = (
        freeing(dir.path(), "head", &net),
        freeing(dir.path(), "shop", &net),
    );
    bulk(&head, "before", 0..30);
    head.scan();
    assert!(trim(&head) > Lsn::ZERO, "the trap: freed before it replicates");
    for (site, other, stream) in [(&head, "shop", "down/**"), (&shop, "head", "up/**")] {
        site.publish("all", stream, None);
        site.remote(other);
        site.subscribe(other, "all", None, Start::Now);
    }
    for round in 0..6 {
        bulk(&head, "down/1", round * 10..(round + 1) * 10);
        bulk(&shop, "up/1", round * 10..(round + 1) * 10);
        exchange(&[&head, &shop], 1);
    }
    exchange(&[&head, &shop], 4);
    for site in [&head, &shop] {
        for stream in ["down/1", "up/1"] {
            let (all, freed) = numbers(site, stream);
            assert_eq!(all, 60);
            assert!(freed >= 40, "{freed} of {stream} freed at {}", site.store.site());
        }
    }
    let begins = head.store.oldest().unwrap();
    let receipts = shop.store.receipts(None).unwrap();
    assert!(receipts.is_complete() && receipts.transactions() >= 40);
    // A store that is opened anew knows what it freed.
    let shop = closed(shop, |_| ());
    bulk(&head, "down/1", 60..61);
    exchange(&[&head, &shop], 4);
    assert_eq!(numbers(&shop, "down/1").0, 61);
    assert!(head.store.oldest().unwrap() > begins);
}

/// What a remote that is away has not confirmed is kept, whatever others have; it is named, and goes once it has come.
#[test]
fn a_remote_that_is_silent_keeps_what_it_has_not_confirmed_and_is_named_r1_r5() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let site = |name| freeing(dir.path(), name, &net);
    let (head, shop, mute) = (site("head"), site("shop"), site("mute"));
    head.publish("all", "down/**", None);
    for (other, name) in [(&shop, "shop"), (&mute, "mute")] {
        head.remote(name);
        other.remote("head");
        head.subscribe(name, "all", None, Start::Now);
    }
    bulk(&head, "down/1", 0..20);
    exchange(&[&head, &shop, &mute], 4);
    let begins = trim(&head);
    assert!(begins > Lsn::ZERO);
    // Some of it is on its link, and it says nothing for long.
    for round in 2..8 {
        bulk(&head, "down/1", round * 10..(round + 1) * 10);
        exchange(&[&head, &shop], 3);
    }
    assert_eq!(numbers(&shop, "down/1").0, 80);
    let (all, freed) = numbers(&head, "down/1");
    assert!(all == 80 && freed <= 20, "{freed} freed that mute has not");
    let text = kept_by(&head.store);
    assert!(text.contains(HOLD) && text.contains("remote mute"), "{text}");
    exchange(&[&mute, &head, &shop], 6);
    assert_eq!(numbers(&mute, "down/1").0, 80);
    let (_, freed) = numbers(&head, "down/1");
    assert!(freed > 70, "{freed} freed once mute has it");
    assert!(stopped(&head, "mute").is_none() && stopped(&head, "shop").is_none());
}

/// Nothing is due to a remote for long: it is told how far its publisher is, so that it does not hold the log.
#[test]
fn a_remote_for_which_nothing_is_due_does_not_hold_the_log() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop) = (
        freeing(dir.path(), "head", &net),
        freeing(dir.path(), "shop", &net),
    );
    head.publish("some", "rare/**", None);
    head.remote("shop");
    shop.remote("head");
    let first = head.subscribe("shop", "some", None, Start::Now);
    for round in 0..4 {
        bulk(&head, "often", round * 20..(round + 1) * 20);
        exchange(&[&head, &shop], 3);
    }
    assert!(numbers(&head, "often").1 > 60);
    bulk(&head, "rare/1", 0..1);
    exchange(&[&head, &shop], 3);
    assert_eq!(numbers(&shop, "rare/1").0, 1);
    // With its last subscription revoked too.
    head.unsubscribe(&first, true);
    bulk(&head, "often", 80..120);
    exchange(&[&head, &shop], 3);
    assert!(numbers(&head, "often").1 > 100);
    exchange(&[&head, &shop], 3);
    for _ in 0..5 {
        shop.turn();
        head.receive();
        head.scan();
        assert_eq!(
            head.send().messages,
            0,
            "nobody goes on telling when nothing happens"
        );
        trim(&head);
    }
}

/// The middle site frees what it passed on, in both directions, and knows what it had of whom.
#[test]
fn a_middle_site_frees_what_it_passed_on_and_takes_nothing_twice_r4() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let site = |name| freeing(dir.path(), name, &net);
    let (head, middle, shop) = (site("head"), site("middle"), site("shop"));
    for (site, others) in [
        (&head, &["middle"][..]),
        (&middle, &["head", "shop"]),
        (&shop, &["middle"]),
    ] {
        site.publish("all", "**", None);
        for other in others {
            site.remote(other);
            site.subscribe(other, "all", None, Start::Now);
        }
    }
    let all = [&head, &middle, &shop];
    for round in 0..5 {
        bulk(&head, "down", round * 10..(round + 1) * 10);
        bulk(&shop, "up", round * 10..(round + 1) * 10);
        exchange(&all, 3);
    }
    exchange(&all, 4);
    for site in all {
        assert_eq!(numbers(site, "down").0, 50, "at {}", site.store.site());
        assert_eq!(numbers(site, "up").0, 50, "at {}", site.store.site());
    }
    assert!(numbers(&middle, "down").1 >= 30 && numbers(&middle, "up").1 >= 30);
    // Made anew, from all that the publisher still has: the middle site had it, and its own neighbours have it.
    let kept = head.store.oldest().unwrap();
    let found = head.definitions().catalog().unwrap();
    let old = found.subscriptions().next().unwrap().clone();
    head.unsubscribe(&old, false);
    head.definitions().remove_remote(&name("middle")).unwrap();
    head.remote("middle");
    head.subscribe("middle", "all", None, Start::At(Lsn(kept.0 + 1)));
    bulk(&head, "down", 50..52);
    exchange(&all, 6);
    for site in all {
        assert_eq!(numbers(site, "down").0, 52, "at {}", site.store.site());
    }
}

/// The publisher keeps more than the subscriber: history brings again what that has had and freed.
#[test]
fn history_that_was_received_and_freed_is_not_taken_again_r1_r4() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.store.set_space(&Space::default()).unwrap();
    let first = head.subscribe("shop", "all", None, Start::Now);
    bulk(&head, "down/1", 0..40);
    exchange(&[&head, &shop], 4);
    assert!(numbers(&shop, "down/1").1 > 20, "the trap: freed at the shop");
    assert_eq!(head.store.oldest().unwrap(), Lsn::ZERO, "and kept at the head");
    // Beside other data, and by a pair made anew at one site, then at both.
    head.unsubscribe(&first, false);
    let again = head.subscribe("shop", "all", None, Start::Beginning);
    bulk(&head, "down/1", 40..45);
    exchange(&[&head, &shop], 5);
    assert_eq!(numbers(&shop, "down/1").0, 45);
    shop.definitions().remove_remote(&name("head")).unwrap();
    shop.remote("head");
    bulk(&shop, "own", 0..1);
    exchange(&[&shop, &head, &shop], 5);
    bulk(&head, "down/1", 45..47);
    exchange(&[&head, &shop], 5);
    assert_eq!(numbers(&shop, "down/1").0, 47);
    head.unsubscribe(&again, false);
    head.definitions().remove_remote(&name("shop")).unwrap();
    shop.definitions().remove_remote(&name("head")).unwrap();
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Beginning);
    bulk(&head, "down/1", 47..50);
    exchange(&[&head, &shop], 5);
    assert_eq!(numbers(&shop, "down/1").0, 50);
    assert!(stopped(&head, "shop").is_none() && stopped(&shop, "head").is_none());
}

#[test]
fn a_subscription_from_what_was_freed_is_refused_and_one_from_what_is_kept_is_exact() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.publish("some", "other/**", None);
    head.subscribe("shop", "all", None, Start::Now);
    for round in 0..4 {
        bulk(&head, "down/1", round * 10..(round + 1) * 10);
        bulk(&head, "other/1", round * 10..(round + 1) * 10);
        exchange(&[&head, &shop], 3);
    }
    bulk(&head, "other/1", 40..60);
    head.scan();
    let oldest = trim(&head);
    assert!(oldest > Lsn::ZERO);
    let history = |start| NewSubscription {
        remote: name("shop"),
        publication: "some".to_owned(),
        value: None,
        start,
    };
    for start in [Start::Beginning, Start::At(Lsn(1)), Start::At(oldest)] {
        let refused = head.definitions().add_subscription(history(start)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(
            refused.to_string().contains(&(oldest.0 + 1).to_string()),
            "{refused}"
        );
    }
    assert_eq!(
        head.store.holds().unwrap().len(),
        1,
        "a refused one leaves no hold"
    );
    let (all, freed) = numbers(&head, "other/1");
    head.definitions()
        .add_subscription(history(Start::At(Lsn(oldest.0 + 1))))
        .unwrap();
    assert_eq!(head.store.holds().unwrap().len(), 1, "nor does one that was made");
    // The history stays while it is under way, also where all that is live was confirmed.
    bulk(&head, "down/1", 40..60);
    let stayed = trim(&head);
    assert_eq!(stayed, oldest);
    exchange(&[&head, &shop], 6);
    let start = shop.store.stream_start("other/1").unwrap().0;
    let last = shop.store.stream_version("other/1").unwrap().unwrap().0;
    assert_eq!(last + 1, all - freed, "all that was kept came, once");
    assert!(start > 0, "some of it freed by now");
    assert_eq!(numbers(&shop, "down/1").0, 60);
    assert!(trim(&head) > stayed, "and goes when it is confirmed");
}

/// A batch run ends before its store's thread looks what may go.
#[test]
fn a_batch_run_frees_what_it_let_go() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.subscribe("shop", "all", None, Start::Now);
    bulk(&head, "down/1", 0..60);
    let (root, runtime) = (head.root.clone(), head.runtime.clone());
    head.store.close().unwrap();
    let head = Site {
        store: options().background(false).open(&root).unwrap(),
        net: net.clone(),
        runtime,
        message_bytes: 50_000,
        only_backed_up: false,
        root,
    };
    for site in [&head, &shop, &head] {
        let exit = run_here(site, &batch(false, false, false), &Stop::new());
        assert_eq!(exit.code, ExitCode::Done, "{exit:?}");
    }
    assert!(head.store.oldest().unwrap() > Lsn::ZERO);
}

/// The hold had moved on, then nothing was freed any more, and a history was asked for: it stays asked for when
/// freeing begins again, before any agent runs.
#[test]
fn a_history_asked_for_while_nothing_is_freed_is_held_from_then_on() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    let space = |retention| Space {
        retention,
        ..Space::default()
    };
    head.publish("some", "other/**", None);
    head.subscribe("shop", "all", None, Start::Now);
    head.store.set_space(&space(Retention::Bytes(1 << 40))).unwrap();
    bulk(&head, "other/1", 0..40);
    bulk(&head, "down/1", 0..10);
    exchange(&[&head, &shop], 4);
    let hold = |site: &Site| site.store.holds().unwrap().remove(0).holds_from().unwrap();
    assert!(hold(&head) > Lsn(2 << 20), "the trap: it has moved");
    assert_eq!(head.store.oldest().unwrap(), Lsn::ZERO);
    head.store.set_space(&space(Retention::Forever)).unwrap();
    head.subscribe("shop", "some", None, Start::Beginning);
    head.store.set_space(&space(Retention::UntilScanned)).unwrap();
    assert_eq!(trim(&head), Lsn::ZERO);
    exchange(&[&head, &shop], 4);
    assert_eq!(numbers(&shop, "other/1").0, 40);
    assert!(trim(&head) > Lsn::ZERO);
}

#[test]
fn with_a_retention_of_forever_the_hold_stays_where_it_was_taken() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.store.set_space(&Space::default()).unwrap();
    head.subscribe("shop", "all", None, Start::Now);
    bulk(&head, "down/1", 0..40);
    exchange(&[&head, &shop], 4);
    assert_eq!(trim(&head), Lsn::ZERO);
    let hold = head.store.holds().unwrap().remove(0);
    assert_eq!((hold.name.as_str(), hold.holds_from()), (HOLD, Some(Lsn::ZERO)));
    // Later it frees, and the next round of an agent moves the hold.
    let space = Space {
        retention: Retention::UntilScanned,
        ..Space::default()
    };
    head.store.set_space(&space).unwrap();
    exchange(&[&head, &shop], 2);
    assert!(head.store.oldest().unwrap() > Lsn::ZERO);
}
