//! [`Turn`]: when a remote is sent to (SEND EVERY, SEND AT).

use std::time::Duration;

use milepost_engine::clock::Clock;

use crate::catalog::Schedule;

const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
const MINUTE_MICROS: i64 = 60 * 1_000_000;

/// One remote's schedule as a process follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    schedule: Schedule,
    /// Monotonic time at which the next turn begins; `None` for none but in batch.
    next: Option<Duration>,
}

impl Turn {
    /// The first turn under a schedule: at once for a pause, at its minute for a time of day.
    #[must_use]
    pub fn first(schedule: Schedule, clock: &dyn Clock) -> Turn {
        let now = clock.monotonic();
        let next = match schedule {
            Schedule::None => None,
            Schedule::EverySeconds(_) => Some(now),
            Schedule::AtMinute(minute) => Some(now.saturating_add(until_minute(minute, clock))),
        };
        Turn { schedule, next }
    }

    /// The schedule followed.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// True when the turn has come.
    #[must_use]
    pub fn has_come(&self, now: Duration) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// When the next turn begins.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.next
    }

    /// The turn is over.
    pub fn ended(&mut self, clock: &dyn Clock) {
        let now = clock.monotonic();
        self.next = match self.schedule {
            Schedule::None => None,
            Schedule::EverySeconds(seconds) => Some(now.saturating_add(Duration::from_secs(seconds))),
            Schedule::AtMinute(minute) => Some(now.saturating_add(until_minute(minute, clock))),
        };
    }
}

/// Time to the next beginning of a minute of the day (UTC), never none. It paces sending and decides
/// nothing about data.
fn until_minute(minute: u16, clock: &dyn Clock) -> Duration {
    let today = clock.wall_micros().rem_euclid(DAY_MICROS);
    let left = (i64::from(minute) * MINUTE_MICROS - today).rem_euclid(DAY_MICROS);
    let left = if left == 0 { DAY_MICROS } else { left };
    Duration::from_micros(u64::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// A clock whose two readings move together.
    struct Still(AtomicI64);

    impl Clock for Still {
        fn wall_micros(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_micros(u64::try_from(self.wall_micros()).unwrap())
        }

        fn sleep(&self, pause: Duration) {
            self.0.fetch_add(i64::try_from(pause.as_micros()).unwrap(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_pause_begins_at_once_and_counts_from_the_end_of_a_turn() {
        let clock = Still(AtomicI64::new(5_000_000));
        let mut turn = Turn::first(Schedule::EverySeconds(30), &clock);
        assert!(turn.has_come(clock.monotonic()));
        turn.ended(&clock);
        clock.sleep(Duration::from_secs(29));
        assert!(!turn.has_come(clock.monotonic()));
        clock.sleep(Duration::from_secs(1));
        assert!(turn.has_come(clock.monotonic()));
    }

    #[test]
    fn a_time_of_day_comes_once_a_day() {
        let noon = 12 * 60 * MINUTE_MICROS;
        let clock = Still(AtomicI64::new(noon));
        let mut turn = Turn::first(Schedule::AtMinute(12 * 60 + 30), &clock);
        assert!(!turn.has_come(clock.monotonic()));
        clock.sleep(Duration::from_secs(30 * 60));
        assert!(turn.has_come(clock.monotonic()));
        turn.ended(&clock);
        clock.sleep(Duration::from_secs(24 * 60 * 60 - 1));
        assert!(!turn.has_come(clock.monotonic()));
        clock.sleep(Duration::from_secs(1));
        assert!(turn.has_come(clock.monotonic()));
    }

    #[test]
    fn a_remote_without_a_schedule_has_no_turn() {
        let clock = Still(AtomicI64::new(0));
        assert!(!Turn::first(Schedule::None, &clock).has_come(Duration::MAX));
    }
}
