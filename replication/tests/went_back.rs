//! A site that was put back to an older copy of itself gets again what it has no more, from the log where
//! the queue has let it go (R5, Q2).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use milepost_engine::Lsn;
use milepost_replication::catalog::Start;
use milepost_replication::status::status;
use support::*;

fn filler(number: u32) -> String {
    format!("{number:03}{}", "x".repeat(60_000))
}

fn numbers(site: &Site) -> Vec<u32> {
    let payloads = site.payloads();
    payloads.iter().map(|one| one[..3].parse().unwrap()).collect()
}

/// The sender's positions went back, it looked for what lies behind them in the queue, found only what had
/// not been confirmed before, and said that this was all: everything in between was lost without a word.
#[test]
fn what_was_confirmed_and_freed_is_sent_again_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let (head, mut shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    head.publish("all", "orders/**", None);
    head.publish("none", "nothing/**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    let commit = |from: u32, to: u32| {
        for number in from..to {
            head.commit(&[("orders/1", &filler(number)), ("prices/1", "not due")]);
            head.commit(&[("prices/1", "not due")]);
        }
    };
    let exchange = |shop: &Site, rounds: usize| {
        for _ in 0..rounds {
            head.turn();
            shop.turn();
        }
        head.receive();
    };
    commit(0, 5);
    exchange(&shop, 2);
    let copy_at = dir.path().join("copy");
    shop = closed(shop, |root| copy(root, &copy_at));
    commit(5, 50);
    exchange(&shop, 2);
    assert_eq!(numbers(&shop), (0..50).collect::<Vec<_>>());
    let freed = |site: &Site| !site.root.join("queue/0000000000000000.mpq").exists();
    head.turn();
    assert!(freed(&head), "the trap: the queue has let them go");
    shop = put_back(shop, &copy_at);
    commit(50, 52);
    for _ in 0..4 {
        exchange(&shop, 1);
    }
    assert_eq!(numbers(&shop), (0..52).collect::<Vec<_>>());
    assert_nothing_doubled(&shop);
    assert_eq!(
        status(&head.store, &mut |_| ()).unwrap().remotes[0].lag_transactions,
        0
    );
}

/// While a remote that went back is behind, `status` says how far.
#[test]
fn what_a_remote_lost_counts_as_lag_once_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let (head, mut shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    head.publish("all", "orders/**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    let copy_at = dir.path().join("copy");
    head.commit(&[("orders/1", &filler(0))]);
    head.turn();
    shop.turn();
    shop = closed(shop, |root| copy(root, &copy_at));
    (1..40).for_each(|number| assert!(head.commit(&[("orders/1", &filler(number))]) > Lsn::ZERO));
    for _ in 0..3 {
        head.turn();
        shop.turn();
    }
    head.turn();
    shop = put_back(shop, &copy_at);
    let lag = || status(&head.store, &mut |_| ()).unwrap().remotes[0].lag_transactions;
    let mut seen = 0;
    for _ in 0..4 {
        // A copy tells what it holds; the head probes, and knows it by the answer.
        shop.commit(&[("news/1", "it is open again")]);
        head.commit(&[("orders/1", &filler(99))]);
        head.turn();
        shop.turn();
        head.receive();
        seen = seen.max(lag());
    }
    assert!(seen >= 39, "lag was {seen} at most");
}
