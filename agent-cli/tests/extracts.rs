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
            Some(1)
                if ["finished store already", "a file of that name already"]
                    .iter()
                    .any(|said| String::from_utf8_lossy(&ended.stderr).contains(said)) =>
            {
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

/// Names in a folder of the place, those that begin with a dot among them.
fn names(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.path("")).unwrap();
    entries
        .map(|one| one.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Only its owner can read it, and it is not in what is carried.
fn assert_key_is_apart(place: &Place) {
    let names = names(place);
    assert!(!names.iter().any(|name| name.starts_with(".shop")), "{names:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(place.path("shop.mpx.key"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let line = std::fs::read_to_string(place.path("shop.mpx.key")).unwrap();
    let secret: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&line.split(' ').nth(3).unwrap()[at..at + 2], 16).unwrap())
        .collect();
    let file = std::fs::read(place.path("shop.mpx")).unwrap();
    assert!(
        !file.windows(32).any(|piece| piece == secret),
        "the key is not in what is carried"
    );
}

#[test]
fn a_store_is_carried_in_one_file_and_its_key_in_another() {
    let place = head_office(20);
    let words = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "shop.mpx",
        "--subscribe",
        "orders",
        "--up",
        "orders/*",
        "--key",
    ];
    let made = place.run(&[words.as_slice(), &["--json"]].concat()).one();
    assert_eq!(
        (&made["file"], &made["transactions"]),
        (&"shop.mpx".into(), &10.into())
    );
    assert!(
        made["dir"].is_null()
            && made["starts"].as_u64().unwrap() > 0
            && made["bytes"].as_u64().unwrap() > 1_000
    );
    assert_eq!(made["key_file"], "shop.mpx.key");
    assert_key_is_apart(&place);
    let again = place.run(&words).fails(1);
    assert!(again.contains("a file of that name already"), "{again}");

    let unpacked = place.run(&["unpack", "shop.mpx", "shop", "--json"]).one();
    assert_eq!(
        (&unpacked["site"], &unpacked["store"]),
        (&"shop".into(), &made["store"])
    );
    append(&place, "hq", "21");
    let locked = place.run(&["agent", "shop", "-b", "-q"]).fails(5);
    assert!(locked.contains("milepost key add"), "{locked}");
    place
        .run(&["key", "add", "shop", "hq", "--from", "shop.mpx.key"])
        .ok();
    append(&place, "shop", "\"sold\"");
    exchange(&place, "shop");
    let (here, there) = (orders(&place, "hq"), orders(&place, "shop"));
    assert_eq!((here.len(), &here), (12, &there));
    let told = place
        .run(&["resync", "hq", "--remote", "shop", "--to", "anew.mpx"])
        .ok();
    assert!(
        told.contains("milepost unpack anew.mpx") && told.contains("anew.mpx.key"),
        "{told}"
    );
    place.run(&["unpack", "anew.mpx", "anew"]).ok();
    place
        .run(&["key", "add", "anew", "hq", "--from", "anew.mpx.key"])
        .ok();
    append(&place, "hq", "22");
    exchange(&place, "anew");
    assert_eq!(orders(&place, "hq"), orders(&place, "anew"));
}

#[test]
fn what_is_no_carried_store_is_told_and_leaves_nothing() {
    let place = head_office(4);
    let words = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "shop.mpx",
        "--subscribe",
        "orders",
    ];
    place.run(&words).ok();
    let file = std::fs::read(place.path("shop.mpx")).unwrap();
    place.run(&["unpack", "shop.mpx", "shop"]).ok();
    let occupied = place.run(&["unpack", "shop.mpx", "shop"]).fails(1);
    assert!(occupied.contains("not empty"), "{occupied}");
    place.write(
        "no.mpx",
        "this is no store, and long enough for its header to be read as one".repeat(4),
    );
    place.run(&["unpack", "no.mpx", "new"]).fails(6);
    place.write("cut.mpx", &file[..file.len() / 2]);
    let cut = place.run(&["unpack", "cut.mpx", "new"]).fails(6);
    assert!(
        cut.contains("copy it again") && !place.path("new").exists(),
        "{cut}"
    );
    place.run(&["unpack", "missing.mpx", "new"]).fails(1);
}

#[test]
fn kills_while_a_file_is_made_cost_nothing_but_another_run() {
    let kills = std::env::var("MILEPOST_KILLS").ok();
    let kills = kills.map_or(EVERYDAY_KILLS, |text| text.parse().unwrap());
    let place = head_office(20_000);
    let words = [
        "extract",
        "hq",
        "--remote",
        "shop",
        "--to",
        "shop.mpx",
        "--subscribe",
        "orders",
        "--up",
        "orders/*",
    ];
    let killed = killed_until_done(&place, &words, kills);
    place.run(&["unpack", "shop.mpx", "shop"]).ok();
    append(&place, "hq", "\"behind\"");
    exchange(&place, "shop");
    let (here, there) = (orders(&place, "hq"), orders(&place, "shop"));
    assert_eq!((here.len(), &here), (10_000 + killed + 1, &there));
    let holds = place.run(&["hold", "list", "hq"]).ok();
    assert!(!holds.contains("extract-"), "{holds}");
    println!("killed {killed} times");
}
