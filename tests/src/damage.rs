//! Damage by the disk below what was durable: a small store on a simulated disk, what it answers, and a sector
//! that reads as something else.
//!
//! ```text
//! rot         bits of a sector flip
//! lost write  a sector reads as it was before its last write
//! misdirected a write landed elsewhere: one sector is as before, another holds the strayed bytes
//! misread     a sector reads as another one of the same or another file
//! ```
//!
//! What a damaged store may do is decided here ([`Verdict`]): tell it, or answer as before. Everything else is
//! silent, and a failed test.

use std::sync::Arc;

use milepost_engine::storage::OpenMode;
use milepost_engine::{
    ErrorKind, Event, Lsn, Options, Pinned, RecordedEvent, Store, StreamVersion, Transaction, Verified,
};

use crate::SimRng;
use crate::disk::{SimDisk, SimProcess};

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Streams of the store.
pub const STREAMS: [&str; 3] = ["orders/1", "orders/2", "stock"];
/// Bytes of a segment.
pub const SEGMENT: u64 = 1 << 20;

/// All that a store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Every frame of the log, byte for byte.
    pub frames: Vec<(Lsn, Vec<u8>)>,
    /// Every event of every stream.
    pub streams: Vec<Vec<RecordedEvent>>,
    /// Pinned records.
    pub pinned: Vec<(Vec<u8>, Vec<u8>, Lsn)>,
}

/// What a damaged store did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The open refused: `Corrupt`, or `Invalid` for what looks like a newer version.
    RefusedAtOpen,
    /// It opened; verify names the damage, and whoever reads the place is told.
    ToldByReaders,
    /// It answers as before, byte for byte, and takes a commit.
    Harmless,
}

/// Options of every store here.
pub fn options(process: &SimProcess, rng: &SimRng) -> Options {
    Options::new()
        .segment_bytes(SEGMENT)
        .background(false)
        .clock(process.clock())
        .rng(Arc::new(rng.fork()))
}

/// Commits one transaction over one to three streams, `len` bytes each.
///
/// # Panics
/// When the store does not take it.
pub fn commit(store: &Store, number: u32, len: usize) {
    let mut transaction = Transaction::new();
    for stream in &STREAMS[..1 + number as usize % 3] {
        let mut payload = number.to_le_bytes().to_vec();
        payload.extend((0..len).map(|at| (at as u32 ^ number) as u8));
        transaction
            .push(&Event::new(stream, "noted", payload).unwrap())
            .unwrap();
    }
    transaction.pin(Pinned {
        key: b"last".to_vec(),
        value: Some(number.to_le_bytes().to_vec()),
    });
    let _ = store.commit(transaction).unwrap().committed().unwrap();
}

/// Reads everything.
///
/// # Errors
/// What the store tells.
pub fn read(store: &Store) -> milepost_engine::Result<Answers> {
    let mut scan = store.scan(Lsn::ZERO)?;
    let mut frames = Vec::new();
    while let Some(frame) = scan.next()? {
        frames.push((frame.lsn(), frame.bytes().to_vec()));
    }
    let stream = |stream| {
        store
            .read_stream(stream, StreamVersion(0))?
            .collect::<milepost_engine::Result<Vec<_>>>()
    };
    Ok(Answers {
        frames,
        streams: STREAMS
            .into_iter()
            .map(stream)
            .collect::<milepost_engine::Result<_>>()?,
        pinned: store.pinned_with_prefix(b"last")?,
    })
}

fn is_told(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Invalid)
}

/// Opens a damaged machine and looks at everything.
///
/// # Errors
/// Silence, in words: other answers than before, an error of another kind, damage that verify or the scan
/// does not see.
pub fn judge(disk: &SimDisk, rng: &SimRng, before: &Answers) -> Result<Verdict, String> {
    let process = disk.start();
    let store = match options(&process, rng).open_in(process.storage()) {
        Ok(store) => store,
        Err(error) if is_told(error.kind()) => return Ok(Verdict::RefusedAtOpen),
        Err(error) => return Err(format!("open says {error:?}")),
    };
    let verified: Verified = store
        .verify(&mut |_, _| ())
        .map_err(|error| format!("verify says {error:?}"))?;
    let told = !verified.damage.is_empty();
    match read(&store) {
        Ok(answers) if answers == *before && !told => {}
        Ok(answers) if answers == *before => return Err(format!("only verify sees {:?}", verified.damage)),
        Ok(_) => return Err("other answers than before, and nobody says so".to_owned()),
        Err(error) if is_told(error.kind()) && told => return Ok(Verdict::ToldByReaders),
        Err(error) => {
            return Err(format!(
                "reading says {error:?}, verify says {:?}",
                verified.damage
            ));
        }
    }
    commit(&store, 77, 10);
    let after = read(&store).map_err(|error| format!("after a commit: {error:?}"))?;
    if after.frames.len() != before.frames.len() + 1 || !after.frames.starts_with(&before.frames) {
        return Err("a commit afterwards changed what was there".to_owned());
    }
    Ok(Verdict::Harmless)
}

/// The bytes of a file, read by a process of its own.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    let process = disk.start();
    let file = process.storage().open(name, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    process.kill();
    bytes
}

/// Names of all files that hold the store.
///
/// # Panics
/// When the machine has no store.
#[must_use]
pub fn files(disk: &SimDisk) -> Vec<String> {
    let process = disk.start();
    let storage = process.storage();
    let mut names = vec!["store".to_owned()];
    for folder in ["log", "queue"] {
        let mut inside = storage.list(folder).unwrap();
        inside.sort();
        names.extend(inside.into_iter().map(|name| format!("{folder}/{name}")));
    }
    process.kill();
    names
}

/// A copy of a machine on which a file reads as something else from `offset` on, cache and disk alike.
///
/// # Panics
/// When the file is not there.
#[must_use]
pub fn with(disk: &SimDisk, name: &str, offset: usize, bytes: &[u8]) -> SimDisk {
    let damaged = disk.snapshot();
    let process = damaged.start();
    let file = process.storage().open(name, OpenMode::ReadWrite).unwrap();
    assert_eq!(file.write_at(&[bytes], offset as u64).unwrap(), bytes.len());
    file.sync_data().unwrap();
    process.kill();
    damaged
}

/// A copy of a machine on which a file is cut to `len` bytes.
///
/// # Panics
/// When the file is not there.
#[must_use]
pub fn cut(disk: &SimDisk, name: &str, len: u64) -> SimDisk {
    let damaged = disk.snapshot();
    let process = damaged.start();
    let file = process.storage().open(name, OpenMode::ReadWrite).unwrap();
    file.set_len(len).unwrap();
    file.sync_data().unwrap();
    process.kill();
    damaged
}
