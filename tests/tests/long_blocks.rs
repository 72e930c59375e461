//! A block that is longer than what recovery keeps in memory is read where it is mapped and written again piece by piece: it survives
//! whole or is absent, whenever processes die and power is lost, and damage in it is told (E1, E3, S3).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use milepost_engine::width::to_u64;
use milepost_engine::{Durability, ErrorKind, Lsn, Options, Result, Store, Transaction};
use milepost_tests::SimRng;
use milepost_tests::crash::hush;
use milepost_tests::disk::{Killed, Profile, Script, SimDisk, SimProcess, Verdict};

/// Longer than what is read into memory, and than a piece that is written again.
const LONG: usize = 9 << 20;
/// The recovery dies at each so manieth of its changes, beginning anywhere; `MILEPOST_EVERY_CHANGE=1` tries them all.
const STEP: usize = 7;

fn options(process: &SimProcess, rng: &SimRng) -> Options {
    let options = Options::new().segment_bytes(16 << 20).background(false);
    options.clock(process.clock()).rng(Arc::new(rng.fork()))
}

fn payload(number: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7).to_le_bytes()[0] ^ number).collect()
}

fn commit(store: &Store, number: u8, len: usize) -> Result<()> {
    let mut transaction = Transaction::new();
    transaction.push_parts("images", "taken", &payload(number, len))?;
    store.commit_with(transaction, Durability::Synced)?.committed()?;
    Ok(())
}

/// How many events there are, each whole.
fn events(store: &Store, lens: &[usize]) -> usize {
    let (mut scan, mut found) = (store.scan(Lsn::ZERO).unwrap(), 0);
    while let Some(frame) = scan.next().unwrap() {
        for event in frame.events() {
            let number = u8::try_from(found).unwrap();
            let whole = payload(number, *lens.get(found).unwrap());
            assert!(event.unwrap().payload == whole, "event {found} is another");
            found += 1;
        }
    }
    found
}

/// Does something in a process that dies at its `at`-th change; whether it died.
fn dies_at(disk: &SimDisk, at: u64, deed: &dyn Fn(&SimProcess) -> Result<()>) -> (bool, Option<Result<()>>) {
    let process = disk.directed(Arc::new(Script::new([(at, Verdict::KillAfter(5 << 20))])));
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| deed(&process)));
    let died = !process.is_alive();
    process.kill();
    match done {
        Ok(done) => (died, Some(done)),
        Err(payload) if payload.is::<Killed>() => (true, None),
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

#[test]
fn a_long_block_is_whole_or_absent_wherever_its_writer_and_the_recovery_die_e1_s3() {
    hush();
    let (rng, lens, mut deaths) = (SimRng::new(11), [400, LONG], 0);
    let every = std::env::var("MILEPOST_EVERY_CHANGE").is_ok();
    let step = if every { 1 } else { STEP };
    for profile in [Profile::Posix, Profile::Ext4, Profile::Garbage4096] {
        for at in 0.. {
            let disk = SimDisk::like(profile, at);
            let process = disk.start();
            let first = options(&process, &rng).pad_to(profile.garbage().unwrap_or(1));
            let store = first.init_in(process.storage(), "bern".parse().unwrap()).unwrap();
            commit(&store, 0, 400).unwrap();
            process.kill();
            drop(store);
            let (died, done) = dies_at(&disk, at, &|process| {
                commit(&options(process, &rng).open_in(process.storage())?, 1, LONG)
            });
            let told = usize::from(matches!(done, Some(Ok(()))));
            let after = disk.crash(&rng);
            // Whoever comes next dies too, and what is there stays there or not at all.
            for again in (at % to_u64(step)..).step_by(step) {
                let half = after.snapshot();
                let (died, _) = dies_at(&half, again, &|process| {
                    options(process, &rng).open_in(process.storage()).map(drop)
                });
                let last = half.crash(&rng);
                let process = last.start();
                let store = options(&process, &rng).open_in(process.storage()).unwrap();
                let found = events(&store, &lens);
                assert!(
                    (1 + told..=2).contains(&found),
                    "{profile:?}, change {at}, then {again}: {found} events, {told} of the long ones acknowledged"
                );
                assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
                deaths += 1;
                if !died {
                    break;
                }
            }
            if !died {
                assert_eq!(told, 1, "{done:?}");
                break;
            }
        }
    }
    println!("{deaths} deaths, each with a power cut behind it");
    assert!(deaths > 100, "{deaths}");
}

#[test]
fn damage_anywhere_in_a_long_durable_block_is_told_e3() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let options = || Options::new().segment_bytes(16 << 20).background(false);
    let store = options().init(&root, "bern".parse().unwrap()).unwrap();
    commit(&store, 0, 400).unwrap();
    let begins = store.watermarks().appended.0;
    commit(&store, 1, LONG).unwrap();
    let ends = store.watermarks().appended.0;
    store.close().unwrap();
    let segment = std::fs::read_dir(root.join("log")).unwrap().find_map(|file| {
        let path = file.unwrap().path();
        let is_segment = std::fs::metadata(&path).unwrap().len() >= 16 << 20;
        let is_spare = path.file_name().unwrap().to_str().unwrap().starts_with("spare-");
        (is_segment && !is_spare).then_some(path)
    });
    let segment = segment.unwrap();
    let whole = std::fs::read(&segment).unwrap();
    for at in [begins + 3, begins + 200, (begins + ends) / 2, ends - 40] {
        let mut damaged = whole.clone();
        damaged[usize::try_from(at).unwrap()] ^= 4;
        std::fs::write(&segment, damaged).unwrap();
        let refused = options().open(&root).err();
        let kind = refused.as_ref().map(milepost_engine::Error::kind);
        assert_eq!(kind, Some(ErrorKind::Corrupt), "byte {at}: {refused:?}");
    }
    std::fs::write(&segment, whole).unwrap();
    let store = options().open(&root).unwrap();
    assert_eq!(events(&store, &[400, LONG]), 2);
}
