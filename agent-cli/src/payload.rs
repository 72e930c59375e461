//! How a payload's bytes stand in a line of JSON, and how they come back, byte for byte.
//!
//! ```text
//! payload is one JSON text without line breaks or outer blanks   →  that text, as it is
//! anything else, and {"base64":…} itself                         →  {"base64":"…"}
//! ```
//!
//! Reading reverses writing exactly: an object whose only member is `base64` is decoded, all other
//! JSON is taken as it stands in the line. Base64 is RFC 4648 section 4 with padding; characters
//! outside its alphabet and non-zero trailing bits are refused.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A payload that serializes as described above.
pub enum PayloadText<'a> {
    /// Stands as it is.
    Json(&'a RawValue),
    /// Stands as base64.
    Bytes(&'a [u8]),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

impl<'a> PayloadText<'a> {
    /// Chooses the form for a payload.
    pub fn new(payload: &'a [u8]) -> PayloadText<'a> {
        match serde_json::from_slice::<&RawValue>(payload) {
            Ok(raw) if raw.get().len() == payload.len() && one_line(payload) && !is_wrapped(raw) => {
                PayloadText::Json(raw)
            }
            _ => PayloadText::Bytes(payload),
        }
    }

    /// The form as text for people.
    pub fn text(&self) -> Cow<'a, str> {
        match self {
            PayloadText::Json(raw) => Cow::Borrowed(raw.get()),
            PayloadText::Bytes(bytes) => Cow::Owned(format!("{{\"base64\":\"{}\"}}", encode(bytes))),
        }
    }
}

impl Serialize for PayloadText<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            PayloadText::Json(raw) => raw.serialize(to),
            PayloadText::Bytes(bytes) => Wrapped {
                base64: Cow::Owned(encode(bytes)),
            }
            .serialize(to),
        }
    }
}

/// One JSON text in UTF-8 without the blanks and line breaks between its tokens; all else in it stays.
///
/// # Errors
/// Where and why the bytes are not one JSON text.
pub fn compact(bytes: &[u8]) -> serde_json::Result<Vec<u8>> {
    serde_json::from_slice::<&RawValue>(bytes)?;
    let (mut in_text, mut escaped) = (false, false);
    let mut kept = bytes.to_vec();
    kept.retain(|byte| {
        if !in_text {
            in_text = *byte == b'"';
            return !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = false,
            _ => {}
        }
        true
    });
    Ok(kept)
}

/// The bytes that a payload in a line stands for.
///
/// # Errors
/// A reason when it is `{"base64":…}` and not base64.
pub fn read(raw: &RawValue) -> Result<Cow<'_, [u8]>, String> {
    if !raw.get().starts_with('{') {
        return Ok(Cow::Borrowed(raw.get().as_bytes()));
    }
    match serde_json::from_str::<Wrapped<'_>>(raw.get()) {
        Ok(wrapped) => decode(&wrapped.base64).map(Cow::Owned),
        Err(_) => Ok(Cow::Borrowed(raw.get().as_bytes())),
    }
}

fn one_line(payload: &[u8]) -> bool {
    !payload.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
}

fn is_wrapped(raw: &RawValue) -> bool {
    raw.get().starts_with('{') && serde_json::from_str::<Wrapped<'_>>(raw.get()).is_ok()
}

fn encode(bytes: &[u8]) -> String {
    let letter = |index: u32| {
        let low = u8::try_from(index & 63).map_or(0, usize::from);
        ALPHABET.get(low).map_or('=', |byte| char::from(*byte))
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for piece in bytes.chunks(3) {
        let byte = |at: usize| u32::from(piece.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.push(letter(word >> 18));
        text.push(letter(word >> 12));
        text.push(if piece.len() > 1 { letter(word >> 6) } else { '=' });
        text.push(if piece.len() > 2 { letter(word) } else { '=' });
    }
    text
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let bad = || "the value of \"base64\" is not padded base64 (RFC 4648, section 4)".to_owned();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (quads, rest) = text.as_bytes().as_chunks::<4>();
    let last = quads.len().saturating_sub(1);
    for (at, quad) in quads.iter().enumerate() {
        let padding = quad.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && at != last) {
            return Err(bad());
        }
        let mut word = 0u32;
        for letter in quad.iter().take(4 - padding) {
            let value = ALPHABET
                .iter()
                .position(|known| known == letter)
                .ok_or_else(bad)?;
            word = word << 6 | u32::try_from(value).map_err(|_| bad())?;
        }
        let [_, first, second, third] = (word << (6 * padding)).to_be_bytes();
        let (own, unused): (&[u8], &[u8]) = match padding {
            0 => (&[first, second, third], &[]),
            1 => (&[first, second], &[third]),
            _ => (&[first], &[second, third]),
        };
        if unused.iter().any(|byte| *byte != 0) {
            return Err(bad());
        }
        bytes.extend_from_slice(own);
    }
    if rest.is_empty() { Ok(bytes) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(payload: &[u8]) -> String {
        let line = serde_json::to_string(&PayloadText::new(payload)).unwrap();
        assert!(!line.contains('\n'));
        let raw: &RawValue = serde_json::from_str(&line).unwrap();
        assert_eq!(read(raw).unwrap(), payload, "through {line}");
        line
    }

    #[test]
    fn json_on_one_line_stands_as_it_is_down_to_its_blanks_and_numbers() {
        for text in [
            r#"{"a": 1.000,"a":2}"#,
            "1e400",
            "null",
            r#""é\ud800""#,
            "[]",
            r#"{"base64":"a","x":1}"#,
        ] {
            assert_eq!(round_trip(text.as_bytes()), text);
        }
    }

    #[test]
    fn whatever_else_a_payload_holds_comes_back_byte_for_byte() {
        assert_eq!(round_trip(b""), r#"{"base64":""}"#);
        assert_eq!(round_trip(b"foob"), r#"{"base64":"Zm9vYg=="}"#);
        assert_eq!(round_trip(b"fooba"), r#"{"base64":"Zm9vYmE="}"#);
        for payload in [
            &b" 1"[..],
            b"1 ",
            b"{\n}",
            b"\xff\x00",
            br#"{"base64":"AA=="}"#,
            br#"{"base64":"x"}"#,
        ] {
            assert!(round_trip(payload).starts_with(r#"{"base64":""#));
        }
        let all: Vec<u8> = (0..=255).collect();
        (0..all.len()).for_each(|len| drop(round_trip(&all[len..])));
    }

    #[test]
    fn a_compact_text_lost_its_blanks_between_tokens_and_nothing_else() {
        let text = "\r\n{ \"b\\\\\" :\t[1.000 , -0e+00,12345678901234567890123],\n\"a\":\"x \\\" y\\u0020\u{e9}\" , \"a\":{ } } ";
        let kept =
            "{\"b\\\\\":[1.000,-0e+00,12345678901234567890123],\"a\":\"x \\\" y\\u0020\u{e9}\",\"a\":{}}";
        assert_eq!(
            String::from_utf8(compact(text.as_bytes()).unwrap()).unwrap(),
            kept
        );
        assert_eq!(round_trip(kept.as_bytes()), kept);
        let deep = "[ ".repeat(5_000) + &"]".repeat(5_000);
        assert_eq!(
            compact(deep.as_bytes()).unwrap(),
            deep.replace(' ', "").into_bytes()
        );
        for bytes in [
            &b""[..],
            b" ",
            b"1 2",
            b"{\"a\":1}\n{\"a\":2}",
            b"\"\xff\"",
            b"\xef\xbb\xbf1",
        ] {
            assert!(compact(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in [
            "A",
            "AA=",
            "A===",
            "AA==AA==",
            "AB==",
            "A-==",
            "====",
            "AAA\u{e9}",
        ] {
            let line = serde_json::json!({ "base64": text }).to_string();
            let raw: &RawValue = serde_json::from_str(&line).unwrap();
            assert!(read(raw).is_err(), "{text}");
        }
    }
}
