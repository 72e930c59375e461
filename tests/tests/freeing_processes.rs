//! Several real processes commit to one store and free its log while they are killed one after another: none loses an
//! acknowledged event, each sees its own versions and pinned records as they are, and whoever reads what another has
//! freed is told so (E1, E2, E4, E5).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Duration;

use milepost_engine::{Lsn, Options, Retention};
use milepost_tests::SimRng;
use milepost_tests::processes::{Worker, look};

const WRITERS: usize = 4;
const KILLS: usize = 30;

/// Takes the last acknowledged version out of a worker's lines.
fn hear(acknowledged: &mut Option<u64>, lines: impl Iterator<Item = String>) {
    for line in lines {
        let version = line.strip_prefix("ack ").unwrap().parse().unwrap();
        assert!(acknowledged.is_none_or(|last| version > last), "{line}");
        *acknowledged = Some(version);
    }
}

#[test]
fn processes_that_free_under_each_other_and_are_killed_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let made = Options::new()
        .segment_bytes(1 << 20)
        .retention(Retention::Bytes(3 << 20))
        .init(&dir, "bern".parse().unwrap());
    made.unwrap().close().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_store_worker"));
    let place = dir.to_str().unwrap();
    let start = |number: usize| Worker::start(program, &["keep", place, &number.to_string()]);
    let mut acknowledged = [None; WRITERS];
    let mut workers: Vec<Worker> = (0..WRITERS).map(start).collect();
    let rng = SimRng::new(11);
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(20 + rng.below(60)));
        let number = rng.index(WRITERS);
        // It has come far enough to say something.
        hear(&mut acknowledged[number], workers[number].next_line().into_iter());
        // Killed before its successor looks how far it came.
        hear(
            &mut acknowledged[number],
            workers.remove(number).kill().into_iter(),
        );
        workers.insert(number, start(number));
    }
    for (number, worker) in workers.into_iter().enumerate() {
        // One that never spoke may have gone on behind what its predecessor did not get to say.
        hear(&mut acknowledged[number], worker.next_line().into_iter());
        hear(&mut acknowledged[number], worker.kill().into_iter());
    }
    let store = Options::new().open(&dir).unwrap();
    for (number, last) in acknowledged.iter().enumerate() {
        let (stream, last) = (format!("w/{number}"), last.unwrap());
        let version = store.stream_version(&stream).unwrap().unwrap().0;
        assert!(
            version == last || version == last + 1,
            "{stream}: {last} acknowledged, {version} there"
        );
        look(&store, &stream, version);
    }
    assert!(store.oldest().unwrap() > Lsn::ZERO, "the processes freed");
    store.free().unwrap();
    assert!(
        store.segments().unwrap().len() <= 5,
        "{:?}",
        store.segments().unwrap()
    );
    let found = store.verify(&mut |_, _| ()).unwrap();
    assert!(found.damage.is_empty(), "{found:?}");
}
