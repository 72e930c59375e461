//! What of a transaction is in our log already, known by its origin (R4).
//!
//! A neighbour's positions say what it sent before; they cannot say what came over another way: from a
//! pair that was made anew, from a subscription that was revoked and made again, from a middle site that
//! was put back to an older copy and passes on what it had passed on. An event is the same when origin,
//! ordinal, time of commit, stream, kind, headers and payload agree. Origin alone would not do: a site that
//! went back and committed other things has them at places that were used before.

use milepost_engine::frame::{EventRef, event_check};
use milepost_engine::{Receipt, Result};

use crate::message::Carried;

/// One event of a transaction, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldEvent {
    /// Its number in the transaction at its origin.
    pub ordinal: u32,
    /// Checksum of everything else that makes it the same event, as the engine keeps it of what was freed.
    pub check: u64,
}

impl From<Receipt> for HeldEvent {
    fn from(Receipt { ordinal, check }: Receipt) -> HeldEvent {
        HeldEvent { ordinal, check }
    }
}

impl HeldEvent {
    /// An event that was first committed at `committed_at`.
    ///
    /// # Errors
    /// `Corrupt` when the event cannot be read.
    pub fn of(committed_at: i64, event: &EventRef<'_>) -> Result<HeldEvent> {
        Ok(HeldEvent {
            ordinal: event.ordinal,
            check: event_check(committed_at, event)?,
        })
    }

    /// The events of a transaction that travels.
    ///
    /// # Errors
    /// As [`HeldEvent::of`].
    pub fn all_of(carried: &Carried) -> Result<Vec<HeldEvent>> {
        let of = |event: Result<EventRef<'_>>| HeldEvent::of(carried.committed_at, &event?);
        carried.events().map(of).collect()
    }
}
