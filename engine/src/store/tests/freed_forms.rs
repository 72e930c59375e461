//! Freeing and the limit of a log whose segments are compressed or lie in an archive.

use super::packed::{files, fill, words};
use super::*;
use crate::{ErrorKind, Retention};

/// A store without a thread, of some small segments.
fn filled(dir: &std::path::Path) -> (Store, u64) {
    let store = options()
        .background(false)
        .init(dir.join("s"), "a".parse().unwrap())
        .unwrap();
    fill(&store, &mut words(47));
    let events = store.totals().unwrap().events;
    (store, events)
}

/// Keeps the newest megabyte, and frees the rest.
fn keep_little(store: &Store) -> u64 {
    let mut space = store.space().unwrap();
    space.retention = Retention::Bytes(1 << 20);
    store.set_space(&space).unwrap();
    store.free().unwrap()
}

/// The trap: a segment that is left in any form would be a log with a hole, or one that begins where it was freed.
#[test]
fn a_segment_is_freed_in_every_form_that_it_has_in_the_archive_too() {
    for archive in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (store, events) = filled(dir.path());
        store.compress(&mut |_, _| ()).unwrap();
        if archive {
            store.set_archive(dir.path().join("a")).unwrap();
            store.archive(&mut |_, _| ()).unwrap();
        }
        assert!(keep_little(&store) >= 3);
        let (root, begins) = (dir.path().join("s"), store.oldest().unwrap());
        let left = |ending: &str| {
            let there = files(&root, ending).into_iter();
            let archived = archive.then(|| files(&dir.path().join("a"), ending));
            let firsts = there.chain(archived.into_iter().flatten()).map(|path| {
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                Lsn(u64::from_str_radix(&stem, 16).unwrap())
            });
            firsts.filter(|first| *first < begins).count()
        };
        assert_eq!(
            ["log", "mpz", "away", "idx"].map(left),
            [0; 4],
            "archive: {archive}"
        );
        store.close().unwrap();
        let store = options().background(false).open(&root).unwrap();
        assert_eq!(store.oldest().unwrap(), begins);
        assert_eq!(store.totals().unwrap().events, events);
        assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    }
}

/// The trap: the archive is not mounted. What need not be kept goes all the same, and its file there is told of and stays.
#[test]
fn freeing_does_not_wait_for_an_archive_that_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let (store, events) = filled(dir.path());
    store.set_archive(dir.path().join("a")).unwrap();
    store.archive(&mut |_, _| ()).unwrap();
    std::fs::rename(dir.path().join("a"), dir.path().join("elsewhere")).unwrap();
    assert!(keep_little(&store) >= 3);
    assert!(files(&dir.path().join("s"), "away").len() <= 1);
    assert!(files(&dir.path().join("elsewhere"), "log").len() >= 3);
    assert_eq!(store.totals().unwrap().events, events);
}

/// The trap: two processes at once. A segment that is being compressed while it is freed would come back.
#[test]
fn nothing_is_freed_while_segments_are_given_another_form() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = filled(dir.path());
    let held = store.shared().lock_arranging().unwrap().unwrap();
    assert_eq!(keep_little(&store), 0);
    drop(held);
    assert!(store.free().unwrap() >= 3);
}

#[test]
fn the_limit_counts_what_segments_take_in_the_folder_and_a_full_log_goes_on_when_they_are_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let options = || options().background(false);
    let store = options()
        .limit(6 << 20)
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let commit = |count: u32| {
        (0..count)
            .map(|_| store.commit(transaction("s/0", &[7; 50_000])).map(drop))
            .find_map(Result::err)
    };
    let full = commit(1_000).unwrap();
    assert_eq!(full.kind(), ErrorKind::Full);
    let before = store.disk().unwrap().log;
    store.compress(&mut |_, _| ()).unwrap();
    let after = store.disk().unwrap().log;
    assert!(after < before - (2 << 20), "{before} and {after}");
    assert!(
        commit(40).is_none(),
        "three segments compressed leave room for two"
    );
    assert_eq!(commit(1_000).unwrap().kind(), ErrorKind::Full);
    store.set_archive(dir.path().join("a")).unwrap();
    store.archive(&mut |_, _| ()).unwrap();
    assert!(commit(40).is_none(), "what lies in the archive does not count");
}
