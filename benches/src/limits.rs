//! What the machine can do at best with the bytes that a log holds: CRC-32 of them and nothing else, and
//! pwrite with fdatasync into a file that is zero-filled and synced before.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use milepost_engine::block::BlockHeader;
use milepost_engine::storage::{LocalStorage, OpenMode, Storage, Window};
use milepost_engine::width::{to_u64, u32_to_usize};
use milepost_engine::{Lsn, Store};

use crate::Outcome;
use crate::workload::timed;

/// A store's log up to its durable end, mapped and resident, a window for each segment.
///
/// # Errors
/// What opening and mapping the files say.
pub fn mapped_log(store: &Store) -> Outcome<Vec<Window>> {
    let storage = LocalStorage::new(store.root().to_path_buf());
    let end = store.watermarks().durable;
    let mut windows = Vec::new();
    let segments = store.segments()?;
    for (number, (first, len)) in segments.iter().enumerate() {
        let next = segments.get(number + 1).map_or(end, |(next, _)| *next);
        let file = storage.open(&segment_name(*first), OpenMode::ReadWrite)?;
        windows.push(file.map()?.window(0..next.since(*first).min(*len))?);
    }
    Ok(windows)
}

/// Name of the file of a segment, within the store.
pub fn segment_name(first: Lsn) -> String {
    format!("log/{:016x}.log", first.0)
}

/// Lengths of the blocks of each window, in order.
///
/// # Errors
/// When a window is not blocks from its first byte to its last.
pub fn block_lengths(windows: &[Window]) -> Outcome<Vec<Vec<usize>>> {
    let mut all = Vec::new();
    for window in windows {
        let (mut lengths, mut at) = (Vec::new(), 0);
        while let Some(rest) = window.get(at..).filter(|rest| !rest.is_empty()) {
            let len = u32_to_usize(header(rest)?.block_len);
            lengths.push(len);
            at += len;
        }
        all.push(lengths);
    }
    Ok(all)
}

/// The header at the start of `bytes`.
///
/// # Errors
/// Why it is none.
pub fn header(bytes: &[u8]) -> Outcome<BlockHeader> {
    Ok(BlockHeader::parse(bytes).map_err(|fault| fault.to_string())?)
}

/// CRC-32 of each block by itself. It is faster than in page-aligned pieces of the same size.
pub fn checksum_blocks(windows: &[Window], lengths: &[Vec<usize>]) -> Duration {
    let all = || {
        let mut sum = 0;
        for (window, lengths) in windows.iter().zip(lengths) {
            let mut rest: &[u8] = window;
            for len in lengths {
                let Some((block, behind)) = rest.split_at_checked(*len) else {
                    break;
                };
                sum ^= crc32fast::hash(block);
                rest = behind;
            }
        }
        sum
    };
    timed(|| black_box(all())).1
}

/// What stands in the log from one position to another.
///
/// # Errors
/// What opening and reading the files say.
pub fn log_bytes(store: &Store, from: Lsn, to: Lsn) -> Outcome<Vec<u8>> {
    let storage = LocalStorage::new(store.root().to_path_buf());
    let mut bytes = Vec::new();
    let segments = store.segments()?;
    for (number, (first, _)) in segments.iter().enumerate() {
        let end = segments.get(number + 1).map_or(to, |(next, _)| *next).min(to);
        let start = from.max(*first);
        if start >= end {
            continue;
        }
        let mut piece = vec![0; usize::try_from(end.since(start))?];
        let file = storage.open(&segment_name(*first), OpenMode::Read)?;
        let read = file.read_at(&mut piece, start.since(*first))?;
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    Ok(bytes)
}

/// A zero-filled, synced file that is written from its beginning.
pub struct RawFile {
    file: File,
    at: u64,
}

impl RawFile {
    /// A file of so many zeros.
    ///
    /// # Errors
    /// What making it says.
    pub fn zero_filled(path: &Path, len: usize) -> io::Result<RawFile> {
        let mut zeros = File::create(path)?;
        let piece = vec![0; 1 << 20];
        let mut left = len;
        while left > 0 {
            let step = piece.len().min(left);
            zeros.write_all(piece.get(..step).unwrap_or_default())?;
            left -= step;
        }
        zeros.sync_all()?;
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(RawFile { file, at: 0 })
    }

    /// Writes and syncs.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += to_u64(bytes.len());
        self.file.sync_data()
    }
}

/// Writes `bytes` in `syncs` equal pieces, each synced, into a zero-filled file; returns how long that took.
///
/// # Errors
/// What the system says.
pub fn write_all(path: &Path, bytes: &[u8], syncs: u64) -> Outcome<Duration> {
    let mut file = RawFile::zero_filled(path, bytes.len())?;
    let piece = bytes.len().div_ceil(usize::try_from(syncs)?.max(1)).max(1);
    let (outcome, took) = timed(|| bytes.chunks(piece).try_for_each(|piece| file.append(piece)));
    outcome?;
    Ok(took)
}
