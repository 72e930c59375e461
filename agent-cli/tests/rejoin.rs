//! A site that went back, from the command line: it is found, told with the ways on, and goes on by one command.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod running;

use running::Place;

/// A head office and a shop, each of which has what the other commits; the shop is restored from a backup that lacks `lost`.
fn parted() -> Place {
    let place = two_sites();
    let run = |words: &[&str]| place.run(words).ok();
    run(&["backup", "shop", "backup"]);
    append(&place, "shop", "lost");
    rounds(&place, 3);
    std::fs::remove_dir_all(place.path("shop")).unwrap();
    run(&["restore", "backup", "shop"]);
    append(&place, "shop", "after");
    place.run(&["agent", "shop", "-b", "-q"]);
    let told = place.run(&["agent", "hq", "-b", "-q"]).fails(5);
    assert!(told.contains("milepost remote rejoin"), "{told}");
    place
}

/// The two, before anything happens to them.
fn two_sites() -> Place {
    let place = Place::with_store("hq");
    let run = |words: &[&str]| place.run(words).ok();
    run(&["init", "shop", "--site", "shop"]);
    let link = format!("file://{}", place.path("link").display());
    std::fs::create_dir(place.path("link")).unwrap();
    for (site, other) in [("hq", "shop"), ("shop", "hq")] {
        run(&["publication", "add", site, "all", "--streams", "**"]);
        run(&[
            "remote",
            "add",
            site,
            other,
            "--link",
            &link,
            "--send-every",
            "1m",
        ]);
        run(&[
            "subscription",
            "add",
            site,
            "--remote",
            other,
            "--publication",
            "all",
        ]);
    }
    append(&place, "shop", "one");
    append(&place, "hq", "two");
    rounds(&place, 3);
    place
}

fn append(place: &Place, site: &str, payload: &str) {
    let stream = format!("{site}/1");
    place
        .run(&[
            "append",
            site,
            &stream,
            "--kind",
            "k",
            "--data",
            &format!("\"{payload}\""),
        ])
        .ok();
}

fn rounds(place: &Place, count: usize) {
    for _ in 0..count {
        ["hq", "shop"]
            .iter()
            .for_each(|site| drop(place.run(&["agent", site, "-b", "-q"]).ok()));
    }
}

fn payloads(place: &Place, store: &str, stream: &str) -> Vec<String> {
    let all = place.run(&["read", store, stream, "--json"]).json();
    all.iter().map(|event| event["payload"].to_string()).collect()
}

#[test]
fn a_pair_that_parted_is_told_with_the_ways_on_and_goes_on_by_one_command() {
    let place = parted();
    let told = place.run(&["remote", "rejoin", "hq"]).ok();
    for part in [
        "histories have parted",
        "a transaction",
        "--again",
        "--from-beginning",
        "milepost resync hq --remote shop",
    ] {
        let part = if part == "a transaction" {
            "one transaction of its stream"
        } else {
            part
        };
        assert!(told.contains(part), "{part}: {told}");
    }
    let facts = place.run(&["remote", "rejoin", "hq", "shop", "--json"]).one();
    assert_eq!(
        (&facts["lost_there"], &facts["rejoined"]),
        (&1.into(), &serde_json::Value::Null)
    );
    assert!(facts["common"].is_string() && facts["common"] != facts["received"]);
    let made = place
        .run(&["remote", "rejoin", "hq", "--all", "--again", "--json"])
        .one();
    assert_eq!(
        made["rejoined"].as_u64(),
        made["generation"].as_u64().map(|before| before + 1)
    );
    place.run(&["agent", "shop", "-b", "-q"]);
    rounds(&place, 4);
    assert_eq!(
        payloads(&place, "hq", "shop/1").len(),
        3,
        "what the shop lost stays here"
    );
    assert_eq!(payloads(&place, "shop", "shop/1").len(), 2);
    assert_eq!(payloads(&place, "shop", "hq/1"), payloads(&place, "hq", "hq/1"));
    let nothing = place.run(&["remote", "rejoin", "hq"]).ok();
    assert!(nothing.contains("no pair is stopped"), "{nothing}");
}

#[test]
fn what_is_wrong_is_said_with_the_way_on() {
    let place = Place::with_store("hq");
    place
        .run(&["remote", "add", "hq", "shop", "--link", "bundle:"])
        .ok();
    let refused = place.run(&["remote", "rejoin", "hq", "--again"]).fails(2);
    assert!(refused.contains("--all"), "{refused}");
    let refused = place.run(&["remote", "rejoin", "hq", "nobody"]).fails(2);
    assert!(refused.contains("no remote nobody"), "{refused}");
    let refused = place.run(&["remote", "rejoin", "hq", "shop", "--again"]).fails(2);
    assert!(refused.contains("--from-beginning"), "{refused}");
    let told = place.run(&["remote", "rejoin", "hq", "shop"]).ok();
    assert!(told.contains("not stopped here"), "{told}");
}

/// The two; the shop's folder was put back from a copy that lacks `lost`, which the head office has.
fn put_back() -> Place {
    let place = two_sites();
    let copy = |from: &str, to: &str| {
        let done = std::process::Command::new("cp")
            .arg("-r")
            .args([place.path(from), place.path(to)])
            .status();
        assert!(done.unwrap().success());
    };
    copy("shop", "copy");
    append(&place, "shop", "lost");
    rounds(&place, 3);
    std::fs::remove_dir_all(place.path("shop")).unwrap();
    copy("copy", "shop");
    place
}

/// The shop's folder is put back from a copy, and its store goes on before anybody thinks of a new lineage. Said where the log ended
/// when it was put back, the pair goes on behind the last that both have.
#[test]
fn a_folder_that_was_put_back_begins_a_lineage_of_its_own_by_command() {
    let place = put_back();
    let told = place.run(&["repair", "shop", "--new-lineage"]).ok();
    assert!(
        told.contains("nothing was changed") && told.contains("--fork end"),
        "{told}"
    );
    let end = place.run(&["repair", "shop", "--new-lineage", "--json"]).json();
    let end = end.last().unwrap()["lineage"]["end"].as_u64().unwrap();
    append(&place, "shop", "after");
    place.run(&["agent", "shop", "-b", "-q"]);
    let told = place.run(&["agent", "hq", "-b", "-q"]).fails(5);
    assert!(told.contains("milepost remote rejoin"), "{told}");
    let told = place.run(&["remote", "rejoin", "hq"]).ok();
    assert!(
        told.contains("milepost repair DIR --new-lineage") && !told.contains("--again"),
        "{told}"
    );

    let lines = place.run(&["repair", "shop", "--new-lineage", "--json"]).json();
    let fork = lines
        .iter()
        .filter_map(|line| line["writer"]["first"].as_u64())
        .find(|first| *first >= end);
    assert_eq!(fork, Some(end), "who wrote first since: {lines:?}");
    let begun = place
        .run(&[
            "repair",
            "shop",
            "--new-lineage",
            "--fork",
            &end.to_string(),
            "--json",
        ])
        .one();
    let lineage = &begun["lineage"];
    assert_eq!(
        (&lineage["begun"], lineage["fork"].as_u64()),
        (&true.into(), Some(end))
    );
    assert!(lineage["end"].as_u64() > Some(end) && lineage["epoch"] != lineage["parent"]);
    let again = place
        .run(&["repair", "shop", "--new-lineage", "--fork", "end"])
        .fails(1);
    assert!(again.contains("began here already"), "{again}");

    place.run(&["agent", "shop", "-b", "-q"]);
    place.run(&["agent", "hq", "-b", "-q"]).fails(5);
    let told = place
        .run(&["remote", "rejoin", "hq", "--all", "--again", "--json"])
        .one();
    assert_eq!(told["lost_there"], 1, "{told}");
    place.run(&["agent", "shop", "-b", "-q"]);
    rounds(&place, 4);
    assert_eq!(
        payloads(&place, "hq", "shop/1"),
        ["\"one\"", "\"lost\"", "\"after\""].map(quoted)
    );
    assert_eq!(payloads(&place, "shop", "hq/1"), payloads(&place, "hq", "hq/1"));
}

#[test]
fn a_fork_is_an_lsn_or_the_end_and_belongs_to_a_new_lineage() {
    let place = Place::with_store("hq");
    for words in [
        ["repair", "hq", "--fork", "end"].as_slice(),
        &["repair", "hq", "--new-lineage", "--fork", "soon"],
        &["repair", "hq", "--new-lineage", "--cut"],
    ] {
        place.run(words).fails(2);
    }
    let beyond = place
        .run(&["repair", "hq", "--new-lineage", "--fork", "99999999"])
        .fails(2);
    assert!(beyond.contains("the log ends at"), "{beyond}");
}

/// A payload as a line of `read --json` shows it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.trim_matches('"')).to_string()
}
