//! Everything beside the segments, broken: the store's file, sidecars, witnesses (`log/newest`, `log/closed`), the second
//! copy of blocks, `queue/freed`, a backup's manifest, the plan of a repair, `space`, a hold, a base. Bytes 1 and 2: which disk, and whether
//! checksums are made right again.
//!
//! A store that opens holds what was committed and goes on (E1, E2); as long as no checksum was forged, its derived
//! files change no answer (E4), a backup restores to the same or not at all, and a repair that was begun ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milepost_engine::{Backup, ErrorKind, Lsn, Origin, Repair, RepairHow, Result, Store, Transaction};
use milepost_fuzz::fixture::{self, Break, Files};
use milepost_fuzz::mend;
use milepost_fuzz::small_files::{KEY, RECEIVED, STREAMS, World, options, origin, put};
use milepost_tests::disk::SimDisk;

fuzz_target!(|input: (u8, bool, Vec<Break<'_>>)| {
    let (number, mended, breaks) = input;
    let world = World::of(number);
    let made = world.made();
    let mut files = made.small.clone();
    fixture::broken(&mut files, &breaks[..breaks.len().min(8)]);
    let forged = mended | forged(&made.small, &files);
    if mended {
        for (name, bytes) in &mut files {
            mend::small_file(name, bytes);
        }
    }
    let disk = made.disk.snapshot();
    put(&*disk.start().storage(), &made.small, &files);
    let _ = match world {
        World::Store => opened(&disk, forged),
        World::Backup => restored(&disk, forged),
        World::Repair => repaired(&disk, forged),
        World::Freed => opened_freed(&disk, forged),
    };
});

/// True when a changed file has all its checksums right: no accident, and nobody promises to see that.
fn forged(before: &Files, after: &Files) -> bool {
    after.iter().any(|(name, bytes)| {
        let mut again = bytes.clone();
        before.get(name) != Some(bytes) && mend::small_file(name, &mut again) && again == *bytes
    })
}

type Answers = (Vec<(Lsn, Vec<u8>)>, Vec<Vec<(u64, Vec<u8>)>>, Option<Vec<u8>>);

/// What the log holds, and what the index says of it.
fn answers(store: &Store) -> Result<Answers> {
    let (mut frames, mut streams) = (Vec::new(), Vec::new());
    let mut scan = store.scan(store.oldest()?)?;
    while let Some(frame) = scan.next()? {
        frames.push((frame.lsn(), frame.bytes().to_vec()));
    }
    for stream in STREAMS {
        let events = store.read_stream(stream, store.stream_start(stream)?)?;
        let events = events.map(|event| event.map(|event| (event.version.0, event.payload)));
        streams.push(events.collect::<Result<Vec<_>>>()?);
    }
    let pinned = store.pinned(KEY)?.map(|(value, _)| value);
    Ok((frames, streams, pinned))
}

fn known() -> &'static Answers {
    static KNOWN: std::sync::OnceLock<Answers> = std::sync::OnceLock::new();
    known_of(World::Store, &KNOWN)
}

fn known_of(world: World, known: &'static std::sync::OnceLock<Answers>) -> &'static Answers {
    known.get_or_init(|| {
        let disk = world.made().disk.snapshot();
        let process = disk.start();
        let store = options(&process).open_in(process.storage()).unwrap();
        answers(&store).unwrap()
    })
}

fn opened(disk: &SimDisk, forged: bool) -> Result<()> {
    let process = disk.start();
    let store = options(&process).open_in(process.storage())?;
    let read = answers(&store);
    if !forged {
        assert_eq!(
            read.as_ref().ok(),
            Some(known()),
            "derived files change no answer"
        );
    }
    let mut queue = store.queue_reader(Lsn::ZERO)?;
    while queue.next()?.is_some() {}
    let _ = store.verify(&mut |_, _| ())?;
    let (frames, ..) = read?;
    assert_eq!(
        frames,
        known().0,
        "a log that is read is the log that was written"
    );
    let mut transaction = Transaction::new();
    transaction.push_parts("new", "added", b"after the damage")?;
    let added = store.commit(transaction)?.committed()?;
    store.close()?;
    let store = options(&process)
        .open_in(process.storage())
        .expect("what was open and closed cleanly opens again");
    let (after, ..) = answers(&store)?;
    assert_eq!(after[..frames.len()], frames);
    assert_eq!(after.get(frames.len()).map(|(lsn, _)| *lsn), Some(added.lsn));
    Ok(())
}

/// What is left of a freed log is truth: it is right or damaged, and what was to be kept is not freed.
fn opened_freed(disk: &SimDisk, forged: bool) -> Result<()> {
    static KNOWN: std::sync::OnceLock<Answers> = std::sync::OnceLock::new();
    let known = known_of(World::Freed, &KNOWN);
    let process = disk.start();
    let store = options(&process).open_in(process.storage())?;
    match answers(&store) {
        Ok(read) if !forged => assert_eq!(&read, known, "a base is right or damaged"),
        Ok(_) => {}
        Err(error) => assert!(forged || error.kind() == ErrorKind::Corrupt, "{error}"),
    }
    let received = store.receipts(None).and_then(|all| {
        let events = |origin: Origin| all.events(origin.site, origin.epoch, origin.lsn);
        (0..RECEIVED)
            .map(|number| events(origin(number)))
            .collect::<Result<Vec<_>>>()
    });
    match received {
        Ok(found) if !forged => assert!(
            found.iter().all(|events| events.len() == 1),
            "what was received is known or damaged"
        ),
        Ok(_) => {}
        Err(error) => assert!(forged || error.kind() == ErrorKind::Corrupt, "{error}"),
    }
    let _ = (
        store.space().is_ok(),
        store.holds()?.len(),
        store.freeable().is_ok(),
    );
    let _ = store.verify(&mut |_, _| ())?;
    let begins = store.oldest()?;
    let freed = store.free();
    assert!(
        forged || freed.is_err() || store.oldest()? == begins || store.holds()?.is_empty(),
        "a hold that is damaged holds"
    );
    Ok(())
}

fn restored(disk: &SimDisk, forged: bool) -> Result<()> {
    let process = disk.start();
    let backup = Backup::open_in(process.storage())?;
    let _ = (backup.facts(), backup.verify(&mut |_, _| ())?);
    let target = SimDisk::new(3);
    let new = target.start();
    options(&new).restore_in(process.storage(), new.storage(), &mut |_, _| ())?;
    let store = options(&new).open_in(new.storage());
    if forged {
        return store.map(drop);
    }
    let (frames, ..) = answers(&store.expect("a restored store opens")).expect("and is read");
    let same = frames
        .iter()
        .zip(&known().0)
        .filter(|(new, old)| new == old)
        .count();
    assert_eq!(
        same,
        known().0.len(),
        "a restored store holds what the backup held"
    );
    Ok(())
}

fn repaired(disk: &SimDisk, forged: bool) -> Result<()> {
    let process = disk.start();
    let refused = options(&process).open_in(process.storage());
    let repair = Repair::open_in(process.storage(), options(&process))?;
    let examined = repair.examine()?;
    let repaired = repair.run(RepairHow::Isolate, &mut |_| ())?;
    assert_eq!(examined.interrupted.is_some(), repaired.resumed);
    assert!(
        !repaired.resumed || refused.is_err(),
        "a store is closed while its repair is under way"
    );
    let store = options(&process).open_in(process.storage());
    if forged {
        return store.and_then(|store| answers(&store)).map(drop);
    }
    let store = store.expect("a store that was repaired opens");
    let (frames, ..) = answers(&store).expect("and is read");
    let known = &known().0;
    let kept = frames.iter().filter(|frame| known.contains(frame)).count();
    assert!(
        kept >= known.len() / 2,
        "what was not damaged is there: {kept} of {}",
        known.len()
    );
    Ok(())
}
