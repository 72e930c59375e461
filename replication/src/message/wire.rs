//! [`encode`] and [`decode`]: a message as bytes. Lengths and checksums first, meaning last.

use std::borrow::Cow;

use bytes::Bytes;
use milepost_engine::width::{to_u64, u32_to_usize};
use milepost_engine::{Error, Result};

use crate::keys::{KeyId, Nonce, PairKey, PairKeys, TAG_LEN};

use super::carried::{FLAG_OPTIONAL, ITEM_HEAD, KIND_TRANSACTION};
use super::envelope::{self, CRC_AT, FLAG_LZ4, FLAG_SEALED, Head, PREFIX_LEN, Prefix};
use super::part::KIND_PART;
use super::seal::{self, Sealing};
use super::{Carried, Header, Item, MAX_MESSAGE_BYTES, Message, MessageFault, Part, VERSION};

/// LZ4 makes at most 255 bytes of one; more is a lie about a length.
const LZ4_RATIO: u64 = 255;
/// Length of the shortest item that carries something, in bytes: a head, a point and an event.
const ITEM_LEAST: usize = 64;

/// What is taken of a message before anything of that size is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in bytes.
    pub message_bytes: usize,
    /// Most that its body may unpack to, in bytes.
    pub raw_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes: MAX_MESSAGE_BYTES,
            raw_bytes: MAX_MESSAGE_BYTES,
        }
    }
}

/// Encodes a message of a pair without keys.
///
/// # Errors
/// `Invalid` when it exceeds [`MAX_MESSAGE_BYTES`] or its items are not in the order of their places
/// between `previous` and `last`.
pub fn encode(message: &Message) -> Result<Vec<u8>> {
    encode_with(message, None)
}

/// Encodes a message and seals it. No two messages may ever have the same nonce under one key: draw it at random.
///
/// # Errors
/// As [`encode`].
pub fn encode_sealed(message: &Message, key: &PairKey, nonce: Nonce) -> Result<Vec<u8>> {
    encode_with(message, Some(Sealing { key, nonce }))
}

fn encode_with(message: &Message, sealing: Option<Sealing<'_>>) -> Result<Vec<u8>> {
    if let Some(fault) = order_fault(message) {
        return Err(Error::invalid(format!("a message was packed wrongly: {fault}")));
    }
    let lengths = message.items.iter().map(|item| match item {
        Item::Transaction(carried) => carried.encoded_len(),
        Item::Part(part) => part.encoded_len(),
    });
    let mut raw = Vec::with_capacity(lengths.sum());
    for item in &message.items {
        match item {
            Item::Transaction(carried) => carried.encode(&mut raw)?,
            Item::Part(part) => part.encode(&mut raw),
        }
    }
    let packed = lz4_flex::block::compress(&raw);
    let (body, packing) = if packed.len() < raw.len() {
        (&packed, FLAG_LZ4)
    } else {
        (&raw, 0)
    };
    let (flags, tag_len) = match sealing {
        Some(_) => (packing | FLAG_SEALED, TAG_LEN),
        None => (packing, 0),
    };
    let len_with_tag = body.len() + tag_len;
    let too_large = || {
        Error::invalid(format!(
            "a message of {} bytes exceeds {MAX_MESSAGE_BYTES}",
            raw.len()
        ))
    };
    let count = u32::try_from(message.items.len()).map_err(|_| too_large())?;
    let seal = sealing.map(|sealing| sealing.seal());
    let mut bytes = envelope::encode_head(&message.header, count, seal.as_ref());
    let lengths = (
        u32::try_from(bytes.len()),
        u32::try_from(len_with_tag),
        u32::try_from(raw.len()),
    );
    let (Ok(head_len), Ok(body_len), Ok(raw_len)) = lengths else {
        return Err(too_large());
    };
    if raw.len() > MAX_MESSAGE_BYTES || bytes.len() + len_with_tag > MAX_MESSAGE_BYTES {
        return Err(too_large());
    }
    let fields = [head_len, body_len, raw_len, u32::from(flags)]
        .map(u32::to_le_bytes)
        .concat();
    put_at(&mut bytes, 8, &fields);
    let body = match sealing {
        Some(sealing) => Cow::Owned(sealing.close(&message.header, &bytes, body)?),
        None => Cow::Borrowed(body),
    };
    let head_crc = crc(&bytes);
    bytes.extend_from_slice(&body);
    let sums = [head_crc, crc(&bytes)].map(u32::to_le_bytes).concat();
    put_at(&mut bytes, CRC_AT, &sums);
    Ok(bytes)
}

/// Decodes a whole message of a pair that has these keys.
///
/// # Errors
/// The [`MessageFault`] that says why the bytes are none that we take.
pub fn decode(bytes: &[u8], limits: &Limits, keys: &PairKeys) -> Result<Message, MessageFault> {
    let (prefix, head, body) = trusted(bytes, limits, keys)?;
    let known = FLAG_LZ4 | FLAG_SEALED;
    if prefix.flags & !known != 0 {
        let what = format!(
            "its body is stored in a way (flags {:#x}) that is not known here",
            prefix.flags
        );
        return Err(MessageFault::NeedsNewer {
            version: prefix.version,
            what,
        });
    }
    let raw = unpack(&prefix, body, limits)?;
    let message = Message {
        header: head.header,
        items: decode_items(raw, head.item_count)?,
    };
    match order_fault(&message) {
        Some(fault) => Err(MessageFault::Contradiction(fault)),
        None => Ok(message),
    }
}

/// Checks that a message is one that its sender can have made: its checksums, and the seal that a pair with these keys
/// asks for. Says which key it is sealed with.
///
/// # Errors
/// As [`decode`].
pub fn check_seal(bytes: &[u8], limits: &Limits, keys: &PairKeys) -> Result<Option<KeyId>, MessageFault> {
    let (_, head, _) = trusted(bytes, limits, keys)?;
    Ok(head.seal.map(|seal| seal.key))
}

/// Prefix, head and opened body, once checksums and seal are found good.
fn trusted<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    keys: &PairKeys,
) -> Result<(Prefix, Head, Cow<'a, [u8]>), MessageFault> {
    let (prefix, said, body) = checked_head(bytes, limits)?;
    if crc(bytes) != prefix.crc {
        return Err(MessageFault::Damaged("its checksum is wrong"));
    }
    let head = envelope::decode_head(said, prefix.reads)?;
    let body = seal::opened(&prefix, said, &head, body, keys)?;
    Ok((prefix, head, body))
}

/// Decodes what a message says, without touching its body: to put messages in order before any of them
/// is unpacked. Only the head's checksum is verified, and no seal, so nothing may be applied, noted or answered on its word.
///
/// # Errors
/// As [`decode`].
pub fn decode_header(bytes: &[u8], limits: &Limits) -> Result<Header, MessageFault> {
    let (prefix, head, _) = checked_head(bytes, limits)?;
    Ok(envelope::decode_head(head, prefix.reads)?.header)
}

/// What a message says that its body unpacks to, in bytes; 0 for what is no message, which unpacks to nothing. Not believed yet, and
/// whoever decodes the message allocates no more than that.
pub(crate) fn unpacked_len(bytes: &[u8]) -> u64 {
    Prefix::take(bytes).map_or(0, |prefix| u64::from(prefix.raw_len))
}

/// Prefix, head and body, once lengths, head checksum and version are found good.
fn checked_head<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Prefix, &'a [u8], &'a [u8]), MessageFault> {
    if bytes.len() > limits.message_bytes {
        return Err(MessageFault::TooLarge {
            claimed: to_u64(bytes.len()),
            limit: to_u64(limits.message_bytes),
        });
    }
    let prefix = Prefix::take(bytes)?;
    if !envelope::lengths_agree(&prefix, bytes.len()) {
        return Err(MessageFault::Damaged("its length is wrong"));
    }
    let split = bytes.split_at_checked(u32_to_usize(prefix.head_len));
    let (head, body) = split.ok_or(MessageFault::Damaged("its length is wrong"))?;
    if crc(head) != prefix.head_crc {
        return Err(MessageFault::Damaged("the checksum of its head is wrong"));
    }
    if prefix.version == 0 || prefix.version > VERSION {
        let what = format!("this program reads version {VERSION}");
        return Err(MessageFault::NeedsNewer {
            version: prefix.version,
            what,
        });
    }
    Ok((prefix, head, body))
}

/// The body as it was before it was compressed. Its length is bounded before it is allocated.
fn unpack(prefix: &Prefix, body: Cow<'_, [u8]>, limits: &Limits) -> Result<Bytes, MessageFault> {
    let (claimed, limit) = (u64::from(prefix.raw_len), to_u64(limits.raw_bytes));
    if claimed > limit {
        return Err(MessageFault::TooLarge { claimed, limit });
    }
    if prefix.flags & FLAG_LZ4 == 0 {
        let agrees = claimed == to_u64(body.len());
        return agrees
            .then(|| Bytes::from(body.into_owned()))
            .ok_or(MessageFault::Contradiction("its body has two lengths"));
    }
    if claimed > to_u64(body.len()).saturating_mul(LZ4_RATIO) {
        return Err(MessageFault::Contradiction(
            "its body claims to unpack to more than it can",
        ));
    }
    let mut raw = vec![0; u32_to_usize(prefix.raw_len)];
    match lz4_flex::block::decompress_into(&body, &mut raw) {
        Ok(len) if len == raw.len() => Ok(Bytes::from(raw)),
        _ => Err(MessageFault::Contradiction("its body cannot be unpacked")),
    }
}

/// The items, which share the body's bytes.
fn decode_items(raw: Bytes, count: u32) -> Result<Vec<Item>, MessageFault> {
    let bad = || MessageFault::Contradiction("its body is not what its head counts");
    // The count is believed as far as so many could be there.
    let room = u32_to_usize(count).min(raw.len() / ITEM_LEAST);
    let (mut items, mut rest, mut left) = (Vec::with_capacity(room), raw, count);
    while !rest.is_empty() {
        let head: &[u8; ITEM_HEAD] = rest.first_chunk().ok_or_else(bad)?;
        let [l0, l1, l2, l3, kind, flags, _, _] = *head;
        let len = u32_to_usize(u32::from_le_bytes([l0, l1, l2, l3]));
        let fits = len >= ITEM_HEAD && len.is_multiple_of(8);
        if !fits || len > rest.len() {
            return Err(bad());
        }
        let own = rest.split_to(len);
        match kind {
            KIND_TRANSACTION => items.push(Item::Transaction(Carried::decode_shared(&own)?)),
            KIND_PART => items.push(Item::Part(Part::decode(&own)?)),
            _ if flags & FLAG_OPTIONAL != 0 => {}
            _ => {
                let what = format!("it carries an item of kind {kind}");
                return Err(MessageFault::NeedsNewer {
                    version: VERSION,
                    what,
                });
            }
        }
        left = left.checked_sub(1).ok_or_else(bad)?;
    }
    if left == 0 { Ok(items) } else { Err(bad()) }
}

/// What is wrong with the order of a message's items, if anything is: they ascend within
/// (previous, last], and a part is alone.
fn order_fault(message: &Message) -> Option<&'static str> {
    let header = &message.header;
    let mut before = header.previous.place();
    for item in &message.items {
        let place = item.point().place();
        if place <= before {
            return Some("what it carries does not ascend");
        }
        before = place;
    }
    let parts = message.items.iter().any(|item| matches!(item, Item::Part(_)));
    if before > header.last.place() {
        Some("it carries more than it says")
    } else if parts && (message.items.len() != 1 || before != header.last.place()) {
        Some("a part is not alone")
    } else {
        None
    }
}

/// CRC-32 of `bytes` with the two checksums taken as zeros.
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..CRC_AT).unwrap_or_default());
    hasher.update(&[0; PREFIX_LEN - CRC_AT]);
    hasher.update(bytes.get(PREFIX_LEN..).unwrap_or_default());
    hasher.finalize()
}

fn put_at(bytes: &mut [u8], at: usize, value: &[u8]) {
    match bytes.get_mut(at..at + value.len()) {
        Some(field) => field.copy_from_slice(value),
        None => unreachable!("an encoded head holds its prefix"),
    }
}
