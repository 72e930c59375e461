//! What is shared is, byte for byte, what would have been pushed, however long it is; what is not so is refused.

use bytes::Bytes;

use crate::frame::*;
use crate::{Chain, Event, StoreId};

/// A transaction of `count` events with payloads of `len` bytes.
fn pushed(count: u32, len: usize) -> NewFrame {
    let mut frame = NewFrame::transaction();
    for ordinal in 0..count {
        let payload = vec![ordinal.to_le_bytes()[0]; len];
        let event = Event::new(&format!("till/{}", ordinal / 3 % 5), "sold", payload).unwrap();
        let event = event.header("region", "be").unwrap();
        frame.push_event(ordinal * 2, &event).unwrap();
    }
    frame
}

fn with_sections(mut frame: NewFrame) -> NewFrame {
    frame.set_origin(Origin {
        site: StoreId(7),
        name: "hq".parse().unwrap(),
        epoch: Epoch(3),
        lsn: Lsn(8),
    });
    frame.set_via(Via {
        site: StoreId(8),
        name: "mid".parse().unwrap(),
        generation: 2,
        position: crate::Position {
            epoch: Epoch(1),
            lsn: Lsn(2),
            chain: Chain(3),
        },
        back: Lsn::ZERO,
    });
    frame.pin(Pinned {
        key: b"key".to_vec(),
        value: Some(b"value".to_vec()),
    });
    frame.set_committed_at(-5);
    frame
}

fn assert_same(shared: NewFrame, pushed: NewFrame, what: &str) {
    assert_eq!(shared.encoded_len(), pushed.encoded_len(), "{what}");
    assert_eq!(shared.body(), pushed.body(), "{what}");
    let (shared, pushed) = (shared.encode(4, 5).unwrap(), pushed.encode(4, 5).unwrap());
    assert_eq!(shared.to_vec(), pushed.to_vec(), "{what}");
    assert_eq!(shared.len(), to_u64(shared.to_vec().len()), "{what}");
    assert_eq!(shared.stream_hashes(), pushed.stream_hashes(), "{what}");
    assert_eq!(shared.event_count(), pushed.event_count(), "{what}");
    let ordinals =
        |frame: &EncodedFrame| -> Vec<u32> { frame.events().map(|event| event.unwrap().ordinal).collect() };
    assert_eq!(ordinals(&shared), ordinals(&pushed), "{what}");
}

#[test]
fn a_frame_of_shared_events_is_the_frame_of_pushed_ones() {
    for (count, len) in [(1, 0), (3, 9), (40, 70), (60, 71), (2, 9_000)] {
        let what = format!("{count} events of {len} bytes");
        let frame = pushed(count, len);
        let bytes = Bytes::from(frame.body().into_owned());
        let events = EncodedEvents::check(bytes.clone(), count, Lsn(1)).unwrap();
        assert_eq!(events, EncodedEvents::of(&frame), "{what}");
        let shared = NewFrame::of_events(&events);
        assert_same(shared.clone(), frame.clone(), &what);
        let (with, also) = (with_sections(shared.clone()), with_sections(frame.clone()));
        let long = with.clone().encode(1, 2).unwrap();
        let is_shared = long.pieces().iter().any(|piece| piece.as_ptr() == bytes.as_ptr());
        assert_eq!(
            is_shared,
            bytes.len() >= 4096,
            "{what}: what is long is not copied"
        );
        assert_same(with, also, &what);
        // Events may be pushed behind shared ones.
        let (mut shared, mut frame) = (shared, frame);
        for one in [&mut shared, &mut frame] {
            one.push_raw(999, "more", "k", &[], b"payload").unwrap();
        }
        assert_same(shared, frame, &what);
    }
}

#[test]
fn a_body_in_two_pieces_is_the_body_in_one() {
    let kind = FrameKind(FrameKind::QUEUE_FIRST);
    for front in [0_usize, 1, 8, 77] {
        for rest in [0_usize, 5, 4_095, 4_096, 4_099, 70_000] {
            let (first, last) = (vec![1; front], vec![2; rest]);
            let one = NewFrame::of_kind(kind, [first.clone(), last.clone()].concat());
            let two = NewFrame::of_kind_in_two(kind, first, Bytes::from(last));
            assert_same(two.clone(), one.clone(), &format!("{front} and {rest}"));
            assert_same(
                with_sections(two),
                with_sections(one),
                &format!("{front} and {rest}"),
            );
        }
    }
}

/// The trap: bytes that read as the same events and are not what our writer writes would make two encodings of one
/// transaction.
#[test]
fn events_that_our_writer_would_not_have_written_are_refused() {
    let bytes = pushed(3, 9).body().into_owned();
    let check = |bytes: &[u8], count| EncodedEvents::check(Bytes::copy_from_slice(bytes), count, Lsn(1));
    check(&bytes, 3).unwrap();
    for count in [0, 2, 4, u32::MAX] {
        check(&bytes, count).unwrap_err();
    }
    for len in 0..bytes.len() {
        check(&bytes[..len], 3).unwrap_err();
    }
    let padding = *bytes.last().unwrap();
    assert_eq!(padding, 0, "the last event is padded");
    let mut padded = bytes.clone();
    *padded.last_mut().unwrap() = 1;
    let told = check(&padded, 3).unwrap_err().to_string();
    assert!(told.contains("padded"), "{told}");
    let mut nul = NewFrame::transaction();
    nul.push_raw(0, "a.b", "k", &[], b"").unwrap();
    let mut nul = nul.body().into_owned();
    let at = nul.windows(3).position(|three| three == b"a.b").unwrap();
    nul[at + 1] = 0;
    check(&nul, 1).unwrap_err();
}
