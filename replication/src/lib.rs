//! Message Agents over the Milepost log: scan, send and receive phases, links, servers and failover.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::as_conversions))]

pub mod agent;
pub mod backup;
pub mod bundle;
pub mod catalog;
pub mod endpoint;
pub mod extract;
pub mod folders;
#[cfg(test)]
#[path = "../../tests/fixtures/golden.rs"]
mod golden;
mod heartbeat;
pub mod hooks;
pub mod keys;
pub mod link;
pub mod message;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
pub mod quarantine;
pub mod receive;
pub mod rejoin;
mod retries;
pub mod scan;
pub mod schedule;
pub mod send;
pub mod server;
pub mod status;
pub mod tracking;
pub mod units;
pub mod wire;
