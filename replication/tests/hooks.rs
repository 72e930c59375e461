//! What hooks are told, when, and what an error of theirs does (R6).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use std::sync::Arc;

use milepost_engine::ErrorKind;
use milepost_replication::agent::{AgentOptions, ExitCode, Stop, run_on_with};
use milepost_replication::catalog::OnError;
use milepost_replication::quarantine::Quarantine;
use milepost_replication::receive::ReceiveOptions;
use milepost_replication::tracking::{Patience, PollCause};
use support::rules::*;
use support::*;

#[test]
fn hooks_are_told_in_order_and_an_error_of_theirs_applies_and_loses_nothing_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    let (rules, stop) = (Arc::new(Rules::default()), Stop::new());
    let run = |site: &Site, options: &AgentOptions| {
        run_on_with(&site.store, &site.links(&stop), options, shared(&rules), &stop)
    };
    send_each(&head, &[&[("s/1", "a")], &[("s/1", "b"), ("s/2", "c")]]);
    *rules.fails.lock().unwrap() = true;
    let failed = run(&shop, &batch(true, false, false));
    assert_eq!(failed.code, ExitCode::Failed);
    assert!(failed.message.unwrap().contains("the rules are closed"));
    assert!(shop.payloads().is_empty() && net.waiting("shop") >= 2);
    assert_eq!(rules.told(), ["receive began", "before a", "receive ended"]);
    *rules.fails.lock().unwrap() = false;
    for phases in [batch(true, false, false), batch(false, true, true)] {
        let dry = AgentOptions {
            apply: false,
            ..phases
        };
        assert_eq!(run(&shop, &dry).code, ExitCode::Done);
    }
    assert!(rules.told().is_empty(), "a dry run calls no hook");
    assert_eq!(run(&shop, &batch(true, false, false)).code, ExitCode::Done);
    let mut told = rules.told();
    assert_eq!(told.remove(0), "receive began");
    assert_eq!(told.pop().unwrap(), "receive ended");
    assert_eq!(
        told,
        ["before a", "before b c", "after 1 of head", "after 2 of head"]
    );
    assert_eq!(run(&shop, &batch(false, true, true)).code, ExitCode::Done);
    let (began, ended) = (["scan began", "send began"], ["scan ended", "send ended"]);
    assert_eq!(rules.told(), [&began[..], &["sent 0 to head"], &ended].concat());
    // A hole is asked for.
    send_each(&head, &[&[("s/1", "lost")]]);
    net.steal("shop");
    send_each(&head, &[&[("s/1", "d")]]);
    let options = ReceiveOptions {
        patience: Patience::NONE,
        ..shop.receive_options()
    };
    phase_with(&shop, &rules, options).poll(PollCause::Due).unwrap();
    assert_eq!(rules.told(), ["missing of head"]);
}

#[test]
fn an_agent_that_ends_with_something_in_quarantine_says_so_with_exit_5_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    send_each(&head, &[&[("s/1", "bad")]]);
    let (rules, stop) = (Rules::veto("bad"), Stop::new());
    for _ in 0..2 {
        let options = batch(true, false, false);
        let exit = run_on_with(&shop.store, &shop.links(&stop), &options, shared(&rules), &stop);
        assert_eq!(exit.code, ExitCode::Quarantined);
        let message = exit.message.unwrap();
        assert!(
            message.contains("1 transaction of head in quarantine, the first vetoed: no bad here"),
            "{message}"
        );
    }
    let _agent = shop.receive_phase();
    let refused = Quarantine::open(&shop.store, None).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}
