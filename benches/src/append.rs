//! Append: one thread, batches of 1,000 events, each batch durable before the next. Limit: the bytes that
//! Milepost wrote for them, by pwrite into a zero-filled file, an fdatasync after every batch.

use std::time::Duration;

use milepost_engine::{Options, Store};

use crate::contest::Contest;
use crate::limits;
use crate::peers::{Peer, Plan};
use crate::report::{Group, Report};
use crate::workload::{Payloads, batches, timed};
use crate::{Outcome, Run, enter, open_peers};

const STEP: &str = "append";

/// Measures durable batches.
///
/// # Errors
/// What the engine or the system says.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let (events, payload) = (run.events(10_000, 200_000), run.payload.unwrap_or(128));
    let batch = usize::try_from(run.batch.unwrap_or(1_000).max(1))?;
    let payloads = Payloads::new(events, payload);
    let store = Options::new().init(run.path("append"), "bench".parse()?)?;
    // The bytes of a round, for the limit, from a round that does not count.
    append(&store, &payloads, batch)?;
    let end = store.watermarks().durable;
    let bytes = limits::log_bytes(&store, milepost_engine::Lsn::ZERO, end)?;
    let syncs = payloads.batches(batch).count();
    let raw = run.path("raw");
    let plan = Plan {
        events,
        bytes: events * u64::try_from(payload * (run.rounds + 1))?,
        durable: true,
    };
    let warm = |peer: &dyn Peer| {
        let took = append_peer(peer, &payloads, events.div_ceil(10), batch)?;
        Ok(Some(took * 10))
    };
    let opened = open_peers(run, STEP, plan, warm, report);
    let mut contest = Contest::new();
    contest.milepost(|| append(&store, &payloads, batch));
    contest.limit(|| limits::write_all(&raw, &bytes, u64::try_from(syncs)?));
    let payloads = &payloads;
    enter(&mut contest, &opened, events, move |peer, events| {
        append_peer(peer, payloads, events, batch)
    });
    let series = contest.run(run.rounds)?;
    report.note(format!(
        "append: {events} events a round in batches of {batch}, each durable before the next, one round before that \
         does not count; limit: pwrite and fdatasync of the same bytes, zero-filled file"
    ));
    let case = format!("{payload}-byte payloads, batches of {batch}, one thread");
    let group = Group::new(STEP, case, payload, events, u64::try_from(bytes.len())?);
    report.add(group, &series);
    drop(opened);
    crate::clear(&run.folder)
}

fn append(store: &Store, payloads: &Payloads, batch: usize) -> Outcome<Duration> {
    let (outcome, took) = timed(|| {
        payloads.batches(batch).try_for_each(|range| {
            let transaction = payloads.transaction(range)?;
            store.commit(transaction)?.committed().map(|_| ())
        })
    });
    outcome?;
    Ok(took)
}

fn append_peer(peer: &dyn Peer, payloads: &Payloads, events: u64, batch: usize) -> Outcome<Duration> {
    let count = usize::try_from(events)?;
    let (outcome, took) = timed(|| {
        batches(count, batch).try_for_each(|range| {
            let events: Vec<&[u8]> = payloads.range(range).collect();
            peer.append(&events)
        })
    });
    outcome?;
    Ok(took)
}
