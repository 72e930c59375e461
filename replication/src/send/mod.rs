//! The send phase: builds messages for each remote whose turn has come and hands them to its link;
//! sends confirmations, answers and requests; frees the queue.
//!
//! ```text
//! queue ──► postings (topic → entries, all remotes) ──► stream of one remote, with history from the log
//!                                                            │ Packer, Sender (tracking)
//! notes of receive, in the log ──────────────────────────────┴──► message ──► link
//! ```
//!
//! Guarantees: nothing is sent before it is durable (R2), nothing to where it came from (R4), the queue
//! is freed only when all who are due something have confirmed (Q2), but those who are suspended, which the log says before. Refuses: to wait for a confirmation,
//! and to send data again on a timer.

mod asked;
mod backed_up;
mod deliver;
mod freeing;
mod heirs;
mod history;
mod kept;
mod limits;
mod outdated;
mod past;
mod phase;
mod postings;
mod queue;
mod serve;
mod stream;
mod suspended;
mod transfer;
mod trying;
mod turn;

#[cfg(test)]
pub(crate) use asked::fulfilled;
pub use asked::{SEND_NOW_PREFIX, SENT_NOW_PREFIX, SentNow, ask_to_send, asked_to_send, sent_now};
pub(crate) use freeing::freed;
pub use heirs::{Heirs, living};
pub use history::{Found, History};
pub use kept::{Account, Kept, Level, Owed, Times};
pub use past::Past;
pub use phase::{SendOptions, SendPhase, Sent};
pub use postings::{Due, Postings};
pub use queue::QueueEntries;
pub use serve::Serve;
pub use stream::{Sources, Stream};
pub use suspended::{
    LIMIT_PREFIX, LimitCause, LimitRecord, LimitState, SUSPENDED_PREFIX, SuspendedRecord, limit_told,
    suspended,
};
