//! [`Site`]: a simulated machine with a store on it, the processes that are alive there, and what its log was ever seen to hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use milepost_engine::{Lsn, Options, Result, Retention, SiteName, Store, StoreId};
use milepost_replication::hooks::Hooks;

use super::chance::Chance;
use super::fate::Fate;
use super::judge::Commits;
use super::logged::{Logged, Told};
use super::process::{Habits, Running};
use super::shape::Role;
use super::vetoes::Rules;
use super::world::Kind;
use crate::SimRng;
use crate::disk::{Profile, SimDisk, SimProcess};

/// A place for one process at a time.
pub struct Slot {
    pub role: Role,
    pub running: Option<Running>,
}

/// A transaction whose commit was not acknowledged as durable: it is there once, or not at all.
pub struct Maybe {
    pub events: Vec<Told>,
}

/// What the judge calls the stores of a world: their site's name, with a stroke for each that was lost before.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<BTreeMap<StoreId, String>>>);

impl Known {
    pub fn add(&self, store: StoreId, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(store, name.to_owned());
    }

    pub fn is_named(&self, name: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().any(|one| one == name)
    }

    pub fn name(&self, store: StoreId) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&store).cloned()
    }
}

/// See the module.
pub struct Site {
    pub name: &'static str,
    /// What the judge calls its store.
    pub judged: String,
    pub known: Known,
    /// It has no store yet, or no longer.
    pub is_absent: bool,
    /// Any act may free its log, and the judge keeps what he has not seen.
    pub is_held_for_judge: bool,
    pub profile: Profile,
    pub disk: SimDisk,
    pub frees: bool,
    pub habits: Habits,
    /// It may veto what comes.
    pub rules: Option<Arc<Rules>>,
    pub slots: Vec<Slot>,
    pub chance: Chance,
    /// The operator's process, to which nothing happens.
    desk: Option<(SimProcess, Store)>,
    /// What its log has held durably so far, also what was freed since, and up to where.
    pub seen: (Lsn, Vec<Logged>),
    pub commits: Commits,
    pub maybe: Vec<Maybe>,
    /// Nobody has looked since the power went.
    pub lost_power: bool,
    /// Of the machines before the last power cut.
    pub hash: u64,
}

impl Site {
    pub fn new(name: &'static str, chance: Chance, habits: Habits, kind: Kind, known: Known) -> Site {
        let profile = chance.pick(&Profile::ALL);
        let has_rules = chance.percent(35) && kind == Kind::Whole;
        let rules = has_rules.then(|| Rules::new(Chance::new(chance.below(u64::MAX))));
        let hooks = rules.clone().map(|rules| rules as Arc<dyn Hooks>);
        Site {
            rules,
            name,
            judged: name.to_owned(),
            known,
            is_absent: true,
            is_held_for_judge: false,
            profile,
            disk: SimDisk::like(profile, chance.below(u64::MAX)),
            frees: chance.percent(50) && kind != Kind::GoingBack || habits.is_limited,
            habits: Habits { hooks, ..habits },
            slots: Role::draw(&chance)
                .into_iter()
                .map(|role| Slot { role, running: None })
                .collect(),
            chance,
            desk: None,
            seen: (Lsn::ZERO, Vec::new()),
            commits: Commits::new(),
            maybe: Vec::new(),
            lost_power: false,
            hash: 0,
        }
    }

    /// Its store is made, on its disk, unless it comes later.
    pub fn begin(&mut self, is_late: bool) -> Result<()> {
        if is_late {
            self.be_absent();
            return Ok(());
        }
        let founder = self.disk.start();
        let store = self
            .options(&founder)
            .init_in(founder.storage(), SiteName::new(self.name)?)?;
        self.known.add(store.id(), &self.judged);
        self.desk = Some((founder, store));
        self.is_absent = false;
        Ok(())
    }

    /// It has no store, and no rules for what comes: who is made stops at a veto.
    pub fn be_absent(&mut self) {
        (self.rules, self.habits.hooks) = (None, None);
        self.is_absent = true;
        self.lost_power = false;
        self.maybe.clear();
    }

    /// It has the store on this disk.
    pub fn be_there(&mut self, disk: SimDisk) {
        self.boot(disk);
        self.lost_power = false;
        self.is_absent = false;
    }

    pub fn options(&self, process: &SimProcess) -> Options {
        options(process, self.profile, self.frees, &self.rng())
    }

    pub fn rng(&self) -> SimRng {
        SimRng::new(self.chance.below(u64::MAX))
    }

    /// How a process of this site opens its store.
    pub fn opener(&self) -> impl FnOnce(&SimProcess) -> Result<Store> + Send + 'static {
        let (profile, frees, rng) = (self.profile, self.frees, self.rng());
        move |process| options(process, profile, frees, &rng).open_in(process.storage())
    }

    /// A process to be filled into a slot.
    pub fn start(&self) -> Running {
        let fate = Arc::new(Fate::new(&self.disk, self.rng()));
        Running::new(self.disk.directed(Arc::clone(&fate) as _), fate)
    }

    /// The operator's store.
    pub fn desk(&mut self) -> Result<Store> {
        if let Some((_, store)) = &self.desk {
            return Ok(store.clone());
        }
        let process = self.disk.start();
        let store = self.options(&process).open_in(process.storage())?;
        self.desk = Some((process, store.clone()));
        Ok(store)
    }

    /// The operator leaves, so that whoever comes next may be alone.
    pub fn leave_desk(&mut self) {
        if let Some((process, store)) = self.desk.take() {
            drop(store);
            process.kill();
        }
    }

    /// The power is back, on what it left.
    pub fn boot(&mut self, disk: SimDisk) {
        self.kill_all();
        self.hash = self.hash.rotate_left(7) ^ self.disk.trace();
        self.disk = disk;
        self.lost_power = true;
    }

    /// Every process dies.
    pub fn kill_all(&mut self) {
        for slot in &mut self.slots {
            slot.kill();
        }
        self.leave_desk();
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<&str> = self.slots.iter().map(|slot| slot.role.name()).collect();
        let frees = if self.frees { ", frees its log" } else { "" };
        let vetoes = if self.rules.is_some() {
            ", vetoes some of what comes"
        } else {
            ""
        };
        let (name, disk) = (self.name, self.profile.name());
        write!(f, "{name}: {disk} disk, {}{frees}{vetoes}", roles.join(", "))
    }
}

impl Slot {
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.process.kill();
            bury(running);
        }
    }
}

/// Drops what a killed process had, whatever it meets on its way out.
pub fn bury(running: Running) {
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(running)));
    drop(gone);
}

pub fn options(process: &SimProcess, profile: Profile, frees: bool, rng: &SimRng) -> Options {
    let retention = if frees {
        Retention::UntilScanned
    } else {
        Retention::Forever
    };
    Options::new()
        .segment_bytes(1 << 20)
        .background(false)
        .retention(retention)
        .pad_to(profile.garbage().unwrap_or(1))
        .clock(process.clock())
        .rng(Arc::new(rng.clone()))
}
