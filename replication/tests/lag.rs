//! What `status` says a remote still lacks is what will be sent to it, wherever that stands: unscanned,
//! queued, or history.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use milepost_replication::catalog::{Start, SubscribeBy};
use milepost_replication::status::status;
use support::*;

fn lag(site: &Site) -> (u64, bool) {
    let remotes = status(&site.store, &mut |_| ()).unwrap().remotes;
    let remote = remotes.iter().find(|remote| remote.remote == "shop").unwrap();
    (remote.lag_transactions, remote.lag_bytes > 0)
}

/// A remote that subscribed from the beginning and one that had commits waiting for the scan were both
/// shown as lacking nothing.
#[test]
fn history_and_what_is_not_scanned_yet_count_until_they_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let (head, shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    head.publish("orders", "orders/*/**", Some(SubscribeBy::Segment(2)));
    head.remote("shop");
    shop.remote("head");
    head.commit(&[("orders/be/1", "before"), ("orders/zh/1", "of others")]);
    head.commit(&[("orders/zh/2", "of others alone")]);
    head.subscribe("shop", "orders", Some("be"), Start::Beginning);
    assert_eq!(lag(&head), (1, true), "history that nobody has scanned");
    for number in 0..5 {
        head.commit(&[("orders/be/2", &number.to_string())]);
        head.commit(&[("orders/zh/2", "of others alone")]);
    }
    assert_eq!(lag(&head), (6, true), "and commits behind it");
    head.scan();
    assert_eq!(lag(&head), (6, true), "scanned, so queued");
    head.commit(&[("orders/be/3", "not scanned")]);
    assert_eq!(lag(&head), (7, true), "both");
    head.scan();
    head.send();
    assert_eq!(lag(&head), (7, true), "sent is not confirmed");
    shop.turn();
    head.receive();
    assert_eq!(shop.received().len(), 7);
    assert_eq!(lag(&head), (0, false));
    head.commit(&[("orders/be/3", "one more")]);
    assert_eq!(lag(&head), (1, true));
}

/// What came from a remote is not due to it (R4), so it does not lag.
#[test]
fn what_a_remote_sent_itself_is_nothing_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let (head, shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    for (site, other) in [(&head, "shop"), (&shop, "head")] {
        site.publish("all", "orders/**", None);
        site.remote(other);
        site.subscribe(other, "all", None, Start::Now);
    }
    // Another remote is due it, so there will be an entry for it.
    head.remote("depot");
    head.subscribe("depot", "all", None, Start::Now);
    shop.commit(&[("orders/1", "from shop")]);
    shop.turn();
    head.receive();
    assert_eq!(head.received().len(), 1);
    assert_eq!(lag(&head), (0, false), "not scanned");
    head.scan();
    assert_eq!(lag(&head), (0, false), "scanned");
}
