//! [`Inode`]: one simulated file, as the page cache has it and as the disk may have it.
//!
//! ```text
//! cache   what every process reads and writes
//! disk    what is surely there after power loss
//! dirty   sectors written since they were last durable, with every older generation of each
//! lens    lengths the file had since its length was last durable
//! ```
//!
//! Power loss picks, for each dirty sector by itself, what the disk has or any generation written since,
//! and one of the lengths; where there is a journal, the lengths that it holds survive in order, and one that a write
//! gave only with the bytes up to it. On some devices what is in flight turns into garbage. A failed write-back marks sectors clean without writing all of them: the
//! cache goes on showing bytes that the disk does not have and that no later sync will write.

use std::collections::BTreeMap;

use crate::SimRng;

use super::pages::{PAGE, Pages, SECTOR, SECTORS, is_zero};
use super::profile::{Profile, spoil, spoilt};

/// Un-synced sectors of one page.
#[derive(Clone, Default)]
struct DirtyPage {
    /// Bit n: sector n was written.
    sectors: u8,
    /// Generations between the disk's and the cache's: (sector, bytes), oldest first.
    older: Vec<(u8, Box<[u8; SECTOR]>)>,
}

/// A length that is not durable yet.
#[derive(Clone, Copy)]
struct Len {
    len: u64,
    /// Its number in the journal; `None` when a write gave it, which gets there with its bytes.
    number: Option<u64>,
}

/// A file.
#[derive(Clone, Default)]
pub struct Inode {
    cache: Pages,
    len: u64,
    disk: Pages,
    disk_len: u64,
    dirty: BTreeMap<usize, DirtyPage>,
    lens: Vec<Len>,
    /// Number of the change that made the file.
    made: u64,
    /// Number of the change by which it replaced another file, un-synced.
    pub replaced: Option<u64>,
    /// Pages in which a clean sector differs from the disk, after a failed write-back.
    lost: Vec<usize>,
    /// Number of failed write-backs; a handle that has seen fewer is told at its next sync.
    pub errors: u64,
}

impl Inode {
    /// A new file, made by a change of this number.
    pub fn new(made: u64) -> Inode {
        Inode {
            made,
            ..Inode::default()
        }
    }

    /// Length as processes see it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when all that was written is durable.
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.lens.is_empty()
    }

    /// True when power loss changes nothing.
    pub fn is_settled(&self) -> bool {
        self.is_clean() && self.lost.is_empty() && self.errors == 0
    }

    /// Reads up to the end of the file; returns how much.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = (buffer.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        self.cache.read(&mut buffer[..count], offset as usize);
        count
    }

    /// Writes, growing the file when needed.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let count = (PAGE - at % PAGE).min(bytes.len() - done);
            self.write_page(at / PAGE, at % PAGE, &bytes[done..done + count]);
            done += count;
        }
        self.grow(offset + bytes.len() as u64, None);
    }

    fn write_page(&mut self, number: usize, inside: usize, bytes: &[u8]) {
        let untouched = !self.dirty.contains_key(&number);
        let nothing_there = self.cache.page(number).is_none() && self.disk.page(number).is_none();
        if untouched && nothing_there && is_zero(bytes) {
            return;
        }
        let page = self.dirty.entry(number).or_default();
        for sector in inside / SECTOR..=(inside + bytes.len() - 1) / SECTOR {
            if page.sectors & (1 << sector) != 0 {
                page.older
                    .push((sector as u8, Box::new(self.cache.sector(number, sector))));
            }
            page.sectors |= 1 << sector;
        }
        self.cache.write_page(number, inside, bytes);
    }

    /// Makes the file at least `len` long, by a change of this number or by a write.
    pub fn grow(&mut self, len: u64, number: Option<u64>) {
        if len > self.len {
            self.len = len;
            self.lens.push(Len { len, number });
        }
    }

    /// Makes the file exactly `len` long.
    pub fn set_len(&mut self, len: u64, number: u64) {
        if len < self.len {
            // What is cut off may still be on the disk when the cut itself is lost.
            for number in len as usize / PAGE..self.cache.count().min((self.len as usize).div_ceil(PAGE)) {
                let start = (len as usize).saturating_sub(number * PAGE).min(PAGE);
                if start < PAGE {
                    self.write_page(number, start, &[0; PAGE][start..]);
                }
            }
            self.len = len;
            let number = Some(number);
            self.lens.push(Len { len, number });
        }
        self.grow(len, Some(number));
    }

    /// How far the journal, whose last change is `last`, has to be on disk for a sync of this file.
    pub fn needs(&self, last: u64) -> u64 {
        let lens = self.lens.iter().map(|len| len.number.unwrap_or(last));
        lens.max().unwrap_or(0).max(self.made)
    }

    /// The journal is on disk up to a number.
    pub fn commit(&mut self, number: u64) {
        let committed = |len: &Len| len.number.is_some_and(|own| own <= number);
        if let Some(last) = self.lens.iter().rposition(committed) {
            self.disk_len = self.lens[last].len;
            self.lens.drain(..=last);
            self.disk.truncate(self.disk_len as usize);
        }
    }

    /// Makes contents and length durable.
    pub fn sync(&mut self) {
        for (number, page) in std::mem::take(&mut self.dirty) {
            if page.sectors == u8::MAX {
                self.lost.retain(|lost| *lost != number);
            }
            if self.lost.contains(&number) {
                for sector in sectors(page.sectors) {
                    let bytes = self.cache.sector(number, sector);
                    self.disk.write_page(number, sector * SECTOR, &bytes);
                }
            } else {
                self.disk.share_page(number, &self.cache);
            }
        }
        if !self.lens.is_empty() {
            self.disk_len = self.len;
            self.lens.clear();
            self.disk.truncate(self.disk_len as usize);
        }
    }

    /// A write-back that fails: some sectors reach the disk, all are marked clean, and the error waits
    /// for every handle that is open now.
    pub fn fail_writeback(&mut self, rng: &SimRng) {
        let choice = Survival::draw(rng);
        for (number, page) in std::mem::take(&mut self.dirty) {
            for sector in sectors(page.sectors) {
                self.survive(number, sector, &page, &choice, rng);
            }
            if !self.lost.contains(&number) {
                self.lost.push(number);
            }
        }
        self.errors += 1;
    }

    /// Drops clean pages that differ from the disk from the cache, as memory pressure may.
    pub fn evict(&mut self) {
        for number in std::mem::take(&mut self.lost) {
            if self.dirty.contains_key(&number) {
                self.lost.push(number);
            } else {
                self.cache.share_page(number, &self.disk);
            }
        }
    }

    /// The file after power loss, with the journal on disk up to the number `journal`.
    #[must_use]
    pub fn crash(&self, profile: Profile, journal: u64, rng: &SimRng) -> Inode {
        let mut after = Inode {
            disk: self.disk.clone(),
            disk_len: self.disk_len,
            ..Inode::default()
        };
        let choice = Survival::draw(rng);
        let whole = if profile.is_journalled() {
            self.length_in_order(&mut after, profile, journal, &choice, rng)
        } else {
            if !self.lens.is_empty() && rng.chance(choice.keep, 8) {
                after.disk_len = match rng.chance(1, 2) {
                    true => self.len,
                    false => rng.pick(&self.lens).len,
                };
            }
            0..0
        };
        for (number, page) in &self.dirty {
            for sector in sectors(page.sectors) {
                let end = (number * PAGE + (sector + 1) * SECTOR) as u64;
                let keep = if end > whole.start && end < whole.end + SECTOR as u64 {
                    8
                } else {
                    choice.keep
                };
                let choice = Survival { keep, ..choice };
                after.survive_from(&self.cache, *number, sector, page, &choice, rng);
            }
        }
        if profile.garbage().is_some() {
            self.interrupt(&mut after, profile, rng);
        }
        after.disk.truncate(after.disk_len as usize);
        after.len = after.disk_len;
        after.cache = after.disk.clone();
        after
    }

    /// The length as a journal leaves it, and the range whose bytes are there with it.
    fn length_in_order(
        &self,
        after: &mut Inode,
        profile: Profile,
        journal: u64,
        choice: &Survival,
        rng: &SimRng,
    ) -> std::ops::Range<u64> {
        after.lens.clone_from(&self.lens);
        after.commit(journal);
        let written: Vec<Len> = std::mem::take(&mut after.lens)
            .into_iter()
            .take_while(|len| len.number.is_none())
            .collect();
        if profile.replaces_whole() && self.replaced.is_some_and(|number| number <= journal) {
            after.disk_len = self.len;
            return 0..self.len;
        }
        let before = after.disk_len;
        if !written.is_empty() && rng.chance(choice.keep, 8) {
            after.disk_len = rng.pick(&written).len;
        }
        before..after.disk_len.max(before)
    }

    /// Power is lost while sectors are being written.
    fn interrupt(&self, after: &mut Inode, profile: Profile, rng: &SimRng) {
        let odds = *rng.pick(&[0, 1, 4]);
        for (number, page) in self.dirty.iter().filter(|_| rng.chance(odds, 4)) {
            for sector in spoilt(profile.in_flight(page.sectors), 1 + odds, rng) {
                let mut bytes = after.disk.sector(*number, sector);
                spoil(&mut bytes, rng);
                after.disk.write_page(*number, sector * SECTOR, &bytes);
            }
        }
    }

    fn survive(&mut self, number: usize, sector: usize, page: &DirtyPage, choice: &Survival, rng: &SimRng) {
        let cache = self.cache.clone();
        self.survive_from(&cache, number, sector, page, choice, rng);
    }

    /// Lets one dirty sector reach the disk, or an older generation of it, or none.
    fn survive_from(
        &mut self,
        cache: &Pages,
        number: usize,
        sector: usize,
        page: &DirtyPage,
        choice: &Survival,
        rng: &SimRng,
    ) {
        if !rng.chance(choice.keep, 8) {
            return;
        }
        let older: Vec<_> = page
            .older
            .iter()
            .filter(|(of, _)| usize::from(*of) == sector)
            .collect();
        let bytes = match !older.is_empty() && rng.chance(choice.old, 8) {
            true => *rng.pick(&older).1,
            false => cache.sector(number, sector),
        };
        self.disk.write_page(number, sector * SECTOR, &bytes);
    }
}

/// How much of one file survives; drawn once a file, so that whole files lost or kept are as likely as
/// a mixture.
#[derive(Clone, Copy)]
struct Survival {
    /// Of eight sectors, how many are not as the disk had them.
    keep: u64,
    /// Of eight of those with several generations, how many are not the newest.
    old: u64,
}

impl Survival {
    fn draw(rng: &SimRng) -> Survival {
        Survival {
            keep: *rng.pick(&[0, 1, 4, 7, 8]),
            old: *rng.pick(&[0, 4, 8]),
        }
    }
}

fn sectors(mask: u8) -> impl Iterator<Item = usize> {
    (0..SECTORS).filter(move |sector| mask & (1 << sector) != 0)
}
