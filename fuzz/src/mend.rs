//! Makes checksums right again. A checksum keeps accidents out, not somebody who wants in; what lies
//! behind it must stand by itself.

use std::ops::Range;

use milepost_engine::block::{BlockHeader, HEADER_LEN};

const FILTER_LEN: usize = 12;
const BODY_LEN: usize = 16;
const FILTER_CRC: usize = 28;
const CHAIN: usize = 80;
const BODY_CRC: usize = 112;
const HEADER_CRC: usize = HEADER_LEN - 4;

/// Mends the block at the start of `bytes` as far as its lengths lie inside; returns its header.
pub fn block(bytes: &mut [u8], chain: Option<u64>) -> Option<BlockHeader> {
    let (filter_len, body_len) = (word(bytes, FILTER_LEN)?, word(bytes, BODY_LEN)?);
    let body_at = HEADER_LEN.checked_add(filter_len)?;
    sum(bytes, HEADER_LEN..body_at, FILTER_CRC);
    sum(bytes, body_at..body_at.checked_add(body_len)?, BODY_CRC);
    if let Some(chain) = chain {
        bytes
            .get_mut(CHAIN..CHAIN + 8)?
            .copy_from_slice(&chain.to_le_bytes());
    }
    sum(bytes, 0..HEADER_CRC, HEADER_CRC);
    BlockHeader::parse(bytes).ok()
}

/// Mends all blocks of a segment, one behind the other, with one chain through them; `first` is kept
/// as the chain before the first.
pub fn segment(bytes: &mut [u8]) {
    let (mut at, mut chain) = (0, None);
    while let Some(header) = bytes.get_mut(at..).and_then(|rest| block(rest, chain)) {
        chain = Some(header.chain_after().0);
        at += header.block_len as usize;
    }
}

/// Mends both checksums of a message.
pub fn message(bytes: &mut [u8]) {
    const HEAD_LEN: usize = 8;
    const HEAD_CRC: usize = 24;
    const CRC: usize = 28;
    let Some(head_len) = word(bytes, HEAD_LEN) else {
        return;
    };
    let Some(sums) = bytes.get_mut(HEAD_CRC..CRC + 4) else {
        return;
    };
    sums.fill(0);
    let head = bytes.get(..head_len).map_or(0, crc32fast::hash);
    let all = crc32fast::hash(bytes);
    bytes[HEAD_CRC..CRC].copy_from_slice(&head.to_le_bytes());
    bytes[CRC..CRC + 4].copy_from_slice(&all.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn sum(bytes: &mut [u8], range: Range<usize>, at: usize) {
    if let Some(covered) = bytes.get(range) {
        let crc = crc32fast::hash(covered);
        if let Some(place) = bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Mends what carries its checksum at a place known by the file's name: everything but segments. True for a file
/// whose checksums are, or were made, right.
pub fn small_file(name: &str, bytes: &mut Vec<u8>) -> bool {
    let len = bytes.len();
    let whole = |at: usize| (len >= at + 4).then_some((0..at, at));
    let place = match name.rsplit('/').next().unwrap_or_default() {
        "store" => whole(252),
        "newest" | "closed" => whole(36),
        "rescue" => whole(32),
        "freed" => whole(20),
        "repair" | "space" => len.checked_sub(4).and_then(whole),
        "backup" => {
            if len >= 512 {
                sum(&mut bytes[64..320], 0..252, 252);
            }
            whole(508)
        }
        name if name.ends_with(".idx") || name.starts_with("base-") => return sidecar(bytes),
        _ if name.starts_with("holds/") => len.checked_sub(4).and_then(whole),
        _ => None,
    };
    let Some((covered, at)) = place else {
        return false;
    };
    sum(bytes, covered, at);
    true
}

/// Mends the checksum of a view's mark: of all behind it.
pub fn view_mark(bytes: &mut [u8]) {
    let end = bytes.len();
    if end >= 8 {
        sum(bytes, 8..end, 4);
    }
}

/// Mends a compressed segment, a stub, or the mark of an archive, by its name.
pub fn packed(name: &str, bytes: &mut [u8]) {
    const HEADER: usize = 128;
    const ENTRY: usize = 24;
    let len = bytes.len();
    if !name.ends_with(".mpz") {
        if len >= 4 {
            sum(bytes, 0..len - 4, len - 4);
        }
        return;
    }
    let (Some(table_at), Some(pieces)) = (word(bytes, 56), word(bytes, 64)) else {
        return;
    };
    let mut at = HEADER;
    for piece in 0..pieces {
        let entry = table_at.saturating_add(piece.saturating_mul(ENTRY));
        for part in [entry.saturating_add(8), entry.saturating_add(16)] {
            let Some(packed_len) = word(bytes, part) else {
                return;
            };
            let end = at.saturating_add(packed_len);
            sum(bytes, at..end, part + 4);
            at = end;
        }
    }
    let table_end = table_at.saturating_add(pieces.saturating_mul(ENTRY));
    sum(bytes, table_at..table_end, 68);
    sum(bytes, 0..HEADER - 4, HEADER - 4);
}

/// Each section's checksum stands in the header's table, and the header's at its end.
fn sidecar(bytes: &mut [u8]) -> bool {
    const TABLE: usize = 112;
    const HEADER: usize = 256;
    let mut at = HEADER;
    for section in (TABLE..TABLE + 6 * 16).step_by(16) {
        let Some(len) = word(bytes, section) else {
            return false;
        };
        let Some(end) = at.checked_add(len).filter(|end| *end <= bytes.len()) else {
            return false;
        };
        sum(bytes, at..end, section + 8);
        at = end;
    }
    sum(bytes, 0..HEADER - 4, HEADER - 4);
    true
}
