//! Whether there is room for segments that take more in the log's folder afterwards, asked before the first is touched:
//! the limit of the log must leave room for commits behind them, and the disk for all of them and one segment more.

use crate::storage::Storage;
use crate::{Error, Result};

use super::Shared;

/// What giving segments another form takes.
#[derive(Default)]
pub(super) struct Growth {
    /// Bytes that they take more in the folder afterwards.
    pub more: u64,
    /// Of those, the most that one of them takes beside what goes.
    pub most: u64,
}

impl Growth {
    /// Adds a segment that takes `takes` bytes, `instead` of what goes when it is there.
    pub(super) fn add(&mut self, takes: u64, instead: u64) {
        self.more += takes.saturating_sub(instead);
        self.most = self.most.max(takes);
    }
}

impl Shared {
    /// Refuses what would leave no room. `from` is the directory that the bytes come from and go away in.
    pub(super) fn check_room(&self, growth: &Growth, from: Option<&dyn Storage>) -> Result<()> {
        if growth.most == 0 {
            // Nothing is to be given another form.
            return Ok(());
        }
        self.log.check_growth(growth.more)?;
        let (path, segment) = (self.storage.root().join("log"), self.log.segment_bytes);
        let failed = |error| Error::io("ask what the disk has left", &path, error);
        let here = self.storage.disk().map_err(failed)?;
        let Some((free, _)) = here else {
            return Ok(());
        };
        // On one disk, what comes here goes there.
        let same = from.is_some_and(|from| from.disk().ok().flatten() == here);
        let needs = if same {
            growth.most
        } else {
            growth.more.max(growth.most)
        };
        if needs.saturating_add(segment) <= free {
            return Ok(());
        }
        Err(Error::full(format!(
            "the segments take {needs} bytes more of the disk, which has {free} left, and one segment of {segment} bytes \
             is left for commits; no segment was touched: make room, or move others to another disk with `milepost archive` \
             and --to"
        ))
        .at_path(path))
    }
}
