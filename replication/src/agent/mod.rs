//! The Message Agent: runs receive, scan and send, each in a process of its own or all in one.
//!
//! ```text
//! run ─► open store ─► take phase locks (exit 3 names the holder) ─► batch | continuous ─► Exit
//! batch       receive until a poll brings nothing new ─► scan ─► marker ─► wait until it is through ─► send
//! --send-now  the wish noted ─► scan, marker, send to those remotes, here or in the process that sends
//! continuous  one thread a phase, woken by pushes, by commits, by the queue; left by a Stop
//! ```
//!
//! Phases tell each other everything through the log (confirmations, requests, definitions), so nothing
//! here depends on which of them share a process.

mod batch;
mod continuous;
mod exit;
mod links;
mod locked;
mod open;
mod options;
mod retry;
mod run;
mod send_now;
mod stop;

pub use exit::{Exit, ExitCode};
pub use links::{LinkNumber, Links, OpenLink};
pub use open::link_opener;
pub use options::{AgentOptions, Phases};
pub use retry::{RetriedMessages, retry_set_aside};
pub(crate) use run::Told;
pub use run::{GO_ON, run, run_on, run_on_with, run_with};
pub use stop::{LOOK_EVERY, Stop};
