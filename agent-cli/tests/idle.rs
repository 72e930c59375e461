//! Agents that have nothing to do sleep, and what comes wakes them at once, however long they would sleep.
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

use std::time::Duration;

use running::Place;
use running::process::Process;

/// Longer than any test.
const HOURS: [&str; 4] = ["-rd", "9h", "-sd", "9h"];

/// How often threads of a process let go of the processor by themselves.
fn waits(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let each = tasks.map(|task| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    });
    each.sum()
}

/// Head office and a shop that is due everything, over a folder, each sent to so often.
fn sites(every: &str) -> Place {
    let place = Place::new();
    let link = format!("file://{}", place.path("link").display());
    std::fs::create_dir_all(place.path("link")).unwrap();
    for (site, other) in [("hq", "shop"), ("shop", "hq")] {
        place.run(&["init", site, "--site", site]).ok();
        let remote = [
            "remote",
            "add",
            site,
            other,
            "--link",
            &link,
            "--send-every",
            every,
        ];
        place.run(&remote).ok();
    }
    place
        .run(&["publication", "add", "hq", "all", "--streams", "**"])
        .ok();
    let words = [
        "subscription",
        "add",
        "hq",
        "--remote",
        "shop",
        "--publication",
        "all",
    ];
    place.run(&words).ok();
    place
}

fn append(place: &Place, data: &str) {
    place
        .run(&["append", "hq", "orders/1", "--kind", "placed", "--data", data])
        .ok();
}

/// Files that wait for a site.
fn mail(place: &Place, site: &str) -> usize {
    std::fs::read_dir(place.path("link").join(site)).map_or(0, Iterator::count)
}

fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

/// It looked ten times a second for a minute, and once a second from then on, in each of two phases.
#[test]
fn an_agent_with_nothing_to_do_is_not_woken_by_itself() {
    for every in ["9h", "0"] {
        let place = sites(every);
        append(&place, "1");
        let mut agent = Process::new("agent", &[&["agent", "hq"], &HOURS[..]].concat());
        agent.start(&place);
        eventually("it sends", || mail(&place, "shop") == 1);
        let id = agent.id().unwrap();
        // It settles: what it did last is no idleness.
        let settled = |before: u64| {
            std::thread::sleep(Duration::from_secs(1));
            let now = waits(id);
            (now == before, now)
        };
        let mut seen = waits(id);
        eventually("it rests for a second", || {
            let (rests, now) = settled(seen);
            seen = now;
            rests
        });
        std::thread::sleep(Duration::from_secs(4));
        let woken = waits(id) - seen;
        assert!(woken < 4, "{woken} times in four seconds, sent to every {every}");
        assert_eq!(agent.leave(), Some(0), "who is asked to leave is woken");
    }
}

#[test]
fn who_is_sent_to_at_once_gets_what_is_durable_and_confirms_it_though_nobody_looks_for_hours() {
    let place = sites("0");
    let words = |phases: &[&'static str]| [&["agent", "hq"], phases, &HOURS[..]].concat();
    let mut agents = [&["-i"][..], &["-s"]].map(|phase| Process::new("agent", &words(phase)));
    agents.iter_mut().for_each(|agent| agent.start(&place));
    for number in 1..=3 {
        append(&place, "1");
        eventually("it is sent", || mail(&place, "shop") >= number);
    }
    let receives = ["agent", "shop", "-r", "-rd", "9h", "-sd", "9h"];
    let sends = ["agent", "shop", "-s", "-rd", "9h", "-sd", "9h"];
    let mut shop = [&receives[..], &sends].map(|words| Process::new("shop", words));
    shop.iter_mut().for_each(|agent| agent.start(&place));
    eventually("it is confirmed", || mail(&place, "hq") > 0);
    for agent in agents.iter_mut().chain(&mut shop) {
        assert_eq!(agent.leave(), Some(0), "{}", agent.last_words());
    }
    let read = place.run(&["read", "shop", "orders/1", "--json"]).json();
    assert_eq!(read.len(), 3);
}
