//! [`Heartbeat`]: long work that says now and then how far it is.

use std::sync::Arc;
use std::time::Duration;

use milepost_engine::Store;
use milepost_engine::clock::Clock;

/// Between two sentences.
const EVERY: Duration = Duration::from_secs(2);

/// Due when nothing was said for two seconds.
pub(crate) struct Heartbeat {
    clock: Arc<dyn Clock>,
    said: Duration,
}

impl Heartbeat {
    /// The first is due two seconds from now.
    pub(crate) fn new(store: &Store) -> Heartbeat {
        let clock = Arc::clone(store.clock());
        let said = clock.monotonic();
        Heartbeat { clock, said }
    }

    /// Work begins: what lies before it was rest.
    pub(crate) fn begin(&mut self) {
        self.said = self.clock.monotonic();
    }

    /// True when it is time to say something; the next time is two seconds later.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = self.clock.monotonic();
        let due = now.saturating_sub(self.said) >= EVERY;
        if due {
            self.said = now;
        }
        due
    }
}
