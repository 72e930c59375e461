//! A transaction that is longer than the memory its agents may use goes from one site to another, in parts, and is whole there:
//! none of the phases holds it in memory, so each takes what it takes for small ones. What is mapped is not counted.
//!
//! `MILEPOST_MIB` sets how long it is, default 160, at most 1,000; `MILEPOST_MESSAGE` how long messages are, default 1M.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods
)]

mod running;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use milepost_engine::frame::FrameKind;
use milepost_engine::{Lsn, Options, Store, Transaction};
use running::Place;

/// What a phase may take: messages that were polled, that wait (`-m`) and that are decoded ahead (`-w`), 16 MiB each, and what
/// the allocator keeps of them.
const MOST: u64 = 128 << 20;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

fn two_sites(bytes: u64) -> Place {
    let place = Place::new();
    for site in ["hq", "shop"] {
        let options = Options::new().segment_bytes((bytes + bytes / 4 + (4 << 20)).min(1 << 30));
        let store = options.init(place.path(site), site.parse().unwrap()).unwrap();
        store.close().unwrap();
    }
    let link = format!("file://{}", place.path("link").display());
    std::fs::create_dir(place.path("link")).unwrap();
    place
        .run(&["publication", "add", "hq", "images", "--streams", "image/**"])
        .ok();
    place.run(&["remote", "add", "hq", "shop", "--link", &link]).ok();
    place
        .run(&["remote", "add", "shop", "hq", "--consolidated", "--link", &link])
        .ok();
    place
        .run(&[
            "subscription",
            "add",
            "hq",
            "--remote",
            "shop",
            "--publication",
            "images",
        ])
        .ok();
    place
}

/// The bytes of an event.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(word).collect()
}

/// One transaction of so many bytes, of events of 64 KiB, between two small ones.
fn commit(store: &Store, bytes: u64) {
    let events = bytes / (64 << 10);
    for (first, count) in [(0, 1), (1, events), (events + 1, 1)] {
        let mut transaction = Transaction::new();
        for number in first..first + count {
            let stream = format!("image/{}", number % 10);
            transaction
                .push_parts(&stream, "taken", &payload(number, 64 << 10))
                .unwrap();
        }
        store.commit(transaction).unwrap().committed().unwrap();
    }
}

/// A line of `/proc/PID/status` in bytes.
fn status(child: &Child, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line
        .trim_start_matches(':')
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kib << 10)
}

/// Runs a phase to its end, and gives the most memory of its own that it had, as often as one looked.
fn most_memory(place: &Place, words: &[&str]) -> u64 {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    command.args(words).current_dir(place.path(""));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let (mut child, mut most) = (command.spawn().unwrap(), 0);
    while child.try_wait().unwrap().is_none() {
        most = most.max(status(&child, "RssAnon").unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = child.wait_with_output().unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    most
}

#[test]
fn a_transaction_longer_than_the_memory_for_it_goes_through_messages() {
    let bytes = number("MILEPOST_MIB", 160) << 20;
    let message = std::env::var("MILEPOST_MESSAGE").unwrap_or_else(|_| "1M".to_owned());
    let place = two_sites(bytes);
    let store = Options::new().open(place.path("hq")).unwrap();
    commit(&store, bytes);
    store.close().unwrap();
    let phases: [&[&str]; 2] = [
        &["agent", "hq", "-i", "-s", "-b", "-q", "-l", &message],
        &["agent", "shop", "-r", "-b", "-q", "-m", "16M"],
    ];
    for words in phases {
        let most = most_memory(&place, words);
        println!(
            "{}: {:.1} MiB of memory of its own",
            words.join(" "),
            most as f64 / f64::from(1 << 20)
        );
        assert!(most > 0, "nobody looked in time");
        assert!(most < MOST, "{} took {most} bytes", words.join(" "));
    }
    let (store, mut arrived, mut number) = (Options::new().open(place.path("shop")).unwrap(), Vec::new(), 0);
    let mut scan = store.scan(Lsn::ZERO).unwrap();
    while let Some(frame) = scan.next().unwrap() {
        if frame.kind() != FrameKind::TRANSACTION || frame.via().unwrap().is_none() {
            continue;
        }
        for event in frame.events() {
            let event = event.unwrap();
            assert!(
                *event.payload == payload(number, 64 << 10),
                "event {number} is another"
            );
            number += 1;
        }
        arrived.push(u64::from(frame.event_count()));
    }
    assert_eq!(arrived, [1, bytes / (64 << 10), 1]);
    let parts = place.path("shop").join("parts");
    assert_eq!(
        std::fs::read_dir(parts).map_or(0, Iterator::count),
        0,
        "nothing stays of it"
    );
}
