//! Group commit within a handle: callers queue up, one of them leads and writes for all that wait.
//!
//! ```text
//! caller A ─┐                       ┌─ A leads: writes A, B, C in one go, hands leadership on ─► waits for durable
//! caller B ─┼─► waiting requests ───┤
//! caller C ─┘                       └─ D, E arrive meanwhile; one of them leads while A's batch is synced
//! ```

use std::collections::HashMap;

use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::{Error, Result};

use super::Log;
use super::append::{Request, Written};
use super::control::LOOK_AGAIN;
use super::judge::Judge;

/// Most bytes of frames that one leader takes along: 4 MiB, or a single larger request.
const MOST_BYTES: u64 = 4 << 20;

/// Requests that wait, and results that nobody has fetched yet.
#[derive(Default)]
pub(crate) struct Group {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    next_ticket: u64,
    waiting: Vec<(u64, Request)>,
    results: HashMap<u64, Result<Written>>,
    led: bool,
}

impl Log {
    /// Writes a request together with others that wait; returns when it is in the log or refused,
    /// before any sync.
    pub(crate) fn submit(&self, request: Request, judge: &dyn Judge) -> Result<Written> {
        let mut state = self.group.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push((ticket, request));
        loop {
            if let Some(result) = state.results.remove(&ticket) {
                return result;
            }
            if state.led {
                state = self.group.moved.wait_for(state, LOOK_AGAIN);
                continue;
            }
            state = self.lead(state, judge);
        }
    }

    fn lead<'a>(&'a self, mut state: MutexGuard<'a, State>, judge: &dyn Judge) -> MutexGuard<'a, State> {
        state.led = true;
        let mut bytes = 0;
        let taken = state.waiting.iter().take_while(|(_, request)| {
            let first = bytes == 0;
            bytes += request.frames.iter().map(|frame| frame.len()).sum::<u64>();
            first || bytes <= MOST_BYTES
        });
        let taken = taken.count();
        let (tickets, requests): (Vec<u64>, Vec<Request>) = state.waiting.drain(..taken).unzip();
        drop(state);
        let mut lead = Lead {
            group: &self.group,
            tickets,
            outcomes: Vec::new(),
        };
        lead.outcomes = self.write(&requests, judge);
        drop(lead);
        self.group.state.lock()
    }
}

/// Leadership of one batch. Dropping it hands out the results and lets another lead, also when the
/// write panicked: those who wait then learn that nobody knows what became of their commits.
struct Lead<'a> {
    group: &'a Group,
    tickets: Vec<u64>,
    outcomes: Vec<Result<Written>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.group.state.lock();
        let mut outcomes = std::mem::take(&mut self.outcomes).into_iter();
        for ticket in self.tickets.drain(..) {
            let lost = || {
                Err(Error::internal(
                    "a commit was neither written nor refused; open the store again",
                ))
            };
            state.results.insert(ticket, outcomes.next().unwrap_or_else(lost));
        }
        state.led = false;
        self.group.moved.notify_all();
    }
}
