//! What the log keeps: settings, holds, freeing, the limit.

use super::*;
use crate::{Backup, ErrorKind, Retention, Space};

#[test]
fn what_one_handle_sets_is_what_the_other_finds_and_nothing_is_forever() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    assert_eq!(store.space().unwrap(), Space::default());
    let other = options().open(dir.path().join("s")).unwrap();
    let space = Space {
        retention: Retention::Bytes(5 << 20),
        limit: 8 << 20,
        ..Space::default()
    };
    other.set_space(&space).unwrap();
    assert_eq!(store.space().unwrap(), space);
    let small = Space { limit: 1, ..space };
    assert_eq!(store.set_space(&small).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.space().unwrap().limit, 8 << 20);
}

/// A store of small segments without a thread, whose log is kept as told.
pub(super) fn keeping(dir: &std::path::Path, retention: Retention) -> Store {
    options()
        .background(false)
        .retention(retention)
        .init(dir, "a".parse().unwrap())
        .unwrap()
}

/// Commits `count` events of 50 kB over three streams, each pinned under its stream's name.
fn fill(store: &Store, from: u32, count: u32) {
    for n in from..from + count {
        let stream = format!("s/{}", n % 3);
        let mut transaction = transaction(&stream, &n.to_le_bytes().repeat(12_500));
        transaction.pin(crate::Pinned {
            key: stream.into_bytes(),
            value: Some(n.to_le_bytes().to_vec()),
        });
        let _ = store.commit(transaction).unwrap();
    }
}

/// What the index and the log say of the streams of [`fill`] after `total` events.
fn check(store: &Store, total: u32) {
    let begins = store.oldest().unwrap();
    let mut scan = store.scan(begins).unwrap();
    let mut kept = 0;
    while let Some(frame) = scan.next().unwrap() {
        for event in frame.events() {
            kept += 1;
            assert!(event.unwrap().payload.len() == 50_000);
        }
    }
    let freed = total - kept;
    for stream in 0..3u32 {
        let name = format!("s/{stream}");
        let count = |events: u32| u64::from((events + 2 - stream) / 3);
        let start = count(freed);
        assert_eq!(store.stream_start(&name).unwrap(), StreamVersion(start));
        assert_eq!(
            store.stream_version(&name).unwrap(),
            count(total).checked_sub(1).map(StreamVersion),
            "{name} of {total}, {freed} freed"
        );
        let read: Vec<_> = store
            .read_stream(&name, StreamVersion(start))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(read.len() as u64, count(total) - start);
        for event in &read {
            let n = event.version.0 as u32 * 3 + stream;
            assert_eq!(event.payload[..4], n.to_le_bytes());
        }
        if start > 0 {
            let behind = store
                .read_stream(&name, StreamVersion(start - 1))
                .map(drop)
                .unwrap_err();
            assert_eq!(behind.kind(), ErrorKind::Behind);
            assert_eq!(behind.lsn(), Some(begins));
        }
        let pinned = store.pinned(name.as_bytes()).unwrap().map(|(value, _)| value);
        let last = (count(total) as u32)
            .checked_sub(1)
            .map(|version| version * 3 + stream);
        assert_eq!(pinned, last.map(|n| n.to_le_bytes().to_vec()));
    }
    assert_eq!(store.totals().unwrap().events, u64::from(total));
    assert_eq!(store.pinned_with_prefix(b"s/").unwrap().len(), 3);
    if begins > Lsn::ZERO {
        assert_eq!(
            store.scan(Lsn::ZERO).map(drop).unwrap_err().kind(),
            ErrorKind::Behind
        );
        assert_eq!(store.position_at(Lsn(8)).unwrap_err().kind(), ErrorKind::Behind);
    }
    let found = store.verify(&mut |_, _| ()).unwrap();
    assert!(
        found.damage.is_empty() && found.sidecars_damaged.is_empty(),
        "{found:?}"
    );
}

#[test]
fn what_is_freed_changes_no_version_no_pinned_record_and_no_later_event() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = keeping(&root, Retention::Bytes(2 << 20));
    let (mut total, mut begins) = (0, Lsn::ZERO);
    for round in 0..12 {
        fill(&store, total, 17);
        total += 17;
        store.tend().unwrap();
        check(&store, total);
        let now = store.oldest().unwrap();
        assert!(now >= begins && (round < 5 || now > Lsn::ZERO));
        begins = now;
        if round % 4 == 3 {
            store.clone().close().unwrap();
            let again = options().background(false).open(&root).unwrap();
            check(&again, total);
        }
    }
    let names: Vec<String> = store.storage().list("log").unwrap();
    let bases = names.iter().filter(|name| name.starts_with("base-")).count();
    let sidecars = names.iter().filter(|name| name.ends_with(".idx")).count();
    let segments = names.iter().filter(|name| name.ends_with(".log")).count();
    assert_eq!((bases, sidecars), (1, segments - 1), "{names:?}");
    // E4: all that is derived goes; the base is not.
    store.close().unwrap();
    for name in names.iter().filter(|name| name.ends_with(".idx")) {
        std::fs::remove_file(root.join("log").join(name)).unwrap();
    }
    let store = options().open(&root).unwrap();
    check(&store, total);
    store.close().unwrap();
    let base = names.iter().find(|name| name.starts_with("base-")).unwrap();
    std::fs::rename(root.join("log").join(base), root.join("base")).unwrap();
    assert_eq!(options().open(&root).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::rename(root.join("base"), root.join("log").join(base)).unwrap();
    check(&options().open(&root).unwrap(), total);
}

#[test]
fn a_handle_that_was_open_before_goes_on_from_the_base_and_its_reader_is_told_it_is_behind() {
    // The other handle has never asked for a stream, and then reads no more while its segments go.
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(&dir.path().join("s"), Retention::Bytes(1 << 20));
    let idle = options().background(false).open(dir.path().join("s")).unwrap();
    let fed = options().background(false).open(dir.path().join("s")).unwrap();
    fill(&store, 0, 5);
    let mut left = idle.scan(Lsn::ZERO).unwrap();
    assert!(left.next().unwrap().is_some());
    assert!(fed.stream_version("s/0").unwrap().is_some());
    fill(&store, 5, 100);
    store.tend().unwrap();
    assert!(store.oldest().unwrap() > Lsn::ZERO);
    check(&idle, 105);
    check(&fed, 105);
    let told = loop {
        match left.next() {
            Ok(frame) => assert!(frame.is_some(), "a reader that was overtaken does not end"),
            Err(error) => break error,
        }
    };
    assert_eq!(told.kind(), ErrorKind::Behind);
    assert!(told.to_string().contains(&store.oldest().unwrap().to_string()));
    fill(&fed, 105, 30);
    idle.tend().unwrap();
    check(&store, 135);
    check(&fed, 135);
}

#[test]
fn nothing_goes_that_somebody_holds_and_everything_is_held_by_a_hold_that_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = keeping(&root, Retention::Bytes(1));
    let hold = |lsn| crate::Hold::new("projection", "a test", lsn);
    store.hold("first", &hold(Lsn::ZERO)).unwrap();
    fill(&store, 0, 60);
    store.tend().unwrap();
    assert_eq!(store.oldest().unwrap(), Lsn::ZERO);
    let second = store.segments().unwrap()[1].0;
    // It stands in the second segment: the first may go.
    store.hold("first", &hold(second.plus(8))).unwrap();
    assert_eq!(store.freeable().unwrap().end, second);
    store.tend().unwrap();
    assert_eq!(store.oldest().unwrap(), second);
    assert_eq!(
        store.hold("late", &hold(Lsn(8))).unwrap_err().kind(),
        ErrorKind::Behind
    );
    let mut until = hold(second.plus(8));
    until.expires = Some(store.clock().wall_micros() - 1);
    store.hold("over", &until).unwrap();
    assert!(store.holds().unwrap().iter().any(|hold| hold.expired));
    std::fs::write(root.join("holds/broken"), "x").unwrap();
    store.drop_hold("first").unwrap();
    store.tend().unwrap();
    assert_eq!(store.oldest().unwrap(), second, "a damaged hold holds everything");
    let told = &store.freeable().unwrap().keepers[0].text;
    assert!(told.contains("broken") && told.contains("hold drop"), "{told}");
    let names: Vec<_> = store.holds().unwrap().into_iter().map(|hold| hold.name).collect();
    assert_eq!(names, ["broken"], "what is over was swept");
    assert!(store.drop_hold("broken").unwrap() && !store.drop_hold("broken").unwrap());
    store.tend().unwrap();
    assert_eq!(store.segments().unwrap().len(), 1);
    check(&store, 60);
    std::fs::write(root.join("space"), "x").unwrap();
    assert_eq!(store.free().unwrap_err().kind(), ErrorKind::Corrupt);
}

/// What cannot be kept is refused however a hold is taken: its lengths would not be what follows.
#[test]
fn a_hold_whose_owner_is_too_long_is_neither_taken_nor_moved() {
    let dir = tempfile::tempdir().unwrap();
    let store = keeping(&dir.path().join("s"), Retention::Forever);
    let long = crate::Hold::new("k", &"x".repeat(300), Lsn::ZERO);
    let taken = store.hold("mine", &long).unwrap_err();
    let moved = store.move_hold("mine", |_| Ok(Some(long))).unwrap_err();
    assert_eq!(
        (taken.kind(), moved.kind()),
        (ErrorKind::Invalid, ErrorKind::Invalid)
    );
    assert!(store.holds().unwrap().is_empty());
}

/// Commits until the log is full; what it said.
fn until_full(store: &Store, total: &mut u32) -> crate::Error {
    loop {
        match store.commit(transaction("s/0", &[7; 50_000])) {
            Ok(_) => *total += 1,
            Err(error) => return error,
        }
        assert!(*total < 1_000, "a limit holds");
    }
}

fn marks(store: &Store) -> u32 {
    let mut marks = 0;
    while store.append_marker().is_ok() {
        marks += 1;
        assert!(marks < 100_000, "a limit holds for the reserve too");
    }
    marks
}

#[test]
fn a_full_log_says_who_keeps_it_and_its_reserve_takes_the_way_out_and_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let options = || options().background(false);
    let store = options()
        .limit(4 << 20)
        .init(&root, "a".parse().unwrap())
        .unwrap();
    store
        .hold("reader", &crate::Hold::new("projection", "a test", Lsn::ZERO))
        .unwrap();
    let mut total = 0;
    let full = until_full(&store, &mut total);
    assert_eq!((full.kind(), full.written()), (ErrorKind::Full, None));
    let text = full.to_string();
    for word in [
        "LogFull",
        "4194304",
        "retention is forever",
        "--limit",
        "reader",
        "hold drop",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(
        (40..63).contains(&total),
        "three of four segments are for events: {total}"
    );
    let marked = store.append_marker().unwrap();
    // The marker began the reserve: events do not fill it, nor after opening again.
    assert_eq!(until_full(&store, &mut total).kind(), ErrorKind::Full);
    store.close().unwrap();
    let store = options().open(&root).unwrap();
    let before = total;
    assert_eq!(until_full(&store, &mut total).kind(), ErrorKind::Full);
    assert_eq!(total, before);
    assert!(marks(&store) > 1_000);
    assert!(store.segments().unwrap().iter().map(|(_, len)| len).sum::<u64>() <= 4 << 20);
    assert!(store.position_at(marked).unwrap().is_some());
    goes_on(&store, &options().open(&root).unwrap(), total);
}

/// The trap: a part of it is in the log, so it is not absent, and was passed over with what is.
#[test]
fn who_commits_more_than_fits_is_told_what_to_do_when_a_part_of_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .background(false)
        .limit(3 << 20)
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let frames = (0..60).map(|_| {
        let mut frame = crate::frame::NewFrame::transaction();
        let event = crate::Event::new("s/0", "k", vec![7; 50_000]);
        frame.push_event(0, &event.unwrap()).unwrap();
        frame
    });
    let full = store.append_frames(frames.collect(), crate::Durability::Buffered);
    let full = full.unwrap_err();
    assert!(
        full.kind() == ErrorKind::Full && full.written().is_some(),
        "{full}"
    );
    for word in ["LogFull", "--limit", "retention is forever"] {
        assert!(full.to_string().contains(word), "{word} in {full}");
    }
}

/// What another process allows, the handle of a full log finds by itself.
fn goes_on(store: &Store, other: &Store, mut total: u32) {
    let before = total;
    let mut space = other.space().unwrap();
    space.limit = 6 << 20;
    other.set_space(&space).unwrap();
    let full = until_full(store, &mut total);
    assert!(full.to_string().contains("reader") && total > before + 10);
    // Retention lets it go, the hold does not; then both do, and nobody calls anything but commit.
    space.retention = Retention::Bytes(1 << 20);
    other.set_space(&space).unwrap();
    assert!(until_full(store, &mut total).to_string().contains("reader"));
    other.drop_hold("reader").unwrap();
    for _ in 0..200 {
        let _ = store.commit(transaction("s/0", &[7; 50_000])).unwrap();
        total += 1;
    }
    assert!(store.oldest().unwrap() > Lsn::ZERO);
    assert_eq!(
        store.stream_version("s/0").unwrap(),
        Some(StreamVersion(u64::from(total) - 1))
    );
    assert_eq!(store.totals().unwrap().events, u64::from(total));
}

#[test]
fn a_marker_among_refused_commits_goes_through() {
    // Threads share the batches of a log that is full: what is small and without events is written all the same.
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .limit(3 << 20)
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    let mut total = 0;
    until_full(&store, &mut total);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let refused = store.commit(transaction("s/0", &[7; 50_000])).unwrap_err();
                    assert_eq!((refused.kind(), refused.written()), (ErrorKind::Full, None));
                }
            });
        }
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert!(store.append_marker().is_ok())));
        }
    });
    assert_eq!(store.totals().unwrap().events, u64::from(total));
}

/// The trap: nobody commits any more, and time alone makes what is there old enough.
#[test]
fn an_idle_store_frees_what_is_old_enough_and_says_when() {
    let dir = tempfile::tempdir().unwrap();
    let store = options()
        .background(true)
        .retention(Retention::Age(Duration::from_secs(2)))
        .init(dir.path().join("s"), "a".parse().unwrap())
        .unwrap();
    fill(&store, 0, 60);
    store.rotate(0).unwrap();
    fill(&store, 60, 1);
    let due = store.freeable().unwrap().due.unwrap();
    let now = store.clock().wall_micros();
    assert!(due > now - 2_000_000 && due <= now + 2_000_000, "{due} at {now}");
    assert_eq!(store.oldest().unwrap(), Lsn::ZERO);
    let started = store.clock().monotonic();
    while store.segments().unwrap().len() > 1 {
        assert!(
            store.clock().monotonic() - started < Duration::from_secs(20),
            "nobody frees"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(store.clock().monotonic() - started > Duration::from_millis(500));
    check(&store, 61);
    assert_eq!(store.freeable().unwrap().due, None);
    // A handle that finds it so after opening, and commits nothing, does too. What is there by now is too old already for this.
    fill(&store, 61, 1);
    store.rotate(0).unwrap();
    fill(&store, 62, 1);
    store.close().unwrap();
    let begins = || {
        let store = options().background(false).open(dir.path().join("s")).unwrap();
        store.oldest().unwrap()
    };
    let before = begins();
    std::thread::sleep(Duration::from_millis(2_100));
    let store = options().background(true).open(dir.path().join("s")).unwrap();
    let started = store.clock().monotonic();
    while store.oldest().unwrap() == before {
        assert!(
            (store.clock().monotonic() - started) < Duration::from_secs(20),
            "nobody frees after opening"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
/// Commits what was received of a site, 50 kB each, as a site with a remote does.
pub(super) fn receive(store: &Store, from: u64, count: u64) {
    for number in from..from + count {
        let mut transaction = crate::Transaction::new();
        let payload = number.to_le_bytes().repeat(6_250);
        transaction.push_received(2, "s", "k", &[], &payload).unwrap();
        transaction.set_committed_at(7);
        transaction.set_origin(crate::Origin {
            site: crate::StoreId(9),
            name: "hq".parse().unwrap(),
            epoch: crate::Epoch(3),
            lsn: Lsn(64 + number),
        });
        transaction.pin(crate::Pinned {
            key: b"catalog/remote/hq".to_vec(),
            value: Some(Vec::new()),
        });
        let _ = store.commit(transaction).unwrap();
    }
}

/// Which of the first so many are known as received and freed; all others are in the log.
fn known(store: &Store, count: u64) -> u64 {
    let receipts = store.receipts(None).unwrap();
    let mut scan = store.scan(receipts.begins()).unwrap();
    let mut kept = 0;
    while let Some(frame) = scan.next().unwrap() {
        kept += u64::from(frame.origin().unwrap().is_some());
    }
    let freed = count - kept;
    for number in 0..count {
        let found = receipts
            .events(crate::StoreId(9), crate::Epoch(3), Lsn(64 + number))
            .unwrap();
        assert_eq!(found.len(), usize::from(number < freed), "{number} of {freed}");
        assert!(found.iter().all(|receipt| receipt.ordinal == 2));
    }
    assert_eq!(receipts.transactions(), freed);
    let other = receipts.events(crate::StoreId(9), crate::Epoch(4), Lsn(64));
    assert!(other.unwrap().is_empty());
    freed
}

/// Files of a store's log whose names begin so, oldest first.
pub(super) fn files(root: &std::path::Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let names = std::fs::read_dir(root.join("log")).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    let named = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let mut paths: Vec<_> = paths.filter(named).collect();
    paths.sort();
    paths
}

#[test]
fn what_was_received_and_freed_is_known_by_every_handle_backup_and_restored_store_r1() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = keeping(&root, Retention::Bytes(2 << 20));
    for round in 0..4 {
        receive(&store, round * 40, 40);
        store.tend().unwrap();
        store.free().unwrap();
        let freed = known(&store, (round + 1) * 40);
        assert!(round == 0 || freed >= round * 20, "{freed} in round {round}");
    }
    let backup = dir.path().join("backup");
    store.backup(&backup, false, &mut |_, _| ()).unwrap();
    let found = Backup::open(&backup).unwrap().verify(&mut |_, _| ());
    assert!(found.unwrap().damage.is_empty());
    let again = dir.path().join("again");
    options().restore(&backup, &again, &mut |_, _| ()).unwrap();
    let restored = options().open(&again).unwrap();
    assert_eq!(known(&restored, 160), known(&store, 160));
    store.close().unwrap();
    let store = options().background(false).open(&root).unwrap();
    receive(&store, 160, 40);
    store.tend().unwrap();
    known(&store, 200);
}

#[test]
fn what_knows_of_the_received_is_told_when_it_is_damaged_and_stays_when_its_base_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = keeping(&root, Retention::Bytes(2 << 20));
    for round in 0..3 {
        receive(&store, round * 50, 50);
        store.free().unwrap();
    }
    assert!(known(&store, 150) > 50);
    let kept = files(&root, "received-");
    assert!(kept.len() > 1);
    let bytes = std::fs::read(&kept[0]).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    for damage in [Some(changed), None] {
        match &damage {
            Some(changed) => std::fs::write(&kept[0], changed).unwrap(),
            None => std::fs::remove_file(&kept[0]).unwrap(),
        }
        let all = store.receipts(None);
        let asked = all.and_then(|all| {
            let ask = |number: u64| all.events(crate::StoreId(9), crate::Epoch(3), Lsn(64 + number));
            (0..150).map(ask).collect::<crate::Result<Vec<_>>>()
        });
        let error = asked.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.path(), Some(kept[0].as_path()));
        assert_eq!(store.verify(&mut |_, _| ()).unwrap().damage.len(), 1);
    }
    std::fs::write(&kept[0], bytes).unwrap();
    store.close().unwrap();
    let base = files(&root, "base-").remove(0);
    let whole = std::fs::read(&base).unwrap();
    std::fs::write(&base, &whole[..whole.len() - 1]).unwrap();
    let error = options().open(&root).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(files(&root, "received-"), kept);
    std::fs::write(&base, whole).unwrap();
    known(&options().open(&root).unwrap(), 150);
}

/// The machine's clock, ahead by as much as it is told.
#[derive(Default)]
struct Ahead(std::sync::atomic::AtomicI64);

impl crate::clock::Clock for Ahead {
    fn wall_micros(&self) -> i64 {
        crate::clock::SystemClock.wall_micros() + self.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        crate::clock::SystemClock.monotonic()
    }

    fn sleep(&self, pause: Duration) {
        crate::clock::SystemClock.sleep(pause);
    }
}

#[test]
fn nothing_goes_by_age_after_a_clock_jumped_until_somebody_says_that_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let clock = std::sync::Arc::new(Ahead::default());
    let kept = keeping(&path, Retention::Age(Duration::from_secs(30 * 86_400)));
    fill(&kept, 0, 100);
    drop(kept);
    let store = options()
        .background(false)
        .clock(std::sync::Arc::clone(&clock) as std::sync::Arc<dyn crate::clock::Clock>)
        .open(&path)
        .unwrap();
    for years in [10, -10_i64] {
        clock
            .0
            .store(years * 365 * 86_400_000_000, std::sync::atomic::Ordering::SeqCst);
        assert_eq!((store.believed_now(), store.free().unwrap()), (None, 0));
        let keepers = store.freeable().unwrap().keepers;
        assert!(
            keepers[0].text.contains("--clock-is-right"),
            "{}",
            keepers[0].text
        );
        store.confirm_clock().unwrap();
        assert!(store.believed_now().is_some());
        assert_eq!(
            store.free().unwrap() > 0,
            years > 0,
            "what is older than thirty days goes"
        );
    }
}
