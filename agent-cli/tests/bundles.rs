//! bundle export, import, list and show from the command line, with their exit codes.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod running;

use std::path::PathBuf;
use std::process::Command;

use running::Place;

/// Head office and an island, each the other's remote by bundles alone, and a stick.
fn sites() -> Place {
    let place = Place::with_store("hq");
    place.run(&["init", "island", "--site", "island"]).ok();
    for (one, other) in [("hq", "island"), ("island", "hq")] {
        place
            .run(&["publication", "add", one, "all", "--streams", "**"])
            .ok();
        place
            .run(&["remote", "add", one, other, "--link", "bundle:"])
            .ok();
        let words = [
            "subscription",
            "add",
            one,
            "--remote",
            other,
            "--publication",
            "all",
            "--from",
            "now",
        ];
        place.run(&words).ok();
    }
    std::fs::create_dir(place.path("stick")).unwrap();
    place
}

fn append(place: &Place, store: &str, data: &str) {
    place
        .run(&["append", store, "orders/7", "--kind", "k", "--data", data])
        .ok();
}

fn events(place: &Place, store: &str) -> usize {
    place.run(&["read", store, "orders/7", "--json"]).json().len()
}

fn export(place: &Place, store: &str, remote: &str) -> serde_json::Value {
    let words = [
        "bundle", "export", store, "--remote", remote, "--to", "stick", "--json",
    ];
    place.run(&words).one()
}

#[test]
fn a_stick_carried_there_and_back_applies_and_acknowledges_and_says_so_in_text_and_json() {
    let place = sites();
    let nothing = export(&place, "hq", "island");
    assert_eq!((&nothing["path"], &nothing["messages"]), (&().into(), &0.into()));
    append(&place, "hq", "1");
    append(&place, "hq", "2");
    let made = export(&place, "hq", "island");
    assert_eq!(
        (&made["number"], &made["transactions"], &made["more"]),
        (&1.into(), &2.into(), &false.into())
    );
    let path = made["path"].as_str().unwrap().to_owned();
    assert!(path.starts_with("stick/hq-island-000001-"), "{path}");
    let shown = place.run(&["bundle", "show", &path, "--json"]).one();
    assert_eq!(
        (&shown["to"], &shown["id"], &shown["to_store"]),
        (&"island".into(), &made["id"], &().into())
    );
    assert!(
        place
            .run(&["bundle", "show", &path])
            .ok()
            .contains("bundle 1 from hq for island")
    );
    let came = place
        .run(&["bundle", "import", "island", "stick", "--json"])
        .one();
    assert_eq!(
        (&came["transactions"], &came["duplicates"]),
        (&2.into(), &0.into())
    );
    assert_eq!(came["bundles"][0]["taken"], made["messages"]);
    assert_eq!(events(&place, "island"), 2);
    let again = place.run(&["bundle", "import", "island", "stick"]).ok();
    assert!(again.contains("0 transactions applied"), "{again}");
    let listed = place.run(&["bundle", "list", "hq"]).ok();
    assert!(listed.contains("on its way"), "{listed}");
    let back = export(&place, "island", "hq");
    assert_eq!(back["acknowledges"], serde_json::json!([[1, 1]]));
    let heard = place.run(&["bundle", "import", "hq", "stick", "--remove"]).ok();
    assert!(
        heard.contains("it has our bundles 1") && heard.contains("passed over"),
        "{heard}"
    );
    let listed = place.run(&["bundle", "list", "hq", "--json"]).one();
    let first = &listed["exported"][0];
    assert_eq!(
        (&first["acknowledged"], &first["confirmed"]),
        (&true.into(), &true.into())
    );
    assert_eq!(listed["imported"], serde_json::json!([[1, 1]]));
    let left: Vec<PathBuf> = std::fs::read_dir(place.path("stick"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(left.len(), 1, "the one for the other site is left: {left:?}");
    let status = place.run(&["status", "hq"]).ok();
    assert!(status.contains("lag               0 transactions"), "{status}");
}

#[test]
fn a_bundle_before_its_time_exits_1_and_names_the_missing_one_and_a_damaged_one_exits_6() {
    let place = sites();
    append(&place, "hq", "1");
    let first = export(&place, "hq", "island");
    append(&place, "hq", "2");
    let second = export(&place, "hq", "island");
    let second = second["path"].as_str().unwrap();
    let told = place.run(&["bundle", "import", "island", second]).fails(1);
    assert!(
        told.contains("wait for bundle 1") && told.contains("bundle export"),
        "{told}"
    );
    let path = place.path(first["path"].as_str().unwrap());
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[600] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let told = place
        .run(&["bundle", "import", "island", path.to_str().unwrap()])
        .fails(6);
    assert!(
        told.contains("lost: 0") && told.contains(path.to_str().unwrap()),
        "{told}"
    );
    place.run(&["bundle", "show", path.to_str().unwrap()]).fails(6);
    bytes = whole.clone();
    let end = bytes.len() - 1;
    (bytes[50], bytes[end]) = (bytes[50] ^ 1, bytes[end] ^ 1);
    std::fs::write(&path, &bytes).unwrap();
    let told = place
        .run(&["bundle", "import", "island", path.to_str().unwrap()])
        .fails(6);
    assert!(told.contains("--again"), "{told}");
    std::fs::write(&path, &whole).unwrap();
    place.run(&["bundle", "import", "island", "stick"]).ok();
    assert_eq!(events(&place, "island"), 2);
}

#[test]
fn wrong_words_and_wrong_places_are_told_with_what_to_do() {
    let place = sites();
    append(&place, "hq", "1");
    let words = |remote: &str, to: &str, more: &[&str]| {
        let words = ["bundle", "export", "hq", "--remote", remote, "--to", to];
        place.run(&[&words[..], more].concat())
    };
    assert!(words("mars", "stick", &[]).fails(2).contains("remote list"));
    assert!(words("island", "no/stick", &[]).fails(2).contains("mounted"));
    place.write("letter", "a letter");
    assert!(words("island", "letter", &[]).fails(2).contains("left as it is"));
    assert_eq!(std::fs::read(place.path("letter")).unwrap(), b"a letter");
    words("island", "stick", &["--message-bytes", "5"]).fails(2);
    assert!(
        words("island", "stick", &["--max-bytes", "1100"])
            .fails(1)
            .contains("nothing fits")
    );
    assert_eq!(std::fs::read_dir(place.path("stick")).unwrap().count(), 0);
    words("island", "stick/named.mpb", &[]).ok();
    let told = place.run(&["bundle", "import", "hq", "stick/named.mpb"]).fails(1);
    assert!(told.contains("carry it there"), "{told}");
    place.run(&["bundle", "import", "island", "letter"]).fails(1);
    place.run(&["bundle", "import", "island", "nothing"]).fails(1);
    let told = place
        .run(&["remote", "add", "hq", "x", "--link", "bundle:", "file:///y"])
        .fails(2);
    assert!(told.contains("only servers have alternates"), "{told}");
    assert!(
        place
            .run(&["remote", "list", "hq"])
            .ok()
            .contains("carried: milepost bundle")
    );
    // Agents leave it alone.
    append(&place, "hq", "2");
    place.run(&["agent", "hq", "-b"]).ok();
    assert_eq!(export(&place, "hq", "island")["transactions"], 1);
}

/// A file system of 64 KiB, unmounted however the test ends.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_stick_is_told_leaves_nothing_and_the_next_stick_gets_all_of_it() {
    let place = sites();
    let full = place.path("full");
    std::fs::create_dir(&full).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(&full)
        .output();
    if !mount.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: a full stick; a small file system cannot be mounted here");
        return;
    }
    let _mounted = Small(full.clone());
    for number in 0..10 {
        // Letters that do not compress.
        let letter = |at: u64| {
            let mixed = (at + number * 20_000 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            char::from(b'a' + ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 59) as u8 % 26)
        };
        let data: String = (0..20_000).map(letter).collect();
        append(&place, "hq", &format!("\"{data}\""));
    }
    std::fs::write(full.join("photograph"), vec![7; 40_000]).unwrap();
    let words = ["bundle", "export", "hq", "--remote", "island", "--to", "full"];
    let told = place.run(&words).fails(1);
    assert!(told.contains("no space") && told.contains(".mpb.tmp"), "{told}");
    assert_eq!(
        std::fs::read_dir(&full).unwrap().count(),
        1,
        "only the photograph is left"
    );
    assert_eq!(
        export(&place, "hq", "island")["transactions"],
        10,
        "nothing counted as sent"
    );
    place.run(&["bundle", "import", "island", "stick"]).ok();
    assert_eq!(events(&place, "island"), 10);
}

#[test]
fn a_transaction_longer_than_a_bundle_goes_in_two_and_the_first_tells_its_length() {
    let place = sites();
    place.write("noise", noise(60_000));
    let large = ["append", "hq", "orders/9", "--kind", "k", "--data", "@noise"];
    place.run(&large).ok();
    let words = |to: &str, more: &[&str]| {
        let words = ["bundle", "export", "hq", "--remote", "island", "--to", to];
        place.run(&[&words[..], more].concat())
    };
    let small = ["--max-bytes", "40000", "--message-bytes", "10000", "--json"];
    let told = words("stick/first.mpb", &small).ok();
    assert!(told.contains("\"cut\":{\"lsn\":"), "{told}");
    let told = words("stick/second.mpb", &["--max-bytes", "100K"]).ok();
    assert!(told.contains("1 transaction in 1 message"), "{told}");
    place.run(&["bundle", "import", "island", "stick"]).ok();
    let read = place.run(&["read", "island", "orders/9", "--json"]).json();
    assert_eq!(read.len(), 1);
}

/// Bytes that compress to nothing smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Answers, and writes down what it is told.
const PROGRAM: &str = r#"#!/bin/sh
while read -r line; do
    echo "$line" >> heard
    case "$line" in *before-apply*) echo '{"ask":1,"ruling":"apply"}' ;; esac
done
"#;

/// A bundle that cannot be finished is made again, so nobody is told of what was to be in it.
#[test]
fn a_hook_is_told_of_the_phases_and_of_messages_once_their_bundle_has_its_name() {
    let place = sites();
    place.write("hook", PROGRAM);
    let hook = place.path("hook");
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let hook = hook.to_str().unwrap();
    append(&place, "hq", "1");
    let heard = || {
        let heard = std::fs::read_to_string(place.path("heard")).unwrap();
        std::fs::remove_file(place.path("heard")).unwrap();
        let lines = heard
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let words = lines.map(|line| format!("{} {}", line["event"], line["phase"]));
        words
            .map(|words| words.replace(['"'], "").replace(" null", ""))
            .collect::<Vec<_>>()
    };
    let small = [
        "bundle",
        "export",
        "hq",
        "--remote",
        "island",
        "--to",
        "stick",
        "--hook",
        hook,
        "--max-bytes",
        "1100",
    ];
    place.run(&small).fails(1);
    let phases = ["phase-began send", "phase-began scan", "phase-ended scan"];
    assert_eq!(heard(), [phases.as_slice(), &["phase-ended send"]].concat());
    place.run(&small[..9]).ok();
    assert_eq!(
        heard(),
        [phases.as_slice(), &["message-sent", "phase-ended send"]].concat()
    );
    place
        .run(&["bundle", "import", "island", "stick", "--hook", hook])
        .ok();
    assert_eq!(
        heard(),
        [
            "phase-began receive",
            "before-apply",
            "after-apply",
            "phase-ended receive"
        ]
    );
    assert_eq!(events(&place, "island"), 1);
}
