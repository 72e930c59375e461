//! A closed store of two segments with a queue, always the same bytes, and ways to break its files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arbitrary::Arbitrary;
use milepost_engine::clock::{Clock, Rng, SystemClock};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Durability, Event, Lsn, Options, Phase, Pinned, QueueEntry, Store, Transaction};
use milepost_replication::server::{EmbeddedStore, MailboxLimits};
use tempfile::TempDir;

use crate::mend;

/// Length of a segment: the shortest there is.
pub const SEGMENT: u64 = 1 << 20;

/// Numbers that follow from how many were drawn before.
#[derive(Default)]
struct Counting(AtomicU64);

impl Rng for Counting {
    fn next_u64(&self) -> u64 {
        self.0
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A clock that moves when it is asked to wait.
#[derive(Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn wall_micros(&self) -> i64 {
        1_700_000_000_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, pause: Duration) {
        self.0.fetch_add(pause.as_micros() as u64 + 1, Ordering::Relaxed);
    }
}

/// Options under which a run depends on nothing but its input.
pub fn options() -> Options {
    let (clock, rng) = (Arc::new(Still::default()), Arc::new(Counting::default()));
    Options::new()
        .segment_bytes(SEGMENT)
        .background(false)
        .clock(clock)
        .rng(rng)
}

/// The files of the store, by name below its directory, without the zeros at their ends.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A directory in memory where there is one: no run needs a disk.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

/// Makes the store and reads its files.
pub fn closed_store() -> Files {
    let dir = scratch();
    let root = dir.path().join("store");
    let store = options().init(&root, "fuzz".parse().unwrap()).unwrap();
    for n in 0..6u32 {
        let mut transaction = Transaction::new();
        for stream in ["a", "b/c"] {
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
        let _ = store.commit(transaction).unwrap();
        let _ = store.append_marker().unwrap();
        if n == 2 {
            store.rotate(0).unwrap();
        }
    }
    let opaque = NewFrame::of_kind(FrameKind(200), b"of a later program".to_vec());
    store.append_frames(vec![opaque], Durability::Synced).unwrap();
    queued(&store);
    store.close().unwrap();
    let mut files = Files::new();
    read(&root, &root, &mut files, true);
    // Derived or worth nothing when nobody is in.
    files.retain(|name, _| name != "control" && !name.ends_with(".idx"));
    files
}

/// Two blocks of the queue, over the first half of the log.
fn queued(store: &Store) {
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut lsns = Vec::new();
    while let Some(frame) = scan.next().unwrap() {
        lsns.push(frame.lsn());
    }
    for lsn in lsns.into_iter().take(6).skip(4) {
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), b"entry".to_vec());
        queue.append(vec![QueueEntry { lsn, frame }], lsn).unwrap();
    }
    queue.sync().unwrap();
}

/// Makes a message store that nothing was put into, and reads its files.
pub fn message_store() -> Files {
    let dir = scratch();
    let root = dir.path().join("messages");
    let options = options().clock(Arc::new(SystemClock));
    drop(EmbeddedStore::open_or_init(&root, options, MailboxLimits::default()).unwrap());
    let mut files = Files::new();
    read(&root, &root, &mut files, true);
    files.retain(|name, _| name != "control");
    files
}

/// Reads all files below a folder, with the zeros at their ends or without.
pub fn read(root: &Path, folder: &Path, files: &mut Files, trimmed: bool) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, files, trimmed);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if trimmed {
            bytes.truncate(used);
        }
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        files.insert(name, bytes);
    }
}

/// One thing that is done to a file.
#[derive(Arbitrary, Debug)]
pub enum Break<'a> {
    /// Bytes are replaced.
    Write { file: u8, at: u16, bytes: &'a [u8] },
    /// One bit is flipped.
    Flip { file: u8, bit: u16 },
    /// The end is lost.
    Cut { file: u8, len: u16 },
    /// The file is gone.
    Remove { file: u8 },
    /// The file lies under another LSN.
    Move { file: u8, lsn: u64 },
    /// A stretch of a file is copied over another.
    Copy {
        from: u8,
        to: u8,
        start: u16,
        len: u16,
        at: u16,
    },
    /// Whoever wrote this knew checksums.
    Mend { file: u8 },
}

/// Applies the breaks in order.
pub fn broken(files: &mut Files, breaks: &[Break<'_>]) {
    for change in breaks {
        apply(files, change);
    }
}

fn nth(files: &Files, number: u8) -> Option<String> {
    let number = usize::from(number).checked_rem(files.len())?;
    files.keys().nth(number).cloned()
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.resize(bytes.len().max(at + new.len()), 0);
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn apply(files: &mut Files, change: &Break<'_>) -> Option<()> {
    match *change {
        Break::Write { file, at, bytes } => {
            put(files.get_mut(&nth(files, file)?)?, usize::from(at), bytes);
        }
        Break::Flip { file, bit } => {
            let file = files.get_mut(&nth(files, file)?)?;
            *file.get_mut(usize::from(bit / 8))? ^= 1 << (bit % 8);
        }
        Break::Cut { file, len } => files.get_mut(&nth(files, file)?)?.truncate(usize::from(len)),
        Break::Remove { file } => drop(files.remove(&nth(files, file)?)),
        Break::Move { file, lsn } => {
            let name = nth(files, file)?;
            let (folder, old) = name.split_once('/')?;
            let (_, suffix) = old.split_once('.').unwrap_or((old, ""));
            let digits = old.len() - suffix.len() - usize::from(!suffix.is_empty());
            let dot = if suffix.is_empty() { "" } else { "." };
            let moved = format!("{folder}/{lsn:0digits$}{dot}{suffix}");
            let bytes = files.remove(&name)?;
            files.insert(moved, bytes);
        }
        Break::Copy {
            from,
            to,
            start,
            len,
            at,
        } => {
            let start = usize::from(start);
            let piece = files
                .get(&nth(files, from)?)?
                .get(start..start + usize::from(len))?
                .to_vec();
            put(files.get_mut(&nth(files, to)?)?, usize::from(at), &piece);
        }
        Break::Mend { file } => {
            let name = nth(files, file)?;
            if name.contains('/') {
                mend::segment(files.get_mut(&name)?);
            }
        }
    }
    Some(())
}

/// Writes the files as a store; segments get their zeros back unless they were cut.
pub fn write(root: &Path, files: &Files, full: bool) {
    for (name, bytes) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        if name.contains('/') && full {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(SEGMENT.max(bytes.len() as u64)).unwrap();
        }
    }
    for folder in ["log", "queue"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
}
