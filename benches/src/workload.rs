//! [`Workload`] and [`Payloads`]: the events of a bench, the same for every system.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::{Durability, Options, Result, Store, Transaction};

use crate::Outcome;

/// Streams that events of an ordinary workload are spread over.
const STREAMS: u64 = 1_000;

/// How many events of what size, in transactions of how many.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Events of a round.
    pub events: u64,
    /// Bytes of an event's payload.
    pub payload: usize,
    /// Events of a transaction.
    pub batch: u64,
}

impl Workload {
    /// At least one event of at least one byte, in transactions of at least one.
    pub fn new(events: u64, payload: usize, batch: u64) -> Workload {
        Workload {
            events: events.max(1),
            payload: payload.max(1),
            batch: batch.max(1),
        }
    }

    /// The transaction that begins with event number `first`, and how many events it has.
    ///
    /// # Errors
    /// `Invalid` when an event is too large.
    pub fn transaction(&self, first: u64, bytes: &mut Vec<u8>) -> Result<(Transaction, u64)> {
        self.transaction_of(first, bytes, |number| format!("orders/{}", number % STREAMS))
    }

    /// The same, with streams named by the number of an event.
    ///
    /// # Errors
    /// `Invalid` when an event is too large or a name is none.
    pub fn transaction_of(
        &self,
        first: u64,
        bytes: &mut Vec<u8>,
        stream: impl Fn(u64) -> String,
    ) -> Result<(Transaction, u64)> {
        let count = self.batch.min(self.events.saturating_sub(first));
        let mut transaction = Transaction::new();
        for number in first..first + count {
            bytes.clear();
            fill(bytes, self.payload, number);
            transaction.push_parts(&stream(number), "placed", bytes)?;
        }
        Ok((transaction, count))
    }

    /// Makes a store of these events, in full blocks, all durable.
    ///
    /// # Errors
    /// What making and appending say.
    pub fn store(&self, dir: &Path, stream: impl Fn(u64) -> String) -> Outcome<Store> {
        let store = Options::new().init(dir, "bench".parse()?)?;
        self.append_to(&store, stream)?;
        Ok(store)
    }

    /// Appends these events to a store, in full blocks, all durable.
    ///
    /// # Errors
    /// What appending says.
    pub fn append_to(&self, store: &Store, stream: impl Fn(u64) -> String) -> Outcome<()> {
        let (mut at, mut bytes) = (0, Vec::new());
        while at < self.events {
            let mut frames = Vec::new();
            while frames.len() < 256 && at < self.events {
                let (transaction, count) = self.transaction_of(at, &mut bytes, &stream)?;
                frames.push(transaction.into_parts().0);
                at += count;
            }
            store.append_frames(frames, Durability::Buffered)?;
        }
        store.sync()?;
        Ok(())
    }
}

/// Payloads that are made ahead of the measured part, so that no system pays for making them.
pub struct Payloads {
    bytes: Vec<u8>,
    len: usize,
    streams: Vec<String>,
}

impl Payloads {
    /// So many of so many bytes, at least one of one.
    pub fn new(count: u64, len: usize) -> Payloads {
        let len = len.max(1);
        let mut bytes = Vec::new();
        for number in 0..count.max(1) {
            let end = bytes.len() + len;
            fill(&mut bytes, end, number);
        }
        Payloads {
            bytes,
            len,
            streams: (0..STREAMS).map(|number| format!("orders/{number}")).collect(),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.len
    }

    /// Those of a range.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let bytes = self.bytes.get(range.start * self.len..range.end * self.len);
        bytes.unwrap_or_default().chunks_exact(self.len)
    }

    /// All, in batches.
    pub fn batches(&self, batch: usize) -> impl Iterator<Item = Range<usize>> {
        batches(self.count(), batch)
    }

    /// A transaction of those of a range.
    ///
    /// # Errors
    /// `Invalid` when a payload is too large.
    pub fn transaction(&self, range: Range<usize>) -> Result<Transaction> {
        let mut transaction = Transaction::new();
        let streams = self.streams.iter().cycle().skip(range.start % self.streams.len());
        for (payload, stream) in self.range(range).zip(streams) {
            transaction.push_parts(stream, "placed", payload)?;
        }
        Ok(transaction)
    }

    /// What a scan of all must have seen.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        self.range(0..self.count())
            .for_each(|payload| seen.visit(payload));
        seen
    }
}

/// The numbers from 0 to `count`, in batches.
pub fn batches(count: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count)
        .step_by(batch.max(1))
        .map(move |at| at..(at + batch).min(count))
}

/// What a scan has seen: proof that it visited each event and read the first byte of its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events.
    pub events: u64,
    /// Sum of the first bytes of their payloads.
    pub first_bytes: u64,
}

impl Seen {
    /// Sees one more.
    #[inline]
    pub fn visit(&mut self, payload: &[u8]) {
        self.events += 1;
        self.first_bytes += payload.first().copied().map_or(0, u64::from);
    }

    /// # Errors
    /// When something else was to be seen.
    pub fn expect(self, expected: Seen) -> Outcome<()> {
        if self == expected {
            return Ok(());
        }
        Err(format!("the scan saw {self:?}, and there is {expected:?}").into())
    }
}

/// Lengthens `bytes` to `end` with bytes that no compression makes smaller and no two events share.
fn fill(bytes: &mut Vec<u8>, end: usize, number: u64) {
    let mut word = number;
    while bytes.len() < end {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(end);
}

/// What [`timed`] counts: the wall clock, or the processor's time of the measuring thread.
static BY_PROCESSOR: AtomicBool = AtomicBool::new(false);

/// From here on the processor's time of the measuring thread counts: on a machine that is busy with other work
/// it is what one thread would take that never waits. Only for steps of one thread that do not wait for a device.
pub fn count_processor_time() {
    BY_PROCESSOR.store(true, Ordering::Relaxed);
}

/// How long `work` takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = now();
    let outcome = work();
    (outcome, now().saturating_sub(started))
}

fn now() -> Duration {
    if !BY_PROCESSOR.load(Ordering::Relaxed) {
        return SystemClock.monotonic();
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Processor's time that this process has had.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How long `work` takes when it succeeds.
///
/// # Errors
/// What `work` says.
pub fn timed_ok<T, E: Into<Box<dyn std::error::Error>>>(
    work: impl FnOnce() -> std::result::Result<T, E>,
) -> Outcome<Duration> {
    let (outcome, took) = timed(work);
    outcome.map_err(Into::into)?;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_made_ahead_are_those_of_the_workload() {
        let (payloads, mut bytes) = (Payloads::new(10, 13), Vec::new());
        assert_eq!(payloads.count(), 10);
        for (number, payload) in (0..10).zip(payloads.range(0..10)) {
            bytes.clear();
            fill(&mut bytes, 13, number);
            assert_eq!(payload, bytes);
        }
        let ranges: Vec<_> = payloads.batches(4).collect();
        assert_eq!(ranges, [0..4, 4..8, 8..10]);
        assert_eq!(payloads.seen().events, 10);
        assert_eq!(payloads.transaction(8..10).unwrap().event_count(), 2);
    }
}
