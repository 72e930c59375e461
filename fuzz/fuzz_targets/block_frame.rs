//! Decoding of blocks and frames: any bytes end in a fault, an error or values, and nothing is read
//! outside of them. First byte: whether the checksums are made right first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milepost_engine::block::Block;
use milepost_engine::frame::{FrameKind, FrameRef, NewFrame};
use milepost_fuzz::mend;

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if mode & 1 == 1 {
        mend::block(&mut bytes, None);
    }
    let Ok(block) = Block::check(&bytes) else { return };
    assert!(block.header().block_len as usize <= bytes.len());
    for frame in block.frames() {
        match frame {
            Ok(frame) => read(&block, frame),
            Err(error) => assert!(error.lsn().is_some(), "damage names its position"),
        }
    }
});

fn read(block: &Block<'_>, frame: FrameRef<'_>) {
    let _ = (
        frame
            .origin()
            .map(|origin| origin.map(|origin| origin.to_owned())),
        frame.pinned(),
    );
    let _ = frame.via().map(|via| via.map(|via| via.to_owned()));
    assert_eq!(block.frame_at(frame.lsn()).unwrap().bytes(), frame.bytes());
    let mut again = NewFrame::transaction();
    for event in frame.events() {
        let Ok(event) = event else { return };
        let (Ok(stream), Ok(kind)) = (event.stream(), event.kind()) else {
            return;
        };
        let _ = event.to_event();
        let headers = event.headers();
        let kept = again.push_raw(event.ordinal, stream, kind, headers.bytes(), event.payload);
        // What can be read as an event can be appended as one, and nothing else can.
        assert_eq!(kept.is_ok(), event.to_event().is_ok());
        if kept.is_err() {
            return;
        }
    }
    if frame.kind() == FrameKind::TRANSACTION {
        assert_eq!(again.event_count(), frame.event_count());
    }
}
