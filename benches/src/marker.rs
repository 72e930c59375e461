//! Marker: how long until a marker that one process appends is known to be scanned, while another process scans: append,
//! sync, scan, wake. Limit: one bare fdatasync of as many bytes.
//!
//! An agent that sends waits for this before each batch round.

use std::time::Duration;

use milepost_engine::Options;
use milepost_replication::scan::ScanPhase;

use crate::contest::Contest;
use crate::limits::RawFile;
use crate::report::{Group, Report, Unit};
use crate::worker::Workers;
use crate::workload::timed;
use crate::{Outcome, Run};

const STEP: &str = "marker";
/// What a marker takes of the log: a block with a frame.
const BYTES: usize = 256;
/// Longest wait for a marker.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the scanning process waits for more between two looks whether to leave.
const LOOK: Duration = Duration::from_millis(100);

/// Measures the way of a marker.
///
/// # Errors
/// What the engine or the system says.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let markers = run.events(20, 2_000);
    let dir = run.path("hq");
    let store = Options::new().init(&dir, "hq".parse()?)?;
    let words = || vec!["scan".to_owned(), dir.display().to_string()];
    let mut workers = Workers::start(1, words)?;
    workers.go()?;
    let mut raw = RawFile::zero_filled(&run.path("raw"), BYTES * usize::try_from(markers)?)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..markers {
        let (seen, took) = timed(|| store.wait_scanned(store.append_marker()?, PATIENCE));
        if !seen? {
            return Err("the scan did not pass the marker".into());
        }
        ours.push(took);
        let (written, took) = timed(|| raw.append(&[1; BYTES]));
        written?;
        bare.push(took);
    }
    workers.kill()?;
    store.close()?;
    report.note(format!(
        "{STEP}: {markers} markers one after another, in turns with bare writes of {BYTES} bytes; another process scans"
    ));
    for (case, part) in [("median", 2), ("one in twenty takes longer", 20)] {
        let mut contest = Contest::new();
        contest.milepost(|| slower_than(&mut ours, part));
        contest.limit(|| slower_than(&mut bare, part));
        let case = format!("append, scanned, seen; {case}");
        let group = Group::new(STEP, case, 0, 1, 0).in_unit(Unit::Seconds).with(1, 2);
        report.add(group, &contest.run(1)?);
    }
    crate::clear(&run.folder)
}

/// The one of the times that a `part` of them exceeds.
fn slower_than(times: &mut [Duration], part: usize) -> Outcome<Duration> {
    times.sort_unstable();
    let at = times.len() - times.len() / part;
    let found = times.get(at.min(times.len().saturating_sub(1)));
    Ok(*found.ok_or("nothing was measured")?)
}

/// What the worker does: scans until it is killed.
///
/// # Errors
/// What the engine says.
pub fn scan(dir: &std::path::Path, begin: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let store = Options::new().open(dir)?;
    let mut phase = ScanPhase::open(&store)?;
    begin()?;
    crate::worker::say("done")?;
    loop {
        if phase.step()?.frames == 0 {
            phase.wait(LOOK)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_twenty_times_one_is_longer_and_half_are_as_long_as_the_median() {
        let mut times: Vec<_> = (1..=20).rev().map(Duration::from_secs).collect();
        assert_eq!(slower_than(&mut times, 2).unwrap(), Duration::from_secs(11));
        assert_eq!(slower_than(&mut times, 20).unwrap(), Duration::from_secs(20));
        assert!(slower_than(&mut [], 2).is_err());
    }
}
