//! [`Workload`]: the events of a bench, the same for every system.

use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::{Result, Transaction};

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
    /// At least one event, in transactions of at least one.
    pub fn new(events: u64, payload: usize, batch: u64) -> Workload {
        Workload {
            events: events.max(1),
            payload,
            batch: batch.max(1),
        }
    }

    /// The transaction that begins with event number `first`, and how many events it has.
    pub fn transaction(&self, first: u64, bytes: &mut Vec<u8>) -> Result<(Transaction, u64)> {
        let count = self.batch.min(self.events.saturating_sub(first));
        let mut transaction = Transaction::new();
        for number in first..first + count {
            fill(bytes, self.payload, number);
            transaction.push_parts(&format!("orders/{}", number % 1_000), "placed", bytes)?;
        }
        Ok((transaction, count))
    }
}

/// Bytes that no compression makes smaller and no two events share.
fn fill(bytes: &mut Vec<u8>, len: usize, number: u64) {
    bytes.clear();
    let mut word = number;
    while bytes.len() < len {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
}

/// How long `work` takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = SystemClock.monotonic();
    let outcome = work();
    (outcome, SystemClock.monotonic().saturating_sub(started))
}
