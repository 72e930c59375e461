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

/// A closed store whose segments were all sealed but the last, empty one: of so many events of 60,000 bytes each.
/// The index files are deleted. Returns the segments.
fn without_sidecars(place: &std::path::Path, events: &[u8]) -> Vec<(Lsn, u64)> {
    let store = Options::new().segment_bytes(4 << 20).background(false);
    let store = store.init(place, "a".parse().unwrap()).unwrap();
    for count in events {
        for number in 0..*count {
            let _ = store.commit(transaction("s", &vec![number; 60_000])).unwrap();
        }
        assert!(store.rotate(0).unwrap());
    }
    let segments = store.segments().unwrap();
    store.close().unwrap();
    for file in std::fs::read_dir(place.join("log")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    segments
}

#[test]
fn whoever_asks_is_told_of_each_sidecar_that_is_made_again_how_much_is_left_and_the_end() {
    // Twelve sealed segments whose sidecars are deleted; the seventh is long enough to be told of while it is read.
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("s");
    let segments = without_sidecars(&place, &[1, 1, 1, 1, 1, 1, 40, 1, 1, 1, 1, 1]);
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let open = || {
        let telling = Arc::clone(&telling);
        let tell = move |rebuild| telling.lock().unwrap().push(rebuild);
        Options::new()
            .background(false)
            .on_rebuild(tell)
            .open(&place)
            .unwrap()
    };
    let store = open();
    assert!(told.lock().unwrap().is_empty(), "opening reads no history");
    assert_eq!(store.stream_version("s").unwrap(), Some(StreamVersion(50)));
    store.close().unwrap();
    let told_of = std::mem::take(&mut *told.lock().unwrap());
    let begun: Vec<_> = told_of
        .iter()
        .filter(|one| one.read == 0 && one.left > 0)
        .collect();
    let firsts: Vec<Lsn> = begun.iter().map(|one| one.segment).collect();
    assert_eq!(
        firsts,
        segments[..12].iter().map(|(first, _)| *first).collect::<Vec<_>>()
    );
    assert!(begun.iter().map(|one| one.left).eq((1..=12).rev()), "{begun:?}");
    assert_eq!(begun[0].bytes_left, segments[12].0.0, "all that is sealed");
    assert!(
        told_of
            .windows(2)
            .all(|two| two[0].bytes_left > two[1].bytes_left),
        "{told_of:?}"
    );
    let within: Vec<_> = told_of.iter().filter(|one| one.read > 0).collect();
    assert!(
        within.iter().all(|one| one.segment == segments[6].0) && within.len() == 2,
        "{within:?}"
    );
    let end = told_of.last().unwrap();
    assert_eq!((end.left, end.bytes_left, told_of.len()), (0, 0, 12 + 2 + 1));
    let store = open();
    assert_eq!(store.stream_version("s").unwrap(), Some(StreamVersion(50)));
    assert!(told.lock().unwrap().is_empty(), "they are there again");
}
