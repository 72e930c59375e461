//! [`ReadBack`]: messages that are no longer in memory, out of the log.

use milepost_engine::{Error, LogScan, Lsn, Result, Store};

use super::index::Waiting;
use super::record::Record;

/// A message this near behind the last one read is reached by reading on, in bytes.
const READ_ON: u64 = 1 << 20;

/// Reads messages back from the log, in ascending order.
pub(super) struct ReadBack<'s> {
    store: &'s Store,
    scan: Option<LogScan>,
}

impl<'s> ReadBack<'s> {
    /// A reader over the shared log.
    pub(super) fn new(store: &'s Store) -> ReadBack<'s> {
        ReadBack { store, scan: None }
    }

    /// The message that was put at `lsn`.
    ///
    /// # Errors
    /// `Corrupt` when it is not there, and what reading the log may meet.
    pub(super) fn message_at(&mut self, lsn: Lsn, waiting: &Waiting) -> Result<Vec<u8>> {
        let reachable = self
            .scan
            .take()
            .filter(|scan| lsn.since(scan.position()) < READ_ON);
        let scan = match reachable {
            Some(scan) => scan,
            None => self.store.scan(Lsn(lsn.0.saturating_sub(1)))?,
        };
        let scan = self.scan.insert(scan);
        while let Some(frame) = scan.next()? {
            if frame.lsn() < lsn {
                continue;
            }
            if let (true, Some(Record::Put { key, message, .. })) =
                (frame.lsn() == lsn, Record::of_frame(&frame)?)
                && key == waiting.key
                && message.len() == waiting.len
            {
                return Ok(message.to_vec());
            }
            break;
        }
        Err(Error::corrupt("a message that was put is not in the log where it was").at_lsn(lsn))
    }
}
