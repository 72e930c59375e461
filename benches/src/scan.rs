//! Scan: every block verified, every event visited. Limit: CRC-32 of the same bytes, already in
//! memory, in pieces of 1 MiB, and nothing else.

use std::hint::black_box;
use std::path::Path;

use milepost_engine::storage::{LocalStorage, OpenMode, Storage, Window};
use milepost_engine::{Durability, Lsn, Options, Store};

use crate::Outcome;
use crate::report::{Measured, Report};
use crate::workload::{Workload, timed};

const PIECE: usize = 1 << 20;

/// Measures the scan of a log of the workload.
pub fn run(folder: &Path, workload: &Workload, rounds: usize, report: &mut Report) -> Outcome<()> {
    let dir = folder.join("scan");
    let store = Options::new().init(&dir, "bench".parse()?)?;
    fill(&store, workload)?;
    let bytes = store.watermarks().durable.0;
    let pieces = log_bytes(&store, &dir)?;
    let (mut milepost, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (seen, took) = timed(|| visit_all(&store));
        let seen = seen?;
        if seen != workload.events {
            return Err(format!("the scan saw {seen} of {} events", workload.events).into());
        }
        milepost.push(took);
        limit.push(timed(|| black_box(checksum(&pieces))).1);
    }
    report.note(format!(
        "scan: {} events in transactions of {}, {} MB of log, {rounds} rounds, page cache warm",
        workload.events,
        workload.batch,
        bytes / 1_000_000
    ));
    report.add(Measured {
        step: "scan",
        threads: 1,
        payload: workload.payload,
        events: workload.events,
        bytes,
        milepost,
        limit,
    });
    Ok(())
}

fn fill(store: &Store, workload: &Workload) -> Outcome<()> {
    let (mut at, mut bytes) = (0, Vec::new());
    while at < workload.events {
        let mut frames = Vec::new();
        while frames.len() < 256 && at < workload.events {
            let (transaction, count) = workload.transaction(at, &mut bytes)?;
            frames.push(transaction.into_parts().0);
            at += count;
        }
        store.append_frames(frames, Durability::Buffered)?;
    }
    store.sync()?;
    Ok(())
}

fn visit_all(store: &Store) -> Outcome<u64> {
    let (mut events, mut payloads) = (0, 0);
    let mut scan = store.scan(Lsn::ZERO)?;
    while let Some(frame) = scan.next()? {
        for event in frame.events() {
            let event = event?;
            events += 1;
            payloads += event.payload.len();
        }
    }
    black_box(payloads);
    Ok(events)
}

/// The log's bytes up to its durable end, mapped and resident.
fn log_bytes(store: &Store, dir: &Path) -> Outcome<Vec<Window>> {
    let storage = LocalStorage::new(dir.to_path_buf());
    let end = store.watermarks().durable;
    let mut pieces = Vec::new();
    let segments = store.segments()?;
    for (number, (first, len)) in segments.iter().enumerate() {
        let next = segments.get(number + 1).map_or(end, |(next, _)| *next);
        let file = storage.open(&format!("log/{:016x}.log", first.0), OpenMode::ReadWrite)?;
        pieces.push(file.map()?.window(0..next.since(*first).min(*len))?);
    }
    Ok(pieces)
}

fn checksum(pieces: &[Window]) -> u32 {
    let sums = pieces
        .iter()
        .flat_map(|window| window.chunks(PIECE))
        .map(crc32fast::hash);
    sums.fold(0, std::ops::BitXor::bitxor)
}
