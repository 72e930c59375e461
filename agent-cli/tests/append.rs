//! append: what of --data is stored, and how read and export show it.
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

const PRETTY: &str = "{\r\n  \"b\": [1.000, 1e400],\n\t\"a\": \"x \\\" \\u00e9 y\",\n  \"b\": {}\n}\n";
const COMPACT: &str = r#"{"b":[1.000,1e400],"a":"x \" \u00e9 y","b":{}}"#;

/// The payload as `export` prints it, after a commit of `--data data` with `input` as standard input.
fn exported(data: &str, input: &str, files: &[(&str, &[u8])]) -> String {
    let place = Place::with_store("shop");
    files.iter().for_each(|(name, bytes)| place.write(name, bytes));
    let words = ["append", "shop", "s", "--kind", "k", "--data", data];
    place.run_with(&words, input, &[]).ok();
    let read = place.run(&["read", "shop", "s", "--json"]).ok();
    let line = place.run(&["export", "shop"]).ok();
    let payload = |line: &str| {
        let (_, rest) = line.split_once("\"payload\":").unwrap();
        rest.trim_end().to_owned()
    };
    let payload_exported = payload(&line).strip_suffix("}]}").unwrap().to_owned();
    assert!(payload(&read).starts_with(&payload_exported), "{read}{line}");
    payload_exported
}

#[test]
fn json_of_many_lines_is_stored_without_its_blanks_and_shown_as_json_wherever_it_comes_from() {
    assert_eq!(exported(PRETTY, "", &[]), COMPACT);
    assert_eq!(exported("@file", "", &[("file", PRETTY.as_bytes())]), COMPACT);
    assert_eq!(exported("@-", PRETTY, &[]), COMPACT);
    assert_eq!(
        exported("@./-", "2", &[("-", b" 1\n")]),
        "1",
        "a file may be called so"
    );
}

#[test]
fn what_is_not_one_json_text_in_utf_8_is_stored_byte_for_byte() {
    assert_eq!(
        exported("@-", " not json\n", &[]),
        r#"{"base64":"IG5vdCBqc29uCg=="}"#
    );
    assert_eq!(exported("@-", "", &[]), r#"{"base64":""}"#);
    assert_eq!(
        exported("@f", "", &[("f", b"1\n2\n")]),
        r#"{"base64":"MQoyCg=="}"#
    );
    assert_eq!(
        exported("@f", "", &[("f", b"[ \"\xff\" ]")]),
        r#"{"base64":"WyAi/yIgXQ=="}"#
    );
}

#[test]
fn a_mistake_given_in_the_line_itself_is_refused_and_nothing_is_committed() {
    let place = Place::with_store("shop");
    let append = |data: &str| place.run(&["append", "shop", "s", "--kind", "k", "--data", data]);
    assert!(append("{not json").fails(2).contains("@FILE"));
    append("").fails(2);
    place
        .run(&["append", "shop", "", "--kind", "k", "--data", "1"])
        .fails(2);
    assert!(append("@missing").fails(1).contains("cannot read missing"));
    assert_eq!(place.run(&["export", "shop"]).ok(), "");
}

#[test]
fn neither_append_nor_import_writes_in_the_message_store_of_servers() {
    let place = Place::new();
    // The server leaves at once, as its standard input has ended.
    let words = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        "messages",
        "--with-stdin",
    ];
    place.run(&words).ok();
    place.write("lines", r#"{"events":[{"stream":"s","kind":"k","payload":1}]}"#);
    for words in [
        &["append", "messages", "s", "--kind", "k", "--data", "1"][..],
        &["import", "messages", "--input", "lines"],
    ] {
        let told = place.run(words).fails(1);
        assert!(told.contains("message store of servers"), "{told}");
    }
}

#[test]
fn an_append_that_cannot_say_so_says_that_it_is_committed() {
    let place = Place::with_store("shop");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else {
        eprintln!("SKIPPED: a full standard output; there is no /dev/full here");
        return;
    };
    let said = std::process::Command::new(assert_cmd::cargo::cargo_bin!("milepost"))
        .args(["append", "shop", "s\u{202e}x", "--kind", "k", "--data", "1"])
        .current_dir(place.path(""))
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    let told = String::from_utf8(said.stderr).unwrap();
    assert!(told.contains("is committed at LSN"), "{told}");
    let told = place
        .run(&["append", "shop", "s\u{202e}x", "--kind", "k", "--data", "1"])
        .ok();
    assert!(told.contains("s\\u{202e}x as version 1"), "{told}");
}
