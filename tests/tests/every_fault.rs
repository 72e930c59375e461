//! No space, an error of the disk, a write that falls short and a kill, at every operation of a small story, with and
//! without padded blocks: told as what it is, nothing acknowledged is lost, nothing is phantom, doubled or
//! torn, and the next commit goes on (E1, E2, E5).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use milepost_tests::crash::{Fault, Told, every_fault};

fn tell(pad_to: usize) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs: Mutex<Vec<(Fault, u64)>> = Mutex::new(
        Fault::ALL
            .into_iter()
            .flat_map(|fault| (0..4).map(move |first| (fault, first)))
            .collect(),
    );
    let (all, failed) = (Mutex::new(Told::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((fault, first)) = { jobs.lock().unwrap().pop() } {
                    match every_fault(fault, pad_to, first, 4) {
                        Ok(told) => {
                            let mut all = all.lock().unwrap();
                            for (kind, (faults, errors)) in told {
                                let count = all.entry(kind).or_default();
                                *count = (count.0 + faults, count.1 + errors);
                            }
                        }
                        Err(text) => failed.lock().unwrap().push(text),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let all = all.into_inner().unwrap();
    let faults: u64 = all.values().map(|(faults, _)| faults).sum();
    println!(
        "padded to {pad_to}: {faults} faults, each in a story of its own; (tried, told) by operation: {all:?}"
    );
    assert!(faults > 700, "the story has operations: {faults}");
}

#[test]
fn every_operation_of_a_story_may_fail() {
    tell(1);
}

#[test]
fn every_operation_may_fail_where_blocks_are_padded() {
    tell(4096);
}
