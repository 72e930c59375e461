//! `milepost quarantine retry --all`, killed with SIGKILL at random moments and started again until it ends by itself: every held
//! transaction is applied exactly once, in the order of its stream, and none is held any more (R1, R6).
//!
//! The witness is what the publisher committed. A retry that is killed has applied some and not others; which, only its store knows.
//! `MILEPOST_KILLS` sets after how many kills it ends, default 25.
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

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use running::Place;

/// Vetoes the first of each stream; what follows in its stream is held behind it.
const RULES: &str = r#"#!/bin/sh
while IFS= read -r line; do
    ask=${line#*'"ask":'}
    ask=${ask%%,*}
    case "$line" in
    *'"event":"before-apply"'*begins*) echo '{"ask":'$ask',"ruling":"veto","reason":"it begins"}' ;;
    *'"event":"before-apply"'*) echo '{"ask":'$ask',"ruling":"apply"}' ;;
    esac
done
"#;

const STREAMS: usize = 8;
const OF_EACH: usize = 30;

fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// hq publishes all to the shop, which holds what is vetoed and goes on.
fn two_sites() -> Place {
    let place = Place::with_store("hq");
    place.run(&["init", "shop", "--site", "shop"]).ok();
    std::fs::create_dir(place.path("link")).unwrap();
    let link = format!("file://{}", place.path("link").display());
    for words in [
        &["publication", "add", "hq", "all", "--streams", "**"][..],
        &["remote", "add", "hq", "shop", "--link", &link],
        &[
            "remote",
            "add",
            "shop",
            "hq",
            "--link",
            &link,
            "--on-error",
            "go-on",
        ],
        &[
            "subscription",
            "add",
            "hq",
            "--remote",
            "shop",
            "--publication",
            "all",
        ],
    ] {
        place.run(words).ok();
    }
    place.write("rules", RULES);
    let mut permissions = std::fs::metadata(place.path("rules")).unwrap().permissions();
    permissions.set_mode(0o755);
    std::fs::set_permissions(place.path("rules"), permissions).unwrap();
    place
}

/// Commits transactions at hq, in new streams, and lets the shop hold all of them.
fn hold_some(place: &Place, round: usize) {
    let mut lines = String::new();
    for number in 0..OF_EACH {
        for stream in 0..STREAMS {
            let word = if number == 0 { "begins" } else { "follows" };
            writeln!(
                lines,
                r#"{{"path":"s/{round}-{stream}","n":{number},"it":"{word}"}}"#
            )
            .unwrap();
        }
    }
    place.write("more.ndjson", lines);
    let flat = ["--flat", "--stream-field", "path", "--kind", "noted"];
    place
        .run(&[&["import", "hq", "--input", "more.ndjson"][..], &flat].concat())
        .ok();
    place.run(&["agent", "hq", "-b", "-q"]).ok();
    place
        .run(&["agent", "shop", "-b", "-q", "--hook", "./rules"])
        .fails(5);
    assert_eq!(held(place), STREAMS * OF_EACH);
}

fn held(place: &Place) -> usize {
    place.run(&["quarantine", "list", "shop", "--json"]).json().len()
}

/// What the shop has, by stream: the numbers in log order.
fn applied(place: &Place) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in place.run(&["export", "shop"]).json() {
        for event in line["events"].as_array().unwrap() {
            let stream = event["stream"].as_str().unwrap().to_owned();
            found
                .entry(stream)
                .or_default()
                .push(event["payload"]["n"].as_u64().unwrap());
        }
    }
    found
}

/// Retries all and kills that within so many milliseconds; true when it had ended before.
fn retry_and_kill(place: &Place, within: u64) -> bool {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    command
        .args(["quarantine", "retry", "shop", "--all"])
        .current_dir(place.path(""));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(random(within)));
    match child.try_wait().unwrap() {
        Some(ended) => {
            assert!(ended.success(), "a retry failed by itself: {ended}");
            true
        }
        None => {
            child.kill().unwrap();
            child.wait().unwrap();
            false
        }
    }
}

#[test]
fn a_retry_killed_at_random_applies_each_held_transaction_once_and_in_order_r1_r6() {
    let wanted = std::env::var("MILEPOST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(25);
    let place = two_sites();
    let (mut kills, mut between, mut rounds, mut within) = (0, 0, 0, 40);
    while kills < wanted || between < 3 {
        hold_some(&place, rounds);
        rounds += 1;
        let mut left = STREAMS * OF_EACH;
        while (kills < wanted || between < 3) && left > 0 {
            let ended = retry_and_kill(&place, within);
            kills += usize::from(!ended);
            let now = held(&place);
            assert!(now <= left, "{now} are held after {left} were");
            between += usize::from(now < left && now > 0);
            // On a busy machine the first takes longer, on an idle one all are done at once.
            within = match (ended, now < left) {
                (true, _) => (within / 2).max(2),
                (false, false) => within + within / 2,
                (false, true) => within,
            };
            left = now;
        }
        place.run(&["quarantine", "retry", "shop", "--all"]).ok();
        assert_eq!(held(&place), 0);
    }
    let all: Vec<u64> = (0..OF_EACH as u64).collect();
    let streams = (0..rounds).flat_map(|round| (0..STREAMS).map(move |stream| format!("s/{round}-{stream}")));
    let expected: BTreeMap<String, Vec<u64>> = streams.map(|stream| (stream, all.clone())).collect();
    assert_eq!(applied(&place), expected, "after {kills} kills");
    println!("{kills} kills in {rounds} rounds, {between} of them with some applied and some not");
    place.run(&["agent", "shop", "-b", "-q"]).ok();
    place.run(&["agent", "hq", "-b", "-q"]).ok();
    let status = place.run(&["status", "hq", "--json"]).one();
    assert!(
        status["remotes"][0]["reported"].is_null(),
        "hq is told that nothing is held: {status}"
    );
    place.run(&["verify", "shop"]).ok();
}
