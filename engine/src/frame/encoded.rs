//! [`EncodedEvents`]: the events of a transaction as a frame holds them, checked once. Who passes a transaction on (from the
//! log into the queue, from there into a message, from that into another log) shares these bytes instead of reading and
//! writing every event again, however long they are.

use bytes::Bytes;

use crate::{Error, Lsn, Result};

use super::{Events, NewFrame};

/// Events that are, byte for byte, what our own writer would have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvents {
    bytes: Bytes,
    count: u32,
}

impl EncodedEvents {
    /// No events.
    #[must_use]
    pub fn none() -> EncodedEvents {
        EncodedEvents {
            bytes: Bytes::new(),
            count: 0,
        }
    }

    /// Checks bytes that came from elsewhere: `count` events that fill them, each with names by their rules, headers that can
    /// be read, and zeros as padding. `lsn` is for errors.
    ///
    /// # Errors
    /// `Corrupt` or `Invalid` when our writer would not have written them so.
    pub fn check(bytes: Bytes, count: u32, lsn: Lsn) -> Result<EncodedEvents> {
        let mut events = Events::new(&bytes, count, lsn);
        let mut at = 0;
        while let Some(event) = events.next() {
            let event = event?;
            event.check()?;
            crate::StreamName::check(event.stream()?)?;
            let next = bytes.len() - events.remaining();
            let padding = bytes.get(at + event.unpadded_len()..next);
            if padding.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
                return Err(Error::corrupt("an event is padded with something else than zeros").at_lsn(lsn));
            }
            at = next;
        }
        Ok(EncodedEvents { bytes, count })
    }

    /// The events of a transaction that was put together here.
    #[must_use]
    pub fn of(frame: &NewFrame) -> EncodedEvents {
        EncodedEvents {
            bytes: Bytes::copy_from_slice(&frame.body()),
            count: frame.event_count(),
        }
    }

    /// The events, in order; `lsn` is for errors.
    #[must_use]
    pub fn events(&self, lsn: Lsn) -> Events<'_> {
        Events::new(&self.bytes, self.count, lsn)
    }

    /// Number of events.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
