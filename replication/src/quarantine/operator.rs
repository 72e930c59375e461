//! [`Quarantine`]: what an operator does about transactions that are held: retries or drops them.
//!
//! ```text
//! retry  the transaction ─ its events that are here already are left out (R4) ─ before_apply ─┬─ apply ─► one frame: the events, with
//!                                                                                             │  origin and via; the record goes
//!                                                                                             └─ veto ──► a note: the new reason
//! drop   a frame that says so; the record goes
//! ```
//!
//! Whoever does so has the receive phase, so nobody applies beside him, and syncs the log first: what a predecessor that was
//! killed had appended counts (R1). A process that is killed anywhere has applied each transaction once or not at all. The
//! neighbour is told by an answer that is owed from then on.

use std::collections::BTreeSet;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, Lsn, Origin, Phase, PhaseLock, Result, SiteName, Store, Via};

use crate::catalog::Catalog;
use crate::hooks::{Applied, Offered, Ruling, SharedHooks};
use crate::message::{Carried, Point};
use crate::planted::{self, Bug};
use crate::receive::Origins;
use crate::tracking::{HeldEvent, NOTE, Neighbour, OwnLog, PairRecords, PairState, newest_pin};

use super::gate::{Gate, hold_what_is_held};
use super::index::HeldIndex;
use super::record::{HeldCause, HeldKey, HeldRecord, dropped, gone, read_held, records};

/// A transaction that is held, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldTransaction {
    /// LSN of the frame that keeps it: its name.
    pub id: Lsn,
    /// The neighbour that brought it.
    pub remote: SiteName,
    /// What is known of it.
    pub record: HeldRecord,
    /// The first that is held before it in one of its streams.
    pub behind: Option<Lsn>,
    /// How many others wait for it and no earlier one.
    pub holds: usize,
}

/// What a retry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is applied: so many events, at this LSN.
    Applied(Lsn, u32),
    /// All of its events are in the log already.
    Here,
    /// It is refused again, for this reason.
    Refused(String),
}

/// See the module.
pub struct Quarantine {
    store: Store,
    hooks: SharedHooks,
    index: HeldIndex,
    origins: Origins,
    _lock: PhaseLock,
}

/// All that is held, in the order of their frames.
///
/// # Errors
/// `Corrupt` for damage; `Behind` when a frame was freed, against the hold.
pub fn held(store: &Store) -> Result<Vec<HeldTransaction>> {
    Ok(all_of(&HeldIndex::load(store)?))
}

fn all_of(index: &HeldIndex) -> Vec<HeldTransaction> {
    let mut all: Vec<HeldTransaction> = Vec::new();
    for (key, entry) in index.in_order() {
        let behind = index.waits_for(key);
        if let Some(first) = all.iter_mut().find(|one| Some(one.id) == behind) {
            first.holds += 1;
        }
        all.push(HeldTransaction {
            id: entry.record.at,
            remote: key.remote.clone(),
            record: entry.record.clone(),
            behind,
            holds: 0,
        });
    }
    all
}

/// How many transactions are held of a remote, with the first reason.
///
/// # Errors
/// `Corrupt` for a record that is none.
pub fn held_of(store: &Store, remote: &SiteName) -> Result<Option<(usize, String)>> {
    let all = records(store, Some(remote))?;
    let first = all.first().map(|(_, record)| record.cause.to_string());
    Ok(first.map(|first| (all.len(), first)))
}

impl Quarantine {
    /// Takes the receive phase.
    ///
    /// # Errors
    /// `Conflict` naming the holder when an agent has it.
    pub fn open(store: &Store, hooks: SharedHooks) -> Result<Quarantine> {
        let lock = store.lock_phase(Phase::Receive)?;
        store.sync()?;
        let index = HeldIndex::load(store)?;
        hold_what_is_held(store, &index)?;
        Ok(Quarantine {
            store: store.clone(),
            hooks,
            index,
            origins: Origins::new(store, Gate::new(store, false)),
            _lock: lock,
        })
    }

    /// All that is held, in the order of their frames.
    #[must_use]
    pub fn held(&self) -> Vec<HeldTransaction> {
        all_of(&self.index)
    }

    /// Retries one that is held. Call it again for those behind it, once it is applied.
    ///
    /// # Errors
    /// `Invalid` when none has that LSN; `Conflict` when another one is held before it; those of the store and of the
    /// hooks, with it held as before.
    pub fn retry(&mut self, id: Lsn) -> Result<Retried> {
        let (key, record) = self.find(id)?;
        if let Some(first) = self.index.waits_for(&key) {
            return Err(Error::conflict(format!(
                "the transaction held at {id} shares a stream with the one held at {first}; retry or drop that first"
            )));
        }
        let (carried, origin) = (read_held(&self.store, id)?, record.origin()?);
        let there = self.origins.events_of(&origin)?;
        let mut events = HeldEvent::all_of(&carried)?;
        events.retain(|event| planted::is(Bug::RetryNotEnded) || !there.contains(event));
        if events.is_empty() {
            let mut note = NewFrame::of_kind(NOTE, Vec::new());
            note.pin(gone(&key));
            self.settle(&key, note)?;
            return Ok(Retried::Here);
        }
        if let Some(why) = self.origins.forgot(&origin)? {
            return self.refused(&key, record, HeldCause::Forgotten(why));
        }
        let mut frame = carried.frame_with(|ordinal| events.iter().any(|event| event.ordinal == ordinal))?;
        if let Some(hooks) = &self.hooks {
            let body = frame.body();
            let offered = Offered {
                remote: &key.remote,
                origin: &origin,
                committed_at: carried.committed_at,
                events: milepost_engine::frame::Events::new(&body, frame.event_count(), origin.lsn),
            };
            if let Ruling::Veto(why) = hooks.before_apply(&offered)? {
                return self.refused(&key, record, HeldCause::Vetoed(why));
            }
        }
        let count = frame.event_count();
        self.complete(&mut frame, &key, &record, &carried, &origin)?;
        let lsn = self.settle(&key, frame)?;
        if let Some(hooks) = &self.hooks {
            hooks.after_apply(&Applied {
                remote: key.remote,
                origin,
                events: count,
                lsn,
            });
        }
        Ok(Retried::Applied(lsn, count))
    }

    /// Retries one, and in their order those that are held behind it and behind nothing else, up to the first that is refused. `told` is told of
    /// each.
    ///
    /// # Errors
    /// As [`Quarantine::retry`]; what was told before is done.
    pub fn retry_on(&mut self, id: Lsn, told: &mut dyn FnMut(&HeldTransaction, &Retried)) -> Result<bool> {
        let mut course = BTreeSet::from([id]);
        self.find(id)?;
        for one in self.held() {
            if one.behind.is_some_and(|behind| course.contains(&behind)) {
                course.insert(one.id);
            }
        }
        for one in self.held().into_iter().filter(|one| course.contains(&one.id)) {
            if one.id != id && self.waits(one.id)? {
                continue;
            }
            let retried = self.retry(one.id)?;
            told(&one, &retried);
            if matches!(retried, Retried::Refused(_)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Retries all, or all of one remote, in their order; one that is refused keeps up what is held behind it alone. False when any was.
    ///
    /// # Errors
    /// As [`Quarantine::retry`]; what was told before is done.
    pub fn retry_all(
        &mut self,
        remote: Option<&SiteName>,
        told: &mut dyn FnMut(&HeldTransaction, &Retried),
    ) -> Result<bool> {
        let mut all_well = true;
        let asked = |one: &HeldTransaction| remote.is_none_or(|remote| *remote == one.remote);
        for one in self.held().into_iter().filter(asked) {
            if self.waits(one.id)? {
                continue;
            }
            let retried = self.retry(one.id)?;
            told(&one, &retried);
            all_well &= !matches!(retried, Retried::Refused(_));
        }
        Ok(all_well)
    }

    fn waits(&self, id: Lsn) -> Result<bool> {
        let (key, _) = self.find(id)?;
        Ok(self.index.waits_for(&key).is_some())
    }

    /// Drops one that is held: it is never applied. Those behind it wait for it no longer, and can be retried.
    ///
    /// # Errors
    /// `Invalid` when none has that LSN; those of the store.
    pub fn drop(&mut self, id: Lsn, why: &str) -> Result<()> {
        let (key, _) = self.find(id)?;
        self.settle(&key, dropped(&key, id, why)).map(|_| ())
    }

    fn find(&self, id: Lsn) -> Result<(HeldKey, HeldRecord)> {
        let key = self.index.key_at(id);
        let found = key.and_then(|key| self.index.record(&key).cloned().map(|record| (key, record)));
        found.ok_or_else(|| Error::invalid(format!("no transaction is held at LSN {id}")))
    }

    /// What makes it a received transaction: the frame that applies it also says that it is held no longer.
    fn complete(
        &self,
        frame: &mut NewFrame,
        key: &HeldKey,
        record: &HeldRecord,
        carried: &Carried,
        origin: &Origin,
    ) -> Result<()> {
        let known = self.origins.newest_passed_on(origin.site)?;
        if carried.origin.is_some() || known.is_some() {
            let known = match known {
                Some(known) => known,
                None => self.origins.newest_of(origin.site)?,
            };
            frame.pin(newest_pin(origin.site, known.max(origin.lsn)));
        }
        let Point { position, back } = carried.point;
        frame.set_origin(origin.clone());
        frame.set_via(Via {
            site: record.sender,
            name: key.remote.clone(),
            generation: record.generation,
            position,
            back,
        });
        if !planted::is(Bug::RetryNotEnded) {
            frame.pin(gone(key));
        }
        Ok(())
    }

    fn refused(&mut self, key: &HeldKey, record: HeldRecord, cause: HeldCause) -> Result<Retried> {
        let record = HeldRecord {
            refusals: record.refusals.saturating_add(1),
            cause: cause.short(),
            ..record
        };
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(record.pin(key)?);
        self.append(&key.remote, note)?;
        let why = record.cause.to_string();
        self.index.change(key, record);
        Ok(Retried::Refused(why))
    }

    /// Appends what ends the holding of one, and lets go of the log before the next.
    fn settle(&mut self, key: &HeldKey, frame: NewFrame) -> Result<Lsn> {
        let lsn = self.append(&key.remote, frame)?;
        self.origins.settled()?;
        self.index.remove(key);
        hold_what_is_held(&self.store, &self.index)?;
        Ok(lsn)
    }

    /// Appends a frame, durably, with which the neighbour is owed an answer: it says what is held now.
    fn append(&self, remote: &SiteName, mut frame: NewFrame) -> Result<Lsn> {
        if let Some(known) = Catalog::load(&self.store)?.remote(remote) {
            let neighbour = Neighbour {
                name: remote.clone(),
                generation: known.generation,
            };
            let find = |key: &[u8]| Ok(self.store.pinned(key)?.map(|(value, _)| value));
            let mut told = PairRecords::load(&neighbour, find)?.told;
            told.answers_due = told.answers_due.saturating_add(1);
            frame.pin(told.pin(remote)?);
        }
        let committed = self.store.append_frames(vec![frame], Durability::Synced)?;
        let lsn = committed.first().map(|committed| committed.lsn);
        lsn.ok_or_else(|| Error::internal("an append of one frame told no position"))
    }
}
