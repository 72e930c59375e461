//! What happens after a snapshot: power is lost or every process dies, the store is opened, checked,
//! worked with, and hit again, up to three times in a row.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use milepost_engine::{CommitOutcome, Durability, Error, Store};

use crate::SimRng;
use crate::disk::{Director, Killed, Op, SimDisk, SimProcess, Verdict};

use super::actor::{Habits, options, panic_text};
use super::check::check;
use super::model::{Fate, Model, draw_transaction};

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
    let process = disk.directed(Arc::new(KilledSoon {
        changes_left: Mutex::new(rng.below(10)),
    }));
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
    let process = disk.start();
    let store = open(&process, rng, habits)?.map_err(|error| format!("open after a crash: {error:?}"))?;
    guarded(|| check(&store, model))??;
    let Some(rng) = work else { return Ok(()) };
    guarded(|| commit_more(&store, model, rng))??;
    if rng.chance(1, 3) {
        guarded(|| store.close())?.map_err(|error| format!("close after a crash: {error:?}"))?;
    }
    process.kill();
    Ok(())
}

fn commit_more(store: &Store, model: &mut Model, rng: &SimRng) -> Result<(), String> {
    for _ in 0..rng.below(4) {
        let tag = model.submit(|tag| draw_transaction(rng, tag, 3000));
        let durability = *rng.pick(&[Durability::Synced, Durability::Buffered]);
        let transaction = model.known[tag as usize].content.transaction();
        let committed = store
            .commit_with(transaction, durability)
            .and_then(CommitOutcome::committed);
        let lsn = committed
            .map_err(|error| format!("commit after a crash: {error:?}"))?
            .lsn
            .0;
        let fate = if durability == Durability::Synced {
            Fate::Durable(lsn)
        } else {
            Fate::Buffered(lsn)
        };
        model.settle(tag, fate)?;
    }
    if rng.chance(1, 4) {
        store
            .rotate(0)
            .map_err(|error| format!("rotate after a crash: {error:?}"))?;
    }
    Ok(())
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

/// Kills its process at a change soon to come.
struct KilledSoon {
    changes_left: Mutex<u64>,
}

impl Director for KilledSoon {
    fn before(&self, op: &Op) -> Verdict {
        if !op.kind.is_change() {
            return Verdict::Go;
        }
        let mut left = self.changes_left.lock().unwrap();
        if *left == 0 {
            return Verdict::KillAfter(op.len / 16 * 8);
        }
        *left -= 1;
        Verdict::Go
    }
}
