//! The queue in a story: what is due is a function of the log, so that every state of the queue can be told right
//! or wrong (Q1, Q2). Every second transaction is due; every eighth has an entry that fills a segment soon.

use std::collections::BTreeMap;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Lsn, Phase, QueueEntry, Result, Store};
use milepost_tests::crash::tag_of_frame;

/// What the witness knows of the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueModel {
    /// The scan position that a sync has returned for.
    synced: Lsn,
    /// Entries up to here may have been freed.
    freed: Lsn,
}

fn is_due(tag: u64) -> bool {
    tag.is_multiple_of(2)
}

fn body(tag: u64, lsn: Lsn) -> Vec<u8> {
    let mut body = [tag.to_le_bytes(), lsn.0.to_le_bytes()].concat();
    if tag.is_multiple_of(8) {
        body.resize(400_000, 0xee);
    }
    body
}

/// Moves what is due of the next `count` frames into the queue.
pub(super) fn feed(store: &Store, count: u8, sync: bool, model: &mut QueueModel) -> Result<()> {
    let lock = store.lock_phase(Phase::Scan)?;
    let mut queue = store.queue_writer(&lock)?;
    let mut scan = store.scan(queue.scanned_through())?;
    let (mut entries, mut through) = (Vec::new(), queue.scanned_through());
    for _ in 0..count {
        let Some(frame) = scan.next()? else { break };
        through = frame.lsn();
        if let Some(tag) = tag_of_frame(&frame).filter(|tag| is_due(*tag)) {
            let body = body(tag, through);
            let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), body);
            entries.push(QueueEntry { lsn: through, frame });
        }
    }
    queue.append(entries, through)?;
    if sync {
        queue.sync()?;
        model.synced = model.synced.max(queue.scanned_through());
    }
    Ok(())
}

/// Frees what lies more than `back` entries before the scan position.
pub(super) fn free(store: &Store, back: u8, model: &mut QueueModel) -> Result<()> {
    let lock = store.lock_phase(Phase::Send)?;
    let mut lsns = entries(store)?;
    lsns.truncate(lsns.len().saturating_sub(usize::from(back)));
    let Some((confirmed, _)) = lsns.last().copied() else {
        return Ok(());
    };
    model.freed = model.freed.max(confirmed);
    store.queue_free(&lock, confirmed).map(drop)
}

/// What the queue holds: LSN in the log and tag of each entry.
fn entries(store: &Store) -> Result<Vec<(Lsn, u64)>> {
    let mut reader = store.queue_reader(Lsn::ZERO)?;
    let mut found = Vec::new();
    while let Some(entry) = reader.next()? {
        let word = |at: usize| {
            let bytes = entry.body().get(at..at + 8).and_then(|bytes| bytes.first_chunk());
            u64::from_le_bytes(*bytes.expect("an entry is as it was written"))
        };
        let (tag, lsn) = (word(0), Lsn(word(8)));
        assert_eq!(entry.body(), body(tag, lsn), "an entry is as it was written");
        found.push((lsn, tag));
    }
    Ok(found)
}

/// Q1: what lies at or before the scan position and is due is in the queue, once, in order, and nothing else;
/// but for what was confirmed (Q2). For who is alone in the store.
pub(super) fn check(store: &Store, model: &mut QueueModel) -> std::result::Result<(), String> {
    let told = |doing: &str| {
        let doing = doing.to_owned();
        move |error| format!("{doing}: {error:?}")
    };
    let lock = store.lock_phase(Phase::Scan).map_err(told("scan phase"))?;
    let queue = store.queue_writer(&lock).map_err(told("queue"))?;
    let scanned = queue.scanned_through();
    if scanned < model.synced {
        return Err(format!(
            "the queue was synced through {}, and now it is at {scanned}",
            model.synced
        ));
    }
    let mut due = BTreeMap::new();
    let mut scan = store.scan(Lsn::ZERO).map_err(told("scan"))?;
    while let Some(frame) = scan.next().map_err(told("scan"))? {
        if frame.lsn() > scanned {
            break;
        }
        if let Some(tag) = tag_of_frame(&frame).filter(|tag| is_due(*tag)) {
            due.insert(frame.lsn(), tag);
        }
    }
    let found = entries(store).map_err(told("queue"))?;
    let first = found.first().map_or(Lsn(u64::MAX), |(lsn, _)| *lsn);
    let expected: Vec<(Lsn, u64)> = due
        .into_iter()
        .filter(|(lsn, _)| *lsn >= first || *lsn > model.freed)
        .collect();
    if found != expected {
        return Err(format!(
            "Q1: through {scanned} due are {expected:?}, in the queue {found:?}, with {model:?}"
        ));
    }
    drop(queue);
    model.synced = scanned;
    Ok(())
}
