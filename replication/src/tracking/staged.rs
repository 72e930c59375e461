//! [`Staged`]: transactions that became frames and are not durable yet, by their origin: our log does not know
//! them, and the next message may bring them over another way (R4).

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use milepost_engine::{Epoch, Lsn, Origin, StoreId};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    origins: HashSet<(StoreId, Epoch, Lsn), RandomState>,
    newest: HashMap<StoreId, Lsn, RandomState>,
    /// What their frames pin under `origin/`.
    passed_on: HashMap<StoreId, Lsn, RandomState>,
}

impl Staged {
    pub(super) fn add(&mut self, origin: &Origin) {
        raise(&mut self.newest, origin.site, origin.lsn);
        self.origins.insert((origin.site, origin.epoch, origin.lsn));
    }

    pub(super) fn pass_on(&mut self, site: StoreId, newest: Lsn) {
        raise(&mut self.passed_on, site, newest);
    }

    /// True when this transaction, or some of its events, is among them.
    #[must_use]
    pub fn has(&self, origin: &Origin) -> bool {
        self.origins.contains(&(origin.site, origin.epoch, origin.lsn))
    }

    /// Highest LSN of a site's among them, [`Lsn::ZERO`] for none.
    #[must_use]
    pub fn newest(&self, site: StoreId) -> Lsn {
        self.newest.get(&site).copied().unwrap_or_default()
    }

    /// The record `origin/` of a site as it will be with them, if they write one.
    #[must_use]
    pub fn passed_on(&self, site: StoreId) -> Option<Lsn> {
        self.passed_on.get(&site).copied()
    }

    /// Takes in others.
    pub fn merge(&mut self, other: &Staged) {
        self.origins.extend(&other.origins);
        for (known, more) in [
            (&mut self.newest, &other.newest),
            (&mut self.passed_on, &other.passed_on),
        ] {
            more.iter().for_each(|(site, lsn)| raise(known, *site, *lsn));
        }
    }
}

fn raise(known: &mut HashMap<StoreId, Lsn, RandomState>, site: StoreId, lsn: Lsn) {
    let newest = known.entry(site).or_default();
    *newest = lsn.max(*newest);
}
