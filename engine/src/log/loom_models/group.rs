//! The handover of a group commit: whoever submits gets the result of its own request, one writes and one syncs
//! at a time, and nobody waits for a leader that is not there.

use std::sync::Arc;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::super::group::{Group, Wait, Wakes, Write};
use super::explored;
use crate::Lsn;
use crate::sync::{Condvar, Ordering};

/// A log of which only lengths are known. Its writers are in nobody's way, nor its syncers, or the group failed.
#[derive(Default)]
struct Counted {
    writers: AtomicU64,
    syncers: AtomicU64,
    len: AtomicU64,
    synced: AtomicU64,
}

impl Write<u64, (u64, u64)> for Counted {
    fn now(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn bytes(&self, _: &u64) -> u64 {
        1
    }

    fn write(&self, requests: &[u64]) -> Vec<(u64, u64)> {
        // Relaxed: only the group's own lock may order one leader before the next.
        assert_eq!(
            self.writers.fetch_add(1, Ordering::Relaxed),
            0,
            "two write at once"
        );
        let at = self.len.load(Ordering::Relaxed);
        let placed = requests.iter().copied().zip(at..).collect::<Vec<_>>();
        self.len.store(at + placed.len() as u64, Ordering::Relaxed);
        self.writers.fetch_sub(1, Ordering::Relaxed);
        placed
    }

    fn due(&self, results: &[(u64, u64)]) -> Lsn {
        Lsn(results.iter().map(|(_, place)| place + 1).max().unwrap_or(0))
    }

    fn sync(&self, due: Lsn) {
        assert_eq!(
            self.syncers.fetch_add(1, Ordering::Relaxed),
            0,
            "two sync at once"
        );
        let synced = self.synced.load(Ordering::Relaxed);
        self.synced.store(synced.max(due.0), Ordering::Relaxed);
        self.syncers.fetch_sub(1, Ordering::Relaxed);
    }

    fn lost(&self) -> (u64, u64) {
        unreachable!("no leader panics here")
    }
}

const ALL: Wakes = Wakes {
    leaders: Condvar::notify_all,
    followers: Condvar::notify_all,
};

/// Three callers submit, one of them twice; each waits for what `waits` says. A lost wake-up is a deadlock.
fn three_submit(wakes: Wakes, waits: [Wait; 4]) {
    explored(move || {
        let (group, log) = (Arc::new(Group::woken_by(wakes)), Arc::new(Counted::default()));
        let callers = [1, 2].map(|request: u64| {
            let (group, log) = (Arc::clone(&group), Arc::clone(&log));
            thread::spawn(move || {
                let wait = waits[request as usize - 1];
                (request, group.submit(request, wait, &*log))
            })
        });
        let mut results = [3, 4]
            .map(|request: u64| {
                let wait = waits[request as usize - 1];
                (request, group.submit(request, wait, &*log))
            })
            .to_vec();
        results.extend(callers.map(|caller| caller.join().unwrap()));
        for (request, (answered, _)) in &results {
            assert_eq!(request, answered, "a caller has another's result");
        }
        let mut places: Vec<u64> = results.iter().map(|(_, (_, place))| *place).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3], "each request is written once");
        if waits == [Wait::Synced; 4] {
            let synced = log.synced.load(Ordering::Relaxed);
            assert_eq!(
                synced, 4,
                "where all wait for a sync, nobody is left to sync alone"
            );
        }
    });
}

#[test]
fn each_caller_gets_its_own_result_once_and_nobody_waits_without_a_leader() {
    three_submit(ALL, [Wait::Synced; 4]);
    three_submit(ALL, [Wait::Written; 4]);
    three_submit(ALL, [Wait::Synced, Wait::Written, Wait::Synced, Wait::Synced]);
    three_submit(ALL, [Wait::Synced, Wait::Synced, Wait::Written, Wait::Synced]);
}

/// The batch of who came during a write or a sync is led by somebody who sleeps.
#[test]
#[should_panic(expected = "deadlock")]
fn a_leader_that_wakes_no_other_leader_leaves_batches_waiting() {
    let wakes = Wakes {
        leaders: |_| (),
        ..ALL
    };
    three_submit(wakes, [Wait::Synced; 4]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_leader_that_wakes_none_of_its_followers_leaves_them_waiting() {
    let wakes = Wakes {
        followers: |_| (),
        ..ALL
    };
    three_submit(wakes, [Wait::Synced; 4]);
}

/// The trap: one caller leads and three join while it writes or syncs, so two follow the second leader; the one that
/// is not woken waits for ever.
#[test]
#[should_panic(expected = "deadlock")]
fn a_leader_that_wakes_one_follower_only_leaves_others_waiting() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let wakes = Wakes {
            followers: Condvar::notify_one,
            ..ALL
        };
        let (group, log) = (Arc::new(Group::woken_by(wakes)), Arc::new(Counted::default()));
        let callers = [1, 2, 3].map(|request: u64| {
            let (group, log) = (Arc::clone(&group), Arc::clone(&log));
            thread::spawn(move || group.submit(request, Wait::Synced, &*log))
        });
        group.submit(4, Wait::Synced, &*log);
        for caller in callers {
            caller.join().unwrap();
        }
    });
}
