//! Open: how long it takes after a clean close and after a crash, by a store of 1 GiB and by one of 64 GiB
//! whose older segments are sparse (see [`crate::sparse`]); and how much memory a scan needs.
//!
//! A crash is a worker process that commits and is killed. Baseline: the small store, in the same state.

use std::path::Path;
use std::time::Duration;

use milepost_engine::{Durability, Options};

use crate::contest::{Contest, Series};
use crate::report::{Group, Report, Unit, real};
use crate::worker::Workers;
use crate::workload::{Payloads, Workload, timed};
use crate::{Outcome, Run, sparse};

const STEP: &str = "open";
const GIB: u64 = 1 << 30;
/// Part of the small store in a quick run.
const QUICK: u64 = 16;

/// Measures opening, and the memory of a scan.
///
/// # Errors
/// What the engine or the system says.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let payload = run.payload.unwrap_or(128);
    let small_bytes = if run.quick { GIB / QUICK } else { GIB };
    let large_bytes = large(run, small_bytes);
    let (small, large) = (run.path("small"), run.path("large"));
    let events = run.events.unwrap_or(small_bytes / u64::try_from(payload + 40)?);
    let workload = Workload::new(events, payload, 100);
    drop(Options::new().init(&small, "bench".parse()?)?);
    sparse::build(&large, large_bytes - small_bytes)?;
    let (small_len, large_len) = (finish(&small, &workload)?, finish(&large, &workload)?);
    report.note(format!(
        "open: {:.2} GiB in {} segments, and {:.2} GiB in {}, of which all but the last {:.2} GiB are sparse: blocks \
         that verify, each with one event whose zeros are a hole; sidecars are there; page cache warm",
        real(small_len.0) / real(GIB),
        small_len.1,
        real(large_len.0) / real(GIB),
        large_len.1,
        real(small_bytes) / real(GIB)
    ));
    let states: [(&str, fn(&Path, usize) -> Outcome<()>); 2] =
        [("after a clean close", close_cleanly), ("after a crash", crash)];
    for (case, prepare) in states {
        let mut contest = Contest::new();
        contest.milepost(|| prepare(&large, payload).and_then(|()| opened(&large)));
        contest.baseline("the small store", || {
            prepare(&small, payload).and_then(|()| opened(&small))
        });
        let series = contest.run(run.rounds)?;
        let case = format!("the large store, {case}");
        report.add(
            Group::new(STEP, case, payload, 1, 0).in_unit(Unit::Seconds),
            &series,
        );
    }
    for (name, dir, bytes) in [("small", &small, small_len.0), ("large", &large, large_len.0)] {
        memory(name, dir, bytes, payload, report)?;
    }
    crate::clear(&run.folder)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size that a person chose"
)]
fn large(run: &Run, small: u64) -> u64 {
    ((run.gib * real(GIB)) as u64).max(2 * small)
}

/// Appends the real part, makes all sidecars and closes; returns the log's bytes and segments.
fn finish(dir: &Path, workload: &Workload) -> Outcome<(u64, usize)> {
    let store = Options::new().open(dir)?;
    workload.append_to(&store, |number| format!("orders/{}", number % 1_000))?;
    store.totals()?;
    store.tend()?;
    let size = (store.watermarks().durable.0, store.segments()?.len());
    store.close()?;
    Ok(size)
}

fn close_cleanly(dir: &Path, payload: usize) -> Outcome<()> {
    let (store, payloads) = (Options::new().open(dir)?, Payloads::new(1, payload));
    let transaction = payloads.transaction(0..1)?;
    store.commit_with(transaction, Durability::Synced)?.committed()?;
    Ok(store.close()?)
}

/// A process that commits is killed in the middle of it.
fn crash(dir: &Path, payload: usize) -> Outcome<()> {
    let words = || vec!["crash".to_owned(), dir.display().to_string(), payload.to_string()];
    let mut workers = Workers::start(1, words)?;
    workers.go()?;
    workers.kill()
}

fn opened(dir: &Path) -> Outcome<Duration> {
    let (store, took) = timed(|| Options::new().open(dir));
    store?.close()?;
    Ok(took)
}

fn memory(name: &str, dir: &Path, bytes: u64, payload: usize, report: &mut Report) -> Outcome<()> {
    let words = || vec!["memory".to_owned(), dir.display().to_string()];
    let mut workers = Workers::start(1, words)?;
    let (said, took) = timed(|| workers.go());
    let said = said?;
    workers.finish()?;
    let mut numbers = said
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::parse::<u64>);
    let mut next = || {
        numbers
            .next()
            .ok_or("a worker said too little")?
            .map_err(|error| error.to_string())
    };
    let (events, own, most) = (next()?, next()?, next()?);
    report.note(format!(
        "memory of a scan of the {name} store, {} bytes in {:.1} s: at most {:.1} MiB that are no mapped page of a file; \
         with mapped pages {:.1} MiB (VmHWM)",
        bytes,
        took.as_secs_f64(),
        real(own) / real(1 << 20),
        real(most) / real(1 << 20)
    ));
    let case = format!("the {name} store, memory of a scan beyond mapped pages");
    let group = Group::new(STEP, case, payload, events, bytes).in_unit(Unit::Bytes);
    report.add(group, &[Series::milepost(vec![real(own)])]);
    Ok(())
}
