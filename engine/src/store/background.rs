//! The store's own thread: syncs buffered commits, prepares spares, writes sidecars.
//!
//! It sleeps without a timer until somebody has appended; an idle store wakes nobody, but one whose log is kept by age: time
//! frees that without a commit, so the thread looks soon after opening and once a minute. What fails is tried
//! again until it succeeds or the handle is dead.

use std::sync::Arc;
use std::time::Duration;

use crate::log::Judge;
use crate::sync::{Condvar, Mutex, Ordering};
use crate::{Error, ErrorKind, Result};

use super::{Options, Shared, streams};

/// How the thread is told.
struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: bool,
    /// Told to end, or ended by itself.
    ended: bool,
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
                .spawn(move || {
                    let ends = Ends(signals);
                    work(&shared, &ends.0, pause);
                })
        });
        let thread = thread.and_then(|spawned| {
            let failed = |error: &std::io::Error| {
                tracing::warn!(%error, "no thread for a store; buffered commits are synced at once");
                signals.state.lock().ended = true;
            };
            spawned.inspect_err(failed).ok()
        });
        Background {
            signals,
            thread: Mutex::new(thread),
        }
    }

    /// Says that there is something to sync, or a segment may have filled up. False when nobody will do
    /// it any more; a store that was opened without a thread has its caller for that.
    pub(super) fn something_to_do(&self) -> bool {
        let mut state = self.signals.state.lock();
        if !state.waiting {
            state.waiting = true;
            self.signals.changed.notify_one();
        }
        !state.ended
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.signals.state.lock().ended = true;
        self.signals.changed.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("a store's thread panicked");
        }
    }

    /// For a forked child, in which the thread does not exist.
    fn forget(&self) {
        std::mem::forget(self.thread.lock().take());
    }
}

/// Says that the thread has ended, also when it panicked.
struct Ends(Arc<Signals>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
    }
}

/// How long the thread rests after a failure that may pass.
const REST: Duration = Duration::from_millis(200);

/// How often the thread looks at most whether segments may be freed.
const FREE_AGAIN: Duration = Duration::from_secs(1);

/// How often it looks whether time has freed some of an idle log.
const FREE_IDLE: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(60)
};

/// Waits until there is something to do or `idle` is over, true then.
fn rest(shared: &Shared, signals: &Signals, idle: Option<Duration>) -> bool {
    let (clock, mut state) = (&shared.log.clock, signals.state.lock());
    let begun = clock.monotonic();
    while !state.waiting && !state.ended {
        let Some(idle) = idle else {
            state = signals.changed.wait(state);
            continue;
        };
        let left = idle.saturating_sub(clock.monotonic().saturating_sub(begun));
        if left.is_zero() {
            return true;
        }
        state = signals.changed.wait_for(state, left);
    }
    false
}

/// Frees what time has let go of an idle log; how long to wait for the next look, or that there is none.
fn free_idle(shared: &Shared, failing: &mut bool) -> Option<Duration> {
    let freed = shared.free().and_then(|_| shared.is_kept_by_age());
    let failed = freed.is_err();
    if let Err(error) = &freed
        && !*failing
    {
        tracing::warn!(%error, "whether segments are old enough to go is not known; it is asked again");
    }
    *failing = failed;
    freed.unwrap_or(true).then_some(FREE_IDLE)
}

fn work(shared: &Shared, signals: &Signals, pause: Duration) {
    let (mut pause, mut failing) = (pause, false);
    let (mut freed, mut unfreed) = (None, false);
    // Short-lived processes leave it to others.
    let mut idle = Some(FREE_AGAIN);
    loop {
        if rest(shared, signals, idle) {
            idle = free_idle(shared, &mut unfreed);
            continue;
        }
        {
            let mut state = signals.state.lock();
            let clock = &shared.log.clock;
            let begun = clock.monotonic();
            while let Some(left) = pause.checked_sub(clock.monotonic().saturating_sub(begun)) {
                if left.is_zero() || state.ended {
                    break;
                }
                state = signals.changed.wait_for(state, left);
            }
            if state.ended {
                return;
            }
            state.waiting = false;
        }
        let synced = shared.log.make_durable(shared.log.control.appended());
        let mut tended = synced.as_ref().map_or(Ok(false), |()| tend(shared, signals));
        let now = shared.log.clock.monotonic();
        if synced.is_ok() && freed.is_none_or(|last| now.saturating_sub(last) >= FREE_AGAIN) {
            (freed, idle) = (Some(now), Some(FREE_IDLE));
            tended = tended.and_then(|more| shared.free().map(|_| more));
        }
        let mut errors = synced.as_ref().err().into_iter().chain(tended.as_ref().err());
        if let Some(error) = errors.find(|error| error.kind() == ErrorKind::Closed) {
            // Its next commit is told the same.
            tracing::warn!(%error, "a store's handle is dead");
            return;
        }
        match tended {
            Ok(more) => signals.state.lock().waiting |= more,
            Err(error) => {
                tracing::warn!(%error, "the store's files are not tended; commits go on without");
            }
        }
        pause = shared.buffered_sync;
        let failed = synced.is_err();
        if let Err(error) = synced {
            if !failing {
                tracing::warn!(%error, "buffered commits are not synced yet; tried again until they are");
            }
            signals.state.lock().waiting = true;
            pause = pause.max(REST);
        }
        failing = failed;
    }
}

/// Files that save time or space later. What takes long syncs buffered commits as it goes, and ends when the handle
/// does. True when there may be more to do.
fn tend(shared: &Shared, signals: &Signals) -> Result<bool> {
    shared.tend_files()?;
    let log = &shared.log;
    let mut step = |_| {
        if signals.state.lock().ended {
            return Err(Error::unavailable("the store is being closed"));
        }
        log.make_durable(log.control.appended())
    };
    match shared.tend_forms(&mut step) {
        Err(error) if error.kind() == ErrorKind::Unavailable && signals.state.lock().ended => Ok(false),
        other => other,
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
        self.follow_freed()?;
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
        self.append_close(appended)?;
        crate::log::newest::write_closed(&**self.dir.storage(), self.dir.owner().id, appended);
        Ok(())
    }
}

impl Drop for super::Handle {
    fn drop(&mut self) {
        let log = &self.shared.log;
        if log.check_process().is_err() {
            self.background.forget();
            return;
        }
        self.background.stop();
        if let Err(error) = log.make_durable(log.control.appended()) {
            tracing::warn!(%error, "a store was dropped without its buffered commits being durable");
        }
    }
}
