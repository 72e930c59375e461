//! The one door to bincode: [`encode`] and [`decode`] for what is not hot (pinned values, message
//! envelopes, sidecar heads, views).
//!
//! The configuration is bincode's `legacy()`: little endian, fixed-width integers, `u64` lengths. Its
//! bytes are fixed by golden files. Seen in bincode 2.0.1 and refused here:
//! - without a limit a hostile length aborts the process: every decode has one, given by the caller;
//! - elements of no size escape the limit: encoded types hold no collections of unit-like types;
//! - recursive types overflow the stack: encoded types are not recursive;
//! - trailing bytes pass: [`decode`] asserts that all bytes were consumed.
//!
//! Callers check a checksum and the length before they decode.

use bincode::{Decode, Encode};

use crate::{Error, Result};

/// Largest value that [`encode`] or [`decode`] takes, in bytes: 16 MiB.
pub const LIMIT: usize = 16 << 20;

/// Encodes a value.
///
/// # Errors
/// `Invalid` when the value is larger than [`LIMIT`].
#[expect(clippy::disallowed_methods, reason = "this module is the one door to bincode")]
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>> {
    let bytes = bincode::encode_to_vec(value, bincode::config::legacy())
        .map_err(|error| Error::invalid("a value cannot be encoded").caused_by(error))?;
    if bytes.len() > LIMIT {
        return Err(Error::invalid(format!(
            "a value of {} bytes is larger than {LIMIT}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// Decodes a value that fills `bytes` exactly. At most [`LIMIT`] bytes are allocated on the way.
///
/// # Errors
/// `Corrupt` when the bytes are not such a value or more than one.
#[expect(clippy::disallowed_methods, reason = "this module is the one door to bincode")]
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T> {
    if bytes.len() > LIMIT {
        return Err(Error::corrupt(format!(
            "an encoded value of {} bytes is larger than {LIMIT}",
            bytes.len()
        )));
    }
    let config = bincode::config::legacy().with_limit::<LIMIT>();
    let (value, used) = bincode::decode_from_slice(bytes, config)
        .map_err(|error| Error::corrupt("an encoded value cannot be read").caused_by(error))?;
    if used != bytes.len() {
        return Err(Error::corrupt(format!(
            "an encoded value of {used} bytes is followed by other bytes"
        )));
    }
    Ok(value)
}
