//! Freeing that is killed at any change it makes to the disk, with power lost behind it: what was freed is known by
//! the base and what was not is there (E4), what was received in it is known by its origin (R1), nothing goes that retention, a hold or the scan phase keeps (Q1, Q2), and
//! the next process ends what was begun. Each bug planted in freeing is caught. One process has one bug, so this file is
//! one test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use milepost_engine::frame::{FrameKind, NewFrame, event_check};
use milepost_engine::planted::{self, Bug};
use milepost_engine::{
    Durability, Epoch, Error, Event, Hold, Lsn, Options, Origin, Phase, Pinned, QueueEntry, Receipt,
    Retention, Store, StoreId, StreamVersion, Transaction,
};
use milepost_tests::SimRng;
use milepost_tests::disk::{Killed, Profile, Script, SimDisk, SimProcess, Verdict};

/// Power cuts tried behind each kill.
const CUTS: u64 = 6;
const STREAMS: u32 = 5;

/// What keeps the log.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    /// Its newest bytes.
    Bytes,
    /// What a hold names.
    Held,
    /// What the queue does not have on disk.
    Scanned,
}

/// Events in log order: LSN, stream, and the check by which what was received is known.
type Story = Vec<(Lsn, String, u64)>;

/// Where the event of a number was committed first, if it was not here.
fn origin(number: u32) -> Option<Origin> {
    (!number.is_multiple_of(3)).then(|| Origin {
        site: StoreId(u128::from(number % 3)),
        name: "hq".parse().unwrap(),
        epoch: Epoch(u64::from(number % 2)),
        lsn: Lsn(1000 + u64::from(number / 10) * 8),
    })
}

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

/// Commits events of 60 kB, each pinned under its stream's name.
fn commit(store: &Store, story: &mut Story, count: usize) {
    for _ in 0..count {
        let number = story.len() as u32;
        let stream = format!("s/{}", number % STREAMS);
        let mut transaction = Transaction::new();
        let payload = number.to_le_bytes().repeat(15_000);
        match origin(number) {
            None => {
                let event = Event::new(stream.as_str(), "k", payload).unwrap();
                transaction.push(&event).unwrap();
            }
            Some(origin) => {
                transaction
                    .push_received(number, &stream, "k", &[], &payload)
                    .unwrap();
                transaction.set_committed_at(i64::from(number));
                transaction.set_origin(origin);
            }
        }
        transaction.pin(Pinned {
            key: b"catalog/remote/hq".to_vec(),
            value: Some(Vec::new()),
        });
        transaction.pin(Pinned {
            key: stream.clone().into_bytes(),
            value: Some(number.to_le_bytes().to_vec()),
        });
        let done = store.commit_with(transaction, Durability::Buffered).unwrap();
        story.push((done.committed().unwrap().lsn, stream, 0));
    }
    store.sync().unwrap();
    for (lsn, _, check) in story.iter_mut().rev().take(count) {
        let told = store.read_frame(*lsn, |frame| {
            let event = frame.events().next().unwrap()?;
            event_check(frame.committed_at()?, &event)
        });
        *check = told.unwrap().unwrap();
    }
}

/// A store whose log may lose its beginning; up to where at most; who scans it, unsynced, for `Scanned`.
struct World {
    disk: SimDisk,
    store: Store,
    story: Story,
    most: Lsn,
    rng: SimRng,
    process: SimProcess,
}

fn world(kept: Kept, profile: Profile, seed: u64) -> World {
    let (disk, rng) = (SimDisk::like(profile, seed), SimRng::new(seed));
    let process = disk.start();
    let retention = match kept {
        Kept::Bytes => Retention::Bytes(2 << 20),
        Kept::Held | Kept::Scanned => Retention::Bytes(1),
    };
    let pad_to = profile.garbage().unwrap_or(1);
    let store = options(&process, &rng)
        .retention(retention)
        .pad_to(pad_to)
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    let mut story = Story::new();
    if kept == Kept::Held {
        store
            .hold("reader", &Hold::new("projection", "a test", Lsn::ZERO))
            .unwrap();
    }
    commit(&store, &mut story, 100);
    let segments: Vec<Lsn> = store
        .segments()
        .unwrap()
        .iter()
        .map(|(first, _)| *first)
        .collect();
    assert!(segments.len() > 5);
    let most = match kept {
        Kept::Bytes => Lsn(store.watermarks().durable.0 - (2 << 20)),
        Kept::Held => {
            let hold = Hold::new("projection", "a test", segments[3].plus(200));
            store.hold("reader", &hold).unwrap();
            hold.lsn
        }
        Kept::Scanned => scan(&store, segments[3].plus(200)),
    };
    World {
        disk,
        store,
        story,
        most,
        rng,
        process,
    }
}

/// The scan phase passes everything, and its queue is on the disk up to `synced`; how far that is.
fn scan(store: &Store, synced: Lsn) -> Lsn {
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&lock).unwrap();
    let mut through = queue.scanned_through();
    let mut log = store.scan(through).unwrap();
    let mut durable = None;
    while let Some(frame) = log.next().unwrap() {
        through = frame.lsn();
        if through > synced && durable.is_none() {
            queue.sync().unwrap();
            durable = Some(queue.scanned_through());
        }
        let entry = NewFrame::of_kind(
            FrameKind(FrameKind::QUEUE_FIRST),
            through.0.to_le_bytes().to_vec(),
        );
        let lsn = through;
        queue
            .append(vec![QueueEntry { lsn, frame: entry }], through)
            .unwrap();
    }
    // It does not live to sync the rest.
    std::mem::forget(queue);
    std::mem::forget(lock);
    durable.unwrap()
}

/// What a store must say of a story, whatever part of its log was freed.
fn judge(store: &Store, story: &Story, most: Lsn) -> Result<(), String> {
    let told = |error: Error| format!("{error:?}");
    let begins = store.oldest().map_err(told)?;
    if begins > most {
        return Err(format!("the log begins at {begins}, and {most} was to be kept"));
    }
    let kept: Vec<_> = story
        .iter()
        .filter(|(lsn, _, _)| *lsn > begins)
        .map(|(lsn, stream, _)| (*lsn, stream.clone()))
        .collect();
    let (mut scan, mut found) = (store.scan(begins).map_err(told)?, Vec::new());
    while let Some(frame) = scan.next().map_err(told)? {
        for event in frame.events() {
            let stream = event.and_then(|event| event.stream().map(str::to_owned));
            found.push((frame.lsn(), stream.map_err(told)?));
        }
    }
    if found != kept {
        return Err(format!(
            "{} events are there of {} that were not freed",
            found.len(),
            kept.len()
        ));
    }
    let mut counts = BTreeMap::<&str, (u64, u64, u32)>::new();
    for (number, (lsn, stream, _)) in story.iter().enumerate() {
        let (freed, all, last) = counts.entry(stream).or_default();
        *freed += u64::from(*lsn < begins);
        (*all, *last) = (*all + 1, number as u32);
    }
    for (stream, (freed, all, last)) in counts {
        let version = store.stream_version(stream).map_err(told)?;
        if version != Some(StreamVersion(all - 1)) {
            return Err(format!("{stream} has {all} events and version {version:?}"));
        }
        let start = store.stream_start(stream).map_err(told)?;
        let reader = store.read_stream(stream, start).map_err(told)?;
        let read = reader.collect::<Result<Vec<_>, _>>().map_err(told)?;
        let versions: Vec<u64> = read.iter().map(|event| event.version.0).collect();
        if start.0 != freed || versions != (freed..all).collect::<Vec<_>>() {
            return Err(format!(
                "{stream} begins at {start} of {freed} and reads {versions:?}"
            ));
        }
        let pinned = store
            .pinned(stream.as_bytes())
            .map_err(told)?
            .map(|(value, _)| value);
        if pinned != Some(last.to_le_bytes().to_vec()) {
            return Err(format!("{stream} is pinned as {pinned:?}"));
        }
    }
    judge_received(store, story, begins)?;
    let found = store.verify(&mut |_, _| ()).map_err(told)?;
    match found.damage.first() {
        Some(damage) => Err(format!("{damage:?}")),
        None => Ok(()),
    }
}

/// What was received in what was freed is known by its origin, event by event, and nothing else is (R1, R4).
fn judge_received(store: &Store, story: &Story, begins: Lsn) -> Result<(), String> {
    let told = |error: Error| format!("{error:?}");
    let receipts = store.receipts(None).map_err(told)?;
    if receipts.begins() != begins || !receipts.is_complete() {
        return Err(format!(
            "the log begins at {begins}, and {receipts:?} tell of another"
        ));
    }
    for (number, (lsn, _, check)) in (0..).zip(story) {
        let Some(origin) = origin(number) else { continue };
        let found = receipts
            .events(origin.site, origin.epoch, origin.lsn)
            .map_err(told)?;
        let receipt = Receipt {
            ordinal: number,
            check: *check,
        };
        let times = found.iter().filter(|found| **found == receipt).count();
        if times != usize::from(*lsn < begins) {
            return Err(format!(
                "event {number} at {lsn} is known {times} times before {begins}"
            ));
        }
        if *lsn < begins && receipts.newest(origin.site) < origin.lsn {
            return Err(format!("event {number} is beyond the newest of its site"));
        }
    }
    Ok(())
}

/// The queue begins with an entry for every event and goes on as the scan says.
fn judge_queue(store: &Store, story: &Story) -> Result<(), String> {
    let told = |error: Error| format!("{error:?}");
    let mut queue = store.queue_reader(Lsn::ZERO).map_err(told)?;
    let mut seen = Vec::new();
    while let Some(entry) = queue.next().map_err(told)? {
        seen.push(Lsn(u64::from_le_bytes(*entry.body().first_chunk().unwrap())));
    }
    // What the queue lacks the log must have.
    let (begins, through) = (store.oldest().map_err(told)?, store.watermarks().scanned);
    for (lsn, _, _) in story {
        if !seen.contains(lsn) && (*lsn < begins || *lsn <= through) {
            return Err(format!(
                "the transaction at {lsn} is due and neither in queue nor log"
            ));
        }
    }
    Ok(())
}

/// Kills freeing at every change it makes; how many changes there were.
fn kill_everywhere(kept: Kept, profile: Profile, seed: u64) -> Result<u64, String> {
    let mut number = 0;
    loop {
        let mut world = world(kept, profile, seed);
        let script = Arc::new(Script::new([(number, Verdict::KillAfter(3_000))]));
        let process = world.disk.directed(script);
        let free = || -> Result<u64, Error> {
            let store = options(&process, &world.rng).open_in(process.storage())?;
            store.free()
        };
        let freed = match std::panic::catch_unwind(AssertUnwindSafe(free)) {
            Ok(freed) => freed,
            Err(payload) if payload.is::<Killed>() => Err(Error::closed("killed")),
            Err(_) => return Err(format!("a panic at change {number}")),
        };
        let died = !process.is_alive();
        process.kill();
        let at = |text: String| format!("{kept:?}, {profile:?}, killed at change {number}: {text}");
        match freed {
            Err(error) if !died => return Err(at(format!("{error:?}"))),
            Ok(0) if !died => return Err(at("nothing was freed".to_owned())),
            _ => {}
        }
        for cut in 0..CUTS {
            let after = if cut == 0 {
                world.disk.snapshot()
            } else {
                world.disk.crash(&world.rng)
            };
            let visitor = after.start();
            let opened = options(&visitor, &world.rng).open_in(visitor.storage());
            let store = opened.map_err(|error| at(format!("open: {error:?}")))?;
            judge(&store, &world.story, world.most).map_err(at)?;
            if kept == Kept::Scanned {
                judge_queue(&store, &world.story).map_err(at)?;
            }
        }
        // The process that had the store open before goes on over what the dead one left.
        if number % 5 == 0 || !died {
            judge(&world.store, &world.story, world.most).map_err(at)?;
            world.store.free().map_err(|error| at(format!("{error:?}")))?;
            commit(&world.store, &mut world.story, 3);
            judge(&world.store, &world.story, world.most).map_err(at)?;
        }
        world.process.kill();
        number += 1;
        if !died {
            return Ok(number);
        }
    }
}

#[test]
fn freeing_killed_anywhere_loses_nothing_that_is_kept_and_every_planted_bug_is_caught() {
    milepost_tests::crash::hush();
    for (seed, profile) in (1..).zip(Profile::ALL) {
        for kept in [Kept::Bytes, Kept::Held, Kept::Scanned] {
            let changes = kill_everywhere(kept, profile, seed).unwrap_or_else(|text| panic!("{text}"));
            assert!(changes > 8, "{changes} changes");
        }
    }
    for bug in Bug::OF_FREEING {
        planted::set(Some(bug));
        let mut told = None;
        'seeds: for seed in 1..4 {
            for (kept, profile) in [Kept::Bytes, Kept::Held, Kept::Scanned]
                .into_iter()
                .flat_map(|kept| Profile::ALL.map(|profile| (kept, profile)))
            {
                if let Err(text) = kill_everywhere(kept, profile, seed) {
                    told = Some(text);
                    break 'seeds;
                }
            }
        }
        planted::set(None);
        println!(
            "{bug:?}: {}",
            told.unwrap_or_else(|| panic!("{bug:?} is not caught"))
        );
    }
}
