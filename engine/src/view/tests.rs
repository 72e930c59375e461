//! A view equals the fold of the log, and each way in which its files can be wrong ends in a view made
//! again from the log (E4), never in a wrong answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{ErrorKind, Event, Options, RecordedEvent, Result, Store, StreamVersion, Transaction};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, name: &str) -> Store {
        let options = Options::new().segment_bytes(1 << 20);
        options.init(self.path(name), "bern".parse().unwrap()).unwrap()
    }

    fn open(&self, name: &str) -> Store {
        Options::new().open(self.path(name)).unwrap()
    }

    /// Every file of a folder.
    fn copy(&self, from: &str, to: &str) {
        copy(&self.path(from), &self.path(to));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn append(store: &Store, stream: &str, kind: &str) {
    let mut transaction = Transaction::new();
    transaction
        .push(&Event::new(stream, kind, *b"{}").unwrap())
        .unwrap();
    store.commit(transaction).unwrap().committed().unwrap();
}

/// Twenty events: stream `s/0` to `s/4`, four each.
fn fill(store: &Store) {
    for number in 0..20 {
        append(store, &format!("s/{}", number % 5), &format!("k{number}"));
    }
}

fn open(store: &Store) -> View<Streams> {
    View::open(store, "test", Streams, &mut |_| {}).unwrap()
}

/// The view tells what the store's own index tells.
fn check(store: &Store, view: &View<Streams>, streams: usize) {
    let told = view.streams("").unwrap();
    assert_eq!(told.len(), streams);
    for summary in told {
        assert_eq!(
            store.stream_version(summary.stream.as_str()).unwrap(),
            Some(summary.version)
        );
        let last = store
            .read_stream(summary.stream.as_str(), summary.version)
            .unwrap()
            .last()
            .unwrap()
            .unwrap();
        assert_eq!(
            (last.kind, last.time, last.lsn),
            (summary.kind, summary.time, summary.lsn)
        );
    }
}

/// A closed store `a` with a closed view of twenty events.
fn closed() -> Place {
    let place = Place::new();
    let store = place.store("a");
    fill(&store);
    let view = open(&store);
    assert_eq!(view.cause(), Some(RebuildCause::Missing));
    check(&store, &view, 5);
    view.close().unwrap();
    store.close().unwrap();
    place
}

fn cause_of(place: &Place, name: &str) -> Option<RebuildCause> {
    let store = place.open(name);
    let view = open(&store);
    check(&store, &view, view.streams("").unwrap().len());
    view.cause()
}

#[test]
fn a_view_goes_on_where_it_was_closed_and_sees_what_came_since() {
    let place = closed();
    let store = place.open("a");
    append(&store, "s/0", "more");
    append(&store, "new", "first");
    let mut from = None;
    let view = View::open(&store, "test", Streams, &mut |progress| {
        from = from.or(Some(progress.from))
    })
    .unwrap();
    assert_eq!(view.cause(), None);
    assert!(
        from.unwrap() > crate::Lsn::ZERO,
        "it went on, it did not begin again"
    );
    check(&store, &view, 6);
    assert_eq!(view.stream("s/0").unwrap().unwrap().version, StreamVersion(4));
    assert_eq!(view.streams("s/").unwrap().len(), 5);
    assert_eq!(view.stream("none").unwrap(), None);
}

#[test]
fn closing_and_opening_again_and_again_never_loses_trust() {
    let place = closed();
    let store = place.open("a");
    for round in 0..20 {
        append(&store, "s/1", &format!("round {round}"));
        let view = open(&store);
        assert_eq!(view.cause(), None, "round {round}");
        check(&store, &view, 5);
    }
}

#[test]
fn the_position_kept_is_that_of_the_last_frame_even_when_a_close_follows_it() {
    // A clean close writes a block without frames. A checkpoint taken at the end of a scan that has
    // passed such a block must still be the position that the log tells for its LSN.
    let place = closed();
    for _ in 0..2 {
        let store = place.open("a");
        fs::remove_dir_all(place.path("a/views")).unwrap();
        let view = open(&store);
        let position = view.checkpoint().position;
        assert_eq!(store.position_at(position.lsn).unwrap(), Some(position));
        store.close().unwrap();
    }
}

#[test]
fn an_open_view_follows_the_log() {
    let place = closed();
    let store = place.open("a");
    let mut view = open(&store);
    append(&store, "s/3", "live");
    let lsn = view.catch_up(&mut |_| {}).unwrap();
    assert_eq!(view.stream("s/3").unwrap().unwrap().lsn, lsn);
    assert_eq!(view.catch_up(&mut |_| {}).unwrap(), lsn);
}

#[test]
fn a_second_holder_is_refused_with_the_name_of_the_first() {
    let place = closed();
    let store = place.open("a");
    let view = open(&store);
    let refused = View::open(&store, "test", Streams, &mut |_| {}).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(
        refused.to_string().contains("in this process already"),
        "{refused}"
    );
    // As if another process had written its number.
    let folder = place.path("a/views/test");
    fs::write(folder.join("lock"), "pid 1").unwrap();
    let refused = View::open(&store, "test", Streams, &mut |_| {}).err().unwrap();
    assert!(
        refused.to_string().contains("another process (pid 1)"),
        "{refused}"
    );
    View::open(&store, "other", Streams, &mut |_| {}).unwrap();
    drop(view);
    assert_eq!(open(&store).cause(), None);
    let named = View::open(&store, "../x", Streams, &mut |_| {}).err().unwrap();
    assert_eq!(named.kind(), ErrorKind::Invalid);
}

#[test]
fn a_view_that_is_missing_is_made_again() {
    let place = closed();
    fs::remove_dir_all(place.path("a/views")).unwrap();
    assert_eq!(cause_of(&place, "a"), Some(RebuildCause::Missing));
}

#[test]
fn a_view_that_was_not_closed_is_made_again() {
    // The trap is a kill: what the files were at some moment while the view was open.
    let place = closed();
    let store = place.open("a");
    let view = open(&store);
    place.copy("a/views", "killed");
    drop(view);
    store.close().unwrap();
    fs::remove_dir_all(place.path("a/views")).unwrap();
    place.copy("killed", "a/views");
    assert_eq!(cause_of(&place, "a"), Some(RebuildCause::NotClosed));
    assert_eq!(cause_of(&place, "a"), None);
}

#[test]
fn a_view_whose_database_reopens_empty_is_made_again() {
    // sled after a power cut: the database opens without an error and has nothing. The mark is that of
    // the empty one, as if the loss had come before the close.
    let place = closed();
    let store = place.open("a");
    let folder = files::ViewFolder::lock(&store, "test").unwrap();
    folder.clear().unwrap();
    drop(sled::Config::new().path(folder.database()).open().unwrap());
    folder.put_mark().unwrap();
    drop(folder);
    let view = open(&store);
    assert_eq!(view.cause(), Some(RebuildCause::Empty));
    check(&store, &view, 5);
}

#[test]
fn a_view_with_any_byte_of_its_files_changed_is_made_again() {
    let place = closed();
    let pristine = place.path("a/views/test");
    let mut files = Vec::new();
    for folder in ["", "sled", "sled/blobs"] {
        let folder = pristine.join(folder);
        let entries = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.is_file() && path.file_name().unwrap() != "lock"));
    }
    assert!(files.len() >= 3, "{files:?}");
    place.copy("a/views", "whole");
    let store = place.open("a");
    for file in files {
        let whole = fs::read(&file).unwrap();
        let used = whole.len() - whole.iter().rev().take_while(|byte| **byte == 0).count();
        for at in [0, used / 3, used / 2, used.saturating_sub(1), whole.len() - 1] {
            fs::remove_dir_all(place.path("a/views")).unwrap();
            place.copy("whole", "a/views");
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            fs::write(&file, bytes).unwrap();
            let view = open(&store);
            assert_eq!(
                view.cause(),
                Some(RebuildCause::Changed),
                "byte {at} of {}",
                file.display()
            );
            check(&store, &view, 5);
        }
    }
}

#[test]
fn a_view_of_garbage_that_sled_cannot_open_is_made_again() {
    // The mark fits the garbage, so that only sled itself can refuse it or panic.
    let place = closed();
    let store = place.open("a");
    for fill in [0x00, 0x5a, 0xff] {
        let folder = files::ViewFolder::lock(&store, "test").unwrap();
        for entry in fs::read_dir(folder.database()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let len = fs::metadata(&path).unwrap().len() as usize;
                fs::write(path, vec![fill; len]).unwrap();
            }
        }
        folder.put_mark().unwrap();
        drop(folder);
        let view = open(&store);
        let causes = [Some(RebuildCause::Unopenable), Some(RebuildCause::Empty)];
        assert!(causes.contains(&view.cause()), "{fill:#x}: {:?}", view.cause());
        check(&store, &view, 5);
    }
}

#[test]
fn a_view_of_another_store_is_made_again() {
    let place = closed();
    let store = place.store("b");
    append(&store, "only", "here");
    store.close().unwrap();
    place.copy("a/views", "b/views");
    assert_eq!(cause_of(&place, "b"), Some(RebuildCause::OtherStore));
}

#[test]
fn a_view_that_is_ahead_of_a_restored_log_is_made_again() {
    // The directory was copied, the original went on with its view, then the copy was put back.
    let place = closed();
    fs::remove_dir_all(place.path("a/views")).unwrap();
    place.copy("a", "copy");
    let store = place.open("a");
    append(&store, "s/9", "lost with the restore");
    open(&store).close().unwrap();
    store.close().unwrap();
    place.copy("a/views", "copy/views");
    assert_eq!(cause_of(&place, "copy"), Some(RebuildCause::Contradicts));
}

#[test]
fn a_view_of_a_log_that_forked_at_the_same_lsn_is_made_again_r5() {
    // As before, and the restored log has written as many bytes again: the LSN exists, the chain differs.
    let place = closed();
    fs::remove_dir_all(place.path("a/views")).unwrap();
    place.copy("a", "copy");
    let store = place.open("a");
    append(&store, "s/8", "one");
    let view = open(&store);
    let lsn = view.checkpoint().position.lsn;
    view.close().unwrap();
    store.close().unwrap();
    let fork = place.open("copy");
    append(&fork, "s/9", "two");
    assert!(
        fork.position_at(lsn).unwrap().is_some(),
        "the trap is set: the LSN exists"
    );
    fork.close().unwrap();
    place.copy("a/views", "copy/views");
    assert_eq!(cause_of(&place, "copy"), Some(RebuildCause::Contradicts));
    let store = place.open("copy");
    assert_eq!(open(&store).stream("s/8").unwrap(), None);
}

/// Counts events by kind; its version can be raised.
struct Kinds {
    version: u32,
}

impl Projection for Kinds {
    fn name(&self) -> &str {
        "kinds"
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn apply(&self, event: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()> {
        let seen = out.get(event.kind.as_bytes())?.map_or(0, |bytes| bytes[0]);
        if event.kind == "forget" {
            out.remove(b"k0");
        } else {
            out.put(event.kind.as_bytes(), vec![seen + 1]);
        }
        Ok(())
    }
}

#[test]
fn a_view_of_an_older_version_or_another_projection_is_made_again() {
    let place = closed();
    let store = place.open("a");
    let kinds = |version| View::open(&store, "test", Kinds { version }, &mut |_| {}).unwrap();
    assert_eq!(kinds(1).cause(), Some(RebuildCause::OtherProjection));
    assert_eq!(kinds(1).cause(), None);
    assert_eq!(kinds(2).cause(), Some(RebuildCause::OtherProjection));
    assert_eq!(kinds(2).get(b"k7").unwrap(), Some(vec![1]));
    append(&store, "s/0", "k7");
    append(&store, "s/0", "forget");
    assert_eq!(
        kinds(2).get(b"k7").unwrap(),
        Some(vec![2]),
        "a fold reads its own state"
    );
    assert_eq!(kinds(2).get(b"k0").unwrap(), None);
}

#[test]
fn a_database_that_panics_is_an_error_and_not_the_end_of_the_process() {
    let error = caught::<()>("read", || panic!("what sled does on files it did not expect")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn a_view_whose_database_failed_is_not_left_as_if_it_were_whole() {
    let place = closed();
    let store = place.open("a");
    let mut view = open(&store);
    append(&store, "s/0", "the batch that fails");
    view.broken_by::<()>(Err(crate::Error::internal("sled cannot write")))
        .unwrap_err();
    drop(view);
    assert_eq!(open(&store).cause(), Some(RebuildCause::NotClosed));
}

/// Fails at an event of the kind `poison`.
struct Failing(AtomicU32);

impl Projection for Failing {
    fn name(&self) -> &str {
        "failing"
    }
    fn version(&self) -> u32 {
        1
    }
    fn apply(&self, event: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        out.put(b"last", event.kind.as_bytes());
        if event.kind == "poison" {
            Err(crate::Error::invalid("poison"))
        } else {
            Ok(())
        }
    }
}

#[test]
fn what_a_failing_fold_has_begun_is_not_kept() {
    let place = closed();
    let store = place.open("a");
    let mut view = View::open(&store, "failing", Failing(AtomicU32::new(0)), &mut |_| {}).unwrap();
    append(&store, "s/0", "good");
    append(&store, "s/0", "poison");
    let before = view.checkpoint().clone();
    assert_eq!(view.catch_up(&mut |_| {}).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        (view.checkpoint(), view.get(b"last").unwrap()),
        (&before, Some(b"k19".to_vec()))
    );
}

/// Counts all events, and can say nothing of those that it has not seen.
struct All;

impl Projection for All {
    fn name(&self) -> &str {
        "all"
    }
    fn version(&self) -> u32 {
        1
    }
    fn apply(&self, _: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()> {
        let before = out.get(b"n")?.map_or(0, |count| count[0]);
        out.put(b"n", [before + 1]);
        Ok(())
    }
}

/// A store whose beginning is freed after `before` was done with what is freed, or, `unseen`, with some of it.
fn freed(place: &Place, unseen: bool, before: impl FnOnce(&Store)) -> Store {
    let store = place.store("s");
    append(&store, "gone", "first");
    for _ in 0..3 {
        append(&store, "kept", "early");
    }
    before(&store);
    if unseen {
        append(&store, "kept", "unseen");
    }
    store.rotate(0).unwrap();
    append(&store, "kept", "late");
    let change = |space: &mut crate::Space| space.retention = crate::Retention::Bytes(1);
    store.change_space(change).map(drop).unwrap();
    assert_eq!(store.free().unwrap(), 1);
    store
}

#[test]
fn a_view_made_of_a_freed_log_begins_there_with_the_versions_that_events_have() {
    let place = Place::new();
    let store = freed(&place, false, |_| ());
    let begins = store.oldest().unwrap();
    for _ in 0..2 {
        let view = View::open(&store, "v", Streams, &mut |_| ()).unwrap();
        assert_eq!(view.begins().unwrap(), begins);
        assert_eq!(view.stream("kept").unwrap().unwrap().version, StreamVersion(3));
        assert!(view.stream("gone").unwrap().is_none());
        view.close().unwrap();
    }
    // What comes to a stream that it has not seen goes on from what was freed of it.
    append(&store, "gone", "again");
    let view = View::open(&store, "v", Streams, &mut |_| ()).unwrap();
    assert_eq!(view.stream("gone").unwrap().unwrap().version, StreamVersion(1));
    view.close().unwrap();
}

/// The trap: the view's files are removed before it is found that nobody can make them again.
#[test]
fn a_view_that_has_to_see_all_is_refused_on_a_freed_log_and_left_as_it_was() {
    let place = Place::new();
    let store = freed(&place, true, |store| {
        let view = View::open(store, "v", All, &mut |_| ()).unwrap();
        view.close().unwrap();
    });
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Behind, "{error}");
        assert!(error.to_string().contains("hold"), "{error}");
    };
    refused(
        View::open(&store, "other", All, &mut |_| ())
            .map(drop)
            .unwrap_err(),
    );
    // It has not seen all that was freed.
    for _ in 0..2 {
        refused(View::open(&store, "v", All, &mut |_| ()).map(drop).unwrap_err());
        assert!(place.path("s/views/v/closed").exists());
    }
    // It has, though the place where it stands was freed with it.
    let again = Place::new();
    let store = freed(&again, false, |store| {
        let view = View::open(store, "v", All, &mut |_| ()).unwrap();
        view.close().unwrap();
    });
    let view = View::open(&store, "v", All, &mut |_| ()).unwrap();
    assert_eq!((view.cause(), view.begins().unwrap()), (None, crate::Lsn::ZERO));
    assert_eq!(view.get(b"n").unwrap(), Some(vec![5]));
    view.close().unwrap();
    // Another version of it could not be made: the former is left whole.
    struct Newer;
    impl Projection for Newer {
        fn name(&self) -> &str {
            "all"
        }
        fn version(&self) -> u32 {
            2
        }
        fn apply(&self, event: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()> {
            All.apply(event, out)
        }
    }
    refused(View::open(&store, "v", Newer, &mut |_| ()).map(drop).unwrap_err());
    let view = View::open(&store, "v", All, &mut |_| ()).unwrap();
    assert_eq!((view.cause(), view.get(b"n").unwrap()), (None, Some(vec![5])));
}
