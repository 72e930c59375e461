//! A log whose sealed segments are compressed is the same log, by every way of reading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::{Durability, ErrorKind, Repair, RepairHow};

/// Everything that can be asked of a store.
#[derive(Debug, PartialEq)]
pub(super) struct Answers {
    pub(super) blocks: Vec<(Lsn, u64)>,
    pub(super) streams: BTreeMap<String, Vec<crate::RecordedEvent>>,
    filtered: BTreeMap<String, Vec<(Lsn, Vec<u8>)>>,
    positions: Vec<Option<crate::Position>>,
    totals: String,
    verified: String,
}

pub(super) fn answers(store: &Store, streams: &[String]) -> Answers {
    let (mut blocks, mut frames) = (Vec::new(), Vec::new());
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    while let Some(block) = scan.next_block().unwrap() {
        if block.header().close {
            continue;
        }
        let bytes = block.frames().map(|frame| {
            let frame = frame.unwrap();
            frames.push(frame.lsn());
            xxhash_rust::xxh3::xxh3_64(frame.body())
        });
        let hash = bytes.fold(block.chain_after().0, |hash, word| hash.rotate_left(7) ^ word);
        blocks.push((block.header().lsn, hash));
    }
    let read = |stream: &String| {
        let events = store.read_stream(stream, StreamVersion(0)).unwrap();
        (stream.clone(), events.map(Result::unwrap).collect())
    };
    let filtered = |stream: &String| {
        let (mut found, name) = (Vec::new(), crate::StreamName::new(stream.clone()).unwrap());
        let mut scan = store.scan_stream(&name, Lsn::ZERO).unwrap();
        while let Some((frame, event)) = scan.next().unwrap() {
            found.push((frame.lsn(), event.payload.to_vec()));
        }
        (stream.clone(), found)
    };
    let verified = store.verify(&mut |_, _| ()).unwrap();
    assert!(verified.damage.is_empty(), "{verified:?}");
    Answers {
        blocks,
        streams: streams.iter().map(read).collect(),
        filtered: streams.iter().map(filtered).collect(),
        positions: frames
            .iter()
            .step_by(7)
            .map(|lsn| store.position_at(*lsn).unwrap())
            .collect(),
        totals: format!("{:?}", store.totals().unwrap()),
        // A segment may have been begun, and hold its first block after a close.
        verified: format!("{} {}", verified.frames, verified.events),
    }
}

/// Words that follow from a seed.
pub(super) fn words(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Fills a log of several segments; the streams in it.
pub(super) fn fill(store: &Store, draw: &mut impl FnMut(u64) -> u64) -> Vec<String> {
    let streams: Vec<String> = (0..40).map(|number| format!("s/{number}")).collect();
    while store.segments().unwrap().len() < 6 {
        let frames = (0..1 + draw(20)).map(|_| {
            let mut frame = crate::frame::NewFrame::transaction();
            for ordinal in 0..1 + draw(4) as u32 {
                let stream = &streams[(draw(40) * draw(40) / 40) as usize];
                let len = [20, 200, 3_000][draw(3) as usize] + draw(100) as usize;
                let noise = draw(4) == 0;
                let payload: Vec<u8> = (0..len)
                    .map(|at| if noise { draw(256) as u8 } else { at as u8 / 16 })
                    .collect();
                frame
                    .push_event(ordinal, &Event::new(stream, "noted", payload).unwrap())
                    .unwrap();
            }
            if draw(9) == 0 {
                frame.pin(crate::Pinned {
                    key: vec![draw(5) as u8],
                    value: Some(vec![7; draw(50) as usize]),
                });
            }
            frame
        });
        store
            .append_frames(frames.collect(), Durability::Buffered)
            .unwrap();
        if draw(60) == 0 {
            // A block longer than any piece.
            let payload = vec![draw(256) as u8; 300_000 + draw(400_000) as usize];
            store
                .commit(transaction("s/0", &payload))
                .unwrap()
                .committed()
                .unwrap();
        }
        if draw(80) == 0 {
            store.rotate(0).unwrap();
        }
    }
    store.sync().unwrap();
    streams
}

pub(super) fn files(root: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("log")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    files
}

#[test]
fn a_compressed_log_gives_the_same_answers_to_everybody_and_comes_back_byte_for_byte() {
    (0..6).for_each(compress_and_back);
}

fn compress_and_back(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let mut draw = words(seed);
    let options = || {
        let options = Options::new().segment_bytes(1 << 20).background(false);
        options.pad_to(if seed == 3 { 4096 } else { 1 })
    };
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let streams = fill(&store, &mut draw);
    let beside = options().open(&root).unwrap();
    let before = answers(&store, &streams);
    assert!(answers(&beside, &streams) == before);
    let raw: Vec<Vec<u8>> = files(&root, "log")
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();

    let mut told = (0, 0);
    let done = store.compress(&mut |done, total| told = (done, total)).unwrap();
    assert_eq!(told, (done.raw_bytes, done.raw_bytes));
    assert_eq!(
        (done.segments.len() + 2, files(&root, "log").len()),
        (raw.len(), 2),
        "seed {seed}"
    );
    assert!(done.packed_bytes < done.raw_bytes, "{done:?}");
    assert_eq!(done.compressed as usize, done.segments.len());
    assert!(
        answers(&store, &streams) == before,
        "seed {seed}, the handle that compressed"
    );
    assert!(
        answers(&beside, &streams) == before,
        "one that has the raw ones open"
    );
    drop(beside);
    store.close().unwrap();
    // Sidecars are made again of compressed segments (E4).
    files(&root, "idx")
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    let store = options().open(&root).unwrap();
    assert!(answers(&store, &streams) == before, "seed {seed}, reopened");
    assert!(store.compress(&mut |_, _| ()).unwrap().segments.is_empty());

    let undone = store.decompress(&mut |_, _| ()).unwrap();
    assert_eq!(
        (undone.segments.len(), undone.compressed),
        (done.segments.len(), 0)
    );
    assert!(files(&root, "mpz").is_empty());
    let back: Vec<Vec<u8>> = files(&root, "log")
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let last = back.len() - 1;
    assert!(back[..last] == raw[..last], "seed {seed}");
    assert!(answers(&store, &streams) == before);
}

/// A store with compressed segments, closed, and its answers.
fn compressed(root: &Path) -> (Vec<String>, Answers) {
    let store = options()
        .background(false)
        .init(root, "a".parse().unwrap())
        .unwrap();
    let streams = fill(&store, &mut words(44));
    let before = answers(&store, &streams);
    assert!(store.compress(&mut |_, _| ()).unwrap().segments.len() >= 3);
    store.close().unwrap();
    (streams, before)
}

#[test]
fn a_changed_byte_of_a_compressed_segment_is_told_with_its_file_and_hides_no_other_segment() {
    // E3: anywhere in the file, header and table included.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    compressed(&root);
    let packed = files(&root, "mpz");
    let good = std::fs::read(&packed[1]).unwrap();
    let mut at = 0;
    while at < good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        std::fs::write(&packed[1], &bytes).unwrap();
        let store = options().background(false).open(&root).unwrap();
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(found.damage.len(), 1, "byte {at}: {found:?}");
        assert_eq!(found.damage[0].path(), Some(&*packed[1]));
        assert!(found.damage[0].lsn().is_some());
        let mut scan = store.scan(Lsn::ZERO).unwrap();
        let error = std::iter::repeat_with(|| scan.next().map(|frame| frame.is_some())).find(Result::is_err);
        let error = error.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Corrupt, Some(&*packed[1])),
            "{error}"
        );
        at += 1 + at / 3;
    }
    for len in [0, 1, 127, 128, 500, good.len() / 2, good.len() - 1] {
        std::fs::write(&packed[1], &good[..len]).unwrap();
        let store = options().background(false).open(&root).unwrap();
        assert_eq!(
            store.verify(&mut |_, _| ()).unwrap().damage.len(),
            1,
            "{len} bytes"
        );
    }
    std::fs::remove_file(&packed[1]).unwrap();
    let store = options().background(false).open(&root).unwrap();
    assert!(
        !store.verify(&mut |_, _| ()).unwrap().damage.is_empty(),
        "a file that is missing"
    );
}

#[test]
fn a_raw_segment_beside_its_compressed_form_counts_and_the_next_run_ends_what_was_begun() {
    // What a crash between naming the one and unlinking the other leaves.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let (streams, before) = compressed(&root);
    let copies: Vec<(PathBuf, Vec<u8>)> = files(&root, "mpz")
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    let store = options().background(false).open(&root).unwrap();
    store.decompress(&mut |_, _| ()).unwrap();
    for (number, (path, bytes)) in copies.iter().enumerate() {
        let mut bytes = bytes.clone();
        if number == 1 {
            // Whole by its checksums, and of another place.
            bytes = copies[0].1.clone();
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert!(answers(&store, &streams) == before);
    store.close().unwrap();
    let store = options().background(false).open(&root).unwrap();
    assert!(answers(&store, &streams) == before);
    let done = store.compress(&mut |_, _| ()).unwrap();
    assert_eq!(done.segments.len(), copies.len());
    assert!(answers(&store, &streams) == before);
    for (path, bytes) in copies {
        assert_eq!(
            std::fs::read(path).unwrap(),
            bytes,
            "the packed bytes follow from the segment"
        );
    }
}

#[test]
fn a_compressed_form_that_is_whole_and_not_the_same_does_not_take_the_place_of_the_raw_one() {
    // Padding is under no checksum of a block: the two forms differ there, and each is whole.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let options = || options().background(false).pad_to(512);
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    fill(&store, &mut words(45));
    store.compress(&mut |_, _| ()).unwrap();
    let packed = files(&root, "mpz")[1].clone();
    let former = std::fs::read(&packed).unwrap();
    store.decompress(&mut |_, _| ()).unwrap();
    store.close().unwrap();
    std::fs::write(&packed, &former).unwrap();
    let raw = packed.with_extension("log");
    let mut bytes = std::fs::read(&raw).unwrap();
    let padding = (0..bytes.len() - 4)
        .step_by(512)
        .find(|at| bytes[*at..].starts_with(b"MPB1") && *at > 0)
        .unwrap()
        - 1;
    assert_eq!(bytes[padding], 0);
    bytes[padding] = 9;
    std::fs::write(&raw, &bytes).unwrap();
    let store = options().open(&root).unwrap();
    store.compress(&mut |_, _| ()).unwrap();
    assert_ne!(std::fs::read(&packed).unwrap(), former, "made again");
    store.decompress(&mut |_, _| ()).unwrap();
    assert!(std::fs::read(&raw).unwrap() == bytes);
}

/// The trap: whoever sealed the segments ended before it made their index files.
#[test]
fn segments_without_an_index_file_get_it_and_are_compressed_like_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options()
        .background(false)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    fill(&store, &mut words(50));
    store.close().unwrap();
    for path in files(&root, "idx") {
        std::fs::remove_file(path).unwrap();
    }
    let (store, segments) = (
        options().background(false).open(&root).unwrap(),
        files(&root, "log").len(),
    );
    assert_eq!(
        store.compress(&mut |_, _| ()).unwrap().segments.len(),
        segments - 2
    );
}

#[test]
fn one_process_at_a_time_gives_segments_another_form_and_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    compressed(&root);
    let store = options().background(false).open(&root).unwrap();
    let held = store.shared().lock_arranging().unwrap().unwrap();
    let other = options().background(false).open(&root).unwrap();
    for tried in [other.compress(&mut |_, _| ()), other.decompress(&mut |_, _| ())] {
        assert_eq!(tried.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    drop(held);
    assert_eq!(other.decompress(&mut |_, _| ()).unwrap().compressed, 0);
}

#[test]
fn a_damaged_compressed_segment_is_repaired_like_a_raw_one_and_the_file_is_kept_aside() {
    // A bit of a body, a bit of the header: then all of the segment is lost.
    for at in [None, Some(20)] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        compressed(&root);
        let packed = files(&root, "mpz");
        let mut bytes = std::fs::read(&packed[1]).unwrap();
        let at = at.unwrap_or(bytes.len() / 2);
        bytes[at] ^= 4;
        std::fs::write(&packed[1], &bytes).unwrap();
        let repair = Repair::open(&root, options()).unwrap();
        let found = repair.examine().unwrap();
        assert!(found.isolate.is_ok() && !found.damages.is_empty(), "{found:?}");
        assert!(files(&root, "mpz") == packed, "looking changes nothing");
        let done = repair.run(RepairHow::Isolate, &mut |_| ()).unwrap();
        assert!(!done.ranges.is_empty());
        let store = options().background(false).open(&root).unwrap();
        let verified = store.verify(&mut |_, _| ()).unwrap();
        assert!(verified.damage.is_empty(), "{verified:?}");
        assert!(!packed[1].exists() && packed[0].exists());
        let name = packed[1].file_name().unwrap();
        assert_eq!(std::fs::read(root.join("damaged").join(name)).unwrap(), bytes);
        store
            .commit(transaction("s/1", b"on"))
            .unwrap()
            .committed()
            .unwrap();
    }
}

#[test]
fn a_cut_within_compressed_segments_leaves_a_log_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    compressed(&root);
    let packed = files(&root, "mpz");
    let mut bytes = std::fs::read(&packed[1]).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(&packed[1], &bytes).unwrap();
    let done = Repair::open(&root, options())
        .unwrap()
        .run(RepairHow::Cut, &mut |_| ())
        .unwrap();
    let store = options().background(false).open(&root).unwrap();
    assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    assert!(files(&root, "mpz").iter().all(|path| *path == packed[0]));
    assert!(root.join("damaged").join(packed[2].file_name().unwrap()).exists());
    store
        .commit(transaction("s/1", b"on"))
        .unwrap()
        .committed()
        .unwrap();
    assert!(store.watermarks().durable > done.end);
}

#[test]
fn a_compressed_store_is_backed_up_and_restored_as_if_it_were_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let (_, before) = compressed(&root);
    let store = options().background(false).open(&root).unwrap();
    store.backup(dir.path().join("b"), false, &mut |_, _| ()).unwrap();
    let replaced = store
        .backup(dir.path().join("b"), true, &mut |_, _| ())
        .unwrap()
        .replaced;
    assert!(replaced.is_empty());
    let new = dir.path().join("n");
    options()
        .restore(dir.path().join("b"), &new, &mut |_, _| ())
        .unwrap();
    let restored = options().background(false).open(&new).unwrap();
    let mut scan = restored.scan(Lsn::ZERO).unwrap();
    for (lsn, _) in &before.blocks {
        assert_eq!(scan.next_block().unwrap().unwrap().header().lsn, *lsn);
    }
}
