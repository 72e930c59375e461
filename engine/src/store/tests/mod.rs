//! The store over a real directory: what one handle commits, others read; what is closed, reopens.

use std::sync::Arc;

mod archive;
mod damaged_base;
mod damaged_received;
mod files;
mod freed_forms;
mod freeing_meanwhile;
mod handles;
mod packed;
mod room;
mod shared_archive;
mod space;
mod stream_scan;
mod streams;

use super::*;
use crate::log::Written;
use crate::{CommitOutcome, Event, ExpectedVersion, StreamVersion, Transaction};

fn options() -> Options {
    Options::new().segment_bytes(1 << 20)
}

fn transaction(stream: &str, payload: &[u8]) -> Transaction {
    let mut transaction = Transaction::new();
    transaction
        .push(&Event::new(stream, "noted", payload).unwrap())
        .unwrap();
    transaction
}

/// Payloads of all transactions in log order.
fn payloads(store: &Store) -> Vec<Vec<u8>> {
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut all = Vec::new();
    while let Some(frame) = scan.next().unwrap() {
        all.extend(frame.events().map(|event| event.unwrap().payload.to_vec()));
    }
    all
}

#[test]
fn what_was_committed_is_there_after_reopening_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let mut expected = Vec::new();
    for n in 0..200u32 {
        let payload = vec![n as u8; 10_000];
        let _ = store
            .commit(transaction(&format!("s/{}", n % 7), &payload))
            .unwrap();
        expected.push(payload);
    }
    assert_eq!(payloads(&store), expected);
    assert!(store.segments().unwrap().len() > 1, "the log rolled");
    store.close().unwrap();
    let store = options().open(&root).unwrap();
    assert_eq!(payloads(&store), expected);
    let events: Vec<_> = store
        .read_stream("s/3", StreamVersion(2))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(events.len(), 27);
    assert_eq!(events[0].version, StreamVersion(2));
    assert_eq!(events[0].payload, vec![17; 10_000]);
    assert_eq!(store.stream_version("s/3").unwrap(), Some(StreamVersion(28)));
    let position = store.position_at(events[5].lsn).unwrap().unwrap();
    assert_eq!(position.lsn, events[5].lsn);
    assert!(store.position_at(events[5].lsn.plus(8)).unwrap().is_none());
}

#[test]
fn two_handles_append_to_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let one = options().init(&root, "a".parse().unwrap()).unwrap();
    let two = options().open(&root).unwrap();
    for n in 0..300u32 {
        let store = if n % 2 == 0 { &one } else { &two };
        let _ = store
            .commit(transaction("s", &n.to_le_bytes().repeat(1000)))
            .unwrap();
    }
    let expected: Vec<_> = (0..300u32).map(|n| n.to_le_bytes().repeat(1000)).collect();
    assert_eq!(payloads(&one), expected);
    assert_eq!(payloads(&two), expected);
}

#[test]
fn a_wrong_expectation_commits_nothing_and_says_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let expecting = |expected| {
        let mut transaction = transaction("s", b"x");
        transaction.expect("s", expected).unwrap();
        store.commit(transaction).unwrap()
    };
    assert!(matches!(
        expecting(ExpectedVersion::StreamExists),
        CommitOutcome::WrongVersion(_)
    ));
    let CommitOutcome::Committed(first) = expecting(ExpectedVersion::NoStream) else {
        panic!("refused")
    };
    assert_eq!(
        first.versions,
        vec![(crate::StreamName::new("s").unwrap(), StreamVersion(0))]
    );
    assert!(matches!(
        expecting(ExpectedVersion::Exact(StreamVersion(0))),
        CommitOutcome::Committed(_)
    ));
    let CommitOutcome::WrongVersion(wrong) = expecting(ExpectedVersion::NoStream) else {
        panic!("accepted")
    };
    assert_eq!(wrong.actual, Some(StreamVersion(1)));
    assert_eq!(payloads(&store).len(), 2);
}

#[test]
fn many_threads_commit_through_one_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let store = Arc::new(store);
    let threads: Vec<_> = (0..8u8)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for n in 0..50u8 {
                    let _ = store
                        .commit(transaction(&format!("t/{thread}"), &[thread, n]))
                        .unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for thread in 0..8u8 {
        let events = store
            .read_stream(&format!("t/{thread}"), StreamVersion(0))
            .unwrap();
        let seen: Vec<Vec<u8>> = events.map(|event| event.unwrap().payload).collect();
        assert_eq!(seen, (0..50).map(|n| vec![thread, n]).collect::<Vec<_>>());
    }
}

/// A store whose log has several files.
fn rolled(root: &Path) -> Store {
    let store = options().init(root, "a".parse().unwrap()).unwrap();
    for n in 0..250u32 {
        let _ = store
            .commit(transaction("s", &n.to_le_bytes().repeat(2_000)))
            .unwrap();
    }
    assert!(store.segments().unwrap().len() > 1, "the log rolled");
    store
}

#[test]
fn a_log_whose_last_file_is_missing_is_damaged_not_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = rolled(&root);
    store.tend().unwrap();
    let last = store.segments().unwrap().last().unwrap().0;
    assert!(last > Lsn::ZERO, "the log rolled");
    store.close().unwrap();
    std::fs::remove_file(root.join(format!("log/{:016x}.log", last.0))).unwrap();
    let error = options().open(&root).err().unwrap();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "E3: {error}");
}

#[test]
fn of_two_who_make_a_store_in_one_place_one_is_refused_and_the_other_loses_nothing() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        let made: Vec<_> = std::thread::scope(|scope| {
            let make = || {
                let store = options().init(&root, "a".parse().unwrap())?;
                store.commit(transaction("s", b"x"))?.committed()?;
                Ok::<_, crate::Error>(())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
        let refused = made.iter().filter_map(|made| made.as_ref().err());
        // Refused because there is one now, or because it is being made.
        let kinds = [crate::ErrorKind::Conflict, crate::ErrorKind::Unavailable];
        refused.for_each(|error| assert!(kinds.contains(&error.kind()), "{error}"));
        assert_eq!(payloads(&options().open(&root).unwrap()), vec![b"x".to_vec()]);
    }
}

#[test]
fn a_log_whose_first_file_is_missing_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = rolled(&root);
    store.close().unwrap();
    std::fs::remove_file(root.join("log/0000000000000000.log")).unwrap();
    let error = options().open(&root).err().unwrap();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "E3: {error}");
}

#[test]
fn a_refusal_caused_by_the_same_batch_lies_below_the_end_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let request = || {
        let mut first = transaction("s", b"x");
        first.expect("s", ExpectedVersion::NoStream).unwrap();
        let (frame, expectations) = first.into_parts();
        let frame = frame.encode(0, 0).unwrap();
        crate::log::Request {
            frames: vec![frame],
            expectations,
        }
    };
    let outcomes = store.log().write(&[request(), request()], store.shared());
    let [Ok(Written::Appended { lsns, .. }), Ok(Written::Wrong { end, .. })] = &outcomes[..] else {
        panic!("the first is written, the second refused because of it");
    };
    assert!(
        *end > lsns[0],
        "what refused the second must be durable before it is told"
    );
}

#[test]
fn buffered_commits_of_a_process_that_died_are_synced_by_one_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let dead = options()
        .background(false)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    let alive = options().open(&root).unwrap();
    let mut scan = alive.scan(alive.watermarks().durable).unwrap();
    dead.commit_with(transaction("s", b"x"), Durability::Buffered)
        .unwrap()
        .committed()
        .unwrap();
    // Never dropped, so never synced by itself: as good as killed.
    std::mem::forget(dead);
    assert!(scan.next().unwrap().is_none(), "what is not durable is not seen");
    assert!(scan.wait(Duration::from_secs(20)).unwrap());
    assert_eq!(scan.next().unwrap().unwrap().event_count(), 1);
}
