//! What a site does not take (a loop, R4; another history, R5) is kept, told to the operator, and never
//! counted as applied (R6).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::Lsn;
use milepost_replication::agent::{AgentOptions, ExitCode, Phases, Stop, run_on};
use milepost_replication::catalog::Start;
use milepost_replication::receive::{ReceiveOptions, ReceivePhase, quarantined};
use milepost_replication::status::status;
use milepost_replication::tracking::{PairRecord, PairState, PollCause, StopReason};
use support::*;

fn one_way(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    head.publish("all", "**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    (dir, head, shop)
}

fn receive_with(site: &Site, options: ReceiveOptions) -> ReceivePhase {
    let stop = Stop::new();
    ReceivePhase::open(&site.store, &site.links(&stop), options, &stop).unwrap()
}

#[test]
fn a_damaged_message_is_lost_and_comes_again_r3() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    let mut sending = head.send_phase();
    head.commit(&[("s/1", "first")]);
    head.scan();
    sending
        .round(milepost_replication::send::Serve::Everybody)
        .unwrap();
    let mut message = net.steal("shop").remove(0);
    let middle = message.len() / 2;
    message[middle] ^= 1;
    net.put("shop", message);
    assert_eq!(shop.receive().transactions, 0);
    assert_eq!(net.waiting("shop"), 0, "a damaged message leaves the link");
    // The next one shows the hole; the shop asks, and the same send phase serves the range.
    head.commit(&[("s/1", "second")]);
    head.scan();
    sending
        .round(milepost_replication::send::Serve::Everybody)
        .unwrap();
    shop.receive();
    assert_eq!(shop.payloads().len(), 0, "nothing is applied over a hole");
    shop.send();
    head.receive();
    sending
        .round(milepost_replication::send::Serve::Everybody)
        .unwrap();
    shop.receive();
    assert_eq!(shop.payloads(), ["first", "second"]);
    let told = &status(&head.store, &mut |_| ()).unwrap().remotes[0];
    assert_eq!(told.resend_count, 1);
}

#[test]
fn messages_of_a_site_that_is_no_remote_wait_until_it_is_one() {
    let net = Net::default();
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    head.publish("all", "**", None);
    head.remote("shop");
    head.subscribe("shop", "all", None, Start::Now);
    shop.remote("elsewhere");
    head.commit(&[("s/1", "early")]);
    head.turn();
    let mut receiving = shop.receive_phase();
    receiving.poll(PollCause::Due).unwrap();
    assert_eq!((shop.received().len(), net.waiting("shop")), (0, 1));
    assert!(quarantined(&shop.store).unwrap().is_empty());
    shop.remote("head");
    receiving.poll(PollCause::Due).unwrap();
    assert_eq!(shop.payloads(), ["early"]);
}

#[test]
fn a_loop_of_three_sites_stops_the_pair_and_ends_with_5_r4() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let names = ["one", "two", "three"];
    let sites: Vec<Site> = names
        .iter()
        .map(|site| Site::new(dir.path(), site, &net))
        .collect();
    for (number, site) in sites.iter().enumerate() {
        let (next, before) = (names[(number + 1) % 3], names[(number + 2) % 3]);
        site.publish("all", "**", None);
        site.remote(next);
        site.remote(before);
        site.subscribe(next, "all", None, Start::Now);
    }
    sites[0].commit(&[("s/1", "round and round")]);
    for site in [&sites[0], &sites[1], &sites[2]] {
        site.turn();
    }
    let options = AgentOptions {
        batch: true,
        phases: Phases::of(true, false, false),
        ..AgentOptions::default()
    };
    for _ in 0..2 {
        let stop = Stop::new();
        let exit = run_on(&sites[0].store, &sites[0].links(&stop), &options, &stop);
        assert_eq!(
            exit.code,
            ExitCode::Quarantined,
            "also for a process that comes later"
        );
        assert!(exit.message.unwrap().contains("loop"));
    }
    assert_eq!(sites[0].received().len(), 0);
    let kept = quarantined(&sites[0].store).unwrap();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].reason.contains("loop") && sites[0].root.join(&kept[0].file).is_file());
    assert_eq!(net.waiting("one"), 1, "what is not applied stays on its link");
    let remotes = status(&sites[0].store, &mut |_| ()).unwrap().remotes;
    assert!(
        remotes
            .iter()
            .any(|remote| remote.stopped.as_ref().is_some_and(|why| why.contains("loop")))
    );
    sites.iter().for_each(assert_nothing_doubled);
    // Another site's, whose name begins the same way, stays.
    let other = sites[0].root.join("quarantine/three-3-0123456789abcdef.mp");
    std::fs::write(&other, "x").unwrap();
    sites[0].definitions().remove_remote(&name(names[2])).unwrap();
    let kept = quarantined(&sites[0].store).unwrap();
    assert_eq!(kept.len(), 1, "whoever removes the remote has seen it: {kept:?}");
    assert!(other.is_file());
}

/// Stops the pair with head, or lets it go on.
fn set_stopped(shop: &Site, reason: Option<&str>) {
    let key = PairRecord::key(&name("head"));
    let (value, _) = shop.store.pinned(&key).unwrap().unwrap();
    let mut record = PairRecord::read(&value).unwrap();
    record.stopped = reason.map(|reason| StopReason::Loop(reason.to_owned()));
    let mut transaction = milepost_engine::Transaction::new();
    let event = milepost_engine::Event::new("own/1", "k", "1").unwrap();
    transaction.push(&event).unwrap();
    transaction.pin(record.pin(&name("head")).unwrap());
    let _ = shop.store.commit(transaction).unwrap().committed().unwrap();
}

/// A pair that is stopped at the subscriber, behind its first transaction.
fn stopped(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let (dir, head, shop) = one_way(net);
    head.commit(&[("s/1", "before")]);
    head.turn();
    shop.receive();
    set_stopped(&shop, Some("a loop for this test"));
    (dir, head, shop)
}

/// Every message of a stopped pair is set aside for the same reason, which stood in the last line once for each.
#[test]
fn a_stopped_pair_is_told_once_with_how_many_of_its_messages_wait_r6() {
    let net = Net::default();
    let (_dir, head, shop) = stopped(&net);
    for number in 0..4 {
        head.commit(&[("s/1", &number.to_string())]);
        head.scan();
        head.send();
    }
    let waiting = net.waiting("shop");
    assert!(waiting >= 4);
    for _ in 0..2 {
        let stop = Stop::new();
        let options = batch(true, true, true);
        let exit = run_on(&shop.store, &shop.links(&stop), &options, &stop);
        assert_eq!(exit.code, ExitCode::Quarantined);
        let told = exit.message.unwrap();
        assert_eq!(told.matches("a loop for this test").count(), 1, "{told}");
        assert!(told.contains(&format!("{waiting} messages of it wait")), "{told}");
    }
    assert_eq!(quarantined(&shop.store).unwrap().len(), waiting);
}

/// The trap: the copy for eyes went as soon as the message was looked at again, also in a dry run, and before its effect
/// was durable.
#[test]
fn what_is_kept_of_a_message_goes_when_the_message_is_taken_and_durable_r6() {
    let net = Net::default();
    let (_dir, head, shop) = stopped(&net);
    head.commit(&[("s/1", "kept")]);
    head.turn();
    shop.receive();
    let kept = || quarantined(&shop.store).unwrap().len();
    assert_eq!((shop.payloads().len(), kept()), (1, 1));
    set_stopped(&shop, None);
    let dry = ReceiveOptions {
        apply: false,
        ..shop.receive_options()
    };
    let would = receive_with(&shop, dry).poll(PollCause::Due).unwrap();
    assert_eq!((would.transactions, kept()), (1, 1));
    // No room for what it brings.
    let mut space = shop.store.space().unwrap();
    space.limit = 8 << 20;
    shop.store.set_space(&space).unwrap();
    for len in [10_000, 100, 1] {
        let payload = "x".repeat(len);
        let fill = || {
            let mut transaction = milepost_engine::Transaction::new();
            let event = milepost_engine::Event::new("own/1", "k", payload.as_bytes()).unwrap();
            transaction.push(&event).unwrap();
            shop.store.commit(transaction).is_err()
        };
        assert!((0..1000).any(|_| fill()), "the log is full");
    }
    shop.receive_phase().poll(PollCause::Due).unwrap_err();
    assert_eq!((kept(), net.waiting("shop")), (1, 1));
    space.limit = 0;
    shop.store.set_space(&space).unwrap();
    shop.receive();
    assert_eq!(shop.payloads(), ["before", "kept"]);
    assert_eq!((kept(), net.waiting("shop")), (0, 0));
}

#[test]
fn a_neighbour_restored_from_an_older_copy_is_stopped_and_applies_nothing_wrong_r5() {
    let net = Net::default();
    let (dir, mut head, shop) = one_way(&net);
    shop.publish("all", "**", None);
    shop.subscribe("head", "all", None, Start::Now);
    head.commit(&[("s/1", "common")]);
    (0..2).for_each(|_| [&head, &shop].into_iter().for_each(Site::turn));
    // Closed, copied, gone on with; then the copy takes the place of the store.
    let copied = dir.path().join("copy");
    let root = head.root.clone();
    head.store.clone().close().unwrap();
    copy(&root, &copied);
    head.store = options().open(&root).unwrap();
    head.commit(&[("s/1", "lost with the disk")]);
    (0..2).for_each(|_| [&head, &shop].into_iter().for_each(Site::turn));
    assert_eq!(shop.payloads(), ["common", "lost with the disk"]);
    head.store.clone().close().unwrap();
    head.store = options().open(&copied).unwrap();
    head.root = copied;
    head.commit(&[("s/1", "another history, as long as the other")]);
    for _ in 0..3 {
        [&head, &shop].into_iter().for_each(Site::turn);
    }
    assert_eq!(
        shop.payloads(),
        ["common", "lost with the disk"],
        "nothing of another history is applied"
    );
    let stopped = |site: &Site| {
        status(&site.store, &mut |_| ()).unwrap().remotes[0]
            .stopped
            .clone()
    };
    let reasons: Vec<String> = [&head, &shop].into_iter().filter_map(stopped).collect();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("histories have parted")),
        "{reasons:?}"
    );
}

#[test]
fn keep_leaves_messages_on_the_link_and_looks_at_each_once() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    head.commit(&[("s/1", "a")]);
    head.turn();
    let mut receiving = receive_with(
        &shop,
        ReceiveOptions {
            keep: true,
            ..shop.receive_options()
        },
    );
    assert_eq!(receiving.poll(PollCause::Due).unwrap().transactions, 1);
    let again = receiving.poll(PollCause::Due).unwrap();
    assert_eq!(
        (again.moved, again.duplicates, net.waiting("shop")),
        (false, 0, 1)
    );
    assert_eq!(shop.payloads(), ["a"]);
}

#[test]
fn without_applying_messages_are_checked_and_neither_log_nor_link_changes() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    head.commit(&[("s/1", "a")]);
    head.turn();
    let before = shop.store.watermarks().durable;
    {
        let mut receiving = receive_with(
            &shop,
            ReceiveOptions {
                apply: false,
                ..shop.receive_options()
            },
        );
        assert_eq!(
            receiving.poll(PollCause::Due).unwrap().transactions,
            1,
            "it says what it would do"
        );
        assert_eq!(receiving.poll(PollCause::Due).unwrap().transactions, 0);
    }
    assert_eq!(
        (shop.store.watermarks().durable, net.waiting("shop")),
        (before, 1)
    );
    shop.receive();
    assert_eq!(shop.payloads(), ["a"]);
}

#[test]
fn messages_beyond_the_memory_wait_on_their_link_and_none_is_lost() {
    // All but the first are behind a gap, and together they are many times the memory.
    let net = Net::default();
    let (_dir, mut head, shop) = one_way(&net);
    head.message_bytes = 10_000;
    let mut word = 1_u64;
    for number in 0..100 {
        let noise: String = (0..9_000)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'a' + u8::try_from(word >> 59).unwrap())
            })
            .collect();
        head.commit(&[("s/1", &number.to_string()), ("s/2", &noise)]);
    }
    head.scan();
    head.send();
    assert!(net.waiting("shop") >= 100);
    let mut receiving = receive_with(
        &shop,
        ReceiveOptions {
            memory: 300_000,
            ..shop.receive_options()
        },
    );
    let mut polls = 0;
    while shop.received().len() < 100 {
        receiving.poll(PollCause::Due).unwrap();
        polls += 1;
        assert!(polls < 50, "only {} came", shop.received().len());
    }
    let numbers: Vec<String> = shop.payloads().into_iter().filter(|one| one.len() < 4).collect();
    assert_eq!(
        numbers,
        (0..100).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(net.waiting("shop"), 0);
}

#[test]
fn a_remote_removed_and_added_again_begins_anew_with_what_is_committed_from_then_on() {
    let net = Net::default();
    let (_dir, head, shop) = one_way(&net);
    head.commit(&[("s/1", "before")]);
    head.turn();
    shop.turn();
    head.commit(&[("s/1", "unsent when it was removed")]);
    head.scan();
    let former = head
        .definitions()
        .catalog()
        .unwrap()
        .subscriptions()
        .next()
        .unwrap()
        .id;
    let refused = head.definitions().remove_remote(&name("shop")).unwrap_err();
    assert!(refused.to_string().contains(&former.to_string()), "{refused}");
    head.definitions().remove_subscription(former, false).unwrap();
    for (site, other) in [(&head, "shop"), (&shop, "head")] {
        site.definitions().remove_remote(&name(other)).unwrap();
        site.remote(other);
    }
    head.subscribe("shop", "all", None, Start::Now);
    head.commit(&[("s/1", "after")]);
    for _ in 0..2 {
        head.turn();
        shop.turn();
    }
    assert_eq!(shop.payloads(), ["before", "after"]);
    assert_eq!(status(&head.store, &mut |_| ()).unwrap().remotes[0].generation, 2);
    assert!(shop.store.scan(Lsn::ZERO).is_ok());
}
