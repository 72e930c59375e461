//! A pair, or a subscription, that an operator takes away and makes again brings no event twice and loses none
//! that it asks for (R1, R4), whatever the two sites knew of each other before.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use milepost_replication::catalog::Start;
use milepost_replication::send::Serve;
use support::*;

fn pair(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    head.publish("all", "orders/**", None);
    head.publish("some", "orders/a/**", None);
    head.remote("shop");
    shop.remote("head");
    (dir, head, shop)
}

fn exchange(sites: &[&Site], rounds: usize) {
    for _ in 0..rounds {
        sites.iter().for_each(|site| site.turn());
    }
}

fn commit(head: &Site, numbers: std::ops::Range<u32>) {
    for number in numbers {
        head.commit(&[("orders/a/1", &number.to_string())]);
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The documented way out of a stopped pair: it brought the whole history a second time.
#[test]
fn a_remote_removed_and_added_at_both_sites_brings_the_history_once_r4() {
    let (_dir, head, shop) = pair(&Net::default());
    let first = head.subscribe("shop", "all", None, Start::Now);
    commit(&head, 0..5);
    exchange(&[&head, &shop], 2);
    assert_eq!(shop.payloads(), numbers(0..5));
    head.receive();
    head.unsubscribe(&first, false);
    head.definitions().remove_remote(&name("shop")).unwrap();
    shop.definitions().remove_remote(&name("head")).unwrap();
    commit(&head, 5..7);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Beginning);
    commit(&head, 7..9);
    exchange(&[&head, &shop], 3);
    assert_eq!(shop.payloads(), numbers(0..9));
    assert_nothing_doubled(&shop);
}

/// The pair's former messages and the new ones wait side by side: what the former brought was not in the log yet
/// when the pair began anew, and the new history, taken for all that ever came, brought it again.
#[test]
fn a_pair_made_anew_while_its_messages_wait_brings_the_history_once_r4() {
    let (_dir, head, shop) = pair(&Net::default());
    let first = head.subscribe("shop", "all", None, Start::Now);
    commit(&head, 0..3);
    head.scan();
    head.send();
    head.unsubscribe(&first, false);
    head.definitions().remove_remote(&name("shop")).unwrap();
    head.remote("shop");
    head.subscribe("shop", "all", None, Start::Beginning);
    commit(&head, 3..5);
    head.scan();
    head.send();
    assert_eq!(shop.net.waiting("shop"), 2, "the trap: both in one poll");
    shop.receive();
    assert_eq!(shop.payloads(), numbers(0..5));
    exchange(&[&head, &shop], 3);
    assert_eq!(shop.payloads(), numbers(0..5));
    assert_nothing_doubled(&shop);
}

/// Only one operator acts. The subscriber never speaks by itself, so its publisher went on in the former
/// generation for ever, and everything it sent was dropped.
#[test]
fn a_remote_removed_and_added_at_one_site_alone_goes_on_r1() {
    for at_subscriber in [true, false] {
        let (_dir, head, shop) = pair(&Net::default());
        let first = head.subscribe("shop", "all", None, Start::Now);
        commit(&head, 0..5);
        exchange(&[&head, &shop], 2);
        head.receive();
        if at_subscriber {
            for _ in 0..2 {
                shop.definitions().remove_remote(&name("head")).unwrap();
                shop.remote("head");
            }
        } else {
            head.unsubscribe(&first, false);
            head.definitions().remove_remote(&name("shop")).unwrap();
            head.remote("shop");
            head.subscribe("shop", "all", None, Start::Beginning);
        }
        commit(&head, 5..9);
        exchange(&[&head, &shop], 5);
        assert_eq!(
            shop.payloads(),
            numbers(0..9),
            "made anew at the subscriber: {at_subscriber}"
        );
        assert_nothing_doubled(&shop);
    }
}

/// What a revoked subscription would have covered was taken for sent: the next one brought nothing of the past.
#[test]
fn a_subscription_revoked_and_made_again_brings_what_the_first_did_not_and_nothing_twice_r4() {
    for sent_before in [false, true] {
        let (_dir, head, shop) = pair(&Net::default());
        commit(&head, 0..3);
        let first = head.subscribe("shop", "all", None, Start::Beginning);
        commit(&head, 3..5);
        if sent_before {
            exchange(&[&head, &shop], 1);
            assert_eq!(shop.payloads(), numbers(0..5));
        }
        head.unsubscribe(&first, true);
        commit(&head, 5..6);
        head.subscribe("shop", "all", None, Start::Beginning);
        commit(&head, 6..8);
        exchange(&[&head, &shop], 4);
        assert_eq!(shop.payloads(), numbers(0..8), "sent before: {sent_before}");
        assert_nothing_doubled(&shop);
    }
}

/// A second subscription asks for the events of transactions of which the first brought a part.
#[test]
fn a_wider_subscription_brings_the_missing_events_of_a_transaction_alone_r4() {
    let (_dir, head, shop) = pair(&Net::default());
    let first = head.subscribe("shop", "some", None, Start::Now);
    head.commit(&[
        ("orders/a/1", "due"),
        ("orders/b/1", "not due"),
        ("orders/a/2", "due"),
    ]);
    exchange(&[&head, &shop], 2);
    assert_eq!(shop.payloads(), ["due", "due"]);
    head.unsubscribe(&first, true);
    head.subscribe("shop", "all", None, Start::Beginning);
    exchange(&[&head, &shop], 3);
    assert_eq!(shop.payloads(), ["due", "due", "not due"]);
    assert_nothing_doubled(&shop);
}

/// A middle site was put back to an older copy: it gets again from above what it has no more, and passes it
/// on under new positions to a site that has it. The pair below was stopped, rightly; made anew, it brought
/// everything a second time.
#[test]
fn what_a_restored_hub_passes_on_again_is_dropped_r4() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let sites = ["head", "hub", "shop"].map(|site| Site::new(dir.path(), site, &net));
    let [head, mut hub, shop] = sites;
    for (above, below) in [(&head, "hub"), (&hub, "shop")] {
        above.publish("all", "orders/**", None);
        above.remote(below);
        above.subscribe(below, "all", None, Start::Now);
    }
    hub.remote("head");
    shop.remote("hub");
    commit(&head, 0..3);
    exchange(&[&head, &hub, &shop], 4);
    let copy_at = dir.path().join("copy");
    hub = closed(hub, |root| copy(root, &copy_at));
    commit(&head, 3..6);
    exchange(&[&head, &hub, &shop], 4);
    assert_eq!(shop.payloads(), numbers(0..6));
    hub = put_back(hub, &copy_at);
    commit(&head, 6..7);
    exchange(&[&head, &hub, &shop], 4);
    assert_eq!(hub.payloads(), numbers(0..7), "it is sent again what it lost");
    assert_eq!(shop.payloads(), numbers(0..6), "and the pair below is stopped");
    let catalog = hub.definitions().catalog().unwrap();
    let subscription = catalog.subscriptions().next().unwrap().clone();
    hub.unsubscribe(&subscription, false);
    hub.definitions().remove_remote(&name("shop")).unwrap();
    shop.definitions().remove_remote(&name("hub")).unwrap();
    hub.remote("shop");
    shop.remote("hub");
    hub.subscribe("shop", "all", None, Start::Beginning);
    commit(&head, 7..8);
    exchange(&[&head, &hub, &shop], 5);
    assert_eq!(shop.payloads(), numbers(0..8));
    assert_nothing_doubled(&shop);
}

/// What two subscriptions want has its place under the first. When that was revoked, the place moved into the history
/// of the second, while a message on its way still said that nothing lies there.
#[test]
fn what_a_revoked_subscription_shared_with_a_later_history_still_comes_r1() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    let first = head.subscribe("shop", "some", None, Start::Now);
    head.commit(&[("orders/a/1", "under both")]);
    head.commit(&[("orders/b/1", "under the second")]);
    head.scan();
    let mut sending = head.send_phase();
    sending.round(Serve::Everybody).unwrap();
    assert_eq!(net.steal("shop").len(), 1, "the first is lost");
    head.subscribe("shop", "all", None, Start::Beginning);
    head.scan();
    sending.round(Serve::Everybody).unwrap();
    head.unsubscribe(&first, true);
    for _ in 0..4 {
        shop.turn();
        head.receive();
        head.scan();
        sending.round(Serve::Everybody).unwrap();
    }
    let mut payloads = shop.payloads();
    payloads.sort();
    assert_eq!(payloads, ["under both", "under the second"]);
}

/// A place lives on through one subscription after another, as long as there is one at every moment.
#[test]
fn what_was_wanted_at_every_moment_comes_though_each_first_subscription_was_revoked_r1() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.publish("more", "orders/a/*", None);
    let first = head.subscribe("shop", "some", None, Start::Now);
    head.commit(&[("orders/a/1", "wanted at every moment")]);
    let second = head.subscribe("shop", "all", None, Start::Beginning);
    head.unsubscribe(&first, true);
    head.subscribe("shop", "more", None, Start::Beginning);
    head.unsubscribe(&second, true);
    for _ in 0..3 {
        head.turn();
        shop.turn();
    }
    assert_eq!(shop.payloads(), ["wanted at every moment"]);
}

/// An event that one subscription gives as ever, and a revoked one's heir wants too, is one event.
#[test]
fn what_is_due_for_sure_and_through_an_heir_is_sent_once_r1() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.publish("more", "orders/a/*", None);
    let first = head.subscribe("shop", "some", None, Start::Now);
    head.subscribe("shop", "more", None, Start::Now);
    head.commit(&[("orders/a/1", "once")]);
    head.subscribe("shop", "all", None, Start::Beginning);
    head.unsubscribe(&first, true);
    for _ in 0..2 {
        head.turn();
        shop.turn();
    }
    assert_eq!(shop.payloads(), ["once"]);
}

/// What was revoked, and a later history might have wanted and does not, holds no queue.
#[test]
fn what_nobody_wants_any_more_is_freed_q2() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    head.publish("other", "else/**", None);
    let first = head.subscribe("shop", "some", None, Start::Now);
    let payload = "y".repeat(100_000);
    for _ in 0..40 {
        head.commit(&[("orders/a/1", &payload)]);
    }
    head.subscribe("shop", "other", None, Start::Beginning);
    head.unsubscribe(&first, true);
    head.scan();
    assert!(head.store.queue_bytes().unwrap() > 3_000_000);
    exchange(&[&head, &shop], 3);
    assert!(shop.payloads().is_empty());
    let left = head.store.queue_bytes().unwrap();
    assert!(left < 2 << 20, "{left} bytes are kept for nobody");
}
