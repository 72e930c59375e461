//! [`Transaction`]: events that commit together, and what comes of it.

use std::fmt;

use crate::frame::NewFrame;
use crate::{Error, Event, ExpectedVersion, Lsn, Origin, Pinned, Result, StreamName, StreamVersion, Via};

/// Identity of a commit at its site: the random word of the writing handle and a number within it.
/// With it the fate of a commit that failed with [`Error::written`] is asked after reopening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// Random word of the writing handle, kept in the block's header.
    pub writer: u64,
    /// Number of the commit within the handle.
    pub seq: u64,
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.writer, self.seq)
    }
}

/// Events to be committed together, with what they expect.
///
/// ```
/// use milepost_engine::{Event, ExpectedVersion, Transaction};
/// let mut order = Transaction::new();
/// order.push(&Event::new("orders/7", "placed", *b"{}")?)?;
/// order.expect("orders/7", ExpectedVersion::NoStream)?;
/// assert_eq!(order.event_count(), 1);
/// # Ok::<(), milepost_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Transaction {
    frame: NewFrame,
    expectations: Vec<(StreamName, ExpectedVersion)>,
}

impl Default for Transaction {
    fn default() -> Self {
        Transaction::new()
    }
}

impl Transaction {
    /// A transaction without events.
    #[must_use]
    pub fn new() -> Transaction {
        Transaction {
            frame: NewFrame::transaction(),
            expectations: Vec::new(),
        }
    }

    /// Adds an event; its ordinal is the number of events before it.
    ///
    /// # Errors
    /// `Invalid` when a length exceeds its field.
    pub fn push(&mut self, event: &Event) -> Result<()> {
        self.frame.push_event(self.frame.event_count(), event)
    }

    /// Adds an event from its parts without headers: the fast way in.
    ///
    /// # Errors
    /// As [`Transaction::push`], and `Invalid` for a stream name that breaks its rule.
    pub fn push_parts(&mut self, stream: &str, kind: &str, payload: &[u8]) -> Result<()> {
        self.frame
            .push_raw(self.frame.event_count(), stream, kind, &[], payload)
    }

    /// Adds an event that was committed elsewhere, under its ordinal there; `headers` as
    /// [`crate::frame::encode_headers`] makes them.
    ///
    /// # Errors
    /// As [`Transaction::push_parts`].
    pub fn push_received(
        &mut self,
        ordinal: u32,
        stream: &str,
        kind: &str,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<()> {
        self.frame.push_raw(ordinal, stream, kind, headers, payload)
    }

    /// Says what a stream must look like before the transaction; checked under the append lock. The
    /// versions of streams named here are told in [`Committed::versions`].
    ///
    /// # Errors
    /// `Invalid` for a stream name that breaks its rule.
    pub fn expect(&mut self, stream: &str, expected: ExpectedVersion) -> Result<()> {
        self.expectations.push((StreamName::new(stream)?, expected));
        Ok(())
    }

    /// Marks the transaction as committed elsewhere first. Such a transaction is exempt from
    /// expectations.
    pub fn set_origin(&mut self, origin: Origin) {
        self.frame.set_origin(origin);
    }

    /// Names the neighbour it was received from.
    pub fn set_via(&mut self, via: Via) {
        self.frame.set_via(via);
    }

    /// Sets when it was first committed, microseconds since 1970, when that was not now and here: what
    /// [`crate::RecordedEvent::time`] tells. For people; decides nothing.
    pub fn set_committed_at(&mut self, time: i64) {
        self.frame.set_committed_at(time);
    }

    /// Adds a pinned record that becomes state together with the events.
    pub fn pin(&mut self, record: Pinned) {
        self.frame.pin(record);
    }

    /// Events so far.
    #[must_use]
    pub fn event_count(&self) -> u32 {
        self.frame.event_count()
    }

    /// The frame and what it expects.
    #[must_use]
    pub fn into_parts(self) -> (NewFrame, Vec<(StreamName, ExpectedVersion)>) {
        (self.frame, self.expectations)
    }
}

/// A transaction that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its LSN.
    pub lsn: Lsn,
    /// Its identity at this site.
    pub id: TransactionId,
    /// For each stream named in an expectation, the version of its last event after the commit.
    pub versions: Vec<(StreamName, StreamVersion)>,
}

/// A stream that did not look as expected. Nothing was committed; the state that caused it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongExpectedVersion {
    /// The stream.
    pub stream: StreamName,
    /// What was expected.
    pub expected: ExpectedVersion,
    /// What is there.
    pub actual: Option<StreamVersion>,
}

impl fmt::Display for WrongExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} was expected to be ", self.stream)?;
        match self.expected {
            ExpectedVersion::Any => f.write_str("anything")?,
            ExpectedVersion::NoStream => f.write_str("without events")?,
            ExpectedVersion::StreamExists => f.write_str("with events")?,
            ExpectedVersion::Exact(version) => write!(f, "at version {version}")?,
        }
        match self.actual {
            Some(version) => write!(f, " and is at version {version}"),
            None => f.write_str(" and has no event"),
        }
    }
}

/// What came of a commit that did not fail.
#[must_use = "a wrong expectation is an outcome, not an error"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is in the log, durable as asked.
    Committed(Committed),
    /// A stream did not look as expected; nothing was committed.
    WrongVersion(WrongExpectedVersion),
}

impl CommitOutcome {
    /// The commit; for callers that expected nothing.
    ///
    /// # Errors
    /// `Conflict` when an expectation was not met.
    pub fn committed(self) -> Result<Committed> {
        match self {
            CommitOutcome::Committed(committed) => Ok(committed),
            CommitOutcome::WrongVersion(wrong) => Err(Error::conflict(wrong.to_string())),
        }
    }
}
