//! Every fault at every operation: a fixed story over the simulated disk is told again and again, each time
//! with one operation that fails.
//!
//! ```text
//! init ─ commits ─ roll ─ spare, sidecar ─ roll onto the spare ─ reads ─ queue ─ close ─ open ─ commits ─ death ─ open
//!          k-th operation: no space, EIO, a write that falls short ─► told as what it is, or made good
//!                          or its process is killed                ─► another goes on
//! then: every process dies, or power is lost; the store holds what it acknowledged, whole and once (E1, E2)
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    CommitOutcome, Durability, Error, ErrorKind, Lsn, Phase, QueueEntry, Store, StreamVersion, TransactionId,
};

use crate::SimRng;
use crate::disk::{Director, EIO, ENOSPC, Op, OpKind, Profile, SimDisk, SimProcess, Verdict};

use super::actor::{Habits, options};
use super::check::check;
use super::model::{Content, Fate, Known, Model, STREAMS, draw_transaction};
use super::space::SpaceHabits;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No space; of a write, so many eighths got in before.
    NoSpace(u64),
    /// Input/output error; of a write, so many eighths got in before.
    Broken(u64),
    /// A write puts so many eighths down and says so.
    Short(u64),
    /// The process is killed; in a write, after so many eighths.
    Death(u64),
}

impl Fault {
    /// All that are tried.
    pub const ALL: [Fault; 10] = [
        Fault::NoSpace(0),
        Fault::NoSpace(5),
        Fault::NoSpace(8),
        Fault::Broken(0),
        Fault::Broken(5),
        Fault::Broken(8),
        Fault::Short(0),
        Fault::Short(5),
        Fault::Death(0),
        Fault::Death(5),
    ];

    /// What becomes of an operation; `None` when the operation cannot fail so.
    #[must_use]
    pub fn verdict(self, op: &Op) -> Option<Verdict> {
        use OpKind::{Allocate, Cells, CreateDir, Open, Rename, SetLen, SyncDir, Write};
        let makes = matches!(
            op.kind,
            Allocate | Cells | CreateDir | Open | Rename | SetLen | SyncDir | Write
        );
        let (errno, eighths) = match self {
            Fault::Short(eighths) if op.kind == Write => return Some(Verdict::Short(op.len * eighths / 8)),
            Fault::Death(0) if op.kind.is_change() => return Some(Verdict::Kill),
            Fault::Death(eighths) if op.kind == Write => {
                return Some(Verdict::KillAfter(op.len * eighths / 8));
            }
            Fault::NoSpace(eighths) if makes => (ENOSPC, eighths),
            Fault::Broken(eighths) if !op.kind.is_cell() && op.kind != OpKind::Pause => (EIO, eighths),
            _ => return None,
        };
        let applied = op.len * eighths / 8;
        (op.kind == Write || eighths == 0).then_some(Verdict::Fail { errno, applied })
    }

    /// Kinds of errors that tell it.
    fn is_told_by(self, kind: ErrorKind, op: OpKind) -> bool {
        let syncs = matches!(op, OpKind::SyncData | OpKind::SyncDir);
        match (self, kind) {
            (Fault::NoSpace(_) | Fault::Short(_), ErrorKind::Full) => true,
            (Fault::NoSpace(_), ErrorKind::Closed) => syncs,
            (Fault::Broken(_), kind) => matches!(kind, ErrorKind::Internal | ErrorKind::Closed),
            _ => false,
        }
    }
}

/// Lets one operation fail, and notes which it was.
struct Nth {
    fault: Fault,
    at: u64,
    seen: AtomicU64,
    hit: Mutex<Option<Op>>,
}

impl Director for Nth {
    fn before(&self, op: &Op) -> Verdict {
        let Some(verdict) = self.fault.verdict(op) else {
            return Verdict::Go;
        };
        if self.seen.fetch_add(1, Ordering::Relaxed) != self.at {
            return Verdict::Go;
        }
        *self.hit.lock().unwrap() = Some(op.clone());
        verdict
    }
}

/// What became of the faults, by kind of operation: how many, and how many of them were told.
pub type Told = BTreeMap<OpKind, (u64, u64)>;

/// Tells the story with each `step`-th operation failing, from the one of number `first` on.
///
/// # Errors
/// The first story that ended badly, with fault and operation.
pub fn every_fault(fault: Fault, pad_to: usize, first: u64, step: u64) -> Result<Told, String> {
    let mut told = Told::new();
    for at in (first..).step_by(step as usize) {
        let nth = Arc::new(Nth {
            fault,
            at,
            seen: AtomicU64::new(0),
            hit: Mutex::new(None),
        });
        let mut story = Story::new(Arc::clone(&nth), pad_to);
        let outcome = story.tell().and_then(|()| story.after());
        let hit = nth.hit.lock().unwrap().clone();
        let named = |text| format!("{fault:?} at operation {at}, {hit:?}: {text}");
        outcome.map_err(named)?;
        let Some(op) = hit else { break };
        let count = told.entry(op.kind).or_default();
        *count = (count.0 + 1, count.1 + u64::from(story.errors > 0));
    }
    Ok(told)
}

type Step<T = ()> = Result<T, String>;

struct Story {
    nth: Arc<Nth>,
    disk: SimDisk,
    rng: SimRng,
    habits: Habits,
    model: Model,
    process: SimProcess,
    store: Option<Store>,
    /// Commits that may exist, to be asked for by their ids.
    maybe: Vec<(u64, TransactionId, Lsn)>,
    errors: u64,
    /// True once the machine was looked at right behind the fault.
    looked: bool,
}

impl Story {
    fn new(nth: Arc<Nth>, pad_to: usize) -> Story {
        let profile = if pad_to > 1 {
            Profile::Garbage4096
        } else {
            Profile::Posix
        };
        let disk = SimDisk::like(profile, 1);
        Story {
            process: disk.directed(Arc::clone(&nth) as _),
            disk,
            nth,
            rng: SimRng::new(1),
            habits: Habits {
                largest: 100,
                buffered: 0,
                deeds: 0,
                pad_to,
                block_bytes: 64 << 10,
                space: SpaceHabits::default(),
            },
            model: Model::default(),
            store: None,
            maybe: Vec::new(),
            errors: 0,
            looked: false,
        }
    }

    fn tell(&mut self) -> Step {
        self.init()?;
        for (len, durability) in [
            (10, Durability::Synced),
            (90, Durability::Buffered),
            (700, Durability::Synced),
        ] {
            self.commit(len, durability)?;
        }
        // The segment is half full: a spare is made, then a roll allocates, then one takes the spare.
        for _ in 0..2 {
            self.commit(400_000, Durability::Synced)?;
            self.with("tend", Store::tend)?;
        }
        self.commit(400_000, Durability::Synced)?;
        self.commit(20, Durability::Buffered)?;
        self.with("rotate", |store| store.rotate(0).map(drop))?;
        self.commit(30, Durability::Synced)?;
        self.with("tend", Store::tend)?;
        self.read()?;
        self.queue()?;
        self.close()?;
        self.commit(40, Durability::Synced)?;
        self.commit(50, Durability::Buffered)?;
        // Dies with a commit un-synced; the next life recovers.
        self.die();
        self.commit(60, Durability::Synced)?;
        self.close()
    }

    /// A failure that is told as what it was; handles that say they are dead are left.
    fn judge(&mut self, doing: &str, error: &Error) -> Step {
        self.errors += 1;
        if !self.process.is_alive() {
            self.die();
            return Ok(());
        }
        let Some(op) = self.nth.hit.lock().unwrap().clone() else {
            return Err(format!("{doing} failed without a fault: {error:?}"));
        };
        if error.kind() == ErrorKind::Closed {
            self.die();
        }
        match self.nth.fault.is_told_by(error.kind(), op.kind) && self.errors <= 1 {
            true => Ok(()),
            false => Err(format!(
                "{doing} says {error:?}, failure {} of this story",
                self.errors
            )),
        }
    }

    fn die(&mut self) {
        self.process.kill();
        self.store = None;
        self.process = self.disk.directed(Arc::clone(&self.nth) as _);
    }

    fn init(&mut self) -> Step {
        let made = self
            .options()
            .init_in(self.process.storage(), "bern".parse().unwrap());
        match made {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                self.judge("init", &error)?;
                self.die();
                let opened = self.options().open_in(self.process.storage());
                let made = match opened {
                    Err(error) if error.kind() == ErrorKind::NoStore => self
                        .options()
                        .init_in(self.process.storage(), "bern".parse().unwrap()),
                    other => other,
                };
                self.store = Some(made.map_err(|error| format!("init after a failed one: {error:?}"))?);
            }
        }
        Ok(())
    }

    /// The store, opened again when its handle was left.
    fn store(&mut self) -> Step<Store> {
        if !self.looked && self.nth.hit.lock().unwrap().is_some() {
            self.looked = true;
            self.look()?;
        }
        for _ in 0..2 {
            if let Some(store) = &self.store {
                return Ok(store.clone());
            }
            match self.options().open_in(self.process.storage()) {
                Ok(store) => self.store = Some(store),
                Err(error) => {
                    self.judge("open", &error)?;
                    self.die();
                }
            }
        }
        self.store.clone().ok_or("the store does not open".to_owned())
    }

    fn with(&mut self, doing: &str, work: impl FnOnce(&Store) -> milepost_engine::Result<()>) -> Step {
        let store = self.store()?;
        match work(&store) {
            Ok(()) => Ok(()),
            Err(error) => self.judge(doing, &error),
        }
    }

    /// Commits, and says so to the model; what fails is asked for by its id at the end.
    fn commit(&mut self, len: u64, durability: Durability) -> Step {
        let store = self.store()?;
        let rng = SimRng::new(len);
        let tag = self.model.submit(|tag| match draw_transaction(&rng, tag, 100) {
            Content::Transaction {
                mut events, pinned, ..
            } => {
                events[0].payload.resize(8 + len as usize, 7);
                Content::Transaction {
                    events,
                    pinned,
                    expected: None,
                }
            }
            other => other,
        });
        let transaction = self.model.known[tag as usize].content.transaction();
        let fate = match store
            .commit_with(transaction, durability)
            .and_then(CommitOutcome::committed)
        {
            Ok(committed) if durability == Durability::Synced => Fate::Durable(committed.lsn.0),
            Ok(committed) => Fate::Buffered(committed.lsn.0),
            Err(error) => {
                let heard = self.process.is_alive();
                self.judge("commit", &error)?;
                if !heard {
                    return Ok(());
                }
                match (error.written(), error.transaction()) {
                    (Some(lsn), Some(id)) => {
                        self.maybe.push((tag, id, lsn));
                        Fate::Maybe(lsn.0)
                    }
                    (Some(_), None) => return Err(format!("no id to ask by: {error:?}")),
                    (None, _) => Fate::Absent,
                }
            }
        };
        self.model.settle(tag, fate)
    }

    fn read(&mut self) -> Step {
        self.with("read", |store| {
            let mut scan = store.scan(Lsn::ZERO)?;
            while scan.next()?.is_some() {}
            for stream in STREAMS {
                store
                    .read_stream(stream, StreamVersion(0))?
                    .try_for_each(|event| event.map(drop))?;
            }
            Ok(())
        })
    }

    /// Two entries for what is in the log; nothing of the log depends on them.
    fn queue(&mut self) -> Step {
        self.with("queue", |store| {
            let lock = store.lock_phase(Phase::Scan)?;
            let mut queue = store.queue_writer(&lock)?;
            let (mut scan, mut lsns) = (store.scan(queue.scanned_through())?, Vec::new());
            while let Some(frame) = scan.next()? {
                lsns.push(frame.lsn());
            }
            for lsn in lsns.into_iter().take(2) {
                let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![1; 100]);
                queue.append(vec![QueueEntry { lsn, frame }], lsn)?;
            }
            queue.sync()
        })
    }

    fn close(&mut self) -> Step {
        let store = self.store()?;
        self.store = None;
        if let Err(error) = store.close() {
            self.judge("close", &error)?;
        }
        self.die();
        Ok(())
    }

    fn after(&mut self) -> Step {
        self.die();
        self.look()
    }

    /// What would be there if every process died now, or power were lost.
    fn look(&self) -> Step {
        let rng = SimRng::new(9);
        let left = self.disk.snapshot();
        for disk in [left.snapshot(), left.crash(&rng)] {
            let mut model = self.model.clone();
            let process = disk.start();
            let options = options(&process, &rng, &self.habits);
            let store = options.open_in(process.storage());
            let kind = store.as_ref().err().map(Error::kind);
            let acknowledged = |known: &Known| matches!(known.fate, Fate::Durable(_));
            if kind == Some(ErrorKind::NoStore) && !model.known.iter().any(acknowledged) {
                continue;
            }
            let store = store.map_err(|error| format!("open afterwards: {error:?}"))?;
            check(&store, &mut model)?;
            for (tag, id, lsn) in &self.maybe {
                let told = store.is_committed(*id, *lsn);
                let there = matches!(model.known[*tag as usize].fate, Fate::Durable(_));
                if !matches!(told, Ok(told) if told == there) {
                    return Err(format!(
                        "transaction {tag} is there: {there}; asked by its id: {told:?}"
                    ));
                }
            }
            let damage = store.verify(&mut |_, _| ()).map(|found| found.damage);
            if !matches!(&damage, Ok(damage) if damage.is_empty()) {
                return Err(format!("damage afterwards: {damage:?}"));
            }
        }
        Ok(())
    }

    fn options(&self) -> milepost_engine::Options {
        options(&self.process, &self.rng, &self.habits)
    }
}
