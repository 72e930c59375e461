//! Server endpoints: how they are written, and in which order they are tried (semantics in
//! docs/replication.md, "Failover").
//!
//! ```text
//! text ─ parse ─► Endpoint ─► EndpointList (primary first) ─► Ladder, one per round: attempt, attempt, … or NoServer
//! ```
//!
//! Sans-IO: nothing here resolves a name or opens a socket.

mod address;
mod ladder;

pub use address::{Endpoint, EndpointList, LinkAddress};
pub use ladder::{Attempt, Ladder, NoServer, PrimaryRetries, Step};
