//! What writers, readers and those who wait tell each other through the control page: the steps of
//! [`Control`], which the log takes, over the loom twin of the page.

use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::control::{Control, LOOK_AGAIN, Tail};
use super::{control_of, explored, unfenced_control};
use crate::storage::Cell;
use crate::sync::{Mutex, Ordering};
use crate::{Chain, Epoch, Lsn};

fn control(read: Ordering, write: Ordering) -> Control {
    let control = control_of(read, write);
    control.cells().store(Cell::Appended, 2);
    control
}

/// Two threads raise `durable` to 1 and 2 while this one waits for 2. A lost wake-up is a deadlock.
fn raised_by_two_and_awaited(read: Ordering, write: Ordering) {
    awaited_of_two(move || control(read, write));
}

fn awaited_of_two(control: impl Fn() -> Control + Sync + Send + 'static) {
    explored(move || {
        let control = control();
        let raisers = [1, 2].map(|to| {
            let control = control.clone();
            thread::spawn(move || control.raise_durable(Lsn(to)))
        });
        loop {
            let seen = control.cells().load(Cell::WakeDurable);
            if control.durable() >= Lsn(2) {
                break;
            }
            control.cells().wait(Cell::WakeDurable, seen, LOOK_AGAIN);
        }
        for raiser in raisers {
            raiser.join().unwrap();
        }
        assert_eq!(control.durable(), Lsn(2), "a watermark is never lowered");
    });
}

#[test]
fn no_wake_up_is_lost_and_no_raise_is_undone() {
    raised_by_two_and_awaited(Ordering::Acquire, Ordering::Release);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_when_stores_do_not_release() {
    raised_by_two_and_awaited(Ordering::Acquire, Ordering::Relaxed);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_when_loads_do_not_acquire() {
    raised_by_two_and_awaited(Ordering::Relaxed, Ordering::Release);
}

/// The trap: who raises sees nobody asleep yet, and who goes to sleep sees nothing raised yet.
#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_when_nothing_stands_between_the_counter_and_the_sleepers() {
    awaited_of_two(|| {
        let control = unfenced_control();
        control.cells().store(Cell::Appended, 2);
        control
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_when_the_counter_is_read_after_the_level() {
    explored(|| {
        let control = control(Ordering::Acquire, Ordering::Release);
        let other = control.clone();
        let raiser = thread::spawn(move || other.raise_durable(Lsn(1)));
        while control.durable() < Lsn(1) {
            let seen = control.cells().load(Cell::WakeDurable);
            control.cells().wait(Cell::WakeDurable, seen, LOOK_AGAIN);
        }
        raiser.join().unwrap();
    });
}

/// A log of two blocks of one byte each, the words beside it, and its append lock.
struct Blocks {
    control: Control,
    bytes: [AtomicU64; 2],
    lock: Mutex<()>,
}

impl Blocks {
    fn new(read: Ordering, write: Ordering) -> Arc<Blocks> {
        Arc::new(Blocks {
            control: control_of(read, write),
            bytes: std::array::from_fn(|_| AtomicU64::new(0)),
            lock: Mutex::new(()),
        })
    }

    /// The steps of a write under the append lock; the writer is killed before step `killed_at`.
    fn append(&self, order: [Step; 4], killed_at: usize) {
        let _guard = self.lock.lock();
        let at = self.control.appended();
        for step in order.into_iter().take(killed_at) {
            match step {
                Step::Announce => self.control.announce(at, 1),
                Step::AnnounceUnfenced => {
                    self.control.cells().store(Cell::IntentLen, 1);
                    self.control.cells().store(Cell::Intent, at.0 + 1);
                }
                Step::Write => self.byte(at).store(1, Ordering::Relaxed),
                Step::Publish => self.control.publish(Tail {
                    at: at.plus(1),
                    chain: Chain(at.0),
                    segment: Lsn::ZERO,
                    epoch: Epoch(0),
                }),
                Step::Clear => self.control.clear_intent(),
            }
        }
    }

    fn byte(&self, at: Lsn) -> &AtomicU64 {
        &self.bytes[crate::width::to_usize(at.0)]
    }

    fn written_bytes(&self) -> Lsn {
        Lsn(self.bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).sum())
    }
}

#[derive(Clone, Copy)]
enum Step {
    Announce,
    AnnounceUnfenced,
    Write,
    Publish,
    Clear,
}

const IN_ORDER: [Step; 4] = [Step::Announce, Step::Write, Step::Publish, Step::Clear];

/// Who takes the append lock after a writer that was killed at any step: without an intent the
/// published tail is exact, so nothing lies beyond it that a new block could be mixed with (E5).
fn killed_anywhere_then_repaired(order: [Step; 4]) {
    for killed_at in 0..=order.len() {
        explored(move || {
            let log = Blocks::new(Ordering::Acquire, Ordering::Release);
            let writer = {
                let log = Arc::clone(&log);
                thread::spawn(move || log.append(order, killed_at))
            };
            {
                let _guard = log.lock.lock();
                let known = log.control.intent().is_some() || log.written_bytes() == log.control.appended();
                assert!(known, "bytes lie beyond the tail and nobody knows");
            }
            writer.join().unwrap();
        });
    }
}

#[test]
fn a_killed_writer_leaves_its_intent_wherever_bytes_lie_beyond_the_tail() {
    killed_anywhere_then_repaired(IN_ORDER);
}

#[test]
#[should_panic(expected = "nobody knows")]
fn an_intent_stored_after_the_bytes_comes_too_late() {
    killed_anywhere_then_repaired([Step::Write, Step::Announce, Step::Publish, Step::Clear]);
}

#[test]
#[should_panic(expected = "nobody knows")]
fn an_intent_cleared_before_the_tail_is_published_is_cleared_too_early() {
    killed_anywhere_then_repaired([Step::Announce, Step::Write, Step::Clear, Step::Publish]);
}

/// Who looks without the lock while two blocks are written: below the published tail every byte is
/// there, and no byte lies at or beyond [`Control::written`], which S1 takes for the first byte that a
/// descriptor opened before has surely been told of.
fn looked_at_without_the_lock(read: Ordering, write: Ordering, order: [Step; 4]) {
    explored(move || {
        let log = Blocks::new(read, write);
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                log.append(order, order.len());
                log.append(order, order.len());
            })
        };
        // A byte that was seen stands for a write that came before our descriptor was opened.
        let seen = log.written_bytes();
        let written = log.control.written();
        assert!(seen <= written, "written without being announced");
        let appended = log.control.appended();
        assert!(log.written_bytes() >= appended, "published without its bytes");
        writer.join().unwrap();
    });
}

#[test]
fn who_sees_the_tail_sees_the_bytes_below_it_and_none_beyond_what_is_announced() {
    looked_at_without_the_lock(Ordering::Acquire, Ordering::Release, IN_ORDER);
}

#[test]
#[should_panic(expected = "written without being announced")]
fn bytes_overtake_their_announcement_without_its_fence() {
    let order = [Step::AnnounceUnfenced, Step::Write, Step::Publish, Step::Clear];
    looked_at_without_the_lock(Ordering::Acquire, Ordering::Release, order);
}

#[test]
#[should_panic(expected = "published without its bytes")]
fn the_tail_runs_ahead_of_its_bytes_when_stores_do_not_release() {
    looked_at_without_the_lock(Ordering::Acquire, Ordering::Relaxed, IN_ORDER);
}

#[test]
#[should_panic(expected = "published without its bytes")]
fn the_tail_runs_ahead_of_its_bytes_when_loads_do_not_acquire() {
    looked_at_without_the_lock(Ordering::Relaxed, Ordering::Release, IN_ORDER);
}
