//! publication, remote and subscription: add, list, remove, and what they refuse.
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

fn office() -> Place {
    let place = Place::with_store("hq");
    place
        .run(&[
            "publication",
            "add",
            "hq",
            "orders",
            "--streams",
            "orders/**",
            "rebates/*",
            "--by-segment",
            "2",
        ])
        .ok();
    place
        .run(&[
            "remote",
            "add",
            "hq",
            "shop1",
            "--link",
            "milepost://a:1",
            "milepost://b:2",
            "--send-every",
            "30s",
        ])
        .ok();
    place
}

#[test]
fn a_publication_is_added_listed_changed_and_removed() {
    let place = office();
    let listed = place.run(&["publication", "list", "hq", "--json"]).one();
    assert_eq!(
        (&listed["name"], &listed["by"]["segment"]),
        (&"orders".into(), &2.into())
    );
    assert_eq!(listed["articles"][1]["streams"], "rebates/*");
    place
        .run(&["publication", "add", "hq", "orders", "--streams", "x"])
        .fails(1);
    let replaced = [
        "publication",
        "add",
        "hq",
        "orders",
        "--streams",
        "x",
        "--by-header",
        "h",
        "--replace",
        "--json",
    ];
    assert_eq!(place.run(&replaced).one()["version"], 2);
    place
        .run(&[
            "publication",
            "add",
            "hq",
            "p",
            "--streams",
            "x",
            "--by-header",
            "h",
            "--by-segment",
            "1",
        ])
        .fails(2);
    place.run(&["publication", "add", "hq", "p"]).fails(2);
    let mistyped = ["publication", "add", "hq", "order", "--streams", "x", "--replace"];
    assert!(place.run(&mistyped).fails(1).contains("no publication order"));
    place.run(&["publication", "remove", "hq", "orders"]).ok();
    assert_eq!(place.run(&["publication", "list", "hq"]).ok(), "");
    place.run(&["publication", "list", "hq", "orders"]).fails(1);
    place.run(&["publication", "remove", "hq", "orders"]).fails(1);
}

#[test]
fn a_remote_has_its_links_in_order_and_one_schedule() {
    let place = office();
    let listed = place.run(&["remote", "list", "hq", "--json"]).one();
    assert_eq!(
        listed["links"],
        serde_json::json!(["milepost://a:1", "milepost://b:2"])
    );
    assert_eq!(listed["schedule"]["every_seconds"], 30);
    let add =
        |more: &[&str]| place.run(&[&["remote", "add", "hq", "north", "--link", "file:///x"], more].concat());
    add(&["--send-at", "25:00"]).fails(2);
    add(&["--send-at", "02:30", "--send-every", "5m"]).fails(2);
    add(&["--send-at", "02:30", "--consolidated"]).ok();
    place
        .run(&[
            "remote",
            "add",
            "hq",
            "south",
            "--link",
            "file:///x",
            "--consolidated",
        ])
        .fails(1);
    place.run(&["remote", "remove", "hq", "north"]).ok();
    place.run(&["remote", "remove", "hq", "north"]).fails(1);
}

#[test]
fn a_subscription_names_its_value_and_keeps_what_it_needs_from_being_removed() {
    let place = office();
    let what = ["hq", "--remote", "shop1", "--publication", "orders"];
    let run = |action: &str, more: &[&str]| place.run(&[&["subscription", action], &what[..], more].concat());
    run("add", &[]).fails(1);
    let made = run("add", &["--value", "bern", "--json"]).one();
    assert_eq!(
        (&made["value"], &made["revoked"]),
        (&"bern".into(), &false.into())
    );
    run("add", &["--value", "bern"]).fails(1);
    run("add", &["--value", "chur", "--from", "yesterday"]).fails(2);
    run("add", &["--value", "chur", "--from", "beginning"]).ok();
    assert_eq!(run("list", &["--json"]).json().len(), 2);
    place.run(&["publication", "remove", "hq", "orders"]).fails(1);
    place.run(&["remote", "remove", "hq", "shop1"]).fails(1);
    run("remove", &["--value", "basel"]).fails(1);
    run("remove", &["--value", "bern"]).ok();
    let id = run("list", &["--json"]).one()["id"].to_string();
    place
        .run(&["subscription", "remove", "hq", "--id", &id, "--revoke"])
        .ok();
    assert_eq!(run("list", &[]).ok(), "");
    assert_eq!(run("list", &["--all", "--json"]).json().len(), 2);
    place.run(&["subscription", "remove", "hq"]).fails(2);
}

/// Head office with forty remotes more, made of the file `remotes`.
fn with_forty() -> Place {
    let place = office();
    let mut lines = String::new();
    for number in 0..40 {
        lines += &format!(
            "{{\"site\":\"s{number}\",\"links\":[\"file:///mnt/{number}\"],\"send_every\":\"30s\",\"limit_bytes\":1000000}}\n\n"
        );
    }
    place.write("remotes", &lines);
    let made = place
        .run(&["remote", "add", "hq", "--file", "remotes", "--json"])
        .one();
    assert_eq!((&made["made"], &made["there"]), (&40.into(), &0.into()));
    place
}

#[test]
fn many_remotes_are_made_of_a_file_or_of_what_another_store_lists() {
    let place = with_forty();
    let again = place.run(&["remote", "add", "hq", "--file", "remotes"]).ok();
    assert!(again.contains("made 0; 40 were there already"), "{again}");
    let listed = place.run(&["remote", "list", "hq", "s7", "--json"]).one();
    assert_eq!(
        (&listed["schedule"]["every_seconds"], &listed["limit_bytes"]),
        (&30.into(), &1_000_000.into())
    );

    // What one store lists, another one takes.
    place.run(&["init", "twin", "--site", "twin"]).ok();
    place.write("listed", place.run(&["remote", "list", "hq", "--json"]).out);
    let made = place
        .run(&["remote", "add", "twin", "--file", "listed", "--json"])
        .one();
    assert_eq!(made["made"], 41);
    let here = place.run(&["remote", "list", "twin"]).ok();
    assert_eq!(here, place.run(&["remote", "list", "hq"]).ok());
    place.write("other", "{\"site\":\"s1\",\"links\":[\"file:///elsewhere\"]}");
    let told = place.run(&["remote", "add", "hq", "--file", "other"]).fails(1);
    assert!(
        told.contains("other, line 1: ") && told.contains("--replace"),
        "{told}"
    );
    for words in [
        ["remote", "add", "hq", "x", "--file", "remotes"].as_slice(),
        &["remote", "add", "hq", "--file", "remotes", "--replace"],
        &["remote", "add", "hq"],
        &["subscription", "add", "hq", "--file", "wanted", "--remote", "s1"],
    ] {
        place.run(words).fails(2);
    }
}

#[test]
fn many_subscriptions_are_made_or_none_and_the_line_to_blame_is_named() {
    let place = with_forty();
    let wanted = |number: usize| {
        format!(
            "{{\"remote\":\"s{number}\",\"publication\":\"orders\",\"value\":\"{number}\",\"start\":\"beginning\"}}\n"
        )
    };
    let all: String = (0..40).map(wanted).collect();
    for (bad, word, exit) in [
        (
            "{\"remote\":\"nobody\",\"publication\":\"orders\",\"value\":\"1\"}",
            "no remote nobody",
            2,
        ),
        ("{\"remote\":\"s1\",\"publication\":\"orders\"}", "by a value", 2),
        (
            "{\"remote\":\"s1\",\"publication\":\"orders\",\"values\":\"1\"}",
            "unknown field",
            2,
        ),
        ("{\"remote\":\"s1\"", "EOF", 2),
        (
            "{\"remote\":\"s1\",\"publication\":\"orders\",\"value\":\"1\",\"start\":\"soon\"}",
            "soon",
            2,
        ),
    ] {
        place.write("wanted", format!("{all}{bad}\n"));
        let told = place
            .run(&["subscription", "add", "hq", "--file", "wanted"])
            .fails(exit);
        assert!(
            told.contains("wanted, line 41: ") && told.contains(word) && told.contains("nothing was made"),
            "{told}"
        );
    }
    assert_eq!(place.run(&["subscription", "list", "hq"]).ok(), "");
    place.write("wanted", &all);
    let made = place
        .run(&["subscription", "add", "hq", "--file", "wanted", "--json"])
        .one();
    assert_eq!(made["made"], 40);
    assert_eq!(
        place.run(&["subscription", "list", "hq", "--json"]).json().len(),
        40
    );
}
