//! What matches what, and what is due to whom, without a log.

use milepost_engine::block::{Block, BlockBuilder, BlockKind, Seal};
use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Event, Lsn, SiteName, StoreId};
use proptest::prelude::*;

use super::*;

mod golden;

/// A transaction in a block, as the scan would meet it.
pub(crate) fn with_events(events: &[Event], look: impl FnOnce(&FrameRef<'_>)) {
    let mut frame = NewFrame::transaction();
    for (ordinal, event) in events.iter().enumerate() {
        frame.push_event(u32::try_from(ordinal).unwrap(), event).unwrap();
    }
    with_frame(frame, look);
}

pub(crate) fn with_frame(frame: NewFrame, look: impl FnOnce(&FrameRef<'_>)) {
    let mut builder = BlockBuilder::new();
    builder.push(&frame.encode(0, 0).unwrap());
    let seal = Seal {
        kind: BlockKind::Log,
        close: false,
        owner: StoreId(1).into(),
        epoch: Epoch(1),
        lsn: Lsn(4096),
        durable: Lsn::ZERO,
        nonce: 1,
        chain: Chain(0),
        aux: 0,
    };
    let sealed = builder.seal(&seal, 1);
    let block = Block::check(&sealed.bytes).unwrap();
    look(&block.frames().next().unwrap().unwrap());
}

pub(crate) fn subscription(id: u64, remote: &str, publication: &str, value: Option<&str>) -> Subscription {
    Subscription {
        id: SubscriptionId(id),
        remote: SiteName::new(remote).unwrap(),
        publication: publication.to_owned(),
        value: value.map(str::to_owned),
        from: Lsn(id),
        until: None,
        revoked: None,
    }
}

pub(crate) fn catalog(by: Option<SubscribeBy>, kinds: &[&str], subscriptions: Vec<Subscription>) -> Catalog {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let articles = vec![Article {
        streams: "orders/**".into(),
        kinds,
    }];
    let publication = Publication {
        name: "orders".into(),
        version: 1,
        since: Lsn(1),
        articles,
        by,
    };
    let mut catalog = Catalog::default();
    catalog.publications.insert("orders".into(), publication);
    catalog
        .subscriptions
        .extend(subscriptions.into_iter().map(|one| (one.id, one)));
    catalog
}

/// For each event, the values of the topics found.
fn values_found(matcher: &mut Matcher, events: &[Event]) -> Vec<Vec<Option<String>>> {
    let mut all = Vec::new();
    with_events(events, |frame| {
        for event in frame.events() {
            let mut topics = Vec::new();
            matcher.topics_of(&event.unwrap(), &mut topics).unwrap();
            all.push(
                topics
                    .iter()
                    .map(|id| matcher.topic(*id).unwrap().value.clone())
                    .collect(),
            );
        }
    });
    all
}

#[test]
fn a_value_is_taken_from_the_segment_and_an_event_without_one_is_counted() {
    let by = Some(SubscribeBy::Segment(2));
    let catalog = catalog(by, &[], vec![subscription(10, "bern", "orders", Some("be"))]);
    let mut matcher = Matcher::new(&catalog, |_| true).unwrap();
    let event = |stream| Event::new(stream, "placed", *b"{}").unwrap();
    let events = [
        event("orders/be/1"),
        event("orders/zh/1"),
        event("orders"),
        event("bills/be"),
    ];
    let be = || vec![Some("be".to_owned())];
    assert_eq!(
        values_found(&mut matcher, &events),
        [be(), vec![], vec![], vec![]]
    );
    assert_eq!(matcher.without_value, 1);
}

#[test]
fn a_value_is_taken_from_the_header_and_kinds_are_told_apart() {
    let by = Some(SubscribeBy::Header("shop".into()));
    let catalog = catalog(
        by,
        &["placed"],
        vec![subscription(10, "bern", "orders", Some("be"))],
    );
    let mut matcher = Matcher::new(&catalog, |_| true).unwrap();
    let event = |kind, shop| {
        Event::new("orders/1", kind, *b"{}")
            .unwrap()
            .header("shop", shop)
            .unwrap()
    };
    let without = Event::new("orders/1", "placed", *b"{}").unwrap();
    let events = [
        event("placed", "be"),
        event("billed", "be"),
        event("placed", "zh"),
        without,
    ];
    assert_eq!(
        values_found(&mut matcher, &events),
        [vec![Some("be".to_owned())], vec![], vec![], vec![]]
    );
    assert_eq!(matcher.without_value, 1);
}

#[test]
fn a_transaction_is_due_within_the_range_only_and_never_to_where_it_came_from_r4() {
    let mut one = subscription(10, "bern", "orders", None);
    one.until = Some(Lsn(100));
    let matcher = Matcher::new(&catalog(None, &[], vec![one]), |_| true).unwrap();
    let due = |lsn, via| matcher.is_due_live(0, Lsn(lsn), via);
    assert!(!due(9, None) && due(11, None) && due(99, None) && !due(101, None));
    assert!(!due(50, Some("bern")) && due(50, Some("genf")));
}

#[test]
fn a_second_subscriber_is_due_what_the_first_sent_us_r4() {
    let both = vec![
        subscription(10, "bern", "orders", None),
        subscription(20, "genf", "orders", None),
    ];
    let matcher = Matcher::new(&catalog(None, &[], both), |_| true).unwrap();
    assert!(matcher.is_due_live(0, Lsn(50), Some("bern")));
    assert!(
        !matcher.is_due_live(0, Lsn(15), Some("bern")),
        "genf had not subscribed yet"
    );
}

#[test]
fn a_publication_nobody_subscribes_to_costs_nothing() {
    assert!(
        Matcher::new(&catalog(None, &[], vec![]), |_| true)
            .unwrap()
            .is_idle()
    );
}

#[test]
fn a_record_says_the_same_after_it_was_written_and_read() {
    let bytes = record::RemoteBytes {
        previous: Lsn(7),
        generation: 3,
        added: Lsn::ZERO,
        value: Some((vec!["file:///x".into()], Schedule::AtMinute(90), true)),
    };
    let site = SiteName::new("bern").unwrap();
    with_frame(
        record::frame(record::remote_key(&site), &bytes).unwrap(),
        |frame| {
            let mut catalog = Catalog::default();
            assert!(catalog.follow(frame).unwrap());
            let remote = catalog.remote(&site).unwrap();
            assert_eq!(
                (remote.since, remote.added, remote.generation),
                (frame.lsn(), frame.lsn(), 3)
            );
            assert_eq!(
                (remote.schedule, remote.consolidated),
                (Schedule::AtMinute(90), true)
            );
        },
    );
}

proptest! {
    #[test]
    fn a_damaged_record_is_an_error_or_a_definition_but_never_a_panic(
        cut in 0usize..120, flip in 0usize..120, bit in 0u8..8,
    ) {
        let bytes = record::SubscriptionBytes {
            previous: Lsn(7), id: Lsn(9), remote: "bern".into(), publication: "orders".into(),
            value: Some("be".into()), from: Some(Lsn(3)), end: record::End::Ended, until: None,
        };
        let mut frame = record::frame(record::subscription_key(1), &bytes).unwrap();
        let mut value = frame.pinned()[0].value.clone().unwrap();
        if let Some(byte) = value.get_mut(flip) { *byte ^= 1 << bit; }
        value.truncate(cut);
        frame = NewFrame::of_kind(CATALOG_FRAME, Vec::new());
        frame.pin(milepost_engine::Pinned { key: record::subscription_key(1), value: Some(value) });
        with_frame(frame, |frame| { let _ = Catalog::default().follow(frame); });
    }
}
