//! After a pair parted: the operator makes it anew where it stands (`rejoin`), and it goes on.
//!
//! What the site that went back has by now reaches its neighbour, and the other way round, each event once; what is gone there and held here stays.

use std::collections::BTreeMap;

use milepost_replication::rejoin::{Parting, Resume, rejoin};
use milepost_replication::tracking::StopReason;

use super::judge::Commits;
use super::shape::NAMES;
use super::site::Site;
use super::world::World;

/// Times that an operator does so: each of the two may find out after the other has gone on.
const TIMES: usize = 4;
/// Days within which everything arrives then.
const DAYS: usize = 80;

impl World {
    /// The parted pair goes on, until each has what the other committed, and `lost` is known to be gone at `site`.
    ///
    /// # Errors
    /// What is wrong, or has not come.
    pub fn rejoin(&mut self, site: usize, lost: &Commits) -> Result<(), String> {
        for _ in 0..TIMES {
            for site in 0..2 {
                self.rejoin_at(site)?;
            }
            self.stopped = None;
            let mut missing = None;
            for day in 1..=DAYS {
                self.live_a_day(day)?;
                missing = self.compare_payloads(site, lost)?;
                if missing.is_none() || self.stopped.is_some() {
                    break;
                }
            }
            match (missing, &self.stopped) {
                (None, None) => return Ok(()),
                (Some(missing), None) => {
                    return Err(format!("{DAYS} days after the pair was made anew {missing}"));
                }
                (_, Some(_)) => {}
            }
        }
        Err(format!(
            "R5: made anew {TIMES} times, the pair stops again: {:?}",
            self.stopped
        ))
    }

    fn rejoin_at(&mut self, site: usize) -> Result<(), String> {
        let told = |error: milepost_engine::Error| format!("a pair is not made anew: {error}");
        let store = self.sites[site].desk().map_err(told)?;
        for parting in Parting::all(&store, &mut |_| ()).map_err(told)? {
            let from = match &parting.stopped {
                Some(StopReason::Parted(None, _)) | None => Resume::Beginning,
                Some(_) if parting.common.is_none() => Resume::Beginning,
                Some(_) => Resume::Common,
            };
            let remote = rejoin(&store, &parting, from).map_err(told)?;
            self.tell(format!(
                "{} makes the pair with {} anew, generation {}, from {from:?}",
                NAMES[site], remote.site, remote.generation
            ));
        }
        Ok(())
    }

    /// Every event is there once, by what it carries; tells what is missing still.
    fn compare_payloads(&mut self, site: usize, lost: &Commits) -> Result<Option<String>, String> {
        self.sites.iter_mut().try_for_each(Site::look)?;
        let mut missing = None;
        for own in 0..2 {
            let (here, there) = (&self.sites[own], &self.sites[1 - own]);
            let mut held: BTreeMap<&str, u64> = BTreeMap::new();
            let came = here.seen.1.iter().filter(|one| one.via.is_some());
            for (_, event) in came.flat_map(|one| &one.events) {
                *held.entry(event.payload.as_str()).or_default() += 1;
            }
            if let Some((event, _)) = held.iter().find(|(_, count)| **count > 1) {
                let number = event.split(':').next();
                return Err(format!("{} holds event #{number:?} twice (R1)", here.name));
            }
            let made = there.commits.values().flatten();
            for event in made {
                if held.remove(event.payload.as_str()).is_none() {
                    let number = event.payload.split(':').next().unwrap_or_default();
                    missing = Some(format!("{} misses event #{number} (Q1, R1)", here.name));
                }
            }
            let gone = |payload: &str| lost.values().flatten().any(|event| event.payload == payload);
            if let Some(event) = held.keys().find(|event| own == site || !gone(event)) {
                let number = event.split(':').next();
                return Err(format!(
                    "{} holds event #{number:?}, which nobody has (R2)",
                    here.name
                ));
            }
        }
        Ok(missing)
    }
}
