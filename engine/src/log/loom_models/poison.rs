//! A failed sync is told to one thread once; whoever else could say that the log is durable must know of it first (S1).
//! A log that was healed has others' bytes where those of a dead handle were; whoever wrote them must not take
//! the others' for its own (S3, E1).

use std::io;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::thread;

use super::super::control::{Control, LOOK_AGAIN};
use super::super::durable::Syncer;
use super::{control_of, explored};
use crate::Lsn;
use crate::storage::Cell;
use crate::sync::Ordering;

/// A kernel that could not write back, and tells one of those who sync a descriptor.
fn told_once(untold: &AtomicBool) -> io::Result<()> {
    if untold.swap(false, Ordering::Relaxed) {
        return Err(io::ErrorKind::Other.into());
    }
    Ok(())
}

type Sync = fn(&Syncer, &Control, &AtomicBool) -> io::Result<()>;

fn in_turn(syncer: &Syncer, control: &Control, untold: &AtomicBool) -> io::Result<()> {
    syncer.sync_or_poison(control, 0, || told_once(untold))
}

/// Two threads of a handle sync the same descriptor, whose write-back has failed.
fn two_sync_what_is_lost(sync: Sync, asks_afterwards: bool) {
    explored(move || {
        let control = control_of(Ordering::Acquire, Ordering::Release);
        control.cells().store(Cell::Appended, 1);
        let (syncer, untold) = (Arc::new(Syncer::default()), Arc::new(AtomicBool::new(true)));
        let syncs = || {
            let (control, syncer, untold) = (control.clone(), Arc::clone(&syncer), Arc::clone(&untold));
            move || {
                if !asks_afterwards && control.check_poison(0).is_err() {
                    return;
                }
                let synced = sync(&syncer, &control, &untold).is_ok();
                if synced && (!asks_afterwards || control.check_poison(0).is_ok()) {
                    control.raise_durable(Lsn(1));
                }
            }
        };
        let other = thread::spawn(syncs());
        syncs()();
        other.join().unwrap();
        assert_eq!(control.durable(), Lsn::ZERO, "S1: durable, and not on disk");
        assert!(control.check_poison(0).is_err(), "the handle is dead");
    });
}

#[test]
fn what_the_kernel_has_told_one_thread_no_other_overlooks() {
    two_sync_what_is_lost(in_turn, true);
}

#[test]
#[should_panic(expected = "S1")]
fn a_failure_that_is_told_after_the_next_sync_is_told_too_late() {
    let apart: Sync = |_, control, untold| {
        let synced = told_once(untold);
        if synced.is_err() {
            control.set_poisoned(0);
        }
        synced
    };
    two_sync_what_is_lost(apart, true);
}

#[test]
#[should_panic(expected = "S1")]
fn who_asks_for_poison_before_its_sync_asks_too_early() {
    two_sync_what_is_lost(in_turn, false);
}

type Wait = fn(&Control);

fn counter_first(control: &Control) {
    loop {
        let seen = control.cells().load(Cell::WakeDurable);
        if control.durable() >= Lsn(1) || control.check_poison(0).is_err() {
            return;
        }
        control.cells().wait(Cell::WakeDurable, seen, LOOK_AGAIN);
    }
}

/// One thread waits for durable while another learns that it will not come.
fn awaited_in_vain(wait: Wait, poison: fn(&Control)) {
    explored(move || {
        let control = control_of(Ordering::Acquire, Ordering::Release);
        let waiter = {
            let control = control.clone();
            thread::spawn(move || wait(&control))
        };
        poison(&control);
        waiter.join().unwrap();
    });
}

#[test]
fn who_waits_for_durable_is_woken_by_poison() {
    awaited_in_vain(counter_first, |control| control.set_poisoned(0));
}

#[test]
#[should_panic(expected = "deadlock")]
fn poison_that_wakes_nobody_leaves_them_waiting() {
    awaited_in_vain(counter_first, |control| {
        control.cells().store(Cell::Poison, 1);
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn poison_is_missed_when_the_counter_is_read_after_it() {
    let poison_first = |control: &Control| {
        while control.check_poison(0).is_ok() {
            let seen = control.cells().load(Cell::WakeDurable);
            control.cells().wait(Cell::WakeDurable, seen, LOOK_AGAIN);
        }
    };
    awaited_in_vain(poison_first, |control| control.set_poisoned(0));
}

#[derive(Clone, Copy)]
enum Step {
    Cut,
    BeginGeneration,
    WriteAnothers,
    RaiseDurable,
}

const IN_ORDER: [Step; 4] = [
    Step::Cut,
    Step::BeginGeneration,
    Step::WriteAnothers,
    Step::RaiseDurable,
];

/// A dead handle has written 7 as the byte at 1 and asks whether it is durable, while another heals the log,
/// cuts that byte and writes 9 there.
fn asked_while_healed(read: Ordering, write: Ordering, order: [Step; 4], asks: fn(&Control) -> bool) {
    explored(move || {
        let control = control_of(read, write);
        control.cells().store(Cell::Appended, 2);
        control.cells().store(Cell::Durable, 1);
        control.set_poisoned(0);
        let byte = Arc::new(AtomicU64::new(7));
        let asker = {
            let (control, byte) = (control.clone(), Arc::clone(&byte));
            thread::spawn(move || {
                if asks(&control) {
                    assert_eq!(byte.load(Ordering::Relaxed), 7, "E1: acknowledged, and cut");
                }
            })
        };
        for step in order {
            match step {
                Step::Cut => control.cells().store(Cell::Appended, 1),
                Step::BeginGeneration => control.begin_generation(1, 2),
                Step::WriteAnothers => {
                    byte.store(9, Ordering::Relaxed);
                    control.cells().store(Cell::Appended, 2);
                }
                Step::RaiseDurable => control.raise_durable(Lsn(2)),
            }
        }
        asker.join().unwrap();
    });
}

fn durable_first(control: &Control) -> bool {
    control.durable() >= Lsn(2) && control.check_not_healed(0).is_ok()
}

#[test]
fn who_sees_anothers_bytes_as_durable_sees_that_the_log_was_healed() {
    asked_while_healed(Ordering::Acquire, Ordering::Release, IN_ORDER, durable_first);
}

#[test]
#[should_panic(expected = "E1")]
fn who_asks_for_the_generation_before_durable_takes_anothers_bytes_for_its_own() {
    let asks = |control: &Control| control.check_not_healed(0).is_ok() && control.durable() >= Lsn(2);
    asked_while_healed(Ordering::Acquire, Ordering::Release, IN_ORDER, asks);
}

#[test]
#[should_panic(expected = "E1")]
fn a_generation_that_begins_after_the_first_write_begins_too_late() {
    let order = [
        Step::Cut,
        Step::WriteAnothers,
        Step::RaiseDurable,
        Step::BeginGeneration,
    ];
    asked_while_healed(Ordering::Acquire, Ordering::Release, order, durable_first);
}

#[test]
#[should_panic(expected = "E1")]
fn the_generation_is_missed_when_loads_do_not_acquire() {
    asked_while_healed(Ordering::Relaxed, Ordering::Release, IN_ORDER, durable_first);
}

#[test]
#[should_panic(expected = "E1")]
fn the_generation_is_missed_when_stores_do_not_release() {
    asked_while_healed(Ordering::Acquire, Ordering::Relaxed, IN_ORDER, durable_first);
}
