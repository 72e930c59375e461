//! Messages: what is written is read, what is damaged is refused, what is hostile costs nothing.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Event, Lsn, Origin, Position, StoreId};
use proptest::prelude::*;

use super::*;
use crate::keys::PairKeys;

mod golden;
mod pieces;
mod sealed;

fn point(lsn: u64) -> Point {
    Point::live(Position {
        epoch: Epoch(7),
        lsn: Lsn(lsn),
        chain: Chain(lsn.wrapping_mul(31)),
    })
}

fn carried(lsn: u64, payload: &[u8]) -> Carried {
    let mut frame = NewFrame::transaction();
    let event = Event::new("orders/7", "placed", payload)
        .unwrap()
        .header("shop", "bern")
        .unwrap();
    frame.push_event(3, &event).unwrap();
    frame
        .push_event(5, &Event::new("stock", "taken", *b"{}").unwrap())
        .unwrap();
    let origin = Origin {
        site: StoreId(9),
        name: "hub".parse().unwrap(),
        epoch: Epoch(1),
        lsn: Lsn(lsn * 2),
    };
    Carried::with_events_of(point(lsn), lsn.is_multiple_of(2).then_some(origin), &frame)
}

fn header() -> Header {
    let to = Address {
        name: "bern".parse().unwrap(),
        id: None,
    };
    let mut header = Header::new(("hq".parse().unwrap(), StoreId(1)), to, 4, Epoch(7));
    header.durable = Lsn(1000);
    header.received = point(50);
    header.confirmed = point(40);
    header
}

fn full() -> Message {
    let mut message = Message {
        header: header(),
        items: Vec::new(),
    };
    message.header.to.id = Some(StoreId(2));
    message.header.previous = point(10);
    message.header.last = point(30);
    message.header.lineage = Some(Lineage {
        parent: Epoch(6),
        fork: Lsn(5),
        doubted_to: Lsn(9),
    });
    message.header.requests = Some(Requests {
        number: 3,
        ranges: vec![Range {
            after: Point::NONE,
            up_to: point(9),
        }],
    });
    message.header.probe = Some(Probe {
        nonce: 77,
        log_sent: point(30),
    });
    message.header.answer = Some(u64::MAX);
    message.header.pieces = Some(Pieces {
        point: point(31),
        digest: u128::MAX - 7,
        total: 9_000,
        bytes: 8_999,
    });
    message.items = [12, 13, 30]
        .map(|lsn| Item::Transaction(carried(lsn, b"{\"a\":1}")))
        .to_vec();
    message
}

/// Puts right what a forger would: both checksums.
fn forge(mut bytes: Vec<u8>) -> Vec<u8> {
    let head_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    bytes[24..32].fill(0);
    let head_crc = crc32fast::hash(&bytes[..head_len.min(bytes.len())]);
    let crc = crc32fast::hash(&bytes);
    bytes[24..28].copy_from_slice(&head_crc.to_le_bytes());
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn take(bytes: &[u8]) -> Result<Message, MessageFault> {
    decode(bytes, &Limits::default(), &PairKeys::Unsealed)
}

#[test]
fn what_is_encoded_is_decoded() {
    for message in [full(), Message::bare(header())] {
        let bytes = encode(&message).unwrap();
        assert_eq!(take(&bytes).unwrap(), message);
        assert_eq!(decode_header(&bytes, &Limits::default()).unwrap(), message.header);
    }
}

/// docs/replication.md, "Message": tag 7, which says more of tag 4 and stands behind it.
#[test]
fn what_of_a_lineage_is_in_doubt_is_a_field_of_its_own_and_needs_one() {
    let mut message = Message::bare(header());
    let said = Lineage {
        parent: Epoch(6),
        fork: Lsn(5),
        doubted_to: Lsn(9),
    };
    message.header.lineage = Some(said);
    let bytes = encode(&message).unwrap();
    let field = [7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    let at = bytes
        .windows(field.len())
        .position(|piece| piece == field)
        .unwrap();
    assert_eq!(take(&bytes).unwrap().header.lineage, Some(said));
    // Up to the fork itself nothing is in doubt, and is not said.
    message.header.lineage = Some(Lineage {
        doubted_to: Lsn(5),
        ..said
    });
    let plain = encode(&message).unwrap();
    assert_eq!(plain.len() + field.len(), bytes.len());
    assert_eq!(take(&plain).unwrap(), message);
    for spoilt in [5, 4, 0] {
        let mut bytes = bytes.clone();
        bytes[at + 8] = spoilt;
        assert!(
            matches!(take(&forge(bytes)), Err(MessageFault::Contradiction(_))),
            "{spoilt}"
        );
    }
    let mut alone = bytes;
    let lineage = [4u8, 0, 0, 0, 16, 0, 0, 0, 6, 0, 0, 0];
    let of = alone
        .windows(lineage.len())
        .position(|piece| piece == lineage)
        .unwrap();
    // A tag that nobody knows stands in its place.
    alone[of] = 0;
    assert!(take(&forge(alone)).is_err());
}

#[test]
fn every_flipped_bit_missing_byte_and_surplus_byte_is_damage() {
    let mut message = full();
    // Large enough that the body is compressed, small enough to flip every bit.
    message.items.truncate(1);
    message.items.push(Item::Transaction(carried(30, &[b'x'; 300])));
    let bytes = encode(&message).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let fault = take(&flipped).expect_err("a flipped bit passes");
        assert!(fault.is_loss(), "bit {bit}: {fault}");
    }
    for len in 0..bytes.len() {
        assert!(take(&bytes[..len]).unwrap_err().is_loss(), "cut at {len}");
    }
    let longer = [bytes.as_slice(), b"\0"].concat();
    assert!(take(&longer).unwrap_err().is_loss());
}

#[test]
fn a_newer_version_stops_the_pair_and_a_flipped_version_does_not() {
    let mut bytes = encode(&full()).unwrap();
    bytes[4] = 2;
    assert!(
        take(&bytes).unwrap_err().is_loss(),
        "the checksum comes before the version"
    );
    assert!(take(&forge(bytes)).unwrap_err().stops_pair());
}

/// Appends an optional field of an unknown tag to the head.
fn with_field(flags: u16) -> Vec<u8> {
    let bytes = encode(&full()).unwrap();
    let head_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    let mut longer = bytes[..head_len as usize].to_vec();
    longer.extend_from_slice(&999u16.to_le_bytes());
    longer.extend_from_slice(&flags.to_le_bytes());
    longer.extend_from_slice(&5u32.to_le_bytes());
    longer.extend_from_slice(b"later\0\0\0");
    longer[8..12].copy_from_slice(&(head_len + 16).to_le_bytes());
    longer.extend_from_slice(&bytes[head_len as usize..]);
    forge(longer)
}

#[test]
fn an_unknown_field_is_skipped_unless_it_is_required() {
    assert_eq!(take(&with_field(0)).unwrap(), full());
    assert!(take(&with_field(1)).unwrap_err().stops_pair());
}

#[test]
fn an_unknown_way_to_store_the_body_stops_the_pair() {
    let mut bytes = encode(&full()).unwrap();
    bytes[20] |= 4;
    assert!(take(&forge(bytes)).unwrap_err().stops_pair());
}

#[test]
fn a_body_that_claims_to_unpack_to_more_is_refused_before_anything_is_allocated() {
    let bytes = encode(&full()).unwrap();
    let mut claims = bytes.clone();
    claims[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(take(&forge(claims)), Err(MessageFault::TooLarge { .. })));
    // Within the limit, and beyond what LZ4 can make of so few bytes.
    let mut claims = bytes.clone();
    claims[16..20].copy_from_slice(&(8u32 << 20).to_le_bytes());
    assert!(matches!(
        take(&forge(claims)),
        Err(MessageFault::Contradiction(_))
    ));
    let small = Limits {
        message_bytes: 100,
        ..Limits::default()
    };
    assert!(matches!(
        decode(&bytes, &small, &PairKeys::Unsealed),
        Err(MessageFault::TooLarge { .. })
    ));
}

#[test]
fn a_message_that_contradicts_itself_is_neither_packed_nor_taken() {
    type Spoil = fn(&mut Message);
    let spoilers: [(&str, Spoil); 8] = [
        ("descending", |m| m.items.swap(0, 1)),
        ("twice", |m| m.items[1] = m.items[0].clone()),
        ("before previous", |m| m.header.previous = point(12)),
        ("beyond last", |m| m.header.last = point(29)),
        ("backwards", |m| m.header.previous = point(31)),
        ("confirms more than it received", |m| {
            m.header.confirmed = point(51)
        }),
        ("not durable", |m| m.header.durable = Lsn(29)),
        ("a part among others", |m| {
            m.items[2] = Item::Part(Part {
                point: point(30),
                offset: 0,
                total: 9,
                digest: 0,
                piece: vec![1].into(),
            });
        }),
    ];
    for (name, spoil) in spoilers {
        let mut message = full();
        spoil(&mut message);
        let taken = encode(&message)
            .map_err(|_| ())
            .and_then(|bytes| take(&bytes).map_err(|_| ()));
        assert!(taken.is_err(), "{name}");
    }
}

#[test]
fn history_is_ordered_by_where_it_is_read_within_where_its_subscription_starts() {
    let mut places = [
        Place::live(Lsn(9)),
        Place::history(Lsn(8), Lsn(5)),
        Place::history(Lsn(8), Lsn(2)),
        Place::NONE,
    ];
    places.sort();
    let live = Place::live(Lsn(9));
    assert_eq!(
        places,
        [
            Place::NONE,
            Place::history(Lsn(8), Lsn(2)),
            Place::history(Lsn(8), Lsn(5)),
            live
        ]
    );
    assert_eq!(Place::history(Lsn(8), Lsn(5)).commit_lsn(), Lsn(5));
}

/// Packs and returns the messages, each through its bytes.
fn packed(transactions: &[Carried], limit: usize) -> Vec<Message> {
    let mut packer = Packer::new(point(1), limit);
    let mut out = Vec::new();
    for carried in transactions {
        out.extend(packer.push(carried.clone()).unwrap());
    }
    out.extend(packer.finish());
    let under = |packed: Packed| {
        let mut header = full().header;
        header.durable = Lsn(u64::MAX);
        let bytes = encode(&packed.under(header)).unwrap();
        assert!(
            bytes.len() <= limit.max(MIN_MESSAGE_BYTES),
            "{} bytes of {limit}",
            bytes.len()
        );
        take(&bytes).unwrap()
    };
    out.into_iter().map(under).collect()
}

/// What a receiver makes of messages in order.
fn unpacked(messages: &[Message]) -> Vec<Carried> {
    let mut joiner = Joiner::new(64 << 20);
    let mut all = Vec::new();
    for item in messages.iter().flat_map(|message| &message.items) {
        match item {
            Item::Transaction(carried) => all.push(carried.clone()),
            Item::Part(part) => match joiner.join(part).unwrap() {
                Joined::Waiting => {}
                Joined::Whole(carried) => all.push(carried),
            },
        }
    }
    all
}

/// Bytes that LZ4 cannot make smaller.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn parts_of_two_encodings_never_join_and_cuts_of_one_encoding_do() {
    let ours = carried(20, &noise(40_000, 1));
    let (coarse, fine) = (
        packed(std::slice::from_ref(&ours), 30_000),
        packed(std::slice::from_ref(&ours), 10_000),
    );
    let theirs = packed(&[carried(20, &noise(40_000, 2))], 10_000);
    let parts = |messages: &[Message]| -> Vec<Part> {
        let part = |message: &Message| match &message.items[0] {
            Item::Part(part) => part.clone(),
            Item::Transaction(_) => unreachable!("longer than a message"),
        };
        messages.iter().map(part).collect()
    };
    let (coarse, fine, theirs) = (parts(&coarse), parts(&fine), parts(&theirs));
    assert!(coarse.len() > 1 && fine.len() > 4);
    // The end in one cut, the beginning in another, out of order and repeated.
    let mut joiner = Joiner::new(1 << 20);
    let last = coarse.last().unwrap();
    let mixed = [last].into_iter().chain(fine.iter()).chain([last]);
    let whole = mixed.filter_map(|part| match joiner.join(part).unwrap() {
        Joined::Whole(carried) => Some(carried),
        Joined::Waiting => None,
    });
    assert_eq!(whole.collect::<Vec<_>>().first(), Some(&ours));
    let mut joiner = Joiner::new(1 << 20);
    for (index, part) in fine.iter().enumerate() {
        let part = if index == 1 { &theirs[1] } else { part };
        assert_eq!(
            joiner.join(part),
            Ok(Joined::Waiting),
            "part {index} completes a mixture"
        );
    }
    let mut small = Joiner::new(1000);
    assert!(matches!(small.join(&fine[0]), Err(MessageFault::TooLarge { .. })));
    assert_eq!(small.held(), 0);
}

/// A topic was revoked while a large transaction travelled: parts of both encodings lay on the link in the
/// order of random names, each piece threw away what was held of the other, and neither became whole.
#[test]
fn two_encodings_of_a_transaction_that_come_in_turns_do_not_starve_each_other() {
    let parts = |seed| -> Vec<Part> {
        let messages = packed(&[carried(20, &noise(60_000, seed))], 10_000);
        let part = |message: &Message| match &message.items[0] {
            Item::Part(part) => part.clone(),
            Item::Transaction(_) => unreachable!("longer than a message"),
        };
        messages.iter().map(part).collect()
    };
    let (older, newer) = (parts(1), parts(2));
    let mut joiner = Joiner::new(1 << 20);
    let mut whole = 0;
    for (old, new) in older.iter().skip(1).zip(&newer) {
        for part in [old, new] {
            whole += usize::from(matches!(joiner.join(part).unwrap(), Joined::Whole(_)));
        }
    }
    let last = newer.last().unwrap();
    whole += usize::from(matches!(joiner.join(last).unwrap(), Joined::Whole(_)));
    assert_eq!((whole, joiner.held()), (1, 0));
}

/// Pieces of one length at offsets 0, 1, 2 … were all kept: two hundred parts held a hundred times the
/// transaction's length.
#[test]
fn however_pieces_overlap_no_byte_is_held_twice() {
    let total = 1 << 20;
    let mut joiner = Joiner::new(3 << 20);
    for digest in 0..9 {
        for offset in 0..100_u64 {
            let part = Part {
                point: point(20),
                offset: (offset * 7919) % total / 2,
                total,
                digest,
                piece: vec![0; 300_000].into(),
            };
            assert_eq!(joiner.join(&part), Ok(Joined::Waiting));
            assert!(joiner.held() <= 3 << 20, "{} bytes held", joiner.held());
        }
    }
}

proptest! {
    #[test]
    fn pieces_in_any_cuts_and_order_make_the_encoding_and_hold_what_they_cover(
        cuts in proptest::collection::vec((0u64..500, 1u64..200), 1..40),
    ) {
        let whole = carried(20, &noise(400, 3));
        let mut encoding = Vec::new();
        whole.encode(&mut encoding).unwrap();
        let total = encoding.len() as u64;
        let mut joiner = Joiner::new(1 << 20);
        let mut covered = std::collections::BTreeSet::new();
        for (from, len) in cuts.into_iter().chain((0..total).step_by(100).map(|at| (at, 100))) {
            let (from, to) = (from.min(total - 1), (from + len).min(total));
            if from >= to || covered.len() as u64 == total {
                continue;
            }
            let piece = encoding[from as usize..to as usize].to_vec();
            let part = Part { point: point(20), offset: from, total, digest: Part::digest_of(&encoding), piece: piece.into() };
            covered.extend(from..to);
            match joiner.join(&part).unwrap() {
                Joined::Waiting => prop_assert_eq!(joiner.held(), covered.len() as u64),
                Joined::Whole(carried) => {
                    prop_assert_eq!(covered.len() as u64, total);
                    prop_assert_eq!(&carried, &whole);
                }
            }
        }
        prop_assert_eq!(covered.len() as u64, total);
    }
}

#[test]
fn parts_with_a_forged_digest_are_refused_whole() {
    let encoding = {
        let mut out = Vec::new();
        carried(20, b"x").encode(&mut out).unwrap();
        out
    };
    let part = |digest| Part {
        point: point(20),
        offset: 0,
        total: encoding.len() as u64,
        digest,
        piece: encoding.clone().into(),
    };
    let mut joiner = Joiner::new(1 << 20);
    assert!(matches!(
        joiner.join(&part(1)),
        Err(MessageFault::Contradiction(_))
    ));
    let moved = Part {
        point: point(21),
        ..part(Part::digest_of(&encoding))
    };
    assert!(matches!(joiner.join(&moved), Err(MessageFault::Contradiction(_))));
    assert!(matches!(
        joiner.join(&part(Part::digest_of(&encoding))),
        Ok(Joined::Whole(_))
    ));
}

#[test]
fn a_served_range_ends_where_it_was_asked_to_end() {
    let mut packer = Packer::new(point(1), 10_000);
    assert!(packer.push(carried(4, b"x")).unwrap().next().is_none());
    let message = packer.finish_at(point(9)).unwrap();
    assert_eq!(
        (message.previous, message.last, message.items.len()),
        (point(1), point(9), 1)
    );
    let nothing_due = Packer::new(point(1), 10_000).finish_at(point(9)).unwrap();
    assert_eq!((nothing_due.previous, nothing_due.last), (point(1), point(9)));
    assert_eq!(Packer::new(point(9), 10_000).finish_at(point(9)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn packing_and_joining_keep_every_transaction_in_order(
        sizes in proptest::collection::vec(prop_oneof![8 => 0usize..600, 1 => 5_000usize..60_000], 1..30),
        limit in 10_000usize..60_000,
        seed in any::<u64>(),
    ) {
        let transactions: Vec<Carried> = sizes.iter().enumerate()
            .map(|(index, size)| carried(index as u64 * 8 + 8, &noise(*size, seed ^ index as u64)))
            .collect();
        let messages = packed(&transactions, limit);
        let mut previous = point(1);
        for message in &messages {
            prop_assert!(message.header.previous == previous || message.header.previous.place() < previous.place());
            previous = message.header.last;
        }
        prop_assert_eq!(unpacked(&messages), transactions);
    }

    #[test]
    fn forged_bytes_are_a_fault_or_a_message_and_never_a_panic(
        at in proptest::collection::vec((0usize..700, any::<u8>()), 1..6),
        cut in proptest::option::of(0usize..700),
    ) {
        let mut bytes = encode(&full()).unwrap();
        for (at, value) in at {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.max(32));
        }
        let body_len = (bytes.len() as u32).saturating_sub(u32::from_le_bytes(bytes[8..12].try_into().unwrap()));
        bytes[12..16].copy_from_slice(&body_len.to_le_bytes());
        if let Ok(message) = take(&forge(bytes)) {
            prop_assert_eq!(take(&encode(&message).unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn forged_bodies_are_a_fault_or_a_message_and_never_a_panic(
        at in proptest::collection::vec((0usize..2000, any::<u8>()), 1..6),
    ) {
        // Stored plain, so that the forger reaches every field of an item.
        let mut message = full();
        message.items = vec![Item::Transaction(carried(12, &noise(40, 3)))];
        let bytes = encode(&message).unwrap();
        let head_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let mut raw = Vec::new();
        carried(12, &noise(40, 3)).encode(&mut raw).unwrap();
        for (at, value) in at {
            let len = raw.len();
            raw[at % len] = value;
        }
        let mut forged = bytes[..head_len].to_vec();
        forged.extend_from_slice(&raw);
        forged[12..16].copy_from_slice(&(raw.len() as u32).to_le_bytes());
        forged[16..20].copy_from_slice(&(raw.len() as u32).to_le_bytes());
        forged[20] = 0;
        if let Ok(message) = take(&forge(forged)) {
            for item in &message.items {
                if let Item::Transaction(carried) = item {
                    prop_assert_eq!(carried.frame().event_count(), carried.event_count());
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(take(&bytes).is_err());
        let framed = [b"MPM\x01".as_slice(), &bytes].concat();
        prop_assert!(take(&framed).is_err());
        prop_assert!(Carried::decode(&bytes).is_err());
    }
}
