//! [`GapRecord`]: since when a hole in a neighbour's stream is asked for, and how often: for people, who decide by it whether to
//! look after a link. Nothing else is decided by it.
//!
//! It speaks of the range that `told/` asks for, and of nothing once that asks for none.

use bincode::{Decode, Encode};
use milepost_engine::{Pinned, Result, SiteName, Store};

use crate::tracking::{PairState, Receiver, ToldRecord};

/// Key prefix of [`GapRecord`].
pub const GAP_PREFIX: &str = "gap/";

/// How long a hole is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GapRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// When it was first asked for, microseconds since 1970 by the clock here.
    pub since: i64,
    /// How often it was asked for.
    pub asked: u32,
}

impl PairState for GapRecord {
    const PREFIX: &'static str = GAP_PREFIX;
}

/// The record of one pair.
#[derive(Default)]
pub(super) struct Gap {
    record: Option<GapRecord>,
    pinned: Option<GapRecord>,
}

impl Gap {
    /// As the log holds it.
    pub(super) fn load(store: &Store, remote: &SiteName) -> Result<Gap> {
        let record = store.pinned(&GapRecord::key(remote))?;
        let record = record.map(|(value, _)| GapRecord::read(&value)).transpose()?;
        Ok(Gap {
            record,
            pinned: record,
        })
    }

    /// Takes note of what a poll asks for; `before` is what was told until then.
    pub(super) fn poll_ended(&mut self, receiver: &Receiver, before: &ToldRecord, wall_micros: i64) {
        let (told, generation) = (&receiver.records().told, receiver.records().generation());
        if told.ask_number == before.ask_number {
            return;
        }
        // The same hole: its first transaction is still missing.
        let after = |told: &ToldRecord| told.asks.first().map(|range| range.after.place());
        let same = self
            .record
            .filter(|record| record.generation == generation && after(before) == after(told));
        let first = GapRecord {
            generation,
            since: wall_micros,
            asked: 0,
        };
        let known = same.unwrap_or(first);
        self.record = Some(GapRecord {
            asked: known.asked.saturating_add(1),
            ..known
        });
    }

    /// What changed since [`Gap::noted`].
    pub(super) fn note(&self, remote: &SiteName) -> Result<Option<Pinned>> {
        let changed = self.record.filter(|_| self.record != self.pinned);
        changed.map(|record| record.pin(remote)).transpose()
    }

    /// It is durable.
    pub(super) fn noted(&mut self) {
        self.pinned = self.record;
    }
}
