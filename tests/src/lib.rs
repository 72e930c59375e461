//! The harness of Milepost's tests: simulated twins of the seams through which the engine meets the
//! world, so that one seed drives a run and the same seed gives the same trace.
//!
//! - [`disk`]: a disk that loses, tears and reorders what was not synced, and the processes on it
//! - [`crash`]: the crash test over it
//! - [`damage`]: what a disk does to bytes that were durable
//! - [`flips`]: every bit and every length of a log
//! - [`worlds`]: whole systems, from one seed
//! - [`sites`]: sites, their agents and the links between them
//! - [`processes`]: real processes that are killed and stopped, and the witness outside them
//! - [`volume`]: real file systems in files, and [`powercut`]: losing power on them
//! - [`SimRng`]: where every choice is drawn from
//!
//! The harness is test code: what contradicts it stops the test that uses it.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code stops at the first surprise"
)]

pub mod crash;
pub mod damage;
pub mod disk;
pub mod flips;
pub mod powercut;
pub mod processes;
mod random;
pub mod sites;
pub mod volume;
pub mod worlds;

pub use random::{SimRng, mix};
