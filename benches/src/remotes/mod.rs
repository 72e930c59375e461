//! Remotes: one scan and send round of an agent for 10, 1,000 and 10,000 remotes, each subscribed to one value, over the
//! same events. A stream is named by its transaction's number modulo each count (`at/7/407/6407`), and the remotes of a
//! count choose by that segment: every transaction is due to exactly one remote, however many there are. Baseline: the
//! fewest remotes.
//!
//! The link takes every message and forgets it ([`round`]), so that scan, posting list, packing and encoding are
//! measured, and no disk or network that would cost more for more messages. Every round is a fresh process on a fresh
//! copy of the store. Its second round has nothing to send, and asks everybody what it has: a probe, whose record is
//! synced, for each remote.

pub mod round;
mod site;

use std::path::PathBuf;

use crate::contest::{Role, Series};
use crate::report::{Group, Report, Unit, real};
use crate::worker::Workers;
use crate::workload::{Workload, timed};
use crate::{Outcome, Run};
use round::Told;

const STEP: &str = "remotes";
/// How many remotes, ascending.
const COUNTS: [u64; 3] = [10, 1_000, 10_000];
/// The same in a quick run.
const QUICK: [u64; 3] = [2, 5, 20];

/// Measures a round by the number of remotes.
///
/// # Errors
/// What the agent or the engine says, and when not everything was sent to everybody.
pub fn run(run: &Run, report: &mut Report) -> Outcome<()> {
    let counts = counts(run);
    let events = run.events(2_000, 1_000_000);
    let workload = &Workload::new(events, run.payload.unwrap_or(128), run.batch.unwrap_or(10));
    let mut bytes = 0;
    for count in counts.iter().copied() {
        let (made, took) = timed(|| site::make(&prepared(run, count), workload, (&counts, count)));
        bytes = made?;
        report.note(format!(
            "{STEP}: a store with {count} remotes was made in {:.1} s, before what is measured",
            took.as_secs_f64()
        ));
    }
    let mut told = vec![Vec::new(); counts.len()];
    for _ in 0..run.rounds {
        for (told, count) in told.iter_mut().zip(&counts) {
            told.push(one_round(run, *count, workload)?);
        }
    }
    report.note(format!(
        "{STEP}: {} events in transactions of {}; -b -i -s in one process, over a link that takes every message and \
         forgets it; the queue is kept, because nobody confirms",
        workload.events, workload.batch
    ));
    let group = |case: &str| Group::new(STEP, case, workload.payload, workload.events, bytes);
    let rows = |measure: fn(&Told) -> f64| series(&counts, &told, measure);
    let first = group("the first round: all events are scanned, packed and sent");
    report.add(first, &rows(|told| told.first_s));
    let cpu = group("the first round, by the processor's time of its process");
    report.add(cpu, &rows(|told| told.cpu_s));
    let idle = group("the next round: nobody has confirmed, so everybody is asked").in_unit(Unit::Seconds);
    report.add(idle, &rows(|told| told.idle_s));
    let own = group("memory beyond mapped pages, at most").in_unit(Unit::Bytes);
    report.add(own, &rows(|told| real(told.own_bytes)));
    let all = group("memory with mapped pages (VmHWM)").in_unit(Unit::Bytes);
    report.add(all, &rows(|told| real(told.most_bytes)));
    crate::clear(&run.folder)
}

/// How many remotes, ascending.
fn counts(run: &Run) -> Vec<u64> {
    let usual = if run.quick { QUICK } else { COUNTS };
    let mut counts = match run.remotes.is_empty() {
        true => usual.to_vec(),
        false => run.remotes.iter().map(|count| (*count).max(1)).collect(),
    };
    counts.sort_unstable();
    counts.dedup();
    counts
}

fn prepared(run: &Run, count: u64) -> PathBuf {
    run.path(&format!("prepared-{count}"))
}

/// A round of a fresh process, which must send everything to everybody.
fn one_round(run: &Run, count: u64, workload: &Workload) -> Outcome<Told> {
    let dir = run.path("round");
    site::copy(&prepared(run, count), &dir)?;
    let words = || vec![STEP.to_owned(), dir.display().to_string()];
    let mut workers = Workers::start(1, words)?;
    let said = workers.go()?;
    workers.finish()?;
    std::fs::remove_dir_all(&dir)?;
    let told: Told = said.concat().parse()?;
    let all = (count, workload.events.div_ceil(workload.batch));
    if (told.remotes, told.transactions) != all {
        let Told {
            remotes,
            transactions,
            ..
        } = told;
        return Err(
            format!("{transactions} transactions went to {remotes} remotes, instead of {all:?}").into(),
        );
    }
    Ok(told)
}

fn series(counts: &[u64], told: &[Vec<Told>], measure: fn(&Told) -> f64) -> Vec<Series> {
    let of = |(count, told): (&u64, &Vec<Told>)| {
        let samples = told.iter().map(measure).collect();
        Series::milepost(samples).with_remotes(*count)
    };
    let mut all: Vec<Series> = counts.iter().zip(told).map(of).collect();
    if let Some(fewest) = all.first_mut() {
        fewest.role = Role::Baseline;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_with_the_fewest_remotes_and_say_how_many_there_are() {
        let told = |first_s| Told {
            first_s,
            ..Told::default()
        };
        let told = [vec![told(1.0)], vec![told(2.0)], vec![told(4.0)]];
        let mut report = Report::new(true, &std::env::temp_dir());
        let group = Group::new(STEP, "", 128, 8, 0);
        report.add(group, &series(&COUNTS, &told, |told| told.first_s));
        let (_, rows) = &report.groups()[0];
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row.name(), row.seconds, row.events_per_s, row.ratio_to_baseline))
            .collect();
        let row = |name: &str, seconds, per_s, ratio| (name.to_owned(), Some(seconds), per_s, Some(ratio));
        assert_eq!(
            rows,
            [
                row("milepost, 10 remotes", 1.0, 8.0, 1.0),
                row("milepost, 1000 remotes", 2.0, 4.0, 0.5),
                row("milepost, 10000 remotes", 4.0, 2.0, 0.25),
            ]
        );
    }
}
