//! Remotes with limits: one that does not confirm is suspended, its site frees what it was due, and some time later an operator removes it and
//! adds it again with what the log still has.
//!
//! What it misses behind that is what it was not sent under its former making; of the next one it is due all, as of any. Nobody else notices.

use std::collections::BTreeSet;

use milepost_engine::SiteName;
use milepost_replication::catalog::{AtLimit, RemoteLimits};

use super::chance::Chance;
use super::shape::NAMES;
use super::world::World;

/// The limits of a world.
pub struct Limiting {
    chance: Chance,
    /// Edges whose remote was seen suspended.
    suspended: BTreeSet<usize>,
}

impl Limiting {
    pub fn new(chance: Chance) -> Limiting {
        Limiting {
            chance,
            suspended: BTreeSet::new(),
        }
    }
}

impl World {
    /// Limits of a remote that is added; at rest none has any, or it could be suspended for ever.
    pub fn draw_limits(&self) -> RemoteLimits {
        let Some(limiting) = self.limiting.as_ref().filter(|_| !self.is_calm) else {
            return RemoteLimits::default();
        };
        let chance = &limiting.chance;
        match chance.below(10) {
            0..=3 => RemoteLimits::default(),
            4..=7 => RemoteLimits {
                bytes: Some(chance.pick(&[1_000, 20_000, 60_000])),
                age: None,
                at_limit: AtLimit::Suspend,
            },
            8 => RemoteLimits {
                bytes: None,
                age: Some(chance.pick(&[60, 500])),
                at_limit: AtLimit::Suspend,
            },
            _ => RemoteLimits {
                bytes: Some(1_000),
                age: None,
                at_limit: AtLimit::Hold,
            },
        }
    }

    /// Hears from a send phase who is suspended at a site.
    pub fn note_suspended(&mut self, site: usize, names: &[SiteName]) {
        for name in names {
            let fits = |edge: &super::world::Edge| edge.from == site && NAMES[edge.to] == name.as_str();
            let (Some(edge), Some(limiting)) = (self.edges.iter().position(fits), self.limiting.as_mut())
            else {
                continue;
            };
            if limiting.suspended.insert(edge) {
                self.totals.suspended += 1;
                self.tell(format!("{} has suspended {name}", NAMES[site]));
            }
        }
    }

    /// What is given up for one that is suspended goes, its site's processes come and go, and now and then an operator sees to it.
    pub fn maybe_see_to_suspended(&mut self) -> Result<(), String> {
        let Some(limiting) = self.limiting.as_ref() else {
            return Ok(());
        };
        let Some(edge) = limiting.suspended.first().copied() else {
            return Ok(());
        };
        let site = self.edges[edge].from;
        if self.sites[site].is_absent {
            return Ok(());
        }
        match limiting.chance.below(100) {
            0..=5 => self.see_to(edge),
            6..=35 => self.free(site),
            36..=60 => self.end_one(site),
            _ => Ok(()),
        }
    }

    /// Whoever was suspended over this edge is none any more.
    pub fn forget_suspended(&mut self, edge: usize) {
        if let Some(limiting) = &mut self.limiting {
            limiting.suspended.remove(&edge);
        }
    }

    /// All that are suspended are removed, to be added again. True when there were some.
    pub fn see_to_all_suspended(&mut self) -> Result<bool, String> {
        let limiting = self.limiting.as_ref();
        let all: Vec<usize> = limiting.map_or_else(Vec::new, |one| one.suspended.iter().copied().collect());
        all.iter().try_for_each(|edge| self.see_to(*edge))?;
        Ok(!all.is_empty())
    }

    fn see_to(&mut self, edge: usize) -> Result<(), String> {
        if let Some(limiting) = self.limiting.as_mut() {
            limiting.suspended.remove(&edge);
        }
        // It may be gone, or there again, since it was seen.
        if self.edges[edge].making().is_some() {
            self.remove_or_add_remote(edge)?;
        }
        Ok(())
    }
}
