//! A site whose log lost its beginning before it replicated goes on as any other (R1), and from the first definition
//! on its hold keeps what replication needs, whatever retention says.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::{ErrorKind, Lsn, Retention, Space, StreamVersion};
use milepost_replication::catalog::{HOLD, Start};
use support::*;

/// Commits of 60 kB each, the number in front.
fn bulk(site: &Site, stream: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let payload = format!("{number} {}", "x".repeat(60_000));
        site.commit(&[(stream, &payload)]);
    }
}

/// A site that keeps a megabyte, and lost its beginning.
fn freed(dir: &std::path::Path, name: &str, net: &Net) -> Site {
    let site = Site::new(dir, name, net);
    let space = Space {
        retention: Retention::Bytes(1 << 20),
        ..Space::default()
    };
    site.store.set_space(&space).unwrap();
    bulk(&site, "before", 0..60);
    while site.store.oldest().unwrap() == Lsn::ZERO {
        site.store.rotate(0).unwrap();
        bulk(&site, "before", 60..61);
        site.store.free().unwrap();
        assert!(site.store.segments().unwrap().len() < 60, "something is freed");
    }
    site
}

fn numbers(site: &Site, stream: &str) -> Vec<u32> {
    let start = site.store.stream_start(stream).unwrap();
    assert_eq!(start, StreamVersion(0), "nothing of {stream} is freed");
    let events = site.store.read_stream(stream, start).unwrap();
    let number = |payload: &[u8]| {
        std::str::from_utf8(payload)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
    };
    events
        .map(|event| number(&event.unwrap().payload).unwrap())
        .collect()
}

#[test]
fn a_site_that_had_freed_its_beginning_replicates_both_ways_and_keeps_the_rest_r1() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let (head, shop) = (freed(dir.path(), "head", &net), freed(dir.path(), "shop", &net));
    assert!(head.store.holds().unwrap().is_empty());
    for (site, other, stream) in [(&head, "shop", "down/**"), (&shop, "head", "up/**")] {
        site.publish("all", stream, None);
        site.remote(other);
        site.subscribe(other, "all", None, Start::Now);
    }
    let begins = head.store.oldest().unwrap();
    for round in 0..6 {
        bulk(&head, "down/1", round * 10..(round + 1) * 10);
        bulk(&shop, "up/1", round * 10..(round + 1) * 10);
        for site in [&head, &shop] {
            site.turn();
            site.store.rotate(0).unwrap();
            site.store.free().unwrap();
        }
    }
    for _ in 0..3 {
        head.turn();
        shop.turn();
    }
    assert_eq!(numbers(&shop, "down/1"), (0..60).collect::<Vec<_>>());
    assert_eq!(numbers(&head, "up/1"), (0..60).collect::<Vec<_>>());
    assert_eq!(
        head.store.oldest().unwrap(),
        begins,
        "the hold keeps what replication needs"
    );
    let kept = head.store.freeable().unwrap();
    assert!(kept.keepers[0].text.contains(HOLD), "{kept:?}");
    // Without the hold it goes, and who would receive twice for want of it is told so.
    assert!(shop.store.drop_hold(HOLD).unwrap());
    assert!(shop.store.free().unwrap() > 0);
    let found = shop.store.scan(Lsn::ZERO).map(drop).unwrap_err();
    assert_eq!(found.kind(), ErrorKind::Behind);
    assert!(
        !shop
            .store
            .pinned_when_freed(b"catalog/remote/")
            .unwrap()
            .is_empty()
    );
}
