//! `milepost key`: drawn here, carried there, replaced and dropped; secrets show nowhere but where they were asked for.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use running::Place;

/// Two sites that are each other's remotes over a folder, and hq has published all.
fn two_sites() -> Place {
    let place = Place::with_store("hq");
    place.run(&["init", "shop", "--site", "shop"]).ok();
    fs::create_dir(place.path("exchange")).unwrap();
    let link = format!("file://{}", place.path("exchange").display());
    for words in [
        &["publication", "add", "hq", "all", "--streams", "**"][..],
        &["remote", "add", "hq", "shop", "--link", &link],
        &["remote", "add", "shop", "hq", "--link", &link, "--consolidated"],
        &[
            "subscription",
            "add",
            "hq",
            "--remote",
            "shop",
            "--publication",
            "all",
        ],
    ] {
        place.run(words).ok();
    }
    place
}

fn id_in(place: &Place, store: &str) -> Vec<String> {
    let keys = place.run(&["key", "list", store, "--json"]).json();
    keys.iter()
        .map(|key| key["key"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_key_is_carried_in_a_file_and_seals_what_goes_between_the_two() {
    let place = two_sites();
    assert!(place.run(&["key", "list", "hq"]).ok().is_empty());
    let added = place.run(&["key", "add", "hq", "shop", "--to", "shop.key", "--json"]);
    let added = added.one();
    assert_eq!(
        (&added["remote"], &added["drawn_here"]),
        (&"shop".into(), &true.into())
    );
    assert!(added.get("line").is_none());
    let mode = fs::metadata(place.path("shop.key")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let line = fs::read_to_string(place.path("shop.key")).unwrap();
    let secret = line.split(' ').nth(3).unwrap();
    let told = place
        .run(&["key", "add", "shop", "hq", "--from", "shop.key"])
        .ok();
    assert!(told.contains("delete"), "{told}");
    assert_eq!(id_in(&place, "hq"), id_in(&place, "shop"));
    place
        .run(&[
            "append",
            "hq",
            "orders/1",
            "--kind",
            "placed",
            "--data",
            "\"the secret order\"",
        ])
        .ok();
    let mut said = String::new();
    for store in ["hq", "shop", "hq"] {
        let ran = place.run(&["agent", store, "-b", "-vv"]);
        said += &ran.err;
        said += &ran.ok();
    }
    assert!(
        place
            .run(&["read", "shop", "orders/1"])
            .ok()
            .contains("the secret order")
    );
    let status = place.run(&["status", "hq"]).ok();
    assert!(
        status.contains(&format!("sealed with key   {}", added["key"].as_str().unwrap())),
        "{status}"
    );
    for words in [&["key", "list", "hq"][..], &["dump", "hq"], &["stat", "hq"]] {
        said += &place.run(words).ok();
    }
    assert!(!said.contains(secret) && !said.contains(&secret[8..24]), "{said}");
}

#[test]
fn a_key_is_replaced_and_the_former_is_dropped() {
    let place = two_sites();
    let line = place.run(&["key", "add", "hq", "shop", "--print"]).ok();
    place
        .run_with(&["key", "add", "shop", "hq", "--from", "-"], &line, &[])
        .ok();
    let first = id_in(&place, "hq").remove(0);
    place.run(&["key", "add", "hq", "shop", "--to", "second"]).ok();
    let listed = place.run(&["key", "list", "hq", "--json"]).json();
    let seals: Vec<_> = listed.iter().map(|key| key["seals"].as_bool().unwrap()).collect();
    assert_eq!(
        seals,
        [false, true],
        "the newest first, which the shop may not have"
    );
    let third = place.run(&["key", "add", "hq", "shop", "--to", "third"]).fails(1);
    assert!(third.contains("key drop") && third.contains(&first), "{third}");
    assert!(
        !place.path("third").exists(),
        "no file of a key that is not added"
    );
    place.run(&["key", "add", "shop", "hq", "--from", "second"]).ok();
    place
        .run(&["append", "hq", "orders/1", "--kind", "placed", "--data", "1"])
        .ok();
    // It goes under the former key, and what the shop says to it under the new one.
    for store in ["hq", "shop", "hq"] {
        place.run(&["agent", store, "-b"]).ok();
    }
    let listed = place.run(&["key", "list", "hq", "shop"]).ok();
    assert!(
        listed.lines().next().unwrap().contains("seals and opens"),
        "{listed}"
    );
    for (store, remote) in [("hq", "shop"), ("shop", "hq")] {
        place.run(&["key", "drop", store, remote, &first]).ok();
        assert_eq!(id_in(&place, store).len(), 1);
    }
    let only = id_in(&place, "hq").remove(0);
    assert!(
        place
            .run(&["key", "drop", "hq", "shop", &only])
            .fails(1)
            .contains("--allow-unsealed")
    );
    place.run(&["key", "drop", "hq", "shop", "--all"]).fails(2);
    place
        .run(&["key", "drop", "hq", "shop", "--all", "--allow-unsealed"])
        .ok();
    assert!(place.run(&["key", "list", "hq"]).ok().is_empty());
    place
        .run(&["key", "drop", "hq", "shop", "--all", "--allow-unsealed"])
        .fails(1);
}

#[test]
fn what_is_no_key_for_this_pair_is_told_and_nothing_is_written() {
    let place = two_sites();
    place.run(&["key", "add", "hq", "shop"]).fails(2);
    let line = place.run(&["key", "add", "hq", "shop", "--print"]).ok();
    let mut typed = line.clone();
    typed.replace_range(30..31, if &line[30..31] == "0" { "1" } else { "0" });
    place.write("typed", &typed);
    let told = place
        .run(&["key", "add", "shop", "hq", "--from", "typed"])
        .fails(1);
    assert!(told.contains("check") && told.contains("typed"), "{told}");
    assert!(!told.contains(&typed[24..40]), "{told}");
    place.write("line", &line);
    let other = place
        .run(&["key", "add", "shop", "depot", "--from", "line"])
        .fails(2);
    assert!(other.contains("hq and shop"), "{other}");
    assert!(!place.path("shop/keys").join("hq").exists());
    place
        .run(&["key", "add", "shop", "hq", "--from", "missing"])
        .fails(1);
    let over = place
        .run(&["key", "add", "shop", "depot", "--to", "line"])
        .fails(1);
    assert!(over.contains("there already"), "{over}");
    assert_eq!(fs::read_to_string(place.path("line")).unwrap(), line);
    place.run(&["key", "drop", "hq", "shop", "nonsense"]).fails(2);
}

#[test]
fn a_pair_without_its_key_is_locked_and_every_command_says_so() {
    let place = two_sites();
    place.run(&["key", "add", "hq", "shop", "--to", "shop.key"]).ok();
    place
        .run(&["key", "add", "shop", "hq", "--from", "shop.key"])
        .ok();
    let file = place.path("hq/keys/shop");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let listed = place.run(&["key", "list", "hq"]);
    assert!(listed.out.contains("chmod 600"), "{}", listed.out);
    listed.fails(5);
    for phases in [["-b", "-q"].as_slice(), &["-b", "-r"]] {
        let ran = place.run(&[&["agent", "hq"], phases].concat()).fails(5);
        assert_eq!(ran.matches("chmod 600").count(), 1, "{phases:?}: {ran}");
    }
    place.run(&["agent", "hq", "-b", "-i"]).ok();
    assert!(place.run(&["status", "hq"]).ok().contains("LOCKED"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    place.run(&["agent", "hq", "-b"]).ok();
    place.run(&["backup", "hq", "copy"]).ok();
    let restored = place.run(&["restore", "copy", "again", "--json"]).one();
    assert_eq!(restored["keys_missing"], serde_json::json!(["shop"]));
    let told = place.run(&["restore", "copy", "once-more"]).ok();
    assert!(told.contains("milepost key add once-more SITE"), "{told}");
    let facts = place.run(&["key", "list", "again", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(facts.out.trim()).unwrap();
    assert!(facts["key"].is_null() && facts["locked"].is_string(), "{facts}");
    let remotes = place.run(&["status", "again", "--json"]).one();
    assert!(remotes["remotes"][0]["locked"].is_string());
}

/// hq and shop with a key, and a third site without one; the key file of shop at hq is damaged.
fn with_a_damaged_key() -> (Place, Vec<u8>) {
    let place = two_sites();
    place.run(&["key", "add", "hq", "shop", "--to", "shop.key"]).ok();
    place
        .run(&["key", "add", "shop", "hq", "--from", "shop.key"])
        .ok();
    let link = format!("file://{}", place.path("exchange").display());
    place.run(&["remote", "add", "hq", "other", "--link", &link]).ok();
    let subscription = [
        "subscription",
        "add",
        "hq",
        "--remote",
        "other",
        "--publication",
        "all",
    ];
    place.run(&subscription).ok();
    let file = place.path("hq/keys/shop");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    (place, whole)
}

fn append(place: &Place, data: &str) {
    place
        .run(&["append", "hq", "orders/1", "--kind", "placed", "--data", data])
        .ok();
}

fn mail(place: &Place, site: &str) -> usize {
    fs::read_dir(place.path("exchange").join(site)).map_or(0, Iterator::count)
}

#[test]
fn a_damaged_key_file_ends_the_agent_with_6_once_all_other_pairs_are_served() {
    let (place, whole) = with_a_damaged_key();
    append(&place, "1");
    // What came of shop waits for the key: it is no other trouble.
    let up = ["publication", "add", "shop", "up", "--streams", "**"];
    place.run(&up).ok();
    let up = [
        "subscription",
        "add",
        "shop",
        "--remote",
        "hq",
        "--publication",
        "up",
    ];
    place.run(&up).ok();
    place
        .run(&["append", "shop", "sales/1", "--kind", "sold", "--data", "7"])
        .ok();
    place.run(&["agent", "shop", "-b"]).ok();
    for phases in [&["-b"][..], &["-b", "-r"], &["-b", "-s", "--marker-wait", "1s"]] {
        let told = place.run(&[&["agent", "hq"], phases].concat()).fails(6);
        assert!(told.contains("hq/keys/shop is damaged"), "{told}");
        assert!(
            told.contains("Nothing is lost") && told.contains("key add … shop"),
            "{told}"
        );
        assert_eq!(told.matches("damaged").count(), 1, "told once: {told}");
    }
    place.run(&["agent", "hq", "-b", "-i"]).ok();
    assert!(mail(&place, "hq") > 0, "it waits on its link");
    assert!(mail(&place, "other") > 0, "the other pair is served");
    assert_eq!(mail(&place, "shop"), 0, "and nothing goes to this one");
    place.run(&["key", "list", "hq"]).fails(6);
    let line = ["key", "add", "hq", "shop", "--to", "another.key"];
    assert!(place.run(&line).fails(6).contains("is damaged"));
    fs::write(place.path("hq/keys/shop"), whole).unwrap();
    place.run(&["agent", "hq", "-b"]).ok();
    place.run(&["agent", "shop", "-b"]).ok();
    assert!(place.run(&["read", "shop", "orders/1"]).ok().contains('1'));
}

#[test]
fn a_damaged_key_file_without_a_copy_is_moved_away_and_a_new_key_is_drawn() {
    let (place, _) = with_a_damaged_key();
    append(&place, "1");
    place.run(&["agent", "hq", "-b"]).fails(6);
    fs::rename(place.path("hq/keys/shop"), place.path("damaged.key")).unwrap();
    place.run(&["agent", "hq", "-b"]).fails(5);
    assert_eq!(mail(&place, "shop"), 0, "it is locked, and not open");
    place.run(&["key", "add", "hq", "shop", "--to", "new.key"]).ok();
    place.run(&["key", "add", "shop", "hq", "--from", "new.key"]).ok();
    place.run(&["agent", "hq", "-b"]).ok();
    place.run(&["agent", "shop", "-b"]).ok();
    assert!(place.run(&["read", "shop", "orders/1"]).ok().contains('1'));
}

#[test]
fn an_agent_that_stays_tells_once_of_a_damaged_key_file_and_serves_all_others() {
    let (place, _) = with_a_damaged_key();
    let link = format!("file://{}", place.path("exchange").display());
    for site in ["shop", "other"] {
        let every = [
            "remote",
            "add",
            "hq",
            site,
            "--replace",
            "--send-every",
            "1s",
            "--link",
            &link,
        ];
        place.run(&every).ok();
    }
    let mut agent = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    agent.args([
        "agent",
        "hq",
        "-rd",
        "1s",
        "-sd",
        "1s",
        "-o",
        "agent.log",
        "--with-stdin",
    ]);
    agent.current_dir(place.path("")).stdin(Stdio::piped());
    let mut agent = agent
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Rounds in which the other pair is sent something, and rounds in which it is not.
    for number in 1..=3 {
        append(&place, &number.to_string());
        for _ in 0..600 {
            if mail(&place, "other") >= number {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(mail(&place, "other") >= number, "the other pair is served");
    }
    drop(agent.stdin.take());
    let ended = agent.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    let log = fs::read_to_string(place.path("agent.log")).unwrap();
    assert_eq!(log.matches("keys/shop is damaged").count(), 1, "{log}");
    assert_eq!(mail(&place, "shop"), 0);
}
