//! `--send-now`: a remote is sent to at once, whatever its schedule, by whoever runs the send phase.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::time::Duration;

use milepost_engine::{Lsn, Phase, Store};
use milepost_replication::agent::{AgentOptions, Exit, ExitCode, Stop, run_on};
use milepost_replication::catalog::{NewRemote, OnError, Schedule, Start};
use milepost_replication::send::{Serve, ask_to_send, asked_to_send, sent_now};
use support::*;

/// Head office with two remotes that are sent to at a minute which is half a day away.
fn nightly(net: &Net) -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let head = Site::new(dir.path(), "head", net);
    let minute = head.store.clock().wall_micros() / 60_000_000 % 1440;
    let schedule = Schedule::AtMinute(u16::try_from((minute + 720) % 1440).unwrap());
    head.publish("all", "**", None);
    for remote in ["shop", "depot"] {
        let new = NewRemote {
            site: name(remote),
            links: vec!["memory://".to_owned()],
            schedule,
            consolidated: false,
            on_error: OnError::Stop,
            limits: Default::default(),
        };
        head.definitions().add_remote(new, false).unwrap();
        head.subscribe(remote, "all", None, Start::Now);
    }
    (dir, head)
}

fn now(remotes: &[&str]) -> AgentOptions {
    AgentOptions {
        send_now: remotes.iter().map(|remote| name(remote)).collect(),
        ..AgentOptions::default()
    }
}

#[test]
fn where_nobody_sends_this_process_scans_and_sends_to_those_who_are_named_alone() {
    let net = Net::default();
    let (_dir, head) = nightly(&net);
    head.commit(&[("s/1", "a")]);
    assert_eq!(run_here(&head, &now(&["shop"]), &Stop::new()), Exit::DONE);
    assert_eq!((net.waiting("shop"), net.waiting("depot")), (1, 0));
    eventually("the wish is fulfilled", || {
        asked_to_send(&head.store).unwrap().is_empty()
    });
    // Nothing new is due, and asking is no error.
    assert_eq!(run_here(&head, &now(&["shop"]), &Stop::new()), Exit::DONE);
    assert_eq!(net.waiting("depot"), 0);
}

#[test]
fn the_process_that_sends_is_told_does_it_and_is_waited_for() {
    let net = Net::default();
    let (_dir, head) = nightly(&net);
    let other: Store = options().open(&head.root).unwrap();
    let (stop, links) = (Stop::new(), head.links(&Stop::new()));
    let patient = AgentOptions {
        send_every: Duration::from_secs(3600),
        ..quick(false, true, true)
    };
    std::thread::scope(|scope| {
        let leave = Leave(&stop);
        let agent = scope.spawn(|| run_on(&other, &links, &patient, &stop));
        eventually("the agent sends", || {
            head.store.phase_holder(Phase::Send).unwrap().is_some()
        });
        for round in 1..5 {
            head.commit(&[("s/1", "a")]);
            assert_eq!(run_here(&head, &now(&["shop"]), &Stop::new()), Exit::DONE);
            assert_eq!((net.waiting("shop"), net.waiting("depot")), (round, 0));
        }
        // Without a wish what is committed waits for the night.
        head.commit(&[("s/1", "b")]);
        eventually("all is scanned", || {
            head.store.scanned_through() >= head.store.watermarks().scanned
        });
        drop(leave);
        assert_eq!(agent.join().unwrap(), Exit::DONE);
    });
    assert_eq!((net.waiting("shop"), net.waiting("depot")), (4, 0));
}

/// A wish that nobody heard, because its agent was killed, was forgotten until the night.
#[test]
fn a_wish_that_was_noted_and_not_fulfilled_is_fulfilled_by_the_next_agent_and_once() {
    let net = Net::default();
    let (_dir, head) = nightly(&net);
    head.commit(&[("s/1", "a")]);
    let asked = ask_to_send(&head.store, &[name("shop")]).unwrap();
    assert_eq!(sent_now(&head.store, &name("shop")).unwrap(), Lsn::ZERO);
    let stop = Stop::new();
    std::thread::scope(|scope| {
        let leave = Leave(&stop);
        let agent = scope.spawn(|| run_here(&head, &quick(false, true, true), &stop));
        eventually("the wish is fulfilled", || {
            sent_now(&head.store, &name("shop")).unwrap() == asked
        });
        drop(leave);
        assert_eq!(agent.join().unwrap(), Exit::DONE);
    });
    assert_eq!((net.waiting("shop"), net.waiting("depot")), (1, 0));
    head.commit(&[("s/1", "waits for the night")]);
    head.scan();
    let sent = head.send_phase().round(Serve::InTurn).unwrap();
    assert_eq!((sent.messages, net.waiting("shop")), (0, 1));
}

/// It waited for a minute for nobody, and said so.
#[test]
fn who_waits_sends_himself_once_the_process_that_sends_has_left_without_doing_so() {
    let net = Net::default();
    let (_dir, head) = nightly(&net);
    head.commit(&[("s/1", "a")]);
    let other: Store = options().open(&head.root).unwrap();
    let held = other.lock_phase(Phase::Send).unwrap();
    let stop = Stop::new();
    std::thread::scope(|scope| {
        let leave = Leave(&stop);
        let asking = scope.spawn(|| run_here(&head, &now(&["shop"]), &stop));
        eventually("the wish is noted", || {
            !asked_to_send(&head.store).unwrap().is_empty()
        });
        drop(held);
        assert_eq!(asking.join().unwrap(), Exit::DONE);
        drop(leave);
    });
    assert_eq!((net.waiting("shop"), net.waiting("depot")), (1, 0));
}

#[test]
fn who_waits_in_vain_is_told_who_sends_and_an_unknown_remote_what_there_is() {
    let (_dir, head) = nightly(&Net::default());
    let other: Store = options().open(&head.root).unwrap();
    let held = other.lock_phase(Phase::Send).unwrap();
    let options = AgentOptions {
        marker_wait: Duration::from_millis(50),
        ..now(&["shop"])
    };
    let exit = run_here(&head, &options, &Stop::new());
    let message = exit.message.unwrap();
    assert_eq!(exit.code, ExitCode::Failed);
    assert!(
        message.contains("shop") && message.contains(&std::process::id().to_string()),
        "{message}"
    );
    drop(held);
    assert_eq!(
        asked_to_send(&head.store).unwrap().len(),
        1,
        "the wish stays noted"
    );
    let exit = run_here(&head, &now(&["shop", "moon"]), &Stop::new());
    let message = exit.message.unwrap();
    assert_eq!(exit.code, ExitCode::Usage);
    assert!(
        message.contains("moon") && message.contains("depot, shop"),
        "{message}"
    );
    for wrong in [
        AgentOptions {
            apply: false,
            ..now(&["shop"])
        },
        AgentOptions {
            send_now: vec![name("shop")],
            ..quick(true, false, false)
        },
    ] {
        assert_eq!(run_here(&head, &wrong, &Stop::new()).code, ExitCode::Usage);
    }
}
