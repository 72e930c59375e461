//! [`Report`]: the counts of a run, and its last line.

use std::fmt;
use std::path::PathBuf;

use crate::processes::Findings;
use crate::volume::{FsKind, Missing};

/// What a run did and found.
#[derive(Debug, Default)]
pub struct Report {
    /// Power cuts.
    pub cuts: u64,
    /// Stores, each on a file system of its own.
    pub stores: u64,
    /// Segments of their logs.
    pub segments: u64,
    /// Times that a store was opened after a cut and compared with what the witness heard.
    pub checks: u64,
    /// Transactions acknowledged on stores that are done with, and on the present one.
    acknowledged: (u64, u64),
    /// Acknowledged transactions found by the last check of each store.
    verified: (u64, u64),
    /// Numbers of what must not be: lost, phantom, doubled, torn.
    wrong: [u64; 4],
    /// The first of them in words.
    pub told: Vec<String>,
    /// Where a copy of the store lies that shows them.
    pub kept: Option<PathBuf>,
    /// File systems that cannot be had here.
    pub left_out: Vec<(FsKind, Missing)>,
}

impl Report {
    /// Transactions acknowledged by writers, on all stores.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.0 + self.acknowledged.1
    }

    /// True when something was found that must not be.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !self.told.is_empty()
    }

    /// Lost transactions: acknowledged, and not where they were acknowledged.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.wrong[0]
    }

    pub(super) fn live(&mut self, acknowledged: u64) {
        self.acknowledged.1 = acknowledged;
    }

    /// The store is done with.
    pub(super) fn close(&mut self, acknowledged: u64, segments: u64) {
        self.segments += segments;
        self.acknowledged = (self.acknowledged.0 + acknowledged, 0);
        self.verified = (self.verified.0 + self.verified.1, 0);
    }

    pub(super) fn found(&mut self, kind: FsKind, findings: Findings) {
        self.checks += 1;
        self.verified.1 = findings.verified;
        let numbers = [findings.lost, findings.phantom, findings.doubled, findings.torn];
        for (sum, number) in self.wrong.iter_mut().zip(numbers) {
            *sum += number;
        }
        let (cut, name) = (self.cuts, kind.name());
        let told = findings.told.into_iter();
        self.told
            .extend(told.map(|text| format!("cut {cut}, {name}: {text}")));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lost, phantom, doubled, torn] = self.wrong;
        write!(
            f,
            "{} power cuts on {} stores of {} segments, {} checks; transactions: {} acknowledged, {} verified, {lost} lost, {phantom} \
             phantom, {doubled} doubled, {torn} torn",
            self.cuts,
            self.stores,
            self.segments,
            self.checks,
            self.acknowledged(),
            self.verified.0 + self.verified.1,
        )
    }
}
