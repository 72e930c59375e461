//! [`Story`]: the sites of one seed, their operators and their weather, and what the model remembers of it all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_engine::{Event, Lsn, Transaction};
use milepost_replication::tracking::{Patience, PollCause};

use super::chance::{Chance, Time};
use super::defined::{Making, Publications};
use super::judge::{
    Commits, Side, events_are_genuine_and_single, nothing_overtakes_what_is_held, own_commits_are_there,
    stream_is_as_due,
};
use super::limits::Limited;
use super::logged::{Logged, Told};
use super::rules::{Act, Rules};
use super::secrets::Secret;
use super::site::{Site, Stopped};
use super::wire::{Weather, Wire};

pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Days without news after which everything must be there, and after which it never will: an asking may wait
/// for 64 polls.
const DAYS_OF_REST: usize = 3;
const DAYS_OF_PATIENCE: usize = 70;
/// A hole in a stream takes a round each way, and a story has some hundred at most.
const DAYS_AT_MOST: usize = 2_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Who is whose neighbour; the flag says whether the first publishes to the second. No arrow leads back to where
/// it came from other than directly, because a loop of sites stops its pairs, rightly (R4).
const MAPS: [(&str, &[(usize, usize, bool)]); 4] = [
    ("pair", &[(0, 1, true), (1, 0, true)]),
    ("line", &[(0, 1, true), (1, 0, true), (1, 2, true), (2, 1, true)]),
    (
        "triangle",
        &[
            (0, 1, true),
            (1, 0, true),
            (0, 2, true),
            (2, 0, false),
            (1, 2, true),
            (2, 1, false),
        ],
    ),
    (
        "diamond",
        &[
            (0, 1, true),
            (1, 0, false),
            (0, 2, true),
            (2, 0, false),
            (1, 3, true),
            (3, 1, false),
            (2, 3, true),
            (3, 2, false),
        ],
    ),
];

/// What happened, a line each; shared, so that it outlives a panic.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub fn tell(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap();
        lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// One direction of a pair.
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub publishes: bool,
    /// Of the remote `to` at the site `from`, oldest first.
    pub makings: Vec<Making>,
}

impl Edge {
    /// The making in force, if the remote is there.
    pub fn making(&mut self) -> Option<&mut Making> {
        self.makings.last_mut().filter(|making| making.removed.is_none())
    }
}

/// A site's commits and definitions.
#[derive(Clone, Default)]
struct Kept {
    commits: Commits,
    publications: Publications,
    /// By the number of the edge.
    makings: Vec<(usize, Vec<Making>)>,
}

pub struct Story {
    pub chance: Chance,
    pub time: Time,
    pub wire: Wire,
    pub trace: Trace,
    pub sites: Vec<Site>,
    pub edges: Vec<Edge>,
    pub publications: Vec<Publications>,
    commits: Vec<Commits>,
    /// Counts events, so that each has its own payload.
    events: u64,
    /// Big transactions are many, so that queues are freed by whole segments.
    heavy: bool,
    /// What the model knew of each site when that was backed up last.
    kept: Vec<Kept>,
    /// Counts makings of pairs.
    pub makings: u64,
    /// Sites that were lost and made again of their last backup.
    pub restored: u64,
    /// Draws what operators do about what is held.
    pub operators: Chance,
    /// Segments that were freed, and pairs that had to be made anew for it.
    pub freed: (u64, u64),
    /// Pairs that have a key.
    pub secrets: Vec<Secret>,
    /// Keys that were dropped for newer ones.
    pub keys: u64,
    /// What keys are drawn by.
    pub dice: Chance,
    pub limited: Limited,
}

impl Story {
    pub fn new(dir: &Path, seed: u64, trace: &Trace) -> Story {
        let (chance, time) = (Chance::new(seed), Time::default());
        let (name, map) = MAPS[chance.pick(&[0, 0, 1, 1, 1, 2, 2, 2, 3])];
        let heavy = chance.percent(15);
        trace.tell(format!("a {name} of sites{}", if heavy { ", heavy" } else { "" }));
        let wire = Wire::new(Chance::new(seed ^ 0x1111_0000), time.clone());
        let count = map.iter().map(|(from, _, _)| from + 1).max().unwrap();
        let vetoes = Chance::new(seed ^ 0x5555_0000);
        let site = |number: usize| {
            let own = Chance::new(seed ^ ((number as u64 + 2) << 32));
            let frees = chance.percent(60);
            if frees {
                trace.tell(format!("{} frees its log", NAMES[number]));
            }
            let mut site = Site::new(dir, NAMES[number], &wire, own, (time.clone(), frees));
            site.only_backed_up = chance.percent(30);
            if site.only_backed_up {
                trace.tell(format!("{} sends only what is backed up", NAMES[number]));
            }
            if vetoes.percent(40) {
                site.rules = Some(Rules::new(Chance::new(vetoes.below(u64::MAX))));
                trace.tell(format!("{} vetoes some of what comes", NAMES[number]));
            }
            site
        };
        let sites = (0..count).map(site).collect();
        let edges = map.iter().map(|(from, to, publishes)| Edge {
            from: *from,
            to: *to,
            publishes: *publishes,
            makings: Vec::new(),
        });
        let mut story = Story {
            sites,
            edges: edges.collect(),
            publications: vec![Publications::new(); count],
            commits: vec![Commits::new(); count],
            chance,
            time,
            wire,
            trace: trace.clone(),
            events: 0,
            heavy,
            kept: vec![Kept::default(); count],
            makings: 0,
            restored: 0,
            operators: Chance::new(seed ^ 0x7777_0000),
            freed: (0, 0),
            secrets: Vec::new(),
            keys: 0,
            dice: Chance::new(seed ^ 0x2222_0000),
            limited: Limited::new(seed),
        };
        story.begin();
        story.share_keys();
        (0..count).for_each(|site| story.back_up(site));
        story
    }

    /// Transactions that the sites hold of others, and messages that were sent: a run in which nothing happens
    /// proves nothing.
    pub fn totals(&self) -> (u64, u64) {
        let is_received = |one: &&Logged| one.is_applied() && one.via.is_some();
        let received = |site: &Site| site.log().iter().filter(is_received).count() as u64;
        (self.sites.iter().map(received).sum(), self.wire.messages())
    }

    pub fn tell(&self, line: String) {
        self.trace.tell(line);
    }

    /// One operation.
    ///
    /// # Errors
    /// What a site refused that it must not refuse.
    pub fn step(&mut self) -> Result<(), String> {
        self.time.pass(Duration::from_secs(1));
        if self.dice.percent(15) {
            self.go_on_with_a_key();
        }
        let site = self.chance.below(self.sites.len() as u64) as usize;
        let edge = self.chance.below(self.edges.len() as u64) as usize;
        match self.chance.below(100) {
            0..=27 => self.commit_some(site),
            28..=44 => {
                self.receive(site)?;
            }
            45..=54 => self.scan(site),
            55..=68 => self.send(site)?,
            69..=72 => {
                self.turns()?;
            }
            73..=77 => self.define(self.edges[edge].from, |story| story.subscribe(edge)),
            78..=81 => self.define(self.edges[edge].from, |story| story.end_subscription(edge)),
            // A making that the neighbour's backup does not know may get a number once more.
            82..=83 if self.is_backed_up(edge) => {}
            82..=83 => self.define(self.edges[edge].from, |story| story.remove_or_add_remote(edge)),
            84..=85 => self.define(site, |story| story.publish(site)),
            86..=89 => self.end_phases(site),
            90..=92 => self.reopen(site),
            93..=94 => {
                let rotated = self.sites[site].store().rotate(0).unwrap();
                self.tell(format!("{} rotates its log: {rotated}", NAMES[site]));
            }
            95..=97 => {
                let pause = Duration::from_secs(self.chance.pick(&[20, 100, 1000, 100_000]));
                self.time.pass(pause);
                self.tell(format!("{} s pass", pause.as_secs()));
            }
            _ => self.change_weather(),
        }
        if self.sites[site].frees && self.chance.percent(25) {
            self.sites[site].store().rotate(0).unwrap();
            self.free(site);
        }
        if self.sites[site].rules.is_some() && self.operators.percent(12) {
            let act = self
                .operators
                .pick(&[Act::RetryAll, Act::RetryOne, Act::RetryOne, Act::Drop]);
            self.operate(site, act);
        }
        if self.sites[site].only_backed_up {
            match self.chance.below(100) {
                0..=11 => self.back_up(site),
                12..=15 => self.restore(site),
                _ => {}
            }
        }
        Ok(())
    }

    /// One end of an edge sends only what is backed up.
    pub fn is_backed_up(&self, edge: usize) -> bool {
        let Edge { from, to, .. } = self.edges[edge];
        self.sites[from].only_backed_up || self.sites[to].only_backed_up
    }

    /// Changes definitions; a site that sends only what is backed up is backed up then: a pair that was made anew since
    /// would be of an earlier making again.
    fn define(&mut self, site: usize, change: impl FnOnce(&mut Story)) {
        change(self);
        self.back_up(site);
    }

    /// A site that sends only what is backed up is backed up.
    fn back_up(&mut self, site: usize) {
        if !self.sites[site].only_backed_up {
            return;
        }
        self.sites[site].back_up();
        let own = self
            .edges
            .iter()
            .enumerate()
            .filter(|(_, edge)| edge.from == site);
        self.kept[site] = Kept {
            commits: self.commits[site].clone(),
            publications: self.publications[site].clone(),
            makings: own.map(|(number, edge)| (number, edge.makings.clone())).collect(),
        };
        self.tell(format!("{} is backed up", NAMES[site]));
    }

    /// A site is lost and made again of its last backup: of what came after it, it has sent nothing, and its neighbours
    /// keep what they had sent.
    fn restore(&mut self, site: usize) {
        if self.sites[site].was_restored() {
            // Of a site that was restored before, messages of several lineages could be on the link, which nobody can tell apart.
            self.wire.lose_from(NAMES[site]);
        }
        self.sites[site].restore();
        let Kept {
            commits,
            publications,
            makings,
        } = self.kept[site].clone();
        (self.commits[site], self.publications[site]) = (commits, publications);
        for (edge, makings) in makings {
            self.edges[edge].makings = makings;
        }
        self.restored += 1;
        self.tell(format!(
            "{} is lost, and restored from its last backup",
            NAMES[site]
        ));
    }

    pub fn commit_some(&mut self, site: usize) {
        let times = if self.heavy && self.chance.percent(40) {
            8
        } else {
            1 + self.chance.below(3)
        };
        for _ in 0..times {
            self.commit(site, if times == 8 { 30_000 } else { 4 });
        }
    }

    fn commit(&mut self, site: usize, usual: usize) {
        let (mut transaction, mut told) = (Transaction::new(), Vec::new());
        for _ in 0..1 + self.chance.below(4) {
            self.events += 1;
            let long = if self.chance.percent(4) { 25_000 } else { usual };
            let event = Told {
                stream: format!("{}/{}", self.chance.pick(&["x", "y"]), self.chance.below(3)),
                kind: self.chance.pick(&["k", "m"]).to_owned(),
                region: self
                    .chance
                    .pick(&[None, Some("n".to_owned()), Some("s".to_owned())]),
                payload: format!("{}:{}", self.events, self.chance.filler(long)),
            };
            let mut pushed = Event::new(&event.stream, &event.kind, event.payload.as_bytes()).unwrap();
            if let Some(region) = &event.region {
                pushed = pushed.header("region", region).unwrap();
            }
            transaction.push(&pushed).unwrap();
            told.push(event);
        }
        let lsn = self.sites[site]
            .store()
            .commit(transaction)
            .unwrap()
            .committed()
            .unwrap()
            .lsn;
        let list: Vec<String> = told
            .iter()
            .map(|event| {
                let Told {
                    stream,
                    kind,
                    region,
                    payload,
                } = event;
                format!(
                    "{stream} {kind} {} ({} B)",
                    region.as_deref().unwrap_or("-"),
                    payload.len()
                )
            })
            .collect();
        self.tell(format!("{} commits at {lsn}: {}", NAMES[site], list.join(", ")));
        self.commits[site].insert(lsn, told);
    }

    fn receive(&mut self, site: usize) -> Result<u64, String> {
        let cause = self
            .chance
            .pick(&[PollCause::Due, PollCause::Due, PollCause::Push]);
        let (applied, stopped) = self.sites[site].receive(cause)?;
        self.tell(format!("{} receives: {applied} transactions", NAMES[site]));
        self.make_anew(site, stopped)?;
        Ok(applied)
    }

    /// Whoever has what nobody needs any more lets it go.
    fn free(&mut self, site: usize) {
        if self.sites[site].frees {
            let gone = self.sites[site].free();
            self.freed.0 += gone;
            let begins = self.sites[site].store().oldest().unwrap();
            self.tell(format!(
                "{} frees {gone} segments, its log begins at {begins}",
                NAMES[site]
            ));
        }
    }

    /// A pair that needs what was freed is made anew by the operator, as it asks for. It may only if its neighbour made
    /// it anew, who then may ask for what it had confirmed.
    fn make_anew(&mut self, site: usize, stopped: Option<Stopped>) -> Result<(), String> {
        let Some(stopped) = stopped else {
            return Ok(());
        };
        let told = format!(
            "{}: the pair with {} stopped: {}",
            NAMES[site], stopped.pair, stopped.reason
        );
        let of = |edge: &Edge, from: usize, to: &str| edge.from == from && NAMES[edge.to] == to;
        let number = self
            .edges
            .iter()
            .position(|edge| of(edge, site, stopped.pair.as_str()));
        let number = number.filter(|_| stopped.freed).ok_or_else(|| told.clone())?;
        let other = self
            .edges
            .iter()
            .find(|edge| edge.from == self.edges[number].to && edge.to == site);
        let made = |edge: &Edge| edge.makings.last().map_or(0, |making| making.number);
        if other.map_or(0, made) <= made(&self.edges[number]) {
            return Err(format!("nobody made it anew, and {told}"));
        }
        self.tell(told);
        self.freed.1 += 1;
        self.define(site, |story| story.remove_or_add_remote(number));
        Ok(())
    }

    fn scan(&mut self, site: usize) {
        self.sites[site].scan();
        self.tell(format!("{} scans", NAMES[site]));
    }

    fn send(&mut self, site: usize) -> Result<(), String> {
        let (messages, stopped) = self.sites[site].send();
        self.tell(format!("{} sends {messages} messages", NAMES[site]));
        self.bring_back(site);
        self.make_anew(site, stopped)
    }

    /// Every site runs all its phases once, as batch runs do.
    fn turns(&mut self) -> Result<u64, String> {
        let mut applied = 0;
        for site in 0..self.sites.len() {
            applied += self.receive(site)?;
            self.scan(site);
            self.send(site)?;
        }
        Ok(applied)
    }

    fn end_phases(&mut self, site: usize) {
        let cleanly = self.chance.percent(50);
        self.sites[site].end_phases(cleanly);
        self.sites[site].message_bytes = self.chance.pick(&[10_000, 10_000, 20_000, 50_000]);
        self.sites[site].group = self.chance.pick(&[1, 3, 20]);
        let patient = Patience {
            polls: 1,
            every: Duration::from_secs(30),
        };
        self.sites[site].patience = self.chance.pick(&[Patience::NONE, Patience::NONE, patient]);
        self.tell(format!("{} ends its phases{}", NAMES[site], how(cleanly)));
    }

    fn reopen(&mut self, site: usize) {
        let cleanly = self.chance.percent(50);
        self.sites[site].reopen(cleanly);
        self.tell(format!("{} is opened anew{}", NAMES[site], how(cleanly)));
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

    /// Nothing fails any more: every remote is there again, and the sites run until everything has come.
    ///
    /// # Errors
    /// What is wrong, or has not come.
    pub fn come_to_rest(&mut self) -> Result<(), String> {
        self.wire.set_weather(Weather::default());
        self.tell("the faults stop".to_owned());
        self.limited.resting = true;
        for edge in 0..self.edges.len() {
            if self.edges[edge].making().is_none() {
                self.define(self.edges[edge].from, |story| story.remove_or_add_remote(edge));
            }
        }
        if self.chance.percent(50) {
            (0..self.sites.len()).for_each(|site| self.end_phases(site));
        }
        let rules = self.sites.iter().filter_map(|site| site.rules.as_ref());
        rules.for_each(|rules| rules.relent());
        let mut idle = 0;
        for day in 1..=DAYS_AT_MOST {
            self.time.pass(DAY);
            let site = self.chance.below(self.sites.len() as u64) as usize;
            if self.sites[site].frees && self.chance.percent(50) {
                self.sites[site].store().rotate(0).unwrap();
                self.free(site);
            }
            // An operator who made a pair anew leaves nobody without a remote now.
            for edge in 0..self.edges.len() {
                if self.edges[edge].making().is_none() {
                    self.define(self.edges[edge].from, |story| story.remove_or_add_remote(edge));
                    idle = 0;
                }
            }
            self.told_as_one(|story| (0..story.sites.len()).for_each(|site| story.back_up(site)));
            self.told_as_one(|story| {
                (0..story.sites.len()).for_each(|site| story.operate(site, Act::RetryAll))
            });
            let messages = self.wire.messages();
            let applied = self.told_as_one(Story::turns)?;
            idle = if applied == 0 { idle + 1 } else { 0 };
            if applied > 0 {
                let messages = self.wire.messages() - messages;
                self.tell(format!(
                    "day {day}: {messages} messages, {applied} transactions received"
                ));
            }
            // Beyond the moment when everything is there: what comes twice comes later.
            if idle < DAYS_OF_REST {
                continue;
            }
            match self.compare()? {
                None => return Ok(()),
                Some(missing) if idle == DAYS_OF_PATIENCE => return Err(missing),
                Some(_) => {}
            }
        }
        self.compare()?;
        Err("the sites do not come to rest".to_owned())
    }

    /// Does something without a word.
    fn told_as_one<T>(&mut self, work: impl FnOnce(&mut Story) -> T) -> T {
        let trace = std::mem::take(&mut self.trace);
        let outcome = work(self);
        self.trace = trace;
        outcome
    }

    /// Compares every store with the model; tells what is missing still.
    ///
    /// # Errors
    /// What is there and must not be, or is there in a wrong way.
    pub fn compare(&self) -> Result<Option<String>, String> {
        let logs: Vec<Vec<Logged>> = self.sites.iter().map(Site::log).collect();
        let named = NAMES.iter().map(|name| (*name).to_owned());
        let commits: BTreeMap<String, &Commits> = named.zip(&self.commits).collect();
        for (site, log) in logs.iter().enumerate() {
            own_commits_are_there(NAMES[site], log, &self.commits[site])?;
            events_are_genuine_and_single(NAMES[site], log, &commits)?;
        }
        let mut missing = None;
        for (site, log) in logs.iter().enumerate() {
            let (left, _) = nothing_overtakes_what_is_held(NAMES[site], log)?;
            if left > 0 {
                missing = Some(format!("{} holds {left} still", NAMES[site]));
            }
        }
        for edge in &self.edges {
            let side = Side {
                publisher: NAMES[edge.from],
                publications: &self.publications[edge.from],
                log: &logs[edge.from],
                makings: &edge.makings,
            };
            let found = stream_is_as_due(NAMES[edge.to], &logs[edge.to], &side)?;
            missing = missing.or(found);
        }
        Ok(missing)
    }

    pub fn oldest_own(&self, site: usize) -> Vec<Lsn> {
        self.commits[site].keys().copied().collect()
    }
}

fn how(cleanly: bool) -> &'static str {
    if cleanly { "" } else { ", as if killed" }
}
