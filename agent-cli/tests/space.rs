//! How long a log is kept, how much it may take, and who holds it, by the command line.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
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
    assert!(told.contains("shop/space") && told.contains("remove"), "{told}");
    std::fs::remove_file(place.path("shop/space")).unwrap();
    let shown = place.run(&["space", "shop"]).ok();
    assert!(shown.contains("forever"), "{shown}");
}
