//! Streams through the front door: versions, expectations and reading by stream across segments, and
//! that no derived file is needed for any of it (E4).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    missing_docs
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use milepost_engine::{
    CommitOutcome, Event, ExpectedVersion, Lsn, Options, Pinned, Position, Store, StreamVersion, Transaction,
};
use milepost_tests::SimRng;

const STREAMS: u64 = 12;

/// What a store must say: payloads of each stream in order, and pinned values.
#[derive(Default)]
struct Model {
    streams: BTreeMap<String, Vec<(Vec<u8>, Lsn)>>,
    pinned: BTreeMap<Vec<u8>, Vec<u8>>,
    serial: u64,
}

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

fn new_store(dir: &Path) -> Store {
    options().init(dir, "bern".parse().unwrap()).unwrap()
}

fn last(model: &Model, stream: &str) -> Option<StreamVersion> {
    let count = model.streams.get(stream).map_or(0, Vec::len) as u64;
    count.checked_sub(1).map(StreamVersion)
}

impl Model {
    /// Commits a random transaction, sometimes with expectations that hold, sometimes with one that
    /// does not.
    fn commit(&mut self, store: &Store, rng: &SimRng) {
        let mut transaction = Transaction::new();
        let mut added: Vec<(String, Vec<u8>)> = Vec::new();
        for _ in 0..=rng.below(5) {
            let stream = format!("s/{}", rng.below(STREAMS));
            self.serial += 1;
            let mut payload = self.serial.to_le_bytes().to_vec();
            payload.resize(8 + rng.below(9000) as usize, 7);
            transaction
                .push(&Event::new(&stream, "k", payload.clone()).unwrap())
                .unwrap();
            added.push((stream, payload));
        }
        let pin = rng.below(3) == 0;
        let key = format!("p/{}", rng.below(4)).into_bytes();
        let value = (rng.below(3) != 0).then(|| self.serial.to_le_bytes().to_vec());
        if pin {
            transaction.pin(Pinned {
                key: key.clone(),
                value: value.clone(),
            });
        }
        let watched = format!("s/{}", rng.below(STREAMS));
        let actual = last(self, &watched);
        let expected = match rng.below(4) {
            0 => ExpectedVersion::Any,
            1 => actual.map_or(ExpectedVersion::NoStream, ExpectedVersion::Exact),
            2 => ExpectedVersion::NoStream,
            _ => ExpectedVersion::Exact(StreamVersion(rng.below(40))),
        };
        if expected != ExpectedVersion::Any {
            transaction.expect(&watched, expected).unwrap();
        }
        match store.commit(transaction).unwrap() {
            CommitOutcome::WrongVersion(wrong) => {
                assert!(!expected.is_met_by(actual));
                assert_eq!((wrong.stream.as_str(), wrong.actual), (&*watched, actual));
            }
            CommitOutcome::Committed(committed) => {
                assert!(
                    expected.is_met_by(actual),
                    "{watched}: {expected:?} of {actual:?}"
                );
                for (stream, payload) in added {
                    self.streams
                        .entry(stream)
                        .or_default()
                        .push((payload, committed.lsn));
                }
                for (stream, version) in committed.versions {
                    assert_eq!(Some(version), last(self, stream.as_str()));
                }
                match value.filter(|_| pin) {
                    Some(value) => drop(self.pinned.insert(key, value)),
                    None if pin => drop(self.pinned.remove(&key)),
                    None => {}
                }
            }
        }
    }

    /// The store answers as the model does.
    fn check(&self, store: &Store) {
        for number in 0..=STREAMS {
            let stream = format!("s/{number}");
            let known = self.streams.get(&stream).map(Vec::as_slice).unwrap_or_default();
            assert_eq!(
                store.stream_version(&stream).unwrap(),
                last(self, &stream),
                "{stream}"
            );
            for from in [0, known.len() / 2, known.len().saturating_sub(1), known.len() + 1] {
                let read = store.read_stream(&stream, StreamVersion(from as u64)).unwrap();
                let read: Vec<_> = read.map(Result::unwrap).collect();
                let due = known.get(from..).unwrap_or_default();
                assert_eq!(read.len(), due.len(), "{stream} from {from}");
                for (at, (event, (payload, lsn))) in read.iter().zip(due).enumerate() {
                    assert_eq!(event.stream.as_str(), stream);
                    assert_eq!(event.version, StreamVersion((from + at) as u64));
                    assert_eq!((&event.payload, event.lsn), (payload, *lsn));
                }
            }
        }
        let pinned = store.pinned_with_prefix(b"p/").unwrap();
        let pinned: BTreeMap<_, _> = pinned.into_iter().map(|(key, value, _)| (key, value)).collect();
        assert_eq!(pinned, self.pinned);
        for key in 0..4 {
            let key = format!("p/{key}").into_bytes();
            assert_eq!(
                store.pinned(&key).unwrap().map(|(value, _)| value).as_ref(),
                self.pinned.get(&key)
            );
        }
    }
}

/// Position of every frame, as a scan and a question for each tell it.
fn positions(store: &Store) -> Vec<Position> {
    let mut scan = store.scan(store.oldest().unwrap()).unwrap();
    let mut positions = Vec::new();
    while let Some((epoch, lsn)) = scan.next().unwrap().map(|frame| (frame.epoch(), frame.lsn())) {
        let position = Position {
            epoch,
            lsn,
            chain: scan.chain(),
        };
        assert_eq!(store.position_at(lsn).unwrap(), Some(position));
        assert_eq!(
            store
                .position_at(lsn.plus(8))
                .unwrap()
                .filter(|other| *other == position),
            None
        );
        positions.push(position);
    }
    positions
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    files
}

/// A closed store of several segments, and what it must say.
fn filled(dir: &Path, seed: u64) -> (Model, Vec<Position>) {
    let store = new_store(dir);
    let (mut model, rng) = (Model::default(), SimRng::new(seed));
    for _ in 0..4 {
        for _ in 0..60 {
            model.commit(&store, &rng);
        }
        store.rotate(0).unwrap();
    }
    assert!(files(dir, ".log").len() >= 4);
    model.check(&store);
    store.tend().unwrap();
    let positions = positions(&store);
    store.close().unwrap();
    (model, positions)
}

#[test]
fn versions_and_streams_are_those_of_plain_lists_over_segments_and_reopenings() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let (mut model, rng) = (Model::default(), SimRng::new(seed));
        drop(new_store(&dir));
        for _ in 0..4 {
            let store = options().open(&dir).unwrap();
            model.check(&store);
            for _ in 0..50 {
                model.commit(&store, &rng);
            }
            model.check(&store);
            match rng.below(3) {
                0 => drop(store.rotate(0).unwrap()),
                1 => store.tend().unwrap(),
                _ => {}
            }
        }
    }
}

#[test]
fn deleting_every_derived_file_changes_no_answer_e4() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (model, before) = filled(&dir, 7);
    let sidecars: Vec<_> = files(&dir, ".idx")
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert!(sidecars.len() >= 3);
    for file in files(&dir, ".idx") {
        fs::remove_file(file).unwrap();
    }
    fs::remove_file(dir.join("control")).unwrap();
    let store = options().open(&dir).unwrap();
    model.check(&store);
    assert_eq!(positions(&store), before);
    store.tend().unwrap();
    for (file, bytes) in sidecars {
        assert!(
            fs::read(file).unwrap() == bytes,
            "a sidecar is a pure function of the log"
        );
    }
}

#[test]
fn any_damage_to_a_sidecar_changes_no_answer_e4() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (model, before) = filled(&dir, 8);
    let rng = SimRng::new(9);
    for round in 0..20 {
        for file in files(&dir, ".idx") {
            let mut bytes = fs::read(&file).unwrap();
            match rng.below(4) {
                0 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
                1 => bytes.push(0),
                _ => {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << rng.below(8);
                }
            }
            fs::write(file, bytes).unwrap();
        }
        let store = options().open(&dir).unwrap();
        model.check(&store);
        assert_eq!(positions(&store), before, "round {round}");
    }
}

#[test]
fn a_sidecar_of_the_wrong_segment_changes_no_answer_e4() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (model, _) = filled(&dir, 10);
    let sidecars = files(&dir, ".idx");
    fs::copy(&sidecars[2], &sidecars[0]).unwrap();
    fs::rename(&sidecars[1], &sidecars[2]).unwrap();
    model.check(&options().open(&dir).unwrap());
}

#[test]
fn an_expectation_sees_what_another_handle_has_committed() {
    // Two handles on one directory are two processes as far as locks and shared words go.
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (one, mut model, rng) = (new_store(&dir), Model::default(), SimRng::new(11));
    let two = options().open(&dir).unwrap();
    for round in 0..120 {
        model.commit(if rng.below(2) == 0 { &one } else { &two }, &rng);
        if round % 40 == 39 {
            one.rotate(0).unwrap();
            model.check(&one);
            model.check(&two);
            two.tend().unwrap();
        }
    }
    model.check(&one);
    model.check(&two);
}

#[test]
fn a_store_that_is_only_appended_to_leaves_sidecars_for_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let store = new_store(&dir);
    for number in 0..40u8 {
        let mut transaction = Transaction::new();
        transaction
            .push_parts("blind", "k", &vec![number; 100_000])
            .unwrap();
        store.commit(transaction).unwrap().committed().unwrap();
        store.tend().unwrap();
    }
    let segments = files(&dir, ".log").len();
    assert!(segments >= 4);
    assert_eq!(files(&dir, ".idx").len(), segments - 1);
    assert_eq!(store.stream_version("blind").unwrap(), Some(StreamVersion(39)));
}

#[test]
fn what_a_writer_of_sidecars_left_when_it_died_is_gone_after_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (model, _) = filled(&dir, 12);
    let left = dir.join("log/0000000000000000.idx.tmp-0123456789abcdef");
    fs::write(&left, b"half a sidecar").unwrap();
    let store = options().open(&dir).unwrap();
    assert!(!left.exists());
    model.check(&store);
}
