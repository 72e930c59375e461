//! The hard limit of the log, and the reserve behind it.
//!
//! ```text
//! | begins … segments … |  active  |  next  |  reserve  | limit
//!   events and control frames ──────────────►
//!   small frames without events ────────────────────────►
//! ```
//!
//! A full log refuses events before it refuses what leads out of it: a marker, a definition, a position that lets
//! segments go. What is refused is absent, and the next commit asks again, so that a limit that another process
//! raises, or space that it frees, is found at once.

use crate::storage::Cell;
use crate::store::Space;
use crate::{Error, Lsn, Result};

use super::Log;
use super::append::Request;
use super::control::Tail;
use super::judge::Judge;

/// Largest request that may use the reserve, in bytes: 16 KiB.
const SMALL: u64 = 16 << 10;

impl Request {
    /// Whether the reserve is open to it: small frames without events.
    pub(super) fn is_control(&self) -> bool {
        let bytes: u64 = self.frames.iter().map(|frame| frame.len()).sum();
        bytes <= SMALL && self.frames.iter().all(|frame| frame.events().next().is_none())
    }
}

impl Log {
    /// Refuses a segment of `len` bytes at the tail, and events in the reserve, when the log would take more than it
    /// may. `Full` then; nothing was written.
    pub(super) fn check_limit(&self, tail: Tail, rolls_to: Option<u64>, control: bool) -> Result<()> {
        let reserved = self.control.cells().load(Cell::Reserve) == tail.segment.0 + 1;
        if rolls_to.is_none() && (control || !reserved) {
            return Ok(());
        }
        let Some(limit) = self.limit() else {
            self.control.cells().store(Cell::Reserve, 0);
            return Ok(());
        };
        let (had, len) = match rolls_to {
            Some(block_len) => (self.takes(tail.at)?, self.segment_bytes.max(block_len)),
            None => (self.takes(tail.segment)?.saturating_add(self.segment_bytes), 0),
        };
        let takes = had.saturating_add(len);
        let for_events = limit.saturating_sub(self.segment_bytes);
        let reserve = takes > for_events;
        if takes > limit || (reserve && !control) {
            return Err(Error::full(format!(
                "LogFull: the log takes {had} bytes of at most {limit}, the last {} of them for records without events, \
                 and needs {len} more; nothing was written",
                self.segment_bytes
            ))
            .at_path(self.dir.storage().root().join(self.dir.folder())));
        }
        match rolls_to {
            Some(_) if reserve => self.control.cells().store(Cell::Reserve, tail.at.0 + 1),
            _ => self.control.cells().store(Cell::Reserve, 0),
        }
        Ok(())
    }

    /// Frees before a batch that needs segments beyond the limit, as long as something goes: a request that was written
    /// in part can only fail. What stays too much is refused when its segment is due.
    pub(super) fn make_room_ahead(&self, requests: &[Request], judge: &dyn Judge) {
        let frames = requests.iter().flat_map(|request| &request.frames);
        let bytes: u64 = frames.map(|frame| frame.len()).sum();
        let tail = self.control.tail();
        let needs = tail.at.since(tail.segment.min(tail.at)) + bytes + bytes / 8;
        if needs <= self.segment_bytes {
            return;
        }
        let Some(limit) = self.limit() else { return };
        let more = needs.next_multiple_of(self.segment_bytes);
        loop {
            let had = self
                .takes(self.control.lsn(Cell::TailSegment))
                .unwrap_or_default();
            if had.saturating_add(more) <= limit.saturating_sub(self.segment_bytes)
                || judge.make_room().is_some()
            {
                return;
            }
        }
    }

    /// Whether a spare of the next segment would stay within what events may take.
    pub(super) fn has_room_for_spare(&self) -> bool {
        let Some(limit) = self.limit() else { return true };
        let had = self.takes(self.control.lsn(Cell::TailSegment));
        let more = self.segment_bytes.saturating_mul(2);
        had.is_ok_and(|had| had.saturating_add(more) <= limit.saturating_sub(self.segment_bytes))
    }

    /// Bytes that the segments up to `end` take in the log's folder: those that were compressed take less, those that
    /// lie in an archive nothing.
    fn takes(&self, end: Lsn) -> Result<u64> {
        let all = end.since(self.control.lsn(Cell::Freed).min(end));
        Ok(all.saturating_sub(self.dir.saved()?))
    }

    /// Refuses to let sealed segments take `more` bytes when behind them no event would have room.
    pub(crate) fn check_growth(&self, more: u64) -> Result<()> {
        let Some(limit) = self.limit().filter(|_| more > 0) else {
            return Ok(());
        };
        let had = self.takes(self.control.lsn(Cell::TailSegment))?;
        let active = self.segment_bytes.saturating_mul(2);
        let needs = had.saturating_add(more).saturating_add(active);
        if needs <= limit {
            return Ok(());
        }
        Err(Error::full(format!(
            "the segments take {more} bytes more in the folder of the log, which would take {needs} with the active one \
             and the reserve, of at most {limit}; no segment was touched: raise the limit to {needs} with `milepost space` \
             and --limit"
        ))
        .at_path(self.dir.storage().root().join(self.dir.folder())))
    }

    /// Most bytes that the log may take. Settings that cannot be read hold no commit up.
    fn limit(&self) -> Option<u64> {
        match Space::read(&**self.dir.storage(), self.dir.owner()) {
            Ok(space) => (space.limit > 0).then_some(space.limit),
            Err(error) => {
                tracing::warn!(%error, "the log goes on without a limit");
                None
            }
        }
    }

    /// For who opens the store: whether the active segment is the reserve.
    pub(crate) fn note_reserve(&self) {
        let active = self.control.lsn(Cell::TailSegment);
        let Some(limit) = self.limit() else { return };
        let had = self.takes(active).unwrap_or_default();
        if had.saturating_add(self.segment_bytes) > limit.saturating_sub(self.segment_bytes) {
            self.control.cells().store(Cell::Reserve, active.0 + 1);
        }
    }
}
