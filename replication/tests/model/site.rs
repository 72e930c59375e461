//! [`Site`]: a real store in a folder, the three phases over it, and what its log holds, read back.
//!
//! A phase lives until the story ends it, cleanly or not; so positions are met both as memory holds them and as
//! the log does.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use milepost_engine::{Lsn, Options, Retention, SiteName, Store, StoreId};
use milepost_replication::agent::{Links, Stop};
use milepost_replication::backup::back_up;
use milepost_replication::catalog::Definitions;
use milepost_replication::hooks::Hooks;
use milepost_replication::receive::{ReceiveOptions, ReceivePhase};
use milepost_replication::scan::ScanPhase;
use milepost_replication::send::{SendOptions, SendPhase, Serve};
use milepost_replication::tracking::{Patience, PollCause};
use tokio::runtime::Runtime;

use super::chance::{Chance, Time};
use super::logged::{Logged, logged};
use super::rules::{Act, Rules, operate};
use super::wire::Wire;

pub struct Site {
    pub name: &'static str,
    root: PathBuf,
    wire: Wire,
    options: Options,
    store: Option<Store>,
    receiving: Option<ReceivePhase>,
    scanning: Option<ScanPhase>,
    sending: Option<SendPhase>,
    pub message_bytes: u64,
    pub patience: Patience,
    pub group: u32,
    /// What it frees of its log once nobody needs it.
    pub frees: bool,
    /// It sends and confirms only what its last backup holds (`-u`).
    pub only_backed_up: bool,
    /// It may veto what comes, and what it vetoes is held.
    pub rules: Option<Arc<Rules>>,
    /// Counts its lives: each has a backup of its own.
    life: u32,
    /// What `seen` was when it was backed up last.
    kept: Option<(Lsn, Vec<Logged>)>,
    /// What its log has held so far, also what was freed since, and up to where.
    seen: RefCell<(Lsn, Vec<Logged>)>,
}

/// Why a pair does not go on.
pub struct Stopped {
    pub pair: SiteName,
    pub reason: String,
    /// What it needs was freed: an operator makes the pair anew.
    pub freed: bool,
}

impl Stopped {
    fn new((pair, reason): &(SiteName, String)) -> Stopped {
        Stopped {
            pair: pair.clone(),
            freed: reason.contains("was freed"),
            reason: reason.clone(),
        }
    }
}

impl Site {
    pub fn new(
        dir: &Path,
        name: &'static str,
        wire: &Wire,
        chance: Chance,
        (time, frees): (Time, bool),
    ) -> Site {
        let root = dir.join(name);
        let retention = if frees {
            Retention::UntilScanned
        } else {
            Retention::Forever
        };
        let options = Options::new()
            .segment_bytes(1 << 20)
            .retention(retention)
            .background(false)
            .clock(Arc::new(time))
            .rng(Arc::new(chance));
        let store = options.clone().init(&root, SiteName::new(name).unwrap()).unwrap();
        Site {
            name,
            root,
            wire: wire.clone(),
            options,
            store: Some(store),
            receiving: None,
            scanning: None,
            sending: None,
            message_bytes: 10_000,
            patience: Patience::NONE,
            group: 20,
            frees,
            only_backed_up: false,
            rules: None,
            life: 0,
            kept: None,
            seen: RefCell::default(),
        }
    }

    fn backup(&self) -> PathBuf {
        self.root.with_extension(format!("backup-{}", self.life))
    }

    pub fn back_up(&mut self) {
        self.store().sync().unwrap();
        self.log();
        let backed_up = back_up(self.store(), self.backup(), false, &mut |_, _| ());
        if let Err(error) = backed_up {
            // Some of the log was freed that no run copied: the operator takes another folder, as the message says.
            assert!(error.to_string().contains("choose another folder"), "{error}");
            self.life += 1;
            back_up(self.store(), self.backup(), false, &mut |_, _| ()).unwrap();
        }
        self.kept = Some(self.seen.borrow().clone());
    }

    /// Its folder is lost, and it is made again of its last backup.
    pub fn restore(&mut self) {
        self.end_phases(false);
        drop(self.store.take());
        // The operator kept the keys, which are in no backup.
        let (keys, kept) = (self.root.join("keys"), self.root.with_extension("keys"));
        let has_keys = keys.is_dir();
        if has_keys {
            std::fs::rename(&keys, &kept).unwrap();
        }
        std::fs::remove_dir_all(&self.root).unwrap();
        let options = self.options.clone();
        options
            .restore(self.backup(), &self.root, &mut |_, _| ())
            .unwrap();
        if has_keys {
            std::fs::rename(&kept, &keys).unwrap();
        }
        self.store = Some(options.open(&self.root).unwrap());
        *self.seen.borrow_mut() = self.kept.clone().unwrap();
        self.life += 1;
        self.back_up();
    }

    /// It was made of a backup before, or took to another folder for it.
    pub fn was_restored(&self) -> bool {
        self.life > 0
    }

    /// Frees what may go; how many segments. What it held is noted before.
    pub fn free(&mut self) -> u64 {
        self.log();
        if let Some(scanning) = &mut self.scanning {
            scanning.sync().unwrap();
        }
        self.store().free().unwrap()
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn definitions(&self) -> Definitions<'_> {
        Definitions::new(self.store())
    }

    /// Ends all phases, closes the store and opens it again.
    pub fn reopen(&mut self, cleanly: bool) {
        self.end_phases(cleanly);
        let store = self.store.take().unwrap();
        if cleanly {
            store.close().unwrap();
        } else {
            drop(store);
        }
        self.store = Some(self.options.clone().open(&self.root).unwrap());
    }

    pub fn end_phases(&mut self, cleanly: bool) {
        // A send phase that ends cleanly frees, too.
        self.log();
        (self.receiving, self.scanning) = (None, None);
        if let Some(mut sending) = self.sending.take()
            && cleanly
        {
            sending.remember().unwrap();
        }
    }

    /// Polls once; tells how many transactions were applied and which pair stopped, or why an operator would be called.
    pub fn receive(&mut self, cause: PollCause) -> Result<(u64, Option<Stopped>), String> {
        if self.receiving.is_none() {
            let options = ReceiveOptions {
                group: self.group,
                memory: 1 << 20,
                keep: false,
                apply: true,
                patience: self.patience,
            };
            let stop = Stop::new();
            let hooks = self.rules.clone().map(|rules| rules as Arc<dyn Hooks>);
            self.receiving = Some(
                ReceivePhase::open(self.store(), &self.links(&stop), options, &stop)
                    .unwrap()
                    .with_hooks(hooks)
                    // One, two or four, of the groups that are drawn.
                    .with_workers(1 + self.group % 4),
            );
        }
        let phase = self.receiving.as_mut().unwrap();
        let received = phase.poll(cause).unwrap();
        let stopped = phase.stopped();
        match (stopped.first().map(Stopped::new), received.quarantined.first()) {
            (Some(stopped), _) => Ok((received.transactions, Some(stopped))),
            (_, Some(aside)) => Err(format!("{}: {aside:?}", self.name)),
            _ => Ok((received.transactions, None)),
        }
    }

    /// What an operator does about what is held; tells how many are, afterwards, and how many were applied.
    pub fn operate(&mut self, act: Act, chance: &Chance) -> (usize, usize) {
        let Some(rules) = &self.rules else {
            return (0, 0);
        };
        self.receiving = None;
        operate(self.store.as_ref().unwrap(), rules, act, chance)
    }

    pub fn scan(&mut self) {
        if self.scanning.is_none() {
            self.scanning = Some(ScanPhase::open(self.store()).unwrap());
        }
        self.scanning.as_mut().unwrap().catch_up(&Stop::new()).unwrap();
    }

    /// Sends what is due to everybody; tells how many messages left, and which pair does not go on.
    pub fn send(&mut self) -> (u64, Option<Stopped>) {
        if self.sending.is_none() {
            let options = SendOptions {
                message_bytes: self.message_bytes,
                urgency: Duration::ZERO,
                send_every: Duration::from_secs(60),
                only_backed_up: self.only_backed_up,
            };
            let stop = Stop::new();
            self.sending = Some(SendPhase::open(self.store(), &self.links(&stop), options, &stop).unwrap());
        }
        let phase = self.sending.as_mut().unwrap();
        let sent = phase.round(Serve::Everybody).unwrap();
        (sent.messages, phase.stopped().first().map(Stopped::new))
    }

    fn links(&self, stop: &Stop) -> Links {
        let (wire, own) = (self.wire.clone(), self.name);
        Links::new(
            Box::new(move |_| Ok(wire.end(own))),
            &[],
            runtime().handle().clone(),
            stop.clone(),
        )
    }

    /// Every transaction that the log ever held, in order.
    pub fn log(&self) -> Vec<Logged> {
        let mut seen = self.seen.borrow_mut();
        let (at, found) = &mut *seen;
        let named = |origin: Option<(StoreId, &str)>| origin.map_or(self.name, |(_, name)| name).to_owned();
        let mut scan = self.store().scan(*at).unwrap();
        while let Some(frame) = scan.next().unwrap() {
            *at = frame.lsn();
            found.extend(logged(&named, &frame));
        }
        found.clone()
    }
}

/// One for all sites of all runs: the links only compute.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    })
}
