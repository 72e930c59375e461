//! The queue over a real directory: entries and scan position move together, whatever dies.

use crate::frame::{FrameKind, NewFrame};
use crate::{Event, Lsn, Options, Phase, QueueEntry, Store, Transaction};

fn options() -> Options {
    Options::new().segment_bytes(1 << 20)
}

fn commit(store: &Store, n: u32) -> Lsn {
    let mut transaction = Transaction::new();
    transaction
        .push(&Event::new("s", "k", n.to_le_bytes()).unwrap())
        .unwrap();
    store.commit(transaction).unwrap().committed().unwrap().lsn
}

fn entry(lsn: Lsn, len: usize) -> QueueEntry {
    let mut body = lsn.0.to_le_bytes().to_vec();
    body.resize(len, 7);
    QueueEntry {
        lsn,
        frame: NewFrame::of_kind(FrameKind(FrameKind::QUEUE_FIRST), body),
    }
}

fn entries(store: &Store) -> Vec<u64> {
    let mut reader = store.queue_reader(Lsn::ZERO).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        found.push(u64::from_le_bytes(*frame.body().first_chunk().unwrap()));
    }
    found
}

/// A store with `count` commits, its directory, and their LSNs.
fn committed(count: u32) -> (tempfile::TempDir, std::path::PathBuf, Store, Vec<Lsn>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let lsns = (0..count).map(|n| commit(&store, n)).collect();
    (dir, root, store, lsns)
}

#[test]
fn entries_and_scan_position_survive_together_and_no_entry_doubles() {
    let (_dir, root, store, lsns) = committed(40);
    let reader_before_any = store.queue_reader(Lsn::ZERO).unwrap().next().unwrap().is_none();
    assert!(reader_before_any);
    {
        let lock = store.lock_phase(Phase::Scan).unwrap();
        let mut writer = store.queue_writer(&lock).unwrap();
        writer
            .append(lsns[..20].iter().map(|lsn| entry(*lsn, 100)).collect(), lsns[20])
            .unwrap();
        writer.append(Vec::new(), lsns[25]).unwrap();
        assert!(store.wait_scanned(lsns[25], std::time::Duration::ZERO).unwrap());
        assert!(!store.wait_scanned(lsns[26], std::time::Duration::ZERO).unwrap());
    }
    drop(store);
    let store = options().open(&root).unwrap();
    assert_eq!(store.scanned_through(), lsns[25]);
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&lock).unwrap();
    assert_eq!(writer.scanned_through(), lsns[25]);
    writer
        .append(lsns[26..].iter().map(|lsn| entry(*lsn, 100)).collect(), lsns[39])
        .unwrap();
    let expected: Vec<u64> = lsns[..20].iter().chain(&lsns[26..]).map(|lsn| lsn.0).collect();
    assert_eq!(entries(&store), expected);
}

#[test]
fn whole_segments_are_freed_at_the_least_confirmed_position_and_no_sooner() {
    let (_dir, root, store, lsns) = committed(50);
    let scan = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&scan).unwrap();
    for lsn in &lsns {
        writer.append(vec![entry(*lsn, 60_000)], *lsn).unwrap();
    }
    let send = store.lock_phase(Phase::Send).unwrap();
    assert_eq!(store.queue_free(&send, lsns[3]).unwrap(), 0);
    assert_eq!(store.queue_free(&send, lsns[49]).unwrap(), 2);
    let left = entries(&store);
    assert!(!left.is_empty() && left.len() < 50);
    drop((writer, scan, send, store));
    let store = options().open(&root).unwrap();
    assert_eq!(
        entries(&store),
        left,
        "a queue without its first segments recovers"
    );
    assert_eq!(store.scanned_through(), lsns[49]);
}

#[test]
fn entries_are_read_at_their_places_in_any_order_and_nothing_else_is_taken_for_one() {
    let (_dir, _root, store, lsns) = committed(60);
    let scan = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&scan).unwrap();
    // Several entries of a block, several blocks of a segment, several segments.
    for few in lsns.chunks(3) {
        let all = few.iter().map(|lsn| entry(*lsn, 40_000)).collect();
        writer.append(all, few[2]).unwrap();
    }
    let (mut reader, mut places) = (store.queue_reader(Lsn::ZERO).unwrap(), Vec::new());
    while let Some((frame, place)) = reader.next_with_place().unwrap() {
        assert_eq!(frame.lsn(), place.lsn);
        places.push(place);
    }
    let segments: std::collections::BTreeSet<_> = places.iter().map(|place| place.segment).collect();
    assert!(places.len() == 60 && segments.len() > 2, "{segments:?}");
    let mut lookup = store.queue_lookup();
    // Neighbours in a block, forth and back, and far jumps: 7 has no divisor in common with 60.
    for number in (0..60)
        .chain((0..60).rev())
        .chain((0..60).map(|one| one * 7 % 60))
    {
        let read = lookup.read(places[number], |frame, _| Ok(frame.body()[..8].to_vec()));
        assert_eq!(read.unwrap(), lsns[number].0.to_le_bytes());
    }
    let beside = crate::QueuePlace {
        lsn: Lsn(places[1].lsn.0 + 8),
        ..places[1]
    };
    let refused = lookup.read(beside, |_, _| Ok(())).unwrap_err();
    assert_eq!(refused.kind(), crate::ErrorKind::Corrupt);
    let send = store.lock_phase(Phase::Send).unwrap();
    assert!(store.queue_free(&send, lsns[59]).unwrap() > 0);
    lookup.forget();
    let gone = lookup.read(places[0], |_, _| Ok(())).unwrap_err();
    assert_eq!(gone.kind(), crate::ErrorKind::Behind);
    lookup.read(places[59], |_, _| Ok(())).unwrap();
}

#[test]
fn a_second_scan_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = options().init(&root, "a".parse().unwrap()).unwrap();
    let other = options().open(&root).unwrap();
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let refused = other.lock_phase(Phase::Scan).err().unwrap();
    assert_eq!(refused.kind(), crate::ErrorKind::Conflict);
    assert!(
        refused
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    assert!(other.phase_holder(Phase::Scan).unwrap().is_some());
    drop(lock);
    assert!(other.phase_holder(Phase::Scan).unwrap().is_none());
    other.lock_phase(Phase::Scan).unwrap();
}

#[test]
fn a_damaged_queue_is_made_again_from_the_log() {
    let (_dir, root, store, lsns) = committed(3);
    {
        let lock = store.lock_phase(Phase::Scan).unwrap();
        let mut writer = store.queue_writer(&lock).unwrap();
        for lsn in &lsns {
            writer.append(vec![entry(*lsn, 100)], *lsn).unwrap();
            writer.sync().unwrap();
        }
    }
    drop(store);
    let file = root.join("queue/0000000000000000.mpq");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[150] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let store = options().open(&root).unwrap();
    assert_eq!(store.scanned_through(), Lsn::ZERO);
    assert!(entries(&store).is_empty());
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&lock).unwrap();
    writer
        .append(lsns.iter().map(|lsn| entry(*lsn, 50)).collect(), lsns[2])
        .unwrap();
    assert_eq!(entries(&store), lsns.iter().map(|lsn| lsn.0).collect::<Vec<_>>());
}

#[test]
fn a_queue_that_lost_its_first_file_is_made_again_and_one_that_freed_it_is_not() {
    let (_dir, root, store, lsns) = committed(50);
    {
        let scan = store.lock_phase(Phase::Scan).unwrap();
        let mut writer = store.queue_writer(&scan).unwrap();
        for lsn in &lsns {
            writer.append(vec![entry(*lsn, 60_000)], *lsn).unwrap();
        }
        let send = store.lock_phase(Phase::Send).unwrap();
        assert_eq!(store.queue_free(&send, lsns[20]).unwrap(), 1);
    }
    drop(store);
    let store = options().open(&root).unwrap();
    assert_eq!(store.scanned_through(), lsns[49], "what was freed is not missed");
    let oldest = store.queue_dir().list().unwrap()[0];
    drop(store);
    std::fs::remove_file(root.join(format!("queue/{:016x}.mpq", oldest.0))).unwrap();
    let store = options().open(&root).unwrap();
    assert_eq!(
        store.scanned_through(),
        Lsn::ZERO,
        "E3: entries that nobody confirmed were gone"
    );
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&lock).unwrap();
    writer
        .append(lsns.iter().map(|lsn| entry(*lsn, 60_000)).collect(), lsns[49])
        .unwrap();
    assert_eq!(entries(&store).len(), 50);
    drop((writer, lock, store));
    std::fs::remove_file(root.join("queue/0000000000000000.mpq")).unwrap();
    let store = options().open(&root).unwrap();
    assert_eq!(
        store.scanned_through(),
        Lsn::ZERO,
        "a queue that began anew has freed nothing"
    );
}

#[test]
fn a_freed_file_that_a_power_cut_brings_back_leaves_no_hole() {
    let (_dir, root, store, lsns) = committed(50);
    let scan = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&scan).unwrap();
    for lsn in &lsns {
        writer.append(vec![entry(*lsn, 60_000)], *lsn).unwrap();
    }
    let first = root.join("queue/0000000000000000.mpq");
    let bytes = std::fs::read(&first).unwrap();
    let send = store.lock_phase(Phase::Send).unwrap();
    assert_eq!(store.queue_free(&send, lsns[49]).unwrap(), 2);
    let left = entries(&store);
    drop((writer, scan, send, store));
    std::fs::write(&first, bytes).unwrap();
    let store = options().open(&root).unwrap();
    assert_eq!(entries(&store), left);
    assert_eq!(store.scanned_through(), lsns[49]);
}

#[test]
fn entries_that_were_published_and_lost_before_a_sync_are_scanned_again() {
    let (_dir, root, store, lsns) = committed(3);
    let lock = store.lock_phase(Phase::Scan).unwrap();
    let mut writer = store.queue_writer(&lock).unwrap();
    writer.append(vec![entry(lsns[0], 100)], lsns[0]).unwrap();
    writer.sync().unwrap();
    let kept = usize::try_from(store.queue_end().0).unwrap();
    writer.append(vec![entry(lsns[1], 100)], lsns[1]).unwrap();
    // Its process dies without a sync, and the page that held the entry comes back from the disk.
    std::mem::forget(writer);
    let file = root.join("queue/0000000000000000.mpq");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[kept..].fill(0);
    std::fs::write(&file, bytes).unwrap();
    let mut writer = store.queue_writer(&lock).unwrap();
    assert_eq!(
        writer.scanned_through(),
        lsns[0],
        "Q1: position and entries together"
    );
    writer
        .append(lsns[1..].iter().map(|lsn| entry(*lsn, 90)).collect(), lsns[2])
        .unwrap();
    assert_eq!(entries(&store), lsns.iter().map(|lsn| lsn.0).collect::<Vec<_>>());
}
