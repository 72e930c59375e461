//! [`Site`]: one store on one volume, through its cuts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::{Options, Store};

use super::check;
use super::crowd::Crowd;
use super::report::Report;
use super::settings::Settings;
use crate::SimRng;
use crate::processes::{Difference, Findings, Tag, Witness};
use crate::volume::{FsKind, Missing, Volume};

/// Size of the file systems: 512 MiB, of which a store of some cuts takes a small part; xfs asks for 300.
const VOLUME_BYTES: u64 = 512 << 20;
/// The smallest segments there are, so that rolls are frequent.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Power is lost within so many microseconds after the first acknowledgement,
const WORK_MICROS: u64 = 60_000;
/// or within so many after the start: while the processes open, recover and join.
const START_MICROS: u64 = 20_000;
/// Number of the author of the commits made after a check.
const CHECKER: u64 = 200;

/// A store on a volume, and what is known of it.
pub(super) struct Site<'a> {
    settings: &'a Settings,
    volume: Volume,
    rng: SimRng,
    witness: Witness,
    incarnation: u64,
    /// Acknowledged by this process, after checks.
    own: u64,
}

impl Site<'_> {
    /// Makes a file system and a store in it, durably.
    pub(super) fn make(kind: FsKind, settings: &Settings, rng: SimRng) -> Result<Site<'_>, Missing> {
        let site = Site {
            settings,
            volume: Volume::make(kind, VOLUME_BYTES)?,
            rng,
            witness: Witness::default(),
            incarnation: 0,
            own: 0,
        };
        let options = Options::new().segment_bytes(SEGMENT_BYTES);
        drop(options.init(site.store(), "bern".parse().unwrap()).unwrap());
        Ok(site)
    }

    fn store(&self) -> PathBuf {
        self.volume.path().join("store")
    }

    /// Transactions acknowledged by the workers.
    pub(super) fn acknowledged(&self) -> u64 {
        self.witness.acknowledged() - self.own
    }

    /// Lets processes work, and cuts the power at a random moment.
    pub(super) fn cut(&mut self) {
        self.incarnation += 1;
        let store = self.store().to_str().unwrap().to_owned();
        let (program, bug) = (&self.settings.worker, self.settings.plant.as_deref());
        let crowd = Crowd::start(program, &store, self.incarnation, bug, &self.rng);
        let micros = if self.rng.chance(3, 4) {
            crowd.wait_for_work(&mut self.witness);
            self.rng.below(WORK_MICROS)
        } else {
            self.rng.below(START_MICROS)
        };
        SystemClock.sleep(Duration::from_micros(micros));
        crowd.stop();
        self.volume.power_cut();
        crowd.kill(&mut self.witness);
        self.volume.unmount();
        self.volume.mount();
    }

    /// True after some cuts: the next processes, and not the check, are the first to open the store.
    pub(super) fn leaves_unverified(&self) -> bool {
        self.rng.chance(1, 4)
    }

    /// Opens the store, compares it with all that the witness heard, and commits on.
    pub(super) fn verify(&mut self) -> Findings {
        let store = match Options::new().open(self.store()) {
            Ok(store) => store,
            Err(error) => {
                let mut findings = Findings::default();
                findings.note(Difference::Torn, format!("the store cannot be opened: {error}"));
                return findings;
            }
        };
        let mut findings = match self.witness.conclude(&store) {
            Ok(findings) => findings,
            Err(error) => {
                let mut findings = Findings::default();
                findings.note(Difference::Torn, format!("E3: the log cannot be read: {error}"));
                return findings;
            }
        };
        findings.verified = findings.verified.saturating_sub(self.own);
        check::again(&store, findings.digest, &mut findings);
        check::streams(&store, self.rng.word(), &mut findings);
        check::queue(&store, &mut findings);
        if findings.is_clean() {
            self.commit_on(&store, &mut findings);
        }
        findings
    }

    /// Segments of the log.
    pub(super) fn segments(&self) -> u64 {
        let entries = std::fs::read_dir(self.store().join("log")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let segments = names.filter(|name| name.to_string_lossy().ends_with(".log"));
        segments.count() as u64
    }

    fn commit_on(&mut self, store: &Store, findings: &mut Findings) {
        let tag = Tag::first(CHECKER, self.incarnation, self.own & 0xff);
        self.witness.hear(&format!("submit {tag}"));
        let committed = store
            .commit(tag.transaction())
            .and_then(|outcome| outcome.committed());
        match committed {
            Ok(committed) => {
                self.own += 1;
                self.witness.hear(&format!("ack {tag} {}", committed.lsn));
            }
            Err(error) => findings.note(Difference::Torn, format!("nothing can be committed on: {error}")),
        }
    }

    /// Keeps the store for whoever looks for the reason.
    pub(super) fn keep_copy(&self, report: &mut Report) {
        let name = format!("milepost-powercut-{}-{}", self.settings.seed, report.cuts);
        let copy = std::env::temp_dir().join(name);
        if self.settings.plant.is_none() {
            let copied = Command::new("cp")
                .arg("-a")
                .args([self.store(), copy.clone()])
                .status();
            report.kept = copied.is_ok_and(|status| status.success()).then_some(copy);
        }
    }
}
