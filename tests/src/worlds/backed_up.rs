//! Sites that send and confirm only what their last backup holds (`-u`): they are lost at any time, restored from it, and nobody notices.

use std::sync::Arc;

use milepost_replication::backup::back_up_in;

use super::Totals;
use super::going_back::{Copy, Kept};
use super::shape::NAMES;
use super::trace::Trace;
use super::world::{Kind, World};
use crate::disk::SimDisk;

/// Lives one seed of a pair of which one site, or both, send only what is backed up.
///
/// # Errors
/// What is wrong.
pub(super) fn live(seed: u64, trace: &Trace) -> Result<Totals, String> {
    let mut world = World::new(seed, trace, Kind::BackedUp)?;
    let both = world.chance.percent(40);
    let first = world.chance.below(2) as usize;
    let mut backups: [Option<Kept>; 2] = [None, None];
    for site in (0..2).filter(|site| both || *site == first) {
        trace.tell(format!("{} sends only what is backed up", NAMES[site]));
        world.sites[site].habits.only_backed_up = true;
        backups[site] = Some(world.back_up(site)?);
    }
    let mut restored = [false; 2];
    for _ in 0..30 + world.chance.below(60) {
        world.plain_step()?;
        let site = world.chance.below(2) as usize;
        let Some(kept) = backups[site].take() else {
            continue;
        };
        backups[site] = Some(match world.chance.below(100) {
            0..=17 => world.back_up(site)?,
            18..=23 => {
                world.lose(site, kept, restored[site])?;
                restored[site] = true;
                world.totals.restored += 1;
                world.back_up(site)?
            }
            _ => kept,
        });
    }
    world.come_to_rest()?;
    Ok(world.totals())
}

impl World {
    fn back_up(&mut self, site: usize) -> Result<Kept, String> {
        let told = |error: milepost_engine::Error| format!("a site cannot be backed up: {error}");
        let store = self.sites[site].desk().map_err(told)?;
        store.sync().map_err(told)?;
        self.sites[site].look()?;
        let kept = self.kept(site, |world| {
            let disk = SimDisk::like(world.sites[site].profile, world.chance.below(u64::MAX));
            let process = disk.start();
            back_up_in(&store, process.storage(), &mut |_, _| ())?;
            process.kill();
            Ok(Copy::Backup(disk))
        });
        let kept = kept.map_err(told)?;
        drop(store);
        self.maybe_leave_desk(site);
        self.tell(format!("{} is backed up, up to {}", NAMES[site], kept.through()));
        Ok(kept)
    }

    /// What is sent and confirmed in the end is backed up.
    pub fn back_up_all(&mut self) -> Result<(), String> {
        for site in 0..self.sites.len() {
            if self.sites[site].habits.only_backed_up {
                self.back_up(site)?;
            }
        }
        Ok(())
    }

    fn lose(&mut self, site: usize, kept: Kept, again: bool) -> Result<(), String> {
        if again {
            // Messages of several lineages could be on the link, or in a receive process, which nobody can tell apart.
            self.wire.lose_from(NAMES[site]);
            self.sites[1 - site].kill_all();
        }
        let lost = self.put_back(site, kept)?;
        self.tell(format!(
            "{} is lost, and restored from its last backup without {} commits",
            NAMES[site],
            lost.len()
        ));
        Ok(())
    }

    /// Where a site's copy is put back: a machine of its own.
    pub fn restored(&self, site: usize, backup: &SimDisk) -> milepost_engine::Result<SimDisk> {
        let disk = SimDisk::like(self.sites[site].profile, self.chance.below(u64::MAX));
        let (from, to) = (backup.start(), disk.start());
        let rng = Arc::new(self.sites[site].rng());
        let options = self.sites[site].options(&to).rng(rng);
        options.restore_in(from.storage(), to.storage(), &mut |_, _| ())?;
        to.kill();
        Ok(disk)
    }
}
