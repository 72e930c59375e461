//! One round of every phase, in the order receive, scan, send, then exit (`-b`).

use std::time::Duration;

use milepost_engine::{Lsn, Result, SiteName, Store};

use crate::heartbeat::Heartbeat;
use crate::receive::ReceivePhase;
use crate::scan::Scanned;
use crate::send::{SendPhase, Serve};
use crate::tracking::PollCause;

use super::locked::{Unusable, exit_of_keys, unusable_keys};
use super::run::{Asides, Running, exit_of_held, exit_of_link, exit_of_quarantine, exit_of_suspended};
use super::{Exit, ExitCode, LOOK_EVERY, Links, Stop};

/// Runs the phases once.
pub(super) fn run(mut running: Running) -> Exit {
    let mut exit = Exit::DONE;
    match rounds(&mut running, &mut exit) {
        Ok(()) => exit,
        Err(error) => exit.and(Exit::failed(&error)),
    }
}

fn rounds(running: &mut Running, exit: &mut Exit) -> Result<()> {
    let Running {
        store,
        links,
        options,
        stop,
        receive,
        scan,
        send,
        serve,
    } = running;
    let mut told = Vec::new();
    let mut unusable = match (&receive, &send) {
        (None, None) => Vec::new(),
        _ => unusable_keys(store)?,
    };
    // What is sent to some is told of their keys alone.
    unusable.retain(|(site, ..)| !matches!(serve, Serve::Asked) || options.send_now.contains(site));
    add(exit, exit_of_keys(&unusable));
    if let Some(phase) = receive {
        add(exit, receive_all(phase, links, &unusable, stop)?);
        add(exit, exit_of_held(store)?);
        told = phase.stopped();
    }
    let mut scanned = Scanned::default();
    if let Some(phase) = scan {
        scanned.add(phase.catch_up(stop)?);
    }
    if let Some(phase) = send {
        let marker = store.append_marker()?;
        if let Some(scan) = scan {
            scanned.add(scan.catch_up(stop)?);
        } else if let Some(waited) = wait_for_scan(store, marker, options.marker_wait, stop)? {
            add(exit, not_scanned(store, marker, waited, stop)?);
        }
        add(exit, send_all(phase, *serve, &told, &unusable)?);
    }
    if let Some(phase) = scan {
        phase.sync()?;
        let (transactions, entries) = (scanned.transactions, scanned.entries);
        tracing::info!(transactions, entries, "scanned");
        if let (Some(min_bytes), true) = (options.rotate, transactions > 0) {
            store.rotate(min_bytes)?;
        }
    }
    Ok(())
}

/// Polls until a poll changes nothing. What only waits (behind a gap, for a part, for an operator) is no reason
/// to poll again: who could send what is missing must hear of it first. A dry run (`-a`) changes nothing.
fn receive_all(phase: &mut ReceivePhase, links: &Links, unusable: &[Unusable], stop: &Stop) -> Result<Exit> {
    let (mut exit, mut asides, mut transactions) = (Exit::DONE, Asides::default(), 0);
    loop {
        let received = phase.poll(PollCause::Due)?;
        asides.add(received.quarantined);
        transactions += received.transactions;
        if received.moved && phase.applies() && !stop.is_requested() {
            continue;
        }
        for (number, error) in &received.failed_links {
            add(&mut exit, exit_of_link(&links.get(*number)?.address(), error));
        }
        asides.forget(unusable);
        add(&mut exit, exit_of_quarantine(&phase.stopped(), &asides));
        tracing::info!(transactions, "received");
        return Ok(exit);
    }
}

/// `told` are stopped pairs that the receive phase told of, `unusable` those whose keys were told of.
fn send_all(
    phase: &mut SendPhase,
    serve: Serve<'_>,
    told: &[(SiteName, String)],
    unusable: &[Unusable],
) -> Result<Exit> {
    let sent = phase.round(serve)?;
    phase.remember()?;
    let (messages, transactions) = (sent.messages, sent.transactions);
    tracing::info!(messages, transactions, "sent");
    let mut exit = Exit::DONE;
    let is_told = |site: &SiteName| unusable.iter().any(|(known, ..)| known == site);
    for (site, error) in sent.failed_links.iter().filter(|(site, _)| !is_told(site)) {
        add(&mut exit, exit_of_link(&phase.address_of(site)?, error));
    }
    let mut stopped = phase.stopped();
    stopped.retain(|one| !told.contains(one));
    add(&mut exit, exit_of_quarantine(&stopped, &Asides::default()));
    add(&mut exit, exit_of_suspended(&phase.suspended()));
    Ok(exit)
}

/// Waits until the scan has passed the marker; how long it stood still, when it did not. The limit runs
/// only while the scan stands still.
fn wait_for_scan(store: &Store, marker: Lsn, limit: Duration, stop: &Stop) -> Result<Option<Duration>> {
    let clock = store.clock();
    let (mut scanned, mut since) = (store.scanned_through(), clock.monotonic());
    let mut beat = Heartbeat::new(store);
    loop {
        if store.wait_scanned(marker, LOOK_EVERY.min(limit))? {
            return Ok(None);
        }
        let (moved, now) = (store.scanned_through(), clock.monotonic());
        if moved != scanned {
            (scanned, since) = (moved, now);
        }
        if beat.is_due() {
            let holder = store.phase_holder(milepost_engine::Phase::Scan)?;
            let by = holder.unwrap_or_else(|| "nobody".to_owned());
            tracing::info!(marker = marker.0, scanned = scanned.0, %by, "waiting for the scan to pass the marker");
        }
        let stood = now.saturating_sub(since);
        if stood >= limit || stop.is_requested() {
            return Ok(Some(stood));
        }
    }
}

fn not_scanned(store: &Store, marker: Lsn, waited: Duration, stop: &Stop) -> Result<Exit> {
    let holder = store.phase_holder(milepost_engine::Phase::Scan)?;
    let who = match holder {
        Some(holder) => format!("the scan phase is held by {holder}"),
        None => "no process runs the scan phase (-i); start one, or run the agent with -b alone".to_owned(),
    };
    let seconds = waited.as_secs();
    let why = if stop.is_requested() {
        "asked to leave while the marker was waited for, which the scan had not passed".to_owned()
    } else {
        format!("the scan stood still for {seconds} s before it passed the marker")
    };
    Ok(Exit::because(
        ExitCode::Failed,
        format!("{why} at LSN {marker}: {who}. What was queued is sent"),
    ))
}

fn add(exit: &mut Exit, other: Exit) {
    *exit = std::mem::replace(exit, Exit::DONE).and(other);
}
