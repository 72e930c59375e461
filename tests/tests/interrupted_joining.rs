//! The pieces of a long transaction are put together in a file. Every operation of that fails once, in every way; or its process dies there,
//! and the power goes: whoever comes next has the transaction, and nothing stays of what was begun (R1, R3).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Error, Event, Lsn, Options, Position, Result, SiteName, Store};
use milepost_replication::message::{Carried, Joined, Part, Point};
use milepost_replication::receive::Parts;
use milepost_tests::SimRng;
use milepost_tests::crash::{Fault, hush};
use milepost_tests::disk::{Director, Killed, Op, Profile, SimDisk, SimProcess, Verdict};

const LEN: usize = 5 << 20;
const PIECE: usize = 1 << 20;

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(8 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn hq() -> SiteName {
    "hq".parse().unwrap()
}

fn long() -> Carried {
    let payload: Vec<u8> = (0..LEN).map(|at| (at / 5).to_le_bytes()[0]).collect();
    let mut frame = NewFrame::transaction();
    frame
        .push_event(0, &Event::new("s", "k", payload).unwrap())
        .unwrap();
    let position = Position {
        epoch: Epoch(7),
        lsn: Lsn(40),
        chain: Chain(3),
    };
    Carried::with_events_of(Point::live(position), None, &frame)
}

fn pieces(carried: &Carried) -> Vec<Part> {
    let mut bytes = Vec::new();
    carried.encode(&mut bytes).unwrap();
    let (digest, total) = (Part::digest_of(&bytes), u64::try_from(bytes.len()).unwrap());
    let piece = |(number, piece): (usize, &[u8])| Part {
        point: carried.point,
        offset: u64::try_from(number * PIECE).unwrap(),
        total,
        digest,
        piece: piece.to_vec().into(),
    };
    bytes.chunks(PIECE).enumerate().map(piece).collect()
}

/// One operation fails.
struct Nth(Fault, u64, AtomicU64);

impl Director for Nth {
    fn before(&self, op: &Op) -> Verdict {
        match self.0.verdict(op) {
            Some(verdict) if op.name.contains("parts") => {
                match self.2.fetch_add(1, Ordering::Relaxed) == self.1 {
                    true => verdict,
                    false => Verdict::Go,
                }
            }
            _ => Verdict::Go,
        }
    }
}

/// All pieces come, each made durable; the transaction, if the last one made it whole.
fn join(store: &Store, pieces: &[Part]) -> Result<Option<Carried>> {
    let mut parts = Parts::open(store)?;
    let mut whole = None;
    for piece in pieces {
        let joined = parts.join(&hq(), 3, piece)?;
        if let Joined::Whole(carried) = joined.map_err(|fault| Error::internal(fault.to_string()))? {
            whole = Some(carried);
        }
        parts.sync()?;
    }
    Ok(whole)
}

fn left_over(process: &SimProcess) -> Vec<String> {
    let names = process.storage().list("parts").unwrap_or_default();
    names
        .into_iter()
        .filter(|name| name.ends_with(".whole"))
        .collect()
}

#[test]
fn a_long_transaction_becomes_whole_whatever_fails_while_it_is_put_together() {
    hush();
    let (rng, ours) = (SimRng::new(5), long());
    let (pieces, mut faults, mut told) = (pieces(&ours), 0, 0);
    for fault in Fault::ALL {
        for at in 0.. {
            let disk = SimDisk::like(Profile::Posix, at);
            let process = disk.start();
            let store = options(&process, &rng)
                .init_in(process.storage(), "bern".parse().unwrap())
                .unwrap();
            process.kill();
            drop(store);
            let failing = Arc::new(Nth(fault, at, AtomicU64::new(0)));
            let process = disk.directed(Arc::<Nth>::clone(&failing));
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
                join(&options(&process, &rng).open_in(process.storage())?, &pieces)
            }));
            let hit = failing.2.load(Ordering::Relaxed) > at;
            match done {
                Ok(Ok(Some(carried))) => assert_eq!(carried, ours),
                Ok(Ok(None)) => panic!("{fault:?} at {at}: a piece was forgotten, and nobody told"),
                Ok(Err(_)) => told += 1,
                Err(payload) if payload.is::<Killed>() => {}
                Err(payload) => std::panic::resume_unwind(payload),
            }
            let alive = process.is_alive();
            process.kill();
            // The machine goes on, or has lost its power.
            for next in [disk.snapshot(), disk.crash(&rng)] {
                let process = next.start();
                let store = options(&process, &rng).open_in(process.storage()).unwrap();
                assert_eq!(
                    join(&store, &pieces).unwrap().as_ref(),
                    Some(&ours),
                    "{fault:?} at {at}, alive {alive}"
                );
                assert_eq!(left_over(&process), [""; 0], "{fault:?} at {at}");
            }
            if !hit {
                break;
            }
            faults += 1;
        }
    }
    println!("{faults} faults, {told} of them told");
    assert!(faults > 150 && told > 80, "{faults}, {told}");
}
