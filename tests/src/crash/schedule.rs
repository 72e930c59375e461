//! [`Schedule`]: which simulated process runs, operation by operation, and what happens to it.
//!
//! Each process is a thread, and one runs at a time: before every operation the running one draws who
//! goes on. So a seed decides the interleaving, kills (before an operation, or inside a write), stalls,
//! faults of the disk and the moments at which a snapshot is taken.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::SimRng;
use crate::disk::{Director, EIO, ENOSPC, Op, OpKind, SimDisk, Verdict};

use super::model::Model;

/// A machine at one operation, with what was known then.
pub struct Moment {
    /// The machine, un-synced state included.
    pub disk: SimDisk,
    /// What was known.
    pub model: Model,
    /// Number of the operation that did not happen any more.
    pub op: u64,
}

/// How likely what is, one in so many operations; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// Another process goes on, of 16.
    pub switch: u64,
    /// The process is killed.
    pub kill: u64,
    /// The process stalls for longer than a lock waits.
    pub stall: u64,
    /// A write falls short or finds no space.
    pub full: u64,
    /// A write or sync fails.
    pub fail: u64,
    /// Write-back of the file in hand fails behind everybody's back.
    pub writeback: u64,
    /// After that, the cache forgets what the disk does not have.
    pub evict: bool,
    /// A change is preceded by a snapshot.
    pub snapshot: u64,
}

/// Operations after which a run counts as stuck.
const MOST_OPS: u64 = 400_000;

/// Runs the actors of one machine.
pub struct Schedule {
    disk: SimDisk,
    odds: Odds,
    rng: SimRng,
    state: Mutex<State>,
    turns: Vec<Condvar>,
    /// What is known; locked for moments only.
    pub model: Mutex<Model>,
}

struct State {
    turn: usize,
    /// Until when each actor sleeps; `None` when it has left.
    awake_at: Vec<Option<Duration>>,
    /// Which actor a process belongs to, by process number.
    actor_of: Vec<usize>,
    moments: Vec<Moment>,
    most_moments: usize,
    failure: Option<String>,
    ops: u64,
}

impl Schedule {
    /// A schedule for so many actors.
    pub fn new(disk: &SimDisk, model: Model, actors: usize, odds: Odds, rng: SimRng) -> Schedule {
        Schedule {
            disk: disk.clone(),
            odds,
            rng,
            state: Mutex::new(State {
                turn: 0,
                awake_at: vec![Some(Duration::ZERO); actors],
                actor_of: Vec::new(),
                moments: Vec::new(),
                most_moments: 60,
                failure: None,
                ops: 0,
            }),
            turns: (0..actors).map(|_| Condvar::new()).collect(),
            model: Mutex::new(model),
        }
    }

    /// The machine.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Says that a process belongs to an actor.
    pub fn enrol(&self, process: u32, actor: usize) {
        let mut state = self.lock();
        let number = process as usize;
        if state.actor_of.len() <= number {
            state.actor_of.resize(number + 1, 0);
        }
        state.actor_of[number] = actor;
    }

    /// Waits for the first turn of an actor.
    pub fn enter(&self, actor: usize) {
        drop(self.wait(self.lock(), actor));
    }

    /// An actor has done its work.
    pub fn leave(&self, actor: usize) {
        let mut state = self.lock();
        state.awake_at[actor] = None;
        self.pass_on(&mut state, None);
    }

    /// Notes the first thing that went wrong.
    pub fn fail(&self, text: String) {
        self.lock().failure.get_or_insert(text);
    }

    /// True once something went wrong, and everybody shall leave.
    pub fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// The moments taken, or what went wrong.
    pub fn finish(self) -> Result<(Vec<Moment>, Model), String> {
        let state = self.state.into_inner().unwrap();
        match state.failure {
            Some(text) => Err(text),
            None => Ok((state.moments, self.model.into_inner().unwrap())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, actor: usize) -> MutexGuard<'a, State> {
        while state.turn != actor {
            state = self.turns[actor].wait(state).unwrap();
        }
        state
    }

    /// Draws who goes on among those awake, `but` only when nobody else is; when all sleep, time passes
    /// until the first wakes.
    fn pass_on(&self, state: &mut State, but: Option<usize>) {
        let now = self.disk.now();
        let Some(first) = state.awake_at.iter().flatten().min().copied() else {
            return;
        };
        if first > now {
            self.disk.advance(first - now);
        }
        let now = now.max(first);
        let awake = |actor: &usize| state.awake_at[*actor].is_some_and(|until| until <= now);
        let mut choices: Vec<usize> = (0..state.awake_at.len()).filter(awake).collect();
        if choices.len() > 1 {
            choices.retain(|actor| Some(*actor) != but);
        }
        state.turn = *self.rng.pick(&choices);
        self.turns[state.turn].notify_one();
    }

    fn one_in(&self, odds: u64) -> bool {
        odds != 0 && self.rng.chance(1, odds)
    }

    fn fault(&self, op: &Op) -> Verdict {
        match op.kind {
            OpKind::Write if self.one_in(self.odds.full) => match self.rng.chance(1, 2) {
                true => Verdict::Short(self.rng.below(op.len + 1)),
                false => Verdict::Fail {
                    errno: ENOSPC,
                    applied: self.rng.below(op.len + 1),
                },
            },
            OpKind::Allocate if self.one_in(self.odds.full) => Verdict::Fail {
                errno: ENOSPC,
                applied: 0,
            },
            OpKind::Write if self.one_in(self.odds.fail) => Verdict::Fail {
                errno: EIO,
                applied: self.rng.below(op.len + 1),
            },
            OpKind::SyncData if self.one_in(self.odds.fail) => Verdict::Fail {
                errno: EIO,
                applied: 0,
            },
            _ => Verdict::Go,
        }
    }

    /// Write-back fails unseen: most telling right before somebody opens the file, who will not be told.
    fn lose_writeback(&self, op: &Op) {
        let telling = matches!(op.kind, OpKind::Open | OpKind::Write | OpKind::SyncData);
        if telling && self.one_in(self.odds.writeback) {
            self.disk.fail_writeback(&op.name);
            if self.odds.evict && self.rng.chance(1, 2) {
                self.disk.evict(&op.name);
                self.model.lock().unwrap().cache_lost = true;
            }
        }
    }

    fn take_moment(&self, state: &mut State) {
        if state.moments.len() < state.most_moments && self.one_in(self.odds.snapshot) {
            let model = self.model.lock().unwrap().clone();
            state.moments.push(Moment {
                disk: self.disk.snapshot(),
                op: self.disk.ops(),
                model,
            });
        }
    }
}

impl Director for Schedule {
    fn before(&self, op: &Op) -> Verdict {
        let mut state = self.lock();
        let actor = state.actor_of[op.process as usize];
        state.ops += 1;
        if state.ops == MOST_OPS {
            state
                .failure
                .get_or_insert(format!("no end after {MOST_OPS} operations, at {op:?}"));
        }
        if state.failure.is_some() {
            return Verdict::Kill;
        }
        if self.rng.chance(self.odds.switch, 16) {
            self.pass_on(&mut state, Some(actor));
            state = self.wait(state, actor);
        }
        if op.kind.is_change() {
            self.take_moment(&mut state);
            if self.one_in(self.odds.stall) {
                state.awake_at[actor] = Some(self.disk.now() + Duration::from_secs(6));
                self.pass_on(&mut state, Some(actor));
                state = self.wait(state, actor);
            }
        }
        drop(state);
        self.lose_writeback(op);
        if self.one_in(self.odds.kill) && (op.kind.is_change() || self.rng.chance(1, 4)) {
            let inside = op.kind == OpKind::Write && self.rng.chance(1, 2);
            return if inside {
                Verdict::KillAfter(self.rng.below(op.len / 8 + 1) * 8)
            } else {
                Verdict::Kill
            };
        }
        self.fault(op)
    }

    fn pause(&self, process: u32, limit: Duration, early: bool) -> Duration {
        let mut state = self.lock();
        let actor = state.actor_of[process as usize];
        let limit = if early && self.rng.chance(1, 4) {
            Duration::ZERO
        } else {
            limit
        };
        state.awake_at[actor] = Some(self.disk.now() + limit);
        self.pass_on(&mut state, Some(actor));
        drop(self.wait(state, actor));
        Duration::ZERO
    }
}
