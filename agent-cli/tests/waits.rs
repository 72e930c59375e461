//! `milepost status` says why a remote waits: as an operator reads it.
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

fn joined(place: &Place, site: &str, other: &str) {
    let link = format!("file://{}", place.path("link").display());
    place.run(&["init", site, "--site", site]).ok();
    place.run(&["remote", "add", site, other, "--link", &link]).ok();
}

fn append(place: &Place, data: &str) {
    let words = ["append", "hq", "orders/1", "--kind", "placed", "--data", data];
    place.run(&words).ok();
}

#[test]
fn a_message_that_went_astray_is_told_with_what_is_asked_for_and_how_often() {
    let place = Place::new();
    joined(&place, "hq", "shop");
    joined(&place, "shop", "hq");
    std::fs::create_dir_all(place.path("link")).unwrap();
    let publication = ["publication", "add", "hq", "all", "--streams", "orders/**"];
    place.run(&publication).ok();
    let subscription = [
        "subscription",
        "add",
        "hq",
        "--remote",
        "shop",
        "--publication",
        "all",
    ];
    place.run(&subscription).ok();
    append(&place, "1");
    place.run(&["agent", "hq", "-b"]).ok();
    let astray = std::fs::read_dir(place.path("link/shop"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::remove_file(astray).unwrap();
    append(&place, "2");
    place.run(&["agent", "hq", "-b"]).ok();
    for times in ["once", "2 times"] {
        place.run(&["agent", "shop", "-b"]).ok();
        let told = place.run(&["status", "shop"]).ok();
        let line = told.lines().find(|line| line.contains("WAITS")).unwrap();
        assert!(line.contains("for what comes after 0 up to "), "{line}");
        assert!(line.contains(&format!("asked for {times}, first 2")), "{line}");
    }
    let facts = place.run(&["status", "shop", "--json"]).one();
    assert_eq!(facts["remotes"][0]["waits"]["asked"], 2);
    place.run(&["agent", "hq", "-b"]).ok();
    place.run(&["agent", "shop", "-b"]).ok();
    let told = place.run(&["status", "shop"]).ok();
    assert!(!told.contains("WAITS"), "{told}");
    let read = place.run(&["read", "shop", "orders/1", "--json"]).json();
    assert_eq!(read.len(), 2);
}
