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
