//! A process dies at any operation while it changes a setting, names an archive, takes a hold or adds a key. Another, which has the store open, is told
//! that this stands already, or relies on it: then it stands when the power is lost, whoever wrote it (E1).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use milepost_engine::{Durability, Hold, Lsn, Options, Result, Retention, SiteName, Store, Transaction};
use milepost_replication::keys::{Keys, keys_of};
use milepost_tests::SimRng;
use milepost_tests::crash::{Fault, hush};
use milepost_tests::disk::{Director, Killed, Op, Profile, SimDisk, SimProcess, Verdict};

/// Power cuts tried behind each death.
const CUTS: u64 = 4;
const COUNT: u64 = 12;

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

/// A store of several small segments, open in a process that goes on living.
fn filled(profile: Profile, rng: &SimRng) -> (SimDisk, SimProcess, Store) {
    let disk = SimDisk::like(profile, 5);
    let process = disk.start();
    let options = options(&process, rng).pad_to(profile.garbage().unwrap_or(1));
    let store = options
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    for number in 0..COUNT {
        let mut transaction = Transaction::new();
        let payload = [number.to_le_bytes().as_slice(), &[7; 700]].concat();
        transaction.push_parts("s", "k", &payload).unwrap();
        let committed = store.commit_with(transaction, Durability::Synced).unwrap();
        committed.committed().unwrap();
        if number % 3 == 2 {
            store.rotate(0).unwrap();
        }
    }
    (disk, process, store)
}

/// Kills its process at one change.
struct Dies(Mutex<u64>);

impl Director for Dies {
    fn before(&self, op: &Op) -> Verdict {
        let Some(verdict) = Fault::Death(0).verdict(op) else {
            return Verdict::Go;
        };
        let mut left = self.0.lock().unwrap();
        *left = left.wrapping_sub(1);
        if *left == u64::MAX { verdict } else { Verdict::Go }
    }
}

/// Another process does the deed and dies at its `at`-th change; false when it got to the deed's end.
fn dies_at(disk: &SimDisk, at: u64, rng: &SimRng, deed: &dyn Fn(&Store) -> Result<()>) -> bool {
    let process = disk.directed(Arc::new(Dies(Mutex::new(at))));
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        deed(&options(&process, rng).open_in(process.storage())?)
    }));
    let died = !process.is_alive();
    process.kill();
    match done {
        Ok(done) => assert!(died || done.is_ok(), "{done:?}"),
        Err(payload) if payload.is::<Killed>() => {}
        Err(payload) => std::panic::resume_unwind(payload),
    }
    died
}

/// Lets `begun` die at every change, does `then` in the process that lives, and looks behind power cuts.
fn attack(begun: &dyn Fn(&Store) -> Result<()>, then: &dyn Fn(&Store) -> Result<()>, look: &dyn Fn(&Store)) {
    hush();
    let (rng, mut deaths) = (SimRng::new(6), 0);
    for profile in [Profile::Posix, Profile::Ext4, Profile::Garbage4096] {
        for at in 0.. {
            let (disk, _living, store) = filled(profile, &rng);
            let died = dies_at(&disk, at, &rng, begun);
            then(&store).unwrap();
            for _ in 0..CUTS {
                let after = disk.crash(&rng);
                let process = after.start();
                look(&options(&process, &rng).open_in(process.storage()).unwrap());
            }
            if !died {
                break;
            }
            deaths += 1;
        }
    }
    println!("{deaths} deaths, each with {CUTS} power cuts behind it");
    assert!(deaths > 10, "{deaths}");
}

fn numbers(store: &Store) -> u64 {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO).unwrap(), 0);
    while let Some(frame) = scan.next().unwrap() {
        found += u64::from(frame.event_count());
    }
    found
}

fn name_archive(store: &Store) -> Result<()> {
    store.set_archive_as("/archive".into())
}

#[test]
fn segments_are_moved_only_to_an_archive_that_the_settings_will_name_e1() {
    let named_again = |store: &Store| {
        name_archive(store)?;
        store.archive(&mut |_, _| ()).map(drop)
    };
    attack(&name_archive, &named_again, &|store| {
        assert_eq!(numbers(store), COUNT)
    });
    // One that is known is used without naming it.
    let used = |store: &Store| match store.space()?.archive {
        Some(_) => store.archive(&mut |_, _| ()).map(drop),
        None => Ok(()),
    };
    attack(&name_archive, &used, &|store| assert_eq!(numbers(store), COUNT));
}

#[test]
fn a_setting_that_stands_already_stays() {
    let keep = |store: &Store| {
        let set = store.change_space(|space| space.retention = Retention::Bytes(5_000));
        set.map(drop)
    };
    attack(&keep, &keep, &|store| {
        assert_eq!(store.space().unwrap().retention, Retention::Bytes(5_000));
    });
}

#[test]
fn a_hold_that_stands_already_holds() {
    let hold = |store: &Store| store.hold("reader", &Hold::new("test", "a test", Lsn::ZERO));
    let unless_held = |store: &Store| {
        let decide = |known: Option<&Hold>| {
            let missing = known.is_none();
            Ok(missing.then(|| Hold::new("test", "a test", Lsn::ZERO)))
        };
        store.move_hold("reader", decide).map(drop)
    };
    attack(&hold, &unless_held, &|store| {
        let holds = store.holds().unwrap();
        assert!(holds.iter().any(|hold| hold.name == "reader"), "{holds:?}");
    });
}

#[test]
fn a_key_that_is_here_already_stays() {
    let remote: SiteName = "zug".parse().unwrap();
    let (_disk, _process, drawing) = filled(Profile::Ext4, &SimRng::new(7));
    let line = Keys::new(&drawing).draw(&remote);
    let add = |store: &Store| Keys::new(store).add(&remote, &line, false).map(drop);
    attack(&add, &add, &|store| {
        let keys = keys_of(store, &remote).unwrap();
        assert!(keys.sealing().is_some(), "{keys:?}");
    });
}
