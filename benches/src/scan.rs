//! Scan: every block verified, every event visited, the first byte of each payload read. Limit: one CRC-32 of each
//! block, resident in the same kind of mapping, at boundaries that are known before, and nothing else.
//!
//! Two kinds of log: full blocks, for several sizes of payload; and lone commits, one event in a block of its
//! own, whose limit is the checksum of one event after the other. `verify` over the same full blocks stands beside
//! the scan, which finds its pages mapped, and the first scan of a handle, which maps them.

use std::time::Duration;

use milepost_engine::block::Block;
use milepost_engine::{Durability, Lsn, Options, Store};

use crate::contest::Contest;
use crate::limits;
use crate::peers::{Peer, Plan};
use crate::report::{Group, Report};
use crate::workload::{Payloads, Seen, Workload, timed};
use crate::{Outcome, Run, enter, open_peers};

const STEP: &str = "scan";
/// Payloads whose figures the goals name.
const PAYLOADS: [usize; 4] = [64, 128, 256, 1_024];
/// The payload at which peers take part.
const WITH_PEERS: usize = 128;

/// Measures scans of logs of the workload.
///
/// # Errors
/// What the engine or the system says, and when a scan missed an event.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let payloads = run.payload.map_or(PAYLOADS.to_vec(), |one| vec![one]);
    let events = run.events(20_000, 1_000_000);
    for payload in payloads {
        let workload = Workload::new(events, payload, run.batch.unwrap_or(100));
        let with_peers = payload == WITH_PEERS || run.payload.is_some();
        full_blocks(run, &workload, with_peers, report)?;
        crate::clear(&run.folder)?;
    }
    let payload = run.payload.unwrap_or(WITH_PEERS);
    lone_commits(run, &Workload::new(events / 5, payload, 1), report)?;
    crate::clear(&run.folder)
}

fn full_blocks(run: &Run, workload: &Workload, with_peers: bool, report: &mut Report) -> Outcome<()> {
    let store = workload.store(&run.path("scan"), |number| format!("orders/{}", number % 1_000))?;
    let windows = limits::mapped_log(&store)?;
    let lengths = limits::block_lengths(&windows)?;
    let payloads = Payloads::new(workload.events, workload.payload);
    let expected = payloads.seen();
    let opened = if with_peers {
        let fill = |peer: &dyn Peer| fill(peer, &payloads).map(|()| None);
        let plan = Plan {
            events: workload.events,
            bytes: workload.events * u64::try_from(workload.payload)?,
            durable: false,
        };
        open_peers(run, STEP, plan, fill, report)
    } else {
        Vec::new()
    };
    let mut contest = Contest::new();
    contest.milepost(|| verified(&store, expected));
    contest.limit(|| Ok(limits::checksum_blocks(&windows, &lengths)));
    enter(&mut contest, &opened, workload.events, move |peer, _| {
        peer.rewind()?;
        let (seen, took) = timed(|| peer.scan());
        seen?.expect(expected)?;
        Ok(took)
    });
    let series = contest.run(run.rounds)?;
    let bytes = store.watermarks().durable.0;
    report.note(format!(
        "scan of full blocks: {} events of each payload in transactions of {}, page cache warm; limit: one CRC-32 per \
         block",
        workload.events, workload.batch
    ));
    let case = format!("{}-byte payloads, full blocks", workload.payload);
    report.add(
        Group::new(STEP, case, workload.payload, workload.events, bytes),
        &series,
    );
    let mut contest = Contest::new();
    contest.milepost(|| whole(&store, expected));
    contest.baseline("first scan of a handle", || {
        verified(&Options::new().open(store.root())?, expected)
    });
    contest.baseline("scan", || verified(&store, expected));
    contest.limit(|| Ok(limits::checksum_blocks(&windows, &lengths)));
    let series = contest.run(run.rounds)?;
    let case = format!("verify, {}-byte payloads, full blocks", workload.payload);
    report.add(
        Group::new(STEP, case, workload.payload, workload.events, bytes),
        &series,
    );
    Ok(())
}

fn lone_commits(run: &Run, workload: &Workload, report: &mut Report) -> Outcome<()> {
    let store = Options::new().init(run.path("lone"), "bench".parse()?)?;
    let payloads = Payloads::new(workload.events, workload.payload);
    for range in payloads.batches(1) {
        let transaction = payloads.transaction(range)?;
        store
            .commit_with(transaction, Durability::Buffered)?
            .committed()?;
    }
    store.sync()?;
    let (windows, expected) = (limits::mapped_log(&store)?, payloads.seen());
    let lengths = limits::block_lengths(&windows)?;
    let mut contest = Contest::new();
    contest.milepost(|| verified(&store, expected));
    contest.limit(|| Ok(limits::checksum_blocks(&windows, &lengths)));
    let series = contest.run(run.rounds)?;
    report.note(format!(
        "scan of lone commits: {} blocks for {} events, written buffered, which makes the same blocks as a sync after \
         each; limit: one CRC-32 per block",
        lengths.iter().map(Vec::len).sum::<usize>(),
        workload.events
    ));
    let case = format!("{}-byte payloads, lone commits", workload.payload);
    let bytes = store.watermarks().durable.0;
    report.add(
        Group::new(STEP, case, workload.payload, workload.events, bytes),
        &series,
    );
    Ok(())
}

/// Appends all payloads in batches of 1,000.
fn fill(peer: &dyn Peer, payloads: &Payloads) -> Outcome<()> {
    for range in payloads.batches(1_000) {
        let batch: Vec<&[u8]> = payloads.range(range).collect();
        peer.append(&batch)?;
    }
    Ok(())
}

/// One scan of the whole store that must see what is expected.
fn verified(store: &Store, expected: Seen) -> Outcome<Duration> {
    let (seen, took) = timed(|| visit(store, Lsn::ZERO, None));
    seen?.0.expect(expected)?;
    Ok(took)
}

/// One verification of the whole store that must find it whole.
fn whole(store: &Store, expected: Seen) -> Outcome<Duration> {
    let (found, took) = timed(|| store.verify(&mut |_, _| ()));
    let found = found?;
    if found.events != expected.events || !found.damage.is_empty() {
        return Err(format!("verify found {found:?}, and there is {expected:?}").into());
    }
    Ok(took)
}

/// Visits every event behind `after`, in blocks that begin before `until`; returns how many bytes of log that
/// were, too.
///
/// # Errors
/// What the scan says.
pub fn visit(store: &Store, after: Lsn, until: Option<Lsn>) -> milepost_engine::Result<(Seen, u64)> {
    let (mut seen, mut bytes) = (Seen::default(), 0);
    let mut scan = store.scan(after)?;
    while let Some(block) = scan.next_block()? {
        if until.is_some_and(|until| block.header().lsn >= until) {
            break;
        }
        bytes += u64::from(block.header().block_len);
        let (events, first_bytes) = visit_block(&block)?;
        seen.events += events;
        seen.first_bytes += first_bytes;
    }
    Ok((seen, bytes))
}

/// How many events a block has, and the sum of their payloads' first bytes.
#[inline]
fn visit_block(block: &Block<'_>) -> milepost_engine::Result<(u64, u64)> {
    let (mut events, mut first_bytes) = (0, 0);
    for frame in block.frames() {
        for event in frame?.events() {
            let payload = event?.payload;
            events += 1;
            first_bytes += payload.first().copied().map_or(0, u64::from);
        }
    }
    Ok((events, first_bytes))
}
