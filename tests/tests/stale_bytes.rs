//! Blocks that are whole and of this very store, and yet no part of its log: what stands behind a sealed
//! segment's end, what names another chain, and what is missing though the queue has seen it (E2, E3).
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use milepost_engine::clock::Clock;
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::storage::Cell;
use milepost_engine::{ErrorKind, Lsn, Options, Phase, QueueEntry, Store, Transaction};

const FIRST: &str = "log/0000000000000000.log";

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

/// Commits one event; its LSN.
fn commit(store: &Store, payload: &str) -> Lsn {
    let mut transaction = Transaction::new();
    transaction
        .push_parts("stock", "noted", payload.as_bytes())
        .unwrap();
    store.commit(transaction).unwrap().committed().unwrap().lsn
}

fn payloads(store: &Store) -> Vec<String> {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO).unwrap(), Vec::new());
    while let Some(frame) = scan.next().unwrap() {
        for event in frame.events() {
            found.push(String::from_utf8(event.unwrap().payload.to_vec()).unwrap());
        }
    }
    found
}

/// The store's files as a power cut would leave them when the disk kept everything: no clean end.
fn copy(from: &Path, to: PathBuf) -> PathBuf {
    for folder in ["log", "queue"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(from.join(folder)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(from.join("store"), to.join("store")).unwrap();
    to
}

fn bytes_of(dir: &Path, from: Lsn, to: Lsn) -> Vec<u8> {
    std::fs::read(dir.join(FIRST)).unwrap()[from.0 as usize..to.0 as usize].to_vec()
}

fn put(dir: &Path, at: Lsn, bytes: &[u8]) {
    let mut file = std::fs::read(dir.join(FIRST)).unwrap();
    file[at.0 as usize..at.0 as usize + bytes.len()].copy_from_slice(bytes);
    std::fs::write(dir.join(FIRST), file).unwrap();
}

#[test]
fn a_block_behind_a_sealed_segments_end_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    commit(&store, "first");
    // Another life of the same log wrote here what a power cut then took back, or so it seemed.
    let tail = store.watermarks().appended;
    let other = copy(&root, dir.path().join("other"));
    let there = options().open(&other).unwrap();
    commit(&there, "old");
    let stale = bytes_of(&other, tail, there.watermarks().appended);
    assert!(store.rotate(0).unwrap());
    commit(&store, "second");
    commit(&store, "third");
    let here = copy(&root, dir.path().join("here"));
    put(&here, tail, &stale);
    let here = options().open(&here).unwrap();
    assert_eq!(payloads(&here), ["first", "second", "third"]);
    assert!(here.verify(&mut |_, _| ()).unwrap().damage.is_empty());
}

#[test]
fn a_block_of_another_chain_is_cut_though_its_place_fits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    commit(&store, "first");
    let other = copy(&root, dir.path().join("other"));
    let there = options().open(&other).unwrap();
    commit(&there, "2nd, there");
    let at = there.watermarks().appended;
    commit(&there, "3rd, there");
    commit(&store, "2nd, here!");
    assert_eq!(store.watermarks().appended, at, "both are of one length");
    let here = copy(&root, dir.path().join("here"));
    put(&here, at, &bytes_of(&other, at, there.watermarks().appended));
    let here = options().open(&here).unwrap();
    assert_eq!(payloads(&here), ["first", "2nd, here!"]);
}

#[test]
fn what_the_queue_has_scanned_was_durable_and_its_loss_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    commit(&store, "first");
    let tail = store.watermarks().appended;
    let last = commit(&store, "second");
    let end = store.watermarks().appended;
    let zeros = vec![0; (end.0 - tail.0) as usize];
    // Without the queue nothing knows of it: a block that never got to the disk.
    let unseen = copy(&root, dir.path().join("unseen"));
    put(&unseen, tail, &zeros);
    assert_eq!(payloads(&options().open(&unseen).unwrap()), ["first"]);
    let scan = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&scan).unwrap();
    let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![1; 100]);
    queue.append(vec![QueueEntry { lsn: last, frame }], last).unwrap();
    queue.sync().unwrap();
    let seen = copy(&root, dir.path().join("seen"));
    put(&seen, tail, &zeros);
    let error = options().open(&seen).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// Time that passes when somebody waits.
#[derive(Default)]
struct Waiting(std::sync::Mutex<Duration>);

impl Clock for Waiting {
    fn wall_micros(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, pause: Duration) {
        *self.0.lock().unwrap() += pause;
    }
}

#[test]
fn a_control_page_of_another_boot_is_not_joined() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    let page = root.join("control");
    let mut bytes = std::fs::read(&page).unwrap();
    let boot = Cell::Boot.offset();
    bytes[boot] ^= 1;
    // In place: the page is mapped.
    let file = std::fs::OpenOptions::new().write(true).open(&page).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[boot..=boot], boot as u64).unwrap();
    let clock = std::sync::Arc::new(Waiting::default());
    let error = options().clock(clock).open(&root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(store);
    options().open(&root).unwrap();
}
