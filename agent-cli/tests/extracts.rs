//! extract and resync from the command line: what they say, and that a kill at any moment only costs a second run.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods
)]

mod running;

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::process::{Command, Stdio};
use std::time::Duration;

use running::Place;

/// Kills of the everyday tier; `MILEPOST_KILLS=n` for more.
const EVERYDAY_KILLS: usize = 12;

/// Head office with so many transactions, of which half are due to shops, and a remote that was never heard from.
fn head_office(transactions: usize) -> Place {
    let place = Place::with_store("hq");
    let mut lines = String::new();
    for number in 0..transactions {
        let stream = if number % 2 == 0 { "orders/1" } else { "internal" };
        writeln!(lines, r#"{{"stream":"{stream}","n":{number}}}"#).unwrap();
    }
    place.write("history.ndjson", lines);
    place
        .run(&[
            "import",
            "hq",
            "--input",
            "history.ndjson",
            "--stream-field",
            "stream",
            "--flat",
        ])
        .ok();
    place
        .run(&["publication", "add", "hq", "orders", "--streams", "orders/*"])
        .ok();
    let link = format!("file://{}", place.path("link").display());
    std::fs::create_dir(place.path("link")).unwrap();
    place
        .run(&[
            "remote",
            "add",
            "hq",
            "shop",
            "--link",
            &link,
            "--send-every",
            "1m",
        ])
        .ok();
    place
}

fn append(place: &Place, store: &str, data: &str) {
    place
        .run(&["append", store, "orders/1", "--kind", "k", "--data", data])
        .ok();
}

/// Payloads of the stream that both sites have, those of the head office in its order, then the others.
fn orders(place: &Place, store: &str) -> Vec<String> {
    let all = place.run(&["read", store, "orders/1", "--json"]).json();
    let (ours, others): (Vec<_>, Vec<_>) = all.iter().partition(|event| event["origin"]["site"] == "hq");
    let all = ours.into_iter().chain(others);
    all.map(|event| event["payload"].to_string()).collect()
}

fn exchange(place: &Place, shop: &str) {
    for _ in 0..3 {
        place.run(&["agent", "hq", "-b", "-q"]).ok();
        place.run(&["agent", shop, "-b", "-q"]).ok();
    }
}

#[test]
fn a_store_is_made_carried_run_and_made_anew() {
    let place = head_office(20);
    let words = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "shop",
        "--subscribe",
        "orders",
        "--up",
        "orders/*",
        "--key",
        "--json",
    ];
    let made = place.run(&words).one();
    assert_eq!(
        (&made["site"], &made["of"], &made["transactions"], &made["events"]),
        (&"shop".into(), &"hq".into(), &10.into(), &10.into())
    );
    assert!(made["key"].is_string() && made["starts"].as_u64().unwrap() > 0);
    let listed = place.run(&["remote", "list", "shop", "--json"]).one();
    assert_eq!(
        (&listed["site"], &listed["consolidated"]),
        (&"hq".into(), &true.into())
    );
    append(&place, "hq", "21");
    append(&place, "shop", "\"sold\"");
    exchange(&place, "shop");
    assert_eq!(orders(&place, "shop").len(), 12);
    assert_eq!(orders(&place, "hq").len(), 12);
    let again = place.run(&words).fails(1);
    assert!(again.contains("finished store already"), "{again}");
    let other = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "other",
        "--subscribe",
        "orders",
    ];
    let refused = place.run(&other).fails(1);
    assert!(refused.contains("milepost resync"), "{refused}");
    let told = place
        .run(&["resync", "hq", "--remote", "shop", "--to", "anew"])
        .ok();
    assert!(
        told.contains("copied 12 transactions") && told.contains("sealed with key"),
        "{told}"
    );
    append(&place, "hq", "22");
    exchange(&place, "anew");
    let (here, there) = (orders(&place, "hq"), orders(&place, "anew"));
    assert_eq!((here.len(), there.len()), (13, 13));
    assert_eq!(here, there);
}

#[test]
fn what_is_wrong_is_said_with_the_way_on() {
    let place = head_office(4);
    let of = |remote: &str, subscribe: &str| {
        let words = [
            "extract",
            "hq",
            "--remote",
            remote,
            "--to",
            "new",
            "--subscribe",
            subscribe,
        ];
        place.run(&words)
    };
    assert!(of("nobody", "orders").fails(2).contains("milepost remote add"));
    assert!(of("shop", "none").fails(2).contains("no publication none"));
    assert!(of("shop", "orders=be").fails(2).contains("asks for no value"));
    assert!(of("shop", "=be").fails(2).contains("has a name"));
    let nothing = place
        .run(&["resync", "hq", "--remote", "shop", "--to", "new"])
        .fails(2);
    assert!(
        nothing.contains("--subscribe") || nothing.contains("subscription"),
        "{nothing}"
    );
    assert!(!place.path("new").exists());
    std::fs::create_dir(place.path("full")).unwrap();
    place.write("full/file", "mine");
    let words = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "full",
        "--subscribe",
        "orders",
    ];
    place.run(&words).fails(1);
    assert_eq!(std::fs::read_to_string(place.path("full/file")).unwrap(), "mine");
}

/// Kills it at random moments until it is done. Between, others commit and an agent runs.
fn killed_until_done(place: &Place, words: &[&str], kills: usize) -> usize {
    let mut killed = 0;
    loop {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
        let command = command.args(words).current_dir(place.path(""));
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let random = RandomState::new().build_hasher().finish();
        let longest = 20 + 20 * (killed as u64);
        std::thread::sleep(Duration::from_millis(random % longest));
        if killed < kills {
            child.kill().unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        match ended.status.code() {
            Some(0) => return killed,
            None => killed += 1,
            // Killed when all was done but the word of it.
            Some(1) if String::from_utf8_lossy(&ended.stderr).contains("finished store already") => {
                return killed;
            }
            Some(code) => unreachable!("exit {code}: {}", String::from_utf8_lossy(&ended.stderr)),
        }
        append(place, "hq", &format!("\"after kill {killed}\""));
        if killed % 3 == 0 {
            place.run(&["agent", "hq", "-b", "-q"]).ok();
        }
    }
}

#[test]
fn kills_cost_nothing_but_another_run() {
    let kills = std::env::var("MILEPOST_KILLS").ok();
    let kills = kills.map_or(EVERYDAY_KILLS, |text| text.parse().unwrap());
    let place = head_office(20_000);
    let words = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "shop",
        "--subscribe",
        "orders",
        "--up",
        "orders/*",
        "--key",
    ];
    let first = killed_until_done(&place, &words, kills);
    append(&place, "shop", "\"sold\"");
    exchange(&place, "shop");
    let (here, there) = (orders(&place, "hq"), orders(&place, "shop"));
    assert_eq!(here.len(), 10_000 + first + 1);
    assert_eq!(here, there);
    let words = ["resync", "hq", "--remote", "shop", "--to", "anew"];
    let second = killed_until_done(&place, &words, kills);
    append(&place, "hq", "\"behind\"");
    exchange(&place, "anew");
    let (here, there) = (orders(&place, "hq"), orders(&place, "anew"));
    assert_eq!(here.len(), 10_000 + first + second + 2);
    assert_eq!(here, there);
    println!("killed {first} times while it was made, {second} while it was made anew");
    assert!(
        first + second >= kills / 2,
        "{first} and {second} kills of {kills}"
    );
}
