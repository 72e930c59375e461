//! init, append, read, stat, streams, verify and dump on small stores, with their exit codes.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod running;

use running::Place;

#[test]
fn init_makes_a_store_once_and_says_what_it_made() {
    let place = Place::new();
    let made = place.run(&["init", "shop", "--site", "shop1", "--json"]).one();
    assert_eq!(made["site"], "shop1");
    assert_eq!(made["store"].as_str().unwrap().len(), 32);
    let again = place.run(&["init", "shop", "--site", "shop1"]).fails(1);
    assert!(again.starts_with("milepost: "), "{again}");
    place.run(&["init", "other", "--site", "Not A Name"]).fails(2);
    place.run(&["init", "other"]).fails(2);
    place.run(&["stat", "nowhere"]).fails(1);
}

#[test]
fn append_commits_once_and_only_when_the_stream_is_as_expected() {
    let place = Place::with_store("shop");
    let append = |data: &str, expect: &str| {
        place.run(&[
            "append", "shop", "orders/7", "--kind", "k", "--data", data, "--expect", expect, "--json",
        ])
    };
    append("1", "exists").fails(1);
    append("1", "0").fails(1);
    assert_eq!(append(r#"{"a":1}"#, "none").one()["version"], 0);
    append("2", "none").fails(1);
    append("2", "1").fails(1);
    assert_eq!(append("2", "0").one()["version"], 1);
    assert_eq!(append("3", "exists").one()["version"], 2);
    assert_eq!(append("4", "any").one()["version"], 3);
    append("{not json", "any").fails(2);
    append("5", "sometimes").fails(2);
    assert_eq!(place.run(&["read", "shop", "orders/7", "--json"]).json().len(), 4);
}

#[test]
fn append_takes_any_bytes_from_a_file_and_read_shows_them_so_that_they_come_back() {
    let place = Place::with_store("shop");
    place.write("bytes", b"\xff\x00\n");
    let words = [
        "append", "shop", "s", "--kind", "k", "--data", "@bytes", "--header", "till=3=x",
    ];
    place.run(&words).ok();
    let event = place.run(&["read", "shop", "s", "--json"]).one();
    assert_eq!(event["payload"]["base64"], "/wAK");
    assert_eq!(event["headers"]["till"], "3=x");
    assert_eq!(event["origin"]["site"], "shop");
    assert_eq!(event["origin"]["lsn"], event["lsn"]);
    place
        .run(&["append", "shop", "s", "--kind", "k", "--data", "@missing"])
        .fails(1);
}

#[test]
fn read_begins_at_the_version_asked_for_and_tells_of_a_stream_without_events() {
    let place = Place::with_store("shop");
    for data in ["1", "2", "3"] {
        place
            .run(&["append", "shop", "s", "--kind", "k", "--data", data])
            .ok();
    }
    let events = place.run(&["read", "shop", "s", "--from", "1", "--json"]).json();
    assert_eq!(
        events
            .iter()
            .map(|event| event["payload"].clone())
            .collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(place.run(&["read", "shop", "s", "--from", "3"]).ok(), "");
    place.run(&["read", "shop", "none"]).fails(1);
    place.run(&["read", "shop", ""]).fails(2);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let place = Place::with_store("shop");
    let line =
        r#"{"events":[{"stream":"s","kind":"k","payload":"0123456789012345678901234567890123456789"}]}"#;
    let input = format!("{line}\n").repeat(5_000);
    place
        .run_with(&["import", "shop", "--input", "-"], &input, &[])
        .ok();
    let program = assert_cmd::cargo::cargo_bin!("milepost");
    let mut export = std::process::Command::new(program);
    export.args(["export", "shop"]).current_dir(place.path(""));
    export
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = export.spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap()),
        (Some(0), String::new())
    );
}

#[test]
fn follow_prints_events_that_another_process_commits_later() {
    use std::io::{BufRead, BufReader};
    let place = Place::with_store("shop");
    place
        .run(&["append", "shop", "s", "--kind", "k", "--data", "1"])
        .ok();
    let program = assert_cmd::cargo::cargo_bin!("milepost");
    let mut read = std::process::Command::new(program);
    read.args(["read", "shop", "s", "--follow", "--json"])
        .current_dir(place.path(""));
    let mut child = read.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut version = || {
        let event: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event["version"].as_u64().unwrap()
    };
    assert_eq!(version(), 0);
    for expected in 1..4 {
        place
            .run(&["append", "shop", "other", "--kind", "k", "--data", "0"])
            .ok();
        place
            .run(&["append", "shop", "s", "--kind", "k", "--data", "2"])
            .ok();
        assert_eq!(version(), expected);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn stat_streams_and_dump_tell_what_was_committed() {
    let place = Place::with_store("shop");
    for stream in ["orders/1", "orders/2", "orders/1", "stock/1"] {
        place
            .run(&["append", "shop", stream, "--kind", "placed", "--data", "{}"])
            .ok();
    }
    let stat = place.run(&["stat", "shop", "--json"]).one();
    assert_eq!((&stat["transactions"], &stat["events"]), (&4.into(), &4.into()));
    assert_eq!(stat["phases"].as_array().unwrap().len(), 3);
    for _ in 0..2 {
        let streams = place
            .run(&["streams", "shop", "--prefix", "orders/", "--json"])
            .json();
        let found: Vec<_> = streams
            .iter()
            .map(|s| (s["stream"].as_str().unwrap(), s["version"].as_u64().unwrap()))
            .collect();
        assert_eq!(found, [("orders/1", 1), ("orders/2", 0)]);
        assert_eq!(streams[0]["kind"], "placed");
    }
    let dump = place.run(&["dump", "shop", "--events", "--json"]).json();
    let of = |what: &str| dump.iter().filter(|line| line.get(what).is_some()).count();
    assert_eq!(of("event"), 4);
    assert!(of("block") >= 4 && of("frame") >= 4);
    let third = dump
        .iter()
        .filter_map(|line| line.get("frame"))
        .filter(|f| f["kind"] == "transaction")
        .nth(2)
        .unwrap();
    let (from, to) = (
        third["lsn"].to_string(),
        (third["lsn"].as_u64().unwrap() + 1).to_string(),
    );
    let one = place
        .run(&["dump", "shop", "--from", &from, "--to", &to, "--json"])
        .json();
    let frames: Vec<_> = one.iter().filter_map(|line| line.get("frame")).collect();
    assert_eq!(frames, [third]);
}

#[test]
fn verify_passes_a_whole_store_and_exits_6_for_a_changed_bit_with_file_and_lsn() {
    let place = Place::new();
    place
        .run(&["init", "shop", "--site", "shop", "--segment-bytes", "1M"])
        .ok();
    let payload = "x".repeat(4_000);
    let line = format!("{{\"events\":[{{\"stream\":\"s\",\"kind\":\"k\",\"payload\":\"{payload}\"}}]}}\n");
    place
        .run_with(&["import", "shop", "--input", "-"], &line.repeat(600), &[])
        .ok();
    let whole = place.run(&["verify", "shop", "--json"]).one();
    assert_eq!(
        (&whole["whole"], &whole["transactions"]),
        (&true.into(), &600.into())
    );
    assert!(whole["segments"].as_u64().unwrap() > 2);
    let first = place.path("shop/log/0000000000000000.log");
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[70_000] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let ran = place.run(&["verify", "shop", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(ran.out.trim()).unwrap();
    assert_eq!(facts["whole"], false);
    assert!(
        facts["damage"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("0000000000000000.log")
    );
    assert!(facts["damage"][0]["lsn"].is_u64());
    ran.fails(6);
    assert!(place.run(&["verify", "shop"]).fails(6).contains("damaged"));
    place.run(&["export", "shop"]).fails(6);
}

#[test]
fn help_of_every_command_has_an_example_and_the_exit_codes() {
    let place = Place::new();
    let commands = [
        "init",
        "append",
        "import",
        "export",
        "read",
        "dump",
        "verify",
        "stat",
        "streams",
        "publication add",
        "publication list",
        "publication remove",
        "remote add",
        "remote list",
        "remote remove",
        "subscription add",
        "subscription list",
        "subscription remove",
    ];
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = place.run(&words).ok();
        assert!(
            help.contains(&format!("  milepost {command}")),
            "{command}: {help}"
        );
        assert!(help.contains("Exit codes:"), "{command}");
    }
    place.run(&["no-such-command"]).fails(2);
    place.run(&[]).fails(2);
}

#[test]
fn several_commands_list_streams_at_once() {
    let place = Place::with_store("shop");
    place
        .run(&["append", "shop", "a/1", "--kind", "k", "--data", "1"])
        .ok();
    std::thread::scope(|scope| {
        let listing: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| place.run(&["streams", "shop"]).ok()))
            .collect();
        for one in listing {
            assert!(one.join().unwrap().contains("a/1"));
        }
    });
}

#[test]
fn a_store_that_is_made_with_padding_pads_what_any_command_appends() {
    let place = Place::new();
    place
        .run(&["init", "shop", "--site", "shop", "--pad-to", "4K"])
        .ok();
    for _ in 0..2 {
        place
            .run(&["append", "shop", "s", "--kind", "k", "--data", "1"])
            .ok();
    }
    let log = std::fs::read(place.path("shop/log/0000000000000000.log")).unwrap();
    let mut starts = (0..log.len() - 4)
        .step_by(8)
        .filter(|at| log[*at..].starts_with(b"MPB1"));
    assert!(starts.clone().count() >= 3 && starts.all(|at| at % 4096 == 0));
}

#[test]
fn a_walk_from_beyond_the_log_is_refused_with_its_end_by_every_command() {
    let place = Place::with_store("shop");
    place
        .run(&["append", "shop", "s", "--kind", "k", "--data", "1"])
        .ok();
    place.run(&["backup", "shop", "copy"]).ok();
    for words in [&["export", "shop"][..], &["dump", "shop"], &["dump", "copy"]] {
        let told = place.run(&[words, &["--from", "99999"]].concat()).fails(1);
        let end = place.run(&["stat", "shop", "--json"]).one()["durable"].to_string();
        assert!(told.contains("LSN 99999 lies beyond the log"), "{told}");
        assert!(words[1] == "copy" || told.contains(&end), "{told}");
        place.run(&[words, &["--from", "128"]].concat()).ok();
    }
    let end = place.run(&["stat", "shop", "--json"]).one()["durable"].to_string();
    assert_eq!(place.run(&["export", "shop", "--from", &end]).ok(), "");
}

#[test]
fn a_young_store_has_no_rate_yet() {
    let place = Place::with_store("shop");
    for _ in 0..2 {
        place
            .run(&["append", "shop", "s", "--kind", "k", "--data", "1"])
            .ok();
    }
    let told = place.run(&["stat", "shop"]).ok();
    assert!(
        told.contains("there is no rate yet") && !told.contains("0 seconds"),
        "{told}"
    );
    let disk = &place.run(&["stat", "shop", "--json"]).one()["disk"];
    assert!(
        disk["bytes_per_day"].is_null() && disk["full_in_days"].is_null(),
        "{disk}"
    );
}
