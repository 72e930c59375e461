//! [`Turn`]: when a remote may be sent to. A turn opens by the schedule and closes once the remote was sent
//! what was durable when it was first sent something.
//!
//! ```text
//! closed ── its time comes ──► open, nothing sent ── something sent ──► open, to the durable end of then
//!    ▲ └───── somebody asks (--send-now) ─────────────────────────────────► open, to the end of then
//!    │                             │ SEND AT: its minute is over              │ all of it handed to the link
//!    └─────────────────────────────┴──────────────────────────────────────────┘
//! ```
//!
//! So one that finds half of a backlog scanned waits for the other half, and one whose link fails in the
//! middle goes on when it works again, not an hour or a day later.

use std::time::Duration;

use milepost_engine::Lsn;

use crate::catalog::Schedule;
use crate::schedule::until_next_turn;

/// The turns of one remote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// When the last one closed, by the monotonic clock.
    closed_at: Option<Duration>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// End of the log that it has to reach, once something was sent.
    target: Option<Lsn>,
}

/// What serving a remote came to.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// A message was handed to the link.
    pub sent: bool,
    /// The link took all there was.
    pub all: bool,
    /// Durable end of the log before.
    pub durable: Lsn,
}

impl Turn {
    /// How long until the next turn, none while one is open; `None` without a schedule.
    #[must_use]
    pub fn until(&self, schedule: Schedule, now: Duration, wall_micros: i64) -> Option<Duration> {
        match self.open {
            Some(_) => Some(Duration::ZERO),
            None => until_next_turn(schedule, self.closed_at, now, wall_micros),
        }
    }

    /// Opens the turn if its time has come; true while it is open.
    pub fn open(&mut self, schedule: Schedule, now: Duration, wall_micros: i64) -> bool {
        let due = until_next_turn(schedule, self.closed_at, now, wall_micros) == Some(Duration::ZERO);
        match self.open {
            None if due => self.open = Some(Open { target: None }),
            Some(Open { target: None }) if !due => self.open = None,
            _ => {}
        }
        self.open.is_some()
    }

    /// True while it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens the turn, or keeps it open, until everything up to `end` is sent: somebody asked.
    pub fn ask(&mut self, end: Lsn) {
        let open = self.open.get_or_insert(Open { target: None });
        open.target = Some(open.target.map_or(end, |target| target.max(end)));
    }

    /// Notes what came of serving; `reached` says whether everything up to an end of the log was scanned.
    pub fn served<E>(
        &mut self,
        served: Served,
        now: Duration,
        reached: impl FnOnce(Lsn) -> Result<bool, E>,
    ) -> Result<(), E> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if served.sent {
            open.target.get_or_insert(served.durable);
        }
        if let Some(target) = open.target
            && served.all
            && reached(target)?
        {
            (self.open, self.closed_at) = (None, Some(now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURLY: Schedule = Schedule::EverySeconds(3600);
    /// At 02:00.
    const NIGHTLY: Schedule = Schedule::AtMinute(120);
    const TWO: i64 = 2 * 3_600_000_000;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn serve(turn: &mut Turn, sent: bool, all: bool, durable: u64, scanned: u64, now: u64) {
        let served = Served {
            sent,
            all,
            durable: Lsn(durable),
        };
        let reached = |target: Lsn| Ok::<_, ()>(Lsn(scanned) >= target);
        turn.served(served, seconds(now), reached).unwrap();
    }

    /// An agent that started with a backlog sent what was scanned in its first milliseconds, and the rest an
    /// hour later.
    #[test]
    fn a_turn_stays_open_until_all_that_was_there_is_scanned_and_sent() {
        let mut turn = Turn::default();
        assert!(turn.open(HOURLY, seconds(0), 0));
        serve(&mut turn, true, true, 100, 10, 1);
        assert!(turn.open(HOURLY, seconds(1), 0), "the scan is behind");
        serve(&mut turn, false, true, 200, 99, 2);
        assert!(turn.open(HOURLY, seconds(2), 0));
        serve(&mut turn, true, true, 200, 100, 3);
        assert!(
            !turn.open(HOURLY, seconds(3), 0),
            "what was committed later waits"
        );
        assert_eq!(turn.until(HOURLY, seconds(3), 0), Some(seconds(3600)));
    }

    /// The link failed after six messages, worked again three seconds later, and nothing more was sent that day.
    #[test]
    fn a_link_that_fails_in_the_middle_keeps_the_turn_open_beyond_its_minute() {
        let mut turn = Turn::default();
        assert!(turn.open(NIGHTLY, seconds(9), TWO));
        serve(&mut turn, true, false, 100, 100, 9);
        assert!(turn.open(NIGHTLY, seconds(300), TWO + 300_000_000));
        serve(&mut turn, true, true, 500, 500, 300);
        assert!(!turn.open(NIGHTLY, seconds(301), TWO + 301_000_000));
    }

    #[test]
    fn who_asks_opens_a_turn_that_closes_once_all_up_to_there_is_sent_and_the_next_comes_in_its_time() {
        let mut turn = Turn::default();
        assert!(!turn.open(NIGHTLY, seconds(9), TWO + 300_000_000));
        turn.ask(Lsn(100));
        assert!(turn.open(NIGHTLY, seconds(9), TWO + 300_000_000));
        serve(&mut turn, true, true, 200, 99, 10);
        assert!(
            turn.open(NIGHTLY, seconds(10), TWO + 301_000_000),
            "not all is scanned"
        );
        turn.ask(Lsn(150));
        serve(&mut turn, true, true, 200, 149, 11);
        assert!(
            turn.open(NIGHTLY, seconds(11), TWO + 302_000_000),
            "somebody asked again"
        );
        serve(&mut turn, false, true, 200, 150, 12);
        assert!(
            !turn.open(NIGHTLY, seconds(12), TWO + 303_000_000),
            "also with nothing to send"
        );
        turn.ask(Lsn(160));
        assert!(
            turn.open(Schedule::None, seconds(13), 0),
            "also without a schedule"
        );
    }

    #[test]
    fn a_turn_in_which_nothing_is_due_waits_for_the_next_commit_or_until_its_minute_is_over() {
        let mut turn = Turn::default();
        assert!(turn.open(HOURLY, seconds(0), 0));
        serve(&mut turn, false, true, 100, 100, 1);
        assert!(turn.open(HOURLY, seconds(5000), 0));
        serve(&mut turn, true, true, 120, 120, 5000);
        assert!(!turn.open(HOURLY, seconds(5001), 0));
        let mut turn = Turn::default();
        assert!(turn.open(NIGHTLY, seconds(9), TWO));
        serve(&mut turn, false, true, 100, 100, 10);
        assert!(!turn.open(NIGHTLY, seconds(80), TWO + 71_000_000));
        assert!(!Turn::default().open(Schedule::None, seconds(0), 0));
    }
}
