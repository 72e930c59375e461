//! backup, verify and restore from the command line, with their exit codes.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod running;

use running::Place;

fn append(place: &Place, store: &str, data: &str) {
    place
        .run(&["append", store, "orders/7", "--kind", "k", "--data", data])
        .ok();
}

fn events(place: &Place, store: &str) -> usize {
    place.run(&["read", store, "orders/7", "--json"]).json().len()
}

#[test]
fn a_store_is_backed_up_twice_verified_and_restored() {
    let place = Place::with_store("shop");
    append(&place, "shop", "1");
    let first = place.run(&["backup", "shop", "copy", "--json"]).one();
    assert_eq!(first["copied_bytes"], first["end"]);
    append(&place, "shop", "2");
    let second = place.run(&["backup", "shop", "copy", "--json"]).one();
    assert_eq!(second["former_end"], first["end"]);
    assert!(second["copied_bytes"].as_u64() < first["end"].as_u64());
    let verified = place.run(&["verify", "copy", "--json"]).one();
    assert_eq!(
        (&verified["whole"], &verified["events"]),
        (&true.into(), &2.into())
    );
    assert_eq!(verified["backup"]["end"], second["end"]);
    let made = place.run(&["restore", "copy", "again", "--json"]).one();
    assert_eq!(made["fork"], second["end"]);
    assert_eq!(events(&place, "again"), 2);
    let (old, new) = ("shop", "again");
    let stat = |store: &str| place.run(&["stat", store, "--json"]).one();
    assert_eq!(stat(old)["store"], stat(new)["store"]);
    assert_ne!(stat(old)["epoch"], stat(new)["epoch"]);
    assert_eq!(stat(new)["epoch"], made["epoch"]);
}

#[test]
fn a_backup_is_told_from_a_store_and_a_full_folder_from_an_empty_one() {
    let place = Place::with_store("shop");
    place.run(&["backup", "shop", "copy"]).ok();
    let told = place.run(&["stat", "copy"]).fails(1);
    assert!(told.contains("milepost restore"), "{told}");
    place.run(&["backup", "shop", "shop/copy"]).fails(1);
    place.run(&["restore", "copy", "shop"]).fails(1);
    place.run(&["restore", "nothing", "new"]).fails(1);
    place.run(&["verify", "nothing"]).fails(1);
}

#[test]
fn a_damaged_backup_exits_6_with_its_file_and_what_to_do_and_is_mended_by_a_run_that_checks() {
    let place = Place::with_store("shop");
    append(&place, "shop", "1");
    place.run(&["backup", "shop", "copy"]).ok();
    let file = place.path("copy/log/0000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() - 200;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ran = place.run(&["verify", "copy"]);
    assert!(
        ran.out.contains("DAMAGED") && ran.out.contains("copy/log/0000000000000000.log"),
        "{}",
        ran.out
    );
    assert!(ran.fails(6).contains("--check"));
    place.run(&["restore", "copy", "again"]).fails(6);
    place.run(&["backup", "shop", "copy", "--check"]).ok();
    place.run(&["verify", "copy"]).ok();
    place.run(&["restore", "copy", "again"]).ok();
}

#[test]
fn a_restored_store_keeps_its_log_as_the_former_did_and_says_so() {
    let place = Place::new();
    let words = [
        "init",
        "shop",
        "--site",
        "shop",
        "--retention",
        "30d",
        "--limit",
        "2G",
    ];
    place.run(&words).ok();
    place.run(&["compress", "shop", "--always"]).ok();
    place.run(&["archive", "shop", "--to", "cold"]).ok();
    place.run(&["backup", "shop", "copy"]).ok();
    let told = place.run(&["restore", "copy", "again"]).ok();
    assert!(
        told.contains("kept 30d, with a limit of 2G, and compressed") && told.contains("cold stays"),
        "{told}"
    );
    let space = place.run(&["space", "again", "--json"]).one();
    assert_eq!(
        (&space["retention"], &space["limit"]),
        (&"30d".into(), &(2u64 << 30).into())
    );
    assert_eq!(
        (&space["compress"], &space["archive"]),
        (&true.into(), &().into())
    );
    // What was changed since is in the next run's copy; what was taken back too.
    place
        .run(&["space", "shop", "--retention", "forever", "--limit", "0"])
        .ok();
    place.run(&["backup", "shop", "copy"]).ok();
    let facts = place.run(&["restore", "copy", "third", "--json"]).one();
    assert_eq!(
        (&facts["retention"], &facts["limit"]),
        (&"forever".into(), &0.into())
    );
    // Damaged in the backup: told, and nothing is freed in the new store.
    place.write("copy/space", "not what it was");
    let ran = place.run(&["verify", "copy"]);
    assert!(ran.out.contains("copy/space"), "{}", ran.out);
    ran.fails(6);
    let told = place.run(&["restore", "copy", "fourth"]).ok();
    assert!(told.contains("kept for ever"), "{told}");
    let space = place.run(&["space", "fourth", "--json"]).one();
    assert_eq!(space["retention"], "forever");
}
