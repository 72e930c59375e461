//! The store's own thread: syncs buffered commits, prepares spares, writes sidecars.
//!
//! It sleeps without a timer until somebody has appended; an idle store wakes nobody.

use std::sync::Arc;
use std::time::Duration;

use crate::log::Judge;
use crate::sync::{Condvar, Mutex, Ordering};
use crate::{Error, Lsn, Result};

use super::{Options, Shared, streams};

/// How the thread is told.
struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: bool,
    stopping: bool,
}

/// A handle's thread, or none.
pub(super) struct Background {
    signals: Arc<Signals>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Background {
    /// Starts the thread if the options ask for one.
    pub(super) fn start(shared: &Arc<Shared>, options: &Options) -> Background {
        let signals = Arc::new(Signals {
            state: Mutex::default(),
            changed: Condvar::default(),
        });
        let thread = options.background.then(|| {
            let (shared, signals) = (Arc::clone(shared), Arc::clone(&signals));
            let pause = options.buffered_sync;
            std::thread::Builder::new()
                .name("milepost".to_owned())
                .spawn(move || work(&shared, &signals, pause))
        });
        let thread = thread.and_then(|spawned| {
            let failed = |error: &std::io::Error| tracing::warn!(%error, "no thread for a store; commits sync by themselves");
            spawned.inspect_err(failed).ok()
        });
        Background {
            signals,
            thread: Mutex::new(thread),
        }
    }

    /// Says that there is something to sync, or a segment may have filled up.
    pub(super) fn something_to_do(&self) {
        let mut state = self.signals.state.lock();
        if !state.waiting {
            state.waiting = true;
            self.signals.changed.notify_one();
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.signals.state.lock().stopping = true;
        self.signals.changed.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("a store's thread panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(shared: &Shared, signals: &Signals, pause: Duration) {
    loop {
        {
            let mut state = signals.state.lock();
            while !state.waiting && !state.stopping {
                state = signals.changed.wait(state);
            }
            if state.stopping {
                return;
            }
        }
        shared.log.clock.sleep(pause);
        signals.state.lock().waiting = false;
        let outcome = shared
            .log
            .make_durable(shared.log.control.appended())
            .and_then(|()| shared.tend_files());
        if let Err(error) = outcome {
            // A dead handle says so at its next commit; lack of space is met again at the roll.
            tracing::warn!(%error, "background work of a store failed");
            if error.kind() == crate::ErrorKind::Closed {
                return;
            }
        }
    }
}

impl Shared {
    /// True once for every segment that has become half full.
    pub(super) fn wants_spare(&self) -> bool {
        let segment = streams::active_segment(&self.log);
        let used = self.log.control.appended().since(segment);
        // Segment 0 is marked by 1, which is nobody's first LSN.
        used * 2 >= self.identity.segment_bytes
            && self.spare_asked.swap(segment.0.max(1), Ordering::Relaxed) != segment.0.max(1)
    }

    /// Spare and sidecars: files that save time later and are needed by nobody.
    pub(super) fn tend_files(&self) -> Result<()> {
        self.log.prepare_spare()?;
        // Whole segments only: a store that is never asked for a stream leaves sidecars all the same,
        // and the first question does not have to read everything that was ever appended.
        let (tail, durable) = (
            super::streams::active_segment(&self.log),
            self.log.control.durable(),
        );
        if self.streams.index.end().0 <= tail && tail < durable {
            self.catch_up(durable)?;
        }
        self.streams.index.write_sealed()
    }
}

impl crate::log::Log {
    /// A clean end of a handle: what is appended is synced, and an empty block names it as durable.
    pub(crate) fn close(&self) -> Result<()> {
        let appended = self.control.appended();
        self.make_durable(appended)?;
        self.append_close(appended)
    }
}

impl Drop for super::Handle {
    fn drop(&mut self) {
        self.background.stop();
        let end: Result<Lsn, Error> = self
            .shared
            .log
            .make_durable(self.shared.log.control.appended())
            .map(|()| Lsn::ZERO);
        if let Err(error) = end {
            tracing::warn!(%error, "a store was dropped without its buffered commits being durable");
        }
    }
}
