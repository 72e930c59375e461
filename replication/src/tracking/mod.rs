//! Tracking: what two neighbours know of each other's logs, sans-IO (semantics in docs/replication.md).
//!
//! ```text
//! receive phase:  Receiver  message × own log × records → Verdict (frames to append) + notes to pin
//! send phase:     Sender    records × queue end × now   → SendAction (what to pack and deliver)
//! between them:   PairRecords in the log, one writer per key
//! ```
//!
//! Both are pure state machines: no files, sockets, clock or randomness but what is passed in, so the same
//! code runs under the agent and under the seeded simulation. Guarantees R1 to R6 as far as they concern
//! one pair. Refuses to know how messages travel, which transactions are due, and when a remote's turn is.

mod applying;
mod claims;
mod contact;
mod gap;
mod held;
mod own;
mod probe;
mod receiver;
mod sender;
mod serving;
mod staged;
mod state;
mod transfer;
mod verdict;

pub use gap::{Patience, PollCause};
pub use held::HeldEvent;
pub use own::{Case, InQuarantine, Judgement, OwnLog};
pub use probe::ProbingTimes;
pub use receiver::{Me, Receiver};
pub use sender::{Now, OwnEnd, Pace, SendAction, Sender};
pub use serving::{ServingRecord, Went};
pub use staged::Staged;
pub use state::{
    CONFIRMED_PREFIX, ConfirmedRecord, MADE_PREFIX, MadeRecord, NOTE, Neighbour, ORIGIN_PREFIX, PAIR_PREFIX,
    PROBE_PREFIX, PairRecord, PairRecords, PairState, ProbeRecord, RECEIVED_PREFIX, REJOINED_PREFIX,
    REPORTED_PREFIX, ReceivedRecord, RejoinedRecord, ReportedRecord, SENT_PREFIX, SentRecord, StopReason,
    TOLD_PREFIX, ToldRecord, newest_key, newest_pin, read_newest,
};
pub use transfer::{AskedRecord, SENDING_PREFIX, TransferRecord};
pub use verdict::{Apply, FormerSite, Leave, Refusal, Verdict};

#[cfg(test)]
mod tests;
