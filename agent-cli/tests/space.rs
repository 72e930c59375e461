//! How long a log is kept, how much it may take, and who holds it, by the command line.
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
fn what_is_kept_is_shown_and_changed_and_a_limit_without_room_is_refused() {
    let place = Place::with_store("shop");
    let shown = place.run(&["space", "shop", "--json"]).one();
    assert_eq!(shown["retention"], "forever");
    assert_eq!(shown["limit"], 0);
    place
        .run(&["space", "shop", "--retention", "36h", "--limit", "20G"])
        .ok();
    place.run(&["space", "shop", "--retention", "30d"]).ok();
    let shown = place.run(&["space", "shop", "--json"]).one();
    assert_eq!(shown["retention"], "30d");
    assert_eq!(shown["limit"], 20u64 << 30);
    let refused = place.run(&["space", "shop", "--limit", "1M"]).fails(2);
    let init = place
        .run(&["init", "other", "--site", "other", "--limit", "1M"])
        .fails(2);
    assert_eq!(init, refused, "the same words");
    place
        .run(&["init", "shop", "--site", "other", "--limit", "1G"])
        .fails(1);
    assert!(refused.contains("3 segments"), "{refused}");
    place.run(&["space", "shop", "--retention", "for ever"]).fails(2);
}

#[test]
fn a_store_is_made_with_what_it_keeps_and_a_damaged_file_is_told_with_the_way_out() {
    let place = Place::new();
    let words = [
        "init",
        "shop",
        "--site",
        "shop",
        "--segment-bytes",
        "1M",
        "--retention",
        "until-scanned",
    ];
    place.run(&words).ok();
    let shown = place.run(&["space", "shop"]).ok();
    assert!(shown.contains("until-scanned"), "{shown}");
    place.write("shop/space", "not what it was");
    let told = place.run(&["space", "shop"]).fails(6);
    assert!(told.contains("shop/space") && told.contains("--limit"), "{told}");
    let told = place.run(&["space", "shop", "--retention", "30d"]).fails(6);
    assert!(told.contains("shop/space"), "{told}");
    let words = ["space", "shop", "--retention", "30d", "--limit", "20G", "--json"];
    let ran = place.run(&words);
    assert!(ran.err.contains("archive --to"), "{}", ran.err);
    assert_eq!(ran.one()["retention"], "30d");
    place.run(&["verify", "shop"]).ok();
}

#[test]
fn a_damaged_base_is_told_with_what_can_be_saved_and_repaired_only_when_told_to() {
    let place = imported();
    place.run(&["space", "shop", "--retention", "1M"]).ok();
    place.run(&["space", "shop", "--free"]).ok();
    let before = place.run(&["read", "shop", "s", "--json"]).ok();
    let names = std::fs::read_dir(place.path("shop/log")).unwrap();
    let base = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("base-"));
    let file = format!("shop/log/{}", base.unwrap());
    place.run(&["repair", "shop", "--base"]).fails(1);
    place.write(&file, "not what it was");
    place.run(&["stat", "shop"]).fails(6);
    let told = place.run(&["verify", "shop"]).fails(6);
    assert!(told.contains("milepost repair"), "{told}");
    let ran = place.run(&["repair", "shop"]);
    assert!(
        ran.out.contains(&file) && ran.out.contains("would lose"),
        "{}",
        ran.out
    );
    assert!(ran.fails(6).contains("--base"));
    assert_eq!(std::fs::read(place.path(&file)).unwrap(), b"not what it was");
    assert!(
        place
            .run(&["repair", "shop", "--isolate"])
            .fails(1)
            .contains("--base")
    );
    let done = place.run(&["repair", "shop", "--base", "--json"]).one();
    assert_eq!(
        (&done["base"]["renewed"], &done["base"]["streams_known"]),
        (&true.into(), &1.into())
    );
    assert_eq!(place.run(&["read", "shop", "s", "--json"]).ok(), before);
    place.run(&["verify", "shop"]).ok();
    assert!(place.run(&["repair", "shop"]).ok().contains("nothing is damaged"));
    // Gone altogether: only an operator knows that what it stood for was freed.
    std::fs::remove_file(place.path(&file)).unwrap();
    place.run(&["verify", "shop"]).fails(6);
    let ran = place.run(&["repair", "shop"]);
    assert!(ran.out.contains("MISSING: the base of the log"), "{}", ran.out);
    assert!(
        ran.fails(6)
            .contains("if the log's beginning was freed, repair with --base")
    );
    let done = place.run(&["repair", "shop", "--base"]).ok();
    assert!(done.contains("lost: whether all before LSN"), "{done}");
    assert_eq!(place.run(&["read", "shop", "s", "--json"]).ok(), before);
    place.run(&["verify", "shop"]).ok();
}

#[test]
fn damaged_settings_and_holds_are_told_by_stat_and_verify_with_all_the_rest() {
    let place = Place::with_store("shop");
    place
        .run(&["append", "shop", "s", "--kind", "k", "--data", "1"])
        .ok();
    place.run(&["hold", "add", "shop", "mine"]).ok();
    place.run(&["space", "shop", "--retention", "30d"]).ok();
    place.run(&["stat", "shop"]).ok();
    place.run(&["verify", "shop"]).ok();
    place.write("shop/holds/mine", "not what it was");
    for words in [
        vec!["stat", "shop"],
        vec!["verify", "shop"],
        vec!["hold", "list", "shop"],
    ] {
        let ran = place.run(&words);
        assert!(ran.out.contains("shop/holds/mine"), "{}", ran.out);
        ran.fails(6);
    }
    let ran = place.run(&["space", "shop", "--free"]);
    assert!(
        ran.err.contains("nothing was freed") && ran.err.contains("hold drop"),
        "{}",
        ran.err
    );
    ran.ok();
    place.write("shop/space", "not what it was");
    let ran = place.run(&["verify", "shop", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&facts["whole"], &facts["events"]), (&false.into(), &1.into()));
    assert_eq!(facts["settings_damage"].as_array().unwrap().len(), 2, "{facts}");
    ran.fails(6);
    let ran = place.run(&["stat", "shop", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&facts["events"], &facts["disk"]["retention"]),
        (&1.into(), &().into())
    );
    let told = facts["damage"][0]["text"].as_str().unwrap();
    assert!(told.contains("--retention") && facts["disk"]["log"].as_u64().unwrap() > 0);
    ran.fails(6);
    let ran = place.run(&["stat", "shop"]);
    assert!(
        ran.out.contains("DAMAGED") && ran.out.contains("disk free"),
        "{}",
        ran.out
    );
    ran.fails(6);
}

/// A store of segments of 1 MiB with eighty events of 60 kB.
fn imported() -> Place {
    let place = Place::new();
    let words = ["init", "shop", "--site", "shop", "--segment-bytes", "1M"];
    place.run(&words).ok();
    let payload = "x".repeat(60_000);
    let lines: String = (0..80)
        .map(|n| format!("{{\"stream\":\"s\",\"payload\":\"{n} {payload}\"}}\n"))
        .collect();
    place.write("lines", lines);
    place
        .run(&[
            "import",
            "shop",
            "--input",
            "lines",
            "--stream-field",
            "stream",
            "--kind",
            "k",
            "--flat",
            "--batch-lines",
            "1",
        ])
        .ok();
    place
}

/// What is asked for and was freed is refused, or told.
fn begins_later(place: &Place) {
    let oldest = place.run(&["stat", "shop", "--json"]).one()["oldest"].clone();
    let told = place.run(&["export", "shop", "--from", "100"]).fails(1);
    assert!(
        told.contains(&oldest.to_string()) && told.contains("--from oldest"),
        "{told}"
    );
    let ran = place.run(&["export", "shop"]);
    assert!(ran.err.contains(&oldest.to_string()), "{}", ran.err);
    let all = ran.ok();
    let ran = place.run(&["export", "shop", "--from", "oldest"]);
    assert!(ran.err.is_empty() && ran.out == all, "{}", ran.err);
    assert_eq!(
        place.run(&["export", "shop", "--from", &oldest.to_string()]).ok(),
        all
    );
    let lines = place.run(&["dump", "shop", "--from", "100", "--json"]).json();
    assert_eq!(lines[0]["behind"]["from"], 100);
    assert_eq!(lines[0]["behind"]["oldest"], oldest);
    assert_eq!(lines[1]["block"]["lsn"], oldest);
    assert!(place.run(&["dump", "shop"]).err.contains(&oldest.to_string()));
    let ran = place.run(&["dump", "shop", "--from", "oldest", "--json"]);
    assert!(ran.err.is_empty() && !ran.out.contains("behind"), "{}", ran.err);
    place.run(&["backup", "shop", "other"]).ok();
    let lines = place.run(&["dump", "other", "--json"]).json();
    assert_eq!(lines[0]["behind"]["oldest"], oldest);
    place.run(&["export", "shop", "--from", "now"]).fails(2);
    let version = place.run(&["read", "shop", "s", "--json"]).json().last().unwrap()["version"].clone();
    for _ in 0..2 {
        let ran = place.run(&["streams", "shop", "--json"]);
        assert!(
            ran.err.contains(&format!("begins at LSN {oldest}")),
            "{}",
            ran.err
        );
        assert_eq!(ran.one()["version"], version);
    }
}

#[test]
fn what_is_freed_is_told_to_readers_and_a_hold_keeps_it_until_it_is_dropped() {
    let place = imported();
    let hold = ["hold", "add", "shop", "mine", "--owner", "a test", "--from", "0"];
    place.run(&hold).ok();
    place.run(&["hold", "add", "shop", "No Name"]).fails(2);
    let told = place
        .run(&["hold", "add", "shop", "over", "--expires", "0"])
        .fails(2);
    assert!(told.contains("holds nothing"), "{told}");
    place
        .run(&["hold", "add", "shop", "over", "--expires", "1s"])
        .ok();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let holds = place.run(&["hold", "list", "shop", "--json"]).json();
    assert_eq!(
        (&holds[1]["name"], &holds[1]["expired"]),
        (&"over".into(), &true.into())
    );
    place.run(&["space", "shop", "--retention", "1M"]).ok();
    assert_eq!(
        place.run(&["space", "shop", "--free", "--json"]).one()["freed"],
        0
    );
    let held = place.run(&["hold", "list", "shop", "--json"]).one();
    assert_eq!((&held["name"], &held["lsn"]), (&"mine".into(), &0.into()));
    assert_eq!(held["owner"], "a test");
    place.run(&["hold", "drop", "shop", "mine"]).ok();
    place.run(&["hold", "drop", "shop", "mine"]).fails(1);
    let freed = place.run(&["space", "shop", "--free", "--json"]).one();
    assert!(freed["freed"].as_u64().unwrap() > 0, "{freed}");
    let events = place.run(&["read", "shop", "s", "--json"]).json();
    let first = events[0]["version"].as_u64().unwrap();
    assert!(first > 0 && events.len() as u64 == 80 - first);
    let told = place.run(&["read", "shop", "s", "--from", "0"]).fails(1);
    assert!(told.contains(&first.to_string()), "{told}");
    let exported = place.run(&["export", "shop", "--json"]).json();
    assert_eq!(exported[0]["events"][0]["version"], first);
    begins_later(&place);
    place.run(&["verify", "shop"]).ok();
    let stat = place.run(&["stat", "shop", "--json"]).one();
    assert_eq!(stat["disk"]["retention"], "1M");
    assert!(stat["disk"]["free"].as_u64().unwrap() > 0 && stat["disk"]["base"].as_u64().unwrap() > 0);
    assert!(
        stat["disk"]["keepers"][0]["text"]
            .as_str()
            .unwrap()
            .contains("newest 1048576 bytes")
    );
    assert!(place.run(&["stat", "shop"]).ok().contains("disk free"));
    place.run(&["backup", "shop", "copy"]).ok();
    place.run(&["verify", "copy"]).ok();
    let restored = place.run(&["restore", "copy", "again"]).ok();
    assert!(restored.contains("kept 1M, with no limit"), "{restored}");
    let again = place.run(&["read", "again", "s", "--json"]).json();
    let facts = |event: &serde_json::Value| (event["version"].clone(), event["lsn"].clone());
    assert!(again.iter().map(facts).eq(events.iter().map(facts)));
    place.run(&["repair", "again"]).ok();
}

/// A command is gone before the store's own thread looks: its segments stayed until the next one.
#[test]
fn an_import_and_an_append_free_what_retention_lets_go_before_they_end() {
    let place = Place::new();
    let init = [
        "init",
        "shop",
        "--site",
        "shop",
        "--segment-bytes",
        "1M",
        "--retention",
        "2M",
    ];
    place.run(&init).ok();
    let line = |number: u32| {
        let text = format!("{number} {}", "x".repeat(60_000));
        format!("{{\"events\":[{{\"stream\":\"s\",\"kind\":\"k\",\"payload\":\"{text}\"}}]}}\n")
    };
    place.write("lines", (0..100).map(line).collect::<String>());
    let disk = || place.run(&["stat", "shop", "--json"]).one();
    let told = place.run(&["import", "shop", "--input", "lines", "--json"]).one();
    assert_eq!(told["transactions"], 100);
    let after = disk();
    assert!(after["oldest"].as_u64().unwrap() > 2 << 20, "{after}");
    assert_eq!(after["disk"]["freed_next"], 0, "nothing is left to the next one");
    // A hold keeps some, and when it is dropped an append lets it go.
    place.run(&["hold", "add", "shop", "mine"]).ok();
    place.run(&["import", "shop", "--input", "lines"]).ok();
    assert_eq!(disk()["oldest"], after["oldest"], "held");
    place.run(&["hold", "drop", "shop", "mine"]).ok();
    assert!(disk()["disk"]["freed_next"].as_u64().unwrap() > 0);
    place
        .run(&["append", "shop", "s", "--kind", "k", "--data", "1"])
        .ok();
    assert_eq!(disk()["disk"]["freed_next"], 0);
    assert!(disk()["oldest"].as_u64() > after["oldest"].as_u64());
    place.run(&["verify", "shop"]).ok();
}

#[test]
fn stat_counts_files_and_bytes_of_parts_quarantine_and_keys() {
    let place = Place::with_store("shop");
    let disk = || place.run(&["stat", "shop", "--json"]).one()["disk"].clone();
    for folder in ["parts", "quarantine", "keys"] {
        assert_eq!(disk()[folder], serde_json::json!({"files": 0, "bytes": 0}));
    }
    let files = [
        ("parts/a.part", 2000),
        ("parts/b.part", 48),
        ("quarantine/hq-1.mp", 3000),
        ("keys/hq", 100),
    ];
    for (name, len) in files {
        std::fs::create_dir_all(place.path("shop").join(name).parent().unwrap()).unwrap();
        place.write(&format!("shop/{name}"), vec![7; len]);
    }
    assert_eq!(disk()["parts"], serde_json::json!({"files": 2, "bytes": 2048}));
    assert_eq!(
        disk()["quarantine"],
        serde_json::json!({"files": 1, "bytes": 3000})
    );
    assert_eq!(disk()["keys"], serde_json::json!({"files": 1, "bytes": 100}));
    let told = place.run(&["stat", "shop"]).ok();
    assert!(
        told.contains("parts 2.0K in 2 files, quarantine 2.9K in 1 file, keys 100 in 1 file"),
        "{told}"
    );
}
