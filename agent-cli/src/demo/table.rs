//! The demo's result: one row a site, from the stores' contents.

use milepost_engine::Result;
use milepost_engine::width::to_u64;
use serde::Serialize;

use super::compare::{Delivery, Verdict, arrivals, compare, deliveries};
use super::sites::{BRANCHES, OFFICE, Sites};
use crate::failure::Outcome;
use crate::output::Out;

/// A site's row. All but `failovers` is read from the stores; that one from the agents' logs, because a
/// failover leaves no trace in a store.
#[derive(Serialize)]
pub struct Row {
    site: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
    failovers: u64,
    events_per_s: u64,
    longest_gap_ms: u64,
}

impl Row {
    /// True when all that was due is there, whole, once and in order.
    pub fn is_good(&self) -> bool {
        self.verdict.is_good()
    }
}

/// Compares all sites' contents; `failovers` of a site's agents by its name.
///
/// # Errors
/// `Corrupt` for damage in a log.
pub fn rows(sites: &Sites, failovers: impl Fn(&str) -> u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (number, (name, branch)) in BRANCHES.into_iter().zip(&sites.branches).enumerate() {
        let due = deliveries(&sites.office, |stream| sites.is_due(number, stream))?;
        let arrived = arrivals(branch, sites.office.id())?;
        rows.push(row(name, compare(&due, &arrived), arrived, failovers(name)));
    }
    let (mut verdict, mut all) = (Verdict::default(), Vec::new());
    for branch in &sites.branches {
        let due = deliveries(branch, |stream| sites.is_due_to_office(stream))?;
        let arrived = arrivals(&sites.office, branch.id())?;
        verdict = verdict.and(compare(&due, &arrived));
        all.extend(arrived);
    }
    rows.push(row(OFFICE, verdict, all, failovers(OFFICE)));
    Ok(rows)
}

fn row(site: &'static str, verdict: Verdict, mut arrived: Vec<Delivery>, failovers: u64) -> Row {
    arrived.sort_by_key(|delivery| delivery.time);
    let events = to_u64(arrived.iter().map(|delivery| delivery.events.len()).sum());
    let gaps = arrived.windows(2).map(|pair| match pair {
        [before, after] => after.time.saturating_sub(before.time),
        _ => 0,
    });
    let longest = gaps.max().unwrap_or(0);
    let whole = match (arrived.first(), arrived.last()) {
        (Some(first), Some(last)) => last.time.saturating_sub(first.time),
        _ => 0,
    };
    let micros = u64::try_from(whole).unwrap_or(0);
    Row {
        site,
        verdict,
        failovers,
        events_per_s: events.saturating_mul(1_000_000).checked_div(micros).unwrap_or(0),
        longest_gap_ms: u64::try_from(longest).unwrap_or(0) / 1_000,
    }
}

/// Prints the rows.
///
/// # Errors
/// Exit 1 when standard output takes no more.
pub fn print(rows: &[Row], json: bool) -> Outcome {
    let mut out = Out::new();
    if json {
        for row in rows {
            out.json(row)?;
        }
        return out.flush();
    }
    out.line(format_args!(
        "{:<6} {:>8} {:>8} {:>8} {:>10} {:>5} {:>12} {:>9} {:>9} {:>14}",
        "site",
        "due",
        "received",
        "missing",
        "duplicated",
        "torn",
        "out of order",
        "failovers",
        "events/s",
        "longest gap ms"
    ))?;
    for row in rows {
        out.line(format_args!(
            "{:<6} {:>8} {:>8} {:>8} {:>10} {:>5} {:>12} {:>9} {:>9} {:>14}",
            row.site,
            row.verdict.due,
            row.verdict.received,
            row.verdict.missing,
            row.verdict.duplicated,
            row.verdict.torn,
            row.verdict.out_of_order,
            row.failovers,
            // All at one moment is no rate.
            match row.events_per_s {
                0 => "-".to_owned(),
                rate => rate.to_string(),
            },
            row.longest_gap_ms
        ))?;
    }
    out.flush()
}
