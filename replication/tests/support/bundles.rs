//! Two sites that share nothing but what somebody carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_replication::bundle::{
    ExportOptions, ImportOptions, Imported, Made, Outcome, RemoteBundles, bundles, export, import,
};
use milepost_replication::catalog::{NewRemote, OnError, Schedule, Start};

use super::*;

/// A text that does not compress.
pub fn noise(number: u64, len: u64) -> String {
    let mut dice = Dice(number + 1);
    let letter = |_| char::from(b'!' + dice.up_to(90) as u8);
    format!("{number}-{}", (0..len).map(letter).collect::<String>())
}

/// Time as it is, and what a test lets pass beside: carrying takes days, and a site asks again only after a while.
#[derive(Default)]
pub struct Time(AtomicU64);

impl Time {
    pub fn pass(&self) {
        self.0.fetch_add(86_400_000_000, Ordering::SeqCst);
    }
}

impl Clock for Time {
    fn wall_micros(&self) -> i64 {
        SystemClock.wall_micros() + self.0.load(Ordering::SeqCst) as i64
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + Duration::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, pause: Duration) {
        SystemClock.sleep(pause);
    }
}

pub struct Pair {
    pub time: Arc<Time>,
    pub dir: tempfile::TempDir,
    pub hq: Site,
    pub island: Site,
}

pub fn carried_remote(site: &Site, remote: &str) {
    let new = NewRemote {
        site: name(remote),
        links: vec!["bundle:".to_owned()],
        schedule: Schedule::None,
        consolidated: false,
        on_error: OnError::Stop,
        limits: Default::default(),
    };
    site.definitions().add_remote(new, false).unwrap();
}

impl Pair {
    pub fn new() -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::default();
        let time = Arc::new(Time::default());
        let site = |own: &str| {
            let mut site = Site::new(dir.path(), own, &net);
            let options = options().clock(Arc::clone(&time) as Arc<dyn Clock>);
            site.store = options.open(&site.root).unwrap();
            site
        };
        let (hq, island) = (site("hq"), site("island"));
        for (one, other) in [(&hq, "island"), (&island, "hq")] {
            carried_remote(one, other);
            one.publish("all", "**", None);
            one.subscribe(other, "all", None, Start::Now);
        }
        fs::create_dir(dir.path().join("stick")).unwrap();
        Pair {
            time,
            dir,
            hq,
            island,
        }
    }

    pub fn stick(&self) -> PathBuf {
        self.dir.path().join("stick")
    }

    pub fn to_island(&self) -> Option<Made> {
        made(&self.hq, "island", &self.stick())
    }

    pub fn to_hq(&self) -> Option<Made> {
        made(&self.island, "hq", &self.stick())
    }
}

pub fn exporting(to: &Path) -> ExportOptions {
    ExportOptions {
        to: to.to_owned(),
        again: false,
        most_bytes: None,
        message_bytes: 10_000,
        only_backed_up: false,
    }
}

pub fn made_with(site: &Site, remote: &str, options: &ExportOptions) -> Option<Made> {
    match export(&site.store, &name(remote), options).unwrap() {
        Outcome::Made(made) => Some(*made),
        Outcome::NothingDue => None,
        Outcome::Stopped(reason) | Outcome::Suspended(reason) => panic!("stopped: {reason}"),
    }
}

pub fn made(site: &Site, remote: &str, to: &Path) -> Option<Made> {
    made_with(site, remote, &exporting(to))
}

pub fn importing(from: &Path) -> ImportOptions {
    ImportOptions {
        from: from.to_owned(),
        remove: false,
        group: 20,
        memory: 1 << 20,
    }
}

pub fn taken(site: &Site, from: &Path) -> Imported {
    import(&site.store, &importing(from)).unwrap()
}

pub fn known(site: &Site) -> RemoteBundles {
    bundles(&site.store).unwrap().remove(0)
}

/// A small generator: one seed is one story.
pub struct Dice(pub u64);

impl Dice {
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}
