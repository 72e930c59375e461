//! The receive phase: polls the links; orders, de-duplicates and applies what came; notes what
//! neighbours say of our log.
//!
//! ```text
//! link ─poll─► inbox ─► tracking::Receiver ─► frames ─► group ─► log (durable) ─► removed from the link
//!                │             └─ gap: stays      notes: one frame a poll, all remotes
//!                └─ furthest falls out when memory is full; it is still on its link
//! ```
//!
//! Guarantees R1 (frames are appended as tracking made them, position inside), R2, R6. A message leaves
//! its link only when its effect is durable here. What its seal does not show to be of its sender changes nothing. Refuses: messages of sites that are no remotes; they
//! stay where they are.

mod ahead;
mod damaged;
mod gap;
mod group;
mod inbox;
mod kept_link;
mod origins;
mod parts;
mod phase;
mod polling;
mod quarantine;
mod received;
mod told;
mod trust;

pub use damaged::DamagedRecord;
pub(crate) use damaged::damaged_again;
pub use gap::{GAP_PREFIX, GapRecord};
pub(crate) use kept_link::KeptLink;
pub(crate) use origins::Origins;
pub(crate) use parts::FOLDER as PARTS_FOLDER;
pub use parts::{Incomplete, Parts, incomplete};
pub use phase::{ReceiveOptions, ReceivePhase};
pub(crate) use quarantine::{FOLDER as QUARANTINE_FOLDER, clear as clear_quarantine};
pub use quarantine::{Quarantined, drop_set_aside, quarantined, read_message};
pub use received::{Received, SetAside};
