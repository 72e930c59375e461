//! Events inside a transaction frame.
//!
//! ```text
//! 0  payload_len 4 | ordinal 4 | stream_len 2 | kind_len 2 | headers_len 4
//! 16 stream | kind | headers | payload | zero padding to 8
//! ```
//!
//! `headers`: count 2, then for each key_len 2 | value_len 2 | key | value; keys ascend, no key twice.
//! Payloads are the application's; nobody here decodes them.

use std::hint::black_box;

use crate::width::{align8, to_u64, u32_to_usize};
use crate::{Error, Event, Lsn, Result};

const FIXED_LEN: usize = 16;

/// An event readable in place.
#[derive(Clone, Copy)]
pub struct EventRef<'a> {
    /// Number of the event in its transaction at its origin, from 0.
    pub ordinal: u32,
    stream_len: u16,
    kind_len: u16,
    /// Stream, kind and headers, one after another; split only when asked for, because most who walk over
    /// events look at few of them.
    names: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
    lsn: Lsn,
}

impl<'a> EventRef<'a> {
    /// Name of the stream, as bytes.
    #[must_use]
    pub fn stream_bytes(&self) -> &'a [u8] {
        self.names.get(..usize::from(self.stream_len)).unwrap_or_default()
    }

    fn kind_bytes(&self) -> &'a [u8] {
        let start = usize::from(self.stream_len);
        let range = start..start + usize::from(self.kind_len);
        self.names.get(range).unwrap_or_default()
    }

    fn header_bytes(&self) -> &'a [u8] {
        let start = usize::from(self.stream_len) + usize::from(self.kind_len);
        self.names.get(start..).unwrap_or_default()
    }

    /// Length of its encoding without the zeros behind it, in bytes.
    pub(super) fn unpadded_len(&self) -> usize {
        FIXED_LEN + self.names.len() + self.payload.len()
    }

    /// Name of the stream.
    ///
    /// # Errors
    /// `Corrupt` when it is not UTF-8 or empty.
    pub fn stream(&self) -> Result<&'a str> {
        match std::str::from_utf8(self.stream_bytes()) {
            Ok(name) if !name.is_empty() => Ok(name),
            _ => Err(Error::corrupt("an event's stream name is empty or not UTF-8").at_lsn(self.lsn)),
        }
    }

    /// Kind of the event.
    ///
    /// # Errors
    /// `Corrupt` when it is not UTF-8.
    pub fn kind(&self) -> Result<&'a str> {
        std::str::from_utf8(self.kind_bytes()).map_err(|error| {
            Error::corrupt("an event's kind is not UTF-8")
                .at_lsn(self.lsn)
                .caused_by(error)
        })
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> HeadersRef<'a> {
        HeadersRef {
            bytes: self.header_bytes(),
            lsn: self.lsn,
        }
    }

    /// That stream, kind and headers can be read; what [`EventRef::stream`], [`EventRef::kind`] and
    /// [`HeadersRef::read`] say, in one look where all is as it mostly is.
    ///
    /// # Errors
    /// `Corrupt` when one of them cannot.
    #[inline]
    pub fn check(&self) -> Result<()> {
        let plain = self.names.len() == usize::from(self.stream_len) + usize::from(self.kind_len);
        if plain && self.stream_len > 0 && self.names.is_ascii() {
            return Ok(());
        }
        self.stream()?;
        self.kind()?;
        each_header(self.header_bytes(), |_, _| {}).ok_or_else(|| self.headers().unreadable())
    }

    /// The event as the application appended it.
    ///
    /// # Errors
    /// `Corrupt` when a name or header is not what our writer would have written.
    pub fn to_event(&self) -> Result<Event> {
        let foreign = |error| {
            Error::corrupt("an event breaks the rules of names")
                .at_lsn(self.lsn)
                .caused_by(error)
        };
        let mut event = Event::new(self.stream()?, self.kind()?, self.payload).map_err(foreign)?;
        for (key, value) in self.headers().read()? {
            event = event.header(key, value).map_err(foreign)?;
        }
        Ok(event)
    }
}

/// What of a received event is compared beside origin and ordinal, as 64 bits: when it was first committed, stream,
/// kind, headers and payload (docs/format.md, "Received"). A site that went back has other events at the same origin.
///
/// # Errors
/// `Corrupt` when the event cannot be read.
pub fn event_check(committed_at: i64, event: &EventRef<'_>) -> Result<u64> {
    let mut check = xxhash_rust::xxh3::Xxh3::new();
    check.update(&committed_at.to_le_bytes());
    let parts = [
        event.stream_bytes(),
        event.kind()?.as_bytes(),
        event.headers().bytes(),
        event.payload,
    ];
    for part in parts {
        check.update(&to_u64(part.len()).to_le_bytes());
        check.update(part);
    }
    Ok(check.digest())
}

/// Headers of an event, in place.
#[derive(Clone, Copy)]
pub struct HeadersRef<'a> {
    bytes: &'a [u8],
    lsn: Lsn,
}

impl<'a> HeadersRef<'a> {
    /// The encoded form, as [`encode_headers`] makes it.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// All headers in order of their keys.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are not headers.
    pub fn read(&self) -> Result<Vec<(&'a str, &'a str)>> {
        let mut headers = Vec::new();
        each_header(self.bytes, |key, value| headers.push((key, value))).ok_or_else(|| self.unreadable())?;
        Ok(headers)
    }

    /// The value of one header.
    ///
    /// # Errors
    /// As [`HeadersRef::read`].
    pub fn get(&self, key: &str) -> Result<Option<&'a str>> {
        let mut found = None;
        let keep = |name, value| {
            if name == key {
                found = Some(value);
            }
        };
        each_header(self.bytes, keep).ok_or_else(|| self.unreadable())?;
        Ok(found)
    }

    fn unreadable(&self) -> Error {
        Error::corrupt("an event's headers cannot be read").at_lsn(self.lsn)
    }
}

/// Gives each header to `take`; `None` unless the bytes are just what [`encode_headers`] makes.
fn each_header<'a>(bytes: &'a [u8], mut take: impl FnMut(&'a str, &'a str)) -> Option<()> {
    if bytes.is_empty() {
        return Some(());
    }
    let (count, mut rest) = bytes.split_first_chunk::<2>()?;
    let count = u16::from_le_bytes(*count);
    let mut last: Option<&str> = None;
    for _ in 0..count {
        let ([k0, k1, v0, v1], after) = rest.split_first_chunk::<4>()?;
        let (key, after) = after.split_at_checked(usize::from(u16::from_le_bytes([*k0, *k1])))?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_le_bytes([*v0, *v1])))?;
        let (key, value) = (std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?);
        if last.is_some_and(|last| last >= key) {
            return None;
        }
        take(key, value);
        (last, rest) = (Some(key), after);
    }
    (count != 0 && rest.is_empty()).then_some(())
}

/// Refuses bytes that no reader could read as headers again.
///
/// # Errors
/// `Invalid`.
#[inline]
pub(super) fn check_headers(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    each_header(bytes, |_, _| {}).ok_or_else(|| Error::invalid("an event's encoded headers cannot be read"))
}

/// Encodes headers that were checked by [`Event::header`]; nothing for none.
#[must_use]
pub fn encode_headers(headers: &std::collections::BTreeMap<String, String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(count) = u16::try_from(headers.len()) else {
        unreachable!("Event::header keeps the count within 16 bits")
    };
    if count == 0 {
        return bytes;
    }
    bytes.extend_from_slice(&count.to_le_bytes());
    for (key, value) in headers {
        for text in [key, value] {
            let Ok(len) = u16::try_from(text.len()) else {
                unreachable!("Event::header keeps keys and values within 16 bits")
            };
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

/// Appends one encoded event to `out`. Lengths were checked by the caller.
#[inline(always)]
pub(super) fn encode(
    out: &mut Vec<u8>,
    ordinal: u32,
    stream: (&str, u16),
    kind: (&str, u16),
    headers: (&[u8], u32),
    payload: (&[u8], u32),
) {
    let mut fixed = [0; FIXED_LEN];
    fixed[..4].copy_from_slice(&payload.1.to_le_bytes());
    fixed[4..8].copy_from_slice(&ordinal.to_le_bytes());
    fixed[8..10].copy_from_slice(&stream.1.to_le_bytes());
    fixed[10..12].copy_from_slice(&kind.1.to_le_bytes());
    fixed[12..].copy_from_slice(&headers.1.to_le_bytes());
    let len = FIXED_LEN + stream.0.len() + kind.0.len() + headers.0.len() + payload.0.len();
    out.reserve(align8(len));
    out.extend_from_slice(&fixed);
    out.extend_from_slice(stream.0.as_bytes());
    out.extend_from_slice(kind.0.as_bytes());
    out.extend_from_slice(headers.0);
    out.extend_from_slice(payload.0);
    out.resize(out.len() + align8(len) - len, 0);
}

/// Events of one frame.
#[derive(Clone)]
pub struct Events<'a> {
    rest: &'a [u8],
    left: u32,
    lsn: Lsn,
    /// Length of the event given last,
    last: usize,
    /// and its complement.
    last_inverted: usize,
}

impl<'a> Events<'a> {
    /// Reads `count` events that fill `body`, of the frame at `lsn`; a body that they do not fill ends
    /// with an error.
    #[must_use]
    pub fn new(body: &'a [u8], count: u32, lsn: Lsn) -> Events<'a> {
        Events {
            rest: body,
            left: count,
            lsn,
            last: 0,
            last_inverted: 0,
        }
    }

    /// Bytes of the body behind the events given so far.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take(&mut self) -> Option<EventRef<'a>> {
        let fixed: &[u8; FIXED_LEN] = self.rest.first_chunk()?;
        let [p0, p1, p2, p3, o0, o1, o2, o3, s0, s1, k0, k1, h0, h1, h2, h3] = *fixed;
        let payload_len = u32_to_usize(u32::from_le_bytes([p0, p1, p2, p3]));
        let stream_len = u16::from_le_bytes([s0, s1]);
        let kind_len = u16::from_le_bytes([k0, k1]);
        let headers_len = u32_to_usize(u32::from_le_bytes([h0, h1, h2, h3]));
        let names_end = FIXED_LEN + usize::from(stream_len) + usize::from(kind_len) + headers_len;
        let end = names_end + payload_len;
        // The next event's place hangs on this length, which hangs on a read from memory. Where events are alike, the
        // length of the last one lets the processor go on at once, and the comparison is done meanwhile. It is kept
        // twice, lest the compiler find that it is the same as the length that was read.
        let len = align8(end);
        if !len != self.last_inverted {
            black_box(());
            (self.last, self.last_inverted) = (len, !len);
        }
        let (own, rest) = self.rest.split_at_checked(self.last)?;
        self.rest = rest;
        Some(EventRef {
            ordinal: u32::from_le_bytes([o0, o1, o2, o3]),
            stream_len,
            kind_len,
            payload: own.get(names_end..end)?,
            names: own.get(FIXED_LEN..names_end)?,
            lsn: self.lsn,
        })
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<EventRef<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left > 0 {
            self.left -= 1;
            if let Some(event) = self.take() {
                return Some(Ok(event));
            }
        } else if self.rest.is_empty() {
            return None;
        }
        // Bytes behind the last event contradict the count just as missing ones do.
        (self.left, self.rest) = (0, &[]);
        Some(Err(broken(self.lsn)))
    }
}

#[cold]
fn broken(lsn: Lsn) -> Error {
    Error::corrupt("an event contradicts its frame's bounds").at_lsn(lsn)
}
