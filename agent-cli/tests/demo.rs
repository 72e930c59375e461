//! The demo proves what it says, with a small history and with the user's own.
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

const FIELDS: [&str; 10] = [
    "site",
    "due",
    "received",
    "missing",
    "duplicated",
    "torn",
    "out_of_order",
    "failovers",
    "events_per_s",
    "longest_gap_ms",
];

fn assert_proven(rows: &[Value]) {
    assert_eq!(
        rows.iter()
            .map(|row| row["site"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["north", "south", "east", "hq"]
    );
    for row in rows {
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(names.len(), FIELDS.len());
        assert!(FIELDS.iter().all(|field| row.get(field).is_some()), "{row}");
        assert_eq!(row["due"], row["received"]);
        assert!(row["due"].as_u64().unwrap() > 0);
        for fault in ["missing", "duplicated", "torn", "out_of_order"] {
            assert_eq!(row[fault], 0, "{row}");
        }
    }
}

/// Types what the demo says to try, line by line.
fn assert_the_next_commands_work(told: &str) {
    let tries = told.lines().skip_while(|line| !line.ends_with("Try:")).skip(1);
    let script: String = tries.map(|line| format!("{line}\n")).collect();
    let typed = std::process::Command::new("bash").args(["-ec", &script]).output();
    let Ok(typed) = typed else {
        eprintln!("SKIPPED: the commands that the demo says to try; there is no bash to type them into");
        return;
    };
    let (out, err) = (
        String::from_utf8_lossy(&typed.stdout),
        String::from_utf8_lossy(&typed.stderr),
    );
    assert!(typed.status.success(), "{script}{err}");
    assert!(
        out.contains("\"hello\""),
        "what east committed by hand is at head office: {out}{err}"
    );
    assert!(
        err.contains("site=north") && err.contains("sent messages="),
        "{err}"
    );
}

#[test]
fn a_small_generated_history_arrives_and_the_kept_stores_are_whole() {
    let place = Place::new();
    let ran = place.run(&[
        "demo", "--events", "6000", "--seed", "3", "--keep", "kept", "--json",
    ]);
    assert!(ran.err.contains("SIGKILL"), "{}", ran.err);
    let told = ran.err.clone();
    assert_proven(&ran.json());
    for store in ["kept/hq", "kept/north", "kept/south", "kept/east"] {
        place.run(&["verify", store]).ok();
    }
    let total: u64 = ["north", "south", "east"]
        .iter()
        .map(|branch| {
            let transactions = place
                .run(&["export", &format!("kept/{branch}"), "--origin", "hq"])
                .json();
            transactions
                .iter()
                .map(|t| t["events"].as_array().unwrap().len() as u64)
                .sum::<u64>()
        })
        .sum();
    assert_eq!(total, 6000, "every event is due somewhere");
    assert_the_next_commands_work(&told);
    assert!(
        place
            .run(&["demo", "--keep", "kept"])
            .fails(1)
            .contains("not empty")
    );
}

#[test]
fn a_line_that_cannot_be_read_stops_the_demo_with_file_and_line() {
    let place = Place::new();
    place.write(
        "mine.ndjson",
        "{\"events\":[{\"path\":\"a/b\"}]}\n{\"events\":3}\n",
    );
    assert!(
        place
            .run(&["demo", "--input", "mine.ndjson"])
            .fails(1)
            .contains("mine.ndjson, line 2")
    );
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let place = Place::new();
    let mut demo = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    demo.args(["demo", "--events", "200000", "--keep", "kept"])
        .current_dir(place.path(""));
    let mut demo = demo.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let holders = || -> Vec<String> {
        let ran = place.run(&["stat", "kept/hq", "--json"]);
        let Ok(stat) = serde_json::from_str::<Value>(ran.out.trim()) else {
            return Vec::new();
        };
        stat["phases"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|phase| Some(phase["holder"].as_str()?.to_owned()))
            .collect()
    };
    let wait_for = |count: usize| {
        for _ in 0..400 {
            if holders().len() == count {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!(
            "{} phases run instead of {count}: {:?}",
            holders().len(),
            holders()
        );
    };
    wait_for(3);
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for(0);
}

#[test]
fn the_real_history_is_distributed_and_proven_equal() {
    let shared = std::env::var("MILEPOST_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let file = std::path::Path::new(&shared).join("data/tokio-history.ndjson");
    let Ok(file) = file.canonicalize() else {
        eprintln!("SKIPPED: no history at {}; set MILEPOST_SHARED", file.display());
        return;
    };
    let place = Place::new();
    assert_proven(
        &place
            .run(&["demo", "--input", file.to_str().unwrap(), "--json"])
            .json(),
    );
}
