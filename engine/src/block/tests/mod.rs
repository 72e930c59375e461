//! Blocks and frames together: what is sealed is read back, what is damaged is told, what is hostile
//! ends in an error.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::frame::{EncodedFrame, FrameKind, NewFrame};
use crate::{Epoch, Event, Origin, Pinned, Position, StoreId, StreamName, Via};

mod borrowed;
pub(crate) mod golden;

/// What a frame should read back as.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    kind: u8,
    seq: u64,
    time: i64,
    origin: Option<Origin>,
    via: Option<Via>,
    pinned: Vec<Pinned>,
    /// Events with their ordinals, of a transaction.
    events: Vec<(u32, Event)>,
    /// Body of every other kind.
    body: Vec<u8>,
}

impl Model {
    fn encode(&self) -> EncodedFrame {
        let mut frame = NewFrame::of_kind(FrameKind(self.kind), self.body.clone());
        self.origin
            .iter()
            .for_each(|origin| frame.set_origin(origin.clone()));
        self.via.iter().for_each(|via| frame.set_via(via.clone()));
        self.pinned.iter().for_each(|record| frame.pin(record.clone()));
        self.events
            .iter()
            .for_each(|(ordinal, event)| frame.push_event(*ordinal, event).unwrap());
        frame.encode(self.seq, self.time).unwrap()
    }

    fn read(frame: &FrameRef<'_>) -> Model {
        let pinned = frame.pinned().unwrap().into_iter();
        let is_transaction = frame.kind() == FrameKind::TRANSACTION;
        Model {
            kind: frame.kind().0,
            seq: frame.id().seq,
            time: frame.time(),
            origin: frame.origin().unwrap().map(|origin| origin.to_owned().unwrap()),
            via: frame.via().unwrap().map(|via| via.to_owned().unwrap()),
            pinned: pinned
                .map(|record| Pinned {
                    key: record.key.to_vec(),
                    value: record.value.map(<[u8]>::to_vec),
                })
                .collect(),
            events: frame
                .events()
                .map(|event| {
                    event
                        .map(|event| (event.ordinal, event.to_event().unwrap()))
                        .unwrap()
                })
                .collect(),
            body: if is_transaction {
                Vec::new()
            } else {
                frame.body().to_vec()
            },
        }
    }
}

fn name() -> impl Strategy<Value = crate::SiteName> {
    "[a-z0-9_-][a-z0-9._-]{0,63}".prop_map(|name| name.parse().unwrap())
}

fn origin() -> impl Strategy<Value = Origin> {
    (any::<u128>(), name(), any::<u64>(), any::<u64>()).prop_map(|(site, name, epoch, lsn)| Origin {
        site: StoreId(site),
        name,
        epoch: Epoch(epoch),
        lsn: Lsn(lsn),
    })
}

fn via() -> impl Strategy<Value = Via> {
    (origin(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(from, generation, chain, back)| Via {
        site: from.site,
        name: from.name,
        generation,
        position: Position {
            epoch: from.epoch,
            lsn: from.lsn,
            chain: Chain(chain),
        },
        back: Lsn(back),
    })
}

fn event() -> impl Strategy<Value = (u32, Event)> {
    let headers = prop::collection::btree_map(".{0,12}", ".{0,12}", 0..4);
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (any::<u32>(), "[a-z/é]{1,30}", ".{0,20}", headers, payload).prop_map(
        |(ordinal, stream, kind, headers, payload): (
            u32,
            String,
            String,
            BTreeMap<String, String>,
            Vec<u8>,
        )| {
            let mut event = Event::new(&stream, &kind, payload).unwrap();
            event.headers = headers;
            (ordinal, event)
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let pinned = (
        prop::collection::vec(any::<u8>(), 1..20),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
    )
        .prop_map(|(key, value)| Pinned { key, value });
    let kind = prop_oneof![3 => Just(FrameKind::TRANSACTION.0), 1 => any::<u8>()];
    let body = prop::collection::vec(any::<u8>(), 0..50);
    let sections = (
        prop::option::of(origin()),
        prop::option::of(via()),
        prop::collection::vec(pinned, 0..4),
    );
    (
        kind,
        any::<u64>(),
        any::<i64>(),
        sections,
        prop::collection::vec(event(), 0..5),
        body,
    )
        .prop_map(|(kind, seq, time, (origin, via, pinned), events, body)| {
            let transaction = kind == FrameKind::TRANSACTION.0;
            let (events, body) = if transaction {
                (events, Vec::new())
            } else {
                (Vec::new(), body)
            };
            Model {
                kind,
                seq,
                time,
                origin,
                via,
                pinned,
                events,
                body,
            }
        })
}

fn seal() -> Seal {
    Seal {
        kind: BlockKind::Log,
        close: false,
        owner: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677).into(),
        epoch: Epoch(0xe90c),
        lsn: Lsn(1 << 20),
        durable: Lsn(1 << 19),
        nonce: 0x0def_aced_0ddb_a115,
        chain: Chain(0xc4a1),
        aux: 0,
    }
}

fn sealed(frames: &[Model], seal: &Seal, pad_to: usize) -> SealedBlock {
    let (mut builder, mut bound) = (BlockBuilder::new(), HEADER_LEN);
    for frame in frames {
        let encoded = frame.encode();
        bound = builder.len_with(&encoded);
        builder.push(&encoded);
    }
    let sealed = builder.seal(seal, pad_to);
    assert!(
        sealed.bytes.len() <= bound.next_multiple_of(pad_to),
        "len_with is an upper bound"
    );
    sealed
}

/// A block of one of each, small enough to try every bit of it.
fn small() -> Vec<Model> {
    let event = Event::new("orders/7", "placed", *b"{\"n\":1}")
        .unwrap()
        .header("by", "till-3")
        .unwrap();
    let second = Event::new("orders/8", "placed", *b"").unwrap();
    let plain = |kind: FrameKind, seq| Model {
        kind: kind.0,
        seq,
        time: 1_700_000_000_000_000,
        origin: None,
        via: None,
        pinned: Vec::new(),
        events: Vec::new(),
        body: Vec::new(),
    };
    let from = Origin {
        site: StoreId(7),
        name: "hq".parse().unwrap(),
        epoch: Epoch(3),
        lsn: Lsn(4096),
    };
    let transaction = Model {
        origin: Some(from.clone()),
        via: Some(Via {
            site: StoreId(8),
            name: "hub-2".parse().unwrap(),
            generation: 2,
            position: Position {
                epoch: Epoch(5),
                lsn: Lsn(99_000),
                chain: Chain(0xabc),
            },
            back: Lsn::ZERO,
        }),
        pinned: vec![
            Pinned {
                key: b"neighbour/hub-2".to_vec(),
                value: Some(b"99000".to_vec()),
            },
            Pinned {
                key: b"gone".to_vec(),
                value: None,
            },
        ],
        events: vec![(0, event), (3, second)],
        ..plain(FrameKind::TRANSACTION, 1)
    };
    let opaque = Model {
        body: b"opaque".to_vec(),
        ..plain(FrameKind(130), 3)
    };
    vec![transaction, plain(FrameKind::MARKER, 2), opaque]
}

fn read(bytes: &[u8]) -> Result<(BlockHeader, Vec<Model>), BlockFault> {
    let block = Block::check(bytes)?;
    Ok((
        *block.header(),
        block.frames().map(|frame| Model::read(&frame.unwrap())).collect(),
    ))
}

proptest! {
    #[test]
    fn what_is_sealed_is_read_back(
        frames in prop::collection::vec(model(), 0..6),
        pad in prop::sample::select(vec![1usize, 8, 512, 4096]),
        lsn in any::<u32>(),
    ) {
        let seal = Seal { lsn: Lsn(u64::from(lsn) * 8), ..seal() };
        let sealed = sealed(&frames, &seal, pad);
        prop_assert!(sealed.bytes.len().is_multiple_of(pad));
        let (header, back) = read(&sealed.bytes).unwrap();
        prop_assert_eq!(header, sealed.header);
        prop_assert_eq!(&back, &frames);
        prop_assert_eq!(header.frame_count as usize, frames.len());
        prop_assert_eq!(header.event_count as usize, frames.iter().map(|frame| frame.events.len()).sum::<usize>());
        let block = Block::check(&sealed.bytes).unwrap();
        let lsns: Vec<Lsn> = block.frames().map(|frame| frame.unwrap().lsn()).collect();
        prop_assert_eq!(&lsns, &sealed.frame_lsns);
        for lsn in lsns {
            prop_assert_eq!(block.frame_at(lsn).unwrap().lsn(), lsn);
            prop_assert!(block.frame_at(lsn.plus(4)).is_err());
        }
    }

    #[test]
    fn a_filter_never_denies_a_stream_that_is_there(frames in prop::collection::vec(model(), 0..6)) {
        let sealed = sealed(&frames, &seal(), 1);
        let block = Block::check(&sealed.bytes).unwrap();
        for (_, event) in frames.iter().flat_map(|frame| &frame.events) {
            prop_assert!(block.may_contain(StreamName::hash(event.stream.as_str())));
        }
        if sealed.header.event_count == 0 {
            prop_assert!(!block.may_contain(1), "a block without events has no streams");
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Block::check(&bytes).is_err());
    }

    #[test]
    fn a_header_with_a_right_checksum_and_wild_fields_never_reads_out_of_bounds(
        at in 4usize..124, value in prop_oneof![any::<u32>(), 0u32..1024, Just(u32::MAX)], wide in any::<bool>(),
    ) {
        let mut bytes = sealed(&small(), &seal(), 1).bytes;
        let end = (at + if wide { 4 } else { 1 }).min(124);
        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
        stamp_header(&mut bytes);
        exercise(&bytes);
    }

    #[test]
    fn frames_with_right_checksums_and_wild_contents_end_in_an_error_or_in_values(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let sealed = sealed(&small(), &seal(), 1);
        let mut bytes = sealed.bytes;
        let body = sealed.header.body_range();
        for (index, value) in changes {
            let at = body.start + index.index(body.len());
            bytes[at] = value;
        }
        stamp_body(&mut bytes, body);
        exercise(&bytes);
    }

    #[test]
    fn a_body_of_arbitrary_bytes_with_right_checksums_ends_in_an_error_or_in_values(
        words in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..256, (0u64..64).prop_map(|n| n * 8)], 0..60),
    ) {
        let filler = Model { kind: 200, body: vec![0; words.len() * 8], ..small().remove(1) };
        let sealed = sealed(&[filler], &seal(), 1);
        let mut bytes = sealed.bytes;
        let body = sealed.header.body_range();
        for (place, word) in bytes[body.clone()].chunks_exact_mut(8).zip(&words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        stamp_body(&mut bytes, body);
        exercise(&bytes);
    }
}

/// Makes the header's checksum right again.
fn stamp_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
}

fn stamp_body(bytes: &mut [u8], body: std::ops::Range<usize>) {
    let crc = crc32fast::hash(&bytes[body]);
    bytes[112..116].copy_from_slice(&crc.to_le_bytes());
    stamp_header(bytes);
}

/// Reads all there is to read; every failure must be an error of its own.
fn exercise(bytes: &[u8]) {
    let Ok(block) = Block::check(bytes) else { return };
    let _ = (block.may_contain(1), block.chain_after(), block.header().end());
    for frame in block.frames() {
        let Ok(frame) = frame else { return };
        let _ = (
            frame
                .origin()
                .map(|origin| origin.map(|origin| origin.to_owned())),
            frame.body().len(),
        );
        let _ = frame.via().map(|via| via.map(|via| via.to_owned()));
        let _ = (frame.pinned(), frame.end());
        for event in frame.events().flatten() {
            let _ = (event.to_event(), event.headers().get("by"));
        }
    }
}

#[test]
fn every_single_bit_flip_is_detected_or_lies_in_the_padding() {
    let (seal, frames) = (seal(), small());
    let sealed = sealed(&frames, &seal, 512);
    let used = sealed.header.body_range().end;
    assert!(used < sealed.bytes.len(), "the block has padding");
    for bit in 0..sealed.bytes.len() * 8 {
        let mut bytes = sealed.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match read(&bytes) {
            Err(_) => assert!(bit / 8 < used, "bit {bit} of the padding means nothing"),
            Ok(back) => {
                assert!(bit / 8 >= used, "bit {bit} was changed unseen");
                assert_eq!(back, (sealed.header, frames.clone()));
            }
        }
    }
}

#[test]
fn every_truncation_is_detected() {
    let sealed = sealed(&small(), &seal(), 512);
    for len in 0..sealed.bytes.len() {
        assert_eq!(
            read(&sealed.bytes[..len]).unwrap_err(),
            BlockFault::Truncated,
            "{len} bytes"
        );
    }
}

#[test]
fn each_fault_is_named_in_the_order_magic_checksum_version_lengths_filter_body() {
    let sealed = sealed(&small(), &seal(), 1);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = sealed.bytes.clone();
        change(&mut bytes);
        Block::check(&bytes).err().unwrap()
    };
    assert_eq!(changed(|bytes| bytes.fill(0)), BlockFault::Zero);
    assert_eq!(changed(|bytes| bytes[0] = 0), BlockFault::Magic);
    assert_eq!(changed(|bytes| bytes[127] ^= 1), BlockFault::HeaderChecksum);
    let newer = |bytes: &mut Vec<u8>| {
        bytes[4] = 2;
        bytes[8..24].fill(0xff);
        stamp_header(bytes);
    };
    assert_eq!(changed(newer), BlockFault::Version { version: 2, flags: 0 });
    let flagged = |bytes: &mut Vec<u8>| {
        bytes[7] = 0x80;
        stamp_header(bytes);
    };
    assert_eq!(
        changed(flagged),
        BlockFault::Version {
            version: 1,
            flags: 0x8000
        }
    );
    let longer = |bytes: &mut Vec<u8>| {
        bytes[16..20].copy_from_slice(&0xffff_fff8u32.to_le_bytes());
        stamp_header(bytes);
    };
    assert_eq!(changed(longer), BlockFault::Lengths);
    assert_eq!(
        changed(|bytes| bytes[HEADER_LEN] ^= 1),
        BlockFault::FilterChecksum
    );
    assert_eq!(
        changed(|bytes| *bytes.last_mut().unwrap() ^= 1),
        BlockFault::BodyChecksum
    );
}

#[test]
fn the_chain_tells_blocks_apart_by_writer_place_and_contents() {
    let base = seal();
    let chain = |seal: &Seal, frames: &[Model]| sealed(frames, seal, 1).header.chain_after();
    let first = chain(&base, &small());
    assert_eq!(first, chain(&base, &small()));
    for other in [
        chain(&Seal { nonce: 1, ..base }, &small()),
        chain(&Seal { lsn: Lsn(8), ..base }, &small()),
        chain(
            &Seal {
                chain: Chain(1),
                ..base
            },
            &small(),
        ),
        chain(&base, &small()[..1]),
    ] {
        assert_ne!(first, other);
    }
}
