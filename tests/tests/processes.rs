//! Several real processes on one store: none can corrupt or hide another's commits, nor block them by
//! dying; a stalled one delays commits by the lock's time limit at most, and reads never (E1, E2, E5).
//!
//! `MILEPOST_KILLS=10000` kills so many processes, and stops one in each operation instead of in some;
//! `MILEPOST_SEED=n` repeats the choices (not the timing) of a run.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code stops at the first surprise"
)]

use std::path::Path;
use std::time::Duration;

use milepost_engine::clock::{Clock, Rng, SystemClock, SystemRng};
use milepost_engine::{ErrorKind, Lsn, Options, Store, StreamVersion, Transaction};
use milepost_tests::SimRng;
use milepost_tests::processes::{Tag, Witness, Worker};

const WRITERS: u64 = 8;
const READERS: u64 = 4;
/// Processes killed on one store before it is judged and another is made: also the everyday run.
const KILLS_OF_A_STORE: u64 = 320;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_store_worker"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn new_store(folder: &Path) -> Store {
    Options::new()
        .segment_bytes(1 << 20)
        .init(folder.join("store"), "bern".parse().unwrap())
        .unwrap()
}

/// A transaction that belongs to no worker.
fn note() -> Transaction {
    let mut transaction = Transaction::new();
    transaction.push_parts("note", "noted", b"").unwrap();
    transaction
}

/// What was killed.
#[derive(Clone, Copy, Debug, Default)]
struct Killed {
    writers: u64,
    readers: u64,
    /// Times that all of them were, at once.
    crowds: u64,
}

impl Killed {
    fn all(self) -> u64 {
        self.writers + self.readers
    }
}

/// The processes on one store.
struct Crowd<'a> {
    store: &'a str,
    rng: SimRng,
    incarnations: u64,
    witness: Witness,
    writers: Vec<Worker>,
    readers: Vec<Worker>,
    killed: Killed,
}

impl<'a> Crowd<'a> {
    fn new(store: &'a str, seed: u64) -> Crowd<'a> {
        let mut crowd = Crowd {
            store,
            rng: SimRng::new(seed),
            incarnations: 0,
            witness: Witness::default(),
            writers: Vec::new(),
            readers: Vec::new(),
            killed: Killed::default(),
        };
        crowd.start();
        crowd
    }

    fn start_writer(&mut self, writer: u64) -> Worker {
        self.incarnations += 1;
        let incarnation = self.incarnations.to_string();
        Worker::start(
            program(),
            &["write", self.store, &writer.to_string(), &incarnation],
        )
    }

    fn start_reader(&mut self) -> Worker {
        Worker::start(program(), &["read", self.store, &self.rng.word().to_string()])
    }

    fn start(&mut self) {
        for writer in 0..WRITERS {
            let worker = self.start_writer(writer);
            self.writers.push(worker);
        }
        for _ in 0..READERS {
            let worker = self.start_reader();
            self.readers.push(worker);
        }
    }

    fn listen(&mut self) {
        for line in self.writers.iter().flat_map(Worker::arrived) {
            self.witness.hear(&line);
        }
    }

    /// Kills one of all, and starts another in its place.
    fn kill_and_replace(&mut self) {
        let victim = self.rng.index(self.writers.len() + self.readers.len());
        if let Some(reader) = victim.checked_sub(self.writers.len()) {
            let next = self.start_reader();
            drop(std::mem::replace(&mut self.readers[reader], next).kill());
            self.killed.readers += 1;
        } else {
            let next = self.start_writer(victim as u64);
            let dead = std::mem::replace(&mut self.writers[victim], next);
            dead.kill().iter().for_each(|line| self.witness.hear(line));
            self.killed.writers += 1;
        }
    }

    fn kill_writers(&mut self) {
        for writer in std::mem::take(&mut self.writers) {
            writer.kill().iter().for_each(|line| self.witness.hear(line));
            self.killed.writers += 1;
        }
    }

    /// All processes at once: the next to open is alone and recovers.
    fn kill_all(&mut self) {
        self.kill_writers();
        for reader in std::mem::take(&mut self.readers) {
            drop(reader.kill());
            self.killed.readers += 1;
        }
        self.killed.crowds += 1;
    }

    /// Kills and replaces processes at random moments; in the first half three times all, so that
    /// readers of the second half see much of it.
    fn suffer(&mut self, kills: u64) {
        while self.killed.all() < kills {
            SystemClock.sleep(Duration::from_micros(self.rng.below(40_000)));
            self.listen();
            if self.killed.crowds < 3 && self.killed.all() > kills * (self.killed.crowds + 1) / 8 {
                self.kill_all();
                self.start();
            } else {
                self.kill_and_replace();
            }
        }
        self.kill_writers();
    }

    /// Compares the store with what was acknowledged: by the readers, which are still in, and by who opens
    /// it alone afterwards.
    fn judge(&mut self) {
        // What the dead left unpublished is repaired by the next append.
        let store = Options::new().open(self.store).unwrap();
        let last = store.commit(note()).unwrap().committed().unwrap();
        let end = store.watermarks().durable;
        assert!(end > last.lsn);
        let judged = self.witness.judge(&store);
        for reader in &mut self.readers {
            reader.tell(&end.to_string());
        }
        for reader in &self.readers {
            let line = reader.next_line().expect("a reader ends only when told");
            assert_eq!(
                line,
                format!("read {} {:016x}", judged.count, judged.hash),
                "E2: a reader saw another log"
            );
        }
        self.readers.clear();
        drop(store);

        // Nobody is in: recovered from the files alone, it is the same log.
        let store = Options::new().open(self.store).unwrap();
        assert_eq!(self.witness.judge(&store), judged);
        for writer in 0..WRITERS {
            assert!(
                self.witness.acknowledged_by(writer) > 0,
                "writer {writer} got nothing done"
            );
        }
    }
}

#[test]
fn acknowledged_transactions_of_killed_writers_are_there_once_in_order_byte_for_byte() {
    let seed = number("MILEPOST_SEED").unwrap_or_else(|| SystemRng.next_u64());
    let wanted = number("MILEPOST_KILLS").unwrap_or(KILLS_OF_A_STORE);
    println!("MILEPOST_SEED={seed}");
    let started = SystemClock.monotonic();
    let (mut stores, mut acknowledged, mut killed) = (0, 0, Killed::default());
    while killed.all() < wanted {
        let folder = tempfile::tempdir().unwrap();
        new_store(folder.path()).close().unwrap();
        let path = folder.path().join("store");
        let mut crowd = Crowd::new(path.to_str().unwrap(), seed.wrapping_add(stores));
        crowd.suffer(KILLS_OF_A_STORE.min(wanted));
        crowd.judge();
        stores += 1;
        acknowledged += crowd.witness.acknowledged();
        killed.writers += crowd.killed.writers;
        killed.readers += crowd.killed.readers;
        killed.crowds += crowd.killed.crowds;
        println!(
            "{} writers and {} readers killed, all at once {} times, on {stores} stores; {acknowledged} \
             acknowledged; {} s",
            killed.writers,
            killed.readers,
            killed.crowds,
            (SystemClock.monotonic() - started).as_secs()
        );
    }
}

/// Reads everything in both ways; reads need no lock that a stopped process could hold.
fn read_all(store: &Store) -> u64 {
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut count = 0;
    while let Some(frame) = scan.next().unwrap() {
        count += u64::from(frame.event_count());
    }
    for event in store.read_stream("note", StreamVersion(0)).unwrap() {
        event.unwrap();
    }
    count
}

#[test]
fn a_stopped_append_holder_is_named_to_others_and_stops_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    drop(new_store(folder.path()));
    let path = folder.path().join("store");
    let store = Options::new()
        .lock_timeout(Duration::from_millis(50))
        .open(&path)
        .unwrap();
    store.commit(note()).unwrap().committed().unwrap();
    // It stops with half of its block written, so it holds the append lock.
    let worker = Worker::start(
        program(),
        &["stall", path.to_str().unwrap(), "write_at", "log/", "2"],
    );
    let mut witness = Witness::default();
    loop {
        let line = worker.next_line().unwrap();
        if line.starts_with("stalled") {
            break;
        }
        witness.hear(&line);
    }
    worker.wait_stopped();

    let before = read_all(&store);
    for _ in 0..3 {
        let error = store.commit(note()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(
            error.written(),
            None,
            "a commit that got no lock is surely absent"
        );
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {} ", worker.id())),
            "the holder is not named: {text}"
        );
        assert_eq!(read_all(&store), before);
    }

    worker.go_on();
    while let Some(line) = worker.next_line() {
        if line == "done" {
            break;
        }
        witness.hear(&line);
    }
    store.commit(note()).unwrap().committed().unwrap();
    assert!(witness.acknowledged() > 1);
    witness.judge(&store);
    assert!(read_all(&store) > before);
}

#[test]
fn a_process_stopped_in_the_middle_of_a_sync_delays_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    drop(new_store(folder.path()));
    let path = folder.path().join("store");
    let store = Options::new().lock_timeout(Duration::ZERO).open(&path).unwrap();
    let worker = Worker::start(
        program(),
        &["stall", path.to_str().unwrap(), "sync_data", "log/", "2"],
    );
    while !worker.next_line().unwrap().starts_with("stalled") {}
    worker.wait_stopped();
    for _ in 0..3 {
        store.commit(note()).unwrap().committed().unwrap();
    }
    assert_eq!(store.watermarks().durable, store.watermarks().appended);
}

/// Lets a worker stop in the `count`th operation of any kind, and kills it there. Returns false when it
/// had no more operations. `within` is called while it stands, with the operation's name.
fn die_in_operation(store: &str, witness: &mut Witness, count: u64, within: impl FnOnce(u32, &str)) -> bool {
    let worker = Worker::start(program(), &["stall", store, "any", "-", &count.to_string()]);
    loop {
        let line = worker.next_line().unwrap();
        if line == "done" {
            return false;
        }
        if line.starts_with("stalled") {
            worker.wait_stopped();
            within(worker.id(), &line);
            worker.kill().iter().for_each(|line| witness.hear(line));
            return true;
        }
        witness.hear(&line);
    }
}

#[test]
fn whatever_operation_a_process_dies_in_the_next_commit_of_another_succeeds_at_its_first_attempt() {
    let folder = tempfile::tempdir().unwrap();
    drop(new_store(folder.path()));
    let path = folder.path().join("store");
    // Without any patience: a lock that is not free at once is an error.
    let store = Options::new().lock_timeout(Duration::ZERO).open(&path).unwrap();
    let patient = Options::new()
        .lock_timeout(Duration::from_millis(1))
        .open(&path)
        .unwrap();
    let mut witness = Witness::default();
    let (mut count, step) = (1 + SystemRng.next_u64() % STRIDE, stride());
    let mut refused = 0;
    loop {
        let while_it_stands = |id: u32, line: &str| {
            read_all(&store);
            if let Err(error) = patient.commit(note()) {
                // Between taking the lock and telling its number a holder has no name.
                let nameless = ["stalled try_lock", "stalled store Append"]
                    .iter()
                    .any(|start| line.starts_with(start));
                let named = nameless || error.to_string().contains(&format!("process {id} "));
                assert!(error.kind() == ErrorKind::Unavailable && named, "{line}: {error}");
                refused += 1;
            }
        };
        if !die_in_operation(path.to_str().unwrap(), &mut witness, count, while_it_stands) {
            break;
        }
        let committed = store
            .commit(note())
            .unwrap_or_else(|error| panic!("operation {count}: {error}"));
        committed.committed().unwrap();
        count += step;
    }
    println!("{count} operations, in {refused} of those tried the append lock was held");
    assert!(refused > 0 || step > 1, "no operation was under the append lock");
    witness.judge(&store);
    drop((store, patient));
    witness.judge(&Options::new().open(&path).unwrap());
}

#[test]
fn whatever_operation_of_opening_alone_a_process_dies_in_the_next_open_finds_all() {
    let folder = tempfile::tempdir().unwrap();
    drop(new_store(folder.path()));
    let path = folder.path().join("store");
    let mut witness = Witness::default();
    let (mut count, step) = (1 + SystemRng.next_u64() % STRIDE, stride());
    while die_in_operation(path.to_str().unwrap(), &mut witness, count, |_, _| {}) {
        let store = Options::new().lock_timeout(Duration::ZERO).open(&path).unwrap();
        store.commit(note()).unwrap().committed().unwrap();
        count += step;
    }
    witness.judge(&Options::new().open(&path).unwrap());
}

/// The everyday run tries one operation in this many, beginning anywhere.
const STRIDE: u64 = 7;

fn stride() -> u64 {
    if number("MILEPOST_KILLS").is_some() {
        1
    } else {
        STRIDE
    }
}

#[test]
fn a_tag_decides_every_byte_of_its_transaction() {
    let tags: Vec<Tag> = (0..3).map(|thread| Tag::first(1, 2, thread)).collect();
    for tag in &tags {
        assert_eq!(tag.events(), tag.to_string().parse::<Tag>().unwrap().events());
        assert_ne!(tag.events(), tag.next().events());
    }
    assert_ne!(tags[0].author(), tags[1].author());
}

/// What a witness that heard `lines` says of a log that holds `tags`; `AT` in a line is the LSN of the
/// first.
fn verdict(tags: &[Tag], lines: &[&str]) -> std::thread::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let store = new_store(folder.path());
    let frames = tags.iter().map(|tag| tag.frame()).collect();
    let committed = store
        .append_frames(frames, milepost_engine::Durability::Synced)
        .unwrap();
    let mut witness = Witness::default();
    for line in lines {
        let line = line
            .replace("TAG", &tags[0].to_string())
            .replace("AT", &committed[0].lsn.to_string());
        witness.hear(&line);
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        witness.judge(&store);
    }))
}

#[test]
fn the_witness_finds_what_is_lost_doubled_refused_elsewhere_or_foreign() {
    let tag = Tag::first(1, 1, 1);
    let (submit, ack) = ("submit TAG", "ack TAG AT");
    let submit_other = format!("submit {}", tag.next());
    let ack_other = format!("ack {} 100000", tag.next());
    assert!(verdict(&[tag], &[submit, ack]).is_ok());
    assert!(
        verdict(&[tag], &[submit]).is_ok(),
        "killed before the acknowledgement"
    );
    assert!(
        verdict(&[tag], &[submit, ack, &submit_other]).is_ok(),
        "killed before the commit"
    );
    assert!(
        verdict(&[tag], &[submit, ack, &submit_other, &ack_other]).is_err(),
        "lost"
    );
    assert!(verdict(&[tag, tag], &[submit, ack]).is_err(), "doubled");
    assert!(verdict(&[tag], &[submit, "refuse TAG"]).is_err(), "refused");
    assert!(verdict(&[tag], &[submit, "ack TAG 8"]).is_err(), "elsewhere");
    assert!(verdict(&[tag], &[]).is_err(), "foreign");
}
