//! [`Report`]: the rows of a run, as a table for people or as JSON, one object a line.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::machine;

/// What one system did in one step.
#[derive(Debug, Serialize)]
pub struct Row {
    step: &'static str,
    system: &'static str,
    threads: u64,
    payload: usize,
    events_per_s: f64,
    bytes_per_s: f64,
    ratio_to_limit: f64,
}

/// What was done in every round of a step, and how long it took the system and the limit.
#[derive(Debug)]
pub struct Measured {
    /// The step.
    pub step: &'static str,
    /// Threads at work.
    pub threads: u64,
    /// Bytes of an event's payload.
    pub payload: usize,
    /// Events of a round.
    pub events: u64,
    /// Bytes of a round, as the log holds them.
    pub bytes: u64,
    /// Each round of Milepost.
    pub milepost: Vec<Duration>,
    /// Each round of the limit.
    pub limit: Vec<Duration>,
}

/// Rows, collected.
pub struct Report {
    json: bool,
    about: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    /// A report of a run in `folder`.
    pub fn new(json: bool, folder: &Path) -> Report {
        Report {
            json,
            about: machine::about(folder),
            rows: Vec::new(),
        }
    }

    /// Says for the table what a step did.
    pub fn note(&mut self, text: String) {
        self.about.push(text);
    }

    /// Adds the two rows of a step.
    pub fn add(&mut self, mut measured: Measured) {
        let (system, limit) = (median(&mut measured.milepost), median(&mut measured.limit));
        for (name, took) in [("milepost", system), ("limit", limit)] {
            let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
            self.rows.push(Row {
                step: measured.step,
                system: name,
                threads: measured.threads,
                payload: measured.payload,
                events_per_s: real(measured.events) / seconds,
                bytes_per_s: real(measured.bytes) / seconds,
                ratio_to_limit: limit.as_secs_f64() / seconds,
            });
        }
    }

    /// Prints all.
    pub fn print(&self) {
        if self.json {
            for row in &self.rows {
                match serde_json::to_string(row) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("milepost-benches: a row cannot be printed: {error}"),
                }
            }
            return;
        }
        for line in &self.about {
            println!("{line}");
        }
        println!(
            "\n{:<10} {:<9} {:>7} {:>7} {:>14} {:>10} {:>9}",
            "step", "system", "threads", "payload", "events/s", "MB/s", "of limit"
        );
        for row in &self.rows {
            println!(
                "{:<10} {:<9} {:>7} {:>7} {:>14.0} {:>10.1} {:>8.1}%",
                row.step,
                row.system,
                row.threads,
                row.payload,
                row.events_per_s,
                row.bytes_per_s / 1e6,
                row.ratio_to_limit * 100.0
            );
        }
        if self.rows.iter().any(|row| row.ratio_to_limit > 1.05) {
            println!(
                "\nnothing is faster than its limit: the machine was busy with other work, measure again"
            );
        }
    }
}

/// The middle round; of two, the slower one.
fn median(rounds: &mut [Duration]) -> Duration {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::as_conversions, reason = "a rate for people; 52 bits are enough")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_limits_time_over_ours_and_the_limit_is_one() {
        let mut report = Report::new(true, Path::new("/"));
        let seconds = |all: &[u64]| all.iter().map(|s| Duration::from_secs(*s)).collect();
        report.add(Measured {
            step: "scan",
            threads: 1,
            payload: 8,
            events: 100,
            bytes: 1_000,
            milepost: seconds(&[9, 4, 1]),
            limit: seconds(&[1, 2, 3]),
        });
        let ratios: Vec<f64> = report.rows.iter().map(|row| row.ratio_to_limit).collect();
        assert_eq!(ratios, [0.5, 1.0]);
        assert_eq!(report.rows[0].events_per_s, 25.0);
        assert_eq!(report.rows[1].bytes_per_s, 500.0);
    }
}
