//! [`StreamScan`]: the events of one stream in log order, by the filters of the block headers alone.
//!
//! ```text
//! header ─► filter: surely nothing of this stream? ─► next header            (its body is not even touched)
//!                   perhaps ─► verify the body, visit its events
//! ```
//!
//! Needs no index, so it serves where none can be: on a tail that is followed, beside an index that is being made,
//! and to check one. What it passes over it does not verify: damage there is found by a scan and by verify (E3).

use std::time::Duration;

use crate::frame::{EventRef, FrameRef};
use crate::{Lsn, Result, Store, StreamName};

use super::scan::LogScan;

/// Reads the events of one stream up to what is durable. `None` now may be `Some` later: wait with
/// [`StreamScan::wait`], then go on.
///
/// ```
/// use milepost_engine::{Lsn, Options, StreamName, Transaction};
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = Options::new().init(dir.path().join("s"), "bern".parse()?)?;
/// for till in ["till-1", "till-2", "till-1"] {
///     let mut sale = Transaction::new();
///     sale.push_parts(till, "sold", b"17")?;
///     store.commit(sale)?.committed()?;
/// }
/// let mut scan = store.scan_stream(&StreamName::new("till-1")?, Lsn::ZERO)?;
/// let mut sold = 0;
/// while let Some((_frame, event)) = scan.next()? {
///     assert_eq!(event.stream()?, "till-1");
///     sold += 1;
/// }
/// assert_eq!(sold, 2);
/// # Ok::<(), milepost_engine::Error>(())
/// ```
pub struct StreamScan {
    log: LogScan,
    stream: StreamName,
    hash: u64,
    /// Events of the block that was entered last: LSN of the frame, distance of the event in it.
    hits: Vec<(Lsn, u32)>,
    given: usize,
}

impl StreamScan {
    pub(crate) fn new(store: &Store, stream: &StreamName, after: Lsn) -> Result<StreamScan> {
        Ok(StreamScan {
            log: LogScan::new(store, after)?,
            hash: StreamName::hash(stream.as_str()),
            stream: stream.clone(),
            hits: Vec::new(),
            given: 0,
        })
    }

    /// The stream's next event and the frame it stands in, or `None` at the durable end.
    ///
    /// # Errors
    /// `Corrupt` when a header, a filter or a block that may hold the stream is damaged (E3).
    #[expect(
        clippy::should_implement_trait,
        reason = "an event borrows from the scan that gives it"
    )]
    pub fn next(&mut self) -> Result<Option<(FrameRef<'_>, EventRef<'_>)>> {
        let (lsn, offset) = loop {
            match self.hits.get(self.given).copied() {
                Some(hit) => break hit,
                None if self.enter_block()? => {}
                None => return Ok(None),
            }
        };
        self.given += 1;
        let block = self.log.block()?;
        let frame = block.frame_known_at(lsn)?;
        Ok(Some((frame, frame.event_at(offset)?)))
    }

    /// Everything of the stream up to here was given, once [`StreamScan::next`] has said `None`: where another
    /// scan may go on.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        self.log.reached()
    }

    /// Waits until more of the log is durable than was looked at, or `limit`; true when there is more, of
    /// whatever stream.
    ///
    /// # Errors
    /// As [`LogScan::wait`].
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        if self.given < self.hits.len() {
            return Ok(true);
        }
        self.log.wait(limit)
    }

    /// Enters the next block that may have events of the stream and notes where they stand.
    fn enter_block(&mut self) -> Result<bool> {
        self.hits.clear();
        self.given = 0;
        let after = self.log.position();
        let Some(block) = self.log.next_block_of(self.hash)? else {
            return Ok(false);
        };
        for frame in block.frames() {
            let frame = frame?;
            if frame.lsn() <= after {
                continue;
            }
            for event in frame.events_with_offsets() {
                let (offset, event) = event?;
                if event.stream_bytes() == self.stream.as_str().as_bytes() {
                    self.hits.push((frame.lsn(), offset));
                }
            }
        }
        Ok(true)
    }
}
