//! A store whose maker died between giving it its name and making the name durable is a store to whoever opens
//! it next; what is acknowledged there must not go with the name when power is lost (E1).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use milepost_engine::{Options, StreamVersion, Transaction};
use milepost_tests::SimRng;
use milepost_tests::disk::{Director, Op, OpKind, SimDisk, SimProcess, Verdict};

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

/// Kills its process at the first sync of the folder behind the renaming to `store`.
#[derive(Default)]
struct DiesNamed(AtomicBool);

impl Director for DiesNamed {
    fn before(&self, op: &Op) -> Verdict {
        if op.kind == OpKind::Rename && op.name.ends_with("to store") {
            self.0.store(true, Ordering::Relaxed);
        }
        match op.kind == OpKind::SyncDir && self.0.load(Ordering::Relaxed) {
            true => Verdict::Kill,
            false => Verdict::Go,
        }
    }
}

#[test]
fn a_name_that_its_maker_did_not_sync_is_synced_before_anything_is_acknowledged() {
    for seed in 0..40 {
        let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
        let founder = disk.directed(Arc::new(DiesNamed::default()));
        let made = options(&founder, &rng).init_in(founder.storage(), "bern".parse().unwrap());
        assert!(made.is_err() && !founder.is_alive());
        let process = disk.start();
        let store = options(&process, &rng).open_in(process.storage()).unwrap();
        let mut transaction = Transaction::new();
        transaction.push_parts("stock", "noted", b"1").unwrap();
        let _ = store.commit(transaction).unwrap().committed().unwrap();
        let process = disk.crash(&rng).start();
        let after = options(&process, &rng).open_in(process.storage()).unwrap();
        assert_eq!(after.stream_version("stock").unwrap(), Some(StreamVersion(0)));
    }
}
