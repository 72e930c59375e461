//! Sites under a seeded simulation: the real tracking and message code over logs that lose what was not
//! synced and links that drop, repeat, reorder, delay, cut and corrupt (R1, R2, R3, R5).
//!
//! ```text
//! run(seed): Sites ── commit, scan+send, receive, kill, power cut ──► Network ──► … ──► heal ──► compare
//! ```
//!
//! A site is a log in memory whose frames pass through the engine's real blocks, and two agent processes
//! (receive, send) that die by themselves or with the power. After the faults stop, every site must hold
//! of its neighbours exactly what is due to it, once and in order, within a bounded number of rounds, and
//! then the sites must fall silent. No pair may have stopped: delay and replay never look like a fork.

mod log;
mod network;
mod run;
mod sending;
mod site;

pub use log::{MemLog, Record};
pub use network::Network;
pub use run::{Report, run};
pub use site::{Planted, Site};
