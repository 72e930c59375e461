//! Zeros ahead of the log's end.
//!
//! ```text
//! | blocks … end | zeros, written | allocated, never written |
//!                └─── Filled ─────┘
//! ```
//!
//! Space that was allocated and never written makes a sync dearer: the file system first has to note that it holds
//! something now. So who writes little writes zeros behind it, in the same call; they are on disk with the sync that
//! comes anyway, and what is written over them costs nothing but itself. Who writes much at once does not: there the
//! second writing of every byte would cost as much. Spares are filled when they are made (`roll`).
//!
//! All of it under the append lock, behind everything that was ever published, in place of zeros (E5).

use crate::Lsn;
use crate::storage::Cell;
use crate::sync::{AtomicU64, Ordering};

use super::Log;
use super::segment::Segment;

/// Zeros reach to the next multiple of so many bytes of the file: first to the end of the page that is written
/// anyway, since a process may commit once and end,
const FIRST_STEP: u64 = 4 << 10;
/// then twice as far each time, up to 256 KiB.
const LAST_STEP: u64 = 256 << 10;
/// A write of so many bytes is not small.
const MUCH: u64 = 64 << 10;

/// How far this handle fills ahead.
pub(crate) struct Filling {
    step: AtomicU64,
}

impl Default for Filling {
    fn default() -> Filling {
        Filling {
            step: AtomicU64::new(FIRST_STEP),
        }
    }
}

impl Log {
    /// How many zeros are to be written behind a write of `len` bytes that ends at `end`; the append lock is held.
    pub(super) fn zeros_behind(&self, segment: &Segment, end: Lsn, len: u64) -> u64 {
        if len >= MUCH || end <= self.control.lsn(Cell::Filled) {
            return 0;
        }
        let from = segment.offset(end);
        let step = self.filling.step.load(Ordering::Relaxed);
        from.next_multiple_of(step)
            .min(segment.len())
            .saturating_sub(from)
    }

    /// They were written, up to `to`; the append lock is held.
    pub(super) fn filled(&self, to: Lsn) {
        self.control.cells().store(Cell::Filled, to.0);
        let step = self.filling.step.load(Ordering::Relaxed);
        self.filling
            .step
            .store((step * 2).min(LAST_STEP), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::{Options, Store, Transaction};

    fn commit(store: &Store, payload: usize) {
        let mut transaction = Transaction::new();
        transaction.push_parts("s", "k", &vec![7; payload]).unwrap();
        store.commit(transaction).unwrap().committed().unwrap();
    }

    fn filled(store: &Store) -> u64 {
        store.log().control.lsn(Cell::Filled).0
    }

    fn appended(store: &Store) -> u64 {
        store.log().control.appended().0
    }

    fn fresh(folder: &tempfile::TempDir, options: Options) -> Store {
        options
            .background(false)
            .init(folder.path().join("s"), "s".parse().unwrap())
            .unwrap()
    }

    #[test]
    fn the_first_commit_of_a_process_fills_its_page_and_the_next_ones_twice_as_much_each() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder, Options::new());
        commit(&store, 10);
        let mut seen = vec![filled(&store)];
        assert_eq!(seen, [FIRST_STEP]);
        while appended(&store) < 4 * LAST_STEP {
            commit(&store, 3_000);
            if filled(&store) >= appended(&store) && seen.last() != Some(&filled(&store)) {
                seen.push(filled(&store));
            }
        }
        let steps: Vec<u64> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(seen[..4], [4 << 10, 8 << 10, 16 << 10, 32 << 10], "{seen:?}");
        assert!(steps.contains(&LAST_STEP), "{steps:?}");
        assert!(steps.iter().all(|step| *step <= LAST_STEP), "{steps:?}");
        drop(store);
        let store = Options::new().open(folder.path().join("s")).unwrap();
        assert_eq!(filled(&store), 0, "who comes alone does not know");
        commit(&store, 10);
        assert_eq!(filled(&store), appended(&store).next_multiple_of(FIRST_STEP));
        store.verify(&mut |_, _| ()).unwrap();
    }

    #[test]
    fn much_at_once_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder, Options::new());
        commit(&store, crate::width::to_usize(MUCH));
        assert_eq!(filled(&store), 0);
        commit(&store, 10);
        assert!(filled(&store) > appended(&store), "behind it as anywhere");
    }

    #[test]
    fn where_much_is_written_at_once_a_spare_is_only_allocated() {
        for (payload, suffix) in [(1_000, ".ready"), (40 << 10, ".room")] {
            let folder = tempfile::tempdir().unwrap();
            let store = fresh(&folder, Options::new().segment_bytes(1 << 20));
            while appended(&store) < 600 << 10 {
                commit(&store, payload);
            }
            store.tend().unwrap();
            let spares = || -> Vec<String> {
                let files = std::fs::read_dir(folder.path().join("s/log")).unwrap();
                let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
                names.filter(|name| name.starts_with("spare-")).collect()
            };
            let [spare] = &spares()[..] else {
                panic!("{:?}", spares())
            };
            assert!(spare.ends_with(suffix), "{spare} for events of {payload} bytes");
            store.rotate(0).unwrap();
            assert_eq!(spares().len(), 0, "it is used");
            let is_filled = filled(&store) >= appended(&store) + (1 << 20);
            assert_eq!(is_filled, suffix == ".ready");
            commit(&store, 10);
            store.verify(&mut |_, _| ()).unwrap();
        }
    }

    #[test]
    fn a_spare_is_filled_already_and_another_new_segment_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder, Options::new().segment_bytes(1 << 20));
        while appended(&store) < 600 << 10 {
            commit(&store, 1_000);
        }
        store.tend().unwrap();
        commit(&store, 600 << 10);
        let segment = store.log().control.lsn(Cell::TailSegment).0;
        assert!(segment > 0);
        assert_eq!(filled(&store), segment + (1 << 20));
        commit(&store, 600 << 10);
        let next = store.log().control.lsn(Cell::TailSegment).0;
        assert!(next > segment);
        assert_eq!(filled(&store), next, "nobody had made a spare");
    }
}
