//! Transactions that are in one store until they are in another, over a directory link: scan, send, receive and apply, one batch run of the agent at each site. Limit: the same transactions
//! appended to a store directly, one sync for every 256.

use std::path::Path;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Durability, Lsn, Options, Store};
use milepost_replication::agent::{AgentOptions, ExitCode, Stop, run as run_agent};
use milepost_replication::catalog::Schedule;

use super::links;
use crate::contest::{Role, Series};
use crate::report::{Group, Report};
use crate::workload::{Workload, timed};
use crate::{Outcome, Run};

/// Transactions that share a sync in the limit.
const GROUP: usize = 256;

/// Measures the way of the workload from one store into another over a directory.
///
/// # Errors
/// What the agents or the engine say, and when not all arrived.
pub(super) fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let events = run.events(1_000, 50_000);
    let workload = &Workload::new(events, run.payload.unwrap_or(128), run.batch.unwrap_or(5));
    let (folder, rounds) = (&run.folder, run.rounds);
    let from = Options::new().init(folder.join("hq"), "hq".parse()?)?;
    let to = Options::new().init(folder.join("shop"), "shop".parse()?)?;
    let direct = Options::new().init(folder.join("direct"), "direct".parse()?)?;
    let link = folder.join("link");
    std::fs::create_dir(&link)?;
    let link = format!("file://{}", link.display());
    links::subscribe(&from, &to, &link, Schedule::None)?;
    let (mut milepost, mut limit, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let began = to.watermarks().durable;
        for chunk in chunks(workload)? {
            from.append_frames(chunk, Durability::Buffered)?;
        }
        from.sync()?;
        let (outcome, took) = timed(|| agent(from.root()).and_then(|()| agent(to.root())));
        outcome?;
        milepost.push(took.as_secs_f64());
        let arrived = events_after(&to, began)?;
        if arrived != workload.events {
            return Err(format!("{arrived} of {} events arrived", workload.events).into());
        }
        bytes = to.watermarks().durable.since(began);
        let prepared = chunks(workload)?;
        let (outcome, took) = timed(|| append(&direct, prepared));
        outcome?;
        limit.push(took.as_secs_f64());
    }
    report.note(format!(
        "replicate: {} events in transactions of {}, directory link, both agents in batch",
        workload.events, workload.batch
    ));
    let limit = Series {
        system: "limit".to_owned(),
        role: Role::Limit,
        ..Series::milepost(limit)
    };
    let case = format!("{}-byte payloads, directory link", workload.payload);
    let group = Group::new("replicate", case, workload.payload, workload.events, bytes);
    report.add(group, &[Series::milepost(milepost), limit]);
    Ok(())
}

/// One batch run of all three phases.
fn agent(store: &Path) -> Outcome<()> {
    let options = AgentOptions {
        batch: true,
        ..AgentOptions::default()
    };
    let exit = run_agent(Options::new().open(store)?, &options, &Stop::new());
    if exit.code == ExitCode::Done {
        return Ok(());
    }
    Err(format!("the agent of {}: {exit:?}", store.display()).into())
}

/// The workload's transactions, encoded ahead, in groups.
pub(super) fn chunks(workload: &Workload) -> Outcome<Vec<Vec<NewFrame>>> {
    let (mut chunks, mut at, mut bytes) = (Vec::new(), 0, Vec::new());
    while at < workload.events {
        let mut chunk = Vec::with_capacity(GROUP);
        while chunk.len() < GROUP && at < workload.events {
            let (transaction, count) = workload.transaction(at, &mut bytes)?;
            chunk.push(transaction.into_parts().0);
            at += count;
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn append(store: &Store, chunks: Vec<Vec<NewFrame>>) -> Outcome<()> {
    for chunk in chunks {
        store.append_frames(chunk, Durability::Synced)?;
    }
    Ok(())
}

/// Events of transactions behind a position.
fn events_after(store: &Store, after: Lsn) -> Outcome<u64> {
    let (mut events, mut scan) = (0, store.scan(Lsn(after.0.saturating_sub(1)))?);
    while let Some(frame) = scan.next()? {
        if frame.kind() == FrameKind::TRANSACTION {
            events += u64::from(frame.event_count());
        }
    }
    Ok(events)
}
