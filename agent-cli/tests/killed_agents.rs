//! Receive, scan and send of two sites as six processes, started in any order, each killed with SIGKILL
//! and started again at random while both sites commit: afterwards every transaction is at the other
//! site once, whole and in order (R1, R2, Q1).
//!
//! The witness is this process: what `append` acknowledged, in the order of its own log. Agents'
//! counters are asked nothing. `MILEPOST_SECONDS` sets how long the killing goes on, default 8; `MILEPOST_SEED` repeats the choices of a run.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods
)]

mod running;

use std::time::{Duration, Instant};

use running::Place;
use running::chance::Chance;
use running::process::Process;
use serde_json::Value;

fn two_sites() -> Place {
    let place = Place::with_store("hq");
    place.run(&["init", "shop", "--site", "shop"]).ok();
    let link = format!("file://{}", place.path("link").display());
    std::fs::create_dir(place.path("link")).unwrap();
    for (own, other, stream) in [("hq", "shop", "orders"), ("shop", "hq", "reports")] {
        let pattern = format!("{stream}/**");
        place
            .run(&["publication", "add", own, stream, "--streams", &pattern])
            .ok();
        let mut remote = vec!["remote", "add", own, other, "--send-every", "1s", "--link", &link];
        if own == "shop" {
            remote.push("--consolidated");
        }
        place.run(&remote).ok();
        place
            .run(&[
                "subscription",
                "add",
                own,
                "--remote",
                other,
                "--publication",
                stream,
            ])
            .ok();
    }
    place
}

/// Payloads of a site's events that came from `origin`, in log order.
fn payloads(place: &Place, site: &str, origin: &str, streams: &str) -> Vec<u64> {
    let lines = place
        .run(&["export", site, "--origin", origin, "--streams", streams])
        .json();
    let events = lines.iter().flat_map(|line| line["events"].as_array().unwrap());
    events
        .map(|event: &Value| event["payload"].as_u64().unwrap())
        .collect()
}

/// All phases of both sites, started in a random order.
fn six_agents(place: &Place, chance: &mut Chance) -> Vec<Process> {
    let phases = |site| ["-r", "-i", "-s"].map(|phase| Process::phase(site, phase, &[]));
    let mut waiting: Vec<Process> = ["hq", "shop"].into_iter().flat_map(phases).collect();
    let mut agents = Vec::new();
    while !waiting.is_empty() {
        let mut chosen = waiting.swap_remove(chance.below(waiting.len()));
        chosen.start(place);
        agents.push(chosen);
    }
    agents
}

#[test]
fn six_phase_processes_killed_at_random_lose_and_double_nothing() {
    let seconds = std::env::var("MILEPOST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8);
    let place = two_sites();
    let mut chance = Chance::new();
    println!("MILEPOST_SEED={}", chance.seed);
    let mut agents = six_agents(&place, &mut chance);
    let (started, mut committed, mut kills) = (Instant::now(), 0u64, 0);
    while started.elapsed() < Duration::from_secs(seconds) {
        for (site, stream) in [("hq", "orders/1"), ("shop", "reports/1")] {
            let data = committed.to_string();
            place
                .run(&["append", site, stream, "--kind", "noted", "--data", &data])
                .ok();
        }
        committed += 1;
        let victim = chance.below(agents.len());
        agents[victim].kill();
        kills += 1;
        std::thread::sleep(Duration::from_millis(chance.below(120) as u64));
        agents[victim].start(&place);
    }
    agents.iter_mut().for_each(Process::kill);
    assert!(
        kills > 5 && committed > 5,
        "{kills} kills, {committed} commits: too busy a machine to prove anything"
    );
    for _ in 0..4 {
        for site in ["hq", "shop"] {
            place.run(&["agent", site, "-b", "-q"]).ok();
        }
    }
    let expected: Vec<u64> = (0..committed).collect();
    assert_eq!(
        payloads(&place, "shop", "hq", "orders/**"),
        expected,
        "after {kills} kills"
    );
    assert_eq!(
        payloads(&place, "hq", "shop", "reports/**"),
        expected,
        "after {kills} kills"
    );
    for site in ["hq", "shop"] {
        place.run(&["verify", site]).ok();
    }
}

#[test]
fn a_batch_send_waits_for_its_marker_to_come_through_another_process_that_scans() {
    let place = two_sites();
    let mut scan = Process::phase("hq", "-i", &[]);
    place
        .run(&["append", "hq", "orders/1", "--kind", "noted", "--data", "7"])
        .ok();
    scan.start(&place);
    // Without -i: the marker can come through only because the other process scans.
    place.run(&["agent", "hq", "-s", "-b", "-q"]).ok();
    scan.kill();
    place.run(&["agent", "shop", "-r", "-b", "-q"]).ok();
    assert_eq!(payloads(&place, "shop", "hq", "orders/**"), [7]);
}
