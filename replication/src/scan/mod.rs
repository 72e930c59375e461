//! The scan phase: moves what somebody is due from the log into the stable queue.
//!
//! ```text
//! log, frame by frame ──► decide (catalog in force there, R4) ──► entries ──► queue, with scanned_through (Q1)
//! ```
//!
//! Guarantees: entries are a function of the durable log, in its order, each transaction at most once;
//! markers are through when the position passes them (architecture, 7). Refuses: to run twice on a
//! store, and to look beyond what is durable (R2).

mod decide;
mod entry;
mod phase;

pub use decide::Decider;
pub use entry::{ENTRY_FRAME, Entry, NewEntry};
pub use phase::{ScanPhase, Scanned};

#[cfg(test)]
mod tests;
