//! A site that went back, from the command line: it is found, told with the ways on, and goes on by one command.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod running;

use running::Place;

/// A head office and a shop, each of which has what the other commits; the shop is restored from a backup that lacks `lost`.
fn parted() -> Place {
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
