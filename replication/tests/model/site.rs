//! [`Site`]: a real store in a folder, the three phases over it, and what its log holds, read back.
//!
//! A phase lives until the story ends it, cleanly or not; so positions are met both as memory holds them and as
//! the log does.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use milepost_engine::frame::{Events, FrameKind, FrameRef};
use milepost_engine::{Lsn, Options, Retention, SiteName, Store};
use milepost_replication::agent::{Links, Stop};
use milepost_replication::backup::back_up;
use milepost_replication::catalog::Definitions;
use milepost_replication::hooks::Hooks;
use milepost_replication::message::{Carried, Place};
use milepost_replication::quarantine::{HELD, HELD_PREFIX, HeldRecord};
use milepost_replication::receive::{ReceiveOptions, ReceivePhase};
use milepost_replication::scan::ScanPhase;
use milepost_replication::send::{SendOptions, SendPhase, Serve};
use milepost_replication::tracking::{Patience, PollCause};
use tokio::runtime::Runtime;

use super::chance::{Chance, Time};
use super::rules::{Act, Rules, operate};
use super::wire::Wire;

/// An event as the model and the log are compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub stream: String,
    pub kind: String,
    /// The header that subscribers may choose by.
    pub region: Option<String>,
    pub payload: String,
}

/// A transaction of a site's log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub lsn: Lsn,
    /// Where it was first committed.
    pub origin: (String, Lsn),
    /// Where it came from: neighbour, generation, place in that one's stream.
    pub via: Option<(String, u32, Place)>,
    /// With their ordinals at the origin.
    pub events: Vec<(u32, Told)>,
    pub what: What,
}

/// Which of those held: neighbour and number.
pub type HeldName = (String, u64);

/// What a frame does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It applies a transaction, maybe one that was held.
    Applied(Option<HeldName>),
    /// It holds one.
    Held(HeldName),
    /// One is held no longer.
    Ended(HeldName),
}

impl Logged {
    pub fn is_applied(&self) -> bool {
        matches!(self.what, What::Applied(_))
    }
}

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
        let mut scan = self.store().scan(*at).unwrap();
        while let Some(frame) = scan.next().unwrap() {
            *at = frame.lsn();
            found.extend(self.logged(&frame));
        }
        found.clone()
    }

    fn logged(&self, frame: &FrameRef<'_>) -> Option<Logged> {
        let mut pins = frame.pinned().unwrap().into_iter();
        let held = pins.find(|pin| pin.key.starts_with(HELD_PREFIX.as_bytes()));
        let name = held.map(|pin| (held_name(pin.key), pin.value));
        match (frame.kind(), name) {
            (HELD, Some((name, Some(value)))) => Some(held_of(frame, name, value)),
            (FrameKind::TRANSACTION, name) => Some(self.applied(frame, name.map(|(name, _)| name))),
            (_, Some((name, None))) => Some(Logged {
                lsn: frame.lsn(),
                origin: (String::new(), Lsn::ZERO),
                via: Some((name.0.clone(), 0, Place::NONE)),
                events: Vec::new(),
                what: What::Ended(name),
            }),
            _ => None,
        }
    }

    fn applied(&self, frame: &FrameRef<'_>, ends: Option<HeldName>) -> Logged {
        let origin = frame.origin().unwrap();
        let via = frame.via().unwrap().map(|via| {
            let place = Place {
                at: via.position.lsn,
                back: via.back,
            };
            (via.name.to_owned(), via.generation, place)
        });
        Logged {
            lsn: frame.lsn(),
            origin: origin.map_or((self.name.to_owned(), frame.lsn()), |origin| {
                (origin.name.to_owned(), origin.lsn)
            }),
            via,
            events: told_of(frame.events()),
            what: What::Applied(ends),
        }
    }
}

fn held_name(key: &[u8]) -> HeldName {
    let text = std::str::from_utf8(key).unwrap();
    let (remote, number) = text.strip_prefix(HELD_PREFIX).unwrap().split_once('/').unwrap();
    (remote.to_owned(), u64::from_str_radix(number, 16).unwrap())
}

fn held_of(frame: &FrameRef<'_>, name: HeldName, value: &[u8]) -> Logged {
    let record: HeldRecord = milepost_engine::codec::decode(value).unwrap();
    let carried = Carried::decode(frame.body()).unwrap();
    Logged {
        lsn: frame.lsn(),
        origin: (record.origin_name, record.origin_lsn),
        via: Some((name.0.clone(), record.generation, record.point.place())),
        events: told_of(carried.events()),
        what: What::Held(name),
    }
}

fn told_of(events: Events<'_>) -> Vec<(u32, Told)> {
    let told = events.map(|event| {
        let event = event.unwrap();
        let told = Told {
            stream: event.stream().unwrap().to_owned(),
            kind: event.kind().unwrap().to_owned(),
            region: event.headers().get("region").unwrap().map(str::to_owned),
            payload: String::from_utf8(event.payload.to_vec()).unwrap(),
        };
        (event.ordinal, told)
    });
    told.collect()
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
