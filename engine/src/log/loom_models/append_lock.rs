//! Who waits for the append lock: the holder wakes those who said that they wait, and nobody waits for a lock that is
//! free (E5). Time does not pass in a model, so that a wait which only ends by looking again is a deadlock.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::control::{Control, LOOK_AGAIN};
use super::super::lock::{APPEND, AppendLock};
use super::{NoTime, control_of, explored};
use crate::storage::{Cell, LockMode, Mapping, StorageFile};
use crate::sync::{Mutex, Ordering};

/// A file of one lock. The kernel orders who gives it back before who takes it next.
#[derive(Default)]
struct OneLock(Mutex<bool>);

impl StorageFile for OneLock {
    fn try_lock(&self, _: u64, _: LockMode) -> io::Result<bool> {
        Ok(!std::mem::replace(&mut *self.0.lock(), true))
    }

    fn unlock(&self, _: u64) -> io::Result<()> {
        *self.0.lock() = false;
        Ok(())
    }

    fn is_locked(&self, _: u64) -> io::Result<bool> {
        Ok(*self.0.lock())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        unreachable!("nobody reads")
    }

    fn write_at(&self, _: &[&[u8]], _: u64) -> io::Result<usize> {
        unreachable!("nobody writes")
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("nobody writes")
    }

    fn release(&self, _: Range<u64>) -> io::Result<()> {
        unreachable!("nobody writes")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("nobody writes")
    }

    fn len(&self) -> io::Result<u64> {
        unreachable!("nobody reads")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("nobody writes")
    }

    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        unreachable!("nobody reads")
    }
}

/// How the lock is taken and given back.
#[derive(Clone, Copy)]
struct Way {
    take: fn(&OneLock, &Control),
    give_back: fn(&OneLock, &Control),
}

/// The steps of [`AppendLock`], to be weakened one at a time.
const IN_ORDER: Way = Way {
    take: |file, control| {
        loop {
            let seen = control.cells().load(Cell::WakeAppend);
            if taken(file) {
                return;
            }
            control.cells().store(Cell::AppendWaiters, 1);
            if taken(file) {
                return;
            }
            control.cells().wait(Cell::WakeAppend, seen, LOOK_AGAIN);
        }
    },
    give_back: |file, control| {
        file.unlock(APPEND).unwrap();
        wake(control);
    },
};

fn taken(file: &OneLock) -> bool {
    file.try_lock(APPEND, LockMode::Exclusive).unwrap()
}

fn wake(control: &Control) {
    if control.cells().load(Cell::AppendWaiters) != 0 {
        control.cells().store(Cell::AppendWaiters, 0);
        control.bump(Cell::WakeAppend);
    }
}

/// Three processes take the lock once each; who is inside is alone.
fn three_append(append: impl Fn(&Arc<OneLock>, &Control, &AtomicU64) + Copy + Send + Sync + 'static) {
    explored(move || {
        let control = control_of(Ordering::Acquire, Ordering::Release);
        let (file, inside) = (Arc::new(OneLock::default()), Arc::new(AtomicU64::new(0)));
        let others = [(); 2].map(|()| {
            let (control, file, inside) = (control.clone(), Arc::clone(&file), Arc::clone(&inside));
            thread::spawn(move || append(&file, &control, &inside))
        });
        append(&file, &control, &inside);
        for other in others {
            other.join().unwrap();
        }
    });
}

fn alone(inside: &AtomicU64) {
    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two hold the lock");
    inside.fetch_sub(1, Ordering::Relaxed);
}

fn by(way: Way) {
    three_append(move |file, control, inside| {
        (way.take)(file, control);
        alone(inside);
        (way.give_back)(file, control);
    });
}

#[test]
fn whoever_waits_for_the_append_lock_is_woken() {
    three_append(|file, control, inside| {
        let shared: Arc<dyn StorageFile> = Arc::clone(file) as _;
        let lock = AppendLock::take(&shared, control, &NoTime, Duration::from_secs(1), 7);
        let Ok(lock) = lock else {
            panic!("the lock comes free")
        };
        alone(inside);
        drop(lock);
    });
    by(IN_ORDER);
}

#[test]
#[should_panic(expected = "deadlock")]
fn who_does_not_ask_again_after_saying_that_it_waits_may_wait_for_ever() {
    let take = |file: &OneLock, control: &Control| {
        loop {
            let seen = control.cells().load(Cell::WakeAppend);
            if taken(file) {
                return;
            }
            control.cells().store(Cell::AppendWaiters, 1);
            control.cells().wait(Cell::WakeAppend, seen, LOOK_AGAIN);
        }
    };
    by(Way { take, ..IN_ORDER });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_is_missed_when_its_counter_is_read_after_the_lock_was_asked_for() {
    let take = |file: &OneLock, control: &Control| {
        while !taken(file) {
            control.cells().store(Cell::AppendWaiters, 1);
            if taken(file) {
                return;
            }
            let seen = control.cells().load(Cell::WakeAppend);
            control.cells().wait(Cell::WakeAppend, seen, LOOK_AGAIN);
        }
    };
    by(Way { take, ..IN_ORDER });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_holder_that_looks_for_waiters_before_it_gives_the_lock_back_misses_some() {
    let give_back = |file: &OneLock, control: &Control| {
        wake(control);
        file.unlock(APPEND).unwrap();
    };
    by(Way {
        give_back,
        ..IN_ORDER
    });
}

/// The mark is taken away before the wake, not behind it: else it takes that of who came in between along.
#[test]
#[should_panic(expected = "deadlock")]
fn a_holder_that_takes_the_mark_away_after_the_wake_takes_anothers_along() {
    let give_back = |file: &OneLock, control: &Control| {
        file.unlock(APPEND).unwrap();
        if control.cells().load(Cell::AppendWaiters) != 0 {
            control.bump(Cell::WakeAppend);
            control.cells().store(Cell::AppendWaiters, 0);
        }
    };
    by(Way {
        give_back,
        ..IN_ORDER
    });
}
