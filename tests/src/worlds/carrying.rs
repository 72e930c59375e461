//! A pair that shares nothing but what somebody carries: bundles, made and taken by programs that die like any other, on a stick that loses, repeats,
//! delays and damages them.

use std::fs;
use std::path::{Path, PathBuf};

use milepost_replication::bundle::{Bundle, Carried, WHOLE};
use tempfile::TempDir;

use super::chance::Chance;
use super::process::Task;
use super::shape::{NAMES, Role};
use super::world::{Kind, World};

/// Address of a link that is carried.
pub const BUNDLE: &str = "bundle:";
/// Bundles that lie about, at most.
const MOST: usize = 12;

/// See the module.
pub struct Carrying {
    chance: Chance,
    pub sites: [usize; 2],
    dir: TempDir,
    /// Who made them, and where they are.
    made: Vec<(usize, PathBuf)>,
    count: u64,
}

impl Carrying {
    pub fn draw(seed: u64, kind: Kind, pairs: &[(usize, usize)]) -> Option<Carrying> {
        let chance = Chance::new(seed ^ 0xb0bb_0000_0000);
        if !chance.percent(20) || kind != Kind::Whole {
            return None;
        }
        let (one, other) = chance.pick(pairs);
        Some(Carrying {
            sites: [one, other],
            dir: folder(),
            made: Vec::new(),
            count: 0,
            chance,
        })
    }

    fn other(&self, site: usize) -> usize {
        self.sites[usize::from(self.sites[0] == site)]
    }

    /// Where a site's bundles are made.
    fn folder_of(&self, site: usize) -> PathBuf {
        let folder = self.dir.path().join(NAMES[site]);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What a site has made since it was looked at, each of another name from now on.
    fn new_bundles(&mut self, site: usize) -> Vec<PathBuf> {
        let mut found = whole_in(&self.folder_of(site));
        for path in &mut found {
            self.count += 1;
            let kept = self.dir.path().join(format!("{:06}{WHOLE}", self.count));
            fs::rename(&*path, &kept).unwrap();
            *path = kept;
        }
        found
    }

    /// A folder with what is taken to a site this time.
    fn choose(&mut self, site: usize, is_calm: bool) -> (PathBuf, usize) {
        let folder = self.dir.path().join("stick");
        fs::create_dir(&folder).unwrap();
        let from = self.other(site);
        let mut chosen = 0;
        for (number, (_, path)) in self.made.iter().filter(|(by, _)| *by == from).enumerate() {
            if !is_calm && !self.chance.percent(60) {
                continue;
            }
            let mut bytes = fs::read(path).unwrap();
            if !is_calm && self.chance.percent(8) {
                let at = self.chance.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.chance.below(8);
            }
            fs::write(folder.join(format!("{number:04}{WHOLE}")), bytes).unwrap();
            chosen += 1;
        }
        (folder, chosen)
    }

    /// Some of what was made for a site is lost, or wiped once it was there; in the end all of it.
    fn wipe(&mut self, site: usize, percent: u64) {
        let from = self.other(site);
        let chance = &self.chance;
        let goes = |(by, _): &(usize, PathBuf)| *by == from && chance.percent(percent);
        let (gone, left) = std::mem::take(&mut self.made).into_iter().partition(goes);
        self.made = left;
        let gone: Vec<(usize, PathBuf)> = gone;
        gone.iter().for_each(|(_, path)| fs::remove_file(path).unwrap());
    }
}

/// A folder for bundles, in memory where there is a place for that: it is their sites' disks that are simulated.
fn folder() -> TempDir {
    let in_memory = TempDir::new_in("/dev/shm");
    in_memory.or_else(|_| TempDir::new()).unwrap()
}

/// The bundles of a folder, by name.
fn whole_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let is_whole = |name: &str| name.ends_with(WHOLE) && !name.starts_with('.');
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_whole))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

impl World {
    /// Now and then somebody makes a bundle, or comes with some.
    pub fn maybe_carry(&mut self) -> Result<(), String> {
        let Some(carrying) = &self.carrying else {
            return Ok(());
        };
        let site = carrying.chance.pick(&carrying.sites);
        match carrying.chance.below(100) {
            0..=11 => self.export(site).map(drop),
            12..=25 => self.import(site).map(drop),
            _ => Ok(()),
        }
    }

    /// Whoever makes a bundle ends a send phase, and lets go of what nobody needs: any act may free it then.
    pub fn hold_for_judge(&mut self) -> Result<(), String> {
        for site in self.carried.into_iter().flatten() {
            self.sites[site].is_held_for_judge = true;
            self.sites[site].look()?;
        }
        Ok(())
    }

    /// Both sites make bundles, and all are taken; how many transactions were received.
    pub fn carry_all(&mut self) -> Result<u64, String> {
        let Some(sites) = self.carried else {
            return Ok(0);
        };
        let mut received = 0;
        for site in sites {
            self.export(site)?;
            let other = sites[usize::from(sites[0] == site)];
            received += self.import(other)?;
        }
        Ok(received)
    }

    fn export(&mut self, site: usize) -> Result<(), String> {
        let Some(mut carrying) = self.carrying.take() else {
            return Ok(());
        };
        let other = carrying.other(site);
        let done = self.export_to(site, other, &carrying);
        for path in carrying.new_bundles(site) {
            self.note_bundle(site, other, &path);
            carrying.made.push((site, path));
            if carrying.made.len() > MOST {
                let (_, oldest) = carrying.made.remove(0);
                fs::remove_file(oldest).unwrap();
            }
        }
        self.carrying = Some(carrying);
        done
    }

    fn export_to(&mut self, site: usize, other: usize, carrying: &Carrying) -> Result<(), String> {
        let edge = self.edge_of(site, other)?;
        if self.is_unsettled(edge) || self.edges[edge].making().is_none() {
            return Ok(());
        }
        // It scans by itself, and would wait for who has the phase and does nothing.
        self.act(site, Role::Scan, Task::Leave)?;
        // The smallest stick holds the largest message.
        let small = Some(self.sites[site].habits.message_bytes + 10_000);
        let most = carrying.chance.pick(&[None, None, small]);
        let task = Task::Export {
            remote: NAMES[other],
            to: carrying.folder_of(site),
            again: carrying.chance.percent(10) && !self.is_calm,
            most,
        };
        self.act(site, Role::Send, task).map(drop)
    }

    /// What is in a bundle has been sent.
    fn note_bundle(&mut self, site: usize, other: usize, path: &Path) {
        let bundle = Bundle::open(path).unwrap();
        self.tell(format!(
            "a bundle of {} for {}: {} messages",
            NAMES[site],
            NAMES[other],
            bundle.messages().count()
        ));
        self.totals.bundles += 1;
        let indexes: Vec<u32> = bundle.messages().map(|(index, _)| index).collect();
        for index in indexes {
            if let Carried::Whole(bytes) = bundle.read(index).unwrap() {
                self.wire.note(NAMES[site], NAMES[other], &bytes);
            }
        }
    }

    fn import(&mut self, site: usize) -> Result<u64, String> {
        if self.sites[site].is_absent {
            return Ok(0);
        }
        let Some(mut carrying) = self.carrying.take() else {
            return Ok(0);
        };
        let (folder, chosen) = carrying.choose(site, self.is_calm);
        let done = match chosen {
            0 => Ok(0),
            _ => self.act(site, Role::Receive, Task::Import(folder.clone())),
        };
        fs::remove_dir_all(&folder).unwrap();
        carrying.wipe(site, if self.is_calm { 100 } else { 30 });
        self.carrying = Some(carrying);
        done
    }
}
