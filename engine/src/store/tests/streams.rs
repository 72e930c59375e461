//! What readers of streams see while the log goes on.

use super::*;
use crate::ErrorKind;
use crate::frame::{FrameKind, NewFrame};

#[test]
fn a_reader_whose_log_rolled_since_it_looked_reads_what_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let _ = store.commit(transaction("s", b"0")).unwrap();
    let looked = store.watermarks().durable;
    // Another thread commits, rolls and feeds the index between a reader's look at the durable end and its look
    // at the index.
    let _ = store.commit(transaction("s", b"1")).unwrap();
    assert!(store.rotate(0).unwrap());
    let _ = store.commit(transaction("s", b"2")).unwrap();
    assert_eq!(store.stream_version("s").unwrap(), Some(StreamVersion(2)));
    let events = store.reader("s", StreamVersion(0), looked).unwrap();
    let seen: Vec<Vec<u8>> = events.map(|event| event.unwrap().payload).collect();
    assert_eq!(seen, [b"0", b"1"], "all that was sealed, and nothing beyond");
}

#[test]
fn a_block_that_the_index_cannot_take_is_met_by_everybody_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let part = NewFrame::of_kind(FrameKind::PART, vec![1, 2, 3]);
    for kind in [FrameKind::PART, FrameKind::COMMIT] {
        let frame = NewFrame::of_kind(kind, Vec::new());
        let error = store.append_frames(vec![frame], Durability::Synced).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Invalid,
            "kinds nobody can read yet: {error}"
        );
    }
    // As a newer program would.
    let request = crate::log::Request {
        frames: vec![part.encode(1, 1).unwrap()],
        expectations: Vec::new(),
    };
    assert!(
        store
            .log()
            .submit(request, crate::log::Wait::Written, store.shared())
            .is_ok()
    );
    store.sync().unwrap();
    let _ = store.commit(transaction("s", b"behind it")).unwrap();
    for _ in 0..2 {
        let error = store.stream_version("s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[test]
fn a_process_that_only_reads_writes_the_sidecars_of_what_it_saw_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let writer = options()
        .background(false)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    let reader = options().open(&root).unwrap();
    assert_eq!(reader.stream_version("s").unwrap(), None);
    let _ = writer.commit(transaction("s", b"0")).unwrap();
    assert!(writer.rotate(0).unwrap());
    let _ = writer.commit(transaction("s", b"1")).unwrap();
    assert_eq!(reader.stream_version("s").unwrap(), Some(StreamVersion(1)));
    while !root.join("log/0000000000000000.idx").exists() {
        // For ever, when the reader keeps the index in memory.
        std::thread::sleep(Duration::from_millis(5));
    }
}
