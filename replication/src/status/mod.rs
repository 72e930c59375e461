//! [`status`]: what `milepost status` says: per remote the positions and the lag, per phase who runs it.
//!
//! Positions that only the sending process knows (`log_sent`, `confirm_received`) are in its memory; what
//! any process can say of them is the least they are: the position confirmed, and what was received.

mod lag;
mod limit;
mod waits;

use milepost_engine::{ErrorKind, Lsn, Phase, Result, Store, Watermarks};
use serde::Serialize;

use crate::backup::Coverage;
use crate::catalog::{Catalog, OnError, Remote};
use crate::keys::{DistrustRecord, keys_of};
use crate::message::{Point, Trouble, TroubleCase};
use crate::quarantine::held_of;
use crate::receive::{DamagedRecord, Quarantined, quarantined};
use crate::send::freed;
use crate::tracking::{Neighbour, PairRecords, PairState};

use lag::{Backlog, Lag};
pub use limit::{LimitStatus, SuspendedStatus};
use waits::AllPieces;
pub use waits::{Pieces, Waits};

/// A store and its remotes at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct StoreStatus {
    /// Name of the site.
    pub site: String,
    /// Id of the store.
    pub store: String,
    /// Current lineage.
    pub epoch: String,
    /// End of the durable log.
    pub durable: u64,
    /// The scan has seen everything at or below.
    pub scanned: u64,
    /// Bytes of log that the scan has not seen.
    pub scan_lag_bytes: u64,
    /// The last backup holds everything at or below; absent before the first.
    pub backed_up: Option<u64>,
    /// Bytes in the stable queue.
    pub queue_bytes: u64,
    /// Who runs which phase.
    pub phases: Vec<PhaseStatus>,
    /// Every remote, by name.
    pub remotes: Vec<RemoteStatus>,
    /// Messages that need an operator.
    pub quarantine: Vec<Quarantined>,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseStatus {
    /// `receive`, `scan` or `send`.
    pub phase: &'static str,
    /// Who runs it and since when, if anybody does.
    pub holder: Option<String>,
}

/// One remote. Positions are text: `none`, or `epoch/place/chain`.
#[derive(Clone, Debug, Serialize)]
pub struct RemoteStatus {
    /// Name of the site.
    pub remote: String,
    /// Links, primary first.
    pub links: Vec<String>,
    /// True for the neighbour above.
    pub consolidated: bool,
    /// Id of its store, once we heard from it.
    pub site_id: Option<String>,
    /// Generation of the pair.
    pub generation: u32,
    /// Last commit of ours that it said it has: at least this was sent (`log_sent`).
    pub log_sent: String,
    /// Last commit of ours that it confirmed (`confirm_sent`).
    pub confirm_sent: String,
    /// Last commit of its that is in our log (`log_received`).
    pub log_received: String,
    /// Last commit of its that our next message confirms (`confirm_received` follows it).
    pub confirm_received: String,
    /// Ranges it asked for again (`resend_count`).
    pub resend_count: u64,
    /// Ranges we asked for again (`rereceive_count`).
    pub rereceive_count: u64,
    /// Transactions that it is due and did not confirm: queued, not scanned yet, and history that its
    /// subscriptions ask for.
    pub lag_transactions: u64,
    /// Bytes of their events, at most.
    pub lag_bytes: u64,
    /// How it stands to the limits of what is kept for it.
    pub limit: LimitStatus,
    /// What is missing of its stream, if anything is.
    pub waits: Option<Waits>,
    /// Why nothing moves until an operator acts.
    pub stopped: Option<String>,
    /// Id of the key that seals what goes to it; absent where messages go as they are.
    pub key: Option<String>,
    /// Why nothing goes and nothing is taken, where its messages should be sealed and no key may be used.
    pub locked: Option<String>,
    /// Why messages under its name were not believed to be of it, until all of them are.
    pub distrusted: Option<String>,
    /// What comes next of its stream came damaged at least three times.
    pub damaged: Option<Damaged>,
    /// What happens when a transaction of its cannot be applied.
    pub on_error: OnError,
    /// Transactions of its that are in quarantine here.
    pub held: usize,
    /// What it says that it could not apply of ours.
    pub reported: Option<Reported>,
}

/// What came damaged over and over.
#[derive(Clone, Debug, Serialize)]
pub struct Damaged {
    /// How often, since the stream moved last.
    pub times: u32,
    /// The first time, microseconds since 1970 by the clock here.
    pub since: i64,
    /// What was wrong with the last one.
    pub reason: String,
}

/// What a remote says that it could not apply of our stream.
#[derive(Clone, Debug, Serialize)]
pub struct Reported {
    /// Transactions in quarantine there.
    pub held: u32,
    /// Messages set aside there.
    pub refused: u32,
    /// The first reasons, with the LSN of the transaction here where it is known.
    pub cases: Vec<ReportedCase>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedCase {
    /// LSN of the transaction in our log; absent for a message.
    pub lsn: Option<u64>,
    /// Why, in the remote's words.
    pub reason: String,
}

impl Reported {
    fn of(trouble: &Trouble) -> Option<Reported> {
        let case = |case: &TroubleCase| ReportedCase {
            lsn: (!case.point.is_none()).then(|| case.point.place().commit_lsn().0),
            reason: case.reason.clone(),
        };
        (!trouble.is_none()).then(|| Reported {
            held: trouble.held,
            refused: trouble.refused,
            cases: trouble.cases.iter().map(case).collect(),
        })
    }
}

/// Reads the status of a store from its log and queue. What is not scanned yet, and history that was not
/// sent, is looked through; `read` is told the LSN reached now and then.
///
/// # Errors
/// Those of log and queue.
pub fn status(store: &Store, read: &mut dyn FnMut(Lsn)) -> Result<StoreStatus> {
    let marks = store.watermarks();
    let catalog = Catalog::load(store)?;
    let backlog = Backlog::read(store, &catalog, read)?;
    let holder = |phase: Phase| {
        Ok(PhaseStatus {
            phase: phase.name(),
            holder: store.phase_holder(phase)?,
        })
    };
    let pieces = AllPieces::read(store)?;
    let remote = |remote: &Remote| remote_status(store, (&backlog, &pieces), remote, read);
    Ok(StoreStatus {
        site: store.site().to_string(),
        store: store.id().to_string(),
        epoch: store.epoch().to_string(),
        durable: marks.durable.0,
        scanned: marks.scanned.0,
        scan_lag_bytes: scan_lag(store, marks)?,
        backed_up: Coverage::of(store)?.backed_up().map(|through| through.0),
        queue_bytes: store.queue_bytes()?,
        phases: Phase::ALL.into_iter().map(holder).collect::<Result<_>>()?,
        remotes: catalog.remotes().map(remote).collect::<Result<_>>()?,
        quarantine: quarantined(store)?,
    })
}

fn remote_status(
    store: &Store,
    (backlog, pieces): (&Backlog<'_>, &AllPieces),
    remote: &Remote,
    read: &mut dyn FnMut(Lsn),
) -> Result<RemoteStatus> {
    let neighbour = Neighbour {
        name: remote.site.clone(),
        generation: remote.generation,
    };
    let records = PairRecords::load(&neighbour, |key| Ok(store.pinned(key)?.map(|(value, _)| value)))?;
    let confirmed = records.told.confirmed;
    let (lag, behind, limit) = kept_for(store, backlog, (remote, &records), read)?;
    let keys = keys_of(store, &remote.site)?;
    let distrust = store.pinned(&DistrustRecord::key(&remote.site))?;
    let distrust = distrust
        .map(|(value, _)| DistrustRecord::read(&value))
        .transpose()?;
    let text = |point: &Point| point.to_string();
    Ok(RemoteStatus {
        remote: remote.site.to_string(),
        links: remote.links.clone(),
        consolidated: remote.consolidated,
        site_id: records.pair.as_ref().map(|pair| pair.site.to_string()),
        generation: records.generation(),
        log_sent: text(&records.told.received),
        confirm_sent: text(&confirmed),
        log_received: text(&records.received.point),
        confirm_received: text(&records.received.point),
        resend_count: records.told.serve_number,
        rereceive_count: records.told.ask_number,
        lag_transactions: lag.transactions,
        lag_bytes: lag.bytes,
        limit,
        waits: Waits::of(store, &remote.site, &records, pieces)?,
        stopped: records
            .pair
            .as_ref()
            .and_then(|pair| pair.stopped.as_ref())
            .map(ToString::to_string)
            .or(behind),
        key: keys.sealing().map(|key| key.id().to_string()),
        locked: keys.locked().map(str::to_owned),
        distrusted: distrust.map(|distrust| distrust.reason),
        damaged: DamagedRecord::of(store, &remote.site)?.map(|record| Damaged {
            times: record.times,
            since: record.since,
            reason: record.reason,
        }),
        on_error: remote.on_error,
        held: held_of(store, &remote.site)?.map_or(0, |(count, _)| count),
        reported: Reported::of(&records.reported.trouble),
    })
}

/// What a remote is due, why that cannot be sent, and how it stands to its limits. One that is suspended is due nothing.
fn kept_for(
    store: &Store,
    backlog: &Backlog<'_>,
    (remote, records): (&Remote, &PairRecords),
    read: &mut dyn FnMut(Lsn),
) -> Result<(Lag, Option<String>, LimitStatus)> {
    if let Some(limit) = LimitStatus::of_suspended(store, remote)? {
        return Ok((Lag::default(), None, limit));
    }
    let (lag, behind) = match backlog.of(remote, &records.told, read) {
        Err(error) if error.kind() == ErrorKind::Behind => {
            (Lag::default(), Some(freed(&remote.site, &error)))
        }
        lag => (lag?, None),
    };
    let kept = backlog.kept(remote, records, lag);
    Ok((lag, behind, LimitStatus::of(store, remote, kept)?))
}

/// The scan's position is that of the last frame it saw, which has a length of its own.
fn scan_lag(store: &Store, marks: Watermarks) -> Result<u64> {
    let mut scan = store.scan(marks.scanned.max(store.oldest()?))?;
    Ok(scan.next()?.map_or(0, |first| marks.durable.since(first.lsn())))
}
