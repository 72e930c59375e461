//! What happens while another process frees, or says what is kept.

use super::*;
use crate::{Durability, ErrorKind, Repair, RepairHow, Retention, Space};

/// Commits events of 50 kB to one stream.
fn fill(store: &Store, count: u32) {
    for _ in 0..count {
        let filled = store.commit_with(transaction("s", &[7; 50_000]), Durability::Buffered);
        filled.unwrap().committed().unwrap();
    }
    store.sync().unwrap();
}

fn store(root: &std::path::Path) -> Store {
    options()
        .background(false)
        .init(root, "a".parse().unwrap())
        .unwrap()
}

fn keep(store: &Store, bytes: u64) {
    store
        .change_space(|space| space.retention = Retention::Bytes(bytes))
        .unwrap();
}

/// The trap: the walk begins, then another handle frees. With the first versions of later, every event of the walk would
/// be numbered too high.
#[test]
fn a_walk_numbers_its_events_from_where_the_log_began_when_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("s"));
    fill(&store, 100);
    keep(&store, 3 << 20);
    assert!(store.free().unwrap() > 0);
    let beginning = store.beginning().unwrap();
    let start = beginning.stream_start("s").unwrap();
    let mut scan = store.scan(beginning.lsn()).unwrap();
    let first = scan.next().unwrap().unwrap().lsn();
    let other = options().background(false).open(dir.path().join("s")).unwrap();
    keep(&other, 1 << 20);
    assert!(other.free().unwrap() > 0);
    assert!(store.stream_start("s").unwrap() > start && start > StreamVersion(0));
    assert_eq!(beginning.stream_start("s").unwrap(), start);
    assert_eq!(beginning.stream_start("another").unwrap(), StreamVersion(0));
    assert!(first > beginning.lsn() && store.oldest().unwrap() > first);
    let behind = store.scan(beginning.lsn()).map(drop).unwrap_err();
    assert_eq!(behind.kind(), ErrorKind::Behind);
}

/// The trap: whoever reads all settings, changes one and writes all of them takes back what others set meanwhile.
#[test]
fn settings_that_two_handles_change_at_once_are_both_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("s"));
    let other = options().background(false).open(dir.path().join("s")).unwrap();
    for round in 1..50 {
        let limit = (16 << 20) + round;
        std::thread::scope(|scope| {
            scope.spawn(|| keep(&other, round));
            store.change_space(|space| space.limit = limit).unwrap();
        });
        let retention = Retention::Bytes(round);
        let both = Space {
            retention,
            limit,
            ..Space::default()
        };
        assert_eq!(store.space().unwrap(), both);
    }
    let nothing = |retention| {
        store
            .change_space(|space| space.retention = retention)
            .unwrap_err()
    };
    assert_eq!(nothing(Retention::Bytes(0)).kind(), ErrorKind::Invalid);
    assert_eq!(nothing(Retention::Age(Duration::ZERO)).kind(), ErrorKind::Invalid);
}

/// The trap: what may be freed hangs on what is durable, which moves on while a full log frees. It is asked again until
/// nothing more goes.
#[test]
fn a_log_that_keeps_less_than_its_limit_is_never_full() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .background(false)
        .retention(Retention::Bytes(1 << 20))
        .limit(4 << 20)
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    for _ in 0..40 {
        let frames = (0..100).map(|_| {
            let mut frame = crate::frame::NewFrame::transaction();
            let event = Event::new("s", "k", vec![7; 9_000]).unwrap();
            frame.push_event(0, &event).unwrap();
            frame
        });
        store
            .append_frames(frames.collect(), Durability::Buffered)
            .unwrap();
    }
    store.sync().unwrap();
    assert_eq!(store.stream_version("s").unwrap(), Some(StreamVersion(3_999)));
}

#[test]
fn a_cut_that_would_leave_nothing_of_a_log_that_was_freed_is_refused_and_isolating_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = store(&root);
    fill(&store, 100);
    keep(&store, 1 << 20);
    assert!(store.free().unwrap() > 0);
    let begins = store.oldest().unwrap();
    store.close().unwrap();
    let file = root.join(crate::log::segment_name(crate::block::BlockKind::Log, begins));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[64..70].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let cut = Repair::open(&root, options())
        .unwrap()
        .run(RepairHow::Cut, &mut |_| ());
    assert_eq!(cut.unwrap_err().kind(), ErrorKind::Invalid);
    let isolated = Repair::open(&root, options())
        .unwrap()
        .run(RepairHow::Isolate, &mut |_| ());
    isolated.unwrap();
    let store = options().background(false).open(&root).unwrap();
    assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
    fill(&store, 1);
}

/// The trap: a run that was killed left its hold, which would keep the log for a day.
#[test]
fn the_next_backup_to_the_same_folder_takes_over_the_hold_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("s"));
    fill(&store, 30);
    let to = dir.path().join("b");
    store.backup(&to, false, &mut |_, _| ()).unwrap();
    assert!(store.holds().unwrap().is_empty());
    let mut name = None;
    store
        .backup(&to, true, &mut |_, _| {
            name = name
                .take()
                .or_else(|| store.holds().unwrap().first().map(|hold| hold.name.clone()));
        })
        .unwrap();
    let name = name.expect("a hold while it copies");
    store
        .hold(&name, &crate::Hold::new("backup", "process 1", Lsn::ZERO))
        .unwrap();
    store.backup(&to, false, &mut |_, _| ()).unwrap();
    assert!(store.holds().unwrap().is_empty());
}
