//! An event that may come over two ways, because a neighbour's neighbour is a neighbour too, is applied once,
//! whichever way is faster (R4).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use milepost_replication::catalog::Start;
use support::*;

/// The head publishes to the hub and to the shop, the hub passes on to the shop.
fn triangle(net: &Net) -> (tempfile::TempDir, [Site; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let sites = ["head", "hub", "shop"].map(|site| Site::new(dir.path(), site, net));
    let [head, hub, shop] = &sites;
    for (above, below) in [(head, "hub"), (head, "shop"), (hub, "shop")] {
        above.remote(below);
    }
    for (below, above) in [(hub, "head"), (shop, "head"), (shop, "hub")] {
        below.remote(above);
    }
    head.publish("all", "**", None);
    head.publish("news", "news/**", None);
    hub.publish("all", "**", None);
    head.subscribe("hub", "all", None, Start::Now);
    hub.subscribe("shop", "all", None, Start::Now);
    (dir, sites)
}

fn commit(head: &Site, payloads: [&str; 3]) {
    for payload in payloads {
        head.commit(&[("orders/1", payload)]);
    }
}

fn send(site: &Site) {
    site.scan();
    site.send();
}

fn exchange(sites: &[Site], rounds: usize) {
    for _ in 0..rounds {
        sites.iter().for_each(Site::turn);
    }
}

/// What a neighbour sent of its own was taken for new by its position alone, also when its hub had been faster.
#[test]
fn what_a_hub_brought_first_is_left_out_when_it_comes_from_its_origin_r4() {
    let net = Net::default();
    let (_dir, sites) = triangle(&net);
    let [head, hub, shop] = &sites;
    head.subscribe("shop", "all", None, Start::Now);
    commit(head, ["0", "1", "2"]);
    send(head);
    let direct = net.steal("shop");
    hub.receive();
    send(hub);
    shop.receive();
    assert_eq!(shop.payloads(), ["0", "1", "2"], "the trap: it came over the hub");
    direct.into_iter().for_each(|message| net.put("shop", message));
    exchange(&sites, 3);
    head.commit(&[("orders/1", "3")]);
    exchange(&sites, 3);
    assert_eq!(shop.payloads(), ["0", "1", "2", "3"]);
    assert_nothing_doubled(shop);
}

/// Both ways in one poll: what became frames for the one was not in the log yet when the other was looked at.
#[test]
fn what_comes_over_both_ways_in_one_poll_is_applied_once_r4() {
    let (_dir, sites) = triangle(&Net::default());
    let [head, hub, shop] = &sites;
    head.subscribe("shop", "all", None, Start::Now);
    for _ in 0..3 {
        commit(head, ["0", "1", "2"]);
        send(head);
        hub.receive();
        send(hub);
        assert_eq!(shop.receive().transactions, 3);
        assert_nothing_doubled(shop);
    }
    exchange(&sites, 3);
    assert_eq!(shop.received().len(), 9);
    assert_nothing_doubled(shop);
}

/// The first transaction that a hub passed on was taken for the newest of its origin, which had sent later ones
/// itself: those came again.
#[test]
fn what_came_from_its_origin_is_left_out_when_a_hub_brings_it_behind_something_older_r4() {
    for in_one_poll in [false, true] {
        let (_dir, sites) = triangle(&Net::default());
        let [head, hub, shop] = &sites;
        head.subscribe("shop", "news", None, Start::Now);
        head.commit(&[("orders/1", "over the hub alone")]);
        head.commit(&[("news/1", "over both")]);
        send(head);
        if !in_one_poll {
            shop.receive();
            assert_eq!(shop.payloads(), ["over both"], "the trap");
        }
        hub.receive();
        send(hub);
        exchange(&sites, 3);
        head.commit(&[("news/1", "over both, later")]);
        exchange(&sites, 3);
        let mut payloads = shop.payloads();
        payloads.sort();
        assert_eq!(
            payloads,
            ["over both", "over both, later", "over the hub alone"],
            "in one poll: {in_one_poll}"
        );
        assert_nothing_doubled(shop);
    }
}
