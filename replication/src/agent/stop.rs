//! [`Stop`]: asks the phases of an agent to finish what is in hand and leave; [`Naps`]: how often they look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Longest nap without looking whether to stop.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The same for who had nothing to do for a minute.
const LOOK_WHEN_IDLE: Duration = Duration::from_secs(1);

/// Naps of a phase that waits for something to do: the longer it was idle, the longer they are, up to a second.
#[derive(Debug)]
pub(super) struct Naps {
    /// When there was something to do last, on the monotonic clock.
    busy: Duration,
}

impl Naps {
    pub(super) fn new(now: Duration) -> Naps {
        Naps { busy: now }
    }

    /// There was something to do.
    pub(super) fn end(&mut self, now: Duration) {
        self.busy = now;
    }

    /// How long the next one may be.
    pub(super) fn next(&self, now: Duration) -> Duration {
        (now.saturating_sub(self.busy) / 60).clamp(LOOK_EVERY, LOOK_WHEN_IDLE)
    }
}

/// A request to stop, shared by whoever asks and all who listen. Once made it stays.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requested: AtomicBool,
    told: Notify,
}

impl Stop {
    /// No request yet.
    #[must_use]
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks to finish what is in hand and leave. Nothing is lost, also by leaving at once instead.
    pub fn request(&self) {
        self.shared.requested.store(true, Ordering::Release);
        self.shared.told.notify_waiters();
    }

    /// True once asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// Waits until asked.
    pub async fn requested(&self) {
        let told = self.shared.told.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if !self.is_requested() {
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_grow_with_idleness_to_a_second_and_are_short_again_after_work() {
        let at = Duration::from_secs;
        let mut naps = Naps::new(at(10));
        let of = |naps: &Naps, now| naps.next(at(now)).as_millis();
        assert_eq!(
            [10, 16, 40, 70, 9_000].map(|now| of(&naps, now)),
            [100, 100, 500, 1_000, 1_000]
        );
        naps.end(at(9_000));
        assert_eq!(of(&naps, 9_000), 100);
    }
}
