//! The suite against links with one fault each: every rule catches the fault that breaks it.

mod faulty;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use faulty::{FAULTS, Fault, Faulty};

fn options(fault: Fault) -> Options {
    Options {
        // These two wait for what never comes, so the wait may be short.
        patience: match fault {
            Fault::WaitsForEver | Fault::TellsNobody => Duration::from_millis(300),
            _ => Duration::from_secs(60),
        },
        push: matches!(fault, Fault::TellsNobody),
        ..Options::default()
    }
}

/// Each faulty link is run through the rule it breaks; the same link without a fault keeps that rule, so it is the
/// fault that is caught.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_is_caught_by_the_rule_it_breaks() {
    for (fault, rule) in FAULTS {
        let only = vec![(*rule).to_owned()];
        let given = Options {
            only: only.clone(),
            ..options(*fault)
        };
        let report = check(|| async { Faulty::new(*fault) }, &given).await;
        assert_eq!(report.broken(), [*rule], "{fault:?}\n{report}");
        let text = report.to_string();
        assert!(text.contains("look at: "), "{text}");
        if *fault != Fault::TellsNobody {
            let options = Options {
                only,
                ..Options::default()
            };
            let report = check(|| async { Faulty::new(Fault::None) }, &options).await;
            report.conforming().unwrap();
        }
    }
}

#[test]
fn every_rule_has_a_fault_that_it_alone_is_asked_to_catch() {
    let caught: BTreeSet<&str> = FAULTS.iter().map(|(_, rule)| *rule).collect();
    let all: BTreeSet<&str> = rules().iter().map(|rule| rule.name).collect();
    assert_eq!(caught, all);
    assert_eq!(all.len(), rules().len(), "two rules have one name");
}

/// A link that blocks its thread, and one that panics, are told like any other and do not end the suite.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_link_that_panics_breaks_its_rule_and_the_others_still_run() {
    let options = Options {
        only: vec!["bytes-unchanged".to_owned(), "says-its-address".to_owned()],
        ..Options::default()
    };
    let report = check(|| async { Faulty::new(Fault::Panics) }, &options).await;
    assert_eq!(report.broken(), ["bytes-unchanged"], "{report}");
    assert_eq!(report.findings().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_tried_is_told_and_nothing_tried_is_no_conformance() {
    let options = Options {
        only: vec!["push-tells".to_owned()],
        ..Options::default()
    };
    let report = check(|| async { Faulty::new(Fault::None) }, &options).await;
    assert_eq!(report.skipped(), ["push-tells"]);
    assert!(report.to_string().contains("SKIPPED  push-tells"), "{report}");
    assert!(report.conforming().is_err());
}
