//! [`Waits`]: why a remote's stream stands still here, or comes piece by piece.

use milepost_engine::{Result, SiteName, Store};
use serde::Serialize;

use crate::receive::{GapRecord, Incomplete, incomplete};
use crate::tracking::{PairRecords, PairState};

/// What is missing of a remote's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// The last transaction before the hole, by the remote's log: `none`, or an LSN; absent while nothing is asked for.
    pub after: Option<String>,
    /// The last one that is asked for.
    pub up_to: Option<String>,
    /// When it was first asked for, microseconds since 1970 by the clock here.
    pub since: Option<i64>,
    /// How often it was asked for.
    pub asked: u32,
    /// A transaction of which pieces are missing.
    pub parts: Option<Pieces>,
}

/// A transaction of which pieces are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pieces {
    /// Its LSN in the remote's log.
    pub lsn: u64,
    /// Bytes of it that are here.
    pub held: u64,
    /// Bytes of it.
    pub total: u64,
    /// Where the first of those begins that are missing.
    pub missing_from: u64,
}

/// Pieces of all remotes.
pub(super) struct AllPieces(Vec<(SiteName, Incomplete)>);

impl AllPieces {
    pub(super) fn read(store: &Store) -> Result<AllPieces> {
        Ok(AllPieces(incomplete(store, None)?))
    }

    /// Those of the first transaction that a remote is still to be received of.
    fn of(&self, remote: &SiteName, records: &PairRecords) -> Option<Pieces> {
        let received = records.received.point.place();
        let all = self.0.iter().filter(|(name, one)| {
            name == remote && one.generation == records.generation() && one.point.place() > received
        });
        let (_, one) = all.min_by_key(|(_, one)| one.point.place())?;
        Some(Pieces {
            lsn: one.point.place().commit_lsn().0,
            held: one.held,
            total: one.total,
            missing_from: one.missing_from,
        })
    }
}

impl Waits {
    /// What is missing of a remote's stream, if anything is.
    pub(super) fn of(
        store: &Store,
        remote: &SiteName,
        records: &PairRecords,
        pieces: &AllPieces,
    ) -> Result<Option<Waits>> {
        let received = records.received.point.place();
        let parts = pieces.of(remote, records);
        let asks = records
            .told
            .asks
            .iter()
            .find(|range| range.up_to.place() > received);
        if asks.is_none() && parts.is_none() {
            return Ok(None);
        }
        let gap = store.pinned(&GapRecord::key(remote))?;
        let gap = gap.map(|(value, _)| GapRecord::read(&value)).transpose()?;
        let gap = gap.filter(|gap| asks.is_some() && gap.generation == records.generation());
        Ok(Some(Waits {
            after: asks.map(|range| range.after.place().to_string()),
            up_to: asks.map(|range| range.up_to.place().to_string()),
            since: gap.map(|gap| gap.since),
            asked: gap.map_or(0, |gap| gap.asked),
            parts,
        }))
    }
}
