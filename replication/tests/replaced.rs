//! A remote's store is replaced (`resync`) while the former one has messages on their way, or has begun the pair anew and was not heard of: nobody takes
//! what is of the former store, nothing of it is thrown away, and the making ends.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use milepost_engine::{ErrorKind, Lsn, Result};
use milepost_replication::agent::{Stop, retry_set_aside};
use milepost_replication::catalog::Start;
use milepost_replication::extract::{Extract, Extracted, extract, resync};
use milepost_replication::keys::Keys;
use milepost_replication::receive::{drop_set_aside, quarantined};
use milepost_replication::rejoin::{Parting, Resume, rejoin};
use milepost_replication::tracking::PollCause;
use support::*;

/// A shop that the head office replicates with, both ways.
fn pair(dir: &Path, net: &Net) -> (Site, Site) {
    let (head, shop) = (Site::new(dir, "head", net), Site::new(dir, "shop", net));
    for (site, other, publication) in [(&head, "shop", "orders/*"), (&shop, "head", "tills/*")] {
        site.publish("some", publication, None);
        site.remote(other);
        site.subscribe(other, "some", None, Start::Now);
    }
    head.commit(&[("orders/1", "an order")]);
    shop.commit(&[("tills/1", "counted")]);
    for _ in 0..3 {
        shop.turn();
        head.turn();
    }
    assert_eq!(
        (head.payloads(), shop.payloads()),
        (vec!["counted".to_owned()], vec!["an order".to_owned()])
    );
    (head, shop)
}

fn wish() -> Extract {
    Extract {
        remote: name("shop"),
        wanted: Vec::new(),
        from: Lsn::ZERO,
        links: Vec::new(),
        schedule: None,
        up: Vec::new(),
        fresh_key: false,
        options: options(),
    }
}

/// A store for the shop that sends up its tills.
fn made_for_tills(head: &Site, to: &Path) -> Extracted {
    let wish = Extract {
        wanted: vec![("some".to_owned(), None)],
        up: vec!["tills/*".to_owned()],
        ..wish()
    };
    extract(&head.store, &wish, to, &Stop::new(), &mut |_| ()).unwrap()
}

fn replace(head: &Site, to: &Path, stop: &Stop) -> Result<Extracted> {
    resync(&head.store, &wish(), to, stop, &mut |_| ())
}

/// An operator makes a remote anew so many times.
fn begin_again(site: &Site, other: &str, times: usize) {
    let definitions = site.definitions();
    for _ in 0..times {
        let catalog = definitions.catalog().unwrap();
        let remote = catalog.remote(&name(other)).unwrap();
        for one in catalog.subscriptions_of(remote).filter(|one| one.is_in_force()) {
            site.unsubscribe(one, false);
        }
        definitions.remove_remote(&name(other)).unwrap();
        site.remote(other);
    }
    site.subscribe(other, "some", None, Start::Now);
}

/// The former shop's operator makes the pair anew so many times.
fn begin_anew(shop: &Site, times: usize) {
    begin_again(shop, "head", times);
    shop.commit(&[("tills/1", "counted anew")]);
}

#[test]
fn what_a_replaced_store_had_on_its_way_is_kept_aside_and_leaves_its_link_r6() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (head, shop) = pair(dir.path(), &net);
    shop.commit(&[("tills/1", "on its way")]);
    shop.scan();
    shop.send();
    let on_its_way = net.steal("head");
    assert!(!on_its_way.is_empty());
    replace(&head, &dir.path().join("anew"), &Stop::new()).unwrap();
    on_its_way.into_iter().for_each(|bytes| net.put("head", bytes));

    let received = head.receive();
    assert_eq!((received.transactions, received.quarantined.len()), (0, 1));
    let reason = &received.quarantined[0].reason;
    assert!(
        reason.contains(&shop.store.id().to_string()) && reason.contains("was replaced"),
        "{reason}"
    );
    assert_eq!(
        net.waiting("head"),
        0,
        "it is kept here, and not looked at for ever"
    );
    assert!(head.receive().quarantined.is_empty());
    let aside = quarantined(&head.store).unwrap();
    assert_eq!(aside.len(), 1);

    // Retried from its copy it is refused, and still the only one that there is.
    let files: BTreeSet<String> = aside.iter().map(|one| one.file.clone()).collect();
    let retried = retry_set_aside(&head.store, None, &files).unwrap();
    assert_eq!((retried.refused.len(), retried.taken.len()), (1, 0));
    assert_eq!(quarantined(&head.store).unwrap(), aside);
    drop_set_aside(&head.store, &aside[0].file).unwrap();
    assert_eq!(head.payloads(), ["counted"]);
}

#[test]
fn where_quarantine_is_full_of_them_the_next_stay_on_their_link_r6() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (head, shop) = pair(dir.path(), &net);
    for number in 0..20 {
        shop.commit(&[("tills/1", &format!("{number} {}", large(40_000)))]);
    }
    shop.scan();
    shop.send();
    let on_their_way = net.steal("head");
    let count = on_their_way.len();
    assert!(count > 16);
    replace(&head, &dir.path().join("anew"), &Stop::new()).unwrap();
    on_their_way.into_iter().for_each(|bytes| net.put("head", bytes));
    head.receive();
    let aside = quarantined(&head.store).unwrap();
    assert_eq!((aside.len(), net.waiting("head")), (16, count - 16));
    // The operator makes room.
    aside
        .iter()
        .for_each(|one| drop_set_aside(&head.store, &one.file).unwrap());
    head.receive();
    assert_eq!(
        (quarantined(&head.store).unwrap().len(), net.waiting("head")),
        (count - 16, 0)
    );
}

/// The remote is removed and added while the former store runs: whoever comes first would be it, and is not.
#[test]
fn a_replaced_store_is_never_the_remote_again_unless_that_is_said_r5() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (head, shop) = pair(dir.path(), &net);
    let made = replace(&head, &dir.path().join("anew"), &Stop::new()).unwrap();
    let anew = head.like(made.store);
    begin_again(&head, "shop", 1);
    // It says the highest generation of all.
    begin_anew(&shop, 300);
    head.commit(&[("orders/1", "a second order")]);
    let of_former = |payload: &str| {
        shop.commit(&[("tills/1", payload)]);
        (0..3).for_each(|_| {
            head.turn();
            shop.turn();
        });
    };
    of_former("of the former shop");
    assert_eq!(
        (head.payloads(), quarantined(&head.store).unwrap().len()),
        (vec!["counted".to_owned()], 1)
    );
    assert_eq!(shop.payloads(), ["an order"], "nothing is for it");
    anew.publish("some", "tills/*", None);
    anew.subscribe("head", "some", None, Start::Now);
    anew.commit(&[("tills/1", "of the new shop")]);
    (0..3).for_each(|_| {
        anew.turn();
        head.turn();
    });
    assert_eq!(head.payloads(), ["counted", "of the new shop"]);

    let parting = Parting::look(&head.store, &name("shop"), &mut |_| ()).unwrap();
    rejoin(&head.store, &parting, Resume::OtherStore).unwrap();
    of_former("it is the shop after all");
    assert_eq!(
        head.payloads(),
        [
            "counted",
            "of the new shop",
            "counted anew",
            "of the former shop",
            "it is the shop after all"
        ]
    );
}

/// The former store had made the pair anew before it was lost, which is heard of in the middle of the making.
#[test]
fn a_pair_that_the_former_store_had_begun_anew_does_not_end_the_making_r5() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (head, shop) = pair(dir.path(), &net);
    begin_anew(&shop, 3);
    shop.scan();
    shop.send();
    let to = dir.path().join("anew");
    let stop = Stop::new();
    stop.request();
    replace(&head, &to, &stop).unwrap_err();
    assert_eq!(head.receive().transactions, 1, "until then it is the remote");
    let made = replace(&head, &to, &Stop::new()).unwrap();
    assert!(made.generation > 4, "{}", made.generation);
    // What it sends from now on is of an earlier making, though that was the newest before.
    shop.commit(&[("tills/1", "too late")]);
    shop.scan();
    shop.send();
    assert_eq!(head.receive().quarantined.len(), 1);
    assert_eq!(head.payloads(), ["counted", "counted anew"]);
}

#[test]
fn a_pair_that_was_begun_anew_too_often_is_told_before_anything_is_removed() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (head, shop) = pair(dir.path(), &net);
    begin_anew(&shop, 300);
    shop.scan();
    shop.send();
    let to = dir.path().join("anew");
    let stop = Stop::new();
    stop.request();
    replace(&head, &to, &stop).unwrap_err();
    head.receive();
    let refused = replace(&head, &to, &Stop::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("begin again"), "{refused}");
    let catalog = head.definitions().catalog().unwrap();
    let remote = catalog.remote(&name("shop")).unwrap();
    assert!(catalog.subscriptions_of(remote).any(|one| one.is_in_force()));
    let bound = head.store.pinned(b"made/shop").unwrap();
    assert!(bound.is_none(), "a store that is given up binds nobody");
    // As it says.
    head.store.drop_hold("extract-shop").unwrap();
    replace(&head, &dir.path().join("again"), &Stop::new()).unwrap();
}

/// The disk does not say for a moment whether the pair has a key: that is no reason to give it one.
#[test]
fn a_key_file_that_cannot_be_read_seals_no_pair() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (head, _shop) = pair(dir.path(), &net);
    let in_its_place = head.root.join("keys").join("shop");
    std::fs::create_dir_all(&in_its_place).unwrap();
    let to = dir.path().join("anew");
    let refused = replace(&head, &to, &Stop::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal);
    assert!(refused.to_string().contains("nothing is begun"), "{refused}");
    assert!(
        !to.exists()
            && head
                .store
                .holds()
                .unwrap()
                .iter()
                .all(|hold| !hold.name.starts_with("extract"))
    );
    std::fs::remove_dir(&in_its_place).unwrap();
    assert_eq!(replace(&head, &to, &Stop::new()).unwrap().key, None);
}

/// The first attempt shared its key and was given up; the store that is made then has the pair's key, too, though nobody asked for one.
#[test]
fn a_pair_that_has_a_key_of_an_attempt_that_was_given_up_shares_the_next() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = Site::new(dir.path(), "head", &net);
    head.publish("some", "orders/*", None);
    head.remote("shop");
    head.commit(&[("orders/1", "an order")]);
    let given_up = Keys::new(&head.store).add_fresh(&name("shop")).unwrap();
    let made = made_for_tills(&head, &dir.path().join("shop"));
    assert!(made.key.is_some_and(|key| key != given_up.key.id()));
    let shop = head.like(made.store);
    shop.commit(&[("tills/1", "counted")]);
    for _ in 0..3 {
        shop.turn();
        head.turn();
    }
    assert_eq!(
        (head.payloads(), shop.payloads()),
        (vec!["counted".to_owned()], vec!["an order".to_owned()])
    );
}

/// The agent of the source runs on while the store is made.
#[test]
fn an_agent_that_runs_on_hears_which_store_was_made_r5() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = Site::new(dir.path(), "head", &net);
    head.publish("some", "orders/*", None);
    head.remote("shop");
    head.commit(&[("orders/1", "an order")]);
    let mut phase = head.receive_phase();
    phase.poll(PollCause::Due).unwrap();
    let made = made_for_tills(&head, &dir.path().join("shop"));
    let (shop, other) = (
        head.like(made.store),
        Site::new(&dir.path().join("by-hand"), "shop", &net),
    );
    other.publish("some", "tills/*", None);
    other.remote("head");
    other.subscribe("head", "some", None, Start::Now);
    for (site, expected) in [(&other, (0, 1)), (&shop, (1, 0))] {
        site.commit(&[("tills/1", "counted")]);
        site.scan();
        site.send();
        let received = phase.poll(PollCause::Due).unwrap();
        assert_eq!((received.transactions, received.quarantined.len()), expected);
    }
}
