//! Sidecar files: every changed byte is found, a lost or foreign file is made again with the same bytes,
//! and a disk that is full takes no answer away.

use crate::Lsn;

use super::model::{Bench, Op};

/// Three sealed segments with their sidecars, and an active one.
fn bench() -> Bench {
    bench_counting_from(0)
}

/// The same segments and lengths for every `serial`, with other payloads, pinned values and chains.
fn bench_counting_from(serial: u64) -> Bench {
    let mut bench = Bench::new();
    bench.serial = serial;
    for segment in 0..4u8 {
        let frames = vec![vec![(segment, 3), (1, 2)], vec![(7, 1)]];
        bench.run(&Op::Append(frames, vec![(segment, false), (0, segment == 2)]));
        bench.run(&Op::Append(vec![vec![(5, 1)]], vec![]));
        if segment < 3 {
            bench.run(&Op::Roll);
        }
    }
    bench.run(&Op::WriteSealed);
    bench.check();
    assert_eq!(bench.storage.names().len(), 3);
    bench
}

#[test]
fn every_changed_byte_of_a_sidecar_is_found_and_the_file_is_made_again() {
    let mut bench = bench();
    for name in bench.storage.names() {
        let whole = bench.storage.bytes(&name);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bench.storage.put(&name, bytes);
            bench.run(&Op::Reopen(0, None));
            assert_eq!(bench.index.verify().unwrap().len(), 1, "byte {at} of {name}");
            if at % 64 == 0 {
                bench.check();
                // What no answer needs is not even read: the rest is repaired by command.
                bench.index.repair().unwrap();
                assert_eq!(
                    bench.storage.bytes(&name),
                    whole,
                    "made again with the same bytes"
                );
                assert_eq!(bench.index.verify().unwrap(), []);
            }
            bench.storage.put(&name, whole.clone());
        }
    }
}

#[test]
fn a_sidecar_cut_short_or_grown_is_made_again() {
    let mut bench = bench();
    let name = bench.storage.names()[1].clone();
    let whole = bench.storage.bytes(&name);
    for len in [0, 1, 255, 256, whole.len() - 8, whole.len() + 8] {
        let mut bytes = whole.clone();
        bytes.resize(len, 0);
        bench.storage.put(&name, bytes);
        bench.run(&Op::Reopen(0, None));
        bench.check();
        assert_eq!(bench.storage.bytes(&name), whole);
    }
}

#[test]
fn a_sidecar_of_another_history_is_made_again() {
    // A directory restored over another: the files have the right names and valid checksums, and tell of
    // segments with the same first and end LSNs. Only the chains differ, and pinned values would too.
    let (mut ours, other) = (bench(), bench_counting_from(1000));
    let names = ours.storage.names();
    assert_eq!(
        names,
        other.storage.names(),
        "the trap is set: every LSN is the same"
    );
    let whole: Vec<_> = names.iter().map(|name| ours.storage.bytes(name)).collect();
    for name in &names {
        ours.storage.put(name, other.storage.bytes(name));
    }
    ours.run(&Op::Reopen(0, None));
    assert_eq!(ours.index.verify().unwrap().len(), 3);
    ours.check();
    let after: Vec<_> = names.iter().map(|name| ours.storage.bytes(name)).collect();
    assert!(after == whole);
}

#[test]
fn missing_sidecars_are_made_oldest_first_and_each_once() {
    let mut bench = bench();
    let before: Vec<_> = bench
        .storage
        .names()
        .iter()
        .map(|name| bench.storage.bytes(name))
        .collect();
    bench.run(&Op::Reopen(u16::MAX, None));
    assert!(bench.storage.names().is_empty());
    bench.index.make_missing().unwrap();
    let firsts = bench.log.firsts();
    assert_eq!(*bench.rebuilt.lock().unwrap(), firsts[..3]);
    let after: Vec<_> = bench
        .storage
        .names()
        .iter()
        .map(|name| bench.storage.bytes(name))
        .collect();
    assert_eq!(before, after, "a sidecar is a pure function of the log");
    bench.check();
    assert_eq!(bench.rebuilt.lock().unwrap().len(), 3);
}

#[test]
fn a_full_disk_takes_no_answer_away() {
    let mut bench = bench();
    *bench.storage.full.lock().unwrap() = true;
    bench.run(&Op::Reopen(u16::MAX, None));
    bench.check();
    assert!(
        bench.storage.names().is_empty(),
        "nothing half-written is left behind"
    );
    *bench.storage.full.lock().unwrap() = false;
    bench.run(&Op::WriteSealed);
    assert_eq!(bench.storage.names().len(), 3);
    bench.check();
}

#[test]
fn what_a_dead_writer_left_behind_is_removed() {
    let bench = bench();
    bench
        .storage
        .put("log/0000000000000000.idx.tmp-00000000000000ff", vec![1]);
    bench.storage.put("log/0000000000000000.seg", vec![2]);
    crate::index::remove_unfinished(&*bench.storage).unwrap();
    assert_eq!(bench.storage.names().len(), 4);
    assert!(
        bench
            .storage
            .names()
            .contains(&"log/0000000000000000.seg".to_owned())
    );
}

#[test]
fn a_block_out_of_line_is_refused_and_changes_nothing() {
    let bench = bench();
    let (end, chain) = bench.index.end();
    let firsts = bench.log.firsts();
    let old = bench.log.segments.lock().unwrap()[&firsts[3]][0].clone();
    let block = crate::block::Block::check(&old).unwrap();
    assert!(bench.index.absorb(firsts[3], &block).is_err(), "taken in twice");
    assert!(
        bench.index.absorb(Lsn(8), &block).is_err(),
        "a segment that does not follow"
    );
    assert_eq!(bench.index.end(), (end, chain));
    bench.check();
}
