//! [`Findings`]: how a log differs from what a witness was told, counted by kind.

use super::worker::Digest;

/// Differences that are told in words; the rest is counted.
const MOST_TOLD: usize = 10;

/// How a log may differ from what was submitted and acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Acknowledged, and not there, or not where it was acknowledged.
    Lost,
    /// There, and refused or never submitted.
    Phantom,
    /// There twice.
    Doubled,
    /// Other bytes than submitted, out of order, or not to be read in one of the ways to read it.
    Torn,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Of the workers' transactions that are there.
    pub digest: Digest,
    /// Acknowledged transactions that are there, once and where they were acknowledged.
    pub verified: u64,
    /// Number of [`Difference::Lost`].
    pub lost: u64,
    /// Number of [`Difference::Phantom`].
    pub phantom: u64,
    /// Number of [`Difference::Doubled`].
    pub doubled: u64,
    /// Number of [`Difference::Torn`].
    pub torn: u64,
    /// The first differences in words.
    pub told: Vec<String>,
}

impl Findings {
    /// Takes a difference.
    pub fn note(&mut self, difference: Difference, text: String) {
        match difference {
            Difference::Lost => self.lost += 1,
            Difference::Phantom => self.phantom += 1,
            Difference::Doubled => self.doubled += 1,
            Difference::Torn => self.torn += 1,
        }
        if self.told.len() < MOST_TOLD {
            self.told.push(text);
        }
    }

    /// True when the log is what it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.told.is_empty()
    }
}
