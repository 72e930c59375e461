//! What an application vetoes is kept with the reason, told to its publisher, and applied by a retry: once, in order, with its
//! origin (R1, R4, R6).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use milepost_engine::{ErrorKind, Lsn, Retention};
use milepost_replication::agent::retry_set_aside;
use milepost_replication::catalog::{OnError, Start};
use milepost_replication::quarantine::{HeldCause, MOST_HELD, QUARANTINE_HOLD, Quarantine, Retried, held};
use milepost_replication::receive::quarantined;
use milepost_replication::send::Serve;
use milepost_replication::tracking::PollCause;
use support::rules::*;
use support::*;

#[test]
fn by_policy_stop_the_stream_stands_before_what_was_vetoed_until_a_retry_from_the_kept_copy_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::Stop);
    send_each(
        &head,
        &[&[("s/1", "good")], &[("s/1", "bad")], &[("s/2", "later")]],
    );
    let rules = Rules::veto("bad");
    let mut phase = phase_with(&shop, &rules, shop.receive_options());
    let received = phase.poll(PollCause::Due).unwrap();
    assert_eq!((received.transactions, received.quarantined.len()), (1, 1));
    for _ in 0..3 {
        phase.poll(PollCause::Due).unwrap();
    }
    drop(phase);
    let told = rules.told();
    assert!(
        told.iter().all(|line| !line.starts_with("missing")),
        "what waits is asked for: {told:?}"
    );
    assert_eq!(
        (shop.payloads(), net.waiting("shop")),
        (vec!["good".to_owned()], 2)
    );
    assert!(held(&shop.store).unwrap().is_empty());
    // The publisher hears of it.
    shop.send();
    head.receive();
    let reported = told_of(&head).reported.unwrap();
    assert_eq!((reported.held, reported.refused), (0, 1));
    assert!(reported.cases[0].reason.contains("no bad here"), "{reported:?}");

    let file = quarantined(&shop.store).unwrap().remove(0).file;
    let files = BTreeSet::from([file.clone()]);
    let again = retry_set_aside(&shop.store, shared(&rules), &files).unwrap();
    assert_eq!(
        (again.transactions, again.refused.len(), again.taken.len()),
        (0, 1, 0)
    );
    let now = retry_set_aside(&shop.store, None, &files).unwrap();
    assert_eq!((now.transactions, now.refused.len()), (1, 0));
    assert_eq!(now.taken, [file]);
    assert_eq!(shop.payloads(), ["good", "bad"]);
    assert!(quarantined(&shop.store).unwrap().is_empty());
    shop.turn();
    head.receive();
    assert_eq!(shop.payloads(), ["good", "bad", "later"]);
    assert_eq!(net.waiting("shop"), 0);
    assert_nothing_doubled(&shop);
    assert!(told_of(&head).reported.is_none());
}

/// What is bad is held, with two more that share streams with it one after another, and two are applied.
fn held_and_behind(net: &Net, rules: &Arc<Rules>) -> (tempfile::TempDir, Site, Site) {
    let (dir, head, shop) = sites(net, OnError::GoOn);
    send_each(
        &head,
        &[
            &[("s/1", "bad")],
            &[("s/2", "free")],
            &[("s/1", "second"), ("s/3", "third")],
            &[("s/3", "fourth")],
            &[("s/4", "free too")],
        ],
    );
    let received = receive_with(&shop, rules);
    assert_eq!((received.transactions, received.kept), (2, 3));
    (dir, head, shop)
}

#[test]
fn by_policy_go_on_it_is_held_with_what_shares_a_stream_and_all_else_goes_on_r1_r6() {
    let (net, rules) = (Net::default(), Rules::veto("bad"));
    let (_dir, head, shop) = held_and_behind(&net, &rules);
    assert_eq!(shop.payloads(), ["free", "free too"]);
    assert_eq!(net.waiting("shop"), 0, "what is held leaves the link");
    let asked = rules.told();
    let befores = asked.iter().filter(|line| line.starts_with("before"));
    assert_eq!(befores.count(), 3, "what is behind is not asked for: {asked:?}");

    let all = held(&shop.store).unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[0].record.cause, HeldCause::Vetoed("no bad here".to_owned()));
    assert_eq!((all[0].behind, all[0].holds), (None, 1));
    assert_eq!(
        (all[1].behind, all[1].record.cause.clone()),
        (Some(all[0].id), HeldCause::Behind)
    );
    assert_eq!(all[2].behind, Some(all[1].id));
    assert!(has_hold(&shop));

    // It is confirmed: the publisher may free it, and knows that it is held.
    shop.send();
    head.receive();
    let there = told_of(&head);
    assert_eq!(there.lag_transactions, 0);
    let reported = there.reported.unwrap();
    assert_eq!((reported.held, reported.refused), (3, 0));
    assert!(reported.cases[0].reason.contains("no bad here"), "{reported:?}");
    assert_eq!(told_of(&shop).held, 3);
}

#[test]
fn a_retry_applies_what_is_held_in_order_at_new_lsns_up_to_the_first_that_is_refused_r1_r6() {
    let (net, rules) = (Net::default(), Rules::veto("bad"));
    let (_dir, head, shop) = held_and_behind(&net, &rules);
    shop.send();
    head.receive();
    let shop = closed(shop, |_| ());
    send_each(&head, &[&[("s/3", "fifth")]]);
    assert_eq!(
        receive_with(&shop, &rules).kept,
        1,
        "what was held is known from the log"
    );

    let all = ids(&held(&shop.store).unwrap());
    let mut operator = Quarantine::open(&shop.store, shared(&rules)).unwrap();
    assert_eq!(operator.retry(all[1]).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(operator.retry(Lsn(8)).unwrap_err().kind(), ErrorKind::Invalid);
    let mut outcomes = Vec::new();
    let well = operator.retry_on(all[0], &mut |one, retried| {
        outcomes.push((one.id, retried.clone()))
    });
    assert!(!well.unwrap());
    assert_eq!(
        outcomes.len(),
        1,
        "it stops at the first that is refused: {outcomes:?}"
    );
    assert_eq!(operator.held()[0].record.refusals, 2);
    drop(operator);
    let before = shop.store.watermarks().durable;
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    let mut applied = Vec::new();
    let well = operator.retry_on(all[0], &mut |one, retried| match retried {
        Retried::Applied(lsn, _) => applied.push((one.id, *lsn)),
        other => panic!("{other:?}"),
    });
    assert!(well.unwrap());
    drop(operator);
    assert_eq!(applied.iter().map(|(id, _)| *id).collect::<Vec<_>>(), all);
    assert!(applied.iter().all(|(_, lsn)| *lsn >= before), "at new LSNs");
    let payloads = shop.payloads();
    assert_eq!(payloads[2..], ["bad", "second", "third", "fourth", "fifth"]);
    assert!(
        shop.received()
            .iter()
            .all(|one| one.origin.0 == "head" && one.via.as_deref() == Some("head"))
    );
    assert!(held(&shop.store).unwrap().is_empty() && !has_hold(&shop));
    assert_nothing_doubled(&shop);
    shop.turn();
    head.receive();
    assert!(told_of(&head).reported.is_none());
}

/// The trap: a message that stays because the rest of it was refused comes again, and its first transaction is held by then.
#[test]
fn what_is_held_and_comes_again_over_a_pair_made_anew_is_not_held_twice_nor_applied_twice_r1_r4() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    send_each(&head, &[&[("s/1", "bad")], &[("s/2", "free")]]);
    let rules = Rules::veto("bad");
    assert_eq!(receive_with(&shop, &rules).kept, 1);
    shop.send();
    head.receive();
    let former = head
        .definitions()
        .catalog()
        .unwrap()
        .subscriptions()
        .next()
        .unwrap()
        .clone();
    head.unsubscribe(&former, false);
    head.definitions().remove_remote(&name("shop")).unwrap();
    head.remote("shop");
    head.subscribe("shop", "all", None, Start::Beginning);
    for _ in 0..3 {
        head.turn();
        receive_with(&shop, &rules);
        shop.send();
    }
    let all = held(&shop.store).unwrap();
    assert_eq!((all.len(), shop.payloads()), (1, vec!["free".to_owned()]));
    // With nobody against it any more it is not applied either: it is in quarantine.
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    assert!(matches!(
        operator.retry(all[0].id).unwrap(),
        Retried::Applied(_, 1)
    ));
    drop(operator);
    (0..2).for_each(|_| [&head, &shop].into_iter().for_each(Site::turn));
    assert_eq!(shop.payloads(), ["free", "bad"]);
    assert_nothing_doubled(&shop);
}

#[test]
fn a_dropped_transaction_is_never_applied_and_those_behind_it_can_be_retried_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    send_each(&head, &[&[("s/1", "bad")], &[("s/1", "second")]]);
    let rules = Rules::veto("bad");
    receive_with(&shop, &rules);
    let all = ids(&held(&shop.store).unwrap());
    let refused = shop.definitions().remove_remote(&name("head")).unwrap_err();
    assert!(refused.to_string().contains("2 of its transactions"), "{refused}");
    let mut operator = Quarantine::open(&shop.store, shared(&rules)).unwrap();
    operator.drop(all[0], "not ours").unwrap();
    assert_eq!(
        operator.drop(all[0], "again").unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let left = operator.held();
    assert_eq!((left.len(), left[0].behind), (1, None));
    drop(operator);
    send_each(&head, &[&[("s/1", "third")]]);
    assert_eq!(
        receive_with(&shop, &rules).kept,
        1,
        "the order in its stream is kept"
    );
    let mut operator = Quarantine::open(&shop.store, shared(&rules)).unwrap();
    assert!(operator.retry_all(Some(&name("head")), &mut |_, _| ()).unwrap());
    drop(operator);
    assert_eq!(shop.payloads(), ["second", "third"]);
    shop.definitions().remove_remote(&name("head")).unwrap();
}

#[test]
fn a_log_that_frees_keeps_what_is_held_and_lets_it_go_afterwards_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    let mut space = shop.store.space().unwrap();
    space.retention = Retention::UntilScanned;
    shop.store.set_space(&space).unwrap();
    send_each(&head, &[&[("s/1", "bad")]]);
    let rules = Rules::veto("bad");
    receive_with(&shop, &rules);
    let id = held(&shop.store).unwrap()[0].id;
    let filler = "x".repeat(100_000);
    let more = || {
        for _ in 0..15 {
            head.commit(&[("s/2", &filler)]);
        }
        for _ in 0..2 {
            head.turn();
            receive_with(&shop, &rules);
            shop.scan();
            let mut sending = shop.send_phase();
            sending.round(Serve::Everybody).unwrap();
            sending.remember().unwrap();
        }
        shop.store.rotate(0).unwrap();
        shop.scan();
        shop.store.free().unwrap();
    };
    more();
    assert!(
        shop.store.oldest().unwrap() <= id,
        "it is kept: {:?}",
        shop.store.oldest()
    );
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    assert!(matches!(operator.retry(id).unwrap(), Retried::Applied(_, 1)));
    drop(operator);
    more();
    assert!(shop.store.oldest().unwrap() > id, "nothing keeps it");
}

#[test]
fn beyond_its_bounds_the_quarantine_holds_no_more_and_the_stream_stands_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    for _ in 0..MOST_HELD + 3 {
        head.commit(&[("s/1", "bad")]);
    }
    head.scan();
    head.send();
    let rules = Rules::veto("bad");
    let received = receive_with(&shop, &rules);
    let kept = usize::try_from(received.kept).unwrap();
    assert_eq!((kept, received.transactions), (MOST_HELD, 0));
    assert!(
        received.quarantined[0].reason.contains("at most 1024"),
        "{received:?}"
    );
    assert!(net.waiting("shop") > 0);
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    let mut count = 0;
    assert!(operator.retry_all(None, &mut |_, _| count += 1).unwrap());
    drop(operator);
    assert_eq!(count, MOST_HELD);
    assert_eq!(receive_with(&shop, &Arc::default()).transactions, 3);
    assert_nothing_doubled(&shop);
}

#[test]
fn a_site_in_the_middle_passes_on_what_was_held_once_it_is_applied_with_its_origin_r4() {
    let net = Net::default();
    let (dir, head, shop) = sites(&net, OnError::GoOn);
    let till = Site::new(dir.path(), "till", &net);
    shop.publish("all", "**", None);
    shop.remote("till");
    shop.subscribe("till", "all", None, Start::Now);
    till.remote("shop");
    let bad = head.commit(&[("s/1", "bad")]);
    head.commit(&[("s/2", "free")]);
    head.turn();
    receive_with(&shop, &Rules::veto("bad"));
    shop.scan();
    shop.send();
    till.receive();
    assert_eq!(till.payloads(), ["free"]);
    let id = held(&shop.store).unwrap()[0].id;
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    operator.retry(id).unwrap();
    drop(operator);
    (0..2).for_each(|_| [&head, &shop, &till].into_iter().for_each(Site::turn));
    assert_eq!(till.payloads(), ["free", "bad"]);
    assert_eq!(till.received()[1].origin, ("head".to_owned(), bad.0));
    assert!(head.received().is_empty(), "nothing comes back");
}

/// The trap: an operator drops the hold as if it were anybody's, and the log lets the bytes go that nobody else has.
#[test]
fn what_was_freed_against_its_hold_is_told_and_all_of_its_remote_waits_until_it_is_dropped_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::GoOn);
    let mut space = shop.store.space().unwrap();
    space.retention = Retention::UntilScanned;
    shop.store.set_space(&space).unwrap();
    send_each(&head, &[&[("s/1", "bad")]]);
    let rules = Rules::veto("bad");
    assert_eq!(receive_with(&shop, &rules).kept, 1);
    let id = held(&shop.store).unwrap()[0].id;
    assert!(shop.store.drop_hold(QUARANTINE_HOLD).unwrap());
    let filler = "x".repeat(100_000);
    for _ in 0..15 {
        shop.commit(&[("own/1", &filler)]);
    }
    shop.store.rotate(0).unwrap();
    shop.scan();
    let mut sending = shop.send_phase();
    sending.round(Serve::Everybody).unwrap();
    sending.remember().unwrap();
    drop(sending);
    shop.store.free().unwrap();
    assert!(shop.store.oldest().unwrap() > id, "the trap");
    send_each(&head, &[&[("s/2", "free")]]);
    assert_eq!(receive_with(&shop, &rules).kept, 1, "nobody knows its streams");
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    let refused = operator.retry(id).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Behind);
    assert!(
        refused.to_string().contains("can only be dropped now"),
        "{refused}"
    );
    operator.drop(id, "freed").unwrap();
    let mut outcomes = Vec::new();
    assert!(
        operator
            .retry_all(None, &mut |_, retried| outcomes.push(retried.clone()))
            .unwrap()
    );
    assert!(matches!(outcomes[..], [Retried::Applied(_, 1)]), "{outcomes:?}");
}

/// The trap: the two ways bring different parts of one transaction, so both are held, and the second has what the first one had.
#[test]
fn what_is_held_of_two_ways_is_applied_once_event_by_event_r4() {
    let net = Net::default();
    let (dir, head, shop) = sites(&net, OnError::GoOn);
    let hub = Site::new(dir.path(), "hub", &net);
    head.remote("hub");
    head.subscribe("hub", "all", None, Start::Now);
    hub.remote("head");
    hub.publish("part", "s/1", None);
    hub.remote("shop");
    hub.subscribe("shop", "part", None, Start::Now);
    add_remote(&shop, "hub", OnError::GoOn);
    head.commit(&[("s/1", "bad"), ("s/2", "all the same")]);
    head.turn();
    let direct = net.steal("shop");
    hub.turn();
    let rules = Rules::veto("bad");
    assert_eq!(receive_with(&shop, &rules).kept, 1);
    direct.into_iter().for_each(|message| net.put("shop", message));
    assert_eq!(receive_with(&shop, &rules).kept, 1);
    let all = held(&shop.store).unwrap();
    assert_eq!((all[0].record.events, all[1].record.events), (1, 2));
    assert_eq!(all[1].behind, Some(all[0].id), "it is of the same origin");
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    assert!(operator.retry_all(None, &mut |_, _| ()).unwrap());
    drop(operator);
    assert_eq!(shop.payloads(), ["bad", "all the same"]);
    assert_nothing_doubled(&shop);
}

/// The trap: a send phase that has told everything has no other reason to speak.
#[test]
fn a_publisher_hears_of_what_is_refused_and_of_what_is_retried_without_other_news_r6() {
    let net = Net::default();
    let (_dir, head, shop) = sites(&net, OnError::Stop);
    let (rules, mut sending) = (Rules::veto("bad"), shop.send_phase());
    let mut says = || sending.round(Serve::Everybody).unwrap().messages;
    send_each(&head, &[&[("s/1", "good")]]);
    receive_with(&shop, &rules);
    assert_eq!((says(), says()), (1, 0));
    head.receive();
    send_each(&head, &[&[("s/1", "bad")]]);
    receive_with(&shop, &rules);
    assert_eq!((says(), says()), (1, 0));
    head.receive();
    assert_eq!(told_of(&head).reported.unwrap().refused, 1);
    add_policy(&shop, OnError::GoOn);
    receive_with(&shop, &rules);
    assert_eq!((says(), says()), (1, 0));
    head.receive();
    assert_eq!(told_of(&head).reported.unwrap().held, 1);
    let id = held(&shop.store).unwrap()[0].id;
    let mut operator = Quarantine::open(&shop.store, None).unwrap();
    operator.retry(id).unwrap();
    drop(operator);
    assert_eq!((says(), says()), (1, 0));
    head.receive();
    assert!(told_of(&head).reported.is_none());
}
