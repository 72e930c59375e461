//! The ways on for a stopped pair: it is made anew in its place and goes on from the last that both sites have, or from the
//! beginning; whatever each had sent arrives, once, and what one of them lost stays with the other (R1, R5).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::Path;

use milepost_engine::{ErrorKind, ForkAt, Lsn, PutBack};
use milepost_replication::catalog::{Catalog, Remote, Start};
use milepost_replication::keys::PairKeys;
use milepost_replication::message::{Limits, decode};
use milepost_replication::rejoin::{Parting, Resume, rejoin};
use milepost_replication::send::Serve;
use milepost_replication::tracking::StopReason;
use support::restoring::{Pair, order, pair};
use support::*;

fn look(site: &Site, other: &str) -> Parting {
    Parting::look(&site.store, &name(other), &mut |_| ()).unwrap()
}

fn rejoined(site: &Site, other: &str, from: Resume) -> Remote {
    rejoin(&site.store, &look(site, other), from).unwrap()
}

fn remote(site: &Site, other: &str) -> Remote {
    Catalog::load(&site.store)
        .unwrap()
        .remote(&name(other))
        .unwrap()
        .clone()
}

/// Which of two sites hears the other first, and stops the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    Head,
    Shop,
    Both,
}

/// The shop is restored from a backup from before `lost`, which the head has, and both have committed since.
fn parted(lost: &[&str], hears: Hears) -> Pair {
    let pair = pair();
    (0..10).for_each(|number| order(&pair.shop, &format!("s{number}")));
    (0..10).for_each(|number| order(&pair.head, &format!("h{number}")));
    pair.exchange(3);
    pair.back_up(&pair.shop);
    lost.iter().for_each(|payload| order(&pair.shop, payload));
    order(&pair.head, "h after the backup");
    pair.exchange(3);
    let pair = pair.restore_shop();
    order(&pair.shop, "s after the restore");
    let [head, shop] = [&pair.head, &pair.shop];
    let turns: &[&Site] = match hears {
        Hears::Head => &[shop, head],
        Hears::Shop => &[head, shop],
        Hears::Both => &[],
    };
    turns.iter().for_each(|site| site.turn());
    if hears == Hears::Both {
        [head, shop].into_iter().for_each(|site| {
            site.scan();
            site.send();
        });
        [head, shop].into_iter().for_each(|site| drop(site.receive()));
    }
    assert!(pair.stopped());
    pair
}

/// Both sites send and receive; how many transactions went to the head and to the shop.
fn exchange_counting(pair: &Pair) -> (usize, usize) {
    let (net, mut went) = (&pair.head.net, [0, 0]);
    let count = |bytes: &Vec<u8>| {
        let message = decode(bytes, &Limits::default(), &PairKeys::Unsealed).unwrap();
        message.items.len()
    };
    for _ in 0..4 {
        let ways = [(&pair.shop, "head", &pair.head), (&pair.head, "shop", &pair.shop)];
        for ((from, to, other), went) in ways.into_iter().zip(&mut went) {
            from.scan();
            from.send();
            let messages = net.steal(to);
            *went += messages.iter().map(count).sum::<usize>();
            messages.into_iter().for_each(|bytes| net.put(to, bytes));
            other.receive();
        }
    }
    (went[0], went[1])
}

fn assert_arrived(pair: &Pair, lost: &[&str]) {
    pair.exchange(6);
    assert!(!pair.stopped());
    let shops: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let heads: Vec<String> = (0..10).map(|number| format!("h{number}")).collect();
    let lost = lost.iter().map(|one| (*one).to_owned());
    let shops: Vec<String> = shops
        .into_iter()
        .chain(lost)
        .chain(["s after the restore".to_owned()])
        .collect();
    let heads: Vec<String> = heads
        .into_iter()
        .chain(["h after the backup".to_owned()])
        .collect();
    assert_eq!((pair.head.payloads(), pair.shop.payloads()), (shops, heads));
    [&pair.head, &pair.shop]
        .into_iter()
        .for_each(assert_nothing_doubled);
}

#[test]
fn rejoined_where_it_stopped_a_pair_goes_on_from_the_last_that_both_have() {
    let lost = ["lost one", "lost two"];
    for hears in [Hears::Head, Hears::Shop, Hears::Both] {
        let pair = parted(&lost, hears);
        let (at_head, at_shop) = (look(&pair.head, "shop"), look(&pair.shop, "head"));
        if hears != Hears::Shop {
            assert!(
                matches!(at_head.stopped, Some(StopReason::Parted(Some(_), _))),
                "{:?}",
                at_head.stopped
            );
            assert_eq!(
                at_head.beyond.transactions, 2,
                "what the shop lost and the head has"
            );
            assert!(at_head.common.unwrap().place() < at_head.received.place());
            let before = remote(&pair.head, "shop");
            let after = rejoined(&pair.head, "shop", Resume::Common);
            assert_eq!(
                (after.added, after.generation, &after.links),
                (before.added, before.generation + 1, &before.links)
            );
            assert_eq!(Some(look(&pair.head, "shop").received), at_head.common);
        }
        if hears != Hears::Head {
            assert!(
                matches!(at_shop.stopped, Some(StopReason::Fork(_))),
                "{:?}",
                at_shop.stopped
            );
            assert_eq!(at_shop.common, Some(at_shop.received));
            rejoined(&pair.shop, "head", Resume::Common);
        }
        // What was on its way when it stopped is of a former generation.
        ["head", "shop"]
            .into_iter()
            .for_each(|site| drop(pair.head.net.steal(site)));
        // A site that did not stop sends in the former generation once more, before it hears of the new one.
        let (to_head, to_shop) = exchange_counting(&pair);
        let counts = (to_head, to_shop);
        assert!(
            (1..=2).contains(&to_head) && (1..=2).contains(&to_shop),
            "{hears:?}: {counts:?}, and the other has the rest"
        );
        assert_arrived(&pair, &lost);
    }
}

#[test]
fn rejoined_at_either_site_a_pair_goes_on_and_nothing_is_doubled() {
    let lost = ["lost one"];
    for (hears, at_head) in [
        (Hears::Head, true),
        (Hears::Shop, false),
        (Hears::Both, true),
        (Hears::Both, false),
    ] {
        for from in [Resume::Common, Resume::Beginning] {
            let pair = parted(&lost, hears);
            let (site, other) = if at_head {
                (&pair.head, "shop")
            } else {
                (&pair.shop, "head")
            };
            rejoined(site, other, from);
            assert_arrived(&pair, &lost);
        }
    }
}

/// A folder that was put back by hand says nothing of it: which transactions both have is known at the one site alone.
#[test]
fn a_folder_that_was_put_back_by_hand_is_found_and_goes_on() {
    for alone in [false, true] {
        put_back_by_hand(alone);
    }
}

/// Rejoined at both sites, or there alone.
fn put_back_by_hand(alone: bool) {
    let pair = pair();
    (0..5).for_each(|number| order(&pair.shop, &format!("s{number}")));
    order(&pair.head, "h0");
    pair.exchange(3);
    let kept = pair.dir.path().join("copy");
    let shop = closed(pair.shop, |root: &Path| copy(root, &kept));
    let pair = Pair { shop, ..pair };
    order(&pair.shop, "lost");
    order(&pair.head, "h1");
    pair.exchange(3);
    assert_eq!(pair.head.payloads().last().unwrap(), "lost");
    let shop = put_back(pair.shop, &kept);
    let pair = Pair { shop, ..pair };
    // At the very places of what was lost, other things.
    order(&pair.shop, "other");
    order(&pair.shop, "more");
    pair.exchange(3);
    assert!(pair.stopped());
    let sites = [(&pair.shop, "head"), (&pair.head, "shop")];
    for (site, other) in sites.into_iter().take(if alone { 1 } else { 2 }) {
        let parting = look(site, other);
        match &parting.stopped {
            Some(StopReason::Parted(None, _)) | None => {
                let refused = rejoin(&site.store, &parting, Resume::Common).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
                rejoined(site, other, Resume::Beginning);
            }
            _ => drop(rejoined(site, other, Resume::Common)),
        }
    }
    pair.exchange(6);
    assert!(!pair.stopped());
    assert_eq!(
        pair.head.payloads(),
        ["s0", "s1", "s2", "s3", "s4", "lost", "other", "more"]
    );
    assert_eq!(pair.shop.payloads(), ["h0", "h1"]);
    assert_nothing_doubled(&pair.shop);
}

/// How a folder was put back, and who had heard what of it when its lineage began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// Before anybody opened it.
    AtOnce,
    /// After it had committed at the places of what was lost, and the head found that,
    HeadKnows,
    /// or the shop did.
    ShopKnows,
}

#[test]
fn a_folder_that_was_put_back_and_begins_a_new_lineage_goes_on_from_the_last_that_both_have() {
    for begins in [Begins::AtOnce, Begins::HeadKnows, Begins::ShopKnows] {
        begins_a_lineage(begins);
    }
}

/// A pair with history, the copy of the shop's folder, and where its log ends.
fn copied() -> (Pair, std::path::PathBuf, Lsn) {
    let pair = pair();
    (0..10).for_each(|number| order(&pair.shop, &format!("s{number}")));
    (0..10).for_each(|number| order(&pair.head, &format!("h{number}")));
    pair.exchange(3);
    let kept = pair.dir.path().join("copy");
    let shop = closed(pair.shop, |root: &Path| copy(root, &kept));
    let end = PutBack::open(&kept, options()).unwrap().end();
    (Pair { shop, ..pair }, kept, end)
}

fn begin_lineage(pair: Pair, fork: ForkAt) -> Pair {
    let shop = closed(pair.shop, |root: &Path| {
        PutBack::open(root, options())
            .unwrap()
            .begin_lineage(fork)
            .map(drop)
            .unwrap();
    });
    Pair { shop, ..pair }
}

/// The two exchange, and one of them finds that their histories parted.
fn goes_on(pair: &Pair, begins: Begins) {
    if begins == Begins::ShopKnows {
        pair.exchange(3);
        assert!(pair.stopped());
        return;
    }
    pair.shop.turn();
    pair.head.turn();
    let stopped = look(&pair.head, "shop").stopped;
    assert!(
        matches!(stopped, Some(StopReason::Parted(None, _))),
        "{stopped:?}"
    );
}

fn begins_a_lineage(begins: Begins) {
    let (pair, kept, end) = copied();
    let mut has: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let commit = |pair: &Pair, payload: &str, has: &mut Vec<String>| {
        order(&pair.shop, payload);
        has.push(payload.to_owned());
    };
    commit(&pair, "lost one", &mut has);
    commit(&pair, "lost two", &mut has);
    pair.exchange(3);
    let shop = put_back(pair.shop, &kept);
    let mut pair = Pair { shop, ..pair };
    if begins != Begins::AtOnce {
        ["since one", "since two", "since three"]
            .into_iter()
            .for_each(|payload| commit(&pair, payload, &mut has));
        goes_on(&pair, begins);
    }
    let fork = if begins == Begins::AtOnce {
        ForkAt::End
    } else {
        ForkAt::Lsn(end)
    };
    pair = begin_lineage(pair, fork);
    commit(&pair, "s after", &mut has);
    pair.shop.turn();
    pair.head.turn();
    pair.shop.turn();
    let (at_head, at_shop) = (look(&pair.head, "shop"), look(&pair.shop, "head"));
    let (site, other, parting) = match begins {
        Begins::ShopKnows => (&pair.shop, "head", at_shop),
        _ => (&pair.head, "shop", at_head),
    };
    match (&parting.stopped, begins) {
        (Some(StopReason::Fork(_)), Begins::ShopKnows) => {}
        (Some(StopReason::Parted(Some(_), _)), _) => assert_eq!(parting.beyond.transactions, 2),
        other => panic!("{other:?}"),
    }
    rejoined(site, other, Resume::Common);
    ["head", "shop"]
        .into_iter()
        .for_each(|site| drop(pair.head.net.steal(site)));
    let (to_head, _) = exchange_counting(&pair);
    assert!(
        to_head <= 9,
        "{begins:?}: {to_head} transactions went to the head, which has the rest"
    );
    pair.exchange(6);
    assert!(!pair.stopped(), "{begins:?}");
    assert_eq!(pair.head.payloads(), has, "{begins:?}");
    assert_eq!(pair.shop.payloads().len(), 10);
    // At the head two of its transactions have one LSN there: the shop used it twice.
    assert_nothing_doubled(&pair.shop);
}

/// The trap: nothing was lost. What the shop committed since, under the lineage that it then left, is with the head in part; the rest is lost on
/// the link and asked for, up to a place of the lineage that was left.
#[test]
fn what_a_folder_committed_before_its_new_lineage_stops_nobody_and_is_served_when_it_is_asked_for() {
    let (pair, kept, end) = copied();
    let shop = put_back(pair.shop, &kept);
    let mut pair = Pair { shop, ..pair };
    pair.shop.message_bytes = 10_000;
    (0..4).for_each(|number| order(&pair.shop, &format!("{number}{}", large(6_000))));
    pair.shop.scan();
    let mut phase = pair.shop.send_phase();
    phase.round(Serve::Everybody).unwrap();
    phase.remember().unwrap();
    drop(phase);
    let decoded = |bytes: &Vec<u8>| decode(bytes, &Limits::default(), &PairKeys::Unsealed).unwrap();
    let mut mail = pair.shop.net.steal("head");
    mail.retain(|bytes| !decoded(bytes).items.is_empty());
    assert_eq!(mail.len(), 4);
    mail.sort_by_key(|bytes| decoded(bytes).header.last.place());
    // The first arrives, the second is lost.
    let third = mail.remove(2);
    pair.head.net.put("head", mail.remove(0));
    pair.head.receive();
    assert_eq!(pair.head.payloads().len(), 11);
    pair.head.net.put("head", third);
    let mut pair = begin_lineage(pair, ForkAt::Lsn(end));
    pair.shop.message_bytes = 10_000;
    pair.head.turn();
    pair.shop.turn();
    assert!(!pair.stopped());
    assert!(
        pair.head.net.waiting("head") > 0,
        "what was asked for goes at once, without a probe before"
    );
    pair.head.receive();
    assert!(pair.head.payloads().len() > 11);
    order(&pair.shop, "after");
    pair.exchange(6);
    assert!(!pair.stopped());
    let has = pair.head.payloads();
    assert_eq!((has.len(), has.last().map(String::as_str)), (15, Some("after")));
    assert_nothing_doubled(&pair.head);
}

/// The shop's store is another one by now, made by hand: it is refused until the head is told so.
#[test]
fn another_store_under_the_name_is_met_only_by_command() {
    let pair = pair();
    order(&pair.head, "h0");
    order(&pair.shop, "s0");
    pair.exchange(3);
    let root = pair.shop.root.clone();
    let Pair { dir, head, shop, .. } = pair;
    drop(shop);
    std::fs::remove_dir_all(&root).unwrap();
    let shop = Site::new(dir.path(), "shop", &head.net);
    shop.publish("all", "orders/**", None);
    shop.remote("head");
    shop.subscribe("head", "all", None, Start::Now);
    order(&shop, "of the other store");
    for _ in 0..3 {
        shop.turn();
        head.turn();
    }
    assert_eq!(head.payloads(), ["s0"]);
    let parting = look(&head, "shop");
    assert_eq!(parting.stopped, None, "a stranger stops nobody");
    rejoined(&head, "shop", Resume::OtherStore);
    for _ in 0..4 {
        shop.turn();
        head.turn();
    }
    assert_eq!(head.payloads(), ["s0", "of the other store"]);
    assert_eq!(shop.payloads(), ["h0"], "its subscriptions begin anew too");
}

#[test]
fn what_was_changed_or_is_held_meanwhile_is_refused() {
    let pair = parted(&["lost"], Hears::Both);
    let parting = look(&pair.head, "shop");
    rejoin(&pair.head.store, &parting, Resume::Common).unwrap();
    let twice = rejoin(&pair.head.store, &parting, Resume::Common).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict, "{twice}");
    let nobody = Parting::look(&pair.head.store, &name("nobody"), &mut |_| ()).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Invalid, "{nobody}");
    let stopped = Parting::all(&pair.shop.store, &mut |_| ()).unwrap();
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped[0].remote.site, name("head"));
    assert!(Parting::all(&pair.head.store, &mut |_| ()).unwrap().is_empty());
}
