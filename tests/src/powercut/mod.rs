//! Power cuts on real file systems (E1, E2, S1, S2, S3, Q1).
//!
//! ```text
//! volume ─ store ─► writers, a watcher, the scan phase ─► all stopped ─► file system shut down ─► killed
//!    ▲                                                                                              │
//!    └──── next cut, on the same store ◄── verified, committed on ◄── opened ◄── mounted again ◄────┘
//! ```
//!
//! All processes are stopped before the file system is: a sync that the shutdown overtook would have been told
//! as failed, and a stopped process is told nothing. What the kernel has not written by then is lost, and the
//! file system's own journal is what it was on the disk.
//!
//! [`run`] takes [`Settings`] and gives a [`Report`].

mod check;
mod crowd;
mod report;
mod settings;
mod site;

pub use report::Report;
pub use settings::Settings;

use std::sync::atomic::{AtomicBool, Ordering};

use milepost_engine::clock::{Clock, SystemClock};

use crate::SimRng;
use crate::volume::{FsKind, Missing};
use site::Site;

/// Cuts on one store before another is made on a new file system.
const CUTS_OF_A_STORE: u64 = 25;

/// Cuts power until there were enough cuts, the time is over, something was found or `stop` is true. A kind of
/// file system that cannot be had here is left out, and told in the report; `tell` sees each cut.
///
/// # Errors
/// What is missing, when no kind of file system can be had.
///
/// # Panics
/// When a process ends by itself, or the kernel refuses what it did before.
pub fn run(settings: &Settings, stop: &AtomicBool, mut tell: impl FnMut(&Report)) -> Result<Report, Missing> {
    let (rng, started) = (SimRng::new(settings.seed), SystemClock.monotonic());
    let over = |report: &Report| {
        let late = settings
            .limit
            .is_some_and(|limit| SystemClock.monotonic() - started > limit);
        report.cuts >= settings.cuts || late || report.is_bad() || stop.load(Ordering::Relaxed)
    };
    let mut report = Report::default();
    let mut kinds: Vec<FsKind> = settings.kinds.clone();
    while !over(&report) {
        let Some(kind) = kinds.first().copied() else {
            let reasons: Vec<String> = report
                .left_out
                .iter()
                .map(|(kind, why)| format!("{}: {why}", kind.name()))
                .collect();
            return Err(Missing(reasons.join("; ")));
        };
        let mut site = match Site::make(kind, settings, rng.fork()) {
            Ok(site) => site,
            Err(missing) => {
                kinds.remove(0);
                report.left_out.push((kind, missing));
                continue;
            }
        };
        kinds.rotate_left(1);
        report.stores += 1;
        for _ in 0..CUTS_OF_A_STORE {
            if over(&report) {
                break;
            }
            site.cut();
            report.cuts += 1;
            report.live(site.acknowledged());
            tell(&report);
            if !site.leaves_unverified() {
                report.found(kind, site.verify());
            }
            if report.is_bad() {
                site.keep_copy(&mut report);
                break;
            }
        }
        if !report.is_bad() {
            report.found(kind, site.verify());
        }
        report.close(site.acknowledged(), site.segments());
    }
    Ok(report)
}
