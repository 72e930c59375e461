//! Damage, what a repair says of it, and what is there afterwards, compared with what was committed.

use std::path::{Path, PathBuf};

use super::*;
use crate::{Durability, Epoch, ErrorKind, Position, Store, Transaction, TransactionId};

/// What a store held before anything happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    lsn: Lsn,
    id: TransactionId,
    stream: String,
    position: Position,
    /// The block that holds it.
    block: (Lsn, Lsn),
}

struct Place {
    dir: tempfile::TempDir,
    truth: Vec<Known>,
    epoch: Epoch,
    segments: Vec<Lsn>,
    durable: Lsn,
}

fn options() -> Options {
    Options::new().segment_bytes(1 << 20).background(false)
}

fn known(store: &Store) -> Vec<Known> {
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let mut all = Vec::new();
    while let Some(block) = scan.next_block().unwrap() {
        for frame in block.frames() {
            let frame = frame.unwrap();
            let Some(event) = frame.events().next() else {
                continue;
            };
            all.push(Known {
                lsn: frame.lsn(),
                id: frame.id(),
                stream: event.unwrap().stream().unwrap().to_owned(),
                position: Position {
                    epoch: frame.epoch(),
                    lsn: frame.lsn(),
                    chain: block.chain_after(),
                },
                block: (block.header().lsn, block.header().end()),
            });
        }
    }
    all
}

impl Place {
    /// Three segments of blocks with one to three transactions each.
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = options()
            .init(dir.path().join("s"), "bern".parse().unwrap())
            .unwrap();
        for number in 0..220u32 {
            let frames = (0..1 + number % 3).map(|part| {
                let mut frame = crate::frame::NewFrame::transaction();
                let event = crate::Event::new(
                    &format!("s/{}", (number + part) % 9),
                    "k",
                    vec![part as u8; 5_000],
                );
                frame.push_event(0, &event.unwrap()).unwrap();
                frame
            });
            store
                .append_frames(frames.collect(), Durability::Buffered)
                .unwrap();
        }
        store.sync().unwrap();
        let truth = known(&store);
        let segments = store
            .segments()
            .unwrap()
            .into_iter()
            .map(|(first, _)| first)
            .collect::<Vec<_>>();
        assert!(
            segments.len() >= 3 && truth.len() == 439,
            "{} {}",
            segments.len(),
            truth.len()
        );
        let (epoch, durable) = (store.epoch(), store.watermarks().durable);
        store.stream_version("s/1").unwrap();
        store.close().unwrap();
        Place {
            dir,
            truth,
            epoch,
            segments,
            durable,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn file(&self, first: Lsn) -> PathBuf {
        self.root().join(format!("log/{:016x}.log", first.0))
    }

    fn segment(&self, at: Lsn) -> Lsn {
        *self.segments.iter().rev().find(|first| **first <= at).unwrap()
    }

    fn change(&self, at: Lsn, change: impl FnOnce(&mut [u8])) {
        let first = self.segment(at);
        let mut bytes = std::fs::read(self.file(first)).unwrap();
        change(&mut bytes[at.since(first) as usize..]);
        std::fs::write(self.file(first), bytes).unwrap();
    }

    fn examine(&self) -> Examined {
        Repair::open(self.root(), options()).unwrap().examine().unwrap()
    }

    fn repair(&self, how: RepairHow) -> (Repaired, Vec<LostFrame>) {
        let mut lost = Vec::new();
        let repair = Repair::open(self.root(), options()).unwrap();
        let done = repair.run(how, &mut |frame| lost.push(frame.clone())).unwrap();
        (done, lost)
    }

    /// Opens, reads everything, verifies, commits: what is left is `left`, at its old LSNs.
    #[track_caller]
    fn holds(&self, left: &[Known], done: &Repaired) {
        let store = options().open(self.root()).unwrap();
        let found = known(&store);
        assert_eq!(found, left);
        assert_eq!(store.lineage().unwrap(), Some((self.epoch, done.end)));
        assert_eq!(store.epoch(), done.epoch);
        let grew_over = store.disk().unwrap().over.as_secs();
        assert!(
            grew_over < 1_000_000_000,
            "the log grew since 1970: {grew_over} s"
        );
        for (at, end) in &done.ranges {
            let (value, _) = store
                .pinned(format!("lost/{:016x}", at.0).as_bytes())
                .unwrap()
                .unwrap();
            assert_eq!(value, end.0.to_le_bytes());
        }
        let mut more = Transaction::new();
        more.push_parts("s/1", "k", b"more").unwrap();
        store.commit(more).unwrap().committed().unwrap();
        for stream in 0..9 {
            let stream = format!("s/{stream}");
            let expected = left.iter().filter(|known| known.stream == stream).count();
            let events = store.read_stream(&stream, crate::StreamVersion(0)).unwrap();
            assert_eq!(
                events.map(Result::unwrap).count(),
                expected + usize::from(stream == "s/1")
            );
        }
        for one in left {
            assert_eq!(
                store.position_at(one.lsn).unwrap(),
                Some(one.position),
                "positions stay true (E2)"
            );
        }
        store.close().unwrap();
        let store = options().open(self.root()).unwrap();
        assert_eq!(known(&store).len(), left.len() + 1);
        let verified = store.verify(&mut |_, _| ()).unwrap();
        assert!(
            verified.damage.is_empty() && verified.sidecars_damaged.is_empty(),
            "{verified:?}"
        );
        store.close().unwrap();
        assert!(self.examine().damages.is_empty());
    }

    /// The transactions of the block that holds the `number`-th.
    fn block_of(&self, number: usize) -> Vec<Known> {
        let block = self.truth[number].block;
        self.truth
            .iter()
            .filter(|known| known.block == block)
            .cloned()
            .collect()
    }

    fn without(&self, lost: &[Known]) -> Vec<Known> {
        self.truth
            .iter()
            .filter(|known| !lost.contains(known))
            .cloned()
            .collect()
    }
}

#[track_caller]
fn assert_lists(lost: &[LostFrame], expected: &[Known]) {
    let listed: Vec<_> = lost
        .iter()
        .filter(|frame| frame.events > 0)
        .map(|frame| {
            (
                frame.lsn,
                frame.id,
                frame.streams.keys().cloned().collect::<Vec<_>>(),
            )
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|known| (known.lsn, known.id, vec![known.stream.clone()]))
        .collect();
    assert_eq!(listed, expected);
}

fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_whole_log_has_nothing_to_repair_and_examining_changes_nothing() {
    let place = Place::new();
    let before = contents(&place.root());
    let found = place.examine();
    assert!(found.damages.is_empty(), "{found:?}");
    let repair = Repair::open(place.root(), options()).unwrap();
    let error = repair.run(RepairHow::Cut, &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    place.change(place.truth[100].lsn, |bytes| bytes[40] ^= 4);
    let damaged = contents(&place.root());
    assert_ne!(before, damaged);
    assert_eq!(place.examine().damages.len(), 1);
    assert_eq!(contents(&place.root()), damaged);
}

#[test]
fn a_store_that_is_open_is_not_repaired() {
    let place = Place::new();
    let store = options().open(place.root()).unwrap();
    let error = Repair::open(place.root(), options()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(store);
}

#[test]
fn one_flipped_bit_of_a_payload_costs_its_block_when_isolated_and_the_list_is_exact() {
    let place = Place::new();
    let lost = place.block_of(200);
    assert!(lost.len() > 1);
    place.change(place.truth[200].lsn, |bytes| bytes[500] ^= 1);
    let found = place.examine();
    assert_eq!(found.isolate.as_ref().unwrap().transactions, lost.len() as u64);
    let (done, told) = place.repair(RepairHow::Isolate);
    assert_lists(&told, &lost);
    assert!(told.iter().all(|frame| !frame.certain));
    assert_eq!(done.ranges, [lost[0].block]);
    place.holds(&place.without(&lost), &done);
    // The damaged bytes are kept as they were.
    let (at, end) = lost[0].block;
    let kept = place
        .root()
        .join(format!("damaged/{:016x}-{}.bin", at.0, end.since(at)));
    let kept = std::fs::read(kept).unwrap();
    assert_eq!(kept[kept.len() - 100..kept.len() - 99], [lost.len() as u8 - 1]);
}

#[test]
fn cutting_costs_everything_behind_and_lists_all_of_it() {
    let place = Place::new();
    let from = place.block_of(200)[0].clone();
    place.change(place.truth[200].lsn, |bytes| bytes[500] ^= 1);
    let (left, lost): (Vec<_>, Vec<_>) = place
        .truth
        .iter()
        .cloned()
        .partition(|known| known.lsn < from.lsn);
    let found = place.examine();
    assert_eq!(found.cut.transactions, lost.len() as u64);
    let (done, told) = place.repair(RepairHow::Cut);
    assert_lists(&told, &lost);
    assert_eq!(done.end, from.block.0);
    place.holds(&left, &done);
    let kept: Vec<_> = contents(&place.root().join("damaged"))
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert!(
        kept.iter()
            .any(|path| path.ends_with(place.file(*place.segments.last().unwrap()).file_name().unwrap()))
    );
}

#[test]
fn a_header_with_one_flipped_bit_is_read_all_the_same_and_its_loss_is_certain() {
    for bit in [0, 37, 130, 300, 500, 700, 1000, 1023] {
        let place = Place::new();
        let lost = place.block_of(100);
        place.change(lost[0].block.0, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let found = place.examine();
        assert!(found.damages[0].1.complete, "{:?}", found.damages);
        let (done, told) = place.repair(RepairHow::Isolate);
        assert_lists(&told, &lost);
        assert!(told.iter().all(|frame| frame.certain));
        place.holds(&place.without(&lost), &done);
    }
}

#[test]
fn what_nothing_is_known_of_is_said_to_be_unknown() {
    let place = Place::new();
    let lost = place.block_of(300);
    place.change(lost[0].block.0, |bytes| bytes[..128].fill(0xee));
    let (at, end) = lost[0].block;
    let found = place.examine();
    assert_eq!(found.isolate.as_ref().unwrap().unknown_bytes, end.since(at));
    let (done, told) = place.repair(RepairHow::Isolate);
    assert!(told.is_empty());
    assert_eq!(done.ranges, [(at, end)]);
    place.holds(&place.without(&lost), &done);
}

#[test]
fn missing_files_first_middle_and_last_are_isolated() {
    for (number, ends_earlier) in [(0, false), (1, false), (2, true)] {
        let place = Place::new();
        let first = place.segments[number];
        let end = place.segments.get(number + 1).copied().unwrap_or(Lsn::MAX);
        let left: Vec<_> = place
            .truth
            .iter()
            .filter(|known| known.lsn < first || known.lsn > end)
            .cloned()
            .collect();
        std::fs::remove_file(place.file(first)).unwrap();
        if place.segments.len() > 3 && ends_earlier {
            place.segments[3..]
                .iter()
                .for_each(|later| std::fs::remove_file(place.file(*later)).unwrap());
        }
        let (done, told) = place.repair(RepairHow::Isolate);
        assert!(told.is_empty());
        assert_eq!(done.ranges[0].0, first);
        place.holds(
            &left
                .into_iter()
                .filter(|known| !ends_earlier || known.lsn < first)
                .collect::<Vec<_>>(),
            &done,
        );
    }
}

#[test]
fn a_last_file_that_was_cut_short_loses_what_stood_behind() {
    let place = Place::new();
    let last = *place.segments.last().unwrap();
    let at = place.truth.iter().find(|known| known.lsn > last).unwrap().block.1;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(place.file(last))
        .unwrap();
    file.set_len(at.since(last) + 700).unwrap();
    assert_eq!(
        options().open(place.root()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let (done, _) = place.repair(RepairHow::Isolate);
    assert_eq!(done.end, at);
    let left: Vec<_> = place
        .truth
        .iter()
        .filter(|known| known.lsn < at)
        .cloned()
        .collect();
    place.holds(&left, &done);
}

/// The trap: the log ends anew in the file before, and the one that nothing is left of stays behind it.
#[test]
fn a_last_file_of_which_nothing_is_left_goes_and_the_loss_is_told_once() {
    for len in [Some(0), Some(100), None] {
        let place = Place::new();
        let last = *place.segments.last().unwrap();
        match len {
            Some(len) => {
                let file = std::fs::OpenOptions::new().write(true).open(place.file(last));
                file.unwrap().set_len(len).unwrap();
            }
            None => std::fs::remove_file(place.file(last)).unwrap(),
        }
        let found = place.examine();
        let ranges: Vec<_> = found
            .damages
            .iter()
            .map(|(damage, _)| (damage.at, damage.end))
            .collect();
        assert_eq!(ranges, [(last, place.durable)], "{len:?}");
        assert_eq!(found.isolate.unwrap().bytes, place.durable.since(last), "{len:?}");
        let (done, _) = place.repair(RepairHow::Isolate);
        assert_eq!(
            (done.end, done.ranges.as_slice()),
            (last, ranges.as_slice()),
            "{len:?}"
        );
        let left: Vec<_> = place
            .truth
            .iter()
            .filter(|known| known.lsn < last)
            .cloned()
            .collect();
        place.holds(&left, &done);
    }
}

#[test]
fn where_two_histories_meet_only_a_cut_is_offered() {
    let place = Place::new();
    let copy = place.dir.path().join("copy");
    let cut = place.truth[250].block.0;
    place.change(cut, |bytes| bytes[200] ^= 1);
    // The same store goes on in another way from a point in the middle of its second segment.
    std::process::Command::new("cp")
        .arg("-r")
        .arg(place.root())
        .arg(&copy)
        .status()
        .unwrap();
    place.change(cut, |bytes| bytes[200] ^= 1);
    Repair::open(&copy, options())
        .unwrap()
        .run(RepairHow::Cut, &mut |_| ())
        .unwrap();
    let store = options().open(&copy).unwrap();
    while store.segments().unwrap().len() <= place.segments.len() {
        let mut more = Transaction::new();
        more.push_parts("s/1", "k", &[9; 60_000]).unwrap();
        store
            .commit_with(more, Durability::Buffered)
            .unwrap()
            .committed()
            .unwrap();
    }
    store.close().unwrap();
    let second = place.segment(cut);
    let file = format!("log/{:016x}.log", second.0);
    std::fs::copy(copy.join(&file), place.root().join(&file)).unwrap();
    let found = place.examine();
    let repair = Repair::open(place.root(), options()).unwrap();
    let parted = found
        .damages
        .iter()
        .any(|(damage, _)| damage.kind == DamageKind::Parted);
    assert!(parted, "{:?}", found.damages);
    let error = repair.run(RepairHow::Isolate, &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn a_repair_that_was_interrupted_keeps_the_store_closed_until_it_is_run_again() {
    let place = Place::new();
    let lost = place.block_of(200);
    place.change(place.truth[200].lsn, |bytes| bytes[500] ^= 1);
    let repair = Repair::open(place.root(), options()).unwrap();
    let found = repair.examine().unwrap();
    let plan = repair.plan(RepairHow::Isolate, &found).unwrap();
    aside::keep(&repair.raw, &plan, &found, &mut |_| ()).unwrap();
    plan.write(&*repair.raw.storage).unwrap();
    drop(repair);
    let error = options().open(place.root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("milepost repair"), "{error}");
    assert_eq!(place.examine().interrupted, Some(RepairHow::Isolate));
    let (done, _) = place.repair(RepairHow::Cut);
    assert!(
        done.resumed && done.how == RepairHow::Isolate,
        "it is finished as it was begun"
    );
    place.holds(&place.without(&lost), &done);
}

/// One to four random changes somewhere in the log.
fn damage_at_random(place: &Place, word: &mut impl FnMut(u64) -> u64) {
    for _ in 0..1 + word(4) {
        let at = Lsn(word(place.durable.0));
        match word(3) {
            0 => place.change(at, |bytes| bytes[0] ^= 1 << (at.0 % 8)),
            1 => place.change(at, |bytes| {
                let len = bytes.len().min(3_000);
                bytes[..len].fill(0);
            }),
            _ => place.change(at, |bytes| {
                let len = bytes.len().min(20_000);
                let changed = |byte: &mut u8| *byte = byte.wrapping_mul(7).wrapping_add(3);
                bytes[..len].iter_mut().for_each(changed);
            }),
        }
    }
}

/// Any damage: afterwards every transaction is there, or was listed, or lies in a range that is said to be lost.
#[test]
fn after_random_damage_nothing_is_missing_that_was_not_told() {
    let mut state = 1u64;
    let mut word = |below: u64| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    };
    for round in 0..24 {
        let place = Place::new();
        damage_at_random(&place, &mut word);
        let found = place.examine();
        if found.damages.is_empty() {
            // Padding and what lies behind a sealed segment's end mean nothing.
            assert_eq!(known(&options().open(place.root()).unwrap()), place.truth);
            continue;
        }
        let how = [RepairHow::Isolate, RepairHow::Cut][round % 2];
        let (done, told) = place.repair(how);
        let store = options().open(place.root()).unwrap();
        let left = known(&store);
        assert!(store.verify(&mut |_, _| ()).unwrap().damage.is_empty());
        let true_ones = left.iter().filter(|known| place.truth.contains(known));
        assert_eq!(true_ones.count(), left.len(), "round {round}: nothing is made up");
        let is_lost = |known: &Known| {
            done.ranges
                .iter()
                .any(|(at, end)| *at <= known.lsn && known.lsn < *end)
        };
        for known in place.without(&left) {
            let listed = told.iter().any(|frame| frame.lsn == known.lsn);
            assert!(
                is_lost(&known),
                "round {round}: {known:?} is gone and lies in no lost range: {done:?}"
            );
            let unknown = found.cut.unknown_bytes > 0 || found.damages.iter().any(|(_, loss)| !loss.complete);
            assert!(listed || unknown, "round {round}: {known:?}");
        }
        if how == RepairHow::Isolate {
            let kept = place.truth.iter().filter(|known| !is_lost(known)).count();
            assert_eq!(kept, left.len(), "round {round}: what is good stays");
        }
    }
}

/// A view's checkpoint behind isolated damage is still a position of the log; what it had folded of the lost block
/// must go all the same (E4).
#[test]
fn a_view_is_made_again_after_a_repair() {
    let place = Place::new();
    let open =
        |store: &Store| crate::view::View::open(store, "streams", crate::view::Streams, &mut |_| ()).unwrap();
    let store = options().open(place.root()).unwrap();
    open(&store).close().unwrap();
    store.close().unwrap();
    let lost = place.block_of(200);
    place.change(place.truth[200].lsn, |bytes| bytes[500] ^= 1);
    place.repair(RepairHow::Isolate);
    let store = options().open(place.root()).unwrap();
    let view = open(&store);
    let stream = &lost[0].stream;
    let left = place
        .without(&lost)
        .iter()
        .filter(|known| known.stream == *stream)
        .count();
    let version = view.stream(stream).unwrap().unwrap().version;
    assert_eq!(version.0 + 1, left as u64);
    assert!(view.cause().is_some());
}
