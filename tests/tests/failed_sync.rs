//! What follows a write-back that failed: the disk tells it once, and nobody may take silence for
//! success afterwards (E1, E2, S1, Q1).
#![allow(
    clippy::disallowed_methods,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::panic
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::storage::Cell;
use milepost_engine::{
    Durability, Error, ErrorKind, Event, ExpectedVersion, Lsn, Options, Phase, QueueEntry, Store, Transaction,
};
use milepost_tests::SimRng;
use milepost_tests::disk::{Director, Op, OpKind, SimDisk, SimProcess, Verdict};

const LOG: &str = "log/0000000000000000.log";
const QUEUE: &str = "queue/0000000000000000.mpq";

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn found(disk: &SimDisk, rng: &SimRng) {
    let founder = disk.start();
    let made = options(&founder, rng).init_in(founder.storage(), "bern".parse().unwrap());
    drop(made.unwrap());
}

fn commit(store: &Store, stream: &str, durability: Durability) -> Result<Lsn, Error> {
    let mut transaction = Transaction::new();
    transaction
        .push(&Event::new(stream, "noted", vec![7; 3000]).unwrap())
        .unwrap();
    transaction.expect(stream, ExpectedVersion::Any)?;
    Ok(store.commit_with(transaction, durability)?.committed()?.lsn)
}

#[test]
fn a_dead_handle_vouches_for_nothing_that_was_cut_when_the_log_was_healed() {
    let mut cut = 0;
    for seed in 0..20 {
        let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
        found(&disk, &rng);
        let (old, new) = (disk.start(), disk.start());
        let dead = options(&old, &rng).open_in(old.storage()).unwrap();
        let first = commit(&dead, "stock", Durability::Buffered).unwrap();
        // Its index takes the first one in before it is durable.
        let second = commit(&dead, "stock", Durability::Buffered).unwrap();
        disk.fail_writeback(LOG);
        assert_eq!(dead.sync().unwrap_err().kind(), ErrorKind::Closed);
        disk.evict(LOG);
        let healed = options(&new, &rng).open_in(new.storage()).unwrap();
        while healed.watermarks().durable <= second {
            commit(&healed, "other", Durability::Synced).unwrap();
        }
        if healed.stream_version("stock").unwrap().is_some() {
            continue;
        }
        cut += 1;
        assert_eq!(dead.sync().unwrap_err().kind(), ErrorKind::Closed);
        let told = dead.wait_durable(first, Duration::ZERO);
        assert_eq!(told.unwrap_err().kind(), ErrorKind::Closed, "seed {seed}");
        let version = dead.stream_version("stock");
        assert_eq!(version.unwrap_err().kind(), ErrorKind::Closed, "seed {seed}");
    }
    assert!(cut > 0, "some seed loses the commits");
}

#[test]
fn a_queue_whose_sync_failed_is_not_called_durable_by_the_next_one() {
    let (disk, rng) = (SimDisk::new(1), SimRng::new(1));
    found(&disk, &rng);
    let process = disk.start();
    let store = options(&process, &rng).open_in(process.storage()).unwrap();
    let lsn = commit(&store, "stock", Durability::Synced).unwrap();
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&lock).unwrap();
    let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![1; 100]);
    writer.append(vec![QueueEntry { lsn, frame }], lsn).unwrap();
    disk.fail_writeback(QUEUE);
    assert_eq!(writer.sync().unwrap_err().kind(), ErrorKind::Closed);
    drop(writer);
    let cells = process.storage().cells("control", false).unwrap();
    assert_eq!(cells.load(Cell::QueueDurable), 0);
}

/// Holds a thread back that is about to say that a sync failed, until another was through or gave up.
#[derive(Default)]
struct Hold {
    rolled: AtomicBool,
    poisoning: AtomicBool,
}

impl Director for Hold {
    fn before(&self, op: &Op) -> Verdict {
        let poisons = op.kind == OpKind::CellExchange && op.name.ends_with("Poison");
        if poisons && !self.poisoning.swap(true, Ordering::SeqCst) {
            let began = Instant::now();
            while !self.rolled.load(Ordering::SeqCst) && began.elapsed() < Duration::from_millis(300) {
                std::thread::yield_now();
            }
        }
        Verdict::Go
    }
}

#[test]
fn a_sync_that_one_thread_was_told_has_failed_succeeds_for_no_other() {
    let (disk, rng) = (SimDisk::new(1), SimRng::new(1));
    found(&disk, &rng);
    let hold = Arc::new(Hold::default());
    let process = disk.directed(Arc::clone(&hold) as Arc<dyn Director>);
    let store = options(&process, &rng).open_in(process.storage()).unwrap();
    commit(&store, "stock", Durability::Buffered).unwrap();
    disk.fail_writeback(LOG);
    let rolled = std::thread::scope(|threads| {
        let told = threads.spawn(|| store.sync());
        while !hold.poisoning.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let rolled = store.rotate(0);
        hold.rolled.store(true, Ordering::SeqCst);
        assert_eq!(told.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        rolled
    });
    assert_eq!(rolled.unwrap_err().kind(), ErrorKind::Closed, "S1");
}

/// Does something once, just before the first operation that is asked for.
struct Once<F> {
    when: fn(&Op) -> bool,
    act: F,
    done: AtomicBool,
}

impl<F: Fn() + Send + Sync + 'static> Director for Once<F> {
    fn before(&self, op: &Op) -> Verdict {
        if (self.when)(op) && !self.done.swap(true, Ordering::SeqCst) {
            (self.act)();
        }
        Verdict::Go
    }
}

/// What `witness` calls durable is there after a power cut, though the write-back of it failed before it had the
/// segment open, and only others were told.
fn assert_vouched(disk: &SimDisk, rng: &SimRng, witness: &Store, committed: Lsn) {
    witness.sync().unwrap();
    assert!(witness.watermarks().durable > committed);
    for _ in 0..20 {
        let process = disk.crash(rng).start();
        let after = options(&process, rng).open_in(process.storage()).unwrap();
        assert!(after.stream_version("stock").unwrap().is_some(), "S1");
    }
}

#[test]
fn what_was_written_while_a_descriptor_was_being_opened_is_written_again() {
    for seed in 0..10 {
        let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
        found(&disk, &rng);
        let process = disk.start();
        let writer = options(&process, &rng).open_in(process.storage()).unwrap();
        let (writes, also) = (writer.clone(), disk.clone());
        let once = Once {
            when: |op| op.kind == OpKind::Open && op.name == LOG,
            act: move || {
                commit(&writes, "stock", Durability::Buffered).unwrap();
                also.fail_writeback(LOG);
            },
            done: AtomicBool::default(),
        };
        let late = disk.directed(Arc::new(once));
        let witness = options(&late, &rng).open_in(late.storage()).unwrap();
        let committed = witness.watermarks().appended;
        assert!(
            writer.watermarks().durable < committed,
            "it is written and not synced"
        );
        assert_vouched(&disk, &rng, &witness, Lsn(committed.0 - 1));
    }
}

#[test]
fn what_was_written_and_not_published_when_a_descriptor_was_opened_is_written_again() {
    for seed in 0..10 {
        let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
        found(&disk, &rng);
        let opened: Arc<std::sync::Mutex<Option<Store>>> = Arc::default();
        let (also, slot, forked) = (disk.clone(), Arc::clone(&opened), rng.fork());
        let armed = Arc::new(AtomicBool::default());
        let fires = Arc::clone(&armed);
        let once = Once {
            when: |op| op.kind == OpKind::CellStore && op.name == "Appended" && op.len > 100,
            act: move || {
                if fires.load(Ordering::SeqCst) {
                    also.fail_writeback(LOG);
                    let late = also.start();
                    let witness = options(&late, &forked).open_in(late.storage()).unwrap();
                    *slot.lock().unwrap() = Some(witness);
                }
            },
            done: AtomicBool::default(),
        };
        let process = disk.directed(Arc::new(once));
        armed.store(true, Ordering::SeqCst);
        let peer = disk.start();
        let keeps = options(&peer, &rng).open_in(peer.storage()).unwrap();
        let writer = options(&process, &rng).open_in(process.storage()).unwrap();
        let committed = commit(&writer, "stock", Durability::Buffered).unwrap();
        let witness = opened.lock().unwrap().take().expect("the writer published");
        assert_vouched(&disk, &rng, &witness, committed);
        drop(keeps);
    }
}

/// Fails the next write to the log while it is armed.
#[derive(Default)]
struct FailWrite(AtomicBool);

impl Director for FailWrite {
    fn before(&self, op: &Op) -> Verdict {
        if op.kind == OpKind::Write && op.name == LOG && self.0.swap(false, Ordering::SeqCst) {
            return Verdict::Fail {
                errno: milepost_tests::disk::EIO,
                applied: 100,
            };
        }
        Verdict::Go
    }
}

#[test]
fn after_a_write_that_failed_every_handle_is_dead_and_the_next_open_goes_on() {
    let (disk, rng) = (SimDisk::new(1), SimRng::new(1));
    found(&disk, &rng);
    let fails = Arc::new(FailWrite::default());
    let process = disk.directed(Arc::clone(&fails) as Arc<dyn Director>);
    let store = options(&process, &rng).open_in(process.storage()).unwrap();
    let peer = disk.start();
    let other = options(&peer, &rng).open_in(peer.storage()).unwrap();
    commit(&store, "stock", Durability::Synced).unwrap();
    fails.0.store(true, Ordering::SeqCst);
    for handle in [&store, &store, &other] {
        let error = commit(handle, "stock", Durability::Synced).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    let next = disk.start();
    let healed = options(&next, &rng).open_in(next.storage()).unwrap();
    commit(&healed, "stock", Durability::Synced).unwrap();
    assert_eq!(healed.stream_version("stock").unwrap().unwrap().0, 1);
}
