//! A scan for one stream sees what a scan of everything sees of that stream, whatever the blocks are.

use proptest::prelude::*;

use super::*;
use crate::storage::{LocalStorage, OpenMode, Storage};
use crate::{ErrorKind, StreamName};

/// LSN of the frame and payload of each event of `stream` behind `after`, by a scan of everything.
fn by_scan(store: &Store, stream: &str, after: Lsn) -> Vec<(Lsn, Vec<u8>)> {
    let mut scan = store.scan(after).unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = scan.next().unwrap() {
        for event in frame.events().map(Result::unwrap) {
            if event.stream().unwrap() == stream {
                seen.push((frame.lsn(), event.payload.to_vec()));
            }
        }
    }
    seen
}

fn by_filters(store: &Store, stream: &str, after: Lsn) -> Vec<(Lsn, Vec<u8>)> {
    let stream = StreamName::new(stream).unwrap();
    let mut scan = store.scan_stream(&stream, after).unwrap();
    let mut seen = Vec::new();
    while let Some((frame, event)) = scan.next().unwrap() {
        assert_eq!(event.stream().unwrap(), stream.as_str());
        seen.push((frame.lsn(), event.payload.to_vec()));
    }
    assert_eq!(scan.reached(), store.watermarks().durable, "all was looked at");
    seen
}

/// One batch of frames: for each transaction the streams of its events.
type Batch = Vec<Vec<u8>>;

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let transaction = prop::collection::vec(0..40u8, 1..8);
    prop::collection::vec(prop::collection::vec(transaction, 1..12), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_event_of_a_stream_is_missed(batches in batches(), padded in any::<bool>(), rolls in any::<u32>()) {
        let dir = tempfile::tempdir().unwrap();
        let options = options().block_bytes(4 << 10).pad_to(if padded { 512 } else { 1 });
        let store = options.init(dir.path().join("s"), "a".parse().unwrap()).unwrap();
        let (mut number, mut lsns) = (0u32, vec![Lsn::ZERO]);
        for (at, batch) in batches.iter().enumerate() {
            let mut frames = Vec::new();
            for streams in batch {
                let mut transaction = Transaction::new();
                for stream in streams {
                    number += 1;
                    let payload = number.to_le_bytes().repeat(1 + usize::from(*stream) * 3);
                    transaction.push_parts(&format!("s/{stream}"), "noted", &payload).unwrap();
                }
                frames.push(transaction.into_parts().0);
            }
            let committed = store.append_frames(frames, Durability::Buffered).unwrap();
            lsns.extend(committed.iter().map(|committed| committed.lsn));
            if rolls & 1 << (at % 32) != 0 && at % 3 == 0 {
                store.rotate(0).unwrap();
            }
        }
        store.sync().unwrap();
        for stream in [0, 7, 39] {
            let stream = format!("s/{stream}");
            for after in lsns.iter().step_by(7) {
                prop_assert_eq!(by_filters(&store, &stream, *after), by_scan(&store, &stream, *after));
            }
        }
        prop_assert!(by_filters(&store, "never", Lsn::ZERO).is_empty());
    }
}

#[test]
fn what_is_committed_later_is_seen_after_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let _ = store.commit(transaction("s", b"0")).unwrap();
    let mut scan = store
        .scan_stream(&StreamName::new("s").unwrap(), Lsn::ZERO)
        .unwrap();
    assert_eq!(scan.next().unwrap().unwrap().1.payload, b"0");
    assert!(scan.next().unwrap().is_none());
    assert!(!scan.wait(Duration::ZERO).unwrap());
    let _ = store.commit(transaction("other", b"1")).unwrap();
    assert!(scan.wait(Duration::from_secs(60)).unwrap());
    assert!(
        scan.next().unwrap().is_none(),
        "more was durable, but nothing of the stream"
    );
    let _ = store.commit(transaction("s", b"2")).unwrap();
    assert!(scan.wait(Duration::from_secs(60)).unwrap());
    assert_eq!(scan.next().unwrap().unwrap().1.payload, b"2");
}

/// The trap: three blocks of three streams, and one bit flipped in the middle one, in its header, its filter or its
/// body. Only who looks for its stream may read its body, and nobody is served it (E3).
#[test]
fn damage_is_told_by_who_reads_it() {
    for (part, offset, told) in [("header", 60, true), ("filter", 130, true), ("body", 180, false)] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        let store = options().init(&root, "a".parse().unwrap()).unwrap();
        let mut firsts = Vec::new();
        for stream in ["a", "b", "c"] {
            firsts.push(store.watermarks().durable);
            let _ = store.commit(transaction(stream, &[7; 300])).unwrap();
        }
        let storage = LocalStorage::new(root.clone());
        let file = storage
            .open("log/0000000000000000.log", OpenMode::ReadWrite)
            .unwrap();
        let mut byte = [0];
        assert_eq!(file.read_at(&mut byte, firsts[1].0 + offset).unwrap(), 1);
        assert_eq!(file.write_at(&[&[byte[0] ^ 4]], firsts[1].0 + offset).unwrap(), 1);
        let ends = |stream: &str| {
            let mut scan = store
                .scan_stream(&StreamName::new(stream).unwrap(), Lsn::ZERO)
                .unwrap();
            loop {
                match scan.next() {
                    Ok(Some((_, event))) => assert_eq!(event.payload, [7; 300]),
                    Ok(None) => return None,
                    Err(error) => return Some((error.kind(), error.lsn())),
                }
            }
        };
        let corrupt = Some((ErrorKind::Corrupt, Some(firsts[1])));
        assert_eq!(ends("b"), corrupt, "{part}");
        assert_eq!(ends("c"), if told { corrupt } else { None }, "{part}");
    }
}
