//! Nobody is told of what is not durable yet as if it were: neither as a value, nor as the reason of a refusal
//! (E1, E2).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use milepost_engine::{
    CommitOutcome, Durability, Event, ExpectedVersion, Options, Pinned, Store, StreamVersion, Transaction,
};
use milepost_tests::SimRng;
use milepost_tests::disk::{SimDisk, SimProcess};

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

/// A store with one commit that is written and not durable, and another process's handle.
fn written(disk: &SimDisk, rng: &SimRng) -> (Store, Store) {
    let (founder, second) = (disk.start(), disk.start());
    let store = options(&founder, rng).init_in(founder.storage(), "bern".parse().unwrap());
    let store = store.unwrap();
    let other = options(&second, rng).open_in(second.storage()).unwrap();
    let mut transaction = Transaction::new();
    transaction
        .push(&Event::new("stock", "noted", *b"1").unwrap())
        .unwrap();
    transaction.pin(Pinned {
        key: b"key".to_vec(),
        value: Some(b"value".to_vec()),
    });
    let committed = store.commit_with(transaction, Durability::Buffered).unwrap();
    let _ = committed.committed().unwrap();
    (store, other)
}

#[test]
fn what_is_not_durable_is_read_by_nobody() {
    let (disk, rng) = (SimDisk::new(1), SimRng::new(1));
    let (store, other) = written(&disk, &rng);
    // Once a refusal has looked at all that is written, the index knows it and must not tell.
    for one in [&store, &other] {
        assert_eq!(one.stream_version("stock").unwrap(), None);
        assert_eq!(one.pinned(b"key").unwrap(), None);
        assert_eq!(one.read_stream("stock", StreamVersion(0)).unwrap().count(), 0);
    }
    let mut more = Transaction::new();
    more.push(&Event::new("stock", "noted", *b"2").unwrap()).unwrap();
    more.expect("stock", ExpectedVersion::Exact(StreamVersion(0)))
        .unwrap();
    let _ = store
        .commit_with(more, Durability::Buffered)
        .unwrap()
        .committed()
        .unwrap();
    assert_eq!(store.stream_version("stock").unwrap(), None);
    assert_eq!(store.pinned(b"key").unwrap(), None);
    store.sync().unwrap();
    for one in [&store, &other] {
        assert_eq!(one.stream_version("stock").unwrap(), Some(StreamVersion(1)));
        assert!(one.pinned(b"key").unwrap().is_some());
    }
}

#[test]
fn a_version_that_a_commit_was_refused_for_survives_a_power_cut() {
    for seed in 0..20 {
        let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
        let (_store, other) = written(&disk, &rng);
        let mut transaction = Transaction::new();
        transaction
            .push(&Event::new("stock", "noted", *b"2").unwrap())
            .unwrap();
        transaction.expect("stock", ExpectedVersion::NoStream).unwrap();
        let CommitOutcome::WrongVersion(_) = other.commit(transaction).unwrap() else {
            panic!("the stream is there already");
        };
        let process = disk.crash(&rng).start();
        let after = options(&process, &rng).open_in(process.storage()).unwrap();
        let version = after.stream_version("stock").unwrap();
        assert_eq!(version, Some(StreamVersion(0)), "seed {seed}");
    }
}
