//! Sites that free what they may while a test goes on.

use milepost_engine::{Lsn, Retention, Space, Store, StreamVersion};
use milepost_replication::status::status;

use super::*;

/// Commits of 60 kB each, the number in front.
pub fn bulk(site: &Site, stream: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let payload = format!("{number} {}", "x".repeat(60_000));
        site.commit(&[(stream, &payload)]);
    }
}

/// A site that frees what it may.
pub fn freeing(dir: &std::path::Path, name: &str, net: &Net) -> Site {
    let site = Site::new(dir, name, net);
    let space = Space {
        retention: Retention::UntilScanned,
        ..Space::default()
    };
    site.store.set_space(&space).unwrap();
    site
}

/// Frees what may go; where the log begins then.
pub fn trim(site: &Site) -> Lsn {
    site.store.rotate(0).unwrap();
    // The store's own thread may be at it.
    eventually("what may go is freed", || {
        site.store.free().unwrap();
        site.store.freeable().unwrap().end <= site.store.oldest().unwrap()
    });
    site.store.oldest().unwrap()
}

/// Turns of all sites until everything has come and is confirmed; they free as they go.
pub fn exchange(sites: &[&Site], rounds: usize) {
    for _ in 0..rounds {
        for site in sites {
            site.turn();
            trim(site);
        }
    }
}

/// A stream holds the numbers from 0 on, each once and in order; how many there are, and how many of them are freed.
pub fn numbers(site: &Site, stream: &str) -> (u64, u64) {
    let start = site.store.stream_start(stream).unwrap();
    let events = site.store.read_stream(stream, start).unwrap();
    let number = |payload: &[u8]| {
        let text = std::str::from_utf8(payload).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let mut next = start.0;
    for event in events {
        let event = event.unwrap();
        assert_eq!(
            (event.version, number(&event.payload)),
            (StreamVersion(next), next)
        );
        next += 1;
    }
    (next, start.0)
}

pub fn kept_by(store: &Store) -> String {
    store.freeable().unwrap().keepers[0].text.clone()
}

pub fn stopped(site: &Site, remote: &str) -> Option<String> {
    let facts = status(&site.store, &mut |_| ()).unwrap();
    let remote = facts.remotes.into_iter().find(|one| one.remote == remote);
    remote.unwrap().stopped
}

pub fn pair(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (freeing(dir.path(), "head", net), freeing(dir.path(), "shop", net));
    head.publish("all", "down/**", None);
    head.remote("shop");
    shop.remote("head");
    (dir, head, shop)
}
