//! What the scan decides, and that an entry says what was decided.

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Chain, Epoch, Event, InPlace, Lsn, Origin, Position, SiteName, Store, StoreId, Via};

use crate::catalog::tests::{catalog, subscription, with_frame};
use crate::catalog::{
    Catalog, Definitions, NewPublication, NewRemote, NewSubscription, Schedule, Start, SubscribeBy,
    Subscription, Topic,
};
use crate::golden::{assert_laid_out, kept};

use super::*;

const FRAME_AT: u64 = 4096;

fn by_segment(subscriptions: Vec<Subscription>) -> Catalog {
    catalog(Some(SubscribeBy::Segment(2)), &[], subscriptions)
}

fn transaction(streams: &[&str]) -> NewFrame {
    let mut frame = NewFrame::transaction();
    for (ordinal, stream) in (0u32..).zip(streams) {
        frame
            .push_event(ordinal, &Event::new(stream, "placed", stream.as_bytes()).unwrap())
            .unwrap();
    }
    frame
}

fn decided(catalog: Catalog, frame: NewFrame) -> Option<NewFrame> {
    let mut made = None;
    with_frame(frame, |frame| {
        made = Decider::new(catalog)
            .unwrap()
            .decide(frame, Chain(7), InPlace::default())
            .unwrap()
    });
    made
}

fn via(site: &str) -> Via {
    let position = Position {
        epoch: Epoch(3),
        lsn: Lsn(77),
        chain: Chain(5),
    };
    Via {
        site: StoreId(2),
        name: SiteName::new(site).unwrap(),
        generation: 1,
        position,
        back: Lsn::ZERO,
    }
}

/// Ordinals of the events of an entry under the topics with these values.
fn ordinals(entry: &Entry<'_>, values: &[&str]) -> Vec<u32> {
    let chosen = |topic: &Topic| values.contains(&topic.value.as_deref().unwrap_or_default());
    let wanted: Vec<bool> = entry.topics.iter().map(chosen).collect();
    entry
        .events_under(&wanted)
        .map(|event| event.unwrap().ordinal)
        .collect()
}

#[test]
fn an_entry_holds_the_events_that_somebody_is_due_and_under_what() {
    let subscriptions = vec![
        subscription(10, "bern", "orders", Some("be")),
        subscription(11, "genf", "orders", Some("ge")),
    ];
    let streams = [
        "orders/be/1",
        "orders/zh/1",
        "orders/ge/1",
        "bills/be",
        "orders/be/2",
    ];
    let made =
        decided(by_segment(subscriptions), transaction(&streams)).expect("two sites are due something");
    with_frame(made, |frame| {
        let entry = Entry::read(frame).unwrap().unwrap();
        assert!(
            entry.position.lsn.0 > FRAME_AT
                && entry.position.epoch == Epoch(1)
                && entry.position.chain == Chain(7)
        );
        assert_eq!(ordinals(&entry, &["be"]), [0, 4]);
        assert_eq!(ordinals(&entry, &["ge"]), [2]);
        assert_eq!(ordinals(&entry, &["be", "ge"]), [0, 2, 4]);
        let all = vec![true; entry.topics.len()];
        let payloads: Vec<_> = entry
            .events_under(&all)
            .map(|event| event.unwrap().payload)
            .collect();
        assert_eq!(payloads, [b"orders/be/1", b"orders/ge/1", b"orders/be/2"]);
    });
}

#[test]
fn what_nobody_is_due_makes_no_entry() {
    let catalog = || by_segment(vec![subscription(10, "bern", "orders", Some("be"))]);
    assert!(decided(catalog(), transaction(&["orders/zh/1", "bills/be"])).is_none());
    assert!(decided(catalog(), NewFrame::of_kind(FrameKind::MARKER, Vec::new())).is_none());
    assert!(decided(Catalog::default(), transaction(&["orders/be/1"])).is_none());
}

/// A publisher whose subscribers come and go between its transactions.
fn subscribe(store: &Store, site: &str, value: &str) -> Subscription {
    let (definitions, remote) = (Definitions::new(store), SiteName::new(site).unwrap());
    let new = NewRemote {
        site: remote.clone(),
        links: vec!["file:///nowhere".to_owned()],
        schedule: Schedule::None,
        consolidated: false,
        on_error: Default::default(),
        limits: Default::default(),
    };
    definitions.add_remote(new, false).unwrap();
    let new = NewSubscription {
        remote,
        publication: "orders".to_owned(),
        value: Some(value.to_owned()),
        start: Start::Now,
    };
    definitions.add_subscription(new).unwrap()
}

#[test]
fn what_is_defined_between_two_transactions_counts_for_the_second_and_for_its_remote_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = milepost_engine::Options::new()
        .init(dir.path().join("s"), "hq".parse().unwrap())
        .unwrap();
    let definitions = Definitions::new(&store);
    let by = Some(SubscribeBy::Segment(2));
    let orders = NewPublication::new("orders", &["orders/**".to_owned()], &[], by);
    definitions.add_publication(orders, false).unwrap();
    let commit = || {
        let both = vec![transaction(&["orders/be/1", "orders/ge/1", "orders/zh/1"])];
        store
            .append_frames(both, milepost_engine::Durability::Synced)
            .unwrap();
    };
    commit();
    let bern = subscribe(&store, "bern", "be");
    subscribe(&store, "genf", "ge");
    commit();
    definitions.remove_subscription(bern.id, false).unwrap();
    commit();
    let (mut scan, mut topics) = (store.scan(Lsn::ZERO).unwrap(), Vec::new());
    let mut decider = Decider::new(Catalog::default()).unwrap();
    while let Some(frame) = scan.next().unwrap() {
        let made = decider.judge(&frame, Chain(7)).unwrap();
        if frame.kind() == FrameKind::TRANSACTION {
            let values = made.map(|entry| entry.topics().filter_map(|topic| topic.value).collect::<Vec<_>>());
            topics.push(values.unwrap_or_default());
        }
    }
    assert_eq!(
        topics,
        [
            vec![],
            vec!["be".to_owned(), "ge".to_owned()],
            vec!["ge".to_owned()]
        ]
    );
    assert_eq!(decider.events_without_value(), 0);
    let of = |site: &str| {
        let catalog = definitions.catalog().unwrap();
        let remote = catalog.remote(&SiteName::new(site).unwrap()).unwrap();
        let values = catalog
            .subscriptions_of(remote)
            .map(|one| one.value.clone().unwrap());
        values.collect::<Vec<_>>()
    };
    assert_eq!(
        (of("bern"), of("genf")),
        (vec!["be".to_owned()], vec!["ge".to_owned()])
    );
    definitions.remove_remote(&bern.remote).unwrap();
    subscribe(&store, "bern", "zh");
    assert_eq!(of("bern"), ["zh"], "those of a former remote ended with it");
}

#[test]
fn what_came_from_the_only_subscriber_makes_no_entry_r4() {
    let mut frame = transaction(&["orders/be/1"]);
    frame.set_via(via("bern"));
    let bern = || subscription(10, "bern", "orders", Some("be"));
    assert!(decided(by_segment(vec![bern()]), frame.clone()).is_none());
    let both = vec![bern(), subscription(11, "head", "orders", Some("be"))];
    assert!(decided(by_segment(both), frame).is_some());
}

#[test]
fn an_entry_keeps_origin_and_via_unchanged() {
    let mut frame = transaction(&["orders/be/1"]);
    let origin = Origin {
        site: StoreId(9),
        name: SiteName::new("till").unwrap(),
        epoch: Epoch(4),
        lsn: Lsn(5),
    };
    frame.set_origin(origin.clone());
    frame.set_via(via("genf"));
    let made = decided(
        by_segment(vec![subscription(10, "bern", "orders", Some("be"))]),
        frame,
    )
    .unwrap();
    with_frame(made, |frame| {
        let entry = Entry::read(frame).unwrap().unwrap();
        assert_eq!(entry.origin.unwrap().to_owned().unwrap(), origin);
        assert_eq!(entry.via.unwrap().to_owned().unwrap(), via("genf"));
    });
}

#[test]
fn a_damaged_entry_is_an_error_or_an_entry_but_never_a_panic() {
    let made = decided(
        by_segment(vec![subscription(10, "bern", "orders", Some("be"))]),
        transaction(&["orders/be/1"]),
    );
    let body = made.unwrap().body().to_vec();
    let read = |body: Vec<u8>| {
        with_frame(NewFrame::of_kind(ENTRY_FRAME, body), |frame| {
            let Ok(Some(entry)) = Entry::read(frame) else {
                return;
            };
            let wanted = vec![true; entry.topics.len()];
            entry
                .events_under(&wanted)
                .for_each(|event| drop(event.map(|event| event.to_event())));
        });
    };
    for at in 0..body.len() {
        read(body.get(..at).unwrap().to_vec());
        for bit in 0..8 {
            let mut damaged = body.clone();
            *damaged.get_mut(at).unwrap() ^= 1 << bit;
            read(damaged);
        }
    }
}

/// Two events under two topics, the first under both.
fn golden_entry() -> NewFrame {
    let position = Position {
        epoch: Epoch(0xe90c),
        lsn: Lsn(4_224),
        chain: Chain(0xc4a1),
    };
    let topic = |publication: &str, value: Option<&str>| Topic {
        publication: publication.to_owned(),
        value: value.map(str::to_owned),
    };
    let mut made = None;
    with_frame(transaction(&["orders/be", "bills", "till"]), |frame| {
        let mut entry = NewEntry::at(position, 1_700_000_000_000_000, *frame);
        assert_eq!(entry.add_topic(&topic("orders", Some("be"))).unwrap(), 0);
        assert_eq!(entry.add_topic(&topic("all", None)).unwrap(), 1);
        let due: [&[u16]; 3] = [&[0, 1], &[], &[1]];
        for (event, topics) in frame.events().zip(due) {
            entry.add_event(&event.unwrap(), topics).unwrap();
        }
        made = Some(entry.into_frame(InPlace::default()).unwrap());
    });
    made.unwrap()
}

#[test]
fn an_entry_of_format_1_is_written_and_read_as_ever() {
    let frame = golden_entry();
    let written = frame.clone().encode(0, 0).unwrap().to_vec()[32..32 + frame.body_len()].to_vec();
    let body = kept("entry", &written);
    assert_eq!(body, written);
    assert_eq!(frame.kind(), FrameKind(160));
    let topics = [("orders", Some("be")), ("all", None)].map(|(publication, value)| Topic {
        publication: publication.to_owned(),
        value: value.map(str::to_owned),
    });
    with_frame(NewFrame::of_kind(ENTRY_FRAME, body.clone()), |frame| {
        let entry = Entry::read(frame).unwrap().unwrap();
        let Position { epoch, lsn, chain } = entry.position;
        assert_eq!((epoch, lsn, chain), (Epoch(0xe90c), Lsn(4_224), Chain(0xc4a1)));
        assert_eq!(
            (entry.time, &entry.topics[..]),
            (1_700_000_000_000_000, &topics[..])
        );
        for (wanted, streams) in [
            ([true, false], &["orders/be"][..]),
            ([false, true], &["orders/be", "till"]),
        ] {
            let events = entry.events_under(&wanted).map(Result::unwrap);
            let found: Vec<_> = events.map(|event| event.stream().unwrap()).collect();
            assert_eq!(found, streams);
        }
    });
    // docs/format.md, "Queue entry".
    let fields: &[(usize, &[u8])] = &[
        (0, &1u16.to_le_bytes()),
        (2, &2u16.to_le_bytes()),
        (4, &2u32.to_le_bytes()),
        (8, &3u32.to_le_bytes()),
        (12, &[0; 4]),
        (16, &4_224u64.to_le_bytes()),
        (24, &0xe90c_u64.to_le_bytes()),
        (32, &0xc4a1_u64.to_le_bytes()),
        (40, &1_700_000_000_000_000_u64.to_le_bytes()),
        // Topics: publication_len, value_len, reserved, publication, value.
        (48, &[6, 0, 2, 0, 0, 0, 0, 0]),
        (56, b"ordersbe"),
        (64, &[3, 0, 0xff, 0xff, 0, 0, 0, 0]),
        (72, b"all\0\0\0\0\0"),
        // Matches: two topics of the first event, one of the other.
        (80, &[2, 0, 0, 0, 1, 0, 1, 0]),
        (88, &[1, 0, 0, 0, 0, 0, 0, 0]),
        // Events: payload_len, ordinal, stream_len, kind_len, headers_len, stream, kind, payload.
        (96, &[9, 0, 0, 0, 0, 0, 0, 0]),
        (104, &[9, 0, 6, 0, 0, 0, 0, 0]),
        (112, b"orders/beplacedorders/be"),
        (136, &[4, 0, 0, 0, 2, 0, 0, 0]),
        (144, &[4, 0, 6, 0, 0, 0, 0, 0]),
        (152, b"tillplacedtill\0\0"),
    ];
    assert_laid_out("entry", &body, fields);
}
