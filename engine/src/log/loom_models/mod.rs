//! Loom models of what threads and processes tell each other: the log's own steps, over the loom twin of
//! the control page and the loom shim of locks.
//!
//! ```text
//! control_page   watermarks, intents, tails: who writes, who reads, who waits
//! group          who leads a group commit, who gets which result
//! queue          entries and scan position, and who waits for a marker (Q1)
//! ```
//!
//! Each property is shown twice: it holds with the orderings that [`SharedCells`](crate::storage::SharedCells)
//! promises and the steps in their order, and it fails, as it must, when an ordering is weakened or two steps
//! change places. A model that could not fail would prove nothing.

mod control_page;
mod group;
mod queue;

use std::sync::Arc;

use super::control::Control;
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
