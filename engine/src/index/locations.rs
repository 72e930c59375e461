//! [`Locations`]: where the events of one stream lie, oldest first.

use crate::{Error, Lsn, Result, StreamVersion};

use super::lookup::Index;
use super::place::{Location, Posting};
use super::sealed::List;

/// How many postings are taken out of a sidecar at once.
const BATCH: u64 = 512;

/// Iterator over the places of a stream's events; a snapshot of the moment it was asked for.
pub struct Locations {
    pub(super) index: Index,
    pub(super) list: List,
    pub(super) hash: u64,
    pub(super) stream: Box<str>,
    /// Runs not begun, newest first.
    pub(super) runs: Vec<Run>,
    /// Postings of `segment` that are next, and the version of the first.
    pub(super) batch: std::vec::IntoIter<Posting>,
    pub(super) segment: Lsn,
    pub(super) version: u64,
    /// First LSN of the segment that was active: all before it is durable, because it was sealed (S2).
    pub(super) active: Lsn,
}

/// Events of the stream in one segment.
pub(super) struct Run {
    pub(super) from: RunSource,
    /// Version of the first event that is due.
    pub(super) version: u64,
}

pub(super) enum RunSource {
    /// Postings `next..count` of the segment with this number in the list.
    Sealed { number: usize, next: u64, count: u64 },
    /// Copied out of the active segment, which begins at `segment`.
    Copied { segment: Lsn, postings: Vec<Posting> },
}

impl Locations {
    /// Fills the batch from the oldest run; false when nothing is left.
    fn refill(&mut self) -> Result<bool> {
        let Some(mut run) = self.runs.pop() else {
            return Ok(false);
        };
        self.version = run.version;
        match &mut run.from {
            RunSource::Copied { segment, postings } => {
                self.segment = *segment;
                self.batch = std::mem::take(postings).into_iter();
            }
            RunSource::Sealed { number, next, count } => {
                let until = count.min(&mut next.saturating_add(BATCH)).to_owned();
                let taken =
                    self.index
                        .postings(&self.list, *number, self.hash, &self.stream, *next..until)?;
                self.segment = self.list.get(*number).map_or(self.segment, |sealed| sealed.first);
                self.batch = taken.into_iter();
                run.version += until - *next;
                *next = until;
                if *next < *count {
                    self.runs.push(run);
                }
            }
        }
        Ok(true)
    }

    fn step(&mut self) -> Result<Option<Location>> {
        loop {
            if let Some(posting) = self.batch.next() {
                let location = posting.locate(self.segment, self.version);
                self.version += 1;
                let bad =
                    || Error::corrupt("an index entry lies beyond a frame's length").at_lsn(self.segment);
                return location.ok_or_else(bad).map(Some);
            }
            if !self.refill()? {
                return Ok(None);
            }
        }
    }

    /// Everything before this LSN was durable when the places were asked for, whatever `below` said.
    pub(crate) fn sealed_end(&self) -> Lsn {
        self.active
    }

    /// Version of the event that is next, if there is one.
    #[must_use]
    pub fn next_version(&self) -> StreamVersion {
        let waiting = self
            .batch
            .as_slice()
            .is_empty()
            .then(|| self.runs.last())
            .flatten();
        StreamVersion(waiting.map_or(self.version, |run| run.version))
    }
}

impl Iterator for Locations {
    type Item = Result<Location>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.runs.clear();
            self.batch = Vec::new().into_iter();
        }
        step.transpose()
    }
}
