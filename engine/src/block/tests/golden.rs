//! The bytes of blocks and frames: all that was ever committed is in them.

use super::*;
use crate::golden::{assert_laid_out, kept};

#[test]
fn blocks_of_format_1_are_written_and_read_as_ever() {
    let log = sealed(&small(), &seal(), 512);
    let close = Seal {
        close: true,
        lsn: Lsn(2048),
        ..seal()
    };
    let close = sealed(&[], &close, 512);
    let queue = Seal {
        kind: BlockKind::Queue,
        aux: 77,
        lsn: Lsn::ZERO,
        ..seal()
    };
    let entry = Model {
        kind: FrameKind::QUEUE_FIRST,
        ..small().remove(2)
    };
    let queue = sealed(std::slice::from_ref(&entry), &queue, 1);
    let owner = Owner {
        secret: 0x5ec2_e7f0_0dba_11ad,
        ..seal().owner
    };
    let secret = sealed(&small(), &Seal { owner, ..seal() }, 1);
    for (name, block, frames) in [
        ("log.block", log, small()),
        ("secret.block", secret, small()),
        ("close.block", close, vec![]),
        ("queue.block", queue, vec![entry]),
    ] {
        let bytes = kept(name, &block.bytes);
        assert_eq!(
            bytes, block.bytes,
            "{name}: our bytes are no longer those of format 1"
        );
        assert_eq!(read(&bytes).unwrap(), (block.header, frames), "{name}");
    }
}

#[test]
fn a_lost_block_of_format_1_names_the_chain_behind_it_and_holds_nothing() {
    let seal = Seal {
        lsn: Lsn(4096),
        ..seal()
    };
    let block = lost_block(&seal, 65_536, Chain(0x1234_5678));
    assert_eq!(kept("lost.block", &block.bytes), block.bytes);
    let header = BlockHeader::parse(&block.bytes).unwrap();
    assert!(header.lost && header == block.header);
    assert_eq!(
        (header.end(), header.chain_after()),
        (Lsn(4096 + 65_536), Chain(0x1234_5678))
    );
    // With anything in it, or in a queue, it is none.
    for changed in [(16, 8u8), (20, 1), (24, 1), (2, b'Q')] {
        let mut bytes = block.bytes.clone();
        bytes[changed.0] = changed.1;
        let crc = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(BlockHeader::parse(&bytes).unwrap_err(), BlockFault::Lengths);
    }
}

const ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
const TIME: &[u8; 8] = &1_700_000_000_000_000_u64.to_le_bytes();

/// Fields of a header that are the same in all blocks here, and those that differ.
struct Laid<'a> {
    magic: &'a [u8; 4],
    flags: u16,
    /// block_len, filter_len, body_len, frames, events.
    counts: [u32; 5],
    lsn: u64,
    times: &'a [u8],
    aux: u64,
    secret: u64,
}

/// Compares a header with docs/format.md, "Block"; its lengths say where filter and body are.
fn assert_header(name: &str, bytes: &[u8], laid: &Laid<'_>) {
    let [block_len, filter_len, body_len, ..] = laid.counts.map(|count| count as usize);
    assert_eq!(bytes.len(), block_len, "{name}");
    let filter = &bytes[128..128 + filter_len];
    let body = &bytes[128 + filter_len..128 + filter_len + body_len];
    let crc = |bytes: &[u8]| {
        if bytes.is_empty() {
            [0; 4]
        } else {
            crc32fast::hash(bytes).to_le_bytes()
        }
    };
    let counts = laid.counts.map(u32::to_le_bytes).concat();
    let fields: &[(usize, &[u8])] = &[
        (0, laid.magic),
        (4, &1u16.to_le_bytes()),
        (6, &laid.flags.to_le_bytes()),
        (8, &counts),
        (28, &crc(filter)),
        (32, &ID.to_le_bytes()),
        (48, &0xe90c_u64.to_le_bytes()),
        (56, &laid.lsn.to_le_bytes()),
        (64, &(1u64 << 19).to_le_bytes()),
        (72, &0x0def_aced_0ddb_a115_u64.to_le_bytes()),
        (80, &0xc4a1_u64.to_le_bytes()),
        (88, laid.times),
        (104, &laid.aux.to_le_bytes()),
        (112, &crc(body)),
        (116, &laid.secret.to_le_bytes()),
        (124, &crc(&bytes[..124])),
    ];
    assert_laid_out(name, &bytes[..128], fields);
    let padding = &bytes[128 + filter_len + body_len..];
    assert!(padding.iter().all(|byte| *byte == 0), "{name}: padding");
}

#[test]
fn headers_of_format_1_are_laid_out_as_their_page_says() {
    let both = [*TIME, *TIME].concat();
    let log = Laid {
        magic: b"MPB1",
        flags: 0,
        counts: [512, 8, 360, 3, 2],
        lsn: 1 << 20,
        times: &both,
        aux: 0,
        secret: 0,
    };
    let secret = Laid {
        counts: [496, 8, 360, 3, 2],
        secret: 0x5ec2_e7f0_0dba_11ad,
        ..log
    };
    let none = Laid {
        counts: [512, 0, 0, 0, 0],
        times: &[0; 16],
        ..log
    };
    let close = Laid {
        flags: 1,
        lsn: 2_048,
        ..none
    };
    let queue = Laid {
        magic: b"MPQ1",
        counts: [168, 0, 40, 1, 0],
        lsn: 0,
        aux: 77,
        ..log
    };
    for (name, laid) in [
        ("log.block", log),
        ("secret.block", secret),
        ("close.block", close),
        ("queue.block", queue),
    ] {
        assert_header(name, &crate::golden::read(name), &laid);
    }
    // A lost block is a header alone, and all else of what it stands for is not kept.
    let lost = crate::golden::read("lost.block");
    let mut whole = lost.clone();
    whole.resize(65_536, 0);
    let lost = Laid {
        flags: 2,
        counts: [65_536, 0, 0, 0, 0],
        lsn: 4_096,
        aux: 0x1234_5678,
        ..none
    };
    assert_header("lost.block", &whole, &lost);
}

/// A filter of 64 bits for the streams with these hashes, as docs/format.md says ("Filter").
pub(crate) fn drawn_filter(hashes: [u64; 2]) -> u64 {
    let mut filter = 0;
    for hash in hashes {
        let (a, b) = (hash & 0xffff_ffff, hash >> 32 | 1);
        (0..=5).for_each(|i| filter |= 1u64 << ((a + i * b) % 64));
    }
    filter
}

#[test]
fn a_filter_of_format_1_is_laid_out_as_its_page_says() {
    let bytes = crate::golden::read("log.block");
    let hashes = ["orders/7", "orders/8"].map(|stream| xxhash_rust::xxh3::xxh3_64(stream.as_bytes()));
    assert_eq!(bytes[128..136], drawn_filter(hashes).to_le_bytes());
}

#[test]
fn frames_of_format_1_are_laid_out_as_their_page_says() {
    let bytes = crate::golden::read("log.block");
    // docs/format.md, "Frame" and "Event"; offsets are in the body.
    let transaction: &[(usize, &[u8])] = &[
        (0, &288u32.to_le_bytes()),
        (4, &[1, 1 | 2 | 4, 0, 0]),
        (8, TIME),
        (16, &1u64.to_le_bytes()),
        (24, &200u32.to_le_bytes()),
        (28, &2u32.to_le_bytes()),
        // Origin: site, epoch, LSN, name_len, reserved, name.
        (32, &7u128.to_le_bytes()),
        (48, &3u64.to_le_bytes()),
        (56, &4_096u64.to_le_bytes()),
        (64, &[2, 0, 0, 0, 0, 0, 0, 0]),
        (72, b"hq\0\0\0\0\0\0"),
        // Via: site, epoch, at, back, chain, generation, name_len, reserved, name.
        (80, &8u128.to_le_bytes()),
        (96, &5u64.to_le_bytes()),
        (104, &99_000u64.to_le_bytes()),
        (112, &0u64.to_le_bytes()),
        (120, &0xabc_u64.to_le_bytes()),
        (128, &2u32.to_le_bytes()),
        (132, &[5, 0, 0, 0]),
        (136, b"hub-2\0\0\0"),
        // Pinned: length, count, then key_len, flags, value_len, key, value.
        (144, &56u32.to_le_bytes()),
        (148, &2u32.to_le_bytes()),
        (152, &[15, 0, 0, 0, 5, 0, 0, 0]),
        (160, b"neighbour/hub-299000\0\0\0\0"),
        (184, &[4, 0, 1, 0, 0, 0, 0, 0]),
        (192, b"gone\0\0\0\0"),
        // Events: payload_len, ordinal, stream_len, kind_len, headers_len, stream, kind, headers, payload.
        (200, &[7, 0, 0, 0, 0, 0, 0, 0]),
        (208, &[8, 0, 6, 0, 14, 0, 0, 0]),
        (216, b"orders/7placed"),
        (230, b"\x01\0\x02\0\x06\0bytill-3"),
        (244, b"{\"n\":1}\0\0\0\0\0"),
        (256, &[0, 0, 0, 0, 3, 0, 0, 0]),
        (264, &[8, 0, 6, 0, 0, 0, 0, 0]),
        (272, b"orders/8placed\0\0"),
    ];
    let others: &[(usize, &[u8])] = &[
        (288, &[32, 0, 0, 0, 4, 0, 0, 0]),
        (296, TIME),
        (304, &2u64.to_le_bytes()),
        (312, &[32, 0, 0, 0, 0, 0, 0, 0]),
        (320, &[40, 0, 0, 0, 130, 0, 0, 0]),
        (328, TIME),
        (336, &3u64.to_le_bytes()),
        (344, &[32, 0, 0, 0, 6, 0, 0, 0]),
        (352, b"opaque\0\0"),
    ];
    assert_laid_out(
        "log.block",
        &bytes[136..136 + 360],
        &[transaction, others].concat(),
    );
}

#[test]
fn the_time_of_the_first_commit_of_format_1_is_written_and_read_as_ever() {
    let mut frame = NewFrame::transaction();
    frame.pin(Pinned {
        key: b"key".to_vec(),
        value: Some(b"value".to_vec()),
    });
    frame.set_committed_at(-2);
    frame
        .push_event(0, &Event::new("s", "k", *b"p").unwrap())
        .unwrap();
    let mut builder = BlockBuilder::new();
    builder.push(&frame.encode(9, 1_700_000_000_000_000).unwrap());
    let written = builder.seal(&seal(), 1).bytes;
    let bytes = kept("committed.block", &written);
    assert_eq!(written, bytes);
    let block = Block::check(&bytes).unwrap();
    let frame = block.frames().next().unwrap().unwrap();
    assert_eq!(
        (frame.committed_at().unwrap(), frame.time()),
        (-2, 1_700_000_000_000_000)
    );
    // docs/format.md, "Frame": the section is the last.
    let fields: &[(usize, &[u8])] = &[
        (0, &[88, 0, 0, 0, 1, 4 | 8, 0, 0]),
        (8, TIME),
        (16, &9u64.to_le_bytes()),
        (24, &[64, 0, 0, 0, 1, 0, 0, 0]),
        (32, &[24, 0, 0, 0, 1, 0, 0, 0]),
        (40, &[3, 0, 0, 0, 5, 0, 0, 0]),
        (48, b"keyvalue"),
        (56, &(-2i64).to_le_bytes()),
        (64, &[1, 0, 0, 0, 0, 0, 0, 0]),
        (72, &[1, 0, 1, 0, 0, 0, 0, 0]),
        (80, b"skp\0\0\0\0\0"),
    ];
    assert_laid_out("committed.block", &bytes[136..], fields);
}

#[test]
fn chains_of_format_1_are_what_their_page_says() {
    // docs/format.md, "Chain".
    fn mix(s: u64, w: u64) -> u64 {
        let z = (s ^ w).wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ s.rotate_left(41);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    let halves = [(ID >> 64) as u64, ID as u64];
    assert_eq!(
        Chain::genesis(StoreId(ID)).0,
        halves.into_iter().fold(0x4d69_6c65_706f_7374, mix)
    );
    for name in ["log.block", "secret.block", "close.block", "queue.block"] {
        let bytes = crate::golden::read(name);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let crc = u64::from(crc32fast::hash(&bytes[..124]));
        let after = [crc, word(72), word(56)].into_iter().fold(word(80), mix);
        assert_eq!(
            Block::check(&bytes).unwrap().chain_after(),
            Chain(after),
            "{name}"
        );
    }
}
