//! What the scan phase tells senders and those who wait for a marker: entries and scan position advance
//! together (Q1), and no wait for a position is forgotten.

use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::control::{Control, LOOK_AGAIN};
use super::{control_of, explored};
use crate::Lsn;
use crate::storage::Cell;
use crate::sync::Ordering;

const END: Lsn = Lsn(1);
const MARKER: Lsn = Lsn(5);

/// An entry of one byte is written and published with `publish` while another thread looks for
/// it once `seen` says that the scan has passed [`MARKER`].
fn marker_awaited(read: Ordering, write: Ordering, publish: fn(&Control), seen: fn(&Control) -> bool) {
    explored(move || {
        let control = control_of(read, write);
        let entry = Arc::new(AtomicU64::new(0));
        // The thread that looks is the spawned one: loom remembers only the last look at a word, and a
        // raise looks too, so the other way round it would never try the look after the raise.
        let sender = {
            let (control, entry) = (control.clone(), Arc::clone(&entry));
            thread::spawn(move || {
                if seen(&control) {
                    let queued = control.lsn(Cell::QueueAppended);
                    assert!(queued >= END, "Q1: scanned beyond what is queued");
                    let byte = entry.load(Ordering::Relaxed);
                    assert_eq!(byte, 1, "Q1: published without its bytes");
                }
            })
        };
        entry.store(1, Ordering::Relaxed);
        publish(&control);
        sender.join().unwrap();
    });
}

fn in_order(control: &Control) {
    control.publish_entries(END, MARKER);
}

fn counter_first(control: &Control) -> bool {
    loop {
        let seen = control.cells().load(Cell::WakeScanned);
        if control.lsn(Cell::Scanned) >= MARKER {
            return true;
        }
        control.cells().wait(Cell::WakeScanned, seen, LOOK_AGAIN);
    }
}

#[test]
fn who_sees_its_marker_passed_sees_every_entry_before_it() {
    marker_awaited(Ordering::Acquire, Ordering::Release, in_order, counter_first);
}

#[test]
#[should_panic(expected = "scanned beyond what is queued")]
fn the_scan_position_must_not_be_published_before_its_entries() {
    let swapped = |control: &Control| {
        control.publish_scanned(MARKER);
        control.publish_entries(END, MARKER);
    };
    marker_awaited(Ordering::Acquire, Ordering::Release, swapped, counter_first);
}

/// A sender looks once, without waiting: what it sees as scanned must be there.
fn looked_at_once(read: Ordering, write: Ordering) {
    marker_awaited(read, write, in_order, |control| {
        control.lsn(Cell::Scanned) >= MARKER
    });
}

#[test]
fn what_is_seen_as_scanned_is_there() {
    looked_at_once(Ordering::Acquire, Ordering::Release);
}

#[test]
#[should_panic(expected = "Q1")]
fn entries_are_missed_when_loads_do_not_acquire() {
    looked_at_once(Ordering::Relaxed, Ordering::Release);
}

#[test]
#[should_panic(expected = "Q1")]
fn entries_are_missed_when_stores_do_not_release() {
    looked_at_once(Ordering::Acquire, Ordering::Relaxed);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_marker_is_waited_for_for_ever_when_the_counter_is_read_after_the_position() {
    let level_first = |control: &Control| {
        while control.lsn(Cell::Scanned) < MARKER {
            let seen = control.cells().load(Cell::WakeScanned);
            control.cells().wait(Cell::WakeScanned, seen, LOOK_AGAIN);
        }
        true
    };
    marker_awaited(Ordering::Acquire, Ordering::Release, in_order, level_first);
}
