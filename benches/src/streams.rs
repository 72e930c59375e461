//! Streams: reading by stream through the sidecar indexes, making them again, and the first read of a fresh
//! process.
//!
//! ```text
//! one stream of 1,000 events among 10 million      baseline: a full scan of the log
//! streams of 10 events, as many as there is room   1,000 of them, far apart
//! all sidecars removed, asked for the totals       baseline: a full scan of the log
//! a fresh process: started, opened, first event    page cache warm, nothing else
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use milepost_engine::{Lsn, Options, Store, StreamVersion};

use crate::contest::Contest;
use crate::report::{Group, Report, Unit, real};
use crate::scan::visit;
use crate::worker::Workers;
use crate::workload::{Seen, Workload, timed};
use crate::{Outcome, Run};

const STEP: &str = "streams";
/// The stream that is read.
const ONE: &str = "orders/one";
/// Events of it.
const LENGTH: u64 = 1_000;
/// Events of a small stream.
const SMALL: u64 = 10;
/// Small streams that are read in a round.
const READ: u64 = 1_000;

/// Measures reads by stream.
///
/// # Errors
/// What the engine or the system says, and when a read missed an event.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let payload = run.payload.unwrap_or(128);
    let events = run.events(100_000, 10_000_000);
    let workload = Workload::new(events, payload, run.batch.unwrap_or(100));
    let every = (events / LENGTH).max(1);
    let dir = run.path("one");
    let store = workload.store(&dir, |number| {
        if number % every == 0 {
            ONE.to_owned()
        } else {
            format!("orders/{}", number % 1_000)
        }
    })?;
    store.tend()?;
    one_stream(run, &store, &workload, report)?;
    store.close()?;
    rebuild(run, &dir, &workload, report)?;
    crate::clear(&run.folder)?;
    small_streams(run, &workload, report)?;
    crate::clear(&run.folder)?;
    fresh_process(run, payload, report)?;
    crate::clear(&run.folder)
}

fn one_stream(run: &Run, store: &Store, workload: &Workload, report: &mut Report) -> Outcome<()> {
    let length = read(store, ONE)?.events;
    let mut contest = Contest::new();
    contest.milepost(|| {
        let (seen, took) = timed(|| read(store, ONE));
        if seen?.events == length {
            Ok(took)
        } else {
            Err("events are missing".into())
        }
    });
    contest.baseline("full scan", || full_scan(store));
    let series = contest.run(run.rounds)?;
    report.note(format!(
        "streams: {} events, page cache warm, the index in use",
        workload.events
    ));
    let case = format!("a stream of {length} events among {}", workload.events);
    let bytes = length * u64::try_from(workload.payload)?;
    let group = Group::new(STEP, case, workload.payload, length, bytes);
    report.add(group.in_unit(Unit::Seconds), &series);
    Ok(())
}

fn read(store: &Store, stream: &str) -> milepost_engine::Result<Seen> {
    let mut seen = Seen::default();
    for event in store.read_stream(stream, StreamVersion(0))? {
        seen.visit(&event?.payload);
    }
    Ok(seen)
}

fn full_scan(store: &Store) -> Outcome<Duration> {
    let (seen, took) = timed(|| visit(store, Lsn::ZERO, None));
    seen?;
    Ok(took)
}

fn small_streams(run: &Run, workload: &Workload, report: &mut Report) -> Outcome<()> {
    let streams = (workload.events / SMALL).max(1);
    let name = |number: u64| format!("carts/{}", number % streams);
    let store = workload.store(&run.path("small"), name)?;
    store.tend()?;
    let wanted = READ.min(streams);
    let once = || -> Outcome<u64> {
        let mut events = 0;
        for number in 0..wanted {
            // Far apart, each round the same ones.
            let stream = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % streams;
            events += read(&store, &name(stream))?.events;
        }
        Ok(events)
    };
    let expected = once()?;
    let mut contest = Contest::new();
    contest.milepost(|| {
        let (events, took) = timed(once);
        if events? == expected {
            Ok(took)
        } else {
            Err("events are missing".into())
        }
    });
    let series = contest.run(run.rounds)?;
    let case = format!("{wanted} of {streams} streams of {SMALL} events");
    let bytes = expected * u64::try_from(workload.payload)?;
    report.add(Group::new(STEP, case, workload.payload, expected, bytes), &series);
    Ok(())
}

fn rebuild(run: &Run, dir: &Path, workload: &Workload, report: &mut Report) -> Outcome<()> {
    let scanned = Options::new().open(dir)?;
    let mut contest = Contest::new();
    contest.milepost(|| {
        sidecars(dir)?.iter().try_for_each(std::fs::remove_file)?;
        let store = Options::new().open(dir)?;
        let (totals, took) = timed(|| store.totals());
        let sealed = store.segments()?.len() - 1;
        if totals?.events != workload.events || sidecars(dir)?.len() != sealed {
            return Err("the index was not made again".into());
        }
        Ok(took)
    });
    contest.baseline("full scan", || full_scan(&scanned));
    let series = contest.run(run.rounds)?;
    let case = "all sidecars made again, by one thread";
    let bytes = scanned.watermarks().durable.0;
    report.add(
        Group::new(STEP, case, workload.payload, workload.events, bytes),
        &series,
    );
    Ok(())
}

fn sidecars(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.join("log"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "idx") {
            found.push(path);
        }
    }
    Ok(found)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size that a person chose"
)]
fn fresh_process(run: &Run, payload: usize, report: &mut Report) -> Outcome<()> {
    let each = real(u64::try_from(payload + 40)?);
    let events = (run.gib * real(1 << 30) / each) as u64;
    let workload = Workload::new(events, payload, 100);
    let dir = run.path("big");
    let store = workload.store(&dir, |number| format!("orders/{}", number % 1_000))?;
    store.tend()?;
    let bytes = store.watermarks().durable.0;
    store.close()?;
    let mut contest = Contest::new();
    contest.milepost(|| {
        let words = || {
            vec![
                "first".to_owned(),
                dir.display().to_string(),
                "orders/500".to_owned(),
            ]
        };
        let (outcome, took) = timed(|| -> Outcome<Workers> {
            let mut workers = Workers::start(1, words)?;
            workers.go()?;
            Ok(workers)
        });
        outcome?.finish()?;
        Ok(took)
    });
    let series = contest.run(run.rounds)?;
    report.note("fresh process: from starting the program to its first event, page cache warm");
    let case = format!(
        "a fresh process reads its first event, {:.2} GiB",
        real(bytes) / real(1 << 30)
    );
    report.add(
        Group::new(STEP, case, payload, 1, 0).in_unit(Unit::Seconds),
        &series,
    );
    Ok(())
}
