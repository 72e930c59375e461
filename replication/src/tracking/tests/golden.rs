//! The bytes of a pair's records: pinned in the log, and read by every later program.

use std::fmt::Debug;

use milepost_engine::Pinned;

use super::*;
use crate::backup::{BACKUP_KEY, BackupRecord, CoveredRecord};
use crate::golden::{Records, assert_laid_out, kept_records};
use crate::message::{Range, Trouble, TroubleCase};
use crate::quarantine::{HeldCause, HeldKey, HeldRecord};
use crate::receive::{DamagedRecord, GapRecord};
use crate::send::fulfilled;
use crate::tracking::state::{newest_pin, read_newest};

fn pair(stopped: Option<StopReason>) -> PairRecord {
    PairRecord {
        site: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        epoch: ITS_EPOCH,
        past_epochs: vec![Epoch(0xd1), Epoch(0xd2)],
        generation: 3,
        held: Lsn(512),
        reads: 1,
        stopped,
    }
}

fn pairs() -> Vec<(&'static str, PairRecord)> {
    let why = || "why".to_owned();
    let stopped = [
        ("contradiction", StopReason::Contradiction(why())),
        ("fork", StopReason::Fork(why())),
        ("freed", StopReason::Freed(why())),
        ("loop", StopReason::Loop(why())),
        ("needs-newer", StopReason::NeedsNewer(2, why())),
    ];
    let goes_on = [("goes-on", pair(None))];
    let stopped = stopped.map(|(name, reason)| (name, pair(Some(reason))));
    goes_on.into_iter().chain(stopped).collect()
}

fn received() -> ReceivedRecord {
    let mut point = at(256);
    point.back = Lsn(128);
    ReceivedRecord { generation: 3, point }
}

fn told() -> ToldRecord {
    let range = |after, up_to| Range { after, up_to };
    ToldRecord {
        generation: 3,
        received: ours(70),
        confirmed: ours(60),
        went_back: 1,
        confirmed_once: Lsn(90),
        suspicions: 2,
        answered: Some(0x1122),
        serve: vec![(4, range(ours(60), ours(70)))],
        serve_number: 4,
        its_request: 5,
        answers_due: 6,
        nonce: Some(0x3344),
        asks: vec![range(Point::NONE, at(10)), range(at(20), at(30))],
        ask_number: 7,
    }
}

fn probe() -> ProbeRecord {
    ProbeRecord {
        generation: 3,
        nonce: 0x1122_3344_5566_7788,
        log_sent: ours(90),
        held: ours(70),
        suspicions: 2,
    }
}

fn sent() -> SentRecord {
    SentRecord {
        generation: 3,
        went_back: 1,
        log_sent: ours(90),
        confirm_received: at(256),
        answers_given: 6,
        asked: 7,
        told_at: 1_700_000_000_000_000,
        told_again: 8,
        probe: 0x1122_3344_5566_7788,
        probe_times: 9,
        probe_at: 1_700_000_000_000_001,
    }
}

fn record(pinned: Pinned) -> (String, Vec<u8>) {
    (String::from_utf8(pinned.key).unwrap(), pinned.value.unwrap())
}

/// Reads the record of a key and compares it with what it was.
fn assert_read<T: PairState + PartialEq + Debug>(records: &Records, name: &str, expected: &T) {
    let key = String::from_utf8(T::key(&name.parse().unwrap())).unwrap();
    let (_, value) = records.iter().find(|(known, _)| *known == key).unwrap();
    assert_eq!(T::read(value).unwrap(), *expected, "{key}");
    assert!(
        T::read(&[value, &[0][..]].concat()).is_err(),
        "{key}: all of it is read"
    );
}

#[test]
fn records_of_a_pair_are_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let mut written = Records::new();
    for (name, pair) in pairs() {
        written.push(record(pair.pin(&name.parse().unwrap()).unwrap()));
    }
    written.push(record(received().pin(&hq).unwrap()));
    written.push(record(told().pin(&hq).unwrap()));
    written.push(record(
        ToldRecord::default().pin(&"never".parse().unwrap()).unwrap(),
    ));
    written.push(record(probe().pin(&hq).unwrap()));
    written.push(record(sent().pin(&hq).unwrap()));
    written.push(record(newest_pin(
        StoreId(0x0123_4567_89ab_cdef),
        Lsn(0x1122_3344_5566_7788),
    )));
    let kept = kept_records("pair", &written);
    assert_eq!(kept, written);
    for (name, pair) in pairs() {
        assert_read(&kept, name, &pair);
    }
    assert_read(&kept, "hq", &received());
    assert_read(&kept, "hq", &told());
    assert_read(&kept, "never", &ToldRecord::default());
    assert_read(&kept, "hq", &probe());
    assert_read(&kept, "hq", &sent());
    let (key, value) = kept.last().unwrap();
    assert_eq!(key, "origin/00000000000000000123456789abcdef");
    assert_eq!(value[..], 0x1122_3344_5566_7788_u64.to_le_bytes());
    assert_eq!(read_newest(value).unwrap(), Lsn(0x1122_3344_5566_7788));
    // A point in a record is in another order than one in a message: bincode's, position first.
    let (_, received) = kept.iter().find(|(key, _)| key == "received/hq").unwrap();
    let fields: &[(usize, &[u8])] = &[
        (0, &3u32.to_le_bytes()),
        (4, &0xe1_u64.to_le_bytes()),
        (12, &256u64.to_le_bytes()),
        (20, &(256u64 ^ 0xe1).to_le_bytes()),
        (28, &128u64.to_le_bytes()),
    ];
    assert_laid_out("received/hq", received, fields);
}

#[test]
fn records_of_what_a_backup_covers_are_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let covered = CoveredRecord {
        generation: 3,
        point: at(256),
    };
    let confirmed = ConfirmedRecord {
        generation: 3,
        point: at(128),
    };
    let backup = BackupRecord {
        through: Lsn(0x1122_3344_5566_7788),
    };
    let written = vec![
        record(backup.pin().unwrap()),
        record(covered.pin(&hq).unwrap()),
        record(confirmed.pin(&hq).unwrap()),
    ];
    let kept = kept_records("backed-up", &written);
    assert_eq!(kept, written);
    assert_read(&kept, "hq", &covered);
    assert_read(&kept, "hq", &confirmed);
    let (key, value) = &kept[0];
    assert_eq!(key, BACKUP_KEY);
    assert_eq!(value[..], 0x1122_3344_5566_7788_u64.to_le_bytes());
}

#[test]
fn the_record_of_a_hole_that_is_asked_for_is_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let gap = GapRecord {
        generation: 3,
        since: 1_700_000_000_000_000,
        asked: 2,
    };
    let written = vec![record(gap.pin(&hq).unwrap())];
    let kept = kept_records("gap", &written);
    assert_eq!(kept, written);
    assert_read(&kept, "hq", &gap);
    let fields: &[(usize, &[u8])] = &[
        (0, &3u32.to_le_bytes()),
        (4, &1_700_000_000_000_000_i64.to_le_bytes()),
        (12, &2u32.to_le_bytes()),
    ];
    assert_laid_out("gap/hq", &kept[0].1, fields);
}

#[test]
fn the_record_of_what_comes_damaged_is_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let damaged = DamagedRecord {
        generation: 3,
        at: Point {
            position: Position {
                epoch: Epoch(0x55),
                lsn: Lsn(0x1122_3344_5566_7788),
                chain: Chain(0x66),
            },
            back: Lsn(0x99),
        },
        times: 4,
        said: 9,
        since: 1_700_000_000_000_000,
        reason: "why".to_owned(),
    };
    let written = vec![record(damaged.pin(&hq).unwrap())];
    let kept = kept_records("damaged", &written);
    assert_eq!(kept, written);
    assert_read(&kept, "hq", &damaged);
    let fields: &[(usize, &[u8])] = &[
        (0, &3u32.to_le_bytes()),
        (4, &0x55u64.to_le_bytes()),
        (12, &0x1122_3344_5566_7788_u64.to_le_bytes()),
        (20, &0x66u64.to_le_bytes()),
        (28, &0x99u64.to_le_bytes()),
        (36, &4u32.to_le_bytes()),
        (40, &9u64.to_le_bytes()),
        (48, &1_700_000_000_000_000_i64.to_le_bytes()),
        (56, &3u64.to_le_bytes()),
        (64, b"why"),
    ];
    assert_laid_out("damaged/hq", &kept[0].1, fields);
}

#[test]
fn the_record_of_a_wish_that_was_fulfilled_is_written_and_read_as_ever() {
    let asked = Lsn(0x1122_3344_5566_7788);
    let written = vec![record(fulfilled(&"hq".parse().unwrap(), asked).unwrap())];
    let kept = kept_records("sent-now", &written);
    assert_eq!(kept, written);
    let (key, value) = &kept[0];
    assert_eq!(key, "sent-now/hq");
    assert_eq!(value[..], asked.0.to_le_bytes());
}

fn reported() -> ReportedRecord {
    ReportedRecord {
        generation: 3,
        epoch: ITS_EPOCH,
        durable: Lsn(0x4000),
        trouble: Trouble {
            held: 2,
            refused: 1,
            cases: vec![TroubleCase {
                point: at(256),
                reason: "vetoed: no".to_owned(),
            }],
        },
    }
}

#[test]
fn records_of_a_pair_that_parted_and_was_rejoined_are_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let parted = pair(Some(StopReason::Parted(Some(Lsn(300)), "why".to_owned())));
    let rejoined = RejoinedRecord {
        generation: 4,
        since: 2,
        is_sound: true,
    };
    let written = vec![
        record(parted.pin(&hq).unwrap()),
        record(rejoined.pin(&hq).unwrap()),
    ];
    let kept = kept_records("rejoined", &written);
    assert_eq!(kept, written);
    assert_read(&kept, "hq", &parted);
    assert_read(&kept, "hq", &rejoined);
    // docs/replication.md, "Tracking".
    let fields: &[(usize, &[u8])] = &[(0, &4u32.to_le_bytes()), (4, &2u32.to_le_bytes()), (8, &[1])];
    assert_laid_out("rejoined/hq", &kept[1].1, fields);
}

fn held(cause: HeldCause) -> HeldRecord {
    HeldRecord {
        at: Lsn(0x5000),
        generation: 3,
        sender: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        point: at(256),
        origin: StoreId(9),
        origin_name: "hub".to_owned(),
        origin_epoch: Epoch(0xd1),
        origin_lsn: Lsn(77),
        since: 1_700_000_000_000_000,
        bytes: 104,
        events: 2,
        refusals: 1,
        cause,
    }
}

#[test]
fn records_of_what_is_in_quarantine_are_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let why = || "no".to_owned();
    let all = [
        HeldCause::Vetoed(why()),
        HeldCause::Forgotten(why()),
        HeldCause::Behind,
    ];
    let mut written = vec![record(reported().pin(&hq).unwrap())];
    for (number, cause) in (0x0123_4567_89ab_cdef..).zip(all.clone()) {
        let key = HeldKey {
            remote: hq.clone(),
            number,
        };
        written.push(record(held(cause).pin(&key).unwrap()));
    }
    let kept = kept_records("quarantine", &written);
    assert_eq!(kept, written);
    assert_read(&kept, "hq", &reported());
    assert_eq!(kept[1].0, "held/hq/0123456789abcdef");
    for ((_, value), cause) in kept[1..].iter().zip(all) {
        assert_eq!(
            milepost_engine::codec::decode::<HeldRecord>(value).unwrap(),
            held(cause)
        );
    }
    // docs/replication.md, "Quarantine": a point in a record is bincode's, position first.
    let fields: &[(usize, &[u8])] = &[
        (0, &0x5000_u64.to_le_bytes()),
        (8, &3u32.to_le_bytes()),
        (12, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
        (28, &0xe1_u64.to_le_bytes()),
        (36, &256u64.to_le_bytes()),
        (44, &(256u64 ^ 0xe1).to_le_bytes()),
        (52, &0u64.to_le_bytes()),
        (60, &9u128.to_le_bytes()),
        (76, &[3, 0, 0, 0, 0, 0, 0, 0]),
        (84, b"hub"),
        (87, &0xd1_u64.to_le_bytes()),
        (95, &77u64.to_le_bytes()),
        (103, &1_700_000_000_000_000_u64.to_le_bytes()),
        (111, &104u64.to_le_bytes()),
        (119, &2u32.to_le_bytes()),
        (123, &1u32.to_le_bytes()),
        (127, &[0, 0, 0, 0]),
        (131, &[2, 0, 0, 0, 0, 0, 0, 0]),
        (139, b"no"),
    ];
    assert_laid_out("held/hq", &kept[1].1, fields);
}

#[test]
fn the_record_of_a_store_that_was_made_is_written_and_read_as_ever() {
    let hq = "hq".parse().unwrap();
    let made = MadeRecord {
        store: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
    };
    let written = vec![record(made.pin(&hq).unwrap())];
    let kept = kept_records("made", &written);
    assert_eq!(kept, written);
    assert_read(&kept, "hq", &made);
    let (key, value) = &kept[0];
    assert_eq!(key, "made/hq");
    assert_eq!(value[..], made.store.0.to_le_bytes());
}
