//! Loom models of what processes tell each other through the control page.
//!
//! Each property is shown twice: it holds with the orderings that [`SharedCells`] promises and the
//! steps in their order, and it fails, as it must, when an ordering is weakened or two steps change
//! places. A model that could not fail would prove nothing.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{Cell, LoomCells, SharedCells, Watermark};
use crate::sync::Mutex;

const LIMIT: Duration = Duration::from_secs(5);

/// Runs every interleaving with at most three preemptions: enough for each trap below, and the three
/// threads of one model stay within a second.
fn explored(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Threads that raise `durable` to 1 and 2 while this one waits for 2. A lost wake-up is a deadlock.
fn raised_by_two_and_awaited(read: Ordering, write: Ordering) {
    explored(move || {
        let cells = std::sync::Arc::new(LoomCells::ordered(read, write));
        let durable = Watermark::new(cells, Cell::Durable, Cell::WakeDurable);
        let raisers: Vec<_> = [1, 2]
            .map(|to| {
                let durable = durable.clone();
                thread::spawn(move || durable.raise(to))
            })
            .into();
        while !durable.wait(2, LIMIT) {}
        let raised = raisers
            .into_iter()
            .map(|raiser| raiser.join().unwrap())
            .collect::<Vec<_>>();
        assert!(raised[1], "nobody else raises it to 2");
        assert_eq!(durable.level(), 2, "a watermark is never lowered");
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

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_is_lost_when_the_counter_is_read_after_the_level() {
    explored(|| {
        let cells = std::sync::Arc::new(LoomCells::new());
        let durable = Watermark::new(cells.clone(), Cell::Durable, Cell::WakeDurable);
        let raiser = thread::spawn(move || durable.raise(1));
        while cells.load(Cell::Durable) < 1 {
            let seen = cells.load(Cell::WakeDurable);
            cells.wait(Cell::WakeDurable, seen, LIMIT);
        }
        raiser.join().unwrap();
    });
}

/// A log of one block of one byte, the words beside it, and its append lock.
struct OneBlock {
    cells: LoomCells,
    byte: AtomicU64,
    lock: Mutex<()>,
}

impl OneBlock {
    fn new(read: Ordering, write: Ordering) -> Arc<OneBlock> {
        let cells = LoomCells::ordered(read, write);
        Arc::new(OneBlock {
            cells,
            byte: AtomicU64::new(0),
            lock: Mutex::new(()),
        })
    }

    /// The steps of a commit under the append lock; the writer is killed before step `killed_at`.
    fn append(&self, order: [Step; 4], killed_at: usize) {
        let _guard = self.lock.lock();
        for step in order.into_iter().take(killed_at) {
            match step {
                Step::Intend => self.cells.store(Cell::Intent, 1),
                Step::Write => self.byte.store(1, Ordering::Relaxed),
                Step::Publish => self.cells.store(Cell::Appended, 1),
                Step::Clear => self.cells.store(Cell::Intent, 0),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    Intend,
    Write,
    Publish,
    Clear,
}

const IN_ORDER: [Step; 4] = [Step::Intend, Step::Write, Step::Publish, Step::Clear];

/// Who takes the append lock after a writer that was killed at any step: without an intent the
/// published tail is exact, so nothing lies beyond it that a new block could be mixed with (E5).
fn killed_anywhere_then_repaired(order: [Step; 4]) {
    for killed_at in 0..=order.len() {
        explored(move || {
            let log = OneBlock::new(Ordering::Acquire, Ordering::Release);
            let writer = {
                let log = Arc::clone(&log);
                thread::spawn(move || log.append(order, killed_at))
            };
            {
                let _guard = log.lock.lock();
                let (intent, appended) = (log.cells.load(Cell::Intent), log.cells.load(Cell::Appended));
                let written = log.byte.load(Ordering::Relaxed);
                assert!(
                    intent != 0 || written == appended,
                    "bytes lie beyond the tail and nobody knows"
                );
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
    killed_anywhere_then_repaired([Step::Write, Step::Intend, Step::Publish, Step::Clear]);
}

#[test]
#[should_panic(expected = "nobody knows")]
fn an_intent_cleared_before_the_tail_is_published_is_cleared_too_early() {
    killed_anywhere_then_repaired([Step::Intend, Step::Write, Step::Clear, Step::Publish]);
}

/// Who looks without the lock, as syncs and readers of the unsynced tail do: below the published tail
/// every byte is there.
fn published_and_looked_at(read: Ordering, write: Ordering) {
    explored(move || {
        let log = OneBlock::new(read, write);
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.append(IN_ORDER, IN_ORDER.len()))
        };
        if log.cells.load(Cell::Appended) == 1 {
            assert_eq!(log.byte.load(Ordering::Relaxed), 1, "published without its bytes");
        }
        writer.join().unwrap();
    });
}

#[test]
fn who_sees_the_tail_sees_the_bytes_below_it() {
    published_and_looked_at(Ordering::Acquire, Ordering::Release);
}

#[test]
#[should_panic(expected = "published without its bytes")]
fn the_tail_runs_ahead_of_its_bytes_when_stores_do_not_release() {
    published_and_looked_at(Ordering::Acquire, Ordering::Relaxed);
}

#[test]
#[should_panic(expected = "published without its bytes")]
fn the_tail_runs_ahead_of_its_bytes_when_loads_do_not_acquire() {
    published_and_looked_at(Ordering::Relaxed, Ordering::Release);
}
