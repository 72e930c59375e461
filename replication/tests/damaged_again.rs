//! What comes next of a neighbour comes damaged over and over: from the third time on a copy is kept and an operator told, in
//! batch runs too, nothing is counted as applied, and all of it is forgotten once the stream goes on (R1, R3, R6).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::ptr_arg
)]

mod support;

use milepost_replication::agent::{ExitCode, Stop, retry_set_aside};
use milepost_replication::catalog::Start;
use milepost_replication::keys::Keys;
use milepost_replication::message::{Limits, decode_header};
use milepost_replication::receive::{DamagedRecord, quarantined};
use milepost_replication::status::{RemoteStatus, status};
use milepost_replication::tracking::PairState;
use support::*;

fn one_way(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    head.publish("all", "**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    (dir, head, shop)
}

/// True for a message that carries something.
fn has_data(message: &[u8]) -> bool {
    let header = decode_header(message, &Limits::default()).unwrap();
    header.previous != header.last
}

/// Its last byte: the head can be read, and all of it not.
fn in_the_body(message: &mut Vec<u8>) {
    *message.last_mut().unwrap() ^= 1;
}

/// As a transfer that stops in the middle leaves it: not even its length is right.
fn cut_short(message: &mut Vec<u8>) {
    message.truncate(message.len() / 2);
}

/// One run of both agents a day, over a link that damages what carries something; how many it damaged.
fn day(head: &Site, shop: &Site, damage: impl Fn(&mut Vec<u8>)) -> usize {
    assert_ne!(
        run_here(head, &batch(true, true, true), &Stop::new()).code,
        ExitCode::Failed
    );
    let mut damaged = 0;
    for mut message in head.net.steal("shop") {
        if has_data(&message) {
            damage(&mut message);
            damaged += 1;
        }
        head.net.put("shop", message);
    }
    shop.turn();
    damaged
}

fn seen(shop: &Site) -> RemoteStatus {
    status(&shop.store, &mut |_| ()).unwrap().remotes.remove(0)
}

/// Days until so many messages were damaged.
fn until_damaged(head: &Site, shop: &Site, times: usize, damage: fn(&mut Vec<u8>)) {
    let mut damaged = 0;
    for _ in 0..40 {
        damaged += day(head, shop, damage);
        if damaged >= times {
            return;
        }
    }
    panic!("only {damaged} of {times} came in forty days");
}

fn kept_at_the_third(damage: fn(&mut Vec<u8>)) {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    head.commit(&[("s/1", "first")]);
    until_damaged(&head, &shop, 2, damage);
    assert!(
        quarantined(&shop.store).unwrap().is_empty(),
        "twice may happen to any"
    );
    assert!(seen(&shop).damaged.is_none());
    assert_eq!(
        run_here(&shop, &batch(true, true, true), &Stop::new()).code,
        ExitCode::Done
    );

    until_damaged(&head, &shop, 1, damage);
    let kept = quarantined(&shop.store).unwrap();
    assert_eq!(kept.len(), 1);
    assert!(
        kept[0].damaged && kept[0].sender == "head" && kept[0].reason.contains("3 times"),
        "{kept:?}"
    );
    assert_eq!(seen(&shop).damaged.unwrap().times, 3);
    assert_eq!(
        (shop.payloads().len(), net.waiting("shop")),
        (0, 0),
        "it is kept, not applied, and leaves its link"
    );
    let exit = run_here(&shop, &batch(true, true, true), &Stop::new());
    assert_eq!(exit.code, ExitCode::Quarantined, "{exit:?}");
    let retried = retry_set_aside(&shop.store, None, &[kept[0].file.clone()].into()).unwrap();
    assert_eq!((retried.refused.len(), retried.taken.len()), (1, 0));
    assert_eq!(
        quarantined(&shop.store).unwrap().len(),
        1,
        "a retry loses no copy"
    );

    // More comes damaged than may be kept, with other heads each time.
    for number in 0..12 {
        head.commit(&[("s/1", &format!("{number}"))]);
        until_damaged(&head, &shop, 1, damage);
    }
    assert!(quarantined(&shop.store).unwrap().len() <= 4);
    assert!(seen(&shop).damaged.unwrap().times > 3);
    let reported = status(&head.store, &mut |_| ())
        .unwrap()
        .remotes
        .remove(0)
        .reported;
    assert!(
        reported.is_some_and(|reported| reported.refused > 0),
        "its sender is told"
    );

    goes_on(&head, &shop);
}

/// The link works again: all arrives, and nothing is kept or told any more.
fn goes_on(head: &Site, shop: &Site) {
    for _ in 0..6 {
        day(head, shop, |_| ());
    }
    assert_eq!(shop.payloads().len(), 13);
    assert_eq!(quarantined(&shop.store).unwrap(), []);
    assert!(seen(shop).damaged.is_none());
    let exit = run_here(shop, &batch(true, true, true), &Stop::new());
    assert_eq!(exit.code, ExitCode::Done, "{exit:?}");
    assert_nothing_doubled(shop);
}

#[test]
fn a_message_damaged_three_times_is_kept_and_forgotten_once_the_stream_goes_on_r1_r6() {
    kept_at_the_third(in_the_body);
}

#[test]
fn a_message_cut_short_three_times_is_kept_though_nobody_can_read_whose_it_is_r6() {
    kept_at_the_third(cut_short);
}

/// The trap: one burst of damaged messages looks like a message that came damaged again and again.
#[test]
fn a_burst_of_damaged_messages_is_no_message_that_was_damaged_three_times() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    for damage in [in_the_body, cut_short] {
        let mut sending = head.send_phase();
        for number in 0..5 {
            head.commit(&[("s/1", &format!("{number}"))]);
            head.scan();
            sending
                .round(milepost_replication::send::Serve::Everybody)
                .unwrap();
        }
        let mut receiving = shop.receive_phase();
        for mut message in net.steal("shop") {
            damage(&mut message);
            net.put("shop", message);
            receiving
                .poll(milepost_replication::tracking::PollCause::Push)
                .unwrap();
        }
        drop((sending, receiving));
        assert_eq!(quarantined(&shop.store).unwrap(), []);
        for _ in 0..4 {
            day(&head, &shop, |_| ());
        }
    }
    assert_eq!(shop.payloads().len(), 10);
}

#[test]
fn what_somebody_else_puts_there_fills_neither_disk_nor_the_place_of_what_is_refused() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    head.commit(&[("s/1", "first")]);
    until_damaged(&head, &shop, 3, in_the_body);
    let before = shop.store.watermarks().durable;
    let mut receiving = shop.receive_phase();
    for number in 0..2_000_u64 {
        net.put("shop", number.to_le_bytes().repeat(1 << 12));
        if number % 100 == 0 {
            receiving
                .poll(milepost_replication::tracking::PollCause::Push)
                .unwrap();
        }
    }
    drop(receiving);
    shop.receive();
    assert_eq!(net.waiting("shop"), 0);
    let kept = quarantined(&shop.store).unwrap();
    assert!(kept.len() <= 4, "{} are kept", kept.len());
    let grown = shop.store.watermarks().durable.0 - before.0;
    assert!(grown < 64 << 10, "the log grew by {grown} bytes");
}

#[test]
fn what_was_sealed_by_somebody_else_three_times_is_kept_too_and_goes_with_the_remote_r6() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    head.commit(&[("s/1", "first")]);
    head.scan();
    head.send();
    let unsealed = net.steal("shop").remove(0);
    // The shop has the key: who has none may say what he likes, as often as he likes.
    let line = Keys::new(&shop.store).add_fresh(&name("head")).unwrap();
    for times in 1..=3 {
        assert_eq!(quarantined(&shop.store).unwrap(), [], "before the time {times}");
        net.put("shop", unsealed.clone());
        shop.receive();
    }
    let kept = quarantined(&shop.store).unwrap();
    assert!(kept.len() == 1 && kept[0].damaged, "{kept:?}");
    Keys::new(&head.store).add(&name("shop"), &line, false).unwrap();
    for _ in 0..6 {
        day(&head, &shop, |_| ());
    }
    assert_eq!(shop.payloads(), ["first"]);
    assert_eq!(quarantined(&shop.store).unwrap(), []);

    head.commit(&[("s/1", "second")]);
    until_damaged(&head, &shop, 3, in_the_body);
    assert_eq!(quarantined(&shop.store).unwrap().len(), 1);
    shop.definitions().remove_remote(&name("head")).unwrap();
    assert_eq!(quarantined(&shop.store).unwrap(), []);
    assert!(
        shop.store
            .pinned(&DamagedRecord::key(&name("head")))
            .unwrap()
            .is_none()
    );
}
