//! A log whose sealed segments lie in an archive is the same log, and says so when the archive is away.

use std::path::{Path, PathBuf};

use super::packed::{Answers, answers, files, fill, words};
use super::*;
use crate::{ErrorKind, Repair, RepairHow};

/// A closed store with segments in the archive `a` beside it.
fn archived(dir: &Path, compress: bool) -> (PathBuf, Vec<String>, Answers) {
    let root = dir.join("s");
    let store = options()
        .background(false)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    let streams = fill(&store, &mut words(46));
    let before = answers(&store, &streams);
    if compress {
        store.compress(&mut |_, _| ()).unwrap();
    }
    store.set_archive(dir.join("a")).unwrap();
    let done = store.archive(&mut |_, _| ()).unwrap();
    assert!(
        done.segments.len() >= 3 && done.away as usize == done.segments.len(),
        "{done:?}"
    );
    assert!(answers(&store, &streams) == before, "the handle that moved them");
    store.close().unwrap();
    (root, streams, before)
}

#[test]
fn an_archived_log_gives_the_same_answers_and_comes_back_byte_for_byte() {
    for compress in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (root, streams, before) = archived(dir.path(), compress);
        let ending = if compress { "mpz" } else { "log" };
        let (away, there) = (files(&root, "away").len(), files(&dir.path().join("a"), ending));
        assert_eq!(
            (away, files(&root, "mpz").len(), files(&root, "log").len()),
            (there.len(), 0, 2)
        );
        let bytes: Vec<Vec<u8>> = there.iter().map(|path| std::fs::read(path).unwrap()).collect();
        files(&root, "idx")
            .iter()
            .for_each(|path| std::fs::remove_file(path).unwrap());
        let store = options().background(false).open(&root).unwrap();
        assert!(answers(&store, &streams) == before);
        store.backup(dir.path().join("b"), false, &mut |_, _| ()).unwrap();
        let undone = store.bring_back(&mut |_, _| ()).unwrap();
        assert_eq!((undone.away, undone.segments.len()), (0, away));
        assert!(answers(&store, &streams) == before);
        assert!(files(&root, "away").is_empty() && files(&dir.path().join("a"), ending).is_empty());
        let back: Vec<Vec<u8>> = files(&root, ending)
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        assert!(back[..away] == bytes[..]);
        assert_eq!(store.space().unwrap().archive, None);
    }
}

#[test]
fn without_its_archive_a_store_opens_commits_and_reads_what_is_here_and_says_what_to_mount() {
    let dir = tempfile::tempdir().unwrap();
    let (root, streams, before) = archived(dir.path(), true);
    std::fs::rename(dir.path().join("a"), dir.path().join("gone")).unwrap();
    let store = options().background(false).open(&root).unwrap();
    let number = store.stream_version("s/1").unwrap();
    store
        .commit(transaction("s/1", b"on"))
        .unwrap()
        .committed()
        .unwrap();
    assert!(store.stream_version("s/1").unwrap() > number);
    assert_eq!(store.segments().unwrap().len(), files(&root, "away").len() + 2);
    assert_eq!(store.oldest().unwrap(), Lsn::ZERO, "the log is not a shorter one");
    let last = before.blocks.last().unwrap().0;
    let mut scan = store.scan(last).unwrap();
    assert!(scan.next().unwrap().is_some());
    let refused = |error: Error| {
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Unavailable, Some(&*dir.path().join("a")))
        );
        assert!(
            error.to_string().contains("mount it and try again") && error.lsn().is_some(),
            "{error}"
        );
    };
    refused(
        store
            .scan(Lsn::ZERO)
            .and_then(|mut scan| scan.next().map(drop))
            .unwrap_err(),
    );
    refused(
        store
            .read_stream("s/1", StreamVersion(0))
            .unwrap()
            .next()
            .unwrap()
            .unwrap_err(),
    );
    store.close().unwrap();
    // There again, under another name.
    let store = options().background(false).open(&root).unwrap();
    store.set_archive(dir.path().join("gone")).unwrap();
    assert!(answers(&store, &streams).streams["s/0"] == before.streams["s/0"]);
    assert_eq!(
        store.set_archive(dir.path().join("other")).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        store.set_archive(root.join("log")).unwrap_err().kind(),
        ErrorKind::Conflict
    );
}

#[test]
fn an_archived_file_that_is_damaged_or_cut_or_missing_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ..) = archived(dir.path(), true);
    let there = files(&dir.path().join("a"), "mpz");
    let good = std::fs::read(&there[1]).unwrap();
    let damage = |what: &str| {
        let store = options().background(false).open(&root).unwrap();
        let found = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(found.damage.len(), 1, "{what}: {found:?}");
        assert_eq!(found.damage[0].path(), Some(&*there[1]), "{what}");
        assert!(found.damage[0].lsn().is_some());
    };
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 1;
    std::fs::write(&there[1], &bytes).unwrap();
    damage("a flipped bit");
    let repair = Repair::open(&root, options()).unwrap();
    let refused = repair.run(RepairHow::Isolate, &mut |_| ()).unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Invalid && refused.to_string().contains("--back"),
        "{refused}"
    );
    std::fs::write(&there[1], &good[..good.len() - 1]).unwrap();
    damage("a cut");
    std::fs::remove_file(&there[1]).unwrap();
    damage("a missing file");
}

/// The trap: a file is gone from the archive, and all that is there could no longer be had for want of it.
#[test]
fn a_segment_that_is_gone_from_the_archive_is_isolated_and_the_rest_goes_on() {
    for (gone, compress) in [(1, true), (0, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (root, _, before) = archived(dir.path(), compress);
        let there = files(&dir.path().join("a"), if compress { "mpz" } else { "log" });
        let stubs = files(&root, "away");
        std::fs::remove_file(&there[gone]).unwrap();
        let repair = Repair::open(&root, options()).unwrap();
        let found = repair.examine().unwrap();
        assert_eq!(found.damages.len(), 1);
        let lost = &found.damages[0].0;
        assert_eq!(
            (lost.kind, &*lost.path),
            (crate::DamageKind::Missing, &*there[gone])
        );
        assert!(lost.reason.contains("missing in the archive"), "{}", lost.reason);
        let range = (lost.at, lost.end);
        let done = repair.run(RepairHow::Isolate, &mut |_| ()).unwrap();
        assert_eq!(done.ranges, [range]);
        assert_eq!(files(&root, "away").len(), stubs.len() - 1);
        assert!(
            root.join("damaged")
                .join(stubs[gone].file_name().unwrap())
                .exists()
        );
        let store = options().background(false).open(&root).unwrap();
        assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
        let mut scan = store.scan(Lsn::ZERO).unwrap();
        let mut kept = Vec::new();
        while let Some(block) = scan.next_block().unwrap() {
            if !block.header().close && !block.header().lost {
                kept.push(block.header().lsn);
            }
        }
        let wanted = before.blocks.iter().map(|(lsn, _)| *lsn);
        let wanted: Vec<Lsn> = wanted.filter(|lsn| *lsn < range.0 || *lsn >= range.1).collect();
        assert_eq!(kept[..wanted.len()], wanted[..], "all that is there is read");
        store.bring_back(&mut |_, _| ()).unwrap();
        assert!(files(&root, "away").is_empty() && store.verify(&mut |_, _| ()).unwrap().is_whole());
    }
}

/// The trap: bringing back ends at a file that is gone, and all behind it lay in the archive, so no cut could be made.
#[test]
fn a_cut_takes_the_stubs_of_what_lies_behind_it_and_the_archive_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (root, streams, before) = archived(dir.path(), false);
    let there = files(&dir.path().join("a"), "log");
    let stubs = files(&root, "away");
    assert!(there.len() >= 3, "some lie behind the cut");
    std::fs::remove_file(&there[1]).unwrap();
    let cut = || {
        Repair::open(&root, options())
            .unwrap()
            .run(RepairHow::Cut, &mut |_| ())
    };
    let refused = cut().unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Invalid && refused.to_string().contains("--back"),
        "{refused}"
    );
    assert_eq!(files(&root, "away"), stubs, "nothing was changed");
    let store = options().background(false).open(&root).unwrap();
    assert_eq!(
        store.bring_back(&mut |_, _| ()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    store.close().unwrap();
    assert_eq!(files(&root, "away").len(), stubs.len() - 1);
    let done = cut().unwrap();
    assert!(files(&root, "away").is_empty());
    for stub in &stubs[1..] {
        assert!(root.join("damaged").join(stub.file_name().unwrap()).exists());
    }
    let left = files(&dir.path().join("a"), "log");
    assert_eq!(left, there[2..], "nothing is written or removed there");
    let store = options().background(false).open(&root).unwrap();
    assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
    let kept = answers(&store, &streams).blocks;
    let wanted: Vec<_> = before.blocks.iter().filter(|(lsn, _)| *lsn < done.end).collect();
    assert!(kept.iter().zip(&wanted).all(|(kept, wanted)| kept == *wanted));
    // Segments of another history move to the same archive, whatever is left there.
    fill(&store, &mut words(47));
    store.archive(&mut |_, _| ()).unwrap();
    assert!(files(&root, "away").len() >= 3);
    assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
}

#[test]
fn a_repair_goes_on_without_an_archive_that_is_away_only_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ..) = archived(dir.path(), true);
    std::fs::rename(dir.path().join("a"), dir.path().join("gone")).unwrap();
    let refused = Repair::open(&root, options()).unwrap().examine().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    // The cut would have to write in what is gone, and nothing brings that back.
    let cut = Repair::open(&root, options()).unwrap().without_archive();
    let refused = cut.run(RepairHow::Cut, &mut |_| ()).unwrap_err().to_string();
    assert!(
        refused.contains("--isolate") && !refused.contains("--back"),
        "{refused}"
    );
    let repair = Repair::open(&root, options()).unwrap().without_archive();
    let found = repair.examine().unwrap();
    let away = files(&root, "away").len();
    assert_eq!(found.damages.len(), away);
    let _ = repair.run(RepairHow::Isolate, &mut |_| ()).unwrap();
    let store = options().background(false).open(&root).unwrap();
    assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
    assert_eq!(files(&root, "away").len(), 0);
    store
        .commit(transaction("s/1", b"on"))
        .unwrap()
        .committed()
        .unwrap();
}

#[test]
fn every_changed_byte_of_a_stub_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ..) = archived(dir.path(), true);
    let stub = &files(&root, "away")[1];
    let good = std::fs::read(stub).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 8;
        std::fs::write(stub, bytes).unwrap();
        let told = match options().background(false).open(&root) {
            Ok(store) => !store.verify(&mut |_, _| ()).unwrap().damage.is_empty(),
            Err(error) => error.kind() == ErrorKind::Corrupt,
        };
        assert!(told, "byte {at}");
    }
    std::fs::write(stub, good).unwrap();
}

#[test]
fn the_archive_of_another_store_in_its_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ..) = archived(dir.path(), true);
    // Another store's archive is mounted in its place.
    let mark = dir.path().join("a/archive");
    let other = dir.path().join("o");
    let store = options()
        .background(false)
        .init(&other, "o".parse().unwrap())
        .unwrap();
    store.set_archive(dir.path().join("b")).unwrap();
    std::fs::copy(dir.path().join("b/archive"), &mark).unwrap();
    let store = options().background(false).open(&root).unwrap();
    let found = store.verify(&mut |_, _| ()).unwrap();
    let error = &found.unverified.reasons[0];
    assert!(
        error.kind() == ErrorKind::Unavailable && error.to_string().contains("another store"),
        "{error}"
    );
    std::fs::write(&mark, b"MPARCHIV").unwrap();
    assert_eq!(
        store
            .scan(Lsn::ZERO)
            .and_then(|mut scan| scan.next().map(drop))
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
}

/// The trap: what is here is verified all the same, in line with what the stubs say, and nobody takes that for all.
#[test]
fn without_its_archive_a_store_is_verified_as_far_as_it_is_here_and_says_what_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (root, ..) = archived(dir.path(), true);
    std::fs::rename(dir.path().join("a"), dir.path().join("gone")).unwrap();
    let store = options().background(false).open(&root).unwrap();
    let found = store.verify(&mut |_, _| ()).unwrap();
    let away = files(&root, "away").len() as u64;
    assert!(!found.is_whole() && found.damage.is_empty(), "{found:?}");
    assert_eq!((found.unverified.segments, found.segments), (away, away + 2));
    assert!(found.blocks > 0 && found.sidecars as usize == files(&root, "idx").len());
    assert_eq!(found.unverified.reasons.len(), 1);
    let reason = &found.unverified.reasons[0];
    assert_eq!(
        (reason.kind(), reason.path()),
        (ErrorKind::Unavailable, Some(&*dir.path().join("a")))
    );
}

/// The trap: the archive is away, so nothing but the neighbours says that a stub is of another history.
#[test]
fn a_stub_that_does_not_fit_its_neighbours_is_damage_while_the_archive_is_away() {
    use crate::log::away::Stub;
    let dir = tempfile::tempdir().unwrap();
    let (root, ..) = archived(dir.path(), true);
    std::fs::rename(dir.path().join("a"), dir.path().join("gone")).unwrap();
    let store = options().background(false).open(&root).unwrap();
    let path = &files(&root, "away")[1];
    let good = std::fs::read(path).unwrap();
    let first = Lsn(u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap());
    let stub = Stub::decode(&good, store.id(), first).unwrap();
    let of = |change: fn(&mut Stub)| {
        let mut other = stub;
        change(&mut other);
        std::fs::write(path, other.encode()).unwrap();
        store.verify(&mut |_, _| ()).unwrap().damage.len()
    };
    assert_eq!(of(|_| ()), 0);
    assert_eq!(of(|stub| stub.end = stub.first.plus(8)), 1);
    assert_eq!(of(|stub| stub.chain_before.0 ^= 1), 1);
    // What it hands on does not fit the next one.
    assert_eq!(of(|stub| stub.chain_after.0 ^= 1), 1);
}

/// The trap: a stub is gone, and its segment whole in the archive, where nobody looked.
#[test]
fn a_stub_that_is_missing_is_told_with_the_file_to_copy_back() {
    for gone in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let (root, streams, before) = archived(dir.path(), false);
        let there = files(&dir.path().join("a"), "log");
        std::fs::remove_file(&files(&root, "away")[gone]).unwrap();
        let found = Repair::open(&root, options()).unwrap().examine().unwrap();
        let told = &found.damages[0].0.reason;
        assert!(told.contains(there[gone].to_str().unwrap()), "{told}");
        let opened = options().background(false).open(&root);
        let error = opened.and_then(|store| {
            let mut scan = store.scan(Lsn::ZERO)?;
            while scan.next_block()?.is_some() {}
            Ok(())
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(there[gone].to_str().unwrap()), "{error}");
        let name = there[gone].file_name().unwrap();
        std::fs::copy(&there[gone], root.join("log").join(name)).unwrap();
        let store = options().background(false).open(&root).unwrap();
        assert!(answers(&store, &streams) == before && store.verify(&mut |_, _| ()).unwrap().is_whole());
    }
}
