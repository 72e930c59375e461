//! The scan phase of a run: an entry of the stable queue for every frame of the workload, and what of them must be
//! there (Q1).

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{ErrorKind, Lsn, Phase, QueueEntry, Retention, Store};

use super::check::tag_of_frame;
use super::model::{Fate, Model};
use super::space::{Deed, Housekeeper, Trouble, failed};

/// Scans on, at most a few frames; its position is durable or not when it ends.
pub(super) fn enqueue(keeper: &Housekeeper<'_>) -> Deed {
    let (store, rng) = (keeper.store, keeper.rng);
    let lock = match store.lock_phase(Phase::Scan) {
        // Another process has the phase.
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
        lock => lock.map_err(failed("lock_phase"))?,
    };
    let mut queue = store.queue_writer(&lock).map_err(failed("queue_writer"))?;
    let mut scan = store.scan(queue.scanned_through()).map_err(failed("scan"))?;
    for _ in 0..rng.below(60) {
        let seen = match scan.next().map_err(failed("scan"))? {
            Some(frame) => tag_of_frame(&frame).map(|tag| (tag, frame.lsn())),
            None => break,
        };
        let (entries, through) = match seen {
            Some((tag, lsn)) => {
                let body = [tag.to_le_bytes(), lsn.0.to_le_bytes()].concat();
                let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), body);
                keeper.tell(|model| model.see(tag, lsn.0))?;
                (vec![QueueEntry { lsn, frame }], lsn)
            }
            None => (Vec::new(), scan.position()),
        };
        queue.append(entries, through).map_err(failed("queue append"))?;
    }
    if rng.chance(2, 3) {
        queue.sync().map_err(failed("queue sync"))?;
        let through = queue.scanned_through();
        keeper.tell(|model| {
            model.kept.queued = model.kept.queued.max(through.0);
            Ok(())
        })?;
    }
    Ok(())
}

/// Q1: whatever the scan has passed is in the queue, in order and once, and whatever was freed has been passed.
///
/// # Errors
/// The first entry that is missing or should not be there.
pub(super) fn check(store: &Store, model: &mut Model, retention: Retention) -> Result<(), String> {
    let told = |error| format!("queue: {error:?}");
    let (scanned, begins) = (store.watermarks().scanned.0, store.oldest().map_err(told)?.0);
    if scanned < model.kept.queued {
        return Err(format!(
            "the queue was on disk through {}, and it is at {scanned}",
            model.kept.queued
        ));
    }
    let mut reader = match store.queue_reader(Lsn::ZERO) {
        Err(error) if error.kind() == ErrorKind::Corrupt && model.cache_lost => return Ok(()),
        reader => reader.map_err(told)?,
    };
    let mut found = Vec::<(u64, u64)>::new();
    while let Some(entry) = reader.next().map_err(told)? {
        let words: Vec<u64> = entry.body().chunks_exact(8).map(word).collect();
        let &[tag, lsn] = words.as_slice() else {
            return Err("an entry of the queue is not what was written".to_owned());
        };
        if found.last().is_some_and(|(last, _)| *last >= lsn) || lsn > scanned {
            return Err(format!(
                "the queue holds {lsn} behind {:?}, scanned {scanned}",
                found.last()
            ));
        }
        found.push((lsn, tag));
    }
    // A scan that begins over a log that was freed has nothing of what was.
    let since = match (retention, found.first()) {
        (Retention::UntilScanned, _) => 0,
        (_, Some((first, _))) => *first,
        (_, None) => u64::MAX,
    };
    for (tag, known) in model.known.iter().enumerate() {
        let Fate::Durable(lsn) = known.fate else { continue };
        let due = lsn >= since && (lsn <= scanned || lsn < begins) && !known.is_marker();
        let there = found.binary_search(&(lsn, tag as u64)).is_ok();
        if due && !there {
            return Err(format!(
                "Q1: transaction {tag} at LSN {lsn} is not in the queue; scanned {scanned}, the log begins at {begins}"
            ));
        }
    }
    for (lsn, tag) in found {
        model.see(tag, lsn)?;
    }
    model.kept.queued = scanned;
    Ok(())
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl From<String> for Trouble {
    fn from(text: String) -> Trouble {
        Trouble::Broken(text)
    }
}
