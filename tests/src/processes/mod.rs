//! Real processes on one real store (E1, E2, E5).
//!
//! ```text
//! worker process ── commits on the store ──────────────► store ◄── read by reader processes
//!       └── "submit tag", "ack tag lsn" through a pipe ─► witness, which no kill reaches
//! ```
//!
//! Every transaction is a pure function of its tag ([`shape`]), so that whoever finds one in the log
//! can tell byte for byte whether it is what was submitted.

pub mod child;
pub mod findings;
pub mod follow;
pub mod keep;
pub mod plant;
pub mod shape;
pub mod stall;
pub mod witness;
pub mod worker;

pub use child::Worker;
pub use findings::{Difference, Findings};
pub use keep::look;
pub use shape::Tag;
pub use witness::Witness;
