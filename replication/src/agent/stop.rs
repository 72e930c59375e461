//! [`Stop`]: asks the phases of an agent to finish what is in hand and leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Longest nap without looking whether to stop.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

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
