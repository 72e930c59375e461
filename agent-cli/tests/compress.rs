//! compress: the same answers in less space, with other processes reading meanwhile, and back again.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod running;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use running::Place;

const IMPORT: [&str; 8] = [
    "import",
    "shop",
    "--input",
    "history.ndjson",
    "--flat",
    "--stream-field",
    "path",
    "--json",
];

/// A store of several segments of 1 MiB.
fn filled() -> Place {
    let place = Place::new();
    place
        .run(&["init", "shop", "--site", "shop", "--segment-bytes", "1M"])
        .ok();
    let line = |n: u32| {
        let words: String = (0..40)
            .map(|word| format!("{:x} ", n.wrapping_mul(2_654_435_761).rotate_left(word)))
            .collect();
        format!(r#"{{"path":"orders/{}","n":{n},"text":"{words}"}}"#, n % 50)
    };
    place.write(
        "history.ndjson",
        (0..12_000).map(line).collect::<Vec<_>>().join("\n"),
    );
    place.run(&IMPORT).ok();
    place
}

fn files(place: &Place, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path("shop/log")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    files
}

#[test]
fn a_compressed_store_exports_reads_and_verifies_the_same_and_is_taken_out_again() {
    let place = filled();
    let (export, read) = (["export", "shop"], ["read", "shop", "orders/7", "--json"]);
    let before = (place.run(&export).ok(), place.run(&read).ok());
    let segments = files(&place, "log").len();
    assert!(segments > 4, "{segments}");
    let done = place.run(&["compress", "shop", "--json"]).one();
    assert_eq!(done["segments"].as_array().unwrap().len(), segments - 2);
    assert!(done["packed_bytes"].as_u64() < done["raw_bytes"].as_u64());
    assert_eq!(
        (&done["compressed"], &done["always"]),
        (&(segments - 2).into(), &false.into())
    );
    assert_eq!(files(&place, "mpz").len(), segments - 2);
    assert!(place.run(&export).ok() == before.0 && place.run(&read).ok() == before.1);
    let verified = place.run(&["verify", "shop", "--json"]).one();
    assert_eq!(
        (&verified["whole"], &verified["events"]),
        (&true.into(), &12_000.into())
    );
    place.run(&["dump", "shop"]).ok();
    place.run(&["compress", "shop", "--undo"]).ok();
    assert_eq!(
        (files(&place, "mpz").len(), files(&place, "log").len()),
        (0, segments)
    );
    assert!(place.run(&export).ok() == before.0 && place.run(&read).ok() == before.1);
}

#[test]
fn a_damaged_compressed_segment_exits_6_with_its_file() {
    let place = filled();
    place.run(&["compress", "shop"]).ok();
    let file = &files(&place, "mpz")[1];
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let ran = place.run(&["verify", "shop"]);
    assert!(
        ran.out.contains("DAMAGED") && ran.out.contains(name),
        "{}",
        ran.out
    );
    ran.fails(6);
    assert!(place.run(&["export", "shop"]).fails(6).contains(name));
    let ran = place.run(&["compress", "shop", "--undo"]);
    assert!(ran.fails(6).contains(name));
    let shown = place.run(&["repair", "shop"]);
    assert!(shown.out.contains("isolate"), "{}", shown.out);
    place.run(&["repair", "shop", "--isolate"]).ok();
    place.run(&["verify", "shop"]).ok();
}

#[test]
fn processes_that_read_while_another_compresses_and_takes_out_again_read_what_is_there() {
    // Each reads everything again and again, with every form that a segment may have at that moment (E5).
    let place = filled();
    let expected = place.run(&["export", "shop"]).ok();
    let read = || {
        let words = "while ! [ -e stop ]; do \"$0\" export shop | cmp - expected || exit 9; \"$0\" verify shop > /dev/null || exit 8; done";
        let mut command = Command::new("sh");
        command
            .args(["-c", words, env!("CARGO_BIN_EXE_milepost")])
            .current_dir(place.path(""));
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    place.write("expected", &expected);
    let mut readers = [read(), read()];
    for _ in 0..3 {
        let done = place.run(&["compress", "shop", "--json"]).one();
        assert!(!done["segments"].as_array().unwrap().is_empty());
        let undone = place.run(&["compress", "shop", "--undo", "--json"]).one();
        assert_eq!(undone["compressed"], 0);
    }
    place.write("stop", "");
    for reader in &mut readers {
        assert_eq!(reader.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_store_that_always_compresses_does_so_while_it_is_written() {
    let place = filled();
    let done = place.run(&["compress", "shop", "--always", "--json"]).one();
    assert_eq!(done["always"], true);
    let before = files(&place, "mpz").len();
    // Whoever is there when the next segments are sealed; a short-lived process may leave some to the next.
    for _ in 0..20 {
        place.run(&IMPORT).ok();
        if files(&place, "mpz").len() > before {
            break;
        }
    }
    assert!(files(&place, "mpz").len() > before);
    assert_eq!(place.run(&["space", "shop", "--json"]).one()["compress"], true);
    place.run(&["verify", "shop"]).ok();
    place.run(&["compress", "shop", "--undo"]).ok();
    assert_eq!(place.run(&["space", "shop", "--json"]).one()["compress"], false);
}

#[test]
fn an_archived_store_is_read_as_before_says_what_to_mount_and_is_brought_back() {
    let place = filled();
    let export = ["export", "shop"];
    let before = place.run(&export).ok();
    let segments = files(&place, "log").len();
    let refused = place.run(&["archive", "shop"]).fails(1);
    assert!(refused.contains("--to"), "{refused}");
    let done = place.run(&["archive", "shop", "--to", "cold", "--json"]).one();
    assert_eq!(
        (&done["away"], &done["of"]),
        (&(segments - 2).into(), &segments.into())
    );
    assert!(done["archive"].as_str().unwrap().ends_with("/cold"));
    assert!(place.run(&export).ok() == before);
    place.run(&["verify", "shop"]).ok();
    place.run(&["compress", "shop"]).ok();
    std::fs::rename(place.path("cold"), place.path("colder")).unwrap();
    let refused = place.run(&export).fails(1);
    assert!(
        refused.contains("mount it") && refused.contains("/cold"),
        "{refused}"
    );
    let ran = place.run(&["verify", "shop", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(facts["unverified"]["segments"], segments - 2, "{facts}");
    assert!(facts["damage"].as_array().unwrap().is_empty() && facts["blocks"].as_u64().unwrap() > 0);
    assert_eq!(facts["whole"], false);
    let told = facts["unverified"]["reasons"][0]["text"].as_str().unwrap();
    assert!(told.contains("mount it") && told.contains("/cold"), "{told}");
    assert!(ran.fails(1).contains("mount the archive"));
    let stat = place.run(&["stat", "shop", "--json"]).one();
    assert!(stat["disk"]["log"].as_u64().unwrap() > 0, "{stat}");
    place
        .run(&["append", "shop", "orders/7", "--kind", "k", "--data", "1"])
        .ok();
    place.run(&["archive", "shop", "--to", "colder"]).ok();
    let now = place.run(&export).ok();
    assert!(now.starts_with(&before) && now.len() > before.len());
    place.run(&["backup", "shop", "copy"]).ok();
    let back = place.run(&["archive", "shop", "--back", "--json"]).one();
    assert_eq!(
        (&back["away"], &back["archive"]),
        (&0.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (files(&place, "away").len(), files(&place, "log").len()),
        (0, segments)
    );
    assert!(place.run(&export).ok() == now);
}

#[test]
fn a_damaged_mark_of_an_archive_is_no_archive_that_is_away_and_is_told_with_the_way_out() {
    let place = filled();
    let export = ["export", "shop"];
    let before = place.run(&export).ok();
    place.run(&["archive", "shop", "--to", "cold"]).ok();
    let mark = place.path("cold/archive");
    let mut bytes = std::fs::read(&mark).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&mark, bytes).unwrap();
    for missing in [false, true] {
        if missing {
            std::fs::remove_file(&mark).unwrap();
        }
        for (words, code) in [
            (&export[..], 1),
            (&["verify", "shop"], 6),
            (&["stat", "shop"], 6),
            (&["archive", "shop", "--back"], 1),
            (&["repair", "shop"], 1),
        ] {
            let ran = place.run(words);
            let told = format!("{}{}", ran.out, ran.err);
            assert_eq!(ran.code, code, "{words:?}: {told}");
            assert!(
                told.contains("cold/archive") && told.contains("--take-over"),
                "{words:?}: {told}"
            );
            assert!(!told.contains("mount it"), "{words:?}: {told}");
            assert!(
                !told.contains("run it again") && !told.contains("--without-archive"),
                "{words:?}: {told}"
            );
        }
    }
    place
        .run(&["archive", "shop", "--to", "cold", "--take-over"])
        .ok();
    assert_eq!(place.run(&export).ok(), before);
    place.run(&["verify", "shop"]).ok();
}

#[test]
fn what_another_run_cannot_help_is_not_told_to_be_run_again() {
    let place = filled();
    place.run(&["archive", "shop", "--to", "cold"]).ok();
    std::fs::rename(place.path("cold"), place.path("gone")).unwrap();
    for words in [&["archive", "shop"][..], &["archive", "shop", "--back"]] {
        let told = place.run(words).fails(1);
        assert!(
            told.contains("mount it") && !told.contains("run it again"),
            "{told}"
        );
        assert!(!told.contains("read as before"), "{told}");
    }
    // A repair names the way when the archive is gone for good.
    for words in [&["repair", "shop"][..], &["repair", "shop", "--isolate"]] {
        let told = place.run(words).fails(1);
        assert!(
            told.contains("mount it") && told.contains("--without-archive"),
            "{told}"
        );
    }
    let told = place.run(&["repair", "shop", "--without-archive"]).fails(6);
    assert!(told.contains("--isolate"), "{told}");
}

#[test]
fn undoing_compression_says_what_lies_in_the_archive_and_stays() {
    let place = filled();
    place.run(&["compress", "shop"]).ok();
    let archived = place.run(&["archive", "shop", "--to", "cold", "--json"]).one()["away"].clone();
    let told = place.run(&["compress", "shop", "--undo"]).ok();
    assert!(
        told.contains(&format!("{archived} compressed ones in the archive")) && told.contains("--back"),
        "{told}"
    );
    let facts = place.run(&["compress", "shop", "--undo", "--json"]).one();
    assert_eq!(
        (&facts["compressed"], &facts["in_archive"]),
        (&0.into(), &archived)
    );
    place.run(&["archive", "shop", "--back"]).ok();
    let facts = place.run(&["compress", "shop", "--undo", "--json"]).one();
    assert_eq!(
        (&facts["compressed"], &facts["in_archive"]),
        (&0.into(), &0.into())
    );
    assert!(files(&place, "mpz").is_empty());
}
