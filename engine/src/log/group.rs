//! Group commit within a handle: callers queue up, one of them leads and writes for all that wait.
//!
//! ```text
//! caller A ─┐                       ┌─ A leads: writes A, B, C in one go, hands leadership on ─► waits for durable
//! caller B ─┼─► waiting requests ───┤
//! caller C ─┘                       └─ D, E arrive meanwhile; one of them leads while A's batch is synced
//! ```
//!
//! [`Group`] is the handover alone: who leads, who waits, who gets which result. What is written is its
//! caller's, so that loom can run every interleaving of it (`loom_models/group.rs`).

use std::collections::HashMap;

use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::{Error, Lsn, Result};

use super::Log;
use super::append::{Request, Written};
use super::control::LOOK_AGAIN;
use super::judge::Judge;

/// Most bytes of frames that one leader takes along: 4 MiB, or a single larger request.
const MOST_BYTES: u64 = 4 << 20;

/// Requests that wait, and results that nobody has fetched yet.
pub(crate) struct Group<R, T> {
    state: Mutex<State<R, T>>,
    moved: Condvar,
    /// How those who wait are woken when leadership is free: all of them, because any may have a result
    /// and any may have to lead. Models put another in its place, to see it fail.
    wake: fn(&Condvar),
}

struct State<R, T> {
    next_ticket: u64,
    waiting: Vec<(u64, R)>,
    results: HashMap<u64, T>,
    led: bool,
}

/// What a leader does with its batch.
pub(crate) trait Write<R, T> {
    /// Weight of a request; those that weigh more than [`MOST_BYTES`] together go in several batches.
    fn bytes(&self, request: &R) -> u64;
    /// Writes requests in order; one result for each.
    fn write(&self, requests: &[R]) -> Vec<T>;
    /// The result of a request whose leader panicked: nobody knows what became of it.
    fn lost(&self) -> T;
}

impl<R, T> Default for Group<R, T> {
    fn default() -> Self {
        Group::woken_by(Condvar::notify_all)
    }
}

impl<R, T> Group<R, T> {
    /// A group whose waiters are woken so.
    pub(crate) fn woken_by(wake: fn(&Condvar)) -> Group<R, T> {
        Group {
            state: Mutex::new(State {
                next_ticket: 0,
                waiting: Vec::new(),
                results: HashMap::new(),
                led: false,
            }),
            moved: Condvar::new(),
            wake,
        }
    }

    /// Has a request written together with others that wait; returns its result.
    pub(crate) fn submit(&self, request: R, writer: &dyn Write<R, T>) -> T {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push((ticket, request));
        loop {
            if let Some(result) = state.results.remove(&ticket) {
                return result;
            }
            if state.led {
                state = self.moved.wait_for(state, LOOK_AGAIN);
                continue;
            }
            state = self.lead(state, writer);
        }
    }

    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<R, T>>,
        writer: &dyn Write<R, T>,
    ) -> MutexGuard<'a, State<R, T>> {
        state.led = true;
        let mut bytes = 0;
        let taken = state.waiting.iter().take_while(|(_, request)| {
            let first = bytes == 0;
            bytes += writer.bytes(request);
            first || bytes <= MOST_BYTES
        });
        let taken = taken.count();
        let (tickets, requests): (Vec<u64>, Vec<R>) = state.waiting.drain(..taken).unzip();
        drop(state);
        let mut lead = Lead {
            group: self,
            writer,
            tickets,
            outcomes: Vec::new(),
        };
        lead.outcomes = writer.write(&requests);
        drop(lead);
        self.state.lock()
    }
}

/// Leadership of one batch. Dropping it hands out the results and lets another lead, also when the
/// write panicked: those who wait then learn that nobody knows what became of their commits.
struct Lead<'a, R, T> {
    group: &'a Group<R, T>,
    writer: &'a dyn Write<R, T>,
    tickets: Vec<u64>,
    outcomes: Vec<T>,
}

impl<R, T> Drop for Lead<'_, R, T> {
    fn drop(&mut self) {
        let mut state = self.group.state.lock();
        let mut outcomes = std::mem::take(&mut self.outcomes).into_iter();
        for ticket in self.tickets.drain(..) {
            let outcome = outcomes.next().unwrap_or_else(|| self.writer.lost());
            state.results.insert(ticket, outcome);
        }
        state.led = false;
        (self.group.wake)(&self.group.moved);
    }
}

/// Writing to the log, under the append lock.
struct ToLog<'a> {
    log: &'a Log,
    /// Nothing of the batch can stand before this.
    from: Lsn,
    judge: &'a dyn Judge,
}

impl Write<Request, Result<Written>> for ToLog<'_> {
    fn bytes(&self, request: &Request) -> u64 {
        request.frames.iter().map(|frame| frame.len()).sum()
    }

    fn write(&self, requests: &[Request]) -> Vec<Result<Written>> {
        self.log.write(requests, self.judge)
    }

    fn lost(&self) -> Result<Written> {
        Err(Error::internal(
            "the thread that wrote for others panicked; open the store again and ask by the id",
        )
        .maybe_written(self.from))
    }
}

impl Log {
    /// Writes a request together with others that wait; returns when it is in the log or refused,
    /// before any sync.
    pub(crate) fn submit(&self, request: Request, judge: &dyn Judge) -> Result<Written> {
        let from = self.control.durable();
        self.group.submit(
            request,
            &ToLog {
                log: self,
                from,
                judge,
            },
        )
    }
}
