//! A backup, a restore, a repair and the beginning of a new lineage that are killed at any change they make to a disk, with power lost
//! behind it: what was complete before stays so, what is half made is never taken for whole, and running it again ends it
//! (E1, E2, E3, R5).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use milepost_engine::storage::{OpenMode, Storage};
use milepost_engine::{
    BackedUp, Backup, Durability, Error, ErrorKind, ForkAt, Lsn, NewLineage, Options, PutBack, Repair,
    RepairHow, Result, Store, Transaction,
};
use milepost_tests::SimRng;
use milepost_tests::disk::{Killed, Profile, Script, SimDisk, SimProcess, Verdict};

/// Power cuts tried behind each kill.
const CUTS: u64 = 4;

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn commit(store: &Store, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let mut transaction = Transaction::new();
        let payload = [number.to_le_bytes().as_slice(), &[7; 20_000]].concat();
        transaction.push_parts("s", "k", &payload).unwrap();
        let _ = store
            .commit_with(transaction, Durability::Buffered)
            .unwrap()
            .committed()
            .unwrap();
    }
    store.sync().unwrap();
}

fn numbers(store: &Store) -> Vec<u32> {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO).unwrap(), Vec::new());
    while let Some(frame) = scan.next().unwrap() {
        for event in frame.events() {
            found.push(u32::from_le_bytes(*event.unwrap().payload.first_chunk().unwrap()));
        }
    }
    found
}

/// A store on a disk of its own, with numbers in it.
fn store(seed: u64, count: u32) -> (SimDisk, Store, SimRng) {
    padded_store(seed, count, Profile::Posix, 1)
}

/// [`store`], on a disk that is like this, padded so.
fn padded_store(seed: u64, count: u32, like: Profile, pad_to: usize) -> (SimDisk, Store, SimRng) {
    let (disk, rng) = (SimDisk::like(like, seed), SimRng::new(seed));
    let process = disk.start();
    let store = options(&process, &rng)
        .pad_to(pad_to)
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    commit(&store, 0..count);
    (disk, store, rng)
}

/// Does `work` in a process that is killed at its `number`-th change, in the middle of it; `None` when it was.
fn until_killed<T>(disk: &SimDisk, number: u64, work: impl FnOnce(&SimProcess) -> Result<T>) -> Option<T> {
    let process = disk.directed(Arc::new(Script::new([(number, Verdict::KillAfter(3_000))])));
    let done = match std::panic::catch_unwind(AssertUnwindSafe(|| work(&process))) {
        Ok(done) => done,
        Err(payload) if payload.is::<Killed>() => Err(Error::closed("killed")),
        Err(_) => panic!("a panic at change {number}"),
    };
    let died = !process.is_alive();
    process.kill();
    match done {
        Ok(done) if !died => Some(done),
        Ok(_) => None,
        Err(error) => {
            assert!(died, "change {number}: {error}");
            None
        }
    }
}

fn whole(disk: &SimDisk) -> Result<Lsn> {
    let backup = Backup::open_in(disk.start().storage())?;
    let found = backup.verify(&mut |_, _| ())?;
    assert!(found.damage.is_empty(), "{found:?}");
    Ok(backup.facts().end)
}

fn backup(store: &Store, process: &SimProcess) -> Result<BackedUp> {
    store.backup_in(process.storage(), false, &mut |_, _| ())
}

#[test]
fn a_backup_killed_anywhere_leaves_the_former_one_and_the_next_run_ends_it() {
    let (_disk, store, rng) = store(1, 20);
    let empty = SimDisk::new(2);
    let first = empty.snapshot();
    let former = backup(&store, &first.start()).unwrap().end;
    for (before, has) in [(&empty, None), (&first, Some(former))] {
        if has.is_some() {
            commit(&store, 20..100);
        }
        let mut number = 0;
        loop {
            let disk = before.snapshot();
            let ended = until_killed(&disk, number, |process| backup(&store, process));
            for _ in 0..CUTS {
                let after = disk.crash(&rng);
                match whole(&after) {
                    Ok(end) if ended.is_some() => assert_eq!(Some(end), ended.as_ref().map(|done| done.end)),
                    Ok(end) => assert!(
                        has == Some(end) || end == store.watermarks().durable,
                        "change {number}"
                    ),
                    Err(error) => {
                        assert!(has.is_none() && ended.is_none(), "change {number}: {error}");
                        assert!(
                            matches!(error.kind(), ErrorKind::NoStore | ErrorKind::Invalid),
                            "{error}"
                        );
                    }
                }
                backup(&store, &after.start()).unwrap();
                assert_eq!(
                    whole(&after).unwrap(),
                    store.watermarks().durable,
                    "change {number}"
                );
            }
            number += 1;
            if ended.is_some() {
                break;
            }
        }
        assert!(number > 8, "{number} changes");
    }
}

#[test]
fn a_restore_killed_anywhere_leaves_no_store_or_a_whole_one_in_its_own_lineage() {
    let (_disk, store, rng) = store(3, 80);
    let copy = SimDisk::new(4);
    let end = backup(&store, &copy.start()).unwrap().end;
    let restore = |process: &SimProcess| {
        options(process, &rng).restore_in(copy.start().storage(), process.storage(), &mut |_, _| ())
    };
    let mut number = 0;
    loop {
        let disk = SimDisk::new(number);
        let ended = until_killed(&disk, number, restore);
        for _ in 0..CUTS {
            let after = disk.crash(&rng);
            let process = after.start();
            let opened = options(&process, &rng).open_in(process.storage());
            let again = match opened {
                Ok(store) => store,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoStore, "change {number}: {error}");
                    assert!(ended.is_none());
                    restore(&process).unwrap();
                    options(&process, &rng).open_in(process.storage()).unwrap()
                }
            };
            assert_eq!(numbers(&again), (0..80).collect::<Vec<_>>());
            assert_eq!(again.lineage().unwrap(), Some((store.epoch(), end)), "R5");
        }
        number += 1;
        if ended.is_some() {
            break;
        }
    }
    assert!(number > 10, "{number} changes");
}

#[test]
fn a_lineage_that_begins_killed_anywhere_has_begun_whole_or_not_and_nothing_else_changes() {
    let likes = [(Profile::Posix, 1), (Profile::Garbage4096, 4096)];
    for (like, pad_to) in likes {
        // The block finds room in the last segment, or needs one of its own.
        for count in [80, 51] {
            let (disk, store, rng) = padded_store(6, count, like, pad_to);
            let parent = store.epoch();
            store.close().unwrap();
            let before = disk.snapshot();
            let mut number = 0;
            loop {
                let disk = before.snapshot();
                let begin = |process: &SimProcess| -> Result<NewLineage> {
                    PutBack::open_in(process.storage(), options(process, &rng))?.begin_lineage(ForkAt::End)
                };
                let ended = until_killed(&disk, number, begin);
                for _ in 0..CUTS {
                    let after = disk.crash(&rng);
                    let process = after.start();
                    let again = match begin(&process) {
                        // It had begun, though nobody was told.
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Conflict, "change {number}: {error}");
                            options(&process, &rng).open_in(process.storage()).unwrap()
                        }
                        Ok(_) => {
                            assert!(ended.is_none(), "change {number}: what was told is gone");
                            options(&process, &rng).open_in(process.storage()).unwrap()
                        }
                    };
                    let (left, fork) = again.lineage().unwrap().unwrap();
                    assert_eq!((left, again.lineage_begins().unwrap()), (parent, fork), "R5");
                    if let Some(done) = ended {
                        assert_eq!((again.epoch(), fork), (done.epoch, done.fork));
                    }
                    commit(&again, count..count + 1);
                    assert_eq!(numbers(&again), (0..=count).collect::<Vec<_>>());
                    assert!(again.verify(&mut |_, _| ()).unwrap().damage.is_empty());
                }
                number += 1;
                if ended.is_some() {
                    break;
                }
            }
            assert!(number > 5, "{number} changes");
        }
    }
}

/// Changes a byte in the middle of the block that holds a number.
fn damage(disk: &SimDisk, store: &Store, number: u32) -> (Lsn, Vec<u8>) {
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let (mut at, mut len) = (Lsn::ZERO, 0);
    for _ in 0..number + 2 {
        let block = scan.next_block().unwrap().unwrap();
        (at, len) = (block.header().lsn, block.header().block_len);
    }
    let segments = store.segments().unwrap();
    let (first, _) = segments.iter().rev().find(|(first, _)| *first <= at).unwrap();
    let storage = disk.start().storage();
    let file = storage
        .open(&format!("log/{:016x}.log", first.0), OpenMode::ReadWrite)
        .unwrap();
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    file.read_at(&mut bytes, at.since(*first)).unwrap();
    bytes[10_000] ^= 0x20;
    file.write_at(&[&bytes], at.since(*first)).unwrap();
    file.sync_data().unwrap();
    (at, bytes)
}

#[test]
fn a_repair_killed_anywhere_is_ended_by_the_next_and_loses_what_it_said_and_no_more() {
    let (any, garbage) = ((Profile::Posix, 1), (Profile::Garbage4096, 4096));
    let (isolate, cut) = (RepairHow::Isolate, RepairHow::Cut);
    for (how, (like, pad_to)) in [(isolate, any), (cut, any), (isolate, garbage), (cut, garbage)] {
        let (disk, store, rng) = padded_store(5, 120, like, pad_to);
        let (at, damaged) = damage(&disk, &store, 30);
        let left = |number: &u32| *number != 30 && (how == RepairHow::Isolate || *number < 30);
        let left: Vec<u32> = (0..120).filter(left).collect();
        store.close().unwrap();
        let before = disk.snapshot();
        let mut number = 0;
        loop {
            let disk = before.snapshot();
            let run = |process: &SimProcess| {
                Repair::open_in(process.storage(), options(process, &rng))?.run(how, &mut |_| ())
            };
            let go_on = |process: &SimProcess| match run(process) {
                // The first run was at its very end.
                Err(error) if error.kind() == ErrorKind::Invalid => Ok(()),
                done => done.map(drop),
            };
            let first = until_killed(&disk, number, run).is_some();
            for cut in 0..2 * CUTS {
                // Whoever goes on with it is killed too, and only then the power is lost.
                let (disk, mut ended) = (disk.snapshot(), first);
                let mut left = left.clone();
                if cut >= CUTS && !first {
                    ended = until_killed(&disk, rng.below(40), go_on).is_some();
                }
                if ended {
                    // What is acknowledged from here on is no repair's any more, whoever died before.
                    let process = disk.start();
                    let store = options(&process, &rng).open_in(process.storage()).unwrap();
                    commit(&store, 500..501);
                    left.push(500);
                    process.kill();
                }
                let what = format!("{how:?}, {like:?}, change {number}");
                look(
                    &disk.crash(&rng),
                    &rng,
                    (how, ended),
                    (&left, at, &damaged),
                    &what,
                );
            }
            number += 1;
            if first {
                break;
            }
        }
        assert!(number > 15, "{number} changes");
    }
}

/// Repairs what is not repaired, and compares what is left, and what is kept of what was damaged.
fn look(
    after: &SimDisk,
    rng: &SimRng,
    (how, ended): (RepairHow, bool),
    (left, at, damaged): (&[u32], Lsn, &[u8]),
    what: &str,
) {
    let process = after.start();
    let repair = Repair::open_in(process.storage(), options(&process, rng)).unwrap();
    let found = repair.examine().unwrap();
    if let Some(begun) = found.interrupted {
        assert_eq!(begun, how);
        let error = options(&process, rng).open_in(after.start().storage()).err();
        assert!(error.is_none_or(|error| error.kind() == ErrorKind::Unavailable));
    }
    if found.interrupted.is_some() || !found.damages.is_empty() {
        assert!(!ended, "{what}: {found:?}");
        repair.run(how, &mut |_| ()).unwrap();
    } else {
        drop(repair);
    }
    let process = after.start();
    let again = options(&process, rng).open_in(process.storage()).unwrap();
    assert_eq!(numbers(&again), left, "{what}");
    assert!(again.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    assert!(again.lineage().unwrap().is_some(), "R5");
    // Padding is zeros and means nothing.
    let zeros = damaged.iter().rev().take_while(|byte| **byte == 0).count();
    let kept = kept(&*process.storage(), at);
    assert!(
        kept.starts_with(&damaged[..damaged.len() - zeros]),
        "{what}: the damaged bytes are kept"
    );
}

fn kept(storage: &dyn Storage, at: Lsn) -> Vec<u8> {
    let names = storage.list("damaged").unwrap();
    let begins = format!("{:016x}-", at.0);
    let name = names
        .iter()
        .find(|name| name.starts_with(&begins) && name.ends_with(".bin"))
        .unwrap();
    let file = storage.open(&format!("damaged/{name}"), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}
