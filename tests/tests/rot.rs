//! A disk that lies below what was durable: bits that rot, writes that were lost or landed elsewhere, sectors
//! that read as others. Recovery, scan, stream reads or verify tell it, or nothing is different; nothing of it
//! is ever served (E3). Every sector of every file is tried.
//!
//! What no recovery can tell is tested as such: when the disk is as it was at an earlier moment from some
//! point of the log to its end, all witnesses included, the store is the older store, whole.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::as_conversions,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Lsn, Phase, QueueEntry, Store};
use milepost_tests::SimRng;
use milepost_tests::damage::{Answers, SECTOR, Verdict, commit, content, files, judge, options, read, with};
use milepost_tests::disk::{SimDisk, SimProcess};

/// A closed store and the machine as it was at earlier moments.
struct Victim {
    disk: SimDisk,
    answers: Answers,
    /// After each commit, oldest first.
    earlier: Vec<SimDisk>,
}

fn enqueue(store: &Store, lsns: &[Lsn]) {
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    for lsn in lsns {
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), b"entry".to_vec());
        queue.append(vec![QueueEntry { lsn: *lsn, frame }], *lsn).unwrap();
    }
    queue.sync().unwrap();
}

/// Two sealed segments with sidecars, an active one, a queue that has seen the first two; closed.
fn victim() -> Victim {
    let (disk, rng) = (SimDisk::new(1), SimRng::new(1));
    let process = disk.start();
    let store = options(&process, &rng)
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    let mut earlier = Vec::new();
    for number in 0..12 {
        commit(&store, number, 150 * number as usize);
        earlier.push(disk.snapshot());
        if number == 3 || number == 7 {
            assert!(store.rotate(0).unwrap());
            store.tend().unwrap();
        }
    }
    let answers = read(&store).unwrap();
    let lsns: Vec<Lsn> = answers.frames.iter().map(|(lsn, _)| *lsn).collect();
    enqueue(&store, &lsns[..3]);
    store.close().unwrap();
    process.kill();
    Victim {
        disk,
        answers,
        earlier,
    }
}

/// The active segment.
fn newest(victim: &Victim) -> String {
    let mut segments = files(&victim.disk);
    segments.retain(|name| name.ends_with(".log"));
    segments.pop().unwrap()
}

type Counts = BTreeMap<Verdict, u64>;

impl Victim {
    fn judge(&self, damaged: &SimDisk, counts: &mut Counts, what: &str) {
        let verdict = judge(damaged, &SimRng::new(5), &self.answers);
        *counts
            .entry(verdict.unwrap_or_else(|text| panic!("{what}: {text}")))
            .or_default() += 1;
    }
}

/// Offsets of a file's sectors that hold anything, and of one behind them.
fn sectors(bytes: &[u8]) -> Vec<usize> {
    let full = bytes
        .chunks(SECTOR)
        .rposition(|sector| sector.iter().any(|byte| *byte != 0));
    let count = full.map_or(1, |last| last + 2).min(bytes.len().div_ceil(SECTOR));
    (0..count).map(|number| number * SECTOR).collect()
}

fn sector(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at.min(bytes.len())..(at + SECTOR).min(bytes.len())]
}

/// Changes every sector of every file into what `others` says, and prints what came of it.
fn attack(name: &str, others: impl Fn(&Victim, &SimRng, &str, usize, &[u8]) -> Vec<Vec<u8>>) -> Counts {
    let (victim, rng, mut counts) = (victim(), SimRng::new(2), Counts::new());
    for file in files(&victim.disk) {
        let bytes = content(&victim.disk, &file);
        for at in sectors(&bytes) {
            let own = sector(&bytes, at);
            for other in others(&victim, &rng, &file, at, own) {
                let other = &other[..other.len().min(own.len())];
                if *other == own[..other.len()] {
                    continue;
                }
                let damaged = with(&victim.disk, &file, at, other);
                victim.judge(&damaged, &mut counts, &format!("{name}, byte {at} of {file}"));
            }
        }
    }
    println!("{name}: {counts:?}");
    counts
}

#[test]
fn bits_that_rot_are_told_or_change_nothing() {
    let counts = attack("rot", |_, rng, _, _, own| {
        let mut rotten = Vec::new();
        for flips in [1, 3, 40] {
            let mut bytes = own.to_vec();
            for _ in 0..flips {
                let at = rng.index(bytes.len().max(1));
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte ^= 1 << rng.below(8));
            }
            rotten.push(bytes);
        }
        rotten
    });
    assert!(counts[&Verdict::RefusedAtOpen] > 20 && counts[&Verdict::ToldByReaders] > 20);
}

#[test]
fn a_sector_that_reads_as_another_is_told_or_changes_nothing() {
    let counts = attack("misread", |victim, rng, file, at, _| {
        let mut read = vec![vec![0; SECTOR], vec![0xff; SECTOR]];
        let bytes = content(&victim.disk, file);
        for near in [at.saturating_sub(SECTOR), at + SECTOR, 0] {
            read.push(sector(&bytes, near).to_vec());
        }
        let names = files(&victim.disk);
        let other = content(&victim.disk, rng.pick::<String>(&names));
        let all = sectors(&other);
        read.push(sector(&other, *rng.pick(&all)).to_vec());
        read
    });
    assert!(counts[&Verdict::RefusedAtOpen] > 20 && counts[&Verdict::ToldByReaders] > 20);
}

/// What a sector held at earlier moments, each once.
fn generations(victim: &Victim, file: &str, at: usize) -> Vec<Vec<u8>> {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for moment in &victim.earlier {
        if !files(moment).iter().any(|name| name == file) {
            continue;
        }
        let own = sector(&content(moment, file), at).to_vec();
        if !seen.contains(&own) {
            seen.push(own);
        }
    }
    seen
}

#[test]
fn a_lost_write_of_one_sector_is_told_or_changes_nothing() {
    let counts = attack("lost write", |victim, _, file, at, _| {
        generations(victim, file, at)
    });
    assert!(counts[&Verdict::RefusedAtOpen] > 5 && counts[&Verdict::ToldByReaders] > 20);
}

#[test]
fn a_write_that_landed_elsewhere_is_told_or_changes_nothing() {
    let (victim, rng, mut counts) = (victim(), SimRng::new(3), Counts::new());
    // One that takes the end of the log and lands on the witness of that end takes both: nothing can tell.
    let mut names = files(&victim.disk);
    names.retain(|name| name != "log/closed");
    for file in names.iter().filter(|name| name.ends_with(".log")) {
        let bytes = content(&victim.disk, file);
        for at in sectors(&bytes) {
            let strayed = sector(&bytes, at).to_vec();
            let before = generations(&victim, file, at);
            let before = before.first().cloned().unwrap_or_else(|| vec![0; SECTOR]);
            // Once within the file, once anywhere.
            for target in [file.clone(), rng.pick(&names).clone()] {
                let there = content(&victim.disk, &target);
                let place = *rng.pick(&sectors(&there));
                let damaged = with(&victim.disk, file, at, &before);
                let room = sector(&there, place).len().min(strayed.len());
                let damaged = with(&damaged, &target, place, &strayed[..room]);
                let what = format!("sector {at} of {file} landed at {place} of {target}");
                victim.judge(&damaged, &mut counts, &what);
            }
        }
    }
    println!("misdirected: {counts:?}");
    assert!(counts[&Verdict::RefusedAtOpen] > 20 && counts[&Verdict::ToldByReaders] > 20);
}

#[test]
fn the_write_of_a_whole_block_that_was_lost_is_told_by_what_came_after() {
    let victim = victim();
    let active = newest(&victim);
    let bytes = content(&victim.disk, &active);
    let first = u64::from_str_radix(&active[4..20], 16).unwrap();
    let starts: Vec<usize> = (0..bytes.len() - 128)
        .step_by(8)
        .filter(|at| bytes[*at..].starts_with(b"MPB1"))
        .filter(|at| bytes[at + 56..at + 64] == (first + *at as u64).to_le_bytes())
        .collect();
    assert_eq!(starts.len(), 5, "four commits and the block of the clean close");
    let mut counts = Counts::new();
    for pair in starts.windows(2) {
        let damaged = with(&victim.disk, &active, pair[0], &vec![0; pair[1] - pair[0]]);
        victim.judge(&damaged, &mut counts, "a lost block");
    }
    assert_eq!(counts, Counts::from([(Verdict::RefusedAtOpen, 4)]));
    // The closing block itself names what is durable and holds nothing.
    let damaged = with(&victim.disk, &active, starts[4], &[0; 128]);
    victim.judge(&damaged, &mut counts, "a lost closing block");
    assert_eq!(counts[&Verdict::Harmless], 1);
}

/// Opens the store of a machine, alone.
fn opened(disk: &SimDisk) -> milepost_engine::Result<(SimProcess, Store)> {
    let process = disk.start();
    let store = options(&process, &SimRng::new(6)).open_in(process.storage())?;
    Ok((process, store))
}

#[test]
fn an_older_end_of_the_log_is_the_older_store_unless_a_witness_is_younger() {
    let victim = victim();
    let active = newest(&victim);
    // All sectors of the last segment as they were two commits earlier: whole, in line, and nothing in the
    // log says that there was more.
    let older = content(&victim.earlier[9], &active);
    let damaged = with(&victim.disk, &active, 0, &older);
    let error = opened(&damaged).map(drop).unwrap_err();
    assert_eq!(
        error.kind(),
        milepost_engine::ErrorKind::Corrupt,
        "it was closed: {error}"
    );
    let unclosed = with(&victim.disk, "log/closed", 0, &[0; 40]);
    let (_process, store) = opened(&with(&unclosed, &active, 0, &older)).unwrap();
    let answers = read(&store).unwrap();
    assert_eq!(answers.frames.len(), victim.answers.frames.len() - 2);
    assert!(
        victim.answers.frames.starts_with(&answers.frames),
        "older, and nothing in between"
    );
    // The queue has seen more: that is told.
    let lsns: Vec<Lsn> = victim.answers.frames.iter().map(|(lsn, _)| *lsn).collect();
    let seen = unclosed.snapshot();
    let (process, store) = opened(&seen).unwrap();
    enqueue(&store, &lsns[3..]);
    drop(store);
    process.kill();
    let error = opened(&with(&seen, &active, 0, &older)).map(drop).unwrap_err();
    assert_eq!(error.kind(), milepost_engine::ErrorKind::Corrupt, "{error}");
}
