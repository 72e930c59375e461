//! Acts of processes: what one does, what happens to it meanwhile, and what may come of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use milepost_engine::{Durability, Error, ErrorKind, Lsn, Store};
use milepost_replication::tracking::PollCause;

use super::fate::{Ended, Fate, Plan};
use super::logged::Told;
use super::process::{Done, Habits, Running, STOPPED, Task};
use super::shape::Role;
use super::site::{Maybe, bury};
use super::world::World;
use super::writing::spell;
use crate::crash::{Fault, panic_text};
use crate::disk::{Killed, SimProcess};

/// A process and what it is about to do.
struct Job {
    running: Running,
    open: Box<dyn FnOnce(&SimProcess) -> milepost_engine::Result<Store> + Send>,
    habits: Habits,
    task: Task,
}

/// What came of it, as the process says.
enum Outcome {
    Done(Done),
    Refused(Error),
    Panicked(String),
}

impl Job {
    fn run(self) -> (Running, Outcome) {
        let Job {
            mut running,
            open,
            habits,
            task,
        } = self;
        let done = catch_unwind(AssertUnwindSafe(|| running.perform(open, &habits, task)));
        let outcome = match done {
            Ok(Ok(done)) => Outcome::Done(done),
            Ok(Err(error)) => Outcome::Refused(error),
            Err(payload) if payload.is::<Killed>() => Outcome::Refused(Error::closed("killed")),
            Err(payload) => Outcome::Panicked(panic_text(&*payload)),
        };
        (running, outcome)
    }
}

/// What is known of an act beside its process.
pub struct Brief {
    pub site: usize,
    pub slot: usize,
    pub role: Role,
    pub what: &'static str,
    /// Of a commit: its events, and whether its acknowledgement says that they are durable.
    pub commit: Option<(Vec<Told>, bool)>,
}

/// A process that does something in the middle of another one's act, or did not come to it.
pub struct Beside {
    brief: Brief,
    waiting: Arc<Mutex<Option<Job>>>,
    done: Arc<Mutex<Option<(Running, Outcome)>>>,
}

/// What may go wrong beside the process's own death.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    None,
    /// Another one is in the middle of something.
    Busy,
    Fault,
}

impl World {
    /// The process that has a role at a site, or has it beside others.
    pub fn slot_of(&self, site: usize, role: Role) -> usize {
        let fits = |held: Role| held == role || (held == Role::Agent && role != Role::Writer);
        let slots = &self.sites[site].slots;
        slots.iter().position(|slot| fits(slot.role)).unwrap()
    }

    /// A process does something, whatever befalls it. Tells how many transactions were received.
    pub fn act(&mut self, site: usize, role: Role, task: Task) -> Result<u64, String> {
        let slot = self.slot_of(site, role);
        self.act_of(site, slot, (task, None))
    }

    /// A writer commits.
    pub fn commit(&mut self, site: usize) -> Result<(), String> {
        let slot = self.slot_of(site, Role::Writer);
        let commit = self.draw_commit();
        self.act_of(site, slot, commit).map(drop)
    }

    fn draw_commit(&mut self) -> (Task, Option<Vec<Told>>) {
        let (transaction, told) = self.pen.draw();
        let durability = if self.chance.percent(80) {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        (Task::Commit(Box::new(transaction), durability), Some(told))
    }

    fn act_of(&mut self, site: usize, slot: usize, order: (Task, Option<Vec<Told>>)) -> Result<u64, String> {
        let (job, brief) = self.job(site, slot, order);
        let fate = Arc::clone(&job.running.fate);
        let (excuse, beside) = self.befall(&fate, &brief);
        let (running, outcome) = job.run();
        let ended = fate.end();
        if let Some(beside) = beside {
            self.settle_beside(beside, ended.at.as_deref())?;
        }
        self.settle(brief, running, outcome, (excuse, ended))
    }

    fn job(&mut self, site: usize, slot: usize, (task, events): (Task, Option<Vec<Told>>)) -> (Job, Brief) {
        let own = &mut self.sites[site];
        let running = own.slots[slot].running.take();
        let running = running.unwrap_or_else(|| own.start());
        let is_synced = matches!(task, Task::Commit(_, Durability::Synced));
        let brief = Brief {
            site,
            slot,
            role: own.slots[slot].role,
            what: task.name(),
            commit: events.map(|events| (events, is_synced)),
        };
        let job = Job {
            running,
            open: Box::new(own.opener()),
            habits: own.habits.clone(),
            task,
        };
        (job, brief)
    }

    /// Draws what befalls a process in its next act.
    pub fn befall(&mut self, fate: &Fate, brief: &Brief) -> (Excuse, Option<Beside>) {
        if self.is_calm {
            return (Excuse::None, None);
        }
        // Most acts have some ten to some hundred operations; opening a store has some hundred.
        let longest = self.chance.pick(&[10, 60, 300]);
        let after = self.chance.below(longest);
        match self.chance.below(100) {
            0..=11 => fate.set(after, Plan::Kill),
            12..=15 => fate.set(after, Plan::PowerCut),
            16..=17 => {
                let faults = [
                    Fault::NoSpace(0),
                    Fault::NoSpace(5),
                    Fault::Broken(0),
                    Fault::Broken(5),
                ];
                fate.set(after, Plan::Fault(self.chance.pick(&faults)));
                return (Excuse::Fault, None);
            }
            18..=39 => {
                if let Some(beside) = self.draw_beside(brief) {
                    let (waiting, done) = (Arc::clone(&beside.waiting), Arc::clone(&beside.done));
                    let deed = move || {
                        let job = waiting.lock().unwrap().take();
                        *done.lock().unwrap() = job.map(Job::run);
                    };
                    fate.set(after, Plan::Meanwhile(Box::new(deed)));
                    return (Excuse::None, Some(beside));
                }
            }
            _ => {}
        }
        (Excuse::None, None)
    }

    /// Another process of the same site, with something to do.
    fn draw_beside(&mut self, brief: &Brief) -> Option<Beside> {
        let slots = self.sites[brief.site].slots.len() as u64;
        let slot = self.chance.below(slots) as usize;
        if slot == brief.slot {
            return None;
        }
        let order = match self.sites[brief.site].slots[slot].role {
            Role::Writer => self.draw_commit(),
            Role::Receive => (Task::Receive(PollCause::Due), None),
            Role::Scan => (Task::Scan, None),
            Role::Send => (Task::Send, None),
            Role::Agent => (self.draw_phase(), None),
        };
        let (job, brief) = self.job(brief.site, slot, order);
        Some(Beside {
            brief,
            waiting: Arc::new(Mutex::new(Some(job))),
            done: Arc::default(),
        })
    }

    fn draw_phase(&mut self) -> Task {
        match self.chance.below(3) {
            0 => Task::Receive(PollCause::Due),
            1 => Task::Scan,
            _ => Task::Send,
        }
    }

    pub fn settle_beside(&mut self, beside: Beside, at: Option<&str>) -> Result<(), String> {
        let Beside { brief, waiting, done } = beside;
        if let Some(job) = waiting.lock().unwrap().take() {
            // The other act ended before.
            self.sites[brief.site].slots[brief.slot].running = Some(job.running);
            return Ok(());
        }
        self.totals.meanwhile += 1;
        let name = self.sites[brief.site].name;
        self.tell(format!(
            "in the middle of what {name} does next, at {}:",
            at.unwrap_or_default()
        ));
        let done = done.lock().unwrap().take();
        let (running, outcome) = done.ok_or("the process in between did not end")?;
        self.settle(brief, running, outcome, (Excuse::Busy, Ended::default()))
            .map(drop)
    }

    /// Notes what came of an act.
    fn settle(
        &mut self,
        brief: Brief,
        running: Running,
        outcome: Outcome,
        (excuse, ended): (Excuse, Ended),
    ) -> Result<u64, String> {
        let (site, died) = (brief.site, !running.process.is_alive());
        let who = format!("{}'s {} {}", self.sites[site].name, brief.role.name(), brief.what);
        let at = ended.at.unwrap_or_default();
        let lsn = match &outcome {
            Outcome::Done(Done::Committed(lsn)) if !died => Some(*lsn),
            _ => None,
        };
        self.note_commit(site, brief.commit, lsn);
        if died {
            running.process.kill();
            bury(running);
            if let Some(cut) = ended.cut {
                self.tell(format!("{who}, and the power goes at {at}"));
                self.power_back(site, cut);
                return Ok(0);
            }
            self.totals.kills += 1;
            self.tell(format!("{who}, and is killed at {at}"));
            return Ok(0);
        }
        let failed = excuse == Excuse::Fault && !at.is_empty();
        let told = match outcome {
            Outcome::Panicked(text) => return Err(format!("{who}: a panic: {text}")),
            Outcome::Refused(error) => {
                let fine = is_excused(&error, excuse, failed);
                if !fine {
                    return Err(format!("{who}, and is refused though nothing fails: {error}"));
                }
                bury_alive(running);
                self.tell(format!("{who}, and is refused at {at}: {error}"));
                None
            }
            Outcome::Done(done) => {
                self.sites[site].slots[brief.slot].running = Some(running);
                Some(done)
            }
        };
        if failed {
            // A sync that failed is told to every handle; who comes next heals.
            self.tell(format!(
                "{who}, which fails at {at}: all processes of the site begin anew"
            ));
            self.sites[site].kill_all();
        }
        told.map_or(Ok(0), |done| self.heed(site, &who, done, failed))
    }

    /// What was acknowledged must be there; of anything else nobody knows.
    fn note_commit(&mut self, site: usize, commit: Option<(Vec<Told>, bool)>, lsn: Option<Lsn>) {
        let Some((events, is_synced)) = commit else { return };
        self.tell(format!(
            "{} commits {}{}",
            self.sites[site].name,
            lsn.map_or(String::new(), |lsn| format!("at {lsn}: ")),
            spell(&events)
        ));
        match lsn.filter(|_| is_synced) {
            Some(lsn) => drop(self.sites[site].commits.insert(lsn, events)),
            None => self.sites[site].maybe.push(Maybe { events }),
        }
    }

    /// Hears what a process says that it did.
    fn heed(&mut self, site: usize, who: &str, done: Done, failed: bool) -> Result<u64, String> {
        let (text, wrong, count) = match done {
            Done::Committed(_) => return Ok(0),
            Done::Received(count, wrong) => (format!("{count} transactions"), wrong, count),
            Done::Scanned(entries) => (format!("{entries} entries"), Vec::new(), 0),
            Done::Retried(count) => (format!("{count} transactions"), Vec::new(), count),
            Done::Sent(messages, wrong, suspended) => {
                self.note_suspended(site, &suspended);
                (format!("{messages} messages"), wrong, 0)
            }
            Done::Left => (String::new(), Vec::new(), 0),
        };
        self.tell(format!("{who}: {text}"));
        // A file that could not be read may be why a message waits.
        let excused = |why: &&String| !failed || why.starts_with(STOPPED);
        if let Some(first) = wrong.iter().find(excused) {
            self.make_anew(site, first)?;
        }
        Ok(count)
    }
}

/// Something befell it that explains why it is refused.
fn is_excused(error: &Error, excuse: Excuse, failed: bool) -> bool {
    match error.kind() {
        ErrorKind::Unavailable => excuse != Excuse::None,
        // Whoever makes a bundle scans.
        ErrorKind::Conflict => {
            excuse == Excuse::Busy && error.to_string().contains("phase of this store is run by")
        }
        ErrorKind::Full | ErrorKind::Internal | ErrorKind::Closed => failed,
        _ => false,
    }
}

/// Ends a process that was refused something.
fn bury_alive(running: Running) {
    running.process.kill();
    bury(running);
}
