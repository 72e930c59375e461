//! `milepost agent -u` beside `milepost backup` and `milepost restore`: as an operator has it.
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
    place
        .run(&["publication", "add", site, "all", "--streams", "orders/**"])
        .ok();
    place.run(&["remote", "add", site, other, "--link", &link]).ok();
    place
        .run(&[
            "subscription",
            "add",
            site,
            "--remote",
            other,
            "--publication",
            "all",
        ])
        .ok();
}

fn append(place: &Place, site: &str, stream: &str, data: &str) {
    place
        .run(&["append", site, stream, "--kind", "noted", "--data", data])
        .ok();
}

/// Data of the events of a stream; none of one that is not there.
fn read(place: &Place, site: &str, stream: &str) -> Vec<String> {
    let ran = place.run(&["read", site, stream, "--json"]);
    if ran.code == 1 && ran.err.contains("no event") {
        return Vec::new();
    }
    ran.json()
        .iter()
        .map(|event| event["payload"].to_string())
        .collect()
}

fn rounds(place: &Place, count: usize) {
    for _ in 0..count {
        place.run(&["agent", "hq", "-b", "-u"]).ok();
        place.run(&["agent", "shop", "-b"]).ok();
    }
    place.run(&["agent", "hq", "-b", "-u"]).ok();
}

#[test]
fn a_head_office_that_burned_down_is_restored_and_goes_on_with_its_shop() {
    let place = Place::new();
    std::fs::create_dir(place.path("link")).unwrap();
    joined(&place, "hq", "shop");
    joined(&place, "shop", "hq");
    append(&place, "hq", "orders/1", "1");
    let told = place.run(&["agent", "hq", "-b", "-u"]);
    assert_eq!(told.code, 0);
    assert!(told.err.contains("no backup covers anything yet"), "{}", told.err);
    rounds(&place, 1);
    assert!(read(&place, "shop", "orders/1").is_empty());

    place.run(&["backup", "hq", "kept"]).ok();
    let status = place.run(&["status", "hq", "--json"]).one();
    assert!(status["backed_up"].as_u64().unwrap() > 0, "{status}");
    append(&place, "hq", "orders/1", "2");
    append(&place, "shop", "orders/9", "9");
    rounds(&place, 2);
    assert_eq!(
        read(&place, "shop", "orders/1"),
        ["1"],
        "the backup does not hold the second"
    );
    assert_eq!(read(&place, "hq", "orders/9"), ["9"]);

    std::fs::remove_dir_all(place.path("hq")).unwrap();
    place.run(&["restore", "kept", "hq"]).ok();
    assert!(read(&place, "hq", "orders/9").is_empty());
    append(&place, "hq", "orders/1", "3");
    rounds(&place, 1);
    assert_eq!(
        read(&place, "shop", "orders/1"),
        ["1"],
        "nor does it hold what came after"
    );
    place.run(&["backup", "hq", "kept-too"]).ok();
    rounds(&place, 4);
    assert_eq!(read(&place, "shop", "orders/1"), ["1", "3"]);
    assert_eq!(
        read(&place, "hq", "orders/9"),
        ["9"],
        "what came since the backup comes again"
    );
}
