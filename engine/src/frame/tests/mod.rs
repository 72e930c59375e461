//! Single frames: what the encoder refuses, and what a reader makes of contradictions. Round trips and
//! damage are shown with whole blocks in `block/tests/`.

mod encoded;

use std::collections::BTreeMap;

use super::*;
use crate::block::{Block, BlockBuilder, BlockKind, HEADER_LEN, Seal};
use crate::{Chain, ErrorKind, Event, StoreId};

/// Breaks the bytes of a frame.
type Change = fn(&mut Vec<u8>);

/// The frame in a block of its own, changed by `change` before it is read.
fn read_changed<T>(frame: NewFrame, change: Change, take: impl Fn(FrameRef<'_>) -> Result<T>) -> Result<T> {
    let mut builder = BlockBuilder::new();
    builder.push(&frame.encode(1, 2).unwrap());
    let (store_id, epoch, lsn) = (StoreId(1), Epoch(1), Lsn(0));
    let seal = Seal {
        kind: BlockKind::Log,
        close: false,
        owner: store_id.into(),
        epoch,
        lsn,
        durable: lsn,
        nonce: 1,
        chain: Chain(0),
        aux: 0,
    };
    let sealed = builder.seal(&seal, 1);
    let block = Block::check(&sealed.bytes).unwrap();
    let mut bytes = sealed.bytes[sealed.header.body_range()].to_vec();
    change(&mut bytes);
    let (frame, _) = FrameRef::parse(&bytes, block.first_frame_lsn(), block.header())?;
    assert!(frame.lsn().0 >= to_u64(HEADER_LEN));
    take(frame)
}

fn with_all_sections() -> NewFrame {
    let mut frame = NewFrame::transaction();
    let (site, name) = (StoreId(7), crate::SiteName::new("hq").unwrap());
    frame.set_origin(Origin {
        site,
        name,
        epoch: Epoch(3),
        lsn: Lsn(8),
    });
    frame.pin(Pinned {
        key: b"k".to_vec(),
        value: Some(b"v".to_vec()),
    });
    frame.set_committed_at(-5);
    frame
        .push_event(0, &Event::new("s", "k", *b"p").unwrap().header("a", "b").unwrap())
        .unwrap();
    frame
}

fn everything(frame: FrameRef<'_>) -> Result<()> {
    frame.origin()?;
    frame.pinned()?;
    frame.committed_at()?;
    frame.events().try_for_each(|event| event?.to_event().map(|_| ()))
}

#[test]
fn the_time_of_the_first_commit_is_kept_beside_that_of_the_frame() {
    let of = |frame: NewFrame| {
        read_changed(frame, |_| (), |frame| Ok((frame.committed_at()?, frame.time()))).unwrap()
    };
    assert_eq!(of(with_all_sections()), (-5, 2));
    assert_eq!(of(NewFrame::transaction()), (2, 2), "committed here");
}

#[test]
fn contradictions_inside_a_frame_are_corrupt_and_name_its_position() {
    let changes: [(&str, Change); 9] = [
        ("frame longer than its block", |bytes| bytes[0] = 0xf8),
        ("frame length not aligned", |bytes| bytes[0] -= 1),
        ("body before the fixed part ends", |bytes| bytes[24] = 24),
        ("body behind the frame", |bytes| bytes[26] = 1),
        ("name longer than the section", |bytes| bytes[32 + 32] = 200),
        ("pinned section shorter than a record", |bytes| bytes[32 + 48] = 8),
        ("an event more than there is", |bytes| bytes[28] = 2),
        ("an event less than there is", |bytes| bytes[28] = 0),
        ("a flag less than there are sections", |bytes| {
            bytes[5] = FLAG_ORIGIN
        }),
    ];
    read_changed(with_all_sections(), |_| {}, everything).unwrap();
    for (what, change) in changes {
        let error = read_changed(with_all_sections(), change, everything).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        assert!(error.lsn().is_some(), "{what}");
    }
}

#[test]
fn sections_of_a_later_version_are_passed_over() {
    // A later writer appends its section behind the pinned records and sets a flag of its own; here the
    // last pinned record is declared to be that section.
    let mut frame = NewFrame::of_kind(FrameKind::CONTROL, b"body".to_vec());
    frame.pin(Pinned {
        key: b"kept".to_vec(),
        value: Some(b"1234".to_vec()),
    });
    frame.pin(Pinned {
        key: b"later".to_vec(),
        value: None,
    });
    let later = |bytes: &mut Vec<u8>| {
        bytes[5] |= 0x40;
        bytes[32] -= 16;
        bytes[36] = 1;
    };
    let keys = |frame: FrameRef<'_>| {
        assert_eq!(frame.body(), b"body");
        Ok(frame
            .pinned()?
            .iter()
            .map(|record| record.key.to_vec())
            .collect::<Vec<_>>())
    };
    assert_eq!(read_changed(frame, later, keys).unwrap(), [b"kept"]);
}

#[test]
fn headers_that_no_reader_could_read_are_refused_before_they_are_kept() {
    let good = encode_headers(&BTreeMap::from([
        ("a".into(), "1".into()),
        ("b".into(), "2".into()),
    ]));
    NewFrame::transaction().push_raw(0, "s", "k", &good, b"").unwrap();
    NewFrame::transaction().push_raw(0, "s", "k", &[], b"").unwrap();
    let one = |key: &[u8]| [&[1, 0, 0, 0][..], key, &[1]].concat();
    let twice = [&[2, 0][..], &one(b"a")[..], &one(b"a")[..]].concat();
    let descending = [&[2, 0][..], &one(b"b")[..], &one(b"a")[..]].concat();
    let not_text = [&[1, 0][..], &[1, 0, 0, 0, 0xff][..]].concat();
    let trailing = [&good[..], &[0][..]].concat();
    for bad in [
        &good[..good.len() - 1],
        &[0, 0],
        &[1],
        &[1, 0],
        &twice,
        &descending,
        &not_text,
        &trailing,
    ] {
        let error = NewFrame::transaction()
            .push_raw(0, "s", "k", bad, b"")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
    }
}

#[test]
fn what_exceeds_its_length_field_is_refused() {
    let mut frame = NewFrame::transaction();
    let long = "k".repeat(65_536);
    assert!(frame.push_raw(0, "s", &long, &[], b"").is_err());
    assert!(frame.push_raw(0, "", "k", &[], b"").is_err());
    assert!(frame.push_raw(0, &long, "k", &[], b"").is_err());
    assert_eq!(frame.event_count(), 0);
    for key in [vec![], vec![0; 65_536]] {
        let mut frame = NewFrame::of_kind(FrameKind::CONTROL, Vec::new());
        frame.pin(Pinned { key, value: None });
        assert_eq!(frame.encode(0, 0).err().unwrap().kind(), ErrorKind::Invalid);
    }
    let mut marker = NewFrame::of_kind(FrameKind::MARKER, Vec::new());
    assert!(
        marker.push_raw(0, "s", "k", &[], b"").is_err(),
        "only a transaction holds events"
    );
}

#[test]
fn an_event_that_breaks_the_rules_of_names_is_corrupt_and_not_invalid() {
    let mut frame = NewFrame::transaction();
    frame.push_raw(0, "s", "k", &[], b"").unwrap();
    let nul = |bytes: &mut Vec<u8>| bytes[32 + 16] = 0;
    let error = read_changed(frame, nul, everything).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn one_look_at_a_frame_and_its_events_says_what_reading_each_part_says() {
    // Every byte of a frame is changed in turn to each value that a length, a text or a flag may trip over.
    let mut frame = with_all_sections();
    frame.push_raw(1, "s\u{e9}", "k\u{e9}", &[], b"p").unwrap();
    frame.push_raw(2, "plain", "kind", &[], b"p").unwrap();
    let whole = read_changed(frame.clone(), |_| {}, |frame| Ok(frame.bytes().to_vec())).unwrap();
    let header = BlockHeader::default();
    let (mut refused, mut taken) = (0, 0);
    for (at, value) in (0..whole.len()).flat_map(|at| [0, 1, 7, 0x7f, 0xc3, 0xff].map(|value| (at, value))) {
        let mut bytes = whole.clone();
        bytes[at] = value;
        let Ok((frame, _)) = FrameRef::parse(&bytes, Lsn(128), &header) else {
            continue;
        };
        let parts = frame.origin().and(frame.via()).and(frame.pinned().map(drop));
        assert_eq!(
            frame.check_sections().is_ok(),
            parts.is_ok(),
            "byte {at} is {value}"
        );
        for event in frame.events().map_while(Result::ok) {
            let read = event
                .stream()
                .and(event.kind())
                .and(event.headers().read().map(drop));
            assert_eq!(event.check().is_ok(), read.is_ok(), "byte {at} is {value}");
            if read.is_ok() { taken += 1 } else { refused += 1 }
        }
    }
    assert!(refused > 50 && taken > 1_000, "{refused} and {taken}");
}
