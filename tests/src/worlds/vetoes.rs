//! Applications that veto what comes, and operators who retry or drop what is held for it, in processes that die like any other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use milepost_engine::{Lsn, Result, Store};
use milepost_replication::hooks::{Hooks, Offered, Ruling, SharedHooks};
use milepost_replication::quarantine::{HeldTransaction, Quarantine, Retried};

use super::chance::Chance;
use super::process::{Done, Task};
use super::shape::Role;
use super::world::World;

/// One of a site's life: it rules, and forgets how it ruled.
pub struct Rules {
    chance: Mutex<Chance>,
    /// It vetoes some.
    strict: AtomicBool,
}

impl Rules {
    pub fn new(chance: Chance) -> Arc<Rules> {
        Arc::new(Rules {
            chance: Mutex::new(chance),
            strict: AtomicBool::new(true),
        })
    }

    /// Nothing is vetoed any more.
    pub fn relent(&self) {
        self.strict.store(false, Ordering::Relaxed);
    }
}

impl Hooks for Rules {
    fn before_apply(&self, _offered: &Offered<'_>) -> Result<Ruling> {
        let vetoed = self.strict.load(Ordering::Relaxed) && self.chance.lock().unwrap().percent(12);
        Ok(if vetoed {
            Ruling::Veto("not today".to_owned())
        } else {
            Ruling::Apply
        })
    }
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    RetryAll,
    RetryOne,
    Drop,
}

/// Does it.
pub fn operate(store: &Store, hooks: &SharedHooks, act: Act, chance: &Chance) -> Result<Done> {
    let mut operator = Quarantine::open(store, hooks.clone())?;
    let all = operator.held();
    let free: Vec<Lsn> = all
        .iter()
        .filter(|one| one.behind.is_none())
        .map(|one| one.id)
        .collect();
    let mut applied = 0;
    let mut count = |_: &HeldTransaction, retried: &Retried| {
        applied += u64::from(matches!(retried, Retried::Applied(..)));
    };
    match act {
        Act::RetryAll => drop(operator.retry_all(None, &mut count)?),
        _ if free.is_empty() => {}
        Act::RetryOne => drop(operator.retry_on(chance.pick(&free), &mut count)?),
        Act::Drop => operator.drop(chance.pick(&free), "not today")?,
    }
    Ok(Done::Retried(applied))
}

impl World {
    /// An operator acts upon what is held.
    pub fn operate(&mut self, site: usize) -> Result<(), String> {
        if self.sites[site].rules.is_none() {
            return Ok(());
        }
        let acts = [Act::RetryAll, Act::RetryOne, Act::RetryOne, Act::Drop];
        let act = self.chance.pick(&acts);
        let task = Task::Quarantine(act, Chance::new(self.chance.below(u64::MAX)));
        self.act(site, Role::Receive, task).map(drop)
    }

    /// Everything that is held is tried once more; how many were applied.
    pub fn retry_all(&mut self) -> Result<u64, String> {
        let mut applied = 0;
        for site in 0..self.sites.len() {
            if self.sites[site].rules.is_some() {
                let task = Task::Quarantine(Act::RetryAll, self.chance.clone());
                applied += self.act(site, Role::Receive, task)?;
            }
        }
        Ok(applied)
    }
}
