//! A site whose store is made anew from a backup, with peers that hold less than the backup, as much, or more:
//! only a pair that went past the fork is stopped, at the first exchange; every other goes on (R5).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::RepairHow;
use milepost_replication::catalog::Start;
use support::restoring::{order, pair};
use support::*;

#[test]
fn a_pair_that_had_nothing_from_behind_the_fork_goes_on_both_ways() {
    let pair = pair();
    order(&pair.shop, "s1");
    order(&pair.head, "h1");
    pair.exchange(3);
    pair.back_up(&pair.shop);
    // Committed after the backup and heard by nobody: lost with the directory, and nobody can miss it.
    order(&pair.shop, "lost");
    let pair = pair.restore_shop();
    for number in 2..6 {
        order(&pair.shop, &format!("s{number}"));
        order(&pair.head, &format!("h{number}"));
        pair.exchange(2);
    }
    pair.exchange(3);
    assert!(!pair.stopped());
    assert_eq!(pair.head.payloads(), ["s1", "s2", "s3", "s4", "s5"]);
    assert_eq!(pair.shop.payloads(), ["h1", "h2", "h3", "h4", "h5"]);
    assert_nothing_doubled(&pair.head);
    assert_nothing_doubled(&pair.shop);
}

#[test]
fn what_the_restored_site_had_received_since_the_backup_comes_again() {
    let pair = pair();
    order(&pair.head, "h1");
    pair.exchange(3);
    pair.back_up(&pair.shop);
    // Only the head commits, and the shop confirms without a commit of its own that is due.
    ["h2", "h3"]
        .into_iter()
        .for_each(|payload| order(&pair.head, payload));
    pair.exchange(3);
    assert_eq!(pair.shop.payloads(), ["h1", "h2", "h3"]);
    let pair = pair.restore_shop();
    assert_eq!(pair.shop.payloads(), ["h1"], "the trap: the backup is older");
    order(&pair.shop, "s1");
    order(&pair.head, "h4");
    pair.exchange(6);
    assert!(!pair.stopped());
    assert_eq!(pair.shop.payloads(), ["h1", "h2", "h3", "h4"]);
    assert_eq!(pair.head.payloads(), ["s1"]);
}

/// By LSNs alone the restored shop's new orders would look like what the head already has, or like what follows.
#[test]
fn a_pair_past_the_fork_is_stopped_at_the_first_exchange_and_nothing_is_applied() {
    for after in [1, 2, 5, 20] {
        let pair = pair();
        order(&pair.shop, "s1");
        pair.exchange(3);
        pair.back_up(&pair.shop);
        ["s2", "s3"]
            .into_iter()
            .for_each(|payload| order(&pair.shop, payload));
        pair.exchange(3);
        let held = pair.head.payloads();
        assert_eq!(held, ["s1", "s2", "s3"]);
        let pair = pair.restore_shop();
        (0..after).for_each(|number| order(&pair.shop, &format!("other {number}")));
        pair.shop.turn();
        pair.head.turn();
        assert!(pair.stopped(), "{after} commits after the restore");
        pair.exchange(4);
        assert_eq!(pair.head.payloads(), held, "{after} commits after the restore");
    }
}

/// The way on that the messages name: the remote is removed and added again, at one of the two sites.
#[test]
fn a_stopped_pair_that_is_made_anew_goes_on_and_doubles_nothing() {
    let pair = pair();
    order(&pair.shop, "s1");
    pair.exchange(3);
    pair.back_up(&pair.shop);
    order(&pair.shop, "s2");
    pair.exchange(3);
    let pair = pair.restore_shop();
    order(&pair.shop, "s3");
    pair.exchange(2);
    assert!(pair.stopped());
    let sites = [(&pair.head, "shop"), (&pair.shop, "head")];
    for ((site, other), subscription) in sites.into_iter().zip(&pair.subscriptions) {
        site.unsubscribe(subscription, false);
        site.definitions().remove_remote(&name(other)).unwrap();
        site.remote(other);
        site.subscribe(other, "all", None, Start::Beginning);
    }
    pair.exchange(6);
    assert!(!pair.stopped());
    assert_eq!(pair.head.payloads(), ["s1", "s2", "s3"]);
    assert_nothing_doubled(&pair.head);
}

/// A cut is a fork as a restore is one: the head holds what the shop lost.
#[test]
fn a_pair_past_a_cut_is_stopped_and_one_before_it_goes_on() {
    for heard in [false, true] {
        let pair = pair();
        order(&pair.shop, "order one");
        pair.exchange(3);
        order(&pair.shop, "order two");
        if heard {
            pair.exchange(3);
        }
        let pair = pair.repair_shop("order two", RepairHow::Cut);
        order(&pair.shop, "order three");
        pair.exchange(4);
        assert_eq!(pair.stopped(), heard);
        let last = if heard { "order two" } else { "order three" };
        assert_eq!(pair.head.payloads(), ["order one", last]);
    }
}

/// Around isolated damage positions are what they were: no pair is stopped, nothing is doubled, and only what
/// nobody had heard of before is missing.
#[test]
fn isolated_damage_stops_no_pair_and_costs_the_remote_what_it_had_not_heard() {
    let orders = ["order one", "order two", "order three", "order four"];
    for heard in 1..=3 {
        let pair = pair();
        for (number, payload) in orders.iter().take(3).enumerate() {
            order(&pair.shop, payload);
            if number < heard {
                pair.exchange(3);
            }
        }
        assert_eq!(pair.head.payloads().len(), heard);
        let pair = pair.repair_shop("order two", RepairHow::Isolate);
        order(&pair.shop, "order four");
        pair.exchange(6);
        assert!(!pair.stopped(), "{heard} heard");
        let expected: Vec<_> = orders
            .into_iter()
            .filter(|one| heard > 1 || *one != "order two")
            .collect();
        assert_eq!(pair.head.payloads(), expected, "{heard} heard");
    }
}
