//! Fixed-layout fields at the front of a slice, for frame bodies and the message store's records.
//!
//! Every taker returns `None` when the bytes end early, so a reader is a chain of `?` and allocates
//! only what is really there.

use milepost_engine::SiteName;
use milepost_engine::width::u32_to_usize;

use super::MessageKey;

/// Longest text for people that is written or kept: 1,024 bytes of UTF-8.
const TEXT_BYTES: usize = 1024;

/// Takes fields off the front of bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn reserved<const N: usize>(&mut self) -> Option<()> {
        self.array::<N>().map(|_| ())
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }

    /// Bytes behind a length of 4 bytes that was read before.
    pub(crate) fn bytes_of(&mut self, len: u32) -> Option<&'a [u8]> {
        self.bytes(u32_to_usize(len))
    }

    /// A site name of `len` bytes that keeps the rule of site names.
    pub(crate) fn name(&mut self, len: u8) -> Option<SiteName> {
        let bytes = self.bytes(usize::from(len))?;
        SiteName::new(std::str::from_utf8(bytes).ok()?).ok()
    }

    /// A length of 1 byte and that much of a site name.
    pub(crate) fn short_name(&mut self) -> Option<SiteName> {
        let len = self.u8()?;
        self.name(len)
    }

    /// A message's key: `id 16 | from_len 1 | from`.
    pub(crate) fn key(&mut self) -> Option<MessageKey> {
        let id = self.u128()?;
        Some(MessageKey {
            from: self.short_name()?,
            id,
        })
    }

    /// `count` keys, at most `most`. The count is not believed: each key must be there.
    pub(crate) fn keys(&mut self, count: u32, most: u32) -> Option<Vec<MessageKey>> {
        if count > most {
            return None;
        }
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(self.key()?);
        }
        Some(keys)
    }

    /// A length of 2 bytes and that much text; other bytes than UTF-8 are shown as such. What a peer
    /// says beyond [`TEXT_BYTES`] is passed over: it is for people.
    pub(crate) fn text(&mut self) -> Option<String> {
        let len = self.array().map(u16::from_le_bytes)?;
        let text = String::from_utf8_lossy(self.bytes(usize::from(len))?);
        Some(cut_text(&text).to_owned())
    }
}

/// Length of a site name as it is written.
pub(crate) fn name_len(name: &SiteName) -> u8 {
    match u8::try_from(name.as_str().len()) {
        Ok(len) => len,
        Err(_) => unreachable!("a site name is at most 64 bytes"),
    }
}

/// Appends a length of 1 byte and the name.
pub(crate) fn push_short_name(out: &mut Vec<u8>, name: &SiteName) {
    out.push(name_len(name));
    out.extend_from_slice(name.as_str().as_bytes());
}

/// Appends keys.
pub(crate) fn push_keys(out: &mut Vec<u8>, keys: &[MessageKey]) {
    for key in keys {
        out.extend_from_slice(&key.id.to_le_bytes());
        push_short_name(out, &key.from);
    }
}

/// At most [`TEXT_BYTES`] of a text, whole characters only.
fn cut_text(text: &str) -> &str {
    let end = text.floor_char_boundary(TEXT_BYTES);
    text.get(..end).unwrap_or_default()
}

/// Appends a length of 2 bytes and the text, cut at a character when it is longer than fits.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    let text = cut_text(text);
    let len = u16::try_from(text.len()).unwrap_or_default();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
