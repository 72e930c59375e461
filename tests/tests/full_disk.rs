//! A file system of 16 MiB that fills up, on a real ext4: whatever write finds no space, the error is `Full`,
//! nothing is lost, and once there is space again everything goes on without reopening (E1, E2, E5, Q1).
//!
//! How much is free is what a file beside the store leaves, step by step of a block; so each step runs out of
//! space at another write of the same story. The everyday run leaves steps out, `MILEPOST_EVERY_BLOCK=1` does not.
//! Needs root and loop devices, else it is SKIPPED aloud.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    Durability, Error, ErrorKind, Lsn, Options, Phase, QueueEntry, QueueWriter, Store, StreamVersion,
    Transaction, TransactionId,
};
use milepost_tests::processes::Worker;
use milepost_tests::processes::worker::numbered;
use milepost_tests::volume::{FsKind, Volume};

const VOLUME_BYTES: u64 = 16 << 20;
const BLOCK: u64 = 4096;
/// Blocks that the whole story takes, and some more: beyond this nothing fails.
const MOST_BLOCKS: u64 = 1200;
/// The everyday run tries each of the first steps, where the small files are, and then one of so many.
const FIRST_STEPS: u64 = 24;
const STRIDE: u64 = 37;
/// Of a segment of 1 MiB.
const MORE_THAN_HALF: usize = 600_000;

/// What must have found no space in some step.
const WITHOUT_SPACE: [&str; 7] = [
    "a commit",
    "a spare",
    "a roll",
    "a sidecar",
    "an entry",
    "another process",
    "opening alone",
];

/// Takes up what is free.
struct Ballast(PathBuf);

impl Ballast {
    /// Leaves `free` blocks free, durably: space that is given back counts after the journal's commit alone.
    fn leaving(volume: &Volume, free: u64) -> Ballast {
        let path = volume.path().join("ballast");
        let file = File::create(&path).unwrap();
        rustix::fs::syncfs(&file).unwrap();
        let (mut len, mut piece) = (0, vec![1; 1 << 20]);
        while piece.len() as u64 >= BLOCK {
            match file.write_at(&piece, len) {
                Ok(written) => len += written as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    piece.truncate(piece.len() / 2)
                }
                Err(error) => panic!("{error}"),
            }
        }
        file.set_len(len.saturating_sub(free * BLOCK)).unwrap();
        rustix::fs::syncfs(&file).unwrap();
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

/// What was acknowledged, by the number in each event's payload, and which numbers were refused.
#[derive(Default)]
struct Told {
    numbers: u64,
    acknowledged: BTreeMap<u64, Lsn>,
    refused: Vec<u64>,
    /// Failed and may be there, with the id to ask by and where to look.
    open: Vec<(u64, TransactionId, Lsn)>,
    /// Operations that found no space, by what they were.
    full: BTreeMap<&'static str, u64>,
}

impl Told {
    fn no_space(&mut self, what: &'static str) {
        *self.full.entry(what).or_default() += 1;
    }

    /// How many operations found no space.
    fn fulls(&self) -> u64 {
        self.full.values().sum()
    }

    /// An outcome: what failed, failed for want of space.
    fn hear<T>(&mut self, what: &'static str, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{what}: {error}");
                self.no_space(what);
                None
            }
        }
    }

    /// Commits an event of `len` bytes.
    fn commit(&mut self, store: &Store, len: usize, durability: Durability) {
        self.numbers += 1;
        let number = self.numbers;
        let mut transaction = Transaction::new();
        transaction.push(&numbered(number, len)).unwrap();
        let outcome = store
            .commit_with(transaction, durability)
            .and_then(|outcome| outcome.committed());
        match outcome {
            Ok(committed) => drop(self.acknowledged.insert(number, committed.lsn)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "a commit of {len} bytes: {error}");
                self.no_space("a commit");
                match error.written() {
                    None => self.refused.push(number),
                    Some(lsn) => self.open.push((number, error.transaction().unwrap(), lsn)),
                }
            }
        }
    }

    /// The log holds what was acknowledged, once and where, and nothing that was refused; the index agrees.
    fn judge(&mut self, store: &Store) {
        for (number, id, lsn) in std::mem::take(&mut self.open) {
            if store.is_committed(id, lsn).unwrap() {
                self.acknowledged.insert(number, lsn);
            } else {
                self.refused.push(number);
            }
        }
        let mut found = BTreeMap::new();
        let mut events = 0;
        let mut scan = store.scan(Lsn::ZERO).unwrap();
        while let Some(frame) = scan.next().unwrap() {
            for event in frame.events() {
                let payload = event.unwrap().to_event().unwrap().payload;
                let number = u64::from_le_bytes(*payload.first_chunk().unwrap());
                assert!(
                    payload[8..].iter().all(|byte| *byte == number as u8),
                    "{number} is torn"
                );
                assert_eq!(
                    found.insert(number, frame.lsn()),
                    None,
                    "E1: {number} is there twice"
                );
                events += 1;
            }
        }
        for number in &self.refused {
            assert!(!found.contains_key(number), "{number} was refused and is there");
        }
        assert_eq!(found, self.acknowledged, "E1");
        let read: usize = (0..3)
            .map(|stream| {
                let events = store.read_stream(&format!("stream-{stream}"), StreamVersion(0));
                events.unwrap().map(Result::unwrap).count()
            })
            .sum();
        assert_eq!(read, events, "the index agrees with the log");
        let verified = store.verify(&mut |_, _| {}).unwrap();
        assert!(verified.damage.is_empty(), "{:?}", verified.damage);
        assert!(verified.queue_damage.is_empty(), "{:?}", verified.queue_damage);
    }
}

/// Queues what the scan position has not passed yet: an entry for each transaction.
fn enqueue(store: &Store, writer: &mut QueueWriter) -> Result<(), Error> {
    let mut scan = store.scan(writer.scanned_through())?;
    while let Some(frame) = scan.next()? {
        let lsn = frame.lsn();
        let body = vec![7; 40 << 10];
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), body);
        let entries = vec![QueueEntry { lsn, frame }];
        writer.append(entries, lsn)?;
    }
    writer.sync()
}

fn entries(store: &Store) -> usize {
    let mut reader = store.queue_reader(Lsn::ZERO).unwrap();
    let mut count = 0;
    while reader.next().unwrap().is_some() {
        count += 1;
    }
    count
}

fn frames(store: &Store) -> usize {
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut count = 0;
    while scan.next().unwrap().is_some() {
        count += 1;
    }
    count
}

/// What a store does while space runs out: commits, spare, roll, sidecar, marker, queue, a commit that is buffered.
fn live(store: &Store, told: &mut Told, writer: &mut Option<QueueWriter>) {
    told.commit(store, 100, Durability::Synced);
    let tended = store.tend();
    told.hear("a spare", tended);
    for _ in 0..2 {
        told.commit(store, 300_000, Durability::Synced);
    }
    told.commit(store, 100, Durability::Buffered);
    let synced = store.sync();
    told.hear("a sync", synced);
    let rolled = store.rotate(0);
    told.hear("a roll", rolled);
    let marked = store.append_marker();
    told.hear("a marker", marked);
    let tended = store.tend();
    told.hear("a sidecar", tended);
    if writer.is_none() {
        let opened = store
            .lock_phase(Phase::Scan)
            .and_then(|lock| store.queue_writer(&lock));
        *writer = told.hear("the queue", opened);
    }
    if let Some(writer) = writer {
        let queued = enqueue(store, writer);
        told.hear("an entry", queued);
    }
}

/// Another process opens the store and commits once, which may need a roll.
fn visit(store: &Path, told: &mut Told) {
    told.numbers += 1;
    let number = told.numbers;
    let program = Path::new(env!("CARGO_BIN_EXE_store_worker"));
    let worker = Worker::start(
        program,
        &["once", store.to_str().unwrap(), &number.to_string(), "300000"],
    );
    let line = worker.next_line().expect("a visitor says how it went");
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["ack", lsn] => drop(told.acknowledged.insert(number, Lsn(lsn.parse().unwrap()))),
        ["fail", "Full", "absent", ..] => {
            told.refused.push(number);
            told.no_space("another process");
        }
        ["fail", "Full", "maybe", lsn, writer, seq, ..] => {
            let (writer, seq) = (writer.parse().unwrap(), seq.parse().unwrap());
            let lsn = Lsn(lsn.parse().unwrap());
            told.open.push((number, TransactionId { writer, seq }, lsn));
            told.no_space("another process");
        }
        _ => panic!("a visitor says: {line}"),
    }
}

/// One step: everything meets a disk with `free` blocks free; returns what found no space.
fn step(volume: &Volume, first: &[usize], free: u64) -> BTreeMap<&'static str, u64> {
    let path = volume.path().join("store");
    let store = options().init(&path, "bern".parse().unwrap()).unwrap();
    let mut told = Told::default();
    for bytes in first {
        told.commit(&store, *bytes, Durability::Synced);
    }
    assert_eq!(told.fulls(), 0);
    let mut writer = None;

    let ballast = Ballast::leaving(volume, free);
    live(&store, &mut told, &mut writer);
    visit(&path, &mut told);
    drop(ballast);

    // The same handles go on.
    let before = told.fulls();
    live(&store, &mut told, &mut writer);
    visit(&path, &mut told);
    assert_eq!(told.fulls(), before, "with space nothing fails");
    enqueue(&store, writer.as_mut().unwrap()).unwrap();
    told.judge(&store);
    assert_eq!(entries(&store), frames(&store), "Q1: an entry for each frame");
    drop((writer, store));

    // Alone, with as little space, and the control page is to be made: opened, or refused for want of space and
    // opened with it.
    fs::remove_file(path.join("control")).unwrap();
    let ballast = Ballast::leaving(volume, free);
    let opened = options().open(&path);
    let opened = told.hear("opening alone", opened);
    if let Some(store) = opened {
        told.judge(&store);
    }
    drop(ballast);
    let store = options().open(&path).unwrap();
    told.commit(&store, 100, Durability::Synced);
    told.judge(&store);
    drop(store);
    fs::remove_dir_all(&path).unwrap();
    told.full
}

fn volume(kind: FsKind, what: &str) -> Option<Volume> {
    match Volume::make(kind, VOLUME_BYTES) {
        Ok(volume) => Some(volume),
        Err(missing) => {
            missing.say(what);
            None
        }
    }
}

#[test]
fn whatever_write_finds_no_space_says_so_and_everything_goes_on_when_there_is_some() {
    // A spare for large blocks is space that is reserved.
    take_steps(FsKind::Ext4, &[MORE_THAN_HALF]);
}

#[test]
fn where_no_space_can_be_reserved_any_write_may_find_none_and_everything_goes_on_all_the_same() {
    // One for small blocks is written full of zeros, and so finds none either.
    take_steps(FsKind::Ext4WithoutExtents, &[MORE_THAN_HALF / 20; 20]);
}

/// `first` fills more than half of a segment, so that a spare is wanted.
fn take_steps(kind: FsKind, first: &[usize]) {
    let Some(volume) = volume(kind, "a full disk") else {
        return;
    };
    let every = std::env::var_os("MILEPOST_EVERY_BLOCK").is_some();
    let (mut steps, mut full) = (0, BTreeMap::new());
    for free in (0..MOST_BLOCKS).filter(|free| every || *free < FIRST_STEPS || free % STRIDE == 0) {
        for (what, count) in step(&volume, first, free) {
            *full.entry(what).or_insert(0) += count;
        }
        steps += 1;
    }
    println!("{kind:?}: {steps} steps; no space for {full:?}");
    for what in WITHOUT_SPACE {
        assert!(full.contains_key(what), "{what} always found space");
    }
    assert_eq!(
        step(&volume, first, MOST_BLOCKS),
        BTreeMap::new(),
        "the last step has space for all"
    );
}

#[test]
fn a_store_that_finds_no_space_to_be_made_is_made_in_the_same_place_when_there_is() {
    let Some(volume) = volume(FsKind::Ext4, "making a store on a full disk") else {
        return;
    };
    let every = std::env::var_os("MILEPOST_EVERY_BLOCK").is_some();
    let path = volume.path().join("store");
    let mut full = 0;
    for free in (0..300).filter(|free| every || *free < 12 || free % 16 == 0) {
        let ballast = Ballast::leaving(&volume, free);
        let made = options().init(&path, "bern".parse().unwrap());
        let store = match made {
            Ok(store) => store,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{free} blocks: {error}");
                full += 1;
                drop(ballast);
                // Made, and then not opened, or not made: either way there is one way on. The file system may give
                // the space back a moment later.
                let open = || options().open_or_init(&path, "bern".parse().unwrap());
                let mut opened = open();
                for _ in 0..100 {
                    if !matches!(&opened, Err(error) if error.kind() == ErrorKind::Full) {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    opened = open();
                }
                opened.unwrap()
            }
        };
        let mut told = Told::default();
        told.commit(&store, 100, Durability::Synced);
        told.judge(&store);
        drop(store);
        fs::remove_dir_all(&path).unwrap();
    }
    println!("{full} stores found no space to be made in");
    assert!(full > 0);
}

#[test]
fn a_store_with_its_own_thread_goes_on_by_itself() {
    let Some(volume) = volume(FsKind::Ext4, "a full disk under a store's own thread") else {
        return;
    };
    let path = volume.path().join("store");
    let store = Options::new()
        .segment_bytes(1 << 20)
        .init(&path, "bern".parse().unwrap())
        .unwrap();
    let mut told = Told::default();
    for free in [0, 3, 260] {
        let ballast = Ballast::leaving(&volume, free);
        let before = told.fulls();
        for _ in 0..400 {
            told.commit(&store, 20_000, Durability::Buffered);
            if told.fulls() > before {
                break;
            }
        }
        assert!(told.fulls() > before, "{free} blocks are not enough for 8 MB");
        drop(ballast);
        let before = told.fulls();
        told.commit(&store, 20_000, Durability::Synced);
        assert_eq!(told.fulls(), before, "with space it goes on");
        told.judge(&store);
    }
}
