//! The bytes of a carried store: header and heads of pieces (docs/replication.md, "Carried store").
//!
//! Both are encoded and decoded side by side, and nothing here touches a file. Nothing that a head says becomes a path: a file is a
//! kind and a number, and its name is made here.

use milepost_engine::width::{to_u64, u32_to_usize};
use milepost_engine::{Lsn, SiteName, StoreId};

/// Length of the header.
pub(super) const HEADER_LEN: usize = 128;
/// Length of the head of a piece.
pub(super) const HEAD_LEN: usize = 48;
/// Longest piece.
pub(super) const PIECE_LEN: usize = 1 << 20;
/// Longest file that is not a segment.
const SMALL_LEN: u64 = 64 << 10;
/// Longest segment: one block may need a longer one than others.
const SEGMENT_LEN: u64 = 4 << 30;
/// Longest name of a site.
const SITE_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"MPX\x01\r\n\x1a\n";
const PIECE_MAGIC: [u8; 4] = *b"MPXP";
const VERSION: u16 = 1;
const CRC_AT: usize = 12;
const HEAD_CRC_AT: usize = HEAD_LEN - 4;

/// What stands at the beginning of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: StoreId,
    pub(super) site: SiteName,
    /// Length of the file.
    pub(super) bytes: u64,
    /// Pieces.
    pub(super) count: u32,
    /// CRC-32 of all their heads, in order.
    pub(super) heads_crc: u32,
    /// When it was made, microseconds since 1970; for people.
    pub(super) made: i64,
}

/// A file of a store. The order is that in which they are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Store,
    Segment(Lsn),
    Newest,
    Closed,
}

/// What stands before the bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) part: Part,
    /// Length of the whole file; what no piece has is zeros.
    pub(super) whole: u64,
    /// Where in it the piece begins.
    pub(super) offset: u64,
    pub(super) len: u32,
    /// CRC-32 of the piece.
    pub(super) crc: u32,
}

impl Part {
    /// Its name in the store's folder.
    pub(super) fn name(self) -> String {
        match self {
            Part::Store => "store".to_owned(),
            Part::Segment(first) => format!("log/{:016x}.log", first.0),
            Part::Newest => "log/newest".to_owned(),
            Part::Closed => "log/closed".to_owned(),
        }
    }

    fn code(self) -> (u16, u64) {
        match self {
            Part::Store => (1, 0),
            Part::Segment(first) => (2, first.0),
            Part::Newest => (3, 0),
            Part::Closed => (4, 0),
        }
    }

    fn of(kind: u16, number: u64) -> Option<Part> {
        Some(match (kind, number) {
            (1, 0) => Part::Store,
            (2, first) => Part::Segment(Lsn(first)),
            (3, 0) => Part::Newest,
            (4, 0) => Part::Closed,
            _ => return None,
        })
    }

    /// Longest file of its kind.
    pub(super) fn longest(self) -> u64 {
        match self {
            Part::Segment(_) => SEGMENT_LEN,
            _ => SMALL_LEN,
        }
    }
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_LEN] {
        let (kind, number) = self.part.code();
        let mut bytes = PIECE_MAGIC.to_vec();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&self.whole.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        fixed(&bytes)
    }

    /// `None` for what is no head, or says what cannot be.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Option<Head> {
        let (said, crc) = bytes.split_at(HEAD_CRC_AT);
        if crc != crc32fast::hash(said).to_le_bytes() {
            return None;
        }
        let mut rest = said;
        if take(&mut rest)? != PIECE_MAGIC {
            return None;
        }
        let kind = u16::from_le_bytes(take(&mut rest)?);
        let reserved: [u8; 2] = take(&mut rest)?;
        let mut word = || Some(u64::from_le_bytes(take(&mut rest)?));
        let (number, whole, offset) = (word()?, word()?, word()?);
        let mut half = || Some(u32::from_le_bytes(take(&mut rest)?));
        let (len, crc, behind) = (half()?, half()?, half()?);
        let part = Part::of(kind, number)?;
        let fits = offset.checked_add(u64::from(len)).is_some_and(|end| end <= whole);
        let is_sound = reserved == [0; 2] && behind == 0 && u32_to_usize(len) <= PIECE_LEN;
        (fits && is_sound && whole <= part.longest()).then_some(Head {
            part,
            whole,
            offset,
            len,
            crc,
        })
    }

    /// Length of the piece in the file, padding included.
    pub(super) fn padded(&self) -> u64 {
        u64::from(self.len).next_multiple_of(8)
    }
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&self.store.0.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.heads_crc.to_le_bytes());
        bytes.extend_from_slice(&self.made.to_le_bytes());
        let name = self.site.as_str().as_bytes();
        bytes.push(u8::try_from(name.len()).unwrap_or_default());
        bytes.extend_from_slice(&[0; 7]);
        bytes.extend_from_slice(name);
        let mut bytes: [u8; HEADER_LEN] = fixed(&bytes);
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        bytes
            .iter_mut()
            .skip(CRC_AT)
            .zip(crc)
            .for_each(|(byte, of)| *byte = of);
        bytes
    }

    /// `Err` says what is wrong.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, String> {
        let damaged = || "its header is damaged".to_owned();
        let mut rest = bytes.as_slice();
        if take(&mut rest) != Some(MAGIC) {
            return Err("it does not begin like a carried store".to_owned());
        }
        let version = take(&mut rest).map(u16::from_le_bytes).ok_or_else(damaged)?;
        let flags: [u8; 2] = take(&mut rest).ok_or_else(damaged)?;
        let crc = take(&mut rest).map(u32::from_le_bytes).ok_or_else(damaged)?;
        let mut covered = *bytes;
        covered.iter_mut().skip(CRC_AT).take(4).for_each(|byte| *byte = 0);
        if crc32fast::hash(&covered) != crc {
            return Err(damaged());
        }
        if version != VERSION || flags != [0; 2] {
            return Err(format!(
                "it is of version {version}, and this program reads version {VERSION}: use a newer one"
            ));
        }
        fields(rest).ok_or_else(damaged)
    }
}

fn fields(mut rest: &[u8]) -> Option<Header> {
    let rest = &mut rest;
    let store = StoreId(u128::from_le_bytes(take(rest)?));
    let bytes = u64::from_le_bytes(take(rest)?);
    let (count, heads_crc) = (u32::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?));
    let made = i64::from_le_bytes(take(rest)?);
    let [len, reserved @ ..]: [u8; 8] = take(rest)?;
    let (name, zeros) = rest.split_at_checked(usize::from(len))?;
    let site = SiteName::new(std::str::from_utf8(name).ok()?).ok()?;
    let is_plain = reserved == [0; 7] && zeros.iter().all(|byte| *byte == 0) && rest.len() == SITE_LEN;
    is_plain.then_some(Header {
        store,
        site,
        bytes,
        count,
        heads_crc,
        made,
    })
}

/// Length of the whole file that so many bytes of heads and pieces make.
pub(super) fn file_len(behind: u64) -> u64 {
    to_u64(HEADER_LEN) + behind
}

/// The bytes, with zeros behind them.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    out
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            store: StoreId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            site: "bern".parse().unwrap(),
            bytes: 4_096,
            count: 3,
            heads_crc: 0xdead_beef,
            made: 1_700_000_000_000_000,
        }
    }

    fn head() -> Head {
        Head {
            part: Part::Segment(Lsn(1 << 20)),
            whole: 1 << 20,
            offset: 4_096,
            len: 77,
            crc: 0xc0ff_ee00,
        }
    }

    /// docs/replication.md, "Carried store".
    #[test]
    fn header_and_head_are_laid_out_as_their_page_says() {
        let bytes = header().encode();
        let fields: [(usize, &[u8]); 10] = [
            (0, b"MPX\x01\r\n\x1a\n"),
            (8, &1u16.to_le_bytes()),
            (10, &[0; 2]),
            (16, &0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10_u128.to_le_bytes()),
            (32, &4_096u64.to_le_bytes()),
            (40, &3u32.to_le_bytes()),
            (44, &0xdead_beef_u32.to_le_bytes()),
            (48, &1_700_000_000_000_000_i64.to_le_bytes()),
            (56, &[4, 0, 0, 0, 0, 0, 0, 0]),
            (64, b"bern\0\0\0\0"),
        ];
        for (at, field) in fields {
            assert_eq!(&bytes[at..at + field.len()], field, "{at}");
        }
        let mut covered = bytes;
        covered[12..16].fill(0);
        assert_eq!(bytes[12..16], crc32fast::hash(&covered).to_le_bytes());
        let bytes = head().encode();
        let fields: [(usize, &[u8]); 9] = [
            (0, b"MPXP"),
            (4, &[2, 0, 0, 0]),
            (8, &(1u64 << 20).to_le_bytes()),
            (16, &(1u64 << 20).to_le_bytes()),
            (24, &4_096u64.to_le_bytes()),
            (32, &77u32.to_le_bytes()),
            (36, &0xc0ff_ee00_u32.to_le_bytes()),
            (40, &[0; 4]),
            (44, &crc32fast::hash(&bytes[..44]).to_le_bytes()),
        ];
        for (at, field) in fields {
            assert_eq!(&bytes[at..at + field.len()], field, "{at}");
        }
        let kinds = [Part::Store, Part::Segment(Lsn(7)), Part::Newest, Part::Closed];
        assert_eq!(kinds.map(|part| part.code().0), [1, 2, 3, 4]);
        assert!(kinds.is_sorted());
    }

    #[test]
    fn what_is_encoded_is_decoded_and_every_changed_bit_is_seen() {
        let (bytes, of_head) = (header().encode(), head().encode());
        assert_eq!(Header::decode(&bytes), Ok(header()));
        assert_eq!(Head::decode(&of_head), Some(head()));
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&changed).is_err(), "{bit}");
        }
        for bit in 0..HEAD_LEN * 8 {
            let mut changed = of_head;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&changed), None, "{bit}");
        }
    }

    /// The trap: checksums that a forger put right.
    #[test]
    fn a_head_that_says_what_cannot_be_is_none() {
        let spoilt = [
            Head {
                offset: u64::MAX,
                ..head()
            },
            Head {
                whole: 4_100,
                ..head()
            },
            Head {
                whole: SEGMENT_LEN + 1,
                ..head()
            },
            Head {
                len: (1 << 20) + 1,
                whole: 1 << 30,
                ..head()
            },
            Head {
                part: Part::Store,
                whole: SMALL_LEN + 1,
                ..head()
            },
        ];
        for head in spoilt {
            assert_eq!(Head::decode(&head.encode()), None, "{head:?}");
        }
        for (at, byte) in [(4, 9), (6, 1), (40, 1)] {
            let mut bytes = head().encode();
            bytes[at] = byte;
            let crc = crc32fast::hash(&bytes[..44]).to_le_bytes();
            bytes[44..].copy_from_slice(&crc);
            assert_eq!(Head::decode(&bytes), None, "{at}");
        }
    }
}
