//! Workers that follow the log: one tells what it has seen, one moves it into the stable queue.

use std::time::Duration;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{ErrorKind, Lsn, Options, Phase, QueueEntry};

use super::shape::Tag;
use super::worker::{Digest, say};

/// How long the end of the log is waited at.
const PAUSE: Duration = Duration::from_millis(5);
/// Frames of the log that go into the queue in one block, at most.
const BATCH: usize = 20;
/// Batches between two syncs of the queue.
const SYNC_EVERY: u64 = 5;

/// Says how much of the log it has seen, each time it is at the end. What was seen is durable (E2).
pub(super) fn watch(dir: &str) {
    let store = Options::new().open(dir).unwrap();
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut digest = Digest::default();
    loop {
        let before = digest;
        while let Some(frame) = scan.next().unwrap() {
            if let Some(tag) = Tag::of(&frame) {
                digest.add(tag, frame.lsn());
            }
        }
        if digest != before {
            say(&format!("seen {} {:016x}", digest.count, digest.hash));
        }
        scan.wait(PAUSE).unwrap();
    }
}

/// The scan phase: an entry for each transaction of a worker, in the order of the log (Q1).
pub(super) fn enqueue(dir: &str) {
    let store = Options::new().open(dir).unwrap();
    let lock = loop {
        match store.lock_phase(Phase::Scan) {
            Ok(lock) => break lock,
            Err(error) if error.kind() == ErrorKind::Conflict => std::thread::sleep(PAUSE),
            Err(error) => panic!("{error}"),
        }
    };
    let mut writer = store.queue_writer(&lock).unwrap();
    let mut scan = store.scan(writer.scanned_through()).unwrap();
    let mut batches = 0;
    loop {
        let (mut entries, mut through) = (Vec::new(), writer.scanned_through());
        while entries.len() < BATCH
            && let Some(frame) = scan.next().unwrap()
        {
            through = frame.lsn();
            if let Some(tag) = Tag::of(&frame) {
                entries.push(entry_of(tag, frame.lsn()));
            }
        }
        if through > writer.scanned_through() {
            writer.append(entries, through).unwrap();
            batches += 1;
        }
        if batches % SYNC_EVERY == 0 {
            writer.sync().unwrap();
        }
        if through == scan.reached() || through == writer.scanned_through() {
            scan.wait(PAUSE).unwrap();
        }
    }
}

/// What the queue holds of a transaction: its tag and its place in the log.
fn entry_of(tag: Tag, lsn: Lsn) -> QueueEntry {
    let mut body = tag.0.to_le_bytes().to_vec();
    body.extend(lsn.0.to_le_bytes());
    QueueEntry {
        lsn,
        frame: NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), body),
    }
}

/// Tag and place of an entry that `enqueue` made.
#[must_use]
pub fn parse_entry(body: &[u8]) -> Option<(Tag, Lsn)> {
    let (tag, rest) = body.split_first_chunk()?;
    let lsn = rest.first_chunk()?;
    Some((Tag(u64::from_le_bytes(*tag)), Lsn(u64::from_le_bytes(*lsn))))
}
