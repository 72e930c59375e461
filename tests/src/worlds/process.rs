//! [`Running`]: one simulated process of a site: its store, opened by itself, and its phases, as long as it lives.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use milepost_engine::{Durability, Error, ErrorKind, Lsn, Result, SiteName, Store, Transaction};
use milepost_replication::agent::{Links, Stop};
use milepost_replication::bundle::{self, ExportOptions, ImportOptions, Outcome};
use milepost_replication::hooks::SharedHooks;
use milepost_replication::link::{Batch, Link, LinkError, LinkFuture, MessageId, PollRequest};
use milepost_replication::receive::{ReceiveOptions, ReceivePhase, SetAside};
use milepost_replication::scan::ScanPhase;
use milepost_replication::send::{SendOptions, SendPhase, Serve};
use milepost_replication::tracking::{Patience, PollCause};
use tokio::runtime::Runtime;

use super::carrying::BUNDLE;
use super::chance::Chance;
use super::fate::Fate;
use super::vetoes::{Act, operate};
use crate::disk::SimProcess;

/// How a site's phases are run.
#[derive(Clone)]
pub struct Habits {
    pub message_bytes: u64,
    pub patience: Patience,
    pub group: u32,
    pub link: Arc<dyn Link>,
    pub hooks: SharedHooks,
    /// `-u`
    pub only_backed_up: bool,
    /// Pairs get keys, one side after the other, and somebody forges.
    pub is_sealed: bool,
    /// A neighbour's store was replaced: what the former one had on its way is set aside.
    pub has_former: bool,
    /// Remotes have limits, and every site frees what nobody needs.
    pub is_limited: bool,
}

/// What a site says of messages that it does not believe: nobody's fault where pairs get keys.
const DISTRUST: [&str; 3] = [
    "the message is not sealed",
    "its seal is wrong",
    "which is not here: it waits",
];

/// The same of a message of a store that was replaced.
const FORMER: &str = "and nothing of it is taken. If ";

/// What a process is to do next.
pub enum Task {
    Commit(Box<Transaction>, Durability),
    Receive(PollCause),
    Scan,
    /// What is scanned is made durable.
    Sync,
    Send,
    /// An operator does something about what is held.
    Quarantine(Act, Chance),
    /// A bundle for a remote is made in a folder.
    Export {
        remote: &'static str,
        to: PathBuf,
        again: bool,
        most: Option<u64>,
    },
    /// All bundles of a folder are taken.
    Import(PathBuf),
    /// Its phases end cleanly.
    Leave,
}

impl Task {
    pub fn name(&self) -> &'static str {
        match self {
            Task::Commit(_, Durability::Synced) => "commits",
            Task::Commit(..) => "commits, buffered",
            Task::Receive(_) => "receives",
            Task::Scan => "scans",
            Task::Sync => "syncs the queue",
            Task::Send => "sends",
            Task::Quarantine(Act::Drop, _) => "drops one that is held",
            Task::Quarantine(..) => "retries what is held",
            Task::Export { .. } => "makes a bundle",
            Task::Import(_) => "takes bundles",
            Task::Leave => "leaves",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    Committed(Lsn),
    /// Transactions, and what stopped or needs an operator.
    Received(u64, Vec<String>),
    Scanned(u64),
    /// Transactions that were held and are applied.
    Retried(u64),
    /// Messages, what stopped, and who is suspended.
    Sent(u64, Vec<String>, Vec<SiteName>),
    Left,
}

/// See the module.
pub struct Running {
    pub process: SimProcess,
    pub fate: Arc<Fate>,
    receiving: Option<ReceivePhase>,
    scanning: Option<ScanPhase>,
    sending: Option<SendPhase>,
    // Last: phases go before the store that they are over.
    store: Option<Store>,
}

impl Running {
    /// A process that has opened nothing yet.
    pub fn new(process: SimProcess, fate: Arc<Fate>) -> Running {
        Running {
            process,
            fate,
            receiving: None,
            scanning: None,
            sending: None,
            store: None,
        }
    }

    /// Does a task; opens what it needs.
    pub fn perform(
        &mut self,
        open: impl FnOnce(&SimProcess) -> Result<Store>,
        habits: &Habits,
        task: Task,
    ) -> Result<Done> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => self.store.insert(open(&self.process)?).clone(),
        };
        match task {
            Task::Commit(transaction, durability) => {
                let done = store.commit_with(*transaction, durability)?.committed();
                let done = done.map_err(|_| Error::internal("a commit without expectations was refused"))?;
                Ok(Done::Committed(done.lsn))
            }
            Task::Receive(cause) => self.receive(&store, habits, cause),
            Task::Scan => {
                let phase = match &mut self.scanning {
                    Some(phase) => phase,
                    none => none.insert(ScanPhase::open(&store)?),
                };
                Ok(Done::Scanned(phase.catch_up(&Stop::new())?.entries))
            }
            Task::Sync => {
                if let Some(phase) = &mut self.scanning {
                    phase.sync()?;
                }
                Ok(Done::Left)
            }
            Task::Send => self.send(&store, habits),
            Task::Quarantine(act, chance) => {
                // Whoever retries has the receive phase.
                self.receiving = None;
                operate(&store, &habits.hooks, act, &chance)
            }
            Task::Export {
                remote,
                to,
                again,
                most,
            } => {
                // Who makes a bundle has the phases, which end cleanly before.
                self.end_phases()?;
                let options = ExportOptions {
                    to,
                    again,
                    most_bytes: most,
                    message_bytes: habits.message_bytes,
                    only_backed_up: habits.only_backed_up,
                };
                export_bundle(&store, remote, &options)
            }
            Task::Import(folder) => {
                self.receiving = None;
                import_bundles(&store, habits, folder)
            }
            Task::Leave => self.leave(),
        }
    }

    fn receive(&mut self, store: &Store, habits: &Habits, cause: PollCause) -> Result<Done> {
        let phase = match &mut self.receiving {
            Some(phase) => phase,
            none => {
                let options = ReceiveOptions {
                    group: habits.group,
                    memory: 1 << 20,
                    keep: false,
                    apply: true,
                    patience: habits.patience,
                };
                let stop = Stop::new();
                let phase = ReceivePhase::open(store, &links(habits, &stop), options, &stop)?;
                none.insert(phase.with_hooks(habits.hooks.clone()))
            }
        };
        let received = phase.poll(cause)?;
        let wrong = wrong_of(habits, &phase.stopped(), &received.quarantined);
        Ok(Done::Received(received.transactions, wrong))
    }

    fn send(&mut self, store: &Store, habits: &Habits) -> Result<Done> {
        let phase = match &mut self.sending {
            Some(phase) => phase,
            none => {
                let options = SendOptions {
                    message_bytes: habits.message_bytes,
                    urgency: Duration::ZERO,
                    send_every: Duration::from_secs(60),
                    only_backed_up: habits.only_backed_up,
                };
                let stop = Stop::new();
                none.insert(SendPhase::open(store, &links(habits, &stop), options, &stop)?)
            }
        };
        let sent = phase.round(Serve::Everybody)?;
        let stopped = phase.stopped();
        let wrong = stopped
            .iter()
            .map(|(pair, why)| stopped_text(pair, why))
            .collect();
        let suspended = phase.suspended().into_iter().map(|(site, _)| site).collect();
        Ok(Done::Sent(sent.messages, wrong, suspended))
    }

    fn end_phases(&mut self) -> Result<()> {
        if let Some(mut phase) = self.scanning.take() {
            phase.sync()?;
        }
        if let Some(mut phase) = self.sending.take() {
            phase.remember()?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<Done> {
        self.receiving = None;
        self.end_phases()?;
        match self.store.take() {
            Some(store) => store.close().map(|_| Done::Left),
            None => Ok(Done::Left),
        }
    }
}

/// What stopped or needs an operator, and is nobody's fault that is known of.
fn wrong_of(habits: &Habits, stopped: &[(SiteName, String)], aside: &[SetAside]) -> Vec<String> {
    let mut wrong: Vec<String> = stopped
        .iter()
        .map(|(pair, why)| stopped_text(pair, why))
        .collect();
    if wrong.is_empty() {
        let asides = aside.iter().map(|aside| format!("{aside:?}"));
        let expected = |text: &String| {
            habits.is_sealed && DISTRUST.iter().any(|why| text.contains(why))
                || habits.has_former && text.contains(FORMER)
        };
        wrong.extend(asides.filter(|text| !expected(text)));
    }
    wrong
}

fn export_bundle(store: &Store, remote: &str, options: &ExportOptions) -> Result<Done> {
    let remote = SiteName::new(remote)?;
    Ok(match bundle::export(store, &remote, options) {
        Ok(Outcome::Made(made)) => Done::Sent(u64::from(made.header.count), Vec::new(), Vec::new()),
        Ok(Outcome::NothingDue) => Done::Sent(0, Vec::new(), Vec::new()),
        Ok(Outcome::Stopped(why)) => Done::Sent(0, vec![stopped_text(&remote, &why)], Vec::new()),
        Ok(Outcome::Suspended(_)) => Done::Sent(0, Vec::new(), vec![remote]),
        // Another one scans, and stands still.
        Err(error) if error.kind() == ErrorKind::Conflict => Done::Left,
        Err(error) => return Err(error),
    })
}

fn import_bundles(store: &Store, habits: &Habits, from: PathBuf) -> Result<Done> {
    let options = ImportOptions {
        from,
        remove: false,
        group: habits.group,
        memory: 1 << 20,
    };
    let imported = bundle::import_with(store, &options, habits.hooks.clone())?;
    let wrong = wrong_of(habits, &imported.stopped, &imported.quarantined);
    Ok(Done::Received(imported.transactions, wrong))
}

/// A pair that stopped, as [`super::acts`] reads it.
pub const STOPPED: &str = "the pair with ";

fn stopped_text(pair: &SiteName, why: &str) -> String {
    format!("{STOPPED}{pair} stopped: {why}")
}

fn links(habits: &Habits, stop: &Stop) -> Links {
    let link = Arc::clone(&habits.link);
    Links::new(
        Box::new(move |addresses| {
            Ok(match addresses {
                [only] if only == BUNDLE => Arc::new(Silent) as Arc<dyn Link>,
                _ => Arc::clone(&link),
            })
        }),
        &[],
        runtime().handle().clone(),
        stop.clone(),
    )
}

/// The link of a remote that is reached by bundles alone.
struct Silent;

impl Link for Silent {
    fn deliver<'a>(&'a self, to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async move { Err(LinkError::refused(BUNDLE, format!("{to} is carried to"))) })
    }

    fn poll<'a>(&'a self, _request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async { Ok(Batch::default()) })
    }

    fn remove<'a>(&'a self, _ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn address(&self) -> String {
        BUNDLE.to_owned()
    }
}

/// One for all sites of all runs: the links only compute.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    })
}
