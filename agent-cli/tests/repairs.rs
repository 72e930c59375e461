//! repair and dump of damaged stores from the command line, with their exit codes.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod running;

use running::Place;
use serde_json::Value;

const LOG: &str = "shop/log/0000000000000000.log";

/// A closed store with three transactions, and the LSN of each.
fn shop() -> (Place, Vec<u64>) {
    let place = Place::with_store("shop");
    let lsns = ["\"first\"", "\"second\"", "\"third\""].map(|data| {
        let words = [
            "append", "shop", "orders/7", "--kind", "k", "--data", data, "--json",
        ];
        place.run(&words).one()["lsn"].as_u64().unwrap()
    });
    (place, lsns.to_vec())
}

fn change(place: &Place, text: &str) {
    let mut bytes = std::fs::read(place.path(LOG)).unwrap();
    let at = bytes
        .windows(text.len())
        .position(|piece| piece == text.as_bytes())
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(place.path(LOG), bytes).unwrap();
}

fn lines(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of<'a>(lines: &'a [Value], what: &str) -> Vec<&'a Value> {
    lines.iter().filter_map(|line| line.get(what)).collect()
}

#[test]
fn without_a_choice_nothing_is_changed_and_what_each_would_lose_is_told() {
    let (place, lsns) = shop();
    assert!(place.run(&["repair", "shop"]).ok().contains("nothing is damaged"));
    change(&place, "second");
    let before = std::fs::read(place.path(LOG)).unwrap();
    let ran = place.run(&["repair", "shop", "--json"]);
    let told = lines(&ran.out);
    assert!(ran.fails(6).contains("--cut or --isolate"));
    assert_eq!(of(&told, "damage").len(), 1);
    assert_eq!(of(&told, "lost")[0]["lsn"], lsns[1]);
    assert_eq!(of(&told, "lost")[0]["streams"]["orders/7"], 1);
    let choices = of(&told, "choices")[0];
    assert_eq!(choices["cut"]["transactions"], 2);
    assert_eq!(choices["isolate"]["transactions"], 1);
    assert_eq!(std::fs::read(place.path(LOG)).unwrap(), before);
    place.run(&["repair", "shop", "--cut", "--isolate"]).fails(2);
}

#[test]
fn isolating_keeps_what_is_good_behind_and_cutting_does_not() {
    for (how, left) in [("--isolate", vec!["first", "third"]), ("--cut", vec!["first"])] {
        let (place, lsns) = shop();
        change(&place, "second");
        place.run(&["stat", "shop"]).fails(6);
        let verified = place.run(&["verify", "shop", "--json"]);
        assert_eq!(
            of(&[serde_json::from_str(&verified.out).unwrap()], "damage")[0]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        verified.fails(6);
        let told = place.run(&["repair", "shop", how, "--json"]).json();
        assert_eq!(of(&told, "lost")[0]["lsn"], lsns[1]);
        assert_eq!(of(&told, "repaired").len(), 1);
        let events = place.run(&["read", "shop", "orders/7", "--json"]).json();
        assert_eq!(events.len(), left.len());
        for (event, text) in events.iter().zip(left) {
            assert!(event["payload"].to_string().contains(text), "{event}");
        }
        place.run(&["verify", "shop"]).ok();
        place
            .run(&["append", "shop", "orders/7", "--kind", "k", "--data", "4"])
            .ok();
        let kept = std::fs::read_dir(place.path("shop/damaged")).unwrap();
        let texts = kept.filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|end| end == "txt")
        });
        assert!(texts.count() >= 1);
    }
}

#[test]
fn dump_reads_on_behind_damage_and_shows_what_the_damaged_bytes_seem_to_hold() {
    let (place, lsns) = shop();
    let whole = place.run(&["dump", "shop", "--json"]).json();
    change(&place, "second");
    let ran = place.run(&["dump", "shop", "--json"]);
    let told = lines(&ran.out);
    assert!(ran.fails(6).contains("1 damaged range"));
    assert_eq!(of(&told, "frame").len() + 1, of(&whole, "frame").len());
    assert_eq!(of(&told, "lost")[0]["lsn"], lsns[1]);
    assert!(of(&told, "frame").iter().any(|frame| frame["lsn"] == lsns[2]));
    let text = place.run(&["dump", "shop"]);
    assert!(
        text.out.contains("DAMAGED") && text.out.contains("lost?"),
        "{}",
        text.out
    );
    text.fails(6);
}

#[test]
fn dump_shows_backups_the_queue_and_index_files() {
    let (place, _) = shop();
    place
        .run(&["publication", "add", "shop", "orders", "--streams", "orders/**"])
        .ok();
    place
        .run(&["remote", "add", "shop", "hq", "--link", "file:///nowhere"])
        .ok();
    let subscribe = [
        "subscription",
        "add",
        "shop",
        "--remote",
        "hq",
        "--publication",
        "orders",
    ];
    place.run(&subscribe).ok();
    place
        .run(&["append", "shop", "orders/8", "--kind", "k", "--data", "4"])
        .ok();
    place.run(&["agent", "shop", "-b", "--scan"]).ok();
    let queue = place.run(&["dump", "shop", "--queue", "--json"]).json();
    assert!(
        of(&queue, "block")
            .iter()
            .any(|block| block["scanned_through"].as_u64() > Some(0))
    );
    assert_eq!(
        of(&queue, "frame")
            .iter()
            .filter(|frame| frame["kind"] == "queue")
            .count(),
        1
    );
    place.run(&["backup", "shop", "copy"]).ok();
    let of_copy = place.run(&["dump", "copy", "--json"]).json();
    let of_store = place.run(&["dump", "shop", "--json"]).json();
    let (copied, frames) = (of(&of_copy, "frame"), of(&of_store, "frame"));
    let (note, before) = frames.split_last().unwrap();
    assert_eq!(copied, before);
    assert_eq!(
        note["pinned"][0], "backup",
        "what the backup holds, for agents with -u"
    );
    assert!(
        of(&of_copy, "frame")[0]["pinned"][0]
            .as_str()
            .unwrap()
            .starts_with("epoch/")
    );
    place.run(&["dump", "copy", "--queue"]).fails(2);
    assert!(
        place.run(&["dump", "shop", "--sidecars"]).ok().is_empty(),
        "no segment is sealed yet"
    );
}
