//! Loom models of what threads and processes tell each other: the log's own steps, over the loom twin of
//! the control page and the loom shim of locks.
//!
//! ```text
//! append_lock    who waits for the append lock, and who wakes them (E5)
//! control_page   watermarks, intents, tails: who writes, who reads, who waits
//! group          who leads a group commit, who gets which result
//! poison         who learns of a failed sync, and of a log that was healed (S1, S3)
//! queue          entries and scan position, and who waits for a marker (Q1)
//! sharing        processes that share a sync: who begins it, who waits for it (S1)
//! ```
//!
//! Each property is shown twice: it holds with the orderings that [`SharedCells`](crate::storage::SharedCells)
//! promises and the steps in their order, and it fails, as it must, when an ordering is weakened or two steps
//! change places. A model that could not fail would prove nothing.

mod append_lock;
mod control_page;
mod group;
mod poison;
mod queue;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use super::control::Control;
use crate::clock::Clock;
use crate::storage::LoomCells;
use crate::sync::Ordering;

/// Runs every interleaving with at most three preemptions: enough for each trap, and the three threads
/// of one model stay within seconds.
fn explored(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A control page of zeros with these orderings for loads and stores.
fn control_of(read: Ordering, write: Ordering) -> Control {
    Control::new(Arc::new(LoomCells::ordered(read, write)))
}

/// The same without the fences that keep a sleeper from being overlooked.
fn unfenced_control() -> Control {
    Control::new(Arc::new(LoomCells::unfenced()))
}

/// A clock that stands still: whoever waits in a model is woken, or waits for ever.
struct NoTime;

impl Clock for NoTime {
    fn wall_micros(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) {
        loom::thread::yield_now();
    }
}
