//! Messages: what travels between two sites (docs/replication.md, "Message", is the authority on bytes).
//!
//! ```text
//! | prefix 32 | addresses | fixed fields | optional fields | body: items, LZ4 or plain, sealed or not |
//!   magic, version, lengths, CRC-32 of the head, CRC-32 of all
//! ```
//!
//! Guarantees: what [`encode`] writes [`decode`] reads; any flipped bit, missing or surplus byte is a
//! [`MessageFault`]; no length allocates before it was checked against its [`Limits`]. Trust grows in steps:
//! magic → lengths → CRC of the head → version → CRC of all → fields → seal → body. Refuses: opinions about
//! whether a message is due, new or welcome; that is `tracking`.

mod bytes;
mod carried;
mod envelope;
mod fault;
mod header;
mod pack;
mod part;
mod place;
mod seal;
mod wire;

pub use carried::Carried;
pub(crate) use envelope::cut;
pub use fault::{Distrust, MessageFault};
pub use header::{Address, Header, Lineage, Probe, Rejoined, Requests, Trouble, TroubleCase};
pub use pack::{Full, MAX_MESSAGE_BYTES, MIN_MESSAGE_BYTES, Packed, Packer};
pub use part::{Joined, Joiner, Part, Pieces};
pub use place::{Place, Point, Range};
pub(crate) use wire::unpacked_len;
pub use wire::{Limits, check_seal, decode, decode_header, encode, encode_sealed};

/// The version of messages that this program writes and the highest it reads.
pub const VERSION: u16 = 1;

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub header: Header,
    /// What it carries, in ascending order of places: whole transactions, or one part of one.
    pub items: Vec<Item>,
}

impl Message {
    /// A message that carries nothing.
    #[must_use]
    pub fn bare(header: Header) -> Message {
        Message {
            header,
            items: Vec::new(),
        }
    }

    /// True when it moves the stream: it carries something, or says that nothing is due up to `last`.
    #[must_use]
    pub fn has_data(&self) -> bool {
        !self.items.is_empty() || self.header.last != self.header.previous
    }
}

/// Something that a message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole transaction.
    Transaction(Carried),
    /// A piece of a transaction that is longer than a message.
    Part(Part),
}

impl Item {
    /// Its transaction's place, with position.
    #[must_use]
    pub fn point(&self) -> Point {
        match self {
            Item::Transaction(carried) => carried.point,
            Item::Part(part) => part.point,
        }
    }
}

#[cfg(test)]
mod tests;
