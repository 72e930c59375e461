//! Files of what was received in the freed log, damaged: told by verify, stat and repair, and repaired when told.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod running;

use std::path::PathBuf;

use running::Place;

/// A store `shop` that received events of `hq` and freed them, and the files that tell of it.
fn freed() -> (Place, Vec<PathBuf>) {
    let place = Place::new();
    let link = format!("file://{}", place.path("link").display());
    std::fs::create_dir_all(place.path("link")).unwrap();
    for site in ["hq", "shop"] {
        let init = [
            "init",
            site,
            "--site",
            site,
            "--segment-bytes",
            "1M",
            "--retention",
            "until-scanned",
        ];
        place.run(&init).ok();
    }
    place
        .run(&["publication", "add", "hq", "all", "--streams", "**"])
        .ok();
    place.run(&["remote", "add", "hq", "shop", "--link", &link]).ok();
    place.run(&["remote", "add", "shop", "hq", "--link", &link]).ok();
    let subscribe = [
        "subscription",
        "add",
        "hq",
        "--remote",
        "shop",
        "--publication",
        "all",
    ];
    place.run(&subscribe).ok();
    for round in 0..4 {
        let event = |number: u32| {
            let text = format!("{round}/{number} {}", "x".repeat(60_000));
            format!("{{\"events\":[{{\"stream\":\"s\",\"kind\":\"k\",\"payload\":\"{text}\"}}]}}\n")
        };
        place.write("lines", (0..30).map(event).collect::<String>());
        place.run(&["import", "hq", "--input", "lines"]).ok();
        for site in ["hq", "shop", "hq", "shop"] {
            place.run(&["agent", site, "-b"]).ok();
        }
        place.run(&["space", "shop", "--free"]).ok();
    }
    let names = std::fs::read_dir(place.path("shop/log")).unwrap();
    let mut files: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("received-")
    });
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    (place, files)
}

#[test]
fn a_missing_file_of_what_was_received_is_told_everywhere_and_repaired_when_told() {
    let (place, files) = freed();
    place.run(&["backup", "shop", "copy"]).ok();
    let name = files[0].file_name().unwrap().to_str().unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    assert!(place.run(&["verify", "shop"]).fails(6).contains("repair"));
    let told = place.run(&["stat", "shop"]);
    assert!(
        told.out.contains(name) && told.out.contains("milepost repair"),
        "{}",
        told.out
    );
    told.fails(6);
    let before = std::fs::read(&files[1]).unwrap();
    let told = place.run(&["repair", "shop"]);
    assert!(
        told.out.contains("--received would lose: which transactions"),
        "{}",
        told.out
    );
    assert!(told.out.contains(name), "{}", told.out);
    assert!(told.fails(6).contains("--received"));
    assert_eq!(std::fs::read(&files[1]).unwrap(), before, "nothing was changed");
    // What a backup has is the same file, byte for byte.
    std::fs::copy(place.path("copy/log").join(name), &files[0]).unwrap();
    place.run(&["stat", "shop"]).ok();
    assert!(place.run(&["repair", "shop"]).ok().contains("nothing is damaged"));
    std::fs::remove_file(&files[0]).unwrap();
    let told = place.run(&["repair", "shop", "--received", "--json"]).one();
    let damaged = &told["received"];
    assert!(damaged["renewed"] == true && !damaged["lost"].as_array().unwrap().is_empty());
    place.run(&["verify", "shop"]).ok();
    let told = place.run(&["stat", "shop"]).ok();
    assert!(
        told.contains("not known     all that was received in LSN 0"),
        "{told}"
    );
    assert!(place.run(&["repair", "shop"]).ok().contains("nothing is damaged"));
    place.run(&["repair", "shop", "--received"]).fails(1);
    assert!(place.path("shop/damaged").join(format!("{name}.bin")).exists());
    // What is new goes on.
    place
        .run(&["append", "hq", "new", "--kind", "k", "--data", "1"])
        .ok();
    for site in ["hq", "shop"] {
        place.run(&["agent", site, "-b"]).ok();
    }
    assert_eq!(place.run(&["read", "shop", "new", "--json"]).json().len(), 1);
}

/// The trap: the marks of imports were lost with the base, so an import that is resumed would begin at its first line.
#[test]
fn an_import_is_not_resumed_where_its_mark_may_have_been_lost() {
    let (place, _) = freed();
    place.write(
        "more",
        "{\"events\":[{\"stream\":\"s\",\"kind\":\"k\",\"payload\":\"1\"}]}\n",
    );
    let resume = ["import", "shop", "--input", "more", "--resume"];
    let names = || std::fs::read_dir(place.path("shop/log")).unwrap();
    for path in names().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("base-") || name.ends_with(".idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    place.run(&["repair", "shop", "--base"]).ok();
    let told = place.run(&resume).fails(1);
    assert!(told.contains("may have been lost"), "{told}");
    place.run(&resume[..4]).ok();
    // Its own mark is there now.
    place.run(&resume).ok();
}
