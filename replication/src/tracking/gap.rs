//! [`Gaps`]: when a hole in a neighbour's stream is asked for (`-rp`).
//!
//! Polls are counted while one hole stays open, at most one per `-rd`, none for a push, none while a
//! transfer from that neighbour is under way. A trickle of later messages does not reset the count;
//! progress does. Asked once, the same hole is asked for again after twice as many polls, and so on,
//! because the request or what it brings may be lost as well; while what was asked for comes in pieces, no more is doubled.

use std::time::Duration;

use crate::message::{Place, Range};

/// How long holes are borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Polls with the hole open before it is asked for; 0 asks at once, as batch runs do.
    pub polls: u32,
    /// Pause between polls (`-rd`).
    pub every: Duration,
}

impl Patience {
    /// At once.
    pub const NONE: Patience = Patience {
        polls: 0,
        every: Duration::ZERO,
    };
}

/// How a poll came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollCause {
    /// The pause had passed, or a batch run polls.
    Due,
    /// The link said that something waits.
    Push,
    /// As `Due`, while a transfer from the neighbour is under way.
    Transfer,
}

/// Longest wait between two askings for one hole, as a power of two of the patience.
const MAX_DOUBLINGS: u32 = 6;

/// The lowest hole in one neighbour's stream.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// Lowest hole seen in the poll under way, and whether it is asked for without patience.
    seen: Option<(Range, bool)>,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    after: Place,
    since: Duration,
    counted_at: Duration,
    counted: u32,
    asked: u32,
}

impl Gaps {
    /// Notes a hole; `at_once` for one that no waiting fills.
    pub fn see(&mut self, range: Range, at_once: bool) {
        let lower = self
            .seen
            .is_none_or(|(seen, _)| range.up_to.place() < seen.up_to.place());
        let urgent = at_once || self.seen.is_some_and(|(_, urgent)| urgent);
        if lower {
            self.seen = Some((range, urgent));
        } else if let Some((_, flag)) = &mut self.seen {
            *flag = urgent;
        }
    }

    /// Lowest hole that is open, from the last poll on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some() || self.seen.is_some()
    }

    /// Ends a poll after which the stream is complete to `received`; returns the range to ask for now.
    pub fn poll_ended(
        &mut self,
        received: Place,
        now: Duration,
        cause: PollCause,
        patience: Patience,
    ) -> Option<Range> {
        let seen = self
            .seen
            .take()
            .filter(|(range, _)| range.up_to.place() > received);
        let Some((range, at_once)) = seen else {
            self.open = None;
            return None;
        };
        let fresh = Open {
            after: received,
            since: now,
            counted_at: now,
            counted: 0,
            asked: 0,
        };
        let open = match &mut self.open {
            Some(open) if open.after == received => open,
            other => other.insert(fresh),
        };
        if cause == PollCause::Transfer {
            // What comes shows that the last asking was heard, and that a lost rest is worth the next one soon.
            open.asked = open.asked.min(1);
        }
        if cause == PollCause::Due
            && now.saturating_sub(open.counted_at) >= patience.every
            && now > open.since
        {
            open.counted = open.counted.saturating_add(1);
            open.counted_at = now;
        }
        let needed = match open.asked {
            0 if at_once => 0,
            0 => patience.polls,
            asked => patience
                .polls
                .max(1)
                .saturating_mul(1 << (asked - 1).min(MAX_DOUBLINGS)),
        };
        let waited = now.saturating_sub(open.since) >= patience.every.saturating_mul(needed);
        if open.counted < needed || !waited {
            return None;
        }
        open.asked = open.asked.saturating_add(1);
        (open.counted, open.since) = (0, now);
        Some(range)
    }
}
