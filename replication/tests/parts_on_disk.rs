//! A transaction in many messages: its pieces wait on disk, whatever process takes them, and what is lost of them is asked for.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use milepost_replication::receive::incomplete;
use milepost_replication::status::status;
use support::*;

fn files(site: &Site) -> usize {
    std::fs::read_dir(site.root.join("parts")).map_or(0, Iterator::count)
}

fn rounds(head: &Site, shop: &Site, count: usize) {
    for _ in 0..count {
        head.turn();
        shop.turn();
    }
}

/// They waited on the link, and whoever emptied the folder by hand, or a server that let old messages go, lost them.
#[test]
fn pieces_leave_the_link_once_they_are_durable_and_join_over_processes_in_any_order() {
    let net = Net::default();
    let (_dir, head, mut shop) = in_small_messages(&net);
    let text = large(800_000);
    head.commit(&[("s/1", "before"), ("s/2", &text), ("s/3", "behind")]);
    head.commit(&[("s/1", "next")]);
    head.turn();
    let mut messages = net.steal("shop");
    assert!(messages.len() > 60, "{} messages", messages.len());
    // Of every three the last first, a few a process, and half of them twice.
    messages.reverse();
    for (number, some) in messages.chunks(3).enumerate() {
        some.iter().for_each(|one| net.put("shop", one.clone()));
        some.iter()
            .step_by(2)
            .for_each(|one| net.put("shop", one.clone()));
        shop.receive();
        if number < messages.len() / 3 - 1 {
            assert!(shop.payloads().is_empty());
            assert!(net.waiting("shop") <= 2, "what has no piece waits, and no other");
        }
        shop = closed(shop, |_| ());
    }
    assert_eq!(shop.payloads(), ["before", &text, "behind", "next"]);
    assert_eq!((files(&shop), net.waiting("shop")), (0, 0));
    assert_nothing_doubled(&shop);
}

/// Nothing came behind it, and its sender had sent all: the rest was waited for until a probe, a minute or a day later.
#[test]
fn a_piece_that_is_lost_is_asked_for_though_nothing_comes_behind() {
    let net = Net::with_fate(|number| usize::from(number != 20));
    let (_dir, head, shop) = in_small_messages(&net);
    let text = large(500_000);
    head.commit(&[("s/1", &text)]);
    head.turn();
    shop.receive();
    let waiting = incomplete(&shop.store, None).unwrap();
    let (remote, one) = &waiting[0];
    assert_eq!((waiting.len(), remote), (1, &name("head")));
    assert!(one.held < one.total && one.missing_from > 0, "{one:?}");
    assert!(shop.payloads().is_empty());
    let told = status(&shop.store, &mut |_| ()).unwrap();
    assert_eq!(
        told.remotes[0].rereceive_count, 1,
        "asked for, without a word from its sender"
    );
    shop.turn();
    rounds(&head, &shop, 2);
    assert_eq!(shop.payloads(), [text]);
    assert_eq!(files(&shop), 0);
    assert_nothing_doubled(&shop);
}

#[test]
fn files_that_are_lost_or_damaged_only_cost_that_their_pieces_come_again() {
    for damage in ["gone", "cut", "rotten"] {
        let net = Net::with_fate(|number| usize::from(number != 30));
        let (_dir, head, shop) = in_small_messages(&net);
        let text = large(400_000);
        head.commit(&[("s/1", &text)]);
        head.turn();
        shop.receive();
        assert_eq!((files(&shop), net.waiting("shop")), (1, 0), "{damage}");
        let shop = closed(shop, |root| {
            let folder = root.join("parts");
            let path = std::fs::read_dir(&folder)
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            let mut bytes = std::fs::read(&path).unwrap();
            match damage {
                "gone" => std::fs::remove_dir_all(folder).unwrap(),
                "cut" => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                _ => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 4;
                    std::fs::write(path, bytes).unwrap();
                }
            }
        });
        head.commit(&[("s/1", "behind")]);
        rounds(&head, &shop, 4);
        assert_eq!(shop.payloads(), [&text, "behind"], "{damage}");
        assert_eq!(files(&shop), 0, "{damage}");
        assert_nothing_doubled(&shop);
    }
}

/// The process that finds them is another one: it asked the new pair for a transaction of the old one, which was freed meanwhile,
/// and the pair stopped.
#[test]
fn pieces_of_a_former_pair_are_asked_for_by_nobody() {
    let net = Net::with_fate(|number| usize::from(number != 30));
    let (_dir, head, mut shop) = in_small_messages(&net);
    head.commit(&[("s/1", &large(400_000))]);
    head.turn();
    shop.receive();
    assert!(
        status(&shop.store, &mut |_| ()).unwrap().remotes[0]
            .waits
            .is_some()
    );
    shop.definitions().remove_remote(&name("head")).unwrap();
    shop.remote("head");
    let waits = status(&shop.store, &mut |_| ()).unwrap().remotes[0].waits.clone();
    assert_eq!(waits, None);
    for _ in 0..4 {
        shop = closed(shop, |_| ());
        shop.receive();
        let told = status(&shop.store, &mut |_| ()).unwrap();
        assert_eq!(told.remotes[0].rereceive_count, 0);
        shop.send();
    }
    assert_eq!(files(&shop), 0);
}

#[test]
fn pieces_of_a_pair_that_is_removed_or_made_anew_go() {
    let net = Net::with_fate(|number| usize::from(number != 30));
    let (_dir, head, shop) = in_small_messages(&net);
    let text = large(400_000);
    head.commit(&[("s/1", &text)]);
    head.turn();
    shop.receive();
    assert_eq!(files(&shop), 1);
    shop.definitions().remove_remote(&name("head")).unwrap();
    shop.receive();
    assert_eq!(files(&shop), 0);
    shop.remote("head");
    rounds(&head, &shop, 6);
    assert_nothing_doubled(&shop);
    assert_eq!(files(&shop), 0);
}
