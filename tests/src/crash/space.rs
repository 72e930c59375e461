//! [`Housekeeper`]: a process of the run takes holds and moves them, changes what is kept, scans into the queue, frees,
//! compresses, moves segments to an archive and back, and tells the witness.

use std::path::PathBuf;
use std::sync::Mutex;

use milepost_engine::{Error, ErrorKind, Hold, Lsn, Retention, Store};

use crate::SimRng;
use crate::disk::SimProcess;

use super::model::{Fate, Model};
use super::queue;

/// Where the archive of every run lies.
const ARCHIVE: &str = "/archive";
/// What a run that keeps its newest bytes may change that to.
const AMOUNTS: [u64; 4] = [1, 5_000, 60_000, 400_000];

/// What differs from seed to seed of how a log is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceHabits {
    /// Deeds of 16 that are of this kind.
    pub often: u64,
    /// How the store is made.
    pub retention: Retention,
    /// Most bytes that its log may take; 0 is no limit.
    pub limit: u64,
    /// Whether there is a scan phase.
    pub scans: bool,
}

/// Why a deed was not done.
pub enum Trouble {
    /// The store said so.
    Failed(&'static str, Error),
    /// The store broke its word.
    Broken(String),
}

pub(super) type Deed<T = ()> = Result<T, Trouble>;

/// One process at such work.
pub struct Housekeeper<'a> {
    /// Its store.
    pub store: &'a Store,
    /// The process.
    pub process: &'a SimProcess,
    /// What is known.
    pub model: &'a Mutex<Model>,
    /// Where it draws from.
    pub rng: &'a SimRng,
    /// What it does.
    pub habits: &'a SpaceHabits,
    /// Its number among the actors; number 0 alone changes the settings.
    pub number: usize,
}

pub(super) fn failed(doing: &'static str) -> impl Fn(Error) -> Trouble {
    move |error| Trouble::Failed(doing, error)
}

impl Housekeeper<'_> {
    /// Does one thing.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn work(&self) -> Deed {
        match self.rng.below(20) {
            0..=1 => self.roll(3),
            2..=6 => self.free(),
            7..=8 => self.hold(),
            9 => self.let_go(),
            10 => self.retain(),
            11..=14 if self.habits.scans => queue::enqueue(self),
            11..=12 => self.free(),
            13..=15 => self.compress(),
            16..=18 => self.archive(),
            _ => self.bring_back(),
        }
    }

    /// Seals up to so many segments, the first ones with something in them.
    fn roll(&self, most: u64) -> Deed {
        for _ in 0..self.rng.below(most + 1) {
            self.store.rotate(0).map_err(failed("rotate"))?;
            self.store.append_marker().map_err(failed("append_marker"))?;
        }
        Ok(())
    }

    /// True while what the store says reaches the witness.
    pub(super) fn is_heard(&self) -> bool {
        self.process.is_alive()
    }

    /// Tells the witness, which may find that this cannot be.
    pub(super) fn tell(&self, tell: impl FnOnce(&mut Model) -> Result<(), String>) -> Deed {
        if self.is_heard() {
            tell(&mut self.model.lock().unwrap()).map_err(Trouble::Broken)?;
        }
        Ok(())
    }

    fn free(&self) -> Deed {
        self.roll(1)?;
        let freed = self.store.free().map_err(failed("free"))?;
        let known = self.model.lock().unwrap().kept.begins();
        let oldest = self.store.oldest().map_err(failed("oldest"))?;
        // Behind what was freed: both only move on.
        let marks = self.store.watermarks();
        self.tell(|model| {
            model.kept.done.freed += freed;
            model.kept.see(known, oldest, marks.durable, marks.scanned)
        })
    }

    /// Takes its hold, or moves it on or back.
    fn hold(&self) -> Deed {
        let lsn = match self.rng.below(6) {
            0 => self.store.oldest().map_err(failed("oldest"))?,
            1 => self.seen(),
            _ => self.store.watermarks().durable,
        };
        let name = self.name();
        self.tell(|model| {
            model.kept.may_hold(&name, Some(lsn));
            Ok(())
        })?;
        match self.store.hold(&name, &Hold::new("test", "an actor", lsn)) {
            Ok(()) => self.tell(|model| {
                model.kept.holds(&name, Some(lsn));
                Ok(())
            }),
            Err(error) if error.kind() == ErrorKind::Behind => {
                let oldest = self.store.oldest().map_err(failed("oldest"))?;
                self.tell(|_| match lsn < oldest {
                    true => Ok(()),
                    false => Err(format!(
                        "the log begins at {oldest}, and {lsn} is behind: {error:?}"
                    )),
                })
            }
            Err(error) => Err(Trouble::Failed("hold", error)),
        }
    }

    /// A position that somebody was told of.
    fn seen(&self) -> Lsn {
        let model = self.model.lock().unwrap();
        let told = model.known.iter().filter_map(|known| match known.fate {
            Fate::Durable(lsn) => Some(lsn),
            _ => None,
        });
        let told: Vec<u64> = told.collect();
        Lsn(told.get(self.rng.index(told.len())).copied().unwrap_or(0))
    }

    fn name(&self) -> String {
        format!("actor-{}", self.number)
    }

    fn let_go(&self) -> Deed {
        let name = self.name();
        self.tell(|model| {
            model.kept.may_hold(&name, None);
            Ok(())
        })?;
        self.store.drop_hold(&name).map_err(failed("drop_hold"))?;
        self.tell(|model| {
            model.kept.holds(&name, None);
            Ok(())
        })
    }

    /// Keeps more or less from now on; or says what is done by who tends the store.
    fn retain(&self) -> Deed {
        let amount = Retention::Bytes(*self.rng.pick(&AMOUNTS));
        if self.number != 0 || !matches!(self.habits.retention, Retention::Bytes(_)) || self.rng.chance(1, 3)
        {
            let compress = self.rng.chance(1, 2);
            let changed = self.store.change_space(|space| space.compress = compress);
            return changed.map(drop).map_err(failed("change_space"));
        }
        self.tell(|model| {
            model.kept.may_retain(amount);
            Ok(())
        })?;
        let changed = self.store.change_space(|space| space.retention = amount);
        changed.map_err(failed("change_space"))?;
        let oldest = self.store.oldest().map_err(failed("oldest"))?;
        self.tell(|model| {
            model.kept.retains(amount, oldest);
            Ok(())
        })
    }

    fn compress(&self) -> Deed {
        if self.rng.chance(1, 4) {
            let taken_out = self.store.decompress(&mut |_, _| ());
            return taken_out.map(drop).map_err(failed("decompress"));
        }
        self.roll(2)?;
        let compressed = self.store.compress(&mut |_, _| ()).map_err(failed("compress"))?;
        self.tell(|model| {
            model.kept.done.packed += compressed.segments.len() as u64;
            Ok(())
        })
    }

    fn archive(&self) -> Deed {
        self.roll(2)?;
        let set = self.store.set_archive_as(PathBuf::from(ARCHIVE));
        set.map_err(failed("set_archive"))?;
        let archived = self.store.archive(&mut |_, _| ()).map_err(failed("archive"))?;
        self.tell(|model| {
            model.kept.done.away += archived.segments.len() as u64;
            Ok(())
        })
    }

    fn bring_back(&self) -> Deed {
        let back = self
            .store
            .bring_back(&mut |_, _| ())
            .map_err(failed("bring_back"))?;
        self.tell(|model| {
            model.kept.done.back += back.segments.len() as u64;
            Ok(())
        })
    }
}
