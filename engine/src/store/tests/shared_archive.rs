//! What an archive may lose: what was freed while it was away, and nothing of another store or another copy of this one.

use std::path::{Path, PathBuf};

use super::packed::{Answers, answers, files, fill, words};
use super::*;
use crate::{ErrorKind, Retention};

struct Place {
    dir: tempfile::TempDir,
    streams: Vec<String>,
    before: Answers,
}

impl Place {
    /// A closed store `s` with segments in the archive `a` beside it.
    fn new(compress: bool) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = options()
            .background(false)
            .init(dir.path().join("s"), "a".parse().unwrap())
            .unwrap();
        let streams = fill(&store, &mut words(47));
        if compress {
            store.compress(&mut |_, _| ()).unwrap();
        }
        store.set_archive(dir.path().join("a")).unwrap();
        assert!(store.archive(&mut |_, _| ()).unwrap().segments.len() >= 3);
        let before = answers(&store, &streams);
        store.close().unwrap();
        Place { dir, streams, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> Store {
        options().background(false).open(self.path(name)).unwrap()
    }

    /// Every file of the archive, with its bytes.
    fn there(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let archive = self.path("a");
        let all = ["log", "mpz"]
            .into_iter()
            .flat_map(|ending| files(&archive, ending));
        all.map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Some segments more.
fn grow(store: &Store) {
    for _ in 0..60 {
        let _ = store.commit(transaction("s/0", &[7; 50_000])).unwrap();
    }
}

fn keep_little(store: &Store) -> u64 {
    let change = |space: &mut crate::Space| space.retention = Retention::Bytes(1 << 20);
    store.change_space(change).map(drop).unwrap();
    store.free().unwrap()
}

/// The trap: the folder of a store was copied, and both name one archive. Whatever the copy does, the first is whole.
#[test]
fn a_copy_of_a_store_takes_nothing_from_the_archive_of_the_first() {
    for compress in [false, true] {
        let place = Place::new(compress);
        let there = place.there();
        for name in ["b", "c", "d"] {
            copy(&place.path("s"), &place.path(name));
        }
        let back = place.open("b");
        assert!(answers(&back, &place.streams) == place.before, "reading is free");
        back.bring_back(&mut |_, _| ()).unwrap();
        assert!(files(&place.path("b"), "away").is_empty() && answers(&back, &place.streams) == place.before);
        assert!(place.there() == there, "brought back by the copy");
        let freeing = place.open("c");
        assert!(keep_little(&freeing) >= 3);
        assert!(place.there() == there, "freed by the copy");
        let moving = place.open("d");
        grow(&moving);
        moving.make_sidecars().unwrap();
        for refused in [
            moving.archive(&mut |_, _| ()).map(drop),
            moving.set_archive(place.path("a")),
            moving.shared().tend_forms(&mut |_| Ok(())).map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(
                error.kind() == ErrorKind::Conflict && error.to_string().contains("--take-over"),
                "{error}"
            );
        }
        assert!(place.there() == there, "moved by the copy");
        let first = place.open("s");
        assert!(
            answers(&first, &place.streams) == place.before
                && first.verify(&mut |_, _| ()).unwrap().is_whole()
        );
        first.bring_back(&mut |_, _| ()).unwrap();
        assert!(place.there().is_empty() && answers(&first, &place.streams) == place.before);
    }
}

#[test]
fn a_copy_takes_the_archive_over_when_it_is_told_that_the_first_is_gone() {
    let place = Place::new(false);
    copy(&place.path("s"), &place.path("b"));
    let store = place.open("b");
    store.take_archive_over(place.path("a")).unwrap();
    store.bring_back(&mut |_, _| ()).unwrap();
    assert!(place.there().is_empty() && answers(&store, &place.streams) == place.before);
    // A folder that is moved stays the same store.
    let place = Place::new(false);
    std::fs::rename(place.path("s"), place.path("elsewhere")).unwrap();
    let store = place.open("elsewhere");
    store.set_archive(place.path("a")).unwrap();
    store.bring_back(&mut |_, _| ()).unwrap();
    assert!(place.there().is_empty());
}

/// The trap: the archive is away while segments are freed. When it is there again their files go, and nothing else does.
#[test]
fn what_was_freed_while_the_archive_was_away_goes_when_it_is_there_again_and_nothing_else_does() {
    for (compress, by_free) in [(false, true), (true, true), (false, false)] {
        let place = Place::new(compress);
        copy(&place.path("s"), &place.path("grown"));
        grow(&place.open("grown"));
        std::fs::rename(place.path("a"), place.path("gone")).unwrap();
        let store = place.open("s");
        let freed = keep_little(&store) as usize;
        assert!(freed >= 3);
        store.free().unwrap();
        std::fs::rename(place.path("gone"), place.path("a")).unwrap();
        let orphans = place.there();
        assert!(orphans.len() >= freed - 2, "{} of {freed}", orphans.len());
        // A file of another store under such a name, one that is damaged, and one that a longer history of this store has.
        let grown = files(&place.path("grown"), "log");
        let later = &grown[grown.len() - 2];
        assert!(!place.path("s/log").join(later.file_name().unwrap()).exists());
        let longer = place.path("a/log").join(later.file_name().unwrap());
        std::fs::copy(later, &longer).unwrap();
        let foreign = place.path("a/log/0000000000000008.log");
        std::fs::write(&foreign, [7; 4096]).unwrap();
        let damaged = &orphans[0];
        let mut bytes = damaged.1.clone();
        bytes[40] ^= 1;
        std::fs::write(&damaged.0, bytes).unwrap();
        if by_free {
            assert_eq!(store.free().unwrap(), 0);
        } else {
            store.archive(&mut |_, _| ()).unwrap();
        }
        let begins = store.oldest().unwrap();
        let firsts = place.there().into_iter().map(|(path, _)| {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Lsn(u64::from_str_radix(&stem, 16).unwrap())
        });
        let left: Vec<Lsn> = firsts.filter(|first| *first < begins).collect();
        assert!(foreign.exists() && damaged.0.exists() && longer.exists());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
    }
}

/// The trap: a segment seemed lost and was isolated, and its file is found again in the archive. What stands here now
/// under its name must not take the place of the only good copy (E1).
#[test]
fn a_file_in_the_archive_that_holds_something_else_is_never_written_over_e1() {
    for compress in [false, true] {
        let place = Place::new(compress);
        let there = place.there();
        std::fs::rename(&there[1].0, place.path("found again")).unwrap();
        let repair = crate::Repair::open(place.path("s"), options()).unwrap();
        repair.run(crate::RepairHow::Isolate, &mut |_| ()).unwrap();
        let raw = there[1].0.with_extension("log");
        std::fs::rename(place.path("found again"), &raw).unwrap();
        let store = place.open("s");
        store.make_sidecars().unwrap();
        let error = store.archive(&mut |_, _| ()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Conflict, Some(&*raw)));
        assert!(store.shared().tend_forms(&mut |_| Ok(())).is_err());
        assert!(std::fs::read(&raw).unwrap() == there[1].1);
        std::fs::rename(&raw, place.path("kept")).unwrap();
        store.archive(&mut |_, _| ()).unwrap();
        assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
    }
}

/// The trap: an archive lost its mark, and looks like a folder that nobody uses.
#[test]
fn an_archive_without_its_mark_is_nobody_elses_and_its_stores_when_that_says_so() {
    let place = Place::new(false);
    let there = place.there();
    std::fs::remove_file(place.path("a/archive")).unwrap();
    let other = options()
        .background(false)
        .init(place.path("t"), "a".parse().unwrap())
        .unwrap();
    fill(&other, &mut words(48));
    let own = place.open("s");
    for refused in [
        other.set_archive(place.path("a")),
        other.take_archive_over(place.path("a")),
        own.set_archive(place.path("a")),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert!(place.there() == there && !place.path("a/archive").exists());
    own.take_archive_over(place.path("a")).unwrap();
    assert!(answers(&own, &place.streams) == place.before);
}

/// The trap: the store's folder is put back to what it was, and takes over the archive in which its later self left more.
#[test]
fn an_earlier_state_of_a_store_does_not_take_an_archive_over_that_has_more() {
    let place = Place::new(false);
    copy(&place.path("s"), &place.path("earlier"));
    let store = place.open("s");
    grow(&store);
    grow(&store);
    store.archive(&mut |_, _| ()).unwrap();
    store.close().unwrap();
    let there = place.there();
    let earlier = place.open("earlier");
    let error = earlier.take_archive_over(place.path("a")).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Conflict && error.to_string().contains("earlier state"),
        "{error}"
    );
    assert!(place.there() == there);
}
