//! Messages of several senders are decoded by one thread or by many (`-w`): what is applied, and every byte of the log, is the same
//! (R1, R4).
//!
//! The trap: three senders, of which one passes on what another sends too, so that the same transaction comes over both in one poll;
//! messages in a random order, some lost and brought by a later poll, some twice, some damaged. A store and its copy take the same, with one worker
//! and with eight.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

#[path = "model/chance.rs"]
#[allow(dead_code)]
mod chance;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chance::Chance;
use milepost_engine::Options;
use milepost_engine::clock::{Clock, SystemClock};
use milepost_replication::agent::{AgentOptions, ExitCode, Stop, run_on};
use milepost_replication::catalog::Start;
use milepost_replication::receive::{ReceiveOptions, ReceivePhase, Received};
use milepost_replication::tracking::PollCause;
use support::*;

/// A wall clock that stands, so that times in two logs are alike.
struct Still;

impl Clock for Still {
    fn wall_micros(&self) -> i64 {
        1_700_000_000_000_000
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn sleep(&self, pause: Duration) {
        SystemClock.sleep(pause);
    }
}

/// The head, a hub that passes its orders on, a third one, and the shop that all three send to.
struct Sites {
    dir: tempfile::TempDir,
    senders: [Site; 3],
    shop: Site,
    net: Net,
}

fn sites() -> Sites {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let senders = ["head", "hub", "north"].map(|site| Site::new(dir.path(), site, &net));
    let shop = Site::new(dir.path(), "shop", &net);
    senders[0].remote("hub");
    senders[1].remote("head");
    senders[0].publish("all", "**", None);
    senders[0].subscribe("hub", "all", None, Start::Now);
    senders[1].publish("all", "**", None);
    senders[2].publish("all", "**", None);
    for sender in &senders {
        sender.remote("shop");
        sender.subscribe("shop", "all", None, Start::Now);
        shop.remote(sender.store.site().as_str());
    }
    Sites {
        dir,
        senders,
        shop,
        net,
    }
}

impl Sites {
    /// What the three send to the shop, as it comes.
    fn mail(&mut self, transactions: usize, bytes: usize) -> Vec<Vec<u8>> {
        for sender in &mut self.senders {
            sender.message_bytes = 10_000;
        }
        for number in 0..transactions {
            for sender in [&self.senders[0], &self.senders[2]] {
                let payload = format!("{number}-{}", large(bytes));
                sender.commit(&[("orders/1", &payload), ("orders/2", "x")]);
            }
        }
        for _ in 0..2 {
            self.senders.iter().for_each(Site::turn);
        }
        self.net.steal("shop")
    }
}

fn still(seed: u64) -> Options {
    let options = options().background(false).clock(Arc::new(Still));
    options.rng(Arc::new(Chance::new(seed)))
}

/// Receives all of it in three polls, with so many workers; what was received, and the log's bytes.
fn taken(root: &Path, polls: &[Vec<Vec<u8>>], workers: u32) -> (Vec<Received>, Vec<u8>) {
    let net = Net::default();
    let store = still(7).open(root).unwrap();
    let site = Site {
        store,
        net: net.clone(),
        runtime: Arc::new(tokio::runtime::Runtime::new().unwrap()),
        message_bytes: 50_000,
        only_backed_up: false,
        root: root.to_path_buf(),
    };
    let (stop, options) = (Stop::new(), site.receive_options());
    let options = ReceiveOptions {
        memory: 64 << 20,
        ..options
    };
    let phase = ReceivePhase::open(&site.store, &site.links(&stop), options, &stop).unwrap();
    let mut phase = phase.with_workers(workers);
    let mut received = Vec::new();
    for messages in polls {
        messages
            .iter()
            .for_each(|message| net.put("shop", message.clone()));
        received.push(phase.poll(PollCause::Due).unwrap());
    }
    drop(phase);
    assert_nothing_doubled(&site);
    site.store.close().unwrap();
    let log = std::fs::read(root.join("log/0000000000000000.log")).unwrap();
    (received, log)
}

#[test]
fn with_one_worker_and_with_eight_the_logs_are_the_same_byte_for_byte() {
    for seed in 1..4 {
        let mut sites = sites();
        let mail = sites.mail(12, 3_000);
        assert!(mail.len() > 12, "{}", mail.len());
        let (chance, mut polls) = (Chance::new(seed), vec![Vec::new(), Vec::new(), Vec::new()]);
        for message in mail {
            let poll = chance.below(3) as usize;
            let mut damaged = message.clone();
            damaged[40] ^= 4;
            match chance.below(6) {
                0 => polls[0].push(damaged),
                1 => polls[0].push(message.clone()),
                _ => {}
            }
            let at = chance.below(polls[poll].len() as u64 + 1) as usize;
            polls[poll].insert(at, message);
        }
        let (root, twin) = (sites.shop.root.clone(), sites.dir.path().join("twin"));
        sites.shop.store.close().unwrap();
        copy(&root, &twin);
        let (alone, log) = taken(&root, &polls, 1);
        let (many, same) = taken(&twin, &polls, 8);
        assert_eq!(format!("{alone:?}"), format!("{many:?}"));
        let transactions: u64 = alone.iter().map(|one| one.transactions).sum();
        assert_eq!(transactions, 24, "what came over two ways is applied once");
        let other = log.iter().zip(&same).position(|(one, other)| one != other);
        assert_eq!(
            (other, log.len()),
            (None, same.len()),
            "seed {seed}: first byte that differs"
        );
    }
}

#[test]
fn an_agent_takes_as_many_workers_as_it_is_told_and_no_senseless_number() {
    let mut sites = sites();
    sites
        .mail(3, 100)
        .into_iter()
        .for_each(|message| sites.net.put("shop", message));
    let options = AgentOptions {
        workers: Some(3),
        batch: true,
        ..AgentOptions::default()
    };
    assert_eq!(options.workers(), 3);
    assert!(AgentOptions::default().workers() >= 1);
    for workers in [0, 65, u32::MAX] {
        let refused = AgentOptions {
            workers: Some(workers),
            ..AgentOptions::default()
        };
        assert!(refused.check().unwrap_err().to_string().contains("-w"));
    }
    let stop = Stop::new();
    let exit = run_on(&sites.shop.store, &sites.shop.links(&stop), &options, &stop);
    assert_eq!(exit.code, ExitCode::Done, "{:?}", exit.message);
    assert_eq!(sites.shop.received().len(), 6);
}

/// Prints how long the same mail takes with 1, 2 and 4 workers: `cargo test --release -p milepost-replication --test workers -- --ignored
/// --nocapture`. What it prints is in docs/performance.md.
#[test]
#[ignore = "measures, and asserts nothing"]
fn how_long_several_senders_take_by_workers() {
    let mut sites = sites();
    for sender in &mut sites.senders {
        sender.message_bytes = 50_000;
    }
    let payload = |number: usize| format!("{number:0128}");
    for sender in &sites.senders {
        for number in 0..20_000 {
            let payloads: Vec<String> = (0..10).map(|part| payload(number * 10 + part)).collect();
            let events: Vec<(&str, &str)> = payloads.iter().map(|one| ("till/1", one.as_str())).collect();
            let mut transaction = milepost_engine::Transaction::new();
            for (stream, payload) in events {
                transaction.push_parts(stream, "k", payload.as_bytes()).unwrap();
            }
            let _ = sender
                .store
                .commit_with(transaction, milepost_engine::Durability::Buffered)
                .unwrap();
        }
        sender.store.sync().unwrap();
        sender.scan();
        sender.send();
    }
    let mail = sites.net.steal("shop");
    let bytes: usize = mail.iter().map(Vec::len).sum();
    println!("{} messages, {bytes} bytes", mail.len());
    let kept = sites.dir.path().join("kept");
    let root = sites.shop.root.clone();
    sites.shop.store.close().unwrap();
    copy(&root, &kept);
    for round in 0..3 {
        for workers in [1, 2, 4] {
            let here = sites.dir.path().join(format!("{round}-{workers}"));
            copy(&kept, &here);
            let began = SystemClock.monotonic();
            let (received, _) = taken(&here, std::slice::from_ref(&mail), workers);
            let seconds = (SystemClock.monotonic() - began).as_secs_f64();
            let events = received[0].transactions * 10;
            println!(
                "workers {workers}: {seconds:.2} s, {:.0} events/s",
                events as f64 / seconds
            );
        }
    }
}
