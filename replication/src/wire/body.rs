//! Kinds and bodies of frames: [`Request`](super::Request) from the client,
//! [`Answer`](super::Answer) from the server.
//!
//! ```text
//! 1  Hello    session 8 | reserved 8 | name_len 1 | name
//! 2  Welcome  store 16 | max_message 4 | reserved 4 | name_len 1 | name
//! 3  Put      id 16 | message_len 4 | to_len 1 | reserved 3 | to | message
//! 4  Stored
//! 5  Poll     store 16 | after 8 | max_count 4 | max_bytes 4 | flags 1 | reserved 3 | skip_count 4 | keys
//! 6  Deliver  store 16 | next 8 | count 4 | reserved 4 | messages: id 16 | len 4 | from_len 1 | reserved 3 | from | bytes
//! 7  Remove   count 4 | reserved 4 | keys
//! 8  Removed
//! 9  Waiting
//! 10 NotNow   scope 1 | reason_len 2 | reason
//! 11 Error    code 1 | reason_len 2 | reason
//! 12 Ping  13 Pong
//! key: id 16 | from_len 1 | from
//! ```
//!
//! Bytes behind the last field belong to later versions and are ignored.

use super::{Frame, WireError};

pub(super) const HELLO: u8 = 1;
pub(super) const WELCOME: u8 = 2;
pub(super) const PUT: u8 = 3;
pub(super) const STORED: u8 = 4;
pub(super) const POLL: u8 = 5;
pub(super) const DELIVER: u8 = 6;
pub(super) const REMOVE: u8 = 7;
pub(super) const REMOVED: u8 = 8;
pub(super) const WAITING: u8 = 9;
pub(super) const NOT_NOW: u8 = 10;
pub(super) const ERROR: u8 = 11;
pub(super) const PING: u8 = 12;
pub(super) const PONG: u8 = 13;

/// A count or length as a field. What is above its limits makes a body that [`Frame::encode`] refuses.
pub(super) fn wire_len(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

pub(super) fn unknown<T>(frame: &Frame) -> Result<Option<T>, WireError> {
    if frame.optional {
        return Ok(None);
    }
    Err(WireError::malformed(format!(
        "a frame of unknown kind {}",
        frame.kind
    )))
}

pub(super) fn cut_short(frame: &Frame) -> WireError {
    WireError::malformed(format!(
        "the body of a frame of kind {} contradicts itself",
        frame.kind
    ))
}
