//! The history that head office imports: generated from a seed, or the user's own file.
//!
//! Both are lines `{"events":[{"path":…},…]}`, one transaction each. Generated ones have the shape of
//! real change histories: most transactions hold a few events, some hundreds (at most 350); a few first
//! segments have most events, and within each a few streams.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;

use crate::commands::import::Lines;
use crate::failure::{Failure, Outcome};

/// Largest generated transaction.
const LARGEST: u64 = 350;

const AREAS: [&str; 12] = [
    "orders",
    "stock",
    "prices",
    "customers",
    "deliveries",
    "returns",
    "invoices",
    "payments",
    "articles",
    "suppliers",
    "promotions",
    "tills",
];

/// Writes a history of at least `events` events to `path`.
///
/// # Errors
/// Exit 1 when the file cannot be written.
pub fn generate(path: &Path, seed: u64, events: u64) -> Outcome {
    let failed = |error: std::io::Error| Failure::file("write", path, &error);
    let mut out = BufWriter::new(File::create_new(path).map_err(failed)?);
    let mut random = Random(seed);
    let mut written = 0;
    let mut number = 0u64;
    while written < events {
        let size = transaction_size(&mut random).min(events - written);
        write!(out, "{{\"number\":{number},\"events\":[").map_err(failed)?;
        for at in 0..size {
            let comma = if at > 0 { "," } else { "" };
            let area = AREAS
                .get(skewed(&mut random, AREAS.len()))
                .copied()
                .unwrap_or_default();
            let (item, amount, word) = (skewed(&mut random, 4_096), random.below(1_000), random.next());
            write!(
                out,
                "{comma}{{\"path\":\"{area}/{item}\",\"amount\":{amount},\"reference\":\"{word:016x}\"}}"
            )
            .map_err(failed)?;
        }
        out.write_all(b"]}\n").map_err(failed)?;
        written += size;
        number += 1;
    }
    out.flush().map_err(failed)
}

/// Which events a history has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Lines with events.
    pub transactions: u64,
    /// Events.
    pub events: u64,
    /// Events by first segment of their stream.
    pub segments: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Line {
    events: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    path: String,
}

/// Reads a history once to learn its first segments.
///
/// # Errors
/// Exit 1 naming file, line and reason.
pub fn survey(path: &Path) -> Outcome<Contents> {
    let file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
    let mut lines = Lines::new(
        BufReader::with_capacity(256 << 10, file),
        path.display().to_string(),
    );
    let mut contents = Contents::default();
    while lines.advance()? {
        if lines.is_blank() {
            continue;
        }
        let line: Line =
            serde_json::from_str(lines.text()?).map_err(|error| lines.refuse(&error.to_string()))?;
        contents.transactions += u64::from(!line.events.is_empty());
        for event in line.events {
            let first = event.path.split('/').next().unwrap_or_default();
            contents.events += 1;
            match contents.segments.get_mut(first) {
                Some(count) => *count += 1,
                None => drop(contents.segments.insert(first.to_owned(), 1)),
            }
        }
    }
    Ok(contents)
}

/// Gives every segment to one of `branches` branches: the largest first, each to the branch with the
/// fewest events so far. The same history is always shared out alike.
pub fn share_out(contents: &Contents, branches: usize) -> BTreeMap<String, usize> {
    let mut by_size: Vec<(&String, u64)> = contents
        .segments
        .iter()
        .map(|(name, count)| (name, *count))
        .collect();
    by_size.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), (*name).clone()));
    let mut loads: Vec<(u64, usize)> = (0..branches).map(|branch| (0, branch)).collect();
    let mut shares = BTreeMap::new();
    for (name, count) in by_size {
        if let Some(least) = loads.iter_mut().min() {
            least.0 += count;
            shares.insert(name.clone(), least.1);
        }
    }
    shares
}

/// Events that fall to each branch.
pub fn loads(contents: &Contents, shares: &BTreeMap<String, usize>, branches: usize) -> Vec<u64> {
    let mut loads = vec![0; branches];
    for (name, branch) in shares {
        if let (Some(load), Some(count)) = (loads.get_mut(*branch), contents.segments.get(name)) {
            *load += count;
        }
    }
    loads
}

fn transaction_size(random: &mut Random) -> u64 {
    // Each doubling of the size is half as likely, so the mean stays near six.
    match random.next().trailing_zeros() {
        scale @ 0..8 => 1 + random.below(2 << scale),
        _ => 1 + random.below(LARGEST),
    }
}

/// A number below `count`, small ones far more often: one of two draws halves the range again and again.
fn skewed(random: &mut Random, count: usize) -> usize {
    let wide = milepost_engine::width::to_u64(count);
    let range = (wide >> random.next().trailing_zeros().min(6)).max(1);
    milepost_engine::width::to_usize(random.below(range))
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a seed gives
/// the same history on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_history_of_the_size_asked_for_with_a_skew() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        generate(&a, 7, 20_000).unwrap();
        generate(&b, 7, 20_000).unwrap();
        generate(&c, 8, 20_000).unwrap();
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
        assert!(std::fs::read(&a).unwrap() != std::fs::read(&c).unwrap());
        let contents = survey(&a).unwrap();
        assert_eq!(contents.events, 20_000);
        assert!(
            (2_000..6_000).contains(&contents.transactions),
            "{}",
            contents.transactions
        );
        let largest = contents.segments.values().max().unwrap();
        assert!(largest > &(5 * contents.segments.values().min().unwrap()));
    }

    #[test]
    fn every_segment_has_a_branch_and_every_branch_a_fair_share() {
        let dir = tempfile::tempdir().unwrap();
        generate(&dir.path().join("h"), 1, 20_000).unwrap();
        let contents = survey(&dir.path().join("h")).unwrap();
        let shares = share_out(&contents, 3);
        assert_eq!(shares.len(), contents.segments.len());
        let loads = loads(&contents, &shares, 3);
        assert_eq!(loads.iter().sum::<u64>(), 20_000);
        assert!(loads.iter().all(|load| *load > 2_000), "{loads:?}");
    }
}
