//! Frames on the wire: a length, a kind, a request number, a checksum, a body.
//!
//! ```text
//! 0  body_len 4 | kind 1 | flags 1 | reserved 2
//! 8  request 4 | crc 4
//! 16 body
//! ```
//!
//! Little endian. `crc` is the CRC-32 of the 12 bytes before it and the body. `request` is chosen by
//! the client and repeated in the answer; 0 is for frames that answer nothing. Flag 1 marks a frame
//! that a reader who does not know its kind skips.

use milepost_engine::width::u32_to_usize;

use crate::link::MAX_MESSAGE_BYTES;

use super::WireError;

/// Length of a frame's fixed part in bytes.
pub const HEADER_LEN: usize = 16;
/// Largest body in bytes: the largest message and the names around it.
pub const MAX_BODY: usize = MAX_MESSAGE_BYTES + (1 << 20);

const FLAG_OPTIONAL: u8 = 1;

/// A frame whose checksum was verified, or one about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: u8,
    /// A reader that does not know the kind skips the frame.
    pub optional: bool,
    /// Number of the request it asks or answers; 0 for none.
    pub request: u32,
    /// The body.
    pub body: Vec<u8>,
}

/// A frame's fixed part, its length within the limit, its checksum not yet verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) body_len: usize,
    kind: u8,
    flags: u8,
    request: u32,
    crc: u32,
}

impl Frame {
    /// The bytes.
    ///
    /// # Errors
    /// `Malformed` when the body is above [`MAX_BODY`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let len = u32::try_from(self.body.len())
            .ok()
            .filter(|_| self.body.len() <= MAX_BODY);
        let len = len.ok_or_else(|| WireError::malformed(format!("a body of {} bytes", self.body.len())))?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&[self.kind, if self.optional { FLAG_OPTIONAL } else { 0 }, 0, 0]);
        bytes.extend_from_slice(&self.request.to_le_bytes());
        let crc = crc_of(&bytes, &self.body);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }
}

impl Head {
    /// Reads the fixed part at the start of `bytes`, if it is all there.
    pub(super) fn parse(bytes: &[u8], max_body: usize) -> Result<Option<Head>, WireError> {
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, kind, flags, _, _, r0, r1, r2, r3, c0, c1, c2, c3] = *fixed;
        let body_len = u32_to_usize(u32::from_le_bytes([l0, l1, l2, l3]));
        if body_len > max_body {
            return Err(WireError::malformed(format!(
                "a frame of {body_len} bytes where {max_body} are allowed"
            )));
        }
        let request = u32::from_le_bytes([r0, r1, r2, r3]);
        Ok(Some(Head {
            body_len,
            kind,
            flags,
            request,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }))
    }

    /// The frame at the start of `bytes`, if it is all there.
    pub(super) fn frame(self, bytes: &[u8]) -> Result<Option<Frame>, WireError> {
        let Some(body) = bytes.get(HEADER_LEN..HEADER_LEN + self.body_len) else {
            return Ok(None);
        };
        let checked = bytes.get(..HEADER_LEN - 4).unwrap_or_default();
        if crc_of(checked, body) != self.crc {
            return Err(WireError::malformed("a frame fails its checksum"));
        }
        let optional = self.flags & FLAG_OPTIONAL != 0;
        Ok(Some(Frame {
            kind: self.kind,
            optional,
            request: self.request,
            body: body.to_vec(),
        }))
    }
}

fn crc_of(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}
