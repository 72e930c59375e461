//! Compressing segments, moving them to an archive and both back again, with a fault, a kill or a power cut at every operation: the log is
//! the same whatever happens, and the next run ends what was begun (E1, E2, E3). Bugs planted there are caught. One
//! process has one bug, so this file is one test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use milepost_engine::planted::{self, Bug};
use milepost_engine::storage::OpenMode;
use milepost_engine::{Durability, Error, ErrorKind, Lsn, Options, Result, Store, Transaction};
use milepost_tests::SimRng;
use milepost_tests::crash::Fault;
use milepost_tests::disk::{Director, Killed, Op, OpKind, Profile, SimDisk, SimProcess, Verdict};

/// Power cuts tried behind each fault.
const CUTS: u64 = 3;
const COUNT: u32 = 60;

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

/// Five segments with numbers in them, closed.
fn filled(profile: Profile, rng: &SimRng) -> SimDisk {
    let disk = SimDisk::like(profile, 3);
    let process = disk.start();
    let options = options(&process, rng).pad_to(if profile == Profile::Garbage4096 { 4096 } else { 1 });
    let store = options
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    for number in 0..COUNT {
        let mut transaction = Transaction::new();
        let payload = [number.to_le_bytes().as_slice(), &[7; 700]].concat();
        transaction.push_parts("s", "k", &payload).unwrap();
        store
            .commit_with(transaction, Durability::Buffered)
            .unwrap()
            .committed()
            .unwrap();
        if number % 14 == 13 {
            store.rotate(0).unwrap();
        }
    }
    store.stream_version("s").unwrap();
    store.tend().unwrap();
    store.close().unwrap();
    process.kill();
    disk
}

/// What is there, from the log and through the index; an error is a finding.
fn numbers(store: &Store) -> Result<Vec<u32>> {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO)?, Vec::new());
    while let Some(frame) = scan.next()? {
        for event in frame.events() {
            found.push(u32::from_le_bytes(*event?.payload.first_chunk().unwrap()));
        }
    }
    let read = store.read_stream("s", milepost_engine::StreamVersion(0))?;
    let read: Result<Vec<u32>> = read
        .map(|event| Ok(u32::from_le_bytes(*event?.payload.first_chunk().unwrap())))
        .collect();
    assert_eq!(read?, found, "the index and the log say the same");
    Ok(found)
}

/// What is done to the sealed segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Compress,
    Decompress,
    Archive,
    BringBack,
}

impl Deed {
    fn of(self, store: &Store) -> Result<()> {
        let told = &mut |_, _| ();
        match self {
            Deed::Compress => store.compress(told).map(drop),
            Deed::Decompress => store.decompress(told).map(drop),
            Deed::Archive => {
                store.set_archive_as("/archive".into())?;
                store.archive(told).map(drop)
            }
            Deed::BringBack => store.bring_back(told).map(drop),
        }
    }

    /// How many of the three segments are compressed here, and how many away, when it is done.
    fn leaves(self, packed: usize) -> (usize, usize) {
        match self {
            Deed::Compress => (3, 0),
            Deed::Decompress => (0, 0),
            Deed::Archive => (0, 3),
            Deed::BringBack => (packed, 0),
        }
    }
}

/// Lets one operation go as the fault says; or changes what is written, which nobody tells.
struct Nth {
    fault: Fault,
    left: Mutex<u64>,
    rot: Option<SimDisk>,
}

impl Director for Nth {
    fn before(&self, op: &Op) -> Verdict {
        if let Some(disk) = &self.rot {
            if op.kind == OpKind::SyncData && op.name.contains(".tmp-") && !op.name.contains(".away") {
                let file = disk
                    .start()
                    .storage()
                    .open(&op.name, OpenMode::ReadWrite)
                    .unwrap();
                file.write_at(&[&[0xAA; 40]], 150).unwrap();
            }
            return Verdict::Go;
        }
        let Some(verdict) = self.fault.verdict(op) else {
            return Verdict::Go;
        };
        let mut left = self.left.lock().unwrap();
        *left = left.wrapping_sub(1);
        if *left == u64::MAX { verdict } else { Verdict::Go }
    }
}

/// Opens the store and gives its segments another form in a process to which something happens.
fn work(disk: &SimDisk, nth: Nth, rng: &SimRng, deed: Deed) -> (Result<()>, bool) {
    let nth = Arc::new(nth);
    let process = disk.directed(Arc::<Nth>::clone(&nth));
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let store = options(&process, rng).open_in(process.storage())?;
        deed.of(&store)
    }));
    let done = match done {
        Ok(done) => done,
        Err(payload) if payload.is::<Killed>() => Err(Error::closed("killed")),
        Err(payload) => std::panic::resume_unwind(payload),
    };
    let died = !process.is_alive();
    process.kill();
    let reached = *nth.left.lock().unwrap() > u64::MAX / 2;
    let damage = |error: &Error| error.kind() == ErrorKind::Corrupt;
    assert!(died || !done.as_ref().is_err_and(damage), "{done:?}");
    (done, reached)
}

/// Everything is there, and the form can still be changed. `packed` of the segments are compressed when they are here.
fn look(disk: &SimDisk, rng: &SimRng, deed: Deed, packed: usize) -> std::result::Result<(), String> {
    let failed = |error: Error| format!("{error:?}");
    let process = disk.start();
    let store = options(&process, rng)
        .open_in(process.storage())
        .map_err(failed)?;
    let whole: Vec<u32> = (0..COUNT).collect();
    if numbers(&store).map_err(failed)? != whole {
        return Err("numbers are missing".to_owned());
    }
    let found = store.verify(&mut |_, _| ()).map_err(failed)?;
    if !found.is_whole() {
        return Err(format!("not whole: {found:?}"));
    }
    deed.of(&store).map_err(failed)?;
    let names = process.storage().list("log").unwrap();
    let left = names
        .iter()
        .any(|name| name.contains(".tmp-") && !name.contains(".idx"));
    let count = |ending: &str| names.iter().filter(|name| name.ends_with(ending)).count();
    let ended = (count(".mpz"), count(".away")) == deed.leaves(packed);
    if left || !ended || numbers(&store).map_err(failed)? != whole {
        return Err(format!("the next run does not end it: {names:?}"));
    }
    Ok(())
}

/// Every fault at every operation; how many there were.
fn attack(start: &SimDisk, rng: &SimRng, deed: Deed, packed: usize) -> std::result::Result<u64, String> {
    let mut faults = 0;
    for fault in Fault::ALL {
        for at in 0.. {
            let disk = start.snapshot();
            let nth = Nth {
                fault,
                left: Mutex::new(at),
                rot: None,
            };
            let (done, reached) = work(&disk, nth, rng, deed);
            for after in std::iter::once(disk.snapshot()).chain((0..CUTS).map(|_| disk.crash(rng))) {
                let looked = look(&after, rng, deed, packed);
                looked.map_err(|text| format!("{deed:?}, {fault:?} at {at} ({done:?}): {text}"))?;
            }
            if !reached {
                break;
            }
            faults += 1;
        }
    }
    Ok(faults)
}

/// What is written is not what lies there: told, and nothing is lost.
fn rot(start: &SimDisk, rng: &SimRng, deed: Deed) -> std::result::Result<(), String> {
    let disk = start.snapshot();
    let nth = Nth {
        fault: Fault::Short(0),
        left: Mutex::new(0),
        rot: Some(disk.clone()),
    };
    let (done, _) = work(&disk, nth, rng, deed);
    look(&disk, rng, deed, 0)?;
    match done {
        Ok(()) => Err("a rotten file was taken for a whole one".to_owned()),
        Err(_) => Ok(()),
    }
}

fn all(seed: u64) -> std::result::Result<u64, String> {
    let rng = SimRng::new(seed);
    let mut faults = 0;
    for profile in [Profile::Posix, Profile::Ext4, Profile::Garbage4096] {
        let raw = filled(profile, &rng);
        faults += attack(&raw, &rng, Deed::Compress, 0)?;
        rot(&raw, &rng, Deed::Compress)?;
        let packed = raw.snapshot();
        look(&packed, &rng, Deed::Compress, 0)?;
        faults += attack(&packed, &rng, Deed::Decompress, 0)?;
        for (start, count) in [(raw, 0), (packed, 3)] {
            faults += attack(&start, &rng, Deed::Archive, count)?;
            rot(&start, &rng, Deed::Archive)?;
            let away = start.snapshot();
            look(&away, &rng, Deed::Archive, count)?;
            faults += attack(&away, &rng, Deed::BringBack, count)?;
        }
    }
    Ok(faults)
}

#[test]
fn a_log_is_whole_whatever_happens_while_its_segments_change_their_form_and_place() {
    let seeds = std::env::var("MILEPOST_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    let faults: u64 = (7..7 + seeds).map(|seed| all(seed).unwrap()).sum();
    println!("{faults} faults, each with {CUTS} power cuts behind it");
    assert!(faults > 3_000, "{faults}");
    for bug in Bug::OF_FORMS {
        planted::set(Some(bug));
        let caught = std::panic::catch_unwind(|| all(7));
        planted::set(None);
        match caught {
            Ok(Ok(_)) => panic!("{bug:?} is not caught"),
            Ok(Err(text)) => println!("{bug:?} is caught: {text}"),
            Err(_) => println!("{bug:?} is caught by a panic"),
        }
    }
}
