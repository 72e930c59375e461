//! What a folder that was put back says of itself afterwards, and what it does not claim.

use std::path::Path;

use super::*;
use crate::log::lock::PRESENCE;
use crate::storage::{Cell, LockMode};
use crate::{Durability, ErrorKind, Store, Transaction};

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

fn commit(store: &Store, payload: &str) -> Lsn {
    let mut transaction = Transaction::new();
    transaction.push_parts("s", "k", payload.as_bytes()).unwrap();
    let committed = store.commit_with(transaction, Durability::Synced).unwrap();
    committed.committed().unwrap().lsn
}

fn payloads(store: &Store) -> Vec<String> {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO).unwrap(), Vec::new());
    while let Some(frame) = scan.next().unwrap() {
        let events = frame.events().map(|event| event.unwrap().payload.to_vec());
        found.extend(events.map(|payload| String::from_utf8(payload).unwrap()));
    }
    found
}

/// A store with some commits, closed.
fn made(dir: &Path) -> std::path::PathBuf {
    let root = dir.join("s");
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    (0..5).for_each(|number| {
        commit(&store, &number.to_string());
    });
    store.close().unwrap();
    root
}

fn begun(root: &Path, fork: ForkAt) -> NewLineage {
    PutBack::open(root, options())
        .unwrap()
        .begin_lineage(fork)
        .unwrap()
}

#[test]
fn a_new_lineage_leaves_its_parent_at_the_logs_end_and_keeps_all_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = made(dir.path());
    let put_back = PutBack::open(&root, options()).unwrap();
    let (end, parent) = (put_back.end(), put_back.epoch());
    let done = put_back.begin_lineage(ForkAt::End).unwrap();
    assert_eq!((done.fork, done.begins, done.parent), (end, end, parent));
    let store = options().open(&root).unwrap();
    assert_eq!(store.epoch(), done.epoch);
    assert_eq!(store.lineage().unwrap(), Some((parent, end)));
    assert_eq!(store.lineage_begins().unwrap(), end);
    commit(&store, "after");
    assert_eq!(payloads(&store), ["0", "1", "2", "3", "4", "after"]);
    assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
}

/// The trap: what was committed since the folder was put back stands under the parent's epoch, at LSNs at which the lost history
/// has something else. The fork lies before it, and its positions stay true.
#[test]
fn a_fork_before_the_end_claims_nothing_of_what_was_written_since() {
    let dir = tempfile::tempdir().unwrap();
    let root = made(dir.path());
    let put_back = PutBack::open(&root, options()).unwrap();
    let (true_fork, parent) = (put_back.end(), put_back.epoch());
    drop(put_back);
    let store = options().open(&root).unwrap();
    let since = commit(&store, "since");
    let position = store.position_at(since).unwrap().unwrap();
    store.close().unwrap();
    let put_back = PutBack::open(&root, options()).unwrap();
    let writers = put_back.writers().unwrap();
    assert!(
        writers
            .iter()
            .any(|writer| writer.first == true_fork && writer.events == 1),
        "{writers:?}"
    );
    // A position within the block is that block's beginning.
    let done = put_back.begin_lineage(ForkAt::Lsn(since)).unwrap();
    assert_eq!(done.fork, true_fork);
    let store = options().open(&root).unwrap();
    assert_eq!(store.lineage().unwrap(), Some((parent, true_fork)));
    assert_eq!(store.lineage_begins().unwrap(), done.begins);
    assert!(done.begins > since);
    assert_eq!(store.position_at(since).unwrap(), Some(position));
    assert_eq!(position.epoch, parent, "it is of the parent still");
}

#[test]
fn a_second_lineage_on_one_of_which_nobody_heard_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = made(dir.path());
    let first = begun(&root, ForkAt::End);
    // Opening it and closing it writes nothing that counts.
    options().open(&root).unwrap().close().unwrap();
    let put_back = PutBack::open(&root, options()).unwrap();
    let end = put_back.end();
    let error = put_back.begin_lineage(ForkAt::End).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(PutBack::open(&root, options()).unwrap().epoch(), first.epoch);
    let again = begun(&root, ForkAt::Lsn(end));
    assert_eq!(
        (again.parent, again.fork),
        (first.epoch, end),
        "named, it is the operator's word"
    );
    let store = options().open(&root).unwrap();
    commit(&store, "more");
    store.close().unwrap();
    begun(&root, ForkAt::End);
}

#[test]
fn a_fork_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = made(dir.path());
    let put_back = || PutBack::open(&root, options()).unwrap();
    let end = put_back().end();
    for fork in [Lsn::ZERO, Lsn(64), end.plus(1), Lsn(u64::MAX)] {
        let error = put_back().begin_lineage(ForkAt::Lsn(fork)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{fork}: {error}");
    }
    let first = put_back().begin_lineage(ForkAt::End).unwrap();
    let error = put_back()
        .begin_lineage(ForkAt::Lsn(Lsn(first.begins.0 - 1)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "of the grandparent: {error}");
    let nobody = PutBack::open(dir.path().join("nobody"), options())
        .map(drop)
        .unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NoStore);
}

#[test]
fn a_store_that_is_open_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = made(dir.path());
    let store = options().open(&root).unwrap();
    let error = PutBack::open(&root, options()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(store);
}

/// The trap: an opener found the presence lock taken, and gets a share of it when the work is done. It recovers only when it is alone,
/// so it must not find a page that is ready: its tail is from before.
#[test]
fn whoever_waited_at_the_door_finds_no_page_from_before() {
    let dir = tempfile::tempdir().unwrap();
    let root = made(dir.path());
    begun(&root, ForkAt::End);
    let storage = LocalStorage::new(root);
    let file = storage.open(STORE_FILE, OpenMode::ReadWrite).unwrap();
    assert!(file.try_lock(PRESENCE, LockMode::Shared).unwrap());
    assert_eq!(storage.cells("control", false).unwrap().load(Cell::Ready), 0);
}

/// A block that needs a segment of its own begins the lineage there.
#[test]
fn a_full_segment_is_followed_by_one_that_begins_the_lineage() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    let payload = "x".repeat(1_000);
    let mut last = Lsn::ZERO;
    // The closing block needs a place too.
    while last.0 < (1 << 20) - 2_600 {
        last = commit(&store, &payload);
    }
    store.close().unwrap();
    let end = PutBack::open(&root, options()).unwrap().end();
    let left = (1 << 20) - end.0;
    let store = options().open(&root).unwrap();
    commit(
        &store,
        &"y".repeat(usize::try_from(left).unwrap() - 128 - 128 - 128),
    );
    drop(store);
    let done = begun(&root, ForkAt::Lsn(end));
    let store = options().open(&root).unwrap();
    assert_eq!(store.lineage().unwrap(), Some((done.parent, end)));
    assert_eq!(store.lineage_begins().unwrap(), done.begins);
    commit(&store, "after");
    assert_eq!(payloads(&store).last().map(String::as_str), Some("after"));
}
