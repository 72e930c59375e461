//! A publisher is restored to a backup from before what its subscriber had only heard of: a hole that it asks for, a transaction
//! of which it has some pieces. It holds nothing from behind the fork, so nothing stops and all goes on (R5).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;

use milepost_engine::Durability;
use milepost_engine::frame::NewFrame;
use milepost_replication::receive::incomplete;
use milepost_replication::send::Serve;
use milepost_replication::status::status;
use milepost_replication::tracking::NOTE;
use support::*;

/// The publisher is lost, and its backup takes its place; again, what was made of it so, if `times` is more.
fn restored(head: Site, backup: &Path, times: usize) -> Site {
    (0..times).fold(head, |head, time| {
        let from = backup.with_extension(time.to_string());
        match time {
            0 => std::fs::rename(backup, &from).unwrap(),
            _ => drop(head.store.backup(&from, false, &mut |_, _| ()).unwrap()),
        }
        closed(head, |root| {
            std::fs::remove_dir_all(root).unwrap();
            options().restore(&from, root, &mut |_, _| ()).unwrap();
        })
    })
}

/// So that what is committed behind it has an LSN that the restored site takes long to reach.
fn much_that_is_due_to_nobody(head: &Site) {
    let note = NewFrame::of_kind(NOTE, vec![0; 100_000]);
    head.store.append_frames(vec![note], Durability::Synced).unwrap();
}

/// Rounds until nothing moves, with commits of the restored site: nobody stops or waits, and they arrive.
fn goes_on(head: &Site, shop: &Site) {
    // At first few bytes, so that LSNs are below what was heard of, then more.
    for payload in ["new".to_owned(), large(40_000), "last".to_owned()] {
        head.commit(&[("s/1", &payload)]);
        for _ in 0..6 {
            head.turn();
            shop.turn();
        }
        for site in [head, shop] {
            let told = status(&site.store, &mut |_| ()).unwrap();
            assert_eq!(told.remotes[0].stopped, None);
            assert_eq!(told.remotes[0].waits, None);
        }
        assert!(incomplete(&shop.store, None).unwrap().is_empty());
        assert_eq!(shop.payloads().last(), Some(&payload));
    }
    assert_eq!(shop.payloads().len(), 4);
    assert_nothing_doubled(shop);
}

#[test]
fn a_hole_that_was_asked_for_in_a_lineage_that_is_left_stops_nobody() {
    for times in [1, 2] {
        let net = Net::default();
        let (dir, head, shop) = in_small_messages(&net);
        head.commit(&[("s/1", "kept")]);
        head.turn();
        shop.turn();
        head.turn();
        let backup = dir.path().join("backup");
        head.store.backup(&backup, false, &mut |_, _| ()).unwrap();
        much_that_is_due_to_nobody(&head);
        let mut sending = head.send_phase();
        head.commit(&[("s/1", "lost on its way")]);
        head.scan();
        sending.round(Serve::Everybody).unwrap();
        net.steal("shop");
        head.commit(&[("s/1", "behind")]);
        head.scan();
        sending.round(Serve::Everybody).unwrap();
        drop(sending);
        // It asks, and its request waits on the link.
        shop.turn();
        assert!(
            status(&shop.store, &mut |_| ()).unwrap().remotes[0]
                .waits
                .is_some()
        );
        let head = restored(head, &backup, times);
        goes_on(&head, &shop);
    }
}

/// The pieces left their link, so the shop asks for the others by itself; the restored site knows of no such commit.
#[test]
fn pieces_of_a_transaction_that_its_site_lost_stop_nobody_and_go() {
    for times in [1, 2] {
        let net = Net::default();
        let (dir, head, shop) = in_small_messages(&net);
        head.commit(&[("s/1", "kept")]);
        head.turn();
        shop.turn();
        head.turn();
        let backup = dir.path().join("backup");
        head.store.backup(&backup, false, &mut |_, _| ()).unwrap();
        much_that_is_due_to_nobody(&head);
        let before = net.delivered();
        net.set_fate(move |number| usize::from(number != before + 2));
        head.commit(&[("s/1", &large(30_000))]);
        head.turn();
        shop.turn();
        assert_eq!(incomplete(&shop.store, None).unwrap().len(), 1);
        let head = restored(head, &backup, times);
        goes_on(&head, &shop);
    }
}

/// It is in both lineages, and each poll brings one more of its pieces: those that are here must not go.
#[test]
fn pieces_of_a_transaction_from_before_the_fork_stay_until_the_others_come() {
    for times in [1, 2] {
        let net = Net::default();
        let (dir, head, shop) = in_small_messages(&net);
        head.commit(&[("s/1", "kept")]);
        head.turn();
        shop.turn();
        head.turn();
        head.commit(&[("s/1", "first of the new lineage that comes")]);
        head.commit(&[("s/1", &large(30_000))]);
        let backup = dir.path().join("backup");
        head.store.backup(&backup, false, &mut |_, _| ()).unwrap();
        let head = restored(head, &backup, times);
        // What begins the new lineage, then of what is sent each time another message, in the end the first of what is missing.
        for arrives in [0..2, 1..2, 2..3, 3..4, 4..5, 5..6, 1..2, 1..2, 1..2, 1..2] {
            let before = net.delivered();
            net.set_fate(move |number| usize::from(arrives.contains(&(number - before))));
            head.turn();
            net.set_fate(|_| 1);
            for _ in 0..3 {
                shop.turn();
            }
        }
        assert_eq!(shop.payloads().len(), 3, "{times}");
        assert_eq!(status(&shop.store, &mut |_| ()).unwrap().remotes[0].waits, None);
        assert_nothing_doubled(&shop);
    }
}
