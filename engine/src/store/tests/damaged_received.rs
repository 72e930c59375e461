//! A damaged file of what was received: what can be told of it takes its place, and of the rest it is told that nobody
//! knows (R1).

use std::path::{Path, PathBuf};

use super::space::{files, keeping, receive};
use super::*;
use crate::{Epoch, ErrorKind, Repair, Retention, StoreId};

const COUNT: u64 = 200;

/// A closed store that received so many transactions and freed most in several steps; the files about them, oldest first.
fn freed(root: &Path) -> Vec<PathBuf> {
    let store = keeping(root, Retention::Bytes(2 << 20));
    for round in 0..4 {
        receive(&store, round * 50, 50);
        store.free().unwrap();
    }
    store.close().unwrap();
    let files = files(root, "received-");
    assert!(files.len() >= 3, "{files:?}");
    files
}

/// Of each transaction, in their order: how many events of it are known, and whether there may have been more.
fn asked(store: &Store) -> Vec<(usize, bool)> {
    let all = store.receipts(None).unwrap();
    let ask = |number: u64| {
        let (site, epoch, lsn) = (StoreId(9), Epoch(3), Lsn(64 + number));
        let lost = all.lost_of(site, epoch, lsn);
        if let Some(lost) = &lost {
            assert_eq!(lost.kind(), ErrorKind::Behind);
        }
        (all.events(site, epoch, lsn).unwrap().len(), lost.is_some())
    };
    (0..COUNT).map(ask).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &there),
            false => drop(std::fs::copy(entry.path(), there).unwrap()),
        }
    }
}

fn open(root: &Path) -> Store {
    options().background(false).open(root).unwrap()
}

fn repair(root: &Path) -> Repair {
    Repair::open(root, options()).unwrap()
}

#[test]
fn of_a_damaged_file_what_is_whole_is_kept_and_the_rest_is_told_as_not_known_r1() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let kept = freed(&root);
    let before = asked(&open(&root));
    let examined = repair(&root).examine().unwrap();
    assert!(examined.received.is_empty() && !examined.received_unlinked);
    assert_eq!(
        repair(&root).renew_received().unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let (mut parts, mut all) = (0, 0);
    for file in [&kept[0], &kept[1], &kept[kept.len() - 1]] {
        let good = std::fs::read(file).unwrap();
        let flip = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            Some(bytes)
        };
        let damages = (0..good.len()).step_by(41).map(flip);
        let cut = [None, Some(Vec::new()), Some(good[..good.len() / 2].to_vec())];
        for damage in damages.chain(cut) {
            let copied = tempfile::tempdir().unwrap();
            let (pristine, root) = (&root, copied.path().join("s"));
            copy(pristine, &root);
            let file = &root.join(file.strip_prefix(pristine).unwrap());
            match &damage {
                Some(bytes) => std::fs::write(file, bytes).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
            let told = repair(&root).examine().unwrap();
            assert!(told.damages.is_empty() && told.base.is_none());
            assert_eq!(told.received.len(), 1);
            assert_eq!(&told.received[0].path, file);
            assert!(!told.received[0].lost().is_empty());
            assert_eq!(repair(&root).renew_received().unwrap(), told.received);
            let again = repair(&root).examine().unwrap();
            assert!(again.received.is_empty() && !again.received_unlinked);
            let store = open(&root);
            assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
            assert_eq!(store.receipts(None).unwrap().lost_parts().len(), 1);
            let unknown = told.received[0].forgotten.is_none();
            *(if unknown { &mut all } else { &mut parts }) += 1;
            for (number, (after, before)) in asked(&store).into_iter().zip(&before).enumerate() {
                assert!(after.0 == before.0 || after == (0, true), "{number}: {after:?}");
            }
            let lost = asked(&store).iter().filter(|(known, _)| *known == 0).count();
            let were = before.iter().filter(|(known, _)| *known == 0).count();
            assert!(lost > were, "the trap: something of it is lost");
            let flipped = damage.is_some_and(|bytes| bytes.len() == good.len());
            assert!(unknown || !flipped || lost <= were + 4, "one page of four");
            store.close().unwrap();
        }
    }
    assert!(parts > 10 && all > 5, "{parts} and {all}");
}

/// The trap: power fails between the files of the chain and the base, or in the middle of them.
#[test]
fn a_repair_of_what_was_received_that_was_interrupted_is_finished_and_loses_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let kept = freed(&root);
    let base = files(&root, "base-").remove(0);
    let mut bytes = std::fs::read(&kept[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&kept[0], bytes).unwrap();
    let before: Vec<Vec<u8>> = kept.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let former = std::fs::read(&base).unwrap();
    let _ = repair(&root).renew_received().unwrap();
    let after: Vec<Vec<u8>> = kept.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let named = std::fs::read(&base).unwrap();
    for done in 1..=kept.len() {
        std::fs::write(&base, &former).unwrap();
        for (number, path) in kept.iter().enumerate() {
            let bytes = if number < done { &after } else { &before };
            std::fs::write(path, &bytes[number]).unwrap();
        }
        let found = repair(&root).examine().unwrap();
        assert!(
            found.received.is_empty() && found.received_unlinked,
            "{done} were done"
        );
        let store = open(&root);
        assert_eq!(store.receipts(None).unwrap_err().kind(), ErrorKind::Corrupt);
        store.close().unwrap();
        assert!(repair(&root).renew_received().unwrap().is_empty());
        assert_eq!(std::fs::read(&base).unwrap(), named);
        let files: Vec<Vec<u8>> = kept.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert!(files == after, "{done} were done");
    }
}

#[test]
fn what_was_lost_stays_told_when_more_is_freed_backed_up_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let kept = freed(&root);
    std::fs::remove_file(&kept[1]).unwrap();
    let _ = repair(&root).renew_received().unwrap();
    let store = open(&root);
    let before = asked(&store);
    receive(&store, COUNT, 50);
    assert!(store.free().unwrap() > 0);
    let parts = store.receipts(None).unwrap().lost_parts();
    assert_eq!(parts.len(), 1);
    assert!(store.receipts(None).unwrap().has_lost_tables());
    let later = asked(&store);
    for (number, (later, before)) in later.iter().zip(&before).enumerate() {
        assert!(later.1 && later.0 >= before.0, "{number}");
    }
    let backup = dir.path().join("backup");
    store.backup(&backup, false, &mut |_, _| ()).unwrap();
    let again = dir.path().join("again");
    options().restore(&backup, &again, &mut |_, _| ()).unwrap();
    assert_eq!(asked(&open(&again)), later);
}

/// The trap: a whole file of that name that is another one, such as of a copy of the store that went on by itself.
#[test]
fn a_file_that_is_not_the_one_that_is_named_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let kept = freed(&root);
    let mut bytes = std::fs::read(&kept[1]).unwrap();
    // What came before it by another checksum, and the header's own made to fit.
    bytes[56] ^= 1;
    let crc = crc32fast::hash(&bytes[..92]).to_le_bytes();
    bytes[92..96].copy_from_slice(&crc);
    std::fs::write(&kept[1], bytes).unwrap();
    let told = repair(&root).renew_received().unwrap();
    assert_eq!((told.len(), &told[0].forgotten), (1, &None));
    assert!(open(&root).receipts(None).unwrap().has_lost_tables());
}

/// A store with its backup, and the files of both about what was received.
struct BackedUp {
    dir: tempfile::TempDir,
    root: PathBuf,
    kept: Vec<PathBuf>,
    before: Vec<(usize, bool)>,
    backup: PathBuf,
    copies: Vec<(PathBuf, Vec<u8>)>,
}

impl BackedUp {
    fn new() -> BackedUp {
        let dir = tempfile::tempdir().unwrap();
        let (root, backup) = (dir.path().join("s"), dir.path().join("backup"));
        let kept = freed(&root);
        let store = open(&root);
        let before = asked(&store);
        store.backup(&backup, false, &mut |_, _| ()).unwrap();
        store.close().unwrap();
        let copies = files(&backup, "received-").into_iter();
        let copies = copies
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        BackedUp {
            dir,
            root,
            kept,
            before,
            backup,
            copies,
        }
    }

    /// The backup goes on, its files stay as they were, and of what it restores nothing is lost.
    fn goes_on(&self) {
        let store = open(&self.root);
        let newest = COUNT + store.watermarks().durable.0;
        receive(&store, newest, 1);
        let done = store.backup(&self.backup, false, &mut |_, _| ()).unwrap();
        assert!(done.copied_bytes > 0);
        store.close().unwrap();
        for (path, bytes) in &self.copies {
            assert!(std::fs::read(path).unwrap() == *bytes, "{path:?}");
        }
        let again = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        options().restore(&self.backup, &again, &mut |_, _| ()).unwrap();
        let again = open(&again);
        assert!(again.receipts(None).unwrap().lost_parts().is_empty());
        assert_eq!(asked(&again), self.before);
        assert!(again.verify(&mut |_, _| ()).unwrap().is_whole());
    }
}

/// The trap: the backup's base names files by checksums that the store's no longer have, so that no run would ever end again.
#[test]
fn a_backup_goes_on_with_its_whole_files_before_and_after_a_repair_of_what_was_received() {
    let damages: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes[40] ^= 1,
        |bytes| bytes[100] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
    ];
    for damage in damages {
        let place = BackedUp::new();
        let mut bytes = std::fs::read(&place.kept[0]).unwrap();
        damage(&mut bytes);
        std::fs::write(&place.kept[0], bytes).unwrap();
        place.goes_on();
        assert_eq!(repair(&place.root).renew_received().unwrap().len(), 1);
        assert_eq!(open(&place.root).receipts(None).unwrap().lost_parts().len(), 1);
        place.goes_on();
        // Its base alone can be made again of the store's, and names what is there.
        std::fs::remove_file(files(&place.backup, "base-").remove(0)).unwrap();
        place.goes_on();
    }
}

#[test]
fn a_file_that_is_whole_in_neither_is_told_and_no_whole_one_gives_way_to_a_renewed_one() {
    let place = BackedUp::new();
    std::fs::remove_file(&place.kept[1]).unwrap();
    let _ = repair(&place.root).renew_received().unwrap();
    std::fs::remove_file(&place.copies[1].0).unwrap();
    let refused = |at: usize| {
        let store = open(&place.root);
        let error = store.backup(&place.backup, false, &mut |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(error.path(), Some(&*place.copies[at].0), "{error}");
        for (number, (path, bytes)) in place.copies.iter().enumerate() {
            assert!(number == 1 || std::fs::read(path).unwrap() == *bytes, "{path:?}");
        }
    };
    refused(1);
    // Without its base nobody there says which is the right one.
    std::fs::remove_file(files(&place.backup, "base-").remove(0)).unwrap();
    refused(place.copies.len() - 1);
    let other = place.dir.path().join("other");
    open(&place.root).backup(other, false, &mut |_, _| ()).unwrap();
}
