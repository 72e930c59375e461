//! Any byte changed in any file of a closed store ends in a clear error or in the same answers as
//! before: never in a panic, a hang, a lost or an invented event (E1, E3, E4).
//!
//! The store is small: two sealed segments with their sidecars, an active one, a queue. Each case copies it,
//! changes one byte (flipped in one bit, or set to something else), opens it, reads everything, and
//! goes on with a commit.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    missing_docs
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use milepost_engine::block::{BlockBuilder, BlockKind, Owner, Seal};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    Chain, ErrorKind, Event, Lsn, Options, Phase, Pinned, QueueEntry, RecordedEvent, Result, Store,
    StreamVersion, Transaction,
};

const SEGMENT: u64 = 1 << 20;
const STREAMS: [&str; 3] = ["orders/1", "orders/2", "stock"];

/// Contents of the files by name, without the zeros at their ends, and their lengths.
type Files = BTreeMap<PathBuf, (Vec<u8>, u64)>;

/// All that a store answers.
#[derive(Debug, PartialEq)]
struct Answers {
    frames: Vec<(Lsn, Vec<u8>)>,
    streams: Vec<Vec<RecordedEvent>>,
    versions: Vec<Option<StreamVersion>>,
    pinned: Vec<(Vec<u8>, Vec<u8>, Lsn)>,
}

fn options() -> Options {
    Options::new().segment_bytes(SEGMENT).background(false)
}

fn transaction(n: u32) -> Transaction {
    let mut transaction = Transaction::new();
    for stream in &STREAMS[..1 + n as usize % 3] {
        let event = Event::new(stream, "noted", n.to_le_bytes())
            .unwrap()
            .header("n", n.to_string())
            .unwrap();
        transaction.push(&event).unwrap();
    }
    transaction.pin(Pinned {
        key: b"last".to_vec(),
        value: Some(n.to_le_bytes().to_vec()),
    });
    transaction
}

fn make(root: &Path) {
    let store = options().init(root, "a".parse().unwrap()).unwrap();
    for n in 0..9 {
        let _ = store.commit(transaction(n)).unwrap();
        if n == 3 || n == 5 {
            assert!(store.rotate(0).unwrap());
        }
    }
    let answers = read(&store).unwrap();
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    for (lsn, _) in &answers.frames[..4] {
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), b"entry".to_vec());
        queue.append(vec![QueueEntry { lsn: *lsn, frame }], *lsn).unwrap();
    }
    queue.sync().unwrap();
    drop((queue, lock));
    store.close().unwrap();
}

fn read(store: &Store) -> Result<Answers> {
    let mut scan = store.scan(Lsn::ZERO)?;
    let mut frames = Vec::new();
    while let Some(frame) = scan.next()? {
        frames.push((frame.lsn(), frame.bytes().to_vec()));
    }
    let stream = |stream| {
        store
            .read_stream(stream, StreamVersion(0))?
            .collect::<Result<Vec<_>>>()
    };
    let streams = STREAMS.into_iter().map(stream).collect::<Result<_>>()?;
    let versions = STREAMS
        .into_iter()
        .map(|stream| store.stream_version(stream))
        .collect::<Result<_>>()?;
    Ok(Answers {
        frames,
        streams,
        versions,
        pinned: store.pinned_with_prefix(b"last")?,
    })
}

fn files_of(root: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            let len = bytes.len() as u64;
            bytes.truncate(
                bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1),
            );
            files.insert(path.strip_prefix(root).unwrap().to_path_buf(), (bytes, len));
        }
    }
    files
}

fn write(root: &Path, files: &Files) {
    for (name, (bytes, len)) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(*len)
            .unwrap();
    }
}

/// A directory in memory where there is one: thousands of small syncs need no disk.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

fn told(error: &milepost_engine::Error, what: &str) {
    let kinds = [ErrorKind::Corrupt, ErrorKind::Invalid];
    assert!(
        kinds.contains(&error.kind()),
        "{what}: {error:?} is not the kind of a damaged file"
    );
    assert!(
        error.path().is_some() || error.lsn().is_some(),
        "{what}: {error} names no place"
    );
}

/// Opens a changed copy; true when it was refused.
fn refused(files: &Files, expected: &Answers, what: &str) -> bool {
    let dir = scratch();
    write(dir.path(), files);
    let store = match options().open(dir.path()) {
        Ok(store) => store,
        Err(error) => {
            told(&error, what);
            return true;
        }
    };
    match read(&store) {
        Ok(answers) => assert_eq!(&answers, expected, "{what}"),
        Err(error) => {
            told(&error, what);
            return true;
        }
    }
    let added = store.commit(transaction(77)).unwrap().committed().unwrap();
    let answers = read(&store).unwrap();
    assert_eq!(answers.frames.len(), expected.frames.len() + 1, "{what}");
    assert_eq!(
        answers.frames.last().map(|(lsn, _)| *lsn),
        Some(added.lsn),
        "{what}"
    );
    false
}

/// The store as it was closed, with what it answers.
fn closed() -> (Files, Answers) {
    let dir = scratch();
    let root = dir.path().join("store");
    make(&root);
    let store = options().open(&root).unwrap();
    let answers = read(&store).unwrap();
    assert_eq!(
        answers.frames.iter().filter(|(_, frame)| frame[4] == 1).count(),
        9
    );
    store.close().unwrap();
    (files_of(&root), answers)
}

/// Every `step`-th byte of every file is changed by `change`; returns how many changes each folder's
/// files refused and how many were tried.
fn attack(step: usize, start: usize, change: fn(u8) -> u8) -> BTreeMap<String, (usize, usize)> {
    let (files, expected) = closed();
    let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (name, (bytes, len)) in &files {
        // Zeros behind the contents of a segment: the first, some between, the last.
        let behind = [bytes.len() as u64 + 8, len / 2, len.saturating_sub(1)].into_iter();
        let behind = behind.filter(|at| *at >= bytes.len() as u64 && at < len);
        for at in (start..bytes.len())
            .step_by(step)
            .map(|at| at as u64)
            .chain(behind)
        {
            let mut changed = files.clone();
            let (bytes, _) = changed.get_mut(name).unwrap();
            bytes.resize(bytes.len().max(at as usize + 1), 0);
            bytes[at as usize] = change(bytes[at as usize]);
            let refused = refused(&changed, &expected, &format!("byte {at} of {}", name.display()));
            let count = seen.entry(name.display().to_string()).or_default();
            *count = (count.0 + usize::from(refused), count.1 + 1);
        }
    }
    seen
}

/// Everyday runs leave bytes out; `MILEPOST_HOSTILE_STEP=1` tries each.
fn step(everyday: usize) -> usize {
    std::env::var("MILEPOST_HOSTILE_STEP").map_or(everyday, |step| step.parse().unwrap())
}

#[test]
fn a_flipped_bit_anywhere_is_told_or_harmless() {
    let seen = attack(step(13), 0, |byte| byte ^ 0x10);
    for (name, (refused, tried)) in seen {
        if name == "store" || name.ends_with(".log") {
            assert!(
                refused > tried / 2,
                "{name}: only {refused} of {tried} damages were told"
            );
        } else {
            assert_eq!(
                refused, 0,
                "{name} is derived, a witness or for people: {tried} damages, each made good"
            );
        }
    }
}

/// Any bit of any file, drawn by chance: a few hundred in the everyday run, as many as `MILEPOST_HOSTILE_SAMPLES`
/// says in the long one.
#[test]
fn bits_drawn_by_chance_are_told_or_harmless_when_they_flip() {
    let samples = std::env::var("MILEPOST_HOSTILE_SAMPLES").map_or(300, |text| text.parse().unwrap());
    let ((files, expected), rng) = (closed(), milepost_tests::SimRng::new(7));
    let names: Vec<&PathBuf> = files.keys().collect();
    let mut seen: BTreeMap<&Path, (u32, u32)> = BTreeMap::new();
    for _ in 0..samples {
        let name = *rng.pick(&names);
        let (contents, len) = &files[name];
        // One in eight behind the contents, among the zeros.
        let room = if rng.chance(1, 8) {
            *len as usize
        } else {
            contents.len()
        };
        let (at, bit) = (rng.index(room), rng.below(8));
        if room == 0 {
            continue;
        }
        let mut changed = files.clone();
        let (bytes, _) = changed.get_mut(name).unwrap();
        bytes.resize(bytes.len().max(at + 1), 0);
        bytes[at] ^= 1 << bit;
        let refused = refused(
            &changed,
            &expected,
            &format!("bit {bit} of byte {at} of {}", name.display()),
        );
        let count = seen.entry(name).or_default();
        *count = (count.0 + u32::from(refused), count.1 + 1);
    }
    println!("(told, tried) by file: {seen:?}");
    assert!(seen.values().map(|(refused, _)| refused).sum::<u32>() > samples / 10);
}

#[test]
fn a_byte_set_to_another_anywhere_is_told_or_harmless() {
    attack(step(29), 3, |byte| if byte == 0xff { 0 } else { 0xff });
}

#[test]
fn a_file_that_is_cut_short_is_told_or_made_good() {
    let (files, expected) = closed();
    for (name, (bytes, _)) in &files {
        for len in [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            let mut changed = files.clone();
            let (bytes, whole) = changed.get_mut(name).unwrap();
            bytes.truncate(len);
            *whole = len as u64;
            let what = format!("{} cut to {len} bytes", name.display());
            let refused = refused(&changed, &expected, &what);
            let truth = name == Path::new("store") || name.extension().is_some_and(|ending| ending == "log");
            assert!(
                refused || !truth,
                "{what}: what stood behind is gone, and nobody said so"
            );
        }
    }
}

/// A closed store without one of its files.
fn without(lost: &Path, files: &Files) -> milepost_engine::Result<Store> {
    let dir = scratch();
    let mut left = files.clone();
    left.remove(lost);
    write(dir.path(), &left);
    options().open(dir.path())
}

#[test]
fn a_lost_segment_is_told_by_name() {
    let (mut files, _) = closed();
    // As after a crash that came before the sidecars: only `log/newest` knows how far the log went.
    files.retain(|name, _| name.extension().is_none_or(|ending| ending != "idx"));
    let segments = files
        .keys()
        .filter(|name| name.extension().is_some_and(|ending| ending == "log"));
    let segments: Vec<&PathBuf> = segments.collect();
    let [oldest, _, newest] = segments[..] else {
        panic!("three segments, not {segments:?}");
    };
    for (lost, named) in [(newest, newest.to_str().unwrap()), (oldest, "log")] {
        let error = without(lost, &files).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.path().unwrap().ends_with(named), "{error}");
    }
    let mut unwitnessed = files.clone();
    unwitnessed.remove(Path::new("log/newest"));
    assert!(
        without(newest, &unwitnessed).is_err(),
        "the log was closed, and a second witness knows where it ended"
    );
    unwitnessed.remove(Path::new("log/closed"));
    assert!(
        without(newest, &unwitnessed).is_ok(),
        "without the witnesses the loss is not seen: that is what they are for"
    );
}

#[test]
fn a_first_segment_without_a_block_is_damage() {
    let dir = scratch();
    let root = dir.path().join("store");
    options()
        .init(&root, "a".parse().unwrap())
        .unwrap()
        .close()
        .unwrap();
    let segment = root.join("log/0000000000000000.log");
    fs::write(&segment, vec![0; SEGMENT as usize]).unwrap();
    let error = options().open(&root).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.path().unwrap().ends_with("0000000000000000.log"));
}

/// The bytes of an empty block that says: everything before me, at `lsn`, is durable.
fn imitated(store: &Store, secret: u64, lsn: Lsn) -> Vec<u8> {
    let seal = Seal {
        kind: BlockKind::Log,
        close: false,
        owner: Owner {
            id: store.id(),
            secret,
        },
        epoch: store.epoch(),
        lsn,
        durable: lsn,
        nonce: 1,
        chain: Chain(1),
        aux: 0,
    };
    BlockBuilder::new().seal(&seal, 1).bytes
}

/// A torn commit whose payload looks like a block that calls it durable; opened again.
fn open_with_imitation(secret: impl Fn(&Path) -> u64) -> Result<Vec<Lsn>> {
    let dir = scratch();
    let root = dir.path().join("store");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let commit = |payload: Vec<u8>| {
        let mut transaction = Transaction::new();
        let event = Event::new("uploads/1", "uploaded", payload).unwrap();
        transaction.push(&event).unwrap();
        store.commit(transaction).unwrap().committed().unwrap().lsn
    };
    let (marked, len) = (vec![0xa5; 160], store.watermarks().durable);
    let first = commit(marked.clone());
    let block = store.watermarks().durable.since(len);
    let log = root.join("log/0000000000000000.log");
    let bytes = fs::read(&log).unwrap();
    let payload = bytes.windows(160).position(|window| window == marked).unwrap() as u64 + block;
    let at = payload.next_multiple_of(8);
    let mut imitation = vec![0; (at - payload) as usize];
    imitation.extend(imitated(&store, secret(&root), Lsn(at)));
    imitation.resize(160, 0);
    let second = commit(imitation);
    assert_eq!(second.since(first), block, "both transactions have one length");
    drop(store);
    let mut bytes = fs::read(&log).unwrap();
    bytes[(len.0 + block) as usize] ^= 1;
    fs::write(&log, bytes).unwrap();
    let store = options().open(&root)?;
    Ok(read(&store)?.frames.into_iter().map(|(lsn, _)| lsn).collect())
}

#[test]
fn a_payload_that_looks_like_a_block_is_no_witness() {
    assert_eq!(
        open_with_imitation(|_| 0).unwrap().len(),
        2,
        "the torn commit is cut and the store opens"
    );
    let error = open_with_imitation(|root| {
        let store = fs::read(root.join("store")).unwrap();
        u64::from_le_bytes(store[120..128].try_into().unwrap())
    })
    .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Corrupt,
        "with the secret it would be one"
    );
}
