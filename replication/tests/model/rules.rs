//! [`Rules`]: an application that vetoes at random, and what an operator does about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use milepost_engine::{Lsn, Result, Store};
use milepost_replication::hooks::{Hooks, Offered, Ruling};
use milepost_replication::quarantine::{HeldTransaction, Quarantine, Retried};

use super::chance::Chance;
use super::judge::nothing_overtakes_what_is_held;
use super::site::Site;
use super::story::{NAMES, Story};

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
#[derive(Clone, Copy, Debug)]
pub enum Act {
    RetryAll,
    RetryOne,
    Drop,
}

/// Does it; tells how many are held afterwards, and what was applied.
pub fn operate(store: &Store, rules: &Arc<Rules>, act: Act, chance: &Chance) -> (usize, usize) {
    let hooks: Arc<dyn Hooks> = Arc::clone(rules) as _;
    let mut operator = Quarantine::open(store, Some(hooks)).unwrap();
    let free: Vec<Lsn> = operator
        .held()
        .iter()
        .filter(|one| one.behind.is_none())
        .map(|one| one.id)
        .collect();
    let mut applied = 0;
    let mut count = |_: &HeldTransaction, retried: &Retried| {
        applied += usize::from(matches!(retried, Retried::Applied(..)));
    };
    match act {
        Act::RetryAll => drop(operator.retry_all(None, &mut count).unwrap()),
        _ if free.is_empty() => {}
        Act::RetryOne => drop(operator.retry_on(chance.pick(&free), &mut count).unwrap()),
        Act::Drop => operator.drop(chance.pick(&free), "not today").unwrap(),
    }
    (operator.held().len(), applied)
}

impl Story {
    /// An operator acts upon what is held.
    pub fn operate(&mut self, site: usize, act: Act) {
        let chance = self.operators.clone();
        let (left, applied) = self.sites[site].operate(act, &chance);
        self.tell(format!(
            "{}: {act:?}: {applied} applied, {left} are held still",
            NAMES[site]
        ));
    }

    /// Transactions that were ever held.
    pub fn held(&self) -> u64 {
        let ever = |site: &Site| nothing_overtakes_what_is_held(site.name, &site.log()).unwrap().1 as u64;
        self.sites.iter().map(ever).sum()
    }
}
