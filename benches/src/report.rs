//! [`Report`]: the rows of a run, as a table for people or as JSON, one object a line.

use std::path::Path;

use serde::Serialize;

use crate::contest::{Role, Series};
use crate::machine;

/// What the numbers of a group count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Events (or commits) in a second; more is better.
    EventsPerSecond,
    /// Seconds; less is better.
    Seconds,
    /// Bytes of memory; less is better.
    Bytes,
}

impl Unit {
    /// As it stands in a JSON row.
    pub fn name(self) -> &'static str {
        match self {
            Unit::EventsPerSecond => "events/s",
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
        }
    }
}

/// What all systems of some rows did.
#[derive(Clone, Debug)]
pub struct Group {
    /// The step.
    pub step: &'static str,
    /// What was done in it.
    pub case: String,
    /// Threads at work, of all processes together.
    pub threads: u64,
    /// Processes at work.
    pub processes: u64,
    /// Bytes of an event's payload.
    pub payload: usize,
    /// Events of a round.
    pub events: u64,
    /// Bytes of a round, as the log holds them.
    pub bytes: u64,
    /// What is counted.
    pub unit: Unit,
}

impl Group {
    /// One thread of one process, counted in events per second; the rest as given.
    pub fn new(
        step: &'static str,
        case: impl Into<String>,
        payload: usize,
        events: u64,
        bytes: u64,
    ) -> Group {
        Group {
            step,
            case: case.into(),
            threads: 1,
            processes: 1,
            payload,
            events,
            bytes,
            unit: Unit::EventsPerSecond,
        }
    }

    /// With another unit.
    pub fn in_unit(self, unit: Unit) -> Group {
        Group { unit, ..self }
    }

    /// With so many threads in so many processes.
    pub fn with(self, threads: u64, processes: u64) -> Group {
        Group {
            threads,
            processes,
            ..self
        }
    }
}

/// What one system did in one group. Ratios are of speed: 1 is as fast, 2 twice as fast, whatever the unit.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    step: &'static str,
    /// What was done in the step.
    pub case: String,
    /// Who did it.
    pub system: String,
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remotes: Option<u64>,
    threads: u64,
    processes: u64,
    payload: usize,
    unit: &'static str,
    /// The middle round, in `unit`.
    pub median: f64,
    /// The smallest round.
    pub min: f64,
    /// The largest round.
    pub max: f64,
    rounds: usize,
    /// The middle round in seconds, unless it counts bytes.
    pub seconds: Option<f64>,
    /// Events of a round in one of these seconds.
    pub events_per_s: f64,
    bytes_per_s: f64,
    ratio_to_limit: Option<f64>,
    /// Speed, of that of another way of ours.
    pub ratio_to_baseline: Option<f64>,
    ratio_to_best_peer: Option<f64>,
    /// The best round against the best round of the limit: what is left when other work disturbed most rounds.
    best_rounds_to_limit: Option<f64>,
    compared: bool,
    /// Why there are no numbers.
    pub left_out: Option<String>,
    /// What the system is.
    #[serde(skip)]
    pub role: Role,
}

impl Row {
    /// Who did it, for people.
    pub fn name(&self) -> String {
        match self.remotes {
            Some(count) => format!("{}, {count} remotes", self.system),
            None => self.system.clone(),
        }
    }
}

/// Rows, collected.
pub struct Report {
    json: bool,
    about: Vec<String>,
    groups: Vec<(Group, Vec<Row>)>,
}

impl Report {
    /// A report of a run in `folder`.
    pub fn new(json: bool, folder: &Path) -> Report {
        Report {
            json,
            about: machine::about(folder),
            groups: Vec::new(),
        }
    }

    /// Says for the table what a step did.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.about.contains(&text) {
            self.about.push(text);
        }
    }

    /// Lines above the table.
    pub fn about(&self) -> &[String] {
        &self.about
    }

    /// All rows, by group.
    pub fn groups(&self) -> &[(Group, Vec<Row>)] {
        &self.groups
    }

    /// Adds the rows of a group.
    pub fn add(&mut self, group: Group, series: &[Series]) {
        let middle = |role: Role| series.iter().find(|one| one.role == role).and_then(median);
        let (limit, baseline) = (middle(Role::Limit), middle(Role::Baseline));
        let peers = series.iter().filter(|one| one.role == Role::Peer && one.compared);
        // Samples are seconds or bytes: less is better.
        let best = peers.filter_map(median).min_by(f64::total_cmp);
        let best_limit = series
            .iter()
            .find(|one| one.role == Role::Limit)
            .and_then(shortest);
        let rows = series
            .iter()
            .map(|one| Row {
                best_rounds_to_limit: best_limit.zip(shortest(one)).map(|(limit, own)| limit / own),
                ..row(&group, one, limit, baseline, best)
            })
            .collect();
        self.groups.push((group, rows));
    }

    /// Prints all.
    pub fn print(&self) {
        if self.json {
            for row in self.groups.iter().flat_map(|(_, rows)| rows) {
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
        println!("load of the last minute after the run {}", machine::load());
        for (group, rows) in &self.groups {
            print_group(group, rows);
        }
        if self.too_fast() {
            println!(
                "\nnothing is faster than its limit: the machine was busy with other work, measure again"
            );
        }
    }

    fn too_fast(&self) -> bool {
        let mut rows = self.groups.iter().flat_map(|(_, rows)| rows);
        rows.any(|row| row.role == Role::Milepost && row.ratio_to_limit.is_some_and(|ratio| ratio > 1.05))
    }
}

fn row(group: &Group, series: &Series, limit: Option<f64>, baseline: Option<f64>, best: Option<f64>) -> Row {
    let middle = median(series);
    let events = real(group.events);
    let shown = |sample: f64| match group.unit {
        Unit::EventsPerSecond => events / sample.max(f64::MIN_POSITIVE),
        Unit::Seconds | Unit::Bytes => sample,
    };
    let values = series.samples.iter().copied().map(shown);
    let per_s = match (group.unit, middle) {
        (Unit::Bytes, _) | (_, None) => 0.0,
        (Unit::EventsPerSecond, Some(sample)) => shown(sample),
        (Unit::Seconds, Some(sample)) => events / sample.max(f64::MIN_POSITIVE),
    };
    let bytes = match series.role {
        Role::Peer => events * real(u64::try_from(group.payload).unwrap_or(0)),
        _ => real(group.bytes),
    };
    let ratio = |to: Option<f64>| Some(to? / middle?.max(f64::MIN_POSITIVE));
    Row {
        step: group.step,
        case: group.case.clone(),
        system: series.system.clone(),
        version: series.version.clone(),
        remotes: series.remotes,
        threads: group.threads,
        processes: group.processes,
        payload: group.payload,
        unit: group.unit.name(),
        median: middle.map_or(0.0, shown),
        min: values.clone().min_by(f64::total_cmp).unwrap_or(0.0),
        max: values.max_by(f64::total_cmp).unwrap_or(0.0),
        rounds: series.samples.len(),
        seconds: middle.filter(|_| group.unit != Unit::Bytes),
        events_per_s: per_s,
        bytes_per_s: per_s * bytes / events.max(1.0),
        ratio_to_limit: ratio(limit),
        ratio_to_baseline: ratio(baseline),
        ratio_to_best_peer: ratio(best),
        best_rounds_to_limit: None,
        compared: series.compared,
        left_out: series.left_out.clone(),
        role: series.role,
    }
}

fn print_group(group: &Group, rows: &[Row]) {
    println!(
        "\n{}: {}\n  {:<26} {:>12} {:>27} {:>9} {:>9} {:>11} {:>11} {:>9}",
        group.step,
        group.case,
        "",
        "median",
        "min .. max",
        "MB/s",
        "of limit",
        "best rounds",
        "to baseline",
        "best peer"
    );
    for row in rows {
        let version = row.version.as_deref().map(|version| format!(" {version}"));
        let weaker = if row.compared { "" } else { " (not durable)" };
        let name = format!("{}{}{weaker}", row.name(), version.unwrap_or_default());
        if let Some(why) = &row.left_out {
            println!("  {name:<26} left out: {why}");
            continue;
        }
        let times = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x"));
        let part = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{:.1}%", ratio * 100.0));
        println!(
            "  {name:<26} {:>12} {:>27} {:>9} {:>9} {:>11} {:>11} {:>9}",
            shown(group.unit, row.median),
            format!("{} .. {}", shown(group.unit, row.min), shown(group.unit, row.max)),
            if row.bytes_per_s > 0.0 {
                format!("{:.1}", row.bytes_per_s / 1e6)
            } else {
                String::new()
            },
            part(row.ratio_to_limit),
            part(row.best_rounds_to_limit),
            times(row.ratio_to_baseline),
            times(row.ratio_to_best_peer),
        );
    }
}

/// A number with its unit, for people.
pub fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::EventsPerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::EventsPerSecond if value >= 1e3 => format!("{:.2} k/s", value / 1e3),
        Unit::EventsPerSecond => format!("{value:.1} /s"),
        Unit::Seconds if value >= 1.0 => format!("{value:.2} s"),
        Unit::Seconds if value >= 1e-3 => format!("{:.2} ms", value * 1e3),
        Unit::Seconds => format!("{:.1} us", value * 1e6),
        Unit::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
    }
}

/// The middle sample; of two, the worse one.
fn median(series: &Series) -> Option<f64> {
    let mut samples = series.samples.clone();
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// The best round.
fn shortest(series: &Series) -> Option<f64> {
    let best = series.samples.iter().copied().min_by(f64::total_cmp);
    best.map(|sample| sample.max(f64::MIN_POSITIVE))
}

/// A count as a number for rates.
#[expect(clippy::as_conversions, reason = "a rate for people; 52 bits are enough")]
pub fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(system: &str, role: Role, samples: &[f64]) -> Series {
        Series {
            system: system.to_owned(),
            version: None,
            role,
            compared: true,
            samples: samples.to_vec(),
            left_out: None,
            remotes: None,
        }
    }

    fn rows(unit: Unit, all: &[Series]) -> Vec<Row> {
        let mut report = Report::new(true, Path::new("/"));
        report.add(Group::new("scan", "", 8, 100, 1_000).in_unit(unit), all);
        report.groups.remove(0).1
    }

    #[test]
    fn the_ratio_is_the_limits_time_over_ours_and_the_limit_is_one() {
        let all = [
            series("milepost", Role::Milepost, &[9.0, 4.0, 1.0]),
            series("limit", Role::Limit, &[1.0, 2.0, 3.0]),
        ];
        let rows = rows(Unit::EventsPerSecond, &all);
        let ratios: Vec<_> = rows.iter().map(|row| row.ratio_to_limit).collect();
        assert_eq!(ratios, [Some(0.5), Some(1.0)]);
        assert_eq!(
            (rows[0].median, rows[0].min, rows[0].max),
            (25.0, 100.0 / 9.0, 100.0)
        );
        assert_eq!(rows[0].best_rounds_to_limit, Some(1.0));
        assert_eq!(rows[0].events_per_s, 25.0);
        assert_eq!(rows[1].bytes_per_s, 500.0);
    }

    #[test]
    fn the_best_peer_is_the_fastest_one_that_took_part() {
        let weaker = Series {
            compared: false,
            ..series("not durable", Role::Peer, &[0.5])
        };
        let all = [
            series("milepost", Role::Milepost, &[1.0]),
            weaker,
            series("slow", Role::Peer, &[8.0]),
            series("fast", Role::Peer, &[2.0]),
            Series::left_out("none", None, "it has no such call".to_owned()),
        ];
        let rows = rows(Unit::EventsPerSecond, &all);
        let ratios: Vec<_> = rows.iter().map(|row| row.ratio_to_best_peer).collect();
        assert_eq!(ratios, [Some(2.0), Some(4.0), Some(0.25), Some(1.0), None]);
        assert_eq!(rows[0].ratio_to_limit, None);
        assert_eq!(rows[2].bytes_per_s, 100.0, "a peer was given payloads alone");
    }

    #[test]
    fn of_times_the_shorter_one_has_the_larger_ratio() {
        let all = [
            series("milepost", Role::Milepost, &[0.1]),
            series("limit", Role::Limit, &[0.05]),
        ];
        let rows = rows(Unit::Seconds, &all);
        assert_eq!((rows[0].median, rows[0].ratio_to_limit), (0.1, Some(0.5)));
    }
}
