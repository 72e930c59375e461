//! A store made for a remote where its data are: it has what it is due, once and in order, however the making was interrupted and
//! whatever was committed meanwhile; from then on the link brings the rest.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, ErrorKind, Hold, Lsn, Pinned, Result, Store};
use milepost_replication::agent::{ExitCode, Stop, run_on};
use milepost_replication::catalog::{NewPublication, Start};
use milepost_replication::extract::{Extract, Extracted, Progress, extract, refuse_unfinished, resync};
use milepost_replication::keys::{Keys, PairKeys, keys_of};
use milepost_replication::status::status;
use milepost_replication::tracking::NOTE;
use support::*;

fn wish(remote: &str, publications: &[&str]) -> Extract {
    Extract {
        remote: name(remote),
        wanted: publications.iter().map(|one| ((*one).to_owned(), None)).collect(),
        from: Lsn::ZERO,
        links: Vec::new(),
        schedule: None,
        up: Vec::new(),
        fresh_key: false,
        options: options(),
    }
}

/// Head office with two publications, and a remote `shop` that was never heard from.
fn head(dir: &Path, net: &Net) -> Site {
    let head = Site::new(dir, "head", net);
    head.publish("orders", "orders/*", None);
    head.publish("stock", "stock/*", None);
    head.remote("shop");
    head
}

/// Commits, of which two of three have something for the shop.
fn some_commits(head: &Site, tag: &str, count: usize) {
    for number in 0..count {
        let text = format!("{tag}-{number}");
        match number % 3 {
            0 => head.commit(&[
                ("orders/1", &text),
                ("other/1", "not for shops"),
                ("stock/2", &text),
            ]),
            1 => head.commit(&[("stock/1", &text)]),
            _ => head.commit(&[("other/2", &text)]),
        };
    }
}

/// What of a site's log the streams of the shop's publications hold, in order.
fn due(head: &Site) -> Vec<String> {
    let all = head.transactions().into_iter().flat_map(|one| one.events);
    let due = all.filter(|(_, stream, _)| stream.starts_with("orders/") || stream.starts_with("stock/"));
    due.map(|(_, _, payload)| payload).collect()
}

fn made(head: &Site, wish: &Extract, dir: &Path) -> Result<Extracted> {
    extract(&head.store, wish, &dir.join("shop"), &Stop::new(), &mut |_| ())
}

fn opened(made: Extracted, head: &Site) -> Site {
    head.like(made.store)
}

fn rounds(head: &Site, shop: &Site) {
    for _ in 0..4 {
        head.turn();
        shop.turn();
    }
}

#[test]
fn a_made_store_has_what_it_is_due_and_the_link_brings_the_rest() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 100);
    let mut seen = Vec::new();
    let mut tell = |progress: Progress| seen.push(progress.at);
    let wish = wish("shop", &["orders", "stock"]);
    let extracted = extract(
        &head.store,
        &wish,
        &dir.path().join("shop"),
        &Stop::new(),
        &mut tell,
    )
    .unwrap();
    assert_eq!(
        (extracted.copied.transactions, extracted.copied.events),
        (67, 101)
    );
    assert!(seen.windows(2).all(|two| two[0] <= two[1]) && seen.last() == Some(&extracted.starts));
    refuse_unfinished(&extracted.store).unwrap();
    let starts = extracted.starts;
    let shop = opened(extracted, &head);
    assert_eq!(shop.payloads(), due(&head));
    let received = status(&shop.store, &mut |_| ()).unwrap().remotes[0]
        .log_received
        .clone();
    assert!(
        received.contains(&format!("/{starts}/")),
        "{received}: all that is due before is here"
    );
    some_commits(&head, "behind", 30);
    // What is sent before the shop was heard from stands behind what it has.
    head.turn();
    rounds(&head, &shop);
    assert_eq!(shop.payloads(), due(&head));
    assert_nothing_doubled(&shop);
    let told = status(&head.store, &mut |_| ()).unwrap();
    let remote = &told.remotes[0];
    assert_eq!((remote.lag_transactions, &remote.stopped), (0, &None));
    assert!(
        head.store
            .holds()
            .unwrap()
            .iter()
            .all(|hold| !hold.name.starts_with("extract"))
    );
    let via = shop
        .transactions()
        .into_iter()
        .all(|one| one.via == Some("head".to_owned()));
    assert!(via);
}

/// Whoever makes it is stopped at every moment, and others commit in between.
#[test]
fn the_making_goes_on_where_it_was_stopped() {
    for pieces in [1, 3, 10] {
        let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
        let mut head = head(dir.path(), &net);
        let text = large(60_000);
        for number in 0..40 {
            head.commit(&[("orders/1", &format!("{number} {text}")), ("stock/1", "little")]);
            some_commits(&head, &format!("{number}"), 4);
        }
        let wish = wish("shop", &["stock", "orders"]);
        let mut runs = 0;
        let extracted = loop {
            let stop = Stop::new();
            let mut tell = |progress: Progress| {
                if progress.copied.transactions >= pieces {
                    stop.request();
                }
            };
            match extract(&head.store, &wish, &dir.path().join("shop"), &stop, &mut tell) {
                Ok(extracted) => break extracted,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
            runs += 1;
            if runs < 6 {
                some_commits(&head, &format!("after {runs}"), 5);
            }
            let half = options().open(dir.path().join("shop")).unwrap();
            assert_eq!(refuse_unfinished(&half).unwrap_err().kind(), ErrorKind::Conflict);
            drop(half);
            head = closed(head, |_| ());
            assert!(runs < 400, "it goes on");
        };
        assert!(runs >= 3, "{pieces}: {runs} runs");
        let shop = opened(extracted, &head);
        some_commits(&head, "behind", 9);
        rounds(&head, &shop);
        assert_eq!(shop.payloads(), due(&head), "{pieces}");
        assert_nothing_doubled(&shop);
    }
}

#[test]
fn nothing_that_is_committed_meanwhile_is_lost_or_doubled() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 2_000);
    let over = AtomicBool::new(false);
    let shop = std::thread::scope(|scope| {
        for writer in 0..3 {
            let (head, over) = (&head, &over);
            scope.spawn(move || {
                let mut number = 0;
                while !over.load(Ordering::Acquire) {
                    some_commits(head, &format!("w{writer} {number}"), 3);
                    number += 1;
                }
            });
        }
        let extracted = made(&head, &wish("shop", &["orders", "stock"]), dir.path()).unwrap();
        let shop = opened(extracted, &head);
        rounds(&head, &shop);
        over.store(true, Ordering::Release);
        shop
    });
    rounds(&head, &shop);
    assert_eq!(shop.payloads(), due(&head));
    assert_nothing_doubled(&shop);
}

#[test]
fn what_breaks_a_rule_is_refused_and_leaves_nothing() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let kind = |wish: &Extract| made(&head, wish, dir.path()).unwrap_err().kind();
    assert_eq!(kind(&wish("nobody", &["orders"])), ErrorKind::Invalid);
    assert_eq!(kind(&wish("shop", &["no-such"])), ErrorKind::Invalid);
    assert_eq!(kind(&wish("shop", &[])), ErrorKind::Invalid);
    let beyond = Extract {
        from: Lsn(1 << 40),
        ..wish("shop", &["orders"])
    };
    assert_eq!(kind(&beyond), ErrorKind::Invalid);
    assert!(!dir.path().join("shop").exists());
    assert!(
        head.store
            .holds()
            .unwrap()
            .iter()
            .all(|hold| !hold.name.starts_with("extract"))
    );
    Site::new(dir.path(), "shop", &net).commit(&[("orders/1", "in use")]);
    assert_eq!(
        kind(&wish("shop", &["orders"])),
        ErrorKind::Conflict,
        "a finished store"
    );
    std::fs::remove_dir_all(dir.path().join("shop")).unwrap();
    head.subscribe("shop", "orders", None, Start::Now);
    assert_eq!(
        kind(&wish("shop", &["orders"])),
        ErrorKind::Conflict,
        "it has subscriptions"
    );
}

/// It was chosen by what the publication was, and the link would bring what is due by what it is.
#[test]
fn a_publication_that_changes_meanwhile_is_told() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let change = || {
        let new = NewPublication::new("orders", &["**".to_owned()], &[], None);
        head.definitions().add_publication(new, true).unwrap();
    };
    let mut is_changed = false;
    let mut tell = |_: Progress| {
        if !std::mem::replace(&mut is_changed, true) {
            change();
        }
    };
    let wish = wish("shop", &["orders"]);
    let outcome = extract(
        &head.store,
        &wish,
        &dir.path().join("shop"),
        &Stop::new(),
        &mut tell,
    );
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("orders"), "{error}");
}

#[test]
fn agents_leave_a_store_alone_that_is_not_finished() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let stop = Stop::new();
    stop.request();
    let to = dir.path().join("shop");
    let wish = wish("shop", &["orders"]);
    assert!(extract(&head.store, &wish, &to, &stop, &mut |_| ()).is_err());
    let half = options().open(&to).unwrap();
    let links = head.links(&Stop::new());
    let exit = run_on(&half, &links, &batch(true, true, true), &Stop::new());
    assert_eq!(exit.code, ExitCode::Failed);
    assert!(exit.message.unwrap().contains("not finished"));
}

/// The shop's disk is gone. What it had sent is at the head office, and comes back.
#[test]
fn a_copy_that_is_replaced_has_all_again_and_the_former_one_is_refused() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    let first = Extract {
        up: vec!["orders/*".to_owned(), "tills/*".to_owned()],
        ..wish("shop", &["orders", "stock"])
    };
    some_commits(&head, "before", 20);
    let shop = opened(made(&head, &first, dir.path()).unwrap(), &head);
    shop.commit(&[("orders/7", "sold by the shop"), ("tills/1", "counted")]);
    shop.commit(&[("tills/1", "counted again")]);
    rounds(&head, &shop);
    assert!(due(&head).contains(&"sold by the shop".to_owned()));
    shop.commit(&[("orders/7", "never left the shop")]);
    some_commits(&head, "while it lies broken", 5);
    let again = wish("shop", &[]);
    let to = dir.path().join("anew");
    let extracted = resync(&head.store, &again, &to, &Stop::new(), &mut |_| ()).unwrap();
    assert_eq!(extracted.generation, 257);
    let anew = opened(extracted, &head);
    // Also what it sent and does not subscribe to.
    let of_tills = |payload: &String| payload.starts_with("counted");
    let (tills, others): (Vec<_>, Vec<_>) = anew.payloads().into_iter().partition(of_tills);
    assert_eq!(tills, ["counted", "counted again"]);
    assert_eq!(others, due(&head));
    // The broken one comes to life first.
    shop.turn();
    head.turn();
    shop.turn();
    head.turn();
    assert!(!due(&head).contains(&"never left the shop".to_owned()));
    some_commits(&head, "behind", 5);
    rounds(&head, &anew);
    net.steal("shop");
    rounds(&head, &anew);
    assert_eq!(anew.payloads().len(), due(&head).len() + 2);
    assert_nothing_doubled(&anew);
    let told = status(&head.store, &mut |_| ()).unwrap();
    assert_eq!(
        (told.remotes[0].lag_transactions, &told.remotes[0].stopped),
        (0, &None)
    );
}

#[test]
fn a_sealed_pair_gets_a_fresh_key_in_both_stores_and_the_former_ones_go() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let first = Extract {
        fresh_key: true,
        ..wish("shop", &["orders"])
    };
    let ids = |site: &Site, of: &str| match keys_of(&site.store, &name(of)).unwrap() {
        PairKeys::Sealed { ring, .. } => ring.keys().iter().map(|one| one.key.id()).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    // What an agent would have sealed with, had it run as soon as something was due.
    let due_with = |held: &mut Vec<_>| {
        let catalog = head.definitions().catalog().unwrap();
        let remote = catalog.remote(&name("shop")).unwrap();
        if catalog.subscriptions_of(remote).any(|one| one.is_in_force()) {
            held.push(ids(&head, "shop"));
        }
    };
    let (to, mut held) = (dir.path().join("shop"), Vec::new());
    let tell = &mut |_| due_with(&mut held);
    let extracted = extract(&head.store, &first, &to, &Stop::new(), tell).unwrap();
    let drawn = extracted.key.unwrap();
    assert!(
        !held.is_empty() && held.iter().all(|ids| *ids == [drawn]),
        "{held:?}"
    );
    let shop = opened(extracted, &head);
    assert_eq!(
        (ids(&head, "shop"), ids(&shop, "head")),
        (vec![drawn], vec![drawn])
    );
    some_commits(&head, "sealed", 5);
    rounds(&head, &shop);
    assert_eq!(shop.payloads().len(), 6);
    Keys::new(&head.store).add_fresh(&name("shop")).unwrap();
    let again = wish("shop", &[]);
    let (to, mut held) = (dir.path().join("anew"), Vec::new());
    let tell = &mut |_| due_with(&mut held);
    let extracted = resync(&head.store, &again, &to, &Stop::new(), tell).unwrap();
    let fresh = extracted.key.unwrap();
    assert_eq!(held.last(), Some(&vec![fresh]), "{held:?}");
    let anew = opened(extracted, &head);
    assert_ne!(fresh, drawn);
    assert_eq!(
        (ids(&head, "shop"), ids(&anew, "head")),
        (vec![fresh], vec![fresh])
    );
    some_commits(&head, "sealed again", 5);
    rounds(&head, &anew);
    assert_eq!(anew.payloads().len(), 8);
    assert_nothing_doubled(&anew);
}

/// It is made of a hub, which passes on what others committed; the way on to the hub, and from there, is as ever (R4).
#[test]
fn what_a_hub_passes_on_keeps_its_origin_and_goes_to_nobody_twice() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (top, hub) = (Site::new(dir.path(), "top", &net), head(dir.path(), &net));
    top.publish("all", "**", None);
    top.remote("head");
    hub.remote("top");
    top.subscribe("head", "all", None, Start::Now);
    hub.subscribe("top", "orders", None, Start::Beginning);
    top.commit(&[("orders/1", "by the top"), ("stock/1", "by the top too")]);
    hub.commit(&[("orders/2", "by the hub")]);
    rounds(&top, &hub);
    let first = Extract {
        up: vec!["orders/*".to_owned()],
        ..wish("shop", &["orders"])
    };
    let shop = opened(made(&hub, &first, dir.path()).unwrap(), &hub);
    let origins: Vec<String> = shop.received().into_iter().map(|one| one.origin.0).collect();
    assert_eq!(origins, ["head", "top"]);
    shop.commit(&[("orders/3", "by the shop")]);
    top.commit(&[("orders/1", "by the top, later")]);
    for _ in 0..4 {
        rounds(&top, &hub);
        rounds(&hub, &shop);
    }
    assert_eq!(shop.payloads(), ["by the hub", "by the top", "by the top, later"]);
    assert_eq!(top.payloads(), ["by the hub", "by the shop"]);
    [&top, &hub, &shop].into_iter().for_each(assert_nothing_doubled);
}

/// Nothing of what a former run did is done twice, and what it left half done is done again.
#[test]
fn whoever_is_killed_behind_the_copy_goes_on_from_there() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let to = dir.path().join("shop");
    let wish = Extract {
        fresh_key: true,
        up: vec!["orders/*".to_owned()],
        ..wish("shop", &["orders"])
    };
    let stop = Stop::new();
    stop.request();
    extract(&head.store, &wish, &to, &stop, &mut |_| ()).unwrap_err();
    let half = options().open(&to).unwrap();
    let (plan, _) = half.pinned(b"extract").unwrap().unwrap();
    drop(half);
    let ids = |store: &Store, of: &str| match keys_of(store, &name(of)).unwrap() {
        PairKeys::Sealed { ring, .. } => ring.keys().iter().map(|one| one.key.id()).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let mut starts = None;
    for moment in ["before its last frame", "before the key was added here"] {
        let made = made(&head, &wish, dir.path()).unwrap();
        assert_eq!(
            starts.replace(made.starts).unwrap_or(made.starts),
            made.starts,
            "{moment}"
        );
        assert_eq!(ids(&made.store, "head"), ids(&head.store, "shop"), "{moment}");
        assert_eq!(
            Some(ids(&made.store, "head")),
            made.key.map(|key| vec![key]),
            "{moment}"
        );
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(Pinned {
            key: b"extract".to_vec(),
            value: Some(plan.clone()),
        });
        made.store.append_frames(vec![note], Durability::Synced).unwrap();
        some_commits(&head, moment, 5);
        if moment == "before the key was added here" {
            Keys::new(&made.store).drop_all(&name("head")).unwrap();
            Keys::new(&made.store).add_fresh(&name("head")).unwrap();
        }
    }
    let shop = opened(made(&head, &wish, dir.path()).unwrap(), &head);
    assert_eq!(ids(&shop.store, "head"), ids(&head.store, "shop"));
    assert_eq!(shop.definitions().catalog().unwrap().subscriptions().count(), 1);
    rounds(&head, &shop);
    assert_eq!(shop.payloads().len(), 4 + 2 + 2);
    assert_nothing_doubled(&shop);
}

/// The claim would have kept the log for ever, and no other store could have been made.
#[test]
fn whoever_is_killed_when_all_was_done_leaves_no_claim_behind() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let (to, wish, stop) = (dir.path().join("shop"), wish("shop", &["orders"]), Stop::new());
    stop.request();
    extract(&head.store, &wish, &to, &stop, &mut |_| ()).unwrap_err();
    let claims = || {
        head.store
            .holds()
            .unwrap()
            .into_iter()
            .filter(|hold| hold.name == "extract-shop")
    };
    let claim = claims().next().unwrap().hold.unwrap();
    extract(&head.store, &wish, &to, &Stop::new(), &mut |_| ()).unwrap();
    assert_eq!(claims().count(), 0);
    // As if it had been killed a moment before.
    head.store.hold("extract-shop", &claim).unwrap();
    let refused = extract(&head.store, &wish, &to, &Stop::new(), &mut |_| ()).unwrap_err();
    assert!(
        refused.to_string().contains("finished store already"),
        "{refused}"
    );
    assert_eq!(claims().count(), 0, "run again, it lets go");
    // That of another store stays.
    let other = Hold::new("extract", "another store is being made", Lsn::ZERO);
    head.store.hold("extract-shop", &other).unwrap();
    extract(&head.store, &wish, &to, &Stop::new(), &mut |_| ()).unwrap_err();
    assert_eq!(claims().count(), 1);
}

/// Two that are made side by side would both be the shop.
#[test]
fn one_store_at_a_time_is_made_for_a_remote() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let head = head(dir.path(), &net);
    some_commits(&head, "before", 10);
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let wish = wish("shop", &["orders"]);
    let (run, stop) = (Stop::new(), Stop::new());
    stop.request();
    let make = |to: &Path, stop: &Stop| extract(&head.store, &wish, to, stop, &mut |_| ());
    make(&one, &stop).unwrap_err();
    let refused = make(&other, &run).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(
        refused.to_string().contains("extract-shop") && !other.exists(),
        "{refused}"
    );
    // Given up, and the other one begun; then somebody finds the first again.
    head.store.drop_hold("extract-shop").unwrap();
    make(&other, &stop).unwrap_err();
    assert_eq!(make(&one, &run).unwrap_err().kind(), ErrorKind::Conflict);
    let shop = opened(make(&other, &run).unwrap(), &head);
    rounds(&head, &shop);
    let refused = make(&one, &run).unwrap_err();
    assert!(
        refused.to_string().contains("is the remote shop by now"),
        "{refused}"
    );
    // So it is with those that replace it.
    let again = |to: &str, stop: &Stop| {
        let wish = Extract {
            wanted: Vec::new(),
            ..wish.clone()
        };
        resync(&head.store, &wish, &dir.path().join(to), stop, &mut |_| ())
    };
    assert_eq!(again("third", &stop).unwrap_err().kind(), ErrorKind::Unavailable);
    head.store.drop_hold("extract-shop").unwrap();
    again("fourth", &run).unwrap();
    let refused = again("third", &run).unwrap_err();
    assert!(
        refused.to_string().contains("is the remote shop by now"),
        "{refused}"
    );
}
