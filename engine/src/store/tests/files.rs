//! What files a store makes, keeps open and misses.

use super::*;
use crate::ErrorKind;
use crate::frame::{FrameKind, NewFrame};
use crate::queue::QueueEntry;

/// Descriptors of this process that lead below `root`.
fn open_below(root: &Path) -> usize {
    let root = root.canonicalize().unwrap();
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(&root))
        .count()
}

#[test]
fn a_log_of_many_files_keeps_few_of_them_open() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    for n in 0..100u8 {
        let _ = store.commit(transaction(&format!("s/{}", n % 3), &[n])).unwrap();
        assert!(store.rotate(0).unwrap());
    }
    store.tend().unwrap();
    assert_eq!(payloads(&store).len(), 100);
    for stream in ["s/0", "s/1", "s/2"] {
        let events = store.read_stream(stream, StreamVersion(0)).unwrap();
        assert!(events.count() >= 33);
    }
    let open = open_below(&root);
    assert!(open <= 64 + 8, "{open} descriptors for 101 segments");
    assert_eq!(payloads(&store).len(), 100, "what was closed is opened again");
}

#[test]
fn options_out_of_range_make_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    for options in [
        options().pad_to(3),
        options().block_bytes(1),
        options().segment_bytes(1),
    ] {
        let error = options.init(&root, "a".parse().unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!root.exists());
    }
}

#[test]
fn no_store_is_made_over_a_log_whose_store_file_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let _ = store.commit(transaction("s", b"precious")).unwrap();
    store.close().unwrap();
    for lost in ["store", "control"] {
        std::fs::rename(root.join(lost), dir.path().join(lost)).unwrap();
        let error = options().init(&root, "a".parse().unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("file `store` is missing"), "{error}");
    }
    std::fs::rename(dir.path().join("store"), root.join("store")).unwrap();
    assert_eq!(payloads(&options().open(&root).unwrap()), [b"precious"]);
}

/// Of the file `store` a backup has every byte, and says so does who misses it.
#[test]
fn a_store_file_that_is_missing_or_damaged_is_taken_from_a_backup_as_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (root, to) = (dir.path().join("s"), dir.path().join("b"));
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let _ = store.commit(transaction("s", b"precious")).unwrap();
    store.backup(&to, false, &mut |_, _| ()).unwrap();
    store.close().unwrap();
    for damaged in [false, true] {
        if damaged {
            std::fs::write(root.join("store"), "not what it was").unwrap();
        } else {
            std::fs::remove_file(root.join("store")).unwrap();
        }
        let raw = crate::RawLog::open(&root).err().unwrap();
        for error in [raw, options().open(&root).err().unwrap()] {
            let told = error.to_string();
            assert!(
                told.contains("if=BACKUP/backup of=DIR/store bs=64 skip=1 count=4"),
                "{told}"
            );
            assert!(!told.contains("milepost init"), "{told}");
        }
        let backup = std::fs::read(to.join("backup")).unwrap();
        std::fs::write(root.join("store"), &backup[64..64 + 4 * 64]).unwrap();
        assert_eq!(payloads(&options().open(&root).unwrap()), [b"precious"]);
    }
}

#[test]
fn an_interrupted_attempt_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    options()
        .init(&root, "a".parse().unwrap())
        .unwrap()
        .close()
        .unwrap();
    let log = root.join("log/0000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let first = crate::block::BlockHeader::parse(&bytes).unwrap().block_len;
    bytes[usize::try_from(first).unwrap()..].fill(0);
    for torn in [
        bytes.clone(),
        [vec![7; 100], vec![0; 1 << 20]].concat(),
        Vec::new(),
    ] {
        for name in ["store", "control"] {
            std::fs::remove_file(root.join(name)).unwrap();
        }
        std::fs::write(&log, torn).unwrap();
        options()
            .init(&root, "a".parse().unwrap())
            .unwrap()
            .close()
            .unwrap();
    }
}

#[test]
fn a_store_that_is_moved_while_it_is_open_stays_one_and_the_next_in_its_place_another_e5() {
    let dir = tempfile::tempdir().unwrap();
    let (root, moved) = (dir.path().join("s"), dir.path().join("moved"));
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let commit = |store: &Store, n: u8| store.commit(transaction("s", &[n])).unwrap().committed().unwrap();
    commit(&store, 1);
    std::fs::rename(&root, &moved).unwrap();
    let other = options().init(&root, "b".parse().unwrap()).unwrap();
    for n in 2..5 {
        commit(&store, n);
        commit(&other, 10 * n);
        assert!(store.rotate(0).unwrap() && other.rotate(0).unwrap());
    }
    let scan = store.lock_phase(Phase::Scan).unwrap();
    drop(store.queue_writer(&scan).unwrap());
    drop(scan);
    store.close().unwrap();
    other.close().unwrap();
    for (place, whole) in [(&moved, [1, 2, 3, 4].as_slice()), (&root, &[20, 30, 40])] {
        let store = options().open(place).unwrap();
        let all: Vec<u8> = payloads(&store).into_iter().flatten().collect();
        assert_eq!(all, whole);
        assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    }
}

#[test]
fn a_store_is_opened_or_made_by_whoever_comes_first_and_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    assert_eq!(options().open(&root).unwrap_err().kind(), ErrorKind::NoStore);
    let stores: Vec<_> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| options().open_or_init(&root, "a".parse().unwrap()).unwrap()))
            .collect();
        opening.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(stores.iter().all(|store| store.id() == stores[0].id()));
    let other = options().open_or_init(&root, "b".parse().unwrap());
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Conflict);
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("letters"), "mine").unwrap();
    let other = options().open_or_init(&full, "a".parse().unwrap());
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn verify_names_the_file_that_is_missing_between_others() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    for n in 0..3u8 {
        let _ = store.commit(transaction("s", &[n])).unwrap();
        assert!(store.rotate(0).unwrap());
    }
    let lost = store.segments().unwrap()[1].0;
    let name = format!("log/{:016x}.log", lost.0);
    store.close().unwrap();
    std::fs::remove_file(root.join(&name)).unwrap();
    let store = options().open(&root).unwrap();
    let found = store.verify(&mut |_, _| ()).unwrap();
    assert_eq!(found.damage.len(), 1, "{found:?}");
    assert!(found.damage[0].to_string().contains(&name), "{}", found.damage[0]);
    let error = store
        .scan(Lsn::ZERO)
        .and_then(|mut scan| {
            while scan.next()?.is_some() {}
            Ok(())
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&name), "{error}");
}

#[test]
fn a_queue_that_is_freed_while_it_is_verified_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let _ = store.commit(transaction("s", b"x")).unwrap();
    let scan = store.lock_phase(Phase::Scan).unwrap();
    let mut queue = store.queue_writer(&scan).unwrap();
    for n in 1..6u64 {
        let frame = NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), vec![1; 700_000]);
        queue
            .append(vec![QueueEntry { lsn: Lsn(n), frame }], Lsn(n))
            .unwrap();
    }
    let send = store.lock_phase(Phase::Send).unwrap();
    let (mut freed, log) = (0, store.watermarks().durable.0);
    let found = store.verify(&mut |done, _| {
        if done > log {
            freed += store.queue_free(&send, Lsn(5)).unwrap();
        }
    });
    let found = found.unwrap();
    assert!(freed > 0);
    assert!(found.queue_damage.is_empty(), "{found:?}");
}

/// Offset and length of each block of the first segment.
fn blocks(root: &Path) -> Vec<(usize, usize)> {
    let bytes = std::fs::read(root.join("log/0000000000000000.log")).unwrap();
    let (mut at, mut found) = (0, Vec::new());
    while let Ok(header) = crate::block::BlockHeader::parse(&bytes[at..]) {
        let len = usize::try_from(header.block_len).unwrap();
        found.push((at, len));
        at += len;
    }
    found
}

#[test]
fn padding_is_the_stores_and_whoever_opens_it_keeps_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().pad_to(4096).init(&root, "a".parse().unwrap());
    store.unwrap().close().unwrap();
    for n in 0..5u8 {
        // None of them asks for padding; one asks for another.
        let asked = if n == 2 { options().pad_to(512) } else { options() };
        let store = asked.open(&root).unwrap();
        let _ = store
            .commit(transaction("s", &vec![n; 3000 * usize::from(n)]))
            .unwrap();
        store.close().unwrap();
    }
    let found = blocks(&root);
    assert!(
        found.iter().all(|(at, len)| at % 4096 == 0 && len % 4096 == 0),
        "{found:?}"
    );
    // A close with nothing new adds no block: it finds the one before, padded as it is.
    options().open(&root).unwrap().close().unwrap();
    options().open(&root).unwrap().close().unwrap();
    assert_eq!(blocks(&root).len(), found.len());
}

#[test]
fn the_end_of_a_closed_log_is_missed_though_the_closing_block_goes_with_it() {
    // E3: the last commit and the block that names it as durable share a sector, which rots.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let _ = store.commit(transaction("s", b"kept")).unwrap();
    store.close().unwrap();
    let found = blocks(&root);
    let [.., (commit, _), (close, len)] = found[..] else {
        panic!("a commit and a closing block, not {found:?}");
    };
    let log = root.join("log/0000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[commit + 100..close + len].fill(0xff);
    std::fs::write(&log, bytes).unwrap();
    let error = options().open(&root).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(error.lsn().unwrap().0, u64::try_from(commit).unwrap());
}
