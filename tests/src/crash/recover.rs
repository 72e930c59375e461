//! What happens after a snapshot: power is lost or every process dies, the store is opened, checked,
//! worked with, and hit again, up to three times in a row.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use milepost_engine::{CommitOutcome, Durability, Error, ErrorKind, Store};

use crate::SimRng;
use crate::disk::{Director, Killed, Op, SimDisk, SimProcess, Verdict};

use super::actor::{Habits, options, panic_text};
use super::check::check;
use super::model::{Fate, Model, draw_transaction};
use super::queue;
use super::space::{Housekeeper, Trouble};

/// Disasters in a row.
const IN_A_ROW: u32 = 3;

/// Lives through one chain of disasters; returns the number of crash states seen and a hash of all that
/// happened.
pub fn survive(moment: &SimDisk, model: &Model, rng: &SimRng, habits: &Habits) -> Result<(u64, u64), String> {
    let (mut model, mut states) = (model.clone(), 0);
    let mut disk = disaster(moment, rng);
    for round in 0..IN_A_ROW {
        states += 1;
        let again = round + 1 < IN_A_ROW && rng.chance(1, 2);
        if again && rng.chance(1, 2) && interrupt(&disk, rng, habits)? {
            disk = disaster(&disk.snapshot(), rng);
            continue;
        }
        let work = again.then_some(rng);
        visit(&disk, &mut model, rng, habits, work)?;
        if !again {
            break;
        }
        disk = disaster(&disk.snapshot(), rng);
    }
    Ok((states, disk.trace()))
}

/// Power is lost; or only all processes are, and the page cache stays with what no disk may have.
fn disaster(moment: &SimDisk, rng: &SimRng) -> SimDisk {
    if rng.chance(1, 6) {
        moment.snapshot()
    } else {
        moment.crash(rng)
    }
}

/// Kills a process inside recovery; false when recovery was faster.
fn interrupt(disk: &SimDisk, rng: &SimRng, habits: &Habits) -> Result<bool, String> {
    let process = disk.directed(Arc::new(KilledSoon::after(rng.below(10))));
    let opened = open(&process, rng, habits)?;
    let died = !process.is_alive();
    drop(opened);
    process.kill();
    Ok(died)
}

fn visit(
    disk: &SimDisk,
    model: &mut Model,
    rng: &SimRng,
    habits: &Habits,
    work: Option<&SimRng>,
) -> Result<(), String> {
    let killer = Arc::new(KilledSoon::never());
    let process = disk.directed(Arc::clone(&killer) as _);
    let store = open(&process, rng, habits)?.map_err(|error| format!("open after a crash: {error:?}"))?;
    guarded(|| check(&store, model))??;
    if habits.space.scans {
        guarded(|| queue::check(&store, model, habits.space.retention))??;
    }
    let Some(rng) = work else { return Ok(()) };
    if rng.chance(1, 3) {
        killer.arm(rng.below(60));
    }
    let visitor = Visitor {
        process: &process,
        store: &store,
        rng,
        habits,
    };
    let worked = std::panic::catch_unwind(AssertUnwindSafe(|| visitor.work(model)));
    match worked {
        _ if !process.is_alive() => return Ok(()),
        Ok(worked) => worked?,
        Err(payload) => return Err(format!("a panic after recovery: {}", panic_text(&*payload))),
    }
    if rng.chance(1, 3) {
        let closed = guarded(|| store.close())?;
        if process.is_alive() {
            closed.map_err(|error| format!("close after a crash: {error:?}"))?;
        }
    }
    process.kill();
    Ok(())
}

/// Who opened the store after a crash and works there, alone.
struct Visitor<'a> {
    process: &'a SimProcess,
    store: &'a Store,
    rng: &'a SimRng,
    habits: &'a Habits,
}

impl Visitor<'_> {
    fn work(&self, model: &mut Model) -> Result<(), String> {
        let rng = self.rng;
        for _ in 0..rng.below(4) {
            self.commit(model)?;
        }
        if rng.chance(1, 4) {
            let rolled = self.store.rotate(0);
            self.alive_and("rotate", rolled.map(drop))?;
        }
        if self.habits.space.often > 0 {
            for _ in 0..rng.below(5) {
                self.keep(model)?;
            }
        }
        Ok(())
    }

    fn commit(&self, model: &mut Model) -> Result<(), String> {
        let rng = self.rng;
        let tag = model.submit(|tag| draw_transaction(rng, tag, 3000));
        let durability = *rng.pick(&[Durability::Synced, Durability::Buffered]);
        let transaction = model.known[tag as usize].content.transaction();
        let committed = self
            .store
            .commit_with(transaction, durability)
            .and_then(CommitOutcome::committed);
        match committed {
            _ if !self.process.is_alive() => Ok(()),
            Ok(committed) if durability == Durability::Synced => {
                model.settle(tag, Fate::Durable(committed.lsn.0))
            }
            Ok(committed) => model.settle(tag, Fate::Buffered(committed.lsn.0)),
            Err(error) if self.is_limit(&error) => model.settle(tag, Fate::Absent),
            Err(error) => Err(format!("commit after a crash: {error:?}")),
        }
    }

    fn keep(&self, model: &mut Model) -> Result<(), String> {
        let shared = Mutex::new(std::mem::take(model));
        let keeper = Housekeeper {
            store: self.store,
            process: self.process,
            model: &shared,
            rng: self.rng,
            habits: &self.habits.space,
            number: 0,
        };
        let done = keeper.work();
        *model = shared.into_inner().unwrap();
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Broken(text)) => Err(format!("after a crash: {text}")),
            Err(Trouble::Failed(doing, error)) => self.alive_and(doing, Err(error)),
        }
    }

    /// What nobody but a killed process may be told.
    fn alive_and(&self, doing: &str, done: Result<(), Error>) -> Result<(), String> {
        match done {
            Err(error) if self.process.is_alive() && !self.is_limit(&error) => {
                Err(format!("{doing} after a crash: {error:?}"))
            }
            _ => Ok(()),
        }
    }

    fn is_limit(&self, error: &Error) -> bool {
        // Without an archive there is nothing to move.
        (self.habits.space.limit > 0 && error.kind() == ErrorKind::Full && error.written().is_none())
            || error.kind() == ErrorKind::Unavailable
    }
}

fn open(process: &SimProcess, rng: &SimRng, habits: &Habits) -> Result<Result<Store, Error>, String> {
    let options = options(process, rng, habits);
    match std::panic::catch_unwind(AssertUnwindSafe(|| options.open_in(process.storage()))) {
        Ok(opened) => Ok(opened),
        Err(payload) if payload.is::<Killed>() => Ok(Err(Error::closed("the process was killed"))),
        Err(payload) => Err(format!("open panicked: {}", panic_text(&*payload))),
    }
}

fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| format!("a panic after recovery: {}", panic_text(&*payload)))
}

/// Kills its process at a change soon to come, once it is armed.
struct KilledSoon {
    changes_left: Mutex<Option<u64>>,
}

impl KilledSoon {
    fn after(changes: u64) -> KilledSoon {
        KilledSoon {
            changes_left: Mutex::new(Some(changes)),
        }
    }

    fn never() -> KilledSoon {
        KilledSoon {
            changes_left: Mutex::new(None),
        }
    }

    fn arm(&self, changes: u64) {
        *self.changes_left.lock().unwrap() = Some(changes);
    }
}

impl Director for KilledSoon {
    fn before(&self, op: &Op) -> Verdict {
        let mut left = self.changes_left.lock().unwrap();
        let Some(left) = left.as_mut().filter(|_| op.kind.is_change()) else {
            return Verdict::Go;
        };
        if *left == 0 {
            return Verdict::KillAfter(op.len / 16 * 8);
        }
        *left -= 1;
        Verdict::Go
    }
}
