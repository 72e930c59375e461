//! [`Courtesy`]: letting others run before one sleeps, as long as that is cheap.
//!
//! ```text
//! a yield comes back soon  ─► the others were committers: go on so, and forget a little of what was dear
//! a yield takes a slice of somebody else's work ─► not again for 64 times, then 256, … 65,536
//! ```
//!
//! Where other work wants the processors, whoever yields gives all of a time slice away, three milliseconds and more, while one that sleeps
//! and is woken is let in at once: commits were forty times slower beside two busy programs. A guess, by which no answer changes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sync::thread;

/// A yield that takes longer went to other work: a crowd of committers has its turn sooner.
const SLOW: Duration = Duration::from_millis(1);
/// How many are left out after the first that is slow, and at most.
const LEFT_OUT: u32 = 64;
const MOST_LEFT_OUT: u32 = 65_536;
/// With each cheap one this part of that is forgotten.
const FORGOTTEN: u32 = 64;

/// See the module. Its words order nothing, so models leave them out.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// So many are left out from now on.
    left_out: AtomicU32,
    /// So many were, the last time, as far as that is not forgotten.
    before: AtomicU32,
}

impl Courtesy {
    /// Lets others run once; false when that is dear, and whoever waits had better sleep.
    pub(super) fn give_way(&self, now: impl Fn() -> Duration) -> bool {
        let left = self.left_out.load(Ordering::Relaxed);
        if left > 0 {
            self.left_out.store(left - 1, Ordering::Relaxed);
            return false;
        }
        let began = now();
        thread::yield_now();
        let is_cheap = now().saturating_sub(began) < SLOW;
        if self.left_out.load(Ordering::Relaxed) > 0 {
            // Others waited for the same, and one has counted it.
            return is_cheap;
        }
        let before = self.before.load(Ordering::Relaxed);
        let next = match is_cheap {
            true => before.saturating_sub(before / FORGOTTEN + 1),
            false => before.saturating_mul(4).clamp(LEFT_OUT, MOST_LEFT_OUT),
        };
        if next != before {
            self.before.store(next, Ordering::Relaxed);
        }
        if !is_cheap {
            self.left_out.store(next, Ordering::Relaxed);
        }
        is_cheap
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How many of so many calls yield, when each yield takes so long.
    fn yields(courtesy: &Courtesy, calls: u32, millis: u64) -> u32 {
        let (time, looks) = (Cell::new(Duration::ZERO), Cell::new(0_u32));
        for _ in 0..calls {
            courtesy.give_way(|| {
                looks.set(looks.get() + 1);
                if looks.get() % 2 == 0 {
                    time.set(time.get() + Duration::from_millis(millis));
                }
                time.get()
            });
        }
        looks.get() / 2
    }

    #[test]
    fn yields_that_are_dear_are_left_out_ever_longer_and_cheap_ones_come_back() {
        let courtesy = Courtesy::default();
        assert_eq!(yields(&courtesy, 1_000, 0), 1_000);
        for left_out in [64, 256, 1_024] {
            assert_eq!(yields(&courtesy, 1 + left_out, 3), 1);
        }
        assert_eq!(
            yields(&courtesy, 1_000_000, 3),
            17,
            "it is tried again now and then"
        );
        while yields(&courtesy, 1, 0) == 0 {}
        assert_eq!(yields(&courtesy, 1_000, 0), 1_000, "at once");
        assert_eq!(yields(&courtesy, 65, 3), 1, "it begins anew");
    }

    /// Of yields beside a busy program some are cheap.
    #[test]
    fn a_few_cheap_ones_do_not_make_the_others_forgotten() {
        let courtesy = Courtesy::default();
        yields(&courtesy, 1_000_000, 3);
        while yields(&courtesy, 1, 0) == 0 {}
        assert_eq!(yields(&courtesy, 20, 0), 20);
        assert_eq!(yields(&courtesy, 60_000, 3), 1);
    }
}
