//! The hold `replication`: what a site that replicates still needs of its log.
//!
//! Subscriptions are sent from history, positions told by neighbours are compared with it (R5), and what was received
//! by another way is known by its origin, which stands in the log (R1, R4). So a site with a definition in its catalog keeps all
//! that its log has when the first one is made. Dropped by an operator, it is taken again by the next agent or
//! definition, from where the log begins by then.

use milepost_engine::{ErrorKind, Hold, Result, Store};

/// Its name.
pub const HOLD: &str = "replication";
const KIND: &str = "replication";
const OWNER: &str =
    "the message agent: history, positions of neighbours and origins of what was received stand in it";

/// Takes the hold of a site that replicates, unless it is there.
///
/// # Errors
/// `Unavailable` while another process frees segments for longer than the lock's time limit; `Internal`.
pub fn keep_history(store: &Store) -> Result<()> {
    loop {
        if store.holds()?.iter().any(|hold| hold.name == HOLD) {
            return Ok(());
        }
        match store.hold(HOLD, &Hold::new(KIND, OWNER, store.oldest()?)) {
            // Freed meanwhile: from where it begins now.
            Err(error) if error.kind() == ErrorKind::Behind => {}
            other => return other,
        }
    }
}
