//! The bytes of a bundle (docs/replication.md, "Bundle"), encoded and decoded side by side. No files here.
//!
//! ```text
//! header 512 │ record: head 32, message, zeros to 8 │ record │ … │ the header once more 512
//! ```
//!
//! Guarantees: every flipped bit of a header, a record's head or a message is found; one damaged place leaves the other
//! header and all other messages readable. Lengths are believed only after their checksum, and bounded.

use milepost_engine::width::to_u64;
use milepost_engine::{Epoch, SiteName, StoreId};

use super::ranges::Ranges;
use crate::link::MAX_MESSAGE_BYTES;
use crate::wire::fields::{Fields, name_len};

/// What a bundle begins with. The last four bytes are changed by programs that take it for text.
pub const MAGIC: [u8; 8] = *b"MPB\x01\r\n\x1a\n";
/// Version of the layout.
pub const VERSION: u16 = 1;
/// Length of a header, and of its copy at the end.
pub const HEADER_LEN: usize = 512;
/// Length of a record's head.
pub const HEAD_LEN: usize = 32;
/// Magic of a record's head.
pub const HEAD_MAGIC: [u8; 4] = *b"MPR\x01";
/// Most ranges of numbers in a header.
pub const MOST_RANGES: usize = 16;

const NAME_LEN: usize = 64;
const MORE: u16 = 1;
const CRC_AT: usize = 12;

/// What a bundle says of itself: its manifest, with each record's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Random; which bundle this is, however often it was copied.
    pub id: u128,
    /// Its number among those of one lineage of its sender for its addressee, from 1.
    pub number: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Messages in it.
    pub count: u32,
    /// CRC-32 of all records' heads, in order.
    pub heads_crc: u32,
    /// When it was made, in microseconds since 1970, by its sender's clock; for people.
    pub created: i64,
    /// Who made it.
    pub from: SiteName,
    /// Id of its store.
    pub from_id: StoreId,
    /// For whom.
    pub to: SiteName,
    /// Id of the addressee's store; 0 = never heard from.
    pub to_id: StoreId,
    /// Lineage of the sender's log, in which `number` counts.
    pub epoch: Epoch,
    /// More was due than fitted.
    pub more: bool,
    /// Lineage of the addressee's log in which `acknowledged` counts; 0 = none was imported.
    pub acknowledged_epoch: Epoch,
    /// Bundles of the addressee that the sender has imported whole; the highest [`MOST_RANGES`] ranges.
    pub acknowledged: Ranges,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// They do not begin like one.
    Magic,
    /// They did, and were changed.
    Damaged,
    /// A newer program made them.
    Version(u16),
}

/// Head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the message in its bundle, from 0.
    pub index: u32,
    /// Length of the message, 1 to [`MAX_MESSAGE_BYTES`].
    pub len: u32,
    /// CRC-32 of the message.
    pub crc: u32,
}

impl Header {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(if self.more { MORE } else { 0 }).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.heads_crc.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&self.from_id.0.to_le_bytes());
        out.extend_from_slice(&self.to_id.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.acknowledged_epoch.0.to_le_bytes());
        let ranges = self.acknowledged.newest(MOST_RANGES);
        let count = u16::try_from(ranges.as_slice().len()).unwrap_or_default();
        out.push(name_len(&self.from));
        out.push(name_len(&self.to));
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for name in [&self.from, &self.to] {
            let end = out.len() + NAME_LEN;
            out.extend_from_slice(name.as_str().as_bytes());
            out.resize(end, 0);
        }
        for (first, last) in ranges.as_slice() {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
        out.resize(HEADER_LEN, 0);
        let crc = crc32fast::hash(&out);
        if let Some(place) = out.get_mut(CRC_AT..CRC_AT + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// Reads the first [`HEADER_LEN`] bytes.
    ///
    /// # Errors
    /// A [`HeaderFault`]; version before meaning, checksum before both.
    pub fn decode(bytes: &[u8]) -> Result<Header, HeaderFault> {
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(HeaderFault::Magic);
        }
        let bytes = bytes.get(..HEADER_LEN).ok_or(HeaderFault::Damaged)?;
        let mut zeroed = bytes.to_vec();
        let place = zeroed.get_mut(CRC_AT..CRC_AT + 4).ok_or(HeaderFault::Damaged)?;
        let told = <[u8; 4]>::try_from(&*place).map(u32::from_le_bytes).ok();
        place.fill(0);
        if told != Some(crc32fast::hash(&zeroed)) {
            return Err(HeaderFault::Damaged);
        }
        let mut fields = Fields(bytes.get(MAGIC.len()..).unwrap_or_default());
        let words = fields.u32().ok_or(HeaderFault::Damaged)?.to_le_bytes();
        let [v0, v1, f0, f1] = words;
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let more = match u16::from_le_bytes([f0, f1]) {
            0 => false,
            MORE => true,
            _ => return Err(HeaderFault::Damaged),
        };
        Header::decode_fields(fields, more).ok_or(HeaderFault::Damaged)
    }

    fn decode_fields(mut fields: Fields<'_>, more: bool) -> Option<Header> {
        fields.reserved::<4>()?;
        let id = fields.u128()?;
        let (number, bytes) = (fields.u64()?, fields.u64()?);
        let (count, heads_crc) = (fields.u32()?, fields.u32()?);
        let created = i64::from_le_bytes(fields.u64()?.to_le_bytes());
        let (from_id, to_id) = (StoreId(fields.u128()?), StoreId(fields.u128()?));
        let (epoch, acknowledged_epoch) = (Epoch(fields.u64()?), Epoch(fields.u64()?));
        let (from_len, to_len) = (fields.u8()?, fields.u8()?);
        let ranges = usize::from(u16::from_le_bytes([fields.u8()?, fields.u8()?]));
        fields.reserved::<4>()?;
        let mut name = |len: u8| Fields(fields.bytes(NAME_LEN)?).name(len);
        let (from, to) = (name(from_len)?, name(to_len)?);
        if ranges > MOST_RANGES {
            return None;
        }
        let mut acknowledged = Vec::with_capacity(ranges);
        for _ in 0..ranges {
            acknowledged.push((fields.u64()?, fields.u64()?));
        }
        let least = to_u64(2 * HEADER_LEN) + u64::from(count) * to_u64(HEAD_LEN + 8);
        (number > 0 && bytes >= least).then_some(())?;
        Some(Header {
            id,
            number,
            bytes,
            count,
            heads_crc,
            created,
            from,
            from_id,
            to,
            to_id,
            epoch,
            more,
            acknowledged_epoch,
            acknowledged: Ranges::of(acknowledged)?,
        })
    }
}

impl Head {
    /// The head of a message.
    #[must_use]
    pub fn of(index: u32, message: &[u8]) -> Option<Head> {
        let len = u32::try_from(message.len()).ok()?;
        let crc = crc32fast::hash(message);
        Head { index, len, crc }.checked()
    }

    fn checked(self) -> Option<Head> {
        let fits = usize::try_from(self.len).is_ok_and(|len| (1..=MAX_MESSAGE_BYTES).contains(&len));
        fits.then_some(self)
    }

    /// Length of the whole record.
    #[must_use]
    pub fn record_len(self) -> u64 {
        to_u64(HEAD_LEN) + u64::from(self.len).next_multiple_of(8)
    }

    /// The bytes, in the bundle of this id.
    #[must_use]
    pub fn encode(self, bundle: u128) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.extend_from_slice(&HEAD_MAGIC);
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        let id = bundle.to_le_bytes();
        out.extend_from_slice(id.get(..8).unwrap_or_default());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a head of the bundle of this id; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8], bundle: u128) -> Option<Head> {
        let bytes = bytes.get(..HEAD_LEN)?;
        let mut fields = Fields(bytes.strip_prefix(&HEAD_MAGIC)?);
        let (index, len, crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let head = Head { index, len, crc };
        (head.encode(bundle) == bytes).then_some(())?;
        head.checked()
    }
}
