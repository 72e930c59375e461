//! The bytes of a sidecar: it can be made again, but only one that is read as it was written spares a store of today
//! that after every update.

use crate::block::Block;
use crate::block::tests::golden::drawn_filter;
use crate::frame::NewFrame;
use crate::golden::{assert_laid_out, kept};
use crate::index::active::ActiveIndex;
use crate::index::build::{PinnedState, encode};
use crate::index::layout::PAGE;
use crate::index::name;
use crate::index::place::Posting;
use crate::index::sidecar::Sidecar;
use crate::{Error, Event, Lsn, StreamName};

use super::memory::{FakeLog, Memory, STORE};

/// A segment behind one of a single block: a block with a long event, and one with a transaction of two streams.
fn segment() -> ActiveIndex {
    let log = FakeLog::new();
    let transaction = |events: &[(&str, &[u8])], seq| {
        let mut frame = NewFrame::transaction();
        for (ordinal, (stream, payload)) in (0..).zip(events) {
            let event = Event::new(stream, "placed", *payload).unwrap();
            frame.push_event(ordinal, &event).unwrap();
        }
        frame.encode(seq, 1_700_000_000_000_000 + seq as i64).unwrap()
    };
    log.append(&[transaction(&[("till", b"before")], 0)], 11);
    log.roll();
    let mut index = ActiveIndex::new(log.end());
    let long = transaction(&[("till", &[7; 17_000])], 1);
    let two = transaction(&[("orders/1", b"one"), ("till", b"two")], 2);
    for (frame, nonce) in [(long, 12), (two, 13)] {
        let (_, bytes) = log.append(&[frame], nonce);
        index.absorb(&Block::check(&bytes).unwrap()).unwrap();
    }
    index
}

fn pinned() -> PinnedState {
    PinnedState::from([(b"catalog/remote/hq".to_vec(), (b"there".to_vec(), Lsn(136)))])
}

fn bytes() -> Vec<u8> {
    let base = |name: &str| u64::from(name == "till");
    encode::<Error>(STORE, &segment(), &pinned(), &mut |entry| Ok(base(&entry.name))).unwrap()
}

const FIRST: u64 = 200;
const SECOND: u64 = 17_400;
const END: u64 = 17_640;

#[test]
fn a_sidecar_of_format_1_is_written_and_read_as_ever() {
    let kept = kept("sidecar", &bytes());
    assert_eq!(kept, bytes());
    let storage = Memory::default();
    storage.put(&name::sidecar(Lsn(FIRST)), kept);
    // Tests have shorter pages than stores; with one page the bytes are the same.
    let opened = Sidecar::open(&storage, Lsn(FIRST)).unwrap();
    assert!(opened.header().checked_len() <= PAGE);
    opened.verify().unwrap();
    let header = opened.header();
    assert_eq!((header.store_id, header.end), (STORE, Lsn(END)));
    assert_eq!(header.totals, segment().totals());
    assert_eq!(Some(header.end_chain), segment().chain());
    let look = |stream: &str| opened.stream(StreamName::hash(stream), stream).unwrap();
    assert_eq!(look("orders/2"), None);
    for (stream, base, places) in [
        ("orders/1", 0, &[(SECOND + 136, 32)][..]),
        ("till", 1, &[(FIRST + 136, 32), (SECOND + 136, 72)]),
    ] {
        let found = look(stream).unwrap();
        assert_eq!((found.base, found.count), (base, places.len() as u64), "{stream}");
        let made = places
            .iter()
            .map(|(frame, event)| Posting::new(Lsn(FIRST), Lsn(*frame), *event).unwrap());
        let postings = opened.postings(&found, 0..found.count).unwrap();
        assert_eq!(postings, made.collect::<Vec<_>>(), "{stream}");
    }
    let record = opened.pinned_at(0).unwrap();
    assert_eq!(
        (record.key, record.value, record.lsn),
        (&b"catalog/remote/hq"[..], &b"there"[..], Lsn(136))
    );
    for (asked, block) in [
        (FIRST, FIRST),
        (SECOND - 1, FIRST),
        (SECOND, SECOND),
        (END - 1, SECOND),
    ] {
        let place = opened.block_holding(Lsn(asked)).unwrap().unwrap();
        assert_eq!(place.lsn, Lsn(block), "{asked}");
    }
}

#[test]
fn the_header_of_a_sidecar_of_format_1_is_laid_out_as_its_page_says() {
    let bytes = kept("sidecar", &bytes());
    let crc = |from: usize, to: usize| crc32fast::hash(&bytes[from..to]).to_le_bytes();
    let chains = segment();
    let (before, after) = (chains.chain_before().unwrap(), chains.chain().unwrap());
    // docs/format.md, "Sidecar index".
    let header: &[(usize, &[u8])] = &[
        (0, b"MPI1"),
        (4, &2u16.to_le_bytes()),
        (6, &[0; 2]),
        (8, &77u128.to_le_bytes()),
        (24, &200u64.to_le_bytes()),
        (32, &17_640u64.to_le_bytes()),
        (40, &before.0.to_le_bytes()),
        (48, &after.0.to_le_bytes()),
        (56, &1_700_000_000_000_001_u64.to_le_bytes()),
        (64, &1_700_000_000_000_002_u64.to_le_bytes()),
        (72, &2u64.to_le_bytes()),
        (80, &2u64.to_le_bytes()),
        (88, &3u64.to_le_bytes()),
        (96, &2u64.to_le_bytes()),
        (104, &1u64.to_le_bytes()),
    ];
    let (mut extents, mut at) = (Vec::new(), 256);
    for len in [8usize, 64, 16, 24, 48, 32, 8] {
        extents.extend_from_slice(&(len as u64).to_le_bytes());
        extents.extend_from_slice(&crc(at, at + len));
        extents.extend_from_slice(&[0; 4]);
        at += len;
    }
    let table: &[(usize, &[u8])] = &[(112, &extents), (224, &[0; 28]), (252, &crc(0, 252))];
    assert_laid_out("sidecar", &bytes[..256], &[header, table].concat());
    assert_eq!(at, bytes.len());
}

#[test]
fn sections_of_a_sidecar_of_format_1_are_laid_out_as_their_page_says() {
    let bytes = kept("sidecar", &bytes());
    let segment = segment();
    let [first, second] = segment.blocks() else {
        panic!("two blocks at least 16 KiB apart")
    };
    let hash = |stream: &str| xxhash_rust::xxh3::xxh3_64(stream.as_bytes());
    let (orders, till) = (hash("orders/1"), hash("till"));
    assert!(till < orders, "streams ascend by their hashes");
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    // docs/format.md, "Sidecar index"; offsets are behind the header.
    let sections: &[(usize, &[u8])] = &[
        // Filter.
        (0, &drawn_filter([orders, till]).to_le_bytes()),
        // Streams: hash, base, name_at, postings_at, count, name_len, reserved.
        (8, &till.to_le_bytes()),
        (16, &1u64.to_le_bytes()),
        (24, &words(&[0, 0, 2, 4])),
        (40, &orders.to_le_bytes()),
        (48, &0u64.to_le_bytes()),
        (56, &words(&[4, 2, 1, 8])),
        (72, b"tillorders/1\0\0\0\0"),
        // Postings: a frame's distance from the segment's start and an event's from the frame's, in eights.
        (88, &words(&[136 / 8, 32 / 8])),
        (96, &words(&[(17_400 - 200 + 136) / 8, 72 / 8])),
        (104, &words(&[(17_400 - 200 + 136) / 8, 32 / 8])),
        // Pinned: offsets, then lsn, value_len, key_len, reserved, key, value.
        (112, &8u64.to_le_bytes()),
        (120, &136u64.to_le_bytes()),
        (128, &words(&[5, 17])),
        (136, b"catalog/remote/hqthere\0\0"),
        // Blocks.
        (160, &0u64.to_le_bytes()),
        (168, &first.chain.0.to_le_bytes()),
        (176, &17_200u64.to_le_bytes()),
        (184, &second.chain.0.to_le_bytes()),
        // Checks: one page.
        (192, &crc32fast::hash(&bytes[256..448]).to_le_bytes()),
        (196, &[0; 4]),
    ];
    assert_laid_out("sidecar", &bytes[256..], sections);
}
