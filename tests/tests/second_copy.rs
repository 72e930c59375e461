//! What recovery writes over may be acknowledged: power lost in the middle of that, on a device that turns
//! what it is writing into garbage, takes nothing, because a second copy is durable before (E1, S3).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::storage::OpenMode;
use milepost_engine::{Durability, Lsn, Options, Phase, QueueEntry, Retention, Store, Transaction};
use milepost_tests::SimRng;
use milepost_tests::disk::{Director, Op, OpKind, Profile, Script, SimDisk, SimProcess, Verdict};

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new()
        .segment_bytes(1 << 20)
        .background(false)
        .pad_to(4096);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn commit(store: &Store, payload: &str) -> Lsn {
    let mut transaction = Transaction::new();
    transaction
        .push_parts("stock", "noted", payload.as_bytes())
        .unwrap();
    store.commit(transaction).unwrap().committed().unwrap().lsn
}

fn payloads(store: &Store) -> Vec<String> {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO).unwrap(), Vec::new());
    while let Some(frame) = scan.next().unwrap() {
        for event in frame.events() {
            found.push(String::from_utf8(event.unwrap().payload.to_vec()).unwrap());
        }
    }
    found
}

fn open(disk: &SimDisk, rng: &SimRng) -> Store {
    let process = disk.start();
    options(&process, rng).open_in(process.storage()).unwrap()
}

/// A machine that lost power with two acknowledged commits, of which no header says that the second is durable.
fn after_a_power_cut(seed: u64, rng: &SimRng) -> SimDisk {
    let disk = SimDisk::like(Profile::Garbage4096, seed);
    let process = disk.start();
    let store = options(&process, rng)
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    commit(&store, "first");
    commit(&store, &"second".repeat(2_000));
    process.kill();
    drop(store);
    disk.crash(rng)
}

#[test]
fn power_lost_anywhere_in_a_recovery_takes_no_acknowledged_commit() {
    for seed in 0..6 {
        let rng = SimRng::new(seed);
        let before = after_a_power_cut(seed, &rng);
        for change in 0.. {
            let disk = before.snapshot();
            let process = disk.directed(Arc::new(Script::new([(change, Verdict::Kill)])));
            let opened = options(&process, &rng).open_in(process.storage());
            for _ in 0..12 {
                let store = open(&disk.crash(&rng), &rng);
                let found = payloads(&store);
                assert_eq!(
                    found.len(),
                    2,
                    "seed {seed}, change {change}: {} are left",
                    found.len()
                );
                assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
            }
            if opened.is_ok() {
                assert!(change > 5, "recovery writes again what it keeps");
                break;
            }
        }
    }
}

/// Scans all of the log into the queue, which is on the disk when this returns; the LSN of the last frame.
fn enqueue(store: &Store) -> Lsn {
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    let mut log = store.scan(queue.scanned_through()).unwrap();
    while let Some(frame) = log.next().unwrap() {
        let lsn = frame.lsn();
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![7; 3_000]);
        queue.append(vec![QueueEntry { lsn, frame }], lsn).unwrap();
    }
    queue.sync().unwrap();
    queue.scanned_through()
}

/// Over a log that was freed the queue is all that is left of what remotes are due: it, too, is written over by its
/// recovery, and lost its end to a power cut in the middle of that before it had a second copy (Q1).
#[test]
fn power_lost_anywhere_in_a_recovery_takes_no_entry_of_the_queue() {
    for seed in 0..6 {
        let rng = SimRng::new(seed);
        let disk = SimDisk::like(Profile::Garbage4096, seed);
        let process = disk.start();
        let options = |process: &SimProcess| options(process, &rng).retention(Retention::UntilScanned);
        let store = options(&process)
            .init_in(process.storage(), "bern".parse().unwrap())
            .unwrap();
        for number in 0..4 {
            commit(&store, &number.to_string().repeat(2_000));
            store.rotate(0).unwrap();
        }
        let scanned = enqueue(&store);
        assert!(store.free().unwrap() > 2);
        process.kill();
        drop(store);
        let before = disk.crash(&rng);
        for change in 0.. {
            let disk = before.snapshot();
            let process = disk.directed(Arc::new(Script::new([(change, Verdict::Kill)])));
            let opened = options(&process).open_in(process.storage());
            for _ in 0..12 {
                let store = open(&disk.crash(&rng), &rng);
                assert_eq!(
                    store.watermarks().scanned,
                    scanned,
                    "seed {seed}, change {change}"
                );
                let (mut queue, mut entries) = (store.queue_reader(Lsn::ZERO).unwrap(), 0);
                while queue.next().unwrap().is_some() {
                    entries += 1;
                }
                assert_eq!(entries, 5, "seed {seed}, change {change}");
            }
            if opened.is_ok() {
                assert!(change > 5, "recovery writes again what it keeps");
                break;
            }
        }
    }
}

#[test]
fn a_copy_that_was_left_behind_brings_nothing_back_and_goes() {
    let rng = SimRng::new(1);
    let disk = after_a_power_cut(1, &rng);
    // Killed before the copy is unlinked: the seventh change and those behind it.
    let left = (0..20).find_map(|change| {
        let disk = disk.snapshot();
        let process = disk.directed(Arc::new(Script::new([(change, Verdict::Kill)])));
        let died = options(&process, &rng).open_in(process.storage()).is_err();
        let names = disk.start().storage().list("log").unwrap();
        (died && names.iter().any(|name| name == "rescue")).then_some(disk)
    });
    let disk = left.unwrap();
    let store = open(&disk, &rng);
    commit(&store, "third");
    drop(store);
    let storage = disk.start().storage();
    assert!(
        storage.open("log/rescue", OpenMode::Read).is_err(),
        "it is gone when the blocks are synced"
    );
    assert_eq!(payloads(&open(&disk.crash(&rng), &rng)).len(), 3);
}

/// Lets another process sync before the first write into a segment, and kills the writer behind it.
struct Overtaken(Store);

impl Director for Overtaken {
    fn before(&self, op: &Op) -> Verdict {
        if op.kind != OpKind::Write || !op.name.ends_with(".log") {
            return Verdict::Go;
        }
        self.0.sync().unwrap();
        Verdict::KillAfter(op.len)
    }
}

/// The loss that this prevents: B begins to write over what A wrote and neither had synced (S1). A syncs it meanwhile, and
/// B dies with the blocks in flight once more. A goes on in a new segment and dies too, with the machine up. Recovery
/// writes the new segment's end again, under a second copy of its own, and power is lost: the first copy was gone, and with
/// it the only whole block.
#[test]
fn a_copy_stays_until_its_blocks_are_on_the_disk_also_when_they_lie_in_a_former_segment() {
    for seed in 0..6 {
        let rng = SimRng::new(seed);
        let disk = SimDisk::like(Profile::Garbage4096, seed);
        let first = disk.start();
        let store = options(&first, &rng)
            .init_in(first.storage(), "bern".parse().unwrap())
            .unwrap();
        commit(&store, "first");
        let mut second = Transaction::new();
        second
            .push_parts("stock", "noted", "second".repeat(2_000).as_bytes())
            .unwrap();
        let second = store.commit_with(second, Durability::Buffered);
        second.unwrap().committed().unwrap();

        let other = disk.directed(Arc::new(Overtaken(store.clone())));
        let opened = options(&other, &rng).open_in(other.storage()).unwrap();
        opened.sync().unwrap_err();
        let left = first.storage().list("log").unwrap();
        assert!(left.contains(&"rescue".to_owned()), "B died behind its write");

        store.rotate(0).unwrap();
        commit(&store, "third");
        first.kill();
        drop((store, opened));
        drop(open(&disk, &rng));
        for _ in 0..12 {
            let store = open(&disk.crash(&rng), &rng);
            assert_eq!(payloads(&store).len(), 3, "seed {seed}");
            assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
        }
    }
}
