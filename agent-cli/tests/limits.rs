//! Limits of what is kept for a remote, as an operator types and reads them.
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

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Lsn, Options, SiteName};
use milepost_replication::catalog::Catalog;
use milepost_replication::message::Point;
use milepost_replication::send::{LimitCause, SuspendedRecord};
use milepost_replication::tracking::{NOTE, PairState};
use running::Place;

fn add(place: &Place, rest: &[&str]) -> running::Ran {
    let link = format!("file://{}", place.path("link").display());
    let mut words = vec!["remote", "add", "hq", "shop", "--link", &link];
    words.extend_from_slice(rest);
    place.run(&words)
}

/// A publisher of everything, and a shop that is never there.
fn hq(limits: &[&str]) -> Place {
    let place = Place::with_store("hq");
    std::fs::create_dir_all(place.path("link")).unwrap();
    add(&place, limits).ok();
    place
        .run(&["publication", "add", "hq", "all", "--streams", "**"])
        .ok();
    subscribe(&place).ok();
    place
}

fn subscribe(place: &Place) -> running::Ran {
    let words = [
        "subscription",
        "add",
        "hq",
        "--remote",
        "shop",
        "--publication",
        "all",
    ];
    place.run(&words)
}

fn append(place: &Place, bytes: usize) {
    let data = format!("\"{}\"", "x".repeat(bytes));
    let words = ["append", "hq", "orders/1", "--kind", "placed", "--data", "@-"];
    place.run_with(&words, &data, &[]).ok();
}

#[test]
fn limits_are_set_changed_and_listed_and_nonsense_is_refused() {
    let place = hq(&[
        "--limit-bytes",
        "10G",
        "--limit-age",
        "30d",
        "--at-limit",
        "suspend",
    ]);
    let listed = place.run(&["remote", "list", "hq", "--json"]).one();
    assert_eq!(listed["limit_bytes"], 10_u64 << 30);
    assert_eq!(listed["limit_age"], 30 * 86_400);
    assert_eq!(listed["at_limit"], "suspend");
    let text = place.run(&["remote", "list", "hq"]).ok();
    assert!(
        text.contains("keeps at most 10G bytes and 30d for it, suspended at the limit"),
        "{text}"
    );
    add(&place, &["--limit-age", "12h", "--replace"]).ok();
    let listed = place.run(&["remote", "list", "hq", "--json"]).one();
    assert!(listed["limit_bytes"].is_null());
    assert_eq!(
        (&listed["limit_age"], &listed["at_limit"]),
        (&43_200.into(), &"hold".into())
    );
    add(&place, &["--replace"]).ok();
    let text = place.run(&["remote", "list", "hq"]).ok();
    assert!(!text.contains("keeps"), "{text}");
    for (words, code) in [
        (&["--limit-bytes", "0"][..], 2),
        (&["--limit-age", "0"], 2),
        (&["--at-limit", "suspend"], 2),
        (&["--at-limit", "stop"], 2),
        (&["--limit-bytes", "much"], 2),
    ] {
        let words = [words, &["--replace"]].concat();
        add(&place, &words).fails(code);
    }
}

/// A run tells it, the next does not; `status` does, and so does a hook.
#[test]
fn a_remote_near_its_limit_is_told_by_the_agent_once_by_status_and_to_a_hook() {
    let place = hq(&["--limit-bytes", "1M"]);
    place.write("hook", "#!/bin/sh\nexec cat >> heard\n");
    place.run(&["agent", "hq", "-b"]).ok();
    let facts = place.run(&["status", "hq", "--json"]).one();
    assert_eq!(facts["remotes"][0]["limit"]["state"], "fine");
    append(&place, 800_000);
    let hook = place.path("hook");
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let agent = ["agent", "hq", "-b", "--hook", hook.to_str().unwrap()];
    let first = place.run(&agent);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.err.contains("comes near its limit"), "{}", first.err);
    let second = place.run(&agent);
    assert!(!second.err.contains("near its limit"), "once: {}", second.err);
    let heard = std::fs::read_to_string(place.path("heard")).unwrap();
    let told: Vec<&str> = heard
        .lines()
        .filter(|line| line.contains("remote-limit"))
        .collect();
    assert_eq!(told.len(), 1, "{heard}");
    let told: serde_json::Value = serde_json::from_str(told[0]).unwrap();
    assert_eq!(
        (&told["remote"], &told["state"]),
        (&"shop".into(), &"near".into())
    );
    assert_eq!(told["limit_bytes"], 1 << 20);
    let facts = place.run(&["status", "hq", "--json"]).one();
    let limit = &facts["remotes"][0]["limit"];
    assert_eq!(
        (&limit["state"], &limit["percent"]),
        (&"near".into(), &told["percent"])
    );
    // The scan notes its position in the queue, too.
    assert!(
        limit["kept_bytes"].as_u64() >= told["kept_bytes"].as_u64(),
        "{limit}"
    );
    assert!(
        limit["oldest"].is_i64() && limit["limit_age"].is_null(),
        "{limit}"
    );
    let text = place.run(&["status", "hq"]).ok();
    let line = text.lines().find(|line| line.contains("NEAR LIMIT")).unwrap();
    assert!(
        line.contains("of 1048576 bytes, the oldest due since 2"),
        "{line}"
    );
    append(&place, 800_000);
    let third = place.run(&["agent", "hq", "-b"]);
    assert!(third.err.contains("has reached its limit"), "{}", third.err);
    assert!(place.run(&["status", "hq"]).ok().contains("AT LIMIT"));
}

/// Pins what a send phase writes that suspends a remote.
fn suspend(place: &Place) {
    let store = Options::new().open(place.path("hq")).unwrap();
    let shop: SiteName = "shop".parse().unwrap();
    let added = Catalog::load(&store).unwrap().remote(&shop).unwrap().added;
    let record = SuspendedRecord {
        added,
        since: store.clock().wall_micros(),
        cause: LimitCause::Bytes,
        kept: 2 << 20,
        limit: 1 << 20,
        confirmed: Point::NONE,
        scanned: Lsn(77),
    };
    let mut note = NewFrame::of_kind(NOTE, Vec::new());
    note.pin(record.pin(&shop).unwrap());
    store.append_frames(vec![note], Durability::Synced).unwrap();
    store.close().unwrap();
}

#[test]
fn a_suspended_remote_is_shown_ends_runs_with_5_and_comes_back_by_being_added_again() {
    let place = hq(&["--limit-bytes", "1M", "--at-limit", "suspend"]);
    append(&place, 100);
    suspend(&place);
    let text = place.run(&["status", "hq"]).ok();
    let line = text.lines().find(|line| line.contains("SUSPENDED")).unwrap();
    for word in [
        "since 2",
        "2097152 bytes were kept",
        "confirmed nothing",
        "milepost resync",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let facts = place.run(&["status", "hq", "--json"]).one();
    let limit = &facts["remotes"][0]["limit"];
    assert_eq!(
        (&limit["state"], &limit["kept_bytes"]),
        (&"suspended".into(), &0.into())
    );
    assert_eq!(limit["suspended"]["scanned"], 77);
    for words in [&["agent", "hq", "-b"][..], &["agent", "hq", "--send-now", "shop"]] {
        let ran = place.run(words);
        assert_eq!(ran.code, 5, "{}", ran.err);
        assert!(ran.err.contains("remote shop is suspended"), "{}", ran.err);
    }
    let mail = place.path("link/shop");
    assert!(!mail.exists(), "nothing is sent to it");
    let refused = subscribe(&place);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("is suspended"), "{}", refused.err);
    let bundle = place.run(&["bundle", "export", "hq", "--remote", "shop", "--to", "link"]);
    assert_eq!(bundle.code, 5, "{}", bundle.err);
    let id = place.run(&["subscription", "list", "hq", "--json"]).one()["id"].to_string();
    place.run(&["subscription", "remove", "hq", "--id", &id]).ok();
    place.run(&["remote", "remove", "hq", "shop"]).ok();
    add(&place, &[]).ok();
    let beginning = [
        "subscription",
        "add",
        "hq",
        "--remote",
        "shop",
        "--publication",
        "all",
        "--from",
        "beginning",
    ];
    place.run(&beginning).ok();
    place.run(&["agent", "hq", "-b"]).ok();
    assert_eq!(
        std::fs::read_dir(mail).unwrap().count(),
        1,
        "all that the log has"
    );
}
