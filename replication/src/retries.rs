//! [`Retries`]: what fails, and when each of it is tried again: after a second, then after twice as long each time it fails again, a minute at most,
//! or less where even what works is looked at more often.
//!
//! Guarantees: what fails is left alone until its time, whatever else is done meanwhile; nothing else waits for it. One that answers late takes no more than half of
//! the time.

use std::collections::BTreeMap;
use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest: who polls once a day because links tell him of what comes does not wait for a day when his server was away for a night.
const LONGEST: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Retries<K> {
    longest: Duration,
    failing: BTreeMap<K, Failing>,
    /// When it was looked last what may be tried.
    looked_at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    pause: Duration,
    at: Duration,
}

impl<K: Ord> Retries<K> {
    /// Nothing fails yet; the pauses are never longer than `longest`, nor than a minute.
    pub(crate) fn at_most(longest: Duration) -> Retries<K> {
        Retries {
            longest: longest.min(LONGEST),
            failing: BTreeMap::new(),
            looked_at: Duration::ZERO,
        }
    }

    /// From now on it is `now`: what may be tried by now and is not is no reason to wake up for.
    pub(crate) fn look(&mut self, now: Duration) {
        self.looked_at = now;
    }

    /// True for what works, and for what fails when its time has come, as of the last look.
    pub(crate) fn may(&self, key: &K) -> bool {
        self.failing.get(key).is_none_or(|one| one.at <= self.looked_at)
    }

    /// It failed, which took so long.
    pub(crate) fn failed(&mut self, key: K, now: Duration, took: Duration) {
        let pause = match self.failing.get(&key) {
            // It was tried before its time, because somebody asked for it.
            Some(one) if one.at > self.looked_at => one.pause,
            Some(one) => one.pause.saturating_mul(2).min(self.longest),
            None => FIRST.min(self.longest),
        };
        let at = now.saturating_add(pause.max(took));
        self.failing.insert(key, Failing { pause, at });
    }

    /// It works, or is to be tried at once.
    pub(crate) fn works(&mut self, key: &K) {
        self.failing.remove(key);
    }

    /// Forgets what is not there any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.failing.retain(|key, _| is_there(key));
    }

    /// True when nothing fails.
    pub(crate) fn is_empty(&self) -> bool {
        self.failing.is_empty()
    }

    /// How long until the next of it is tried again.
    pub(crate) fn until(&self, now: Duration) -> Option<Duration> {
        let times = self.failing.values().map(|one| one.at);
        let next = times.filter(|at| *at > self.looked_at).min();
        next.map(|at| at.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Fails whenever it may be tried; tells when that was.
    fn tried(retries: &mut Retries<u8>, until: u64) -> Vec<u64> {
        let mut at = Vec::new();
        for now in 0..until {
            retries.look(seconds(now));
            if retries.may(&7) {
                at.push(now);
                retries.failed(7, seconds(now), Duration::ZERO);
            }
        }
        at
    }

    #[test]
    fn what_fails_is_tried_again_soon_and_then_ever_more_seldom_whatever_else_is_done() {
        let mut retries = Retries::at_most(seconds(10));
        assert_eq!(tried(&mut retries, 50), [0, 1, 3, 7, 15, 25, 35, 45]);
        assert!(retries.may(&8), "of others nothing is known");
        assert_eq!(retries.until(seconds(50)), Some(seconds(5)));
        retries.works(&7);
        assert!(retries.is_empty());
        assert_eq!(tried(&mut retries, 4), [0, 1, 3]);
        let mut daily = Retries::at_most(seconds(86_400));
        assert_eq!(tried(&mut daily, 200), [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        let mut hasty: Retries<u8> = Retries::at_most(Duration::from_millis(200));
        hasty.failed(1, Duration::ZERO, Duration::ZERO);
        assert_eq!(hasty.until(Duration::ZERO), Some(Duration::from_millis(200)));
    }

    #[test]
    fn what_answers_late_takes_half_of_the_time_and_what_was_left_alone_wakes_nobody() {
        let mut retries = Retries::at_most(seconds(60));
        retries.look(seconds(0));
        retries.failed(1, seconds(9), seconds(9));
        assert_eq!(retries.until(seconds(9)), Some(seconds(9)));
        assert_eq!(
            retries.until(seconds(30)),
            Some(Duration::ZERO),
            "it is time, and nobody has looked since"
        );
        retries.look(seconds(30));
        assert_eq!(retries.until(seconds(30)), None, "it was not due, then");
        assert!(retries.may(&1));
        retries.failed(2, seconds(30), Duration::ZERO);
        retries.failed(2, seconds(30), Duration::ZERO);
        assert_eq!(
            retries.until(seconds(30)),
            Some(seconds(1)),
            "asked for before its time"
        );
        retries.retain(|key| *key == 1);
        assert!(retries.may(&2));
    }
}
