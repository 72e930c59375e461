//! The bytes of a base: truth that nothing can make again, so files of today are read for ever.

use crate::block::tests::golden::drawn_filter;
use crate::golden::{assert_laid_out, kept};
use crate::index::active::Totals;
use crate::index::build::{BasePlace, PinnedState, encode_base};
use crate::index::layout::PAGE;
use crate::index::sidecar::Sidecar;
use crate::index::{Base, base, name};
use crate::store::Newest;
use crate::{Chain, Lsn, StoreId, StreamName};

use super::memory::Memory;

const END: Lsn = Lsn(0x10_0000);
const RECEIVED: Newest = Newest {
    told: true,
    doubted: false,
    file: (Lsn(0xf_8000), 0x1234_5678),
};
const TOTALS: Totals = Totals {
    frames: 9,
    transactions: 7,
    events: 12,
    first_time: -3,
    last_time: 1_000_000,
};

/// A base of two streams and a pinned record, behind what was received.
fn bytes() -> Vec<u8> {
    let place = BasePlace {
        store_id: StoreId(7),
        end: END,
        end_chain: Chain(0x77),
        totals: TOTALS,
        scanned: Lsn(0xf_ff00),
        received: RECEIVED,
    };
    let counts = [("orders/1", 5), ("till", 7)]
        .map(|(name, count)| ((StreamName::hash(name), Box::from(name)), count))
        .into();
    let pinned = PinnedState::from([(b"catalog/remote/hq".to_vec(), (b"there".to_vec(), Lsn(4_224)))]);
    encode_base(&place, &counts, &pinned).unwrap()
}

#[test]
fn a_base_of_format_1_is_written_and_read_as_ever() {
    let kept = kept("base", &bytes());
    assert_eq!(kept, bytes());
    let storage = Memory::default();
    storage.put(&name::base(END), kept);
    // Tests have shorter pages than stores; with one page the bytes are the same.
    let opened = Sidecar::open_base(&storage, END).unwrap().unwrap();
    assert!(opened.header().checked_len() <= PAGE);
    assert_eq!(opened.header().totals, TOTALS);
    assert_eq!(opened.header().scanned, Lsn(0xf_ff00));
    assert_eq!(opened.header().chain_before, Chain::genesis(StoreId(7)));
    assert_eq!(opened.header().end_chain, Chain(0x77));
    assert_eq!(opened.pinned_count(), 1);
    let record = opened.pinned_at(0).unwrap();
    assert_eq!(
        (record.key, record.value, record.lsn),
        (&b"catalog/remote/hq"[..], &b"there"[..], Lsn(4_224))
    );
    let base = Base::at(&storage, StoreId(7), END).unwrap();
    base.verify().unwrap();
    assert_eq!((base.end(), base.received()), (END, RECEIVED));
    for (stream, freed) in [("orders/1", 5), ("till", 7), ("orders/2", 0)] {
        assert_eq!(base.freed_of(stream).unwrap(), freed, "{stream}");
    }
}

#[test]
fn a_base_of_format_1_is_laid_out_as_its_page_says() {
    let bytes = kept("base", &bytes());
    let crc = |from: usize, to: usize| crc32fast::hash(&bytes[from..to]).to_le_bytes();
    let words = |words: &[i64]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let genesis = Chain::genesis(StoreId(7)).0.to_le_bytes();
    let (mut extents, mut at) = (Vec::new(), 256);
    for len in [8usize, 64, 16, 0, 48, 0, 8] {
        extents.extend_from_slice(&(len as u64).to_le_bytes());
        extents.extend_from_slice(&crc(at, at + len));
        extents.extend_from_slice(&[0; 4]);
        at += len;
    }
    let hash = |stream: &str| xxhash_rust::xxh3::xxh3_64(stream.as_bytes()).to_le_bytes();
    // docs/format.md, "Base" and "Sidecar index".
    let fields: &[(usize, &[u8])] = &[
        (0, b"MPB1"),
        (4, &[2, 0, 0, 0]),
        (8, &7u128.to_le_bytes()),
        (24, &words(&[0, 0x10_0000])),
        (40, &genesis),
        (48, &words(&[0x77, -3, 1_000_000, 9, 7, 12, 2, 1])),
        (112, &extents),
        (224, &words(&[0xf_ff00, 0xf_8000])),
        (240, &0x1234_5678_u32.to_le_bytes()),
        (244, &1u32.to_le_bytes()),
        (248, &[0; 4]),
        (252, &crc(0, 252)),
        (
            256,
            &drawn_filter([StreamName::hash("till"), StreamName::hash("orders/1")]).to_le_bytes(),
        ),
        (264, &hash("till")),
        (272, &7u64.to_le_bytes()),
        (280, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]),
        (296, &hash("orders/1")),
        (304, &5u64.to_le_bytes()),
        (312, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]),
        (328, b"tillorders/1\0\0\0\0"),
        // Pinned: offset, then lsn, value_len, key_len, reserved, key, value.
        (344, &8u64.to_le_bytes()),
        (352, &4_224u64.to_le_bytes()),
        (360, &[5, 0, 0, 0, 17, 0, 0, 0]),
        (368, b"catalog/remote/hqthere\0\0"),
        // Checks: one page.
        (392, &crc(256, 392)),
        (396, &[0; 4]),
    ];
    assert_laid_out("base", &bytes, fields);
}

#[test]
fn every_changed_bit_and_cut_of_a_base_is_seen() {
    // E3, E4: it is the one file of this layout that is not made again.
    let (bytes, storage) = (bytes(), Memory::default());
    let believed = |bytes: Vec<u8>| {
        storage.put(&name::base(END), bytes);
        Base::at(&storage, StoreId(7), END)
            .and_then(|base| base.verify())
            .is_ok()
    };
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!believed(changed), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(!believed(bytes[..len].to_vec()), "{len} bytes");
    }
    assert!(believed(bytes));
    assert_eq!(base::ends(&storage).unwrap(), [END]);
}
