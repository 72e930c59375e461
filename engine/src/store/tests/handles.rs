//! What one handle may do while others stall, close, fork or die.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::ErrorKind;
use crate::log::lock::APPEND;
use crate::storage::{LockMode, OpenMode, SharedCells, StorageFile};

/// A directory whose process changes its number, as in a forked child.
struct Forking {
    inner: LocalStorage,
    process: AtomicU32,
}

impl Storage for Forking {
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
    fn refusal(&self) -> io::Result<Option<String>> {
        self.inner.refusal()
    }
    fn process_id(&self) -> u32 {
        self.process.load(Ordering::Relaxed)
    }
    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }
}

#[test]
fn a_handle_in_a_forked_child_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Forking {
        inner: LocalStorage::new(dir.path().join("s")),
        process: AtomicU32::new(7),
    });
    let store = options()
        .init_in(Arc::clone(&storage) as Arc<dyn Storage>, "a".parse().unwrap())
        .unwrap();
    let _ = store.commit(transaction("s", b"parent")).unwrap();
    store
        .commit_with(transaction("s", b"buffered"), Durability::Buffered)
        .map(drop)
        .unwrap();
    let scan = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&scan).unwrap();
    let before = store.watermarks().appended;
    storage.process.store(8, Ordering::Relaxed);
    let outcomes = [
        store.commit(transaction("s", b"child")).map(drop),
        store.append_marker().map(drop),
        store.sync(),
        store.tend(),
        store.rotate(0).map(drop),
        store.lock_phase(Phase::Send).map(drop),
        store.queue_writer(&scan).map(drop),
        queue.append(Vec::new(), before),
        queue.sync(),
        store.clone().close(),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{number}: {error}");
    }
    assert_eq!(store.watermarks().appended, before);
    drop((queue, scan, store));
}

/// A store with a buffered commit of a handle that is gone, so that another must write it again under the
/// append lock before its own commits are durable (S1); and that lock, held by a third.
struct Stalled {
    _dir: tempfile::TempDir,
    store: Store,
    lock: Arc<dyn StorageFile>,
}

fn stalled(options: Options) -> Stalled {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let gone = super::options().background(false);
    let gone = gone.init(&root, "a".parse().unwrap()).unwrap();
    gone.commit_with(transaction("s", b"left"), Durability::Buffered)
        .map(drop)
        .unwrap();
    let store = options
        .lock_timeout(Duration::from_millis(20))
        .open(&root)
        .unwrap();
    std::mem::forget(gone);
    let lock = store.storage().open("store", OpenMode::ReadWrite).unwrap();
    Stalled {
        _dir: dir,
        store,
        lock,
    }
}

#[test]
fn a_commit_whose_sync_could_not_begin_says_that_it_is_there() {
    let Stalled { _dir, store, lock } = stalled(options().background(false));
    let request = transaction("s", b"mine").into_parts().0.encode(1, 1).unwrap();
    let request = crate::log::Request {
        frames: vec![request],
        expectations: Vec::new(),
    };
    let Ok(Written::Appended { lsns, end, .. }) =
        store
            .log()
            .submit(request, crate::log::Wait::Written, store.shared())
    else {
        panic!("appended");
    };
    assert!(lock.try_lock(APPEND, LockMode::Exclusive).unwrap());
    let error = store.settle(lsns[0], end, Durability::Synced).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.written(), Some(lsns[0]));
    let text = error.to_string();
    assert!(
        text.contains("do not repeat it"),
        "what was written must not be called unwritten: {text}"
    );
    lock.unlock(APPEND).unwrap();
    store.sync().unwrap();
    assert_eq!(payloads(&store), [b"left".to_vec(), b"mine".to_vec()]);
}

#[test]
fn a_buffered_commit_is_synced_though_the_first_attempt_failed() {
    let Stalled { _dir, store, lock } = stalled(options().buffered_sync(Duration::from_millis(200)));
    store
        .commit_with(transaction("s", b"mine"), Durability::Buffered)
        .map(drop)
        .unwrap();
    assert!(lock.try_lock(APPEND, LockMode::Exclusive).unwrap());
    std::thread::sleep(Duration::from_millis(400));
    assert!(store.watermarks().durable < store.watermarks().appended);
    lock.unlock(APPEND).unwrap();
    while store.watermarks().durable < store.watermarks().appended {
        // For ever, when the thread has given up: nobody here asks for it, nobody commits again.
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_clone_of_a_closed_handle_syncs_what_it_buffers() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .buffered_sync(Duration::from_secs(3600))
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    store
        .commit_with(transaction("s", b"before"), Durability::Buffered)
        .map(drop)
        .unwrap();
    // Returns now and not in an hour.
    store.clone().close().unwrap();
    store
        .commit_with(transaction("s", b"after"), Durability::Buffered)
        .map(drop)
        .unwrap();
    assert_eq!(payloads(&store), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn what_is_not_durable_and_cannot_be_read_back_is_no_damage_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options()
        .background(false)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    let _ = store.commit(transaction("s", b"kept")).unwrap();
    let durable = store.watermarks().durable;
    store
        .commit_with(transaction("s", b"lost"), Durability::Buffered)
        .map(drop)
        .unwrap();
    let log = root.join("log/0000000000000000.log");
    let file = std::fs::File::options().write(true).open(log).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], durable.0 + 130).unwrap();
    let mut expecting = transaction("s", b"next");
    expecting
        .expect("s", ExpectedVersion::Exact(StreamVersion(1)))
        .unwrap();
    let error = store.commit(expecting).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(error.written(), None);
    drop(store);
    assert_eq!(payloads(&options().open(&root).unwrap()), [b"kept"]);
}

#[test]
fn the_lock_of_another_store_opens_no_queue() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        options()
            .init(dir.path().join(name), name.parse().unwrap())
            .unwrap()
    };
    let (one, two) = (make("a"), make("b"));
    let (scan, send) = (
        two.lock_phase(Phase::Scan).unwrap(),
        two.lock_phase(Phase::Send).unwrap(),
    );
    assert_eq!(one.queue_writer(&scan).err().unwrap().kind(), ErrorKind::Invalid);
    assert_eq!(
        one.queue_free(&send, Lsn::ZERO).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let writer = two.queue_writer(&scan).unwrap();
    drop(scan);
    let error = two.lock_phase(Phase::Scan).err().unwrap();
    assert_eq!(
        error.kind(),
        ErrorKind::Conflict,
        "the lock lives as long as the writer"
    );
    drop(writer);
    two.lock_phase(Phase::Scan).map(drop).unwrap();
}

#[test]
fn the_fate_of_a_commit_is_found_from_any_place_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let from = store.watermarks().durable;
    let commit = |payload: &[u8]| {
        store
            .commit(transaction("s", payload))
            .unwrap()
            .committed()
            .unwrap()
    };
    let (one, two) = (commit(b"1"), commit(b"2"));
    for (lsn, there) in [(Lsn::ZERO, true), (from, true), (one.lsn, true), (two.lsn, false)] {
        assert_eq!(store.is_committed(one.id, lsn).unwrap(), there, "from {lsn}");
    }
    let absent = crate::TransactionId { seq: 99, ..one.id };
    assert!(!store.is_committed(absent, from).unwrap());
}

#[test]
fn whether_a_buffered_commit_is_there_is_answered_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .background(false)
        .init(dir.path().join("s"), "a".parse().unwrap());
    let store = store.unwrap();
    let committed = store.commit_with(transaction("s", b"x"), Durability::Buffered);
    let committed = committed.unwrap().committed().unwrap();
    assert!(store.watermarks().durable <= committed.lsn);
    assert!(store.is_committed(committed.id, committed.lsn).unwrap());
    assert!(store.watermarks().durable > committed.lsn);
    assert!(!store.is_committed(committed.id, Lsn(1 << 40)).unwrap());
}

#[test]
fn a_scan_begins_at_no_position_that_the_log_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let end = store.watermarks().appended;
    assert!(store.scan(end).unwrap().next().unwrap().is_none());
    let error = store.scan(end.plus(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("ends at"), "{error}");
}

#[test]
fn a_control_page_that_was_removed_under_others_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    std::fs::remove_file(root.join("control")).unwrap();
    let error = options().open(&root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("`control` was removed"), "{error}");
    let _ = store.commit(transaction("s", b"x")).unwrap();
    store.close().unwrap();
    assert_eq!(payloads(&options().open(&root).unwrap()).len(), 1);
}

/// The trap: an opener found the presence lock taken while a log was repaired, and gets a share of it afterwards. It recovers only when it is
/// alone, so it must not find a page that is ready: that names the tail which the repair took away.
#[test]
fn whoever_waited_while_a_log_was_repaired_finds_no_page_from_before() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options()
        .background(false)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    for payload in ["first", "second", "third"] {
        let _ = store.commit(transaction("s", payload.as_bytes())).unwrap();
    }
    store.close().unwrap();
    let log = root.join("log/0000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(6).position(|piece| piece == b"second").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let repair = crate::Repair::open(&root, options()).unwrap();
    repair.run(crate::RepairHow::Cut, &mut |_| ()).unwrap();
    let cells = LocalStorage::new(root.clone()).cells("control", false).unwrap();
    assert_eq!(cells.load(Cell::Ready), 0);
    let store = options().background(false).open(&root).unwrap();
    assert_eq!(payloads(&store), [b"first"]);
}
