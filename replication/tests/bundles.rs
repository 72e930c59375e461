//! Two sites that share nothing but what somebody carries: bundles that are lost, late, repeated and damaged.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use milepost_engine::{ErrorKind, Phase};
use milepost_replication::agent::{Exit, Stop};
use milepost_replication::bundle::{
    ExportOptions, ImportOptions, Outcome, bundles, export, export_with, import,
};
use milepost_replication::hooks::{Hooks, MessageSent};
use support::bundles::*;
use support::*;

#[test]
fn a_bundle_there_and_one_back_apply_confirm_and_acknowledge_everything() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "a"), ("s/2", "b")]);
    let there = pair.to_island().unwrap();
    assert_eq!((there.header.number, there.transactions), (1, 1));
    // The next asks whether this one came, and carries nothing of it again.
    assert!(pair.to_island().is_none_or(|made| made.transactions == 0));
    let came = taken(&pair.island, &there.path);
    assert_eq!(came.transactions, 1);
    assert!(came.bundles[0].is_whole() && came.bundles[0].missing.is_empty());
    assert_eq!(pair.island.payloads(), ["a", "b"]);
    let on_its_way = &known(&pair.hq).exported[0];
    assert!(!on_its_way.acknowledged && !on_its_way.confirmed);
    let back = pair.to_hq().unwrap();
    assert_eq!(back.header.acknowledged.as_slice(), [(1, 1)]);
    assert_eq!(back.header.to_id, pair.hq.store.id());
    taken(&pair.hq, &back.path);
    let acknowledged = &known(&pair.hq).exported[0];
    assert!(acknowledged.acknowledged && acknowledged.confirmed);
    // And nobody goes on talking for ever.
    let rounds = (0..6).take_while(|round| {
        let made = if round % 2 == 0 {
            pair.to_island()
        } else {
            pair.to_hq()
        };
        let to = if round % 2 == 0 { &pair.island } else { &pair.hq };
        made.map(|made| taken(to, &made.path)).is_some()
    });
    assert!(rounds.count() < 3);
}

#[test]
fn importing_twice_changes_nothing_and_the_file_stays_unless_it_is_to_go() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "a")]);
    let there = pair.to_island().unwrap();
    let before = fs::read(&there.path).unwrap();
    assert_eq!(taken(&pair.island, &there.path).transactions, 1);
    let again = taken(&pair.island, &there.path);
    assert_eq!((again.transactions, again.duplicates), (0, 1));
    assert_eq!(fs::read(&there.path).unwrap(), before);
    let options = ImportOptions {
        from: pair.stick(),
        remove: true,
        group: 20,
        memory: 1 << 20,
    };
    assert!(import(&pair.island.store, &options).unwrap().bundles[0].removed);
    assert!(!there.path.exists());
    assert_eq!(pair.island.payloads(), ["a"]);
    assert_nothing_doubled(&pair.island);
}

#[test]
fn a_bundle_that_comes_before_an_earlier_one_waits_and_names_it_and_a_folder_of_both_is_taken_in_order() {
    let pair = Pair::new();
    for number in 1..=3 {
        pair.hq.commit(&[("s/1", &number.to_string())]);
        pair.to_island().unwrap();
    }
    let mut files: Vec<PathBuf> = fs::read_dir(pair.stick())
        .unwrap()
        .map(|one| one.unwrap().path())
        .collect();
    files.sort();
    taken(&pair.island, &files[0]);
    let third = taken(&pair.island, &files[2]);
    assert_eq!(third.transactions, 0);
    assert_eq!(third.bundles[0].missing, [(2, 2)]);
    assert_eq!(third.bundles[0].waiting, third.bundles[0].header.count);
    assert_eq!(pair.island.payloads(), ["1"]);
    let all = taken(&pair.island, &pair.stick());
    assert_eq!(all.transactions, 2);
    assert!(all.bundles.iter().all(|one| one.is_whole()));
    assert_eq!(pair.island.payloads(), ["1", "2", "3"]);
    assert!(known(&pair.island).missing.is_empty());
}

/// Nobody is told that the second bundle was lost: the third waits, asks, and the way back brings the request.
#[test]
fn a_lost_bundle_is_asked_for_by_the_next_one_back_and_its_transactions_come_with_the_next_there() {
    let pair = Pair::new();
    for payload in ["1", "2", "3"] {
        pair.hq.commit(&[("s/1", payload)]);
        let there = pair.to_island().unwrap();
        match payload {
            "2" => fs::remove_file(&there.path).unwrap(),
            _ => drop(taken(&pair.island, &there.path)),
        }
    }
    assert_eq!(pair.island.payloads(), ["1"]);
    let back = pair.to_hq().unwrap();
    taken(&pair.hq, &back.path);
    pair.to_island().unwrap();
    taken(&pair.island, &pair.stick());
    assert_eq!(pair.island.payloads(), ["1", "2", "3"]);
    assert_nothing_doubled(&pair.island);
}

#[test]
fn again_sends_everything_that_is_not_confirmed_and_nothing_that_is() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "confirmed")]);
    taken(&pair.island, &pair.to_island().unwrap().path);
    taken(&pair.hq, &pair.to_hq().unwrap().path);
    pair.hq.commit(&[("s/1", "lost with its stick")]);
    fs::remove_file(pair.to_island().unwrap().path).unwrap();
    pair.hq.commit(&[("s/1", "new")]);
    let again = ExportOptions {
        again: true,
        ..exporting(&pair.stick())
    };
    let made = made_with(&pair.hq, "island", &again).unwrap();
    assert_eq!(made.transactions, 2);
    let came = taken(&pair.island, &made.path);
    assert_eq!(
        pair.island.payloads(),
        ["confirmed", "lost with its stick", "new"]
    );
    assert_eq!(
        came.bundles[0].missing,
        [(2, 2)],
        "and it says which bundle never came"
    );
}

/// Every export carried the same first pieces.
#[test]
fn a_transaction_longer_than_a_bundle_goes_in_several_and_each_names_it() {
    let pair = Pair::new();
    let before = noise(1, 100);
    pair.hq.commit(&[("s/1", &before)]);
    let long = noise(2, 60_000);
    let lsn = pair.hq.commit(&[("s/1", &long)]);
    let small = ExportOptions {
        most_bytes: Some(40_000),
        message_bytes: 10_000,
        ..exporting(&pair.stick())
    };
    let first = made_with(&pair.hq, "island", &small).unwrap();
    assert!(first.header.more);
    assert_eq!(first.transactions, 1);
    let cut = first.cut.unwrap();
    assert_eq!(cut.lsn, lsn.0);
    assert!(cut.bytes > 60_000);
    let second = made_with(&pair.hq, "island", &small).unwrap();
    assert_eq!(
        (second.transactions, second.cut, second.header.more),
        (1, None, false)
    );
    taken(&pair.island, &first.path);
    assert_eq!(pair.island.payloads(), [before.as_str()]);
    taken(&pair.island, &second.path);
    assert_eq!(pair.island.payloads(), [before, long]);
}

#[test]
fn what_does_not_fit_a_stick_is_for_the_next_and_all_arrives() {
    let pair = Pair::new();
    let payloads: Vec<String> = (0..40).map(|number| noise(number, 3_000)).collect();
    for payload in &payloads {
        pair.hq.commit(&[("s/1", payload)]);
    }
    let small = ExportOptions {
        most_bytes: Some(40_000),
        ..exporting(&pair.stick())
    };
    let tiny = ExportOptions {
        most_bytes: Some(1_500),
        ..exporting(&pair.stick())
    };
    let refused = export(&pair.hq.store, &name("island"), &tiny).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert_eq!(fs::read_dir(pair.stick()).unwrap().count(), 0, "nothing is left");
    let mut more = true;
    let mut count = 0;
    while more {
        let made = made_with(&pair.hq, "island", &small).unwrap();
        assert!(made.header.bytes <= 40_000);
        taken(&pair.island, &made.path);
        more = made.header.more;
        count += 1;
    }
    assert!(count > 2);
    assert_eq!(pair.island.payloads(), payloads);
}

/// Each export carried the first of it again, and said that the next would bring the rest.
#[test]
fn what_was_lost_of_a_series_goes_in_as_many_bundles_and_again_only_once_there_is_news() {
    let pair = Pair::new();
    let payloads: Vec<String> = (0..60).map(|number| noise(number, 3_000)).collect();
    for text in &payloads {
        pair.hq.commit(&[("s/1", text)]);
    }
    let mut small = exporting(&pair.stick());
    small.most_bytes = Some(40_000);
    let series = |lost: std::ops::Range<usize>| {
        let made = std::iter::from_fn(|| made_with(&pair.hq, "island", &small)).take(9);
        let brought = made.enumerate().filter(|(number, _)| !lost.contains(number));
        brought
            .map(|(number, made)| (number, taken(&pair.island, &made.path)).0 + 1)
            .last()
            .unwrap()
    };
    assert_eq!(series(1..4), 5);
    taken(&pair.hq, &pair.to_hq().unwrap().path);
    assert!(series(2..3) < 8, "asked for, and more by an answer, and no end");
    taken(&pair.hq, &pair.to_hq().unwrap().path);
    assert!(series(9..9) < 8, "no end");
    assert_eq!(pair.island.payloads(), payloads);
    assert_nothing_doubled(&pair.island);
}

#[test]
fn a_damaged_bundle_gives_its_whole_messages_and_the_lost_ones_are_asked_for() {
    let pair = Pair::new();
    let payloads: Vec<String> = (0..30).map(|number| noise(number, 2_000)).collect();
    for payload in &payloads {
        pair.hq.commit(&[("s/1", payload)]);
    }
    let there = pair.to_island().unwrap();
    let mut bytes = fs::read(&there.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&there.path, bytes).unwrap();
    let came = taken(&pair.island, &there.path);
    let [one] = &came.bundles[..] else {
        panic!("one bundle")
    };
    assert_eq!(one.lost.len(), 1);
    assert!(one.lost[0].0 > 0 && one.waiting > 0 && one.taken > 0, "{one:?}");
    let known = bundles(&pair.island.store).unwrap();
    assert!(
        known.iter().all(|one| one.imported.is_empty()),
        "it is not acknowledged"
    );
    taken(&pair.hq, &pair.to_hq().unwrap().path);
    pair.to_island().unwrap();
    // The rest of the damaged bundle waits there for what was asked for.
    taken(&pair.island, &pair.stick());
    assert_eq!(pair.island.payloads(), payloads);
    assert_nothing_doubled(&pair.island);
}

/// Killed before the file has its name: the temporary stays. Killed behind that: the file is there, and nothing was noted.
#[test]
fn an_export_killed_at_any_step_loses_nothing_and_its_left_over_goes_with_the_next() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "a")]);
    let left = pair.stick().join(".hq-island-0123456789abcdef.mpb.tmp");
    fs::write(&left, [0; 700]).unwrap();
    let copy = pair.dir.path().join("copy");
    let hq = closed(pair.hq, |root| support::copy(root, &copy));
    let first = made(&hq, "island", &pair.dir.path().join("stick")).unwrap();
    assert!(!left.exists());
    let hq = put_back(hq, &copy);
    // The note of the first export is gone with the power; its file is not.
    let second = made(&hq, "island", &pair.dir.path().join("stick")).unwrap();
    assert_eq!(first.header.number, second.header.number);
    assert!(first.path != second.path && first.path.exists());
    let came = taken(&pair.island, &pair.dir.path().join("stick"));
    assert_eq!((came.transactions, came.bundles.len()), (1, 2));
    assert_eq!(pair.island.payloads(), ["a"]);
}

#[test]
fn a_bundle_for_another_site_or_from_a_stranger_is_refused_and_passed_over_in_a_folder() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "a")]);
    let there = pair.to_island().unwrap();
    let options = |from: &Path| ImportOptions {
        from: from.to_owned(),
        remove: true,
        group: 20,
        memory: 1 << 20,
    };
    let refused = import(&pair.hq.store, &options(&there.path)).unwrap_err();
    assert!(refused.to_string().contains("carry it there"), "{refused}");
    fs::write(pair.stick().join("holiday.mpb"), b"a photograph").unwrap();
    let passed = import(&pair.hq.store, &options(&pair.stick())).unwrap();
    assert_eq!((passed.bundles.len(), passed.passed_over.len()), (0, 2));
    let stranger = Site::new(pair.dir.path(), "island2", &Net::default());
    let renamed = pair.dir.path().join("other");
    fs::create_dir(&renamed).unwrap();
    let third = Site::new(&renamed, "island", &Net::default());
    let refused = import(&third.store, &options(&there.path)).unwrap_err();
    assert!(refused.to_string().contains("no remote"), "{refused}");
    drop(stranger);
    assert!(there.path.exists());
}

#[test]
fn an_agent_leaves_a_carried_remote_alone_and_runs_on_for_the_others() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "a")]);
    assert_eq!(
        run_here(&pair.hq, &batch(false, false, false), &Stop::new()),
        Exit::DONE
    );
    assert_eq!(pair.hq.net.delivered(), 0);
    // Without a schedule it makes no batch run of an agent that stays.
    assert!(!milepost_replication::send::SendPhase::is_batch_by_schedule(&pair.hq.store).unwrap());
    let there = pair.to_island().unwrap();
    assert_eq!(there.transactions, 1, "nothing counted as sent");
    let _held = pair.hq.store.lock_phase(milepost_engine::Phase::Send).unwrap();
    let refused = export(&pair.hq.store, &name("island"), &exporting(&pair.stick())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}

/// One bundle of those that lie in a drawer is carried, perhaps damaged, and perhaps kept there to be carried again.
fn carry(pair: &Pair, dice: &mut Dice, drawer: &mut Vec<(usize, PathBuf)>) {
    let at = dice.up_to(drawer.len() as u64) as usize;
    let (to, path) = drawer[at].clone();
    if dice.up_to(3) == 0 {
        let mut bytes = fs::read(&path).unwrap();
        let place = dice.up_to(bytes.len() as u64) as usize;
        bytes[place] ^= 1 << dice.up_to(8);
        fs::write(&path, bytes).unwrap();
    }
    let carried = ImportOptions {
        from: path,
        remove: false,
        group: 20,
        memory: 1 << 20,
    };
    // Damaged in both headers it is lost.
    if let Err(error) = import(&[&pair.hq, &pair.island][to].store, &carried) {
        let kinds = [ErrorKind::Corrupt, ErrorKind::Invalid];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    if dice.up_to(2) == 0 {
        drawer.swap_remove(at);
    }
}

/// Trips to and fro on which nothing happens.
fn clean_trips(pair: &Pair) {
    let clean = pair.dir.path().join("clean");
    for trip in 0..10 {
        let _ = fs::remove_dir_all(&clean);
        fs::create_dir(&clean).unwrap();
        let (site, remote, to) = match trip % 2 {
            0 => (&pair.hq, "island", &pair.island),
            _ => (&pair.island, "hq", &pair.hq),
        };
        made(site, remote, &clean);
        taken(to, &clean);
        pair.time.pass();
    }
}

/// Weeks of carrying: both sites commit and export; what is made is carried soon, late, twice, damaged, or never. Then come clean
/// trips, and both have everything once, in order.
#[test]
fn whatever_becomes_of_the_bundles_everything_arrives_once_and_in_order() {
    let seeds = std::env::var("MILEPOST_SEEDS").map_or(6, |text| text.parse().unwrap());
    for seed in 1..=seeds {
        let mut dice = Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let pair = Pair::new();
        let mut sent: [Vec<String>; 2] = Default::default();
        let mut drawer: Vec<(usize, PathBuf)> = Vec::new();
        for step in 0..40 {
            pair.time.pass();
            let own = dice.up_to(2) as usize;
            let (site, remote) = [(&pair.hq, "island"), (&pair.island, "hq")][own];
            match dice.up_to(5) {
                0 | 1 => {
                    let payload = noise(step, dice.up_to(4_000));
                    site.commit(&[("s/1", &payload)]);
                    sent[own].push(payload);
                }
                2 | 3 => {
                    let asked = ExportOptions {
                        again: dice.up_to(4) == 0,
                        most_bytes: (dice.up_to(3) == 0).then_some(20_000),
                        ..exporting(&pair.stick())
                    };
                    drawer.extend(made_with(site, remote, &asked).map(|made| (1 - own, made.path)));
                }
                _ if drawer.is_empty() => {}
                _ => carry(&pair, &mut dice, &mut drawer),
            }
        }
        clean_trips(&pair);
        assert_eq!(pair.island.payloads(), sent[0], "MILEPOST_SEEDS={seed}");
        assert_eq!(pair.hq.payloads(), sent[1], "MILEPOST_SEEDS={seed}");
        assert_nothing_doubled(&pair.hq);
        assert_nothing_doubled(&pair.island);
    }
}

/// Counts the messages that it is told of, and takes the bundle's name while all is ready for it.
struct InTheWay {
    name: PathBuf,
    told: AtomicU64,
}

impl Hooks for InTheWay {
    fn phase_began(&self, phase: Phase) {
        if phase == Phase::Scan {
            fs::write(&self.name, "mine").unwrap();
        }
    }

    fn message_sent(&self, _: &MessageSent<'_>) {
        self.told.fetch_add(1, Ordering::SeqCst);
    }
}

/// The trap: the messages were packed, and the bundle then got no name. Its next one holds them again.
#[test]
fn a_hook_is_told_of_no_message_whose_bundle_could_not_be_finished() {
    let pair = Pair::new();
    pair.hq.commit(&[("orders/1", "1")]);
    let file = pair.stick().join("out.mpb");
    let hooks = Arc::new(InTheWay {
        name: file.clone(),
        told: AtomicU64::new(0),
    });
    let export = |to: &Path| {
        let hooks: Arc<dyn Hooks> = hooks.clone();
        export_with(&pair.hq.store, &name("island"), &exporting(to), Some(hooks))
    };
    let refused = export(&file).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert_eq!(
        (fs::read(&file).unwrap(), hooks.told.load(Ordering::SeqCst)),
        (b"mine".to_vec(), 0)
    );
    assert!(matches!(export(&pair.stick()).unwrap(), Outcome::Made(_)));
    assert_eq!(hooks.told.load(Ordering::SeqCst), 1);
}
