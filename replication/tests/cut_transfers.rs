//! A transaction in many messages over a link that fails again and again: what went out goes out once.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use milepost_engine::Options;
use milepost_replication::send::{SendPhase, Serve};
use milepost_replication::tracking::{PairState, ServingRecord, TransferRecord};
use support::*;

/// A link that takes so many messages and then fails once.
fn failing_after(each: u64) -> Net {
    Net::with_fate(move |number| if number % each == 0 { CUT } else { 1 })
}

fn record(site: &Site) -> Option<TransferRecord> {
    let pinned = site.store.pinned(&TransferRecord::key(&name("shop"))).unwrap();
    pinned.map(|(value, _)| TransferRecord::read(&value).unwrap())
}

/// How many messages it takes over a link that works.
fn messages_of(text: &str) -> u64 {
    let net = Net::default();
    let (_dir, head, _shop) = in_small_messages(&net);
    head.commit(&[("s/1", text)]);
    head.turn();
    net.delivered()
}

#[test]
fn a_process_that_stays_goes_on_where_the_link_failed() {
    let text = large(800_000);
    let (net, whole) = (failing_after(10), messages_of(&text));
    let (_dir, head, shop) = in_small_messages(&net);
    head.commit(&[("s/1", &text)]);
    head.scan();
    let (mut phase, mut taken, mut failures) = (head.send_phase(), 0, 0);
    while taken < whole {
        let sent = phase.round(Serve::Everybody).unwrap();
        (taken, failures) = (taken + sent.messages, failures + sent.failed_links.len());
        assert!(
            failures < 20,
            "{taken} of {whole} messages after {failures} failures"
        );
    }
    assert_eq!((taken, failures), (whole, (whole / 9) as usize));
    shop.receive();
    assert!(shop.payloads() == [text], "not all of it is there");
    assert_nothing_doubled(&shop);
}

/// As of batch runs, one an hour, each of which the link lets down.
#[test]
fn a_process_that_ends_says_where_the_next_one_goes_on_and_nothing_once_it_is_done() {
    let text = large(400_000);
    let (net, whole) = (failing_after(10), messages_of(&text));
    let (_dir, head, shop) = in_small_messages(&net);
    head.commit(&[("s/1", &text)]);
    head.scan();
    let (mut taken, mut runs) = (0, 0);
    while taken < whole {
        let mut phase = head.send_phase();
        taken += phase.round(Serve::Everybody).unwrap().messages;
        phase.remember().unwrap();
        head.store.sync().unwrap();
        let begun = record(&head).map(|record| record.went);
        let half_way = begun.is_some_and(|begun| begun.bytes > 0 && begun.bytes < begun.total);
        assert_eq!(half_way, taken < whole, "{begun:?}");
        runs += 1;
        assert!(runs < 20, "{taken} of {whole} messages");
    }
    assert_eq!(taken, whole);
    shop.receive();
    assert!(shop.payloads() == [text], "not all of it is there");
}

#[test]
fn a_killed_process_costs_what_went_out_since_it_was_noted_last() {
    let net = Net::with_fate(|number| if number == 30 { CUT } else { 1 });
    let dir = tempfile::tempdir().unwrap();
    let large_segments = Options::new().segment_bytes(64 << 20);
    let (mut head, mut shop) = (
        Site::with(large_segments.clone(), dir.path(), "head", &net),
        Site::with(large_segments, dir.path(), "shop", &net),
    );
    (head.message_bytes, shop.message_bytes) = (1 << 20, 1 << 20);
    subscribed(&head, &shop);
    let text = large(40 << 20);
    head.commit(&[("s/1", &text)]);
    head.scan();
    let first = head.send().messages;
    head.store.sync().unwrap();
    let noted = record(&head).map(|one| one.went.bytes >> 20);
    assert_eq!((first, noted), (29, Some(16)));
    let then = head.send().messages;
    assert!((24..=25).contains(&then), "{then} messages");
    while shop.receive().moved {}
    assert!(shop.payloads() == [text], "not all of it is there");
}

/// It was asked for while the rest was on its way, and once that was out, all of it went again.
#[test]
fn what_is_asked_for_while_it_is_under_way_does_not_go_twice() {
    let text = large(400_000);
    let (net, whole) = (failing_after(10), messages_of(&text));
    let (_dir, head, shop) = in_small_messages(&net);
    head.commit(&[("s/1", &text)]);
    head.scan();
    let mut phase = head.send_phase();
    let mut taken = phase.round(Serve::Everybody).unwrap().messages;
    shop.receive();
    assert_eq!(shop.send().messages, 1, "it asks");
    head.receive();
    for _ in 0..20 {
        taken += phase.round(Serve::Everybody).unwrap().messages;
    }
    assert_eq!(taken, whole);
    shop.receive();
    assert!(shop.payloads() == [text], "not all of it is there");
}

/// No run brings as much as was lost: each began with what was there already, and none got further.
#[test]
fn what_is_asked_for_goes_on_behind_what_is_there_and_arrives_over_a_link_that_never_lasts() {
    let text = large(400_000);
    let net = failing_after(10);
    let (_dir, head, shop) = in_small_messages(&net);
    head.commit(&[("s/1", &text)]);
    head.scan();
    let mut phase = head.send_phase();
    for _ in 0..3 {
        phase.round(Serve::Everybody).unwrap();
        assert_eq!(net.steal("shop").len(), 9);
    }
    for _ in 0..4 {
        phase.round(Serve::Everybody).unwrap();
    }
    phase.remember().unwrap();
    drop(phase);
    for _ in 0..12 {
        shop.turn();
        head.turn();
    }
    assert!(shop.payloads() == [text], "not all of it is there");
    assert_nothing_doubled(&shop);
}

/// What was sent to the shop is lost, and it has asked for it.
fn asked_for(net: &Net, payloads: &[String]) -> (tempfile::TempDir, Site, Site, SendPhase) {
    let (dir, head, shop) = in_small_messages(net);
    for payload in payloads {
        head.commit(&[("s/1", payload)]);
    }
    head.scan();
    let mut phase = head.send_phase();
    phase.round(Serve::Everybody).unwrap();
    net.steal("shop");
    head.commit(&[("s/2", "behind it")]);
    head.scan();
    phase.round(Serve::Everybody).unwrap();
    shop.receive();
    assert_eq!(shop.send().messages, 1, "it asks");
    head.receive();
    net.set_fate(|number| if number % 10 == 0 { CUT } else { 1 });
    (dir, head, shop, phase)
}

/// Each time it began with what was asked for, and came no further than the link lasts.
#[test]
fn what_is_asked_for_goes_on_where_the_link_failed_though_nobody_asks_again() {
    let many: Vec<String> = (0..100).map(|number| large(3_000 + number)).collect();
    for payloads in [vec![large(400_000)], many] {
        let net = Net::default();
        let (_dir, head, shop, mut phase) = asked_for(&net, &payloads);
        let (mut taken, mut rounds) = (0, 0);
        while shop.payloads().len() <= payloads.len() {
            taken += phase.round(Serve::Everybody).unwrap().messages;
            shop.receive();
            rounds += 1;
            assert!(rounds < 20, "{taken} messages in {rounds} rounds");
        }
        assert!(taken < 60 && rounds > 3, "{taken} messages in {rounds} rounds");
        assert_nothing_doubled(&shop);
        drop((head, phase));
    }
}

#[test]
fn the_next_process_goes_on_with_what_is_asked_for_and_serves_nothing_twice() {
    let payloads = [large(400_000)];
    let net = Net::default();
    let (_dir, head, shop, mut phase) = asked_for(&net, &payloads);
    phase.remember().unwrap();
    head.store.sync().unwrap();
    drop(phase);
    let run = || {
        let mut phase = head.send_phase();
        let messages = phase.round(Serve::Everybody).unwrap().messages;
        phase.remember().unwrap();
        head.store.sync().unwrap();
        messages
    };
    let (mut taken, mut runs) = (0, 0);
    while shop.payloads().len() < 2 {
        taken += run();
        shop.receive();
        runs += 1;
        assert!(runs < 20, "{taken} messages in {runs} runs");
    }
    assert!(taken < 60 && runs > 3, "{taken} messages in {runs} runs");
    assert_eq!(run(), 0, "what was asked for went");
    let bytes = head.store.pinned(&ServingRecord::key(&name("shop"))).unwrap();
    let record = ServingRecord::read(&bytes.unwrap().0).unwrap();
    assert!(record.served > 0 && record.number == 0, "{record:?}");
}
