//! Filter: looking for one stream that one block in a thousand contains (`Store::scan_stream`), and scanning on two
//! threads.
//!
//! The baseline of the filtered scan is the full verified scan of the same log. Shown beside it is one CRC-32 of each
//! header with its filter, resident, at places that are known before. That is no limit: what waits for memory can be
//! fetched ahead, which a plain loop does not.

use std::hint::black_box;
use std::time::Duration;

use milepost_engine::block::HEADER_LEN;
use milepost_engine::storage::Window;
use milepost_engine::width::u32_to_usize;
use milepost_engine::{Lsn, Store, StreamName};

use crate::contest::Contest;
use crate::report::{Group, Report};
use crate::scan::visit;
use crate::workload::{Seen, Workload, timed};
use crate::{Outcome, Run, limits};

const STEP: &str = "filter";
/// The stream that is looked for.
pub const RARE: &str = "rare/needle";
/// Blocks of which one contains it.
const BLOCKS: u64 = 1_000;

/// Measures the filtered and the parallel scan.
///
/// # Errors
/// What the engine or the system says, and when a scan missed an event.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let payload = run.payload.unwrap_or(128);
    let events = run.events(100_000, 2_000_000);
    let workload = Workload::new(events, payload, run.batch.unwrap_or(100));
    // A block of 64 KiB holds about so many events, which take 32 bytes beside the payload.
    let period = BLOCKS * (64 << 10) / u64::try_from(payload + 32)?;
    let store = workload.store(&run.path("filter"), |number| {
        if number % period == period.min(events) / 2 {
            RARE.to_owned()
        } else {
            format!("orders/{}", number % 1_000)
        }
    })?;
    let windows = limits::mapped_log(&store)?;
    filtered(run, &store, &windows, &workload, report)?;
    parallel(run, &store, &workload, report)?;
    drop((windows, store));
    crate::clear(&run.folder)
}

fn filtered(
    run: &Run,
    store: &Store,
    windows: &[Window],
    workload: &Workload,
    report: &mut Report,
) -> Outcome<()> {
    let (expected, blocks, holding) = rare_events(store)?;
    let (stream, heads) = (StreamName::new(RARE)?, heads(windows)?);
    let mut contest = Contest::new();
    contest.milepost(|| {
        let (found, took) = timed(|| filtered_events(store, &stream));
        found?.expect(expected)?;
        Ok(took)
    });
    contest.baseline("full scan", || {
        let (found, took) = timed(|| rare_events(store));
        found?.0.expect(expected)?;
        Ok(took)
    });
    contest.baseline("headers and filters", || Ok(headers_and_filters(windows, &heads)));
    let series = contest.run(run.rounds)?;
    report.note(format!(
        "filter: {blocks} blocks, {holding} of them with an event of the stream; beside it one CRC-32 of each \
         header with its filter, nothing fetched ahead"
    ));
    let case = format!(
        "{}-byte payloads, one stream in {holding} of {blocks} blocks",
        workload.payload
    );
    let bytes = store.watermarks().durable.0;
    report.add(
        Group::new(STEP, case, workload.payload, workload.events, bytes),
        &series,
    );
    Ok(())
}

/// All events of the stream, by a full scan; blocks, and blocks that hold one.
///
/// # Errors
/// What the scan says.
pub fn rare_events(store: &Store) -> milepost_engine::Result<(Seen, u64, u64)> {
    let (mut seen, mut blocks, mut holding) = (Seen::default(), 0, 0);
    let mut scan = store.scan(Lsn::ZERO)?;
    while let Some(block) = scan.next_block()? {
        let before = seen.events;
        for frame in block.frames() {
            for event in frame?.events() {
                let event = event?;
                if event.stream_bytes() == RARE.as_bytes() {
                    seen.visit(event.payload);
                }
            }
        }
        blocks += 1;
        holding += u64::from(seen.events > before);
    }
    Ok((seen, blocks, holding))
}

/// All events of a stream, by the filters of the block headers.
///
/// # Errors
/// What the scan says.
pub fn filtered_events(store: &Store, stream: &StreamName) -> milepost_engine::Result<Seen> {
    let (mut seen, mut scan) = (Seen::default(), store.scan_stream(stream, Lsn::ZERO)?);
    while let Some((_, event)) = scan.next()? {
        seen.visit(event.payload);
    }
    Ok(seen)
}

/// Where the headers with their filters stand in each window: start and length.
pub type Heads = Vec<Vec<(usize, usize)>>;

/// Finds them.
///
/// # Errors
/// When a window is not blocks from its first byte to its last.
pub fn heads(windows: &[Window]) -> Outcome<Heads> {
    let of = |window: &Window| -> Outcome<Vec<(usize, usize)>> {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(rest) = window.get(at..).filter(|rest| !rest.is_empty()) {
            let header = limits::header(rest)?;
            found.push((at, HEADER_LEN + u32_to_usize(header.filter_len)));
            at += u32_to_usize(header.block_len);
        }
        Ok(found)
    };
    windows.iter().map(of).collect()
}

/// One CRC-32 of each header with its filter, and nothing else.
pub fn headers_and_filters(windows: &[Window], heads: &Heads) -> Duration {
    let all = || {
        let heads = windows
            .iter()
            .zip(heads)
            .flat_map(|(window, heads)| heads.iter().filter_map(|(at, len)| window.get(*at..*at + *len)));
        heads.map(crc32fast::hash).fold(0, std::ops::BitXor::bitxor)
    };
    timed(|| black_box(all())).1
}

fn parallel(run: &Run, store: &Store, workload: &Workload, report: &mut Report) -> Outcome<()> {
    let (expected, bytes) = visit(store, Lsn::ZERO, None)?;
    // The first block that begins in the second half of the log: where one thread ends and the other begins.
    let mut scan = store.scan(Lsn::ZERO)?;
    let (mut middle, mut last) = (Lsn::ZERO, Lsn::ZERO);
    while middle == Lsn::ZERO
        && let Some(block) = scan.next_block()?
    {
        if block.header().lsn.0 * 2 >= bytes {
            middle = block.header().lsn;
        } else {
            last = block
                .frames()
                .last()
                .transpose()?
                .map_or(last, |frame| frame.lsn());
        }
    }
    let mut contest = Contest::new();
    contest.baseline("one thread", || {
        let (seen, took) = timed(|| visit(store, Lsn::ZERO, None));
        seen?.0.expect(expected)?;
        Ok(took)
    });
    contest.milepost(|| {
        let (both, took) = timed(|| {
            std::thread::scope(|scope| {
                let first = scope.spawn(|| visit(store, Lsn::ZERO, Some(middle)));
                let second = visit_behind(store, last, middle);
                (first.join(), second)
            })
        });
        let first = both.0.map_err(|_| "a thread panicked")??.0;
        let second = both.1?;
        let sum = Seen {
            events: first.events + second.events,
            first_bytes: first.first_bytes + second.first_bytes,
        };
        sum.expect(expected)?;
        Ok(took)
    });
    let series = contest.run(run.rounds)?;
    report.note("parallel scan: two scans of one handle, each over half of the log");
    let case = format!("{}-byte payloads, full scan on two threads", workload.payload);
    let group = Group::new(STEP, case, workload.payload, workload.events, bytes).with(2, 1);
    report.add(group, &series);
    Ok(())
}

/// Visits the blocks from `middle` on. The scan begins behind the last frame before it, whose block, passed by
/// its header, is given first.
fn visit_behind(store: &Store, last: Lsn, middle: Lsn) -> milepost_engine::Result<Seen> {
    let mut seen = Seen::default();
    let mut scan = store.scan(last)?;
    while let Some(block) = scan.next_block()? {
        if block.header().lsn < middle {
            continue;
        }
        for frame in block.frames() {
            for event in frame?.events() {
                seen.visit(event?.payload);
            }
        }
    }
    Ok(seen)
}
