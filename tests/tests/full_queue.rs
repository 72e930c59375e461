//! A queue that finds no space, not even for the zeros that would undo what was written of a block: the scan
//! phase is told `Full`, not that its handle is dead, and goes on when there is space (Q1).
//!
//! It happens where a file system reserves nothing: the refused block ended in the middle of what is not
//! allocated yet, and so do its zeros.
#![allow(clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Durability, ErrorKind, Event, Lsn, Options, Phase, QueueEntry, Store, Transaction};
use milepost_tests::SimRng;
use milepost_tests::disk::{Director, ENOSPC, Op, OpKind, SimDisk, SimProcess, Verdict};

/// No write to the queue finds more space than for its first bytes, while there is none.
#[derive(Default)]
struct NoSpace(AtomicBool);

impl Director for NoSpace {
    fn before(&self, op: &Op) -> Verdict {
        if op.kind == OpKind::Write && op.name.starts_with("queue/") && self.0.load(Ordering::SeqCst) {
            return Verdict::Fail {
                errno: ENOSPC,
                applied: op.len / 2,
            };
        }
        Verdict::Go
    }
}

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn commit(store: &Store) -> Lsn {
    let mut transaction = Transaction::new();
    let event = Event::new("stock", "noted", vec![7; 100]).unwrap();
    transaction.push(&event).unwrap();
    let outcome = store.commit_with(transaction, Durability::Synced).unwrap();
    outcome.committed().unwrap().lsn
}

fn entry(lsn: Lsn, len: usize) -> Vec<QueueEntry> {
    let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![1; len]);
    vec![QueueEntry { lsn, frame }]
}

#[test]
fn a_queue_without_space_for_zeros_is_full_and_goes_on_with_space() {
    for seed in 0..20 {
        let (disk, rng, full) = (
            SimDisk::new(seed),
            SimRng::new(seed),
            Arc::new(NoSpace::default()),
        );
        let process = disk.directed(Arc::clone(&full) as Arc<dyn Director>);
        let made = options(&process, &rng).init_in(process.storage(), "bern".parse().unwrap());
        let store = made.unwrap();
        let lsns = [commit(&store), commit(&store), commit(&store)];
        let lock = store.lock_phase(Phase::Scan).unwrap();
        let mut writer = store.queue_writer(&lock).unwrap();
        writer.append(entry(lsns[0], 100), lsns[0]).unwrap();

        full.0.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            let error = writer.append(entry(lsns[1], 9000), lsns[1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            assert_eq!(writer.scanned_through(), lsns[0], "Q1");
        }
        full.0.store(false, Ordering::SeqCst);
        // A smaller block than the refused one, whose remains must not stand behind it.
        writer.append(entry(lsns[1], 100), lsns[1]).unwrap();
        writer.sync().unwrap();
        writer.append(entry(lsns[2], 100), lsns[2]).unwrap();
        writer.sync().unwrap();
        drop((writer, lock, store));

        let process = disk.crash(&rng).start();
        let store = options(&process, &rng).open_in(process.storage()).unwrap();
        let mut reader = store.queue_reader(Lsn::ZERO).unwrap();
        let mut entries = 0;
        while reader.next().unwrap().is_some() {
            entries += 1;
        }
        assert_eq!((entries, store.scanned_through()), (3, lsns[2]), "Q1");
        let verified = store.verify(&mut |_, _| {}).unwrap();
        assert!(verified.queue_damage.is_empty(), "{:?}", verified.queue_damage);
    }
}
