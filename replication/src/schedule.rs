//! When a remote's turn to be sent to is: SEND EVERY, SEND AT, or neither.
//!
//! Pure functions of what was and what is now. The wall clock decides when something is sent, never what.

use std::time::Duration;

use crate::catalog::Schedule;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// How long until a remote's next turn, counted from now.
///
/// `last_turn` and `now` are monotonic; `wall_micros` is the wall clock now, microseconds since 1970 UTC.
/// A remote that had no turn yet in this process has it at once, unless it is sent to at a time of day.
/// `None` when the schedule names no time: such a remote makes every send run a batch run.
#[must_use]
pub fn until_next_turn(
    schedule: Schedule,
    last_turn: Option<Duration>,
    now: Duration,
    wall_micros: i64,
) -> Option<Duration> {
    match schedule {
        Schedule::None => None,
        Schedule::EverySeconds(seconds) => {
            let due = last_turn.map_or(now, |last| last.saturating_add(Duration::from_secs(seconds)));
            Some(due.saturating_sub(now))
        }
        Schedule::AtMinute(minute) => Some(until_minute(
            minute,
            last_turn.map(|last| now.saturating_sub(last)),
            wall_micros,
        )),
    }
}

/// How long until the wall clock says `minute` (of the day, UTC). The minute itself counts, once: not when
/// the last turn was less than a minute `ago`.
fn until_minute(minute: u16, ago: Option<Duration>, wall_micros: i64) -> Duration {
    let second_of_day = wall_micros.div_euclid(1_000_000).rem_euclid(86_400);
    let micros = wall_micros.rem_euclid(1_000_000);
    let since_midnight =
        Duration::from_secs(second_of_day.unsigned_abs()) + Duration::from_micros(micros.unsigned_abs());
    let begins = Duration::from_secs(u64::from(minute % 1440) * 60);
    let (ends, day) = (begins + Duration::from_secs(60), Duration::from_secs(DAY_SECONDS));
    let within = since_midnight >= begins && since_midnight < ends;
    let had = ago.is_some_and(|ago| ago < since_midnight.saturating_sub(begins).max(Duration::from_secs(60)));
    if within && !had {
        Duration::ZERO
    } else if since_midnight < begins {
        begins - since_midnight
    } else {
        day - since_midnight + begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn turns_come_when_the_schedule_says() {
        let s = Duration::from_secs;
        let table = [
            (Schedule::None, None, s(5), 0, None),
            (Schedule::EverySeconds(60), None, s(5), 0, Some(s(0))),
            (Schedule::EverySeconds(60), Some(s(5)), s(25), 0, Some(s(40))),
            (Schedule::EverySeconds(60), Some(s(5)), s(500), 0, Some(s(0))),
            // 02:00, asked at 01:00, within it, after it, and before 1970.
            (Schedule::AtMinute(120), None, s(5), HOUR, Some(s(3600))),
            (
                Schedule::AtMinute(120),
                None,
                s(5),
                2 * HOUR + 30_000_000,
                Some(s(0)),
            ),
            (
                Schedule::AtMinute(120),
                Some(s(0)),
                s(5),
                2 * HOUR + 30_000_000,
                Some(s(86_370)),
            ),
            (
                Schedule::AtMinute(120),
                Some(s(0)),
                s(86_400),
                2 * HOUR,
                Some(s(0)),
            ),
            (Schedule::AtMinute(120), None, s(5), 3 * HOUR, Some(s(23 * 3600))),
            (Schedule::AtMinute(120), None, s(5), -23 * HOUR, Some(s(3600))),
        ];
        for (schedule, last, now, wall, expected) in table {
            assert_eq!(
                until_next_turn(schedule, last, now, wall),
                expected,
                "{schedule:?} {last:?} {wall}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_time_of_day_is_never_more_than_a_day_away(minute in 0u16..1440, wall in any::<i64>(), ago in proptest::option::of(0u64..200_000)) {
            let now = Duration::from_secs(300_000);
            let last = ago.map(|ago| now - Duration::from_secs(ago));
            let wait = until_next_turn(Schedule::AtMinute(minute), last, now, wall).unwrap();
            prop_assert!(wait <= Duration::from_secs(DAY_SECONDS));
        }
    }
}
