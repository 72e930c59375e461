//! What a worker process does; told by its arguments, told of through its output.
//!
//! ```text
//! write DIR WRITER INCARNATION [BUG]  commits until it is killed      submit TAG | ack TAG LSN | refuse TAG | fail TAG KIND LSN|- TEXT
//! read DIR SEED                  follows the log; a line END on its input: reads up to there   read COUNT DIGEST
//! once DIR NUMBER LEN            commits an event of LEN bytes, made of the number    ack LSN | fail KIND absent TEXT | fail KIND maybe LSN WRITER SEQ TEXT
//! watch DIR                      follows the log until it is killed       seen COUNT DIGEST
//! enqueue DIR                    moves the log into the stable queue until it is killed
//! keep DIR WRITER                commits, frees and reads until it is killed    ack VERSION
//! stall DIR WHAT PREFIX N        commits a little, and stops itself in the Nth such operation  stalled WHAT NAME, then as write; done
//! ```
//!
//! Each line leaves in one write before the next step is begun, so that it survives a kill.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::storage::LocalStorage;
use milepost_engine::{
    CommitOutcome, Durability, Error, ErrorKind, Event, ExpectedVersion, LogScan, Lsn, Options, Store,
    StreamVersion, Transaction,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::plant::plant;
use super::shape::{Mode, Tag};
use super::stall::StallingStorage;
use super::{follow, keep};
use crate::{SimRng, mix};

/// How long a live process may take to make a commit of ours durable before that is a failure.
const LONG: Duration = Duration::from_secs(20);

/// Threads that commit in a writer process.
const THREADS: u64 = 2;

/// Commits of a thread between two rolls that it asks for, about, and the bytes that a segment has then at least.
const ROLL_EVERY: u64 = 64;
const ROLL_LEAST: u64 = 32 << 10;

/// Prints one line in one write.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush());
    // The witness is gone, and with it the reason to go on.
    if written.is_err() {
        std::process::exit(0);
    }
}

/// What a worker process does with its arguments.
///
/// # Panics
/// When they are none of a worker, and at the first surprise.
pub fn main(arguments: &[String]) {
    // Also one that is stopped, or never writes, goes with the test that started it.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", dir, writer, incarnation] => {
            write(dir, writer.parse().unwrap(), incarnation.parse().unwrap())
        }
        ["write", dir, writer, incarnation, bug] => {
            plant(bug).unwrap();
            write(dir, writer.parse().unwrap(), incarnation.parse().unwrap());
        }
        ["once", dir, number, len] => once(dir, number.parse().unwrap(), len.parse().unwrap()),
        ["watch", dir] => follow::watch(dir),
        ["enqueue", dir] => follow::enqueue(dir),
        ["keep", dir, writer] => keep::keep(dir, writer),
        ["read", dir, seed] => read(dir, seed.parse().unwrap()),
        ["stall", dir, what, prefix, count] => stall(dir, what, prefix, count.parse().unwrap()),
        _ => panic!("a worker is started by the tests: {arguments:?}"),
    }
}

fn write(dir: &str, writer: u64, incarnation: u64) {
    let store = Options::new().open(dir).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut author = Author::new(store.clone(), Tag::first(writer, incarnation, thread), false);
            scope.spawn(move || {
                loop {
                    author.commit_next();
                    author.roll_now_and_then();
                }
            });
        }
    });
}

/// One thread's commits, one after another.
struct Author {
    store: Store,
    next: Tag,
    /// Events that this thread has in its own stream.
    own: u64,
    /// True when the store has no thread that syncs what is buffered.
    syncs: bool,
}

impl Author {
    fn new(store: Store, next: Tag, syncs: bool) -> Author {
        Author {
            store,
            next,
            own: 0,
            syncs,
        }
    }

    fn take(&mut self) -> Tag {
        let tag = self.next;
        self.next = tag.next();
        tag
    }

    fn commit_next(&mut self) {
        let tag = self.take();
        match tag.mode() {
            Mode::Group => self.group(tag),
            Mode::Contended => {
                say(&format!("submit {tag}"));
                let stream = tag.stream();
                let seen = self.store.stream_version(&stream).unwrap();
                let expected = seen.map_or(ExpectedVersion::NoStream, ExpectedVersion::Exact);
                self.commit(tag, Some(expected), Durability::Synced);
            }
            Mode::Expecting => {
                say(&format!("submit {tag}"));
                let expected = match self.own {
                    0 => ExpectedVersion::NoStream,
                    count => ExpectedVersion::Exact(StreamVersion(count - 1)),
                };
                self.commit(tag, Some(expected), Durability::Synced);
            }
            Mode::Blind => {
                say(&format!("submit {tag}"));
                self.commit(tag, None, Durability::Synced);
            }
            Mode::Buffered => {
                say(&format!("submit {tag}"));
                self.commit(tag, None, Durability::Buffered);
            }
        }
    }

    /// A new segment is where most can go wrong, and comes seldom by itself.
    fn roll_now_and_then(&self) {
        if mix(self.next.0 ^ 3).is_multiple_of(ROLL_EVERY)
            && let Err(error) = self.store.rotate(ROLL_LEAST)
        {
            say(&format!("roll {:?} {error}", error.kind()));
            rest_if_dead(&error);
        }
    }

    fn commit(&mut self, tag: Tag, expected: Option<ExpectedVersion>, durability: Durability) {
        let mut transaction = tag.transaction();
        if let Some(expected) = expected {
            transaction.expect(&tag.stream(), expected).unwrap();
        }
        match self.store.commit_with(transaction, durability) {
            Ok(CommitOutcome::Committed(committed)) => {
                if durability == Durability::Buffered {
                    if self.syncs && self.store.sync().is_err() {
                        say(&format!("fail {tag} Sync {} sync failed", committed.lsn));
                    }
                    let durable = self.store.wait_durable(committed.lsn, LONG);
                    if !matches!(durable, Ok(true)) {
                        say(&format!("fail {tag} Buffered {} not made durable", committed.lsn));
                        return;
                    }
                }
                say(&format!("ack {tag} {}", committed.lsn));
                self.own += u64::from(tag.mode() != Mode::Contended);
            }
            Ok(CommitOutcome::WrongVersion(wrong)) if tag.mode() == Mode::Contended => {
                drop(wrong);
                say(&format!("refuse {tag}"));
            }
            Ok(CommitOutcome::WrongVersion(wrong)) => say(&format!("fail {tag} Wrong - {wrong}")),
            Err(error) => say_failed(tag, &error),
        }
    }

    fn group(&mut self, first: Tag) {
        let mut tags = vec![first];
        while tags.len() < 3 {
            let next = self.take();
            // A contended one counts in another stream, and its expectation could not be given.
            if next.mode() != Mode::Contended {
                tags.push(next);
            }
        }
        for tag in &tags {
            say(&format!("submit {tag}"));
        }
        let frames = tags.iter().map(|tag| tag.frame()).collect();
        match self.store.append_frames(frames, Durability::Synced) {
            Ok(committed) => {
                for (tag, committed) in tags.iter().zip(committed) {
                    say(&format!("ack {tag} {}", committed.lsn));
                    self.own += 1;
                }
            }
            Err(error) => tags.into_iter().for_each(|tag| say_failed(tag, &error)),
        }
    }
}

fn say_failed(tag: Tag, error: &Error) {
    let written = error.written().map_or("-".to_owned(), |lsn| lsn.to_string());
    say(&format!("fail {tag} {:?} {written} {error}", error.kind()));
    rest_if_dead(error);
}

/// A dead handle commits nothing any more: the thread waits to be killed.
fn rest_if_dead(error: &Error) {
    while error.kind() == ErrorKind::Closed {
        std::thread::park();
    }
}

/// What a reader has read: equal digests mean the same transactions at the same LSNs in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Transactions.
    pub count: u64,
    /// Of all (tag, LSN), in this order.
    pub hash: u64,
}

impl Digest {
    /// Takes one more.
    pub fn add(&mut self, tag: Tag, lsn: Lsn) {
        self.count += 1;
        self.hash = mix(self.hash ^ tag.0) ^ mix(lsn.0);
    }
}

fn read(dir: &str, seed: u64) {
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let told = Arc::clone(&end);
    std::thread::spawn(move || {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).unwrap();
        told.store(line.trim().parse().unwrap_or(0), Ordering::SeqCst);
    });
    let rng = SimRng::new(seed);
    let (mut digest, mut after) = (Digest::default(), Lsn::ZERO);
    loop {
        // Opened again and again: a reader that comes back goes on where it was (E2).
        let store = Options::new().open(dir).unwrap();
        let mut scan = store.scan(after).unwrap();
        let rounds = if rng.chance(1, 2) { u64::MAX } else { rng.below(40) };
        for _ in 0..rounds {
            let stream = read_on(&mut scan, &mut digest);
            after = scan.position();
            if scan.reached().0 >= end.load(Ordering::SeqCst) {
                say(&format!("read {} {:016x}", digest.count, digest.hash));
                return;
            }
            if let Some(stream) = stream.filter(|_| rng.chance(1, 4)) {
                check_stream(&store, &stream);
            }
            scan.wait(Duration::from_millis(20)).unwrap();
        }
    }
}

/// Reads to the durable end; returns the stream met last.
fn read_on(scan: &mut LogScan, digest: &mut Digest) -> Option<String> {
    let (mut last, mut before) = (None, scan.position());
    while let Some(frame) = scan.next().unwrap() {
        assert!(
            frame.lsn() > before || before == Lsn::ZERO,
            "E2: frames are given in LSN order"
        );
        before = frame.lsn();
        if let Some(tag) = Tag::of(&frame) {
            digest.add(tag, frame.lsn());
            last = Some(tag.stream());
        }
    }
    last
}

/// A stream's versions are without gaps, and its events in log order.
fn check_stream(store: &Store, stream: &str) {
    let mut before = Lsn::ZERO;
    for (version, event) in store.read_stream(stream, StreamVersion(0)).unwrap().enumerate() {
        let event = event.unwrap();
        assert_eq!(event.version.0, version as u64, "versions of {stream} have a gap");
        assert!(event.lsn >= before, "events of {stream} are out of log order");
        before = event.lsn;
    }
    assert!(
        before > Lsn::ZERO,
        "E2: {stream} was read in the log and is not found"
    );
}

/// The event of `once`: a number and its low byte, to the length.
#[must_use]
pub fn numbered(number: u64, len: usize) -> Event {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(len.max(payload.len()), number as u8);
    Event::new(&format!("stream-{}", number % 3), "noted", payload).unwrap()
}

fn once(dir: &str, number: u64, len: usize) {
    let committed = Options::new().background(false).open(dir).and_then(|store| {
        let mut transaction = Transaction::new();
        transaction.push(&numbered(number, len))?;
        store.commit(transaction)?.committed()
    });
    match committed {
        Ok(committed) => say(&format!("ack {}", committed.lsn)),
        Err(error) => {
            let fate = match (error.written(), error.transaction()) {
                (Some(lsn), Some(id)) => format!("maybe {lsn} {} {}", id.writer, id.seq),
                _ => "absent".to_owned(),
            };
            say(&format!("fail {:?} {fate} {error}", error.kind()));
        }
    }
}

fn stall(dir: &str, what: &str, prefix: &str, count: u64) {
    let storage = StallingStorage::new(LocalStorage::new(dir.into()), what, prefix, count);
    let store = Options::new()
        .background(false)
        .open_in(Arc::new(storage))
        .unwrap();
    let mut author = Author::new(
        store.clone(),
        Tag::first(255, count, u64::from(std::process::id()) & 0xff),
        true,
    );
    for round in 0..3 {
        author.commit_next();
        author.commit_next();
        if round == 1 {
            store.rotate(0).unwrap();
        }
        store.append_marker().unwrap();
        store.tend().unwrap();
    }
    store.close().unwrap();
    say("done");
}
