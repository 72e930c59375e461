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

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    ErrorKind, Event, Lsn, Options, Phase, Pinned, QueueEntry, RecordedEvent, Result, Store, StreamVersion,
    Transaction,
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
        if name == "store" || (name.starts_with("log/") && !name.ends_with(".idx")) {
            assert!(
                refused > tried / 2,
                "{name}: only {refused} of {tried} damages were told"
            );
        } else {
            assert_eq!(
                refused, 0,
                "{name} is derived or for people: {tried} damages, each made good"
            );
        }
    }
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
            let refused = refused_or_prefix(&changed, &expected, name, len);
            assert!(refused || name != Path::new("store"), "half a name tag is none");
        }
    }
}

/// As [`refused`], but the last segment may have lost what nothing left in it says was durable.
fn refused_or_prefix(files: &Files, expected: &Answers, name: &Path, len: usize) -> bool {
    let segments = files
        .keys()
        .filter(|file| file.starts_with("log") && !file.to_str().unwrap().ends_with(".idx"));
    let what = format!("{} cut to {len} bytes", name.display());
    if segments.max().is_none_or(|last| last != name) {
        return refused(files, expected, &what);
    }
    let dir = scratch();
    write(dir.path(), files);
    match options().open(dir.path()).and_then(|store| read(&store)) {
        Ok(answers) => assert!(
            expected.frames.starts_with(&answers.frames),
            "{what}: frames were invented"
        ),
        Err(error) => told(&error, &what),
    }
    true
}
