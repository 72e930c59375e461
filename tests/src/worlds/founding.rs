//! A site whose store is made where its data are (`extract`), and made anew in place of one that was lost (`resync`): by an operator's program on the
//! machine of its neighbour, which dies like any other and goes on when it is run again, while that one's writers and phases go on.
//!
//! ```text
//! absent ── extract, run until it is done ──► there ── its disk is lost, with all that it had not sent ──► absent ── resync, likewise ──► there
//! ```
//!
//! What such a store has is what it is due over the link up to where its subscriptions begin, at the same places; a replaced one has all that it had
//! sent before, too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use milepost_engine::{Error, ErrorKind, Lsn, Result, SiteName, Store};
use milepost_replication::agent::Stop;
use milepost_replication::catalog::{Catalog, RemoteLimits};
use milepost_replication::extract::{Extract, Purpose, make_in};
use milepost_replication::quarantine::held_of;

use super::acts::{Brief, Excuse};
use super::chance::Chance;
use super::fate::{Ended, Fate};
use super::founded::{Facts, draw_wanted};
use super::process::Task;
use super::revenant::Revenant;
use super::shape::{NAMES, Role};
use super::site::options;
use super::vetoes::Act;
use super::world::{Kind, World, link_of};
use crate::crash::panic_text;
use crate::disk::{Killed, SimDisk, SimProcess};

/// Runs of the program after the faults stop: one finds out what became of the former, one makes it.
const RUNS_AT_LAST: usize = 12;

/// See the module.
pub struct Founding {
    chance: Chance,
    pub site: usize,
    pub source: usize,
    /// It is not there when the world begins.
    is_late: bool,
    attempt: Option<Attempt>,
    /// The store that was replaced, where somebody runs it still.
    revenant: Option<Revenant>,
}

/// A store that is being made.
pub struct Attempt {
    pub disk: SimDisk,
    pub purpose: Purpose,
    pub wanted: Vec<(String, Option<String>)>,
    pub from: Lsn,
    fresh_key: bool,
}

/// How a run of the program ended.
enum Outcome {
    Made(Facts),
    /// And whether it had been asked to stop.
    Refused(Error, bool),
    Panicked(String),
}

/// A run of the program.
struct Program {
    fate: Arc<Fate>,
    here: SimProcess,
    there: SimProcess,
    wish: Extract,
    purpose: Purpose,
}

impl Program {
    /// Runs it, and asks it to stop after so many steps; what came of it, and whether it died.
    fn run(
        self,
        open: impl FnOnce(&SimProcess) -> Result<Store>,
        mut steps: u64,
    ) -> (Outcome, Arc<Fate>, bool) {
        let Program {
            fate,
            here,
            there,
            wish,
            purpose,
        } = self;
        let stop = Stop::new();
        let mut tell = |_| {
            if steps == 0 {
                stop.request();
            }
            steps = steps.saturating_sub(1);
        };
        let made = catch_unwind(AssertUnwindSafe(|| {
            let made = make_in(&open(&here)?, &wish, purpose, (there.storage(), &stop), &mut tell)?;
            Ok(Facts {
                store: made.store.id(),
                starts: made.starts,
                generation: made.generation,
                key: made.key,
            })
        }));
        let died = !here.is_alive() || !there.is_alive();
        here.kill();
        there.kill();
        let outcome = match made {
            Ok(Ok(facts)) => Outcome::Made(facts),
            Ok(Err(error)) => Outcome::Refused(error, stop.is_requested()),
            Err(payload) if payload.is::<Killed>() => Outcome::Refused(Error::closed("killed"), false),
            // Whatever it met on its way out.
            Err(payload) => Outcome::Panicked(panic_text(&*payload)),
        };
        (outcome, fate, died)
    }
}

impl Founding {
    pub fn draw(seed: u64, kind: Kind, pairs: &[(usize, usize)]) -> Option<Founding> {
        let chance = Chance::new(seed ^ 0xf00d_0000_0000);
        if !chance.percent(20) || kind != Kind::Whole {
            return None;
        }
        let neighbours = |site: usize| -> Vec<usize> {
            let of = |(a, b): &(usize, usize)| match site {
                site if site == *a => Some(*b),
                site if site == *b => Some(*a),
                _ => None,
            };
            pairs.iter().filter_map(of).collect()
        };
        let leaves: Vec<usize> = (0..NAMES.len())
            .filter(|site| neighbours(*site).len() == 1)
            .collect();
        let site = chance.pick(&leaves);
        Some(Founding {
            site,
            source: neighbours(site)[0],
            is_late: chance.percent(60),
            attempt: None,
            revenant: None,
            chance,
        })
    }

    /// This site is not there when the world begins.
    pub fn is_first(&self, site: usize) -> bool {
        self.is_late && self.site == site
    }
}

impl World {
    /// The sites that have a store.
    pub fn present(&self) -> Vec<usize> {
        (0..self.sites.len())
            .filter(|site| !self.sites[*site].is_absent)
            .collect()
    }

    /// One of its two sites has no store: operators leave the pair alone.
    pub fn is_unsettled(&self, edge: usize) -> bool {
        let edge = &self.edges[edge];
        self.sites[edge.from].is_absent || self.sites[edge.to].is_absent
    }

    /// Now and then a store is lost, and its making goes on.
    pub fn maybe_found(&mut self) -> Result<(), String> {
        let Some(founding) = &self.founding else {
            return Ok(());
        };
        match (self.sites[founding.site].is_absent, founding.chance.below(100)) {
            (true, 0..=24) => self.found_on(),
            (false, 0..=2) => self.lose_for_good(),
            (false, 3..=9) => self.maybe_run_revenant(),
            _ => Ok(()),
        }
    }

    fn maybe_run_revenant(&mut self) -> Result<(), String> {
        let Some(mut founding) = self.founding.take() else {
            return Ok(());
        };
        let run = match founding.revenant.take() {
            Some(revenant) => {
                let run = self.run_revenant(founding.site, &revenant);
                founding.revenant = Some(revenant);
                run
            }
            None => Ok(()),
        };
        self.founding = Some(founding);
        run
    }

    /// Whoever is not there is made.
    pub fn found_at_last(&mut self) -> Result<(), String> {
        for _ in 0..RUNS_AT_LAST {
            match &self.founding {
                Some(founding) if self.sites[founding.site].is_absent => self.found_on()?,
                _ => return Ok(()),
            }
        }
        Err(format!(
            "a store is not made in {RUNS_AT_LAST} runs though nothing fails (R3)"
        ))
    }

    pub fn edge_of(&self, from: usize, to: usize) -> Result<usize, String> {
        let fits = |edge: &super::world::Edge| edge.from == from && edge.to == to;
        self.edges
            .iter()
            .position(fits)
            .ok_or_else(|| "no such pair".to_owned())
    }

    /// The site's disk is gone, with whatever it had not sent.
    fn lose_for_good(&mut self) -> Result<(), String> {
        let Some((site, source)) = self.founding.as_ref().map(|one| (one.site, one.source)) else {
            return Ok(());
        };
        let there = self.edge_of(source, site)?;
        if self.edges[there].making().is_none() {
            return Ok(());
        }
        self.sites[site].kill_all();
        self.sites[site].look()?;
        self.sites[site].leave_desk();
        let own = &mut self.sites[site];
        let (commits, seen) = (std::mem::take(&mut own.commits), std::mem::take(&mut own.seen));
        self.tell(format!(
            "{} is lost for good, with its log up to {}",
            NAMES[site], seen.0
        ));
        self.sites[source].habits.has_former = true;
        if let Some(founding) = &mut self.founding {
            let runs_on = founding.chance.percent(50);
            let link = link_of(NAMES[site], &self.wire, self.post.as_ref(), None);
            founding.revenant = runs_on.then(|| Revenant::of(&self.sites[site], link));
        }
        let own = &mut self.sites[site];
        own.be_absent();
        self.lost.push((own.judged.clone(), commits));
        let publications = std::mem::take(&mut self.publications[site]);
        let lost = Rc::new((publications, seen.1));
        let back = self.edge_of(site, source)?;
        self.forget_suspended(back);
        for making in self.edges[back]
            .makings
            .iter_mut()
            .filter(|making| making.lost.is_none())
        {
            making.lost = Some(Rc::clone(&lost));
        }
        Ok(())
    }

    /// The program is run once, and does all, some or nothing of it.
    fn found_on(&mut self) -> Result<(), String> {
        let Some(mut founding) = self.founding.take() else {
            return Ok(());
        };
        let attempt = match founding.attempt.take() {
            Some(attempt) => Ok(Some(attempt)),
            None => self.plan(&founding),
        };
        let run = attempt.and_then(|attempt| match attempt {
            Some(attempt) => self.run(&mut founding, attempt),
            None => Ok(()),
        });
        self.founding = Some(founding);
        run
    }

    /// What the operator wants; `None` where the source does not allow it now.
    fn plan(&mut self, founding: &Founding) -> Result<Option<Attempt>, String> {
        let Founding {
            chance, site, source, ..
        } = founding;
        let told = |error: Error| format!("what was made cannot be looked at: {error}");
        let edge = self.edge_of(*source, *site)?;
        if self.edges[edge].making().is_none() {
            self.add_remote_with(edge, RemoteLimits::default())?;
        }
        let store = self.sites[*source].desk().map_err(told)?;
        let name = SiteName::new(NAMES[*site]).map_err(told)?;
        if held_of(&store, &name).map_err(told)?.is_some() {
            self.clear_held(*source)?;
            return Ok(None);
        }
        let catalog = Catalog::load(&store).map_err(told)?;
        let remote = catalog.remote(&name).ok_or("the remote is not there")?;
        let has_some = catalog.subscriptions_of(remote).any(|one| one.is_in_force());
        let was_there = self.sites[*site].judged != NAMES[*site]
            || self.lost.iter().any(|(lost, _)| lost == NAMES[*site]);
        let purpose = match has_some || was_there {
            true => Purpose::Resync,
            false => Purpose::Extract,
        };
        // The log begins behind this.
        let freed = store.oldest().map_err(told)?;
        let own: Vec<Lsn> = self.sites[*source]
            .commits
            .keys()
            .copied()
            .filter(|lsn| *lsn > freed)
            .collect();
        let from = match own.is_empty() || chance.percent(70) {
            true if freed == Lsn::ZERO => freed,
            true => Lsn(freed.0 + 1),
            false => chance.pick(&own),
        };
        let wanted = match has_some && chance.percent(70) {
            true => Vec::new(),
            false => draw_wanted(chance),
        };
        let fresh_key = self.sealing.is_some() && chance.percent(40);
        self.tell(format!(
            "{} begins to make a store of {name} from {from} on: {purpose:?}, {wanted:?}{}",
            NAMES[*source],
            if fresh_key { ", with a key" } else { "" }
        ));
        self.maybe_leave_desk(*source);
        Ok(Some(Attempt {
            disk: SimDisk::like(self.sites[*site].profile, chance.below(u64::MAX)),
            purpose,
            wanted,
            from,
            fresh_key,
        }))
    }

    /// What is held of a site that is lost is applied or dropped: nobody else has it.
    fn clear_held(&mut self, source: usize) -> Result<(), String> {
        let act = self.chance.pick(&[Act::RetryAll, Act::Drop]);
        let task = Task::Quarantine(act, Chance::new(self.chance.below(u64::MAX)));
        self.act(source, Role::Receive, task).map(drop)
    }

    fn run(&mut self, founding: &mut Founding, mut attempt: Attempt) -> Result<(), String> {
        let source = founding.source;
        let program = self.program(founding, &attempt)?;
        let brief = Brief {
            site: source,
            slot: usize::MAX,
            role: Role::Writer,
            what: "makes a store",
            commit: None,
        };
        let (excuse, beside) = self.befall(&program.fate, &brief);
        let most = match !self.is_calm && founding.chance.percent(30) {
            true => founding.chance.below(4),
            false => u64::MAX,
        };
        let (outcome, fate, died) = program.run(self.sites[source].opener(), most);
        let ended = fate.end();
        if let Some(beside) = beside {
            self.settle_beside(beside, ended.at.as_deref())?;
        }
        let at = ended.at.clone().unwrap_or_default();
        match outcome {
            _ if died => {
                self.mourn(source, &mut attempt, ended);
                founding.attempt = Some(attempt);
                Ok(())
            }
            Outcome::Made(facts) => self.be_made(founding, attempt, facts),
            Outcome::Panicked(text) => Err(format!("{} makes a store: a panic: {text}", NAMES[source])),
            Outcome::Refused(error, is_stopped) => {
                self.tell(format!(
                    "{} makes a store, and is refused at {at}: {error}",
                    NAMES[source]
                ));
                let failed = excuse == Excuse::Fault && !at.is_empty();
                if failed {
                    self.sites[source].kill_all();
                }
                let waits = excuse != Excuse::None || is_stopped;
                if failed || waits && error.kind() == ErrorKind::Unavailable {
                    founding.attempt = Some(attempt);
                    return Ok(());
                }
                self.give_up(founding, attempt, &error)
            }
        }
    }

    /// One run of the program, with a process on each disk.
    fn program(&self, founding: &Founding, attempt: &Attempt) -> Result<Program, String> {
        let (site, source) = (&self.sites[founding.site], &self.sites[founding.source]);
        let fate = Arc::new(Fate::new(&source.disk, source.rng()));
        attempt
            .disk
            .advance(source.disk.now().saturating_sub(attempt.disk.now()));
        let directed = |disk: &SimDisk| disk.directed(Arc::clone(&fate) as _);
        let (here, there) = (directed(&source.disk), directed(&attempt.disk));
        fate.bind(&attempt.disk, [here.clone(), there.clone()]);
        let wish = Extract {
            remote: SiteName::new(NAMES[founding.site]).map_err(|error| error.to_string())?,
            wanted: attempt.wanted.clone(),
            from: attempt.from,
            links: Vec::new(),
            schedule: None,
            up: Vec::new(),
            fresh_key: attempt.fresh_key,
            options: options(&there, site.profile, site.frees, &site.rng()),
        };
        Ok(Program {
            fate,
            here,
            there,
            wish,
            purpose: attempt.purpose,
        })
    }

    fn mourn(&mut self, source: usize, attempt: &mut Attempt, ended: Ended) {
        let at = ended.at.unwrap_or_default();
        if let Some(disk) = ended.cut_beside {
            attempt.disk = disk;
        }
        match ended.cut {
            Some(cut) => {
                self.tell(format!(
                    "{} makes a store, and the power goes at {at}",
                    NAMES[source]
                ));
                self.power_back(source, cut);
            }
            None => {
                self.totals.kills += 1;
                self.tell(format!("{} makes a store, and is killed at {at}", NAMES[source]));
            }
        }
    }

    /// What was refused for a reason that operators are told to mend is mended.
    fn give_up(&mut self, founding: &mut Founding, attempt: Attempt, error: &Error) -> Result<(), String> {
        let text = error.to_string();
        let source = founding.source;
        if text.contains("in quarantine") {
            founding.attempt = Some(attempt);
            return self.clear_held(source);
        }
        let told = |error: Error| format!("a hold is not dropped: {error}");
        let store = self.sites[source].desk().map_err(told)?;
        let hold = format!("extract-{}", NAMES[founding.site]);
        let is_held = store.holds().map_err(told)?.iter().any(|held| held.name == hold);
        if text.contains("the log no longer has") && !is_held {
            // Freed before the program came to keep it.
            self.maybe_leave_desk(source);
            return Ok(());
        }
        let is_changed = text.contains("was changed while the store was made");
        if !is_changed || error.kind() != ErrorKind::Conflict {
            return Err(format!(
                "{} may not make a store though nothing fails: {error}",
                NAMES[source]
            ));
        }
        // As the text says: the folder goes, and the hold.
        store.drop_hold(&hold).map_err(told)?;
        self.maybe_leave_desk(source);
        Ok(())
    }
}
