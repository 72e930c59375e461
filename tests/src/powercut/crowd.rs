//! [`Crowd`]: the processes that a power cut meets.

use std::path::Path;
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};

use crate::SimRng;
use crate::processes::{Witness, Worker};

/// Processes that commit, with two threads each.
const WRITERS: u64 = 3;
/// How often the first acknowledgement is looked for, and how long before that is a failure.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(120);

/// Processes on one store.
pub(super) struct Crowd {
    workers: Vec<Worker>,
}

impl Crowd {
    /// Starts writers, of an incarnation that no earlier ones had, a watcher and the scan phase, in any order.
    pub(super) fn start(
        program: &Path,
        store: &str,
        incarnation: u64,
        bug: Option<&str>,
        rng: &SimRng,
    ) -> Crowd {
        let mut orders: Vec<Vec<String>> = (0..WRITERS)
            .map(|writer| {
                let mut order: Vec<String> = vec!["write".to_owned(), store.to_owned()];
                order.extend([writer.to_string(), incarnation.to_string()]);
                order.extend(bug.map(str::to_owned));
                order
            })
            .collect();
        for follower in ["watch", "enqueue"] {
            orders.push(vec![follower.to_owned(), store.to_owned()]);
        }
        let first = rng.index(orders.len());
        orders.rotate_left(first);
        let start = |order: &Vec<String>| {
            let order: Vec<&str> = order.iter().map(String::as_str).collect();
            Worker::start(program, &order)
        };
        Crowd {
            workers: orders.iter().map(start).collect(),
        }
    }

    /// Waits until a transaction was acknowledged.
    pub(super) fn wait_for_work(&self, witness: &mut Witness) {
        let (before, started) = (witness.acknowledged(), SystemClock.monotonic());
        while witness.acknowledged() == before {
            self.workers
                .iter()
                .flat_map(Worker::arrived)
                .for_each(|line| witness.hear(&line));
            assert!(
                SystemClock.monotonic() - started < PATIENCE,
                "nobody gets anything done"
            );
            SystemClock.sleep(LOOK);
        }
    }

    /// Stops all, wherever they are.
    pub(super) fn stop(&self) {
        self.workers.iter().for_each(Worker::stop);
    }

    /// Kills all; the witness hears what they had said.
    pub(super) fn kill(self, witness: &mut Witness) {
        for worker in self.workers {
            worker.kill().iter().for_each(|line| witness.hear(line));
        }
    }
}
