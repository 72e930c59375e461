//! A store that was replaced, and whose machine somebody runs all the same: it commits, receives and sends under the name that is another one's by now.
//!
//! Nobody takes anything of it, and whoever it takes messages from gets them again (R1, R3). What it holds itself nobody looks at.

use std::sync::Arc;

use milepost_engine::Durability;
use milepost_replication::link::Link;
use milepost_replication::tracking::PollCause;

use super::fate::Fate;
use super::process::{Habits, Running, Task};
use super::shape::NAMES;
use super::site::{Site, bury, options};
use super::world::World;
use crate::SimRng;
use crate::disk::{Profile, SimDisk};

/// See the module.
pub struct Revenant {
    disk: SimDisk,
    profile: Profile,
    frees: bool,
    habits: Habits,
    rng: SimRng,
}

impl Revenant {
    /// The machine of a site that is given up, as it is. Nobody tells it of keys, or wonders what it does without.
    pub fn of(site: &Site, link: Arc<dyn Link>) -> Revenant {
        Revenant {
            disk: site.disk.clone(),
            profile: site.profile,
            frees: site.frees,
            habits: Habits {
                link,
                ..site.habits.clone()
            },
            rng: site.rng(),
        }
    }
}

impl World {
    /// It runs once, and does all that a site does.
    pub fn run_revenant(&mut self, site: usize, revenant: &Revenant) -> Result<(), String> {
        self.tell(format!("the former {} runs", NAMES[site]));
        self.totals.revenants += 1;
        let Revenant {
            disk,
            profile,
            frees,
            habits,
            rng,
        } = revenant;
        disk.advance(self.sites[site].disk.now().saturating_sub(disk.now()));
        let fate = Arc::new(Fate::new(disk, rng.fork()));
        let mut running = Running::new(disk.directed(Arc::clone(&fate) as _), fate);
        let (transaction, _) = self.pen.draw();
        let tasks = [
            Task::Commit(Box::new(transaction), Durability::Synced),
            Task::Receive(PollCause::Due),
            Task::Scan,
            Task::Sync,
            Task::Send,
            Task::Leave,
        ];
        for task in tasks {
            let (what, rng) = (task.name(), rng.fork());
            let open = |process: &_| options(process, *profile, *frees, &rng).open_in(process.storage());
            if let Err(error) = running.perform(open, habits, task) {
                return Err(format!(
                    "the former {} {what}, and is refused though nothing fails: {error}",
                    NAMES[site]
                ));
            }
        }
        running.process.kill();
        bury(running);
        Ok(())
    }
}
