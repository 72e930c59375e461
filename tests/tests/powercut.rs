//! Power cuts on real file systems: some cuts find nothing, and bugs that are planted in the writers are found,
//! so that nothing found means something. Needs root and loop devices, else it is SKIPPED aloud.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use milepost_tests::powercut::{Report, Settings, run};

/// Cuts that a planted bug may survive.
const MOST_CUTS: u64 = 60;

/// Cuts power; `None` where it cannot be done.
fn cut(cuts: u64, plant: Option<&str>) -> Option<Report> {
    let worker = PathBuf::from(env!("CARGO_BIN_EXE_store_worker"));
    let settings = Settings {
        cuts,
        plant: plant.map(str::to_owned),
        ..Settings::new(worker)
    };
    match run(&settings, &AtomicBool::new(false), |_| {}) {
        Ok(report) => {
            println!("{report}");
            Some(report)
        }
        Err(missing) => {
            missing.say("powercut");
            None
        }
    }
}

#[test]
fn what_was_acknowledged_survives_the_power_cut() {
    let Some(report) = cut(10, None) else { return };
    assert!(!report.is_bad(), "{:?}", report.told);
    assert_eq!(report.cuts, 10);
    assert!(report.acknowledged() > 0);
}

#[test]
fn a_sync_that_is_skipped_is_found() {
    let Some(report) = cut(MOST_CUTS, Some("SkipSync")) else {
        return;
    };
    assert!(report.is_bad(), "{report}");
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    let Some(report) = cut(MOST_CUTS, Some("AcknowledgeBeforeSync")) else {
        return;
    };
    assert!(report.lost() > 0, "{report}: {:?}", report.told);
}
