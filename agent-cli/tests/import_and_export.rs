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
    use std::process::{Command, Stdio};
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
