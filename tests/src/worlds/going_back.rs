//! A site that goes back in time, and whether the others see it (R5).
//!
//! ```text
//! a pair lives ─► one of the two is copied ─► the pair lives on ─► the copy takes its place ─► the pair lives on, and comes to rest
//! ```
//!
//! The copy is a backup that is restored, which begins a new lineage, or the disk as it was, which does not. What the site had put on the link since is lost
//! with it, and its neighbour's processes begin anew, so that what the neighbour holds is known.
//!
//! - It holds a commit that is gone: the pair must stop, and nothing of the new history is applied behind the old one. Then the operator makes it anew
//!   (rejoining.rs).
//! - It holds none: nobody stops, and everything is as it would be without (R1). Where it has heard of one, and the lineage did not change, it may stop:
//!   nobody can tell the two histories apart by what was only heard of.

use milepost_engine::Lsn;

use super::Totals;
use super::defined::{Making, Publications};
use super::judge::Commits;
use super::logged::Logged;
use super::process::Task;
use super::shape::{NAMES, Role};
use super::trace::Trace;
use super::world::{Kind, World};
use crate::disk::SimDisk;

/// Days within which a pair stops that has to.
const DAYS: usize = 40;

/// What is put back.
pub(super) enum Copy {
    Backup(SimDisk),
    Image(SimDisk),
}

/// What was known of a site when it was copied.
pub(super) struct Kept {
    copy: Copy,
    seen: (Lsn, Vec<Logged>),
    commits: Commits,
    publications: Publications,
    makings: Vec<Making>,
}

impl Kept {
    /// It holds the log up to here.
    pub(super) fn through(&self) -> Lsn {
        self.seen.0
    }
}

/// Lives one seed of a pair of which one goes back.
///
/// # Errors
/// What is wrong.
pub(super) fn live(seed: u64, trace: &Trace) -> Result<Totals, String> {
    let mut world = World::new(seed, trace, Kind::GoingBack)?;
    world.live_on(30)?;
    let site = world.chance.below(2) as usize;
    let kept = world.copy(site)?;
    world.live_on(25)?;
    world.go_back(site, kept)?;
    world.live_on(20)?;
    world.see(site)?;
    Ok(world.totals())
}

/// What a site that went back has lost.
pub struct Back {
    /// Its log is another one behind this.
    fork: Lsn,
    lost: Commits,
    /// Its neighbour holds some of that, or has heard of it.
    is_held: bool,
    is_heard_of: bool,
    /// The lineage did not change.
    is_image: bool,
}

impl World {
    fn live_on(&mut self, at_most: u64) -> Result<(), String> {
        for _ in 0..5 + self.chance.below(at_most) {
            self.plain_step()?;
        }
        Ok(())
    }

    fn copy(&mut self, site: usize) -> Result<Kept, String> {
        let told = |error: milepost_engine::Error| format!("a copy cannot be made: {error}");
        // Who is alone settles what dead writers left: a copy must not bring to life what was given up.
        self.sites[site].kill_all();
        let store = self.sites[site].desk().map_err(told)?;
        store.sync().map_err(told)?;
        self.sites[site].look()?;
        let is_image = self.chance.percent(50);
        let kept = self.kept(site, |world| {
            if is_image {
                world.sites[site].kill_all();
                return Ok(Copy::Image(world.sites[site].disk.snapshot()));
            }
            let disk = SimDisk::like(world.sites[site].profile, world.chance.below(u64::MAX));
            let process = disk.start();
            store.backup_in(process.storage(), false, &mut |_, _| ())?;
            process.kill();
            Ok(Copy::Backup(disk))
        });
        let kept = kept.map_err(told)?;
        let what = if is_image { "the disk" } else { "a backup" };
        self.tell(format!(
            "{what} of {} is kept, with its log up to {}",
            NAMES[site],
            kept.through()
        ));
        Ok(kept)
    }

    /// What is known of a site now, with a copy of it.
    pub(super) fn kept(
        &mut self,
        site: usize,
        copy: impl FnOnce(&mut World) -> milepost_engine::Result<Copy>,
    ) -> milepost_engine::Result<Kept> {
        let copy = copy(self)?;
        // What a backup notes in the log is behind it.
        let own = &self.sites[site];
        Ok(Kept {
            copy,
            seen: own.seen.clone(),
            commits: own.commits.clone(),
            publications: self.publications[site].clone(),
            makings: self.edges[site].makings.clone(),
        })
    }

    fn go_back(&mut self, site: usize, kept: Kept) -> Result<(), String> {
        let told = |error: milepost_engine::Error| format!("a copy cannot be put back: {error}");
        let other = 1 - site;
        self.wire.lose_from(NAMES[site]);
        for site in 0..2 {
            let store = self.sites[site].desk().map_err(told)?;
            store.sync().map_err(told)?;
            self.sites[site].look()?;
        }
        self.sites[other].kill_all();
        let (is_image, fork) = (matches!(kept.copy, Copy::Image(_)), kept.through());
        let lost = self.put_back(site, kept)?;
        let from_it = |one: &&Logged| one.via.as_ref().is_some_and(|(via, _, _)| via == NAMES[site]);
        let held = self.sites[other].seen.1.iter().filter(from_it);
        let is_held = held.into_iter().any(|one| one.origin.1 > fork);
        let heard = self.wire.sent(NAMES[site], NAMES[other], 0).at;
        self.tell(format!(
            "{} goes back to it: {} commits are gone, of which {} {}",
            NAMES[site],
            lost.len(),
            NAMES[other],
            if is_held { "holds some" } else { "holds none" }
        ));
        self.back = Some(Back {
            fork,
            lost,
            is_held,
            is_heard_of: heard > fork,
            is_image,
        });
        Ok(())
    }

    /// A copy takes the place of a site; what that had committed since.
    pub(super) fn put_back(&mut self, site: usize, kept: Kept) -> Result<Commits, String> {
        let told = |error: milepost_engine::Error| format!("a copy cannot be put back: {error}");
        self.sites[site].kill_all();
        let fork = kept.through();
        let disk = match kept.copy {
            Copy::Image(disk) => disk,
            Copy::Backup(backup) => self.restored(site, &backup).map_err(told)?,
        };
        disk.advance(self.sites[site].disk.now());
        let own = &mut self.sites[site];
        let lost = own.commits.split_off(&Lsn(fork.0 + 1));
        own.boot(disk);
        own.lost_power = false;
        (own.seen, own.commits) = (kept.seen, kept.commits);
        own.maybe.clear();
        self.publications[site] = kept.publications;
        self.edges[site].makings = kept.makings;
        Ok(lost)
    }

    /// The faults stop, and what has to be seen is.
    fn see(&mut self, site: usize) -> Result<(), String> {
        let back = self.back.take().ok_or("nobody went back")?;
        self.stop_faults();
        // Something of the new history, for there may be nothing to see without.
        for _ in 0..2 {
            self.commit(0)?;
            self.commit(1)?;
        }
        let may_stop = back.is_held || (back.is_image && back.is_heard_of);
        if !may_stop {
            if let Some(why) = &self.stopped {
                return Err(format!("R5: nothing that is gone was held, and {why}"));
            }
            self.rest()?;
            return match &self.stopped {
                Some(why) => Err(format!("R5: nothing that is gone was held, and {why}")),
                None => Ok(()),
            };
        }
        let mut days = 0;
        while days < DAYS && (self.stopped.is_none() || days < 3) {
            days += 1;
            self.live_a_day(days)?;
        }
        self.sites.iter_mut().try_for_each(super::site::Site::look)?;
        if back.is_held && self.stopped.is_none() {
            return Err(format!(
                "R5: {} holds what {} lost behind {}, and no pair stops",
                NAMES[1 - site],
                NAMES[site],
                back.fork
            ));
        }
        self.nothing_new_is_behind_the_old(site, &back)?;
        if self.stopped.is_none() {
            return self.rest();
        }
        self.totals.parted = 1;
        self.rejoin(site, &back.lost)
    }

    fn nothing_new_is_behind_the_old(&self, site: usize, back: &Back) -> Result<(), String> {
        if !back.is_held {
            return Ok(());
        }
        let other = &self.sites[1 - site];
        for one in &other.seen.1 {
            let (origin, lsn) = &one.origin;
            if one.via.is_none() || *lsn <= back.fork {
                continue;
            }
            let lost = back.lost.get(lsn);
            let same = |(ordinal, event): &(u32, super::logged::Told)| {
                lost.and_then(|lost| lost.get(*ordinal as usize)) == Some(event)
            };
            if !one.events.iter().all(same) {
                return Err(format!(
                    "R5: {} holds {origin} {lsn} of the new history behind what it holds of the old one",
                    other.name
                ));
            }
        }
        Ok(())
    }

    /// A pair that stopped, in a world in which it may.
    pub fn note_stopped(&mut self, why: String) {
        self.tell(why.clone());
        self.stopped.get_or_insert(why);
    }

    /// One thing happens that leaves definitions alone.
    pub(super) fn plain_step(&mut self) -> Result<(), String> {
        self.pass(std::time::Duration::from_secs(1));
        let site = self.chance.below(2) as usize;
        match self.chance.below(100) {
            0..=27 => self.commit(site),
            28..=47 => self.receive(site).map(drop),
            48..=60 => self.act(site, Role::Scan, Task::Scan).map(drop),
            61..=76 => self.act(site, Role::Send, Task::Send).map(drop),
            77..=84 => self.turns().map(drop),
            85..=90 => self.end_one(site),
            91..=93 => {
                self.power_cut(site);
                Ok(())
            }
            94..=96 => {
                self.change_weather();
                Ok(())
            }
            97 => {
                self.pass(std::time::Duration::from_secs(100));
                Ok(())
            }
            _ => self.free(site),
        }
    }
}
