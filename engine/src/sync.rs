//! The shim for everything of atomics, locks and threads: std in life, loom in models
//! (`RUSTFLAGS="--cfg loom"`).
//!
//! Guarantees: a panic in one thread does not make a lock unusable for others, because what it guards
//! is checked by its own invariants and not by who held it; so [`Mutex::lock`] returns the guard
//! itself. Waits with a time limit are waits without one in a model: a lost wake-up is a deadlock
//! there, and loom reports it.
//!
//! [`Arc`] is std's in both worlds, because `Arc<dyn Storage>` needs its unsized form.

use std::sync::PoisonError;
use std::time::Duration;

pub use std::sync::Arc;

#[cfg(not(loom))]
pub use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

#[cfg(loom)]
pub use loom::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

#[cfg(loom)]
use loom::sync as below;
#[cfg(not(loom))]
use std::sync as below;

/// A lock without poisoning.
#[derive(Debug, Default)]
pub struct Mutex<T>(below::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around a value.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(below::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, from the only owner.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock for many readers or one writer, without poisoning.
#[derive(Debug, Default)]
pub struct RwLock<T>(below::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around a value.
    pub fn new(value: T) -> RwLock<T> {
        RwLock(below::RwLock::new(value))
    }

    /// Waits until no writer is in.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody is in.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a change of what a [`Mutex`] guards; may return early for no reason.
#[derive(Debug, Default)]
pub struct Condvar(below::Condvar);

impl Condvar {
    /// Nobody waits yet.
    #[must_use]
    pub fn new() -> Condvar {
        Condvar(below::Condvar::new())
    }

    /// Gives the lock back, waits, and takes it again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Condvar::wait`], for at most `limit`. The caller looks at the value and the clock.
    #[cfg(not(loom))]
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
        self.0
            .wait_timeout(guard, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// As [`Condvar::wait`]: no time passes in a model.
    #[cfg(loom)]
    pub fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, _limit: Duration) -> MutexGuard<'a, T> {
        self.wait(guard)
    }

    /// Wakes one who waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
