//! The agent as one process or as three, in batch and side by side.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use milepost_engine::{Phase, Store};
use milepost_replication::agent::{
    AgentOptions, Exit, ExitCode, Links, OpenLink, Stop, link_opener, run, run_on,
};
use milepost_replication::catalog::{Definitions, NewRemote, Schedule, Start};
use milepost_replication::link::{Batch, Link, LinkError, LinkFuture, MessageId, PollRequest};
use support::*;

fn pair(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    for (one, other) in [(&head, "shop"), (&shop, "head")] {
        one.remote(other);
        one.publish("all", "**", None);
        one.subscribe(other, "all", None, Start::Now);
    }
    (dir, head, shop)
}

#[test]
fn batch_does_everything_once_and_exits_0() {
    let (_dir, head, shop) = pair(&Net::default());
    head.commit(&[("s/1", "a")]);
    assert_eq!(
        run_here(&head, &batch(false, false, false), &Stop::new()),
        Exit::DONE
    );
    assert_eq!(
        run_here(&shop, &batch(false, false, false), &Stop::new()),
        Exit::DONE
    );
    assert_eq!(shop.payloads(), ["a"]);
}

#[test]
fn a_second_process_for_a_phase_is_refused_with_3_and_the_holder() {
    let (_dir, head, _shop) = pair(&Net::default());
    let other: Store = options().open(&head.root).unwrap();
    let _held = other.lock_phase(Phase::Scan).unwrap();
    let exit = run_here(&head, &batch(false, false, false), &Stop::new());
    assert_eq!(exit.code, ExitCode::PhaseHeld);
    let message = exit.message.unwrap();
    assert!(
        message.contains("scan") && message.contains(&std::process::id().to_string()),
        "{message}"
    );
    // The phases that are free can be had.
    assert_eq!(
        run_here(&head, &batch(true, false, false), &Stop::new()),
        Exit::DONE
    );
}

#[test]
fn batch_send_without_a_scanner_sends_what_is_queued_and_exits_1() {
    let (_dir, head, shop) = pair(&Net::default());
    head.commit(&[("s/1", "queued")]);
    head.scan();
    head.commit(&[("s/1", "not scanned")]);
    let options = AgentOptions {
        marker_wait: Duration::from_millis(50),
        ..batch(false, false, true)
    };
    let exit = run_here(&head, &options, &Stop::new());
    assert_eq!(exit.code, ExitCode::Failed);
    assert!(exit.message.unwrap().contains("no process runs the scan phase"));
    shop.receive();
    assert_eq!(shop.payloads(), ["queued"]);
}

#[test]
fn batch_send_waits_for_its_marker_while_another_process_scans() {
    let (_dir, head, shop) = pair(&Net::default());
    let other: Store = options().open(&head.root).unwrap();
    let (stop, links) = (Stop::new(), head.links(&Stop::new()));
    std::thread::scope(|scope| {
        let leave = Leave(&stop);
        let scanning = scope.spawn(|| run_on(&other, &links, &quick(false, true, false), &stop));
        eventually("the scan holds its phase", || {
            head.store.phase_holder(Phase::Scan).unwrap().is_some()
        });
        for number in 0..20 {
            head.commit(&[("s/1", &number.to_string())]);
            // All that was committed before is sent: that is what the marker is for.
            assert_eq!(
                run_here(&head, &batch(false, false, true), &Stop::new()),
                Exit::DONE
            );
            shop.receive();
            assert_eq!(shop.payloads().len(), number + 1);
        }
        drop(leave);
        assert_eq!(scanning.join().unwrap(), Exit::DONE);
    });
}

#[test]
fn three_processes_each_stopped_and_started_again_lose_and_double_nothing() {
    let (_dir, head, shop) = pair(&Net::default());
    let sites = [&head, &shop];
    let done = Stop::new();
    std::thread::scope(|scope| {
        let leave = Leave(&done);
        for (number, phases) in [(true, false, false), (false, true, false), (false, false, true)]
            .into_iter()
            .enumerate()
        {
            for site in sites {
                let done = &done;
                scope.spawn(move || {
                    let mut round = 0;
                    while !done.is_requested() {
                        // A handle of its own, as another process has, for a random-looking while.
                        let store: Store = options().open(&site.root).unwrap();
                        let stop = Stop::new();
                        let links = site.links(&stop);
                        let exit = std::thread::scope(|inner| {
                            let agent = inner.spawn(|| {
                                run_on(&store, &links, &quick(phases.0, phases.1, phases.2), &stop)
                            });
                            std::thread::sleep(Duration::from_millis(
                                30 + (round * 37 + u64::try_from(number).unwrap() * 53) % 90,
                            ));
                            stop.request();
                            agent.join().unwrap()
                        });
                        assert_eq!(exit, Exit::DONE);
                        round += 1;
                    }
                });
            }
        }
        for number in 0..200 {
            for site in sites {
                site.commit(&[("s/1", &number.to_string())]);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eventually("all came", || {
            sites.iter().all(|site| site.received().len() >= 200)
        });
        drop(leave);
    });
    let expected: Vec<String> = (0..200).map(|number: u32| number.to_string()).collect();
    for site in sites {
        assert_eq!(site.payloads(), expected, "at {}", site.store.site());
        assert_nothing_doubled(site);
    }
}

#[test]
fn side_by_side_a_commit_reaches_the_other_site_and_a_stop_ends_with_0() {
    let (_dir, head, shop) = pair(&Net::default());
    let stop = Stop::new();
    std::thread::scope(|scope| {
        let leave = Leave(&stop);
        let both = [&head, &shop].map(|site| {
            let stop = stop.clone();
            scope.spawn(move || run_here(site, &quick(false, false, false), &stop))
        });
        let lsn = head.commit(&[("s/1", "hello")]);
        eventually("it came", || shop.payloads() == ["hello"]);
        eventually("it was confirmed and freed", || {
            let status = milepost_replication::status::status(&head.store, &mut |_| ()).unwrap();
            let remote = &status.remotes[0];
            remote.lag_transactions == 0 && remote.confirm_sent.contains(&format!("/{lsn}/"))
        });
        drop(leave);
        both.into_iter()
            .for_each(|agent| assert_eq!(agent.join().unwrap(), Exit::DONE));
    });
}

#[test]
fn a_remote_without_a_schedule_makes_every_sending_process_a_batch_run() {
    let (_dir, head, shop) = pair(&Net::default());
    let unscheduled = NewRemote {
        site: name("shop"),
        links: vec!["memory://".to_owned()],
        schedule: Schedule::None,
        consolidated: false,
        on_error: Default::default(),
        limits: Default::default(),
    };
    Definitions::new(&head.store)
        .add_remote(unscheduled, true)
        .unwrap();
    head.commit(&[("s/1", "a")]);
    // It returns by itself, though nobody asked for a batch run.
    assert_eq!(
        run_here(&head, &quick(false, false, false), &Stop::new()),
        Exit::DONE
    );
    shop.receive();
    assert_eq!(shop.payloads(), ["a"]);
}

#[test]
fn the_whole_agent_works_over_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (mail, net) = (dir.path().join("mail"), Net::default());
    std::fs::create_dir(&mail).unwrap();
    let roots = ["head", "shop"].map(|site| {
        let site = Site::new(dir.path(), site, &net);
        let other = if site.store.site().as_str() == "head" {
            "shop"
        } else {
            "head"
        };
        let remote = NewRemote {
            site: name(other),
            on_error: Default::default(),
            limits: Default::default(),
            links: vec![format!("file://{}", mail.display())],
            schedule: Schedule::EverySeconds(60),
            consolidated: false,
        };
        site.definitions().add_remote(remote, false).unwrap();
        site.publish("all", "**", None);
        site.subscribe(other, "all", None, Start::Now);
        site.commit(&[("s/1", site.store.site().as_str())]);
        site.root
    });
    for _ in 0..3 {
        for root in &roots {
            let store = options().open(root).unwrap();
            let exit = run(store, &batch(false, false, false), &Stop::new());
            assert_eq!(exit, Exit::DONE);
        }
    }
    for (root, other) in roots.iter().zip(["shop", "head"]) {
        let store = options().open(root).unwrap();
        assert_eq!(
            store.stream_version("s/1").unwrap().unwrap().0,
            1,
            "its own event and that of {other}"
        );
    }
}

#[test]
fn an_address_that_leads_nowhere_is_told_and_the_other_remotes_are_served() {
    let (_dir, head, shop) = pair(&Net::default());
    let nowhere = NewRemote {
        site: name("far"),
        links: vec!["ftp://somewhere".to_owned()],
        schedule: Schedule::EverySeconds(1),
        consolidated: false,
        on_error: Default::default(),
        limits: Default::default(),
    };
    Definitions::new(&head.store).add_remote(nowhere, false).unwrap();
    head.subscribe("far", "all", None, Start::Now);
    head.commit(&[("s/1", "a")]);
    let (real, living) = (
        link_opener(&head.store, &AgentOptions::default()),
        head.net.end("head"),
    );
    let open: Box<OpenLink> = Box::new(move |addresses| {
        if addresses[0] == "memory://" {
            Ok(Arc::clone(&living))
        } else {
            real(addresses)
        }
    });
    let stop = Stop::new();
    let links = Links::new(open, &[], head.runtime.handle().clone(), stop.clone());
    let exit = run_on(&head.store, &links, &batch(false, false, false), &stop);
    assert_eq!(exit.code, ExitCode::Failed);
    assert!(exit.message.unwrap().contains("ftp://somewhere"));
    shop.receive();
    assert_eq!(shop.payloads(), ["a"]);
}

/// A link that nobody answers; it counts the rounds it was asked to begin.
#[derive(Default)]
struct Dead(AtomicUsize);

impl Link for Dead {
    fn begin_round(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn deliver<'a>(&'a self, _: &'a milepost_engine::SiteName, _: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async { Err(LinkError::unreachable("nowhere:1", "connection refused")) })
    }

    fn poll<'a>(&'a self, _: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async { Err(LinkError::unreachable("nowhere:1", "connection refused")) })
    }

    fn remove<'a>(&'a self, _: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn address(&self) -> String {
        "nowhere:1".to_owned()
    }
}

#[test]
fn links_that_can_be_reached_are_served_and_the_rest_ends_with_4() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    let dead = NewRemote {
        site: name("far"),
        links: vec!["dead://".to_owned()],
        schedule: Schedule::EverySeconds(1),
        consolidated: false,
        on_error: Default::default(),
        limits: Default::default(),
    };
    Definitions::new(&head.store).add_remote(dead, false).unwrap();
    head.subscribe("far", "all", None, Start::Now);
    head.commit(&[("s/1", "a")]);
    let living: Arc<dyn Link> = net.end("head");
    let dead = Arc::new(Dead::default());
    let asked = Arc::clone(&dead);
    let open: Box<OpenLink> = Box::new(move |addresses| {
        let link: Arc<dyn Link> = if addresses[0] == "dead://" {
            dead.clone()
        } else {
            Arc::clone(&living)
        };
        Ok(link)
    });
    let stop = Stop::new();
    let links = Links::new(open, &[], head.runtime.handle().clone(), stop.clone());
    let exit = run_on(&head.store, &links, &batch(false, false, false), &stop);
    assert_eq!(exit.code, ExitCode::NoServer);
    assert!(exit.message.unwrap().contains("nowhere:1"));
    assert_eq!(
        asked.0.load(Ordering::Relaxed),
        1,
        "one ladder of attempts for all phases of a batch run"
    );
    shop.receive();
    assert_eq!(shop.payloads(), ["a"]);
}

#[test]
fn what_is_out_of_range_is_refused_by_name_with_2() {
    let (_dir, head, _shop) = pair(&Net::default());
    for (options, named) in [
        (
            AgentOptions {
                workers: Some(0),
                ..AgentOptions::default()
            },
            "-w",
        ),
        (
            AgentOptions {
                message_bytes: 9_999,
                ..AgentOptions::default()
            },
            "-l",
        ),
    ] {
        let exit = run_here(&head, &options, &Stop::new());
        assert_eq!(exit.code, ExitCode::Usage);
        assert!(exit.message.unwrap().contains(named));
    }
}

/// Each run sent everything unconfirmed again, so an exchange folder grew by a copy of the backlog a run.
#[test]
fn batch_runs_towards_a_site_that_is_away_send_each_transaction_once() {
    let net = Net::default();
    let (_dir, head, shop) = pair(&net);
    let once = || {
        let stop = Stop::new();
        let exit = run_here(&head, &batch(false, false, false), &stop);
        assert_eq!(exit, Exit::DONE);
    };
    for number in 0..20 {
        head.commit(&[("s/1", &number.to_string())]);
        once();
    }
    let delivered = net.delivered();
    assert!(
        delivered <= 22,
        "{delivered} messages for 20 transactions and a probe or two"
    );
    // What the link lost comes once the other site is asked.
    assert!(!net.steal("shop").is_empty());
    for _ in 0..4 {
        head.commit(&[("s/1", "later")]);
        once();
        shop.turn();
    }
    once();
    shop.turn();
    let came: Vec<String> = shop.payloads().into_iter().filter(|one| one != "later").collect();
    assert_eq!(
        came,
        (0..20).map(|number: u32| number.to_string()).collect::<Vec<_>>()
    );
    assert_nothing_doubled(&shop);
}
