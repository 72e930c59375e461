//! The protocol between a client and a Milepost server (docs/replication.md, "Wire").
//!
//! ```text
//! both:    preamble (magic, highest and lowest version)
//! client:  Hello → Welcome │ Put → Stored │ Poll → Deliver │ Remove → Removed │ Ping → Pong
//! server:  Waiting, unasked │ NotNow or Error in place of any answer
//! ```
//!
//! Trust grows in steps: bytes → a length within its limit → [`Frame`] (CRC agrees) → [`Request`] or
//! [`Answer`] (every field within the body). No length allocates by itself: memory grows with the
//! bytes that have arrived. A frame of an unknown kind is skipped when its sender marked it optional
//! and ends the connection otherwise. This module opens no sockets.

mod answer;
mod body;
pub(crate) mod fields;
mod frame;
mod preamble;
mod reader;
mod request;

pub use answer::{Answer, Delivered, ErrorCode, Scope};
pub use frame::{Frame, HEADER_LEN, MAX_BODY};
pub use preamble::{HIGHEST_VERSION, LOWEST_VERSION, PREAMBLE_LEN, Preamble};
pub use reader::{FrameReader, ReadLimits};
pub use request::Request;

use milepost_engine::SiteName;

/// Most keys of one Remove, and of the messages that a Poll asks not to be given; more is malformed.
pub const MAX_KEYS: u32 = 4096;

/// What names a message on every server of the world: its sender and the 128 random bits that the
/// sender drew for it. A repeated upload carries the same key and is stored once.
///
/// Not a digest of the bytes: a fast digest can be forged, and a forged one would make a server
/// acknowledge a message it does not keep. The sender's name is the session's, so one site cannot
/// take another's keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// The site that sent the message.
    pub from: SiteName,
    /// Drawn by it, once per message.
    pub id: u128,
}

/// Why bytes from the other side were not understood. The connection ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The operating system's word.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It closed the connection within a frame, or before it answered.
    #[error("the connection was closed by the other side")]
    Closed,
    /// It kept silent for longer than allowed.
    #[error("no answer within {0:?}")]
    Silent(std::time::Duration),
    /// It does not speak this protocol, or bytes were damaged on the way.
    #[error("the other side does not speak this protocol, or bytes were damaged: {0}")]
    Malformed(String),
    /// It speaks versions that this program does not.
    #[error(
        "the other side speaks protocol versions {theirs_low} to {theirs_high}, this program {LOWEST_VERSION} to {HIGHEST_VERSION}: update the older one"
    )]
    Version {
        /// Its lowest version.
        theirs_low: u16,
        /// Its highest version.
        theirs_high: u16,
    },
}

impl WireError {
    pub(crate) fn malformed(text: impl Into<String>) -> WireError {
        WireError::Malformed(text.into())
    }
}

#[cfg(test)]
mod tests;
