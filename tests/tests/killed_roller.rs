//! The story of a loss: a process began a new segment and was killed after naming it, before the folder
//! was synced. Another process found the segment, committed in it, synced it and acknowledged. Then
//! power was lost, and with it the segment's name and the commit (S2, E1, E5).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use milepost_engine::{Event, Options, Result, Store, StreamVersion, Transaction};
use milepost_tests::SimRng;
use milepost_tests::disk::{Killed, Script, SimDisk, SimProcess, Verdict};

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn open(process: &SimProcess, rng: &SimRng) -> Result<Store> {
    options(process, rng).open_in(process.storage())
}

fn one_event(kind: &str) -> Transaction {
    let mut transaction = Transaction::new();
    transaction
        .push(&Event::new("stock", kind, *b"1").unwrap())
        .unwrap();
    transaction
}

/// Opens, commits and rolls in a process that is killed at its `change`-th change; false once it is
/// through before.
fn roll_and_die(disk: &SimDisk, rng: &SimRng, change: u64) -> bool {
    let victim = disk.directed(Arc::new(Script::new([(change, Verdict::Kill)])));
    let life = AssertUnwindSafe(|| {
        let Ok(store) = open(&victim, rng) else { return };
        let rolled = store.commit(one_event("victim")).and_then(|_| store.rotate(0));
        assert!(rolled.is_ok() || !victim.is_alive());
    });
    // A killed process that waits for what never comes is unwound.
    if let Err(end) = std::panic::catch_unwind(life) {
        assert!(end.is::<Killed>());
    }
    !victim.is_alive()
}

#[test]
fn a_process_killed_anywhere_in_a_roll_costs_the_others_nothing() {
    let mut change = 0;
    loop {
        let (disk, rng) = (SimDisk::new(change), SimRng::new(change));
        let founder = disk.start();
        drop(
            options(&founder, &rng)
                .init_in(founder.storage(), "bern".parse().unwrap())
                .unwrap(),
        );
        let survivor = disk.start();
        let store = open(&survivor, &rng).unwrap();
        let died = roll_and_die(&disk, &rng, change);
        let lsn = store
            .commit(one_event("survivor"))
            .unwrap()
            .committed()
            .unwrap()
            .lsn;
        for _ in 0..40 {
            let process = disk.crash(&rng).start();
            let after = open(&process, &rng).unwrap();
            let found = after
                .read_stream("stock", StreamVersion(0))
                .unwrap()
                .map(|event| event.unwrap());
            let kinds: Vec<String> = found
                .filter(|event| event.lsn == lsn)
                .map(|event| event.kind)
                .collect();
            assert_eq!(kinds, ["survivor"], "killed at change {change}");
        }
        if !died {
            break;
        }
        change += 1;
    }
    assert!(change > 6, "a commit and a roll are several changes");
}

#[test]
fn what_is_committed_after_a_roller_died_alone_survives_a_power_cut() {
    let mut change = 0;
    loop {
        let (disk, rng) = (SimDisk::new(change), SimRng::new(change));
        let founder = disk.start();
        let made = options(&founder, &rng).init_in(founder.storage(), "bern".parse().unwrap());
        drop(made.unwrap());
        let died = roll_and_die(&disk, &rng, change);
        // Nobody else had the store open: the next one recovers it.
        let next = disk.start();
        let store = open(&next, &rng).unwrap();
        let committed = store.commit(one_event("next")).unwrap().committed().unwrap();
        for _ in 0..40 {
            let process = disk.crash(&rng).start();
            let after = open(&process, &rng).unwrap();
            let events = after.read_stream("stock", StreamVersion(0)).unwrap();
            let found = events.map(|event| event.unwrap().lsn).last();
            assert_eq!(found, Some(committed.lsn), "killed at change {change}");
        }
        if !died {
            break;
        }
        change += 1;
    }
}
