//! Pieces over processes, crashes and damage.

use std::path::PathBuf;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Event, Lsn, Options, Position};
use proptest::prelude::*;

use super::*;
use crate::golden::{assert_laid_out, kept};

fn store() -> (tempfile::TempDir, Store, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = Options::new()
        .segment_bytes(1 << 20)
        .init(&root, "bern".parse().unwrap())
        .unwrap();
    (dir, store, root.join(FOLDER))
}

/// The one file of a folder.
fn only(folder: &std::path::Path) -> PathBuf {
    let mut files = std::fs::read_dir(folder).unwrap();
    files.next().unwrap().unwrap().path()
}

fn hq() -> SiteName {
    "hq".parse().unwrap()
}

fn at(lsn: u64) -> Point {
    Point::live(Position {
        epoch: Epoch(7),
        lsn: Lsn(lsn),
        chain: Chain(lsn ^ 0x55),
    })
}

/// A transaction at `lsn` with so many bytes of payload.
fn carried(lsn: u64, len: usize) -> Carried {
    let mut state = lsn | 1;
    let payload: Vec<u8> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect();
    let mut frame = NewFrame::transaction();
    frame
        .push_event(0, &Event::new("s", "k", payload).unwrap())
        .unwrap();
    Carried::with_events_of(at(lsn), None, &frame)
}

fn encoding(carried: &Carried) -> Vec<u8> {
    let mut bytes = Vec::new();
    carried.encode(&mut bytes).unwrap();
    bytes
}

fn cut(carried: &Carried, from: usize, to: usize) -> Part {
    let bytes = encoding(carried);
    Part {
        point: carried.point,
        offset: from as u64,
        total: bytes.len() as u64,
        digest: Part::digest_of(&bytes),
        piece: bytes[from..to].to_vec().into(),
    }
}

fn cuts(carried: &Carried, step: usize) -> Vec<Part> {
    let len = encoding(carried).len();
    (0..len)
        .step_by(step)
        .map(|from| cut(carried, from, len.min(from + step)))
        .collect()
}

/// Joins, makes durable, and forgets all that is not on disk.
fn join_anew(store: &Store, part: &Part) -> Joined {
    let mut parts = Parts::open(store).unwrap();
    let joined = parts.join(&hq(), 3, part).unwrap().unwrap();
    parts.sync().unwrap();
    joined
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn pieces_of_any_cut_in_any_order_join_over_many_processes(
        len in 1usize..6000,
        ends in proptest::collection::vec((0usize..7000, 1usize..3000), 0..40),
        step in 400usize..3000,
    ) {
        let (_dir, store, folder) = store();
        let ours = carried(40, len);
        let total = encoding(&ours).len();
        let mut pieces: Vec<Part> = Vec::new();
        for (from, len) in ends {
            let from = from % total;
            pieces.push(cut(&ours, from, total.min(from + len)));
        }
        pieces.extend(cuts(&ours, step).into_iter().rev());
        let mut covered = vec![false; total];
        for part in pieces {
            covered[part.offset as usize..part.end() as usize].fill(true);
            let here = covered.iter().filter(|here| **here).count();
            match join_anew(&store, &part) {
                Joined::Whole(whole) => {
                    prop_assert_eq!(here, total);
                    prop_assert_eq!(whole, ours.clone());
                }
                Joined::Waiting => prop_assert!(here < total),
            }
            let known = incomplete(&store, None).unwrap();
            let (_, one) = known[0];
            let first = covered.iter().position(|here| !here).unwrap_or(total) as u64;
            prop_assert_eq!((one.held, one.total, one.missing_from), (here as u64, total as u64, first));
        }
        let mut parts = Parts::open(&store).unwrap();
        parts.settled(&hq(), |of, point| of == 3 && point.place() > ours.point.place()).unwrap();
        prop_assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    }
}

/// Whatever a power cut or a bad sector leaves of a file, what is whole in front of it counts, and the rest may come again.
#[test]
fn a_file_cut_or_damaged_anywhere_loses_only_what_stands_behind() {
    let (_dir, store, folder) = store();
    let ours = carried(40, 3000);
    let pieces = cuts(&ours, 500);
    for part in &pieces[..pieces.len() - 1] {
        assert_eq!(join_anew(&store, part), Joined::Waiting);
    }
    let path = only(&folder);
    let whole = std::fs::read(&path).unwrap();
    let mut tried = 0;
    for at in (0..whole.len()).step_by(7) {
        let (mut flipped, mut most) = (whole.clone(), whole.clone());
        flipped[at] ^= 0x10;
        most.truncate(at);
        for bytes in [flipped, most] {
            std::fs::write(&path, bytes).unwrap();
            let held = incomplete(&store, None)
                .unwrap()
                .first()
                .map_or(0, |(_, one)| one.held);
            assert!(held as usize <= at, "{held} bytes in front of offset {at}");
            let mut parts = Parts::open(&store).unwrap();
            assert_eq!(parts.held(&hq()), held);
            let mut joined = Joined::Waiting;
            for part in &pieces {
                joined = parts.join(&hq(), 3, part).unwrap().unwrap();
            }
            assert_eq!(joined, Joined::Whole(ours.clone()));
            tried += 1;
        }
    }
    assert!(tried > 500);
}

/// The disk gave back something else than it took, after all pieces were taken: what lay behind was waited for for ever.
#[test]
fn damage_that_is_found_when_the_last_piece_comes_makes_the_rest_missing_again() {
    let (_dir, store, folder) = store();
    let ours = carried(40, 3000);
    let pieces = cuts(&ours, 500);
    let mut parts = Parts::open(&store).unwrap();
    let (last, others) = pieces.split_last().unwrap();
    for part in others {
        assert_eq!(parts.join(&hq(), 3, part).unwrap(), Ok(Joined::Waiting));
    }
    let path = only(&folder);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1500] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(parts.join(&hq(), 3, last).unwrap(), Ok(Joined::Waiting));
    let left = parts.incomplete(&hq()).unwrap();
    assert!(left.held < left.total && left.missing_from < 1500, "{left:?}");
    let mut joined = Ok(Joined::Waiting);
    for part in &pieces {
        joined = parts.join(&hq(), 3, part).unwrap();
    }
    assert_eq!(joined, Ok(Joined::Whole(ours)));
}

#[test]
fn what_is_of_another_transaction_generation_or_remote_goes_and_other_files_stay() {
    let (_dir, store, folder) = store();
    let (older, newer) = (carried(40, 2000), carried(80, 2000));
    std::fs::create_dir_all(&folder).unwrap();
    for name in [
        "notes.part",
        "hq-12.part",
        "hq-0123456789abcdef0123456789abcdef.txt",
    ] {
        std::fs::write(folder.join(name), "mine").unwrap();
    }
    let ours = || {
        let names = std::fs::read_dir(&folder)
            .unwrap()
            .map(|one| one.unwrap().file_name());
        names
            .filter(|name| remote_of(name.to_str().unwrap()).is_some())
            .count()
    };
    let first = |carried: &Carried| cut(carried, 0, 1000);
    join_anew(&store, &first(&older));
    assert_eq!(ours(), 1);
    join_anew(&store, &first(&newer));
    assert_eq!(ours(), 1, "the older one was applied since");
    let mut parts = Parts::open(&store).unwrap();
    assert_eq!(parts.incomplete(&hq()).unwrap().point, newer.point);
    parts
        .settled(&hq(), |of, point| of == 3 && point.place() > older.point.place())
        .unwrap();
    assert_eq!(ours(), 1, "it lies behind what was received");
    parts
        .settled(&hq(), |of, point| of == 4 && point.place() > older.point.place())
        .unwrap();
    assert_eq!(
        (ours(), parts.incomplete(&hq())),
        (0, None),
        "of another generation"
    );
    join_anew(&store, &first(&newer));
    let mut parts = Parts::open(&store).unwrap();
    parts.retain(|name| *name == hq()).unwrap();
    assert_eq!(ours(), 1);
    parts.retain(|_| false).unwrap();
    assert_eq!(ours(), 0);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
}

#[test]
fn no_more_is_kept_than_one_transaction_may_have_and_what_contradicts_itself_is_forgotten() {
    let (_dir, store, folder) = store();
    let mut parts = Parts::open(&store).unwrap();
    let large = Part {
        total: (1 << 20) + 1,
        ..cut(&carried(40, 2000), 0, 1000)
    };
    let refused = parts.join(&hq(), 3, &large).unwrap();
    assert!(
        matches!(refused, Err(MessageFault::TooLarge { limit: 0x10_0000, .. })),
        "{refused:?}"
    );
    assert!(!folder.exists());
    // Six encodings of one transaction, of which four are kept, and two where each has nearly half of what may be.
    let encoded = |seed: u64, len: usize| {
        let mut carried = carried(seed, len);
        carried.point = at(40);
        carried
    };
    for seed in 1..7 {
        parts
            .join(&hq(), 3, &cut(&encoded(seed, 2000), 0, 1000))
            .unwrap()
            .unwrap();
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), ENCODINGS_MAX);
    for seed in 1..7 {
        parts
            .join(&hq(), 3, &cut(&encoded(seed, 600_000), 0, 500_000))
            .unwrap()
            .unwrap();
        assert!(parts.held(&hq()) <= 1 << 20, "{} bytes", parts.held(&hq()));
    }
    let wrong = Part {
        digest: 5,
        ..cut(&carried(40, 2000), 0, 1000)
    };
    let rest = Part {
        digest: 5,
        ..cut(&carried(40, 2000), 1000, encoding(&carried(40, 2000)).len())
    };
    assert_eq!(parts.join(&hq(), 3, &wrong).unwrap(), Ok(Joined::Waiting));
    assert!(matches!(
        parts.join(&hq(), 3, &rest).unwrap(),
        Err(MessageFault::Contradiction(_))
    ));
    assert!(!folder.join("hq-00000000000000000000000000000005.part").exists());
}

/// Two encodings would have had one file, and the second emptied that of the first.
#[test]
fn a_second_length_under_one_digest_is_refused_and_a_file_under_another_name_is_removed() {
    let (_dir, store, folder) = store();
    let ours = carried(40, 2000);
    join_anew(&store, &cut(&ours, 0, 1000));
    let mut parts = Parts::open(&store).unwrap();
    let mut other = cut(&ours, 1000, 1500);
    other.total += 8;
    let refused = parts.join(&hq(), 3, &other).unwrap();
    assert!(
        matches!(refused, Err(MessageFault::Contradiction(_))),
        "{refused:?}"
    );
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "both are forgotten"
    );
    let rest = cut(&ours, 1000, encoding(&ours).len());
    assert_eq!(join_anew(&store, &rest), Joined::Waiting);
    let first = cut(&ours, 0, 1000);
    assert_eq!(join_anew(&store, &first), Joined::Whole(ours.clone()));
    let path = only(&folder);
    let moved = folder.join("hq-0123456789abcdef0123456789abcdef.part");
    std::fs::rename(path, &moved).unwrap();
    assert_eq!(Parts::open(&store).unwrap().held(&hq()), 0);
    assert!(!moved.exists());
}

/// A hostile peer that sends every other byte would make us hold a note of each.
/// A killed process wrote it and did not come to sync it; its message is still on the link, and brings nothing new.
#[test]
fn what_is_found_here_is_synced_before_the_message_that_brings_it_again_leaves() {
    let (_dir, store, _) = store();
    let transaction = carried(100, 500);
    let piece = cut(&transaction, 0, 200);
    join_anew(&store, &piece);
    let mut parts = Parts::open(&store).unwrap();
    let joined = parts.join(&hq(), 3, &piece).unwrap().unwrap();
    assert!(matches!(joined, Joined::Waiting));
    let is_due = |parts: &Parts| parts.renamed && parts.remotes[&hq()].iter().all(|spool| spool.dirty);
    assert!(is_due(&parts));
    parts.sync().unwrap();
    assert!(!is_due(&parts));
    parts.settled(&hq(), |_, _| false).unwrap();
    drop(parts);
    Parts::open(&store).unwrap().sync().unwrap();
}

#[test]
fn a_transaction_cut_into_crumbs_is_refused() {
    let (_dir, store, _) = store();
    let mut parts = Parts::open(&store).unwrap();
    let mut part = cut(&carried(40, 500_000), 0, 1);
    let mut refused = None;
    for from in (0..400_000).step_by(2) {
        part.offset = from as u64;
        if let Err(fault) = parts.join(&hq(), 3, &part).unwrap() {
            refused = Some((from, fault));
            break;
        }
    }
    let (from, fault) = refused.unwrap();
    assert_eq!(from, 2 * RUNS_MAX);
    assert!(matches!(fault, MessageFault::Contradiction(_)), "{fault}");
}

#[test]
fn a_file_is_written_and_read_as_ever() {
    let (_dir, store, folder) = store();
    let ours = carried(40, 100);
    let (first, second) = (cut(&ours, 0, 50), cut(&ours, 90, 100));
    join_anew(&store, &first);
    join_anew(&store, &second);
    let path = only(&folder);
    let written = std::fs::read(&path).unwrap();
    let bytes = kept("parts.part", &written);
    assert_eq!(bytes, written);
    let item = |part: &Part| {
        let mut item = Vec::new();
        part.encode(&mut item);
        item
    };
    let (first, second) = (item(&first), item(&second));
    let (len, crc) = (
        |item: &[u8]| u32::try_from(item.len()).unwrap().to_le_bytes(),
        |item: &[u8]| crc32fast::hash(item).to_le_bytes(),
    );
    let head_crc = crc(b"MPPARTS\x01\x03\0\0\0");
    assert_laid_out(
        "a file of parts",
        &bytes,
        &[
            (0, b"MPPARTS\x01"),
            (8, &3u32.to_le_bytes()),
            (12, &head_crc),
            (16, &len(&first)),
            (20, &crc(&first)),
            (24, &first),
            (24 + first.len(), &len(&second)),
            (28 + first.len(), &crc(&second)),
            (32 + first.len(), &second),
        ],
    );
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(Parts::open(&store).unwrap().held(&hq()), 60);
}

/// A long transaction is put together in a file, which is gone when it is whole and would be removed had its process died.
#[test]
fn a_long_transaction_is_read_where_it_is_mapped_and_nothing_stays_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let options = Options::new().segment_bytes(16 << 20);
    let store = options.init(&root, "bern".parse().unwrap()).unwrap();
    let ours = carried(40, 6 << 20);
    let mut pieces = cuts(&ours, 900_000);
    pieces.reverse();
    let last = pieces.pop().unwrap();
    for piece in &pieces {
        assert_eq!(join_anew(&store, piece), Joined::Waiting);
    }
    let left = root
        .join(FOLDER)
        .join(format!("hq-{:032x}.part.whole", last.digest));
    std::fs::write(&left, b"a dead process was here").unwrap();
    let foreign = root.join(FOLDER).join("notes.whole");
    std::fs::write(&foreign, b"none of ours").unwrap();
    let mut parts = Parts::open(&store).unwrap();
    assert!(!left.exists(), "left by a dead process");
    assert!(foreign.exists());
    let whole = parts.join(&hq(), 3, &last).unwrap().unwrap();
    assert!(!left.exists(), "it loses its name at once");
    let Joined::Whole(carried) = whole else {
        panic!("a piece is missing")
    };
    assert_eq!(carried, ours);
    // Every event is read from the file that has no name any more, once its pieces are gone too.
    parts.settled(&hq(), |_, _| false).unwrap();
    assert_eq!(only(&root.join(FOLDER)), foreign);
    assert_eq!(encoding(&carried), encoding(&ours));
    store
        .append_frames(vec![carried.frame()], milepost_engine::Durability::Synced)
        .unwrap();
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    let frame = std::iter::from_fn(|| {
        scan.next()
            .unwrap()
            .map(|frame| (frame.kind(), frame.body().to_vec()))
    });
    let (_, body) = frame.into_iter().last().unwrap();
    assert_eq!(body, *ours.frame().body());
}
