//! Many remotes and subscriptions made in one go: all of them or none, with one look at the catalog before and one behind, and what is
//! there already is passed over.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, ErrorKind, Lsn};
use milepost_replication::catalog::{
    Added, NewDefinition, NewPublication, NewRemote, NewSubscription, NotAdded, Schedule, Start, SubscribeBy,
};
use milepost_replication::message::Point;
use milepost_replication::send::{LimitCause, SuspendedRecord};
use milepost_replication::tracking::{NOTE, PairState};
use support::*;

fn remote(site: &str) -> NewRemote {
    NewRemote {
        site: name(site),
        links: vec!["memory://".to_owned()],
        schedule: Schedule::EverySeconds(1),
        consolidated: false,
        on_error: Default::default(),
        limits: Default::default(),
    }
}

fn subscription(site: &str, value: &str, start: Start) -> NewSubscription {
    NewSubscription {
        remote: name(site),
        publication: "by-shop".to_owned(),
        value: Some(value.to_owned()),
        start,
    }
}

/// Head office with a publication by the second segment of stream names.
fn head(dir: &std::path::Path) -> Site {
    let head = Site::new(dir, "head", &Net::default());
    let by = Some(SubscribeBy::Segment(2));
    let new = NewPublication::new("by-shop", &["orders/*".to_owned()], &[], by);
    head.definitions().add_publication(new, false).unwrap();
    head
}

fn many(count: usize) -> Vec<NewDefinition> {
    let remotes = (0..count).map(|number| NewDefinition::Remote(remote(&format!("shop{number}"))));
    let subscriptions = (0..count).map(|number| {
        let start = if number % 3 == 0 {
            Start::Beginning
        } else {
            Start::Now
        };
        NewDefinition::Subscription(subscription(&format!("shop{number}"), &number.to_string(), start))
    });
    remotes.chain(subscriptions).collect()
}

fn end(head: &Site) -> Lsn {
    head.store.watermarks().durable
}

#[test]
fn many_are_made_as_one_by_one_they_would_be_and_again_they_are_there() {
    let (dir, net) = (tempfile::tempdir().unwrap(), Net::default());
    let bulk = head(dir.path());
    bulk.commit(&[("orders/3", "history")]);
    let all = many(30);
    assert_eq!(
        bulk.definitions().add_all(&all).unwrap(),
        Added { made: 60, there: 0 }
    );
    let single = Site::new(dir.path(), "single", &net);
    let new = NewPublication::new(
        "by-shop",
        &["orders/*".to_owned()],
        &[],
        Some(SubscribeBy::Segment(2)),
    );
    single.definitions().add_publication(new, false).unwrap();
    for one in all.clone() {
        match one {
            NewDefinition::Remote(new) => drop(single.definitions().add_remote(new, false).unwrap()),
            NewDefinition::Subscription(new) => drop(single.definitions().add_subscription(new).unwrap()),
        }
    }
    let (bulks, singles) = (
        bulk.definitions().catalog().unwrap(),
        single.definitions().catalog().unwrap(),
    );
    assert_eq!((bulks.remotes().count(), bulks.subscriptions().count()), (30, 30));
    let facts = |catalog: &milepost_replication::catalog::Catalog| {
        let remotes = catalog
            .remotes()
            .map(|one| (one.site.clone(), one.generation, one.links.clone()));
        let subscriptions = catalog.subscriptions();
        let subscriptions =
            subscriptions.map(|one| (one.remote.clone(), one.value.clone(), one.has_history()));
        (remotes.collect::<Vec<_>>(), subscriptions.collect::<Vec<_>>())
    };
    assert_eq!(facts(&bulks), facts(&singles));
    let ids: std::collections::BTreeSet<_> = bulks.subscriptions().map(|one| one.id).collect();
    assert_eq!(ids.len(), 30, "each has an id of its own");
    let (before, longer) = (end(&bulk), many(31));
    assert_eq!(
        bulk.definitions().add_all(&all).unwrap(),
        Added { made: 0, there: 60 }
    );
    assert_eq!(end(&bulk), before, "nothing is written");
    assert_eq!(
        bulk.definitions().add_all(&longer).unwrap(),
        Added { made: 2, there: 60 }
    );
    // A history that was asked for in bulk is kept and sent.
    bulk.scan();
    bulk.send();
    assert!(bulk.net.waiting("shop3") > 0);
    let holds = bulk.store.holds().unwrap();
    assert!(
        holds.iter().all(|hold| !hold.name.starts_with("subscribing")),
        "{holds:?}"
    );
}

/// A list that may not be made beside a remote `there`, and why.
type Bad = (&'static str, Vec<NewDefinition>, ErrorKind);

fn bad_remotes() -> Vec<Bad> {
    let other = NewRemote {
        schedule: Schedule::AtMinute(5),
        ..remote("there")
    };
    let unreachable = NewRemote {
        links: Vec::new(),
        ..remote("x")
    };
    let above = |site: &str| {
        NewDefinition::Remote(NewRemote {
            consolidated: true,
            ..remote(site)
        })
    };
    let plain = NewDefinition::Remote;
    let (invalid, conflict) = (ErrorKind::Invalid, ErrorKind::Conflict);
    vec![
        ("itself", vec![plain(remote("head"))], invalid),
        ("no link", vec![plain(unreachable)], invalid),
        ("another one of that name", vec![plain(other)], conflict),
        ("two of one name", vec![plain(remote("x")), above("x")], conflict),
        ("two above", vec![above("x"), above("y")], conflict),
    ]
}

fn bad_subscriptions() -> Vec<Bad> {
    let wanted = |site, start| NewDefinition::Subscription(subscription(site, "1", start));
    let of_no_value = NewDefinition::Subscription(NewSubscription {
        value: None,
        ..subscription("there", "1", Start::Now)
    });
    let late = vec![wanted("x", Start::Now), NewDefinition::Remote(remote("x"))];
    vec![
        (
            "no remote",
            vec![wanted("nobody", Start::Now)],
            ErrorKind::Invalid,
        ),
        ("before its remote", late, ErrorKind::Invalid),
        ("no value", vec![of_no_value], ErrorKind::Invalid),
        (
            "not there yet",
            vec![wanted("there", Start::At(Lsn(1 << 40)))],
            ErrorKind::Invalid,
        ),
    ]
}

#[test]
fn the_first_that_may_not_be_is_named_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let head = head(dir.path());
    head.definitions().add_remote(remote("there"), false).unwrap();
    for (what, bad, kind) in bad_remotes().into_iter().chain(bad_subscriptions()) {
        let before = end(&head);
        let list: Vec<NewDefinition> = many(5).into_iter().chain(bad).chain(many(2)).collect();
        let NotAdded { number, error } = head.definitions().add_all(&list).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        let last = 10 + usize::from(what.starts_with("two"));
        assert_eq!(number, Some(last), "{what}: {error}");
        assert_eq!(end(&head), before, "{what}");
    }
}

/// What it would be given it would not get.
#[test]
fn nothing_is_made_for_a_suspended_remote() {
    let dir = tempfile::tempdir().unwrap();
    let head = head(dir.path());
    let there = head.definitions().add_remote(remote("there"), false).unwrap();
    let mut frame = NewFrame::of_kind(NOTE, Vec::new());
    frame.pin(suspend(&there));
    head.store.append_frames(vec![frame], Durability::Synced).unwrap();
    let list = [NewDefinition::Subscription(subscription(
        "there",
        "1",
        Start::Now,
    ))];
    let refused = head.definitions().add_all(&list).unwrap_err();
    let found = (refused.number, refused.error.kind());
    assert_eq!(found, (Some(0), ErrorKind::Conflict));
}

fn suspend(remote: &milepost_replication::catalog::Remote) -> milepost_engine::Pinned {
    let record = SuspendedRecord {
        added: remote.added,
        since: 0,
        cause: LimitCause::Bytes,
        kept: 2,
        limit: 1,
        confirmed: Point::NONE,
        scanned: Lsn::ZERO,
    };
    record.pin(&remote.site).unwrap()
}
