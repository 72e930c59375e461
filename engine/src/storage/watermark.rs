//! [`Watermark`]: a monotonic position in the control page, with waiters in all processes.
//!
//! ```text
//! raise: level := max(level, to)     wait: seen := counter
//!        counter += 1                      level reached? done
//!        wake counter                      sleep while counter = seen
//! ```
//!
//! The counter is read before the level and moved after it, so a raise that a waiter does not see
//! moves the counter that it sleeps on: no wake-up is lost. The level is never lowered.

use std::sync::Arc;
use std::time::Duration;

use super::{Cell, SharedCells};

/// Longest sleep before a waiter looks again, whatever happens to those who would wake it (E5).
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A word that only rises, and the counter its waiters sleep on.
#[derive(Clone)]
pub struct Watermark {
    cells: Arc<dyn SharedCells>,
    level: Cell,
    counter: Cell,
}

impl Watermark {
    /// The watermark in `level`; raises move `counter`.
    #[must_use]
    pub fn new(cells: Arc<dyn SharedCells>, level: Cell, counter: Cell) -> Watermark {
        Watermark {
            cells,
            level,
            counter,
        }
    }

    /// How far it is.
    #[must_use]
    pub fn level(&self) -> u64 {
        self.cells.load(self.level)
    }

    /// Raises it to at least `to` and wakes all who wait; true when this call raised it.
    pub fn raise(&self, to: u64) -> bool {
        let raised = self.cells.raise(self.level, to);
        if raised {
            let mut count = self.cells.load(self.counter);
            while let Err(found) = self
                .cells
                .compare_exchange(self.counter, count, count.wrapping_add(1))
            {
                count = found;
            }
            self.cells.wake(self.counter);
        }
        raised
    }

    /// Sleeps once, for at most `limit` and at most 10 ms, unless the level is at least `reached`;
    /// true when it is. The caller looks at its clock and calls again.
    #[must_use]
    pub fn wait(&self, reached: u64, limit: Duration) -> bool {
        let seen = self.cells.load(self.counter);
        if self.level() >= reached {
            return true;
        }
        self.cells.wait(self.counter, seen, limit.min(LOOK_AGAIN));
        self.level() >= reached
    }
}
