//! Freeing that fails or dies at any operation, and what comes behind it: no space, an error of the disk, a write that
//! falls short and a kill, also where a commit frees because the log is at its limit. Nothing that is kept goes (E4), what a
//! hold was promised holds although a dead process had begun to free it, and the next run ends what was begun.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use milepost_engine::{
    Durability, Error, ErrorKind, Hold, Lsn, Options, Phase, Result, Retention, Store, StreamVersion,
    Transaction,
};
use milepost_tests::SimRng;
use milepost_tests::crash::{Fault, hush};
use milepost_tests::disk::{Director, Killed, Op, Profile, SimDisk, SimProcess, Verdict};

/// Power cuts tried behind each fault.
const CUTS: u64 = 3;
const KEPT: u64 = 2_000;

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn commit(store: &Store, number: u64, len: usize) -> Result<Lsn> {
    let mut transaction = Transaction::new();
    let payload = [number.to_le_bytes().as_slice(), &vec![7; len]].concat();
    transaction.push_parts("s", "k", &payload)?;
    let done = store.commit_with(transaction, Durability::Synced)?;
    Ok(done.committed()?.lsn)
}

/// A store of several small segments, of which all but the last bytes may go; LSNs of its events.
fn filled(profile: Profile, rng: &SimRng) -> (SimDisk, Vec<Lsn>) {
    let disk = SimDisk::like(profile, 5);
    let process = disk.start();
    let options = options(&process, rng).retention(Retention::Bytes(KEPT));
    let store = options
        .pad_to(profile.garbage().unwrap_or(1))
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    let mut lsns = Vec::new();
    for number in 0..12 {
        lsns.push(commit(&store, number, 700).unwrap());
        if number % 2 == 1 {
            store.rotate(0).unwrap();
        }
    }
    store.close().unwrap();
    process.kill();
    (disk, lsns)
}

/// Lets one operation go as the fault says.
struct Nth {
    fault: Fault,
    left: Mutex<u64>,
}

impl Director for Nth {
    fn before(&self, op: &Op) -> Verdict {
        let Some(verdict) = self.fault.verdict(op) else {
            return Verdict::Go;
        };
        let mut left = self.left.lock().unwrap();
        *left = left.wrapping_sub(1);
        if *left == u64::MAX { verdict } else { Verdict::Go }
    }
}

/// Works in a process to which something happens at one operation; what came of it, whether it died, and whether the
/// operation was reached.
fn work<T>(
    disk: &SimDisk,
    (fault, at): (Fault, u64),
    rng: &SimRng,
    deed: impl FnOnce(&Store) -> Result<T>,
) -> (Result<T>, bool, bool) {
    let nth = Arc::new(Nth {
        fault,
        left: Mutex::new(at),
    });
    let process = disk.directed(Arc::<Nth>::clone(&nth));
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        deed(&options(&process, rng).open_in(process.storage())?)
    }));
    let done = match done {
        Ok(done) => done,
        Err(payload) if payload.is::<Killed>() => Err(Error::closed("killed")),
        Err(payload) => std::panic::resume_unwind(payload),
    };
    let died = !process.is_alive();
    process.kill();
    (done, died, *nth.left.lock().unwrap() > u64::MAX / 2)
}

/// Every event that is kept is there, with its version; the next free leaves no file of what was freed.
fn look(disk: &SimDisk, rng: &SimRng, lsns: &[Lsn], most: Lsn) {
    let process = disk.start();
    let store = options(&process, rng).open_in(process.storage()).unwrap();
    for freed in [false, true] {
        if freed {
            store.free().unwrap();
        }
        let begins = store.oldest().unwrap();
        assert!(
            begins <= most,
            "the log begins at {begins}, {most} was to be kept"
        );
        let start = lsns.partition_point(|lsn| *lsn < begins);
        let version = StreamVersion(u64::try_from(start).unwrap());
        assert_eq!(store.stream_start("s").unwrap(), version);
        let read: Vec<Lsn> = store
            .read_stream("s", version)
            .unwrap()
            .map(|event| event.unwrap().lsn)
            .collect();
        assert_eq!(read, lsns[start..], "behind {begins}");
        assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    }
    let begins = store.oldest().unwrap();
    for name in process.storage().list("log").unwrap() {
        let digits = name
            .strip_prefix("base-")
            .or(name.split_once('.').map(|(stem, _)| stem));
        let lsn = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        assert!(
            lsn.is_none_or(|lsn| lsn >= begins.0),
            "{name} stays behind {begins}"
        );
    }
}

#[test]
fn every_fault_while_freeing_is_told_and_the_next_run_ends_the_work() {
    hush();
    let (mut faults, rng) = (0, SimRng::new(3));
    for profile in [Profile::Posix, Profile::Ext4, Profile::Garbage4096] {
        let (start, lsns) = filled(profile, &rng);
        let most = Lsn(start_end(&start, &rng).0 - KEPT);
        for fault in Fault::ALL {
            for at in 0.. {
                let disk = start.snapshot();
                let (done, died, reached) = work(&disk, (fault, at), &rng, Store::free);
                if let Err(error) = &done {
                    let told = matches!(
                        error.kind(),
                        ErrorKind::Full | ErrorKind::Internal | ErrorKind::Closed
                    );
                    assert!(died || told, "{fault:?} at {at}: {error:?}");
                }
                for cut in 0..=CUTS {
                    let after = if cut == 0 {
                        disk.snapshot()
                    } else {
                        disk.crash(&rng)
                    };
                    look(&after, &rng, &lsns, most);
                    // Whoever recovers it may die too, and then the power is lost.
                    let again = disk.snapshot();
                    drop(work(&again, (Fault::Death(0), rng.below(12)), &rng, |_| Ok(())));
                    look(&again.crash(&rng), &rng, &lsns, most);
                }
                if !reached {
                    break;
                }
                faults += 1;
            }
        }
    }
    println!("{faults} faults, each with {CUTS} power cuts behind it");
    assert!(faults > 1_000, "{faults}");
}

fn start_end(disk: &SimDisk, rng: &SimRng) -> Lsn {
    let process = disk.snapshot().start();
    let store = options(&process, rng).open_in(process.storage()).unwrap();
    store.watermarks().durable
}

/// A process dies when the base of what it frees has its name, before it says so to anybody. Another takes a hold, and
/// its word is kept: it is refused, or whoever recovers the store does not go on with what the dead one began.
#[test]
fn a_hold_is_not_overtaken_by_what_a_dead_process_began_to_free() {
    hush();
    let rng = SimRng::new(4);
    let mut refused = 0;
    for at in 0..60 {
        let (disk, _) = filled(Profile::Posix, &rng);
        let living = disk.start();
        let store = options(&living, &rng).open_in(living.storage()).unwrap();
        let (_, died, _) = work(&disk, (Fault::Death(0), at), &rng, Store::free);
        if !died {
            break;
        }
        let begins = store.oldest().unwrap();
        let held = store.hold("reader", &Hold::new("test", "a test", begins));
        match held {
            Err(error) if error.kind() == ErrorKind::Behind => refused += 1,
            held => {
                held.unwrap();
                for after in [disk.snapshot(), disk.crash(&rng), disk.crash(&rng)] {
                    let process = after.start();
                    let store = options(&process, &rng).open_in(process.storage()).unwrap();
                    let now = store.oldest().unwrap();
                    assert!(now <= begins, "change {at}: held from {begins}, begins at {now}");
                }
            }
        }
        living.kill();
    }
    assert!(refused > 0, "one of them died between the two steps");
}

/// The same death, and then a first scan begins. It does not begin where the dead process was about to let go: when the
/// power is lost in the middle of it, its queue would go on behind a gap (Q1).
#[test]
fn a_first_scan_does_not_begin_before_what_a_dead_process_began_to_free() {
    hush();
    let rng = SimRng::new(7);
    let mut behind = 0;
    for at in 0..60 {
        let (disk, lsns) = filled(Profile::Posix, &rng);
        let living = disk.start();
        let store = options(&living, &rng).open_in(living.storage()).unwrap();
        let (_, died, _) = work(&disk, (Fault::Death(0), at), &rng, Store::free);
        if !died {
            break;
        }
        let lock = store.lock_phase(Phase::Scan).unwrap();
        let mut queue = store.queue_writer(&lock).unwrap();
        behind += u64::from(queue.scanned_through() > Lsn(1_000));
        store.free().unwrap();
        let (begins, scanned) = (store.oldest().unwrap(), queue.scanned_through());
        assert!(
            begins <= scanned,
            "change {at}: begins at {begins}, scanned to {scanned}"
        );
        let first = lsns.iter().copied().find(|lsn| *lsn > queue.scanned_through());
        queue.append(Vec::new(), first.unwrap()).unwrap();
        queue.sync().unwrap();
        for after in [disk.snapshot(), disk.crash(&rng), disk.crash(&rng)] {
            let process = after.start();
            let store = options(&process, &rng).open_in(process.storage()).unwrap();
            let (scanned, begins) = (store.watermarks().scanned, store.oldest().unwrap());
            assert!(
                scanned >= begins,
                "change {at}: scanned to {scanned}, begins at {begins}"
            );
        }
        drop(queue);
        living.kill();
    }
    assert!(behind > 0, "one of them died between the two steps");
}

/// Commits free by themselves where the log is at its limit. Whatever fails then, what was acknowledged and is kept is
/// there, and the next commits go in.
#[test]
fn every_fault_of_a_commit_that_frees_at_the_limit_loses_nothing() {
    hush();
    let (mut faults, rng) = (0, SimRng::new(5));
    let disk = SimDisk::like(Profile::Posix, 6);
    let process = disk.start();
    let options = options(&process, &rng).retention(Retention::Bytes(1 << 20));
    let store = options
        .limit(4 << 20)
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    let lsns: Vec<Lsn> = (0..9)
        .map(|number| commit(&store, number, 300_000).unwrap())
        .collect();
    assert_eq!(store.oldest().unwrap(), Lsn::ZERO);
    process.kill();
    drop(store);
    for fault in Fault::ALL {
        for at in (0..).step_by(2) {
            let disk = disk.snapshot();
            let mut told = Vec::new();
            let (_, _, reached) = work(&disk, (fault, at), &rng, |store| {
                for number in 9..13 {
                    told.push(commit(store, number, 300_000)?);
                }
                Ok(())
            });
            for after in [disk.snapshot(), disk.crash(&rng)] {
                let process = after.start();
                let store = self::options(&process, &rng).open_in(process.storage()).unwrap();
                let begins = store.oldest().unwrap();
                let start = store.stream_start("s").unwrap();
                let read = store.read_stream("s", start).unwrap();
                let read: Vec<Lsn> = read.map(|event| event.unwrap().lsn).collect();
                let acknowledged = lsns.iter().chain(&told).filter(|lsn| **lsn > begins);
                assert!(
                    acknowledged.clone().all(|lsn| read.contains(lsn)),
                    "{fault:?} at {at}: {read:?} of {acknowledged:?}"
                );
                assert!(begins.0 + (1 << 20) <= store.watermarks().durable.0);
                for number in 20..24 {
                    commit(&store, number, 300_000).unwrap();
                }
                assert!(store.oldest().unwrap() > Lsn::ZERO);
            }
            if !reached {
                break;
            }
            faults += 1;
        }
    }
    println!("{faults} faults of commits at the limit");
    assert!(faults > 200, "{faults}");
}
