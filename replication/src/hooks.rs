//! [`Hooks`]: what an application is told of an agent's phases, and where it may refuse a transaction.
//!
//! ```text
//! receive ─ phase_began ─ message_missing … ─ before_apply ─► frame, synced ─► after_apply ─ phase_ended
//! send    ─ phase_began ─ message_sent … ─ remote_limit …                                  ─ phase_ended
//! ```
//!
//! | told | when | how often |
//! |---|---|---|
//! | [`Hooks::phase_began`], [`Hooks::phase_ended`] | a process has taken a phase, and is about to let go of it | once each; not the end of one that is killed |
//! | [`Hooks::message_sent`] | a link took a message durably | once a message; not when the process dies in between |
//! | [`Hooks::message_missing`] | a hole in a neighbour's stream is asked for | once an asking |
//! | [`Hooks::remote_limit`] | what is kept for a remote comes near its limit, reaches it, or is given up | once a state, and once a day at the limit; not when the process dies in between |
//! | [`Hooks::before_apply`] | a transaction is new here and about to be appended | at least once: again after a crash, a failure, or a lack of space before it was durable, and with every retry |
//! | [`Hooks::after_apply`] | it is durable | at most once: never when the process dies in between |
//!
//! Only `before_apply` decides anything (R6): what it vetoes is kept with the reason, and never counted as applied. An error of it
//! ends the phase before the transaction: nothing is lost, and nothing is applied that was not ruled upon. Hooks are called
//! by the thread of the phase, which waits for them; what they append to the store themselves is theirs to make
//! idempotent. A dry run (`-a`) calls none.

use std::sync::Arc;

use milepost_engine::frame::Events;
use milepost_engine::{Lsn, Origin, Phase, Result, SiteName};

use crate::catalog::RemoteLimits;
use crate::message::{Point, Range};
use crate::send::LimitState;

/// What an application is told, and asked. Every method does nothing until it is written.
pub trait Hooks: Send + Sync {
    /// This process runs a phase from now on.
    fn phase_began(&self, _phase: Phase) {}

    /// It runs it no longer, or not much longer: cleanly or after a failure.
    fn phase_ended(&self, _phase: Phase) {}

    /// A link took a message.
    fn message_sent(&self, _sent: &MessageSent<'_>) {}

    /// Something of a neighbour's is missing, and it is asked to send it again.
    fn message_missing(&self, _missing: &MessageMissing<'_>) {}

    /// A remote is near the limit of what is kept for it, or at it.
    fn remote_limit(&self, _limit: &RemoteLimit<'_>) {}

    /// May this transaction be applied?
    ///
    /// # Errors
    /// Ends the phase with the transaction not applied; it comes again.
    fn before_apply(&self, _offered: &Offered<'_>) -> Result<Ruling> {
        Ok(Ruling::Apply)
    }

    /// This transaction is in the log, durably.
    fn after_apply(&self, _applied: &Applied) {}
}

/// Hooks, where there are any.
pub type SharedHooks = Option<Arc<dyn Hooks>>;

/// What becomes of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is applied.
    Apply,
    /// It is not, for this reason, a sentence for the operator: the remote's policy says what happens.
    Veto(String),
}

/// A message that a link took.
#[derive(Clone, Copy, Debug)]
pub struct MessageSent<'a> {
    /// Whom it is for.
    pub to: &'a SiteName,
    /// Its length in bytes.
    pub bytes: usize,
    /// Transactions in it, a part counted as one.
    pub transactions: usize,
    /// What of our log the remote has with it.
    pub last: Point,
}

/// A hole that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct MessageMissing<'a> {
    /// Whose it is.
    pub from: &'a SiteName,
    /// What is missing of its stream.
    pub range: Range,
}

/// How a remote stands to the limits of what is kept for it.
#[derive(Clone, Copy, Debug)]
pub struct RemoteLimit<'a> {
    /// Whose they are.
    pub remote: &'a SiteName,
    /// Near, reached or suspended.
    pub state: LimitState,
    /// Of the nearer limit.
    pub percent: u64,
    /// Bytes that are kept for it.
    pub kept_bytes: u64,
    /// Since when the oldest of it is due, microseconds since 1970 by the clock here.
    pub oldest: Option<i64>,
    /// The limits.
    pub limits: RemoteLimits,
}

/// A transaction that is about to be applied: those of its events that are new here.
#[derive(Clone)]
pub struct Offered<'a> {
    /// The neighbour that it came from.
    pub remote: &'a SiteName,
    /// Where it was committed first.
    pub origin: &'a Origin,
    /// When, by the clock there, microseconds since 1970.
    pub committed_at: i64,
    /// Its events, in order.
    pub events: Events<'a>,
}

/// A transaction that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The neighbour that it came from.
    pub remote: SiteName,
    /// Where it was committed first.
    pub origin: Origin,
    /// Events that were new here.
    pub events: u32,
    /// Where it is in our log.
    pub lsn: Lsn,
}
