//! A damaged base: what can be told of it takes its place, and what cannot is said.

use super::*;
use crate::{ErrorKind, Repair, Retention};

/// Streams of the store below. The last are written once, at the log's beginning, and never again.
const STREAMS: u32 = 12;

/// A closed store whose beginning was freed, with a sidecar for every sealed segment; file of the base, versions and
/// pinned records.
fn freed(dir: &std::path::Path) -> (std::path::PathBuf, Facts) {
    freed_pinning(dir, None)
}

/// The same, with a record that is set by every transaction.
fn freed_pinning(dir: &std::path::Path, always: Option<&[u8]>) -> (std::path::PathBuf, Facts) {
    let store = options()
        .background(false)
        .retention(Retention::Bytes(3 << 20))
        .init(dir, "a".parse().unwrap())
        .unwrap();
    grow(&store, 0..120, always);
    free_and_close(store, dir)
}

fn grow(store: &Store, numbers: std::ops::Range<u32>, always: Option<&[u8]>) {
    for n in numbers {
        let stream = format!("s/{}", if n < STREAMS { n } else { n % 3 });
        let mut transaction = transaction(&stream, &n.to_le_bytes().repeat(12_500));
        transaction.pin(crate::Pinned {
            key: stream.into_bytes(),
            value: Some(n.to_le_bytes().to_vec()),
        });
        if let Some(key) = always {
            let (key, value) = (key.to_vec(), Some(n.to_le_bytes().to_vec()));
            transaction.pin(crate::Pinned { key, value });
        }
        let _ = store.commit(transaction).unwrap();
    }
}

fn free_and_close(store: Store, dir: &std::path::Path) -> (std::path::PathBuf, Facts) {
    store.make_sidecars().unwrap();
    assert!(store.free().unwrap() >= 2);
    assert!(
        store.segments().unwrap().len() >= 3,
        "index files of what is kept"
    );
    let facts = facts(&store);
    store.close().unwrap();
    let names = std::fs::read_dir(dir.join("log")).unwrap();
    let mut base = names
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("base-"));
    (base.next().unwrap(), facts)
}

/// Versions and pinned records.
type Facts = Vec<(Option<StreamVersion>, Option<Vec<u8>>)>;

fn facts(store: &Store) -> Facts {
    let of = |n| {
        let stream = format!("s/{n}");
        let pinned = store.pinned(stream.as_bytes()).unwrap();
        (
            store.stream_version(&stream).unwrap(),
            pinned.map(|(value, _)| value),
        )
    };
    (0..STREAMS).map(of).collect()
}

fn repair(dir: &std::path::Path) -> Repair {
    Repair::open(dir, options()).unwrap()
}

#[test]
fn every_changed_bit_of_a_base_is_found_and_nothing_wrong_is_ever_put_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (path, before) = freed(&dir.path().join("s"));
    let (dir, good) = (dir.path().join("s"), std::fs::read(&path).unwrap());
    assert_eq!(repair(&dir).examine().unwrap().base, None);
    assert_eq!(repair(&dir).renew_base().unwrap_err().kind(), ErrorKind::Invalid);
    let (mut saved, mut lost) = (0, 0);
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let found = repair(&dir).examine().unwrap();
        assert!(found.damages.is_empty(), "byte {at}: {:?}", found.damages);
        let told = found.base.unwrap_or_else(|| panic!("byte {at}"));
        let done = repair(&dir).renew_base().unwrap();
        assert_eq!(done, told);
        assert_eq!(repair(&dir).examine().unwrap().base, None);
        let store = options().background(false).open(&dir).unwrap();
        assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
        let after = facts(&store);
        if done.is_saved() {
            saved += 1;
            assert!(
                after == before && std::fs::read(&path).unwrap() == good,
                "byte {at}"
            );
            assert!(done.lost().is_empty());
        } else {
            lost += 1;
            assert!(!done.lost().is_empty());
        }
        for (after, before) in after.iter().zip(&before) {
            // Known as it was, or not known: never something else.
            assert!(after.0 == before.0 || after.0.is_none(), "byte {at}: {after:?}");
            assert!(after.1 == before.1 || after.1.is_none(), "byte {at}: {after:?}");
        }
        assert!(after[..3] == before[..3], "the index files tell of these");
        store.close().unwrap();
    }
    assert!(saved > 20 && lost > 5, "{saved} and {lost}");
    let kept = std::fs::read_dir(dir.join("damaged")).unwrap().count();
    assert_eq!(kept, (saved + lost) * 2, "each is kept aside");
}

/// The trap: nothing of the file is left. What is kept of the log still says what came before.
#[test]
fn a_base_of_zeros_is_made_again_of_index_files_and_what_is_lost_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (path, before) = freed(&dir.path().join("s"));
    let dir = dir.path().join("s");
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, vec![0; usize::try_from(len).unwrap()]).unwrap();
    let refused = options().open(&dir).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("milepost repair"), "{refused}");
    let done = repair(&dir).renew_base().unwrap();
    assert_eq!(
        (done.streams, done.streams_known, done.pinned_now),
        (None, 3, true)
    );
    assert!(!done.is_saved() && done.lost().len() == 4, "{:?}", done.lost());
    let store = options().background(false).open(&dir).unwrap();
    let after = facts(&store);
    assert!(after[..3] == before[..3]);
    assert!(after[3..].iter().all(|(version, _)| version.is_none()));
    let pinned = |facts: &Facts| facts.iter().map(|(_, pinned)| pinned.clone()).collect::<Vec<_>>();
    assert_eq!(pinned(&after), pinned(&before), "index files have them all");
    assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
}

/// The trap: the file is gone, and with it the only word that what came before was freed and not lost.
#[test]
fn a_missing_base_counts_as_lost_segments_until_it_is_said_that_they_were_freed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, before) = freed(&dir.path().join("s"));
    let dir = dir.path().join("s");
    std::fs::remove_file(&path).unwrap();
    let refused = options().open(&dir).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    let found = repair(&dir).examine().unwrap();
    assert_eq!(found.damages.len(), 1);
    let range = &found.damages[0].0;
    let base = found.base.unwrap();
    assert_eq!((range.at, range.end), (Lsn::ZERO, base.begins));
    assert!(base.missing && base.path == path && base.streams_known == 3);
    let done = repair(&dir).renew_base().unwrap();
    assert_eq!(done, base);
    assert!(done.lost()[0].contains("was freed"), "{:?}", done.lost());
    let again = repair(&dir).examine().unwrap();
    assert!(again.damages.is_empty() && again.base.is_none());
    let store = options().background(false).open(&dir).unwrap();
    let after = facts(&store);
    assert!(after[..3] == before[..3]);
    for (after, before) in after.iter().zip(&before) {
        assert!(after.0 == before.0 || after.0.is_none(), "{after:?}");
        assert_eq!(after.1, before.1, "index files have all pinned records");
    }
    let is_complete = |store: &Store| store.receipts(None).unwrap().is_complete();
    assert!(
        is_complete(&store),
        "index files have all pinned records, and no remote"
    );
    assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
    let _ = store.commit(transaction("s/1", b"on")).unwrap();
    store.free().unwrap();
    store.close().unwrap();
    // A store that never freed anything has none, and needs none.
    let whole = dir.with_file_name("whole");
    let store = options().init(&whole, "b".parse().unwrap()).unwrap();
    store.close().unwrap();
    assert_eq!(repair(&whole).examine().unwrap().base, None);
    assert_eq!(
        repair(&whole).renew_base().unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

/// The trap: the records that would say that there were remotes are lost with the base, so nothing seemed to have been
/// received, and all of it would have been taken again (R1).
#[test]
fn without_all_pinned_records_a_renewed_base_does_not_say_that_nothing_was_received_r1() {
    for missing in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = freed(&dir.path().join("s"));
        let dir = dir.path().join("s");
        match missing {
            true => std::fs::remove_file(&path).unwrap(),
            false => std::fs::write(&path, b"nothing").unwrap(),
        }
        let begins = path.file_name().unwrap().to_str().unwrap().replace("base-", "");
        std::fs::remove_file(dir.join(format!("log/{begins}.idx"))).unwrap();
        let done = repair(&dir).renew_base().unwrap();
        assert!(!done.pinned_now);
        let store = options().background(false).open(&dir).unwrap();
        let is_complete = || store.receipts(None).unwrap().is_complete();
        assert!(!is_complete());
        for n in 0..60u32 {
            let _ = store
                .commit(transaction("s/1", &n.to_le_bytes().repeat(12_500)))
                .unwrap();
        }
        store.make_sidecars().unwrap();
        assert!(store.free().unwrap() >= 1);
        assert!(!is_complete(), "nor does any later one");
    }
}

/// The trap: the header is whole and says that what was received is told, and pinned records that say from whom are
/// lost with a page (R1).
#[test]
fn a_base_that_lost_pinned_records_says_no_more_of_what_was_received_r1() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = freed(&dir.path().join("s"));
    let dir = dir.path().join("s");
    let whole = std::fs::read(&path).unwrap();
    let begins = path.file_name().unwrap().to_str().unwrap().replace("base-", "");
    std::fs::remove_file(dir.join(format!("log/{begins}.idx"))).unwrap();
    let (mut lost, mut kept) = (0, 0);
    for at in (256..whole.len()).step_by(100) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let done = repair(&dir).renew_base().unwrap();
        assert!(done.pinned.is_some() && !done.pinned_now);
        let has_lost = done.pinned != Some(done.pinned_known);
        let store = options().background(false).open(&dir).unwrap();
        assert_eq!(store.receipts(None).unwrap().is_doubted(), has_lost, "byte {at}");
        assert_eq!(
            store.receipts(None).unwrap().is_complete(),
            !has_lost,
            "byte {at}"
        );
        assert_eq!(done.lost().iter().any(|text| text.contains("remotes")), has_lost);
        store.close().unwrap();
        std::fs::write(dir.join(format!("log/{begins}.idx")), b"none").unwrap();
        (lost, kept) = (lost + u32::from(has_lost), kept + u32::from(!has_lost));
    }
    assert!(lost > 1 && kept > 1, "{lost} and {kept}");
}

/// The trap: the index file behind a missing base has all pinned records as they are now, and a remote that was set
/// again behind it no longer says that it was there before.
#[test]
fn a_remote_that_was_set_again_does_not_say_that_there_was_none_r1() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = freed_pinning(&dir.path().join("s"), Some(b"catalog/remote/b"));
    let dir = dir.path().join("s");
    std::fs::remove_file(&path).unwrap();
    let done = repair(&dir).renew_base().unwrap();
    assert!(done.pinned_now);
    let store = options().background(false).open(&dir).unwrap();
    assert!(!store.receipts(None).unwrap().is_complete());
}

/// The trap: the first segment is one of a copy that went on by itself, and the base, which alone knows better, is
/// damaged elsewhere. A new one would make one history of two (E3).
#[test]
fn a_base_is_not_made_again_before_a_segment_of_another_history_e3() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let keeping = || options().background(false).retention(Retention::Bytes(3 << 20));
    let store = keeping().init(&one, "a".parse().unwrap()).unwrap();
    grow(&store, 0..30, None);
    store.close().unwrap();
    copy_all(&one, &two);
    let bases = [&one, &two].map(|root| {
        let store = keeping().open(root).unwrap();
        grow(&store, 30..120, None);
        free_and_close(store, root).0
    });
    assert_eq!(bases[0].file_name(), bases[1].file_name());
    let begins = bases[0]
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .replace("base-", "");
    let first = |root: &std::path::Path| root.join(format!("log/{begins}.log"));
    std::fs::copy(first(&two), first(&one)).unwrap();
    let mut bytes = std::fs::read(&bases[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&bases[0], &bytes).unwrap();
    let refused = repair(&one).renew_base().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("another copy"), "{refused}");
    assert_eq!(std::fs::read(&bases[0]).unwrap(), bytes);
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The trap: an index file of another history beside the log. What it says came before would be invented.
#[test]
fn an_index_file_that_is_not_in_line_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = freed(&dir.path().join("s"));
    let dir = dir.path().join("s");
    let begins = path.file_name().unwrap().to_str().unwrap().replace("base-", "");
    let (segment, index) = (
        dir.join(format!("log/{begins}.log")),
        dir.join(format!("log/{begins}.idx")),
    );
    std::fs::write(&path, b"nothing").unwrap();
    let good = std::fs::read(&index).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    let found = repair(&dir).examine().unwrap().base.unwrap();
    assert_eq!((found.streams_known, found.pinned_now), (0, false));
    std::fs::write(&index, good).unwrap();
    assert_eq!(repair(&dir).examine().unwrap().base.unwrap().streams_known, 3);
    // Without the first block nobody knows the chain.
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(repair(&dir).examine().unwrap().base.unwrap().streams_known, 0);
    let refused = repair(&dir).renew_base().unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Invalid && refused.to_string().contains("first block"),
        "{refused}"
    );
    let _ = repair(&dir).run(crate::RepairHow::Isolate, &mut |_| ()).unwrap();
    repair(&dir).renew_base().unwrap();
    let store = options().background(false).open(&dir).unwrap();
    assert!(store.verify(&mut |_, _| ()).unwrap().is_whole());
}

/// The trap: the plan would name an end in front of the log's first file, and no run of it could come to an end.
#[test]
fn a_freed_log_of_which_nothing_is_left_is_refused_before_anything_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let _ = freed(&root);
    let logs: Vec<_> = std::fs::read_dir(root.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for log in logs
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
    {
        let file = std::fs::OpenOptions::new().write(true).open(log).unwrap();
        file.set_len(100).unwrap();
    }
    let refused = repair(&root).examine().unwrap().isolate.unwrap_err();
    assert!(refused.contains("restore a backup"), "{refused}");
    for how in [crate::RepairHow::Isolate, crate::RepairHow::Cut] {
        let error = repair(&root).run(how, &mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!root.join("repair").exists() && !root.join("damaged").exists());
    }
}
