//! What a backup holds, what it refuses, and what a store made of it is.

use std::path::{Path, PathBuf};

use super::*;
use crate::storage::LocalStorage;
use crate::{ErrorKind, Options, StreamVersion, Transaction};

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
        options().init(self.path(name), "bern".parse().unwrap()).unwrap()
    }
}

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

fn commit(store: &Store, from: u32, to: u32) {
    for number in from..to {
        let mut transaction = Transaction::new();
        let payload = [number.to_le_bytes().as_slice(), &[7; 10_000]].concat();
        transaction.push_parts("s", "k", &payload).unwrap();
        store.commit(transaction).unwrap().committed().unwrap();
    }
}

fn numbers(store: &Store) -> Vec<u32> {
    let events = store.read_stream("s", StreamVersion(0)).unwrap();
    let number = |event: crate::RecordedEvent| u32::from_le_bytes(*event.payload.first_chunk().unwrap());
    events.map(|event| number(event.unwrap())).collect()
}

fn backup(store: &Store, to: &Path) -> Result<BackedUp> {
    store.backup(to, false, &mut |_, _| ())
}

fn restored(place: &Place, from: &str, to: &str) -> Store {
    let (from, to) = (place.path(from), place.path(to));
    options().restore(from, &to, &mut |_, _| ()).unwrap();
    options().open(to).unwrap()
}

/// Everything below a folder, by name.
fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_second_run_copies_only_what_is_new_and_a_restored_store_has_all_of_it() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 250);
    let first = backup(&store, &to).unwrap();
    assert_eq!(first.copied_bytes, store.watermarks().durable.0);
    assert!(first.segments >= 3 && first.copied.len() == first.segments as usize);
    commit(&store, 250, 260);
    let second = backup(&store, &to).unwrap();
    assert_eq!(second.former_end, first.end);
    assert_eq!(second.copied_bytes, second.end.since(first.end));
    assert!(second.copied.len() <= 2, "{second:?}");
    let third = backup(&store, &to).unwrap();
    assert_eq!((third.copied_bytes, third.end), (0, second.end));
    assert!(
        Backup::open(&to)
            .unwrap()
            .verify(&mut |_, _| ())
            .unwrap()
            .damage
            .is_empty()
    );
    let again = restored(&place, "b", "r");
    assert_eq!(numbers(&again), (0..260).collect::<Vec<_>>());
    assert_eq!((again.id(), again.site()), (store.id(), store.site()));
}

#[test]
fn a_restored_store_goes_on_in_a_lineage_of_its_own_that_names_parent_and_fork() {
    let place = Place::new();
    let store = place.store("s");
    assert_eq!(store.lineage().unwrap(), None);
    commit(&store, 0, 5);
    let done = backup(&store, &place.path("b")).unwrap();
    let again = restored(&place, "b", "r");
    assert_ne!(again.epoch(), store.epoch());
    assert_eq!(again.lineage().unwrap(), Some((store.epoch(), done.end)));
    commit(&again, 5, 300);
    again.close().unwrap();
    let again = options().open(place.path("r")).unwrap();
    assert_eq!(numbers(&again), (0..300).collect::<Vec<_>>());
    assert_eq!(again.lineage().unwrap(), Some((store.epoch(), done.end)));
    assert!(again.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    // What lies before the fork keeps its epoch, what lies behind has the new one.
    let mut scan = again.scan(Lsn::ZERO).unwrap();
    while let Some(frame) = scan.next().unwrap() {
        let expected = if frame.lsn() < done.end {
            store.epoch()
        } else {
            again.epoch()
        };
        assert_eq!(frame.epoch(), expected);
    }
}

#[test]
fn a_store_that_was_restored_twice_knows_where_it_left_each_of_its_lineages() {
    let place = Place::new();
    let store = place.store("s");
    commit(&store, 0, 5);
    let first = backup(&store, &place.path("b")).unwrap();
    let again = restored(&place, "b", "r");
    commit(&again, 5, 9);
    let second = backup(&again, &place.path("c")).unwrap();
    let last = restored(&place, "c", "t");
    let left = |epoch| last.left_at(epoch).unwrap();
    assert!(second.end > first.end);
    assert_eq!(left(store.epoch()), Some(first.end));
    assert_eq!(left(again.epoch()), Some(second.end));
    assert_eq!((left(last.epoch()), left(Epoch(7))), (None, None));
    assert_eq!(store.left_at(store.epoch()).unwrap(), None);
}

/// R5: two stores that go on from one state are two histories of one site. A backup is none.
#[test]
fn a_backup_is_not_opened_as_a_store_nor_made_into_one_by_init() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 3);
    backup(&store, &to).unwrap();
    let before = contents(&to);
    let error = options().open(&to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStore);
    assert!(error.to_string().contains("milepost restore"), "{error}");
    assert_eq!(
        options().init(&to, "bern".parse().unwrap()).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        options()
            .open_or_init(&to, "bern".parse().unwrap())
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    assert_eq!(contents(&to), before);
}

#[test]
fn a_store_that_was_put_back_or_parted_is_refused_and_the_backup_stays_as_it_was() {
    // E3: by LSNs alone the new history would look like what follows the backup.
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 5);
    backup(&store, &place.path("old")).unwrap();
    commit(&store, 5, 20);
    backup(&store, &to).unwrap();
    let before = contents(&to);
    let put_back = restored(&place, "old", "r");
    let error = backup(&put_back, &to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("put back"), "{error}");
    commit(&put_back, 0, 40);
    let error = backup(&put_back, &to).unwrap_err();
    assert!(error.to_string().contains("another history"), "{error}");
    assert_eq!(contents(&to), before);
    // The backup that it was made of is its own beginning: that one goes on.
    let done = backup(&put_back, &place.path("old")).unwrap();
    assert_eq!(done.epoch, put_back.epoch());
}

#[test]
fn another_stores_backup_a_store_a_full_folder_and_places_within_each_other_are_refused() {
    let place = Place::new();
    let (store, other) = (place.store("s"), place.store("o"));
    commit(&store, 0, 3);
    backup(&store, &place.path("b")).unwrap();
    let refused = |store: &Store, to: PathBuf| {
        let before = if to.exists() { contents(&to).len() } else { 0 };
        let error = backup(store, &to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(if to.exists() { contents(&to).len() } else { 0 }, before);
    };
    refused(&other, place.path("b"));
    refused(&store, place.path("s"));
    refused(&store, place.path("s/backup"));
    refused(&store, place.dir.path().to_path_buf());
    refused(&store, place.path("o"));
    std::os::unix::fs::symlink(place.path("s"), place.path("way")).unwrap();
    refused(&store, place.path("way/b"));
    std::fs::create_dir(place.path("letters")).unwrap();
    std::fs::write(place.path("letters/one"), "mine").unwrap();
    refused(&store, place.path("letters"));
}

#[test]
fn two_runs_at_once_are_one_and_a_refusal() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    backup(&store, &to).unwrap();
    let open = Backup::open(&to).unwrap();
    assert_eq!(backup(&store, &to).unwrap_err().kind(), ErrorKind::Unavailable);
    drop(open);
    backup(&store, &to).unwrap();
}

#[test]
fn damage_in_the_source_is_told_with_its_place_and_the_former_backup_stays_whole() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 10);
    let done = backup(&store, &to).unwrap();
    commit(&store, 10, 20);
    let damaged = done.end.plus(5_000);
    flip(&place.path("s/log/0000000000000000.log"), damaged.0 as usize);
    let error = backup(&store, &to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.lsn(), Some(done.end), "{error}");
    assert!(error.path().unwrap().ends_with("s/log/0000000000000000.log"));
    let found = Backup::open(&to).unwrap();
    assert_eq!(found.facts().end, done.end);
    assert!(found.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    drop(found);
    assert_eq!(numbers(&restored(&place, "b", "r")), (0..10).collect::<Vec<_>>());
}

#[test]
fn damage_in_the_backup_is_found_and_copied_again() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 250);
    backup(&store, &to).unwrap();
    let copies: Vec<PathBuf> = contents(&to.join("log"))
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    flip(&copies[1], 50_000);
    let verify = || {
        Backup::open(&to)
            .unwrap()
            .verify(&mut |_, _| ())
            .unwrap()
            .damage
            .len()
    };
    assert_eq!(verify(), 1);
    let error = options()
        .restore(&to, place.path("r"), &mut |_, _| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        backup(&store, &to).unwrap().replaced.is_empty(),
        "without reading it all"
    );
    let done = store.backup(&to, true, &mut |_, _| ()).unwrap();
    assert_eq!(done.replaced.len(), 1, "{done:?}");
    assert_eq!(verify(), 0);
    // Files that are gone or short are seen at once.
    std::fs::remove_file(&copies[0]).unwrap();
    std::fs::write(&copies[2], b"").unwrap();
    assert_eq!(verify(), 2);
    assert_eq!(backup(&store, &to).unwrap().replaced.len(), 2);
    assert_eq!(verify(), 0);
    // The interrupted restore is cleared away by the next.
    assert_eq!(numbers(&restored(&place, "b", "r")).len(), 250);
}

/// Flips a byte in the block of each of these commits, of the file that holds it.
fn damage(folder: &Path, lsns: &[Lsn]) {
    for at in lsns {
        let names = contents(&folder.join("log")).into_iter().map(|(path, _)| path);
        let first = |path: &Path| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok();
        let mut logs = names.filter_map(|path| Some((first(&path)?, path)));
        let (first, path) = logs.rfind(|(first, _)| *first <= at.0).unwrap();
        flip(&path, (at.0 - first) as usize + 5_000);
    }
}

/// A store whose repair took out the blocks of these commits, and its backup from before.
fn backed_up_and_repaired(place: &Place, lost: std::ops::Range<usize>) -> (Store, Vec<Lsn>) {
    let store = place.store("s");
    commit(&store, 0, 250);
    backup(&store, &place.path("b")).unwrap();
    let events = store.read_stream("s", StreamVersion(0)).unwrap();
    let lsns: Vec<Lsn> = events.map(|event| event.unwrap().lsn).collect();
    store.close().unwrap();
    damage(&place.path("s"), &lsns[lost]);
    let repair = crate::Repair::open(place.path("s"), options()).unwrap();
    repair.run(crate::RepairHow::Isolate, &mut |_| ()).unwrap();
    (options().open(place.path("s")).unwrap(), lsns)
}

/// The trap: copied again from the store, the segment would have lost blocks where the backup has good ones.
#[test]
fn a_damaged_copy_that_is_made_again_keeps_what_the_store_has_lost() {
    let place = Place::new();
    let (store, lsns) = backed_up_and_repaired(&place, 120..123);
    let to = place.path("b");
    damage(&to, &lsns[140..141]);
    let done = store.backup(&to, true, &mut |_, _| ()).unwrap();
    assert_eq!(done.replaced.len(), 1, "{done:?}");
    assert_eq!(numbers(&restored(&place, "b", "r")), (0..250).collect::<Vec<_>>());
    assert_eq!(numbers(&store).len(), 247);
    let again = store.backup(&to, true, &mut |_, _| ()).unwrap();
    assert!(again.replaced.is_empty(), "{again:?}");
}

#[test]
fn a_damaged_copy_that_holds_a_part_of_what_the_store_has_lost_is_not_replaced() {
    let place = Place::new();
    let (store, lsns) = backed_up_and_repaired(&place, 120..123);
    let to = place.path("b");
    damage(&to, &lsns[121..122]);
    let before = contents(&to);
    let error = store.backup(&to, true, &mut |_, _| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(
        error.lsn().unwrap() < lsns[120] && error.path().unwrap().starts_with(&to),
        "{error}"
    );
    assert!(error.to_string().contains("another folder"), "{error}");
    assert!(contents(&to) == before, "nothing was changed");
    // Nothing is left to keep.
    damage(&to, &lsns[120..121]);
    damage(&to, &lsns[122..123]);
    let done = store.backup(&to, true, &mut |_, _| ()).unwrap();
    assert_eq!(done.replaced.len(), 1, "{done:?}");
    assert_eq!(numbers(&restored(&place, "b", "r")).len(), 247);
}

/// The trap: what two lost files become is one file, and longer than the copy of the first.
#[test]
fn copies_of_two_files_that_the_store_has_lost_stay_as_they_are() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 400);
    backup(&store, &to).unwrap();
    store.close().unwrap();
    let logs: Vec<PathBuf> = contents(&place.path("s/log"))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    assert!(logs.len() >= 4, "{logs:?}");
    for gone in &logs[1..3] {
        std::fs::remove_file(gone).unwrap();
    }
    let repair = crate::Repair::open(place.path("s"), options()).unwrap();
    repair.run(crate::RepairHow::Isolate, &mut |_| ()).unwrap();
    let store = options().open(place.path("s")).unwrap();
    for thorough in [false, true] {
        let done = store.backup(&to, thorough, &mut |_, _| ()).unwrap();
        assert!(done.replaced.is_empty(), "{done:?}");
    }
    assert_eq!(numbers(&restored(&place, "b", "r")), (0..400).collect::<Vec<_>>());
}

#[test]
fn what_a_killed_run_left_is_no_backup_and_the_next_run_goes_on_with_it() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    commit(&store, 0, 250);
    // A first run that ended before its last step.
    backup(&store, &to).unwrap();
    Manifest::begun(store.shared().identity.clone())
        .write(&LocalStorage::new(to.clone()))
        .unwrap();
    flip(&contents(&to.join("log"))[2].0, 300_000);
    let error = Backup::open(&to).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("again"), "{error}");
    let whole = store.watermarks().durable.0;
    let done = backup(&store, &to).unwrap();
    assert!(done.copied_bytes > 0 && done.copied_bytes < whole / 2, "{done:?}");
    assert_eq!(numbers(&restored(&place, "b", "r")), (0..250).collect::<Vec<_>>());
}

#[test]
fn a_store_is_restored_to_an_empty_folder_only() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    backup(&store, &to).unwrap();
    std::fs::create_dir(place.path("full")).unwrap();
    std::fs::write(place.path("full/one"), "mine").unwrap();
    for taken in ["full", "s", "b", "b/new"] {
        let error = options()
            .restore(&to, place.path(taken), &mut |_, _| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{taken}: {error}");
    }
    let error = options()
        .restore(place.path("s"), place.path("n"), &mut |_, _| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoStore);
    assert!(!place.path("n").exists());
    std::fs::create_dir(place.path("empty")).unwrap();
    options()
        .restore(&to, place.path("empty"), &mut |_, _| ())
        .unwrap();
}

#[test]
fn a_backup_taken_while_several_handles_commit_holds_whole_transactions_in_order() {
    let place = Place::new();
    let (store, to) = (place.store("s"), place.path("b"));
    std::thread::scope(|scope| {
        for writer in 0..3u32 {
            let root = place.path("s");
            scope.spawn(move || {
                let store = options().open(root).unwrap();
                commit(&store, writer * 1000, writer * 1000 + 100);
            });
        }
        for round in 0..6 {
            let done = backup(&store, &to).unwrap();
            let found = Backup::open(&to).unwrap().verify(&mut |_, _| ()).unwrap();
            assert!(found.damage.is_empty(), "round {round}: {found:?}");
            assert_eq!(Backup::open(&to).unwrap().facts().end, done.end);
        }
    });
    backup(&store, &to).unwrap();
    let found = numbers(&restored(&place, "b", "r"));
    assert_eq!(found, numbers(&store));
    assert_eq!(found.len(), 300);
}

/// Retention frees what nobody holds: a restored store that had lost its holds let go, at its first opening, of what remotes were
/// still due.
#[test]
fn holds_go_with_a_backup_as_they_were_when_it_began_and_come_back_with_it() {
    let place = Place::new();
    let store = options()
        .retention(crate::Retention::UntilScanned)
        .init(place.path("store"), "bern".parse().unwrap())
        .unwrap();
    let hold = |name: &str, lsn: Lsn, expires: Option<i64>| {
        let hold = Hold {
            expires,
            ..Hold::new("replication", "whoever", lsn)
        };
        store.hold(name, &hold).unwrap();
    };
    commit(&store, 0, 300);
    hold("lasting", Lsn::ZERO, None);
    hold("dropped", Lsn::ZERO, None);
    hold("ending", Lsn::ZERO, Some(i64::MAX));
    let names = |store: &Store| -> Vec<(String, Lsn)> {
        let holds = store.holds().unwrap().into_iter();
        holds.map(|hold| (hold.name, hold.hold.unwrap().lsn)).collect()
    };
    backup(&store, &place.path("backup")).unwrap();
    let restored_store = restored(&place, "backup", "first");
    let lasting = |lsn| ("lasting".to_owned(), lsn);
    assert_eq!(
        names(&restored_store),
        [("dropped".to_owned(), Lsn::ZERO), lasting(Lsn::ZERO)]
    );
    // Everything is scanned, so nothing but the holds keeps the log.
    let lock = restored_store.lock_phase(crate::Phase::Scan).unwrap();
    let mut queue = restored_store.queue_writer(&lock).unwrap();
    let durable = restored_store.watermarks().durable;
    queue.append(Vec::new(), Lsn(durable.0 - 1)).unwrap();
    queue.sync().unwrap();
    assert_eq!(restored_store.free().unwrap(), 0);
    restored_store.drop_hold("dropped").unwrap();
    restored_store.drop_hold("lasting").unwrap();
    assert!(restored_store.free().unwrap() > 0, "the trap: it would have gone");

    // The next run takes them as they are by then.
    store.drop_hold("dropped").unwrap();
    let moved = store.watermarks().durable;
    hold("lasting", moved, None);
    backup(&store, &place.path("backup")).unwrap();
    assert_eq!(names(&restored(&place, "backup", "second")), [lasting(moved)]);
}
