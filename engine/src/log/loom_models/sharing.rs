//! Processes that share a sync: of those who begin in the same moment one syncs and the others wait for it; nobody says
//! durable of what no sync has taken (S1), and nobody waits for a sync that nobody makes.

use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::control::Control;
use super::super::durable::{Share, is_elected, share};
use super::{NoTime, control_of, explored};
use crate::Lsn;
use crate::storage::Cell;
use crate::sync::Ordering;

/// A file of which only lengths are known, and how often it was synced.
#[derive(Default)]
struct File {
    written: AtomicU64,
    on_disk: AtomicU64,
    syncs: AtomicU64,
}

impl File {
    /// What was written before is on disk afterwards; a sync takes what it finds.
    fn sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let found = self.written.load(Ordering::Relaxed);
        self.on_disk.fetch_max(found, Ordering::Relaxed);
    }

    /// Writes one byte and publishes it, as who holds the append lock does.
    fn append(&self, control: &Control, to: u64) {
        self.written.store(to, Ordering::Relaxed);
        control.cells().store(Cell::Appended, to);
    }
}

/// How a process makes its own bytes durable.
type MakeDurable = fn(&Control, &File, Lsn);

fn as_the_log_does(control: &Control, file: &File, to: Lsn) {
    while control.durable() < to {
        let Some(share) = share(control, &NoTime, to) else {
            continue;
        };
        let target = control.appended();
        if is_elected(control, &NoTime, target, share) {
            file.sync();
            control.raise_durable(target);
        }
    }
}

/// Two processes, of which the second appends while the first may sync already, each wait for their own.
fn two_make_durable(read: Ordering, write: Ordering, make_durable: MakeDurable) {
    explored(move || {
        let (control, file) = (control_of(read, write), Arc::new(File::default()));
        file.append(&control, 1);
        let first = {
            let (control, file) = (control.clone(), Arc::clone(&file));
            thread::spawn(move || {
                make_durable(&control, &file, Lsn(1));
                let on_disk = file.on_disk.load(Ordering::Relaxed);
                assert!(on_disk >= 1, "S1: durable, and not on disk");
            })
        };
        file.append(&control, 2);
        make_durable(&control, &file, Lsn(2));
        let on_disk = file.on_disk.load(Ordering::Relaxed);
        assert!(on_disk >= 2, "S1: durable, and not on disk");
        first.join().unwrap();
        assert!(file.syncs.load(Ordering::Relaxed) <= 2, "nobody syncs twice");
    });
}

#[test]
fn whoever_shares_a_sync_has_its_bytes_on_disk() {
    two_make_durable(Ordering::Acquire, Ordering::Release, as_the_log_does);
}

#[test]
#[should_panic(expected = "S1")]
fn durable_that_is_raised_before_the_sync_is_raised_too_early() {
    two_make_durable(Ordering::Acquire, Ordering::Release, |control, file, to| {
        while control.durable() < to {
            let Some(share) = share(control, &NoTime, to) else {
                continue;
            };
            let target = control.appended();
            if is_elected(control, &NoTime, target, share) {
                control.raise_durable(target);
                file.sync();
            }
        }
    });
}

#[test]
#[should_panic(expected = "S1")]
fn a_shared_sync_is_not_on_disk_when_loads_do_not_acquire() {
    two_make_durable(Ordering::Relaxed, Ordering::Release, as_the_log_does);
}

#[test]
#[should_panic(expected = "S1")]
fn a_shared_sync_is_not_on_disk_when_stores_do_not_release() {
    two_make_durable(Ordering::Acquire, Ordering::Relaxed, as_the_log_does);
}

/// Two begin in the same moment with the same target: exactly one syncs, and wakes the other.
fn begun_by_two_at_once(elected: fn(&Control, Lsn) -> bool, raise: fn(&Control)) {
    explored(move || {
        let control = control_of(Ordering::Acquire, Ordering::Release);
        let file = Arc::new(File::default());
        file.append(&control, 1);
        let process = || {
            let (control, file) = (control.clone(), Arc::clone(&file));
            move || {
                if elected(&control, Lsn(1)) {
                    file.sync();
                    raise(&control);
                }
                assert_eq!(control.durable(), Lsn(1));
            }
        };
        let other = thread::spawn(process());
        process()();
        other.join().unwrap();
        assert_eq!(file.syncs.load(Ordering::Relaxed), 1, "one sync serves both");
    });
}

fn offered(control: &Control, target: Lsn) -> bool {
    is_elected(control, &NoTime, target, Share::Offered)
}

#[test]
fn of_two_who_begin_at_once_one_syncs() {
    begun_by_two_at_once(offered, |control| control.raise_durable(Lsn(1)));
}

#[test]
#[should_panic(expected = "one sync serves both")]
fn who_looks_and_then_says_so_is_not_alone() {
    let looks_first = |control: &Control, target: Lsn| {
        if control.lsn(Cell::SyncBegun) >= target {
            return offered(control, target);
        }
        control.cells().store(Cell::SyncBegun, target.0);
        true
    };
    begun_by_two_at_once(looks_first, |control| control.raise_durable(Lsn(1)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_sync_whose_end_wakes_nobody_is_waited_for_for_ever() {
    begun_by_two_at_once(offered, |control| control.cells().store(Cell::Durable, 1));
}

/// One that was waited for in vain is not waited for again: its process may be dead.
#[test]
fn who_waited_in_vain_syncs_by_itself() {
    explored(|| {
        let control = control_of(Ordering::Acquire, Ordering::Release);
        let file = File::default();
        file.append(&control, 1);
        control.cells().store(Cell::SyncBegun, 1);
        assert!(is_elected(&control, &NoTime, Lsn(1), Share::Refused));
    });
}
