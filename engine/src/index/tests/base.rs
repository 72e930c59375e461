//! The bytes of a base: truth that nothing can make again, so files of today are read for ever.

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
    let kept = crate::block::tests::golden("base", &bytes());
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
