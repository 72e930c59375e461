//! The index: where each stream's events lie, what version a stream has, what the pinned records are.
//!
//! ```text
//!   sealed segments, oldest first                       the segment being appended to
//!   [ 0000….idx ][ 0400….idx ][ in memory, not yet written ]   [ ActiveIndex, in memory ]
//!     header | filter | streams | names | postings | pinned | blocks
//! ```
//!
//! - Derived from the log alone (E4): a sidecar that is missing, damaged or of another history is made
//!   again from its segment, whoever misses it first; its bytes are a pure function of the log.
//! - A version is never stored with an event: it is the count before the segment, kept in the newest
//!   sidecar that has the stream, plus the event's number in the segment. So making a sidecar looks
//!   from the newest predecessor backwards, and filters make that cheap for streams that are not there.
//! - Opening reads no history: a sidecar is opened at its first use and verified section by section.
//!   Damage in a file of ours is never an error for the reader, only damage in the log is (E3).
//! - The active part follows appended blocks; readers pass the durable end as a bound (E2), and what
//!   lies past it can be cut away again.
//!
//! Knows nothing of locks between processes: all of them may write the same sidecar, and each rename
//! puts the same bytes in place.

mod active;
pub(crate) mod base;
mod build;
mod check;
mod layout;
mod locations;
mod lookup;
mod name;
mod pinned;
mod place;
pub(crate) mod salvage;
mod sealed;
mod sidecar;

pub use active::{ActiveIndex, Totals};
pub use base::Base;
pub use build::remove_unfinished;
pub use check::{SidecarFacts, SidecarState};
pub(crate) use check::{sidecar_facts, sidecar_state};
pub use locations::Locations;
pub use lookup::{Index, PinnedRecord};
pub use name::{base_end, is_unfinished_sidecar, sidecar_segment};
pub use place::{BlockPlace, Location};
pub use sealed::{OnRebuild, Rebuild, SegmentSource};

#[cfg(test)]
mod tests;
