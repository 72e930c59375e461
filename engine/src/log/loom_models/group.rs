//! The handover of a group commit: whoever submits gets the result of its own request, one leads at a
//! time, and nobody waits for a leader that is not there.

use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::group::{Group, Write};
use super::explored;
use crate::sync::{Condvar, Ordering};

/// A log of which only the length is known. Its writers are in nobody's way, or the group failed.
#[derive(Default)]
struct Counted {
    writers: AtomicU64,
    len: AtomicU64,
}

impl Write<u64, (u64, u64)> for Counted {
    fn bytes(&self, _: &u64) -> u64 {
        1
    }

    fn write(&self, requests: &[u64]) -> Vec<(u64, u64)> {
        // Relaxed: only the group's own lock may order one leader before the next.
        assert_eq!(
            self.writers.fetch_add(1, Ordering::Relaxed),
            0,
            "two lead at once"
        );
        let at = self.len.load(Ordering::Relaxed);
        let placed = requests.iter().copied().zip(at..).collect::<Vec<_>>();
        self.len.store(at + placed.len() as u64, Ordering::Relaxed);
        self.writers.fetch_sub(1, Ordering::Relaxed);
        placed
    }

    fn lost(&self) -> (u64, u64) {
        unreachable!("no leader panics here")
    }
}

/// Three callers submit, one of them twice; a lost wake-up is a deadlock.
fn three_submit(wake: fn(&Condvar)) {
    explored(move || {
        let (group, log) = (Arc::new(Group::woken_by(wake)), Arc::new(Counted::default()));
        let callers = [1, 2].map(|request| {
            let (group, log) = (Arc::clone(&group), Arc::clone(&log));
            thread::spawn(move || (request, group.submit(request, &*log)))
        });
        let mut results = [3, 4]
            .map(|request| (request, group.submit(request, &*log)))
            .to_vec();
        results.extend(callers.map(|caller| caller.join().unwrap()));
        for (request, (answered, _)) in &results {
            assert_eq!(request, answered, "a caller has another's result");
        }
        let mut places: Vec<u64> = results.iter().map(|(_, (_, place))| *place).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3], "each request is written once");
    });
}

#[test]
fn each_caller_gets_its_own_result_once_and_nobody_waits_without_a_leader() {
    three_submit(Condvar::notify_all);
}

/// One wake-up reaches a caller whose result is there; it leaves, and who still has to be written waits
/// for a leader that nobody is.
#[test]
#[should_panic(expected = "deadlock")]
fn a_leader_that_wakes_one_caller_only_leaves_others_waiting() {
    three_submit(Condvar::notify_one);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_leader_that_wakes_nobody_leaves_others_waiting() {
    three_submit(|_| ());
}
