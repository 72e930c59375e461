//! A remote is suspended by a process that dies, or to which something happens, at any operation, and the power is lost behind
//! it: either the queue still has all that the remote is due, or the log says that it is suspended (R1, Q2). One that went on
//! without either would leave out what was freed. The next process ends what was begun.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_engine::{
    Durability, Error, ErrorKind, Lsn, Options, Result, Retention, SiteName, Store, Transaction,
};
use milepost_replication::agent::{Links, Stop};
use milepost_replication::catalog::{
    AtLimit, Catalog, Definitions, NewPublication, NewRemote, NewSubscription, RemoteLimits, Schedule, Start,
};
use milepost_replication::link::{Batch, Link, LinkError, LinkFuture, MessageId, PollRequest};
use milepost_replication::scan::{Entry, ScanPhase};
use milepost_replication::send::{SendOptions, SendPhase, Serve, suspended};
use milepost_tests::SimRng;
use milepost_tests::crash::{Fault, hush};
use milepost_tests::disk::{Director, Killed, Op, Profile, SimDisk, SimProcess, Verdict};

/// Power cuts tried behind each fault.
const CUTS: u64 = 2;
/// Longer than what a remote is given to confirm once it was found at its limit.
const GRACE: Duration = Duration::from_secs(150);

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(1 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

/// A link behind which nobody is.
struct Nobody;

impl Link for Nobody {
    fn deliver<'a>(&'a self, _to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async { Err(LinkError::not_now("nowhere", "nobody is there")) })
    }

    fn poll<'a>(&'a self, _request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async { Ok(Batch::default()) })
    }

    fn remove<'a>(&'a self, _ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn address(&self) -> String {
        "nowhere".to_owned()
    }
}

/// What sends, over links to nobody.
struct Sending {
    runtime: tokio::runtime::Runtime,
}

impl Sending {
    fn phase(&self, store: &Store) -> Result<SendPhase> {
        let (stop, handle) = (Stop::new(), self.runtime.handle().clone());
        let links = Links::new(
            Box::new(|_| {
                let nobody: Arc<dyn Link> = Arc::new(Nobody);
                Ok(nobody)
            }),
            &[],
            handle,
            stop.clone(),
        );
        let options = SendOptions {
            message_bytes: 10_000,
            urgency: Duration::ZERO,
            send_every: Duration::from_secs(60),
            only_backed_up: false,
        };
        SendPhase::open(store, &links, options, &stop)
    }

    fn round(&self, store: &Store) -> Result<()> {
        self.phase(store)?.round(Serve::Everybody).map(drop)
    }
}

fn island() -> SiteName {
    "island".parse().unwrap()
}

/// A store whose remote has reached its limit and had its time; LSNs of what it is due, in queue segments of which all but
/// the last may be freed.
fn at_its_limit(profile: Profile, rng: &SimRng, sending: &Sending) -> (SimDisk, Vec<Lsn>) {
    let disk = SimDisk::like(profile, 5);
    let process = disk.start();
    let store = options(&process, rng)
        .retention(Retention::UntilScanned)
        .init_in(process.storage(), "bern".parse().unwrap())
        .unwrap();
    let definitions = Definitions::new(&store);
    let all = NewPublication::new("all", &["**".to_owned()], &[], None);
    definitions.add_publication(all, false).unwrap();
    let remote = NewRemote {
        site: island(),
        links: vec!["memory://".to_owned()],
        schedule: Schedule::EverySeconds(1),
        consolidated: false,
        on_error: Default::default(),
        limits: RemoteLimits {
            bytes: Some(1 << 20),
            age: None,
            at_limit: AtLimit::Suspend,
        },
    };
    definitions.add_remote(remote, false).unwrap();
    let subscription = NewSubscription {
        remote: island(),
        publication: "all".to_owned(),
        value: None,
        start: Start::Now,
    };
    definitions.add_subscription(subscription).unwrap();
    let mut lsns = Vec::new();
    for number in 0..6_u8 {
        let mut transaction = Transaction::new();
        transaction.push_parts("s", "k", &vec![number; 400_000]).unwrap();
        let done = store.commit_with(transaction, Durability::Synced).unwrap();
        lsns.push(done.committed().unwrap().lsn);
    }
    let mut scan = ScanPhase::open(&store).unwrap();
    scan.catch_up(&Stop::new()).unwrap();
    scan.sync().unwrap();
    sending.round(&store).unwrap();
    assert!(!is_suspended(&store), "not in the round that finds it");
    drop(scan);
    store.close().unwrap();
    process.kill();
    disk.advance(GRACE);
    (disk, lsns)
}

fn is_suspended(store: &Store) -> bool {
    let catalog = Catalog::load(store).unwrap();
    let remote = catalog.remote(&island()).unwrap();
    suspended(store, remote).unwrap().is_some()
}

fn queued(store: &Store) -> Vec<Lsn> {
    let mut reader = store.queue_reader(Lsn::ZERO).unwrap();
    let mut lsns = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        lsns.extend(Entry::read(&frame).unwrap().map(|entry| entry.position.lsn));
    }
    lsns
}

/// Lets one operation go as the fault says, once it is armed.
struct Nth {
    fault: Fault,
    armed: AtomicBool,
    left: Mutex<u64>,
}

impl Director for Nth {
    fn before(&self, op: &Op) -> Verdict {
        let verdict = self
            .fault
            .verdict(op)
            .filter(|_| self.armed.load(Ordering::SeqCst));
        let Some(verdict) = verdict else {
            return Verdict::Go;
        };
        let mut left = self.left.lock().unwrap();
        *left = left.wrapping_sub(1);
        if *left == u64::MAX { verdict } else { Verdict::Go }
    }
}

/// A round, and what it lets go, in a process to which something happens at one operation of it; what came of it, whether it
/// died, and whether the operation was reached.
fn suspend(
    disk: &SimDisk,
    (fault, at): (Fault, u64),
    rng: &SimRng,
    sending: &Sending,
) -> (Result<()>, bool, bool) {
    let nth = Arc::new(Nth {
        fault,
        armed: AtomicBool::new(false),
        left: Mutex::new(at),
    });
    let process = disk.directed(Arc::<Nth>::clone(&nth));
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let store = options(&process, rng).open_in(process.storage())?;
        let mut phase = sending.phase(&store)?;
        nth.armed.store(true, Ordering::SeqCst);
        phase.round(Serve::Everybody)?;
        store.free().map(drop)
    }));
    let done = match done {
        Ok(done) => done,
        Err(payload) if payload.is::<Killed>() => Err(Error::closed("killed")),
        Err(payload) => std::panic::resume_unwind(payload),
    };
    let died = !process.is_alive();
    process.kill();
    (done, died, *nth.left.lock().unwrap() > u64::MAX / 2)
}

/// True when the log says that the remote is suspended; else all is there that it is due. Then the work is ended.
fn look(disk: &SimDisk, rng: &SimRng, lsns: &[Lsn], sending: &Sending) -> bool {
    let process = disk.start();
    let store = options(&process, rng).open_in(process.storage()).unwrap();
    let is_given_up = is_suspended(&store);
    if !is_given_up {
        assert_eq!(queued(&store), lsns, "freed, and not said to be given up");
        assert!(store.oldest().unwrap() < lsns[0]);
    }
    disk.advance(GRACE);
    sending.round(&store).unwrap();
    disk.advance(GRACE);
    sending.round(&store).unwrap();
    store.free().unwrap();
    assert!(is_suspended(&store));
    assert!(queued(&store).len() < lsns.len(), "the queue goes on without it");
    assert!(store.oldest().unwrap() > lsns[0], "and so does the log");
    store.close().unwrap();
    is_given_up
}

#[test]
fn whoever_dies_while_it_is_suspended_has_noted_that_or_freed_nothing_r1_q2() {
    hush();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (rng, sending) = (SimRng::new(3), Sending { runtime });
    let (mut faults, mut given_up, mut kept) = (0, 0, 0);
    for profile in [Profile::Posix, Profile::Ext4] {
        let (start, lsns) = at_its_limit(profile, &rng, &sending);
        for fault in Fault::ALL {
            for at in 0.. {
                let disk = start.snapshot();
                let (done, died, reached) = suspend(&disk, (fault, at), &rng, &sending);
                if let Err(error) = &done {
                    let told = matches!(
                        error.kind(),
                        ErrorKind::Full | ErrorKind::Internal | ErrorKind::Closed
                    );
                    assert!(died || told, "{fault:?} at {at}: {error:?}");
                }
                for cut in 0..=CUTS {
                    let after = match cut {
                        0 => disk.snapshot(),
                        _ => disk.crash(&rng),
                    };
                    match look(&after, &rng, &lsns, &sending) {
                        true => given_up += 1,
                        false => kept += 1,
                    }
                }
                if !reached {
                    break;
                }
                faults += 1;
            }
        }
    }
    println!(
        "{faults} faults with {CUTS} power cuts behind each: {given_up} times given up, {kept} times kept"
    );
    assert!(
        faults > 100 && given_up > 100 && kept > 100,
        "{faults} {given_up} {kept}"
    );
}
