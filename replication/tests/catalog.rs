//! Publications, remotes and subscriptions: their rules, and that they are in force by position.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use milepost_engine::{ErrorKind, Lsn};
use milepost_replication::catalog::{
    Catalog, Definitions, NewPublication, NewRemote, NewSubscription, Schedule, Start, SubscribeBy,
};
use support::*;

fn site() -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "head", &Net::default());
    (dir, site)
}

fn publication(pattern: &str, by: Option<SubscribeBy>) -> NewPublication {
    NewPublication::new("orders", &[pattern.to_owned()], &[], by)
}

fn subscription(remote: &str, publication: &str, value: Option<&str>, start: Start) -> NewSubscription {
    let value = value.map(str::to_owned);
    NewSubscription {
        remote: name(remote),
        publication: publication.to_owned(),
        value,
        start,
    }
}

#[test]
fn definitions_survive_reopening_and_say_what_was_defined() {
    let (_dir, site) = site();
    site.publish("orders", "orders/**", Some(SubscribeBy::Header("shop".into())));
    site.remote("bern");
    let made = site.subscribe("bern", "orders", Some("be"), Start::Beginning);
    let before = site.definitions().catalog().unwrap();
    let again = options().open(&site.root).unwrap();
    assert_eq!(Catalog::load(&again).unwrap(), before);
    assert_eq!(before.subscription(made.id), Some(&made));
    assert_eq!(
        (made.from, made.value.as_deref(), made.is_in_force()),
        (Lsn::ZERO, Some("be"), true)
    );
    assert_eq!(before.remote(&name("bern")).unwrap().generation, 1);
}

/// A site with two publications, a remote, and its subscription to the one that asks for a value.
fn defined() -> (tempfile::TempDir, Site) {
    let (dir, site) = site();
    site.publish("orders", "orders/**", Some(SubscribeBy::Segment(2)));
    site.publish("plain", "**", None);
    site.remote("bern");
    site.subscribe("bern", "orders", Some("be"), Start::Now);
    (dir, site)
}

fn remote(site: &str, consolidated: bool) -> NewRemote {
    let (links, schedule) = (vec!["file:///x".into()], Schedule::None);
    NewRemote {
        site: name(site),
        links,
        schedule,
        consolidated,
        on_error: Default::default(),
        limits: Default::default(),
    }
}

fn assert_refused<T: std::fmt::Debug>(outcome: milepost_engine::Result<T>, kind: ErrorKind, named: &str) {
    let error = outcome.unwrap_err();
    assert!(
        error.kind() == kind && error.to_string().contains(named),
        "{kind:?} {named}: {error:?}"
    );
}

#[test]
fn publications_and_remotes_in_use_stay_and_their_rules_are_told() {
    use ErrorKind::{Conflict, Invalid};
    let (_dir, site) = defined();
    let d: Definitions<'_> = site.definitions();
    assert_refused(
        d.add_publication(publication("x", None), false),
        Conflict,
        "orders",
    );
    assert_refused(d.add_publication(publication("x", None), true), Conflict, "bern");
    assert_refused(d.remove_publication("orders"), Conflict, "bern");
    assert_refused(d.remove_publication("nothing"), Invalid, "nothing");
    assert_refused(d.add_remote(remote("bern", false), false), Conflict, "bern");
    assert_refused(d.add_remote(remote("head", false), false), Invalid, "head");
    assert_refused(d.remove_remote(&name("genf")), Invalid, "genf");
    assert_refused(d.remove_remote(&name("bern")), Conflict, "orders");
    d.add_remote(remote("up", true), false).unwrap();
    assert_refused(d.add_remote(remote("up-too", true), false), Conflict, "up");
}

#[test]
fn a_subscription_needs_what_it_names_and_is_made_once() {
    use ErrorKind::{Conflict, Invalid};
    let (_dir, site) = defined();
    let add = |remote, publication, value, start| {
        site.definitions()
            .add_subscription(subscription(remote, publication, value, start))
    };
    let far = Start::At(Lsn(1 << 40));
    assert_refused(add("genf", "orders", Some("ge"), Start::Now), Invalid, "genf");
    assert_refused(add("bern", "nothing", None, Start::Now), Invalid, "nothing");
    assert_refused(add("bern", "orders", None, Start::Now), Invalid, "value");
    assert_refused(add("bern", "plain", Some("be"), Start::Now), Invalid, "value");
    assert_refused(add("bern", "orders", Some("be"), Start::Now), Conflict, "bern");
    assert_refused(add("bern", "plain", None, far), Invalid, "durable end");
}

#[test]
fn ids_of_subscriptions_ascend_and_never_come_again() {
    let (_dir, site) = site();
    site.publish("all", "**", None);
    site.remote("bern");
    let mut last = 0;
    for _ in 0..5 {
        let made = site.subscribe("bern", "all", None, Start::Now);
        assert!(made.id.0 > last);
        last = made.id.0;
        site.definitions().remove_subscription(made.id, false).unwrap();
        assert!(
            site.definitions().remove_subscription(made.id, false).is_err(),
            "it has ended"
        );
    }
}

#[test]
fn what_is_removed_can_be_made_again_as_something_new() {
    let (_dir, site) = site();
    site.publish("all", "a/**", None);
    site.definitions().remove_publication("all").unwrap();
    assert!(site.definitions().catalog().unwrap().publication("all").is_none());
    site.publish("all", "b/**", None);
    let made = site
        .definitions()
        .catalog()
        .unwrap()
        .publication("all")
        .unwrap()
        .clone();
    assert_eq!((made.version, made.articles[0].streams.as_str()), (2, "b/**"));
}

#[test]
fn a_changed_publication_is_in_force_from_its_position_on_also_for_a_scan_that_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let (head, shop) = (
        Site::new(dir.path(), "head", &net),
        Site::new(dir.path(), "shop", &net),
    );
    head.definitions()
        .add_publication(publication("orders/**", None), false)
        .unwrap();
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "orders", None, Start::Now);
    head.scan();
    // None of this is scanned when the publication is changed twice.
    head.commit(&[("orders/1", "a"), ("bills/1", "not yet")]);
    head.definitions()
        .add_publication(publication("bills/**", None), true)
        .unwrap();
    head.commit(&[("orders/1", "no more"), ("bills/1", "b")]);
    head.definitions()
        .add_publication(publication("**", None), true)
        .unwrap();
    head.commit(&[("orders/1", "c")]);
    head.turn();
    shop.turn();
    assert_eq!(shop.payloads(), ["a", "b", "c"]);
}

#[test]
fn two_commands_at_once_leave_one_subscription_and_tell_the_other() {
    let (_dir, site) = site();
    site.publish("all", "**", None);
    site.remote("bern");
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = options().open(&site.root).unwrap();
                scope.spawn(move || {
                    let new = subscription("bern", "all", None, Start::Now);
                    Definitions::new(&store).add_subscription(new).is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let catalog = site.definitions().catalog().unwrap();
    let in_force = catalog.subscriptions().filter(|one| one.is_in_force()).count();
    assert_eq!((outcomes.iter().filter(|made| **made).count(), in_force), (1, 1));
}
