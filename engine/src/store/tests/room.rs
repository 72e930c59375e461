//! Segments that take more in the log's folder afterwards are touched only when there is room for all of them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::packed::{files, fill, words};
use super::*;
use crate::ErrorKind;
use crate::storage::{OpenMode, SharedCells, StorageFile};

/// A directory on a disk with so much left.
struct Small {
    inner: LocalStorage,
    left: Arc<AtomicU64>,
    total: u64,
}

impl Storage for Small {
    fn root(&self) -> &Path {
        self.inner.root()
    }
    fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.inner.create_dir(folder)
    }
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open(name, mode)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.inner.unlink(name)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }
    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.inner.sync_dir(folder)
    }
    fn cells(&self, name: &str, fresh: bool) -> io::Result<Arc<dyn SharedCells>> {
        self.inner.cells(name, fresh)
    }
    fn disk(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(Some((self.left.load(Ordering::Relaxed), self.total)))
    }
    fn beside(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        // `same` is on this disk, every other folder on one of its own.
        Ok(Arc::new(Small {
            inner: LocalStorage::new(path.to_path_buf()),
            left: Arc::clone(&self.left),
            total: self.total + u64::from(!path.ends_with("same")),
        }))
    }
    fn refusal(&self) -> io::Result<Option<String>> {
        self.inner.refusal()
    }
    fn process_id(&self) -> u32 {
        self.inner.process_id()
    }
    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }
}

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    left: Arc<AtomicU64>,
}

/// A store of some small segments on a disk with room for everything.
fn filled() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let left = Arc::new(AtomicU64::new(1 << 40));
    let storage = Small {
        inner: LocalStorage::new(dir.path().join("s")),
        left: Arc::clone(&left),
        total: 1 << 41,
    };
    let store = options()
        .background(false)
        .init_in(Arc::new(storage), "a".parse().unwrap())
        .unwrap();
    fill(&store, &mut words(48));
    Place { dir, store, left }
}

impl Place {
    fn names(&self) -> Vec<std::path::PathBuf> {
        let root = self.dir.path().join("s");
        ["log", "mpz", "away"]
            .into_iter()
            .flat_map(|ending| files(&root, ending))
            .collect()
    }

    /// Refused with everything where it was, and what to do.
    fn refuses(&self, what: impl Fn(&Store) -> Result<()>, advice: &str) {
        let before = self.names();
        let error = what(&self.store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(self.names(), before);
    }
}

fn undo(store: &Store) -> Result<()> {
    store.decompress(&mut |_, _| ()).map(drop)
}

fn back(store: &Store) -> Result<()> {
    store.bring_back(&mut |_, _| ()).map(drop)
}

fn limit(store: &Store, limit: u64) {
    store.change_space(|space| space.limit = limit).map(drop).unwrap();
}

#[test]
fn what_would_leave_no_room_within_the_limit_is_refused_with_the_limit_that_does() {
    for (away, what) in [(false, undo as fn(&Store) -> Result<()>), (true, back)] {
        let place = filled();
        if away {
            place.store.set_archive_as(place.dir.path().join("a")).unwrap();
            let _ = place.store.archive(&mut |_, _| ()).unwrap();
        } else {
            let _ = place.store.compress(&mut |_, _| ()).unwrap();
        }
        limit(&place.store, 4 << 20);
        place.refuses(what, "--limit");
        let told = what(&place.store).unwrap_err().to_string();
        let (_, needed) = told.split_once("raise the limit to ").unwrap();
        let needed: u64 = needed.split(' ').next().unwrap().parse().unwrap();
        limit(&place.store, needed - 1);
        place.refuses(what, "--limit");
        limit(&place.store, needed);
        what(&place.store).unwrap();
        // Behind them an event has room, to the end of the active segment.
        assert!(place.store.commit(transaction("s/0", &[7; 50_000])).is_ok());
    }
}

#[test]
fn what_the_disk_has_no_room_for_is_refused_with_numbers() {
    let place = filled();
    let _ = place.store.compress(&mut |_, _| ()).unwrap();
    place.left.store(2 << 20, Ordering::Relaxed);
    place.refuses(undo, "has 2097152 left");
    place.left.store(1 << 40, Ordering::Relaxed);
    undo(&place.store).unwrap();
    for (name, goes) in [("a", false), ("same", true)] {
        place.store.set_archive_as(place.dir.path().join(name)).unwrap();
        let moved = place.store.archive(&mut |_, _| ()).unwrap();
        assert!(moved.segments.len() >= 3);
        place.left.store(5 << 19, Ordering::Relaxed);
        if goes {
            // What comes here goes there: one at a time has room.
            back(&place.store).unwrap();
        } else {
            place.refuses(back, "left for commits");
            place.left.store(1 << 40, Ordering::Relaxed);
            back(&place.store).unwrap();
        }
    }
}

#[test]
fn where_nothing_is_to_come_back_no_room_is_asked_for() {
    let place = filled();
    place.store.set_archive_as(place.dir.path().join("a")).unwrap();
    place.left.store(0, Ordering::Relaxed);
    undo(&place.store).unwrap();
    back(&place.store).unwrap();
}
