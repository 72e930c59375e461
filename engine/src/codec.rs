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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chain, Epoch, ErrorKind, Lsn, Position};

    #[derive(Encode, Decode, Debug, PartialEq)]
    struct Sample {
        flag: bool,
        small: u16,
        wide: i64,
        text: String,
        maybe: Option<Vec<u8>>,
        choice: Choice,
    }

    #[derive(Encode, Decode, Debug, PartialEq)]
    enum Choice {
        First,
        Second(u8),
    }

    fn refused<T: Decode<()>>(bytes: &[u8]) -> bool {
        decode::<T>(bytes).is_err_and(|error| error.kind() == ErrorKind::Corrupt)
    }

    #[test]
    fn the_bytes_are_those_that_were_fixed() {
        let sample = Sample {
            flag: true,
            small: 0x0102,
            wide: -2,
            text: "é1".into(),
            maybe: Some(vec![7, 8]),
            choice: Choice::Second(9),
        };
        let fixed = [
            &[1, 0x02, 0x01][..],
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0xa9, b'1'],
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 8],
            &[1, 0, 0, 0, 9],
        ]
        .concat();
        assert_eq!(encode(&sample).unwrap(), fixed);
        assert_eq!(decode::<Sample>(&fixed).unwrap(), sample);
        let position = Position {
            epoch: Epoch(1),
            lsn: Lsn(2),
            chain: Chain(3),
        };
        let words = [1u64, 2, 3].map(u64::to_le_bytes).concat();
        assert_eq!(encode(&position).unwrap(), words);
        assert_eq!(decode::<Position>(&words).unwrap(), position);
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_of_it_is_allocated() {
        for len in [u64::MAX, 1 << 40, (16 << 20) + 1, 9] {
            let bytes = [&len.to_le_bytes()[..], b"few more"].concat();
            assert!(refused::<Vec<u8>>(&bytes) && refused::<String>(&bytes) && refused::<Vec<u64>>(&bytes));
        }
    }

    /// Why encoded types hold no collections of unit-like types: the limit counts their elements as
    /// nothing. 2^26 of them pass where as many bytes are refused.
    #[test]
    fn elements_of_no_size_escape_the_limit() {
        let bytes = (1u64 << 26).to_le_bytes();
        assert_eq!(decode::<Vec<()>>(&bytes).unwrap().len(), 1 << 26);
        assert!(refused::<Vec<u8>>(&bytes));
    }

    /// Why encoded types are not recursive: one byte of input buys a level of the stack.
    #[test]
    fn a_recursive_type_goes_as_deep_as_its_input_says() {
        #[derive(Encode, Decode)]
        struct Nested(Option<Box<Nested>>);
        let deep = [vec![1; 1000], vec![0]].concat();
        let (mut depth, mut nested) = (0, decode::<Nested>(&deep).unwrap());
        while let Some(inner) = nested.0 {
            (depth, nested) = (depth + 1, *inner);
        }
        assert_eq!(depth, 1000);
    }

    #[test]
    fn trailing_and_missing_bytes_are_refused() {
        let bytes = encode(&(7u32, "seven".to_owned())).unwrap();
        decode::<(u32, String)>(&bytes).unwrap();
        for len in 0..bytes.len() {
            assert!(refused::<(u32, String)>(&bytes[..len]), "{len} bytes");
        }
        assert!(refused::<(u32, String)>(&[&bytes[..], &[0]].concat()));
    }

    #[test]
    fn what_exceeds_the_limit_is_refused_on_both_ways() {
        assert_eq!(encode(&vec![0u8; LIMIT]).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(refused::<Vec<u8>>(&vec![0; LIMIT + 1]));
        let most = vec![0u8; LIMIT - 8];
        assert_eq!(decode::<Vec<u8>>(&encode(&most).unwrap()).unwrap(), most);
    }
}
