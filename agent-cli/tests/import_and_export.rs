//! import and export: both shapes, bad lines, --resume, and the way there and back.
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

use std::process::{Command, Stdio};

use running::Place;
use serde_json::Value;

const HISTORY: [&str; 2] = ["--stream-field", "path"];

fn import<'a>(store: &'a str, file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["import", store, "--input", file, "--json"], more].concat()
}

fn history(place: &Place, more: &[&str]) -> running::Ran {
    place.run(&import("shop", "history.ndjson", &[&HISTORY, more].concat()))
}

fn lines(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!(r#"{{"n":{n},"events":[{{"path":"a/{n}","x": 1.50}},{{"path":"b"}}]}}"#))
        .collect()
}

fn payloads(place: &Place, store: &str) -> Vec<Value> {
    let transactions = place.run(&["export", store]).json();
    transactions
        .iter()
        .flat_map(|t| t["events"].as_array().unwrap().clone())
        .map(|e| e["payload"].clone())
        .collect()
}

#[test]
fn a_line_is_a_transaction_and_each_element_an_event_with_its_json_exactly_as_it_stands() {
    let place = Place::with_store("shop");
    place.write("history.ndjson", lines(3).join("\n"));
    let done = history(&place, &["--kind", "changed"]).one();
    assert_eq!(
        (&done["lines"], &done["transactions"], &done["events"]),
        (&3.into(), &3.into(), &6.into())
    );
    let text = place.run(&["export", "shop"]).ok();
    assert!(text.contains(r#""payload":{"path":"a/0","x": 1.50}}"#), "{text}");
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["origin"]["site"], "shop");
    assert_eq!(first["origin"]["lsn"], first["lsn"]);
    let event = &first["events"][1];
    assert_eq!(
        (&event["ordinal"], &event["version"], &event["kind"]),
        (&1.into(), &0.into(), &"changed".into())
    );
    assert_eq!(event["headers"], Value::Object(Default::default()));
}

#[test]
fn a_bad_line_stops_with_file_line_and_reason_and_resume_goes_on_without_doubling_any() {
    for bad in [
        "{\"events\":[{\"path\":\"a\"}",
        "{\"n\":4}",
        "{\"events\":[{\"path\":\"a\"},{\"p\":1}]}",
    ] {
        for batch in ["1", "3", "256"] {
            let place = Place::with_store("shop");
            let mut text = lines(10);
            text[4] = bad.to_owned();
            place.write("history.ndjson", text.join("\n") + "\n");
            let told = history(&place, &["--batch-lines", batch]).fails(1);
            assert!(told.contains("history.ndjson, line 5: "), "{told}");
            assert_eq!(
                payloads(&place, "shop").len(),
                8,
                "nothing of line 5 and all before it"
            );
            // Not mended: the same line stops it again, and still nothing doubles.
            history(&place, &["--resume"]).fails(1);
            assert_eq!(payloads(&place, "shop").len(), 8);
            place.write("history.ndjson", lines(10).join("\n") + "\n");
            let done = history(&place, &["--resume", "--batch-lines", batch]).one();
            assert_eq!(
                (&done["resumed_after"], &done["transactions"]),
                (&4.into(), &6.into())
            );
            assert_eq!(history(&place, &["--resume"]).one()["transactions"], 0);
            let paths: Vec<Value> = payloads(&place, "shop")
                .iter()
                .step_by(2)
                .map(|p| p["path"].clone())
                .collect();
            let expected: Vec<Value> = (0..10).map(|n| format!("a/{n}").into()).collect();
            assert_eq!(paths, expected);
        }
    }
}

#[test]
fn a_line_too_large_for_a_segment_is_named_and_the_lines_before_it_are_committed() {
    let place = Place::new();
    place
        .run(&["init", "shop", "--site", "shop", "--segment-bytes", "1M"])
        .ok();
    let mut text = lines(4);
    text[2] = format!(r#"{{"events":[{{"path":"a","x":"{}"}}]}}"#, "y".repeat(2 << 20));
    place.write("history.ndjson", text.join("\n") + "\n");
    let told = history(&place, &[]).fails(1);
    assert!(
        told.contains("history.ndjson, line 3: a transaction of ") && told.contains("does not fit"),
        "{told}"
    );
    assert_eq!(payloads(&place, "shop").len(), 4, "the two lines before it");
    place.write("history.ndjson", lines(4).join("\n") + "\n");
    let done = history(&place, &["--resume"]).one();
    assert_eq!((&done["resumed_after"], &done["lines"]), (&2.into(), &4.into()));
    assert_eq!(payloads(&place, "shop").len(), 8);
}

#[test]
fn resume_refuses_a_file_that_is_not_the_one_whose_import_was_begun() {
    let place = Place::with_store("shop");
    place.write("history.ndjson", lines(6).join("\n"));
    history(&place, &[]).ok();
    let before = payloads(&place, "shop").len();
    let mut changed = lines(9);
    changed[3] = changed[3].replace("1.50", "1.51");
    place.write("history.ndjson", changed.join("\n"));
    assert!(history(&place, &["--resume"]).fails(1).contains("differs"));
    place.write("history.ndjson", lines(3).join("\n"));
    assert!(
        history(&place, &["--resume"])
            .fails(1)
            .contains("6 lines of this input were imported")
    );
    place.write("history.ndjson", r#"{"events":[{"path":"other"}]}"#);
    assert!(history(&place, &["--resume"]).fails(1).contains("history.ndjson"));
    assert_eq!(payloads(&place, "shop").len(), before);
    place.write("history.ndjson", lines(7).join("\n"));
    assert_eq!(
        history(&place, &["--resume"]).one()["transactions"],
        1,
        "it only grew"
    );
}

#[test]
fn blank_lines_and_lines_without_events_commit_nothing_and_count_as_lines() {
    let place = Place::with_store("shop");
    let all = lines(2);
    place.write(
        "history.ndjson",
        format!("\n{}\r\n  \n{{\"events\":[]}}\n{}\n\n", all[0], all[1]),
    );
    let done = history(&place, &[]).one();
    assert_eq!((&done["lines"], &done["transactions"]), (&6.into(), &2.into()));
    assert_eq!(history(&place, &["--resume"]).one()["transactions"], 0);
    place.write("empty", "");
    assert_eq!(
        place.run(&import("shop", "empty", &["--resume"])).one()["lines"],
        0
    );
}

#[test]
fn lines_that_are_no_text_or_name_no_stream_are_refused() {
    let place = Place::with_store("shop");
    place.write("history.ndjson", b"{\"events\":[{\"path\":\"\xff\"}]}");
    assert!(history(&place, &[]).fails(1).contains("line 1: is not UTF-8"));
    place.write("history.ndjson", r#"{"events":[{"path":""}]}"#);
    assert!(
        history(&place, &[])
            .fails(1)
            .contains("line 1: event 0: stream name")
    );
    assert!(
        place
            .run(&import("shop", "missing", &[]))
            .fails(1)
            .contains("missing")
    );
    place.run(&import("shop", "x", &["--events-field", "e"])).fails(2);
    place.run(&import("shop", "x", &["--batch-lines", "0"])).fails(2);
    assert!(payloads(&place, "shop").is_empty());
}

#[test]
fn what_is_exported_imports_into_the_same_events_down_to_every_byte() {
    let place = Place::with_store("old");
    place.run(&["init", "new", "--site", "new"]).ok();
    place.write("bytes", b"\x00\xffnot json");
    place.write("lines", b"{\n}");
    place.write("wrapped", br#"{"base64":"AA=="}"#);
    let append = |stream: &str, data: &str| {
        let words = [
            "append", "old", stream, "--kind", "k\u{e9}", "--data", data, "--header", "h=\"\n",
        ];
        place.run(&words).ok();
    };
    ["@bytes", "@lines", "@wrapped", "1e400", "{\"a\": 1.0, \"a\":2}"]
        .iter()
        .for_each(|data| append("s/\u{1F600}", data));
    place.write("more", lines(4).join("\n"));
    place.run(&import("old", "more", &HISTORY)).ok();
    let exported = place.run(&["export", "old"]).ok();
    place
        .run_with(&["import", "new", "--input", "-"], &exported, &[])
        .ok();
    let events = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split_once("\"events\":").unwrap().1.to_owned())
            .collect()
    };
    let back = place.run(&["export", "new"]).ok();
    assert_eq!(events(&back), events(&exported));
    assert_eq!(events(&back).len(), 9);
    let times = |text: &str| -> Vec<String> {
        let times = text.lines().map(|line| line.split("\"time\":").nth(1).unwrap());
        times
            .map(|rest| rest.split_once(',').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(times(&back), times(&exported));
}

#[test]
fn export_selects_by_pattern_position_and_origin_and_versions_stay_those_of_the_whole_stream() {
    let place = Place::with_store("shop");
    place.write("history.ndjson", lines(5).join("\n"));
    history(&place, &[]).ok();
    let all = place.run(&["export", "shop"]).json();
    let b = place.run(&["export", "shop", "--streams", "b"]).json();
    assert_eq!((b.len(), b[3]["events"].as_array().unwrap().len()), (5, 1));
    assert_eq!(
        (&b[3]["events"][0]["version"], &b[3]["events"][0]["ordinal"]),
        (&3.into(), &1.into())
    );
    let from = all[3]["lsn"].to_string();
    assert_eq!(place.run(&["export", "shop", "--from", &from]).json(), all[3..]);
    assert_eq!(place.run(&["export", "shop", "--streams", "a/*"]).json().len(), 5);
    assert_eq!(
        place
            .run(&["export", "shop", "--streams", "a/2", "--streams", "a/3"])
            .json()
            .len(),
        2
    );
    assert_eq!(place.run(&["export", "shop", "--origin", "shop"]).json(), all);
    assert_eq!(place.run(&["export", "shop", "--origin", "elsewhere"]).ok(), "");
}

#[test]
fn the_real_history_imports_whole() {
    let shared = std::env::var("MILEPOST_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let file = std::path::Path::new(&shared).join("data/tokio-history.ndjson");
    let Ok(file) = file.canonicalize() else {
        eprintln!("SKIPPED: no history at {}; set MILEPOST_SHARED", file.display());
        return;
    };
    let place = Place::with_store("shop");
    let done = place.run(&import("shop", file.to_str().unwrap(), &HISTORY)).one();
    assert_eq!(
        (&done["transactions"], &done["events"]),
        (&4051.into(), &20875.into())
    );
    let input = std::fs::read_to_string(&file).unwrap();
    let exported = place.run(&["export", "shop"]).ok();
    for (line, transaction) in input.lines().zip(exported.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let transaction: Value = serde_json::from_str(transaction).unwrap();
        let payloads: Vec<&Value> = transaction["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| &event["payload"])
            .collect();
        assert_eq!(
            payloads,
            line["events"].as_array().unwrap().iter().collect::<Vec<_>>()
        );
    }
}

#[test]
fn an_import_killed_again_and_again_resumes_to_every_line_once_e1() {
    // Another process keeps the store open, so that no recovery settles what a killed import wrote and
    // did not sync; resuming by durable records alone would double those lines.
    let place = Place::with_store("shop");
    let count = 3_000;
    place.write("history.ndjson", lines(count).join("\n"));
    let start = |words: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
        command
            .args(words)
            .current_dir(place.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut watcher = start(&["read", "shop", "b", "--follow"]);
    let words = import(
        "shop",
        "history.ndjson",
        &["--stream-field", "path", "--resume", "--batch-lines", "7"],
    );
    for pause in [30, 45, 60, 75, 90, 40, 55] {
        let mut import = start(&words);
        std::thread::sleep(std::time::Duration::from_millis(pause));
        import.kill().unwrap();
        import.wait().unwrap();
    }
    assert_eq!(place.run(&words).one()["lines"], count);
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    let paths: Vec<Value> = payloads(&place, "shop")
        .iter()
        .step_by(2)
        .map(|p| p["path"].clone())
        .collect();
    let expected: Vec<Value> = (0..count).map(|n| format!("a/{n}").into()).collect();
    assert!(paths == expected, "{} lines came of {count}", paths.len());
}

#[test]
fn a_time_field_is_when_a_transaction_was_committed_and_no_line_with_another_value_is() {
    let place = Place::with_store("shop");
    let line = |time: &str| format!("{{\"at\":{{\"time\":{time}}},\"events\":[{{\"path\":\"a\"}}]}}\n");
    let times = |store: &str| -> Vec<Value> {
        let transactions = place.run(&["export", store]).json();
        transactions.iter().map(|line| line["time"].clone()).collect()
    };
    let field = ["--time-field", "at.time"];
    let given = [r#""1969-12-31T23:59:59Z""#, r#""2024-05-01""#, "1714557600000000"];
    place.write("history.ndjson", given.map(line).concat());
    history(&place, &field).ok();
    let moments: [Value; 3] = [
        (-1_000_000).into(),
        1_714_521_600_000_000_i64.into(),
        1_714_557_600_000_000_i64.into(),
    ];
    assert_eq!(times("shop"), moments);
    let shown = place.run(&["streams", "shop"]).ok();
    assert!(shown.contains("2024-05-01T10:00:00"), "{shown}");
    for (bad, reason) in [
        (
            line("\"soon\""),
            "field \"at.time\": \"soon\" is neither RFC 3339",
        ),
        (line("1714557600"), "--time-unit s"),
        (lines(1).concat(), "has no field \"at.time\""),
    ] {
        place.write("history.ndjson", line("\"2024-05-01\"") + &bad);
        let told = history(&place, &field).fails(1);
        assert!(
            told.contains("history.ndjson, line 2: ") && told.contains(reason),
            "{told}"
        );
    }
    assert_eq!(times("shop").len(), 6, "the line before each");
    place.write("seconds", line("1714557600"));
    place.run(&["init", "new", "--site", "new"]).ok();
    let unit = [&HISTORY[..], &field, &["--time-unit", "s"]].concat();
    place.run(&import("new", "seconds", &unit)).ok();
    assert_eq!(times("new"), moments[2..]);
    place.run(&import("new", "seconds", &field)).fails(2);
    place.write(
        "bad",
        r#"{"time":"x","events":[{"stream":"a","kind":"k","payload":1}]}"#,
    );
    assert!(
        place
            .run(&import("new", "bad", &[]))
            .fails(1)
            .contains("bad, line 1: field \"time\"")
    );
}

#[test]
fn an_input_that_needs_another_program_or_option_first_is_told_so() {
    let place = Place::with_store("shop");
    for (bytes, hint) in [
        (
            &b"\x1f\x8b\x08\x00"[..],
            "history.ndjson is compressed: gunzip -c FILE | milepost import",
        ),
        (
            b"\x28\xb5\x2f\xfd\x00\n",
            "history.ndjson is compressed: zstd -dc FILE",
        ),
        (b"\xff\xfe{\0", "history.ndjson is UTF-16: iconv"),
        (br#"{"path":"a"}"#, "--flat"),
    ] {
        place.write("history.ndjson", bytes);
        let told = history(&place, &[]).fails(1);
        assert!(told.contains(hint), "{told}");
    }
    place.write("history.ndjson", "\u{feff}".to_owned() + &lines(1).concat());
    let words = [
        "import",
        "shop",
        "--input",
        "history.ndjson",
        "--stream-field",
        "path",
    ];
    let told = place.run(&words).ok();
    assert!(
        told.contains("imported 1 transaction with 2 events; 1 line of history.ndjson is done"),
        "{told}"
    );
    place.write("history.ndjson", lines(1).concat());
    assert_eq!(
        history(&place, &["--resume"]).one()["transactions"],
        0,
        "with and without the mark it is one input"
    );
    place.write("history.ndjson", r#"{"events":[{"path":"one"}]}"#);
    let told = place.run(&words).ok();
    assert!(
        told.contains("imported 1 transaction with 1 event; 1 line"),
        "{told}"
    );
}

#[test]
fn flat_lines_are_one_event_each_in_the_stream_that_their_field_and_the_prefix_name() {
    let place = Place::with_store("shop");
    let all = [
        r#"{"order":{"id":7},"x": 1.50}"#,
        "  {\"order\":{\"id\":\"a\"},\"events\":[]}  \r",
        r#"{"order.id":true,"order":{"id":8}}"#,
    ];
    place.write("history.ndjson", all.join("\n"));
    let flat = [
        "--flat",
        "--stream-field",
        "order.id",
        "--stream-prefix",
        "orders/",
    ];
    let done = place.run(&import("shop", "history.ndjson", &flat)).one();
    assert_eq!((&done["transactions"], &done["events"]), (&3.into(), &3.into()));
    let text = place.run(&["export", "shop"]).ok();
    for ((stream, payload), line) in ["7", "a", "true"].iter().zip(all).zip(text.lines()) {
        assert!(
            line.contains(&format!("\"stream\":\"orders/{stream}\"")),
            "{line}"
        );
        assert!(
            line.ends_with(&format!("\"payload\":{}}}]}}", payload.trim())),
            "{line}"
        );
    }
    place.write("history.ndjson", r#"{"order":{"id":null}}"#);
    let told = place.run(&import("shop", "history.ndjson", &flat)).fails(1);
    assert!(
        told.contains("line 1: field \"order.id\" is not a text"),
        "{told}"
    );
    place.run(&import("shop", "x", &["--flat"])).fails(2);
    place
        .run(&import("shop", "x", &["--stream-prefix", "a"]))
        .fails(2);
    let both = [&flat[..], &["--events-field", "e"]].concat();
    place.run(&import("shop", "x", &both)).fails(2);
}
