//! A large frame that is not copied: the block is the same, byte for byte.

use super::*;
use crate::block::build::LARGE;

/// A transaction whose frame is `len` bytes or a little more, of several streams.
fn frame(len: usize, seq: u64) -> EncodedFrame {
    let mut frame = NewFrame::transaction();
    for stream in 0..40 {
        let payload = vec![7; len / 40];
        frame
            .push_raw(
                stream,
                &format!("orders/{}", stream % 30),
                "placed",
                &[],
                &payload,
            )
            .unwrap();
    }
    frame.encode(seq, 1_700_000_000_000_000).unwrap()
}

/// The trap: a frame that may be borrowed comes first, alone, after another, or before another, with and without padding.
#[test]
fn a_block_is_the_same_whether_its_frame_was_borrowed_or_copied() {
    let (large, small) = (frame(LARGE, 1), frame(400, 2));
    // Its body is shared with who made it, and is no multiple of eight.
    let kind = FrameKind(FrameKind::QUEUE_FIRST);
    let shared = NewFrame::of_kind_in_two(kind, vec![3; 21], vec![7; LARGE + 2].into());
    let shared = shared.encode(3, 1_700_000_000_000_000).unwrap();
    assert!(shared.pieces().iter().all(|piece| !piece.is_empty()));
    let cases: [(&[&EncodedFrame], bool); 9] = [
        (&[&shared], false),
        (&[&shared, &small], false),
        (&[&small, &shared], false),
        (&[], false),
        (&[&small], false),
        (&[&large], true),
        (&[&large, &small], false),
        (&[&small, &large], false),
        (&[&large, &large], false),
    ];
    for (number, (frames, borrows)) in cases.into_iter().enumerate() {
        for pad_to in [1, 512, 4096] {
            let (mut copying, mut borrowing) = (BlockBuilder::new(), BlockBuilder::reusing(vec![9; 77]));
            for frame in frames {
                assert_eq!(copying.len_with(frame), borrowing.len_with(frame));
                copying.push(frame);
                borrowing.push_borrowed(frame);
            }
            let copied = copying.seal(&seal(), pad_to);
            let block = borrowing.seal_in_pieces(&seal(), pad_to);
            assert_eq!(
                block.pieces().concat(),
                copied.bytes,
                "case {number}, padded to {pad_to}"
            );
            assert_eq!(
                (block.header, &block.frame_lsns),
                (copied.header, &copied.frame_lsns)
            );
            if let [only] = frames
                && to_usize(only.len()) >= LARGE
            {
                let own = only.pieces().map(<[u8]>::as_ptr);
                assert_eq!(
                    block.pieces()[1..4]
                        .iter()
                        .map(|piece| piece.as_ptr())
                        .collect::<Vec<_>>(),
                    own
                );
            }
            let alone = block.pieces().contains(&large.pieces()[0]);
            assert_eq!(alone, borrows, "case {number}: not copied");
            Block::check(&copied.bytes).unwrap();
        }
    }
}
