//! [`export`]: one bundle for one remote.
//!
//! ```text
//! scan to the durable end ─► send phase, that remote alone ─► records ─► finished under its name, synced
//!     ─► only then: log_sent moves, the bundle is remembered
//! ```
//!
//! Killed anywhere before, nothing counts as sent, and the next export begins where the last finished one ended. Killed between
//! the name and the note, the next bundle has the same number and carries the same again, which is harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::{Error, ErrorKind, Phase, Result, SiteName, Store, StoreId};

use super::layout::{Header, MOST_RANGES};
use super::ledger::{self, Exported, Incoming, Outgoing};
use super::outgoing::{BundleLink, Cut, Filled};
use super::packed::Packed;
use super::writer::{BundleWriter, remove_left_over};
use crate::agent::{Links, Stop, Told};
use crate::catalog::{Catalog, Remote, keep_history};
use crate::extract::refuse_unfinished;
use crate::hooks::{Hooks, SharedHooks};
use crate::keys::keys_of;
use crate::link::Link;
use crate::scan::ScanPhase;
use crate::send::{SendOptions, SendPhase, Sent, Serve};
use crate::tracking::{Neighbour, PairRecords};

/// How long another process that scans is waited for.
const SCAN_WITHIN: Duration = Duration::from_secs(60);

/// How a bundle is made.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// A folder, in which it gets a name of its own, or the name of a file that is not there yet.
    pub to: PathBuf,
    /// Send again what is not confirmed, though it was sent before: the former bundle is lost.
    pub again: bool,
    /// Largest bundle, in bytes; what does not fit is for the next.
    pub most_bytes: Option<u64>,
    /// Largest message, in bytes.
    pub message_bytes: u64,
    /// Send and confirm only what the last backup covers.
    pub only_backed_up: bool,
}

/// A bundle that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Transactions in its messages.
    pub transactions: u64,
    /// The transaction that alone is longer than the bundle may be: no bundle of this length will ever bring it.
    pub cut: Option<Cut>,
}

/// What became of an export.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// There is a bundle.
    Made(Box<Made>),
    /// The remote is due nothing: no transaction, no confirmation, no request.
    NothingDue,
    /// The pair is stopped, for this reason.
    Stopped(String),
    /// The remote is suspended, for this reason, and there is nothing to confirm to it.
    Suspended(String),
}

/// Makes a bundle of all that a remote is due: transactions, confirmations, requests.
///
/// # Errors
/// `Invalid` for a remote that is not there, and a place where no file can be; `Conflict` naming the process that holds a phase;
/// `Full` when there is no space, or nothing fits; else those of store and files. Nothing counts as sent then, and no file is left.
pub fn export(store: &Store, remote: &SiteName, options: &ExportOptions) -> Result<Outcome> {
    export_with(store, remote, options, None)
}

/// As [`export`], with hooks: of a message they are told once the bundle that holds it has its name.
///
/// # Errors
/// As [`export`].
pub fn export_with(
    store: &Store,
    remote: &SiteName,
    options: &ExportOptions,
    hooks: SharedHooks,
) -> Result<Outcome> {
    refuse_unfinished(store)?;
    let catalog = Catalog::load(store)?;
    let unknown = || Error::invalid(format!("there is no remote {remote}; see `milepost remote list`"));
    let remote = catalog.remote(remote).ok_or_else(unknown)?;
    keep_history(store)?;
    let (folder, file) = place(&options.to)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
    let stop = Stop::new();
    // The link is made once the lock is held: what a killed export left is only then nobody's.
    let slot = Arc::new(std::sync::Mutex::new(None::<BundleLink>));
    let links = Links::new(opener(&slot), &[], runtime.handle().clone(), stop.clone());
    let send = SendOptions {
        message_bytes: options.message_bytes,
        urgency: Duration::ZERO,
        send_every: Duration::from_secs(60),
        only_backed_up: options.only_backed_up,
    };
    let phase = SendPhase::open(store, &links, send, &stop)?;
    let _told = Told::of(vec![Phase::Send], hooks.clone());
    let packed = hooks.clone().map(|hooks| Arc::new(Packed::new(hooks)));
    let shared = |packed: Arc<Packed>| -> Arc<dyn Hooks> { packed };
    let mut phase = phase.with_hooks(packed.clone().map(shared));
    scan(store, &hooks, &stop)?;
    remove_left_over(&folder, store.site(), &remote.site)?;
    let writer = BundleWriter::begin(&folder, store.site(), &remote.site, &**store.rng())?;
    let keys = keys_of(store, &remote.site)?;
    let link = BundleLink::new(remote.site.clone(), keys, writer, options.most_bytes);
    *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(link.clone());
    if options.again {
        phase.send_again(&remote.site)?;
    }
    let sent = phase.round(Serve::Only(&remote.site))?;
    let filled = link.take()?;
    if let Some(nothing) = judge(&phase, &remote.site, &sent, &filled)? {
        return Ok(nothing);
    }
    let made = finish(store, remote, filled, file.as_deref())?;
    phase.remember()?;
    note(store, remote, &phase, &made)?;
    if let Some(packed) = packed {
        packed.tell();
    }
    Ok(Outcome::Made(Box::new(made)))
}

/// The folder of the bundle, and its whole path where it was given.
fn place(to: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    if to.is_dir() {
        return Ok((to.to_owned(), None));
    }
    let folder = match to.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    };
    if to.as_os_str().as_encoded_bytes().ends_with(b"/") || !folder.is_dir() {
        let missing = "there is no such folder; is the stick mounted?";
        return Err(Error::invalid(missing).at_path(to));
    }
    if std::fs::symlink_metadata(to).is_ok() {
        let there =
            "there is a file of that name already; it is left as it is, choose another name or a folder";
        return Err(Error::invalid(there).at_path(to));
    }
    Ok((folder.to_owned(), Some(to.to_owned())))
}

type Slot = Arc<std::sync::Mutex<Option<BundleLink>>>;

/// Every remote's link is the bundle: it takes messages for its own addressee alone, and no other is served.
fn opener(slot: &Slot) -> Box<crate::agent::OpenLink> {
    let slot = Arc::clone(slot);
    Box::new(move |_: &[String]| {
        let link = slot
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let link =
            link.ok_or_else(|| Error::internal("a bundle's link was asked for before there is one"))?;
        let link: Arc<dyn Link> = Arc::new(link);
        Ok(link)
    })
}

/// All that is committed is in the queue, by our own scan or by that of whoever holds the phase.
fn scan(store: &Store, hooks: &SharedHooks, stop: &Stop) -> Result<()> {
    let marker = store.append_marker()?;
    match ScanPhase::open(store) {
        Ok(mut scan) => {
            let _told = Told::of(vec![Phase::Scan], hooks.clone());
            scan.catch_up(stop)?;
            scan.sync()
        }
        Err(error) if error.kind() == ErrorKind::Conflict => match store.wait_scanned(marker, SCAN_WITHIN)? {
            true => Ok(()),
            false => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The outcome of a round that is no bundle.
fn judge(phase: &SendPhase, site: &SiteName, sent: &Sent, filled: &Filled) -> Result<Option<Outcome>> {
    let of_site = |all: Vec<(SiteName, String)>| all.into_iter().find(|(known, _)| known == site);
    if let Some((_, reason)) = of_site(phase.stopped()) {
        return Ok(Some(Outcome::Stopped(reason)));
    }
    check(sent, filled)?;
    Ok(match (filled.writer.count(), of_site(phase.suspended())) {
        (0, Some((_, reason))) => Some(Outcome::Suspended(reason)),
        (0, None) => Some(Outcome::NothingDue),
        // What came of it is confirmed to it.
        (_, Some((_, reason))) => {
            tracing::error!(remote = %site, "the bundle brings nothing of this site's log: {reason}");
            None
        }
        (_, None) => None,
    })
}

/// What does not fit is for the next bundle, unless this one is empty.
fn check(sent: &Sent, filled: &Filled) -> Result<()> {
    match (&filled.full, sent.failed_links.first()) {
        (Some(reason), _) if filled.writer.count() == 0 => Err(Error::full(format!(
            "nothing fits: {reason}; allow more, or make messages smaller with --message-bytes"
        ))),
        (Some(_), _) | (None, None) => Ok(()),
        (None, Some((_, error))) => Err(Error::internal(format!("the bundle could not be made: {error}"))),
    }
}

fn finish(store: &Store, remote: &Remote, filled: Filled, file: Option<&Path>) -> Result<Made> {
    let (known, came) = (
        Outgoing::load(store, &remote.site)?,
        Incoming::load(store, &remote.site)?,
    );
    let header = Header {
        id: 0,
        number: known.number.saturating_add(1),
        bytes: 0,
        count: 0,
        heads_crc: 0,
        created: store.clock().wall_micros(),
        from: store.site().clone(),
        from_id: store.id(),
        to: remote.site.clone(),
        to_id: store_id(store, remote)?,
        epoch: store.epoch(),
        more: filled.full.is_some(),
        acknowledged_epoch: came.epoch,
        acknowledged: came.taken.newest(MOST_RANGES),
    };
    let (header, path) = filled.writer.finish(header, file)?;
    Ok(Made {
        path,
        header,
        transactions: filled.transactions,
        cut: filled.cut,
    })
}

/// Id of the remote's store, as far as it was heard from.
fn store_id(store: &Store, remote: &Remote) -> Result<StoreId> {
    let neighbour = Neighbour {
        name: remote.site.clone(),
        generation: remote.generation,
    };
    let records = PairRecords::load(&neighbour, |key| Ok(store.pinned(key)?.map(|(value, _)| value)))?;
    Ok(records.pair.map_or(StoreId(0), |pair| pair.site))
}

fn note(store: &Store, remote: &Remote, phase: &SendPhase, made: &Made) -> Result<()> {
    let header = &made.header;
    let mut known = Outgoing::load(store, &remote.site)?;
    known.add(Exported {
        number: header.number,
        id: header.id,
        created: header.created,
        messages: header.count,
        transactions: made.transactions,
        bytes: header.bytes,
        last: phase.log_sent(&remote.site).unwrap_or_default(),
    });
    ledger::keep(store, &remote.site, &known, None).map_err(|error| {
        let told = "the bundle is whole and can be carried, but its number is not remembered, and the next will have it too";
        Error::new(error.kind(), told)
            .at_path(&made.path)
            .caused_by(error)
    })
}
