//! The head of a message: prefix, addresses, fixed fields, optional fields.
//!
//! ```text
//! 0   magic 4 | version 2 | reads 2
//! 8   head_len 4 | body_len 4
//! 16  raw_len 4 | flags 2 | reserved 2           flags: 1 body is LZ4; 2 sealed
//! 24  head_crc 4 | crc 4                         both computed with these 8 bytes as zeros
//! 32  from id 16 | to id 16                      to id 0: never heard from
//! 64  from_len 2 | to_len 2 | reserved 4 | from name, to name, padded together to 8
//!     -- up to here alike in every version, for ever; what follows is version 1 --
//!     generation 4 | item_count 4 | epoch 8 | durable 8
//!     previous 32 | last 32 | received 32 | confirmed 32
//!     optional fields, tags ascending: tag 2 | flags 2 | len 4 | value, padded to 8; flag 1 = required
//! ```

use milepost_engine::width::{align8, to_u64, u32_to_usize};
use milepost_engine::{Epoch, Lsn, SiteName, StoreId};

use super::bytes::{Front, Put};
use super::seal::Seal;
use super::{
    Address, Header, Lineage, MessageFault, Pieces, Point, Probe, Range, Rejoined, Requests, Trouble,
    TroubleCase, VERSION,
};

/// First bytes of every message.
pub(super) const MAGIC: [u8; 4] = *b"MPM\x01";
/// Length of the prefix in bytes.
pub(super) const PREFIX_LEN: usize = 32;
/// Where the two checksums stand.
pub(super) const CRC_AT: usize = 24;
/// Longest head in bytes that is taken: what is asked for, many times over.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Flag: the body is LZ4.
pub(super) const FLAG_LZ4: u16 = 1;
/// Flag: the message is sealed, and its head says with which key.
pub(super) const FLAG_SEALED: u16 = 2;

const FIELD_REQUIRED: u16 = 1;
const TAG_REQUESTS: u16 = 1;
const TAG_PROBE: u16 = 2;
const TAG_ANSWER: u16 = 3;
const TAG_LINEAGE: u16 = 4;
const TAG_TROUBLE: u16 = 5;
const TAG_REJOINED: u16 = 6;
const TAG_DOUBTED: u16 = 7;
const TAG_PIECES: u16 = 8;
/// The last tag of version 1, so that it stands behind whatever else is said.
const TAG_SEAL: u16 = 15;
/// What a case of [`Trouble`] takes before its reason.
const CASE_HEAD: usize = Point::LEN + 8;

/// What the head says of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: u16,
    pub(super) reads: u16,
    pub(super) head_len: u32,
    pub(super) body_len: u32,
    pub(super) raw_len: u32,
    pub(super) flags: u16,
    pub(super) head_crc: u32,
    pub(super) crc: u32,
}

impl Prefix {
    /// Reads the prefix; nothing of it is believed yet.
    pub(super) fn take(bytes: &[u8]) -> Result<Prefix, MessageFault> {
        let mut front = Front(bytes);
        if front.array() != Some(MAGIC) {
            return Err(MessageFault::Damaged("it does not begin like a message"));
        }
        let mut read = || {
            let (version, reads) = (front.u16()?, front.u16()?);
            let (head_len, body_len, raw_len) = (front.u32()?, front.u32()?, front.u32()?);
            let (flags, _reserved) = (front.u16()?, front.u16()?);
            let (head_crc, crc) = (front.u32()?, front.u32()?);
            Some(Prefix {
                version,
                reads,
                head_len,
                body_len,
                raw_len,
                flags,
                head_crc,
                crc,
            })
        };
        read().ok_or(MessageFault::Damaged("it ends within its head"))
    }
}

/// What a head says.
pub(super) struct Head {
    pub(super) header: Header,
    pub(super) item_count: u32,
    pub(super) seal: Option<Seal>,
}

/// Encodes the head without its lengths, flags and checksums, which [`super::encode`] knows later.
pub(super) fn encode_head(header: &Header, item_count: u32, seal: Option<&Seal>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&MAGIC);
    out.put_u16(VERSION);
    out.put_u16(header.reads);
    out.resize(PREFIX_LEN, 0);
    out.put_site(header.from.id.unwrap_or_default());
    out.put_site(header.to.id.unwrap_or_default());
    let (from, to) = (header.from.name.as_str(), header.to.name.as_str());
    for name in [from, to] {
        let Ok(len) = u16::try_from(name.len()) else {
            unreachable!("a site name is at most 64 bytes")
        };
        out.put_u16(len);
    }
    out.put_u32(0);
    out.put_padded(format!("{from}{to}").as_bytes());
    out.put_u32(header.generation);
    out.put_u32(item_count);
    out.put_u64(header.epoch.0);
    out.put_u64(header.durable.0);
    for point in [header.previous, header.last, header.received, header.confirmed] {
        point.put(&mut out);
    }
    encode_fields(header, &mut out);
    if let Some(seal) = seal {
        put_field(&mut out, TAG_SEAL, FIELD_REQUIRED, &seal.value());
    }
    out
}

fn encode_fields(header: &Header, out: &mut Vec<u8>) {
    if let Some(requests) = &header.requests {
        let ranges = requests.ranges.iter().take(Requests::MAX_RANGES);
        let mut value = Vec::new();
        value.put_u64(requests.number);
        for range in ranges {
            range.after.put(&mut value);
            range.up_to.put(&mut value);
        }
        put_field(out, TAG_REQUESTS, FIELD_REQUIRED, &value);
    }
    if let Some(probe) = &header.probe {
        let mut value = Vec::new();
        value.put_u64(probe.nonce);
        probe.log_sent.put(&mut value);
        put_field(out, TAG_PROBE, FIELD_REQUIRED, &value);
    }
    if let Some(nonce) = header.answer {
        put_field(out, TAG_ANSWER, 0, &nonce.to_le_bytes());
    }
    if let Some(lineage) = &header.lineage {
        let mut value = Vec::new();
        value.put_u64(lineage.parent.0);
        value.put_u64(lineage.fork.0);
        put_field(out, TAG_LINEAGE, 0, &value);
    }
    if let Some(trouble) = header.trouble.as_ref().filter(|trouble| !trouble.is_none()) {
        put_field(out, TAG_TROUBLE, 0, &encode_trouble(trouble));
    }
    if let Some(rejoined) = &header.rejoined {
        let mut value = Vec::new();
        value.put_u32(rejoined.since);
        value.put_u32(u32::from(rejoined.is_sound));
        put_field(out, TAG_REJOINED, 0, &value);
    }
    if let Some(lineage) = header.lineage.filter(|lineage| lineage.doubted_to > lineage.fork) {
        put_field(out, TAG_DOUBTED, 0, &lineage.doubted_to.0.to_le_bytes());
    }
    if let Some(pieces) = &header.pieces {
        let mut value = Vec::new();
        pieces.put(&mut value);
        put_field(out, TAG_PIECES, 0, &value);
    }
}

fn encode_trouble(trouble: &Trouble) -> Vec<u8> {
    let mut value = Vec::new();
    value.put_u32(trouble.held);
    value.put_u32(trouble.refused);
    for case in trouble.cases.iter().take(Trouble::MAX_CASES) {
        let reason = cut(&case.reason, Trouble::MAX_REASON);
        let Ok(len) = u32::try_from(reason.len()) else {
            unreachable!("a reason is cut")
        };
        case.point.put(&mut value);
        value.put_u32(len);
        value.put_u32(0);
        value.put_padded(reason.as_bytes());
    }
    value
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rfind(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

fn put_field(out: &mut Vec<u8>, tag: u16, flags: u16, value: &[u8]) {
    let Ok(len) = u32::try_from(value.len()) else {
        unreachable!("a field is at most a few KiB")
    };
    out.put_u16(tag);
    out.put_u16(flags);
    out.put_u32(len);
    out.put_padded(value);
}

/// Decodes a head whose checksum and version were verified.
pub(super) fn decode_head(bytes: &[u8], reads: u16) -> Result<Head, MessageFault> {
    let mut front = Front(bytes);
    let fixed = take_fixed(&mut front, reads);
    let mut head = fixed.ok_or(MessageFault::Contradiction("its head cannot be read"))?;
    take_fields(&mut front, &mut head)?;
    check_order(&head.header)?;
    Ok(head)
}

fn take_fixed(front: &mut Front<'_>, reads: u16) -> Option<Head> {
    front.bytes(PREFIX_LEN)?;
    let (from_id, to_id) = (front.site()?, front.site()?);
    let (from_len, to_len) = (usize::from(front.u16()?), usize::from(front.u16()?));
    front.u32()?;
    let mut names = Front(front.padded(from_len + to_len)?);
    let mut name = |len| SiteName::new(std::str::from_utf8(names.bytes(len)?).ok()?).ok();
    let (from, to) = (name(from_len)?, name(to_len)?);
    let known = |id: StoreId| (id != StoreId::default()).then_some(id);
    let from = Address {
        name: from,
        id: Some(known(from_id)?),
    };
    let to = Address {
        name: to,
        id: known(to_id),
    };
    let (generation, item_count) = (front.u32()?, front.u32()?);
    let (epoch, durable) = (Epoch(front.u64()?), Lsn(front.u64()?));
    let mut point = || Point::take(front);
    let (previous, last, received, confirmed) = (point()?, point()?, point()?, point()?);
    let header = Header {
        reads,
        from,
        to,
        generation,
        epoch,
        durable,
        previous,
        last,
        received,
        confirmed,
        lineage: None,
        requests: None,
        probe: None,
        answer: None,
        trouble: None,
        rejoined: None,
        pieces: None,
    };
    Some(Head {
        header,
        item_count,
        seal: None,
    })
}

fn take_fields(front: &mut Front<'_>, into: &mut Head) -> Result<(), MessageFault> {
    let bad = || MessageFault::Contradiction("an optional field cannot be read");
    let mut before = 0;
    while !front.is_empty() {
        let mut head = || Some((front.u16()?, front.u16()?, front.u32()?));
        let (tag, flags, len) = head().ok_or_else(bad)?;
        let value = front.padded(u32_to_usize(len)).ok_or_else(bad)?;
        if tag <= before {
            return Err(MessageFault::Contradiction("its optional fields do not ascend"));
        }
        before = tag;
        match take_field(tag, value, into) {
            Some(true) => {}
            Some(false) if flags & FIELD_REQUIRED == 0 => {}
            Some(false) => {
                let what = format!("it requires field {tag}, which is not known here");
                return Err(MessageFault::NeedsNewer {
                    version: VERSION,
                    what,
                });
            }
            None => return Err(bad()),
        }
    }
    Ok(())
}

/// `Some(false)` for a tag that is not known, `None` for a value that is not one.
fn take_field(tag: u16, value: &[u8], into: &mut Head) -> Option<bool> {
    let (mut front, header) = (Front(value), &mut into.header);
    match tag {
        TAG_REQUESTS => header.requests = Some(take_requests(&mut front)?),
        TAG_PROBE => {
            let (nonce, log_sent) = (front.u64()?, Point::take(&mut front)?);
            header.probe = Some(Probe { nonce, log_sent });
        }
        TAG_ANSWER => header.answer = Some(front.u64()?),
        TAG_LINEAGE => {
            let (parent, fork) = (Epoch(front.u64()?), Lsn(front.u64()?));
            header.lineage = Some(Lineage {
                parent,
                fork,
                doubted_to: fork,
            });
        }
        TAG_TROUBLE => header.trouble = Some(take_trouble(&mut front)?),
        TAG_REJOINED => {
            let (since, sound) = (front.u32()?, front.u32().filter(|sound| *sound <= 1)?);
            let is_sound = sound == 1;
            header.rejoined = Some(Rejoined { since, is_sound });
        }
        TAG_DOUBTED => {
            let lineage = header.lineage.as_mut()?;
            lineage.doubted_to = Some(Lsn(front.u64()?)).filter(|to| *to > lineage.fork)?;
        }
        TAG_PIECES => header.pieces = Some(Pieces::take(&mut front)?),
        TAG_SEAL => into.seal = Some(Seal::take(&mut front)?),
        _ => return Some(false),
    }
    front.is_empty().then_some(true)
}

fn take_requests(front: &mut Front<'_>) -> Option<Requests> {
    let number = front.u64()?;
    let mut ranges = Vec::new();
    while !front.is_empty() {
        if ranges.len() == Requests::MAX_RANGES {
            return None;
        }
        ranges.push(Range {
            after: Point::take(front)?,
            up_to: Point::take(front)?,
        });
    }
    Some(Requests { number, ranges })
}

fn take_trouble(front: &mut Front<'_>) -> Option<Trouble> {
    let (held, refused) = (front.u32()?, front.u32()?);
    let mut cases = Vec::new();
    while !front.is_empty() {
        if cases.len() == Trouble::MAX_CASES {
            return None;
        }
        let point = Point::take(front)?;
        let len = u32_to_usize(front.u32()?);
        front.u32().filter(|reserved| *reserved == 0)?;
        let reason = front.padded(len).filter(|_| len <= Trouble::MAX_REASON)?;
        let reason = std::str::from_utf8(reason).ok()?.to_owned();
        cases.push(TroubleCase { point, reason });
    }
    let trouble = Trouble { held, refused, cases };
    Some(trouble).filter(|trouble| !trouble.is_none())
}

fn check_order(header: &Header) -> Result<(), MessageFault> {
    let fault = if header.previous.place() > header.last.place() {
        "it ends before it begins"
    } else if header.confirmed.place() > header.received.place() {
        "it confirms more than it received"
    } else if header.last.position.lsn > header.durable {
        "it tells what is not durable at its sender"
    } else {
        return Ok(());
    };
    Err(MessageFault::Contradiction(fault))
}

/// Room in bytes that a head takes at most with what this program puts into it.
pub(super) const HEAD_ROOM: usize = {
    let addresses = 40 + 2 * SiteName::MAX_LEN;
    let fixed = 24 + 4 * Point::LEN;
    let requests = 16 + Requests::MAX_RANGES * 2 * Point::LEN;
    let trouble = 16 + Trouble::MAX_CASES * (CASE_HEAD + Trouble::MAX_REASON);
    let pieces = 8 + Pieces::LEN;
    let small = (16 + Point::LEN) + 16 + 24 + 16 + (8 + Seal::LEN);
    PREFIX_LEN + addresses + fixed + requests + trouble + pieces + small
};

/// Lengths of head and body as the prefix tells them, in bytes.
pub(super) fn told_len(prefix: &Prefix) -> u64 {
    u64::from(prefix.head_len) + u64::from(prefix.body_len)
}

/// True when the lengths can be those of a message of `len` bytes.
pub(super) fn lengths_agree(prefix: &Prefix, len: usize) -> bool {
    let head_len = u32_to_usize(prefix.head_len);
    let aligned = head_len == align8(head_len);
    aligned && (PREFIX_LEN..=MAX_HEAD).contains(&head_len) && told_len(prefix) == to_u64(len)
}
