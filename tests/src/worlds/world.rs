//! [`World`]: the sites of one seed, what lies between them, and the next thing that happens.

use std::sync::Arc;
use std::time::Duration;

use milepost_replication::link::Link;
use milepost_replication::tracking::{Patience, PollCause};

use super::Totals;
use super::carrying::Carrying;
use super::chance::{Chance, Time};
use super::defined::{Making, Publications};
use super::founding::Founding;
use super::going_back::Back;
use super::judge::Commits;
use super::post::Post;
use super::process::{Habits, Task};
use super::sealing::Sealing;
use super::shape::{NAMES, PLAIN, Role, draw};
use super::site::{Known, Site};
use super::suspending::Limiting;
use super::trace::Trace;
use super::wire::{Weather, Wire};
use super::writing::Pen;
use crate::disk::SimDisk;

/// One direction of a pair.
pub struct Edge {
    pub from: usize,
    pub to: usize,
    /// Of the remote `to` at the site `from`, oldest first.
    pub makings: Vec<Making>,
}

impl Edge {
    /// Both directions of each pair.
    fn of(pairs: &[(usize, usize)]) -> Vec<Edge> {
        let both = pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        let edge = |(from, to)| Edge {
            from,
            to,
            makings: Vec::new(),
        };
        both.map(edge).collect()
    }

    /// The making in force, if the remote is there.
    pub fn making(&mut self) -> Option<&mut Making> {
        self.makings.last_mut().filter(|making| making.removed.is_none())
    }
}

/// What kind of a world it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything happens, and nobody goes back.
    Whole,
    /// A pair of which one site goes back in time, and otherwise plain.
    GoingBack,
    /// A plain pair of which some send only what is backed up.
    BackedUp,
}

/// See the module.
pub struct World {
    pub kind: Kind,
    pub back: Option<Back>,
    /// Why a pair stopped that may.
    pub stopped: Option<String>,
    pub chance: Chance,
    pub time: Time,
    pub wire: Wire,
    /// Links over servers, in place of the wire.
    pub post: Option<Post>,
    /// Keys of its pairs, in a third of the whole worlds.
    pub sealing: Option<Sealing>,
    /// Limits of its remotes, in a quarter of the whole worlds.
    pub limiting: Option<Limiting>,
    pub trace: Trace,
    /// A site that is made by another, in a fifth of the whole worlds.
    pub founding: Option<Founding>,
    /// A pair whose messages are carried, in a fifth of the whole worlds.
    pub carrying: Option<Carrying>,
    pub carried: Option<[usize; 2]>,
    pub sites: Vec<Site>,
    /// What was committed at stores that were lost, by what the judge calls them.
    pub lost: Vec<(String, Commits)>,
    pub edges: Vec<Edge>,
    pub publications: Vec<Publications>,
    pub pen: Pen,
    /// Counts makings of pairs.
    pub makings: u64,
    pub totals: Totals,
    /// Nothing befalls anybody any more.
    pub is_calm: bool,
}

/// What some of the whole worlds have beside. Drawn apart, so that the worlds without it are what they were.
struct Extras {
    sealing: Option<Sealing>,
    limiting: Option<Limiting>,
    founding: Option<Founding>,
    carrying: Option<Carrying>,
}

impl Extras {
    fn draw(seed: u64, kind: Kind, pairs: &[(usize, usize)]) -> Extras {
        let (keys, limits) = (
            Chance::new(seed ^ 0x5ea1_0000_0000),
            Chance::new(seed ^ 0x11e1_0000_0000),
        );
        let is_sealed = keys.percent(35) && kind == Kind::Whole;
        let is_limited = limits.percent(25) && kind == Kind::Whole;
        Extras {
            sealing: is_sealed.then(|| Sealing::new(keys, pairs)),
            limiting: is_limited.then(|| Limiting::new(limits)),
            founding: Founding::draw(seed, kind, pairs),
            carrying: Carrying::draw(seed, kind, pairs),
        }
    }

    fn habits(&self, chance: &Chance, heavy: bool, link: Arc<dyn Link>) -> Habits {
        Habits {
            message_bytes: if heavy { 300_000 } else { 10_000 },
            patience: Patience::NONE,
            group: chance.pick(&[1, 3, 20]),
            link,
            hooks: None,
            only_backed_up: false,
            is_sealed: self.sealing.is_some(),
            is_limited: self.limiting.is_some(),
            has_former: false,
        }
    }
}

/// The link of a site: over servers where there are some, and with somebody on it where there are keys.
pub fn link_of(name: &str, wire: &Wire, post: Option<&Post>, sealing: Option<&Sealing>) -> Arc<dyn Link> {
    let link = post.map_or_else(|| wire.end(name), |post| post.end(name));
    match sealing {
        Some(sealing) => sealing.end(name, link),
        None => link,
    }
}

impl World {
    pub fn new(seed: u64, trace: &Trace, kind: Kind) -> Result<World, String> {
        let (chance, time) = (Chance::new(seed), Time::default());
        let is_plain = kind != Kind::Whole;
        let (name, pairs) = if is_plain { PLAIN } else { draw(&chance) };
        let heavy = chance.percent(4) && !is_plain;
        trace.tell(format!("a {name} of sites{}", if heavy { ", heavy" } else { "" }));
        let wire = Wire::new(Chance::new(chance.below(u64::MAX)), time.clone());
        let count = pairs.iter().map(|(_, to)| to + 1).max().unwrap_or(0);
        let mut post = None;
        if chance.percent(30) && !is_plain {
            post = Some(Post::new(Chance::new(chance.below(u64::MAX)), &wire, trace)?);
        }
        let extras = Extras::draw(seed, kind, pairs);
        let (mut sites, known) = (Vec::new(), Known::default());
        for name in NAMES.into_iter().take(count) {
            let link = link_of(name, &wire, post.as_ref(), extras.sealing.as_ref());
            let habits = extras.habits(&chance, heavy, link);
            let own = Chance::new(chance.below(u64::MAX));
            let mut site = Site::new(name, own, habits, kind, known.clone());
            let is_late = extras
                .founding
                .as_ref()
                .is_some_and(|one| one.is_first(sites.len()));
            site.begin(is_late).map_err(|error| error.to_string())?;
            trace.tell(site.to_string());
            sites.push(site);
        }
        let mut world = World {
            kind,
            back: None,
            stopped: None,
            time,
            wire,
            post,
            sealing: extras.sealing,
            limiting: extras.limiting,
            trace: trace.clone(),
            publications: vec![Publications::new(); sites.len()],
            founding: extras.founding,
            carried: extras.carrying.as_ref().map(|one| one.sites),
            carrying: extras.carrying,
            lost: Vec::new(),
            sites,
            edges: Edge::of(pairs),
            pen: Pen::new(Chance::new(chance.below(u64::MAX)), heavy),
            makings: 0,
            totals: Totals::default(),
            is_calm: false,
            chance,
        };
        world.begin()?;
        world.hold_for_judge()?;
        Ok(world)
    }

    /// How many things happen before the faults stop.
    pub fn steps(&self) -> u64 {
        30 + self.chance.below(60)
    }

    pub fn tell(&self, line: String) {
        self.trace.tell(line);
    }

    pub fn pass(&self, pause: Duration) {
        self.time.pass(pause);
        self.sites.iter().for_each(|site| site.disk.advance(pause));
        if let Some(post) = &self.post {
            post.pass(pause);
        }
    }

    /// One thing happens.
    pub fn step(&mut self) -> Result<(), String> {
        self.pass(Duration::from_secs(1));
        self.maybe_change_keys()?;
        self.maybe_see_to_suspended()?;
        self.maybe_found()?;
        self.maybe_carry()?;
        let site = self.chance.below(self.sites.len() as u64) as usize;
        let edge = self.chance.below(self.edges.len() as u64) as usize;
        let act = self.chance.below(100);
        if self.sites[site].is_absent || (71..=78).contains(&act) && self.is_unsettled(edge) {
            return Ok(());
        }
        match act {
            0..=25 => self.commit_some(site),
            26..=42 => self.receive(site).map(drop),
            43..=52 => self.act(site, Role::Scan, Task::Scan).map(drop),
            53..=66 => self.act(site, Role::Send, Task::Send).map(drop),
            67..=70 => self.turns().map(drop),
            71..=74 => self.subscribe(edge),
            75..=76 => self.end_subscription(edge),
            77..=78 => self.remove_or_add_remote(edge),
            79 => self.publish(site),
            80..=83 => self.end_one(site),
            84..=85 => self.operate(site),
            86..=88 => {
                self.power_cut(site);
                Ok(())
            }
            89..=92 => self.free(site),
            93..=95 => {
                let pause = Duration::from_secs(self.chance.pick(&[20, 100, 1000, 100_000]));
                self.pass(pause);
                self.tell(format!("{} s pass", pause.as_secs()));
                Ok(())
            }
            96..=97 => {
                match &self.post {
                    Some(post) => post.lose_power(),
                    None => self.change_weather(),
                }
                Ok(())
            }
            _ => self.compare().map(drop),
        }
    }

    fn commit_some(&mut self, site: usize) -> Result<(), String> {
        for _ in 0..1 + self.chance.below(3) {
            self.commit(site)?;
        }
        Ok(())
    }

    pub fn receive(&mut self, site: usize) -> Result<u64, String> {
        let cause = self
            .chance
            .pick(&[PollCause::Due, PollCause::Due, PollCause::Push]);
        self.act(site, Role::Receive, Task::Receive(cause))
    }

    /// Every site runs all its phases once.
    pub fn turns(&mut self) -> Result<u64, String> {
        let mut applied = 0;
        for site in self.present() {
            applied += self.receive(site)?;
            self.act(site, Role::Scan, Task::Scan)?;
            self.act(site, Role::Send, Task::Send)?;
        }
        Ok(applied)
    }

    /// A process ends by itself, or is killed where it stands.
    pub fn end_one(&mut self, site: usize) -> Result<(), String> {
        let slot = self.chance.below(self.sites[site].slots.len() as u64) as usize;
        let role = self.sites[site].slots[slot].role;
        if self.chance.percent(50) {
            self.tell(format!("{}'s {} is killed", self.sites[site].name, role.name()));
            self.sites[site].slots[slot].kill();
            return Ok(());
        }
        // A send phase that ends cleanly frees, too.
        self.sites[site].look()?;
        self.act(site, role, Task::Leave)?;
        self.sites[site].slots[slot].kill();
        self.sites[site].habits.message_bytes = match self.pen.heavy {
            true => 300_000,
            false => self.chance.pick(&[10_000, 10_000, 50_000]),
        };
        let patient = Patience {
            polls: 1,
            every: Duration::from_secs(30),
        };
        self.sites[site].habits.patience = self.chance.pick(&[Patience::NONE, Patience::NONE, patient]);
        Ok(())
    }

    pub fn power_cut(&mut self, site: usize) {
        let rng = self.sites[site].rng();
        let disk = self.sites[site].disk.crash(&rng);
        self.tell(format!("{} loses power", self.sites[site].name));
        self.power_back(site, disk);
    }

    /// The power is back, and nobody is there yet.
    pub fn power_back(&mut self, site: usize, disk: SimDisk) {
        self.totals.cuts += 1;
        self.sites[site].boot(disk);
    }

    /// Whoever has what nobody needs any more lets it go.
    pub fn free(&mut self, site: usize) -> Result<(), String> {
        let told = |error: milepost_engine::Error| format!("an operator is refused: {error}");
        if !self.sites[site].frees {
            let rotated = self.sites[site]
                .desk()
                .and_then(|store| store.rotate(0))
                .map_err(told)?;
            self.tell(format!("{} rotates its log: {rotated}", self.sites[site].name));
            return Ok(());
        }
        if self.chance.percent(50) {
            self.act(site, Role::Scan, Task::Scan)?;
            self.act(site, Role::Scan, Task::Sync)?;
            self.act(site, Role::Send, Task::Send)?;
        }
        // What is noted and committed meanwhile may go, too.
        self.sites[site].look()?;
        let store = self.sites[site].desk().map_err(told)?;
        store.rotate(0).map_err(told)?;
        let gone = store.free().map_err(told)?;
        let begins = store.oldest().map_err(told)?;
        self.totals.freed += gone;
        self.tell(format!(
            "{} frees {gone} segments, its log begins at {begins}",
            self.sites[site].name
        ));
        self.maybe_leave_desk(site);
        Ok(())
    }

    /// Operators come and go.
    pub fn maybe_leave_desk(&mut self, site: usize) {
        if self.chance.percent(50) {
            self.sites[site].leave_desk();
        }
    }

    pub fn change_weather(&mut self) {
        let percent = |often: &[u64]| self.chance.pick(often);
        let weather = Weather {
            lose: percent(&[0, 10, 35]),
            repeat: percent(&[0, 10, 30]),
            delay: percent(&[0, 20, 50]),
            damage: percent(&[0, 0, 5]),
            refuse: percent(&[0, 0, 10]),
        };
        self.wire.set_weather(weather);
        self.tell(format!("{weather:?}"));
    }
}
