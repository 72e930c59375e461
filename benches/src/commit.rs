//! Commit: transactions of one event, each durable before its thread goes on.
//!
//! ```text
//! 1, 8, 64 threads       limit: as many syncs as if each served one commit of every thread, bare
//! a lone committer       median latency of a commit; limit: that of a bare pwrite and fdatasync of as many bytes
//! 4 processes            of 1 and 16 threads each; baseline: as many threads of one process
//! Durability::Buffered   acknowledged before the sync; one thread and 8, and many transactions given in one call
//! ```

use std::path::Path;
use std::time::Duration;

use milepost_engine::{Durability, Options, Store};

use crate::contest::Contest;
use crate::limits::{self, RawFile};
use crate::peers::{Peer, Plan};
use crate::report::{Group, Report, Unit};
use crate::worker::Workers;
use crate::workload::{Payloads, Workload, timed};
use crate::{Outcome, Run, enter, open_peers};

const STEP: &str = "commit";
const PROCESSES: u64 = 4;

/// Measures commits of single events.
///
/// # Errors
/// What the engine or the system says.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let threads = match run.threads.as_slice() {
        [] => &[1, 8, 64],
        given => given,
    };
    for threads in threads {
        by_threads(run, *threads, report)?;
        crate::clear(&run.folder)?;
    }
    if run.threads.is_empty() {
        latency(run, report)?;
        for threads in [1, 16] {
            by_processes(run, threads, report)?;
            crate::clear(&run.folder)?;
        }
        for threads in [1, 8] {
            buffered(run, threads, report)?;
            crate::clear(&run.folder)?;
        }
        buffered_together(run, report)?;
        crate::clear(&run.folder)?;
    }
    Ok(())
}

fn counted(threads: u64) -> String {
    format!("{threads} thread{}", if threads == 1 { "" } else { "s" })
}

/// Events of a round: more threads get more done in the same time.
fn events(run: &Run, threads: u64) -> u64 {
    run.events(64, 1_000 * threads.clamp(2, 16)).max(threads)
}

fn by_threads(run: &Run, threads: u64, report: &mut Report) -> Outcome<()> {
    let (events, payload) = (events(run, threads), run.payload.unwrap_or(128));
    let payloads = Payloads::new(events, payload);
    let store = Options::new().init(run.path("commit"), "bench".parse()?)?;
    let from = store.watermarks().durable;
    commit_all(&store, &payloads, threads, Durability::Synced)?;
    let bytes = limits::log_bytes(&store, from, store.watermarks().durable)?;
    let raw = run.path("raw");
    let plan = Plan {
        events,
        bytes: 4 * events * u64::try_from(payload * (run.rounds + 1))?,
        durable: true,
    };
    let warm = |peer: &dyn Peer| {
        let took = commit_peer(peer, &payloads, events.div_ceil(10).max(threads), threads)?;
        Ok(Some(took * 10))
    };
    let opened = open_peers(run, &format!("{STEP} {threads}"), plan, warm, report);
    let mut contest = Contest::new();
    contest.milepost(|| commit_all(&store, &payloads, threads, Durability::Synced));
    contest.limit(|| limits::write_all(&raw, &bytes, events.div_ceil(threads)));
    let payloads = &payloads;
    enter(&mut contest, &opened, events, move |peer, events| {
        commit_peer(peer, payloads, events, threads)
    });
    let series = contest.run(run.rounds)?;
    report.note(
        "commit: transactions of one event; limit: pwrite and fdatasync of the same bytes by one thread, a sync for \
         as many commits as there are threads",
    );
    let case = format!(
        "{payload}-byte payloads, one event a commit, {}",
        counted(threads)
    );
    let group = Group::new(STEP, case, payload, events, u64::try_from(bytes.len())?).with(threads, 1);
    report.add(group, &series);
    Ok(())
}

/// Each thread commits its share, one event after the other.
fn commit_all(store: &Store, payloads: &Payloads, threads: u64, durability: Durability) -> Outcome<Duration> {
    spread(payloads.count(), threads, |_, number| {
        let transaction = payloads.transaction(number..number + 1)?;
        store.commit_with(transaction, durability)?.committed()?;
        Ok(())
    })
}

fn commit_peer(peer: &dyn Peer, payloads: &Payloads, events: u64, threads: u64) -> Outcome<Duration> {
    spread(usize::try_from(events)?, threads, |thread, number| {
        payloads
            .range(number..number + 1)
            .try_for_each(|event| peer.commit(thread, event))
    })
}

/// Runs `work` for every event, spread over threads that start together; returns how long it took them.
pub fn spread(
    count: usize,
    threads: u64,
    work: impl Fn(u64, usize) -> Outcome<()> + Sync,
) -> Outcome<Duration> {
    let step = usize::try_from(threads)?.max(1);
    let gate = std::sync::Barrier::new(step + 1);
    let outcomes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..step)
            .map(|thread| {
                let (gate, work) = (&gate, &work);
                scope.spawn(move || {
                    gate.wait();
                    let mut numbers = (thread..count).step_by(step);
                    let number = u64::try_from(thread).unwrap_or(0);
                    numbers
                        .try_for_each(|at| work(number, at))
                        .map_err(|error| error.to_string())
                })
            })
            .collect();
        gate.wait();
        timed(|| {
            workers
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect::<Vec<_>>()
        })
    });
    for outcome in outcomes.0 {
        outcome.map_err(|_| "a thread panicked")??;
    }
    Ok(outcomes.1)
}

fn latency(run: &Run, report: &mut Report) -> Outcome<()> {
    let (events, payload) = (run.events(20, 500), run.payload.unwrap_or(128));
    let payloads = Payloads::new(events, payload);
    let store = Options::new().init(run.path("lone"), "bench".parse()?)?;
    let from = store.watermarks().durable;
    commit_all(&store, &payloads, 1, Durability::Synced)?;
    let block = usize::try_from(store.watermarks().durable.since(from))? / payloads.count();
    // Short rounds and many of them: a latency drifts with the device from second to second.
    let rounds = run.rounds * 4;
    let mut raw = RawFile::zero_filled(&run.path("raw"), block * payloads.count() * rounds)?;
    let piece = vec![7; block];
    let mut contest = Contest::new();
    contest.milepost(|| {
        median_of(payloads.batches(1), |range| {
            let transaction = payloads.transaction(range)?;
            Ok(timed_commit(&store, transaction)?)
        })
    });
    contest.limit(|| {
        median_of(payloads.batches(1), |_| {
            let (outcome, took) = timed(|| raw.append(&piece));
            outcome?;
            Ok(took)
        })
    });
    let series = contest.run(rounds)?;
    report.note(format!(
        "latency: the median of {events} commits of one thread; limit: that of as many bare pwrites of {block} bytes \
         with fdatasync, zero-filled file"
    ));
    let case = format!("{payload}-byte payloads, latency of a lone commit");
    let group = Group::new(STEP, case, payload, 1, u64::try_from(block)?).in_unit(Unit::Seconds);
    report.add(group, &series);
    drop(store);
    crate::clear(&run.folder)
}

fn timed_commit(
    store: &Store,
    transaction: milepost_engine::Transaction,
) -> milepost_engine::Result<Duration> {
    let (outcome, took) = timed(|| store.commit(transaction));
    outcome?.committed()?;
    Ok(took)
}

fn median_of<T>(all: impl Iterator<Item = T>, once: impl FnMut(T) -> Outcome<Duration>) -> Outcome<Duration> {
    let mut took = all.map(once).collect::<Outcome<Vec<Duration>>>()?;
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied().unwrap_or_default())
}

fn by_processes(run: &Run, threads: u64, report: &mut Report) -> Outcome<()> {
    let all = threads * PROCESSES;
    let (events, payload) = (events(run, all), run.payload.unwrap_or(128));
    let payloads = Payloads::new(events, payload);
    let (shared, own) = (run.path("processes"), run.path("threads"));
    drop(Options::new().init(&shared, "bench".parse()?)?);
    let store = Options::new().init(&own, "bench".parse()?)?;
    let mut contest = Contest::new();
    contest.milepost(|| by_workers(&shared, threads, events / PROCESSES, payload));
    contest.baseline("threads of one process", || {
        commit_all(&store, &payloads, all, Durability::Synced)
    });
    let series = contest.run(run.rounds)?;
    report.note(
        "processes: as many threads in four processes that were started before, against the same number of threads of one",
    );
    let case = format!(
        "{payload}-byte payloads, one event a commit, {PROCESSES} processes of {}",
        counted(threads)
    );
    let group = Group::new(STEP, case, payload, events, store.watermarks().durable.0);
    report.add(group.with(all, PROCESSES), &series);
    Ok(())
}

fn by_workers(dir: &Path, threads: u64, events: u64, payload: usize) -> Outcome<Duration> {
    let mut workers = Workers::start(PROCESSES, || {
        vec![
            "commit".to_owned(),
            dir.display().to_string(),
            threads.to_string(),
            events.to_string(),
            payload.to_string(),
        ]
    })?;
    let (outcome, took) = timed(|| workers.go());
    outcome?;
    workers.finish()?;
    Ok(took)
}

fn buffered(run: &Run, threads: u64, report: &mut Report) -> Outcome<()> {
    let (events, payload) = (run.events(1_000, 500_000), run.payload.unwrap_or(128));
    let payloads = Payloads::new(events, payload);
    let store = Options::new().init(run.path("buffered"), "bench".parse()?)?;
    let from = store.watermarks().appended;
    let mut contest = Contest::new();
    contest.milepost(|| {
        let took = commit_all(&store, &payloads, threads, Durability::Buffered)?;
        store.sync()?;
        Ok(took)
    });
    let series = contest.run(run.rounds)?;
    let bytes = store.watermarks().appended.since(from) / u64::try_from(run.rounds)?;
    report.note("buffered: acknowledged when written; the store's thread syncs every 10 ms meanwhile");
    let case = format!(
        "{payload}-byte payloads, one event a commit, buffered, {}",
        counted(threads)
    );
    report.add(
        Group::new(STEP, case, payload, events, bytes).with(threads, 1),
        &series,
    );
    Ok(())
}

/// Transactions of one event each, given to the store a thousand at a time.
fn buffered_together(run: &Run, report: &mut Report) -> Outcome<()> {
    const TOGETHER: u64 = 1_000;
    let (events, payload) = (run.events(1_000, 1_000_000), run.payload.unwrap_or(128));
    let workload = Workload::new(events, payload, 1);
    let store = Options::new().init(run.path("together"), "bench".parse()?)?;
    let from = store.watermarks().appended;
    let mut contest = Contest::new();
    contest.milepost(|| {
        let (outcome, took) = timed(|| -> Outcome<()> {
            let (mut at, mut bytes) = (0, Vec::new());
            while at < events {
                let until = (at + TOGETHER).min(events);
                let mut frames = Vec::new();
                while at < until {
                    let (transaction, count) = workload.transaction(at, &mut bytes)?;
                    frames.push(transaction.into_parts().0);
                    at += count;
                }
                store.append_frames(frames, Durability::Buffered)?;
            }
            Ok(())
        });
        outcome?;
        store.sync()?;
        Ok(took)
    });
    let series = contest.run(run.rounds)?;
    let bytes = store.watermarks().appended.since(from) / u64::try_from(run.rounds)?;
    let case =
        format!("{payload}-byte payloads, one event a transaction, buffered, {TOGETHER} transactions a call");
    report.add(Group::new(STEP, case, payload, events, bytes), &series);
    Ok(())
}

/// What a worker process does: its share of the commits, when it is told to begin.
///
/// # Errors
/// What the engine says.
pub fn work(
    dir: &Path,
    threads: u64,
    events: u64,
    payload: usize,
    begin: impl FnOnce() -> Outcome<()>,
) -> Outcome<()> {
    let payloads = Payloads::new(events, payload);
    let store = Options::new().open(dir)?;
    begin()?;
    commit_all(&store, &payloads, threads, Durability::Synced)?;
    Ok(())
}
