//! `keys/<remote>` as bytes (docs/format.md, "Keys").
//!
//! ```text
//! 0   "MPKEYS01" 8 | version 4 | key_count 1 | retired_count 1 | reserved 2
//! 16  store id 16
//! 32  keys, newest first, 48 each: key 32 | added 8 | drawn here 1 | reserved 7
//!     ids of dropped keys, newest first, 8 each
//!     CRC-32 of the bytes before it 4
//! ```

use milepost_engine::StoreId;
use zeroize::Zeroizing;

use super::pair_key::{KeyId, PairKey};
use super::ring::{KeyRing, MAX_KEYS, MAX_RETIRED, RingKey};

const MAGIC: [u8; 8] = *b"MPKEYS01";
const VERSION: u32 = 1;
const FIXED_LEN: usize = 32;
const ENTRY_LEN: usize = 48;
/// Longest file in bytes.
pub(super) const LONGEST: usize = FIXED_LEN + MAX_KEYS * ENTRY_LEN + MAX_RETIRED * 8 + 4;

/// Why a file is none that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFault {
    /// Its bytes are not what was written.
    Damaged,
    /// It needs a newer program.
    Newer(u32),
    /// It is of another store.
    OtherStore,
}

pub(super) fn encode(ring: &KeyRing, store: StoreId) -> Zeroizing<Vec<u8>> {
    // It never grows, so that no copy of a secret is left where it was.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
    let (keys, retired) = (&ring.keys, &ring.retired);
    let count = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[count(keys.len()), count(retired.len()), 0, 0]);
    bytes.extend_from_slice(&store.0.to_le_bytes());
    for one in keys {
        bytes.extend_from_slice(one.key.bytes());
        bytes.extend_from_slice(&one.added.to_le_bytes());
        bytes.extend_from_slice(&[u8::from(one.drawn_here), 0, 0, 0, 0, 0, 0, 0]);
    }
    retired.iter().for_each(|id| bytes.extend_from_slice(&id.0));
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8], store: StoreId) -> Result<KeyRing, FileFault> {
    let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(FileFault::Damaged)?;
    if *crc != crc32fast::hash(covered).to_le_bytes() {
        return Err(FileFault::Damaged);
    }
    let mut rest = covered;
    let magic = take(&mut rest).ok_or(FileFault::Damaged)?;
    let version = take(&mut rest)
        .map(u32::from_le_bytes)
        .ok_or(FileFault::Damaged)?;
    match (magic == MAGIC, version) {
        (true, VERSION) => {}
        (true, newer) if newer > VERSION => return Err(FileFault::Newer(newer)),
        _ => return Err(FileFault::Damaged),
    }
    let (ring, owner) = take_ring(&mut rest)
        .filter(|_| rest.is_empty())
        .ok_or(FileFault::Damaged)?;
    if owner != store {
        return Err(FileFault::OtherStore);
    }
    Ok(ring)
}

fn take_ring(rest: &mut &[u8]) -> Option<(KeyRing, StoreId)> {
    let [keys, retired, _, _] = take(rest)?;
    let (keys, retired) = (usize::from(keys), usize::from(retired));
    let store = StoreId(u128::from_le_bytes(take(rest)?));
    if keys == 0 || keys > MAX_KEYS || retired > MAX_RETIRED {
        return None;
    }
    let mut ring = KeyRing::default();
    for _ in 0..keys {
        let key = PairKey::from_bytes(take(rest)?);
        let added = i64::from_le_bytes(take(rest)?);
        let [drawn_here, ..]: [u8; 8] = take(rest)?;
        ring.keys.push(RingKey {
            key,
            added,
            drawn_here: drawn_here != 0,
        });
    }
    for _ in 0..retired {
        ring.retired.push(KeyId(take(rest)?));
    }
    Some((ring, store))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{assert_laid_out, kept};

    fn ring() -> KeyRing {
        let one = |byte: u8, drawn_here| RingKey {
            key: PairKey::from_bytes([byte; 32]),
            added: -i64::from(byte),
            drawn_here,
        };
        KeyRing {
            keys: vec![one(2, true), one(1, false)],
            retired: vec![KeyId(*b"retired1"), KeyId(*b"retired0")],
        }
    }

    #[test]
    fn it_reads_as_it_was_written_and_every_changed_bit_is_seen() {
        let id = StoreId(7);
        let bytes = encode(&ring(), id);
        assert_eq!(kept("keys", &bytes), *bytes);
        // docs/format.md, "Keys".
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPKEYS01"),
            (8, &1u32.to_le_bytes()),
            (12, &[2, 2, 0, 0]),
            (16, &7u128.to_le_bytes()),
            (32, &[2; 32]),
            (64, &(-2i64).to_le_bytes()),
            (72, &[1, 0, 0, 0, 0, 0, 0, 0]),
            (80, &[1; 32]),
            (112, &(-1i64).to_le_bytes()),
            (120, &[0; 8]),
            (128, b"retired1retired0"),
            (144, &crc32fast::hash(&bytes[..144]).to_le_bytes()),
        ];
        assert_laid_out("keys", &bytes, fields);
        let read = decode(&bytes, id).unwrap();
        assert_eq!(*encode(&read, id), *bytes);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed, id).unwrap_err(), FileFault::Damaged);
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len], id).unwrap_err(), FileFault::Damaged);
        }
        assert_eq!(decode(&bytes, StoreId(8)).unwrap_err(), FileFault::OtherStore);
    }

    /// Puts the checksum right, as a forger would.
    fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_newer_format_is_told_and_counts_that_cannot_be_are_damage() {
        let bytes = encode(&ring(), StoreId(7));
        let with = |at: usize, value: u8| {
            let mut changed = bytes.to_vec();
            changed[at] = value;
            decode(&summed(changed), StoreId(7)).unwrap_err()
        };
        assert_eq!(with(8, 2), FileFault::Newer(2));
        for (at, value) in [(8, 0), (12, 0), (12, 1), (12, 3), (13, 1), (13, 3), (13, 255)] {
            assert_eq!(with(at, value), FileFault::Damaged, "{value} at {at}");
        }
        let none = encode(&KeyRing::default(), StoreId(7));
        assert_eq!(
            decode(&none, StoreId(7)).unwrap_err(),
            FileFault::Damaged,
            "no key at all"
        );
    }
}
