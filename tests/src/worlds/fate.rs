//! [`Fate`]: what happens to one process at one of its operations: it is killed there, the power goes, an operation fails, or another process does
//! something in between.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::SimRng;
use crate::crash::Fault;
use crate::disk::{Director, Op, OpKind, SimDisk, SimProcess, Verdict};

/// What another process does in between.
pub type Deed = Box<dyn FnOnce() + Send>;

/// What is to happen.
pub enum Plan {
    Kill,
    PowerCut,
    Fault(Fault),
    Meanwhile(Deed),
}

/// See the module.
pub struct Fate {
    disk: SimDisk,
    state: Mutex<State>,
}

struct State {
    rng: SimRng,
    /// Operations until it happens.
    left: u64,
    plan: Option<Plan>,
    ended: Ended,
    /// A disk beside its own, and the processes that die with each other.
    beside: Option<(SimDisk, [SimProcess; 2])>,
}

/// What became of a plan.
#[derive(Default)]
pub struct Ended {
    /// Where it happened.
    pub at: Option<String>,
    /// The machine that the power cut left.
    pub cut: Option<SimDisk>,
    /// The same of the disk beside it.
    pub cut_beside: Option<SimDisk>,
}

impl Fate {
    /// Nothing happens yet.
    pub fn new(disk: &SimDisk, rng: SimRng) -> Fate {
        Fate {
            disk: disk.clone(),
            state: Mutex::new(State {
                rng,
                left: 0,
                plan: None,
                ended: Ended::default(),
                beside: None,
            }),
        }
    }

    /// It is the fate of one program with a store on each of two disks of one machine.
    pub fn bind(&self, beside: &SimDisk, processes: [SimProcess; 2]) {
        self.state().beside = Some((beside.clone(), processes));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many operations this happens.
    pub fn set(&self, left: u64, plan: Plan) {
        let mut state = self.state();
        (state.left, state.plan) = (left, Some(plan));
    }

    /// Nothing happens any more; what happened.
    pub fn end(&self) -> Ended {
        let mut state = self.state();
        state.plan = None;
        std::mem::take(&mut state.ended)
    }

    /// Lets it happen; what another process does in between is given out, to be done without a lock.
    fn befall(&self, op: &Op) -> (Verdict, Option<Deed>) {
        let mut state = self.state();
        if state.plan.is_none() || op.kind == OpKind::Pause {
            return (Verdict::Go, None);
        }
        if state.left > 0 {
            state.left -= 1;
            return (Verdict::Go, None);
        }
        if let Some(Plan::Fault(fault)) = &state.plan
            && fault.verdict(op).is_none()
        {
            return (Verdict::Go, None);
        }
        let plan = state.plan.take();
        state.ended.at = Some(format!("{:?} {} {}+{}", op.kind, op.name, op.offset, op.len));
        match plan {
            Some(Plan::Kill) if op.kind == OpKind::Write && state.beside.is_none() => {
                (Verdict::KillAfter(state.rng.below(op.len + 1)), None)
            }
            Some(Plan::Kill) => {
                state.end_beside();
                (Verdict::Kill, None)
            }
            Some(Plan::PowerCut) => {
                let rng = state.rng.fork();
                state.ended.cut = Some(self.disk.crash(&rng));
                state.ended.cut_beside = state.beside.as_ref().map(|(disk, _)| disk.crash(&rng));
                state.end_beside();
                (Verdict::Kill, None)
            }
            Some(Plan::Fault(fault)) => (fault.verdict(op).unwrap_or(Verdict::Go), None),
            Some(Plan::Meanwhile(deed)) => (Verdict::Go, Some(deed)),
            None => (Verdict::Go, None),
        }
    }
}

impl State {
    /// Who has two stores loses both at once.
    fn end_beside(&mut self) {
        if let Some((_, processes)) = &self.beside {
            processes.iter().for_each(SimProcess::kill);
        }
    }
}

impl Director for Fate {
    fn before(&self, op: &Op) -> Verdict {
        let (verdict, deed) = self.befall(op);
        if let Some(deed) = deed {
            deed();
        }
        verdict
    }

    /// Who waits for one that stands still waits in vain: its limit comes soon.
    fn pause(&self, _process: u32, limit: Duration, _early: bool) -> Duration {
        limit.max(Duration::from_secs(1))
    }
}
