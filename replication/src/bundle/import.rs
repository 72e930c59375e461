//! [`import`]: takes what bundles carry, as the receive phase takes it from any link.
//!
//! ```text
//! files ─► bundles for this site, by number ─► receive phase, until nothing moves ─► what each came to ─► the ledger
//! ```
//!
//! Messages are applied, known already, waiting for an earlier bundle, or damaged; the phase asks for what is missing, and the
//! next export carries that. The files are left as they are, or removed when all of a bundle is taken, on request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use milepost_engine::{Error, Phase, Pinned, Result, SiteName, Store};

use super::carried::CarriedLink;
use super::layout::Header;
use super::ledger::{self, Incoming};
use super::outgoing::ByBundleOnly;
use super::ranges::Ranges;
use super::reader::Bundle;
use super::writer::{WHOLE, failed};
use crate::agent::{AgentOptions, Links, OpenLink, Stop, Told};
use crate::catalog::{Catalog, keep_history};
use crate::extract::refuse_unfinished;
use crate::hooks::SharedHooks;
use crate::link::Link;
use crate::receive::{ReceiveOptions, ReceivePhase, SetAside};
use crate::tracking::{PairState, Patience, PollCause, ServingRecord};

/// How bundles are imported.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// A bundle, or a folder of them.
    pub from: PathBuf,
    /// Remove the files of which all was taken.
    pub remove: bool,
    /// Transactions of fewer events than this share a block and a sync.
    pub group: u32,
    /// Memory for messages that wait, in bytes.
    pub memory: u64,
}

/// What became of an import.
#[derive(Debug, Default)]
pub struct Imported {
    /// Every bundle for this site, in the order in which they were taken.
    pub bundles: Vec<OneBundle>,
    /// Transactions applied.
    pub transactions: u64,
    /// Transactions that were put in quarantine, by the policy of their remote.
    pub held: u64,
    /// Messages that told nothing new.
    pub duplicates: u64,
    /// Files of the folder that are no bundle for this site, with the reason.
    pub passed_over: Vec<(PathBuf, Error)>,
    /// Messages that need an operator.
    pub quarantined: Vec<SetAside>,
    /// Pairs that are stopped, with the reason.
    pub stopped: Vec<(SiteName, String)>,
}

/// What became of one bundle.
#[derive(Clone, Debug)]
pub struct OneBundle {
    /// Where it is, or was.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Messages that were taken, applied or known.
    pub taken: u32,
    /// Messages that are damaged, as ranges of their numbers, from 0: they are asked for again.
    pub lost: Vec<(u64, u64)>,
    /// What else of the file is damaged.
    pub damage: Vec<String>,
    /// Whole messages that wait: for an earlier bundle, or for an operator.
    pub waiting: u32,
    /// Ranges of numbers of earlier bundles that were never taken whole here.
    pub missing: Vec<(u64, u64)>,
    /// The file was removed.
    pub removed: bool,
}

impl OneBundle {
    /// All of it was taken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.taken == self.header.count
    }
}

/// Imports a bundle, or all of a folder. Doing so again changes nothing.
///
/// # Errors
/// `Invalid` for a file that is no bundle for this site; `Corrupt` for one of which nothing can be read; `Conflict` naming the
/// process that receives; else those of store and files. What was applied before stays applied.
pub fn import(store: &Store, options: &ImportOptions) -> Result<Imported> {
    import_with(store, options, None)
}

/// As [`import`], with hooks, which rule on what is applied.
///
/// # Errors
/// As [`import`]; those of the hooks.
pub fn import_with(store: &Store, options: &ImportOptions, hooks: SharedHooks) -> Result<Imported> {
    refuse_unfinished(store)?;
    let mut imported = Imported::default();
    let bundles = find(store, &options.from, &mut imported)?;
    if bundles.is_empty() {
        return Ok(imported);
    }
    keep_history(store)?;
    let link = CarriedLink::new(bundles);
    receive(store, options, &link, hooks, &mut imported)?;
    for (number, bundle) in link.bundles().iter().enumerate() {
        imported.bundles.push(came_to(&link, number, bundle));
    }
    hear(store, &mut imported)?;
    if options.remove {
        for one in imported.bundles.iter_mut().filter(|one| one.is_whole()) {
            std::fs::remove_file(&one.path).map_err(|error| failed("remove", &one.path, error))?;
            one.removed = true;
        }
    }
    Ok(imported)
}

/// The bundles for this site, each once, by sender and number.
fn find(store: &Store, from: &Path, imported: &mut Imported) -> Result<Vec<Bundle>> {
    let catalog = Catalog::load(store)?;
    if !from.is_dir() {
        let bundle = Bundle::open(from)?;
        check(store, &catalog, &bundle)?;
        return Ok(vec![bundle]);
    }
    let mut found = BTreeMap::new();
    let entries = std::fs::read_dir(from).map_err(|error| failed("list", from, error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed("list", from, error))?.path();
        let is_ours = |name: &std::ffi::OsStr| name.to_str().is_some_and(is_whole_name);
        if !path.file_name().is_some_and(is_ours) {
            continue;
        }
        let opened = Bundle::open(&path).and_then(|bundle| check(store, &catalog, &bundle).map(|()| bundle));
        match opened {
            Ok(bundle) => {
                let header = bundle.header();
                // A copy of a bundle is the same bundle; the one with less damage counts.
                let key = (header.from.clone(), header.epoch.0, header.number, header.id);
                let damage = |bundle: &Bundle| bundle.damage().len() + bundle.lost().len();
                let known = found.get(&key);
                if known.is_none_or(|known| damage(&bundle) < damage(known)) {
                    found.insert(key, bundle);
                }
            }
            Err(error) => imported.passed_over.push((path, error)),
        }
    }
    imported
        .passed_over
        .sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found.into_values().collect())
}

fn is_whole_name(name: &str) -> bool {
    name.ends_with(WHOLE) && !name.starts_with('.')
}

fn check(store: &Store, catalog: &Catalog, bundle: &Bundle) -> Result<()> {
    let Header { from, to, number, .. } = bundle.header();
    let refused = |reason: String| Err(Error::invalid(reason).at_path(bundle.path()));
    if to != store.site() {
        return refused(format!(
            "is bundle {number} from {from} for {to}, and this is {}; carry it there",
            store.site()
        ));
    }
    if catalog.remote(from).is_none() {
        return refused(format!(
            "is from {from}, which is no remote of this site; `milepost remote add DIR {from} --link bundle:` makes it one"
        ));
    }
    Ok(())
}

fn receive(
    store: &Store,
    options: &ImportOptions,
    link: &CarriedLink,
    hooks: SharedHooks,
    imported: &mut Imported,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
    let stop = Stop::new();
    let links = Links::new(opener(link), &[], runtime.handle().clone(), stop.clone());
    let receive = ReceiveOptions {
        group: options.group,
        memory: options.memory,
        keep: false,
        apply: true,
        // As in batch: what is missing is asked for with the next bundle back.
        patience: Patience {
            polls: 0,
            every: Duration::from_secs(60),
        },
    };
    let phase = ReceivePhase::open(store, &links, receive, &stop)?;
    let _told = Told::of(vec![Phase::Receive], hooks.clone());
    let mut phase = phase
        .with_hooks(hooks)
        .with_workers(AgentOptions::default().workers());
    loop {
        let received = phase.poll(PollCause::Due)?;
        imported.transactions += received.transactions;
        imported.held += received.kept;
        imported.duplicates += received.duplicates;
        imported.quarantined.extend(received.quarantined);
        if let Some((_, error)) = received.failed_links.first() {
            return Err(Error::unavailable(format!(
                "{error}; what was applied stays applied, import it again"
            )));
        }
        if !received.moved {
            imported.stopped = phase.stopped();
            return Ok(());
        }
    }
}

/// The bundles stand for the link that is asked for first; whatever it is, messages go to the pair that their header names. All
/// others are silent: given twice, a message would be there twice.
fn opener(link: &CarriedLink) -> Box<OpenLink> {
    let (link, given) = (link.clone(), AtomicBool::new(false));
    Box::new(move |_: &[String]| {
        let link: Arc<dyn Link> = match given.swap(true, Ordering::SeqCst) {
            false => Arc::new(link.clone()),
            true => Arc::new(ByBundleOnly),
        };
        Ok(link)
    })
}

fn came_to(link: &CarriedLink, number: usize, bundle: &Bundle) -> OneBundle {
    let (taken, damaged) = link.came_to(number);
    let header = bundle.header().clone();
    let found: BTreeSet<u32> = bundle.messages().map(|(index, _)| index).collect();
    let mut lost = bundle.lost();
    lost.extend(damaged.iter().map(|index| (u64::from(*index), u64::from(*index))));
    lost.sort_unstable();
    let whole = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let unread = u32::try_from(damaged.len()).unwrap_or(u32::MAX);
    OneBundle {
        path: bundle.path().to_owned(),
        waiting: whole.saturating_sub(unread).saturating_sub(taken),
        header,
        taken,
        lost,
        damage: bundle.damage().to_vec(),
        missing: Vec::new(),
        removed: false,
    }
}

/// Notes what came and what the bundles acknowledge, once their effect is durable.
fn hear(store: &Store, imported: &mut Imported) -> Result<()> {
    let senders: BTreeSet<SiteName> = imported
        .bundles
        .iter()
        .map(|one| one.header.from.clone())
        .collect();
    for sender in senders {
        let mut known = Incoming::load(store, &sender)?;
        let mut is_news = false;
        let mut of_sender: Vec<&mut OneBundle> = imported
            .bundles
            .iter_mut()
            .filter(|one| one.header.from == sender)
            .collect();
        for one in &of_sender {
            let header = &one.header;
            let taken = one.is_whole().then_some(header.number);
            let told = (header.acknowledged_epoch, &header.acknowledged);
            is_news |= known.hear((header.epoch, store.epoch()), told, taken);
        }
        let none = Ranges::default();
        for one in &mut of_sender {
            let is_known = one.header.epoch == known.epoch;
            let taken = if is_known { &known.taken } else { &none };
            one.missing = taken.missing_below(one.header.number);
        }
        if is_news {
            // What it asked for and was sent may be lost with its stick: what it still misses goes again.
            let served = ServingRecord::key(&sender);
            let again = store.pinned(&served)?.map(|_| Pinned {
                key: served,
                value: None,
            });
            ledger::keep(store, &sender, &known, again)?;
        }
    }
    Ok(())
}
