//! Who waits for a log in which nothing happens sleeps: it looks about once a second, and hears at once of what comes.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::{Durability, Lsn, Options, Transaction};
use milepost_tests::SimRng;
use milepost_tests::disk::{Director, Op, OpKind, Profile, SimDisk, Verdict};

/// Counts sleeps on shared words.
#[derive(Default)]
struct Sleeps(AtomicU64);

impl Director for Sleeps {
    fn before(&self, op: &Op) -> Verdict {
        self.0
            .fetch_add(u64::from(op.kind == OpKind::Pause), Ordering::Relaxed);
        Verdict::Go
    }
}

#[test]
fn an_idle_reader_looks_once_a_second() {
    let (disk, rng, sleeps) = (
        SimDisk::like(Profile::Ext4, 1),
        SimRng::new(1),
        Arc::new(Sleeps::default()),
    );
    let process = disk.directed(Arc::<Sleeps>::clone(&sleeps));
    let options = Options::new().segment_bytes(1 << 20).background(false);
    let options = options.clock(process.clock()).rng(Arc::new(rng.fork()));
    let store = options
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    let mut log = store.scan(Lsn::ZERO).unwrap();
    while log.next().unwrap().is_some() {}
    let before = sleeps.0.load(Ordering::Relaxed);
    let waited = log.wait(Duration::from_secs(600)).unwrap();
    let slept = sleeps.0.load(Ordering::Relaxed) - before;
    assert!(
        !waited && (500..700).contains(&slept),
        "{slept} sleeps in 600 seconds"
    );
    let mut transaction = Transaction::new();
    transaction.push_parts("s", "k", b"one").unwrap();
    store
        .commit_with(transaction, Durability::Synced)
        .unwrap()
        .committed()
        .unwrap();
    assert!(log.wait(Duration::from_secs(600)).unwrap());
    assert!(log.next().unwrap().is_some());
}
