//! Quarantine: transactions that are kept with the reason because they cannot be applied, while what does not depend on them goes
//! on (R6).
//!
//! ```text
//! before a frame is made   gate ─ apply ─► log
//!                            └─ a remote of policy go-on ─► record: one frame with bytes, reason and position (R1)
//! an operator              operator ─ retry ─► log, at a new LSN, with its origin     ─ drop ─► a frame that says so
//! the neighbour            report ─► every message to it ─► its status
//! ```
//!
//! What is held is a pinned record and the frame that it names, so all of this is found in the log. Whole messages that cannot be
//! taken, and all that a remote of policy stop does not pass, are set aside in files instead ([`crate::receive::quarantined`]),
//! and stay on their link.
//!
//! Guarantees: what is held is applied at most once, never counted as applied while it is held, and never lost with what the log
//! frees. Refuses to hold what does not fit into a frame, and more than its bounds.

mod gate;
mod index;
mod operator;
mod record;
mod report;

pub use gate::{Gate, MOST_HELD, MOST_HELD_BYTES, QUARANTINE_HOLD};
pub use operator::{HeldTransaction, Quarantine, Retried, held, held_of};
pub use record::{
    DROPPED, HELD, HELD_PREFIX, HeldCause, HeldKey, HeldRecord, MAX_REASON, held_prefix, read_held,
};
pub use report::trouble_with;
