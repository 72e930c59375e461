//! What a neighbour says of our log: forks are found, delay and replay are not taken for them (R5).

use super::*;
use crate::message::{Range, Requests};

/// A message without data that says this of our log.
fn says(received: Point, confirmed: Point) -> Message {
    let mut message = Message::bare(header());
    (message.header.received, message.header.confirmed) = (received, confirmed);
    message
}

fn asks(number: u64, after: Point, up_to: Point) -> Message {
    let mut message = says(after, after);
    message.header.requests = Some(Requests {
        number,
        ranges: vec![Range { after, up_to }],
    });
    message
}

/// A receiver whose neighbour has told that it has our log up to here.
fn told(lsn: u64) -> Receiver {
    let mut receiver = holding(10);
    assert!(matches!(
        take(&mut receiver, &says(ours(lsn), ours(lsn))),
        Verdict::Noted
    ));
    receiver
}

fn probe(held: u64, log_sent: u64) -> ProbeRecord {
    ProbeRecord {
        generation: 1,
        nonce: 7,
        log_sent: ours(log_sent),
        held: ours(held),
        suspicions: 0,
    }
}

fn answers(receiver: &mut Receiver, lsn: u64, probe: &ProbeRecord) -> Verdict {
    let mut message = says(ours(lsn), ours(lsn));
    message.header.answer = Some(7);
    receiver.receive(&message, Some(probe), &Ours::default()).unwrap()
}

#[test]
fn a_claim_above_what_we_hold_moves_it() {
    let mut receiver = told(100);
    let _ = take(&mut receiver, &says(ours(250), ours(240)));
    let told = &receiver.records().told;
    assert_eq!(
        (told.received, told.confirmed, told.suspicions),
        (ours(250), ours(240), 0)
    );
}

#[test]
fn a_claim_that_our_log_does_not_bear_out_is_a_fork() {
    let beyond_our_end = ours(1010);
    let on_no_commit = ours(205);
    let other_chain = Point {
        position: Position {
            chain: Chain(3),
            ..ours(200).position
        },
        back: Lsn(0),
    };
    let other_chain_where_it_was = Point {
        position: Position {
            chain: Chain(3),
            ..ours(100).position
        },
        back: Lsn(0),
    };
    let other_epoch = in_epoch(Epoch(0x0f), 200);
    for point in [
        beyond_our_end,
        on_no_commit,
        other_chain,
        other_chain_where_it_was,
        other_epoch,
    ] {
        for message in [
            says(point, Point::NONE),
            says(point, point),
            asks(1, ours(100), point),
            asks(1, point, ours(300)),
        ] {
            let mut receiver = told(100);
            let verdict = take(&mut receiver, &message);
            assert!(
                matches!(verdict, Verdict::Stopped(StopReason::Fork(_))),
                "{point}: {verdict:?}"
            );
            assert_eq!(receiver.records().told.received, ours(100));
        }
    }
}

/// We were restored. It had heard of what we lost and asked for it, and the pair was stopped though it held none of it.
#[test]
fn what_is_asked_for_of_a_lineage_that_we_left_is_no_fork_and_what_is_held_of_it_is() {
    let left = Epoch(0x0f);
    let ours_is = Ours {
        left: Some((left, Lsn(500))),
        ..Ours::default()
    };
    let take = |message: &Message| {
        let mut receiver = told(100);
        let verdict = receiver.receive(message, None, &ours_is).unwrap();
        (verdict, receiver.records().told.clone())
    };
    let (heard_of, before) = (in_epoch(left, 700), in_epoch(left, 400));
    let (verdict, told) = take(&asks(1, ours(100), heard_of));
    assert!(matches!(verdict, Verdict::Noted), "{verdict:?}");
    // What it misses of the lineage that we are in is known by no request: it is probed for.
    assert_eq!((told.serve.len(), told.its_request, told.suspicions), (0, 1, 1));
    let mut only_the_range = asks(1, heard_of, in_epoch(left, 800));
    (only_the_range.header.received, only_the_range.header.confirmed) = (ours(100), ours(100));
    for message in [
        only_the_range,
        says(heard_of, Point::NONE),
        asks(1, heard_of, in_epoch(left, 800)),
        asks(1, heard_of, ours(900)),
        // Before the fork that lineage is ours, and this is no commit of it.
        asks(
            1,
            ours(100),
            Point {
                position: Position {
                    chain: Chain(3),
                    ..before.position
                },
                ..before
            },
        ),
    ] {
        let (verdict, _) = take(&message);
        assert!(
            matches!(verdict, Verdict::Stopped(StopReason::Fork(_))),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_confirmation_between_what_we_hold_confirmed_and_received_is_checked_too() {
    let mut receiver = told(100);
    let _ = take(&mut receiver, &says(ours(300), ours(100)));
    let verdict = take(&mut receiver, &says(ours(300), ours(205)));
    assert!(matches!(verdict, Verdict::Stopped(StopReason::Fork(_))));
}

#[test]
fn an_old_claim_changes_nothing_but_raises_a_suspicion() {
    let mut receiver = told(200);
    for old in [ours(100), Point::NONE, ours(10)] {
        assert!(matches!(take(&mut receiver, &says(old, old)), Verdict::Noted));
    }
    let told = &receiver.records().told;
    assert_eq!(
        (told.received, told.confirmed, told.went_back),
        (ours(200), ours(200), 0)
    );
    assert_eq!(told.suspicions, 3);
}

#[test]
fn an_old_claim_in_a_message_that_waits_is_suspected_once_it_leaves_and_not_in_every_poll() {
    let mut receiver = told(200);
    let mut waits = data(30, &[40]);
    (waits.header.received, waits.header.confirmed) = (ours(100), ours(100));
    for _ in 0..5 {
        assert!(matches!(take(&mut receiver, &waits), Verdict::Gap(_)));
    }
    assert_eq!(receiver.records().told.suspicions, 0);
    let mut between = data(10, &[20, 30]);
    between.header.received = ours(200);
    let _ = take(&mut receiver, &between);
    assert!(matches!(take(&mut receiver, &waits), Verdict::Apply(_)));
    assert_eq!(receiver.records().told.suspicions, 1);
}

#[test]
fn a_neighbour_went_back_when_the_answer_to_a_probe_says_less_than_was_held_before_it() {
    let mut receiver = told(200);
    assert!(matches!(
        answers(&mut receiver, 100, &probe(200, 300)),
        Verdict::Noted
    ));
    let told = receiver.records().told.clone();
    assert_eq!(
        (told.received, told.confirmed, told.went_back),
        (ours(100), ours(100), 1)
    );
    assert_eq!(told.suspicions, 0, "this is proved, not suspected");
    // The link repeats the answer after the neighbour has caught up: its nonce is spent.
    let _ = take(&mut receiver, &says(ours(300), ours(300)));
    assert!(matches!(
        answers(&mut receiver, 100, &probe(200, 300)),
        Verdict::Noted
    ));
    assert_eq!(
        (
            receiver.records().told.received,
            receiver.records().told.went_back
        ),
        (ours(300), 1)
    );
}

/// The neighbour answered at 100, went on and told 200; then the answer came, with the right nonce.
#[test]
fn an_answer_that_was_overtaken_by_better_news_is_no_return_to_the_past() {
    let mut receiver = told(100);
    let open = probe(100, 300);
    let _ = take(&mut receiver, &says(ours(200), ours(200)));
    assert!(matches!(answers(&mut receiver, 100, &open), Verdict::Noted));
    let told = &receiver.records().told;
    assert_eq!(
        (told.received, told.went_back, told.answered),
        (ours(200), 0, Some(7))
    );
    assert_eq!(
        told.serve,
        [(
            1,
            Range {
                after: ours(200),
                up_to: ours(300)
            }
        )]
    );
}

/// The neighbour told more after the probe had left, was restored to less, and then answers: that proves nothing, and were it
/// not suspected, nobody would ask again.
#[test]
fn an_answer_below_what_is_held_by_now_is_suspected_where_it_proves_nothing() {
    let mut receiver = told(100);
    let _ = answers(&mut receiver, 50, &probe(10, 90));
    let told = &receiver.records().told;
    assert_eq!(
        (told.received, told.went_back, told.suspicions),
        (ours(100), 0, 1)
    );
}

#[test]
fn an_answer_with_another_nonce_or_none_open_proves_nothing() {
    let mut receiver = told(200);
    let other = ProbeRecord {
        nonce: 8,
        ..probe(200, 300)
    };
    assert!(matches!(answers(&mut receiver, 100, &other), Verdict::Noted));
    let of_another_generation = ProbeRecord {
        generation: 2,
        ..probe(200, 300)
    };
    assert!(matches!(
        answers(&mut receiver, 100, &of_another_generation),
        Verdict::Noted
    ));
    let mut message = says(ours(100), ours(100));
    message.header.answer = Some(7);
    let _ = take(&mut receiver, &message);
    let told = &receiver.records().told;
    assert_eq!(
        (told.received, told.went_back, told.answered),
        (ours(200), 0, None)
    );
}

#[test]
fn the_answer_to_a_probe_makes_what_is_missing_at_the_end_go_again() {
    let mut receiver = told(100);
    assert!(matches!(
        answers(&mut receiver, 150, &probe(100, 300)),
        Verdict::Noted
    ));
    assert_eq!(
        receiver.records().told.serve,
        [(
            1,
            Range {
                after: ours(150),
                up_to: ours(300)
            }
        )]
    );
    let mut nothing_missing = told(100);
    assert!(matches!(
        answers(&mut nothing_missing, 300, &probe(100, 300)),
        Verdict::Noted
    ));
    assert_eq!(nothing_missing.records().told.serve, []);
}

#[test]
fn a_request_is_noted_once_however_often_it_comes() {
    let mut receiver = told(100);
    for _ in 0..3 {
        let _ = take(&mut receiver, &asks(4, ours(100), ours(150)));
    }
    assert_eq!(
        receiver.records().told.serve,
        [(
            1,
            Range {
                after: ours(100),
                up_to: ours(150)
            }
        )]
    );
    // Asked anew for the same range, it goes again, once, under a new number.
    let _ = take(&mut receiver, &asks(5, ours(100), ours(150)));
    assert_eq!(
        receiver.records().told.serve,
        [(
            2,
            Range {
                after: ours(100),
                up_to: ours(150)
            }
        )]
    );
    // What it has by now is forgotten; an old request for it is no news.
    let _ = take(&mut receiver, &says(ours(150), ours(150)));
    let _ = take(&mut receiver, &asks(3, ours(100), ours(150)));
    assert_eq!(receiver.records().told.serve, []);
}

#[test]
fn the_ranges_kept_for_a_neighbour_are_bounded() {
    let mut receiver = told(100);
    for number in 1..100 {
        let _ = take(
            &mut receiver,
            &asks(number, ours(100), ours(100 + number % 50 * 10 + 10)),
        );
    }
    assert_eq!(receiver.records().told.serve.len(), 16);
}

#[test]
fn a_store_that_fails_leaves_the_message_untaken() {
    let mut receiver = told(100);
    let before = receiver.records().told.clone();
    let fails = Ours {
        fails: true,
        ..Ours::default()
    };
    assert!(
        receiver
            .receive(&says(ours(200), ours(200)), None, &fails)
            .is_err()
    );
    assert_eq!(receiver.records().told, before);
}
