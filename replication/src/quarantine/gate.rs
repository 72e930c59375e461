//! [`Gate`]: what a transaction passes before it is applied: what is held before it, and the application's hooks; and what the
//! remote's policy makes of one that does not pass (R6).
//!
//! ```text
//! shares a stream with one that is held ┐                 ┌ stop:   refused, and its stream stands before it
//! may have been received before         ├─► the policy ───┤
//! vetoed by before_apply                ┘                 └ go-on:  held, within bounds; beyond them as stop
//! ```
//!
//! Bounded: of one remote at most [`MOST_HELD`] transactions of [`MOST_HELD_BYTES`] together. The named hold `quarantine` keeps the log
//! from where the first of them lies; it is taken before the first is appended.

use std::cell::RefCell;
use std::collections::BTreeMap;

use milepost_engine::{Hold, Lsn, Origin, Result, SiteName, Store};

use crate::catalog::OnError;
use crate::hooks::{Offered, Ruling, SharedHooks};
use crate::message::Carried;
use crate::planted::{self, Bug};
use crate::tracking::{Case, InQuarantine, Judgement, Refusal};

use super::index::HeldIndex;
use super::record::{HeldCause, HeldKey, HeldRecord};

/// Name of the hold on the log.
pub const QUARANTINE_HOLD: &str = "quarantine";
/// Most transactions held of one remote.
pub const MOST_HELD: usize = 1024;
/// Most bytes of them together.
pub const MOST_HELD_BYTES: u64 = 64 << 20;

/// See the module.
pub struct Gate {
    store: Store,
    hooks: SharedHooks,
    /// False in a dry run: no hook is called, and nothing is taken.
    live: bool,
    policies: RefCell<BTreeMap<SiteName, OnError>>,
    /// Read from the log when it is needed first.
    index: RefCell<Option<HeldIndex>>,
}

impl Gate {
    /// A gate without hooks.
    #[must_use]
    pub fn new(store: &Store, live: bool) -> Gate {
        Gate {
            store: store.clone(),
            hooks: None,
            live,
            policies: RefCell::default(),
            index: RefCell::default(),
        }
    }

    /// From now on these rule.
    pub fn set_hooks(&mut self, hooks: SharedHooks) {
        self.hooks = hooks.filter(|_| self.live);
    }

    /// The hooks, where they are called.
    #[must_use]
    pub fn hooks(&self) -> &SharedHooks {
        &self.hooks
    }

    /// The remotes' policies as they are now.
    pub fn set_policies(&self, policies: BTreeMap<SiteName, OnError>) {
        *self.policies.borrow_mut() = policies;
    }

    /// What was made is durable.
    ///
    /// # Errors
    /// Those of the store.
    pub fn settled(&self) -> Result<()> {
        match &mut *self.index.borrow_mut() {
            Some(index) if index.has_pending() => index.settle(&self.store),
            _ => Ok(()),
        }
    }

    /// What was made was given up: the log is read anew.
    pub fn forget(&self) {
        *self.index.borrow_mut() = None;
    }

    /// As [`crate::tracking::OwnLog::in_quarantine`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn has(&self, origin: &Origin, carried: &Carried) -> Result<InQuarantine> {
        self.with_index(|index| index.has(origin, carried))
    }

    /// As [`crate::tracking::OwnLog::judge`].
    ///
    /// # Errors
    /// Those of the store and of the hooks.
    pub fn judge(&self, case: Case<'_>) -> Result<Judgement> {
        let before = self.with_index(|index| {
            let found = index.first_before(case.remote, case.origin.site, case.carried)?;
            Ok(found.map(|record| format!("transaction {} of {}", record.origin_lsn, record.origin_name)))
        })?;
        let what = format!("transaction {} of {}", case.origin.lsn, case.origin.name);
        if let Some(of) = before.filter(|_| !planted::is(Bug::HeldOvertaken)) {
            return self.by_policy(&case, HeldCause::Behind, Refusal::Behind { what, of });
        }
        if let Some(refusal) = case.against.clone() {
            let why = match &refusal {
                Refusal::Forgotten { why, .. } => why.clone(),
                other => other.to_string(),
            };
            return self.by_policy(&case, HeldCause::Forgotten(why), refusal);
        }
        let Some(hooks) = &self.hooks else {
            return Ok(Judgement::Apply);
        };
        let body = case.frame.body();
        let offered = Offered {
            remote: case.remote,
            origin: case.origin,
            committed_at: case.carried.committed_at,
            events: milepost_engine::frame::Events::new(&body, case.frame.event_count(), case.origin.lsn),
        };
        match hooks.before_apply(&offered)? {
            Ruling::Apply => Ok(Judgement::Apply),
            Ruling::Veto(why) => {
                let refusal = Refusal::Vetoed {
                    what,
                    why: why.clone(),
                };
                self.by_policy(&case, HeldCause::Vetoed(why), refusal)
            }
        }
    }

    /// It is held where that is the policy and there is room, else refused.
    fn by_policy(&self, case: &Case<'_>, cause: HeldCause, refusal: Refusal) -> Result<Judgement> {
        let policy = self.policies.borrow().get(case.remote).copied();
        if policy.unwrap_or_default() == OnError::Stop {
            return Ok(Judgement::Refuse(refusal));
        }
        let (record, body) = HeldRecord::of(case, cause, self.store.clock().wall_micros())?;
        let (count, bytes) = self.with_index(|index| Ok(index.takes(case.remote)))?;
        if count >= MOST_HELD || bytes.saturating_add(record.bytes) > MOST_HELD_BYTES {
            let text = format!(
                "{refusal}; it cannot be held beside {count} others of {} with {bytes} bytes: at most {MOST_HELD}, and \
                 {MOST_HELD_BYTES} bytes, are; retry or drop some",
                case.remote
            );
            return Ok(Judgement::Refuse(Refusal::QuarantineFull(text)));
        }
        let number = self.with_index(|index| Ok(index.next_number(case.remote)))?;
        let key = HeldKey {
            remote: case.remote.clone(),
            number,
        };
        let frame = record.frame(&key, body)?;
        if let Err(error) = self.store.fits(&frame) {
            return Ok(Judgement::Refuse(Refusal::DoesNotFit(error.to_string())));
        }
        if self.live && count == 0 {
            hold_from_here(&self.store)?;
        }
        self.with_index(|index| index.add(key, record, case.carried))?;
        Ok(Judgement::Keep(Box::new(frame)))
    }

    fn with_index<T>(&self, ask: impl FnOnce(&mut HeldIndex) -> Result<T>) -> Result<T> {
        let mut known = self.index.borrow_mut();
        if let Some(index) = &mut *known {
            return ask(index);
        }
        let index = HeldIndex::load(&self.store)?;
        if self.live {
            hold_what_is_held(&self.store, &index)?;
        }
        ask(known.insert(index))
    }
}

/// Keeps the log from its end on, if nothing is held yet.
fn hold_from_here(store: &Store) -> Result<()> {
    let end = store.watermarks().durable;
    take(store, Lsn(end.0.saturating_sub(1)), |known, wanted| {
        known <= wanted
    })
}

/// Moves the hold to the first that is held, or drops it.
pub(super) fn hold_what_is_held(store: &Store, index: &HeldIndex) -> Result<()> {
    match index.first() {
        Some(first) => take(store, Lsn(first.0.saturating_sub(1)), |known, wanted| {
            known == wanted
        }),
        None => store.drop_hold(QUARANTINE_HOLD).map(|_| ()),
    }
}

fn take(store: &Store, lsn: Lsn, suits: impl FnOnce(Lsn, Lsn) -> bool) -> Result<()> {
    let moved = store.move_hold(QUARANTINE_HOLD, |now| {
        let suited = now.is_some_and(|now| now.expires.is_none() && suits(now.lsn, lsn));
        Ok((!suited).then(|| Hold::new("quarantine", "transactions in quarantine", lsn)))
    });
    moved.map(|_| ())
}
