//! Append: threads commit one transaction after another, each durable before the next. Limit: the same
//! bytes by pwrite into a zero-filled file, an fdatasync after every as many transactions as there are
//! threads, as if every sync served all of them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use milepost_engine::storage::{LocalStorage, OpenMode, Storage};
use milepost_engine::{Lsn, Options, Store};

use crate::Outcome;
use crate::report::{Measured, Report};
use crate::workload::{Workload, timed};

/// Measures durable commits of the workload by `threads` threads.
pub fn run(
    folder: &Path,
    workload: &Workload,
    threads: u64,
    rounds: usize,
    report: &mut Report,
) -> Outcome<()> {
    let dir = folder.join(format!("append-{threads}"));
    let store = Options::new().init(&dir, "bench".parse()?)?;
    let (mut milepost, mut limit, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let from = store.watermarks().durable;
        let (outcome, took) = timed(|| commit_all(&store, workload, threads));
        outcome?;
        milepost.push(took);
        let to = store.watermarks().durable;
        bytes = to.since(from);
        let written = log_bytes(&store, &dir, from, to)?;
        let transactions = workload.events.div_ceil(workload.batch);
        limit.push(write_all(
            &folder.join("limit"),
            &written,
            transactions.div_ceil(threads),
        )?);
    }
    report.note(format!(
        "append: {} events in transactions of {} by {threads} threads, {rounds} rounds, each commit synced",
        workload.events, workload.batch
    ));
    report.add(Measured {
        step: "append",
        threads,
        payload: workload.payload,
        events: workload.events,
        bytes,
        milepost,
        limit,
    });
    Ok(())
}

fn commit_all(store: &Store, workload: &Workload, threads: u64) -> Outcome<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || commit_some(store, workload, thread, threads)))
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(outcome) => outcome?,
                Err(_) => return Err("a thread panicked".into()),
            }
        }
        Ok(())
    })
}

/// Every `threads`th transaction.
fn commit_some(store: &Store, workload: &Workload, thread: u64, threads: u64) -> milepost_engine::Result<()> {
    let (mut at, mut bytes) = (thread * workload.batch, Vec::new());
    while at < workload.events {
        let (transaction, _) = workload.transaction(at, &mut bytes)?;
        store.commit(transaction)?.committed()?;
        at += threads * workload.batch;
    }
    Ok(())
}

/// What stands in the log from one position to another.
fn log_bytes(store: &Store, dir: &Path, from: Lsn, to: Lsn) -> Outcome<Vec<u8>> {
    let storage = LocalStorage::new(dir.to_path_buf());
    let mut bytes = Vec::new();
    let segments = store.segments()?;
    for (number, (first, _)) in segments.iter().enumerate() {
        let end = segments.get(number + 1).map_or(to, |(next, _)| *next).min(to);
        let start = from.max(*first);
        if start >= end {
            continue;
        }
        let mut piece = vec![0; usize::try_from(end.since(start))?];
        let file = storage.open(&format!("log/{:016x}.log", first.0), OpenMode::Read)?;
        let read = file.read_at(&mut piece, start.since(*first))?;
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    Ok(bytes)
}

/// Writes `bytes` in `syncs` equal pieces, each synced, into a zero-filled file; returns how long.
fn write_all(path: &Path, bytes: &[u8], syncs: u64) -> Outcome<std::time::Duration> {
    let mut zeros = File::create(path)?;
    zeros.write_all(&vec![0; bytes.len()])?;
    zeros.sync_all()?;
    let file = OpenOptions::new().write(true).open(path)?;
    let piece = bytes.len().div_ceil(usize::try_from(syncs)?.max(1)).max(1);
    let (outcome, took) = timed(|| -> std::io::Result<()> {
        let mut at = 0;
        for piece in bytes.chunks(piece) {
            file.write_all_at(piece, at)?;
            file.sync_data()?;
            at += u64::try_from(piece.len()).unwrap_or(0);
        }
        Ok(())
    });
    outcome?;
    Ok(took)
}
